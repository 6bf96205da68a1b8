package storage

import (
	"context"
	"errors"
	"io"
	"sort"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/record"
)

// Stamp is a record's place in time.
type Stamp struct {
	Offset record.Offset
	Time   int64 // ms
	Epoch  record.Epoch
}

// FindTime finds the first record with a timestamp of at least ms (ListOffsets);
// ok is false where there is none. It may wait for work memory; the context ends that.
func (l *Log) FindTime(ctx context.Context, ms int64) (at Stamp, ok bool, err error) {
	if err := l.usable(); err != nil {
		return Stamp{}, false, err
	}
	return l.findTime(ctx, l.s.cfg.Work, max(ms, 0))
}

// MaxTime finds the first record with the largest timestamp. It may wait for work
// memory; the context ends that.
func (l *Log) MaxTime(ctx context.Context) (at Stamp, ok bool, err error) {
	if err := l.usable(); err != nil {
		return Stamp{}, false, err
	}
	latest := record.NoTimestamp
	for _, g := range l.above() {
		ms, err := l.maxTimeOf(g)
		if start := record.Offset(l.start.Load()); err == nil && ms > latest && g.base < start {
			ms, err = l.maxTimeFrom(ctx, g, start, ms)
		}
		if err != nil {
			return Stamp{}, false, err
		}
		latest = max(latest, ms)
	}
	if latest < 0 {
		return Stamp{}, false, nil
	}
	return l.findTime(ctx, l.s.cfg.Work, latest)
}

// maxTimeFrom is the largest timestamp of a segment's records from an offset on; whole is
// that of all of them. Only where that one lies below is the rest looked at.
func (l *Log) maxTimeFrom(ctx context.Context, g *segment, from record.Offset, whole int64) (int64, error) {
	work := l.s.cfg.Work
	if _, ok, err := l.findTimeIn(ctx, work, g, whole); ok || err != nil {
		return whole, err
	}
	sp, err := l.locate(g, from)
	if errors.Is(err, io.EOF) {
		return record.NoTimestamp, nil
	}
	if err != nil {
		return 0, l.lost(g, from, err)
	}
	h, err := g.open()
	if err != nil {
		return 0, err
	}
	defer h.drop()
	l.pub.Lock()
	size := g.size
	l.pub.Unlock()
	buf, _ := walkBuffers.Get().(*[]byte)
	defer walkBuffers.Put(buf)
	w := walker{f: h.f, end: size, pos: sp.pos, buf: *buf}
	latest := record.NoTimestamp
	for {
		pos := w.pos
		b, err := w.next()
		if errors.Is(err, io.EOF) {
			return latest, nil
		}
		if err != nil {
			return 0, l.lost(g, from, err)
		}
		ms := b.MaxTimestamp()
		if b.BaseOffset() < from { // its newest record may lie below
			ms, err = maxTimeIn(ctx, work, b, func(whole []byte) error {
				n, err := h.f.ReadAt(whole, pos)
				if n < len(whole) {
					return l.lost(g, from, err)
				}
				return nil
			}, from)
			if err != nil {
				return 0, err
			}
		}
		latest = max(latest, ms)
	}
}

// maxTimeIn is the largest timestamp of a batch's records from an offset on, by
// bisection; the rest is as with firstAt.
func maxTimeIn(ctx context.Context, work *budget.Budget, header record.Batch, read func([]byte) error, from record.Offset) (int64, error) {
	lo, hi := record.NoTimestamp, header.MaxTimestamp()
	for lo < hi {
		mid := hi - (hi-lo)/2
		at, ok, err := firstAt(ctx, work, header, read, from, mid)
		switch {
		case err != nil:
			return 0, err
		case ok:
			lo = at.Time
		default:
			hi = mid - 1
		}
	}
	return lo, nil
}

// segments are the log's segments now.
func (l *Log) segments() []*segment {
	l.pub.Lock()
	defer l.pub.Unlock()
	return l.segs
}

// above are those of them that have something at the start or above it. Others were
// deleted, and may be back in part after a crash.
func (l *Log) above() []*segment {
	l.pub.Lock()
	defer l.pub.Unlock()
	i := 0
	for i+1 < len(l.segs) && l.segs[i+1].base <= record.Offset(l.start.Load()) {
		i++
	}
	return l.segs[i:]
}

// findTime looks at the segments that may have such a record, the oldest first.
func (l *Log) findTime(ctx context.Context, work *budget.Budget, ms int64) (at Stamp, ok bool, err error) {
	for _, g := range l.above() {
		latest, err := l.maxTimeOf(g)
		if err != nil {
			return Stamp{}, false, err
		}
		if latest < ms {
			continue
		}
		at, ok, err = l.findTimeIn(ctx, work, g, ms)
		if ok || err != nil {
			return at, ok, err
		}
	}
	return Stamp{}, false, nil
}

// maxTimeOf is the largest timestamp of a segment's records.
func (l *Log) maxTimeOf(g *segment) (int64, error) {
	l.pub.Lock()
	known, active := g.maxTime, l.activeLocked() == g
	l.pub.Unlock()
	if known != timeUnknown {
		return known, nil
	}
	if active {
		if err := l.loadTail(); err != nil {
			return 0, err
		}
	} else if err := l.loadMaxTime(g); err != nil {
		return 0, err
	}
	l.pub.Lock()
	defer l.pub.Unlock()
	return g.maxTime, nil
}

// loadMaxTime takes a closed segment's largest timestamp from the end of its time
// index, and makes that anew where it does not fit the batch that it names.
func (l *Log) loadMaxTime(g *segment) error {
	x, err := l.s.openIndex(g.path(timeSuffix), timeEntryLen)
	if err != nil {
		return err
	}
	defer x.close()
	if x.n > 0 {
		b := make([]byte, timeEntryLen)
		if err := x.read(b, x.n-1); err != nil {
			return err
		}
		e := decodeTimeEntry(b)
		if l.timeFits(g, e) {
			l.pub.Lock()
			g.maxTime, g.maxAt = e.ms, g.base+record.Offset(e.rel)
			l.pub.Unlock()
			return nil
		}
	}
	return l.mendIndex(g)
}

// timeFits tells whether the batch that a time index names has that timestamp.
func (l *Log) timeFits(g *segment, e timeEntry) bool {
	c, err := l.search(g, g.base+record.Offset(e.rel))
	if err != nil {
		return false
	}
	sp, _, err := l.walkTo(g, c, g.base+record.Offset(e.rel))
	return err == nil && sp.next == g.base+record.Offset(e.rel)+1 && sp.maxTime == e.ms
}

// timeClaim is the last offset up to which, by the time index, no record is as
// late as ms; below the segment's base where it does not say.
func (l *Log) timeClaim(g *segment, ms int64) record.Offset {
	after := func(e timeEntry) bool { return e.ms >= ms }
	n := -1
	l.pub.Lock()
	if t := l.tail; t != nil && t.seg == g {
		if i := sort.Search(len(t.times), func(i int) bool { return after(t.times[i]) }); i > 0 {
			o := g.base + record.Offset(t.times[i-1].rel)
			l.pub.Unlock()
			return o
		}
		n = t.inTime
	}
	l.pub.Unlock()
	x, err := l.s.openIndex(g.path(timeSuffix), timeEntryLen)
	if err != nil {
		return g.base - 1
	}
	defer x.close()
	if n >= 0 {
		x.n = min(n, x.n)
	}
	b, err := x.last(func(b []byte) bool { return after(decodeTimeEntry(b)) })
	if err != nil || b == nil {
		return g.base - 1
	}
	if e := decodeTimeEntry(b); l.timeFits(g, e) {
		return g.base + record.Offset(e.rel)
	}
	return g.base - 1
}

// findTimeIn finds the first record of a segment, not below the log's start, with
// a timestamp of at least ms.
func (l *Log) findTimeIn(ctx context.Context, work *budget.Budget, g *segment, ms int64) (Stamp, bool, error) {
	from := max(l.timeClaim(g, ms)+1, record.Offset(l.start.Load()))
	sp, err := l.locate(g, from)
	if errors.Is(err, io.EOF) {
		return Stamp{}, false, nil
	}
	if err != nil {
		return Stamp{}, false, l.lost(g, from, err)
	}
	h, err := g.open()
	if err != nil {
		return Stamp{}, false, err
	}
	defer h.drop()
	l.pub.Lock()
	size := g.size
	l.pub.Unlock()
	buf, _ := walkBuffers.Get().(*[]byte)
	defer walkBuffers.Put(buf)
	w := walker{f: h.f, end: size, pos: sp.pos, buf: *buf}
	for {
		pos := w.pos
		b, err := w.next()
		if errors.Is(err, io.EOF) {
			return Stamp{}, false, nil
		}
		if err != nil {
			return Stamp{}, false, l.lost(g, from, err)
		}
		if b.MaxTimestamp() < ms {
			continue
		}
		read := func(whole []byte) error {
			n, err := h.f.ReadAt(whole, pos)
			if n < len(whole) {
				return l.lost(g, from, err)
			}
			return nil
		}
		at, ok, err := firstAt(ctx, work, b, read, from, ms)
		if ok || err != nil {
			return at, ok, err
		}
	}
}

// firstAt is the first record of a batch from an offset on that is as late as ms.
// Only the batch's header is known; read reads all of it. A batch that is larger
// than any reservation was allowed by somebody: it takes the largest, and is read
// while no other large one is.
func firstAt(ctx context.Context, work *budget.Budget, header record.Batch, read func([]byte) error, from record.Offset, ms int64) (Stamp, bool, error) {
	held, err := work.Reserve(ctx, budget.Batch, min(int64(header.Size()), work.Most(budget.Batch)))
	if err != nil {
		return Stamp{}, false, err
	}
	defer held.Release()
	whole := make(record.Batch, header.Size())
	if err := read(whole); err != nil {
		return Stamp{}, false, err
	}
	at, ok, err := whole.FirstAt(ctx, work, from, ms)
	return Stamp{at.Offset, at.Timestamp, whole.LeaderEpoch()}, ok, err
}
