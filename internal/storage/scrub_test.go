package storage

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/epoch"
	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/vfs"
)

const (
	unpaced     = 1 << 50
	scrubbed    = 3  // logs of a scrubStore
	scrubbedEnd = 60 // records in each
)

func scrubOptions(i int) Options {
	o := testOptions()
	o.SegmentBytes, o.IndexInterval = 3000, 200
	if i == 2 {
		o.FlushMessages = 1 << 40
	}
	return o
}

// scrubStore makes a data directory with some logs of several segments.
func scrubStore(t *testing.T) *vfs.Mem {
	t.Helper()
	mem := vfs.NewMem()
	s, err := Open(testConfig(mem, "data"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range scrubbed {
		l := testLog(s, i, scrubOptions(i))
		for n := range scrubbedEnd {
			items := []Item{{Batch: batchAtTime(t, n, 1, 100, 1_700_000_000_000+int64(n))}}
			if l.Append(record.Epoch(n/25), items); items[0].Err != nil {
				t.Fatal(items[0].Err)
			}
			s.Commit()
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return mem
}

// flipIn changes one bit of some segment of a log and returns the file's name.
func flipIn(t *testing.T, mem *vfs.Mem, rng *rand.Rand, i int) string {
	t.Helper()
	dir := "data/" + dirName("topic", int32(i))
	infos, err := mem.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, info := range infos {
		if _, ok := segment.ParseFileName(info.Name, segment.LogSuffix); ok && info.Size > 0 {
			names = append(names, dir+"/"+info.Name)
		}
	}
	name := names[rng.IntN(len(names))]
	f, err := mem.Open(name, vfs.Existing)
	if err != nil {
		t.Fatal(err)
	}
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	at := rng.Int64N(size)
	_, err = f.ReadAt(b[:], at)
	b[0] ^= 1 << rng.IntN(8)
	_, err2 := f.WriteAt(b[:], at)
	if err := errors.Join(err, err2, f.Close()); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestScrub proves that one wrong bit anywhere in a segment makes exactly that log read-only after
// a restart and a pass. The error says which file it is. The batches that are whole can still be
// read, and the other logs can be used.
func TestScrub(t *testing.T) {
	whole := scrubStore(t)
	for seed := range uint64(500) {
		rng := rand.New(rand.NewPCG(seed, 3))
		mem, bad := whole.KillClone(nil), rng.IntN(scrubbed)
		name := flipIn(t, mem, rng, bad)
		cfg := testConfig(mem, "data")
		cfg.BootID = fmt.Sprint(seed % 2)
		s, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		var logs []*Log
		for i := range scrubbed {
			logs = append(logs, testLog(s, i, scrubOptions(i)))
		}
		s.scrub(unpaced)
		for i, l := range logs {
			fault := l.Fault()
			it := appendOne(t, l, batch(t, scrubbedEnd, 1, 100))
			s.Commit()
			if i != bad {
				if fault != nil || it.Err != nil {
					t.Fatalf("seed %d: log %d: %v, %v", seed, i, fault, it.Err)
				}
				expectValues(t, l, scrubbedEnd+1)
				continue
			}
			if !errors.Is(fault, ErrFaulted) || !errors.Is(it.Err, ErrFaulted) || !strings.Contains(fault.Error(), name+" is damaged: ") ||
				!strings.Contains(fault.Error(), "at byte ") || !strings.Contains(fault.Error(), "put back") {
				t.Fatalf("seed %d: %s: fault %v, append %v", seed, name, fault, it.Err)
			}
			readSome(t, l)
		}
		s.keeper.checkpointNow()
		if s.keeper.previous.Round != s.journal.Next() {
			t.Fatalf("seed %d: the journal is held", seed)
		}
		if err := s.Close(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

// TestScrubMissing proves that a pass makes a log read-only if a file is missing or cut short.
func TestScrubMissing(t *testing.T) {
	for name, harm := range map[string]func(mem *vfs.Mem, file string) error{
		"missing": func(mem *vfs.Mem, file string) error { return mem.Remove(file) },
		"short": func(mem *vfs.Mem, file string) error {
			f, err := mem.Open(file, vfs.Existing)
			if err != nil {
				return err
			}
			return errors.Join(f.Truncate(1000), f.Close())
		},
		"empty": func(mem *vfs.Mem, file string) error {
			f, err := mem.Open(file, vfs.Fresh)
			if err != nil {
				return err
			}
			return f.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			mem := scrubStore(t)
			s := openStore(t, testConfig(mem, "data"))
			a, b := testLog(s, 0, scrubOptions(0)), testLog(s, 1, scrubOptions(1))
			if _, err := a.End(); err != nil { // opening the log notices missing files
				t.Fatal(err)
			}
			for i, l := range []*Log{a, b} {
				if err := harm(mem, fmt.Sprintf("data/%s/%s", dirName("topic", int32(i)), segment.FileName(a.segments()[1].Base(), segment.LogSuffix))); err != nil {
					t.Fatal(err)
				}
				s.scrub(unpaced)
				if err := l.Fault(); !errors.Is(err, ErrFaulted) {
					t.Errorf("log %d: %v", i, err)
				}
			}
		})
	}
}

// TestScrubDeleted proves that files which retention and deletions remove during a pass do not
// count as damage.
func TestScrubDeleted(t *testing.T) {
	s := openStore(t, testConfig(scrubStore(t), "data"))
	a, b := testLog(s, 0, scrubOptions(0)), testLog(s, 1, scrubOptions(1))
	if _, err := a.End(); err != nil {
		t.Fatal(err)
	}
	r, ok := findResting(a, -1)
	if !ok {
		t.Fatal("no segment")
	}
	if err := a.SetStart(scrubbedEnd - 1); err != nil {
		t.Fatal(err)
	}
	s.keeper.checkpointNow()
	p := &pacer{s: s, rate: unpaced, left: unpaced}
	if err := p.scrubSegment(a, r); err != nil || a.Fault() != nil {
		t.Errorf("a segment that retention took: %v, %v", err, a.Fault())
	}
	if _, err := b.End(); err != nil {
		t.Fatal(err)
	}
	r, _ = findResting(b, -1)
	s.Delete(b.ID())
	if err := p.scrubSegment(b, r); err != nil || b.Fault() != nil {
		t.Errorf("a segment of a deleted log: %v, %v", err, b.Fault())
	}
	s.scrub(unpaced)
	if err := a.Fault(); err != nil {
		t.Error(err)
	}
}

// TestWalksMeetDamage proves that searches for times, producers and places never return anything
// wrong from a damaged log, nor an unexplained error, also while they rebuild indexes. They either
// answer as if nothing had happened, or make the log read-only and say so.
func TestWalksMeetDamage(t *testing.T) {
	whole := scrubStore(t)
	faults := 0
	for seed := range uint64(500) {
		rng := rand.New(rand.NewPCG(seed, 4))
		mem := whole.KillClone(nil)
		name := flipIn(t, mem, rng, 0)
		if rng.IntN(2) == 0 { // the files beside the segments are lost, too
			infos, err := mem.ReadDir("data/topic-0")
			if err != nil {
				t.Fatal(err)
			}
			for _, i := range infos {
				if strings.HasSuffix(i.Name, "index") || strings.HasSuffix(i.Name, snapshotSuffix) || rng.IntN(2) == 0 && i.Name == epoch.FileName {
					if err := mem.Remove("data/topic-0/" + i.Name); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		s, err := Open(testConfig(mem, "data"))
		if err != nil {
			t.Fatal(err)
		}
		l := testLog(s, 0, scrubOptions(0))
		if _, err := l.End(); err != nil {
			t.Fatal(err)
		}
		explained := func(what string, err error) bool {
			if err == nil {
				return false
			}
			faults++
			if !errors.Is(err, ErrFaulted) || l.Fault() == nil || !strings.Contains(err.Error(), name+" is damaged: ") {
				t.Fatalf("seed %d, %s: %s: %v, fault %v", seed, name, what, err, l.Fault())
			}
			return true
		}
		for range 20 {
			want := record.Offset(rng.IntN(scrubbedEnd))
			at, ok, err := l.FindTime(t.Context(), 1_700_000_000_000+int64(want))
			if !explained("FindTime", err) && (!ok || at.Offset != want) {
				t.Fatalf("seed %d, %s: time %d was found at %v %v", seed, name, want, at, ok)
			}
			c, err := l.Read(want, scrubbedEnd, 1)
			if !explained("Read", err) {
				c.Release()
			}
		}
		_, err = l.Producers(math.MaxInt)
		explained("Producers", err)
		explained("Append", appendOne(t, l, batch(t, scrubbedEnd, 1, 100)).Err)
		if err := s.Close(); err != nil {
			t.Fatalf("seed %d, %s: %v", seed, name, err)
		}
	}
	if faults < 500 {
		t.Errorf("damage was met %d times only", faults)
	}
}

// TestDamageKeepsPromises proves that records that were appended before damage was found are still
// committed and checkpointed, and that the journal need not keep them for that.
func TestDamageKeepsPromises(t *testing.T) {
	mem := scrubStore(t)
	flipIn(t, mem, rand.New(rand.NewPCG(1, 5)), 0)
	cfg := testConfig(mem, "data")
	s := openStore(t, cfg)
	l := testLog(s, 0, scrubOptions(0))
	mustAppend(t, l, batch(t, scrubbedEnd, 1, 100))
	s.scrub(unpaced)
	if l.Fault() == nil {
		t.Fatal("no fault")
	}
	s.Commit()
	if end, _ := l.Committed(); end != scrubbedEnd+1 {
		t.Errorf("committed to %d", end)
	}
	s.keeper.checkpointNow()
	if s.keeper.previous.Round != s.journal.Next() {
		t.Error("the journal is held")
	}
	cfg.FS, cfg.BootID = mem.Crash(rand.New(rand.NewPCG(2, 5))), "another"
	s = openStore(t, cfg)
	if end, _ := testLog(s, 0, scrubOptions(0)).End(); end != scrubbedEnd+1 {
		t.Errorf("it ends at %d after a power cut", end)
	}
	// A failed sync is worse than damage: nothing is promised after it.
	l.taint(errBadDisk)
	if !l.isTainted() || !errors.Is(l.Fault(), errBadDisk) {
		t.Errorf("fault %v", l.Fault())
	}
}

// TestScrubSchedule proves that the first pass begins a minute after the start, and the others a
// day apart, at the pace that is set. Nothing runs between them, and a pass that is running does
// not delay Close.
func TestScrubSchedule(t *testing.T) {
	mem := scrubStore(t)
	synctest.Test(t, func(t *testing.T) {
		var reads atomic.Int64
		cfg := testConfig(vfs.NewFaulty(mem, func(op vfs.Op, path string) error {
			if op == vfs.OpRead && strings.HasSuffix(path, segment.LogSuffix) {
				reads.Add(1)
			}
			return nil
		}), "data")
		cfg.RetentionEvery = 1000 * time.Hour
		cfg.Scrub = 3 * scrubOpen / 60 // at this pace opening the logs takes about a minute
		s, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		for i := range scrubbed {
			testLog(s, i, scrubOptions(i))
		}
		seen := func(d time.Duration) int64 {
			time.Sleep(d)
			synctest.Wait()
			return reads.Swap(0)
		}
		if n := seen(scrubDelay - time.Second); n != 0 {
			t.Errorf("%d reads before the first pass", n)
		}
		half := seen(scrubDelay / 2)
		rest := seen(time.Hour)
		if half == 0 || rest == 0 {
			t.Errorf("%d and %d reads: not paced", half, rest)
		}
		if n := seen(22 * time.Hour); n != 0 {
			t.Errorf("%d reads after the first pass", n)
		}
		if n := seen(2 * time.Hour); n == 0 {
			t.Error("no second pass")
		}
		time.Sleep(22*time.Hour + 30*time.Second)
		began := time.Now()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); d > time.Second {
			t.Errorf("Close took %v", d)
		}
	})
}

// TestScrubOff proves that a negative pace turns the scrub off.
func TestScrubOff(t *testing.T) {
	cfg := testConfig(vfs.NewMem(), "data")
	cfg.Scrub = -1
	if s := openStore(t, cfg); !s.keeper.scrubAt.IsZero() {
		t.Error("a pass is planned")
	}
}
