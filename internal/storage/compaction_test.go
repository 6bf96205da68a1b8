package storage

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/compact"
	"github.com/leatstream/leat/internal/vfs"
)

// compactedOptions are those of a topic whose segments are small and which is compacted as soon as anything of it
// is dirty.
func compactedOptions() Options {
	o := testOptions()
	o.SegmentBytes, o.IndexInterval, o.Delete, o.Compact = 3000, 200, false, true
	o.Compaction = Compaction{MaxLag: foreverLag, DeleteRetention: 24 * time.Hour}
	return o
}

// keyed builds a batch of records with keys and values, one pair after the other; the value "-" is a tombstone.
func keyed(tb testing.TB, pairs ...string) record.Batch {
	tb.Helper()
	var bu record.Builder
	for i := 0; i < len(pairs); i += 2 {
		v := []byte(pairs[i+1])
		if pairs[i+1] == "-" {
			v = nil
		}
		bu.Append(1_700_000_000_000+int64(i), []byte(pairs[i]), v)
	}
	b, err := bu.Build()
	if err != nil {
		tb.Fatal(err)
	}
	return slices.Clone(b)
}

// latest reads a log as who restores a table from it, and checks that offsets rise.
func latest(tb testing.TB, l *Log) (table map[string]string, records int) {
	tb.Helper()
	start, err := l.Start()
	if err != nil {
		tb.Fatal(err)
	}
	table = map[string]string{}
	next := start
	var r record.Reader
	defer r.Close()
	for _, b := range readAllWith(tb, l, start, 5000, true) {
		for r.Reset(b, 0); r.Next(); {
			if r.Record.Offset < next {
				tb.Fatalf("offset %d after %d", r.Record.Offset, next)
			}
			next = r.Record.Offset + 1
			records++
			if r.Record.Value == nil {
				delete(table, string(r.Record.Key))
				continue
			}
			table[string(r.Record.Key)] = string(r.Record.Value)
		}
		if err := r.Err(); err != nil {
			tb.Fatal(err)
		}
	}
	return table, records
}

func compactNow(tb testing.TB, s *Store, l *Log, now time.Time) bool {
	tb.Helper()
	s.keeper.checkpointNow()
	before := s.cleaner.rounds.Load()
	if _, err := s.cleaner.compactLog(tb.Context(), l, now); err != nil {
		tb.Fatal(err)
	}
	return s.cleaner.rounds.Load() > before
}

// fill appends n batches of a few records with random keys, and returns what a table restored from the log is.
func fill(tb testing.TB, l *Log, rng *rand.Rand, table map[string]string, n int) (records int) {
	tb.Helper()
	for range n {
		var pairs []string
		for range 1 + rng.IntN(4) {
			k, v := fmt.Sprint("key", rng.IntN(12)), strings.Repeat(fmt.Sprint(rng.Uint32()), 1+rng.IntN(9))
			if rng.IntN(8) == 0 {
				v = "-"
				delete(table, k)
			} else {
				table[k] = v
			}
			pairs = append(pairs, k, v)
			records++
		}
		mustAppend(tb, l, keyed(tb, pairs...))
		l.s.Commit()
	}
	return records
}

// TestCompaction proves that a compacted log gives the same table to whoever reads it from its start, with far fewer
// records, in memory and on a real disk, after each round and after a restart, and that its ends stay.
func TestCompaction(t *testing.T) {
	for name, fs := range map[string]vfs.FS{"mem": vfs.NewMem(), "os": vfs.OS{}} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(fs, t.TempDir())
			if name == "mem" {
				cfg.Dir = "data"
			}
			rng := rand.New(rand.NewPCG(1, 2))
			want, all := map[string]string{}, 0
			s := quietStore(t, cfg)
			for round := range 5 {
				l := testLog(s, 0, compactedOptions())
				all += fill(t, l, rng, want, 60)
				end, _ := l.End()
				if !compactNow(t, s, l, time.Now()) {
					t.Fatal("nothing was compacted")
				}
				for range 2 {
					got, n := latest(t, l)
					if !maps.Equal(got, want) {
						t.Fatalf("round %d: %v, want %v", round, got, want)
					}
					if n > all/2 {
						t.Errorf("round %d: %d of %d records are left", round, n, all)
					}
					if e, _ := l.End(); e != end {
						t.Errorf("the end was %d and is %d", end, e)
					}
					s.scrub(unpaced)
					if err := l.Fault(); err != nil {
						t.Fatal(err)
					}
					if err := s.Close(); err != nil {
						t.Fatal(err)
					}
					s = quietStore(t, cfg)
					l = testLog(s, 0, compactedOptions())
				}
			}
		})
	}
}

// TestTombstones proves that a tombstone is there for delete.retention.ms after the round that has removed the
// record before it, and is gone after the next round from then on.
func TestTombstones(t *testing.T) {
	s := quietStore(t, testConfig(vfs.NewMem(), "data"))
	l := testLog(s, 0, compactedOptions())
	at := time.Now()
	round := func(now time.Time) int {
		t.Helper()
		for range 12 { // the segment with what came before is full, and dirty
			mustAppend(t, l, keyed(t, "other", strings.Repeat("x", 300)))
			s.Commit()
		}
		if !compactNow(t, s, l, now) {
			t.Fatal("nothing was compacted")
		}
		n := 0
		var r record.Reader
		defer r.Close()
		for _, b := range readAllWith(t, l, 0, 5000, true) {
			for r.Reset(b, 0); r.Next(); {
				if string(r.Record.Key) == "gone" {
					n++
				}
			}
		}
		return n
	}
	mustAppend(t, l, keyed(t, "gone", "a", "gone", "b"))
	mustAppend(t, l, keyed(t, "gone", "-"))
	for i, c := range []struct {
		after time.Duration
		want  int
	}{{0, 1}, {23 * time.Hour, 1}, {25 * time.Hour, 0}} {
		if n := round(at.Add(c.after)); n != c.want {
			t.Errorf("round %d, after %v: %d records of the key are left, want %d", i, c.after, n, c.want)
		}
	}
}

// TestUncleanableLog proves that a log whose compaction cannot go on keeps all records and takes others, is
// reported once, and holds up no other log.
func TestUncleanableLog(t *testing.T) {
	var fail atomic.Bool
	mem := vfs.NewMem()
	s := quietStore(t, testConfig(vfs.NewFaulty(mem, func(op vfs.Op, path string) error {
		if fail.Load() && op == vfs.OpRead && strings.HasPrefix(path, "data/topic-0/") {
			return errBadDisk
		}
		return nil
	}), "data"))
	want := []map[string]string{{}, {}}
	logs := []*Log{testLog(s, 0, compactedOptions()), testLog(s, 1, compactedOptions())}
	rng := rand.New(rand.NewPCG(1, 1))
	for i, l := range logs {
		fill(t, l, rng, want[i], 40)
	}
	s.keeper.checkpointNow()
	fail.Store(true)
	s.cleaner.compactDue(t.Context(), time.Now())
	fail.Store(false)
	if st := CompactionStats(s); st.Uncleanable != 1 || st.Rounds != 1 || UncleanableError(logs[0]) == nil || UncleanableError(logs[1]) != nil {
		t.Errorf("%+v, %v, %v", st, UncleanableError(logs[0]), UncleanableError(logs[1]))
	}
	for i, l := range logs {
		all := fill(t, l, rng, want[i], 20)
		if got, n := latest(t, l); !maps.Equal(got, want[i]) || n < all {
			t.Errorf("log %d has %v, want %v", i, got, want[i])
		}
	}
	s.keeper.checkpointNow()
	if s.cleaner.compactDue(t.Context(), time.Now()); CompactionStats(s).Uncleanable != 1 {
		t.Error("it is tried again")
	}
	o := compactedOptions()
	o.Compact = false
	if logs[0].Configure(o); CompactionStats(s).Uncleanable != 0 {
		t.Error("a log that is not compacted is reported")
	}
}

// TestCompactionHasManyKeys proves that a log with more keys than there is memory for is compacted in several rounds.
func TestCompactionHasManyKeys(t *testing.T) {
	cfg := testConfig(vfs.NewMem(), "data")
	cfg.Cleaner.MapBytes = compact.MinMapBytes // 42 keys
	s := quietStore(t, cfg)
	l := testLog(s, 0, compactedOptions())
	want := map[string]string{}
	for n := range 2 {
		for i := range 300 {
			k, v := fmt.Sprint("k", i), fmt.Sprint("value", n, strings.Repeat("x", 60))
			want[k] = v
			mustAppend(t, l, keyed(t, k, v))
			s.Commit()
		}
	}
	for range 40 {
		compactNow(t, s, l, time.Now())
		if got, _ := latest(t, l); !maps.Equal(got, want) {
			t.Fatalf("%d keys, want %d", len(got), len(want))
		}
	}
	if _, n := latest(t, l); n > 400 {
		t.Errorf("%d records are left of 600", n)
	}
}

// TestCompactionLeavesRoom proves that a nearly full disk ends a round without harm, and that it goes on when there is room.
func TestCompactionLeavesRoom(t *testing.T) {
	mem := vfs.NewMem()
	cfg := testConfig(mem, "data")
	cfg.Reserve = 1 << 20
	s := quietStore(t, cfg)
	o := compactedOptions()
	o.SegmentBytes = 4 << 20
	l := testLog(s, 0, o)
	want := map[string]string{}
	for i := range 40 { // nothing of the first segment goes but one record
		k, v := fmt.Sprint("k", max(i, 1)), strings.Repeat(fmt.Sprint(i%10), 200_000)
		want[k] = v
		mustAppend(t, l, keyed(t, k, v))
		s.Commit()
	}
	s.keeper.checkpointNow()
	mem.SetFree(3 << 20)
	if _, err := s.cleaner.compactLog(t.Context(), l, time.Now()); !errors.Is(err, errNoRoom) {
		t.Errorf("on a nearly full disk: %v", err)
	}
	if s.IsFull() {
		t.Error("compaction has taken the room of records")
	}
	if got, _ := latest(t, l); !maps.Equal(got, want) {
		t.Error("records are lost")
	}
	mem.SetFree(1 << 30)
	if !compactNow(t, s, l, time.Now()) {
		t.Error("it does not go on")
	}
	if got, n := latest(t, l); !maps.Equal(got, want) || n != 39 {
		t.Errorf("%d records are left", n)
	}
}
