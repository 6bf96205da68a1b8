package storage

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/vfs"
)

// Item is one batch to append, and what became of it.
type Item struct {
	Batch record.Batch  // checked by the caller; offset and epoch are stamped in place
	Early bool          // it is answered before it is committed: what survives the process has it when Append returns
	Base  record.Offset // out: its base offset, or the earlier one's where it is a duplicate
	Next  record.Offset // out: the offset after its last record
	Start record.Offset // out: the log's start offset
	Time  int64         // out: where it is a duplicate, the first one's append time in ms (-1: none)
	Dup   bool          // out: a retry of one of the producer's last five batches: nothing was stored
	Err   error         // out: why it was not stored
}

// writer is what only a log that is appended to needs. Guarded by Log.mu.
type writer struct {
	producers producers
	run       []*Item  // placed behind each other, not written yet
	bufs      [][]byte // their bytes
	bytes     int64    // of bufs
	next      record.Offset
	jitter    int64 // ms that the active segment is rolled earlier
}

// Append appends the items in order with one write. Each has its own outcome; a
// failed item leaves nothing behind and does not stop those after it, unless the
// log is unusable. Bytes are not used after it returns. In the page-cache mode
// (FlushMessages > 1) what it stored is committed when it returns, unless many logs
// are written to; else Store.Commit makes it so.
func (l *Log) Append(epoch record.Epoch, items []Item) {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.usableLocked()
	if err == nil {
		err = l.Fault()
	}
	if err == nil {
		err = l.prepareLocked()
	}
	if err == nil {
		l.pub.Lock()
		// Epochs rise along the log, also where a leader's append was overtaken by the next one's begin.
		epoch = max(epoch, l.epochs.last())
		l.pub.Unlock()
	}
	now := time.Now().UnixMilli()
	for i := range items {
		it := &items[i]
		it.Base, it.Next, it.Time, it.Dup, it.Err = -1, -1, -1, false, err
		it.Start = record.Offset(l.start.Load())
		if err == nil {
			it.Err = l.place(it, epoch, now)
		}
	}
	if err == nil {
		l.writeRun()
		l.writer.producers.expire(now, l.options().ProducerExpiration.Milliseconds())
	}
}

// place judges an item and puts it behind those placed before it, or says why not.
func (l *Log) place(it *Item, epoch record.Epoch, now int64) error {
	w, b := l.writer, it.Batch
	if len(b) < record.HeaderLen || b.Size() != len(b) || b.LastOffsetDelta() < 0 {
		return fmt.Errorf("%w: %d bytes", errTorn, len(b))
	}
	if dup, err := w.judge(it); dup || err != nil {
		return err
	}
	if err := l.s.space.take(int64(len(b))); err != nil {
		return err
	}
	rolled, err := l.makeRoom(b, now)
	if err != nil {
		return asAppendError(err)
	}
	if rolled { // what was placed before this one may have failed
		if err := l.Fault(); err != nil {
			return err
		}
		if dup, err := w.judge(it); dup || err != nil {
			return err
		}
	}
	b.SetBaseOffset(w.next)
	b.SetLeaderEpoch(epoch)
	it.Base, it.Next = w.next, b.NextOffset()
	w.next = it.Next
	if b.ProducerID() >= 0 {
		w.producers.apply(b, now)
	}
	w.run, w.bufs, w.bytes = append(w.run, it), append(w.bufs, b), w.bytes+int64(len(b))
	return nil
}

// judge tells whether an item is a duplicate, which it answers, or out of order.
func (w *writer) judge(it *Item) (dup bool, err error) {
	if it.Batch.ProducerID() < 0 {
		return false, nil
	}
	known, err := w.producers.check(it.Batch)
	if err != errDuplicate { //nolint:errorlint // check returns it as it is, and this is the fast path
		return false, err
	}
	it.Dup, it.Base, it.Next = true, known.lastOffset-record.Offset(known.delta), known.lastOffset+1
	if known.appendTime {
		it.Time = known.ms
	}
	return true, nil
}

// makeRoom sees to it that the active segment can take the batch: the first one is
// made, or a full or old one is closed after writing what was placed into it.
func (l *Log) makeRoom(b record.Batch, now int64) (rolled bool, err error) {
	w, o := l.writer, l.options()
	l.pub.Lock()
	g := l.activeLocked()
	if g == nil {
		l.pub.Unlock()
		return true, l.roll()
	}
	size := g.size + w.bytes
	last := w.next + record.Offset(b.LastOffsetDelta())
	offs, times := l.tail.entries()
	age := now - g.created
	if g.firstTime >= 0 && b.MaxTimestamp() >= 0 {
		age = b.MaxTimestamp() - g.firstTime
	}
	limit := o.SegmentAge.Milliseconds() - w.jitter
	roll := size > 0 && (size+int64(len(b)) > o.SegmentBytes || // by size
		o.SegmentAge > 0 && age > limit || // by age, of the records where they have times
		offs+len(w.run) >= o.IndexBytes/entryLen || times+len(w.run) >= o.IndexBytes/timeEntryLen-1 ||
		last-g.base > 1<<31-1) // an index's offsets are 32-bit
	l.pub.Unlock()
	if !roll {
		return false, nil
	}
	l.writeRun()
	if err := l.roll(); err != nil {
		return true, err
	}
	if l.crowded() {
		l.keepFiles()
		l.s.keeper.drop(l)
	}
	return true, nil
}

// writeRun writes what was placed with one call, and publishes it. Where that
// fails nothing is left behind.
func (l *Log) writeRun() {
	w := l.writer
	if len(w.run) == 0 {
		return
	}
	defer func() {
		clear(w.run) // neither items nor bytes are held on to
		clear(w.bufs)
		w.run, w.bufs, w.bytes = w.run[:0], w.bufs[:0], 0
		w.next = record.Offset(l.end.Load())
	}()
	l.pub.Lock()
	g := l.activeLocked()
	pos := g.size
	l.pub.Unlock()
	if l.late(g) {
		w.producers.settle()
		l.publish(g, pos, true)
		if l.s.late.bytes.Load() > l.s.late.limit { // then what came together goes with one write
			if err := g.writeOut(); err != nil {
				l.s.log.Debug("a log's last records wait on", "log", l.dir, "err", err)
			}
		}
		return
	}
	h, err := g.open()
	if err == nil {
		defer h.drop()
		if g.room > 0 {
			w.bufs = append(w.bufs, g.ending(pos+w.bytes)...)
		}
		if _, err = h.f.WriteVAt(w.bufs, pos); err != nil {
			l.cutBack(g, h.f, pos)
		}
	}
	if err != nil {
		l.s.space.check(err)
		w.producers.revert()
		for _, it := range w.run {
			it.Base, it.Next, it.Err = -1, -1, asAppendError(err)
		}
		return
	}
	w.producers.settle()
	l.publish(g, pos, false)
}

// cutBack takes away what a failed write left. It must not come back after a crash
// either, behind what is written there next: so the cut is synced. Where that
// fails, too, the log is closed to writers.
func (l *Log) cutBack(g *segment, f vfs.File, pos int64) {
	l.pub.Lock()
	allocated := g.allocated
	l.pub.Unlock()
	err := f.Truncate(pos)
	if err == nil {
		err = l.s.sync(f)
	}
	if err != nil {
		l.fail(fmt.Errorf("a failed write could not be taken back: %w", err))
		return
	}
	g.room = 0
	if allocated {
		l.pub.Lock()
		g.allocated = false
		l.pub.Unlock()
	}
}

// publish shows what was written, or is late, to readers and to the next commit and checkpoint.
func (l *Log) publish(g *segment, pos int64, late bool) {
	w, o, start := l.writer, l.options(), pos
	bufs := w.bufs[:len(w.run)] // without the file's ending
	l.pub.Lock()
	if late {
		g.waitLocked(bufs, w.bytes)
	}
	if record.Offset(l.end.Load()) == record.Offset(l.start.Load()) {
		first := w.run[0].Batch
		l.oldest = min(first.BaseTimestamp(), first.MaxTimestamp())
	}
	for _, it := range w.run {
		b := it.Batch
		if len(l.epochs) == 0 || l.epochs[len(l.epochs)-1].epoch < b.LeaderEpoch() {
			l.beginEpochLocked(b.LeaderEpoch(), it.Base)
		}
		g.noteTime(b)
		l.tail.note(b, pos, o.IndexInterval)
		l.recent.push(g, it.Base, pos)
		pos += int64(len(b))
	}
	g.size, g.next = pos, w.next
	l.end.Store(int64(w.next))
	l.marks.records += int64(len(w.run))
	l.marks.snapBytes += w.bytes
	wake := false
	if o.durable() || late {
		l.enterLocked(w.run[0].Base, start, bufs)
	} else {
		l.commitUpToLocked(w.next)
	}
	if !o.durable() {
		if l.marks.records >= o.FlushMessages && !l.marks.wantSync {
			l.marks.wantSync, wake = true, true
		}
	}
	if period := l.s.late.period.Load(); l.marks.period != period {
		l.marks.period = period
		l.s.late.active.Add(1)
	}
	if !l.marks.changed {
		l.marks.changed = true
		l.s.keeper.add(l)
	}
	full := len(l.tail.offs) >= tailEntries || len(l.tail.times) >= tailEntries
	l.pub.Unlock()
	l.s.keeper.written(w.bytes, wake)
	if full {
		if err := l.flushTail(l.tail); err != nil {
			l.s.log.Debug("an index could not be written; it stays in memory", "log", l.dir, "err", err)
		}
	}
}

// roll closes the active segment and makes the next one, which begins at the log's
// end. Whatever of it fails, the log is as it was.
func (l *Log) roll() error {
	w, o := l.writer, l.options()
	next := record.Offset(l.end.Load())
	w.next = next
	l.pub.Lock()
	old := l.activeLocked()
	made := l.made
	l.pub.Unlock()
	if old != nil {
		if err := l.finish(old); err != nil {
			return err
		}
	}
	if !made {
		if err := l.s.commit.settleDeletes(l.dir); err != nil {
			return err
		}
	}
	g := &segment{
		log: l, base: next, next: next, maxTime: record.NoTimestamp, firstTime: timeUnknown,
		created: time.Now().UnixMilli(),
	}
	if old == nil && !o.Preallocate && l.mayWait() {
		g.unmade = true
		g.late.Store(true)
	} else if err := l.makeFile(g, made); err != nil {
		return err
	}
	w.jitter = 0
	if j := o.SegmentJitter.Milliseconds(); j > 0 {
		w.jitter = rand.Int64N(j)
	}
	l.pub.Lock()
	defer l.pub.Unlock()
	segs := make([]*segment, len(l.segs), len(l.segs)+1)
	copy(segs, l.segs)
	l.segs = append(segs, g)
	if l.tail == nil {
		l.tail = &tail{}
	}
	*l.tail = tail{seg: g, offs: l.tail.offs[:0], times: l.tail.times[:0], lastMS: record.NoTimestamp}
	l.recent.reset(g)
	if l.durable.seg == nil {
		l.durable = place{g, 0, next}
	}
	return nil
}

// makeFile makes the file of a segment that begins, and the directory where that is
// not made.
func (l *Log) makeFile(g *segment, made bool) error {
	if !made {
		if err := l.makeDir(); err != nil {
			return err
		}
	}
	h, err := l.openNext(g)
	if err != nil {
		return err
	}
	defer h.drop()
	if o := l.options(); o.Preallocate {
		if err := h.f.Allocate(0, o.SegmentBytes); err != nil {
			return l.unmake(g, err)
		}
		g.allocated = true
	}
	return nil
}

// finish writes out what a segment's closing needs: the last time index entry, its
// indexes, its true length.
func (l *Log) finish(g *segment) error {
	if err := g.writeOut(); err != nil {
		return err
	}
	l.pub.Lock()
	l.tail.noteTime()
	l.pub.Unlock()
	if err := l.flushTail(l.tail); err != nil {
		return err
	}
	return l.trimFile(g)
}
