package storage

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/compact"
	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/vfs"
)

// compactWith has a log compacted, and calls do before the first call of the file system that is of a kind, on a
// file whose name has a part. It fails if there is none.
func compactWith(t *testing.T, mem *vfs.Mem, op vfs.Op, part string, do func(s *Store, l *Log)) (*Store, *Log) {
	t.Helper()
	var s *Store
	var l *Log
	armed, met := false, false
	s = quietStore(t, testConfig(vfs.NewFaulty(mem, func(o vfs.Op, path string) error {
		if armed && o == op && strings.Contains(path, part) {
			armed, met = false, true
			do(s, l)
		}
		return nil
	}), "data"))
	l = testLog(s, 0, compactedOptions())
	s.keeper.checkpointNow()
	armed = true
	s.cleaner.compactOne(t.Context(), l, time.Now())
	if !met {
		t.Fatal("the round has no such call")
	}
	if err := errors.Join(UncleanableError(l), l.Fault()); err != nil {
		t.Fatal(err)
	}
	return s, l
}

// TestCutBeforeSwaps proves that a round which has read later records of keys drops no earlier one of these if the
// later ones are cut before the first segment is replaced, as those of a follower are after an election with loss: then the earlier
// ones are the latest again.
func TestCutBeforeSwaps(t *testing.T) {
	for seed := range uint64(4) {
		disk, _, end := dirtyLog(t, seed)
		for cut := end / 8; cut < end; cut += end / 8 {
			var want map[string]string
			s, l := compactWith(t, disk.KillClone(nil), vfs.OpOpen, "cleaned", func(_ *Store, l *Log) {
				whole := readTable(t, l)
				if err := l.Truncate(cut); err != nil {
					t.Fatal(err)
				}
				e, _ := l.End()
				want = whole(e)
			})
			e, _ := l.End()
			expectTable(t, l, want, e, fmt.Sprintf("seed %d, cut at %d", seed, cut))
			_ = s.Close()
		}
	}
}

// readTable reads a log. It returns a function that tells which table a reader makes of its records below an offset.
func readTable(tb testing.TB, l *Log) func(end record.Offset) map[string]string {
	tb.Helper()
	type change struct {
		at         record.Offset
		key, value string
		isDeleted  bool
	}
	var all []change
	var r record.Reader
	defer r.Close()
	for _, b := range readAllWith(tb, l, 0, 5000, true) {
		for r.Reset(b, 0); r.Next(); {
			all = append(all, change{r.Record.Offset, string(r.Record.Key), string(r.Record.Value), r.Record.Value == nil})
		}
		if err := r.Err(); err != nil {
			tb.Fatal(err)
		}
	}
	return func(end record.Offset) map[string]string {
		table := map[string]string{}
		for _, c := range all {
			if c.at >= end {
				break
			}
			if table[c.key] = c.value; c.isDeleted {
				delete(table, c.key)
			}
		}
		return table
	}
}

// TestCutAtTheEndOfARound proves that a log does not count as compacted where it was cut, and written to again, while
// a round of it has nothing more to replace: a tombstone there would go by and by, and bring an older record back.
func TestCutAtTheEndOfARound(t *testing.T) {
	mem := vfs.NewMem()
	s := quietStore(t, testConfig(mem, "data"))
	l := testLog(s, 0, compactedOptions())
	add := func(l *Log, key, value string) {
		mustAppend(t, l, keyed(t, key, value))
		l.s.Commit()
	}
	add(l, "gone", "a value")
	for i := range 30 { // no key comes twice
		add(l, fmt.Sprint("key", i), strings.Repeat("x", 300))
	}
	end, _ := l.End()
	segs := l.segments()
	last := segment.FileName(segs[len(segs)-2].Base(), "-") // that nothing of it goes is found out last
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var want map[string]string
	s, l = compactWith(t, mem, vfs.OpRemove, last, func(_ *Store, l *Log) {
		whole := readTable(t, l)
		if err := l.Truncate(end / 2); err != nil {
			t.Fatal(err)
		}
		e, _ := l.End()
		want = whole(e)
		add(l, "gone", "-")
		delete(want, "gone")
		for i := range 40 {
			k, v := fmt.Sprint("other", i), strings.Repeat("y", 300)
			add(l, k, v)
			want[k] = v
		}
	})
	for day := range 3 {
		for i := range 12 { // the next round is due
			k, v := fmt.Sprint("day", day, "/", i), strings.Repeat("z", 300)
			add(l, k, v)
			want[k] = v
		}
		compactNow(t, s, l, time.Now().Add(time.Duration(day)*25*time.Hour))
		if got, _ := latest(t, l); !maps.Equal(got, want) {
			t.Fatalf("day %d: %d keys, want %d; the deleted one is %q", day, len(got), len(want), got["gone"])
		}
	}
}

// keyedBy is keyed for an idempotent producer, or for a transaction of it.
func keyedBy(tb testing.TB, id int64, seq int32, transactional bool, key, value string) record.Batch {
	tb.Helper()
	bu := record.Builder{Transactional: transactional}
	bu.SetProducer(id, 0, seq)
	bu.Append(1_700_000_000_000, []byte(key), []byte(value))
	b, err := bu.Build()
	if err != nil {
		tb.Fatal(err)
	}
	return slices.Clone(b)
}

// TestProducersAfterACut proves that a compacted log which is cut above its compacted part knows the batches that
// compaction has removed below the cut: a batch that comes again is stored once.
func TestProducersAfterACut(t *testing.T) {
	for _, restarts := range []bool{false, true} {
		mem := vfs.NewMem()
		s := quietStore(t, testConfig(mem, "data"))
		o := compactedOptions()
		l := testLog(s, 0, o)
		retried := mustAppend(t, l, keyedBy(t, 7, 0, false, "key", "first"))
		for range 30 {
			mustAppend(t, l, keyed(t, "key", strings.Repeat("x", 300)))
		}
		s.Commit()
		committed, _ := l.End()
		l.SetHighWatermark(committed)
		mustAppend(t, l, keyedBy(t, 7, 1, false, "key", "not replicated yet"))
		s.Commit()
		if !compactNow(t, s, l, time.Now()) {
			t.Fatal("nothing was compacted")
		}
		if err := l.Truncate(committed); err != nil {
			t.Fatal(err)
		}
		if restarts {
			mem = mem.Crash(rand.New(rand.NewPCG(1, 1)))
			s = quietStore(t, testConfig(mem, "data"))
			l = testLog(s, 0, o)
		}
		expectRetry(t, l, keyedBy(t, 7, 0, false, "key", "first"), retried.Base)
		if it := appendOne(t, l, keyedBy(t, 7, 1, false, "key", "again")); it.Err != nil || it.Dup || it.Base != committed {
			t.Errorf("restarts %v: the batch that was cut came again: %+v", restarts, it)
		}
	}
}

// TestProducersOfANewReplica proves that a replica which copies a compacted log up to its high watermark knows each producer's last
// batch there, though compaction has removed its records and the producer has gone on since: the replica may lead before it has
// what follows, and then that batch may come again.
func TestProducersOfANewReplica(t *testing.T) {
	s := quietStore(t, testConfig(vfs.NewMem(), "data"))
	l, replica := testLog(s, 0, compactedOptions()), testLog(s, 1, compactedOptions())
	mustAppend(t, l, keyedBy(t, 7, 0, false, "key", "before"))
	retried := mustAppend(t, l, keyedBy(t, 7, 1, false, "key", "first"))
	for range 30 {
		mustAppend(t, l, keyed(t, "key", strings.Repeat("x", 300)))
	}
	s.Commit()
	committed, _ := l.End()
	l.SetHighWatermark(committed)
	mustAppend(t, l, keyedBy(t, 7, 2, false, "key", "not replicated yet"))
	s.Commit()
	if !compactNow(t, s, l, time.Now()) {
		t.Fatal("nothing was compacted")
	}
	for _, b := range readAllWith(t, l, 0, 5000, true) {
		if b.BaseOffset() < committed {
			items := []Item{{Batch: slices.Clone(b)}}
			if replica.AppendAt(items); items[0].Err != nil {
				t.Fatal(items[0].Err)
			}
		}
	}
	expectRetry(t, replica, keyedBy(t, 7, 1, false, "key", "first"), retried.Base)
	if it := appendOne(t, replica, keyedBy(t, 7, 2, false, "key", "again")); it.Err != nil || it.Dup {
		t.Errorf("the batch that it lacks came again: %+v", it)
	}
}

// TestTransactionsAfterACut proves that a transaction whose records and marker compaction has removed does not hold
// readers up for ever after a cut above it, though the newest producer snapshot that is left has it open.
func TestTransactionsAfterACut(t *testing.T) {
	for _, restarts := range []bool{false, true} {
		mem := vfs.NewMem()
		cfg := testConfig(mem, "data")
		cfg.Cleaner.MapBytes = compact.MinMapBytes // 42 keys, so that many rounds are needed
		s := quietStore(t, cfg)
		allow(s)
		o := compactedOptions()
		o.Compaction.DeleteRetention = 0
		l := testLog(s, 0, o)
		mustAppend(t, l, keyed(t, "first", "x"))
		items := []Item{{Batch: keyedBy(t, 7, 0, true, "key", "in a transaction"), Claim: Claim{Verified: true}}}
		if l.Append(1, items); items[0].Err != nil {
			t.Fatal(items[0].Err)
		}
		s.Commit()
		l.pub.Lock()
		l.due.snapshot = true
		l.pub.Unlock()
		s.keeper.checkpointNow() // with a snapshot in which the transaction is open
		end, err := record.BuildMarker(1, 7, 0, record.Marker{Commit: true})
		if err != nil {
			t.Fatal(err)
		}
		mustAppend(t, l, end)
		mustAppend(t, l, keyedBy(t, 7, 1, false, "key", "later"))
		for i := range 400 {
			mustAppend(t, l, keyed(t, fmt.Sprint("key", i), strings.Repeat("x", 60)))
		}
		s.Commit()
		committed, _ := l.End()
		l.SetHighWatermark(committed)
		mustAppend(t, l, keyedBy(t, 7, 2, false, "key", "not replicated yet"))
		s.Commit()
		rounds := 0
		for compactNow(t, s, l, time.Now()) {
			rounds++
		}
		if rounds < 4 {
			t.Fatalf("%d rounds", rounds)
		}
		if err := l.Truncate(committed); err != nil {
			t.Fatal(err)
		}
		if restarts {
			s = quietStore(t, testConfig(mem.Crash(rand.New(rand.NewPCG(1, 1))), "data"))
			l = testLog(s, 0, o)
		}
		if at, err := StableEnd(l, committed); err != nil || at != committed {
			t.Errorf("restarts %v: readers of committed records get up to %d of %d: %v", restarts, at, committed, err)
		}
		if open, err := OpenTransactions(l); err != nil || len(open) > 0 {
			t.Errorf("restarts %v: open are %v: %v", restarts, open, err)
		}
	}
}

// TestLagWithoutTimestamps proves that records without timestamps are not compacted before min.compaction.lag.ms is over since
// their segment was closed, as Kafka goes by its file's time then.
func TestLagWithoutTimestamps(t *testing.T) {
	s := quietStore(t, testConfig(vfs.NewMem(), "data"))
	o := compactedOptions()
	o.Compaction.MinLag = time.Hour
	l := testLog(s, 0, o)
	for range 30 {
		var bu record.Builder
		bu.Append(record.NoTimestamp, []byte("key"), []byte(strings.Repeat("x", 300)))
		b, err := bu.Build()
		if err != nil {
			t.Fatal(err)
		}
		mustAppend(t, l, slices.Clone(b))
	}
	s.Commit()
	now := time.Now()
	for _, after := range []time.Duration{0, 59 * time.Minute} {
		if compactNow(t, s, l, now.Add(after)) {
			t.Fatalf("after %v it was compacted", after)
		}
	}
	if !compactNow(t, s, l, time.Now().Add(61*time.Minute)) {
		t.Error("it is never compacted")
	}
}

// TestOpeningCannotFinishASwap proves that a log whose opening cannot make the names of a compaction durable does not look
// as if it began with a later segment: it cannot be read until the next start, which finds all.
func TestOpeningCannotFinishASwap(t *testing.T) {
	disk, want, end := dirtyLog(t, 1)
	var left *vfs.Mem
	compactWith(t, disk, vfs.OpRemove, ".log", func(*Store, *Log) { left = disk.KillClone(nil) })
	for call := 1; call < 3; call++ {
		mem := left.KillClone(nil)
		n := 0
		s := quietStore(t, testConfig(vfs.NewFaulty(mem, func(op vfs.Op, path string) error {
			if op == vfs.OpSyncDir && strings.Contains(path, "topic-0") {
				if n++; n == call {
					return errBadDisk
				}
			}
			return nil
		}), "data"))
		l := testLog(s, 0, compactedOptions())
		if start, err := l.Start(); err == nil && start != 0 || l.Fault() == nil || n < call {
			t.Errorf("sync %d of %d has failed: it begins at %d: %v, fault %v", call, n, start, err, l.Fault())
		}
		if c, err := l.Read(0, end, 1000); errors.Is(err, ErrOffsetOutOfRange) || err == nil && c == nil {
			t.Errorf("sync %d has failed: a reader gets %v", call, err)
		} else if c != nil {
			c.Release()
		}
		_ = s.Close()
		s = quietStore(t, testConfig(mem.KillClone(nil), "data"))
		expectTable(t, testLog(s, 0, compactedOptions()), want, end, "after a start")
	}
}
