package storage

import (
	"encoding/binary"
	"slices"

	"github.com/leatstream/leat/internal/record"
)

const (
	// isMarker stands in a model for the offset of a marker.
	isMarker = -2
	// modelTransactors is how many producers of transactions write to a log, and firstTransactor is the
	// first one's id.
	modelTransactors = 3
	firstTransactor  = 20
)

// modelTxn is a batch of a transaction as a model knows it.
type modelTxn struct {
	producer    int64
	base, next  record.Offset
	isEnd       bool // it is a marker
	isCommitted bool // of a commit
}

func newModelTxn(b record.Batch, base record.Offset) modelTxn {
	t := modelTxn{producer: b.ProducerID(), base: base, next: base + record.Offset(b.LastOffsetDelta()) + 1, isEnd: b.Control()}
	if t.isEnd {
		m, _ := record.ReadMarker(b)
		t.isCommitted = m.Commit
	}
	return t
}

func (m *modelLog) dropTxns(end record.Offset) {
	for len(m.txns) > 0 && m.txns[len(m.txns)-1].next > end {
		m.txns = m.txns[:len(m.txns)-1]
	}
}

// admitTransactions has a checkpoint say that the store may have transactions, as the first refusal of
// one does.
func (w *world) admitTransactions() {
	if w.transacts && !w.s.keeper.txns.isSaved.Load() {
		w.s.keeper.txns.wanted.Store(true)
		w.s.keeper.checkpointNow()
	}
}

// pickTransaction tells whether the next batch is of a transaction.
func (w *world) pickTransaction() bool {
	return w.transacts && w.s.keeper.txns.isSaved.Load() && w.rng.IntN(3) == 0
}

// transact makes the next batch of some transaction of a log, or its marker, and adds it to the model.
func (w *world) transact(m *modelLog) Item {
	id := int64(firstTransactor + w.rng.IntN(modelTransactors))
	var b record.Batch
	var err error
	nums := []int64{isMarker}
	if w.rng.IntN(3) == 0 {
		b, err = record.BuildMarker(1_700_000_000_000, id, 0, record.Marker{Commit: w.rng.IntN(2) == 0})
	} else {
		bu := record.Builder{Transactional: true}
		bu.SetProducer(id, 0, record.NoSequence)
		b, nums = w.fillNumbers(&bu, 1+w.rng.IntN(3), 300)
	}
	if err != nil {
		w.tb.Fatal(err)
	}
	b = slices.Clone(b)
	w.mu.Lock()
	defer w.mu.Unlock()
	m.txns = append(m.txns, newModelTxn(b, record.Offset(len(m.records))))
	m.add(w.epoch, nums...)
	return Item{Batch: b, Claim: Claim{Verified: true}}
}

// modelTransaction is a transaction of a model, as who knows all batches of a log sees it.
type modelTransaction struct {
	producer    int64
	first       record.Offset // of its first record
	retained    record.Offset // the first offset from the log's start on that compaction has not removed; -1: none
	marker      record.Offset // -1: it is open
	isCommitted bool
}

// listTransactions lists the transactions of a model's first records; from start on they are in the log.
func (m *modelLog) listTransactions(start, end record.Offset) (all []*modelTransaction) {
	open := map[int64]*modelTransaction{}
	for _, b := range m.txns {
		if b.base >= end {
			break
		}
		t := open[b.producer]
		switch {
		case b.isEnd && t != nil:
			t.marker, t.isCommitted = b.base, b.isCommitted
			delete(open, b.producer)
		case b.isEnd:
		case t == nil:
			t = &modelTransaction{producer: b.producer, first: b.base, retained: -1, marker: -1}
			all, open[b.producer] = append(all, t), t
			fallthrough
		default:
			if t.retained < 0 && b.next > start && !m.mayLack(b) {
				t.retained = b.base
			}
		}
	}
	return all
}

// compareTransactions compares what a log knows of its transactions with the model.
func (w *world) compareTransactions(i int, m *modelLog, l *Log, start, end record.Offset) {
	if len(m.txns) == 0 {
		return
	}
	all := m.listTransactions(start, end)
	// Of a transaction that began below the start the log may know only what it has still.
	least, most := end, end
	for _, t := range all {
		if t.marker < 0 {
			least = min(least, t.first)
			if t.retained >= 0 {
				most = min(most, t.retained)
			}
		}
	}
	stable, err := StableEnd(l, end)
	if err != nil && w.sick {
		return
	}
	if err != nil || stable < max(least, start) || stable > max(most, start) {
		w.tb.Fatalf("log %d [%d, %d): stable up to %d, %v, want %d to %d: %+v", i, start, end, stable, err, least, most, m.txns)
	}
	high, _ := l.HighWatermark()
	if limit := min(max(high, start+record.Offset(w.rng.Int64N(int64(end-start)+1))), end); !w.isSafe(l, all, start, limit) {
		w.tb.Fatalf("log %d [%d, %d): below %d more is stable than is: %+v", i, start, end, limit, m.txns)
	}
	if stable > start {
		from := start + record.Offset(w.rng.Int64N(int64(stable-start)))
		upper := from + 1 + record.Offset(w.rng.Int64N(int64(stable-from)))
		w.compareAborted(i, m, l, all, [2]record.Offset{from, upper})
	}
}

// isSafe tells whether no reader of committed records below a high watermark gets beyond a transaction
// that is not decided there.
func (w *world) isSafe(l *Log, all []*modelTransaction, start, limit record.Offset) bool {
	stable, err := StableEnd(l, limit)
	if err != nil {
		return w.sick
	}
	for _, t := range all {
		if t.retained >= 0 && (t.marker < 0 || t.marker >= limit) && stable > max(t.retained, start) {
			return false
		}
	}
	return stable <= limit
}

// compareAborted reads a part of the log as a client does, which leaves out aborted records, and compares.
func (w *world) compareAborted(i int, m *modelLog, l *Log, all []*modelTransaction, part [2]record.Offset) {
	list, err := AbortedTransactions(l, part[0], part[1])
	if err != nil && w.sick {
		return
	}
	for k, a := range list {
		isKnown := slices.ContainsFunc(all, func(t *modelTransaction) bool {
			return t.producer == a.Producer && t.marker == a.Last && !t.isCommitted && t.first <= a.First
		})
		if !isKnown || a.Last < part[0] || a.First >= part[1] || k > 0 && list[k-1].First > a.First {
			w.tb.Fatalf("log %d: of %v %+v were aborted: %+v", i, part, list, m.txns)
		}
	}
	if err != nil {
		w.tb.Fatalf("log %d: %v", i, err)
	}
	isAborted := map[int64]bool{}
	for _, b := range m.txns {
		if b.next <= part[0] || b.base >= part[1] || !w.hasSeen(b) { // compaction has removed it
			continue
		}
		for len(list) > 0 && list[0].First < b.next {
			isAborted[list[0].Producer], list = true, list[1:]
		}
		if b.isEnd {
			if !b.isCommitted {
				delete(isAborted, b.producer)
			}
			continue
		}
		for _, t := range all {
			if t.producer == b.producer && t.first <= b.base && b.base < t.marker && isAborted[b.producer] == t.isCommitted {
				w.tb.Fatalf("log %d: of %v the batch at %d, whose transaction ended at %d, is committed: %v: %+v", i, part, b.base, t.marker, t.isCommitted, m.txns)
			}
		}
	}
}

// fillNumbers builds a batch of n records that carry numbers used nowhere else.
func (w *world) fillNumbers(bu *record.Builder, n, size int) (record.Batch, []int64) {
	var nums []int64
	w.mu.Lock()
	for range n {
		w.lastNum++
		nums = append(nums, w.lastNum)
	}
	w.mu.Unlock()
	for _, num := range nums {
		v := make([]byte, 8+w.rng.IntN(size))
		binary.BigEndian.PutUint64(v, uint64(num))
		bu.Append(1_700_000_000_000+num, w.pickKey(num), v)
	}
	b, err := bu.Build()
	if err != nil {
		w.tb.Fatal(err)
	}
	return b, nums
}
