package storage

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/storage/aside"
	"github.com/leatstream/leat/internal/vfs"
)

// TestManyDeletions proves that the removal of many logs' directories leaves the
// keeper time for other work, that all of them go all the same, and that the next
// log of such a name begins empty.
func TestManyDeletions(t *testing.T) {
	mem := vfs.NewMem()
	s, err := openDir(testConfig(mem, "data")) // nothing runs in the background
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	const logs = 3 * removalsAtOnce
	for i := range logs {
		mustAppend(t, testLog(s, i, testOptions()), batch(t, 0, 1, 100))
	}
	s.Commit()
	s.keeper.checkpointNow()
	for i := range logs {
		s.Delete(testID(i))
	}
	directories := func() (n int, files bool) {
		infos, err := mem.ReadDir("data")
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range infos {
			if !strings.HasSuffix(d.Name, "-delete") {
				continue
			}
			n++
			inside, err := mem.ReadDir("data/" + d.Name)
			if err != nil {
				t.Fatal(err)
			}
			files = files || len(inside) > 1 // the metadata stay
		}
		return n, files
	}
	if n, _ := directories(); n != logs {
		t.Fatalf("%d directories are on their way out, want %d", n, logs)
	}
	for _, want := range []bool{true, true, false} {
		s.keeper.removeDue(time.Now())
		if _, files := directories(); files != want {
			t.Errorf("files are left: %v, want %v", files, want)
		}
		if want && s.keeper.untilNext() > 0 {
			t.Error("the keeper takes what is left for not due")
		}
	}
	for range 2 {
		s.keeper.checkpointNow() // from now on their names are not needed
	}
	for left := logs; left > 0; {
		s.keeper.removeDue(time.Now())
		n, _ := directories()
		if n != left-removalsAtOnce {
			t.Fatalf("%d directories of %d are left", n, left)
		}
		left = n
	}
	other := testID(0)
	other.Topic[0]++
	l := s.Log(other, "topic", testOptions(), func(*Log) {})
	if it := mustAppend(t, l, batch(t, 0, 1, 100)); it.Base != 0 {
		t.Errorf("the next log begins with offset %d", it.Base)
	}
}

// TestDeletionInTheWay proves that a deletion does its work where what an earlier
// run left has the name that it gives the directory.
func TestDeletionInTheWay(t *testing.T) {
	mem := vfs.NewMem()
	s := openStore(t, testConfig(mem, "data"))
	l := testLog(s, 0, testOptions())
	mustAppend(t, l, batch(t, 0, 1, 100))
	to := "data/" + aside.DeletedName(l.name, l.id)
	if err := mem.MkdirAll(to + "/left"); err != nil {
		t.Fatal(err)
	}
	s.Delete(l.ID())
	infos, err := mem.ReadDir("data")
	if err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(infos, func(i vfs.Info) bool { return i.Name == l.name }) {
		t.Error("the directory is still there")
	}
}

// BenchmarkDelete deletes a log that was written to once. Removing what it leaves
// is not part of it.
func BenchmarkDelete(b *testing.B) {
	const logs = 200
	cfg := testConfig(vfs.OS{}, b.TempDir())
	cfg.Journal = 64 << 20
	s := openStore(b, cfg)
	record := batch(b, 0, 1, 100)
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		first := n
		for ; n < first+logs; n++ {
			mustAppend(b, testLog(s, n, testOptions()), record)
		}
		s.Commit()
		b.StartTimer()
		for i := range logs {
			s.Delete(testID(first + i))
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*logs), "us/log")
}

// TestDeletionIsUndoneWhole proves that a crash that undoes a deletion brings back all of the log:
// none of its files is removed before the directory's new name is durable.
func TestDeletionIsUndoneWhole(t *testing.T) {
	for _, failing := range []bool{false, true} {
		for seed := range uint64(30) {
			mem := vfs.NewMem()
			deleted := false
			cfg := testConfig(vfs.NewFaulty(mem, func(op vfs.Op, path string) error {
				if failing && deleted && op == vfs.OpSyncDir && path == "data" {
					return errBadDisk
				}
				return nil
			}), "data")
			o := testOptions()
			o.SegmentBytes = 300
			s := quietStore(t, cfg)
			l := testLog(s, 0, o)
			for i := range 8 {
				mustAppend(t, l, batch(t, i, 1, 100))
			}
			s.Commit()
			s.keeper.checkpointNow()
			deleted = true
			s.Delete(l.ID())
			s.keeper.removeDue(time.Now())
			cfg.FS = mem.Crash(rand.New(rand.NewPCG(seed, 39)))
			l = testLog(quietStore(t, cfg), 0, o)
			if end, err := l.End(); err != nil || end != 0 && end != 8 || end == 0 && failing {
				t.Fatalf("seed %d, failing %v: it ends at %d, %v", seed, failing, end, err)
			} else if end > 0 {
				expectValues(t, l, 8)
			}
		}
	}
}

// TestTrimAfterDeletion proves that a checkpoint which comes to a log that is deleted meanwhile lists none of
// its segments: they would be listed until a restart, and each second would have a checkpoint.
func TestTrimAfterDeletion(t *testing.T) {
	mem := vfs.NewMem()
	cfg := testConfig(mem, "data")
	s := quietStore(t, cfg)
	o := testOptions()
	o.SegmentBytes = 1024
	l := testLog(s, 0, o)
	for n := range 40 {
		mustAppend(t, l, batch(t, n, 1, 100))
	}
	s.Commit()
	s.keeper.checkpointNow()
	if err := l.SetStart(40); err != nil {
		t.Fatal(err)
	}
	cfg.FS = mem.KillClone(nil)
	s = quietStore(t, cfg)
	l = testLog(s, 0, o)
	if _, err := l.End(); err != nil || len(l.segments()) < 2 {
		t.Fatalf("%d segments: %v", len(l.segments()), err)
	}
	s.Delete(testID(0))
	if err := l.trimBelowStart(); err != nil {
		t.Fatal(err)
	}
	for range 6 {
		s.keeper.checkpointNow()
		s.keeper.removeDue(time.Now())
	}
	s.keeper.mu.Lock()
	defer s.keeper.mu.Unlock()
	if s.keeper.redo || len(s.keeper.dropped) > 0 {
		t.Errorf("another checkpoint is wanted: %v; %d segments are listed", s.keeper.redo, len(s.keeper.dropped))
	}
}
