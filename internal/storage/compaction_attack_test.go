package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/vfs"
)

// onLine is a log that calls a function for each line with a text.
type onLine struct {
	text string
	call func()
}

func (onLine) Enabled(context.Context, slog.Level) bool { return true }
func (h onLine) WithAttrs([]slog.Attr) slog.Handler     { return h }
func (h onLine) WithGroup(string) slog.Handler          { return h }
func (h onLine) Handle(_ context.Context, r slog.Record) error {
	if strings.Contains(r.Message, h.text) {
		h.call()
	}
	return nil
}

// TestLogThatIsAlwaysDirty proves that a log which gets enough records for another round during each round of it has no
// more than one in each look, and another one after a pause, and that other logs have theirs.
func TestLogThatIsAlwaysDirty(t *testing.T) {
	cfg := testConfig(vfs.NewMem(), "data")
	var s *Store
	var l *Log
	rng, want, times := rand.New(rand.NewPCG(1, 1)), map[string]string{}, 0
	more := func() {
		if times++; times < 20 { // there is an end, so that a failure is one
			fill(t, l, rng, want, 40)
			s.keeper.checkpointNow()
		}
	}
	cfg.Logger = slog.New(onLine{"a log was compacted", more})
	s = quietStore(t, cfg)
	l = testLog(s, 0, compactedOptions())
	other := testLog(s, 1, compactedOptions())
	fill(t, other, rng, map[string]string{}, 40)
	fill(t, l, rng, want, 40)
	s.keeper.checkpointNow()
	s.cleaner.compactDue(t.Context(), time.Now())
	if n := s.cleaner.rounds.Load(); n != 2 {
		t.Errorf("%d rounds of two logs", n)
	}
	if s.cleaner.compactDue(t.Context(), time.Now()); s.cleaner.rounds.Load() != 2 {
		t.Error("no pause")
	}
	if st := CompactionStats(s); st.Backlog == 0 {
		t.Error("the backlog does not have what waits")
	}
	if got, _ := latest(t, l); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestAllLogsAreLookedAtAfterAStart proves that compaction looks at all logs soon after a start, also where it finds nothing to do
// in very many that nobody uses.
func TestAllLogsAreLookedAtAfterAStart(t *testing.T) {
	const logs = 60
	mem := vfs.NewMem()
	func() {
		s := quietStore(t, testConfig(mem, "data"))
		for i := range logs {
			batches := 1
			if i == logs-1 {
				batches = 40
			}
			fill(t, testLog(s, i, compactedOptions()), rand.New(rand.NewPCG(1, 1)), map[string]string{}, batches)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}()
	mem = mem.KillClone(nil)
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(mem, "data")
		cfg.Cleaner.Backoff, cfg.Scrub = time.Hour, -1 // a scrub opens all logs, too, but a large node takes a day for one
		s, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		for i := range logs {
			testLog(s, i, compactedOptions())
		}
		time.Sleep(time.Hour + time.Minute)
		if n := CompactionStats(s).Rounds; n != 1 {
			t.Errorf("%d rounds of the one log that is dirty", n)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestTombstonesCountFromTheirRound proves that a tombstone has all of delete.retention.ms from its own round on, also where the
// rounds of other logs took very long before.
func TestTombstonesCountFromTheirRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(vfs.NewMem(), "data")
		cfg.Logger = slog.New(onLine{"a log was compacted", func() { time.Sleep(48 * time.Hour) }})
		s := quietStore(t, cfg)
		for i := range 2 {
			l := testLog(s, i, compactedOptions())
			mustAppend(t, l, keyed(t, "gone", "a"))
			mustAppend(t, l, keyed(t, "gone", "-"))
			for range 12 {
				mustAppend(t, l, keyed(t, "other", strings.Repeat("x", 300)))
			}
			s.Commit()
		}
		s.keeper.checkpointNow()
		s.cleaner.compactDue(t.Context(), time.Now())
		now := time.Now().Add(-48 * time.Hour).Add(compactedOptions().Compaction.DeleteRetention).UnixMilli() // of the second round
		found := 0
		for i := range 2 {
			for _, b := range readAllWith(t, testLog(s, i, compactedOptions()), 0, 5000, true) {
				if ms, ok := b.DeleteHorizon(); ok && ms >= now-1000 {
					found++
				}
			}
		}
		if found != 1 {
			t.Errorf("%d of the tombstones stay until a day after the second round", found)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestCompactionRests proves that a round rests as long as it worked while others append, also where few bytes are much work,
// as those of a batch that is decompressed into very many; and that it does not rest while nobody appends.
func TestCompactionRests(t *testing.T) {
	s := quietStore(t, testConfig(vfs.NewMem(), "data"))
	synctest.Test(t, func(t *testing.T) {
		rested := func(work time.Duration, bytes, appended int64) time.Duration {
			p := newRest(&s.cleaner)
			s.keeper.countWritten(appended, false)
			time.Sleep(work)
			began := time.Now()
			if err := p.spend(t.Context(), bytes); err != nil {
				t.Fatal(err)
			}
			return time.Since(began)
		}
		for _, c := range []struct {
			work            time.Duration
			bytes, appended int64
			want            time.Duration
		}{
			{3 * time.Second, 100, 1, 3 * time.Second},
			{10 * time.Millisecond, workBetweenRests, 1, 10 * time.Millisecond},
			{10 * time.Millisecond, 100, 1, 0},
			{3 * time.Second, 1 << 20, 0, 0},
		} {
			if got := rested(c.work, c.bytes, c.appended); got != c.want {
				t.Errorf("after %v of work on %d bytes, and %d bytes that were appended, it rests for %v, not %v", c.work, c.bytes, c.appended, got, c.want)
			}
		}
	})
}

// TestIndexOfACompactedSegmentHasABound proves that the index of a large segment takes no more memory than an index may,
// although index.interval.bytes asks for an entry for each batch since the segment was written.
func TestIndexOfACompactedSegmentHasABound(t *testing.T) {
	o := (Options{IndexInterval: 1}).withDefaults()
	for _, size := range []int64{100, 1 << 30, 1 << 31} {
		if n := size / int64(indexInterval(o, size)) * 12; n > 11<<20 {
			t.Errorf("%d bytes of an index of %d bytes", n, size)
		}
	}
	if n := indexInterval(o, 1<<20); n != 1 {
		t.Errorf("%d bytes between the entries of a small one", n)
	}
}

// TestDamagedBatchEndsTheCompactionOfItsLogOnly proves that a batch which has changed on the disk has its log keep all its records,
// that the reason names the file and the offset, that nobody reads the log again and again for it, and that other logs go on.
func TestDamagedBatchEndsTheCompactionOfItsLogOnly(t *testing.T) {
	mem := vfs.NewMem()
	reads := 0
	s := quietStore(t, testConfig(vfs.NewFaulty(mem, func(op vfs.Op, path string) error {
		if op == vfs.OpRead && strings.HasPrefix(path, "data/topic-0/") {
			reads++
		}
		return nil
	}), "data"))
	rng := rand.New(rand.NewPCG(1, 1))
	logs := []*Log{testLog(s, 0, compactedOptions()), testLog(s, 1, compactedOptions())}
	for _, l := range logs {
		fill(t, l, rng, map[string]string{}, 60)
	}
	s.keeper.checkpointNow()
	flipBitIn(t, mem, segmentFile(0), record.HeaderLen+3, 1)
	size := logs[0].SizeOnDisk()
	s.cleaner.compactDue(t.Context(), time.Now())
	if st := CompactionStats(s); st.Uncleanable != 1 || st.Rounds != 1 || logs[0].SizeOnDisk() != size {
		t.Errorf("%+v, and %d bytes of %d", st, logs[0].SizeOnDisk(), size)
	}
	err := UncleanableError(logs[0])
	if err == nil || !errors.Is(err, record.ErrCorrupt) || !strings.Contains(err.Error(), "offset 0 in 00000000000000000000.log") {
		t.Errorf("%v", err)
	}
	reads = 0
	for range 3 {
		logs[0].compacted.restsUntil = time.Time{}
		s.cleaner.compactDue(t.Context(), time.Now())
	}
	if reads > 0 {
		t.Errorf("%d reads after that", reads)
	}
	infos, _ := mem.ReadDir("data/topic-0")
	for _, f := range infos {
		if strings.Contains(f.Name, ".cleaned") {
			t.Errorf("%s is left", f.Name)
		}
	}
}

// TestReasons proves that of each compacted log can be seen how far it is compacted, and what the rest waits for.
func TestReasons(t *testing.T) {
	mem := vfs.NewMem()
	cfg := testConfig(mem, "data")
	cfg.Reserve = 1 << 20
	s := quietStore(t, cfg)
	o := compactedOptions()
	l := testLog(s, 0, o)
	rng := rand.New(rand.NewPCG(1, 1))
	expect := func(text string) CompactionState {
		t.Helper()
		s.keeper.checkpointNow()
		s.cleaner.compactDue(t.Context(), time.Now())
		list := DescribeCompaction(s)
		if len(list) != 1 || list[0].Log != "topic-0" || !strings.Contains(list[0].Reason, text) {
			t.Fatalf("%+v, want %q", list, text)
		}
		return list[0]
	}
	if st := DescribeCompaction(s)[0]; !strings.Contains(st.Reason, "nobody has looked") || !st.Last.At.IsZero() {
		t.Errorf("%+v", st)
	}
	expect("no new records")
	fill(t, l, rng, map[string]string{}, 1)
	if st := expect("segment that is written to"); st.Active == 0 || st.Dirty != 0 {
		t.Errorf("%+v", st)
	}
	o.Compaction.DirtyRatio = 1
	l.Configure(o)
	fill(t, l, rng, map[string]string{}, 60)
	if st := expect("min.cleanable.dirty.ratio is 1"); st.Dirty == 0 || st.DirtyRatio != 1 {
		t.Errorf("%+v", st)
	}
	o.Compaction.DirtyRatio, o.Compaction.MinLag = 0.1, time.Since(time.UnixMilli(1_600_000_000_000))
	l.Configure(o)
	if st := expect("younger than min.compaction.lag.ms"); st.Held == 0 || st.Dirty != 0 {
		t.Errorf("%+v", st)
	}
	o.Compaction.MinLag = 0
	l.Configure(o)
	mem.SetFree(1 << 20)
	expect("too little room")
	if st := CompactionStats(s); st.NoRoom != 1 || st.Rounds != 0 || st.BytesRead != 0 {
		t.Errorf("%+v", st)
	}
	mem.SetFree(1 << 30)
	expect("too little room") // it is left alone for a while
	l.compacted.restsUntil = time.Time{}
	if s.cleaner.compactDue(t.Context(), time.Now()); CompactionStats(s).NoRoom != 0 {
		t.Error("it lacks room after a round")
	}
	st := DescribeCompaction(s)[0] // as the round has left it, and not as it was before
	if r := st.Last; r.At.IsZero() || r.Before <= r.After || r.After != st.Clean || r.Kept >= r.Records {
		t.Errorf("%+v", st)
	}
	if c := CompactionStats(s); c.BytesSaved != st.Last.Before-st.Last.After || c.LastRound.IsZero() || c.LastLook.IsZero() {
		t.Errorf("%+v", c)
	}
	l.compacted.failed = fmt.Errorf("reading: %w", errBadDisk)
	expect("until the next start: reading: ")
	if c := CompactionStats(s); c.UncleanableBytes != l.SizeOnDisk() {
		t.Errorf("%+v", c)
	}
	s.cleaner.cfg.Store(&CleanerConfig{Off: true})
	expect("log.cleaner.enable")
}
