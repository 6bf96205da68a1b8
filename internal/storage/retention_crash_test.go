package storage

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/vfs"
)

// TestRetentionIgnoresStaleTimeIndex proves that retention by age keeps young records although the
// time index on disk ends before them. A clean stop wrote the index. Its later entries, up to the
// roll of the segment, were in the page cache only when the power went. Recovery restores the
// batches from the journal, but the last entry in the index fits its batch and must not pass for
// the segment's largest time.
func TestRetentionIgnoresStaleTimeIndex(t *testing.T) {
	now := time.Now()
	old, young := now.Add(-48*time.Hour).UnixMilli(), now.Add(-time.Minute).UnixMilli()
	for _, between := range []bool{false, true} { // whether a checkpoint comes between the last append and the roll
		lost := 0
		for seed := range uint64(40) {
			mem := vfs.NewMem()
			cfg := testConfig(mem, "data")
			cfg.SyncAlone = 1 << 30 // all rounds go into the journal
			s := quietStore(t, cfg)
			o := testOptions()
			o.SegmentBytes, o.RetentionAge = 200_000, 24*time.Hour
			l := testLog(s, 0, o)
			for i := range 10 {
				mustAppend(t, l, batchAtTime(t, i, 1, 10_000, old))
			}
			s.Commit()
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = quietStore(t, cfg)
			l = testLog(s, 0, o)
			for i := 10; i < 19; i++ {
				mustAppend(t, l, batchAtTime(t, i, 1, 10_000, young))
			}
			s.Commit()
			if between {
				s.keeper.checkpointNow()
			}
			for i := 19; i < 22; i++ { // the segment rolls
				mustAppend(t, l, batchAtTime(t, i, 1, 10_000, young))
			}
			s.Commit()
			if between {
				s.keeper.checkpointNow()
				s.keeper.checkpointNow()
			}
			if n := len(l.segments()); n != 2 {
				t.Fatalf("%d segments", n)
			}
			cfg.FS = mem.Crash(rand.New(rand.NewPCG(seed, 77)))
			s = quietStore(t, cfg)
			l = testLog(s, 0, o)
			if end, err := l.End(); err != nil || end != 22 {
				t.Fatalf("ends at %d, %v", end, err)
			}
			s.retainOne(l, now)
			if start, _ := l.Start(); start > 10 {
				lost++
				t.Logf("checkpoint %v, seed %d: records from 10 on are a minute old and are to be kept for a day; retention moved the start to %d", between, seed, start)
			}
		}
		if lost > 0 {
			t.Errorf("checkpoints %v: young records were deleted after %d of 40 power cuts", between, lost)
		}
	}
}

// TestRetentionAfterCleanStopAndPowerCut proves that retention by age keeps a young record after a
// power cut that follows a clean stop. The stop writes both indexes of the active segment without a
// sync, so one of them may have more entries on disk than the other. The largest time in the time
// index then says nothing about batches that only the other one covers. Producers' times need not
// rise, so a young record may lie among old ones.
func TestRetentionAfterCleanStopAndPowerCut(t *testing.T) {
	now := time.Now()
	old, young := now.Add(-48*time.Hour).UnixMilli(), now.Add(-time.Minute).UnixMilli()
	lost := 0
	const seeds = 12
	for seed := range uint64(seeds) {
		mem := vfs.NewMem()
		cfg := testConfig(mem, "data")
		s := quietStore(t, cfg)
		o := testOptions()
		o.RetentionAge = 24 * time.Hour
		l := testLog(s, 0, o)
		for i := range 1000 {
			ms := old + int64(i)
			if i == 900 {
				ms = young
			}
			mustAppend(t, l, batchAtTime(t, i, 1, 5000, ms))
		}
		s.Commit()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		cfg.FS = mem.Crash(rand.New(rand.NewPCG(seed, 78)))
		s = quietStore(t, cfg)
		l = testLog(s, 0, o)
		s.retainOne(l, now)
		if start, err := l.Start(); err != nil || start > 900 {
			lost++
			if lost == 1 {
				t.Logf("seed %d: the record at 900 is a minute old, retention moved the start to %d, %v", seed, start, err)
			}
		}
	}
	if lost > 0 {
		t.Errorf("a young record was deleted after %d of %d power cuts", lost, seeds)
	}
}

// TestStartMovesAboveATruncation proves that a log whose first segments were removed is whole after
// a kill, while the journal still has the bytes of these segments and an earlier truncation of them,
// since another log holds the journal's mark back.
func TestStartMovesAboveATruncation(t *testing.T) {
	mem := vfs.NewMem()
	cfg := testConfig(vfs.NewFaulty(mem, func(op vfs.Op, path string) error {
		if op == vfs.OpSync && strings.HasPrefix(path, "data/topic-1/") {
			return errBadDisk
		}
		return nil
	}), "data")
	s := quietStore(t, cfg)
	o := testOptions()
	o.SegmentBytes = 2000
	l := testLog(s, 0, o)
	mustAppend(t, testLog(s, 1, o), batch(t, 0, 1, 100))
	for i := range 4 {
		mustAppend(t, l, batch(t, i, 1, 300))
	}
	s.Commit()
	if err := l.Truncate(2); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		mustAppend(t, l, batch(t, 2+i, 1, 300))
	}
	s.Commit()
	s.keeper.checkpointNow()
	if err := l.SetStart(15); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		s.keeper.checkpointNow()
	}
	if _, err := mem.Stat(segmentFile(0)); err == nil {
		t.Fatal("the first segment is still there: the test proves nothing")
	}
	cfg.FS = mem.KillClone(nil)
	l = testLog(quietStore(t, cfg), 0, o)
	start, err := l.Start()
	if err != nil || l.Fault() != nil || start != 15 {
		t.Fatalf("the log starts at %d, %v, %v", start, err, l.Fault())
	}
	if got := values(t, readAll(t, l, start, 1<<20)); len(got) != 7 || got[6] != 21 {
		t.Errorf("its records are %v", got)
	}
}
