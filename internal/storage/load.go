package storage

import (
	"errors"
	"io"
	"math"
	"slices"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/producer"
	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/storage/transaction"
)

// loading builds the producers of a log, and what readers must know of its transactions, from a
// producer snapshot and the batches behind that.
type loading struct {
	l    *Log
	ps   *producer.State
	view transaction.View
	to   record.Offset // batches from it on do not count
	now  int64         // ms

	skipsView bool // nobody needs view: the log has no transactions, or has a better one

	snapshot  record.Offset // that was read; -1: none was
	from      record.Offset // it is the truth up to here; without one there were no producers before
	isDamaged bool          // a newer snapshot cannot be read
	rebuilt   bool          // the aborted transactions of the last segment were not in its file
}

// loadProducers builds the state of the producers from the newest snapshot that can be read and the
// batches after it. The log's mu is held.
func loadProducers(l *Log, ps *producer.State) (transaction.View, error) {
	ld := &loading{l: l, ps: ps, to: math.MaxInt64, now: time.Now().UnixMilli()}
	l.pub.Lock()
	ld.skipsView = l.txns.isLoaded || !l.txns.any()
	older := slices.DeleteFunc(slices.Clone(l.snapshots.older), func(at record.Offset) bool { return at >= l.opened.Snapshot })
	l.pub.Unlock()
	if l.opened.Snapshot >= 0 {
		older = append(older, l.opened.Snapshot)
	}
	if err := ld.readSnapshot(older, l.opened.ProducersAt); err != nil {
		return ld.view, err
	}
	ld.beginView(l.opened.HighWatermark, l.opened.Stable)
	changed, err := ld.applySegments(l.segments())
	if err != nil {
		return ld.view, err
	}
	ps.SetChanged(changed || ld.rebuilt)
	if ld.isDamaged {
		replaceSnapshot(l, ps, ld.from)
	}
	if ps.Evict() { // it makes final what was applied
		l.s.producers.boundSoon()
	}
	return ld.view, nil
}

// readSnapshot reads the newest one of some producer snapshots that can be read; they are in the order of
// their offsets. truthTo is the offset up to which the last one is the truth, or there were no producers if
// there is none. An older one has the producers whose batches are not in the log any more, since the newer
// one was written before their segments went.
func (ld *loading) readSnapshot(all []record.Offset, truthTo record.Offset) error {
	l := ld.l
	if ld.snapshot = -1; len(all) == 0 {
		ld.from = max(truthTo, 0)
		return nil
	}
	for i, at := range slices.Backward(all) {
		err := readProducers(l.s.fs, l.dir.Path(segment.FileName(at, snapshotSuffix)), ld.ps, ld.now)
		if err == nil {
			ld.snapshot, ld.from = at, at
			if i == len(all)-1 {
				ld.from = max(at, truthTo)
			}
			return nil
		}
		if classify(err) == transient {
			return nameError(err)
		}
		l.s.log.Warn("a producer snapshot is damaged or missing; an older one is read instead, and the log behind it", "log", l.name, "offset", int64(at), "err", err)
		ld.isDamaged = true
	}
	ld.from = 0
	return nil
}

// replaceSnapshot has a new producer snapshot written, since the newest one is damaged. Until then an
// older one, and the log from an offset on, are the truth.
func replaceSnapshot(l *Log, ps *producer.State, truthTo record.Offset) {
	ps.SetChanged(true)
	l.pub.Lock()
	defer l.pub.Unlock()
	l.snapshots.truthTo = truthTo
	l.due.snapshot = true
	l.listLocked()
}

// beginView takes the open transactions from the snapshot. That does not have those whose markers lie
// below it, but not below the high watermark: stable was the last stable offset there.
func (ld *loading) beginView(high, stable record.Offset) {
	if ld.skipsView {
		return
	}
	for _, o := range ld.ps.Open() {
		ld.view.AddOpen(o)
	}
	if high < ld.from {
		ld.view.Hold(stable, ld.from-1)
	}
}

// applySegments applies the batches of segments, and ends with the aborted transactions of the last
// one. It tells whether a producer wrote any of the batches.
func (ld *loading) applySegments(segs []*segment.Segment) (changed bool, err error) {
	for i, g := range segs {
		size, next := g.End()
		isLast := i == len(segs)-1
		ld.view.SetAborted(nil) // those of the segments before are in files
		if size == 0 || next <= ld.from && !isLast {
			continue
		}
		isComplete, err := ld.beginAborts(segs[:i+1], isLast)
		if err != nil {
			return changed, err
		}
		if next > ld.from {
			found, err := ld.applyBatches(g)
			changed = changed || found
			switch {
			case err == nil:
			case next <= record.Offset(ld.l.start.Load()) && errors.Is(err, segment.ErrTorn):
				isComplete = false // the segment was deleted, and a crash brought back a part of it
			default:
				return changed, ld.l.explainError(g, err)
			}
		}
		if isComplete && !isLast {
			ld.keepAborts(g, next)
		}
	}
	return changed, nil
}

// applyBatches applies the batches of a segment from an offset on. found tells whether a producer
// wrote any of them.
func (ld *loading) applyBatches(g *segment.Segment) (found bool, err error) {
	pos, least := int64(0), g.Base()
	if ld.from > g.Base() {
		at, err := g.Locate(ld.from)
		if errors.Is(err, io.EOF) {
			return false, nil // a gap at the segment's end
		}
		if err != nil {
			return false, err
		}
		pos, least = at.Pos, at.Base
	}
	w, closeWalk, err := g.Walk(pos, least, false)
	if err != nil {
		return false, err
	}
	defer closeWalk()
	for {
		b, err := w.Next()
		if errors.Is(err, io.EOF) || err == nil && b.BaseOffset() >= ld.to {
			return found, nil
		}
		if err == nil {
			b, err = w.Whole(b)
		}
		if err != nil {
			return found, err
		}
		if b.ProducerID() >= 0 && b.BaseOffset() >= ld.from {
			c := ld.ps.Apply(b, ld.now)
			ld.ps.Evict()
			if !ld.skipsView {
				ld.view.Apply(c)
			}
			found = true
		}
	}
}

// beginAborts begins the last one of some segments with the aborted transactions whose markers lie in it,
// below the batches that are applied. isComplete says that it has all of them. Of the log's last segment they
// are needed: where its file cannot be used, the log is read from its start.
func (ld *loading) beginAborts(segs []*segment.Segment, isLast bool) (isComplete bool, err error) {
	l, g := ld.l, segs[len(segs)-1]
	if ld.skipsView || g.Base() >= ld.snapshot || l.txns.firstOffset() >= ld.snapshot {
		return true, nil // there are none
	}
	list, _, err := segment.FindAborts(g, 0, math.MaxInt64, ld.snapshot)
	switch {
	case errors.Is(err, segment.ErrNoAborts) && isLast:
		l.s.log.Warn("the index of aborted transactions is missing or damaged; it is made anew from the log", "log", l.name, "offset", int64(g.Base()), "err", err)
		if list, err = rebuildAborts(l, segs); err != nil {
			return false, err
		}
		ld.rebuilt = true
	case errors.Is(err, segment.ErrNoAborts):
		return false, nil // who needs it makes it anew
	case err != nil:
		return false, l.explainError(g, err)
	}
	n, _ := slices.BinarySearchFunc(list, ld.from, func(a transaction.Abort, at record.Offset) int { return int(min(max(a.Last-at, -1), 1)) })
	ld.view.SetAborted(slices.Clip(list[:n]))
	return true, nil
}

// keepAborts writes the file of a closed segment's aborted transactions, unless it has one: a power
// cut may have taken it. If it cannot, who needs it makes it anew.
func (ld *loading) keepAborts(g *segment.Segment, next record.Offset) {
	if ld.skipsView || !ld.l.txns.anyBelow(next) {
		return
	}
	if _, _, err := segment.FindAborts(g, next, next, next); !errors.Is(err, segment.ErrNoAborts) {
		return
	}
	if err := segment.SaveAborts(g, ld.view.Aborted(), next, ld.view.Stable(next), false); err != nil {
		ld.l.s.log.Debug("an index of aborted transactions could not be written", "log", ld.l.name, "err", err)
	}
}
