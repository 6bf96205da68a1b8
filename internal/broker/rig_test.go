package broker

import (
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica"
	"github.com/leatstream/leat/internal/storage"
	"github.com/leatstream/leat/internal/vfs"
	"github.com/leatstream/leat/internal/wire"
)

// rig is a broker with everything below it, on a port of the loopback.
type rig struct {
	t      testing.TB
	image  atomic.Pointer[meta.Image]
	work   *budget.Budget
	store  *storage.Store
	set    *replica.Set
	broker *Broker
	stats  *wire.Stats
	addr   string

	mu  sync.Mutex
	ids int64 // the next producer id, guarded by mu
}

// newRig starts a broker in memory; change alters its configuration before.
func newRig(tb testing.TB, change ...func(*Config)) *rig {
	tb.Helper()
	return newRigOn(tb, vfs.NewMem(), "data", change...)
}

// newRigOn starts a broker on a directory of a file system.
func newRigOn(tb testing.TB, fs vfs.FS, dir string, change ...func(*Config)) *rig {
	tb.Helper()
	return startRig(tb, fs, dir, budget.MinBytes, change...)
}

// newRigWith starts a broker in memory that has so much work memory.
func newRigWith(tb testing.TB, work int64, change ...func(*Config)) *rig {
	tb.Helper()
	return startRig(tb, vfs.NewMem(), "data", work, change...)
}

func startRig(tb testing.TB, fs vfs.FS, dir string, work int64, change ...func(*Config)) *rig {
	tb.Helper()
	g := &rig{t: tb, ids: 1000, work: budget.New(budget.Config{Bytes: work, Processors: 1})}
	log := slog.New(slog.DiscardHandler)
	g.image.Store(meta.Empty())
	static, err := config.NewStatic(1, nil)
	if err != nil {
		tb.Fatal(err)
	}
	if g.store, err = storage.Open(storage.Config{FS: fs, Dir: dir, Logger: log, Work: g.work}); err != nil {
		tb.Fatal(err)
	}
	g.set = replica.NewSet(replica.Config{NodeID: 1, Store: g.store, Static: static})
	ctx := tb.Context() // a target of fuzzing may not be asked for it while it runs
	cfg := Config{
		NodeID: 1, Logger: log, Image: g.image.Load, Set: g.set,
		Context: func() context.Context { return ctx }, ProducerIDs: g.producerIDs, Work: g.work,
	}
	for _, f := range change {
		f(&cfg)
	}
	if g.broker, err = New(cfg); err != nil {
		tb.Fatal(err)
	}
	server := wire.NewServer(wire.Config{Logger: log, Work: g.work}, g.broker)
	g.stats = server.Stats()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	g.addr = l.Addr().String()
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(&wire.Listener{Listener: l}) })
	tb.Cleanup(func() {
		g.broker.Drain()
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		_ = l.Close()
		if err := server.Shutdown(ctx); err != nil {
			tb.Errorf("shutdown: %v", err)
		}
		serving.Wait()
		g.broker.Close()
		for c := budget.Peer; c <= budget.Unsent; c++ {
			if u := g.work.Usage(c); u.Used != 0 || u.Waiting != 0 {
				tb.Errorf("work memory of %s at the end: %+v", c, u)
			}
		}
		g.set.Close()
		if err := g.store.Close(); err != nil {
			tb.Errorf("close the store: %v", err)
		}
	})
	g.apply(meta.ClusterCreated{ID: "MkU3OEVBNTcwNTJENDM2Qk", Tag: 5},
		meta.BrokerRegistered{Broker: meta.Broker{ID: 1, State: meta.BrokerActive, Listeners: []meta.Listener{{Host: "127.0.0.1", Port: 9092}}, Epoch: 1}})
	return g
}

func (g *rig) producerIDs(context.Context) (first, count int64, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ids += 10
	return g.ids - 10, 10, nil
}

// apply applies records to the metadata, as one change.
func (g *rig) apply(recs ...meta.Record) {
	g.t.Helper()
	var entry []byte
	for _, r := range recs {
		entry = meta.Append(entry, r)
	}
	img, d, err := meta.Apply(g.image.Load(), entry)
	if err != nil {
		g.t.Fatal(err)
	}
	g.image.Store(img)
	g.set.Apply(d, img)
}

// topic creates a topic with settings as key, value, key, value.
func (g *rig) topic(name string, partitions int, configs ...string) meta.UUID {
	g.t.Helper()
	id := meta.NewUUID()
	parts := make([]meta.Partition, partitions)
	for i := range parts {
		parts[i] = meta.Partition{Replicas: []int32{1}, ISR: []int32{1}, Leader: 1}
	}
	recs := []meta.Record{meta.TopicCreated{ID: id, Name: name}, meta.PartitionsSet{Topic: id, Partitions: parts}}
	for i := 0; i < len(configs); i += 2 {
		recs = append(recs, meta.ConfigSet{
			Resource: config.Resource{Type: config.Topic, Name: name}, Key: configs[i], Value: configs[i+1],
		})
	}
	g.apply(recs...)
	return id
}

// client is a plain connection.
type client struct {
	t    testing.TB
	c    net.Conn
	id   string
	next int32
}

func dial(tb testing.TB, addr string) *client {
	tb.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = c.Close() })
	return &client{t: tb, c: c, id: "test"}
}

func (c *client) send(reqs ...kmsg.Request) {
	c.t.Helper()
	var b []byte
	for _, r := range reqs {
		b = append(b, kmsg.NewRequestFormatter(kmsg.FormatterClientID(c.id)).AppendRequest(nil, r, c.next)...)
		c.next++
	}
	if _, err := c.c.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

// frame reads one answer without its header of 4 bytes.
func (c *client) frame() ([]byte, error) {
	if err := c.c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		return nil, err
	}
	var head [8]byte
	if _, err := io.ReadFull(c.c, head[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint32(head[:])-4)
	_, err := io.ReadFull(c.c, b)
	return b, err
}

func (c *client) receive(req kmsg.Request) kmsg.Response {
	c.t.Helper()
	b, err := c.frame()
	if err != nil {
		c.t.Fatalf("%s v%d: %v", kmsg.NameForKey(req.Key()), req.GetVersion(), err)
	}
	resp := req.ResponseKind()
	if resp.IsFlexible() && req.Key() != apiVersionsKey {
		b = b[1:]
	}
	if err := resp.ReadFrom(b); err != nil {
		c.t.Fatalf("%s v%d: %v in %x", kmsg.NameForKey(req.Key()), req.GetVersion(), err, b)
	}
	return resp
}

// ask sends a request and returns its answer.
func ask[R kmsg.Response](c *client, req kmsg.Request) R {
	c.t.Helper()
	c.send(req)
	resp, ok := c.receive(req).(R)
	if !ok {
		c.t.Fatalf("the answer to %T is a %T", req, resp)
	}
	return resp
}

// batch makes a batch of n records with values.
func batch(tb testing.TB, values ...string) []byte {
	tb.Helper()
	return batchAt(tb, time.Now().UnixMilli(), values...)
}

func batchAt(tb testing.TB, ms int64, values ...string) []byte {
	tb.Helper()
	var b record.Builder
	for _, v := range values {
		b.Append(ms, []byte("key"), []byte(v))
	}
	out, err := b.Build()
	if err != nil {
		tb.Fatal(err)
	}
	return append([]byte(nil), out...)
}

// put is a produce request for one partition.
func put(topic string, partition int32, acks int16, records []byte) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.Acks, req.TimeoutMillis = 9, acks, 10_000
	addPart(req, topic, partition, records)
	return req
}

func addPart(req *kmsg.ProduceRequest, topic string, partition int32, records []byte) {
	p := kmsg.NewProduceRequestTopicPartition()
	p.Partition, p.Records = partition, records
	for i := range req.Topics {
		if req.Topics[i].Topic == topic {
			req.Topics[i].Partitions = append(req.Topics[i].Partitions, p)
			return
		}
	}
	t := kmsg.NewProduceRequestTopic()
	t.Topic, t.Partitions = topic, []kmsg.ProduceRequestTopicPartition{p}
	req.Topics = append(req.Topics, t)
}

// get is a fetch request without a session for one partition.
func get(topic string, partition int32, offset int64) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.Version, req.MaxWaitMillis, req.MinBytes, req.MaxBytes = 12, 0, 1, 1<<20
	wantPart(req, topic, partition, offset)
	return req
}

func wantPart(req *kmsg.FetchRequest, topic string, partition int32, offset int64) {
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.FetchOffset, p.PartitionMaxBytes = partition, offset, 1<<20
	for i := range req.Topics {
		if req.Topics[i].Topic == topic {
			req.Topics[i].Partitions = append(req.Topics[i].Partitions, p)
			return
		}
	}
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.Partitions = topic, []kmsg.FetchRequestTopicPartition{p}
	req.Topics = append(req.Topics, t)
}

// values reads the records' values of batches.
func values(tb testing.TB, b []byte) []string {
	tb.Helper()
	var out []string
	for len(b) > 0 {
		one, rest, err := record.Next(b)
		if err != nil {
			break // cut short
		}
		var r record.Reader
		r.Reset(one, 1<<30)
		for r.Next() {
			out = append(out, string(r.Record.Value))
		}
		if err := r.Err(); err != nil {
			tb.Fatal(err)
		}
		r.Close()
		b = rest
	}
	return out
}
