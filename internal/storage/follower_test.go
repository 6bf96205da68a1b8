package storage

import (
	"errors"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/vfs"
)

// given is a batch with an offset, as a follower gets it from its leader.
func given(tb testing.TB, at record.Offset, n, size int) record.Batch {
	tb.Helper()
	b := batch(tb, int(at), n, size)
	b.SetBaseOffset(at)
	b.SetLeaderEpoch(1)
	return b
}

// TestAppendAtLeavesNoGap proves that after a batch which could not be stored none of those that
// follow is, so that a follower's log has no gap: where the disk is full, where a write fails, and where
// that happens before a segment is rolled.
func TestAppendAtLeavesNoGap(t *testing.T) {
	for _, rolls := range []bool{false, true} {
		for _, full := range []bool{false, true} {
			mem := vfs.NewMem()
			var fails atomic.Bool
			s := openStore(t, testConfig(vfs.NewFaulty(mem, func(op vfs.Op, path string) error {
				if op == vfs.OpWrite && strings.HasSuffix(path, ".log") && fails.Swap(false) {
					return vfs.ErrNoSpace
				}
				return nil
			}), "data"))
			o := testOptions()
			if o.SegmentBytes = 1 << 20; rolls {
				o.SegmentBytes = 1500
			}
			l := testLog(s, 0, o)
			l.AppendAt([]Item{{Batch: given(t, 0, 1, 1000)}})
			items := []Item{{Batch: given(t, 1, 1, 400)}, {Batch: given(t, 2, 1, 1000)}, {Batch: given(t, 3, 1, 10)}}
			if full {
				mem.SetFree(600) // there is room for the last one, and not for the second
				s.space.NoteRefusal()
			} else {
				fails.Store(true)
			}
			l.AppendAt(items)
			stored := record.Offset(1)
			for i := range items {
				if items[i].Err == nil {
					stored = items[i].Next
				} else if !errors.Is(items[i].Err, ErrDiskFull) {
					t.Errorf("rolls %v, full %v: batch %d: %v", rolls, full, i, items[i].Err)
				}
			}
			if end, err := l.End(); err != nil || end != stored || items[2].Err == nil {
				t.Errorf("rolls %v, full %v: the log ends at %d, %d was stored last, the last batch: %v", rolls, full, end, stored, items[2].Err)
			}
			mem.SetFree(1 << 30)
			s.space.NoteRefusal()
			var rest []Item
			for i := range items {
				if items[i].Err != nil {
					rest = append(rest, Item{Batch: items[i].Batch})
				}
			}
			l.AppendAt(rest)
			for i := range rest {
				if rest[i].Err != nil {
					t.Errorf("rolls %v, full %v: when there is room: %v", rolls, full, rest[i].Err)
				}
			}
			if end, _ := l.End(); end != 4 || l.hasGaps {
				t.Errorf("rolls %v, full %v: the log ends at %d, gaps %v", rolls, full, end, l.hasGaps)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestLogBeginsWithinBatch proves that a log which begins at an offset takes the batch that has it as
// its first one, although the batch begins before; that readers see its records from the start on; and
// that it is the same after a crash, also if the first write has failed.
func TestLogBeginsWithinBatch(t *testing.T) {
	for seed := range uint64(20) {
		mem := vfs.NewMem()
		var fails atomic.Bool
		fails.Store(seed%2 == 1)
		s := openStore(t, testConfig(vfs.NewFaulty(mem, func(op vfs.Op, path string) error {
			if op == vfs.OpWrite && strings.HasSuffix(path, ".log") && fails.Swap(false) {
				return vfs.ErrNoSpace
			}
			return nil
		}), "data"))
		l := testLog(s, 0, testOptions())
		if err := l.StartAt(100); err != nil {
			t.Fatal(err)
		}
		first := Item{Batch: given(t, 97, 5, 10)}
		for l.AppendAt([]Item{{Batch: given(t, 95, 5, 10)}}); ; {
			items := []Item{first}
			if l.AppendAt(items); items[0].Err == nil {
				break
			}
			if end, err := l.End(); err != nil || end != 100 {
				t.Fatalf("after a write that failed the log ends at %d, %v", end, err)
			}
		}
		l.AppendAt([]Item{{Batch: given(t, 102, 2, 10)}})
		check := func(l *Log, when string) {
			t.Helper()
			start, _ := l.Start()
			end, err := l.End()
			if err != nil || start != 100 || end != 104 || l.Fault() != nil {
				t.Errorf("seed %d, %s: %d to %d, %v, %v", seed, when, start, end, err, l.Fault())
			}
			if bs := readAll(t, l, 100, 1<<20); len(bs) != 2 || bs[0].BaseOffset() != 97 {
				t.Errorf("seed %d, %s: read %v", seed, when, bs)
			}
			if c, err := l.Read(99, end, 100); !errors.Is(err, ErrOffsetOutOfRange) {
				t.Errorf("seed %d, %s: below the start: %v, %v", seed, when, c, err)
			}
		}
		s.Commit()
		check(l, "at first")
		if seed%4 >= 2 {
			s.keeper.checkpointNow()
		}
		after := mem.Crash(rand.New(rand.NewPCG(seed, 1)))
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		s = openStore(t, testConfig(after, "data"))
		check(testLog(s, 0, testOptions()), "after a crash")
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestSetStarts proves that the starts of several logs move together and are durable, that a start waits
// for the commit of the records below it, and that one which cannot be moved holds up no other.
func TestSetStarts(t *testing.T) {
	mem := vfs.NewMem()
	s := openStore(t, testConfig(mem, "data"))
	var moves []StartMove
	for i := range 5 {
		l := testLog(s, i, testOptions())
		l.AppendAt([]Item{{Batch: given(t, 0, 3, 10)}})
		moves = append(moves, StartMove{l, 2}) // not committed yet
	}
	moves = append(moves, StartMove{moves[0].Log, 9})
	if err := SetStarts(s, moves...); !errors.Is(err, ErrOffsetOutOfRange) {
		t.Errorf("a start beyond the end: %v", err)
	}
	after := mem.Crash(rand.New(rand.NewPCG(1, 2)))
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	s = openStore(t, testConfig(after, "data"))
	for i := range 5 {
		l := testLog(s, i, testOptions())
		start, err := l.Start()
		if end, _ := l.End(); err != nil || start != 2 || end != 3 {
			t.Errorf("log %d: %d to %d, %v", i, start, end, err)
		}
	}
	if err := SetStarts(s); err != nil {
		t.Errorf("no starts: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestRetentionOfReplicatedLogs proves that retention removes nothing beyond the high watermark of a log
// that others replicate, even if there never was one, that it does if there are no others, and that the
// owner is told of a start that has moved.
func TestRetentionOfReplicatedLogs(t *testing.T) {
	s := openStore(t, testConfig(vfs.NewMem(), "data"))
	told := 0
	o := testOptions()
	o.Delete, o.RetentionAge, o.Replicated = true, time.Hour, true
	l := s.Log(testID(0), "t", o, func(*Log) { told++ })
	mustAppend(t, l, batchAtTime(t, 0, 2, 10, 1000))
	s.Commit()
	retain := func(want record.Offset, why string) {
		t.Helper()
		told = 0
		s.retain(time.Now())
		if start, err := l.Start(); err != nil || start != want {
			t.Errorf("%s: it starts at %d, %v", why, start, err)
		}
	}
	retain(0, "nothing was committed")
	l.SetHighWatermark(1)
	retain(1, "the high watermark")
	if told < 2 { // before, since the high watermark is below the committed end, and after
		t.Errorf("the owner was called %d times", told)
	}
	o.Replicated = false
	l.Configure(o)
	l.SetHighWatermark(0)
	retain(2, "the only replica")
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestTruncationWithinTheFirstBatch proves that a log which is cut within the batch that holds its start goes on at
// its start, and that a later start of the store finds it sound, whether a checkpoint was made or power was cut.
func TestTruncationWithinTheFirstBatch(t *testing.T) {
	for name, checkpoint := range map[string]bool{"a checkpoint follows": true, "none follows": false} {
		t.Run(name, func(t *testing.T) {
			mem := vfs.NewMem()
			cfg := testConfig(mem, "data")
			s := quietStore(t, cfg)
			l := testLog(s, 0, testOptions())
			for i := range 4 {
				mustAppend(t, l, batch(t, 3*i, 3, 100))
			}
			s.Commit()
			if err := l.SetStart(10); err != nil { // within the last batch, of 9 to 11
				t.Fatal(err)
			}
			if err := l.Truncate(11); err != nil {
				t.Fatal(err)
			}
			if end, err := l.End(); err != nil || end != 10 {
				t.Fatalf("it ends at %d: %v", end, err)
			}
			if checkpoint {
				s.keeper.checkpointNow()
			}
			items := []Item{{Batch: batch(t, 10, 2, 100)}, {Batch: batch(t, 12, 2, 100)}}
			for i := range items {
				items[i].Batch.SetBaseOffset(record.Offset(10 + 2*i))
				items[i].Batch.SetLeaderEpoch(1)
			}
			l.AppendAt(items)
			for i := range items {
				if items[i].Err != nil {
					t.Fatal(items[i].Err)
				}
			}
			s.Commit()
			if checkpoint {
				s.keeper.checkpointNow()
			}
			for seed := range uint64(10) {
				cfg.FS = mem.Crash(rand.New(rand.NewPCG(seed, 47)))
				again := testLog(quietStore(t, cfg), 0, testOptions())
				start, err := again.Start()
				if end, _ := again.End(); err != nil || start != 10 || end != 14 {
					t.Fatalf("after a power cut it has %d to %d: %v", start, end, err)
				}
				c, err := again.Read(10, 14, 1<<20)
				if err != nil {
					t.Fatal(err)
				}
				c.Release()
				if err := again.Fault(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
