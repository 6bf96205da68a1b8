package storage

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/leatstream/leat/internal/vfs"
)

// TestNoFalseAlarmWhereTheNewestCheckpointRots proves that a round which a power cut took
// before it was synced, and acknowledged, is not taken for damage by a start from the older
// checkpoint file: not even where the newest one was written while that round was.
func TestNoFalseAlarmWhereTheNewestCheckpointRots(t *testing.T) {
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 3))
		mem := vfs.NewMem()
		var s *Store
		var cut *vfs.Mem
		armed := false
		cfg := testConfig(vfs.NewFaulty(mem, func(op vfs.Op, name string) error {
			if armed && op == vfs.OpSync && strings.HasSuffix(name, ".ring") {
				armed = false
				s.keeper.checkpointNow() // beside the round, which is written and not synced
				cut = mem.Crash(rng)
			}
			return nil
		}), "data")
		s = quietStore(t, cfg)
		l := testLog(s, 0, testOptions())
		n := 0
		write := func(l *Log) {
			t.Helper()
			mustAppend(t, l, batch(t, n, 1, 100))
			n++
			l.s.Commit()
		}
		for range 3 {
			write(l)
			s.keeper.checkpointNow()
		}
		write(l)
		armed = true
		write(l)
		if cut == nil {
			t.Fatal("no round was synced")
		}

		cfg = testConfig(cut, "data")
		s = quietStore(t, cfg)
		l = testLog(s, 0, testOptions())
		end, err := l.End()
		if n = int(end); err != nil || n < 4 {
			t.Fatalf("seed %d: the log ends at %d, %v", seed, n, err)
		}
		for range 3 {
			write(l)
		}
		killed := cut.KillClone(rng)
		flipAt(t, killed, newestCheckpoint(t, killed), 40, rng)
		s = quietStore(t, testConfig(killed, "data"))
		if err := s.Damage(); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
		expectValues(t, testLog(s, 0, testOptions()), n)
	}
}
