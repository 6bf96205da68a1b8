package storage

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/storage/aside"
	"github.com/leatstream/leat/internal/vfs"
)

// untilUsable does the keeper's work until a log takes a batch, and returns how often it was
// refused before.
func untilUsable(t *testing.T, s *Store, l *Log, first int) (refused int) {
	t.Helper()
	for ; refused < 20; refused++ {
		it := appendOne(t, l, batch(t, first, 1, 100))
		if it.Err == nil {
			if it.Base != 0 {
				t.Errorf("it begins at %d", it.Base)
			}
			return refused
		}
		if !errors.Is(it.Err, ErrBusy) {
			t.Fatal(it.Err)
		}
		if end, err := l.End(); end != 0 || err != nil {
			t.Fatalf("it ends at %d, %v", end, err)
		}
		s.keeper.checkpointNow()
		s.keeper.removeDue(time.Now().Add(time.Minute))
	}
	t.Fatal("it takes no records")
	return refused
}

// TestSameLogAgain proves that a log that is deleted and made again with the same identity, as a
// replica that moves away and back, begins empty and loses nothing that was committed, whatever
// ends the run: a kill, or a power cut. Journal, checkpoints, points and directories of the
// deleted one are there, or on their way out; its directory may have been set aside, or may
// not let itself be moved away at first.
func TestSameLogAgain(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 34))
		mem := vfs.NewMem()
		failing := 0 // renamings of the log's directory that fail
		cfg := testConfig(vfs.NewFaulty(mem, func(op vfs.Op, path string) error {
			if failing > 0 && op == vfs.OpRename && path == "data/topic-0" {
				failing--
				return errBadDisk
			}
			return nil
		}), "data")
		s := quietStore(t, cfg)
		l, beside := testLog(s, 0, testOptions()), testLog(s, 1, testOptions())
		for i := range 20 {
			mustAppend(t, l, batch(t, 100+i, 1, 200))
			mustAppend(t, beside, batch(t, i, 1, 200))
			if rng.IntN(3) == 0 {
				s.Commit()
			}
			if rng.IntN(8) == 0 {
				s.keeper.checkpointNow()
			}
		}
		if rng.IntN(3) == 0 { // the points files have it
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = quietStore(t, cfg)
			l = testLog(s, 0, testOptions())
		}
		if rng.IntN(2) == 0 {
			if err := l.SetStart(0); err != nil {
				t.Fatal(err)
			}
		}
		failing = max(0, rng.IntN(6)-3)
		s.Delete(l.ID())
		if rng.IntN(4) == 0 { // a start in between
			s = quietAfter(t, &cfg, mem, rng)
			mem = underlying(cfg.FS)
			if end, err := testLog(s, 0, testOptions()).End(); err != nil {
				t.Fatal(err)
			} else if end > 0 { // the deletion did not come to the disk
				s.Delete(testID(0))
			}
		}
		l = testLog(s, 0, testOptions())
		untilUsable(t, s, l, 0)
		n := 1
		for range rng.IntN(6) {
			mustAppend(t, l, batch(t, n, 1, 200))
			n++
		}
		s.Commit()
		if rng.IntN(3) == 0 {
			s.keeper.checkpointNow()
		}
		if err := l.SetStart(0); err != nil {
			t.Fatal(err)
		}
		s = quietAfter(t, &cfg, mem, rng)
		expectValues(t, testLog(s, 0, testOptions()), n)
		if err := testLog(s, 0, testOptions()).Fault(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// quietAfter opens what a kill or a power cut leaves.
func quietAfter(t *testing.T, cfg *Config, mem *vfs.Mem, rng *rand.Rand) *Store {
	t.Helper()
	after := mem.KillClone(nil)
	if rng.IntN(2) == 0 {
		after = mem.Crash(rng)
		cfg.BootID += "'"
	}
	cfg.FS = after
	return quietStore(t, *cfg)
}

func underlying(fs vfs.FS) *vfs.Mem {
	mem, _ := fs.(*vfs.Mem)
	return mem
}

// TestSweepSparesLogsMadeAgain proves that the sweep leaves a log alone that is made again with
// the identity of a deleted one while the sweep looks at it.
func TestSweepSparesLogsMadeAgain(t *testing.T) {
	mem := vfs.NewMem()
	cfg := testConfig(mem, "data")
	s := quietStore(t, cfg)
	mustAppend(t, testLog(s, 0, testOptions()), batch(t, 0, 1, 100))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = quietStore(t, cfg)
	var l *Log
	s.Sweep(func(LogID) bool { return false }, func(LogID) bool {
		l = testLog(s, 0, testOptions())
		mustAppend(t, l, batch(t, 1, 1, 100))
		s.Commit()
		return true
	}, nil)
	s.keeper.doDueWork()
	if l == nil {
		t.Fatal("the sweep did not look")
	}
	expectValues(t, l, 2)
	cfg.FS = mem.Crash(rand.New(rand.NewPCG(1, 35)))
	expectValues(t, testLog(quietStore(t, cfg), 0, testOptions()), 2)
}

// TestOwnDirectoryBeforeOneSetAside proves that a recovery writes a log's records into its own
// directory where one of its identity is set aside, too.
func TestOwnDirectoryBeforeOneSetAside(t *testing.T) {
	mem := vfs.NewMem()
	cfg := testConfig(mem, "data")
	s := quietStore(t, cfg)
	l := testLog(s, 0, testOptions())
	for i := range 5 {
		mustAppend(t, l, batch(t, i, 1, 100))
		s.Commit()
	}
	stray := "data/" + aside.StrayName(l.name, l.ID(), 1_700_000_000_000)
	if err := mem.MkdirAll(stray); err != nil {
		t.Fatal(err)
	}
	put(t, mem, stray+"/"+metadataFile, encodeMetadata(l.ID().Topic))
	mem = mem.KillClone(nil)
	emptyFile(t, mem, segmentFile(0))
	cfg.FS = mem
	s = quietStore(t, cfg)
	expectValues(t, testLog(s, 0, testOptions()), 5)
	infos, err := mem.ReadDir(stray)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range infos {
		if strings.HasSuffix(i.Name, ".log") {
			t.Errorf("%s was written into the directory that is set aside", i.Name)
		}
	}
}

// TestSameLogAgainWhereACheckpointRots proves that a log that follows a deleted one of its identity
// never gets the point of that one, also where the newest checkpoint file rots.
func TestSameLogAgainWhereACheckpointRots(t *testing.T) {
	mem := vfs.NewMem()
	s := quietStore(t, testConfig(mem, "data"))
	l := testLog(s, 0, testOptions())
	appendCommitted(t, s, l)
	for range 2 {
		s.keeper.checkpointNow()
	}
	s.Delete(l.ID())
	mem = mem.KillClone(nil)
	s = quietStore(t, testConfig(mem, "data"))
	l = testLog(s, 0, testOptions())
	if untilUsable(t, s, l, 0) == 0 {
		t.Error("it takes records though a checkpoint file has the point of the deleted one")
	}
	s.Commit()
	mem = mem.KillClone(nil)
	flipAt(t, mem, newestCheckpoint(t, mem), 40, rand.New(rand.NewPCG(1, 1)))
	l = testLog(quietStore(t, testConfig(mem, "data")), 0, testOptions())
	if end, err := l.End(); end != 1 || err != nil || l.Fault() != nil {
		t.Errorf("it ends at %d, %v, %v", end, err, l.Fault())
	}
}

// TestStartGoesWithItsLog proves that a start which DeleteRecords was about to make durable when its log was
// deleted takes nothing from the next log of the same identity.
func TestStartGoesWithItsLog(t *testing.T) {
	mem := vfs.NewMem()
	s := quietStore(t, testConfig(mem, "data"))
	l := testLog(s, 0, testOptions())
	for i := range 10 {
		mustAppend(t, l, batch(t, i, 1, 100))
	}
	s.Commit()
	if err := l.moveStart(5); err != nil {
		t.Fatal(err)
	}
	s.Delete(testID(0))
	if err := l.keepStart(5); !errors.Is(err, ErrClosed) {
		t.Errorf("the start of a deleted log: %v", err)
	}
	again := testLog(s, 0, testOptions())
	untilUsable(t, s, again, 0)
	s.Commit()
	killed := testLog(quietStore(t, testConfig(mem.KillClone(nil), "data")), 0, testOptions())
	for name, l := range map[string]*Log{"now": again, "after a kill": killed} {
		if start, err := l.Start(); start != 0 || err != nil {
			t.Errorf("%s it begins at %d, %v", name, start, err)
		}
	}
	expectValues(t, killed, 1)
}

// TestLeftoverIsWrittenAgain proves that no removal takes a file that is being written under the name of one
// that an earlier run has not finished.
func TestLeftoverIsWrittenAgain(t *testing.T) {
	mem := vfs.NewMem()
	cfg := testConfig(mem, "data")
	s := quietStore(t, cfg)
	mustAppend(t, testLog(s, 0, testOptions()), batch(t, 0, 1, 100))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	name := "data/topic-0/leader-epoch-checkpoint.tmp"
	write := func() vfs.File {
		f, err := mem.Open(name, vfs.Fresh)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	if err := write().Close(); err != nil {
		t.Fatal(err)
	}
	s = quietStore(t, cfg)
	if _, err := testLog(s, 0, testOptions()).End(); err != nil {
		t.Fatal(err)
	}
	s.keeper.mu.Lock()
	queued := len(s.keeper.removals)
	s.keeper.mu.Unlock()
	if _, err := mem.Stat(name); err == nil && queued == 0 {
		t.Fatal("the leftover stays")
	}
	f := write()
	s.keeper.removeDue(time.Now())
	if err := errors.Join(f.Close(), mem.Rename(name, "data/topic-0/leader-epoch-checkpoint")); err != nil {
		t.Error(err)
	}
}
