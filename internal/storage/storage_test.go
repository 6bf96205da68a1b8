package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testOptions are those of a topic without any config set.
func testOptions() Options {
	return Options{
		SegmentBytes: 1 << 30, SegmentAge: 7 * 24 * time.Hour, IndexInterval: 4096, IndexBytes: 10 << 20,
		RetentionAge: -1, RetentionBytes: -1, FlushMessages: 1, Delete: true, ProducerExpiration: 24 * time.Hour,
	}
}

// testConfig is a store in a directory of fs that acts when told only.
func testConfig(fs vfs.FS, dir string) Config {
	return Config{
		FS: fs, Dir: dir, Reserve: 1, CheckpointEvery: time.Hour, RetentionEvery: time.Hour,
		Journal: 1 << 20, BootID: "boot", Producers: NewProducerBudget(64 << 20),
	}
}

func openStore(tb testing.TB, cfg Config) *Store {
	tb.Helper()
	if testing.Verbose() && cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(tb.Output(), nil))
	}
	s, err := Open(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil && !tb.Failed() {
			tb.Errorf("close: %v", err)
		}
	})
	return s
}

func testID(n int) LogID {
	id := LogID{Partition: int32(n)}
	copy(id.Topic[:], "a topic's own id")
	return id
}

func testLog(s *Store, n int, o Options) *Log {
	return s.Log(testID(n), "topic", o, func(*Log) {})
}

// batch builds n records with values of size bytes, numbered from first on.
func batch(tb testing.TB, first, n, size int) record.Batch {
	tb.Helper()
	return batchAtTime(tb, first, n, size, 1_700_000_000_000)
}

func batchAtTime(tb testing.TB, first, n, size int, ms int64) record.Batch {
	tb.Helper()
	var bu record.Builder
	for i := range n {
		v := make([]byte, max(size, 8))
		binary.BigEndian.PutUint64(v, uint64(first+i))
		bu.Append(ms+int64(i), nil, v)
	}
	b, err := bu.Build()
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// produced is a batch of an idempotent producer.
func produced(tb testing.TB, id int64, epoch int16, seq int32, n int) record.Batch {
	tb.Helper()
	var bu record.Builder
	bu.SetProducer(id, epoch, seq)
	for i := range n {
		bu.Append(1_700_000_000_000, nil, fmt.Appendf(nil, "%d/%d/%d", id, epoch, int(seq)+i))
	}
	b, err := bu.Build()
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func appendOne(tb testing.TB, l *Log, b record.Batch) Item {
	tb.Helper()
	items := []Item{{Batch: b}}
	l.Append(1, items)
	return items[0]
}

func mustAppend(tb testing.TB, l *Log, b record.Batch) Item {
	tb.Helper()
	it := appendOne(tb, l, b)
	if it.Err != nil {
		tb.Fatal(it.Err)
	}
	return it
}

// readAll reads a log from an offset to its committed end and checks that offsets
// have no gap.
func readAll(tb testing.TB, l *Log, from record.Offset, maxBytes int) []record.Batch {
	tb.Helper()
	return readAllWith(tb, l, from, maxBytes, false)
}

// readAllWith is readAll for a log that may have gaps.
func readAllWith(tb testing.TB, l *Log, from record.Offset, maxBytes int, gaps bool) []record.Batch {
	tb.Helper()
	end, err := l.Committed()
	if err != nil {
		tb.Fatal(err)
	}
	var all []record.Batch
	for from < end {
		c, err := l.Read(from, end, maxBytes)
		if err != nil {
			tb.Fatalf("read at %d: %v", from, err)
		}
		if c == nil && gaps { // the records up to here were removed since
			return all
		}
		if c == nil {
			tb.Fatalf("read at %d of %d: nothing", from, end)
		}
		b := make([]byte, c.Len())
		if _, err := c.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
			tb.Fatal(err)
		}
		c.Release()
		was := from
		for len(b) > 0 {
			one, rest, err := record.Next(b)
			if errors.Is(err, record.ErrShort) && from > was {
				break
			}
			if err == nil {
				err = one.Verify()
			}
			if err != nil {
				tb.Fatalf("read at %d: %v", from, err)
			}
			if one.LastOffset() >= from {
				if one.BaseOffset() > from && !gaps {
					tb.Fatalf("a gap: %d follows %d", one.BaseOffset(), from)
				}
				all = append(all, one)
				from = one.NextOffset()
			}
			b = rest
		}
	}
	return all
}

// values are the numbers that batch wrote.
func values(tb testing.TB, batches []record.Batch) []int {
	tb.Helper()
	var out []int
	var r record.Reader
	defer r.Close()
	for _, b := range batches {
		for r.Reset(b, 0); r.Next(); {
			out = append(out, int(binary.BigEndian.Uint64(r.Record.Value)))
		}
		if err := r.Err(); err != nil {
			tb.Fatal(err)
		}
	}
	return out
}

func expectValues(tb testing.TB, l *Log, n int) {
	tb.Helper()
	for range 10_000 { // another goroutine may be running the round
		end, _ := l.End()
		if committed, _ := l.Committed(); committed == end {
			break
		}
		time.Sleep(time.Millisecond)
	}
	got := values(tb, readAll(tb, l, 0, 100_000))
	if len(got) != n {
		tb.Fatalf("%d records, want %d", len(got), n)
	}
	for i, v := range got {
		if v != i {
			tb.Fatalf("record %d is %d", i, v)
		}
	}
}

// TestRoundTrip proves that what was appended and committed is read back, in order,
// from memory, over segments, and after a restart.
func TestRoundTrip(t *testing.T) {
	for name, fs := range map[string]vfs.FS{"mem": vfs.NewMem(), "os": vfs.OS{}} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(fs, t.TempDir())
			if name == "mem" {
				cfg.Dir = "data"
			}
			o := testOptions()
			o.SegmentBytes = 50_000
			s := openStore(t, cfg)
			n := 0
			for range 3 {
				l := testLog(s, 0, o)
				for range 100 {
					it := mustAppend(t, l, batch(t, n, 3, 300))
					if int(it.Base) != n || int(it.Next) != n+3 {
						t.Fatalf("offsets %d to %d, want %d", it.Base, it.Next, n)
					}
					n += 3
					s.Commit()
				}
				expectValues(t, l, n)
				if len(l.segments()) < 2 {
					t.Error("no segment was rolled")
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = openStore(t, cfg)
				expectValues(t, testLog(s, 0, o), n)
			}
		})
	}
}
