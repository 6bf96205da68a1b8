package storage

import (
	"strconv"
	"strings"
	"testing"

	"github.com/leatstream/leat/internal/vfs"
)

// hardship is what befalls a world around its starts.
type hardship struct {
	isHard bool
	noRoom bool         // guarded by mu: logs' files find no room any more, once failIn is 0
	hidden map[int]bool // logs that the metadata do not know in this run
	opened bool         // the world was opened before
}

// TestCrashInHardship proves the same as TestCrash where the disk is full while a start recovers,
// and has room later, where the metadata do not know some logs, whose directories are set aside
// and taken back, where the newest checkpoint file rots, where the journal's size changes, and
// where calls fail, also those of the last checkpoint of a store that is closed.
func TestCrashInHardship(t *testing.T) {
	t.Parallel()
	from, to := seeds(t)
	for seed := from; seed < to; seed++ {
		t.Run(strconv.Itoa(seed), func(t *testing.T) { crashRun(t, uint64(seed), conditions{sick: seed%2 == 1, isHard: true}) })
	}
}

// hasNoRoom tells whether a call finds the disk full. mu is held.
func (w *world) hasNoRoom(op vfs.Op, path string) bool {
	return w.noRoom && w.failIn == 0 && (op == vfs.OpWrite || op == vfs.OpMkdir) && strings.HasPrefix(path, "data/t")
}

// hideLogs chooses the logs that the metadata do not know in the run that begins.
func (w *world) hideLogs() {
	w.hidden = map[int]bool{}
	for i, m := range w.model {
		if w.isHard && w.opened && m.deleted == nil && w.rng.IntN(7) == 0 {
			w.hidden[i], m.unopened = true, true
		}
	}
	w.opened = true
}

// openInHardship opens what a crash left.
func (w *world) openInHardship() {
	if !w.isHard {
		w.open()
		return
	}
	w.mu.Lock()
	if w.rng.IntN(3) == 0 {
		w.noRoom, w.failIn = true, w.rng.IntN(12)
	}
	w.mu.Unlock()
	if t, ok := w.tb.(*testing.T); ok && w.rng.IntN(5) == 0 {
		w.letRot(t)
	}
	w.cfg.Journal = []int64{1 << 16, 1 << 17, 1 << 18}[w.rng.IntN(3)]
	w.open()
	w.mu.Lock()
	w.noRoom, w.failIn = false, 0
	w.mu.Unlock()
}

// letRot flips a bit of the newest checkpoint file. A start that was moved by who was not told
// that it lasts may be the older one then.
func (w *world) letRot(t *testing.T) {
	t.Helper()
	name := newestCheckpoint(t, w.mem)
	if name == "" {
		return
	}
	info, err := w.mem.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	flipAt(t, w.mem, name, 12+w.rng.Int64N(min(80, info.Size-12)), w.rng)
	for _, m := range w.model {
		m.asked, m.start = max(m.asked, m.start), min(m.start, m.acked)
		m.highKept = 0
	}
}

// closeSick closes the store while calls fail: whatever that says, nothing that was committed may
// be gone. The run ends with it.
func (w *world) closeSick() {
	_ = w.s.Close() // it may fail
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fallen == nil {
		w.fall()
	}
}
