package main_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// upWithFiles starts a node with a limit of open files.
func upWithFiles(t *testing.T, files int, dir string, args ...string) *process {
	t.Helper()
	p := &process{addr: freeAddr(t)}
	p.cmd = exec.Command("sh", append([]string{"-c", `ulimit -n "$0" && exec "$@"`, strconv.Itoa(files), leat, "up", "--data", dir, "--listen", p.addr}, args...)...)
	p.start(t, dir)
	return p
}

// idlers are clients that connect, send nothing, and connect again when the node closes their
// connection.
type idlers struct {
	stop context.CancelFunc
	work sync.WaitGroup
	open atomic.Int64 // connections that were open for a while
	lost atomic.Int64 // connections that the node closed
}

func startIdlers(t *testing.T, addr string, n int) *idlers {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	l := &idlers{stop: stop}
	for range n {
		l.work.Go(func() {
			for ctx.Err() == nil {
				l.idle(ctx, addr)
				pause(ctx, 20*time.Millisecond)
			}
		})
	}
	t.Cleanup(l.end)
	return l
}

// idle holds one connection until the node closes it or ctx ends.
func (l *idlers) idle(ctx context.Context, addr string) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return
	}
	defer c.Close()
	unhook := context.AfterFunc(ctx, func() { c.Close() })
	defer unhook()
	l.open.Add(1)
	defer l.open.Add(-1)
	if _, err := c.Read(make([]byte, 1)); errors.Is(err, io.EOF) || err != nil && ctx.Err() == nil {
		l.lost.Add(1)
	}
}

func (l *idlers) end() {
	l.stop()
	l.work.Wait()
}

// TestFewDescriptors proves that clients cannot take the descriptors that logs need. While more
// clients are connected than the process may have descriptors, topics roll their segments and
// producers go on. When the clients have gone, nothing is wrong.
func TestFewDescriptors(t *testing.T) {
	t.Parallel()
	p := upWithFiles(t, 200, t.TempDir(), "--http", "off")
	p.awaitReady(t)
	topics := []string{"one", "two"}
	adm := kadm.NewClient(p.client(t))
	if _, err := adm.CreateTopics(t.Context(), 1, 1, map[string]*string{"segment.bytes": new("1048576")}, topics...); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var producers sync.WaitGroup
	acked := make([]atomic.Int64, len(topics))
	for i, topic := range topics {
		cl := p.client(t, kgo.DefaultProduceTopic(topic), kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerBatchCompression(kgo.NoCompression()),
			kgo.RetryBackoffFn(func(int) time.Duration { return 20 * time.Millisecond }))
		producers.Go(func() {
			value := make([]byte, 100_000)
			for ctx.Err() == nil {
				if err := cl.ProduceSync(t.Context(), &kgo.Record{Value: value}).FirstErr(); err != nil {
					t.Errorf("%s: %v", topic, err)
					return
				}
				acked[i].Add(1)
				pause(ctx, 5*time.Millisecond)
			}
		})
	}
	awaitMore := func(n int64) {
		t.Helper()
		for i, topic := range topics {
			before := acked[i].Load()
			eventually(t, "records of "+topic+" are acknowledged", func() bool { return acked[i].Load() >= before+n || t.Failed() })
		}
	}
	awaitMore(20)
	crowd := startIdlers(t, p.addr, 400)
	eventually(t, "clients are turned away", func() bool { return crowd.lost.Load() > 400 })
	began := time.Now()
	awaitMore(100)
	eventually(t, "some checkpoints were due", func() bool { return time.Since(began) > 4*time.Second })
	awaitMore(100)
	crowd.end()
	awaitMore(50)
	stop()
	producers.Wait()

	// For a client that comes now, everything works as before.
	if err := p.client(t).ProduceSync(t.Context(), &kgo.Record{Topic: "one", Value: []byte("last")}).FirstErr(); err != nil {
		t.Error(err)
	}
	acked[0].Add(1)
	for i, topic := range topics {
		want := int(acked[i].Load())
		if got := len(readAll(t, p, topic, want)); got != want {
			t.Errorf("%s: %d records, %d were acknowledged", topic, got, want)
		}
	}
	out := p.out.String()
	for _, bad := range []string{"read-only", "too many open files"} {
		if strings.Contains(out, bad) {
			t.Errorf("the log says %q", bad)
		}
	}
	if n := strings.Count(out, "LimitNOFILE"); n == 0 || n > 10 {
		t.Errorf("%d lines say what to raise", n)
	}
	p.stop(t)
}

// tryExchange sends a request on a new connection and reads its answer without the size; ok is false
// where the connection is closed before that.
func tryExchange(addr string, request []byte) (answer []byte, ok bool) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, false
	}
	defer c.Close()
	var size [4]byte
	if _, err := c.Write(request); err != nil {
		return nil, false
	}
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return nil, false
	}
	answer = make([]byte, binary.BigEndian.Uint32(size[:]))
	_, err = io.ReadFull(c, answer)
	return answer, err == nil
}

// fetchWide proves that a Fetch of more partitions than there may be files open for is answered
// with some of them, and without an error for the others.
func fetchWide(t *testing.T, p *process, partitions int32) {
	t.Helper()
	req := kmsg.NewPtrFetchRequest()
	req.Version, req.SessionEpoch, req.MaxBytes, req.MinBytes = 12, -1, 50<<20, 1
	topic := kmsg.NewFetchRequestTopic()
	topic.Topic = "wide"
	for i := range partitions {
		part := kmsg.NewFetchRequestTopicPartition()
		part.Partition, part.PartitionMaxBytes, part.CurrentLeaderEpoch = i, 1<<20, -1
		topic.Partitions = append(topic.Partitions, part)
	}
	req.Topics = append(req.Topics, topic)
	// The node may not have seen yet that the connections of clients before have ended; it closes those
	// that are too many.
	var answer []byte
	eventually(t, "a connection to the node", func() (ok bool) {
		answer, ok = tryExchange(p.addr, kmsg.NewRequestFormatter().AppendRequest(nil, req, 1))
		return ok
	})
	resp := kmsg.NewPtrFetchResponse()
	resp.Version = req.Version
	if err := resp.ReadFrom(answer[5:]); err != nil { // the body follows the correlation id and an empty tag list
		t.Fatal(err)
	}
	var found int
	for _, part := range resp.Topics[0].Partitions {
		if part.ErrorCode != 0 || part.HighWatermark < 1 {
			t.Errorf("partition %d: code %d, high watermark %d", part.Partition, part.ErrorCode, part.HighWatermark)
		}
		if len(part.RecordBatches) > 0 {
			found++
		}
	}
	if found == 0 || len(resp.Topics[0].Partitions) != int(partitions) {
		t.Errorf("%d partitions, %d of them with records", len(resp.Topics[0].Partitions), found)
	}
}

// TestLowestLimits proves that a node starts and works with very few descriptors, even if a client
// reads from more files than may be open. A node with too few descriptors says so.
func TestLowestLimits(t *testing.T) {
	t.Parallel()
	for _, files := range []int{50, 64, 256} {
		t.Run(strconv.Itoa(files), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			p := upWithFiles(t, files, dir, "--http", "127.0.0.1:0")
			p.awaitReady(t)
			const partitions, records = 40, 400
			adm := kadm.NewClient(p.client(t))
			if _, err := adm.CreateTopic(t.Context(), partitions, 1, nil, "wide"); err != nil {
				t.Fatal(err)
			}
			adm.Close()
			cl := p.client(t, kgo.DefaultProduceTopic("wide"), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
			for range records {
				if err := cl.ProduceSync(t.Context(), &kgo.Record{Value: make([]byte, 1000)}).FirstErr(); err != nil {
					t.Fatal(err)
				}
			}
			cl.Close()
			fetchWide(t, p, partitions)
			if got := len(readAll(t, p, "wide", records)); got != records {
				t.Errorf("%d records, want %d", got, records)
			}
			p.stop(t)
			p = upWithFiles(t, files, dir, "--http", "127.0.0.1:0")
			p.awaitReady(t)
			if got := len(readAll(t, p, "wide", records)); got != records {
				t.Errorf("%d records after a restart, want %d", got, records)
			}
			p.stop(t)
			if strings.Contains(p.out.String(), "read-only") {
				t.Error("a log became read-only")
			}
		})
	}
	p := upWithFiles(t, 30, t.TempDir(), "--http", "off")
	p.awaitEnd(t)
	if out := p.out.String(); p.exitCode() == 0 || !strings.Contains(out, "ulimit -n") || strings.Count(out, "\n") > 2 {
		t.Errorf("status %d: %s", p.exitCode(), out)
	}
}
