package storage

import (
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leatstream/leat/internal/storage/aside"
	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/vfs"
)

// readKept reads all bytes of a tail of a log that need not be in the store, some at a time.
func readKept(s *Store, id LogID, t *Tail, page int) (all []byte, err error) {
	buf := make([]byte, page)
	for {
		n, err := ReadTail(s, id, t, int64(len(all)), buf)
		all = append(all, buf[:n]...)
		if err != nil || n < page {
			return all, err
		}
	}
}

// expectKept checks the tails of a log that need not be in the store, and what is counted of all tails.
func expectKept(tb testing.TB, s *Store, id LogID, want map[int32][]byte) {
	tb.Helper()
	list, err := TailsOf(s, id)
	if err != nil || len(list) != len(want) {
		tb.Errorf("there are %d tails, want %d: %v", len(list), len(want), err)
	}
	sum := int64(0)
	for i := range list {
		got, err := readKept(s, id, &list[i], 1000)
		if err != nil || string(got) != string(want[list[i].Number]) {
			tb.Errorf("the tail of cut %d has %d bytes, want %d: %v", list[i].Number, len(got), len(want[list[i].Number]), err)
		}
		sum += int64(len(got))
	}
	if tails, bytes, err := CountTails(s); tails != len(want) || bytes != sum || err != nil {
		tb.Errorf("%d tails of %d bytes are counted, and there are %d of %d: %v", tails, bytes, len(want), sum, err)
	}
}

// cutThrice makes a log that is cut three times, and returns what its tails must have.
func cutThrice(tb testing.TB, s *Store) (*Log, map[int32][]byte) {
	tb.Helper()
	l, want := testLog(s, 0, cutOptions()), map[int32][]byte{}
	for i := range int32(3) {
		appendEpochs(tb, l, 300, 2, 2, 3, 3, 5, 5, 5, 7, 7, 7)
		to := mustEnd(tb, l) - 24
		want[i+1] = allBytes(tb, l, to)
		if err := l.Cut(i+1, to); err != nil {
			tb.Fatal(err)
		}
	}
	return l, want
}

// TestReadTail proves that a tail is read with the bytes that were cut, of several files, by pages of any size; that nothing is read behind its end; and
// that one which was discarded, or has another one in its place, is not taken for the one that was listed.
func TestReadTail(t *testing.T) {
	mem := vfs.NewMem()
	s := quietStore(t, testConfig(mem, "data"))
	l, want := cutThrice(t, s)
	list, err := TailsOf(s, l.ID())
	if err != nil || len(list) != 3 || len(list[0].files) < 2 {
		t.Fatalf("%+v: %v", list, err)
	}
	for _, page := range []int{1, 77, 1000, int(list[0].Bytes), 1 << 20} {
		if got, err := readKept(s, l.ID(), &list[0], page); err != nil || string(got) != string(want[1]) {
			t.Errorf("by pages of %d bytes, %d are read, want %d: %v", page, len(got), len(want[1]), err)
		}
	}
	for _, pos := range []int64{-1, list[0].Bytes + 1} {
		if n, err := ReadTail(s, l.ID(), &list[0], pos, make([]byte, 10)); !errors.Is(err, ErrOffsetOutOfRange) || n != 0 {
			t.Errorf("from byte %d, %d are read: %v", pos, n, err)
		}
	}
	for what, change := range map[string]func(t *Tail){
		"of another time": func(t *Tail) { t.Time++ }, "of another size": func(t *Tail) { t.Bytes++ }, "of another cut": func(t *Tail) { t.Number = 9 }, "of no cut": func(t *Tail) { t.Number = -1 },
	} {
		other := list[1]
		change(&other)
		if n, err := ReadTail(s, l.ID(), &other, 0, make([]byte, 10)); !errors.Is(err, ErrNoTail) || n != 0 {
			t.Errorf("one %s: %d bytes, %v", what, n, err)
		}
	}
	other := l.ID()
	other.Partition++
	if _, err := ReadTail(s, other, &list[0], 0, make([]byte, 10)); !errors.Is(err, ErrNoTail) {
		t.Errorf("of another partition: %v", err)
	}
	left := mem.KillClone(nil)
	name := "data/" + aside.TailsName("topic-0", testID(0)) + "/0000000001/" + segment.FileName(list[0].files[0].base, segment.LogSuffix)
	f, err := left.Open(name, vfs.Existing)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(10); err != nil {
		t.Fatal(err)
	}
	short := quietStore(t, testConfig(left, "data"))
	testLog(short, 0, cutOptions())
	if got, err := readKept(short, l.ID(), &list[0], 1<<20); err == nil || len(got) > 0 || !strings.Contains(err.Error(), "ends early") {
		t.Errorf("a file that is too short: %d bytes, %v", len(got), err)
	}
	if err := DiscardTail(l, 1); err != nil {
		t.Fatal(err)
	}
	if n, err := ReadTail(s, l.ID(), &list[0], 0, make([]byte, 10)); !errors.Is(err, ErrNoTail) || n != 0 {
		t.Errorf("one that was discarded: %d bytes, %v", n, err)
	}
	delete(want, 1)
	expectKept(t, s, l.ID(), want)
}

// TestTailsOfALogThatMoved proves that the tails of a log stay which goes to other nodes, while the node runs and while it is down, and can be read and
// discarded; that they are those of the log again when it comes back; and that they go with the topic.
func TestTailsOfALogThatMoved(t *testing.T) {
	mem := vfs.NewMem()
	s := quietStore(t, testConfig(mem, "data"))
	l, want := cutThrice(t, s)
	id := l.ID()
	down := mem.KillClone(nil) // the log moves while the node is down
	work := func(s *Store) {
		for range 10 {
			s.keeper.doDueWork()
			s.keeper.checkpointNow()
			s.keeper.removeDue(time.Now().Add(time.Minute))
		}
	}
	s.DeleteRecords(id)
	work(s)
	expectKept(t, s, id, want)
	back := quietStore(t, testConfig(down, "data"))
	back.Sweep(isNone, isNone, func(i LogID) bool { return i == id })
	work(back)
	expectKept(t, back, id, want)
	if _, err := down.Stat("data/topic-0"); !errors.Is(err, vfs.ErrNotExist) {
		t.Errorf("the directory of a log that has moved: %v", err)
	}
	for range 2 {
		err := DiscardTailOf(s, id, 2)
		if _, isThere := want[2]; isThere != (err == nil) || err != nil && !errors.Is(err, ErrNoTail) {
			t.Error(err)
		}
		delete(want, 2)
	}
	expectKept(t, s, id, want)
	for _, number := range []int32{0, -1, 9} {
		if err := DiscardTailOf(s, id, number); !errors.Is(err, ErrNoTail) {
			t.Errorf("cut %d: %v", number, err)
		}
	}
	l = testLog(s, 0, cutOptions())
	if list, err := TailsOf(s, id); len(list) != 0 || err != nil {
		t.Errorf("a log that has made no cut has %d tails: %v", len(list), err)
	}
	if err := l.Cut(3, 6); err != nil {
		t.Fatal(err)
	}
	appendEpochs(t, l, 300, 9, 9)
	expectKept(t, s, id, want)
	expectTails(t, l, want)
	s.DeleteRecords(id)
	work(s)
	other := id
	other.Topic[3]++
	DiscardTailsOf(s, other.Topic)
	expectKept(t, s, id, want)
	DiscardTailsOf(s, id.Topic)
	expectKept(t, s, id, nil)
	work(s)
	back.Sweep(isNone, func(i LogID) bool { return i == id }, nil) // the node was down when the topic was deleted
	work(back)
	for _, fsys := range []*vfs.Mem{mem, down} {
		infos, err := fsys.ReadDir("data")
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range infos {
			if strings.Contains(i.Name, "tails") {
				t.Errorf("%s is left of a deleted topic", i.Name)
			}
		}
	}
}

// TestTailsOfADamagedLog proves that the tails of a log whose number is damaged can be listed and read, with the reason why not all may be as they are shown, and
// that none is discarded.
func TestTailsOfADamagedLog(t *testing.T) {
	mem := vfs.NewMem()
	s := quietStore(t, testConfig(mem, "data"))
	l, want := cutThrice(t, s)
	left := mem.KillClone(nil)
	flipBit(t, left, "data/topic-0/"+cutNumberFile, 3)
	s = quietStore(t, testConfig(left, "data"))
	testLog(s, 0, cutOptions())
	list, err := TailsOf(s, l.ID())
	if !errors.Is(err, ErrFaulted) || len(list) != 3 {
		t.Fatalf("%d tails: %v", len(list), err)
	}
	if got, err := readKept(s, l.ID(), &list[2], 5000); err != nil || string(got) != string(want[3]) {
		t.Errorf("%d bytes are read, want %d: %v", len(got), len(want[3]), err)
	}
	if err := DiscardTailOf(s, l.ID(), 1); !errors.Is(err, ErrFaulted) {
		t.Errorf("discarded: %v", err)
	}
}

// TestDiscardMakesRoom proves that a tail is discarded on a disk without any room, and that a cut which lacked room is made then.
func TestDiscardMakesRoom(t *testing.T) {
	mem := vfs.NewMem()
	s := quietStore(t, testConfig(mem, "data"))
	l := testLog(s, 0, cutOptions())
	appendEpochs(t, l, 60_000, 2, 2, 2, 2, 2, 2, 2, 2)
	if err := l.Cut(1, 1); err != nil {
		t.Fatal(err)
	}
	appendEpochs(t, l, 300, 2)
	mem.SetFree(100)
	if err := l.Cut(2, 0); !errors.Is(err, ErrDiskFull) {
		t.Fatal(err)
	}
	if err := DiscardTail(l, 1); err != nil {
		t.Fatal(err)
	}
	for range 4 { // the files that were cut go when no recovery needs them
		s.keeper.checkpointNow()
		s.keeper.removeDue(time.Now().Add(time.Minute))
	}
	s.space.Look()
	if err := l.Cut(2, 0); err != nil {
		t.Errorf("with the room of the tail that was discarded: %v", err)
	}
}

// TestDiscardGoesOn proves that a tail which could not be discarded as a whole, at any call of the file system, is there with all its bytes or not at all; and that
// the next call ends it, so that no power cut brings it back.
func TestDiscardGoesOn(t *testing.T) {
	for isHere := range 2 {
		for at := 1; ; at++ {
			mem := vfs.NewMem()
			calls, hit := 0, false
			faulty := vfs.NewFaulty(mem, func(op vfs.Op, path string) error {
				if !op.Changes() || !strings.Contains(path, "-tails") || calls <= 0 {
					return nil
				}
				calls--
				if calls == 0 {
					hit = true
					return errors.New("the disk does not answer")
				}
				return nil
			})
			s := quietStore(t, testConfig(faulty, "data"))
			l, want := cutThrice(t, s)
			id := l.ID()
			if isHere == 0 {
				s.DeleteRecords(id)
			}
			calls = at
			err := DiscardTailOf(s, id, 2)
			calls = 0
			if !hit {
				if err != nil {
					t.Fatal(err)
				}
				break
			}
			if err == nil && at < 3 {
				t.Errorf("call %d fails, and nobody is told", at)
			}
			list, failed := TailsOf(s, id)
			if failed != nil {
				t.Fatal(failed)
			}
			if i := slices.IndexFunc(list, func(t Tail) bool { return t.Number == 2 }); i >= 0 {
				if got, err := readKept(s, id, &list[i], 1000); err != nil || string(got) != string(want[2]) {
					t.Errorf("call %d fails: the tail has %d bytes, want %d: %v", at, len(got), len(want[2]), err)
				}
			}
			if errors.Is(err, errSync) { // the disk may have the tail under its name, and no later sync on this kernel tells
				s = quietStore(t, testConfig(mem.KillClone(nil), "data"))
				if isHere == 1 {
					testLog(s, 0, cutOptions())
				}
				if err := DiscardTailOf(s, id, 2); !errors.Is(err, errSync) || !strings.Contains(err.Error(), "restart the machine") {
					t.Errorf("after a failed sync, once more: %v", err)
				}
				mem = mem.Crash(rand.New(rand.NewPCG(uint64(at), 3)))
				cfg := testConfig(mem, "data")
				cfg.BootID = "another"
				if s = quietStore(t, cfg); isHere == 1 {
					testLog(s, 0, cutOptions())
				}
				expectKept(t, s, id, want)
			}
			if err := DiscardTailOf(s, id, 2); err != nil && !errors.Is(err, ErrNoTail) {
				t.Errorf("after call %d has failed: %v", at, err)
			}
			delete(want, 2)
			for seed := range uint64(8) {
				left := mem.Crash(rand.New(rand.NewPCG(seed, 3)))
				s := quietStore(t, testConfig(left, "data"))
				if isHere == 1 {
					testLog(s, 0, cutOptions())
				}
				expectKept(t, s, id, want)
			}
		}
	}
}

// keptWorld is a log with tails that goes and comes back, on a file system that can crash, and what must be there.
type keptWorld struct {
	rng  *rand.Rand
	mem  *vfs.Mem
	s    *Store
	l    *Log // nil: it is on other nodes
	id   LogID
	made int32 // the last cut of the metadata

	want        map[int32][]byte
	doubted     int32    // the cut whose tail is being discarded; 0: none is
	crashIn     int      // calls that change something, until the crash; 0: none comes
	fallen      *vfs.Mem // what the crash has left
	before      map[int32][]byte
	mayLack     int32 // doubted at the crash
	failIn      int   // calls that change something, until one fails; 0: none does
	hasFailed   bool  // a call has failed: the run ends with a power cut, since after a failed sync no process on this kernel can tell what the disk has
	mustRestart bool  // the store is of no use any more
	boots       int
}

// hook stands before each call of the file system.
func (w *keptWorld) hook(op vfs.Op, _ string) error {
	if !op.Changes() {
		return nil
	}
	if w.crashIn > 0 {
		if w.crashIn--; w.crashIn == 0 {
			if w.rng.IntN(2) == 0 || w.hasFailed {
				w.fallen = w.mem.Crash(w.rng)
			} else {
				w.fallen = w.mem.KillClone(nil)
			}
			w.before, w.mayLack = maps.Clone(w.want), w.doubted
		}
	}
	if w.failIn > 0 {
		if w.failIn--; w.failIn == 0 {
			w.hasFailed = true
			return vfs.ErrNoSpace
		}
	}
	return nil
}

// open opens the store on what is left, with its keeper and committer run by hand.
func (w *keptWorld) open(t *testing.T) {
	t.Helper()
	cfg := testConfig(vfs.NewFaulty(w.mem, w.hook), "data")
	w.boots++
	cfg.BootID = strconv.Itoa(w.boots)
	w.s = quietStore(t, cfg)
}

// step does one random thing.
func (w *keptWorld) step(tb testing.TB) {
	tb.Helper()
	if w.rng.IntN(4) == 0 {
		w.failIn = 1 + w.rng.IntN(6)
	}
	defer func() { w.failIn = 0 }()
	switch p := w.rng.IntN(10); {
	case p < 5 && len(w.want) > 0:
		w.discard(tb)
	case p < 7 && w.l != nil: // it moves away
		w.s.DeleteRecords(w.id)
		w.l = nil
	case p < 8 && w.l == nil:
		w.comeBack(tb)
	default:
		w.s.keeper.checkpointNow()
		w.s.keeper.removeDue(time.Now().Add(time.Minute))
	}
}

// comeBack has the log be on this node again, where it makes the last cut first.
func (w *keptWorld) comeBack(tb testing.TB) {
	tb.Helper()
	w.failIn = 0
	w.l = w.s.Log(w.id, "topic", cutOptions(), func(*Log) {})
	for range 50 { // something may be left of the one that went
		err := w.l.Cut(w.made, 3)
		if err == nil {
			return
		}
		if errors.Is(err, errSync) {
			w.mustRestart = true
			return
		}
		if !errors.Is(err, ErrBusy) {
			tb.Fatal(err)
		}
		w.s.keeper.checkpointNow()
		w.s.keeper.removeDue(time.Now().Add(time.Minute))
	}
	if w.mustRestart = w.hasFailed; !w.hasFailed {
		tb.Fatal("the log cannot come back")
	}
}

// discard discards a tail that may be there, until it is gone or a sync has failed.
func (w *keptWorld) discard(tb testing.TB) {
	tb.Helper()
	number := 1 + w.rng.Int32N(w.made)
	w.doubted = number
	_, isThere := w.want[number]
	for range 3 {
		switch err := DiscardTailOf(w.s, w.id, number); {
		case errors.Is(err, errSync):
			w.mustRestart = true
			return
		case err == nil, errors.Is(err, ErrNoTail):
			if isThere && err != nil {
				list, _ := TailsOf(w.s, w.id)
				tb.Errorf("the tail of cut %d is not found: %+v", number, list)
			}
			delete(w.want, number)
			w.doubted = 0
			return
		case !errors.Is(err, ErrDiskFull):
			tb.Fatalf("the tail of cut %d: %v", number, err)
		}
	}
	tb.Fatalf("the tail of cut %d cannot be discarded", number)
}

// compare compares the tails with what must be there; doubted is the cut whose tail may be gone.
func (w *keptWorld) compare(tb testing.TB, doubted int32) {
	tb.Helper()
	list, err := TailsOf(w.s, w.id)
	if err != nil {
		tb.Fatal(err)
	}
	if doubted > 0 && !slices.ContainsFunc(list, func(t Tail) bool { return t.Number == doubted }) {
		delete(w.want, doubted)
	}
	expectKept(tb, w.s, w.id, w.want)
}

// TestCrashInDiscards proves, over many seeds, that tails are there with all their bytes until they are discarded, and never again after that, whatever call of the
// file system the process or the machine ends at, or fails; while their log is on the node, while it is on other nodes, and when it comes back.
func TestCrashInDiscards(t *testing.T) {
	t.Parallel()
	from, to := seeds(t)
	for seed := from; seed < to; seed++ {
		t.Run(strconv.Itoa(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { keptRun(t, uint64(seed)) })
		})
	}
}

// keptRun runs a world through three crashes.
func keptRun(t *testing.T, seed uint64) {
	t.Helper()
	w := &keptWorld{rng: rand.New(rand.NewPCG(seed, 11)), mem: vfs.NewMem(), made: 3}
	w.open(t)
	w.l, w.want = cutThrice(t, w.s)
	w.id = w.l.ID()
	for range 3 {
		w.crashIn = 1 + w.rng.IntN([]int{3, 60}[w.rng.IntN(2)]) // some right after the start
		for i := 0; i < 40 && w.fallen == nil && !w.mustRestart && !t.Failed(); i++ {
			w.step(t)
		}
		if w.fallen == nil { // also where nothing has happened
			w.crashIn, w.failIn = 1, 0
			_ = w.hook(vfs.OpRename, "")
		}
		w.crashIn, w.mustRestart, w.hasFailed = 0, false, false
		isHere := w.l != nil
		w.mem, w.want, w.fallen, w.doubted = w.fallen, w.before, nil, 0
		w.open(t)
		if w.l = nil; isHere {
			w.s.Sweep(func(id LogID) bool { return id == w.id }, isNone, nil)
			w.comeBack(t)
		} else {
			w.s.Sweep(isNone, isNone, func(id LogID) bool { return id == w.id })
		}
		w.s.keeper.doDueWork()
		w.compare(t, w.mayLack)
	}
}
