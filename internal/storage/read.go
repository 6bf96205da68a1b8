package storage

import (
	"errors"
	"fmt"
	"io"
	"sort"

	"github.com/leatstream/leat/internal/record"
)

// recent holds where the last batches of the active segment lie, so that readers
// at the tail need no index. Guarded by Log.pub.
type recent struct {
	seg   *segment
	at    []batchAt // a ring, of a power of two
	first int       // the oldest one's number; it lies at first modulo the length
	n     int
}

// batchAt says where the batch with a base offset begins.
type batchAt struct {
	base record.Offset
	pos  int64
}

const (
	minRecent = 16
	maxRecent = 512 // 8 KiB for a busy log
)

func (r *recent) reset(g *segment) { r.seg, r.first, r.n = g, 0, 0 }

func (r *recent) get(i int) batchAt { return r.at[(r.first+i)&(len(r.at)-1)] }

func (r *recent) push(g *segment, base record.Offset, pos int64) {
	if r.seg != g {
		r.reset(g)
	}
	if r.n == len(r.at) {
		if r.n < maxRecent {
			r.grow()
		} else {
			r.first++
			r.n--
		}
	}
	r.at[(r.first+r.n)&(len(r.at)-1)] = batchAt{base, pos}
	r.n++
}

func (r *recent) grow() {
	at := make([]batchAt, max(minRecent, 4*len(r.at)))
	for i := range r.n {
		at[i] = r.get(i)
	}
	r.at, r.first = at, 0
}

// holding is the number of the batch that holds an offset; -1: it is too old. The
// offset lies below the segment's next.
func (r *recent) holding(g *segment, o record.Offset) int {
	if r.seg != g || r.n == 0 {
		return -1
	}
	return sort.Search(r.n, func(i int) bool { return r.get(i).base > o }) - 1
}

// until is the last batch's beginning at pos or before, beyond from.
func (r *recent) until(from, pos int64) (int64, bool) {
	i := sort.Search(r.n, func(i int) bool { return r.get(i).pos > pos }) - 1
	if i < 0 || r.get(i).pos <= from {
		return 0, false
	}
	return r.get(i).pos, true
}

// span is what a read found out so far.
type span struct {
	seg  *segment
	pos  int64         // where it begins; -1: to be looked up
	one  int64         // where the first batch ends; -1: unknown, since cut or stop is enough
	stop int64         // where the limit lies; -1: to be looked up
	cut  int64         // where the last whole batch within maxBytes ends; -1: unknown
	size int64         // of the segment
	end  record.Offset // the limit, within the segment
}

// Read finds the batches from the one that holds offset from, below limit, at
// most maxBytes of them; the first one is given whole however long it is. A last
// batch may be cut short by maxBytes, as in Kafka. nil: there is nothing below limit.
func (l *Log) Read(from, limit record.Offset, maxBytes int) (*Chunk, error) {
	if err := l.usable(); err != nil {
		return nil, err
	}
	l.pub.Lock()
	start, end := record.Offset(l.start.Load()), record.Offset(l.end.Load())
	if from < start || from > end {
		l.pub.Unlock()
		return nil, fmt.Errorf("%w: %d is not within [%d, %d]", ErrOffsetOutOfRange, from, start, end)
	}
	limit = min(limit, end)
	if from >= limit {
		l.pub.Unlock()
		return nil, nil //nolint:nilnil // it is what the caller is told: nothing
	}
	sp := l.spanLocked(from, limit, int64(maxBytes))
	l.pub.Unlock()
	if sp.pos < 0 || sp.stop < 0 || sp.cut < 0 {
		if err := l.lookUp(&sp, from, int64(maxBytes)); err != nil {
			return nil, err
		}
	}
	if sp.one > sp.stop {
		return nil, nil //nolint:nilnil // the batch is not below limit as a whole
	}
	to := min(sp.stop, max(sp.one, sp.pos+int64(maxBytes)))
	if sp.cut > sp.pos && sp.cut < to {
		to = sp.cut
	}
	if sp.seg.late.Load() {
		if c := sp.seg.copyWaiting(sp.pos, to); c != nil {
			return c, nil
		}
	}
	h, err := sp.seg.open()
	if err != nil {
		return nil, err
	}
	return newChunk(h, sp.pos, to), nil
}

// segmentLocked is the segment that holds an offset, or would.
func (l *Log) segmentLocked(o record.Offset) *segment {
	i := sort.Search(len(l.segs), func(i int) bool { return l.segs[i].base > o })
	return l.segs[max(i-1, 0)]
}

// spanLocked answers from memory what it can.
func (l *Log) spanLocked(from, limit record.Offset, maxBytes int64) span {
	g := l.segmentLocked(from)
	sp := span{seg: g, pos: -1, one: -1, stop: -1, cut: -1, size: g.size, end: min(limit, g.next)}
	if limit >= g.next {
		sp.stop = g.size
	}
	r := &l.recent
	if i := r.holding(g, from); i >= 0 {
		sp.pos, sp.one = r.get(i).pos, g.size
		if i+1 < r.n {
			sp.one = r.get(i + 1).pos
		}
		sp.cut = sp.one // a longer one is looked for below
		if pos, ok := r.until(sp.pos, sp.pos+maxBytes); ok && sp.pos+maxBytes < g.size {
			sp.cut = pos
		} else if sp.pos+maxBytes >= g.size {
			sp.cut = g.size
		}
	}
	if sp.stop < 0 {
		if i := r.holding(g, limit); i >= 0 {
			sp.stop = r.get(i).pos
		}
	}
	return sp
}

// lookUp finds in the indexes and the file what memory did not have.
func (l *Log) lookUp(sp *span, from record.Offset, maxBytes int64) error {
	g := sp.seg
	cur := l.s.cursors.take(cursorPlace{g, from})
	switch {
	case cur != nil:
		sp.pos = cur.pos
	case sp.pos < 0:
		first, err := l.locate(g, from)
		if err == nil && first.base > from {
			err = errTorn
		}
		if err != nil {
			return l.lost(g, from, err)
		}
		sp.pos, sp.one = first.pos, first.end
		fallthrough
	default:
		cur = &cursor{place: cursorPlace{g, from}, pos: sp.pos}
	}
	if sp.stop < 0 {
		last, err := l.locate(g, sp.end)
		if err != nil {
			return l.lost(g, sp.end, err)
		}
		sp.stop = last.pos
	}
	if sp.pos+maxBytes >= sp.stop {
		return nil // all of it
	}
	return l.cutSpan(sp, cur, maxBytes)
}

// cutSpan ends a read of old records where a batch begins, and remembers that place:
// the reader will come back for what follows. Where the first batch is longer than
// maxBytes it is all of the read.
func (l *Log) cutSpan(sp *span, cur *cursor, maxBytes int64) error {
	g := sp.seg
	end, err := l.boundary(cur, sp.pos+maxBytes)
	if err == nil && end.last != noClaim && end.pos > sp.pos {
		if h, err := g.open(); err == nil {
			cur.readAhead(h.f, end.pos, sp.size)
			h.drop()
		}
		if next, err := g.spotAt(end.pos, sp.size); err == nil && next.next == end.last+1 {
			sp.cut = end.pos
			l.moveCursor(cur, next.base, end.pos)
			return nil
		}
	}
	first, err := g.spotAt(sp.pos, sp.size) // else the last batch is cut short
	if err != nil {
		return l.lost(g, sp.end, err)
	}
	sp.one = first.end
	if sp.one >= sp.pos+maxBytes && sp.one < sp.stop {
		l.moveCursor(cur, first.next, first.end)
	}
	return nil
}

func (l *Log) moveCursor(c *cursor, base record.Offset, pos int64) {
	c.place.base, c.pos = base, pos
	l.s.cursors.put(c)
}

// spotAt reads the header of the batch at a position, and nothing else.
func (g *segment) spotAt(pos, size int64) (spot, error) {
	h, err := g.open()
	if err != nil {
		return spot{}, err
	}
	defer h.drop()
	buf, _ := hopBuffers.Get().(*[]byte)
	defer hopBuffers.Put(buf)
	w := walker{f: h.f, end: size, pos: pos, verify: size, buf: (*buf)[:record.HeaderLen]}
	b, err := w.next()
	if err == nil && b.BaseOffset() < g.base {
		err = errTorn
	}
	if err != nil {
		return spot{}, err
	}
	return spotOf(b, pos, w.pos), nil
}

// lost reports that a batch that must be there was not found: damage.
func (l *Log) lost(g *segment, o record.Offset, err error) error {
	if !errors.Is(err, errTorn) && !errors.Is(err, io.EOF) {
		return err
	}
	if !errors.Is(err, errTorn) {
		err = errTorn // there must be one
	}
	return l.damaged(g, fmt.Errorf("offset %d was looked for: %w", o, err))
}
