package storage

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/vfs"
)

// TestAttackRetentionBelievesAStaleTimeIndex: a time index that a clean stop wrote is on disk; the
// entries that came after it, until the segment was closed, are in the page cache only when the
// power goes. Recovery brings the batches back from the journal and leaves the index as it is. Its
// last entry fits its batch, so it passes for the segment's largest time, and retention by age takes
// a segment with records that are young.
func TestAttackRetentionBelievesAStaleTimeIndex(t *testing.T) {
	now := time.Now()
	old, young := now.Add(-48*time.Hour).UnixMilli(), now.Add(-time.Minute).UnixMilli()
	for _, between := range []bool{false, true} { // a checkpoint between the last append and the roll
		lost := 0
		for seed := range uint64(40) {
			mem := vfs.NewMem()
			cfg := testConfig(mem, "data")
			cfg.SyncAlone = 1 << 30 // all goes into the journal
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
			for i := 19; i < 22; i++ { // rolls
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

// TestAttackRetentionAfterACleanStopAndAPowerCut: a clean stop writes the active segment's indexes
// and does not sync them. The power goes after it: one of the two has more entries on disk than the
// other, and what the time index says of the largest time passes for the truth of all that the
// other one covers. Producers' times need not rise.
func TestAttackRetentionAfterACleanStopAndAPowerCut(t *testing.T) {
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
