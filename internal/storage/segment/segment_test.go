package segment_test

import (
	"fmt"
	"testing"

	"github.com/leatstream/leat/internal/vfs"
)

// TestEveryRead proves that reads from every offset, up to every limit and of any length get
// the right bytes, from an active and from a closed segment.
func TestEveryRead(t *testing.T) {
	for seed := range uint64(6) {
		s := newSubject(t, newFiles(t, vfs.NewMem(), 4), seeded(seed), 0)
		s.append(8)
		all := func(what string) {
			for from := max(s.base-1, 0); from < s.next+2; from++ {
				for limit := s.base; limit < s.next+2; limit++ {
					for maxBytes := 0; maxBytes < int(s.size())+50; maxBytes += 1 + s.rng.IntN(100) {
						s.read(what, from, limit, maxBytes)
					}
				}
			}
		}
		all(fmt.Sprintf("seed %d, active", seed))
		s.close()
		all(fmt.Sprintf("seed %d, closed", seed))
	}
}

// TestReaders proves that readers which go on from their last read get the whole segment in
// its order, for any number of readers and any length of reads, while the segment grows.
func TestReaders(t *testing.T) {
	for seed := range uint64(10) {
		s := newSubject(t, newFiles(t, vfs.NewMem(), 4), seeded(seed), 0)
		s.append(700) // more than memory knows the places of
		readers := make([]struct{ batch, maxBytes int }, 1+s.rng.IntN(6))
		for i := range readers {
			readers[i].maxBytes = 1 + s.rng.IntN(20_000)
		}
		for step := range 600 {
			r := &readers[s.rng.IntN(len(readers))]
			if r.batch == len(s.batches) {
				r.batch = s.rng.IntN(len(s.batches))
			}
			from := s.batches[r.batch].BaseOffset()
			n := s.read(fmt.Sprintf("seed %d, step %d", seed, step), from, s.next, r.maxBytes)
			if n == 0 {
				t.Fatalf("seed %d, step %d: no batch from %d on", seed, step, from)
			}
			r.batch += n
			if s.rng.IntN(50) == 0 && (step < 400 || step > 500) {
				s.append(s.rng.IntN(10))
			}
			if step == 400 {
				s.close()
			}
			if step == 500 {
				s.reopen()
				must(t, s.g.Activate(s.interval))
			}
		}
	}
}

// TestLife proves that a segment has the same records in all of its states: active with its
// indexes in memory or in files, sealed, closed, and attached again as a closed or as an
// active one.
func TestLife(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := seeded(seed)
			s := newSubject(t, newFiles(t, vfs.NewMem(), 4), rng, int64(rng.IntN(2)*5000))
			s.check("empty", true)
			s.append(rng.IntN(40))
			s.check("appended", true)
			must(t, s.g.FlushIndexes())
			s.check("indexes flushed", true)
			s.append(rng.IntN(40))
			s.check("half flushed", true)
			must(t, s.g.Seal())
			s.check("sealed", true)
			s.g.Close()
			s.check("closed", false)
			s.reopen()
			s.check("reopened", false)
			s.reopen()
			must(t, s.g.Activate(s.interval))
			s.check("activated", true)
			s.append(rng.IntN(40))
			s.check("appended again", true)
			s.reopen()
			s.check("reopened without a seal, not activated", true)
			s.append(1 + rng.IntN(10))
			s.close()
			s.reopen()
			s.check("closed at last", false)
		})
	}
}
