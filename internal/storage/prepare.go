package storage

import (
	"errors"
	"io"
	"time"

	"github.com/leatstream/leat/internal/record"
)

// prepareLocked readies an open log for its first append. mu is held.
func (l *Log) prepareLocked() error {
	if l.writer != nil {
		return nil
	}
	if err := l.loadTail(); err != nil {
		return err
	}
	w := &writer{next: record.Offset(l.end.Load())}
	if err := l.loadProducers(&w.producers); err != nil {
		return err
	}
	l.writer = w
	return nil
}

// maxBadEntries is how many wrong entries at an index's end are skipped before all
// of it is made anew: entries for batches that a crash took away.
const maxBadEntries = 64

// loadTail takes what it needs of the active segment's indexes into memory, once.
func (l *Log) loadTail() error {
	l.idx.Lock()
	defer l.idx.Unlock()
	l.pub.Lock()
	g, loaded := l.activeLocked(), l.tail != nil
	size := int64(0)
	if g != nil {
		size = g.size
	}
	l.pub.Unlock()
	if g == nil || loaded {
		return nil
	}
	h, err := g.open()
	if err != nil {
		return err
	}
	defer h.drop()
	// A twin of the segment, so that readers see all of it or nothing.
	twin := &segment{log: l, base: g.base, size: size, maxTime: record.NoTimestamp, firstTime: timeUnknown}
	t := &tail{seg: twin, lastMS: record.NoTimestamp}
	pos, err := t.resume(l, g)
	if err != nil {
		return err
	}
	if err := t.index(h.f, pos, size, l.options().IndexInterval); errors.Is(err, errTorn) {
		return l.damaged(g, err)
	} else if err != nil {
		return err
	}
	if pos > 0 { // the first batch was not among those
		first, _, err := l.walkTo(g, claim{0, noClaim}, 0)
		if err != nil {
			return l.lost(g, g.base, err)
		}
		twin.firstTime = first.maxTime
	}
	l.pub.Lock()
	defer l.pub.Unlock()
	g.maxTime, g.maxAt, g.firstTime = twin.maxTime, twin.maxAt, twin.firstTime
	t.seg = g
	l.tail = t
	return nil
}

// resume reads the ends of the index files and returns the position from which on
// batches are to be noted: after the last batch that both files vouch for.
func (t *tail) resume(l *Log, g *segment) (int64, error) {
	x, err := l.s.openIndex(g.path(indexSuffix), entryLen)
	if err != nil {
		return 0, err
	}
	defer x.close()
	b := make([]byte, timeEntryLen)
	for n := x.n; n > 0 && n > x.n-maxBadEntries; n-- {
		if err := x.read(b[:entryLen], n-1); err != nil {
			return 0, err
		}
		e := decodeEntry(b)
		c := g.claim(e)
		sp, hops, err := l.walkTo(g, c, c.last)
		if err != nil || hops > 0 {
			continue
		}
		if ok, err := t.resumeTime(l, g, e); err != nil || !ok {
			return 0, err
		}
		if sp.maxTime > t.seg.maxTime {
			t.seg.maxTime, t.seg.maxAt = sp.maxTime, sp.next-1
		}
		t.inFile, t.since = n, int(sp.end-sp.pos)
		return sp.end, nil
	}
	return 0, nil
}

// resumeTime does the same for the time index; e is the last entry of the other.
func (t *tail) resumeTime(l *Log, g *segment, e entry) (ok bool, err error) {
	x, err := l.s.openIndex(g.path(timeSuffix), timeEntryLen)
	if err != nil {
		return false, err
	}
	defer x.close()
	b := make([]byte, timeEntryLen)
	for n := x.n; n > 0 && n > x.n-maxBadEntries; n-- {
		if err := x.read(b, n-1); err != nil {
			return false, err
		}
		if te := decodeTimeEntry(b); te.rel <= e.rel && l.timeFits(g, te) {
			t.inTime, t.lastMS = n, te.ms
			t.seg.maxTime, t.seg.maxAt = te.ms, g.base+record.Offset(te.rel)
			return true, nil
		}
	}
	return false, nil
}

// loadProducers builds the producers' state: the last snapshot, then the batches
// that came after it.
func (l *Log) loadProducers(ps *producers) error {
	now := time.Now().UnixMilli()
	from := record.Offset(0)
	if l.known.snap >= 0 {
		b, err := l.s.readFile(l.s.path(l.dir, fileName(l.known.snap, snapshotSuffix)))
		if err != nil {
			return err
		}
		if err := ps.decode(b, now); err != nil {
			l.s.log.Warn("a producer snapshot is damaged or missing; the log is read instead", "log", l.dir, "err", err)
		} else {
			from = l.known.prodAt
		}
	} else {
		from = max(l.known.prodAt, 0) // there were no producers up to there
	}
	if err := l.walkProducers(ps, from, now); err != nil {
		return err
	}
	ps.changed = len(ps.undo) > 0
	ps.settle()
	return nil
}

// walkProducers applies the batches from an offset on.
func (l *Log) walkProducers(ps *producers, from record.Offset, now int64) error {
	for _, g := range l.segments() {
		l.pub.Lock()
		size, next := g.size, g.next
		l.pub.Unlock()
		if next <= from || size == 0 {
			continue
		}
		err := l.walkProducersOf(ps, g, from, now)
		switch {
		case err == nil:
		case next <= record.Offset(l.start.Load()) && errors.Is(err, errTorn):
			// It was deleted, and came back in part.
		case errors.Is(err, errTorn) || errors.Is(err, io.EOF):
			return l.lost(g, from, err)
		default:
			return err
		}
	}
	return nil
}

func (l *Log) walkProducersOf(ps *producers, g *segment, from record.Offset, now int64) error {
	h, err := g.open()
	if err != nil {
		return err
	}
	defer h.drop()
	l.pub.Lock()
	size := g.size
	l.pub.Unlock()
	pos := int64(0)
	if from > g.base {
		sp, err := l.locate(g, from)
		if err != nil {
			return err
		}
		pos = sp.pos
	}
	buf, _ := walkBuffers.Get().(*[]byte)
	defer walkBuffers.Put(buf)
	w := walker{f: h.f, end: size, pos: pos, buf: *buf}
	for {
		b, err := w.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if b.ProducerID() >= 0 && b.BaseOffset() >= from {
			ps.apply(b, now)
			ps.undo = ps.undo[:1] // only that there was one matters
		}
	}
}
