package storage

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/leatstream/leat/internal/vfs"
)

var errUnseen = errors.New("a look failed")

// lookWorld is a directory with a log that is used, one that was set aside and one that was deleted, all
// with records that only the journal is sure to have.
func lookWorld(t *testing.T) *vfs.Mem {
	t.Helper()
	mem := vfs.NewMem()
	s := quietStore(t, testConfig(mem, "data"))
	for range 2 { // records before a checkpoint and behind it
		for i := range 3 {
			l := testLog(s, i, testOptions())
			end, _ := l.End()
			mustAppend(t, l, batch(t, int(end), 5, 100))
		}
		s.Commit()
		s.keeper.checkpointNow()
	}
	for i := range 3 {
		mustAppend(t, testLog(s, i, testOptions()), batch(t, 10, 5, 100))
	}
	s.Commit()
	s.Delete(testID(2))
	s.Commit()
	mem = mem.KillClone(nil)
	s = quietStore(t, testConfig(mem, "data"))
	testLog(s, 0, testOptions())
	s.sweepDirs(&sweep{
		isKnown:   func(id LogID) bool { return id == testID(0) },
		isDeleted: func(id LogID) bool { return id == testID(2) },
	})
	if s.Strays() != 1 {
		t.Fatalf("%d directories were set aside", s.Strays())
	}
	return mem.KillClone(nil)
}

// TestLookThatFails proves that a start of which any look at the disk fails is refused, or finds
// everything: no log seems to be empty, no deleted one comes back, and where both checkpoint files
// are lost, every log is opened with care.
func TestLookThatFails(t *testing.T) {
	whole := lookWorld(t)
	rotten := whole.KillClone(nil)
	for _, name := range []string{"data/checkpoint-a", "data/checkpoint-b"} {
		flipAt(t, rotten, name, 20, rand.New(rand.NewPCG(1, 1)))
	}
	for _, rots := range []bool{false, true} {
		refused, looks := 0, 0
		for ; ; looks++ {
			mem := whole.KillClone(nil)
			if rots {
				mem = rotten.KillClone(nil)
			}
			left, failed, what := looks, false, ""
			cfg := testConfig(vfs.NewFaulty(mem, func(op vfs.Op, path string) error {
				isLook := op == vfs.OpReadDir || op == vfs.OpStat || (op == vfs.OpRead || op == vfs.OpOpen) && strings.Contains(path, "topic-")
				if !isLook || failed {
					return nil
				}
				if left--; left >= 0 {
					return nil
				}
				failed, what = true, fmt.Sprint(op, " of ", path)
				return errUnseen
			}), "data")
			s, err := openDir(cfg)
			if !failed {
				checkLooks(t, s, "no failure", rots)
				_ = s.Close()
				break
			}
			if err != nil {
				refused++
				cfg.FS = mem // and such a start has spoilt nothing
				s = quietStore(t, cfg)
			}
			checkLooks(t, s, what, rots)
			_ = s.Close()
		}
		if looks < 4 || refused == 0 {
			t.Errorf("checkpoints rot: %v: %d looks failed, %d starts were refused", rots, looks, refused)
		}
	}
}

func checkLooks(t *testing.T, s *Store, what string, rots bool) {
	t.Helper()
	s.background = func(fn func()) { fn() }
	if rots {
		for i := range 2 {
			if !s.points.Get(testID(i)).Lost {
				t.Errorf("%s: log %d is opened without care", what, i)
			}
		}
	}
	for i := range 2 {
		l := testLog(s, i, testOptions())
		end, err := l.End()
		if err == nil && (end != 15 || l.Fault() != nil) {
			t.Errorf("%s: log %d seems to end at %d: %v", what, i, end, l.Fault())
		}
	}
	if _, err := s.fs.Stat("data/topic-2"); err == nil {
		t.Errorf("%s: the deleted log is back", what)
	}
}

// TestSweepKeepsPointsOfUnownedDirectories proves that a log which the metadata did not have for one
// run, and whose directory does not say of which topic it is any more, is used again, with all
// its records, when the metadata have it again.
func TestSweepKeepsPointsOfUnownedDirectories(t *testing.T) {
	mem := vfs.NewMem()
	cfg := testConfig(mem, "data")
	s := quietStore(t, cfg)
	mustAppend(t, testLog(s, 0, testOptions()), batch(t, 0, 5, 100))
	s.Commit()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	emptyFile(t, mem, "data/topic-0/"+metadataFile)
	s = quietStore(t, cfg)
	none := func(LogID) bool { return false }
	s.sweepDirs(&sweep{isKnown: none, isDeleted: none})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	expectValues(t, testLog(quietStore(t, cfg), 0, testOptions()), 5)
}
