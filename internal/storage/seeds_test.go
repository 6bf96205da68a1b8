package storage

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/leatstream/leat/internal/storage/producer"
	"github.com/leatstream/leat/internal/vfs"
)

// seeds are those that a test of crashes runs: LEAT_TEST_SEED=7, LEAT_TEST_SEEDS=50000 for those
// below that, or LEAT_TEST_SEEDS=20000-25000 for a part of a campaign.
func seeds(tb testing.TB) (from, to int) {
	tb.Helper()
	number := func(text string) int {
		n, err := strconv.Atoi(text)
		if err != nil {
			tb.Fatal(err)
		}
		return n
	}
	if v := os.Getenv("LEAT_TEST_SEED"); v != "" {
		return number(v), number(v) + 1
	}
	v := os.Getenv("LEAT_TEST_SEEDS")
	if v == "" {
		return 0, int(sampled(1500))
	}
	if first, end, isRange := strings.Cut(v, "-"); isRange {
		return number(first), number(end)
	}
	return 0, number(v)
}

// TestCrash proves, over many seeds, that records that were reported as committed survive a
// power cut, a kill -9, or the loss of the page cache under a running kernel, at any call, in
// order and once, with their epochs; that the records that survive are a prefix of those that
// were appended, and of this topic; and that retries are recognised. Logs change between
// durable and page-cached, are truncated, have gaps, begin above 0, are deleted and made
// again, and retention takes their beginnings. A high watermark that is found covers only records
// of which it was said.
func TestCrash(t *testing.T) {
	t.Parallel()
	from, to := seeds(t)
	for seed := from; seed < to; seed++ {
		t.Run(strconv.Itoa(seed), func(t *testing.T) { crashRun(t, uint64(seed), conditions{}) })
	}
}

// TestCrashAfterError proves the same where calls of the file system fail before the crash:
// syncs, short writes, a full disk, too many open files.
func TestCrashAfterError(t *testing.T) {
	t.Parallel()
	from, to := seeds(t)
	for seed := from; seed < to; seed++ {
		t.Run(strconv.Itoa(seed), func(t *testing.T) { crashRun(t, uint64(seed), conditions{sick: true}) })
	}
}

// leastKept is how many producers a log remembers at least, those that were used last.
const leastKept = 2

// TestCrashInCrowd proves the same where there are more producers than there is memory for, and that
// those which were used last are remembered all the same.
func TestCrashInCrowd(t *testing.T) {
	t.Parallel()
	from, to := seeds(t)
	for seed := from; seed < to; seed++ {
		t.Run(strconv.Itoa(seed), func(t *testing.T) {
			crashRun(t, uint64(seed), conditions{sick: seed%2 == 1, crowded: true})
		})
	}
}

// TestCrashInCompaction proves the same where logs are compacted beside all that the tests above do: that no record is
// lost which is the last one of its key, or of which a compaction has not known a later one, that aborted
// transactions are not read, and that no record changes its offset.
func TestCrashInCompaction(t *testing.T) {
	t.Parallel()
	from, to := seeds(t)
	for seed := from; seed < to; seed++ {
		t.Run(strconv.Itoa(seed), func(t *testing.T) {
			crashRun(t, uint64(seed), conditions{compacts: true, sick: seed%2 == 1, isHard: seed%3 == 1, crowded: seed%5 == 1})
		})
	}
}

// TestCrashInCuts proves the same where logs are cut by numbers beside all that the tests above do, below their high watermarks and
// below their starts, and that no log is cut twice by one number, nor appended to before a cut that was begun is made; that a cut
// takes what it must; and that the tails of all cuts are there, with the bytes that were cut, until they are discarded.
func TestCrashInCuts(t *testing.T) {
	t.Parallel()
	from, to := seeds(t)
	for seed := from; seed < to; seed++ {
		t.Run(strconv.Itoa(seed), func(t *testing.T) {
			crashRun(t, uint64(seed), conditions{cuts: true, compacts: seed%5 == 2, sick: seed%2 == 1, isHard: seed%3 == 1})
		})
	}
}

// TestCrashAgain runs the seeds beyond those of the tests above that once failed, each for a
// reason of its own. What a seed does changes with the model: each fault that was found has a
// test of its own, too.
func TestCrashAgain(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		seed uint64
		conditions
		why string
	}{
		{1732, conditions{sick: true}, "a sync of the volume was believed after one of a directory had failed"},
		{3120, conditions{sick: true}, "the model kept a sure end within a gap that a truncation left at the log's end"},
		{6081, conditions{sick: true}, "the model forgot a log that may come back when one of its identity that had nothing was deleted, too"},
		{6338, conditions{sick: true}, "a recovery confirmed a truncation that a killed process had made in the page cache alone"},
		{17595, conditions{}, "the model cut a write in half that had returned, since one that wrote nothing came after it"},
		{26786, conditions{sick: true}, "files of a deleted log were removed before its directory's new name was durable: a crash brought back the rest"},
		{7844, conditions{sick: true}, "a recovery missed a segment below the log's start, since an earlier truncation in the journal lowered the point that vouched for it"},
		{22866, conditions{isHard: true}, "the start of a log was forgotten, since it had no directory yet: the disk was full, and the metadata were old"},
		{12620, conditions{isHard: true}, "a log became durable while segments below its start, which a power cut took back, were in the page cache only"},
		{49199, conditions{}, "a recovery lowered the high watermark below a start that lay within a batch which was cut, since the start was noted in the journal only"},
		{22102, conditions{crowded: true}, "a cut within the first batch lowered the high watermark of the log's point below its start"},
		{13265, conditions{sick: true, crowded: true}, "the model took records in the page cache for durable, since retention asked before an append had changed the log's mode"},
		{2048, conditions{compacts: true}, "the model wanted a high watermark below the start of a log that has nothing but its start"},
	} {
		t.Run(strconv.FormatUint(c.seed, 10), func(t *testing.T) {
			t.Log(c.why)
			crashRun(t, c.seed, c.conditions)
		})
	}
}

var errBadDisk = errors.New("input/output error")

// makeSick has some calls of this run fail.
func (w *world) makeSick() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sick = true
	w.failIn, w.failFor = 1+w.rng.IntN(100), 1
	w.failErr = [...]error{
		errBadDisk, vfs.ErrNoSpace, vfs.ErrNoHandles,
		&vfs.ShortWriteError{N: w.rng.Int64N(1000), Err: vfs.ErrNoSpace},
		&vfs.ShortWriteError{N: w.rng.Int64N(1000), Err: errBadDisk},
	}[w.rng.IntN(5)]
	if errors.Is(w.failErr, vfs.ErrNoHandles) || errors.Is(w.failErr, vfs.ErrNoSpace) {
		w.failFor = 1 + w.rng.IntN(5)
	}
}

// conditions are those of a run of the crash model.
type conditions struct{ sick, isHard, crowded, compacts, cuts bool }

func crashRun(t *testing.T, seed uint64, c conditions) {
	t.Helper()
	w := newWorld(t, seed)
	w.isHard, w.crowded, w.cuts = c.isHard, c.crowded, c.cuts
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d: %+v", seed, c) // package mutant reads it
		}
	})
	if c.compacts {
		w.beCompacted()
	}
	if w.crowded {
		w.cfg.Producers = NewProducerBudget(20 * producer.EntryBytes)
	}
	w.open()
	for range 2 + w.rng.IntN(4) {
		if c.sick {
			w.makeSick()
		}
		w.mu.Lock()
		w.ending = ending(w.rng.IntN(3))
		w.crashIn = 1 + w.rng.IntN(1<<(2+w.rng.IntN(8)))
		if w.compacts { // a round takes many calls, after those that append what it compacts
			w.crashIn *= 4
		}
		w.mu.Unlock()
		for range 400 {
			w.step()
			w.mu.Lock()
			fallen := w.fallen != nil
			w.mu.Unlock()
			if fallen {
				break
			}
		}
		w.mu.Lock()
		if w.fallen == nil {
			w.fall()
		}
		w.mu.Unlock()
		w.recovered()
	}
	w.s.scrub(unpaced) // whatever happened, the records that are left are whole
	for i, l := range w.logs {
		if l == nil { // the metadata do not know it
			continue
		}
		if err := l.Fault(); err != nil {
			t.Errorf("log %d: %v", i, err)
		}
	}
	if err := w.s.Close(); err != nil {
		t.Fatal(err)
	}
	if n := w.cfg.Producers.Usage().Producers; n != 0 {
		t.Errorf("%d producers are counted when all is closed", n)
	}
}

// sampled is how many of a test's n seeds are run: all of them by CI=true, a part of them by who
// waits for the tests.
func sampled(n int) uint64 {
	switch {
	case testing.Short():
		n /= 30
	case raceDetector:
		n /= 10
	case os.Getenv("CI") != "true":
		n /= 3
	}
	return uint64(max(n, 1))
}

// canFail tells whether a call of the file system may end in an error.
func canFail(op vfs.Op, path string, err error) bool {
	switch {
	case strings.HasSuffix(path, noteFile): // it is open, and its blocks are there
		return false
	case errors.Is(err, vfs.ErrNoHandles):
		return op == vfs.OpOpen || op == vfs.OpSyncDir
	case errors.Is(err, vfs.ErrNoSpace):
		return op != vfs.OpTruncate && op != vfs.OpRemove && op != vfs.OpSyncDir
	default:
		return true
	}
}

func (w *world) cloneModel() []*modelLog {
	c := make([]*modelLog, len(w.model))
	for i, m := range w.model {
		c[i] = m.clone()
	}
	return c
}

// fall takes the picture of what is left. mu is held.
func (w *world) fall() {
	w.expected = w.cloneModel()
	switch {
	case w.ending != killed:
		w.fallen = w.mem.Crash(w.rng)
	case w.rng.IntN(2) == 0:
		w.fallen = w.mem.KillClone(nil)
	default: // it died inside of the last write, which nothing relied on yet
		w.fallen = w.mem.KillClone(w.rng)
		for i, m := range w.expected {
			if was := w.before[i]; was.id == m.id {
				m.committed = max(m.sure, min(m.committed, was.committed))
			} else {
				m.committed = 0
			}
		}
	}
}
