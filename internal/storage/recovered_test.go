package storage

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/vfs"
)

// journalWorld is the disk of a killed process, with a log of 5 records that were acknowledged as
// durable. Only the journal is sure to have them.
func journalWorld(t *testing.T) *vfs.Mem {
	t.Helper()
	mem := vfs.NewMem()
	s := quietStore(t, testConfig(mem, "data"))
	s.keeper.checkpointNow()
	appendCommitted(t, s, testLog(s, 0, testOptions()))
	return mem.KillClone(nil)
}

// appendCommitted gives an empty log 5 records that are acknowledged.
func appendCommitted(t *testing.T, s *Store, l *Log) {
	t.Helper()
	for i := range 5 {
		mustAppend(t, l, batch(t, i, 1, 100))
		s.Commit()
	}
	if end, err := l.Committed(); end != 5 || err != nil {
		t.Fatalf("it is committed up to %d, %v", end, err)
	}
}

// expectAfterPowerCuts checks that the log has its records, whichever unsynced bytes a power cut
// leaves.
func expectAfterPowerCuts(t *testing.T, mem *vfs.Mem) {
	t.Helper()
	lost := 0
	for seed := range uint64(40) {
		cfg := testConfig(mem.Crash(rand.New(rand.NewPCG(seed, 9))), "data")
		cfg.BootID = "another boot"
		s := quietStore(t, cfg)
		l := testLog(s, 0, testOptions())
		if end, err := l.End(); err != nil || end < 5 {
			if lost++; lost == 1 {
				t.Errorf("seed %d: the log ends at %d, %v, %v; %v", seed, end, err, l.Fault(), s.Damage())
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if lost > 0 {
		t.Errorf("acknowledged records were lost in %d of 40 power cuts", lost)
	}
}

// TestFailedSyncIsRememberedAfterAFullDisk proves that a start after a failed sync writes every
// byte anew. That includes the bytes of logs that found the disk full at first and waited for room.
func TestFailedSyncIsRememberedAfterAFullDisk(t *testing.T) {
	for name, isFull := range map[string]bool{"full": true, "room": false} {
		t.Run(name, func(t *testing.T) {
			mem := vfs.NewMem()
			var fails vfs.Op // the call that fails for segments
			var failure error
			hook := func(op vfs.Op, path string) error {
				if failure != nil && op == fails && strings.HasSuffix(path, ".log") {
					return failure
				}
				return nil
			}
			cfg := testConfig(vfs.NewFaulty(mem, hook), "data")
			s := quietStore(t, cfg)
			s.keeper.checkpointNow()
			l := testLog(s, 0, testOptions())
			appendCommitted(t, s, l)
			fails, failure = vfs.OpSync, errBadDisk
			s.keeper.checkpointNow()
			if l.Fault() == nil {
				t.Fatal("the failed sync made no fault")
			}
			failure = nil
			mem = mem.KillClone(nil)
			cfg.FS = vfs.NewFaulty(mem, hook)
			if isFull {
				fails, failure = vfs.OpWrite, vfs.ErrNoSpace
			}
			s = quietStore(t, cfg)
			failure = nil
			if s.hasWaiting() != isFull {
				t.Fatalf("logs wait: %v", s.hasWaiting())
			}
			s.recoverWaiting()
			if s.hasWaiting() {
				t.Fatal("logs wait though there is room")
			}
			for range 4 {
				s.keeper.checkpointNow()
			}
			expectAfterPowerCuts(t, mem)
		})
	}
}

// TestStartIsKeptInBothCheckpoints proves that a start that was acknowledged while the journal took
// no notes is kept if the newest checkpoint file rots.
func TestStartIsKeptInBothCheckpoints(t *testing.T) {
	for name, err := range map[string]error{"full": vfs.ErrNoSpace, "lost": errBadDisk} {
		t.Run(name, func(t *testing.T) {
			mem := vfs.NewMem()
			var failure error // the error of the journal's files
			cfg := testConfig(vfs.NewFaulty(mem, func(op vfs.Op, path string) error {
				if op == vfs.OpWrite && strings.HasSuffix(path, ".ring") {
					return failure
				}
				return nil
			}), "data")
			s := quietStore(t, cfg)
			l := testLog(s, 0, testOptions())
			appendCommitted(t, s, l)
			s.keeper.checkpointNow()
			s.keeper.checkpointNow()
			failure = err
			if err := l.SetStart(3); err != nil {
				t.Fatal(err)
			}
			mem = mem.KillClone(nil)
			flipAt(t, mem, newestCheckpoint(t, mem), 40, rand.New(rand.NewPCG(1, 1)))
			s = quietStore(t, testConfig(mem, "data"))
			start, err := testLog(s, 0, testOptions()).Start()
			if start != record.Offset(3) || err != nil {
				t.Errorf("the log starts at %d, and records up to 3 were deleted; %v, %v", start, err, s.Damage())
			}
		})
	}
}

// TestRenamedWhileRecovered proves that files that recovery wrote are durable before the journal
// drops their bytes, even if their directory has been renamed in between.
func TestRenamedWhileRecovered(t *testing.T) {
	sweep := func(s *Store) {
		s.Sweep(isNone, isNone, nil)
		s.keeper.doDueWork()
		if s.Strays() != 1 {
			t.Fatalf("%d directories were set aside", s.Strays())
		}
	}
	checkpoint := func(s *Store) {
		for range 4 {
			s.keeper.checkpointNow()
		}
	}
	t.Run("set aside", func(t *testing.T) {
		mem := journalWorld(t)
		s := quietStore(t, testConfig(mem, "data"))
		sweep(s)
		checkpoint(s)
		expectAfterPowerCuts(t, mem)
	})
	t.Run("taken back", func(t *testing.T) {
		mem := journalWorld(t)
		sweep(quietStore(t, testConfig(mem, "data")))
		mem = mem.KillClone(nil)
		s := quietStore(t, testConfig(mem, "data"))
		o := testOptions()
		o.FlushMessages = 1 << 40 // opening the log syncs nothing
		if end, err := testLog(s, 0, o).End(); end != 5 || err != nil {
			t.Fatalf("it ends at %d, %v", end, err)
		}
		checkpoint(s)
		expectAfterPowerCuts(t, mem)
	})
	t.Run("deleted", func(t *testing.T) {
		s := quietStore(t, testConfig(journalWorld(t), "data"))
		l := testLog(s, 0, testOptions())
		s.Delete(l.ID())
		checkpoint(s)
		if again := testLog(s, 0, testOptions()); again.Fault() != nil || s.keeper.heldFrom != 0 {
			t.Errorf("a deleted log is missed: %v, rounds from %d on are held", again.Fault(), s.keeper.heldFrom)
		}
	})
	t.Run("gone", func(t *testing.T) {
		mem := journalWorld(t)
		s := quietStore(t, testConfig(mem, "data"))
		l := testLog(s, 0, testOptions())
		if err := mem.Rename("data/topic-0", "elsewhere"); err != nil {
			t.Fatal(err)
		}
		checkpoint(s)
		if l.Fault() == nil {
			t.Error("nobody misses a directory")
		}
		s = quietStore(t, testConfig(mem.KillClone(nil), "data"))
		if end, err := testLog(s, 0, testOptions()).End(); end != 5 || err != nil {
			t.Errorf("the journal has not brought the log back: it ends at %d, %v", end, err)
		}
	})
}

// TestWaitingLogSetAside proves that a log that waited for room gets its records when there is
// room, even if its directory was set aside before the start or after it.
func TestWaitingLogSetAside(t *testing.T) {
	for _, before := range []bool{true, false} {
		for seed := range uint64(10) {
			mem := journalWorld(t)
			if before {
				s := quietStore(t, testConfig(mem, "data"))
				s.Sweep(isNone, isNone, nil)
				s.keeper.doDueWork()
				if err := mem.SyncDir("data"); err != nil {
					t.Fatal(err)
				}
			}
			mem = mem.Crash(rand.New(rand.NewPCG(seed, 10)))
			isFull := true
			s := quietStore(t, testConfig(vfs.NewFaulty(mem, func(op vfs.Op, path string) error {
				if isFull && op == vfs.OpWrite && strings.HasSuffix(path, ".log") {
					return vfs.ErrNoSpace
				}
				return nil
			}), "data"))
			s.Sweep(isNone, isNone, nil)
			s.keeper.doDueWork()
			isFull = false
			s.recoverWaiting()
			for range 4 {
				s.keeper.checkpointNow()
			}
			if s.hasWaiting() || s.Strays() != 1 {
				t.Fatalf("seed %d: logs wait: %v, %d directories were set aside", seed, s.hasWaiting(), s.Strays())
			}
			if _, err := mem.Stat("data/topic-0"); err == nil {
				t.Errorf("seed %d: a second directory was made", seed)
			}
			expectAfterPowerCuts(t, mem)
		}
	}
}
