package quorum

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/leatstream/leat/internal/vfs"
)

// BenchmarkPropose measures proposals that have a sync each, and proposals that share one.
func BenchmarkPropose(b *testing.B) {
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprint(callers), func(b *testing.B) {
			m := &machine{}
			cfg := config(vfs.OS{}, m)
			cfg.Dir, cfg.SnapshotBytes = b.TempDir()+"/meta", 0
			cfg.Apply = func(Update) error { return nil }
			n, err := Open(cfg)
			if err != nil {
				b.Fatal(err)
			}
			defer closeNode(n)
			data := make([]byte, 108)
			b.ReportAllocs()
			b.SetParallelism(max(1, callers/runtime.GOMAXPROCS(0)))
			if callers == 1 {
				for b.Loop() {
					if err := put(b.Context(), n, data); err != nil {
						b.Fatal(err)
					}
				}
				return
			}
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := put(b.Context(), n, data); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

// BenchmarkOpen measures the first start in an empty directory.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	i := 0
	for b.Loop() {
		m := &machine{}
		cfg := config(vfs.OS{}, m)
		i++
		cfg.Dir = fmt.Sprint(dir, "/", i)
		n, err := Open(cfg)
		if err != nil {
			b.Fatal(err)
		}
		closeNode(n)
	}
}
