package group

import (
	"fmt"
	"log/slog"
	"runtime"
	"testing"

	"github.com/leatstream/leat/internal/record"
)

// loadShapes are ways to have a million offsets on one partition. The last two have one commit a
// batch, which is the most work for each offset.
var loadShapes = []struct {
	groups, topics, partitions int
	perBatch                   int // offsets of one batch
}{{10_000, 100, 1, 100}, {100, 100, 100, 10_000}, {10_000, 100, 1, 1}, {100, 100, 100, 1}}

// logOf makes a log with the offsets of a shape, whose bytes are one piece of memory, so that the
// collector has as little to do with it as with a file.
func logOf(tb testing.TB, groups, topics, partitions, perBatch int) *fileLog {
	tb.Helper()
	l := &fileLog{}
	var bu record.Builder
	o := offset{at: 1_000_000, epoch: 7, time: 1_700_000_000_000, expires: noExpiry, topic: [16]byte{1, 2, 3}}
	flush := func() {
		if bu.Count() == 0 {
			return
		}
		b, err := bu.Build()
		if err != nil {
			tb.Fatal(err)
		}
		b.SetBaseOffset(l.end)
		l.end = b.NextOffset()
		l.bytes = append(l.bytes, b...)
		bu.Reset()
	}
	for g := range groups {
		for t := range topics {
			for p := range partitions {
				key := appendOffsetKey(nil, fmt.Sprint("a-group-", g), fmt.Sprint("a-topic-", t), int32(p))
				bu.Append(o.time, key, o.appendTo(nil))
				if bu.Count() == perBatch {
					flush()
				}
			}
		}
	}
	flush()
	return l
}

// fileLog is a coord.Log with records that are committed, and takes no more.
type fileLog struct {
	memLog
	bytes []byte
	at    int
}

// ReadBatches returns the batches that follow those of the last call.
func (l *fileLog) ReadBatches(off, _ record.Offset, maxBytes int) ([]byte, error) {
	if off == 0 {
		l.at = 0
	}
	n := 0
	for b := l.bytes[l.at:]; n < len(b); {
		size := record.Batch(b[n:]).Size()
		if n+size > maxBytes && n > 0 {
			break
		}
		n += size
	}
	b := l.bytes[l.at : l.at+n]
	l.at += n
	return b, nil
}

// BenchmarkLoad measures how long a load of a million offsets takes, and the memory of each offset.
func BenchmarkLoad(b *testing.B) {
	for _, c := range loadShapes {
		b.Run(fmt.Sprintf("%dx%dx%d,batch=%d", c.groups, c.topics, c.partitions, c.perBatch), func(b *testing.B) {
			l := logOf(b, c.groups, c.topics, c.partitions, c.perBatch)
			l.hw = l.end
			b.ReportAllocs()
			var took int64
			for b.Loop() {
				before := heap()
				sv := New(Config{Logger: slog.New(slog.DiscardHandler), Partitions: func() int32 { return 1 }, Memory: 1 << 40})
				sv.StartLeading(0, 1, l)
				awaitLoadedOf(sv, 1)
				b.StopTimer()
				took = heap() - before
				runtime.KeepAlive(sv)
				sv.Close()
				b.StartTimer()
			}
			b.ReportMetric(float64(took)/float64(l.end), "B/offset")
		})
	}
}
