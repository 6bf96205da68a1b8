package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/group"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/quorum"
	"github.com/leatstream/leat/internal/replica"
	"github.com/leatstream/leat/internal/storage"
	"github.com/leatstream/leat/internal/vfs"
	"github.com/leatstream/leat/internal/wire"
)

// replicated is several brokers with the same metadata, whose replicas speak to each other without a
// network. Clients reach them on ports of the loopback. The controller's rules decide on in-sync sets.
type replicated struct {
	t       testing.TB
	static  *config.Static
	brokers []*replicatedBroker // by id - 1

	image atomic.Pointer[meta.Image]
	mu    sync.Mutex // held while the metadata change
}

type replicatedBroker struct {
	id     int32
	set    *replica.Set
	addr   string
	cutOff atomic.Bool // it reaches no leader

	contact atomic.Uint32 // with the active controller: a Contact
}

var errCutOff = errors.New("the node is cut off")

// newReplicated starts brokers in racks, which have broker configs as key, value, key, value.
func newReplicated(tb testing.TB, racks []string, configs ...string) *replicated {
	tb.Helper()
	c := &replicated{t: tb}
	c.image.Store(meta.Empty())
	settings := map[string]string{}
	for i := 0; i < len(configs); i += 2 {
		settings[configs[i]] = configs[i+1]
	}
	var err error
	if c.static, err = config.NewStatic(1, settings); err != nil {
		tb.Fatal(err)
	}
	recs := []meta.Record{
		meta.ClusterCreated{ID: "MkU3OEVBNTcwNTJENDM2Qk", Tag: 5}, meta.FeatureSet{Name: meta.LevelFeature, Level: meta.LevelCluster},
	}
	for i, rack := range racks {
		n := c.start(int32(i)+1, settings)
		host, port, err := net.SplitHostPort(n.addr)
		if err != nil {
			tb.Fatal(err)
		}
		number, err := net.LookupPort("tcp", port)
		if err != nil {
			tb.Fatal(err)
		}
		recs = append(recs, meta.BrokerRegistered{Broker: meta.Broker{
			ID: n.id, State: meta.BrokerActive, Rack: rack, Epoch: int64(n.id), Listeners: []meta.Listener{{Name: "PLAINTEXT", Host: host, Port: int32(number)}},
		}})
	}
	c.write(recs...)
	return c
}

// start starts a broker.
func (c *replicated) start(id int32, settings map[string]string) *replicatedBroker {
	c.t.Helper()
	log := slog.New(slog.DiscardHandler)
	static, err := config.NewStatic(id, settings)
	if err != nil {
		c.t.Fatal(err)
	}
	store, err := storage.Open(storage.Config{FS: vfs.NewMem(), Dir: "data", Logger: log})
	if err != nil {
		c.t.Fatal(err)
	}
	n := &replicatedBroker{id: id}
	c.brokers = append(c.brokers, n)
	n.set = replica.NewSet(replica.Config{NodeID: id, Store: store, Static: static, Transport: &direct{c, n}})
	groups := group.New(group.Config{Logger: log, Partitions: func() int32 { return 0 }})
	b, err := New(Config{
		NodeID: id, Logger: log, Image: c.image.Load, Set: n.set, Context: c.t.Context,
		Groups: groups, Coordination: Coordination{EnsureTopic: func(context.Context, string) error { return nil }},
		Contact:     func() Contact { return Contact(n.contact.Load()) },
		ProducerIDs: func(context.Context) (first, count int64, err error) { return int64(id) * 1000, 1000, nil },
		Static:      static, LogDir: "/data", Quorum: func() quorum.Status { return quorum.Status{Leader: 1, Term: 1, Voters: []int32{1}} },
		Controller: controller.New(controller.Config{Image: c.image.Load, Static: static, Leading: alwaysLeads, Propose: func(_ context.Context, _ uint64, b []byte) error {
			c.decide(func(*controller.Rules) []byte { return b })
			return nil
		}}),
	})
	if err != nil {
		c.t.Fatal(err)
	}
	server := wire.NewServer(wire.Config{Logger: log}, b)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		c.t.Fatal(err)
	}
	n.addr = l.Addr().String()
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(&wire.Listener{Listener: l, Name: "PLAINTEXT"}) })
	ended := make(chan struct{})
	running.Go(func() {
		for t := time.NewTicker(50 * time.Millisecond); ; {
			select {
			case <-t.C:
				n.set.Expire(n.set.Now())
			case <-ended:
				t.Stop()
				return
			}
		}
	})
	stop := func() {
		b.Drain()
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		_ = l.Close()
		if err := server.Shutdown(ctx); err != nil {
			c.t.Errorf("shutdown: %v", err)
		}
	}
	c.t.Cleanup(func() {
		stop()
		close(ended)
		running.Wait()
		b.Close()
		groups.Close()
		n.set.Close()
		if err := store.Close(); err != nil {
			c.t.Errorf("close the store: %v", err)
		}
	})
	return n
}

// write writes records into the metadata.
func (c *replicated) write(recs ...meta.Record) {
	c.decide(func(*controller.Rules) (entry []byte) {
		for _, r := range recs {
			entry = meta.Append(entry, r)
		}
		return entry
	})
}

// decide has the metadata changed by what rules decide on them.
func (c *replicated) decide(by func(r *controller.Rules) []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	entry := by(&controller.Rules{Image: c.image.Load(), Static: c.static})
	img, d, err := meta.Apply(c.image.Load(), entry)
	if err != nil {
		c.t.Error(err)
		return
	}
	c.image.Store(img)
	for _, n := range c.brokers {
		n.set.Apply(d, img)
	}
}

// topic makes a topic with one partition on all brokers, which the first one leads.
func (c *replicated) topic(name string) {
	id := meta.NewUUID()
	var all []int32
	for _, n := range c.brokers {
		all = append(all, n.id)
	}
	c.write(meta.TopicCreated{ID: id, Name: name}, meta.PartitionsSet{Topic: id, Partitions: []meta.Partition{{Replicas: all, ISR: all, Leader: 1}}})
}

// client makes a client of the brokers.
func (c *replicated) client(opts ...kgo.Opt) *kgo.Client {
	c.t.Helper()
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(c.brokers[0].addr), kgo.MetadataMinAge(50*time.Millisecond))...)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(cl.Close)
	return cl
}

// direct is the transport of a broker's replicas.
type direct struct {
	c    *replicated
	from *replicatedBroker
}

func (d *direct) Fetch(ctx context.Context, leader int32, r *replica.FetchRequest) (*replica.FetchAnswer, error) {
	if d.from.cutOff.Load() {
		return nil, errCutOff
	}
	a, err := d.c.brokers[leader-1].set.ServeFetch(ctx, r)
	if err == nil && d.from.cutOff.Load() {
		a.Release()
		return nil, errCutOff
	}
	return a, err
}

func (d *direct) Report(_ context.Context, leader int32, r *replica.Reports) error {
	if d.from.cutOff.Load() {
		return errCutOff
	}
	d.c.brokers[leader-1].set.TakeReports(r)
	return nil
}

func (d *direct) AlterInSync(_ context.Context, changes []replica.InSyncChange) error {
	d.c.decide(func(r *controller.Rules) []byte {
		asked := make([]controller.InSyncChange, len(changes))
		for i, ch := range changes {
			asked[i] = controller.InSyncChange{Topic: ch.ID.Topic, Partition: ch.ID.Partition, LeaderEpoch: int32(ch.Epoch), PartitionEpoch: ch.PartitionEpoch, GivesUp: ch.GivesUp, Successor: ch.Successor, Damaged: ch.Damaged}
			for _, m := range ch.ISR {
				asked[i].ISR = append(asked[i].ISR, controller.Member{ID: m.ID, Epoch: m.BrokerEpoch})
			}
		}
		part, _, _ := r.AlterPartitions(d.from.id, int64(d.from.id), asked)
		return part.Records
	})
	return nil
}

// TestDeleteRecordsWaitsForReplicas proves, with a client of others, that DeleteRecords is answered when all replicas
// have deleted the records; that its time-out is answered as such, though the leader has deleted them; and that
// the answer has the low watermark.
func TestDeleteRecordsWaitsForReplicas(t *testing.T) {
	c := newReplicated(t, []string{"a", "b", "c"}, "replica.fetch.backoff.ms", "10")
	c.topic("t")
	cl := c.client(kgo.DefaultProduceTopic("t"))
	for i := range 10 {
		if err := cl.ProduceSync(t.Context(), kgo.StringRecord(fmt.Sprint(i))).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	adm := kadm.NewClient(cl)
	last := c.brokers[2]
	last.cutOff.Store(true)
	remove := func(below int64, within int32) kadm.DeleteRecordsResponse {
		t.Helper()
		adm.SetTimeoutMillis(within)
		var o kadm.Offsets
		o.AddOffset("t", 0, below, -1)
		got, err := adm.DeleteRecords(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		r, _ := got.Lookup("t", 0)
		return r
	}
	if r := remove(4, 200); !errors.Is(r.Err, kerr.RequestTimedOut) || r.LowWatermark != 0 {
		t.Errorf("one replica is cut off: %v, the low watermark is %d", r.Err, r.LowWatermark)
	}
	if start := c.brokers[0].set.Partition("t", 0).Start(); start != 4 {
		t.Errorf("the leader begins at %d", start)
	}
	answered := make(chan kadm.DeleteRecordsResponse, 1)
	go func() { answered <- remove(6, 50_000) }()
	eventually(t, "the leader has deleted the records", func() bool { return c.brokers[0].set.Partition("t", 0).Start() == 6 })
	if start := last.set.Partition("t", 0).Start(); start >= 4 || len(answered) > 0 {
		t.Fatalf("the replica that is cut off begins at %d: the test proves nothing", start)
	}
	last.cutOff.Store(false)
	r := <-answered
	for _, n := range c.brokers {
		if start := n.set.Partition("t", 0).Start(); start != 6 || r.LowWatermark != 6 || r.Err != nil {
			t.Errorf("the answer is %d, %v, and the replica of node %d begins at %d", r.LowWatermark, r.Err, n.id, start)
		}
	}
}

// fetchCount counts the bytes of the answers to a client's fetches, by node.
type fetchCount struct{ bytes [4]atomic.Int64 }

// OnBrokerE2E is of kgo.HookBrokerE2E.
func (f *fetchCount) OnBrokerE2E(m kgo.BrokerMetadata, key int16, e2e kgo.BrokerE2E) {
	if key == 1 && m.NodeID > 0 && int(m.NodeID) < len(f.bytes) {
		f.bytes[m.NodeID].Add(int64(e2e.BytesRead))
	}
}

// TestReadersUseTheNearestReplica proves, with a client of others, that a consumer with a rack gets its records from
// the replica in that rack, with those that come while it waits there; that it goes on with the leader when that
// replica is not in sync any more; and that a consumer in a rack without a replica, or one that names none, reads from the
// leader (KIP-392).
func TestReadersUseTheNearestReplica(t *testing.T) {
	c := newReplicated(t, []string{"a", "b", "c"}, "replica.selector.class", "org.apache.kafka.common.replica.RackAwareReplicaSelector")
	c.topic("t")
	const size = 10_000
	producer := c.client(kgo.DefaultProduceTopic("t"), kgo.ProducerBatchCompression(kgo.NoCompression()))
	produce := func(count int) {
		t.Helper()
		for range count {
			if err := producer.ProduceSync(t.Context(), kgo.SliceRecord(make([]byte, size))).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
	}
	produce(20)
	type reader struct {
		*kgo.Client
		fetchCount
	}
	read := func(opts ...kgo.Opt) *reader {
		r := new(reader)
		r.Client = c.client(append(opts, kgo.WithHooks(&r.fetchCount), kgo.FetchMaxWait(100*time.Millisecond),
			kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"t": {0: kgo.NewOffset().AtStart()}}))...)
		return r
	}
	consume := func(r *reader, count int) {
		t.Helper()
		for got := 0; got < count; {
			f := r.PollFetches(t.Context())
			if err := f.Err0(); err != nil {
				t.Fatal(err)
			}
			got += f.NumRecords()
		}
	}
	near := read(kgo.Rack("b"), kgo.RecheckPreferredReplicaInterval(50*time.Millisecond))
	consume(near, 20)
	produce(10)
	consume(near, 10)
	if own, leader := near.bytes[2].Load(), near.bytes[1].Load(); own < 30*size || leader >= size {
		t.Errorf("from the replica in its rack it has got %d bytes, from the leader %d", own, leader)
	}
	for name, r := range map[string]*reader{"no replica in its rack": read(kgo.Rack("z")), "no rack": read()} {
		consume(r, 30)
		if others := r.bytes[2].Load() + r.bytes[3].Load(); others > 0 {
			t.Errorf("%s: from followers it has got %d bytes", name, others)
		}
	}
	c.brokers[1].cutOff.Store(true)
	c.decide(func(r *controller.Rules) []byte {
		part, refused := r.FenceBroker(2, 2)
		if refused != nil {
			t.Error(refused)
		}
		return part.Records
	})
	produce(10)
	consume(near, 10)
	if leader := near.bytes[1].Load(); leader < 10*size {
		t.Errorf("without the replica in its rack it has got %d bytes from the leader", leader)
	}
}
