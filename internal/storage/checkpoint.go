package storage

import (
	"errors"
	"fmt"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/vfs"
)

const (
	snapshotBytes = 16 << 20         // appended to a log, after which its producers are written again
	lazySyncAge   = 30 * time.Second // how long a page-cache log may have bytes that no sync covered
	lazySyncBytes = 2 << 30          // and how many; what retention drops before is never synced
)

// checkpoint makes the log durable in its own files, where that is due, and notes
// its point. again is true where the next checkpoint must look at it, too.
func (l *Log) checkpoint(last bool) (again bool, synced int, err error) {
	c, again, err := l.beginCheckpoint(last, true)
	if c == nil || err != nil {
		return again, 0, err
	}
	if synced, err = l.sync(c); err == nil {
		l.notePoint(c, c.to)
	}
	return false, synced, err
}

// beginCheckpoint writes what belongs to a checkpoint and is not written yet, and
// takes what is to be synced; nil: nothing is, or it is not time. Without sync even
// what is always synced as it is written waits for the caller's sync of the volume.
func (l *Log) beginCheckpoint(last, sync bool) (c *checkpointing, again bool, err error) {
	if !l.ready.Load() || l.deleted.Load() {
		return nil, false, nil
	}
	if l.unsound() {
		l.pub.Lock()
		defer l.pub.Unlock()
		g := l.activeLocked()
		if l.marks.journaled || g != nil && g.late.Load() { // nobody else has it, and its files are not to be relied on
			l.s.journal.pin()
		}
		return nil, false, nil
	}
	if err := l.writeOut(); err != nil {
		return nil, false, err
	}
	if last {
		if err := l.flushAll(); err != nil {
			return nil, false, err
		}
	}
	if !last && !l.syncDue(time.Now()) {
		l.pub.Lock()
		snap := l.marks.wantSnap
		l.pub.Unlock()
		if snap { // segments wait for it
			if _, err := l.snapshot(false, true); err != nil {
				return nil, true, asAppendError(err)
			}
		}
		return nil, true, l.noteWritten()
	}
	if err := l.trim(); err != nil && (!l.faulted() || l.unsound()) {
		return nil, false, err
	}
	snapped, err := l.snapshot(last, sync)
	if err != nil {
		return nil, false, asAppendError(err)
	}
	c = l.takeCheckpoint()
	c.snapped = snapped
	err = l.writeOut() // what came since it began
	if err == nil && c.epochs != nil {
		err = l.change(func() error { return l.s.replaceFile(l.dir, epochFile, c.epochs.encode(), sync) })
	}
	if err != nil {
		l.takeBack(c)
		return nil, false, asAppendError(err)
	}
	return c, false, nil
}

// sync makes durable what a checkpoint took, file by file.
func (l *Log) sync(c *checkpointing) (synced int, err error) {
	for _, g := range c.segs {
		if err := g.sync(); err != nil {
			return synced, fmt.Errorf("a sync of segment %d failed: %w", g.base, err)
		}
		synced++
		if g != c.to.seg {
			if err := l.change(func() error { return l.syncIndexes(g) }); err != nil {
				return synced, err
			}
		}
	}
	if c.names || c.epochs != nil {
		synced += 2
		if err := l.s.syncNames(l.dir, c.fresh); err != nil {
			return synced, fmt.Errorf("a sync of the directory failed: %w", err)
		}
	}
	return synced, nil
}

// noteWritten notes how far the log was written, though nothing was synced. If the
// kernel lives, nobody needs to look at these batches: so their epochs are written.
func (l *Log) noteWritten() error {
	l.pub.Lock()
	es, behind, end := l.epochs, l.unshown && l.made, l.endLocked()
	l.unshown = l.unshown && !behind
	l.pub.Unlock()
	err := l.writeOut()
	if err == nil && behind {
		err = l.change(func() error { return l.s.replace(l.dir, epochFile, es.encode(), false) })
	}
	if err != nil {
		l.pub.Lock()
		l.unshown = l.unshown || behind
		l.pub.Unlock()
		return asAppendError(err)
	}
	l.notePoint(nil, end)
	return nil
}

// checkpointing is one log within a checkpoint.
type checkpointing struct {
	segs      []*segment // to be synced
	sizes     []int64    // of them
	to        place
	names     bool   // the directory is to be synced
	fresh     bool   // and its own name
	epochs    epochs // written, to be synced; nil: they are
	snapped   bool   // the producers were written
	journaled bool   // the journal has bytes that this makes superfluous there
}

// syncDue tells whether the log's files are to be synced by this checkpoint: always
// in the durable mode, now and then in the page-cache mode.
func (l *Log) syncDue(now time.Time) bool {
	o := l.options()
	l.pub.Lock()
	defer l.pub.Unlock()
	if o.durable() || l.marks.journaled || l.marks.wantSync {
		return true
	}
	g := l.activeLocked()
	if g == nil {
		return true
	}
	if l.marks.unsynced.IsZero() {
		l.marks.unsynced = now
	}
	age := now.Sub(l.marks.unsynced)
	return l.unsyncedLocked() >= lazySyncBytes ||
		age >= lazySyncAge || o.FlushAge > 0 && age >= o.FlushAge
}

// takeCheckpoint takes what is to be synced.
func (l *Log) takeCheckpoint() *checkpointing {
	l.pub.Lock()
	defer l.pub.Unlock()
	c := &checkpointing{to: l.endLocked(), journaled: l.marks.journaled}
	l.marks.changed, l.marks.journaled, l.marks.wantSync = false, false, false
	l.marks.unsynced, l.marks.records = time.Time{}, 0
	if c.to.seg != nil {
		c.to.pos = c.to.seg.size
	}
	for _, g := range l.segs {
		if g.synced < g.size || !g.linked {
			c.names = c.names || !g.linked
			c.segs = append(c.segs, g)
			c.sizes = append(c.sizes, g.size)
		}
	}
	if l.made && !l.linked {
		c.names, c.fresh = true, true
	}
	if l.unwritten && l.made {
		c.epochs, l.unwritten = l.epochs, false
	}
	return c
}

// notePoint notes what the checkpoint achieved; nil: the log is only known to have
// been written, up to a place.
func (l *Log) notePoint(c *checkpointing, written place) {
	l.pub.Lock()
	if c != nil {
		for i, g := range c.segs {
			g.synced, g.linked = max(g.synced, c.sizes[i]), true
		}
		l.linked = l.linked || c.fresh
		l.stable = c.to
	}
	pt := point{
		vouched: true, live: true, next: l.stable.next, pos: l.stable.pos,
		start: record.Offset(l.start.Load()), oldest: l.oldest,
		snap: l.marks.snapAt, prodAt: l.marks.prodAt,
	}
	if l.stable.seg != nil {
		pt.base = l.stable.seg.base
	} else {
		at := record.Offset(l.end.Load())
		if len(l.segs) > 0 { // it was empty when its directory was synced, and nothing was since
			at = l.segs[0].base
		}
		pt.base, pt.next = at, at
	}
	pt.wbase, pt.wpos, pt.wnext = pt.base, pt.pos, pt.next
	if written.seg != nil && l.stable.seg != nil {
		pt.wbase, pt.wpos, pt.wnext = written.seg.base, written.pos, written.next
	}
	vouched := l.linked
	l.pub.Unlock()
	if vouched {
		l.s.points.set(l.id, pt)
	}
}

// vouched tells whether a checkpoint may say where the log begins.
func (l *Log) vouched() bool {
	l.pub.Lock()
	defer l.pub.Unlock()
	return l.linked
}

// snapshot writes the producers' state where enough changed, or the log is closed.
func (l *Log) snapshot(last, sync bool) (done bool, err error) {
	l.mu.Lock()
	if l.writer == nil {
		l.mu.Unlock()
		return false, nil
	}
	ps := &l.writer.producers
	at := record.Offset(l.end.Load())
	l.pub.Lock()
	due := ps.changed && (last || l.marks.wantSnap || l.marks.snapBytes >= snapshotBytes)
	if !ps.changed {
		l.marks.prodAt = at // what the last snapshot has is still the truth
	}
	old := l.marks.snapAt
	l.pub.Unlock()
	var b []byte
	if due {
		b = ps.encode()
		ps.changed = false
	}
	l.mu.Unlock()
	if b == nil {
		return false, nil
	}
	err = l.change(func() error { return l.s.replace(l.dir, fileName(at, snapshotSuffix), b, sync) })
	if err != nil {
		l.mu.Lock()
		ps.changed = true
		l.mu.Unlock()
		return false, err
	}
	l.pub.Lock()
	before := l.marks.snapOld
	l.marks.snapAt, l.marks.prodAt, l.marks.snapOld, l.marks.snapBytes = at, at, old, 0
	l.marks.wantSnap = false
	l.pub.Unlock()
	if before >= 0 && before != at {
		l.s.keeper.remove(l.s.path(l.dir, fileName(before, snapshotSuffix)), 0)
	}
	return true, nil
}

// trim parts with segments below the start that an earlier run did not come to delete.
func (l *Log) trim() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone.Load() || l.faulted() {
		return nil
	}
	return l.trimLocked()
}

// fewBytes is how much of a log is looked through as fast as an index of it is
// opened: making two files for each of thousands of logs is most of what closing
// them would take (BenchmarkClose).
const fewBytes = 64 << 10

// flushAll writes the indexes out, where they are worth it, and gives back what the
// active segment's file has beyond its end.
func (l *Log) flushAll() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pub.Lock()
	t := l.tail
	l.pub.Unlock()
	if t == nil {
		return nil
	}
	if err := l.trimFile(t.seg); err != nil {
		return err
	}
	l.pub.Lock()
	few := t.seg.size <= fewBytes && t.inFile+t.inTime == 0
	l.pub.Unlock()
	if few {
		return nil
	}
	return asAppendError(l.flushTail(t))
}

// trimFile cuts a file to what was written to it.
func (l *Log) trimFile(g *segment) error {
	l.pub.Lock()
	size, allocated := g.size, g.allocated
	l.pub.Unlock()
	if !allocated {
		return nil
	}
	h, err := g.open()
	if err != nil {
		return err
	}
	defer h.drop()
	if err := h.f.Truncate(size); err != nil {
		return err
	}
	g.room = 0
	l.pub.Lock()
	g.allocated = false
	g.synced = min(g.synced, size-1) // the cut is to be synced, too
	l.pub.Unlock()
	return nil
}

// syncIndexes makes a closed segment's indexes durable: its largest timestamp, by
// which it will be deleted, stands there only.
func (l *Log) syncIndexes(g *segment) error {
	for _, suffix := range []string{indexSuffix, timeSuffix} {
		f, err := l.s.fs.Open(g.path(suffix), vfs.Create)
		if err != nil {
			return err
		}
		err = l.s.sync(f)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}
