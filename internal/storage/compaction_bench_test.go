package storage

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/vfs"
)

// BenchmarkCompaction measures a round over 64 MiB of which all is dirty, on a disk, while nobody appends: bytes of the
// log a second, which are read twice, and the memory that the keys take.
func BenchmarkCompaction(b *testing.B) {
	for _, keys := range []int{10_000, 100_000} {
		b.Run(fmt.Sprintf("keys=%d", keys), func(b *testing.B) {
			const bytes = 64 << 20
			s := openStore(b, Config{FS: vfs.OS{}, Dir: b.TempDir(), Scrub: -1, Cleaner: CleanerConfig{Backoff: time.Hour}})
			o := compactedOptions()
			o.SegmentBytes, o.IndexInterval = 16<<20, 4096
			rng := rand.New(rand.NewPCG(1, 1))
			kept, read := int64(0), int64(0)
			var took time.Duration
			for i := range b.N {
				b.StopTimer()
				l := testLog(s, i, o)
				for total := 0; total < bytes; {
					var bu record.Builder
					for range 100 {
						bu.Append(1_700_000_000_000, fmt.Append(nil, "key-", rng.IntN(keys)), make([]byte, 200))
					}
					batch, err := bu.Build()
					if err != nil {
						b.Fatal(err)
					}
					total += len(batch)
					mustAppend(b, l, batch)
				}
				s.Commit()
				before := CompactionStats(s)
				b.StartTimer()
				began := time.Now()
				if !compactNow(b, s, l, time.Now()) {
					b.Fatal("nothing was compacted")
				}
				took += time.Since(began)
				b.StopTimer()
				after := CompactionStats(s)
				kept, read = after.BytesWritten-before.BytesWritten, read+after.BytesRead-before.BytesRead
				s.Delete(l.ID())
			}
			b.ReportMetric(float64(read)/2/1e6/took.Seconds(), "MB/s")
			b.ReportMetric(float64(kept)/1e6, "MB-kept")
		})
	}
}
