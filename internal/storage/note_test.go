package storage

import (
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/journal"
	"github.com/leatstream/leat/internal/vfs"
)

// TestNotesHaveTheirOwnResults proves that a truncation whose note is in the journal goes on
// although the next round's note finds no room there before anybody looks at the first one:
// else the log would take records that the next recovery cuts off.
func TestNotesHaveTheirOwnResults(t *testing.T) {
	mem := vfs.NewMem()
	var full atomic.Bool // for one write
	cfg := testConfig(vfs.NewFaulty(mem, func(op vfs.Op, path string) error {
		if op == vfs.OpWrite && strings.HasSuffix(path, ".ring") && full.CompareAndSwap(true, false) {
			return vfs.ErrNoSpace
		}
		return nil
	}), "data")
	s := openStore(t, cfg)
	a, b := testLog(s, 0, testOptions()), testLog(s, 1, testOptions())
	for i := range 10 {
		mustAppend(t, a, batch(t, i, 1, 100))
		mustAppend(t, b, batch(t, i, 1, 100))
	}
	s.Commit()
	expectValues(t, a, 10)
	expectValues(t, b, 10)

	// The third log's callback is called once in the round before the truncation's note, once in
	// that of the note. In the latter it has the next round come to its end.
	var other sync.WaitGroup
	called := 0
	c := s.Log(testID(2), "topic", testOptions(), func(l *Log) {
		if called++; called == 1 {
			mustAppend(t, l, batch(t, 1, 1, 100))
			return
		}
		s.commit.mu.Lock()
		need := s.commit.begun + 1
		s.commit.mu.Unlock()
		full.Store(true)
		other.Go(func() {
			if err := b.SetStart(5); err != nil {
				t.Errorf("the start is kept without the journal, too: %v", err)
			}
		})
		s.commit.mu.Lock()
		for s.commit.done < need {
			s.commit.ended.Wait()
		}
		s.commit.mu.Unlock()
	})
	mustAppend(t, c, batch(t, 0, 1, 100))
	if err := a.Truncate(5); err != nil {
		t.Errorf("truncating: %v", err)
	}
	other.Wait()
	if called != 2 {
		t.Fatalf("the callback was called %d times", called)
	}
	end, err := a.End()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		mustAppend(t, a, batch(t, int(end)+i, 1, 100))
	}
	s.Commit()
	expectValues(t, a, int(end)+3)
	cfg.FS = mem.Crash(rand.New(rand.NewPCG(1, 31)))
	expectValues(t, testLog(quietStore(t, cfg), 0, testOptions()), int(end)+3)
}

// TestNotesOfIncompleteWrites proves that a recovery does not act on a truncation's notes, nor
// on a start's, in a write that found no room for its last round: who wrote them was told that
// the journal does not have them.
func TestNotesOfIncompleteWrites(t *testing.T) {
	for _, kind := range []journal.Kind{journal.Truncate, journal.Truncated, journal.Start} {
		mem := vfs.NewMem()
		writes := -1 // into the ring until one finds no room; negative: none does
		cfg := testConfig(vfs.NewFaulty(mem, func(op vfs.Op, path string) error {
			if op != vfs.OpWrite || !strings.HasSuffix(path, ".ring") {
				return nil
			}
			if writes--; writes == -1 {
				return vfs.ErrNoSpace
			}
			return nil
		}), "data")
		s := quietStore(t, cfg)
		l := testLog(s, 0, testOptions())
		for i := range 10 {
			mustAppend(t, l, batch(t, i, 1, 100))
		}
		s.Commit()
		s.keeper.checkpointNow() // the point vouches for the records, the journal has none of them
		want := 10
		note := journal.Part{Kind: kind, ID: l.ID(), Dir: l.name, Offset: 1}
		if kind == journal.Truncated { // of a cut that the journal has and that was not made
			var m journal.Image
			m.Add(journal.Part{Kind: journal.Truncate, ID: l.ID(), Dir: l.name}, nil, s.journal.RoundSize)
			if err := s.journal.Write(&m); err != nil {
				t.Fatal(err)
			}
			want = 0
		}
		var m journal.Image
		m.Add(note, nil, s.journal.RoundSize)
		big := make([]byte, s.journal.RoundSize)
		m.Add(journal.Part{Kind: journal.Bytes, ID: testID(1), Dir: dirName("topic", 1)}, [][]byte{big}, s.journal.RoundSize)
		writes = 1
		if err := s.journal.Write(&m); !errors.Is(err, journal.ErrNoRoom) {
			t.Fatalf("the write: %v", err)
		}
		cfg.FS = mem.KillClone(nil)
		l = testLog(quietStore(t, cfg), 0, testOptions())
		start, _ := l.Start()
		if end, err := l.End(); err != nil || end != record.Offset(want) || start != 0 {
			t.Errorf("kind %d: the log has records %d to %d, want 0 to %d; %v", kind, start, end, want, err)
		}
	}
}

// TestTruncationCutInThePageCache proves that a truncation holds whose process was killed when it
// had cut the file and not yet synced it: the recovery that confirms it makes the file's length
// durable, although it finds the file as it should be.
func TestTruncationCutInThePageCache(t *testing.T) {
	mem := vfs.NewMem()
	var killed *vfs.Mem
	cfg := testConfig(vfs.NewFaulty(mem, func(op vfs.Op, path string) error {
		if op == vfs.OpTruncate && path == segmentFile(0) {
			killed = mem // from here on
		} else if killed == mem {
			killed = mem.KillClone(nil)
		}
		return nil
	}), "data")
	s := quietStore(t, cfg)
	l := testLog(s, 0, testOptions())
	for i := range 10 {
		mustAppend(t, l, batch(t, i, 1, 100))
	}
	s.Commit()
	s.keeper.checkpointNow()
	if err := l.Truncate(4); err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(20) { // the recovery that confirms it, then the one after the page cache was lost
		after := killed.KillClone(nil)
		cfg.FS = after
		quietStore(t, cfg)
		cfg.FS = after.Crash(rand.New(rand.NewPCG(seed, 37)))
		expectValues(t, testLog(quietStore(t, cfg), 0, testOptions()), 4)
	}
}

// TestTruncationOnAFullDisk proves that a log whose truncation finds no room in the journal for its
// confirmation refuses appends, and takes them again, without a restart, when there is room; that the cut holds over a
// crash meanwhile; and that a crash later takes nothing that was appended after it.
func TestTruncationOnAFullDisk(t *testing.T) {
	mem := vfs.NewMem()
	var writes atomic.Int64 // into the ring until there is no room
	writes.Store(math.MaxInt64)
	cfg := testConfig(vfs.NewFaulty(mem, func(op vfs.Op, path string) error {
		if op != vfs.OpWrite || !strings.HasSuffix(path, ".ring") {
			return nil
		}
		if left := writes.Add(-1); left < 0 && left%2 != 0 { // each second one erases what the one before has left
			return vfs.ErrNoSpace
		}
		return nil
	}), "data")
	s := quietStore(t, cfg)
	l := testLog(s, 0, testOptions())
	for i := range 10 {
		mustAppend(t, l, batch(t, i, 1, 100))
	}
	s.Commit()
	writes.Store(1) // that of the announcement
	if err := l.Truncate(4); err != nil {
		t.Fatal(err)
	}
	expectValues(t, l, 4)
	items := []Item{{Batch: batch(t, 4, 1, 100)}}
	if l.Append(0, items); !errors.Is(items[0].Err, ErrBusy) || l.Fault() != nil {
		t.Fatalf("an append: %v; the log's fault: %v", items[0].Err, l.Fault())
	}
	if err := l.Truncate(2); !errors.Is(err, ErrBusy) {
		t.Errorf("another truncation: %v", err)
	}
	for seed := range uint64(10) {
		cfg.FS = mem.Crash(rand.New(rand.NewPCG(seed, 41)))
		expectValues(t, testLog(quietStore(t, cfg), 0, testOptions()), 4)
	}
	writes.Store(math.MaxInt64)
	for i := range 3 {
		mustAppend(t, l, batch(t, 4+i, 1, 100))
	}
	s.Commit()
	if end, err := l.Committed(); err != nil || end != 7 {
		t.Fatalf("committed are the records below %d: %v", end, err)
	}
	expectValues(t, l, 7)
	for seed := range uint64(10) {
		cfg.FS = mem.Crash(rand.New(rand.NewPCG(seed, 43)))
		expectValues(t, testLog(quietStore(t, cfg), 0, testOptions()), 7)
	}
}

// TestStartOnAFullDiskAfterATruncation proves the same of a start that completes a truncation and finds no room to note that: the
// log has no fault, and takes records as soon as there is room, which a crash later does not take away.
func TestStartOnAFullDiskAfterATruncation(t *testing.T) {
	mem := vfs.NewMem()
	var announced *vfs.Mem
	var isFull atomic.Bool
	var refusals atomic.Int64
	hook := func(op vfs.Op, path string) error {
		if op == vfs.OpTruncate && path == segmentFile(0) && announced == nil {
			announced = mem.KillClone(nil)
		}
		if isFull.Load() && op == vfs.OpWrite && strings.HasSuffix(path, ".ring") && refusals.Add(1)%2 != 0 { // each second one erases what the one before has left
			return vfs.ErrNoSpace
		}
		return nil
	}
	cfg := testConfig(vfs.NewFaulty(mem, hook), "data")
	l := testLog(quietStore(t, cfg), 0, testOptions())
	for i := range 10 {
		mustAppend(t, l, batch(t, i, 1, 100))
	}
	l.s.Commit()
	if err := l.Truncate(4); err != nil {
		t.Fatal(err)
	}
	isFull.Store(true)
	cfg.FS = vfs.NewFaulty(announced, hook)
	s := quietStore(t, cfg)
	l = testLog(s, 0, testOptions())
	expectValues(t, l, 4)
	items := []Item{{Batch: batch(t, 4, 1, 100)}}
	if l.Append(0, items); !errors.Is(items[0].Err, ErrBusy) || l.Fault() != nil || len(s.Faults()) > 0 {
		t.Fatalf("an append: %v; the log's fault: %v", items[0].Err, l.Fault())
	}
	isFull.Store(false)
	for i := range 3 {
		mustAppend(t, l, batch(t, 4+i, 1, 100))
	}
	s.Commit()
	for seed := range uint64(10) {
		cfg.FS = announced.Crash(rand.New(rand.NewPCG(seed, 47)))
		expectValues(t, testLog(quietStore(t, cfg), 0, testOptions()), 7)
	}
}
