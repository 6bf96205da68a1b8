package storage

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/aside"
	"github.com/leatstream/leat/internal/storage/checkpoint"
	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/vfs"
)

// cutOptions has segments of a few batches.
func cutOptions() Options {
	o := testOptions()
	o.SegmentBytes = 3000
	o.Replicated = true
	return o
}

// appendEpochs appends batches of three records as a mirror does, each of them in the next of some epochs, and commits them.
func appendEpochs(tb testing.TB, l *Log, size int, epochs ...record.Epoch) {
	tb.Helper()
	for _, e := range epochs {
		end := mustEnd(tb, l)
		b := batch(tb, int(end), 3, size)
		b.SetBaseOffset(end)
		b.SetLeaderEpoch(e)
		items := []Item{{Batch: slices.Clone(b)}}
		if l.AppendAt(items); items[0].Err != nil {
			tb.Fatal(items[0].Err)
		}
	}
	l.s.Commit()
	l.SetHighWatermark(mustEnd(tb, l))
}

// allBytes are the bytes of a log's batches from an offset on.
func allBytes(tb testing.TB, l *Log, from record.Offset) (all []byte) {
	tb.Helper()
	for _, b := range readAllWith(tb, l, from, 1<<20, true) {
		all = append(all, b...)
	}
	return all
}

// readTail reads all batches of a tail.
func readTail(tb testing.TB, l *Log, number int32) (all []byte) {
	tb.Helper()
	r, err := OpenTail(l, number)
	if err != nil {
		tb.Fatal(err)
	}
	defer r.Close()
	for {
		b, err := r.Next(tb.Context())
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			tb.Fatal(err)
		}
		all = append(all, b...)
	}
}

func expectTails(tb testing.TB, l *Log, want map[int32][]byte) {
	tb.Helper()
	list, err := Tails(l)
	if err != nil || len(list) != len(want) {
		tb.Fatalf("%d tails, want %d: %v", len(list), len(want), err)
	}
	for _, tail := range list {
		got := readTail(tb, l, tail.Number)
		if string(got) != string(want[tail.Number]) {
			tb.Errorf("the tail of cut %d has %d bytes, and %d were cut", tail.Number, len(got), len(want[tail.Number]))
		}
		if tail.Bytes != int64(len(got)) {
			tb.Errorf("the tail of cut %d has %d bytes and says %d", tail.Number, len(got), tail.Bytes)
		}
	}
}

// TestCut proves that a log is cut below its high watermark, within a segment, between two, and at its end, once for each number;
// that what it loses is kept with its bytes, across restarts and power cuts; and that records of lower epochs can follow.
func TestCut(t *testing.T) {
	mem := vfs.NewMem()
	s := quietStore(t, testConfig(mem, "data"))
	l := testLog(s, 0, cutOptions())
	appendEpochs(t, l, 300, 2, 2, 3, 3, 5, 5, 5, 7, 7, 7)
	segs := l.segments()
	if len(segs) < 3 {
		t.Fatalf("%d segments", len(segs))
	}
	want := map[int32][]byte{}
	cut := func(number int32, to, end record.Offset) {
		t.Helper()
		if at := mustEnd(t, l); at > to {
			want[number] = allBytes(t, l, end)
		}
		if err := l.Cut(number, to); err != nil {
			t.Fatal(err)
		}
		if got := mustEnd(t, l); got != end {
			t.Fatalf("cut to %d, it ends at %d", to, got)
		}
		if high, _ := l.HighWatermark(); high > end {
			t.Errorf("it ends at %d, and its high watermark is %d", end, high)
		}
		if n, err := l.CutNumber(); n != number || err != nil {
			t.Errorf("its number is %d: %v", n, err)
		}
		expectTails(t, l, want)
	}
	restart := func() {
		t.Helper()
		mem = mem.Crash(rand.New(rand.NewPCG(1, 1)))
		s = quietStore(t, testConfig(mem, "data"))
		l = testLog(s, 0, cutOptions())
	}
	cut(3, 26, 24)                 // within a batch, which goes as a whole
	cut(4, 40, 24)                 // the log ends before that
	for number := range int32(5) { // these are made, or are not to be made any more
		if err := l.Cut(number, 3); err != nil || mustEnd(t, l) != 24 {
			t.Fatalf("cut %d once more: the log ends at %d: %v", number, mustEnd(t, l), err)
		}
	}
	appendEpochs(t, l, 300, 7, 7) // the epoch of records that were cut
	restart()
	expectTails(t, l, want)
	cut(5, segs[1].Base(), segs[1].Base())
	appendEpochs(t, l, 300, 4, 4, 4, 4, 4, 4) // a lower one
	if e := l.EpochAt(mustEnd(t, l) - 1); e != 4 {
		t.Errorf("the last record has epoch %d", e)
	}
	cut(9, 0, 0)
	restart()
	if n, err := l.CutNumber(); n != 9 || err != nil {
		t.Errorf("after a restart the number is %d: %v", n, err)
	}
	expectTails(t, l, want)
	appendEpochs(t, l, 300, 0)
	tails, bytes, err := CountTails(s)
	sum := 0
	for _, b := range want {
		sum += len(b)
	}
	if tails != len(want) || bytes != int64(sum) || err != nil {
		t.Errorf("%d tails of %d bytes are counted, want %d of %d: %v", tails, bytes, len(want), sum, err)
	}
	for _, number := range []int32{5, 3} {
		if err := DiscardTail(l, number); err != nil {
			t.Fatal(err)
		}
		delete(want, number)
		expectTails(t, l, want)
		if err := DiscardTail(l, number); !errors.Is(err, ErrNoTail) {
			t.Errorf("discarded twice: %v", err)
		}
	}
	restart()
	expectTails(t, l, want)
}

// TestCutBelowTheStart proves that a log which begins beyond a cut is empty after it and begins there, also across a power cut,
// and that its records are kept.
func TestCutBelowTheStart(t *testing.T) {
	for _, saves := range []int{0, 1, 2} { // checkpoints after the cut
		mem := vfs.NewMem()
		s := quietStore(t, testConfig(mem, "data"))
		l := testLog(s, 0, cutOptions())
		appendEpochs(t, l, 300, 2, 2, 3, 3, 5, 5, 5, 7, 7, 7)
		if err := l.SetStart(16); err != nil {
			t.Fatal(err)
		}
		s.keeper.checkpointNow() // segments below the start wait for their removal
		kept := allBytes(t, l, 16)
		if err := l.Cut(1, 5); err != nil {
			t.Fatal(err)
		}
		for range saves {
			s.keeper.checkpointNow()
		}
		check := func(end record.Offset) {
			t.Helper()
			start, _ := l.Start()
			sure, _ := DurableStart(l)
			high, _ := l.HighWatermark()
			if start != 5 || sure != 5 || mustEnd(t, l) != end || high > end {
				t.Fatalf("%d saves: it begins at %d (durably at %d), ends at %d, and has the high watermark %d", saves, start, sure, mustEnd(t, l), high)
			}
			expectTails(t, l, map[int32][]byte{1: kept})
		}
		check(5)
		appendEpochs(t, l, 300, 1, 1)
		check(11)
		for _, left := range []*vfs.Mem{mem.KillClone(nil), mem.Crash(rand.New(rand.NewPCG(1, 1)))} {
			s = quietStore(t, testConfig(left, "data"))
			l = testLog(s, 0, cutOptions())
			check(11)
			if got := values(t, readAllWith(t, l, 5, 1<<20, true)); !slices.Equal(got, []int{5, 6, 7, 8, 9, 10}) {
				t.Errorf("%d saves: the records are %v", saves, got)
			}
			if err := l.Fault(); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestCutOfNothing proves that a log which was never used gets the number of a cut before its first record, and no tail.
func TestCutOfNothing(t *testing.T) {
	mem := vfs.NewMem()
	s := quietStore(t, testConfig(mem, "data"))
	l := testLog(s, 0, cutOptions())
	if err := l.Cut(2, 100); err != nil {
		t.Fatal(err)
	}
	appendEpochs(t, l, 300, 1)
	s = quietStore(t, testConfig(mem.Crash(rand.New(rand.NewPCG(1, 1))), "data"))
	l = testLog(s, 0, cutOptions())
	if n, err := l.CutNumber(); n != 2 || err != nil || mustEnd(t, l) != 3 {
		t.Errorf("after a power cut the number is %d and the end %d: %v", n, mustEnd(t, l), err)
	}
	expectTails(t, l, nil)
}

// TestCutWaitsForTheCheckpoint proves that a checkpoint says that logs were cut before the first file of one is there, so that a
// version which does not know cuts refuses the directory, and that a directory without cuts has none of that.
func TestCutWaitsForTheCheckpoint(t *testing.T) {
	mem := vfs.NewMem()
	s := quietStore(t, testConfig(mem, "data"))
	l := testLog(s, 0, cutOptions())
	appendEpochs(t, l, 300, 2, 2)
	s.keeper.checkpointNow()
	isCut := func(fsys vfs.FS) bool {
		for _, name := range []string{"data/checkpoint-a", "data/checkpoint-b"} {
			f, err := fsys.Open(name, vfs.ReadOnly)
			if err != nil {
				continue
			}
			b := make([]byte, 1<<16)
			n, _ := f.ReadAt(b, 0)
			if sheet, err := checkpoint.Decode(b[:n]); err == nil && sheet.Cut {
				return true
			}
		}
		return false
	}
	if isCut(mem) {
		t.Fatal("a checkpoint says that a log was cut, and none was")
	}
	fails := true
	faulty := vfs.NewFaulty(mem.KillClone(nil), func(op vfs.Op, path string) error {
		if fails && op == vfs.OpWrite && strings.Contains(path, "checkpoint-") {
			return vfs.ErrNoSpace
		}
		return nil
	})
	fails = false
	s = quietStore(t, testConfig(faulty, "data"))
	l = testLog(s, 0, cutOptions())
	fails = true
	if err := l.Cut(1, 3); !errors.Is(err, ErrBusy) || mustEnd(t, l) != 6 {
		t.Errorf("without a checkpoint: %v", err)
	}
	fails = false
	if err := l.Cut(1, 3); err != nil || !isCut(faulty) {
		t.Errorf("no checkpoint says that a log was cut: %v", err)
	}
}

// TestCutWithoutRoom proves that a log is as it was if there is no room to keep what it would lose, that the error says what to do,
// and that the cut is made once there is room.
func TestCutWithoutRoom(t *testing.T) {
	mem := vfs.NewMem()
	s := quietStore(t, testConfig(mem, "data"))
	l := testLog(s, 0, cutOptions())
	appendEpochs(t, l, 300, 2, 2, 2)
	if err := l.Cut(1, 8); err != nil {
		t.Fatal(err)
	}
	appendEpochs(t, l, 300, 2, 2, 2, 2)
	before, gone := allBytes(t, l, 0), allBytes(t, l, 3)
	mem.SetFree(100)
	err := l.Cut(2, 3)
	if !errors.Is(err, ErrDiskFull) || !strings.Contains(err.Error(), "free some space, or discard tails") {
		t.Errorf("without room: %v", err)
	}
	if got := allBytes(t, l, 0); string(got) != string(before) {
		t.Errorf("the log has %d bytes, and had %d", len(got), len(before))
	}
	if n, err := l.CutNumber(); n != 1 || err != nil {
		t.Errorf("the number is %d: %v", n, err)
	}
	if list, err := Tails(l); len(list) != 1 || err != nil {
		t.Errorf("tails are %v: %v", list, err)
	}
	mem.SetFree(1 << 30)
	s.space.Look()
	if err := l.Cut(2, 3); err != nil {
		t.Fatal(err)
	}
	if got := readTail(t, l, 2); string(got) != string(gone) {
		t.Errorf("the tail has %d bytes, and %d were cut", len(got), len(gone))
	}
}

// TestDamagedCutNumber proves that a log does not take a number for another one that the disk has changed: it is read-only then.
func TestDamagedCutNumber(t *testing.T) {
	mem := vfs.NewMem()
	s := quietStore(t, testConfig(mem, "data"))
	l := testLog(s, 0, cutOptions())
	appendEpochs(t, l, 300, 2, 2)
	if err := l.Cut(3, 3); err != nil {
		t.Fatal(err)
	}
	for bit := range 8 * len(encodeCutNumber(3)) {
		left := mem.KillClone(nil)
		flipBit(t, left, "data/topic-0/"+cutNumberFile, bit)
		s := quietStore(t, testConfig(left, "data"))
		l := testLog(s, 0, cutOptions())
		if n, err := l.CutNumber(); n != 0 || !errors.Is(err, ErrFaulted) || !l.IsDamaged() {
			t.Fatalf("with bit %d flipped the number is %d: %v", bit, n, err)
		}
		if err := l.Cut(4, 0); !errors.Is(err, ErrFaulted) || mustEnd(t, l) != 3 {
			t.Fatalf("a cut of such a log: %v", err)
		}
	}
}

// flipBit flips a bit of a file.
func flipBit(tb testing.TB, fsys vfs.FS, name string, bit int) {
	tb.Helper()
	f, err := fsys.Open(name, vfs.Existing)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], int64(bit/8)); err != nil && !errors.Is(err, io.EOF) {
		tb.Fatal(err)
	}
	b[0] ^= 1 << (bit % 8)
	if _, err := f.WriteAt(b[:], int64(bit/8)); err != nil {
		tb.Fatal(err)
	}
}

// TestTailsGoWithTheirLog proves that the tails of a deleted log are removed, also where the process ends before that, and that
// those of a log which begins anew stay.
func TestTailsGoWithTheirLog(t *testing.T) {
	mem := vfs.NewMem()
	s := quietStore(t, testConfig(mem, "data"))
	l := testLog(s, 0, cutOptions())
	appendEpochs(t, l, 300, 2, 2, 2, 2)
	kept := allBytes(t, l, 6)
	if err := l.Cut(1, 6); err != nil {
		t.Fatal(err)
	}
	s.DeleteRecords(l.ID())
	for range 10 {
		s.keeper.checkpointNow()
		s.keeper.removeDue(time.Now().Add(time.Minute))
	}
	l = testLog(s, 0, cutOptions())
	if n, err := l.CutNumber(); n != 0 || err != nil || mustEnd(t, l) != 0 {
		t.Fatalf("it begins anew with number %d and ends at %d: %v", n, mustEnd(t, l), err)
	}
	if err := l.Cut(1, 6); err != nil {
		t.Fatal(err)
	}
	expectTails(t, l, map[int32][]byte{1: kept})
	s.Delete(l.ID())
	for _, left := range []*vfs.Mem{mem.KillClone(nil), mem} {
		s := s
		if left != mem {
			s = quietStore(t, testConfig(left, "data"))
			s.Sweep(func(LogID) bool { return false }, func(LogID) bool { return true }, nil)
			s.keeper.doDueWork()
		}
		for range 10 {
			s.keeper.checkpointNow()
			s.keeper.removeDue(time.Now().Add(time.Minute))
		}
		infos, err := left.ReadDir("data")
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range infos {
			if strings.Contains(i.Name, "tails") || strings.HasPrefix(i.Name, "topic-0") {
				t.Errorf("%s is left of a deleted log", i.Name)
			}
		}
	}
}

// TestTailsOfADeletedTopic proves that the tails of a topic go that was deleted while the node was down.
func TestTailsOfADeletedTopic(t *testing.T) {
	mem := vfs.NewMem()
	s := quietStore(t, testConfig(mem, "data"))
	l := testLog(s, 0, cutOptions())
	appendEpochs(t, l, 300, 2, 2)
	if err := l.Cut(1, 3); err != nil {
		t.Fatal(err)
	}
	for _, isDeleted := range []bool{false, true} {
		left := mem.KillClone(nil)
		s := quietStore(t, testConfig(left, "data"))
		s.Sweep(func(LogID) bool { return false }, func(LogID) bool { return isDeleted }, nil)
		for range 10 {
			s.keeper.doDueWork()
			s.keeper.checkpointNow()
			s.keeper.removeDue(time.Now().Add(time.Minute))
		}
		if _, err := left.Stat("data/" + aside.TailsName("topic-0", testID(0))); (err == nil) == isDeleted {
			t.Errorf("the topic was deleted: %v; its tails: %v", isDeleted, err)
		}
	}
}

// TestTailsOnRealFiles proves that tails are the same on a real file system: that whole segments take no more room there, that
// they are read, survive a restart, and are discarded.
func TestTailsOnRealFiles(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, testConfig(vfs.OS{}, dir))
	l := testLog(s, 0, cutOptions())
	appendEpochs(t, l, 300, 2, 2, 3, 3, 5, 5, 5, 7, 7, 7)
	segs := l.segments()
	old, err := os.Stat(segs[1].Path(segment.LogSuffix))
	if err != nil {
		t.Fatal(err)
	}
	to := segs[1].Base() - 3
	kept := map[int32][]byte{7: allBytes(t, l, to)}
	if err := l.Cut(7, to); err != nil {
		t.Fatal(err)
	}
	expectTails(t, l, kept)
	name := filepath.Join(dir, aside.TailsName("topic-0", testID(0)), "0000000007")
	linked, err := os.Stat(filepath.Join(name, segment.FileName(segs[1].Base(), segment.LogSuffix)))
	if err != nil || !os.SameFile(old, linked) {
		t.Errorf("a whole segment was copied: %v", err)
	}
	if _, err := os.Stat(filepath.Join(name, segment.FileName(to, segment.LogSuffix))); err != nil {
		t.Errorf("the segment that was cut: %v", err)
	}
	appendEpochs(t, l, 300, 3, 3)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, testConfig(vfs.OS{}, dir))
	l = testLog(s, 0, cutOptions())
	expectTails(t, l, kept)
	list, err := Tails(l)
	if err != nil || list[0].First != to || list[0].Last != 29 || list[0].FirstEpoch != 3 && list[0].FirstEpoch != 2 || list[0].LastEpoch != 7 || list[0].Time == 0 {
		t.Errorf("the tail is %+v: %v", list, err)
	}
	if err := DiscardTail(l, 7); err != nil {
		t.Fatal(err)
	}
	expectTails(t, l, nil)
	if _, err := os.Stat(name); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a discarded tail is there: %v", err)
	}
	if n, err := l.CutNumber(); n != 7 || err != nil || mustEnd(t, l) != to+6 {
		t.Errorf("the log ends at %d with number %d: %v", mustEnd(t, l), n, err)
	}
}

// noLinks is a file system whose files have one name only.
type noLinks struct{ vfs.FS }

// TestTailsWithoutLinks proves that segments are copied where the file system gives files no second names.
func TestTailsWithoutLinks(t *testing.T) {
	mem := vfs.NewMem()
	refuses := vfs.NewFaulty(mem, func(op vfs.Op, _ string) error {
		if op == vfs.OpLink {
			return errors.ErrUnsupported
		}
		return nil
	})
	for i, fsys := range []vfs.FS{noLinks{vfs.NewMem()}, refuses} {
		s := quietStore(t, testConfig(fsys, "data"))
		l := testLog(s, 0, cutOptions())
		appendEpochs(t, l, 300, 2, 2, 3, 3, 5, 5, 5, 7, 7, 7)
		kept := allBytes(t, l, 3)
		if err := l.Cut(1, 3); err != nil {
			t.Fatal(i, err)
		}
		expectTails(t, l, map[int32][]byte{1: kept})
	}
}

// TestTailFormat proves that the files of cuts have the bytes that they had when their format was promised.
func TestTailFormat(t *testing.T) {
	if got, want := string(encodeCutNumber(12)), "1\n12\n988493cf\n"; got != want {
		t.Errorf("a number is written as %q, and was %q", got, want)
	}
	tail := Tail{Number: 12, End: 118, First: 120, Last: 301, FirstEpoch: 4, LastEpoch: 5, Time: 1_700_000_000_000, files: []tailFile{{120, 4096}, {300, 70}}}
	want := "version=1\ncut=12\nend=118\nfirst=120\nlast=301\nfirst.epoch=4\nlast.epoch=5\ntime=1700000000000\n" +
		"file=00000000000000000120.log 4096\nfile=00000000000000000300.log 70\ncrc=39522281\n"
	if got := string(tail.encode()); got != want {
		t.Errorf("a manifest is written as %q, and was %q", got, want)
	}
	tail.Bytes = 4166
	if got, err := decodeTail([]byte(want)); err != nil || fmt.Sprint(got) != fmt.Sprint(tail) {
		t.Errorf("it is read as %+v: %v", got, err)
	}
	for i := range 8 * len(want) {
		b := []byte(want)
		b[i/8] ^= 1 << (i % 8)
		if _, err := decodeTail(b); err == nil {
			t.Fatalf("with bit %d flipped it is read", i)
		}
	}
}
