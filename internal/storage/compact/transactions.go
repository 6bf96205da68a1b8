package compact

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/leatstream/leat/internal/record"
)

// ErrTransactions is returned if the batches contradict the list of aborted transactions, or each
// other. The log must not be compacted then, since records could be lost.
var ErrTransactions = errors.New("the list of aborted transactions does not fit the log")

// Aborted is an aborted transaction, as the index of a segment has it.
type Aborted struct {
	Producer    int64
	First, Last record.Offset // of its first record and of its marker
	LastStable  record.Offset // the last stable offset after its marker
}

// transactions follows the transactions of a log from batch to batch.
type transactions struct {
	coming []Aborted // whose first record is still to come, by First; may have entries twice
	// open has the aborted transactions that have begun and whose marker is still to come, by producer.
	open map[int64]*abortedOpen
	// committed has the producers of which a batch was read whose transaction was not aborted and has no marker yet.
	committed map[int64]bool
	left      []Aborted // have ended, and some batch of them was read; by Last
}

// abortedOpen is an aborted transaction whose marker is still to come.
type abortedOpen struct {
	Aborted

	seen bool // a batch of it was read
}

func newTransactions(aborted []Aborted) transactions {
	t := transactions{open: map[int64]*abortedOpen{}, committed: map[int64]bool{}}
	t.addAborted(aborted)
	return t
}

func (t *transactions) addAborted(list []Aborted) {
	t.coming = append(t.coming, list...)
	slices.SortFunc(t.coming, func(a, b Aborted) int {
		return cmp.Or(cmp.Compare(a.First, b.First), cmp.Compare(a.Producer, b.Producer))
	})
}

// begin opens the transactions that begin up to the end of a batch.
func (t *transactions) begin(b record.Batch) {
	n := 0
	for ; n < len(t.coming) && t.coming[n].First <= b.LastOffset(); n++ {
		a := t.coming[n]
		before := t.open[a.Producer]
		// An entry that comes twice changes nothing, and one that has ended is over.
		if a.Last >= b.BaseOffset() && (before == nil || before.Last < a.First) {
			t.open[a.Producer] = &abortedOpen{Aborted: a}
		}
	}
	if t.coming = t.coming[n:]; len(t.coming) == 0 {
		t.coming = nil
	}
}

// noteBatch tells whether a batch that is no control batch is part of an aborted transaction.
func (t *transactions) noteBatch(b record.Batch) (aborted bool) {
	t.begin(b)
	if !b.Transactional() {
		return false
	}
	if a := t.open[b.ProducerID()]; a != nil && b.BaseOffset() <= a.Last {
		a.seen = true
		return true
	}
	t.committed[b.ProducerID()] = true
	return false
}

// noteMarker tells whether the transaction that a control batch ends has no batch left. It is
// true for a batch that has no marker any more, and false for control records that are no marker.
func (t *transactions) noteMarker(b record.Batch) (empty bool, err error) {
	t.begin(b)
	if b.Count() == 0 {
		return true, nil
	}
	m, err := record.ReadMarker(b)
	if err != nil {
		return false, nil //nolint:nilerr // it is of a kind that this version does not know, and stays
	}
	id := b.ProducerID()
	a, committed := t.open[id], t.committed[id]
	aborted := a != nil && a.seen && b.BaseOffset() <= a.Last
	delete(t.open, id)
	delete(t.committed, id)
	switch {
	case m.Commit && aborted:
		return false, fmt.Errorf("%w: producer %d has committed at offset %d a transaction that is in the list", ErrTransactions, id, b.BaseOffset())
	case !m.Commit && committed:
		return false, fmt.Errorf("%w: producer %d has aborted at offset %d a transaction that is not in the list", ErrTransactions, id, b.BaseOffset())
	case aborted:
		t.left = append(t.left, a.Aborted)
	}
	return !committed && !aborted, nil
}
