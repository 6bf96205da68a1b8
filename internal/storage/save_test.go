package storage

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/leatstream/leat/internal/storage/checkpoint"
	"github.com/leatstream/leat/internal/vfs"
)

// TestStartSavedWithoutTheJournal proves that a start which the checkpoint files have to keep, since
// the journal takes no note, loses and doubles no record, whatever ends the process at whichever
// call of the saves, and though the newest file rots then; and that it lasts once SetStart has
// returned. The process is one that has just recovered: rounds of the journal from before it are
// not durable in the logs' files. With many changed points the saves begin with the points file.
func TestStartSavedWithoutTheJournal(t *testing.T) {
	for _, many := range []bool{false, true} {
		t.Run(fmt.Sprintf("many points %v", many), func(t *testing.T) {
			r := openRecovered(t)
			mem, s := r.mem, r.s
			if many {
				for i := 1000; i < 1300; i++ {
					s.points.Set(testID(i), checkpoint.Point{Start: 1, Snapshot: -1, ProducersAt: -1, Closed: checkpoint.BytesUnknown})
				}
			}
			var moments []*vfs.Mem
			saves := map[string]bool{}
			rng := rand.New(rand.NewPCG(1, 41))
			r.watch = func(op vfs.Op, path string) {
				if op.Changes() {
					moments = append(moments, mem.KillClone(nil), mem.Crash(rng), mem.Crash(rng), mem.Crash(rng))
				}
				if op == vfs.OpWrite {
					saves[path] = true
				}
			}
			r.sick = true
			if err := testLog(s, 0, testOptions()).SetStart(7); err != nil {
				t.Fatal(err)
			}
			r.watch, r.sick = nil, false
			if !saves["data/checkpoint-a"] || !saves["data/checkpoint-b"] || many != (saves["data/points-a"] || saves["data/points-b"]) {
				t.Fatalf("these were written: %v", saves)
			}
			for i, m := range moments {
				checkSavedStart(t, fmt.Sprint("moment ", i), m, 0)
			}
			for i := range 10 {
				checkSavedStart(t, fmt.Sprint("cut ", i), mem.Crash(rng), 7)
			}
			checkSavedStart(t, "kill", mem.KillClone(nil), 7)
		})
	}
}

// recoveredStore is a store that has just recovered two logs of twenty records each, the first ten of
// which a checkpoint has seen.
type recoveredStore struct {
	mem   *vfs.Mem
	s     *Store
	sick  bool                         // the journal takes no note
	watch func(op vfs.Op, path string) // is told of calls; nil: nobody is
}

func openRecovered(t *testing.T) *recoveredStore {
	t.Helper()
	r := &recoveredStore{mem: vfs.NewMem()}
	s := quietStore(t, testConfig(r.mem, "data"))
	for n := range 20 {
		for i := range 2 {
			mustAppend(t, testLog(s, i, testOptions()), batch(t, n, 1, 100))
		}
		s.Commit()
		if n == 5 || n == 9 {
			s.keeper.checkpointNow()
		}
	}
	r.mem = r.mem.Crash(rand.New(rand.NewPCG(3, 41)))
	r.s = quietStore(t, testConfig(vfs.NewFaulty(r.mem, func(op vfs.Op, path string) error {
		if r.watch != nil {
			r.watch(op, path)
		}
		if r.sick && (op == vfs.OpOpen || op == vfs.OpWrite) && strings.Contains(path, "/journal/") {
			return vfs.ErrNoHandles
		}
		return nil
	}), "data"))
	if len(r.s.keeper.recovered) == 0 {
		t.Fatal("nothing was recovered: the test proves nothing")
	}
	return r
}

// checkSavedStart checks what a start finds: with the files as they are, and with the newest
// checkpoint file rotten, which may have an older start unless least says that it is durable.
func checkSavedStart(t *testing.T, what string, mem *vfs.Mem, least int) {
	t.Helper()
	for _, rots := range []bool{false, true} {
		left := mem.KillClone(nil)
		if rots {
			name := newestCheckpoint(t, left)
			if name == "" {
				continue
			}
			flipAt(t, left, name, 30, rand.New(rand.NewPCG(1, 42)))
			what += ", the newest checkpoint rots"
		}
		s := quietStore(t, testConfig(left, "data"))
		for i, from := range []int{least, 0} {
			l := testLog(s, i, testOptions())
			start, err := l.Start()
			if err != nil || l.Fault() != nil || int(start) != 0 && (i > 0 || start != 7) || int(start) < from {
				t.Fatalf("%s: log %d begins at %d, %v, %v", what, i, start, err, l.Fault())
			}
			got := values(t, readAll(t, l, start, 1<<20))
			if len(got) != 20-int(start) || got[0] != int(start) || got[len(got)-1] != 19 {
				t.Fatalf("%s: log %d has %v", what, i, got)
			}
		}
		if s.Damage() != nil {
			t.Errorf("%s: %v", what, s.Damage())
		}
		_ = s.Close()
	}
}
