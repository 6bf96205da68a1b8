package storage

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"sort"
	"sync"
	"sync/atomic"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/checkpoint"
	"github.com/leatstream/leat/internal/storage/producer"
	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/storage/transaction"
)

// Claim is what the caller of Append knows of the transaction of a batch.
type Claim = producer.Claim

// Abort is a transaction that was aborted.
type Abort = transaction.Abort

// OpenTransaction is a transaction that is open in a log.
type OpenTransaction = transaction.Open

// maxAborts is how many aborted transactions a segment has, about: with more it is full. Those of
// the active segment are in memory, and are written with each producer snapshot.
const maxAborts = 50_000

// transactions is what a log knows of its transactions.
type transactions struct {
	// first is the offset below which no batch is of a transaction; transaction.None: no batch of
	// the log is. Changed with pub held.
	first atomic.Int64
	// view is the truth once it is loaded: at the first append, or when a reader first asks. Both are
	// written with mu and pub held, so that either of them is enough to read them. It changes only with the log's end.
	view     transaction.View
	isLoaded bool

	rebuilding sync.Mutex // held while the log is read for aborted transactions; after mu
}

// firstOffset is the offset below which no batch is of a transaction; transaction.None: none is.
func (t *transactions) firstOffset() record.Offset { return record.Offset(t.first.Load()) }

// any tells whether any batch of the log may be of a transaction.
func (t *transactions) any() bool { return t.firstOffset() != transaction.None }

// anyBelow tells whether any batch of the log below an offset may be of a transaction.
func (t *transactions) anyBelow(end record.Offset) bool {
	first := t.firstOffset()
	return first != transaction.None && first < end
}

// minTxn is the lower one of the first offsets of transactions, each of which may be transaction.None.
func minTxn(a, b record.Offset) record.Offset {
	if a == transaction.None || b != transaction.None && b < a {
		return b
	}
	return a
}

// StableEnd is the last stable offset of a log (LSO) where limit is its high watermark: up to it all
// transactions are decided, and their markers lie below limit. It is not below the log's start.
func StableEnd(l *Log, limit record.Offset) (record.Offset, error) {
	if err := loadTransactions(l); err != nil {
		return -1, err
	}
	if !l.txns.any() {
		return limit, nil
	}
	l.pub.Lock()
	defer l.pub.Unlock()
	return max(l.txns.view.StableEnd(limit), min(limit, record.Offset(l.start.Load()))), nil
}

// HasTransactions tells whether any batch of an open log below an offset may be of a transaction.
func HasTransactions(l *Log, end record.Offset) bool { return l.txns.anyBelow(end) }

// OpenTransactions lists the transactions that are open in a log, in the order of their first offsets.
func OpenTransactions(l *Log) ([]OpenTransaction, error) {
	if err := loadTransactions(l); err != nil {
		return nil, err
	}
	l.pub.Lock()
	defer l.pub.Unlock()
	return slices.Clone(l.txns.view.Open()), nil
}

// HasOpenTransaction tells whether a producer has an open transaction in an epoch.
func HasOpenTransaction(l *Log, id int64, epoch int16) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.makeUsableLocked(); err != nil || !l.txns.any() {
		return false, err
	}
	if err := l.prepareWriterLocked(); err != nil {
		return false, err
	}
	return l.writer.producers.HasOpen(id, epoch), nil
}

// AbortedTransactions lists the aborted transactions that have records from an offset on and below another
// one, in the order of their first offsets, as clients need them.
func AbortedTransactions(l *Log, from, upper record.Offset) ([]Abort, error) {
	if err := loadTransactions(l); err != nil {
		return nil, err
	}
	if !l.txns.anyBelow(upper) {
		return nil, nil
	}
	for {
		l.pub.Lock()
		segs, active := l.segs, transaction.Find(l.txns.view.Aborted(), from, upper)
		l.pub.Unlock()
		found, isComplete, err := findAborts(l, segs, from, upper)
		switch {
		case err == nil && !isComplete:
			found = append(found, active...)
		case err != nil && !hasSegments(l, segs): // retention or a truncation took some: look again
			continue
		case err != nil:
			return nil, err
		}
		slices.SortStableFunc(found, func(a, b Abort) int { return int(min(max(a.First-b.First, -1), 1)) })
		return found, nil
	}
}

// hasSegments tells whether segments are all part of the log still.
func hasSegments(l *Log, segs []*segment.Segment) bool {
	return !slices.ContainsFunc(segs, func(g *segment.Segment) bool { return !l.hasSegment(g) })
}

// findAborts finds aborted transactions with markers in the closed ones of a log's segments, in the order of
// their markers. isComplete says that those with later markers begin behind upper.
func findAborts(l *Log, segs []*segment.Segment, from, upper record.Offset) (found []Abort, isComplete bool, err error) {
	i := max(sort.Search(len(segs), func(i int) bool { return segs[i].Base() > from })-1, 0)
	for ; i < len(segs)-1; i++ {
		g := segs[i]
		_, next := g.End()
		if next <= from || !l.txns.anyBelow(next) {
			continue
		}
		list, s, err := segment.FindAborts(g, from, upper, next)
		if errors.Is(err, segment.ErrNoAborts) && hasSegments(l, segs) {
			if list, s, err = findAbortsAnew(l, segs[:len(segs)-1], i, from, upper); err != nil {
				return nil, false, err
			}
		}
		if err != nil {
			return nil, false, l.explainError(g, err)
		}
		found = append(found, list...)
		if s.Stable >= upper {
			return found, true, nil
		}
	}
	return found, false, nil
}

// findAbortsAnew finds aborted transactions in the i-th one of a log's closed segments, whose file
// cannot be used: it reads the log, and writes all files that cannot be used.
func findAbortsAnew(l *Log, closed []*segment.Segment, i int, from, upper record.Offset) ([]Abort, transaction.Summary, error) {
	g := closed[i]
	_, next := g.End()
	l.txns.rebuilding.Lock()
	list, s, err := segment.FindAborts(g, from, upper, next) // another reader may have made it meanwhile
	l.txns.rebuilding.Unlock()
	if err == nil {
		return list, s, nil
	}
	l.s.log.Warn("the index of aborted transactions is missing or damaged; it is made anew from the log", "log", l.name, "offset", int64(g.Base()), "err", err)
	if _, err := rebuildAborts(l, closed); err != nil {
		return nil, s, err
	}
	return segment.FindAborts(g, from, upper, next)
}

// rebuildAborts reads segments of a log, from the one with its start on, and writes for all but the
// last one the files of aborted transactions that cannot be used; for the last one, too, if it is closed.
// It returns the aborted transactions whose markers are in the last one.
func rebuildAborts(l *Log, segs []*segment.Segment) ([]Abort, error) {
	l.txns.rebuilding.Lock()
	defer l.txns.rebuilding.Unlock()
	var v transaction.View
	var t transaction.Tracker
	for i, g := range segs {
		_, next := g.End()
		v.SetAborted(nil)
		v.Forget(math.MaxInt64)
		if i+1 < len(segs) && segs[i+1].Base() <= record.Offset(l.start.Load()) || !l.txns.anyBelow(next) {
			continue
		}
		if err := trackTransactions(g, &t, &v); err != nil {
			return nil, l.explainError(g, err)
		}
		if g == l.activeSegment() {
			continue
		}
		if _, _, err := segment.FindAborts(g, next, next, next); errors.Is(err, segment.ErrNoAborts) {
			if err := segment.SaveAborts(g, v.Aborted(), next, v.Stable(next), false); err != nil {
				return nil, l.explainError(g, err)
			}
		}
	}
	return v.Aborted(), nil
}

// trackTransactions applies the transactions of a segment's batches.
func trackTransactions(g *segment.Segment, t *transaction.Tracker, v *transaction.View) error {
	w, closeWalk, err := g.Walk(0, g.Base(), false)
	if err != nil {
		return err
	}
	defer closeWalk()
	for {
		b, err := w.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			b, err = w.Whole(b)
		}
		if err != nil {
			return err
		}
		if b.ProducerID() >= 0 {
			v.Apply(t.Apply(b))
		}
	}
}

// loadTransactions sees to it that the log's view is loaded, if the log has transactions.
func loadTransactions(l *Log) error {
	if err := l.makeUsable(); err != nil || !l.txns.any() {
		return err
	}
	l.pub.Lock()
	isLoaded := l.txns.isLoaded
	l.pub.Unlock()
	if isLoaded {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.makeUsableLocked(); err != nil {
		return err
	}
	return l.prepareWriterLocked()
}

// noteTransaction notes what an item of the run does to a transaction.
func (w *writer) noteTransaction(b record.Batch, c transaction.Change) {
	if !b.Transactional() {
		return
	}
	if w.firstTxn == transaction.None {
		w.firstTxn = b.BaseOffset()
	}
	if b.Control() {
		w.markers++
	}
	if c.Kind != transaction.Unchanged {
		w.changes = append(w.changes, c)
	}
}

// publishTransactionsLocked shows readers what a run that was written does to transactions. Those that
// ended are forgotten when neither a power cut nor another leader takes their markers back. pub is held.
func (w *writer) publishTransactionsLocked() {
	l := w.l
	t := &l.txns
	t.first.Store(int64(minTxn(t.firstOffset(), w.firstTxn)))
	for _, c := range w.changes {
		t.view.Apply(c)
	}
	t.view.Forget(min(record.Offset(l.highWatermark.Load()), l.stable.Next))
}

// sealAborts writes the aborted transactions of the active segment, which is going to be closed.
func (w *writer) sealAborts(g *segment.Segment) error {
	t := &w.l.txns
	_, next := g.End()
	if !t.anyBelow(next) {
		return nil
	}
	return segment.SaveAborts(g, t.view.Aborted(), next, t.view.Stable(next), false)
}

// activeAborts are the aborted transactions of the active segment, to be written with a producer
// snapshot. The zero value is of a log without transactions.
type activeAborts struct {
	g            *segment.Segment
	list         []Abort
	upTo, stable record.Offset
}

// copyAborts copies the aborted transactions of the active segment. The log's mu is held, and its
// writer is there.
func copyAborts(l *Log) activeAborts {
	end := l.end
	if end.Segment == nil || !l.txns.anyBelow(end.Next) {
		return activeAborts{}
	}
	return activeAborts{end.Segment, l.txns.view.Aborted(), end.Next, l.txns.view.Stable(end.Next)}
}

func (a *activeAborts) save(sync bool) error {
	if a.g == nil {
		return nil
	}
	return segment.SaveAborts(a.g, a.list, a.upTo, a.stable, sync)
}

// noteTransactionsLocked puts into a log's point what the next opening must know of transactions. pub
// is held.
func noteTransactionsLocked(l *Log, p *checkpoint.Point) {
	first := l.txns.firstOffset()
	if first == transaction.None {
		return
	}
	p.Transactional, p.TransactionsFrom = true, first
	p.Stable = l.opened.Stable
	if l.txns.isLoaded {
		p.Stable = max(l.txns.view.StableEnd(p.HighWatermark), 0)
	}
}

// admission lets transactions, or cuts, into a store when a checkpoint on disk says that there may be any: a
// version of this program that does not know them must refuse the directory before it has any.
type admission struct {
	wanted  atomic.Bool   // the next checkpoint says so
	isSaved atomic.Bool   // one on disk does; set once
	saved   chan struct{} // closed when isSaved is set
}

// admitTransaction returns ErrUnprepared for the first batches of transactions in a store, until a checkpoint that it
// hurries is saved.
func admitTransaction(k *keeper) error {
	if k.txns.isSaved.Load() {
		return nil
	}
	k.txns.wanted.Store(true)
	k.checkpointSoon()
	return ErrUnprepared
}

// ExpectTransactions has a checkpoint note that the store may have transactions, so that the first batch of one need not
// wait for that. The channel is closed when the checkpoint is on disk. Until then transactions are refused with ErrUnprepared.
func ExpectTransactions(s *Store) <-chan struct{} {
	k := &s.keeper
	if !k.txns.isSaved.Load() {
		k.txns.wanted.Store(true)
		k.checkpointSoon()
	}
	return k.txns.saved
}

// noteSaved notes that checkpoints are on disk; nil: there is none.
func noteSaved(k *keeper, sheets ...*checkpoint.Sheet) {
	for _, s := range sheets {
		if s != nil && s.Transactional {
			k.txns.admit()
		}
		if s != nil && s.Cut {
			k.cuts.admit()
		}
	}
}

// admit notes that a checkpoint on disk says so.
func (a *admission) admit() {
	a.wanted.Store(true)
	if !a.isSaved.Swap(true) {
		close(a.saved)
	}
}

// nameTransactionError makes the error of a transaction for which there is no memory one after which
// clients try again.
func nameTransactionError(err error) error {
	if errors.Is(err, producer.ErrManyOpen) {
		return fmt.Errorf("%w: %w", ErrBusy, err)
	}
	return err
}
