package storage

import (
	"testing"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/vfs"
)

// timedLog is a log with a record of each time, in ms.
func timedLog(t *testing.T, s *Store, times ...int64) *Log {
	t.Helper()
	o := testOptions()
	o.RetentionAge = time.Hour
	l := testLog(s, 0, o)
	for n, ms := range times {
		mustAppend(t, l, batchAtTime(t, n, 1, 10, ms))
	}
	s.Commit()
	return l
}

// expectRetained applies retention when records before a time, in ms, are too old.
func expectRetained(t *testing.T, s *Store, l *Log, ms int64, start record.Offset) {
	t.Helper()
	s.retain(time.UnixMilli(ms).Add(time.Hour))
	if got, err := l.Start(); got != start || err != nil {
		t.Errorf("the log begins with %d where records before %d ms are too old, not with %d: %v", got, ms, start, err)
	}
}

// TestRetentionComesBack proves that records which were too old, and beyond the high watermark, go as
// soon as that has passed them.
func TestRetentionComesBack(t *testing.T) {
	s := openStore(t, testConfig(vfs.NewMem(), "data"))
	l := timedLog(t, s, 1000, 1000, 2000, 3000)
	l.SetHighWatermark(1)
	expectRetained(t, s, l, 1500, 1)
	l.SetHighWatermark(4)
	expectRetained(t, s, l, 1500, 2)
	expectRetained(t, s, l, 2000, 2)
	expectRetained(t, s, l, 2001, 3)
}

// TestRetentionOfAnotherFirstRecord proves that retention by time looks at the record with which a log
// begins after its start was moved, also after a kill: it may be older than the first one was.
func TestRetentionOfAnotherFirstRecord(t *testing.T) {
	for _, killed := range []bool{false, true} {
		mem := vfs.NewMem()
		s := openStore(t, testConfig(mem, "data"))
		l := timedLog(t, s, 5000, 1000, 6000)
		s.keeper.checkpointNow()
		if err := l.SetStart(1); err != nil {
			t.Fatal(err)
		}
		if killed {
			s = openStore(t, testConfig(mem.KillClone(nil), "data"))
			l = testLog(s, 0, *l.options())
		}
		expectRetained(t, s, l, 3000, 2)
	}
}

// TestSegmentsGoAfterTruncation proves that the segments below a start are removed also where a truncation
// came between the move of the start and the checkpoint, and nothing is appended after that.
func TestSegmentsGoAfterTruncation(t *testing.T) {
	mem := vfs.NewMem()
	s := openStore(t, testConfig(mem, "data"))
	o := testOptions()
	o.SegmentBytes = 1024
	l := testLog(s, 0, o)
	for n := range 40 {
		mustAppend(t, l, produced(t, 7, 0, int32(n), 1))
	}
	s.Commit()
	first := l.segments()[0].Path(".log")
	if err := l.SetStart(20); err != nil {
		t.Fatal(err)
	}
	if err := l.Truncate(38); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		s.keeper.checkpointNow()
	}
	if _, err := mem.Stat(first); err == nil {
		t.Errorf("%s is there after five checkpoints", first)
	}
	if it := mustAppend(t, l, produced(t, 7, 0, 38, 1)); it.Base != 38 || it.Dup {
		t.Errorf("the producer goes on: %+v", it)
	}
}
