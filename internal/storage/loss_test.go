package storage

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/journal"
	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/vfs"
)

// quietStore opens a store in which nothing runs in the background.
func quietStore(t *testing.T, cfg Config) *Store {
	t.Helper()
	s, err := openDir(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.background = func(fn func()) { fn() }
	t.Cleanup(func() { _ = s.Close() }) // it may have been closed, or stand on a file system that is gone
	return s
}

// segmentFile is the name of a log's first segment's file.
func segmentFile(n int) string {
	return "data/" + dirName("topic", int32(n)) + "/" + segment.FileName(0, segment.LogSuffix)
}

// TestVolumeComesBackUnderTheSameKernel proves that records that were committed survive the
// loss of the page cache while the kernel runs on: a volume that was torn away and mounted
// again. The boot id proves nothing.
func TestVolumeComesBackUnderTheSameKernel(t *testing.T) {
	for seed := range uint64(20) {
		mem := vfs.NewMem()
		cfg := testConfig(mem, "data")
		s := quietStore(t, cfg)
		for i := range 50 {
			mustAppend(t, testLog(s, i%3, testOptions()), batch(t, i/3, 1, 100))
			s.Commit()
			if i == 20 {
				s.keeper.checkpointNow()
			}
		}
		mem.Detach()
		_ = s.Close() // nothing works any more
		mem.Attach(rand.New(rand.NewPCG(seed, 20)))
		s = quietStore(t, cfg)
		for i := range 3 {
			expectValues(t, testLog(s, i, testOptions()), (52-i)/3)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDeletedAndMadeAgain proves that a deleted log and new ones of its name never touch each
// other's files, while both are used at the same time, nor after a crash.
func TestDeletedAndMadeAgain(t *testing.T) {
	mem := vfs.NewMem()
	cfg := testConfig(mem, "data")
	cfg.CheckpointEvery = time.Millisecond
	s := openStore(t, cfg)
	const logs, times = 20, 20
	name := func(i, n int) LogID {
		id := testID(i)
		id.Topic[0], id.Topic[1] = byte(n), 1
		return id
	}
	var all sync.WaitGroup
	for i := range logs {
		all.Go(func() {
			for n := range times {
				l := s.Log(name(i, n), "topic", testOptions(), func(*Log) {})
				for k := range 3 {
					if it := appendOne(t, l, batch(t, 1000*n+k, 1, 50)); it.Err != nil || int(it.Base) != k {
						t.Errorf("log %d, life %d: %+v", i, n, it)
					}
				}
				s.Commit()
				if n+1 < times {
					s.Delete(name(i, n))
				}
			}
		})
	}
	all.Wait()
	s.Commit()
	expect := func(s *Store) {
		for i := range logs {
			l := s.Log(name(i, times-1), "topic", testOptions(), func(*Log) {})
			got := values(t, readAll(t, l, 0, 1<<20))
			if len(got) != 3 || got[0] != 1000*(times-1) {
				t.Errorf("log %d has %v", i, got)
			}
		}
	}
	for range 1000 { // another goroutine may be running the last round
		if end, _ := s.Log(name(0, times-1), "topic", testOptions(), func(*Log) {}).Committed(); end == 3 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	cfg.FS = mem.Crash(rand.New(rand.NewPCG(1, 21)))
	expect(openStore(t, cfg))
}

// TestRollNeverTakesItsOwnBase proves that an empty segment is not followed by another one
// with the same base where the first write into it fails.
func TestRollNeverTakesItsOwnBase(t *testing.T) {
	fail := true
	mem := vfs.NewMem()
	cfg := testConfig(vfs.NewFaulty(mem, func(op vfs.Op, path string) error {
		if fail && op == vfs.OpWrite && strings.HasSuffix(path, segment.LogSuffix) {
			fail = false
			return vfs.ErrNoSpace
		}
		return nil
	}), "data")
	s := quietStore(t, cfg)
	o := testOptions()
	o.SegmentBytes = 1024
	l := testLog(s, 0, o)
	l.Append(1, []Item{{Batch: batch(t, 0, 1, 700)}, {Batch: batch(t, 0, 1, 700)}, {Batch: batch(t, 1, 1, 700)}})
	s.Commit()
	var bases []record.Offset
	for _, g := range l.segments() {
		bases = append(bases, g.Base())
	}
	if len(bases) != 2 || bases[0] != 0 || bases[1] != 1 {
		t.Errorf("segments %v", bases)
	}
	s.keeper.checkpointNow()
	cfg.FS = mem.Crash(rand.New(rand.NewPCG(1, 22)))
	expectValues(t, testLog(quietStore(t, cfg), 0, o), 2)
}

// TestModeChanges proves that a log that becomes durable in mid-flight keeps everything from
// then on, also what it had in the page cache, whatever a power cut does, and that retention
// does not get in the way.
func TestModeChanges(t *testing.T) {
	for seed := range uint64(60) {
		mem := vfs.NewMem()
		cfg := testConfig(mem, "data")
		s := quietStore(t, cfg)
		cached := testOptions()
		cached.FlushMessages, cached.SegmentBytes = 1000, 2000
		l := testLog(s, 0, cached)
		n := 0
		for range 20 {
			mustAppend(t, l, batch(t, n, 1, 200))
			n++
		}
		asDurable := cached
		asDurable.FlushMessages, asDurable.RetentionBytes = 1, 5000
		l.Configure(asDurable)
		s.retainOne(l, time.Now())
		mustAppend(t, l, batch(t, n, 1, 200))
		n++
		s.Commit()
		if err := l.Fault(); err != nil {
			t.Fatal(err)
		}
		start, _ := l.Start()
		cfg.FS = mem.Crash(rand.New(rand.NewPCG(seed, 23)))
		l = testLog(quietStore(t, cfg), 0, asDurable)
		if end, err := l.End(); err != nil || int(end) != n {
			t.Fatalf("seed %d: it ends at %d of %d, %v", seed, end, n, err)
		}
		if got := values(t, readAll(t, l, start, 1<<20)); len(got) != n-int(start) || got[0] != int(start) {
			t.Fatalf("seed %d: %v from %d on", seed, got, start)
		}
	}
}

// TestSweepSparesNewTopics proves that the sweep at a start leaves a topic alone that was made
// under a name while the sweep looked at it.
func TestSweepSparesNewTopics(t *testing.T) {
	mem := vfs.NewMem()
	cfg := testConfig(mem, "data")
	s := quietStore(t, cfg)
	mustAppend(t, testLog(s, 0, testOptions()), batch(t, 0, 1, 100))
	s.Commit()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = quietStore(t, cfg)
	other := testID(0)
	other.Topic[0]++
	l := s.Log(other, "topic", testOptions(), func(*Log) {})
	asked := false
	s.Sweep(func(id LogID) bool {
		if id == testID(0) && !asked { // the sweep has looked into the directory: now the new topic takes the name
			asked = true
			mustAppend(t, l, batch(t, 0, 1, 100))
			s.Commit()
		}
		return false
	}, func(LogID) bool { return false }, nil)
	s.keeper.doDueWork()
	if !asked {
		t.Fatal("the sweep did not look")
	}
	expectValues(t, l, 1)
	if s.Strays() != 1 {
		t.Errorf("%d directories were set aside, want the old topic's", s.Strays())
	}
	cfg.FS = mem.Crash(rand.New(rand.NewPCG(1, 24)))
	expectValues(t, quietStore(t, cfg).Log(other, "topic", testOptions(), func(*Log) {}), 1)
}

// TestUnknownTopicsAreKept proves that a directory of a topic that the metadata do not know is
// set aside with all its files and kept, for the time that is set or, without one, until the
// operator deletes it; and that one whose deletion is known goes.
func TestUnknownTopicsAreKept(t *testing.T) {
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
	known := testLog(s, 0, testOptions())
	s.Sweep(func(id LogID) bool { return id == known.ID() }, func(id LogID) bool { return id == testID(1) }, nil)
	s.keeper.doDueWork()
	find := func(part string) (names []string) {
		infos, err := mem.ReadDir("data")
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range infos {
			if strings.Contains(i.Name, part) {
				names = append(names, i.Name)
			}
		}
		return names
	}
	expectValues(t, known, 1)
	stray := find("-stray")
	if len(stray) != 1 || s.Strays() != 1 || !strings.HasPrefix(stray[0], "topic-2.") {
		t.Fatalf("set aside: %v", stray)
	}
	if info, err := mem.Stat("data/" + stray[0] + "/" + segment.FileName(0, segment.LogSuffix)); err != nil || info.Size == 0 {
		t.Errorf("its records: %v, %v", info, err)
	}
	if left := find("topic-1"); len(left) > 0 && !strings.HasSuffix(left[0], "-delete") {
		t.Errorf("the deleted topic: %v", left)
	}
	removeOldStrays(s, time.Now().Add(59*time.Minute))
	s.keeper.removeDue(time.Now().Add(time.Minute))
	if len(find("-stray")) != 1 {
		t.Error("it was removed before its time")
	}
	if err := s.Close(); err != nil { // a restart does not begin the time anew
		t.Fatal(err)
	}
	unset := cfg
	unset.StrayRetention = 0
	s = quietStore(t, unset)
	removeOldStrays(s, time.Now().Add(1000*24*time.Hour))
	s.keeper.removeDue(time.Now().Add(1000 * 24 * time.Hour))
	if len(find("-stray")) != 1 {
		t.Error("it was removed, though nobody said that it may be")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = quietStore(t, cfg)
	removeOldStrays(s, time.Now().Add(2*time.Hour))
	s.keeper.removeDue(time.Now().Add(time.Minute))
	if left := find("-stray"); len(left) > 0 {
		t.Errorf("%v stays for ever", left)
	}
}

// TestRetryInOneWrite proves that a retry of a batch that is in the same write shares that
// one's fate: where the write fails, nobody is told that it was stored.
func TestRetryInOneWrite(t *testing.T) {
	fail := false
	cfg := testConfig(vfs.NewFaulty(vfs.NewMem(), func(op vfs.Op, path string) error {
		if fail && op == vfs.OpWrite && strings.HasSuffix(path, segment.LogSuffix) {
			fail = false
			return vfs.ErrNoSpace
		}
		return nil
	}), "data")
	l := testLog(quietStore(t, cfg), 0, testOptions())
	fail = true
	items := []Item{{Batch: produced(t, 1, 0, 0, 1)}, {Batch: produced(t, 1, 0, 0, 1)}, {Batch: produced(t, 1, 0, 1, 1)}}
	l.Append(1, items)
	for i, it := range items {
		if !errors.Is(it.Err, ErrDiskFull) || it.Dup || it.Base != -1 {
			t.Errorf("item %d: %+v", i, it)
		}
	}
	if end, _ := l.End(); end != 0 {
		t.Errorf("it ends at %d", end)
	}
	l.Append(1, items)
	if items[0].Err != nil || !items[1].Dup || items[1].Base != 0 || items[2].Base != 1 {
		t.Errorf("again: %+v", items)
	}
}

// TestRetriesAfterAPowerCut proves that batches of a page-cached log that were appended after
// a power cut, at offsets that it took, are known after a kill.
func TestRetriesAfterAPowerCut(t *testing.T) {
	o := testOptions()
	o.FlushMessages = 1 << 40
	for seed := range uint64(30) {
		mem := vfs.NewMem()
		cfg := testConfig(mem, "data")
		s := quietStore(t, cfg)
		l := testLog(s, 0, o)
		mustAppend(t, l, produced(t, 1, 0, 0, 1))
		s.keeper.checkpointSoon()
		l.due.sync = true
		s.keeper.checkpointNow()
		for i := range 5 { // of nobody
			mustAppend(t, l, batch(t, i, 1, 100))
			s.keeper.checkpointNow()
		}
		cfg.FS = mem.Crash(rand.New(rand.NewPCG(seed, 25)))
		mem, _ = cfg.FS.(*vfs.Mem)
		s = quietStore(t, cfg)
		l = testLog(s, 0, o)
		first := mustAppend(t, l, produced(t, 1, 0, 1, 1))
		cfg.FS = mem.KillClone(nil)
		l = testLog(quietStore(t, cfg), 0, o)
		if it := appendOne(t, l, produced(t, 1, 0, 1, 1)); !it.Dup || it.Base != first.Base {
			t.Fatalf("seed %d: a retry of the batch at %d: %+v", seed, first.Base, it)
		}
	}
}

// TestDamagedRoundIsNoEnd proves that a round of the journal with a flipped bit does not hide
// the rounds behind it after a power cut, and that the store says that it lost something.
func TestDamagedRoundIsNoEnd(t *testing.T) {
	const rounds = 20
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 26))
		mem := vfs.NewMem()
		cfg := testConfig(mem, "data")
		s := quietStore(t, cfg)
		for i := range rounds {
			mustAppend(t, testLog(s, i, testOptions()), batch(t, 0, 1, 100))
			s.Commit()
		}
		mem = mem.KillClone(nil)
		bad := rng.IntN(rounds - 1)
		flipAt(t, mem, "data/journal/0000.ring", int64(bad)*4096+rng.Int64N(300), rng)
		for i := range rounds {
			emptyFile(t, mem, segmentFile(i))
		}
		cfg.FS = mem
		s = quietStore(t, cfg)
		missing := 0
		for i := range rounds {
			l := testLog(s, i, testOptions())
			if end, err := l.End(); err != nil || end == 0 {
				missing++
			} else {
				expectValues(t, l, 1)
			}
		}
		if missing > 1 {
			t.Fatalf("seed %d: %d logs lost their record", seed, missing)
		}
		if missing == 1 && s.Damage() == nil {
			t.Fatalf("seed %d: the loss of a record is silent", seed)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// flipAt changes one bit of a file's byte.
func flipAt(t *testing.T, mem *vfs.Mem, name string, at int64, rng *rand.Rand) {
	t.Helper()
	f, err := mem.Open(name, vfs.Existing)
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	_, err = f.ReadAt(b[:], at)
	b[0] ^= 1 << rng.IntN(8)
	_, err2 := f.WriteAt(b[:], at)
	if err := errors.Join(err, err2, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

func emptyFile(t *testing.T, mem *vfs.Mem, name string) {
	t.Helper()
	f, err := mem.Open(name, vfs.Existing)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(0), f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestUnreadableRingFile proves that a sector of the journal that cannot be read, and has
// nothing that counts, does not stop a start.
func TestUnreadableRingFile(t *testing.T) {
	mem := vfs.NewMem()
	cfg := testConfig(mem, "data")
	s := quietStore(t, cfg)
	mustAppend(t, testLog(s, 0, testOptions()), batch(t, 0, 1, 100))
	s.Commit()
	s.journal.Fill(&s.closing)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	cfg.FS = vfs.NewFaulty(mem, func(op vfs.Op, path string) error {
		if op == vfs.OpRead && strings.Contains(path, "/"+journal.DirName+"/0003") {
			return errBadDisk
		}
		return nil
	})
	expectValues(t, testLog(quietStore(t, cfg), 0, testOptions()), 1)
}

// TestNoDescriptors proves that a lack of file descriptors makes no log read-only: appends are
// refused while it lasts, and work again after it; nothing that was acknowledged is lost.
func TestNoDescriptors(t *testing.T) {
	mem := vfs.NewMem()
	cfg := testConfig(mem, "data")
	cfg.OpenFiles, cfg.CheckpointEvery = 4, time.Millisecond
	s := openStore(t, cfg)
	o := testOptions()
	o.SegmentBytes = 2000
	acked := make([]int, 6)
	write := func(i int) error {
		it := appendOne(t, testLog(s, i, o), batch(t, acked[i], 1, 300))
		if it.Err == nil {
			acked[i]++
		}
		s.Commit()
		return it.Err
	}
	for i := range acked {
		if err := write(i); err != nil {
			t.Fatal(err)
		}
	}
	mem.LimitHandles(mem.Handles())
	refused := 0
	for range 100 {
		for i := range acked {
			if err := write(i); errors.Is(err, ErrBusy) {
				refused++
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
	s.keeper.checkpointNow()
	mem.LimitHandles(1 << 20)
	for i := range acked {
		if err := testLog(s, i, o).Fault(); err != nil {
			t.Errorf("log %d: %v", i, err)
		}
		if err := write(i); err != nil {
			t.Errorf("log %d, with descriptors again: %v", i, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	cfg.FS = mem.Crash(rand.New(rand.NewPCG(1, 27)))
	s = openStore(t, cfg)
	for i, n := range acked {
		expectValues(t, testLog(s, i, o), n)
	}
}

// TestLongNames proves that topics with the longest names that Kafka knows can be deleted and
// made again, and that nothing of the first one stays.
func TestLongNames(t *testing.T) {
	mem := vfs.NewMem()
	cfg := testConfig(mem, "data")
	s := quietStore(t, cfg)
	topic := strings.Repeat("x", 249)
	for n := range 3 {
		id := testID(0)
		id.Topic[0] = byte(n)
		l := s.Log(id, topic, testOptions(), func(*Log) {})
		if it := mustAppend(t, l, batch(t, 0, 1, 100)); it.Base != 0 {
			t.Fatalf("life %d begins with %d", n, it.Base)
		}
		s.Commit()
		s.keeper.checkpointNow()
		s.Delete(id)
		for range 3 {
			s.keeper.checkpointNow()
			s.keeper.removeDue(time.Now())
		}
	}
	infos, err := mem.ReadDir("data")
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range infos {
		if strings.HasPrefix(i.Name, "xxx") {
			t.Errorf("%s is left", i.Name)
		}
	}
}

// TestSnapshotsDoNotPileUp proves that restarts do not leave producer snapshots behind.
func TestSnapshotsDoNotPileUp(t *testing.T) {
	mem := vfs.NewMem()
	cfg := testConfig(mem, "data")
	for i := range 10 {
		s := quietStore(t, cfg)
		mustAppend(t, testLog(s, 0, testOptions()), produced(t, 1, 0, int32(i), 1))
		s.Commit()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	infos, err := mem.ReadDir("data/topic-0")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, i := range infos {
		if strings.HasSuffix(i.Name, snapshotSuffix) {
			n++
		}
	}
	if n > 1+keptSnapshots {
		t.Errorf("%d snapshots", n)
	}
}

// TestNoteOfFailedSyncs proves that the note of a failed sync counts for the kernel under
// which it was written only, and that an empty one does not count for ever.
func TestNoteOfFailedSyncs(t *testing.T) {
	for name, c := range map[string]struct {
		note     string
		boot     string
		distrust bool
	}{
		"the same kernel":          {"boot\n", "boot", true},
		"another kernel":           {"other\n", "boot", false},
		"none failed":              {allSynced + "\n", "boot", false},
		"it was cut short":         {"bo", "boot", true},
		"it was made, not written": {"", "boot", false},
	} {
		t.Run(name, func(t *testing.T) {
			mem := vfs.NewMem()
			if err := mem.MkdirAll("data"); err != nil {
				t.Fatal(err)
			}
			put(t, mem, "data/"+noteFile, []byte(c.note))
			cfg := testConfig(mem, "data")
			cfg.BootID = c.boot
			s := quietStore(t, cfg)
			if s.syncs.distrust != c.distrust {
				t.Errorf("distrust: %v", s.syncs.distrust)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			cfg.BootID = "the next one"
			if quietStore(t, cfg).syncs.distrust {
				t.Error("it counts under the next kernel, too")
			}
		})
	}
}

// TestJournalDirectoryIsMadeLater proves that the journal is used once its directory can be
// made, though that failed at the start.
func TestJournalDirectoryIsMadeLater(t *testing.T) {
	full := true
	mem := vfs.NewMem()
	cfg := testConfig(vfs.NewFaulty(mem, func(op vfs.Op, path string) error {
		if full && op == vfs.OpMkdir && strings.HasSuffix(path, journal.DirName) {
			return vfs.ErrNoSpace
		}
		return nil
	}), "data")
	s := quietStore(t, cfg)
	l := testLog(s, 0, testOptions())
	mustAppend(t, l, batch(t, 0, 1, 100))
	s.Commit() // by a sync of the file
	expectValues(t, l, 1)
	full = false
	mustAppend(t, l, batch(t, 1, 1, 100))
	s.Commit()
	if s.journal.Next() != 2 {
		t.Error("the journal was not used")
	}
	expectValues(t, l, 2)
}

// TestRingPlacesAreUsedAgain proves that files of the ring that could not be made do not use
// up its places.
func TestRingPlacesAreUsedAgain(t *testing.T) {
	fail := true
	cfg := testConfig(vfs.NewFaulty(vfs.NewMem(), func(op vfs.Op, path string) error {
		if fail && op == vfs.OpOpen && strings.HasSuffix(path, ".ring") {
			return syscall.EMFILE
		}
		return nil
	}), "data")
	s := quietStore(t, cfg)
	l := testLog(s, 0, testOptions())
	for i := range 40 {
		mustAppend(t, l, batch(t, i, 1, 100))
		s.Commit()
	}
	fail = false
	mustAppend(t, l, batch(t, 40, 1, 100))
	s.Commit()
	if s.journal.Next() != 2 {
		t.Error("the journal was not used")
	}
	expectValues(t, l, 41)
}

// TestLostJournal proves that a journal that cannot be written any more ends no log: each
// commit syncs its files, and the operator is told once.
func TestLostJournal(t *testing.T) {
	fail := false
	mem := vfs.NewMem()
	var text said
	cfg := testConfig(vfs.NewFaulty(mem, func(op vfs.Op, path string) error {
		if fail && op == vfs.OpSync && strings.HasSuffix(path, ".ring") {
			return errBadDisk
		}
		return nil
	}), "data")
	cfg.Logger = slog.New(slog.NewTextHandler(&text, nil))
	s := quietStore(t, cfg)
	for i := range 10 {
		fail = i == 5
		for k := range 3 {
			mustAppend(t, testLog(s, k, testOptions()), batch(t, i, 1, 100))
		}
		s.Commit()
	}
	if s.Damage() == nil || strings.Count(text.String(), "each commit syncs its files") != 1 {
		t.Errorf("%v, the operator was told:\n%s", s.Damage(), text.String())
	}
	for k := range 3 {
		expectValues(t, testLog(s, k, testOptions()), 10)
	}
	cfg.FS = mem.Crash(rand.New(rand.NewPCG(1, 28)))
	s = quietStore(t, cfg)
	for k := range 3 {
		expectValues(t, testLog(s, k, testOptions()), 10)
	}
}

// TestReadMeetsRetention proves that a read which has found its segment, when retention takes
// that one and its file is removed, says that the offset is out of range, and nothing else.
func TestReadMeetsRetention(t *testing.T) {
	mem := vfs.NewMem()
	var meanwhile func()
	cfg := testConfig(vfs.NewFaulty(mem, func(op vfs.Op, path string) error {
		if fn := meanwhile; fn != nil && op == vfs.OpOpen && path == segmentFile(0) {
			meanwhile = nil
			fn()
		}
		return nil
	}), "data")
	o := testOptions()
	o.SegmentBytes = 2000
	s := quietStore(t, cfg)
	l := testLog(s, 0, o)
	for i := range 40 {
		mustAppend(t, l, batch(t, i, 1, 300))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = quietStore(t, cfg) // no file is open
	l = testLog(s, 0, o)
	if _, err := l.End(); err != nil {
		t.Fatal(err)
	}
	taken := false
	meanwhile = func() {
		taken = true
		if err := l.SetStart(20); err != nil {
			t.Fatal(err)
		}
		if err := mem.Remove(segmentFile(0)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Read(0, 40, 1000); !errors.Is(err, ErrOffsetOutOfRange) || !taken {
		t.Errorf("a read whose segment was taken (%v): %v", taken, err)
	}
	if err := l.Fault(); err != nil {
		t.Error(err)
	}
	if got := values(t, readAll(t, l, 20, 1000)); len(got) != 20 || got[0] != 20 {
		t.Errorf("the records from the new start on: %v", got)
	}
}

// TestGapsAndGivenOffsets proves that a log takes batches with given offsets and epochs, gaps
// among them, begins above 0 if it is told to, refuses offsets and epochs that fall, and reads
// the same after a restart.
func TestGapsAndGivenOffsets(t *testing.T) {
	cfg := testConfig(vfs.NewMem(), "data")
	s := quietStore(t, cfg)
	o := testOptions()
	o.SegmentBytes = 1500
	l := testLog(s, 0, o)
	if err := l.StartAt(1000); err != nil {
		t.Fatal(err)
	}
	given := func(base record.Offset, e record.Epoch) Item {
		b := batch(t, int(base), 2, 100)
		b.SetBaseOffset(base)
		b.SetLeaderEpoch(e)
		items := []Item{{Batch: b}}
		l.AppendAt(items)
		return items[0]
	}
	var want []int
	for i := range 30 {
		base := record.Offset(1000 + 7*i)
		if it := given(base, record.Epoch(i/10)); it.Err != nil || it.Base != base {
			t.Fatalf("%+v", it)
		}
		want = append(want, int(base), int(base)+1)
	}
	for _, c := range []struct {
		base record.Offset
		e    record.Epoch
	}{{1203, 2}, {1300, 1}} {
		if it := given(c.base, c.e); it.Err == nil {
			t.Errorf("a batch at %d of epoch %d was taken", c.base, c.e)
		}
	}
	s.Commit()
	check := func() {
		t.Helper()
		var got []int
		for from := record.Offset(1000); ; {
			c, err := l.Read(from, 1205, 300)
			if err != nil {
				t.Fatal(err)
			}
			if c == nil {
				break
			}
			b := make(record.Batch, c.Len())
			if _, err := c.ReadAt(b, 0); err != nil {
				t.Fatal(err)
			}
			c.Release()
			one, _, err := record.Next(b)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, values(t, []record.Batch{one})...)
			from = one.NextOffset()
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("read %v, want %v", got, want)
		}
		if e := l.EpochAt(1070); e != 1 {
			t.Errorf("epoch %d at 1070", e)
		}
		s.scrub(unpaced)
		if err := l.Fault(); err != nil {
			t.Error(err)
		}
	}
	check()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = quietStore(t, cfg)
	l = testLog(s, 0, o)
	check()
	if start, _ := l.Start(); start != 1000 {
		t.Errorf("it starts at %d", start)
	}
}

// TestTruncateComparedAtStart proves that a start which compares the journal with the files
// does not bring back bytes that were truncated, and loses none that were appended after it.
func TestTruncateComparedAtStart(t *testing.T) {
	for seed := range uint64(60) {
		mem := vfs.NewMem()
		cfg := testConfig(mem, "data")
		s := quietStore(t, cfg)
		o := testOptions()
		o.SegmentBytes = 1500
		l := testLog(s, 0, o)
		for i := range 20 {
			mustAppend(t, l, batch(t, i, 1, 200))
			s.Commit()
		}
		cut := int(seed % 20)
		if err := l.Truncate(record.Offset(cut)); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			mustAppend(t, l, batch(t, cut, 1, 200))
			cut++
			s.Commit()
		}
		cfg.FS = mem.Crash(rand.New(rand.NewPCG(seed, 29)))
		expectValues(t, testLog(quietStore(t, cfg), 0, o), cut)
	}
}

// TestHighWatermarkIsKept proves that the high watermark is there after a restart, that it
// does not pass the log's end, and that retention stays below it.
func TestHighWatermarkIsKept(t *testing.T) {
	cfg := testConfig(vfs.NewMem(), "data")
	s := quietStore(t, cfg)
	o := testOptions()
	o.SegmentBytes, o.RetentionBytes = 1500, 1000
	l := testLog(s, 0, o)
	for i := range 20 {
		mustAppend(t, l, batch(t, i, 1, 200))
	}
	s.Commit()
	l.SetHighWatermark(7)
	s.retainOne(l, time.Now())
	if start, _ := l.Start(); start > 7 {
		t.Errorf("retention went to %d", start)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	l = testLog(quietStore(t, cfg), 0, o)
	if hw, err := l.HighWatermark(); hw != 7 || err != nil {
		t.Errorf("the high watermark is %d, %v", hw, err)
	}
}
