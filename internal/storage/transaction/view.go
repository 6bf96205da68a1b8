// Package transaction has what readers of a log must know of its transactions (KIP-98): up to
// which offset all of them are decided, and which of them were aborted. A View is what is in
// memory of that, a Summary describes the index file of a segment, and a Change is what a batch
// does to the transaction of its producer.
//
// A transaction of a producer goes through these states in a log:
//
//	          a transactional batch        a marker                  the high watermark passes the marker
//	(nothing) ---------------------> open ----------> ended in View ---------------------------------> (nothing)
//
// While it is open, or its marker may still be lost, no reader of committed records gets beyond its
// first record. Of one that was aborted an Aborted stays for as long as its marker is in the log.
//
// A View is for one goroutine at a time.
package transaction

import (
	"slices"
	"sort"

	"github.com/leatstream/leat/internal/record"
)

// None stands for the first offset of a transaction that is not open.
const None record.Offset = -1

// Kind is the kind of a Change.
type Kind uint8

// The kinds.
const (
	Unchanged Kind = iota
	Begun          // the batch is the first one of a transaction
	Committed      // the batch is a marker that commits one
	Aborted        // the batch is a marker that aborts one
)

// Change is what a batch does to the transaction of its producer.
type Change struct {
	Kind     Kind
	Producer int64
	First    record.Offset // of the transaction
	Marker   record.Offset // its end, unless Kind is Begun
}

// Step finds what a batch of a producer does, whose open transaction begins at an offset, or at
// None. A marker without a transaction, and a control batch without a marker, do nothing. Of a
// control batch all bytes are needed.
func Step(first record.Offset, b record.Batch) Change {
	c := Change{Producer: b.ProducerID(), First: first}
	switch {
	case b.Control():
		m, err := record.ReadMarker(b)
		if err != nil || first == None {
			return c
		}
		c.Marker, c.Kind = b.LastOffset(), Aborted
		if m.Commit {
			c.Kind = Committed
		}
	case b.Transactional() && first == None:
		c.Kind, c.First = Begun, b.BaseOffset()
	}
	return c
}

// Open is an open transaction.
type Open struct {
	Producer int64
	First    record.Offset // of its first record
}

// Abort is a transaction that was aborted.
type Abort struct {
	Producer int64
	First    record.Offset // of its first record, or of the first one that the log still had
	Last     record.Offset // of its marker
	Stable   record.Offset // the last stable offset behind its marker
}

// ended is a transaction whose marker may be lost.
type ended struct{ first, marker record.Offset }

// maxEnded is how many of them a View has. Beyond it they are merged: then readers wait for a
// later marker than they must.
const maxEnded = 4096

// View has the open transactions of a log, those that ended beyond its high watermark, and those
// that were aborted by a marker in its active segment. The zero View has none.
type View struct {
	open []Open // in the order of First
	// ended has no transaction that begins behind a later one, which would hold readers back in any
	// case: both fields rise.
	ended   []ended
	aborted []Abort // in the order of Last
}

// Apply applies the change of a batch that follows all those before.
func (v *View) Apply(c Change) {
	switch c.Kind {
	case Begun:
		v.AddOpen(Open{c.Producer, c.First})
	case Committed, Aborted:
		i := v.searchOpen(c.First)
		if i < len(v.open) && v.open[i].First == c.First {
			v.open = slices.Delete(v.open, i, i+1)
		}
		v.Hold(c.First, c.Marker)
		if c.Kind == Aborted {
			v.aborted = append(v.aborted, Abort{c.Producer, c.First, c.Marker, v.Stable(c.Marker + 1)})
		}
	case Unchanged:
	}
}

// AddOpen adds an open transaction.
func (v *View) AddOpen(o Open) { v.open = slices.Insert(v.open, v.searchOpen(o.First), o) }

// DropOpen drops the open transactions that begin below an offset, of which the caller knows that they have ended.
func (v *View) DropOpen(below record.Offset) { v.open = slices.Delete(v.open, 0, v.searchOpen(below)) }

// searchOpen is the place of the open transaction that begins at an offset, or of the first one after it.
func (v *View) searchOpen(first record.Offset) int {
	if n := len(v.open); n == 0 || v.open[n-1].First < first { // the usual case of a new one
		return n
	}
	return sort.Search(len(v.open), func(i int) bool { return v.open[i].First >= first })
}

// Hold has readers wait at an offset until the high watermark has passed a marker, which follows
// all those before.
func (v *View) Hold(first, marker record.Offset) {
	n := len(v.ended)
	for n > 0 && v.ended[n-1].first >= first {
		n--
	}
	v.ended = append(v.ended[:n], ended{first, marker})
	if len(v.ended) > maxEnded {
		v.mergeEnded()
	}
}

// mergeEnded makes one of each two neighbours, which holds readers back for as long as both did.
func (v *View) mergeEnded() {
	merged := v.ended[:0]
	for i := 0; i < len(v.ended); i += 2 {
		last := min(i+1, len(v.ended)-1)
		merged = append(merged, ended{v.ended[i].first, v.ended[last].marker})
	}
	v.ended = merged
}

// Forget forgets the ended transactions whose markers lie below an offset, which none of them can
// be lost from any more.
func (v *View) Forget(below record.Offset) {
	if n := v.searchEnded(below); n > 0 {
		v.ended = slices.Delete(v.ended, 0, n)
	}
}

// searchEnded is the place of the first ended transaction whose marker does not lie below an offset.
func (v *View) searchEnded(below record.Offset) int {
	return sort.Search(len(v.ended), func(i int) bool { return v.ended[i].marker >= below })
}

// StableEnd is the last stable offset where limit is the high watermark: the first offset, up to
// limit, of a transaction that is open, or whose marker does not lie below limit.
func (v *View) StableEnd(limit record.Offset) record.Offset {
	end := v.Stable(limit)
	if i := v.searchEnded(limit); i < len(v.ended) {
		end = min(end, v.ended[i].first)
	}
	return end
}

// Stable is the first offset of an open transaction, or an offset if that is lower.
func (v *View) Stable(end record.Offset) record.Offset {
	if len(v.open) > 0 {
		return min(end, v.open[0].First)
	}
	return end
}

// Open lists the open transactions, in the order of their first offsets. The caller must not change
// the list, which is valid until the View changes.
func (v *View) Open() []Open { return v.open }

// Aborted lists the aborted transactions, in the order of their markers. The caller must not change
// the list; Apply and TakeAborted never change what it has.
func (v *View) Aborted() []Abort { return v.aborted }

// SetAborted replaces the aborted transactions, which are in the order of their markers.
func (v *View) SetAborted(list []Abort) { v.aborted = list }

// Tracker finds the changes of batches where nothing else knows their producers. The zero Tracker
// is ready.
type Tracker struct {
	firsts map[int64]record.Offset // by producer: of open transactions
}

// Apply finds the change of a batch that follows all those before. Of a control batch all bytes are
// needed.
func (t *Tracker) Apply(b record.Batch) Change {
	first, isOpen := t.firsts[b.ProducerID()]
	if !isOpen {
		first = None
	}
	c := Step(first, b)
	switch c.Kind {
	case Begun:
		if t.firsts == nil {
			t.firsts = map[int64]record.Offset{}
		}
		t.firsts[c.Producer] = c.First
	case Committed, Aborted:
		delete(t.firsts, c.Producer)
	case Unchanged:
	}
	return c
}

// Overlaps tells whether a transaction has records within a part of the log.
func (a Abort) Overlaps(from, upper record.Offset) bool { return a.Last >= from && a.First < upper }

// Find lists the transactions that have records from an offset on and below another one. list is in
// the order of markers.
func Find(list []Abort, from, upper record.Offset) (found []Abort) {
	for _, a := range list[sort.Search(len(list), func(i int) bool { return list[i].Last >= from }):] {
		if a.Overlaps(from, upper) {
			found = append(found, a)
		}
	}
	return found
}
