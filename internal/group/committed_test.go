package group

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/record"
)

// TestOffsetsMemoryIsBounded proves that committed offsets, the names of their groups and
// their metadata share a limit on a node; that a group can still commit offsets in the
// place of earlier ones at the limit; that a load takes all acknowledged offsets; and that
// there is room again when offsets are deleted.
func TestOffsetsMemoryIsBounded(t *testing.T) {
	long := func(n int) *string { return new(strings.Repeat("m", n)) }
	for what, commit := range map[string]func(i int) *kmsg.OffsetCommitRequest{
		"groups": func(i int) *kmsg.OffsetCommitRequest { return commitRequest(fmt.Sprint("g", i), "", -1, 1) },
		"names of groups": func(i int) *kmsg.OffsetCommitRequest {
			return commitRequest(fmt.Sprint(strings.Repeat("g", 30_000), i), "", -1, 1)
		},
		"partitions": func(i int) *kmsg.OffsetCommitRequest {
			req := commitRequest("g", "", -1, 1)
			req.Topics[0].Partitions[0].Partition = int32(i)
			return req
		},
		"topics": func(i int) *kmsg.OffsetCommitRequest {
			req := commitRequest("g", "", -1, 1)
			req.Topics[0].Topic = fmt.Sprint("t", i)
			return req
		},
		"metadata": func(i int) *kmsg.OffsetCommitRequest {
			req := commitRequest("g", "", -1, 1)
			req.Topics[0].Partitions[0].Partition, req.Topics[0].Partitions[0].Metadata = int32(i), long(4000)
			return req
		},
	} {
		t.Run(what, func(t *testing.T) {
			const limit = 256 << 10
			sv, logs, said := newTightService(t, limit/7*8) // offsets may take seven eighths of it
			ask := func(req *kmsg.OffsetCommitRequest) (c int16) {
				c = -2
				commitOne(sv, req, func(r *kmsg.OffsetCommitResponse) { c = r.Topics[0].Partitions[0].ErrorCode })
				return c
			}
			n := 0
			for ask(commit(n)) == 0 {
				n++
			}
			if got := ask(commit(n)); got != coordinatorNotAvailable || n < 8 {
				t.Fatalf("commit %d: %s", n, name(got))
			}
			if used := sv.MemoryUsed(); used > limit || used < limit*8/10 {
				t.Errorf("%d bytes are held", used)
			}
			if got := ask(commit(0)); got != 0 {
				t.Errorf("the first one again: %s", name(got))
			}
			more := commit(0)
			more.Topics[0].Partitions[0].Metadata = long(4096)
			for i := 0; ask(more) == 0 && i < n; i++ {
				more = commit(i)
				more.Topics[0].Partitions[0].Metadata = long(4096)
			}
			if got := ask(more); got != coordinatorNotAvailable {
				t.Errorf("more metadata of one that is there: %s", name(got))
			}
			if said := strings.Count(said.String(), "level=WARN"); said != 1 {
				t.Errorf("it was said %d times", said)
			}
			before := sv.MemoryUsed()
			for i, l := range logs {
				sv.StopLeading(int32(i))
				sv.StartLeading(int32(i), 3, l)
			}
			awaitLoaded(sv)
			if got := sv.MemoryUsed(); got != before {
				t.Errorf("%d bytes are held after a load, %d before", got, before)
			}
			sv.Delete([]string{commit(0).Group}, func([]kmsg.DeleteGroupsResponseGroup) {})
			again := commit(0)
			if got := ask(again); got != 0 {
				t.Errorf("after its group was deleted: %s", name(got))
			}
		})
	}
}

// awaitLoaded returns when all partitions have been loaded.
func awaitLoaded(sv *Service) { awaitLoadedOf(sv, testPartitions) }

// awaitLoadedOf returns when the first n partitions have been loaded.
func awaitLoadedOf(sv *Service, n int32) {
	for p := range n {
		for sv.rt.Do(p, func(*Machine, *coord.Step) {}) != nil {
			time.Sleep(time.Millisecond)
		}
	}
}

// shapes are ways to have many offsets.
var shapes = []struct{ groups, topics, partitions int }{{100, 10, 100}, {1000, 100, 1}, {50_000, 1, 1}}

// fill commits an offset for each partition of each topic in each group.
func fill(m *Machine, groups, topics, partitions int) {
	s := coord.NewStep(time.UnixMilli(0))
	o := offset{At: 1, Time: 2, Expires: noExpiry, Topic: [16]byte{1}}
	next := record.Offset(0)
	for g := range groups {
		for t := range topics {
			for p := range partitions {
				putOffset(s, fmt.Sprint("a-group-", g), fmt.Sprint("a-topic-", t), int32(p), &o)
			}
		}
		next = s.Run(m, next, nil)
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func emptyMachine() *Machine {
	return newTestMachine(DefaultSettings, func() string { return "" })
}

// TestOffsetsAreCountedAsTheyAre proves that the account has about as many bytes as the
// offsets take in memory, in every shape, and that many offsets of few groups take at most
// 150 bytes each.
func TestOffsetsAreCountedAsTheyAre(t *testing.T) {
	for _, c := range shapes {
		m := emptyMachine()
		before := heap()
		fill(m, c.groups, c.topics, c.partitions)
		took, n := heap()-before, int64(c.groups*c.topics*c.partitions)
		counted := m.memory.Held()
		t.Logf("%v: %d bytes an offset, counted as %d", c, took/n, counted/n)
		if counted < took*2/3 || counted > took*3/2 {
			t.Errorf("%v: %d bytes are taken, %d are counted", c, took, counted)
		}
		if c.topics > 1 && took/n > 150 {
			t.Errorf("%v: %d bytes an offset", c, took/n)
		}
		runtime.KeepAlive(m)
	}
}

// BenchmarkOffsetMemory measures the memory of an offset.
func BenchmarkOffsetMemory(b *testing.B) {
	for _, c := range shapes {
		b.Run(fmt.Sprintf("%dx%dx%d", c.groups, c.topics, c.partitions), func(b *testing.B) {
			var took int64
			for b.Loop() {
				m := emptyMachine()
				before := heap()
				fill(m, c.groups, c.topics, c.partitions)
				took = heap() - before
				runtime.KeepAlive(m)
			}
			b.ReportMetric(float64(took)/float64(c.groups*c.topics*c.partitions), "B/offset")
		})
	}
}

// TestCommittedIsAMap proves, for any sequence of offsets that are set and deleted in
// several groups, that the last ones are kept, in order, and that the account has their
// bytes.
func TestCommittedIsAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := emptyMachine()
		groups := []*group{m.findOrAddGroup("a"), m.findOrAddGroup("b")}
		want := []map[string]map[int32]offset{{}, {}}
		none := m.memory.Held()
		for range rapid.IntRange(0, 60).Draw(t, "operations") {
			i := rapid.IntRange(0, 1).Draw(t, "group")
			topic := rapid.SampledFrom([]string{"t", "u"}).Draw(t, "topic")
			p := rapid.Int32Range(0, 12).Draw(t, "partition")
			if rapid.IntRange(0, 2).Draw(t, "drop") == 0 {
				groups[i].offsets.deleteOffset([]byte(topic), p)
				if delete(want[i][topic], p); len(want[i][topic]) == 0 {
					delete(want[i], topic)
				}
				continue
			}
			o := offset{
				At: record.Offset(rapid.Int64().Draw(t, "at")), Epoch: 3, Time: 4, Expires: rapid.Int64Range(-1, 1).Draw(t, "expires"),
				Topic: [16]byte{rapid.Byte().Draw(t, "id")}, Metadata: rapid.SampledFrom([]string{"", "m", "mm"}).Draw(t, "metadata"),
			}
			groups[i].offsets.setOffset([]byte(topic), p, &o)
			if want[i][topic] == nil {
				want[i][topic] = map[int32]offset{}
			}
			want[i][topic][p] = o
		}
		for i, g := range groups {
			if len(g.offsets.sortTopics()) != len(want[i]) {
				t.Fatalf("%d topics, want %d", len(g.offsets.sortTopics()), len(want[i]))
			}
			for topic, offsets := range want[i] {
				list := g.offsets.ofTopic(topic)
				var got []int32
				for j := range list {
					got = append(got, list[j].partition)
				}
				if parts := slices.Sorted(maps.Keys(offsets)); !slices.Equal(got, parts) {
					t.Fatalf("%s has %v, want %v", topic, got, parts)
				}
				for p, o := range offsets {
					if got, ok := g.offsets.getOffset(topic, p); !ok || got != o {
						t.Fatalf("%s/%d is %+v %v, want %+v", topic, p, got, ok, o)
					}
				}
			}
		}
		m.check(t.Fatalf)
		for _, g := range groups {
			g.offsets.deleteAll()
		}
		if n := m.memory.Held() - none; n != 0 {
			t.Fatalf("%d bytes are counted for nothing", n)
		}
	})
}
