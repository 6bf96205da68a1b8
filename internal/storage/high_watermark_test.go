package storage

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/vfs"
)

// TestHighWatermarkOfRecordsThatWent proves that a high watermark does not come back, after a
// start, over records that took the place of those that it was said of: where these were
// truncated, and where a power cut took them from the page cache.
func TestHighWatermarkOfRecordsThatWent(t *testing.T) {
	for name, mode := range map[string]int64{"truncated": 1, "lost from the page cache": 1 << 40} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(20) {
				mem := vfs.NewMem()
				cfg := testConfig(mem, "data")
				o := testOptions()
				o.FlushMessages = mode
				s := quietStore(t, cfg)
				l := testLog(s, 0, o)
				appendTo := func(l *Log, end int) {
					at, err := l.End()
					if err != nil {
						t.Fatal(err)
					}
					for i := int(at); i < end; i++ {
						mustAppend(t, l, batch(t, i, 1, 200))
					}
					l.s.Commit()
				}
				appendTo(l, 5)
				l.due.sync = true // so that there is a directory after a power cut
				s.keeper.checkpointNow()
				appendTo(l, 20)
				l.SetHighWatermark(18)
				s.keeper.checkpointNow()
				kept := 10
				if mode == 1 {
					if err := l.Truncate(10); err != nil {
						t.Fatal(err)
					}
				} else {
					mem = mem.Crash(rand.New(rand.NewPCG(seed, 40)))
					cfg.FS = mem
					s = quietStore(t, cfg)
					l = testLog(s, 0, o)
					end, err := l.End()
					if err != nil {
						t.Fatal(err)
					}
					kept = min(int(end), 18)
				}
				appendTo(l, 30)
				cfg.FS = mem.KillClone(nil)
				l = testLog(quietStore(t, cfg), 0, o)
				end, err := l.End()
				high, _ := l.HighWatermark()
				if err != nil || end != 30 || int(high) > kept {
					t.Fatalf("seed %d: a log that kept %d records, and has %d now, has the high watermark %d: %v", seed, kept, end, high, err)
				}
			}
		})
	}
}

// TestRetentionReachesTheTailOfAnIdleLogAfterAKill proves that retention removes all records of a log
// that have expired, although the last checkpoint before a kill has an older high watermark and no
// client comes to the log: its owner is asked for the present one.
func TestRetentionReachesTheTailOfAnIdleLogAfterAKill(t *testing.T) {
	mem := vfs.NewMem()
	s := quietStore(t, testConfig(mem, "data"))
	l := testLog(s, 0, testOptions())
	for i := range 20 {
		mustAppend(t, l, batch(t, i, 1, 100))
		if i == 9 {
			s.Commit()
			l.SetHighWatermark(10)
			s.keeper.checkpointNow()
		}
	}
	s.Commit()
	l.SetHighWatermark(20)
	s = quietStore(t, testConfig(mem.KillClone(nil), "data"))
	o := testOptions()
	o.Delete, o.RetentionAge = true, time.Hour
	l = s.Log(testID(0), "topic", o, func(l *Log) {
		end, err := l.Committed()
		if err != nil {
			t.Error(err)
		}
		l.SetHighWatermark(end) // as the only replica does
	})
	s.retain(time.Now().Add(2 * time.Hour))
	if start, err := l.Start(); err != nil || start != 20 {
		t.Errorf("records have expired up to offset 20, and the log begins at %d: %v", start, err)
	}
}
