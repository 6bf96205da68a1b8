package storage

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/vfs"
)

func benchStore(b *testing.B) *Store {
	b.Helper()
	cfg := testConfig(vfs.OS{}, b.TempDir())
	cfg.CheckpointEvery, cfg.Journal = time.Second, 64<<20
	return openStore(b, cfg)
}

// BenchmarkAppend appends 16 KiB batches to one log, page-cache mode and durable,
// one and 32 to a commit.
func BenchmarkAppend(b *testing.B) {
	for _, durable := range []bool{false, true} {
		for _, n := range []int{1, 32} {
			b.Run(fmt.Sprintf("durable=%v/batches=%d", durable, n), func(b *testing.B) {
				s := benchStore(b)
				o := testOptions()
				if !durable {
					o.FlushMessages = 1 << 40
				}
				l := testLog(s, 0, o)
				items := make([]Item, n)
				for i := range items {
					items[i].Batch = append(record.Batch(nil), batch(b, 0, 16, 1000)...)
				}
				mustAppend(b, l, batch(b, 0, 1, 10))
				s.Commit()
				s.keeper.checkpointNow() // from now on the file's name is durable
				b.SetBytes(int64(n * len(items[0].Batch)))
				b.ReportAllocs()
				for b.Loop() {
					l.Append(1, items)
					s.Commit()
				}
				if items[0].Err != nil {
					b.Fatal(items[0].Err)
				}
			})
		}
	}
}

// BenchmarkCommit appends one batch to each of many logs and commits them together.
func BenchmarkCommit(b *testing.B) {
	for _, c := range []struct{ logs, bytes int }{
		{1, 1 << 10},
		{1, 16 << 10},
		{1, 512 << 10},
		{2, 16 << 10},
		{8, 16 << 10},
		{64, 16 << 10},
		{64, 1 << 10},
		{200, 1 << 10},
		{5000, 1 << 10},
	} {
		b.Run(fmt.Sprintf("logs=%d/bytes=%d", c.logs, c.bytes), func(b *testing.B) {
			s := benchStore(b)
			logs := make([]*Log, c.logs)
			items := []Item{{Batch: append(record.Batch(nil), batch(b, 0, 1, c.bytes)...)}}
			for i := range logs {
				logs[i] = testLog(s, i, testOptions())
				logs[i].Append(1, items)
			}
			s.Commit()
			s.keeper.checkpointNow()
			time.Sleep(100 * time.Millisecond) // the ring is being laid out
			b.SetBytes(int64(c.logs * len(items[0].Batch)))
			b.ReportAllocs()
			for b.Loop() {
				for _, l := range logs {
					l.Append(1, items)
				}
				s.Commit()
			}
		})
	}
}

// BenchmarkCommitConcurrent has 64 appenders that each wait for their commit.
func BenchmarkCommitConcurrent(b *testing.B) {
	s := benchStore(b)
	const n = 64
	var wg sync.WaitGroup
	work := make(chan struct{}, n)
	for i := range n {
		done := make(chan struct{}, 1)
		l := s.Log(testID(i), "topic", testOptions(), func(*Log) {
			select {
			case done <- struct{}{}:
			default:
			}
		})
		wg.Go(func() {
			items := []Item{{Batch: append(record.Batch(nil), batch(b, 0, 1, 1<<10)...)}}
			for range work {
				l.Append(1, items)
				s.Commit()
				for c, _ := l.Committed(); c < items[0].Next; c, _ = l.Committed() {
					<-done
				}
			}
		})
	}
	b.ReportAllocs()
	for b.Loop() {
		work <- struct{}{}
	}
	close(work)
	wg.Wait()
}

// BenchmarkRead reads at the tail and from the beginning on, 64 KiB and 1 MiB.
func BenchmarkRead(b *testing.B) {
	s := benchStore(b)
	l := testLog(s, 0, testOptions())
	items := make([]Item, 32)
	for i := range items {
		items[i].Batch = append(record.Batch(nil), batch(b, 0, 16, 1000)...)
	}
	for range 400 {
		l.Append(1, items)
	}
	s.Commit()
	end, _ := l.End()
	b.Run("tail", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			c, err := l.Read(end-64, end, 1<<20)
			if err != nil {
				b.Fatal(err)
			}
			c.Release()
		}
	})
	for _, n := range []int{64 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("old/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			from := record.Offset(0)
			h := make([]byte, record.HeaderLen)
			for b.Loop() {
				c, err := l.Read(from, end, n)
				if err != nil {
					b.Fatal(err)
				}
				from += record.Offset(c.Len() / len(items[0].Batch) * 16)
				if from+1000 > end {
					from = 0
				}
				if _, err := c.ReadAt(h, 0); err != nil {
					b.Fatal(err)
				}
				c.Release()
			}
		})
	}
}

// BenchmarkAppendCrowd appends a record to each of 5,000 logs in turn, 500 to a
// commit. A checkpoint is made each second, or when the journal wants it.
func BenchmarkAppendCrowd(b *testing.B) {
	for _, durable := range []bool{false, true} {
		b.Run(fmt.Sprintf("durable=%v", durable), func(b *testing.B) {
			s := benchStore(b)
			o := testOptions()
			if !durable {
				o.FlushMessages = 1 << 40
			}
			items := []Item{{Batch: append(record.Batch(nil), batch(b, 0, 1, 1<<10)...)}}
			logs := make([]*Log, 5000)
			n := 0
			turn := func() {
				l := logs[n%len(logs)]
				l.Append(1, items)
				if n++; n%500 != 0 {
					return
				}
				s.Commit()
				for c, _ := l.Committed(); c < items[0].Next; c, _ = l.Committed() {
					runtime.Gosched()
				}
			}
			for i := range logs {
				logs[i] = testLog(s, i, o)
			}
			for range logs {
				turn()
			}
			time.Sleep(100 * time.Millisecond) // the ring is being laid out
			s.keeper.checkpointNow()
			b.SetBytes(int64(len(items[0].Batch)))
			b.ReportAllocs()
			for b.Loop() {
				turn()
			}
			if items[0].Err != nil {
				b.Fatal(items[0].Err)
			}
		})
	}
}

// BenchmarkAppendNew appends the first record to each of 5,000 new logs and commits
// them together.
func BenchmarkAppendNew(b *testing.B) {
	s := benchStore(b)
	items := []Item{{Batch: append(record.Batch(nil), batch(b, 0, 1, 100)...)}}
	mustAppend(b, testLog(s, -1, testOptions()), batch(b, 0, 1, 10))
	s.keeper.checkpointNow()
	time.Sleep(100 * time.Millisecond) // the ring is being laid out
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		testLog(s, n, testOptions()).Append(1, items)
		if n++; n%500 == 0 {
			s.Commit()
		}
	}
	if items[0].Err != nil {
		b.Fatal(items[0].Err)
	}
}
