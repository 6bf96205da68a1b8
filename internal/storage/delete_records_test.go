package storage

import (
	"errors"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/vfs"
)

// TestRetryIsKnownAfterDeleteRecordsAndKill proves that a retry is recognised although its batch
// was deleted and the process killed. The journal has the new start, but the snapshot of the
// producers that was due was not written: the next opening must read the segments below the start
// for producers before it drops them.
func TestRetryIsKnownAfterDeleteRecordsAndKill(t *testing.T) {
	mem := vfs.NewMem()
	cfg := testConfig(mem, "data")
	s := quietStore(t, cfg)
	l := testLog(s, 0, testOptions())
	for i := range 3 {
		mustAppend(t, l, produced(t, 9, 0, int32(i), 1))
	}
	s.Commit()
	s.keeper.checkpointNow()
	if err := l.SetStart(3); err != nil {
		t.Fatal(err)
	}
	cfg.FS = mem.KillClone(nil) // a kill loses less than a power cut
	s = quietStore(t, cfg)
	l = testLog(s, 0, testOptions())
	if it := appendOne(t, l, produced(t, 9, 0, 2, 1)); !it.Dup || it.Base != 2 {
		end, _ := l.End()
		t.Fatalf("a retry of the acknowledged batch at 2 was stored again: %+v, the log ends at %d", it, end)
	}
}

// TestRetryIsKnownAfterDeleteRecordsOnFullDisk proves that segments below a new start stay until a
// snapshot of their producers is written, also while the disk has no room for one.
func TestRetryIsKnownAfterDeleteRecordsOnFullDisk(t *testing.T) {
	mem := vfs.NewMem()
	full := false
	cfg := testConfig(vfs.NewFaulty(mem, func(op vfs.Op, name string) error {
		if full && op == vfs.OpWrite && strings.Contains(name, snapshotSuffix) {
			return vfs.ErrNoSpace
		}
		return nil
	}), "data")
	s := quietStore(t, cfg)
	o := testOptions()
	o.SegmentBytes = 1024
	l := testLog(s, 0, o)
	for i := range 3 {
		mustAppend(t, l, produced(t, 9, 0, int32(20*i), 20))
	}
	s.Commit()
	s.keeper.checkpointNow()
	full = true // the operator deletes records to make room
	if err := l.SetStart(60); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		s.keeper.checkpointNow()
	}
	left, snapshots := 0, 0
	infos, _ := mem.ReadDir("data/topic-0")
	for _, i := range infos {
		if base, ok := segment.ParseFileName(i.Name, segment.LogSuffix); ok && base < 60 {
			left++
		}
		if strings.HasSuffix(i.Name, snapshotSuffix) {
			snapshots++
		}
	}
	if left == 0 && snapshots == 0 {
		t.Errorf("all segments with the producer's batches went, and there is no snapshot")
	}
	cfg.FS = mem.KillClone(nil)
	l = testLog(quietStore(t, cfg), 0, o)
	if it := appendOne(t, l, produced(t, 9, 0, 40, 20)); !it.Dup {
		t.Fatalf("a retry of the acknowledged batch at 40 was stored again: %+v", it)
	}
}

// TestDeleteRecordsSucceedsOnlyWhenDurable proves that a second try of a DeleteRecords that failed
// fails, too, as long as nothing can be written, and that the start is durable when a try succeeds.
func TestDeleteRecordsSucceedsOnlyWhenDurable(t *testing.T) {
	mem := vfs.NewMem()
	sick := false
	cfg := testConfig(vfs.NewFaulty(mem, func(op vfs.Op, name string) error {
		if !sick {
			return nil
		}
		if op == vfs.OpOpen && strings.Contains(name, "checkpoint-") {
			return vfs.ErrNoHandles
		}
		if (op == vfs.OpWrite || op == vfs.OpOpen) && strings.Contains(name, "/journal/") {
			return vfs.ErrNoSpace
		}
		return nil
	}), "data")
	s := quietStore(t, cfg)
	l := testLog(s, 0, testOptions())
	for i := range 5 {
		mustAppend(t, l, batch(t, i, 1, 100))
	}
	s.Commit()
	s.keeper.checkpointNow()
	sick = true
	err := l.SetStart(3)
	if err == nil {
		t.Fatal("the first try succeeded: the test proves nothing")
	}
	if err := l.SetStart(3); err == nil {
		t.Error("the second try succeeded, where nothing could be written")
	}
	sick = false
	if err := l.SetStart(3); err != nil {
		t.Fatal("the try after the disk was well again:", err)
	}
	cfg.FS = mem.KillClone(nil)
	l = testLog(quietStore(t, cfg), 0, testOptions())
	if start, err := l.Start(); err != nil || start != 3 {
		t.Fatalf("records that were deleted with success are back: the start is %d, %v", start, err)
	}
}

// TestSecondDeleteRecordsWaitsForDurability proves that a DeleteRecords is answered only when the
// start is durable, also if another one of the same offset is being written to the journal.
func TestSecondDeleteRecordsWaitsForDurability(t *testing.T) {
	mem := vfs.NewMem()
	hold, held := make(chan struct{}), make(chan struct{})
	var holding atomic.Bool
	cfg := testConfig(vfs.NewFaulty(mem, func(op vfs.Op, name string) error {
		if op == vfs.OpWrite && strings.Contains(name, "/journal/") && holding.CompareAndSwap(true, false) {
			close(held)
			<-hold
		}
		return nil
	}), "data")
	s := openStore(t, cfg)
	l := testLog(s, 0, testOptions())
	for i := range 5 {
		mustAppend(t, l, batch(t, i, 1, 100))
	}
	s.Commit()
	expectValues(t, l, 5)
	s.keeper.checkpointNow()
	holding.Store(true)
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { first <- l.SetStart(3) }()
	<-held
	var crashed *vfs.Mem
	go func() {
		err := l.SetStart(3)
		crashed = mem.KillClone(nil)
		second <- err
	}()
	for range 1000 { // this gives the second call time to return if it does not wait
		runtime.Gosched()
	}
	close(hold)
	if err := errors.Join(<-first, <-second); err != nil {
		t.Fatal(err)
	}
	cfg.FS = crashed
	l = testLog(quietStore(t, cfg), 0, testOptions())
	if start, err := l.Start(); err != nil || start != 3 {
		t.Fatalf("the second caller was answered before anything was durable: the start is %d, %v", start, err)
	}
}

// TestRottenPointsUndoNoDeleteRecords proves that a start set by DeleteRecords is not undone in
// silence if the newer one of the two points files rots. The older one then takes its place, but
// has the old start.
func TestRottenPointsUndoNoDeleteRecords(t *testing.T) {
	mem := vfs.NewMem()
	cfg := testConfig(mem, "data")
	s := quietStore(t, cfg)
	l := testLog(s, 0, testOptions())
	for i := range 5 {
		mustAppend(t, l, batch(t, i, 1, 100))
	}
	s.Commit()
	if err := s.Close(); err != nil { // Close writes points-a
		t.Fatal(err)
	}
	s = quietStore(t, cfg)
	l = testLog(s, 0, testOptions())
	if err := l.SetStart(3); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil { // Close writes points-b
		t.Fatal(err)
	}
	flipAt(t, mem, "data/points-b", 30, rand.New(rand.NewPCG(1, 1)))
	s = quietStore(t, cfg)
	l = testLog(s, 0, testOptions())
	if start, err := l.Start(); err == nil && start != 3 && l.Fault() == nil && s.Damage() == nil {
		t.Fatalf("deleted records are back and nobody says so: the start is %d", start)
	}
}

// TestFailedCheckpointsKeepSnapshot proves that checkpoints of a page-cached log that fail for want
// of descriptors do not remove the producer snapshot that the checkpoint on disk names. Newer
// snapshots cannot replace it, since a power cut may take the records that they cover.
func TestFailedCheckpointsKeepSnapshot(t *testing.T) {
	for seed := range uint64(40) {
		mem := vfs.NewMem()
		busy := false
		cfg := testConfig(vfs.NewFaulty(mem, func(op vfs.Op, name string) error {
			if busy && op == vfs.OpOpen && strings.Contains(name, "topic-0/") && strings.HasSuffix(name, segment.LogSuffix) {
				return vfs.ErrNoHandles
			}
			return nil
		}), "data")
		cfg.OpenFiles = 1
		s := quietStore(t, cfg)
		o := testOptions()
		o.FlushMessages, o.SegmentBytes = 1<<40, 1024
		l := testLog(s, 0, o)
		checkpoint := func() {
			l.pub.Lock()
			l.due.sync, l.due.snapshot = true, true
			l.listLocked()
			l.pub.Unlock()
			s.keeper.checkpointNow()
		}
		last := mustAppend(t, l, produced(t, 9, 0, 0, 20))
		mustAppend(t, l, batch(t, 0, 8, 100))
		mustAppend(t, l, batch(t, 0, 8, 100))
		mustAppend(t, l, batch(t, 0, 8, 100))
		checkpoint()
		if err := l.SetStart(36); err != nil { // the producer's batch is removed, and only the durable snapshot knows it
			t.Fatal(err)
		}
		for range 5 {
			checkpoint()
		}
		for i := range 2 {
			mustAppend(t, l, produced(t, 10, 0, int32(i), 1))
			mustAppend(t, testLog(s, 1, o), batch(t, 0, 1, 10)) // this takes the only open file
			busy = true
			checkpoint()
			busy = false
		}
		cfg.FS = mem.Crash(rand.New(rand.NewPCG(seed, 99)))
		l = testLog(quietStore(t, cfg), 0, o)
		if it := appendOne(t, l, produced(t, 9, 0, 0, 20)); !it.Dup || it.Base != last.Base {
			t.Fatalf("seed %d: a batch that was durable before is stored again: %d, dup %v, err %v", seed, it.Base, it.Dup, it.Err)
		}
	}
}
