package storage

import (
	"errors"
	"math/rand/v2"
	"path"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/aside"
	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/vfs"
)

// TestAttackProducersDoNotOutliveDeleteRecordsAndAKill: the start that DeleteRecords moved is
// in the journal, the snapshot that was due is not written, and the next opening drops the
// segments without having read them for producers.
func TestAttackProducersDoNotOutliveDeleteRecordsAndAKill(t *testing.T) {
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
	cfg.FS = mem.KillClone(nil) // not even a power cut
	s = quietStore(t, cfg)
	l = testLog(s, 0, testOptions())
	if it := appendOne(t, l, produced(t, 9, 0, 2, 1)); !it.Dup || it.Base != 2 {
		end, _ := l.End()
		t.Fatalf("a retry of the acknowledged batch at 2 was stored again: %+v, the log ends at %d", it, end)
	}
}

// TestAttackProducersDoNotOutliveAFullDisk: while a snapshot finds no room, the segments that it
// is to cover go all the same, since DeleteRecords has told the points of the start already.
func TestAttackProducersDoNotOutliveAFullDisk(t *testing.T) {
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
	full = true // an operator deletes records because of it
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

// TestAttackDeleteRecordsTriedAgainIsNotDurable: a DeleteRecords that failed is tried again, and
// succeeds only when it is durable: not while the disk is as sick as it was.
func TestAttackDeleteRecordsTriedAgainIsNotDurable(t *testing.T) {
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

// TestAttackSecondDeleteRecordsIsAcknowledgedEarly: a DeleteRecords of the same offset that comes
// while the first one's note is under way is answered before anything is durable.
func TestAttackSecondDeleteRecordsIsAcknowledgedEarly(t *testing.T) {
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
	for range 1000 { // it may run on if it does not wait
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

// TestAttackStrayOfAWrongClock: a machine without a battery starts in 1970, sets a directory
// aside, and gets the time a moment later: the week is over at once.
func TestAttackStrayOfAWrongClock(t *testing.T) {
	mem := vfs.NewMem()
	cfg := testConfig(mem, "data")
	s := quietStore(t, cfg)
	mustAppend(t, testLog(s, 0, testOptions()), batch(t, 0, 1, 100))
	s.Commit()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// As setAsideLocked names it where time.Now() is ten seconds after the epoch.
	name := aside.StrayName("topic-0", testID(0), 10_000)
	if err := mem.Rename("data/topic-0", path.Join("data", name)); err != nil {
		t.Fatal(err)
	}
	s = quietStore(t, cfg) // the node has run for less than an hour
	s.removeOldStrays(time.Now())
	s.keeper.removeDue(time.Now())
	if _, err := mem.Stat(path.Join("data", name)); err != nil {
		t.Fatalf("a directory that was set aside a moment ago is gone: %v", err)
	}
}

// TestAttackOneByteOfMetadata: one byte of partition.metadata rots (another letter of base64, more
// than one bit). The log, of which a checkpoint vouches for five records, is set aside as another
// topic's; it opens empty, without a fault, and takes appends.
func TestAttackOneByteOfMetadata(t *testing.T) {
	mem := vfs.NewMem()
	cfg := testConfig(mem, "data")
	s := quietStore(t, cfg)
	l := testLog(s, 0, testOptions())
	for i := range 5 {
		mustAppend(t, l, batch(t, i, 1, 100))
	}
	s.Commit()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := mem.Open("data/topic-0/"+metadataFile, vfs.Existing)
	if err != nil {
		t.Fatal(err)
	}
	b := encodeMetadata(testID(0).Topic)
	at := len(b) - 5
	was := b[at]
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		b[at] = c
		if _, ok := decodeMetadata(b); ok && !isOneBitOff(b, encodeMetadata(testID(0).Topic)) && c != was {
			break
		}
	}
	if _, err := f.WriteAt(b[at:at+1], int64(at)); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	s = quietStore(t, cfg)
	l = testLog(s, 0, testOptions())
	start, err := l.Start()
	if err != nil || l.Fault() != nil {
		return // it says so
	}
	it := appendOne(t, l, batch(t, 9, 1, 100))
	if start != 0 {
		t.Fatalf("the five records are gone without a fault: the log starts at %d, an append got %d, %v", start, it.Base, it.Err)
	}
}

// TestAttackOldPointsUndoDeleteRecords: where the newer one of the two points files cannot be read,
// the older one takes its place without a word; the checkpoint file has only what changed since
// the newer one, so a start that moved in between is undone.
func TestAttackOldPointsUndoDeleteRecords(t *testing.T) {
	mem := vfs.NewMem()
	cfg := testConfig(mem, "data")
	s := quietStore(t, cfg)
	l := testLog(s, 0, testOptions())
	for i := range 5 {
		mustAppend(t, l, batch(t, i, 1, 100))
	}
	s.Commit()
	if err := s.Close(); err != nil { // writes points-a
		t.Fatal(err)
	}
	s = quietStore(t, cfg)
	l = testLog(s, 0, testOptions())
	if err := l.SetStart(3); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil { // writes points-b
		t.Fatal(err)
	}
	flipAt(t, mem, "data/points-b", 30, rand.New(rand.NewPCG(1, 1)))
	s = quietStore(t, cfg)
	l = testLog(s, 0, testOptions())
	if start, err := l.Start(); err == nil && start != 3 && l.Fault() == nil && s.Damage() == nil {
		t.Fatalf("deleted records are back and nobody says so: the start is %d", start)
	}
}

// TestAttackSnapshotsOfAFailingCheckpoint: two checkpoints of a page-cached log that come to no end
// (no descriptors) remove the snapshot that the checkpoint on disk names; the two that take its
// place are of records that a power cut takes.
func TestAttackSnapshotsOfAFailingCheckpoint(t *testing.T) {
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
		if err := l.SetStart(36); err != nil { // the producer's batch goes, durably known by the snapshot
			t.Fatal(err)
		}
		for range 5 {
			checkpoint()
		}
		for i := range 2 {
			mustAppend(t, l, produced(t, 10, 0, int32(i), 1))
			mustAppend(t, testLog(s, 1, o), batch(t, 0, 1, 10)) // takes the only open file
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

var (
	_ record.Offset
	_ = syscall.EIO
)

// TestAttackSetAsideComesBack proves that a log whose directory was set aside has its records
// again, or is refused, once the metadata know it again: the line that reports the directory
// asks the operator to restore the metadata. An empty log in its place lets clients write
// other records at the same offsets, and a week later the real ones are removed.
func TestAttackSetAsideComesBack(t *testing.T) {
	cfg := testConfig(vfs.NewMem(), "data")
	s := quietStore(t, cfg)
	mustAppend(t, testLog(s, 0, testOptions()), batch(t, 0, 1, 100))
	s.Commit()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = quietStore(t, cfg)
	s.Sweep(func(LogID) bool { return false }, func(LogID) bool { return false })
	s.keeper.doDueWork()
	if s.Strays() != 1 {
		t.Fatalf("%d directories were set aside", s.Strays())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = quietStore(t, cfg) // with the metadata that the operator brought back
	l := testLog(s, 0, testOptions())
	it := appendOne(t, l, batch(t, 0, 1, 100))
	if end, err := l.End(); it.Err == nil && err == nil && end == 1 {
		t.Errorf("a record was stored at offset 0, where another one was acknowledged; %d directories are still aside", s.Strays())
	}
}
