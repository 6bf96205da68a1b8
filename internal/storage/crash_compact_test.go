package storage

import (
	"fmt"
	"time"

	"github.com/leatstream/leat/internal/record"
)

// modelKeys is how many keys the records of a compacted world have.
const modelKeys = 6

// beCompacted makes most logs of a world compacted ones.
func (w *world) beCompacted() {
	w.compacts, w.keys = true, map[int64]string{}
	for i, m := range w.model {
		m.compacts = i != 1
	}
	w.before = w.cloneModel()
}

// pickKey is the key of the record with a number. Only in a compacted world records have keys.
func (w *world) pickKey(num int64) []byte {
	if !w.compacts {
		return nil
	}
	key := fmt.Sprint("k", w.rng.IntN(modelKeys))
	w.mu.Lock()
	w.keys[num] = key
	w.mu.Unlock()
	return []byte(key)
}

// hasSeen tells whether a log was seen to have a record of a batch, or the marker.
func (w *world) hasSeen(b modelTxn) bool {
	for o := b.base; o < b.next; o++ {
		if w.seen[o] {
			return true
		}
	}
	return false
}

// mayLack tells whether compaction may have removed a whole batch: one of a transaction that was aborted then, even if
// a truncation took the marker since.
func (m *modelLog) mayLack(b modelTxn) bool {
	for o := b.base; o < b.next; o++ {
		if !m.gone[o] {
			return false
		}
	}
	return true
}

// compact has the i-th log compacted, if it is a compacted one. A crash in the middle may leave any part
// of that done, so the model knows before which records may go.
func (w *world) compact(i int) {
	m, l := w.model[i], w.logs[i]
	if !m.compacts {
		return
	}
	if w.rng.IntN(3) > 0 {
		w.s.Commit()
		w.s.keeper.checkpointNow()
	}
	w.noteCommitted(i, l)
	w.mu.Lock()
	m.noteGone(m.committed, w.keys)
	w.mu.Unlock()
	before := w.s.cleaner.rounds.Load()
	w.s.cleaner.compactOne(w.tb.Context(), l, time.UnixMilli(1_700_000_000_000))
	if w.s.cleaner.rounds.Load() > before {
		w.rounds++
	}
	if err := UncleanableError(l); err != nil && !w.sick {
		w.tb.Fatalf("log %d cannot be compacted: %v", i, err)
	}
}

// noteGone notes the offsets that a compaction of the log may remove: those of records for whose keys there is a
// later one below an offset, those of aborted transactions, and markers.
func (m *modelLog) noteGone(upper record.Offset, keys map[int64]string) {
	if m.gone == nil {
		m.gone = map[record.Offset]bool{}
	}
	undecided := map[record.Offset]bool{}
	for _, t := range m.listTransactions(0, record.Offset(len(m.records))) {
		for _, b := range m.txns {
			if b.producer != t.producer || b.isEnd || b.base < t.first || t.marker >= 0 && b.base > t.marker {
				continue
			}
			for o := b.base; o < b.next; o++ {
				switch {
				case t.marker < 0:
					undecided[o] = true
				case !t.isCommitted && t.marker < upper:
					m.gone[o] = true
					fallthrough
				case !t.isCommitted:
					undecided[o] = true // it supersedes no other
				}
			}
		}
	}
	latest := map[string]bool{}
	for o := upper - 1; o >= 0; o-- {
		num := m.records[o]
		switch {
		case num == noRecord || undecided[o]:
		case num == isMarker:
			m.gone[o] = true
		case latest[keys[num]]:
			m.gone[o] = true
		default:
			latest[keys[num]] = true
		}
	}
}
