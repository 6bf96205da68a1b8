package storage

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/leatstream/leat/internal/storage/checkpoint"
	"github.com/leatstream/leat/internal/storage/journal"
	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/vfs"
)

// aged makes a world in which the first things of a seed have happened and nothing has failed yet.
func aged(t *testing.T, seed uint64) *world {
	t.Helper()
	w := newWorld(t, seed)
	w.open()
	for range 60 {
		w.step()
	}
	return w
}

// atEveryCall does something again and again, each time in the same world. It ends that world at
// the first changing call, then at the second, and so on, until the whole is done without an end.
// After each end it starts again and compares. The world ends in all three ways. Then it goes on,
// loses the page cache, and is compared once more: by then everything that the first start found
// there and relied on must be on the disk.
func atEveryCall(t *testing.T, world func() *world, do func(w *world)) {
	t.Helper()
	for _, end := range []ending{powerCut, killed, tornAway} {
		for n := 1; ; n++ {
			w := world()
			w.rng = rand.New(rand.NewPCG(uint64(n), uint64(end)))
			w.crashIn, w.ending = n, end
			do(w)
			done := w.fallen == nil
			if done {
				w.fall()
			}
			w.recovered()
			w.goOn()
			w.mu.Lock()
			w.ending = tornAway
			w.fall()
			w.mu.Unlock()
			w.recovered()
			if err := w.s.Close(); err != nil {
				t.Fatalf("%v, call %d: %v", end, n, err)
			}
			if done {
				break
			}
			if n > 1000 {
				t.Fatal("it does not come to its end")
			}
		}
	}
}

// goOn appends to some of the logs that were opened, and commits.
func (w *world) goOn() {
	for i, m := range w.model {
		if !m.unopened && w.rng.IntN(2) == 0 {
			w.append(i)
		}
	}
	w.s.Commit()
}

// TestCrashAtEveryCall proves that a crash neither loses a record nor brings one back, at whatever
// call of the file system it comes. It tries the calls of a truncation, a change of a log's start
// or mode, a deletion, retention and a checkpoint.
func TestCrashAtEveryCall(t *testing.T) {
	t.Parallel()
	const mirror, cached = 4, 3
	for name, do := range map[string]func(w *world){
		"truncate": func(w *world) { w.truncate(mirror) },
		"truncate cached": func(w *world) {
			w.changeMode(mirror)
			w.append(mirror)
			w.truncate(mirror)
		},
		"truncate and append": func(w *world) {
			w.truncate(mirror)
			w.append(mirror)
			w.s.Commit()
		},
		"start": func(w *world) { w.setStart(0) },
		"start at": func(w *world) {
			if w.recreate(mirror, false); w.model[mirror].written == 0 {
				w.startAt(mirror)
			}
		},
		"delete":           func(w *world) { w.recreate(1, false); w.append(1); w.s.Commit() },
		"delete and again": func(w *world) { w.recreate(1, true); w.append(1); w.s.Commit() },
		"delete twice": func(w *world) {
			w.recreate(0, false)
			w.append(0)
			w.s.Commit()
			w.recreate(0, false)
			w.append(0)
		},
		"become durable": func(w *world) { w.changeMode(cached); w.append(cached); w.s.Commit() },
		"become cached":  func(w *world) { w.changeMode(0); w.append(0); w.changeMode(0); w.append(0); w.s.Commit() },
		"retention":      func(w *world) { w.retain(2); w.s.keeper.checkpointNow(); w.s.keeper.doDueWork() },
		"close":          func(w *world) { w.append(0); w.restart() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := range sampled(2) {
				atEveryCall(t, func() *world { return aged(t, seed) }, func(w *world) {
					if w.model[mirror].written == 0 {
						w.append(mirror)
					}
					do(w)
				})
			}
		})
	}
}

// TestCrashInRecovery proves that a recovery, or the first use of a log after it, can itself be
// ended at any call: it leaves everything that the next recovery needs.
func TestCrashInRecovery(t *testing.T) {
	t.Parallel()
	for seed := range sampled(9) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			first := ending(seed % 3)
			atEveryCall(t, func() *world {
				w := aged(t, seed)
				w.ending = first
				w.append(0)
				w.append(4)
				w.fall()
				if err := w.s.Close(); err != nil {
					t.Fatal(err)
				}
				w.mem, w.model, w.fallen = w.fallen, w.expected, nil
				if first == powerCut {
					w.boots++
				}
				if first != killed {
					for _, m := range w.model {
						m.lossy = m.lossy || m.committed > m.sure
						m.committed = m.sure
					}
				}
				return w
			}, func(w *world) {
				w.open()
				for _, l := range w.logs { // the log's first use
					if _, err := l.End(); err != nil {
						t.Fatal(err)
					}
				}
			})
		})
	}
}

// TestNewestCheckpointRots proves that recovery finds the same records with the older one of the
// two checkpoint files, whatever happened between the two.
func TestNewestCheckpointRots(t *testing.T) {
	t.Parallel()
	for seed := range sampled(120) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			w := aged(t, seed)
			if seed%2 == 0 { // a start between the two must keep the rounds that the older file needs
				w.ending = killed
				w.fall()
				w.recovered()
				for range 40 {
					if i := w.rng.IntN(len(w.logs)); !w.model[i].unopened {
						w.append(i)
						w.s.Commit()
					}
				}
			}
			w.ending = ending(seed % 3)
			w.fall()
			if name := newestCheckpoint(t, w.fallen); name != "" {
				flipAt(t, w.fallen, name, 12+w.rng.Int64N(80), w.rng)
				for _, m := range w.expected { // the older file may have the start from before retention moved it
					m.asked, m.start = max(m.asked, m.start), m.acked
					m.highKept = 0
				}
			}
			w.recovered()
			for range 20 {
				w.step()
			}
			w.ending = powerCut
			w.fall()
			w.recovered()
			if err := w.s.Damage(); err != nil {
				t.Error(err)
			}
			if err := w.s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// newestCheckpoint is the name of the newer one of two checkpoint files. It is empty if there are
// not two.
func newestCheckpoint(t *testing.T, mem *vfs.Mem) string {
	t.Helper()
	newest, generation := "", uint64(0)
	for _, name := range []string{"data/checkpoint-a", "data/checkpoint-b"} {
		f, err := mem.Open(name, vfs.ReadOnly)
		if err != nil {
			return ""
		}
		size, _ := f.Size()
		b, err := io.ReadAll(io.NewSectionReader(f, 0, size))
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		sheet, err := checkpoint.Decode(b)
		if err != nil {
			return ""
		}
		if sheet.Generation > generation {
			newest, generation = name, sheet.Generation
		}
	}
	return newest
}

// TestFailureAtEveryCall proves that no failed call within a commit, a change of mode, a truncation
// or a change of the start loses a record that was acknowledged before it or after it. Bytes that
// could not be made durable are still owed, and no later round makes them count as durable.
func TestFailureAtEveryCall(t *testing.T) {
	t.Parallel()
	for name, failure := range map[string]error{"no descriptors": syscall.EMFILE, "no space": vfs.ErrNoSpace, "bad disk": errBadDisk} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := range sampled(2) {
				atEveryFailure(t, seed, failure)
			}
		})
	}
}

func atEveryFailure(t *testing.T, seed uint64, failure error) {
	t.Helper()
	for n := 1; n < 60; n++ {
		w := aged(t, seed)
		w.rng = rand.New(rand.NewPCG(uint64(n), seed))
		w.sick, w.failIn, w.failFor, w.failErr = true, n, 1+n%3, failure
		for range 3 {
			for _, i := range []int{0, 3, 4} {
				w.append(i)
			}
			w.s.Commit()
			w.changeMode(3)
			w.append(3)
			w.setStart(0)
			w.append(0)
			w.s.Commit()
			w.truncate(4)
			w.append(4)
			w.s.keeper.checkpointNow()
		}
		w.append(0)
		w.s.Commit()
		w.ending = ending(n % 3)
		w.fall()
		w.recovered()
		if err := w.s.Close(); err != nil {
			t.Fatalf("call %d: %v", n, err)
		}
	}
}

// TestDebtsStayOutOfTheJournal proves that the journal gets no later bytes of a log whose files
// could not be made durable for want of descriptors. A power cut would take the earlier bytes, and
// the later ones could not be restored without them.
func TestDebtsStayOutOfTheJournal(t *testing.T) {
	for seed := range uint64(20) {
		mem := vfs.NewMem()
		short := false
		cfg := testConfig(vfs.NewFaulty(mem, func(op vfs.Op, path string) error {
			if short && op == vfs.OpSyncDir && !strings.HasSuffix(path, journal.DirName) {
				return syscall.EMFILE
			}
			return nil
		}), "data")
		cfg.SyncAlone = 1
		s := quietStore(t, cfg)
		l, other := testLog(s, 0, testOptions()), testLog(s, 1, testOptions())
		for range 3 { // these rounds make the journal's file
			mustAppend(t, other, batch(t, 0, 1, 10))
			mustAppend(t, testLog(s, 2, testOptions()), batch(t, 0, 1, 10))
			s.Commit()
		}
		mustAppend(t, l, batch(t, 0, 1, 10))
		short = true
		s.Commit() // one log alone: its file must be synced, and its names
		if end, _ := l.Committed(); end != 0 {
			t.Fatalf("%d are committed, and nothing is durable", end)
		}
		for i := range 3 {
			mustAppend(t, l, batch(t, 1+i, 1, 10))
			mustAppend(t, other, batch(t, 1+i, 1, 10))
			s.Commit() // several logs together: the journal could take them
		}
		if seed%2 == 0 {
			short = false
			mustAppend(t, l, batch(t, 4, 1, 10))
			s.Commit()
		}
		end, _ := l.Committed()
		cfg.FS = mem.Crash(rand.New(rand.NewPCG(seed, 1)))
		again := testLog(quietStore(t, cfg), 0, testOptions())
		if found, err := again.End(); err != nil || found < end || again.Fault() != nil {
			t.Fatalf("seed %d: %d are found of %d that were committed: %v, %v", seed, found, end, err, again.Fault())
		}
	}
}

// ringHeads lists the places in a file of the ring at which rounds begin.
func ringHeads(t *testing.T, f vfs.File) (at []int64) {
	t.Helper()
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	for pos := int64(0); pos < size; pos += 4096 {
		var b [2]byte
		if _, err := f.ReadAt(b[:], pos); err != nil {
			t.Fatal(err)
		}
		if string(b[:]) == "LJ" {
			at = append(at, pos)
		}
	}
	return at
}

// TestHalfCommit proves that no round of a commit is played back if a power cut took one of them,
// and that the rounds of the next commits are.
func TestHalfCommit(t *testing.T) {
	for name, lost := range map[string]bool{"whole": false, "half": true} {
		t.Run(name, func(t *testing.T) {
			mem := vfs.NewMem()
			cfg := testConfig(mem, "data")
			cfg.Journal = 8 * 16 * 4096
			s := quietStore(t, cfg)
			mustAppend(t, testLog(s, 0, testOptions()), batch(t, 0, 1, 100))
			mustAppend(t, testLog(s, 1, testOptions()), batch(t, 0, 2, 5*4096))
			s.Commit()
			mem = mem.KillClone(nil)
			ring, err := mem.Open("data/journal/0000.ring", vfs.Existing)
			if err != nil {
				t.Fatal(err)
			}
			at := ringHeads(t, ring)
			if len(at) != 2 {
				t.Fatalf("rounds at %d, want two", at)
			}
			if lost {
				_, err = ring.WriteAt(make([]byte, 4096), at[1])
			}
			if err := errors.Join(err, ring.Close()); err != nil {
				t.Fatal(err)
			}
			for i := range 2 {
				emptyFile(t, mem, segmentFile(i))
			}
			cfg.FS = mem
			s = quietStore(t, cfg)
			if !lost {
				expectValues(t, testLog(s, 0, testOptions()), 1)
				expectValues(t, testLog(s, 1, testOptions()), 2)
				return
			}
			for i := range 2 {
				if info, err := mem.Stat(segmentFile(i)); err != nil || info.Size != 0 {
					t.Errorf("log %d: %d bytes were played back: %v", i, info.Size, err)
				}
				mustAppend(t, testLog(s, i, testOptions()), batch(t, 0, 3, 50))
			}
			s.Commit() // it follows the incomplete commit in the journal
			mem = mem.KillClone(nil)
			for i := range 2 {
				emptyFile(t, mem, segmentFile(i))
			}
			cfg.FS = mem
			s = quietStore(t, cfg)
			for i := range 2 {
				expectValues(t, testLog(s, i, testOptions()), 3)
			}
		})
	}
}

// TestJournalOnDisk proves that commits of all sizes come back from a journal on a real file
// system. There they are written around the page cache once the ring has been filled.
func TestJournalOnDisk(t *testing.T) {
	dir := t.TempDir()
	cfg := testConfig(vfs.OS{}, filepath.Join(dir, "data"))
	s := quietStore(t, cfg)
	const logs = 3
	want := make([]int, logs)
	commit := func(sizes ...int) {
		for i, size := range sizes {
			mustAppend(t, testLog(s, i, testOptions()), batch(t, want[i], 1, size))
			want[i]++
		}
		s.Commit()
	}
	room := int(cfg.Journal / 16)
	commit(10, 20, 30)
	s.keeper.doDueWork() // it fills the ring
	for range 4 {
		commit(room/4, 100, room/4)
	}
	commit(10, 5000, 3*4096)
	commit(room/2, room, 100)
	commit(2*room, 10, 2*room)
	commit(1)
	fallen := filepath.Join(dir, "fallen")
	if err := os.CopyFS(fallen, os.DirFS(cfg.Dir)); err != nil {
		t.Fatal(err)
	}
	for i := range logs {
		if err := os.Truncate(strings.Replace(segmentFile(i), "data", fallen, 1), 0); err != nil {
			t.Fatal(err)
		}
	}
	cfg.Dir = fallen
	s = quietStore(t, cfg)
	for i := range logs {
		expectValues(t, testLog(s, i, testOptions()), want[i])
	}
}

// TestReadsOfARecovery proves that a start reads the journal only from the last checkpoint on, and
// a bounded number of times. It writes nothing into the journal if every write was complete.
func TestReadsOfARecovery(t *testing.T) {
	mem := vfs.NewMem()
	cfg := testConfig(mem, "data")
	s := quietStore(t, cfg)
	const rounds = 40
	for range 3 {
		s.keeper.checkpointNow()
		for i := range rounds {
			mustAppend(t, testLog(s, 0, testOptions()), batch(t, i, 1, 100))
			s.Commit()
		}
	}
	reads, writes := 0, 0
	cfg.FS = vfs.NewFaulty(mem.KillClone(nil), func(op vfs.Op, path string) error {
		switch {
		case !strings.HasSuffix(path, ".ring"):
		case op == vfs.OpRead:
			reads++
		case op == vfs.OpWrite:
			writes++
		}
		return nil
	})
	s = quietStore(t, cfg)
	const passes, files = 2, 16 // each pass reads a head and a round; a few more files are read to find the end
	if reads < 2*passes*rounds || reads > 2*passes*rounds+8*files || writes != 0 {
		t.Errorf("%d reads and %d writes of the ring for %d rounds", reads, writes, rounds)
	}
	if end, err := testLog(s, 0, testOptions()).End(); err != nil || end != 3*rounds {
		t.Errorf("the log ends at %d: %v", end, err)
	}
}

// TestPointsThatChangeMeanwhile proves that a checkpoint has all points that would be missing if
// the newest points file rotted, even if many points changed while that file was written.
func TestPointsThatChangeMeanwhile(t *testing.T) {
	const half = 300
	mem := vfs.NewMem()
	var meanwhile func()
	cfg := testConfig(vfs.NewFaulty(mem, func(op vfs.Op, path string) error {
		if fn := meanwhile; fn != nil && op == vfs.OpSync && strings.HasPrefix(path, "data/points-") {
			meanwhile = nil
			fn()
		}
		return nil
	}), "data")
	cfg.Journal = 16 << 20
	s := quietStore(t, cfg)
	for i := range 2 * half {
		mustAppend(t, testLog(s, i, testOptions()), batch(t, 0, 1, 50))
	}
	s.Commit()
	s.keeper.checkpointNow() // it writes points-a
	moveStarts := func(from, to int) {
		for i := from; i < to; i++ {
			if err := testLog(s, i, testOptions()).SetStart(1); err != nil {
				t.Fatal(err)
			}
		}
	}
	moveStarts(0, half)
	meanwhile = func() { moveStarts(half, 2*half) }
	s.keeper.checkpointNow() // it writes points-b
	if meanwhile != nil {
		t.Fatal("the points file was not written")
	}
	mem = mem.KillClone(nil)
	emptyFile(t, mem, "data/points-b")
	cfg.FS = mem
	s = quietStore(t, cfg)
	for i := range 2 * half {
		if start, err := testLog(s, i, testOptions()).Start(); start != 1 || err != nil {
			t.Fatalf("log %d starts at %d, %v", i, start, err)
		}
	}
}

// TestTornEndCutInThePageCache proves that records behind a torn batch do not come back behind
// those that are appended in its place. The process that cut the torn end is killed before the cut
// is durable, and the page cache is lost after the next process has appended. The records behind
// the torn batch are in the same segment, or in the next one.
func TestTornEndCutInThePageCache(t *testing.T) {
	size := len(batch(t, 0, 1, 100))
	for _, inSegment := range []int{6, 20} {
		t.Run(strconv.Itoa(inSegment), func(t *testing.T) {
			o := testOptions()
			o.SegmentBytes = int64(inSegment * size)
			mem := tornLog(t, o, int64(5*size+70))
			cfg := testConfig(nil, "data")
			for n := 1; ; n++ { // the first start is killed before its n-th call
				at, killed, count := mem.KillClone(nil), (*vfs.Mem)(nil), 0
				cfg.FS = vfs.NewFaulty(at, func(op vfs.Op, _ string) error {
					if op.Changes() {
						if count++; count == n {
							killed = at.KillClone(nil)
						}
					}
					return nil
				})
				if end, err := testLog(quietStore(t, cfg), 0, o).End(); end != 5 || err != nil {
					t.Fatalf("it ends at %d, %v", end, err)
				}
				if killed == nil {
					return
				}
				cfg.FS = killed
				s := quietStore(t, cfg)
				mustAppend(t, testLog(s, 0, o), batch(t, 5, 1, 100))
				s.Commit()
				for seed := range uint64(10) {
					cfg.FS = killed.Crash(rand.New(rand.NewPCG(seed, 38)))
					expectValues(t, testLog(quietStore(t, cfg), 0, o), 6)
				}
			}
		})
	}
}

// tornLog is a disk with a log of eight records, of which five were committed. One byte of the
// sixth, at pos, is wrong.
func tornLog(t *testing.T, o Options, pos int64) *vfs.Mem {
	t.Helper()
	mem := vfs.NewMem()
	s := quietStore(t, testConfig(mem, "data"))
	l := testLog(s, 0, o)
	for i := range 5 {
		mustAppend(t, l, batch(t, i, 1, 100))
	}
	s.Commit()
	s.keeper.checkpointNow()
	for i := range 3 {
		mustAppend(t, l, batch(t, 100+i, 1, 100))
	}
	mem = mem.KillClone(nil)
	f, err := mem.Open(segmentFile(0), vfs.Existing)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{0xee}, pos); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	v, err := mem.Volume("data")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(v.Sync(), v.Close()); err != nil {
		t.Fatal(err)
	}
	return mem
}

// TestFailedCutIsFinal proves that a log is read-only in this process if its torn end, or the
// segments behind it, could not be removed durably, and that another try does not change that.
func TestFailedCutIsFinal(t *testing.T) {
	size := len(batch(t, 0, 1, 100))
	for op, path := range map[vfs.Op]string{vfs.OpSync: segmentFile(0), vfs.OpSyncDir: "data/topic-0"} {
		t.Run(op.String(), func(t *testing.T) {
			o := testOptions()
			o.SegmentBytes = int64(6 * size)
			cfg := testConfig(nil, "data")
			failed := false
			cfg.FS = vfs.NewFaulty(tornLog(t, o, int64(5*size+70)), func(is vfs.Op, of string) error {
				if !failed && is == op && of == path {
					failed = true
					return errBadDisk
				}
				return nil
			})
			l := testLog(quietStore(t, cfg), 0, o)
			for range 2 {
				if end, err := l.End(); end != 5 || err != nil {
					t.Errorf("it ends at %d, %v", end, err)
				}
				if it := appendOne(t, l, batch(t, 5, 1, 100)); !errors.Is(it.Err, ErrFaulted) {
					t.Errorf("it takes a record: %v", it.Err)
				}
			}
			if !failed {
				t.Error("nothing failed")
			}
		})
	}
}

// TestRefusedBatchesDoNotComeBack proves that batches of a failed write do not come back behind
// those that are appended in their place, even if the process was killed at any call before the file
// was cut back durably, and if the full disk had no room for the mark of the cut.
func TestRefusedBatchesDoNotComeBack(t *testing.T) {
	for _, hasMark := range []bool{true, false} {
		t.Run(fmt.Sprintf("mark %v", hasMark), func(t *testing.T) {
			moments := refuseBatches(t, hasMark)
			if len(moments) < 2 {
				t.Fatalf("%d moments", len(moments))
			}
			for i, killed := range moments {
				cfg := testConfig(killed, "data")
				s := quietStore(t, cfg)
				l := testLog(s, 0, testOptions())
				before := values(t, readAll(t, l, 0, 1<<20)) // a batch that the process did not come to refuse may be there
				mustAppend(t, l, batch(t, 5, 1, 100))
				s.Commit()
				want := fmt.Sprint(append(before, 5))
				for seed := range uint64(20) {
					cfg.FS = killed.Crash(rand.New(rand.NewPCG(seed, 38)))
					l := testLog(quietStore(t, cfg), 0, testOptions())
					if got := fmt.Sprint(values(t, readAll(t, l, 0, 1<<20))); got != want {
						t.Fatalf("moment %d, seed %d: the log has %s, want %s", i, seed, got, want)
					}
				}
			}
		})
	}
}

// refuseBatches has a write of three batches fail behind five that were committed, when the disk has
// two of them, and returns what a kill leaves at each change of the log's directory that follows.
func refuseBatches(t *testing.T, hasMark bool) (moments []*vfs.Mem) {
	t.Helper()
	mem := vfs.NewMem()
	size := int64(len(batch(t, 0, 1, 100)))
	armed, failed := false, false
	cfg := testConfig(vfs.NewFaulty(mem, func(op vfs.Op, path string) error {
		switch {
		case armed && op == vfs.OpWrite && path == segmentFile(0):
			armed, failed = false, true
			return &vfs.ShortWriteError{N: 2*size + 10, Err: vfs.ErrNoSpace}
		case !failed || !strings.HasPrefix(path, "data/topic-0") || !op.Changes():
			return nil
		}
		if len(moments) == 0 { // the disk has written the bytes that it was given
			v, _ := mem.Volume("data")
			if err := errors.Join(v.Sync(), v.Close()); err != nil {
				t.Fatal(err)
			}
		}
		moments = append(moments, mem.KillClone(nil))
		if op == vfs.OpOpen && strings.HasSuffix(path, segment.CutMark) && !hasMark {
			return vfs.ErrNoSpace
		}
		return nil
	}), "data")
	s := quietStore(t, cfg)
	l := testLog(s, 0, testOptions())
	for i := range 5 {
		mustAppend(t, l, batch(t, i, 1, 100))
	}
	s.Commit()
	s.keeper.checkpointNow()
	armed = true
	items := []Item{{Batch: batch(t, 100, 1, 100)}, {Batch: batch(t, 101, 1, 100)}, {Batch: batch(t, 102, 1, 100)}}
	if l.Append(1, items); items[0].Err == nil || l.Fault() != nil {
		t.Fatalf("the write did not fail, or the log is read-only: %v", l.Fault())
	}
	failed = false
	return moments
}
