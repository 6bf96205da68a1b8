package storage

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/compact"
	"github.com/leatstream/leat/internal/vfs"
)

// dirtyLog is a disk with a log of several segments of which nothing was compacted, and the table that a reader makes of it.
func dirtyLog(t *testing.T, seed uint64) (mem *vfs.Mem, want map[string]string, end record.Offset) {
	t.Helper()
	mem = vfs.NewMem()
	s := quietStore(t, testConfig(mem, "data"))
	l := testLog(s, 0, compactedOptions())
	want = map[string]string{}
	fill(t, l, rand.New(rand.NewPCG(seed, 3)), want, 80)
	s.keeper.checkpointNow()
	end, _ = l.End()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return mem.KillClone(nil), want, end
}

// expectTable checks that a log is what it was, whatever was compacted.
func expectTable(t *testing.T, l *Log, want map[string]string, end record.Offset, when string) {
	t.Helper()
	got, _ := latest(t, l)
	if e, _ := l.End(); e != end || !maps.Equal(got, want) || l.Fault() != nil {
		t.Fatalf("%s: it ends at %d of %d, with %v, want %v, fault: %v", when, e, end, got, want, l.Fault())
	}
}

// TestCompactionEndsAtAnyCall proves that a power cut or a kill before any call of a compaction leaves a log with
// the same table and the same end, that nothing is left of what was not decided, and that the next round goes on.
func TestCompactionEndsAtAnyCall(t *testing.T) {
	disk, want, end := dirtyLog(t, 1)
	rng := rand.New(rand.NewPCG(2, 2))
	for call := 1; ; call++ {
		mem := disk.KillClone(nil)
		var left []*vfs.Mem
		n := 0
		cfg := testConfig(vfs.NewFaulty(mem, func(op vfs.Op, _ string) error {
			if op.Changes() {
				if n++; n == call {
					left = append(left, mem.KillClone(nil), mem.Crash(rng), mem.Crash(rng), mem.KillClone(rng))
				}
			}
			return nil
		}), "data")
		s := quietStore(t, cfg)
		l := testLog(s, 0, compactedOptions())
		n = 0
		left = nil
		compactNow(t, s, l, time.Now())
		if n < call {
			if call < 30 {
				t.Errorf("a compaction has %d calls only", n)
			}
			break
		}
		for i, mem := range left {
			when := fmt.Sprintf("call %d, way %d", call, i)
			s := quietStore(t, testConfig(mem, "data"))
			l := testLog(s, 0, compactedOptions())
			expectTable(t, l, want, end, when)
			infos, _ := mem.ReadDir("data/topic-0")
			for _, f := range infos {
				if strings.Contains(f.Name, "cleaned") || strings.Contains(f.Name, "swap") {
					t.Fatalf("%s: %s is left", when, f.Name)
				}
			}
			compactNow(t, s, l, time.Now())
			expectTable(t, l, want, end, when+", compacted")
			mem = mem.KillClone(nil)
			_ = s.Close()
			s = quietStore(t, testConfig(mem, "data"))
			expectTable(t, testLog(s, 0, compactedOptions()), want, end, when+", killed")
			_ = s.Close()
		}
		_ = s.Close()
	}
}

// TestCompactionMeetsErrors proves that a compaction of which any call fails for a moment changes nothing for
// readers, before or after a restart, and that what it has decided is settled later.
func TestCompactionMeetsErrors(t *testing.T) {
	disk, want, end := dirtyLog(t, 1)
	for _, failure := range []error{vfs.ErrNoSpace, vfs.ErrNoHandles, errBadDisk} {
		for call := 1; ; call++ {
			mem := disk.KillClone(nil)
			n, hit := -1<<40, ""
			s := quietStore(t, testConfig(vfs.NewFaulty(mem, func(op vfs.Op, path string) error {
				if op.Changes() {
					if n++; n == call && canFail(op, path, failure) {
						hit = fmt.Sprint(op, " ", path)
						return failure
					}
				}
				return nil
			}), "data"))
			l := testLog(s, 0, compactedOptions())
			s.keeper.checkpointNow()
			n = 0
			s.cleaner.compactOne(t.Context(), l, time.Now())
			if n < call {
				_ = s.Close()
				break
			}
			when := fmt.Sprintf("%v, call %d: %s", failure, call, hit)
			if hit == "" {
				_ = s.Close()
				continue
			}
			if errors.Is(failure, errBadDisk) { // the log may be read-only, but not wrong
				if got, _ := latest(t, l); !maps.Equal(got, want) {
					t.Fatalf("%s: %v, want %v", when, got, want)
				}
				if strings.Contains(hit, "sync") {
					mem = mem.Crash(rand.New(rand.NewPCG(uint64(call), 2)))
				}
			} else {
				expectTable(t, l, want, end, when)
				if s.cleaner.compactOne(t.Context(), l, time.Now()); l.compacted.pendingSwap() != nil {
					t.Fatalf("%s: a swap is pending for ever", when)
				}
				expectTable(t, l, want, end, when+", again")
			}
			_ = s.Close()
			s = quietStore(t, testConfig(mem.KillClone(nil), "data"))
			expectTable(t, testLog(s, 0, compactedOptions()), want, end, when+", later")
			_ = s.Close()
		}
	}
}

// TestCompactionMeetsChanges proves that a deletion, a truncation, a move of the start, a change of the policy, and a
// deletion with a new log of the same name at any call of a compaction do what they do without one, also after a
// power cut.
func TestCompactionMeetsChanges(t *testing.T) {
	disk, want, end := dirtyLog(t, 4)
	next := testID(0)
	next.Topic[0] = 'X'
	changes := map[string]func(s *Store, l *Log) error{
		"delete":   func(s *Store, l *Log) error { s.Delete(l.ID()); return nil },
		"start":    func(_ *Store, l *Log) error { return l.SetStart(end / 2) },
		"truncate": func(_ *Store, l *Log) error { return l.Truncate(end / 3) },
		"policy": func(_ *Store, l *Log) error {
			o := compactedOptions()
			o.Compact = false
			l.Configure(o)
			return nil
		},
		"again": func(s *Store, l *Log) error {
			s.Delete(l.ID())
			items := []Item{{Batch: keyed(t, "other", "log")}}
			s.Log(next, "topic", compactedOptions(), func(*Log) {}).Append(1, items)
			return errors.Join(items[0].Err, s.commit.awaitEntered())
		},
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			for call := 1; changeAt(t, disk, call, change, func(mem *vfs.Mem) {
				when := fmt.Sprintf("call %d, after a power cut", call)
				s := quietStore(t, testConfig(mem, "data"))
				defer func() { _ = s.Close() }()
				l := testLog(s, 0, compactedOptions())
				if name == "again" {
					l = s.Log(next, "topic", compactedOptions(), func(*Log) {})
				}
				got, _ := latest(t, l)
				e, _ := l.End()
				start, _ := l.Start()
				switch {
				case l.Fault() != nil:
					t.Fatalf("%s: %v", when, l.Fault())
				case name == "truncate" && e > end/3:
					t.Fatalf("%s: it ends at %d", when, e)
				case name == "start" && (start != end/2 || e != end):
					t.Fatalf("%s: it is from %d to %d", when, start, e)
				case name == "policy" && !maps.Equal(got, want):
					t.Fatalf("%s: %v, want %v", when, got, want)
				case name == "again" && !maps.Equal(got, map[string]string{"other": "log"}):
					t.Fatalf("%s: the new log has %v", when, got)
				}
			}); call++ {
			}
		})
	}
}

// changeAt compacts a log, has somebody change it at some call of that, and looks at what a power cut leaves. It returns
// false if there are not so many calls.
func changeAt(t *testing.T, disk *vfs.Mem, call int, change func(s *Store, l *Log) error, look func(left *vfs.Mem)) bool {
	t.Helper()
	mem := disk.KillClone(nil)
	var n atomic.Int64
	n.Store(-1 << 40)
	var s *Store
	var l *Log
	changed := make(chan error, 1)
	// The keeper does not run: it would fill the journal's ring, and its calls would be counted.
	s = quietStore(t, testConfig(vfs.NewFaulty(mem, func(op vfs.Op, _ string) error {
		if op.Changes() && n.Add(1) == int64(call) {
			go func() { changed <- change(s, l) }() // it may have to wait for the compaction
		}
		return nil
	}), "data"))
	s.commit.start() // the change's rounds may have to follow those of the compaction
	l = testLog(s, 0, compactedOptions())
	s.keeper.checkpointNow()
	n.Store(0)
	s.cleaner.compactOne(t.Context(), l, time.Now())
	isLast := n.Swap(-1<<40) < int64(call)
	var failed error
	if !isLast {
		failed = <-changed
	}
	l.pub.Lock()
	failed = errors.Join(failed, l.Fault(), l.compacted.failed)
	l.pub.Unlock()
	if failed != nil {
		t.Fatalf("call %d: %v", call, failed)
	}
	if !isLast {
		look(mem.Crash(rand.New(rand.NewPCG(uint64(call), 9))))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return !isLast
}

// TestCompactionAndLostCheckpoints proves that compacted logs are whole, and take records, where both checkpoint files
// are damaged, so that the journal is played back from further back than the compaction, and all logs are walked.
func TestCompactionAndLostCheckpoints(t *testing.T) {
	for seed := range uint64(10) {
		mem := vfs.NewMem()
		s := quietStore(t, testConfig(mem, "data"))
		rng := rand.New(rand.NewPCG(seed, 3))
		want := map[string]string{}
		l := testLog(s, 0, compactedOptions())
		for range 3 {
			fill(t, l, rng, want, 40)
			if !compactNow(t, s, l, time.Now()) {
				t.Fatal("nothing was compacted")
			}
		}
		fill(t, l, rng, want, 3)
		end, _ := l.End()
		mem = mem.Crash(rng)
		s, _ = lostCheckpoints(t, mem)
		l = testLog(s, 0, compactedOptions())
		expectTable(t, l, want, end, "both checkpoints are lost")
		fill(t, l, rng, want, 40)
		end, _ = l.End()
		compactNow(t, s, l, time.Now())
		mem = mem.Crash(rng)
		s = quietStore(t, testConfig(mem, "data"))
		expectTable(t, testLog(s, 0, compactedOptions()), want, end, "afterwards")
		_ = s.Close()
	}
}

// TestTruncationIntoCompacted proves that a log that was cut in the middle of its compacted part takes the records
// that follow, also after a power cut, and is compacted from there on again.
func TestTruncationIntoCompacted(t *testing.T) {
	for seed := range uint64(20) {
		disk, _, end := dirtyLog(t, seed)
		rng := rand.New(rand.NewPCG(seed, 3))
		mem := disk.KillClone(nil)
		s := quietStore(t, testConfig(mem, "data"))
		l := testLog(s, 0, compactedOptions())
		compactNow(t, s, l, time.Now())
		if err := l.Truncate(record.Offset(rng.Int64N(int64(end)))); err != nil {
			t.Fatal(err)
		}
		if upTo, err := l.compacted.compactedTo(); err != nil || upTo > l.end.Next {
			t.Fatalf("it ends at %d, and is compacted up to %d: %v", l.end.Next, upTo, err)
		}
		want, _ := latest(t, l)
		fill(t, l, rng, want, 50)
		end, _ = l.End()
		mem = mem.Crash(rng)
		_ = s.Close()
		s = quietStore(t, testConfig(mem, "data"))
		l = testLog(s, 0, compactedOptions())
		expectTable(t, l, want, end, "cut")
		if upTo, err := l.compacted.compactedTo(); err != nil || upTo != compact.NoRound {
			t.Errorf("after a cut it is compacted up to %d: %v", upTo, err)
		}
		compactNow(t, s, l, time.Now())
		expectTable(t, l, want, end, "cut and compacted")
		_ = s.Close()
	}
}
