package storage

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/vfs"
)

// TestDurableAboveAStartThatIsLost proves that a log that was page-cached keeps, from its first
// durable append on, all records from the start that a power cut leaves it. Retention had moved the
// start in memory only, over segments that were never synced. The log's settings change after its
// last append, or before the first one since it was opened on what a kill left in the page cache.
func TestDurableAboveAStartThatIsLost(t *testing.T) {
	for name, restarts := range map[string]bool{"after an append": false, "before the first append": true} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(20) {
				mem := vfs.NewMem()
				cfg := testConfig(mem, "data")
				cfg.SyncAlone = 1 << 30 // all rounds go into the journal
				o := testOptions()
				o.SegmentBytes, o.RetentionBytes, o.FlushMessages = 2000, 4000, 1<<40
				s := quietStore(t, cfg)
				l := testLog(s, 0, o)
				for i := range 40 {
					mustAppend(t, l, batch(t, i, 1, 300))
				}
				if restarts {
					mem = mem.KillClone(nil)
					cfg.FS = mem
					s = quietStore(t, cfg)
					l = testLog(s, 0, o)
				}
				s.retainOne(l, time.Now())
				if start, err := l.Start(); err != nil || start == 0 {
					t.Fatalf("retention moved the start to %d, %v", start, err)
				}
				o.FlushMessages = 1
				l.Configure(o)
				for i := 40; i < 45; i++ {
					mustAppend(t, l, batch(t, i, 1, 300))
				}
				s.Commit()
				if end, err := l.Committed(); end != 45 || err != nil {
					t.Fatalf("%d records are committed, %v", end, err)
				}
				cfg.FS = mem.Crash(rand.New(rand.NewPCG(seed, 81)))
				cfg.BootID += "'"
				l = testLog(quietStore(t, cfg), 0, o)
				if end, err := l.End(); end != 45 || err != nil || l.Fault() != nil {
					t.Fatalf("seed %d: after a power cut it ends at %d, %v, fault %v", seed, end, err, l.Fault())
				}
				start, err := l.Start()
				if err != nil {
					t.Fatal(err)
				}
				for i, v := range values(t, readAll(t, l, start, 1<<20)) {
					if v != int(start)+i {
						t.Fatalf("seed %d: record %d is at offset %d", seed, v, int(start)+i)
					}
				}
			}
		})
	}
}

// TestStaysPageCachedWhereASyncBelowTheStartFails proves that a log takes no durable append where
// a segment that waits for its removal cannot be synced.
func TestStaysPageCachedWhereASyncBelowTheStartFails(t *testing.T) {
	fails := false
	cfg := testConfig(vfs.NewFaulty(vfs.NewMem(), func(op vfs.Op, path string) error {
		if fails && op == vfs.OpSync && path == segmentFile(0) {
			return errBadDisk
		}
		return nil
	}), "data")
	o := testOptions()
	o.SegmentBytes, o.RetentionBytes, o.FlushMessages = 2000, 4000, 1<<40
	s := quietStore(t, cfg)
	l := testLog(s, 0, o)
	for i := range 40 {
		mustAppend(t, l, batch(t, i, 1, 300))
	}
	s.retainOne(l, time.Now())
	if start, err := l.Start(); err != nil || start == 0 {
		t.Fatalf("retention moved the start to %d, %v", start, err)
	}
	o.FlushMessages = 1
	l.Configure(o)
	fails = true
	if it := appendOne(t, l, batch(t, 40, 1, 300)); it.Err == nil || l.Fault() == nil {
		t.Errorf("it was appended at %d, %v; fault %v", it.Base, it.Err, l.Fault())
	}
}
