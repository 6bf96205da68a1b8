package producer

import (
	"testing"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/transaction"
)

// fill gives a State a number of producers, with ids and last offsets from first on.
func fill(b *Budget, first int64, n int) *State {
	s := New(b)
	for i := range n {
		s.addEntry(entry{id: first + int64(i), txnFirst: transaction.None, kept: 1, batches: [KeptBatches]keptBatch{{lastOffset: record.Offset(i)}}})
	}
	s.grown = 0
	return &s
}

// TestEvictionsAreFew proves that evictions, each of which sorts all producers of a log, sort about ten
// times as many as the log adds and not as many for each, also where logs that are idle have more
// than their share and keep it: while a snapshot is read, and while batches are appended.
func TestEvictionsAreFew(t *testing.T) {
	const most = 4000
	for _, c := range []struct {
		name string
		idle []int // producers of logs that are idle
	}{
		{"alone", nil},
		{"beside a log with more than its share", []int{most * 6 / 10}},
		{"far too many", []int{most * 7 / 10, most * 7 / 10}},
		{"far too many, beside small logs", []int{most * 9 / 10, most / 2, 10, 20, 30}},
	} {
		snapshot := fill(nil, 1, most).Encode()[snapshotHead:]
		for _, reads := range []bool{true, false} {
			b := NewBudget(most * EntryBytes)
			for i, n := range c.idle {
				fill(b, int64(i+1)<<40, n)
			}
			s := New(b)
			sorted := 0
			for i := range most {
				before, n := b.evicted.Load(), s.known.n
				if reads {
					s.decodeEntry(snapshot[i*snapshotEntry:], 1)
				} else {
					s.addEntry(entry{id: int64(i), txnFirst: transaction.None, kept: 1, batches: [KeptBatches]keptBatch{{lastOffset: record.Offset(i)}}})
					s.Evict()
				}
				if b.evicted.Load() != before {
					sorted += n
				}
			}
			if sorted > 12*most || s.known.n < most/50 {
				t.Errorf("%s, reads a snapshot %v: %d were sorted for %d producers, of which %d are left", c.name, reads, sorted, most, s.known.n)
			}
		}
	}
}
