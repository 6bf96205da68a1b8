package position_test

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/leatstream/leat/internal/group/commit"
	"github.com/leatstream/leat/internal/mirror/position"
	"github.com/leatstream/leat/internal/record"
)

// shapes are ways to have 100,000 positions.
var shapes = []struct{ groups, topics, partitions int }{{1000, 1, 100}, {1000, 100, 1}, {100_000, 1, 1}}

// fill has a machine know the positions of a shape, by transactions of one producer that are open if that is not negative.
func fill(tb testing.TB, groups, topics, partitions int, producer int64) *position.Machine {
	tb.Helper()
	m := position.New(position.Config{Groups: filter(tb, "*", ""), MaxBytes: 1 << 40})
	m.SetPartitions(1)
	next := record.Offset(0)
	var bu record.Builder
	for g := range groups {
		bu.Reset()
		if producer >= 0 {
			bu.Transactional = true
			bu.SetProducer(producer, 0, 0)
		}
		for t := range topics {
			for p := range partitions {
				o := commit.Offset{At: 7, Epoch: 1, Time: now, Expires: commit.NoExpiry, Topic: [16]byte{1}}
				bu.Append(now, commit.AppendKey(nil, fmt.Sprint("a-group-", g), fmt.Sprint("a-topic-", t), int32(p)), o.AppendTo(nil))
			}
		}
		b, err := bu.Build()
		if err != nil {
			tb.Fatal(err)
		}
		b.SetBaseOffset(next)
		next = b.NextOffset()
		if err := m.Read(0, b, now); err != nil {
			tb.Fatal(err)
		}
	}
	return m
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestMemoryIsCountedAsItIs proves that a machine takes no more bytes than it counts, in every shape, so that its bound is one, and not much less. Offsets of open transactions count with the room that their commit needs.
func TestMemoryIsCountedAsItIs(t *testing.T) {
	for _, s := range shapes {
		for _, producer := range []int64{-1, 5} {
			before := heap()
			m := fill(t, s.groups, s.topics, s.partitions, producer)
			took, counted := heap()-before, m.State().Bytes
			t.Logf("%+v of producer %d: %d bytes are taken, %d counted", s, producer, took, counted)
			if took > counted || producer < 0 && took < counted/3 {
				t.Errorf("%+v of producer %d: %d bytes are taken, %d counted", s, producer, took, counted)
			}
			runtime.KeepAlive(m)
		}
	}
}

// BenchmarkRead reads 100,000 positions, as a link does when it starts.
func BenchmarkRead(b *testing.B) {
	for _, s := range shapes {
		b.Run(fmt.Sprintf("groups=%d/topics=%d/partitions=%d", s.groups, s.topics, s.partitions), func(b *testing.B) {
			for b.Loop() {
				fill(b, s.groups, s.topics, s.partitions, -1)
			}
		})
	}
}
