package storage

import (
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/vfs"
)

// TestCutBesideOthers proves that a log can be cut while it is read, compacted, checkpointed, and loses its beginning: each cut ends it where
// it should and is kept, what reads it meets no damage, and nothing is left of what was cut.
func TestCutBesideOthers(t *testing.T) {
	for name, fs := range map[string]vfs.FS{"mem": vfs.NewMem(), "os": vfs.OS{}} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(fs, t.TempDir())
			if name == "mem" {
				cfg.Dir = "data"
			}
			s := openStore(t, cfg)
			o := compactedOptions()
			o.Delete, o.RetentionBytes = true, 12_000
			l := testLog(s, 0, o)
			var over atomic.Bool
			var others sync.WaitGroup
			others.Go(func() {
				for !over.Load() {
					readSomething(t, l)
				}
			})
			others.Go(func() {
				for !over.Load() {
					s.keeper.checkpointNow()
					s.retainOne(l, time.Now())
				}
			})
			others.Go(func() {
				for !over.Load() {
					if s.cleaner.compactOne(t.Context(), l, time.Now()); UncleanableError(l) != nil {
						t.Error(UncleanableError(l))
						return
					}
				}
			})
			rng := rand.New(rand.NewPCG(1, 1))
			want := map[string]string{}
			for number := int32(1); number <= 25; number++ {
				fill(t, l, rng, want, 25)
				s.Commit()
				end, start := mustEnd(t, l), mustStart(t, l)
				to := start + record.Offset(rng.Int64N(int64(end-start)+1))
				if number%8 == 0 {
					to = max(start-1, 0)
				}
				if err := l.Cut(number, to); err != nil && !errors.Is(err, ErrBusy) {
					t.Fatal(err)
				} else if err != nil {
					number-- // a round of compaction is not settled: it is made again
					continue
				}
				if at := mustEnd(t, l); at > to && at > mustStart(t, l) {
					t.Fatalf("cut %d at %d: the log ends at %d", number, to, at)
				}
			}
			over.Store(true)
			others.Wait()
			if err := l.Fault(); err != nil {
				t.Error(err)
			}
			list, err := Tails(l)
			if err != nil || len(list) < 15 {
				t.Errorf("%d tails: %v", len(list), err)
			}
			for _, tail := range list {
				if n := int64(len(readTail(t, l, tail.Number))); n != tail.Bytes {
					t.Errorf("the tail %+v has %d bytes", tail, n)
				}
			}
		})
	}
}

func mustStart(tb testing.TB, l *Log) record.Offset {
	tb.Helper()
	o, err := l.Start()
	if err != nil {
		tb.Fatal(err)
	}
	return o
}

// readSomething reads a log from its start on, which may be cut meanwhile.
func readSomething(t *testing.T, l *Log) {
	t.Helper()
	from := mustStart(t, l)
	end, err := l.Committed()
	if err != nil {
		t.Error(err)
		return
	}
	for from < end {
		c, err := l.Read(from, end, 2000)
		if err != nil || c == nil {
			return // it is being cut; damage would be a fault
		}
		b := make([]byte, c.Len())
		n, err := c.ReadAt(b, 0)
		c.Release()
		if err != nil && !errors.Is(err, io.EOF) {
			t.Error(err)
			return
		}
		was := from
		for b = b[:n]; len(b) > 0; {
			one, rest, err := record.Next(b)
			if err != nil {
				break // it is cut short, by the reader or by the log
			}
			from, b = max(from, one.NextOffset()), rest
		}
		if from == was {
			return
		}
	}
}
