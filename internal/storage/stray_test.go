package storage

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/storage/aside"
	"github.com/leatstream/leat/internal/vfs"
)

func isNone(LogID) bool { return false }

// strayWorld is a directory with a log whose topic the metadata do not know any more. It has 20
// records, of which DeleteRecords removed 7; its high watermark is 15.
func strayWorld(t *testing.T) *vfs.Mem {
	t.Helper()
	mem := vfs.NewMem()
	s := quietStore(t, testConfig(mem, "data"))
	l := testLog(s, 0, testOptions())
	for i := range 20 {
		mustAppend(t, l, batch(t, i, 1, 100))
	}
	s.Commit()
	l.SetHighWatermark(15)
	if err := l.SetStart(7); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return mem
}

// expectStrayWorld checks that the log is as strayWorld left it.
func expectStrayWorld(t *testing.T, what string, mem *vfs.Mem) {
	t.Helper()
	s := quietStore(t, testConfig(mem, "data"))
	l := testLog(s, 0, testOptions())
	start, err := l.Start()
	end, _ := l.End()
	high, _ := l.HighWatermark()
	if err != nil || start != 7 || end != 20 || high != 15 {
		t.Fatalf("%s: the log goes from %d to %d with high watermark %d, and went from 7 to 20 with 15; %v, %v",
			what, start, end, high, err, l.Fault())
	}
	if got := values(t, readAll(t, l, 7, 1000)); len(got) != 13 || got[0] != 7 {
		t.Fatalf("%s: the records are %v", what, got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestSetAsideKeepsItsPoint proves that a log whose directory was set aside has its start and its
// high watermark when it is used again. That holds even if the power goes or the process is killed
// at any call while the directory is set aside or taken back.
func TestSetAsideKeepsItsPoint(t *testing.T) {
	world := strayWorld(t)
	var clones []*vfs.Mem
	var mem *vfs.Mem
	seed := uint64(0)
	watched := func(base *vfs.Mem) vfs.FS {
		mem = base
		return vfs.NewFaulty(base, func(op vfs.Op, _ string) error {
			if op.Changes() {
				seed++
				clones = append(clones, mem.Crash(rand.New(rand.NewPCG(seed, 1))), mem.KillClone(rand.New(rand.NewPCG(seed, 2))))
			}
			return nil
		})
	}
	setAside := func(base *vfs.Mem) *vfs.Mem {
		for range 2 { // the second start also writes checkpoints
			s := quietStore(t, testConfig(watched(base), "data"))
			s.Sweep(isNone, isNone, nil)
			s.keeper.doDueWork()
			s.keeper.checkpointNow()
			s.keeper.checkpointNow()
			if s.Strays() != 1 {
				t.Fatalf("%d directories were set aside", s.Strays())
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		return base
	}
	aside := setAside(world.KillClone(nil))
	half := clones
	for i, c := range half {
		expectStrayWorld(t, fmt.Sprintf("moment %d of setting it aside", i), c)
	}
	expectStrayWorld(t, "after it was set aside", aside.KillClone(nil))
	clones = nil
	s := quietStore(t, testConfig(watched(aside), "data"))
	if _, err := testLog(s, 0, testOptions()).End(); err != nil {
		t.Fatal(err)
	}
	s.keeper.checkpointNow()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for i, c := range clones {
		expectStrayWorld(t, fmt.Sprintf("moment %d of taking it back", i), c)
	}
	if len(half) < 20 || len(clones) < 10 {
		t.Errorf("only %d and %d moments", len(half), len(clones))
	}
}

// TestPointsOfGoneDirectoriesGo proves that points are not kept for ever. Those of deleted topics
// are removed, and those of directories that were set aside are removed with the directories.
func TestPointsOfGoneDirectoriesGo(t *testing.T) {
	mem := vfs.NewMem()
	cfg := testConfig(mem, "data")
	cfg.StrayRetention = time.Hour
	s := quietStore(t, cfg)
	for i := range 3 {
		mustAppend(t, testLog(s, i, testOptions()), batch(t, 0, 1, 100))
	}
	s.Commit()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = quietStore(t, cfg)
	testLog(s, 0, testOptions())
	s.Sweep(func(id LogID) bool { return id == testID(0) }, func(id LogID) bool { return id == testID(1) }, nil)
	s.keeper.doDueWork()
	if got := fmt.Sprint(vouched(s)); got != "[0 2]" {
		t.Errorf("there are points of the logs %s, want those of the known one and the one that was set aside", got)
	}
	removeOldStrays(s, time.Now().Add(2*time.Hour))
	s.keeper.checkpointNow()
	if got := fmt.Sprint(vouched(s)); got != "[0]" {
		t.Errorf("there are points of the logs %s after the directory's time", got)
	}
}

// vouched are the numbers of the test logs of which there are points.
func vouched(s *Store) (logs []int) {
	for i := range 10 {
		if s.points.Get(testID(i)).Vouched {
			logs = append(logs, i)
		}
	}
	return logs
}

// TestKnownStrayIsNotRemoved proves that a directory that was set aside is not removed at its time
// if the metadata know its log again, even if nobody has used the log yet.
func TestKnownStrayIsNotRemoved(t *testing.T) {
	mem := strayWorld(t)
	s := quietStore(t, testConfig(mem, "data"))
	s.Sweep(isNone, isNone, nil)
	s.keeper.doDueWork()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(mem, "data")
	cfg.StrayRetention = 7 * 24 * time.Hour
	s = quietStore(t, cfg)
	testLog(s, 0, testOptions())
	removeOldStrays(s, time.Now().Add(30*24*time.Hour))
	s.keeper.removeDue(time.Now().Add(31 * 24 * time.Hour))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	expectStrayWorld(t, "after its time", mem)
}

// withStrays is a data directory with directories that were set aside.
func withStrays(tb testing.TB, n int) *vfs.Mem {
	tb.Helper()
	mem := vfs.NewMem()
	for i := range n {
		if err := mem.MkdirAll("data/" + aside.StrayName(dirName("other", int32(i)), LogID{Topic: [16]byte{9}, Partition: int32(i)}, 1_700_000_000_000)); err != nil {
			tb.Fatal(err)
		}
	}
	return mem
}

// TestNewLogsDoNotLookAtAllStrays proves that the cost of a new partition does not depend on the
// number of directories that were set aside. It counts allocations, because a look at a directory
// makes some.
func TestNewLogsDoNotLookAtAllStrays(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector allocates, too")
	}
	cost := func(strays int) float64 {
		s := quietStore(t, testConfig(withStrays(t, strays), "data"))
		if s.Strays() != strays {
			t.Fatalf("%d directories were set aside, want %d", s.Strays(), strays)
		}
		n := 0
		return testing.AllocsPerRun(20, func() {
			n++
			if _, err := testLog(s, n, testOptions()).End(); err != nil {
				t.Fatal(err)
			}
		})
	}
	if few, many := cost(1), cost(3000); many > few+10 {
		t.Errorf("a new log takes %v allocations beside one directory that was set aside, %v beside 3000", few, many)
	}
}

// TestWrongClockRemovesNoStray proves that a directory stays that was set aside a moment ago,
// although the clock has jumped since. A machine without a battery starts in 1970, sets the
// directory aside, and learns the time a moment later.
func TestWrongClockRemovesNoStray(t *testing.T) {
	mem := vfs.NewMem()
	cfg := testConfig(mem, "data")
	cfg.StrayRetention = 7 * 24 * time.Hour
	s := quietStore(t, cfg)
	mustAppend(t, testLog(s, 0, testOptions()), batch(t, 0, 1, 100))
	s.Commit()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// setAsideLocked gives this name ten seconds after the start of 1970.
	name := aside.StrayName("topic-0", testID(0), 10_000)
	if err := mem.Rename("data/topic-0", path.Join("data", name)); err != nil {
		t.Fatal(err)
	}
	s = quietStore(t, cfg) // the node has run for less than an hour
	removeOldStrays(s, time.Now())
	s.keeper.removeDue(time.Now())
	if _, err := mem.Stat(path.Join("data", name)); err != nil {
		t.Fatalf("a directory that was set aside a moment ago is gone: %v", err)
	}
}

// TestRestoredMetadataBringRecordsBack proves that a log whose directory was set aside has its
// records again, or is refused, once the metadata know it again. The operator is asked to restore
// the metadata. An empty log in its place would let clients write other records at the same
// offsets, and a week later the real ones would be removed.
func TestRestoredMetadataBringRecordsBack(t *testing.T) {
	cfg := testConfig(vfs.NewMem(), "data")
	s := quietStore(t, cfg)
	mustAppend(t, testLog(s, 0, testOptions()), batch(t, 0, 1, 100))
	s.Commit()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = quietStore(t, cfg)
	s.Sweep(func(LogID) bool { return false }, func(LogID) bool { return false }, nil)
	s.keeper.doDueWork()
	if s.Strays() != 1 {
		t.Fatalf("%d directories were set aside", s.Strays())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = quietStore(t, cfg) // the operator has restored the metadata
	l := testLog(s, 0, testOptions())
	it := appendOne(t, l, batch(t, 0, 1, 100))
	if end, err := l.End(); it.Err == nil && err == nil && end == 1 {
		t.Errorf("a record was stored at offset 0, where another one was acknowledged; %d directories are still aside", s.Strays())
	}
}

// setAsideWorld is a directory with six records, one in each segment, of a log whose directory was
// set aside. It returns the name that the directory has now.
func setAsideWorld(t *testing.T) (mem *vfs.Mem, name string) {
	t.Helper()
	mem = vfs.NewMem()
	cfg := testConfig(mem, "data")
	s := quietStore(t, cfg)
	l := s.Log(testID(0), "topic", rivalOptions(), func(*Log) {})
	for i := range 6 {
		mustAppend(t, l, batch(t, i, 1, 900))
	}
	s.Commit()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = quietStore(t, cfg)
	s.sweepDirs(&sweep{isKnown: isNone, isDeleted: isNone})
	strays := s.strays.List(testID(0))
	if len(strays) != 1 {
		t.Fatalf("%d directories were set aside", len(strays))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return mem, strays[0].Name
}

func isFirst(id LogID) bool { return id == testID(0) }

// TestDirectorySetAsideOfADeletedTopicGoes proves that a directory that was set aside is removed,
// and not reported any more, once the metadata say that its topic was deleted.
func TestDirectorySetAsideOfADeletedTopicGoes(t *testing.T) {
	mem, name := setAsideWorld(t)
	s := quietStore(t, testConfig(mem, "data"))
	s.sweepDirs(&sweep{isKnown: isNone, isDeleted: isFirst})
	for range 5 {
		s.keeper.checkpointNow()
		s.keeper.removeDue(time.Now())
	}
	infos, err := mem.ReadDir("data")
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range infos {
		if strings.HasPrefix(i.Name, "topic-0") {
			t.Errorf("%s stays", i.Name)
		}
	}
	if _, err := mem.Stat("data/" + name); err == nil || s.Strays() > 0 || s.isLeaving(testID(0)) {
		t.Errorf("the deleted topic's directory %s: %v; %d are reported as set aside; leaving: %v", name, err, s.Strays(), s.isLeaving(testID(0)))
	}
}

// TestLogIsNeverServedFromAHalfRemovedStray proves that a log whose directory was set aside is whole
// or empty when the metadata know it again, although a kill or a power cut came at any call while
// the directory was removed at the end of its time.
func TestLogIsNeverServedFromAHalfRemovedStray(t *testing.T) {
	mem, _ := setAsideWorld(t)
	var clones []*vfs.Mem
	cfg := testConfig(vfs.NewFaulty(mem, func(op vfs.Op, _ string) error {
		if op.Changes() {
			n := uint64(len(clones))
			clones = append(clones, mem.Crash(rand.New(rand.NewPCG(n, 41))), mem.KillClone(rand.New(rand.NewPCG(n, 42))))
		}
		return nil
	}), "data")
	cfg.StrayRetention = time.Hour
	s := quietStore(t, cfg)
	clones = nil
	removeOldStrays(s, time.Now().Add(2*time.Hour))
	for range 5 {
		s.keeper.removeDue(time.Now())
		s.keeper.checkpointNow()
	}
	if s.isLeaving(testID(0)) || s.Strays() > 0 {
		t.Fatal("something is left of it")
	}
	ends := map[int]int{}
	for i, c := range append(clones, mem) {
		s := quietStore(t, testConfig(c, "data"))
		l := s.Log(testID(0), "topic", rivalOptions(), func(*Log) {})
		end, err := l.End()
		ends[int(end)]++
		if err != nil || l.Fault() != nil || end != 0 && end != 6 {
			t.Errorf("moment %d of %d: the log ends at %d of 6: %v, %v", i, len(clones), end, err, l.Fault())
			continue
		}
		if end == 6 {
			continue
		}
		for range 5 {
			s.keeper.checkpointNow()
			s.keeper.removeDue(time.Now())
		}
		mustAppend(t, l, batch(t, 0, 1, 900))
	}
	if ends[0] < 5 || ends[6] < 2 {
		t.Errorf("the log ended so often at each place: %v", ends)
	}
}

// TestKnownLogBeginsEmptyWhileItsStrayIsRemoved proves that a log that the metadata know again while
// its directory is removed at the end of its time begins empty, refuses records until all is gone,
// and reports no loss. A directory of its that was set aside later keeps both.
func TestKnownLogBeginsEmptyWhileItsStrayIsRemoved(t *testing.T) {
	mem, name := setAsideWorld(t)
	cfg := testConfig(mem, "data")
	cfg.StrayRetention = time.Hour
	s := quietStore(t, cfg)
	s.strays.Add(name+"-copy", testID(0), time.Now().Add(3*time.Hour).UnixMilli())
	removeOldStrays(s, time.Now().Add(2*time.Hour))
	if s.Strays() != 2 || s.isLeaving(testID(0)) {
		t.Fatalf("%d directories are set aside", s.Strays())
	}
	s.strays.Forget(name+"-copy", testID(0))

	removeOldStrays(s, time.Now().Add(2*time.Hour))
	l := s.Log(testID(0), "topic", rivalOptions(), func(*Log) {})
	if it := appendOne(t, l, batch(t, 0, 1, 900)); !errors.Is(it.Err, ErrBusy) {
		t.Errorf("an append while the directory is removed: %v", it.Err)
	}
	if end, err := l.End(); end != 0 || err != nil || l.Fault() != nil {
		t.Errorf("it ends at %d: %v, %v", end, err, l.Fault())
	}
	for range 5 {
		s.keeper.checkpointNow()
		s.keeper.removeDue(time.Now())
	}
	if it := mustAppend(t, l, batch(t, 0, 1, 900)); it.Base != 0 {
		t.Errorf("the first record has offset %d", it.Base)
	}
}

// TestStrayThatTheOperatorRemovedIsForgotten proves that nothing is tried for ever where the
// operator has removed a directory that was set aside, while the node runs, before the node removes
// it: at the end of its time, or since its topic was deleted.
func TestStrayThatTheOperatorRemovedIsForgotten(t *testing.T) {
	for name, remove := range map[string]func(s *Store){
		"old":     func(s *Store) { removeOldStrays(s, time.Now().Add(2*time.Hour)) },
		"deleted": func(s *Store) { s.sweepDirs(&sweep{isKnown: isNone, isDeleted: isFirst}) },
	} {
		t.Run(name, func(t *testing.T) {
			mem, stray := setAsideWorld(t)
			cfg := testConfig(mem, "data")
			cfg.StrayRetention = time.Hour
			s := quietStore(t, cfg)
			if err := mem.Remove("data/" + stray); err != nil {
				t.Fatal(err)
			}
			remove(s)
			for range 5 {
				s.keeper.checkpointNow()
				s.keeper.removeDue(time.Now())
			}
			if s.Strays() > 0 || s.isLeaving(testID(0)) || len(s.keeper.leaving) > 0 {
				t.Errorf("%d are reported as set aside; leaving: %v", s.Strays(), s.isLeaving(testID(0)))
			}
		})
	}
}
