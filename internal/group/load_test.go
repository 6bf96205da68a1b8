package group

import (
	"fmt"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/group/commit"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica"
	"github.com/leatstream/leat/internal/storage"
	"github.com/leatstream/leat/internal/vfs"
)

// loadShapes are ways to have a million offsets on one partition. With one offset a batch, each takes the
// most work.
var loadShapes = []struct{ groups, topics, partitions, perBatch int }{
	{10_000, 100, 1, 100}, {100, 100, 100, 10_000}, {10_000, 100, 1, 1}, {100, 100, 100, 1},
}

// newPartition makes a partition of the offsets topic on the disk, which this node leads alone.
func newPartition(b *testing.B) *replica.Partition {
	b.Helper()
	p, _ := newPartitionWith(b, storage.CleanerConfig{}, nil)
	return p
}

// newPartitionWith is newPartition with configs of the topic, and a store that compacts.
func newPartitionWith(b *testing.B, cleaner storage.CleanerConfig, configs map[string]string) (*replica.Partition, *storage.Store) {
	b.Helper()
	store, err := storage.Open(storage.Config{FS: vfs.OS{}, Dir: b.TempDir(), Logger: slog.New(slog.DiscardHandler), Cleaner: cleaner})
	if err != nil {
		b.Fatal(err)
	}
	static, err := config.NewStatic(1, nil)
	if err != nil {
		b.Fatal(err)
	}
	set := replica.NewSet(replica.Config{NodeID: 1, Store: store, Static: static})
	b.Cleanup(func() {
		set.Close()
		if err := store.Close(); err != nil {
			b.Error(err)
		}
	})
	id := meta.NewUUID()
	entry := meta.Append(nil, meta.TopicCreated{ID: id, Name: Topic})
	entry = meta.Append(entry, meta.PartitionsSet{Topic: id, Partitions: []meta.Partition{{Replicas: []int32{1}, ISR: []int32{1}, Leader: 1}}})
	for key, value := range configs {
		entry = meta.Append(entry, meta.ConfigSet{Resource: config.Resource{Type: config.Topic, Name: Topic}, Key: key, Value: value})
	}
	img, d, err := meta.Apply(meta.Empty(), entry)
	if err != nil {
		b.Fatal(err)
	}
	set.Apply(d, img)
	return set.Partition(Topic, 0), store
}

// fillPartition commits an offset for each partition of each topic in each group.
func fillPartition(b *testing.B, p *replica.Partition, groups, topics, partitions, perBatch int) {
	b.Helper()
	var bu record.Builder
	o := offset{At: 1_000_000, Epoch: 7, Time: 1_700_000_000_000, Expires: noExpiry, Topic: [16]byte{1, 2, 3}}
	for i := range groups * topics * partitions {
		g, t, n := i/(topics*partitions), i/partitions%topics, i%partitions
		key := commit.AppendKey(nil, fmt.Sprint("a-group-", g), fmt.Sprint("a-topic-", t), int32(n))
		bu.Append(o.Time, key, o.AppendTo(nil))
		if bu.Count() < perBatch {
			continue
		}
		batch, err := bu.Build()
		if err != nil {
			b.Fatal(err)
		}
		if _, err := p.AppendBatch(batch, 0); err != nil {
			b.Fatal(err)
		}
		bu.Reset()
	}
	p.Commit()
}

// BenchmarkLoad measures how long a load of a million offsets from the disk takes, and the memory of each.
func BenchmarkLoad(b *testing.B) {
	for _, c := range loadShapes {
		b.Run(fmt.Sprintf("%dx%dx%d,batch=%d", c.groups, c.topics, c.partitions, c.perBatch), func(b *testing.B) {
			p := newPartition(b)
			fillPartition(b, p, c.groups, c.topics, c.partitions, c.perBatch)
			b.ReportAllocs()
			var took int64
			for b.Loop() {
				b.StopTimer()
				before := heap()
				b.StartTimer()
				sv := New(Config{Logger: slog.New(slog.DiscardHandler), Partitions: func() int32 { return 1 }, Memory: 1 << 40})
				sv.StartLeading(0, 0, p)
				awaitLoadedOf(sv, 1)
				b.StopTimer()
				took = heap() - before
				runtime.KeepAlive(sv)
				sv.Close()
				b.StartTimer()
			}
			b.ReportMetric(float64(took)/float64(c.groups*c.topics*c.partitions), "B/offset")
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(b.Elapsed().Seconds()/float64(b.N), "s/load")
		})
	}
}

// BenchmarkLoadCompacted measures how long a load takes from a partition to which 5 million offsets of 10,000 keys were
// committed, once compaction has gone over them. It is to take less than half a second.
func BenchmarkLoadCompacted(b *testing.B) {
	const keys, commits, perBatch = 10_000, 5_000_000, 100
	p, store := newPartitionWith(b, storage.CleanerConfig{Backoff: 10 * time.Millisecond}, map[string]string{"cleanup.policy": "compact", "compression.type": "producer"})
	began := time.Now()
	for range commits / keys {
		fillPartition(b, p, 100, keys/100, 1, perBatch)
	}
	filled := time.Since(began)
	var st storage.CleanerStats
	for still := 0; still < 20; still++ { // as long as rounds come, it is not over
		time.Sleep(100 * time.Millisecond)
		if now := storage.CompactionStats(store); now.Rounds != st.Rounds || now.Backlog > 0 {
			st, still = now, 0
		}
	}
	compacted := time.Since(began) - filled
	if st.Rounds == 0 {
		b.Fatalf("nothing was compacted: %+v", st)
	}
	for b.Loop() {
		sv := New(Config{Logger: slog.New(slog.DiscardHandler), Partitions: func() int32 { return 1 }, Memory: 1 << 40})
		sv.StartLeading(0, 0, p)
		awaitLoadedOf(sv, 1)
		b.StopTimer()
		sv.Close()
		b.StartTimer()
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(b.Elapsed().Seconds()/float64(b.N), "s/load")
	b.ReportMetric(filled.Seconds(), "s-to-commit")
	b.ReportMetric(compacted.Seconds(), "s-compacting-after")
	b.ReportMetric(float64(st.BytesRead+st.BytesWritten)/1e6, "MB-compacted")
}
