package replica

import (
	"errors"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage"
)

// txnRecord makes a transactional batch with one record.
func txnRecord(tb testing.TB, producer int64, epoch int16, seq int32, value string) record.Batch {
	tb.Helper()
	b := record.Builder{Transactional: true, LeaderEpoch: record.NoEpoch}
	b.SetProducer(producer, epoch, seq)
	b.Append(1, nil, []byte(value))
	out, err := b.Build()
	if err != nil {
		tb.Fatal(err)
	}
	return append(record.Batch(nil), out...)
}

// newTxnWorld makes a world whose store takes transactions: it writes a checkpoint before the first one.
func newTxnWorld(t *testing.T) (*world, *Partition) {
	t.Helper()
	w := newWorld(t)
	w.topic("events", 1)
	p := w.set.Partition("events", 0)
	w.admit(p)
	return w, p
}

// admit writes a transaction of another producer.
func (w *world) admit(p *Partition) {
	w.t.Helper()
	v := BeginVerification(p, 1, 0, 0, 0)
	v.Confirm()
	defer v.End()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		items := []storage.Item{{Batch: txnRecord(w.t, 1, 0, 0, "first")}}
		p.appendItems(items)
		switch err := items[0].Err; {
		case err == nil:
			w.mark(Marker{Partition: p, Producer: 1})
			return
		case !errors.Is(err, ErrBusy) || time.Now().After(deadline):
			w.t.Fatal(err)
		}
	}
}

// mark writes markers, and returns their errors.
func (w *world) mark(list ...Marker) []error {
	w.t.Helper()
	done := make(chan []error, 1)
	w.set.WriteMarkers(list, func(errs []error) { done <- errs })
	select {
	case errs := <-done:
		return errs
	case <-time.After(20 * time.Second):
		w.t.Fatal("the markers are never written")
		return nil
	}
}

// TestVerifications proves when the first batch of a transaction is taken: while a verification of the producer's epoch is
// confirmed, not before and not after, and not if a marker or another leadership came in between. The marker of the
// transaction before is no obstacle where each has its own epoch.
func TestVerifications(t *testing.T) {
	w, p := newTxnWorld(t)
	try := func(what string, epoch int16, want error) {
		t.Helper()
		items := []storage.Item{{Batch: txnRecord(t, 7, epoch, 0, "x")}}
		p.appendItems(items)
		if !errors.Is(items[0].Err, want) {
			t.Errorf("%s: %v, want %v", what, items[0].Err, want)
		}
	}
	try("nobody was asked", 0, ErrTransactionState)
	v := BeginVerification(p, 7, 0, 0, 0)
	try("no answer yet", 0, ErrTransactionState)
	v.Confirm()
	try("another epoch", 1, ErrTransactionState)
	v.End()
	try("ended", 0, ErrTransactionState)

	v = BeginVerification(p, 7, 0, 0, 0)
	if v.IsEnded() {
		t.Error("no marker came, and the transaction is said to have ended")
	}
	w.mark(Marker{Partition: p, Producer: 7})
	v.Confirm()
	try("a marker came", 0, ErrTransactionState)
	if !v.IsEnded() || v.IsMoved() {
		t.Error("a marker came, and the transaction is not said to have ended")
	}
	v.End()

	v = BeginVerification(p, 7, 0, 0, 0)
	topic := p.Topic().ID
	w.apply(meta.PartitionChanged{Topic: topic, ISR: []int32{1}, Leader: 1, LeaderEpoch: 1, PartitionEpoch: 1})
	v.Confirm()
	try("another leadership", 0, ErrTransactionState)
	v.End()

	v = BeginVerification(p, 7, 3, 0, 2)
	w.mark(Marker{Partition: p, Producer: 7, Epoch: 3, Version: 2}) // of the transaction before
	v.Confirm()
	try("confirmed", 3, nil)
	if v.IsEnded() {
		t.Error("a marker of the transaction before is said to have ended this one")
	}
	v.End()
	if BeginVerification(p, 7, 3, 0, 2) != nil || !HasTransaction(p, 7, 3) || HasTransaction(p, 7, 2) || HasTransaction(p, 8, 3) {
		t.Error("it is not known which transaction is open")
	}
	v = BeginVerification(p, 7, 4, 0, 2)
	other := BeginVerification(p, 8, 0, 0, 2)
	v.Confirm()
	w.mark(Marker{Partition: p, Producer: 7, Epoch: 5, Version: 2}) // the server has aborted, and fences
	try("aborted by the server", 4, ErrProducerFenced)
	v.End()
	other.End()
	if n := len(p.verifications.list); n != 0 {
		t.Errorf("%d producers are left", n)
	}
}

// TestWriteMarkers proves that markers for several partitions are written together, each with its own result, and that they are
// told when they are committed.
func TestWriteMarkers(t *testing.T) {
	w, p := newTxnWorld(t)
	w.topic("others", 1, 1)
	w.topic("away", 2)
	a, b := w.set.Partition("others", 0), w.set.Partition("others", 1)
	list := []Marker{
		{Partition: b, Producer: 7, Epoch: 1, Version: 2},
		{Partition: a, Producer: 7, Epoch: 1, Version: 2, Marker: record.Marker{Commit: true, CoordinatorEpoch: 4}},
		{Partition: p, Producer: 7, Epoch: 1, Version: 2},
		{Partition: a, Producer: 7, Epoch: 1, Version: 2, Marker: record.Marker{CoordinatorEpoch: 3}},
		{Partition: a, Producer: 7, Epoch: 0, Version: 2, Marker: record.Marker{CoordinatorEpoch: 4}},
		{Partition: b, Producer: 9, Epoch: 1},
	}
	for i, err := range w.mark(list...) {
		want := []error{nil, nil, nil, ErrCoordinatorFenced, ErrProducerFenced, nil}[i]
		if !errors.Is(err, want) {
			t.Errorf("marker %d: %v, want %v", i, err, want)
		}
	}
	if a.HighWatermark() != 1 || b.HighWatermark() != 2 {
		t.Errorf("the high watermarks are %d and %d", a.HighWatermark(), b.HighWatermark())
	}
	if errs := w.mark(); len(errs) != 0 {
		t.Errorf("no markers: %v", errs)
	}
	w.apply(meta.TopicDeleted{ID: a.Topic().ID})
	if errs := w.mark(Marker{Partition: a, Producer: 7, Epoch: 2}); !errors.Is(errs[0], ErrNotLeader) {
		t.Errorf("a deleted topic: %v", errs)
	}
}

// TestPollOfCommittedRecords proves when a poll for committed records is woken: not by records of an open transaction, by its
// end even if it wants more bytes than the marker has, and by records without a transaction when they are enough.
func TestPollOfCommittedRecords(t *testing.T) {
	w, p := newTxnWorld(t)
	var o wakes
	poll := Poll{Owner: &o}
	watch := func(need int64) {
		t.Helper()
		var f Found
		if err := p.Read(&Query{Epoch: record.NoEpoch, LastEpoch: record.NoEpoch, Isolation: ReadCommitted}, &f); err != nil {
			t.Fatal(err)
		}
		o.n.Store(0)
		poll.Begin(need, 1)
		poll.WatchCommitted(p, f.HighWatermark, f.LastStable)
		if !poll.Park() {
			t.Fatal("not parked")
		}
	}
	expect := func(what string, n int32) {
		t.Helper()
		if o.n.Load() != n {
			t.Errorf("%s: woken %d times", what, o.n.Load())
		}
	}
	put := func(b record.Batch) {
		t.Helper()
		items := []storage.Item{{Batch: b}}
		p.appendItems(items)
		w.set.Commit()
		if items[0].Err != nil {
			t.Fatal(items[0].Err)
		}
	}
	watch(100)
	put(oneRecord(t, "x"))
	expect("70 of 100 bytes", 0)
	put(oneRecord(t, "x"))
	expect("140 bytes", 1)
	poll.End()

	v := BeginVerification(p, 7, 0, 0, 0)
	v.Confirm()
	watch(1)
	put(txnRecord(t, 7, 0, 0, "x"))
	put(oneRecord(t, "x"))
	expect("an open transaction", 0)
	w.mark(Marker{Partition: p, Producer: 7, Marker: record.Marker{Commit: true}})
	expect("its end", 1)
	poll.End()
	v.End()

	v = BeginVerification(p, 7, 0, 0, 0)
	v.Confirm()
	put(txnRecord(t, 7, 0, 1, "x"))
	v.End()
	watch(1000)
	put(oneRecord(t, "x"))
	expect("behind an open transaction", 0)
	w.mark(Marker{Partition: p, Producer: 7, Marker: record.Marker{Commit: true}})
	expect("its end, for many bytes", 1)
	poll.End()
	if n := p.audience.committed.Load(); n != 0 {
		t.Errorf("%d watchers are left", n)
	}
}

// TestOpenTransactions proves that open transactions are counted, and that the age of the oldest one rises from when it was first
// found until its end.
func TestOpenTransactions(t *testing.T) {
	w, p := newTxnWorld(t)
	begin := func(producer int64) {
		t.Helper()
		v := BeginVerification(p, producer, 0, 0, 0)
		v.Confirm()
		defer v.End()
		items := []storage.Item{{Batch: txnRecord(t, producer, 0, 0, "x")}}
		if p.appendItems(items); items[0].Err != nil {
			t.Fatal(items[0].Err)
		}
	}
	if n, age := OpenTransactions(w.set); n != 0 || age != 0 {
		t.Errorf("without a transaction: %d, %v", n, age)
	}
	begin(7)
	if n, age := OpenTransactions(w.set); n != 1 || age != 0 {
		t.Errorf("found for the first time: %d, %v", n, age)
	}
	begin(8)
	for age := time.Duration(0); age == 0; { // the clock may not move between two calls
		var n int
		if n, age = OpenTransactions(w.set); n != 2 {
			t.Fatalf("%d are open", n)
		}
	}
	w.mark(Marker{Partition: p, Producer: 7})
	if n, age := OpenTransactions(w.set); n != 1 || age <= 0 || len(w.set.ages.since) != 1 {
		t.Errorf("the second one: %d, open for %v", n, age)
	}
	w.mark(Marker{Partition: p, Producer: 8})
	if n, age := OpenTransactions(w.set); n != 0 || age != 0 || len(w.set.ages.since) != 0 {
		t.Errorf("none is open: %d, %v", n, age)
	}
}

// TestLaterSequenceWaits proves that the log does not take a later batch of a producer that it does not know while an earlier one could
// not be verified: the earlier one, which is sent again, could never be stored then. A producer that goes on with a sequence
// after its records were deleted is taken.
func TestLaterSequenceWaits(t *testing.T) {
	_, p := newTxnWorld(t)
	try := func(what string, producer int64, seq int32, want error) {
		t.Helper()
		v := BeginVerification(p, producer, 0, seq, 0)
		v.Confirm()
		defer v.End()
		items := []storage.Item{{Batch: txnRecord(t, producer, 0, seq, "x")}}
		if p.appendItems(items); !errors.Is(items[0].Err, want) {
			t.Errorf("%s: %v, want %v", what, items[0].Err, want)
		}
	}
	BeginVerification(p, 7, 0, 4, 0).End() // it could not be verified
	try("the one after it", 7, 5, ErrOutOfOrderSequence)
	try("sent again", 7, 4, nil)
	if BeginVerification(p, 7, 0, 5, 0) != nil || len(p.verifications.lowest) != 0 {
		t.Errorf("after the first: %v", p.verifications.lowest)
	}
	try("a producer that goes on", 8, 9, nil)
	for i := range int64(3 * maxLowest) {
		BeginVerification(p, 100+i, 0, 0, 0).End()
	}
	if n := len(p.verifications.lowest); n > maxLowest {
		t.Errorf("%d producers are kept", n)
	}
}

// TestFirstTransactionKeepsFollowersInSync proves that followers whose data directories are not ready for transactions stay in sync, and
// get the first one when they are: their disks are sound.
func TestFirstTransactionKeepsFollowersInSync(t *testing.T) {
	runCluster(t, 3, func(c *cluster) {
		c.threeReplicas()
		c.mustProduce("t", "a")
		c.awaitEqual("t", "a")
		leader, epoch := c.leader("t"), c.partition("t").PartitionEpoch
		<-leader.present().set.ExpectTransactions()
		v := BeginVerification(leader.replica("t"), 7, 0, 0, 0)
		v.Confirm()
		defer v.End()
		if a := <-leader.send("t", txnRecord(t, 7, 0, 0, "b"), AcksAll); a.err != nil {
			t.Fatal(a.err)
		}
		c.eventually("all replicas have it", func() bool { return c.isEqual("t") })
		if p := c.partition("t"); len(p.ISR) != 3 || p.PartitionEpoch != epoch {
			t.Errorf("in sync are %v, after %d changes", p.ISR, p.PartitionEpoch-epoch)
		}
	})
}
