package storage

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/vfs"
)

// TestReadersWhileCompacted proves that readers of a log that is compacted again and again while it is written to
// never see a batch that is not whole, an offset that falls, or an error; that look-ups by time go on; and that who
// holds a part of a replaced segment reads on in it.
func TestReadersWhileCompacted(t *testing.T) {
	for name, fs := range map[string]vfs.FS{"mem": vfs.NewMem(), "os": vfs.OS{}} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(fs, t.TempDir())
			if name == "mem" {
				cfg.Dir = "data"
			}
			s := openStore(t, cfg)
			l := testLog(s, 0, compactedOptions())
			want := map[string]string{}
			rng := rand.New(rand.NewPCG(1, 1))
			fill(t, l, rng, want, 40)
			s.keeper.checkpointNow()
			end, _ := l.End()
			held, err := l.Read(0, end, 2000)
			if err != nil {
				t.Fatal(err)
			}
			before := make([]byte, held.Len())
			if _, err := held.ReadAt(before, 0); err != nil {
				t.Fatal(err)
			}
			var over atomic.Bool
			var others sync.WaitGroup
			for range 2 {
				others.Go(func() {
					for !over.Load() {
						latest(t, l)
					}
				})
			}
			others.Go(func() {
				for ms := int64(1_700_000_000_000); !over.Load(); {
					if _, ok, err := l.FindTime(t.Context(), ms); err != nil || !ok {
						t.Errorf("a look-up by time found %v, %v", ok, err)
					}
					if _, ok, err := l.MaxTime(t.Context()); err != nil || !ok {
						t.Errorf("the largest time was found: %v, %v", ok, err)
					}
				}
			})
			rounds := s.cleaner.rounds.Load()
			for range 15 {
				fill(t, l, rng, want, 20)
				s.keeper.checkpointNow()
				if s.cleaner.compactOne(t.Context(), l, time.Now()); UncleanableError(l) != nil {
					t.Error(UncleanableError(l))
				}
			}
			over.Store(true)
			others.Wait()
			if n := s.cleaner.rounds.Load() - rounds; n < 5 {
				t.Errorf("%d rounds of compaction", n)
			}
			after := make([]byte, held.Len())
			if _, err := held.ReadAt(after, 0); err != nil || !bytes.Equal(before, after) {
				t.Errorf("a part of a replaced segment has changed: %v", err)
			}
			held.Release()
			if err := s.commit.awaitEntered(); err != nil {
				t.Error(err)
			}
			if got, _ := latest(t, l); !maps.Equal(got, want) {
				t.Errorf("%v, want %v", got, want)
			}
		})
	}
}

// TestFollowerOfACompactedLog proves that a follower which copies a compacted log, and one that follows a log whose
// beginning it has in full, have the same table and the same end as their leader, and can be compacted themselves.
func TestFollowerOfACompactedLog(t *testing.T) {
	s := quietStore(t, testConfig(vfs.NewMem(), "data"))
	want := map[string]string{}
	rng := rand.New(rand.NewPCG(1, 1))
	leader, late, early := testLog(s, 0, compactedOptions()), testLog(s, 1, compactedOptions()), testLog(s, 2, compactedOptions())
	copyTo := func(l *Log) {
		t.Helper()
		end, err := l.End()
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range readAllWith(t, leader, end, 700, true) {
			items := []Item{{Batch: bytes.Clone(b)}}
			if l.AppendAt(items); items[0].Err != nil {
				t.Fatal(items[0].Err)
			}
		}
		s.Commit()
	}
	for range 4 {
		fill(t, leader, rng, want, 40)
		copyTo(early)
		compactNow(t, s, leader, time.Now())
		if rng.IntN(2) == 0 {
			compactNow(t, s, early, time.Now())
		}
		copyTo(late)
		end, _ := leader.End()
		for i, l := range []*Log{leader, late, early} {
			if got, _ := latest(t, l); !maps.Equal(got, want) || mustEnd(t, l) != end {
				t.Fatalf("log %d ends at %d of %d with %v, want %v", i, mustEnd(t, l), end, got, want)
			}
		}
	}
	compactNow(t, s, late, time.Now())
	if got, _ := latest(t, late); !maps.Equal(got, want) {
		t.Fatalf("the follower has %v, want %v", got, want)
	}
	for _, l := range []*Log{leader, late} { // both answer alike, so that they can follow each other
		if _, at, err := l.EpochEnd(1); err != nil || at != mustEnd(t, leader) {
			t.Errorf("epoch 1 ends at %d: %v", at, err)
		}
	}
}

func mustEnd(tb testing.TB, l *Log) record.Offset {
	tb.Helper()
	end, err := l.End()
	if err != nil {
		tb.Fatal(err)
	}
	return end
}
