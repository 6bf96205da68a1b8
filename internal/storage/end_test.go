package storage

import (
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/vfs"
)

// halfShown is a store with one log, whose appends can be stopped while the segment shows the
// appended batch and the log does not. They are stopped in a write of the index, which comes between
// the two.
type halfShown struct {
	mem   *vfs.Mem
	s     *Store
	l     *Log
	n     int // records of the log, in batches of one
	armed atomic.Bool
	in    chan struct{} // closed when the append has been stopped
	out   chan struct{} // closed to let it go on
}

func newHalfShown(t *testing.T) *halfShown {
	t.Helper()
	h := &halfShown{mem: vfs.NewMem(), in: make(chan struct{}), out: make(chan struct{})}
	fs := vfs.NewFaulty(h.mem, func(op vfs.Op, path string) error {
		if op.Changes() && strings.HasSuffix(path, ".index") && h.armed.CompareAndSwap(true, false) {
			close(h.in)
			<-h.out
		}
		return nil
	})
	h.s = openStore(t, testConfig(fs, "data"))
	h.l = testLog(h.s, 0, h.options())
	return h
}

// options have each batch in the index, so that some append soon writes to it.
func (*halfShown) options() Options {
	o := testOptions()
	o.IndexInterval = 1
	return o
}

func (h *halfShown) appendOne(t *testing.T) {
	t.Helper()
	if it := appendOne(t, h.l, batch(t, h.n, 1, 100)); it.Err != nil {
		t.Error(it.Err)
	}
	h.s.Commit()
	h.n++
}

// appendUntilStopped appends until an append is stopped. The append ends when letGo is called.
func (h *halfShown) appendUntilStopped(t *testing.T, appendOne func()) (letGo func()) {
	t.Helper()
	h.armed.Store(true)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for h.armed.Load() {
			appendOne()
		}
	}()
	<-h.in
	return func() {
		close(h.out)
		<-done
	}
}

// TestCheckpointBesideAppend proves that a checkpoint which looks at a log while its segment shows a
// batch and the log does not takes a position and an offset that belong together: after a power
// cut no acknowledged record is taken for a torn end, no offset is given twice, and a scrub finds no damage.
func TestCheckpointBesideAppend(t *testing.T) {
	h := newHalfShown(t)
	for range 300 {
		h.appendOne(t)
	}
	h.s.keeper.checkpointNow()
	h.s.keeper.run.Lock() // the keeper makes no checkpoint of its own
	letGo := h.appendUntilStopped(t, func() { h.appendOne(t) })
	c := h.l.takeSyncing() // the checkpoint from here on is makeDurable's
	letGo()
	if size := int64(batch(t, 0, 1, 100).Size()); c.to.Pos != int64(c.to.Next)*size {
		t.Errorf("the checkpoint took position %d and offset %d, where a batch has %d bytes", c.to.Pos, c.to.Next, size)
	}
	if err := c.writeSmallFiles(false, true); err != nil {
		t.Fatal(err)
	}
	if _, err := c.syncAll(); err != nil {
		t.Fatal(err)
	}
	c.finishSync()
	if err := h.s.keeper.saveCheckpoint(h.s.keeper.previous); err != nil {
		t.Fatal(err)
	}
	h.s.keeper.run.Unlock()
	if end, _ := h.l.Committed(); int(end) != h.n {
		t.Fatalf("%d of %d records are committed", end, h.n)
	}
	s := openStore(t, testConfig(h.mem.Crash(rand.New(rand.NewPCG(1, 1))), "data"))
	l := testLog(s, 0, h.options())
	if end, err := l.End(); err != nil || int(end) != h.n {
		t.Errorf("%d records were acknowledged; the log ends at %d, %v, %v", h.n, end, err, l.Fault())
	}
	if it := mustAppend(t, l, batch(t, h.n, 1, 100)); int(it.Base) != h.n {
		t.Errorf("a record that comes after %d others got offset %d", h.n, it.Base)
	}
	s.Commit()
	s.keeper.checkpointNow()
	s.scrub(unpaced)
	if err := l.Fault(); err != nil {
		t.Error(err)
	}
}

// TestScrubBesideAppend proves that a scrub does not judge a batch which the segment shows and the
// log does not, even if the batch is on disk: its epoch is new, and there is a gap before it.
func TestScrubBesideAppend(t *testing.T) {
	h := newHalfShown(t)
	h.appendOne(t)
	next, epoch := record.Offset(1), record.Epoch(1)
	letGo := h.appendUntilStopped(t, func() {
		b := batch(t, 0, 1, 100)
		b.SetBaseOffset(next)
		b.SetLeaderEpoch(epoch)
		items := []Item{{Batch: b}}
		h.l.AppendAt(items)
		if items[0].Err != nil {
			t.Error(items[0].Err)
		}
		next = items[0].Next
		if next == 512 { // with the batch after the gap, the index is written
			next, epoch = next+10, 2
		}
	})
	if err := h.l.segments()[0].Sync(); err != nil {
		t.Error(err)
	}
	h.s.scrub(unpaced)
	if err := h.l.Fault(); err != nil {
		t.Error(err)
	}
	letGo()
	if end, _ := h.l.End(); end != 523 {
		t.Errorf("the log ends at %d: the append that was stopped was not the one after the gap", end)
	}
	h.s.Commit()
	h.s.scrub(unpaced)
	if err := h.l.Fault(); err != nil {
		t.Error(err)
	}
}

// TestPointsBesideAppends proves the same as TestCheckpointBesideAppend where nothing is stopped.
func TestPointsBesideAppends(t *testing.T) {
	s := openStore(t, testConfig(vfs.NewMem(), "data"))
	o := testOptions()
	o.IndexInterval = 1
	o.FlushMessages = 1 << 40
	const logs, checkpoints = 4, 500
	size := int64(batch(t, 0, 1, 100).Size())
	var stop atomic.Bool
	var appenders sync.WaitGroup
	for i := range logs {
		l := testLog(s, i, o)
		b := batch(t, 0, 1, 100)
		appenders.Go(func() {
			for !stop.Load() {
				items := []Item{{Batch: b}}
				l.Append(1, items)
				if items[0].Err != nil {
					t.Error(items[0].Err)
					return
				}
				runtime.Gosched()
			}
		})
	}
	for n := range checkpoints {
		l := testLog(s, n%logs, o)
		l.pub.Lock()
		l.due.sync = true
		l.pub.Unlock()
		if _, err := l.makeDurable(false); err != nil {
			t.Error(err)
		}
		if p := s.points.Get(l.id); p.Vouched && p.Pos != int64(p.Next)*size {
			t.Errorf("after %d checkpoints a point has position %d and offset %d, where a batch has %d bytes", n, p.Pos, p.Next, size)
		}
	}
	stop.Store(true)
	appenders.Wait()
}

// TestPointOfSegmentThatIsGone proves that a checkpoint notes no position in a segment that retention
// takes while the checkpoint syncs it.
func TestPointOfSegmentThatIsGone(t *testing.T) {
	s := openStore(t, testConfig(vfs.NewMem(), "data"))
	l := testLog(s, 0, testOptions())
	for n := range 3 {
		mustAppend(t, l, batch(t, n, 1, 100))
	}
	s.Commit()
	s.keeper.run.Lock()
	defer s.keeper.run.Unlock()
	c := l.takeSyncing()
	if err := l.moveStart(3); err != nil {
		t.Fatal(err)
	}
	if _, err := c.syncAll(); err != nil {
		t.Fatal(err)
	}
	c.finishSync()
	if p := s.points.Get(l.id); p.Base != 3 || p.Pos != 0 || p.Next != 3 || p.Start != 3 {
		t.Errorf("the log begins and ends with offset 3, and its point is %+v", p)
	}
}

// TestStartAtBesideReaders proves that no reader sees the start of StartAt beyond the log's end. The
// race detector sees more of it.
func TestStartAtBesideReaders(t *testing.T) {
	s := openStore(t, testConfig(vfs.NewMem(), "data"))
	for i := range 50 {
		l := testLog(s, i, testOptions())
		if _, err := l.End(); err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() { done <- l.StartAt(100) }()
		for looks := true; looks; {
			l.pub.Lock()
			start, end, committed := l.start.Load(), int64(l.end.Next), l.commitTo.Load()
			l.pub.Unlock()
			if start != end || end != committed {
				t.Errorf("an empty log begins with %d, ends at %d, and is committed up to %d", start, end, committed)
			}
			select {
			case err := <-done:
				if err != nil {
					t.Error(err)
				}
				looks = false
			default:
				runtime.Gosched()
			}
		}
	}
}
