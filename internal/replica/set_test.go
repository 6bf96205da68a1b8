package replica

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage"
	"github.com/leatstream/leat/internal/vfs"
)

// world is a Set and its Store, with the metadata that the Set follows.
type world struct {
	t     testing.TB
	image *meta.Image
	store *storage.Store
	set   *Set
	close func()
}

func newWorld(tb testing.TB) *world {
	tb.Helper()
	return newWorldOn(tb, vfs.NewMem(), "data")
}

// newWorldOn makes a world on a directory of a file system.
func newWorldOn(tb testing.TB, fs vfs.FS, dir string) *world {
	tb.Helper()
	store, err := storage.Open(storage.Config{FS: fs, Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		tb.Fatal(err)
	}
	static, err := config.NewStatic(1, nil)
	if err != nil {
		tb.Fatal(err)
	}
	w := &world{t: tb, image: meta.Empty(), store: store}
	w.set = NewSet(Config{NodeID: 1, Store: store, Static: static})
	w.close = sync.OnceFunc(func() {
		w.set.Close()
		if err := store.Close(); err != nil {
			tb.Error(err)
		}
	})
	tb.Cleanup(w.close)
	return w
}

func (w *world) apply(recs ...meta.Record) {
	w.t.Helper()
	var entry []byte
	for _, r := range recs {
		entry = meta.Append(entry, r)
	}
	img, d, err := meta.Apply(w.image, entry)
	if err != nil {
		w.t.Fatal(err)
	}
	w.image = img
	w.set.Apply(d, img)
}

// topic makes a topic whose partitions are led by the given nodes.
func (w *world) topic(name string, leaders ...int32) meta.UUID {
	w.t.Helper()
	id := meta.NewUUID()
	parts := make([]meta.Partition, len(leaders))
	for i, l := range leaders {
		parts[i] = meta.Partition{Replicas: []int32{l}, ISR: []int32{l}, Leader: l}
	}
	w.apply(meta.TopicCreated{ID: id, Name: name}, meta.PartitionsSet{Topic: id, Partitions: parts})
	return id
}

func oneRecord(tb testing.TB, value string) record.Batch {
	tb.Helper()
	var b record.Builder
	b.Append(1, nil, []byte(value))
	out, err := b.Build()
	if err != nil {
		tb.Fatal(err)
	}
	return append(record.Batch(nil), out...)
}

// add appends one record and returns its offset.
func (w *world) add(p *Partition, value string) (record.Offset, error) {
	w.t.Helper()
	items := []storage.Item{{Batch: oneRecord(w.t, value)}}
	p.appendItems(items)
	w.set.Commit()
	return items[0].Base, items[0].Err
}

// TestSetFollowsTheMetadata proves that topics are found by name and by id with the partitions
// of this node, that the Set follows added partitions and deleted topics, and that a topic
// that is created again has none of the old one's records.
func TestSetFollowsTheMetadata(t *testing.T) {
	w := newWorld(t)
	id := w.topic("events", 1, 2, 1)
	w.topic("elsewhere", 2)
	if w.set.Topic([]byte("elsewhere")) != nil {
		t.Error("a topic of another node is here")
	}
	topic := w.set.Topic([]byte("events"))
	if topic == nil || topic != w.set.TopicByID(id) || topic.NumPartitions() != 3 {
		t.Fatalf("found %v by name, %v by id", topic, w.set.TopicByID(id))
	}
	if topic.Partition(0) == nil || topic.Partition(1) != nil || topic.Partition(2) == nil || topic.Partition(3) != nil || topic.Partition(-1) != nil {
		t.Error("not the partitions of this node")
	}
	if _, err := w.add(topic.Partition(0), "old"); err != nil {
		t.Fatal(err)
	}
	w.apply(meta.PartitionsSet{Topic: id, First: 3, Partitions: []meta.Partition{{Replicas: []int32{1}, ISR: []int32{1}, Leader: 1}}})
	if topic.Partition(3) == nil || w.set.Topic([]byte("events")) != topic {
		t.Error("the new partition is not there")
	}
	old := topic.Partition(0)
	w.apply(meta.TopicDeleted{ID: id})
	if w.set.Topic([]byte("events")) != nil || w.set.TopicByID(id) != nil || !old.Gone() {
		t.Error("the deleted topic is still there")
	}
	if _, err := w.add(old, "late"); !errors.Is(err, ErrNotLeader) {
		t.Errorf("append to a deleted partition: %v", err)
	}
	again := w.topic("events", 1)
	p := w.set.TopicByID(again).Partition(0)
	if hw := p.HighWatermark(); hw != 0 {
		t.Errorf("the new topic begins at %d", hw)
	}
	if o, err := w.add(p, "new"); err != nil || o != 0 {
		t.Errorf("offset %d, %v", o, err)
	}
}

// TestSettingsFollowTheConfigs proves that a change of a topic's config, and of the
// broker's that it falls back to, reaches the partitions without a restart.
func TestSettingsFollowTheConfigs(t *testing.T) {
	w := newWorld(t)
	w.topic("events", 1)
	topic := w.set.Topic([]byte("events"))
	if s := topic.Settings(); s.MaxMessageBytes != 1048588 || s.Codec != KeepCompression || s.log.FlushMessages != 1 {
		t.Errorf("defaults: %+v", s)
	}
	events := config.Resource{Type: config.Topic, Name: "events"}
	w.apply(meta.ConfigSet{Resource: events, Key: "max.message.bytes", Value: "77"},
		meta.ConfigSet{Resource: events, Key: "compression.type", Value: "zstd"})
	if s := topic.Settings(); s.MaxMessageBytes != 77 || s.Codec != record.Zstd || s.Level == 0 {
		t.Errorf("the topic's: %+v", s)
	}
	w.apply(meta.ConfigUnset{Resource: events, Key: "max.message.bytes"},
		meta.ConfigSet{Resource: config.Resource{Type: config.Broker}, Key: "message.max.bytes", Value: "88"})
	if s := topic.Settings(); s.MaxMessageBytes != 88 {
		t.Errorf("the broker's: %d", s.MaxMessageBytes)
	}
}

// TestLeadershipFences proves that a partition accepts appends only in the current epoch of
// its leader, that the end of the epoch ends waits, and that callers with another epoch get
// the right errors.
func TestLeadershipFences(t *testing.T) {
	w := newWorld(t)
	id := w.topic("events", 1)
	p := w.set.Partition("events", 0)
	if _, err := w.add(p, "first"); err != nil {
		t.Fatal(err)
	}
	var c called
	p.Wait(&Waiter{Owner: &c, Slot: 7, Acks: AcksAll}, 1)
	p.Wait(&Waiter{Owner: &c, Slot: 8, Acks: AcksAll}, 2)
	if len(c.slots) != 1 || c.slots[0] != 7 || c.errs[0] != nil {
		t.Fatalf("waits ended: %v %v", c.slots, c.errs)
	}
	change := func(leader, epoch, step int32) {
		w.apply(meta.PartitionChanged{Topic: id, ISR: []int32{1}, Leader: leader, LeaderEpoch: epoch, PartitionEpoch: step})
	}
	change(2, 1, 1)
	if len(c.slots) != 2 || !errors.Is(c.errs[1], ErrNotLeader) {
		t.Fatalf("waits ended: %v %v", c.slots, c.errs)
	}
	if _, err := w.add(p, "not mine"); !errors.Is(err, ErrNotLeader) {
		t.Errorf("append without leading: %v", err)
	}
	change(1, 2, 2)
	for asker, want := range map[record.Epoch]error{record.NoEpoch: nil, 1: ErrFencedEpoch, 2: nil, 3: ErrUnknownEpoch} {
		if err := p.CheckLeader(asker); !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("epoch %d: %v, want %v", asker, err, want)
		}
	}
	if _, err := p.AppendBatch(oneRecord(t, "old epoch"), 0); !errors.Is(err, ErrNotLeader) {
		t.Errorf("append in an old epoch: %v", err)
	}
	next, err := p.AppendBatch(oneRecord(t, "second"), 2)
	if err != nil || next != 2 {
		t.Fatalf("next %d, %v", next, err)
	}
	if e, end, err := p.EpochEnd(record.NoEpoch, 0); err != nil || e != 0 || end != 1 {
		t.Errorf("epoch 0 ends at %d (epoch %d), %v", end, e, err)
	}
	if e, end, err := p.EpochEnd(2, 2); err != nil || e != 2 || end != 2 {
		t.Errorf("epoch 2 ends at %d (epoch %d), %v", end, e, err)
	}
}

// TestHighWatermarkNeedsTheInSyncSet proves that this node alone commits nothing while another
// replica is in the in-sync set; that acks=all and coordinators need min.insync.replicas; that
// the high watermark does not move without them (KIP-966), and moves when the config asks for
// fewer. acks=1 waits for this node only.
func TestHighWatermarkNeedsTheInSyncSet(t *testing.T) {
	w := newWorld(t)
	id := meta.NewUUID()
	minISR := meta.ConfigSet{Resource: config.Resource{Type: config.Topic, Name: "events"}, Key: "min.insync.replicas", Value: "2"}
	w.apply(meta.TopicCreated{ID: id, Name: "events"},
		meta.PartitionsSet{Topic: id, Partitions: []meta.Partition{{Replicas: []int32{1, 2}, ISR: []int32{1, 2}, Leader: 1}}}, minISR)
	p := w.set.Partition("events", 0)
	if _, err := w.add(p, "x"); err != nil {
		t.Fatal(err)
	}
	var c called
	p.Wait(&Waiter{Owner: &c, Slot: 1, Acks: AcksLeader}, 1)
	p.Wait(&Waiter{Owner: &c, Slot: 2, Acks: AcksAll}, 1)
	if hw := p.HighWatermark(); hw != 0 || p.checkInSync() != nil {
		t.Errorf("high watermark %d, %v", hw, p.checkInSync())
	}
	if !slices.Equal(c.slots, []int32{1}) || c.errs[0] != nil {
		t.Errorf("waits ended: %v %v", c.slots, c.errs)
	}
	w.apply(meta.PartitionChanged{Topic: id, ISR: []int32{1}, Leader: 1, LeaderEpoch: 0, PartitionEpoch: 1})
	if hw := p.HighWatermark(); hw != 0 || !errors.Is(p.checkInSync(), ErrNotEnoughReplicas) {
		t.Errorf("alone: high watermark %d, %v", hw, p.checkInSync())
	}
	if _, err := p.AppendBatch(oneRecord(t, "a coordinator's"), 0); !errors.Is(err, ErrNotEnoughReplicas) {
		t.Errorf("a coordinator's append: %v", err)
	}
	minISR.Value = "1"
	w.apply(minISR)
	if hw := p.HighWatermark(); hw != 1 || p.checkInSync() != nil || len(c.slots) != 2 {
		t.Errorf("alone, and one is enough: high watermark %d, %v, waits ended: %v", hw, p.checkInSync(), c.slots)
	}
}

// TestAppendOfACoordinatorCallsNothingBack proves that an append of a coordinator, which holds its
// lock meanwhile, ends no wait and wakes no poll, even if it commits the records of earlier appends,
// as after a change of flush.messages; and that the commit that follows does both.
func TestAppendOfACoordinatorCallsNothingBack(t *testing.T) {
	w := newWorld(t)
	w.topic("__consumer_offsets", 1)
	p := w.set.Partition("__consumer_offsets", 0)
	if _, err := p.AppendBatch(oneRecord(t, "first"), 0); err != nil {
		t.Fatal(err)
	}
	var ended []error
	p.Await(0, 1, 0, func(err error) { ended = append(ended, err) })
	w.apply(meta.ConfigSet{Resource: config.Resource{Type: config.Topic, Name: "__consumer_offsets"}, Key: "flush.messages", Value: "1000"})
	var woken wakes
	poll := Poll{Owner: &woken}
	poll.Begin(1, 1)
	poll.Watch(p, 0)
	if !poll.Park() {
		t.Fatal("there is something to read already")
	}
	defer poll.End()
	if _, err := p.AppendBatch(oneRecord(t, "second"), 0); err != nil {
		t.Fatal(err)
	}
	if n := woken.n.Load(); len(ended) != 0 || n != 0 {
		t.Errorf("the append ended the waits %v and woke %d polls", ended, n)
	}
	p.Commit()
	if n := woken.n.Load(); len(ended) != 1 || ended[0] != nil || n != 1 || p.HighWatermark() != 2 {
		t.Errorf("the commit ended the waits %v and woke %d polls; the high watermark is %d", ended, n, p.HighWatermark())
	}
}

// TestAddedReplicasAreNotNeeded proves that replicas which a reassignment is adding do not raise
// the number that acks=all needs, and do not hold back the high watermark.
func TestAddedReplicasAreNotNeeded(t *testing.T) {
	w := newWorld(t)
	id := meta.NewUUID()
	w.apply(meta.TopicCreated{ID: id, Name: "events"},
		meta.PartitionsSet{Topic: id, Partitions: []meta.Partition{{Replicas: []int32{1, 2, 3}, Adding: []int32{2, 3}, ISR: []int32{1}, Leader: 1}}},
		meta.ConfigSet{Resource: config.Resource{Type: config.Topic, Name: "events"}, Key: "min.insync.replicas", Value: "2"})
	p := w.set.Partition("events", 0)
	if _, err := w.add(p, "x"); err != nil {
		t.Fatal(err)
	}
	if hw := p.HighWatermark(); hw != 1 || p.checkInSync() != nil {
		t.Errorf("high watermark %d, %v", hw, p.checkInSync())
	}
}

// TestCoordinatorsSeeTheWholeLog proves that a coordinator can read this replica's records
// above the high watermark, and that its wait for the high watermark ends at its limit.
func TestCoordinatorsSeeTheWholeLog(t *testing.T) {
	w := newWorld(t)
	id := meta.NewUUID()
	w.apply(meta.TopicCreated{ID: id, Name: "t"},
		meta.PartitionsSet{Topic: id, Partitions: []meta.Partition{{Replicas: []int32{1, 2}, ISR: []int32{1, 2}, Leader: 1}}})
	p := w.set.Partition("t", 0)
	b := oneRecord(t, "x")
	if _, err := p.AppendBatch(b, 0); err != nil {
		t.Fatal(err)
	}
	p.Commit()
	end, err := p.End()
	if err != nil || end != 1 || p.HighWatermark() != 0 {
		t.Fatalf("the log ends at %d, %v; its high watermark is %d", end, err, p.HighWatermark())
	}
	if got, err := p.ReadBatches(0, end, 1<<20); err != nil || len(got) != len(b) {
		t.Errorf("read %d bytes, want %d: %v", len(got), len(b), err)
	}
	var got, endless error
	p.Await(0, 1, 5*time.Second, func(err error) { got = err })
	p.Await(0, 1, 0, func(err error) { endless = err })
	w.set.Expire(w.set.Now() + 4*time.Second)
	if got != nil {
		t.Errorf("it ends too early: %v", got)
	}
	w.set.Expire(w.set.Now() + 6*time.Second)
	if !errors.Is(got, ErrTimedOut) {
		t.Errorf("it ends with %v", got)
	}
	if endless != nil {
		t.Errorf("a wait without a limit ends: %v", endless)
	}
}

// TestPartitionIsALogForCoordinators proves that a coordinator's batches are committed when it
// asks for that, and that reads return whole batches up to the high watermark, even if they
// ask for few bytes.
func TestPartitionIsALogForCoordinators(t *testing.T) {
	w := newWorld(t)
	w.topic("__consumer_offsets", 1)
	p := w.set.Partition("__consumer_offsets", 0)
	var want int
	for i := range 5 {
		b := oneRecord(t, fmt.Sprint(i))
		want += len(b)
		next, err := p.AppendBatch(b, 0)
		if err != nil || next != record.Offset(i+1) {
			t.Fatalf("next %d, %v", next, err)
		}
	}
	p.Commit()
	done := make(chan error, 1)
	p.Await(0, 5, 0, func(err error) { done <- err })
	if err := <-done; err != nil || p.HighWatermark() != 5 {
		t.Fatalf("high watermark %d, %v", p.HighWatermark(), err)
	}
	all, err := p.ReadBatches(0, 5, 1<<20)
	if err != nil || len(all) != want {
		t.Fatalf("read %d bytes, want %d: %v", len(all), want, err)
	}
	var values string
	for off := record.Offset(0); ; {
		b, err := p.ReadBatches(off, 5, 100)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) == 0 {
			break
		}
		for len(b) > 0 {
			one, rest, err := record.Next(b)
			if err != nil {
				t.Fatalf("a batch is cut: %v", err)
			}
			values += string(one[len(one)-2])
			off, b = one.NextOffset(), rest
		}
	}
	if values != "01234" {
		t.Errorf("read %q", values)
	}
}

// TestManyTopicsAtOnce proves that the Set follows a change that creates thousands of topics,
// and one that deletes them.
func TestManyTopicsAtOnce(t *testing.T) {
	const n = 3000
	w := newWorld(t)
	var makes, deletes []meta.Record
	for i := range n {
		id := meta.NewUUID()
		makes = append(makes, meta.TopicCreated{ID: id, Name: fmt.Sprint("topic-", i)},
			meta.PartitionsSet{Topic: id, Partitions: []meta.Partition{{Replicas: []int32{1}, ISR: []int32{1}, Leader: 1}}})
		deletes = append(deletes, meta.TopicDeleted{ID: id})
	}
	count := func() (n int) {
		for range w.set.Partitions() {
			n++
		}
		return n
	}
	w.apply(makes...)
	if got := count(); got != n || w.set.Topic([]byte("topic-2999")) == nil {
		t.Errorf("%d partitions", got)
	}
	w.apply(deletes...)
	if got := count(); got != 0 || w.set.Topic([]byte("topic-0")) != nil {
		t.Errorf("%d partitions are left", got)
	}
}

// TestPollCountsEarlierAppends proves that a poll which begins between an append and its
// commit is woken by the commit if the append has enough bytes, although they were counted
// before the poll began. The same holds for later appends, and for a commit that comes before
// the bytes are counted.
func TestPollCountsEarlierAppends(t *testing.T) {
	w := newWorld(t)
	w.topic("events", 1)
	p := w.set.Partition("events", 0)
	var n wakes
	poll := Poll{Owner: &n}
	watch := func(need int) {
		t.Helper()
		n.n.Store(0)
		poll.Begin(int64(need), 1)
		poll.Watch(p, p.HighWatermark())
		if !poll.Park() {
			t.Fatal("not parked although nothing was committed")
		}
	}
	for round := range 3 {
		items := []storage.Item{{Batch: oneRecord(t, "appended before the poll")}}
		p.appendItems(items)
		watch(len(items[0].Batch))
		if n.n.Load() != 0 {
			t.Fatalf("round %d: woken before the commit", round)
		}
		w.store.Commit()
		if n.n.Load() != 1 {
			t.Fatalf("round %d: the commit woke the poll %d times", round, n.n.Load())
		}
		poll.End()
	}
	items := []storage.Item{{Batch: oneRecord(t, "committed by another appender")}}
	watch(len(items[0].Batch))
	p.appendToLog(items, record.NoEpoch)
	w.store.Commit()
	p.countForPolls(countStored(items))
	if n.n.Load() != 1 {
		t.Fatalf("a commit before the count: woken %d times", n.n.Load())
	}
	poll.End()
}
