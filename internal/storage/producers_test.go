package storage

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/producer"
	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/vfs"
)

// boundedStore opens a store that has room for a number of producers.
func boundedStore(tb testing.TB, fs vfs.FS, most int) *Store {
	tb.Helper()
	cfg := testConfig(fs, "data")
	cfg.Producers = producer.NewBudget(int64(most) * producer.EntryBytes)
	return openStore(tb, cfg)
}

// floodLog has new producers append one batch each, from an id on.
func floodLog(tb testing.TB, l *Log, first int64, n int) {
	tb.Helper()
	for i := range n {
		mustAppend(tb, l, produced(tb, first+int64(i), 0, 0, 1))
	}
}

// knownProducers lists the ids of the producers that a log knows, in order.
func knownProducers(tb testing.TB, l *Log) (ids []int64) {
	tb.Helper()
	list, err := l.Producers(math.MaxInt)
	if err != nil {
		tb.Fatal(err)
	}
	for _, p := range list {
		ids = append(ids, p.ID)
	}
	slices.Sort(ids)
	return ids
}

func expectProducers(tb testing.TB, s *Store, least, most int) {
	tb.Helper()
	u := s.cfg.Producers.Usage()
	if u.Producers < int64(least) || u.Producers > int64(most) {
		tb.Errorf("%d producers are counted, not %d to %d", u.Producers, least, most)
	}
}

// expectRetry sends a batch again, and expects that it is known at an offset.
func expectRetry(tb testing.TB, l *Log, b record.Batch, at record.Offset) {
	tb.Helper()
	it := appendOne(tb, l, b)
	if it.Err != nil || !it.Dup || it.Base != at {
		tb.Errorf("producer %d's batch at %d came again: %+v", b.ProducerID(), at, it)
	}
}

// TestProducersAreBounded proves that the producers of all logs together take no more memory than they
// may, that those which go on writing keep their deduplication beside a flood in the same log
// and in others, and that a forgotten producer that comes back is served as an unknown one.
func TestProducersAreBounded(t *testing.T) {
	const most = 200
	s := boundedStore(t, vfs.NewMem(), most)
	quiet, busy := testLog(s, 0, testOptions()), testLog(s, 1, testOptions())
	const honest = 1_000_000
	mustAppend(t, quiet, produced(t, honest, 0, 0, 1))
	gone := mustAppend(t, busy, produced(t, 5, 0, 0, 1))
	for round := range 20 {
		floodLog(t, busy, int64(1000*(round+1)), 100)
		it := mustAppend(t, busy, produced(t, honest, 0, int32(round), 1))
		expectRetry(t, busy, produced(t, honest, 0, int32(round), 1), it.Base)
		if round > 0 {
			again := appendOne(t, busy, produced(t, honest, 0, int32(round-1), 1))
			if !again.Dup || again.Err != nil {
				t.Errorf("round %d: the batch before the flood came again: %+v", round, again)
			}
		}
		expectProducers(t, s, 1, most)
	}
	expectRetry(t, quiet, produced(t, honest, 0, 0, 1), 0)
	if it := appendOne(t, busy, produced(t, honest, 0, 99, 1)); it.Err == nil {
		t.Error("a gap in the sequences of a producer that is known was taken")
	}
	if it := mustAppend(t, busy, produced(t, 5, 0, 1, 1)); it.Dup || it.Base <= gone.Base {
		t.Errorf("a forgotten producer goes on: %+v", it)
	}
	if it := appendOne(t, busy, produced(t, 5, 0, 7, 1)); it.Err == nil {
		t.Error("and then leaves a gap")
	}
	if u := s.cfg.Producers.Usage(); u.Evicted == 0 || u.Limit != most*producer.EntryBytes || u.Bytes > u.Limit {
		t.Errorf("%+v", u)
	}
}

// TestIdleLogsAreBounded proves that the keeper forgets producers of logs that are not appended to: those
// in excess where other logs grow, and those that are too old.
func TestIdleLogsAreBounded(t *testing.T) {
	const most = 200
	mem := vfs.NewMem()
	cfg := testConfig(mem, "data")
	cfg.Producers = producer.NewBudget(most * producer.EntryBytes)
	s, err := openDir(cfg) // no goroutine runs
	if err != nil {
		t.Fatal(err)
	}
	s.background = func(f func()) { f() }
	o := testOptions()
	o.ProducerExpiration = 24 * time.Hour
	idle := testLog(s, 0, o)
	floodLog(t, idle, 1000, most)
	var growing []*Log
	for n := 1; n <= 5; n++ {
		l := testLog(s, n, o)
		growing = append(growing, l)
		floodLog(t, l, 1000, 150)
	}
	expectProducers(t, s, most+1, most*17/8)
	s.keeper.doDueWork()
	expectProducers(t, s, most/2, most)
	if n := len(knownProducers(t, idle)); n > most*7/8 {
		t.Errorf("the idle log has %d still", n)
	}
	for _, l := range growing {
		if ids := knownProducers(t, l); len(ids) == 0 || ids[len(ids)-1] != 1149 {
			t.Errorf("a log that has grown knows %v", ids)
		}
	}
	s.producers.boundAll(time.Now().Add(23 * time.Hour))
	expectProducers(t, s, most/2, most)
	o.ProducerExpiration = 24 * time.Minute // the setting may change at any time
	idle.Configure(o)
	s.producers.boundAll(time.Now().Add(23*time.Hour + time.Minute))
	expectProducers(t, s, 1, most/2)
	if n := len(knownProducers(t, idle)); n > 0 {
		t.Errorf("the idle log has %d producers that are too old", n)
	}
	s.producers.boundAll(time.Now().Add(25 * time.Hour))
	expectProducers(t, s, 0, 0)
	s.commit.start()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestProducersAfterFailedWrite proves that the producers of appends that failed are taken back,
// also after others were forgotten, and that those which were there keep their sequences.
func TestProducersAfterFailedWrite(t *testing.T) {
	const most = 50
	fails := false
	s := boundedStore(t, vfs.NewFaulty(vfs.NewMem(), func(op vfs.Op, path string) error {
		if fails && op == vfs.OpWrite && strings.HasSuffix(path, ".log") {
			return vfs.ErrNoSpace
		}
		return nil
	}), most)
	l := testLog(s, 0, testOptions())
	floodLog(t, l, 1000, 3*most)
	last := mustAppend(t, l, produced(t, 7, 0, 0, 1))
	before := knownProducers(t, l)
	fails = true
	items := []Item{{Batch: produced(t, 7, 0, 1, 1)}, {Batch: produced(t, 1, 0, 0, 1)}, {Batch: produced(t, 2, 0, 0, 1)}}
	l.Append(0, items)
	fails = false
	for i := range items {
		if items[i].Err == nil {
			t.Fatalf("item %d was stored", i)
		}
	}
	if after := knownProducers(t, l); !slices.Equal(before, after) {
		t.Errorf("%v are known, and were %v", after, before)
	}
	expectProducers(t, s, len(before), len(before))
	expectRetry(t, l, produced(t, 7, 0, 0, 1), last.Base)
	mustAppend(t, l, produced(t, 7, 0, 1, 1))
}

// TestProducersReopened proves that a log which has forgotten producers knows the same ones after
// a clean stop; that after a kill it knows at least those, unless there are too many, and no
// more than it may; and that each accepts what it would have accepted before.
func TestProducersReopened(t *testing.T) {
	for name, kill := range map[string]bool{"closed": false, "killed": true} {
		t.Run(name, func(t *testing.T) {
			const most = 80
			mem := vfs.NewMem()
			s := boundedStore(t, mem, most)
			l := testLog(s, 0, testOptions())
			const honest = 1_000_000
			mustAppend(t, l, produced(t, honest, 0, 0, 1))
			floodLog(t, l, 1000, 300)
			s.keeper.checkpointNow()
			mustAppend(t, l, produced(t, honest, 0, 1, 1))
			floodLog(t, l, 2000, 150)
			last := mustAppend(t, l, produced(t, honest, 0, 2, 1))
			s.Commit()
			want := knownProducers(t, l)
			var left vfs.FS = mem
			if kill {
				left = mem.KillClone(nil)
			} else if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			again := boundedStore(t, left, most)
			l = testLog(again, 0, testOptions())
			got := knownProducers(t, l)
			if !kill && !slices.Equal(got, want) {
				t.Errorf("%v are known, and were %v", got, want)
			}
			expectProducers(t, again, most/2, most)
			if got[len(got)-1] != honest || got[len(got)-2] != 2149 {
				t.Errorf("%v are known", got)
			}
			for _, id := range got {
				if id != honest {
					expectNext(t, l, id)
				}
			}
			expectRetry(t, l, produced(t, honest, 0, 2, 1), last.Base)
			mustAppend(t, l, produced(t, honest, 0, 3, 1))
		})
	}
}

// TestProducersOutliveADamagedSnapshot proves that a producer whose batches are not in the log any more is known
// although the newest snapshot of the producers is damaged or lost, since an older one has it; and that a new one is
// written then, before further segments go.
func TestProducersOutliveADamagedSnapshot(t *testing.T) {
	o := testOptions()
	o.SegmentBytes, o.FileDeleteDelay = 1024, 0
	retry := func(l *Log, ids ...int64) {
		for _, id := range ids {
			if it := appendOne(t, l, produced(t, id, 0, 0, 1)); it.Err != nil || !it.Dup {
				t.Errorf("producer %d's batch came again: %v, %v", id, it.Dup, it.Err)
			}
		}
	}
	// removeFull removes the segments that are there, with the batches of producers.
	removeFull := func(l *Log) {
		mustAppend(t, l, batch(t, 0, 1, 900))
		last := mustAppend(t, l, batch(t, 0, 1, 900))
		l.s.Commit()
		if err := l.SetStart(last.Base); err != nil {
			t.Fatal(err)
		}
		for range 4 {
			l.s.keeper.checkpointNow()
		}
	}
	for name, c := range map[string]struct {
		isGone bool // the batches that only the newest snapshot has are removed, too
		spoil  func(mem *vfs.Mem, path string) error
	}{
		"flipped": {false, func(mem *vfs.Mem, path string) error {
			flipAt(t, mem, path, 20, rand.New(rand.NewPCG(1, 1)))
			return nil
		}},
		"flipped, and all is removed": {true, func(mem *vfs.Mem, path string) error {
			flipAt(t, mem, path, 20, rand.New(rand.NewPCG(1, 1)))
			return nil
		}},
		"lost": {false, func(mem *vfs.Mem, path string) error { return mem.Remove(path) }},
	} {
		t.Run(name, func(t *testing.T) {
			mem := vfs.NewMem()
			reopen := func() *Log { return testLog(quietStore(t, testConfig(mem, "data")), 0, o) }
			closeStore := func(l *Log) {
				if err := l.s.Close(); err != nil {
					t.Fatal(err)
				}
			}
			l := reopen()
			mustAppend(t, l, produced(t, 1, 0, 0, 1))
			removeFull(l)
			mustAppend(t, l, produced(t, 2, 0, 0, 1))
			closeStore(l)
			known := []int64{1, 2}
			if c.isGone {
				known = known[:1]
				l = reopen()
				removeFull(l)
				closeStore(l)
			}
			snapshots := listSnapshots(t, mem)
			if len(snapshots) != 2 {
				t.Fatalf("the snapshots are %v", snapshots)
			}
			if err := c.spoil(mem, snapshots[1]); err != nil {
				t.Fatal(err)
			}
			l = reopen()
			retry(l, known...)
			removeFull(l)
			mem = mem.KillClone(nil)
			snapshots = listSnapshots(t, mem)
			if err := readProducers(mem, snapshots[len(snapshots)-1], new(producer.State), 0); err != nil {
				t.Errorf("the newest snapshot: %v", err)
			}
			retry(reopen(), known...)
		})
	}
}

// TestProducersOutliveAppendsBesideASnapshot proves that no segment goes on the word of a producer snapshot that a
// power cut may take, since a segment that was begun while it was made is in the page cache only.
func TestProducersOutliveAppendsBesideASnapshot(t *testing.T) {
	o := testOptions()
	o.SegmentBytes, o.FileDeleteDelay, o.FlushMessages = 1024, 0, 1000
	mem := vfs.NewMem()
	s := quietStore(t, testConfig(mem, "data"))
	l := testLog(s, 0, o)
	first := mustAppend(t, l, produced(t, 1, 0, 0, 1))
	mustAppend(t, l, batch(t, 0, 1, 900))
	last := mustAppend(t, l, batch(t, 0, 1, 500))
	if err := errors.Join(l.syncFiles(), l.SetStart(last.Base)); err != nil {
		t.Fatal(err)
	}
	c := l.takeSyncing() // as a checkpoint does, beside which a record begins a segment
	mustAppend(t, l, batch(t, 0, 1, 900))
	if err := c.writeSmallFiles(false, true); err != nil {
		t.Fatal(err)
	}
	if _, err := c.syncAll(); err != nil {
		t.Fatal(err)
	}
	c.finishSync()
	for range 5 {
		s.keeper.checkpointNow()
		s.keeper.removeDue(time.Now().Add(time.Minute))
	}
	lost := 0
	for seed := range uint64(20) {
		again := quietStore(t, testConfig(mem.Crash(rand.New(rand.NewPCG(seed, 1))), "data"))
		l := testLog(again, 0, o)
		if end, err := l.End(); err != nil || end < last.Next {
			t.Fatalf("it ends at %d: %v", end, err)
		} else if end == last.Next {
			lost++
		}
		expectRetry(t, l, produced(t, 1, 0, 0, 1), first.Base)
	}
	if lost == 0 {
		t.Error("no power cut took the last record")
	}
}

// TestProducersOutliveATruncation proves that a log which is truncated below its only snapshot of the producers knows
// those whose batches retention has removed, and has forgotten the batches that were cut off, also after a kill or a
// power cut at any call of the truncation.
func TestProducersOutliveATruncation(t *testing.T) {
	o := testOptions()
	o.SegmentBytes, o.FileDeleteDelay = 1024, 0
	mem := vfs.NewMem()
	var moments []*vfs.Mem
	cutting := false
	s := quietStore(t, testConfig(vfs.NewFaulty(mem, func(vfs.Op, string) error {
		if n := uint64(len(moments)); cutting {
			moments = append(moments, mem.KillClone(nil), mem.Crash(rand.New(rand.NewPCG(n, 1))), mem.Crash(rand.New(rand.NewPCG(n, 2))))
		}
		return nil
	}), "data"))
	l := testLog(s, 0, o)
	first := mustAppend(t, l, produced(t, 1, 0, 0, 1))
	mustAppend(t, l, batch(t, 0, 1, 900))
	last := mustAppend(t, l, batch(t, 0, 1, 500))
	kept := mustAppend(t, l, produced(t, 2, 0, 0, 1))
	mustAppend(t, l, produced(t, 2, 0, 1, 1))
	mustAppend(t, l, produced(t, 3, 0, 0, 1))
	s.Commit()
	if err := l.SetStart(last.Base); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		s.keeper.checkpointNow()
	}
	if snapshots := listSnapshots(t, mem); len(snapshots) != 1 {
		t.Fatalf("the snapshots are %v", snapshots)
	}
	cutting = true
	if err := l.Truncate(kept.Next); err != nil {
		t.Fatal(err)
	}
	cutting = false
	moments = append(moments, mem.KillClone(nil))
	t.Logf("%d moments", len(moments))
	for i, moment := range moments {
		again := testLog(quietStore(t, testConfig(moment, "data")), 0, o)
		end, err := again.End()
		if err != nil || end != kept.Next && i == len(moments)-1 {
			t.Fatalf("moment %d: it ends at %d: %v", i, end, err)
		}
		expectRetry(t, again, produced(t, 1, 0, 0, 1), first.Base)
		expectRetry(t, again, produced(t, 2, 0, 0, 1), kept.Base)
		if next := appendOne(t, again, produced(t, 2, 0, 1, 1)); next.Err != nil || next.Dup != (end > kept.Next) {
			t.Errorf("moment %d, which ends at %d: the batch behind the cut: %+v", i, end, next)
		}
	}
	expectRetry(t, l, produced(t, 1, 0, 0, 1), first.Base)
	if again := mustAppend(t, l, produced(t, 3, 0, 0, 1)); again.Dup {
		t.Error("a batch that was cut off is known")
	}
}

// listSnapshots lists the paths of the producer snapshots of the first log, the oldest first.
func listSnapshots(tb testing.TB, fs vfs.FS) (paths []string) {
	tb.Helper()
	dir := "data/" + dirName("topic", 0)
	infos, err := fs.ReadDir(dir)
	if err != nil {
		tb.Fatal(err)
	}
	for _, i := range infos {
		if _, ok := segment.ParseFileName(i.Name, snapshotSuffix); ok {
			paths = append(paths, dir+"/"+i.Name)
		}
	}
	slices.Sort(paths)
	return paths
}

// expectNext expects that a producer that is known, with one batch, is refused a gap.
func expectNext(tb testing.TB, l *Log, id int64) {
	tb.Helper()
	if it := appendOne(tb, l, produced(tb, id, 0, 5, 1)); it.Err == nil {
		tb.Errorf("producer %d left a gap", id)
	}
}

// TestProducerMemoryIsGivenBack proves that nothing is counted any more for logs that were
// truncated, emptied, deleted or closed.
func TestProducerMemoryIsGivenBack(t *testing.T) {
	s := boundedStore(t, vfs.NewMem(), 1000)
	logs := make([]*Log, 3)
	for i := range logs {
		logs[i] = testLog(s, i, testOptions())
		floodLog(t, logs[i], 1, 20)
	}
	s.Commit()
	expectProducers(t, s, 60, 60)
	if err := logs[0].Truncate(5); err != nil {
		t.Fatal(err)
	}
	expectProducers(t, s, 40, 40)
	if ids := knownProducers(t, logs[0]); len(ids) != 5 {
		t.Errorf("the truncated log has %v", ids)
	}
	expectProducers(t, s, 45, 45)
	s.Delete(logs[1].ID())
	expectProducers(t, s, 25, 25)
	if _, err := logs[1].Producers(math.MaxInt); err == nil {
		t.Error("a deleted log has producers")
	}
	empty := testLog(s, 4, testOptions())
	if ids := knownProducers(t, empty); len(ids) != 0 {
		t.Error(ids)
	}
	if err := empty.StartAt(100); err != nil {
		t.Fatal(err)
	}
	s.keeper.checkpointNow()
	expectProducers(t, s, 25, 25)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	expectProducers(t, s, 0, 0)
}

// TestLoadingWakesTheKeeper proves that the keeper is told to bound all logs where a log that reads its
// producers finds too many, of which others have more than their share.
func TestLoadingWakesTheKeeper(t *testing.T) {
	const most = 200
	mem := vfs.NewMem()
	s := boundedStore(t, mem, most)
	floodLog(t, testLog(s, 0, testOptions()), 1000, most/2)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(mem, "data")
	cfg.Producers = producer.NewBudget(most * producer.EntryBytes)
	s, err := openDir(cfg) // no goroutine runs
	if err != nil {
		t.Fatal(err)
	}
	s.background = func(f func()) { f() }
	t.Cleanup(func() {
		s.commit.start()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	floodLog(t, testLog(s, 1, testOptions()), 5000, most*3/4) // it fits in
	if s.producers.wanted.Load() {
		t.Fatal("there were too many before the log was read")
	}
	l := testLog(s, 0, testOptions())
	l.mu.Lock()
	err = errors.Join(l.makeUsableLocked(), l.prepareWriterLocked())
	l.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	if !s.producers.wanted.Load() {
		t.Error("nobody looks at the log that has too many")
	}
}
