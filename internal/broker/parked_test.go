package broker

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// fetchOfMany makes a fetch of the first n partitions of a topic.
func fetchOfMany(topic string, n int, ms int32) *kmsg.FetchRequest {
	req := withMaxWait(get(topic, 0, 0), ms, 1)
	req.MaxBytes = 1 << 20
	for i := 1; i < n; i++ {
		wantPart(req, topic, int32(i), 0)
	}
	return req
}

// awaitAsleep waits until the answers of sleeping fetches have at least so many bytes, and
// returns how many they have.
func (g *rig) awaitAsleep(least int64) int64 {
	g.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if n := g.broker.asleep.Load(); n >= least {
			return n
		}
		if time.Now().After(deadline) {
			g.t.Fatal("no fetch is asleep")
		}
	}
}

// TestMillionWatchedPartitions proves that many readers can watch a million partitions: all
// wait, and an append wakes each of them. A reader above the bound sleeps until its time is
// over; it is not answered at once, again and again.
func TestMillionWatchedPartitions(t *testing.T) {
	if raceEnabled {
		t.Skip("with the race detector a million takes minutes: TestUnknownPartitionsAreNotWatched and others watch fewer")
	}
	const each = 20_000
	g := newRig(t)
	g.topic("events", each)
	req := fetchOfMany("events", each, 600_000)
	var clients []*client
	above := dial(t, g.addr)
	for {
		above.send(req)
		g.awaitParked(len(clients) + 1)
		if g.broker.watched.Load() == int64(len(clients)*each) {
			break
		}
		clients = append(clients, above)
		above = dial(t, g.addr)
	}
	if n := len(clients) * each; n < 1_000_000 {
		t.Fatalf("%d partitions are watched", n)
	}
	g.awaitAsleep(1)
	short := fetchOfMany("events", each, 50)
	if resp := ask[*kmsg.FetchResponse](dial(t, g.addr), short); resp.ErrorCode != 0 || len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != each {
		t.Fatalf("who was asleep is answered %d, %d topics", resp.ErrorCode, len(resp.Topics))
	}
	ask[*kmsg.ProduceResponse](dial(t, g.addr), put("events", each-1, 1, batch(t, "x")))
	for i, c := range clients {
		resp, _ := c.receive(req).(*kmsg.FetchResponse)
		if p := resp.Topics[0].Partitions[each-1]; len(p.RecordBatches) == 0 {
			t.Fatalf("reader %d was woken without the record", i)
		}
	}
	g.awaitParked(1)
	if n := g.broker.watched.Load(); n != 0 {
		t.Errorf("%d partitions are watched by nobody", n)
	}
	g.broker.Drain()
	above.receive(req)
	g.awaitParked(0)
	if n := g.broker.asleep.Load(); n != 0 {
		t.Errorf("%d bytes of answers are asleep", n)
	}
}

// TestUnknownPartitionsAreNotWatched proves that partitions which do not exist do not count as
// watched, however many are named, so that other fetches can still watch; and that a fetch
// which names hardly any other partition sleeps, without its list of partitions.
func TestUnknownPartitionsAreNotWatched(t *testing.T) {
	g := newRig(t)
	g.topic("events", 1)
	bogus := withMaxWait(get("events", 0, 0), 600_000, 1)
	bogus.Topics = append(bogus.Topics, fetchOfMany("none", 99_000, 0).Topics...)
	few := withMaxWait(get("events", 0, 0), 600_000, 1)
	few.Topics = append(few.Topics, fetchOfMany("none", 100, 0).Topics...)
	const attackers = 8
	dial(t, g.addr).send(bogus)
	one := g.awaitAsleep(1)
	for range attackers - 1 {
		dial(t, g.addr).send(bogus)
	}
	g.awaitAsleep(attackers * one)
	g.awaitParked(attackers)
	if n := g.broker.watched.Load(); n != 0 {
		t.Fatalf("%d partitions are watched", n)
	}
	g.broker.mu.Lock()
	for s := range g.broker.sessions {
		s.mu.Lock()
		for f := s.parked; f != nil; f = f.after {
			if cap(f.parts) > keepParts {
				t.Errorf("a sleeping fetch keeps memory for %d partitions", cap(f.parts))
			}
		}
		s.mu.Unlock()
	}
	g.broker.mu.Unlock()
	honest := dial(t, g.addr)
	honest.send(few)
	g.awaitParked(attackers + 1)
	if n := g.broker.watched.Load(); n != 1 {
		t.Fatalf("%d partitions are watched", n)
	}
	ask[*kmsg.ProduceResponse](dial(t, g.addr), put("events", 0, 1, batch(t, "x")))
	resp, _ := honest.receive(few).(*kmsg.FetchResponse)
	if got := values(t, resp.Topics[0].Partitions[0].RecordBatches); len(got) != 1 {
		t.Fatalf("read %q", got)
	}
	g.awaitParked(attackers)
}

// newFragileRig makes a rig in which asking for the image panics while broken is set.
func newFragileRig(t *testing.T) (g *rig, broken *atomic.Bool) {
	t.Helper()
	broken = new(atomic.Bool)
	g = newRig(t, func(c *Config) {
		image := c.Image
		c.Image = func() *meta.Image {
			if broken.Load() {
				panic("a bug that the test has made")
			}
			return image()
		}
	})
	return g, broken
}

// expectClosed fails the test unless the connection is closed without another answer.
func (c *client) expectClosed() {
	c.t.Helper()
	if b, err := c.frame(); err != io.EOF { //nolint:errorlint // exactly that
		c.t.Fatalf("the connection is not closed: %x, %v", b, err)
	}
}

// TestPanicOfParkedFetchClosesItsConnection proves that a panic of a parked fetch, on the
// goroutine that wakes it or on its timer's, closes the fetch's connection and does no harm to
// other connections.
func TestPanicOfParkedFetchClosesItsConnection(t *testing.T) {
	g, broken := newFragileRig(t)
	id := g.topic("events", 1)
	g.topic("other", 1)
	bystander, other := dial(t, g.addr), withMaxWait(get("other", 0, 0), 600_000, 1)
	bystander.send(other)

	woken := dial(t, g.addr)
	woken.send(withMaxWait(get("events", 0, 0), 600_000, 1))
	g.awaitParked(2)
	broken.Store(true)
	g.apply(meta.TopicDeleted{ID: id}) // wakes it, on this goroutine
	woken.expectClosed()

	broken.Store(false)
	timed := dial(t, g.addr)
	req := withMaxWait(get("other", 0, 0), 300, 1)
	wantPart(req, "none", 0, 0)
	timed.send(req)
	g.awaitParked(2)
	broken.Store(true)
	timed.expectClosed()

	broken.Store(false)
	ask[*kmsg.ProduceResponse](dial(t, g.addr), put("other", 0, -1, batch(t, "x")))
	if got := values(t, fetched(t, bystander.receive(other).(*kmsg.FetchResponse)).RecordBatches); len(got) != 1 {
		t.Fatalf("the bystander read %q", got)
	}
}

// TestPanicDropsCollectedBatches proves that the batches which were collected with a request
// that panics are not stored later: their buffer was given back, and they were not
// acknowledged. Batches that were acknowledged before are stored.
func TestPanicDropsCollectedBatches(t *testing.T) {
	g, broken := newFragileRig(t)
	g.topic("events", 1)
	c := dial(t, g.addr)
	ask[*kmsg.ProduceResponse](c, put("events", 0, -1, batch(t, "before")))
	broken.Store(true)
	c.send(put("events", 0, -1, batch(t, "collected")), put("none", 0, -1, batch(t, "met the bug")))
	c.expectClosed()
	broken.Store(false)
	other := dial(t, g.addr)
	if p := produced(t, ask[*kmsg.ProduceResponse](other, put("events", 0, -1, batch(t, "after")))); p.ErrorCode != 0 || p.BaseOffset != 1 {
		t.Fatalf("after the bug: %+v", p)
	}
	if got := other.readAll("events", 0); fmt.Sprint(got) != "[before after]" {
		t.Fatalf("stored: %q", got)
	}
}

// TestProduceDeadlineIsOnTheSetsClock proves that the time-out of acks=all is measured by a
// clock that only goes forward, so that a step of the time of day does not end all waits.
func TestProduceDeadlineIsOnTheSetsClock(t *testing.T) {
	g := newRig(t)
	id := meta.NewUUID()
	g.apply(meta.TopicCreated{ID: id, Name: "events"},
		meta.PartitionsSet{Topic: id, Partitions: []meta.Partition{{Replicas: []int32{1, 2}, ISR: []int32{1, 2}, Leader: 1}}})
	c, req := dial(t, g.addr), put("events", 0, -1, batch(t, "x"))
	req.TimeoutMillis = 3_600_000
	before := g.set.Now()
	c.send(req)
	awaitAppended(t, g, 1)
	g.set.Expire(before + time.Hour - 1)
	g.apply(meta.PartitionChanged{Topic: id, ISR: []int32{1}, Leader: 1, PartitionEpoch: 1})
	if p := produced(t, c.receive(req).(*kmsg.ProduceResponse)); p.ErrorCode != 0 {
		t.Fatalf("ended before its time: %+v", p)
	}
	g.apply(meta.PartitionChanged{Topic: id, ISR: []int32{1, 2}, Leader: 1, PartitionEpoch: 2})
	c.send(req)
	awaitAppended(t, g, 2)
	answered := make(chan struct{})
	var expiring sync.WaitGroup
	expiring.Go(func() {
		for { // it may not have begun to wait yet
			select {
			case <-answered:
				return
			case <-time.After(time.Millisecond):
				g.set.Expire(g.set.Now() + 2*time.Hour)
			}
		}
	})
	defer expiring.Wait()
	defer close(answered)
	if p := produced(t, c.receive(req).(*kmsg.ProduceResponse)); p.ErrorCode != kerr.RequestTimedOut.Code {
		t.Fatalf("after its time: %+v", p)
	}
}

// TestMaxTimestampAfterDeleteRecords proves that the record with the largest timestamp is one
// of those that are left after newer ones were deleted, in the same segment or the same batch.
func TestMaxTimestampAfterDeleteRecords(t *testing.T) {
	g := newRig(t)
	g.topic("events", 1)
	c := dial(t, g.addr)
	for _, b := range [][]byte{batchOf(t, base+1000), batchOf(t, base, base+1), batchOf(t, base+500, base+3, base+2)} {
		ask[*kmsg.ProduceResponse](c, put("events", 0, -1, b))
	}
	for _, tc := range []struct {
		start, offset int64
		ms            int64
	}{{0, 0, base + 1000}, {1, 3, base + 500}, {4, 4, base + 3}, {5, 5, base + 2}, {6, -1, -1}} {
		ask[*kmsg.DeleteRecordsResponse](c, deleteRecords("events", 0, tc.start))
		p := ask[*kmsg.ListOffsetsResponse](c, listOffset("events", 7, 0, -1, maxTimestampOffset)).Topics[0].Partitions[0]
		if p.ErrorCode != 0 || p.Offset != tc.offset || p.Timestamp != tc.ms {
			t.Errorf("from %d on: %+v, want offset %d", tc.start, p, tc.offset)
		}
	}
}

// TestPanicOfReplyClosesItsConnection proves that a panic of a coordinator's reply, on the
// goroutine that ends its wait, closes the connection and does no harm to others.
func TestPanicOfReplyClosesItsConnection(t *testing.T) {
	var parked *wire.Request
	ready := make(chan struct{})
	server := wire.NewServer(wire.Config{Logger: slog.New(slog.DiscardHandler)}, handler(func(r *wire.Request) error {
		parked = r
		close(ready)
		return nil
	}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(&wire.Listener{Listener: l}) })
	t.Cleanup(func() {
		_ = l.Close()
		if err := server.Shutdown(t.Context()); err != nil && t.Context().Err() == nil {
			t.Errorf("shutdown: %v", err)
		}
		serving.Wait()
	})
	c := dial(t, l.Addr().String())
	c.send(kmsg.NewPtrHeartbeatRequest())
	<-ready
	containPanics(parked, func(*kmsg.HeartbeatResponse) { panic("a bug that the test has made") })(nil)
	c.expectClosed()
	eventually(t, "the panic is counted", func() bool { return server.Stats().Panics.Load() == 1 })
}

// handler serves requests by a function.
type handler func(r *wire.Request) error

func (h handler) Open(*wire.Conn) wire.Session { return h }

func (h handler) Serve(r *wire.Request) error { return h(r) }

func (handler) Flush() {}

func (handler) Close() {}
