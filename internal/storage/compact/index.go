package compact

import (
	"context"
	"fmt"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/record"
)

// Indexer fills a Map from the batches of the dirty part of a log. They come in the order of their offsets,
// from the one that has the first dirty offset.
type Indexer struct {
	to    *Map
	first record.Offset
	txns  transactions
	next  record.Offset // no batch may begin below it
	ahead lookahead
	full  bool
}

// NewIndexer empties the Map. aborted has the aborted transactions that have records or their
// marker in the dirty part.
func NewIndexer(to *Map, first record.Offset, aborted []Aborted) *Indexer {
	to.Reset(first)
	return &Indexer{to: to, first: first, txns: newTransactions(aborted)}
}

// AddAborted adds aborted transactions before the first batch of them comes. Those that are known already
// change nothing.
func (x *Indexer) AddAborted(list []Aborted) { x.txns.addAborted(list) }

// AddBatch notes the keys of a batch, but for those of an aborted transaction. It returns true
// when the Map is full; then the Map's End is the first record that it has no room for, and the
// Indexer takes no more batches. It may wait for memory and a processor of the budget. The errors are those of
// Batch.Verify and record.VisitKeys, record.ErrInvalid for batches that are not in order, and
// ErrTransactions; the Map must not be used after an error.
func (x *Indexer) AddBatch(ctx context.Context, work *budget.Budget, b record.Batch) (full bool, err error) {
	if x.full {
		return true, nil
	}
	if x.next, err = checkBatch(b, x.next); err != nil {
		return false, err
	}
	if b.Control() {
		_, err = x.txns.noteMarker(b)
	} else if !x.txns.noteBatch(b) {
		x.to.hasher.forget()
		x.ahead.records = x.ahead.records[:0]
		if err = record.VisitKeys(ctx, work, b, x); err == nil && !x.full {
			x.putRecords()
		}
	}
	if err != nil || x.full {
		return x.full, err
	}
	x.to.end = max(x.to.end, b.NextOffset())
	return false, nil
}

// Finish says that no batch follows below end, so that the Map is complete up to there, unless it is full.
func (x *Indexer) Finish(end record.Offset) {
	if !x.full {
		x.to.end = max(x.to.end, end)
	}
}

// WriteKey takes the next bytes of a key.
func (x *Indexer) WriteKey(part []byte) { x.to.hasher.write(part) }

// VisitRecord notes the key. It returns false when the Map is full.
func (x *Indexer) VisitRecord(o record.Outline) bool {
	if isFull := x.ahead.add(o, x.to.hasher.sum()); isFull {
		x.putRecords()
	}
	return !x.full
}

// putRecords puts the keys of the records that were looked ahead into the Map, until that is full.
func (x *Indexer) putRecords() {
	x.ahead.touch(x.to)
	for i := range x.ahead.records {
		r := &x.ahead.records[i]
		if !r.HasKey || r.Offset < x.first {
			continue
		}
		if !x.to.putSum(r.key, r.Offset) {
			x.full = true
			x.to.end = max(x.to.end, r.Offset)
			break
		}
	}
	x.ahead.records = x.ahead.records[:0]
}

// checkBatch checks a batch that was read from a log, after one whose next offset is given. It returns the
// batch's own next offset.
func checkBatch(b record.Batch, next record.Offset) (record.Offset, error) {
	if err := b.Verify(); err != nil {
		return next, err
	}
	if b.Count() < 0 {
		return next, fmt.Errorf("%w: it has %d records", record.ErrInvalid, b.Count())
	}
	if b.LastOffsetDelta() < 0 || b.BaseOffset() < next || b.NextOffset() < b.BaseOffset() {
		return next, fmt.Errorf("%w: it has the offsets %d to %d, and the batch before it ends below %d",
			record.ErrInvalid, b.BaseOffset(), b.LastOffset(), next)
	}
	return b.NextOffset(), nil
}
