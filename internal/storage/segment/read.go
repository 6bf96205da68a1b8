package segment

import (
	"errors"
	"io"
	"sort"

	"github.com/leatstream/leat/internal/record"
)

// recent holds where the last batches of an active segment lie, so that readers at the
// tail need no index. Guarded by Segment.mu.
type recent struct {
	ring  []recentBatch // of a power of two
	first int           // the oldest one's number; it lies at first modulo the length
	n     int
}

// recentBatch says which offsets a batch has and where it begins.
type recentBatch struct {
	base, next record.Offset
	pos        int64
}

const (
	minRecent = 16
	maxRecent = 512 // 12 KiB for a busy log
)

func (r *recent) get(i int) recentBatch { return r.ring[(r.first+i)&(len(r.ring)-1)] }

// push adds the batch that was appended last.
func (r *recent) push(base, next record.Offset, pos int64) {
	if r.n == len(r.ring) {
		if r.n < maxRecent {
			r.grow()
		} else {
			r.first++
			r.n--
		}
	}
	r.ring[(r.first+r.n)&(len(r.ring)-1)] = recentBatch{base, next, pos}
	r.n++
}

func (r *recent) grow() {
	ring := make([]recentBatch, max(minRecent, 4*len(r.ring)))
	for i := range r.n {
		ring[i] = r.get(i)
	}
	r.ring, r.first = ring, 0
}

// holding is the number of the batch that holds an offset, or of the first one after it;
// -1: an older batch may.
func (r *recent) holding(o record.Offset) int {
	i := sort.Search(r.n, func(i int) bool { return r.get(i).next > o })
	if i == r.n || i == 0 && r.get(0).base > o {
		return -1
	}
	return i
}

// until is the beginning of the last batch that begins at pos or before, beyond from.
func (r *recent) until(from, pos int64) (int64, bool) {
	i := sort.Search(r.n, func(i int) bool { return r.get(i).pos > pos }) - 1
	if i < 0 || r.get(i).pos <= from {
		return 0, false
	}
	return r.get(i).pos, true
}

// maxSegment is more bytes than a segment can have, since its index has positions of 32 bits.
const maxSegment = 1 << 32

// span is what a read has found out so far.
type span struct {
	pos  int64         // where it begins; -1: to be looked up
	one  int64         // where the first batch ends; -1: unknown, since cut or stop is enough
	stop int64         // where the limit lies; -1: to be looked up
	cut  int64         // where the last whole batch within maxBytes ends; -1: unknown
	size int64         // of the segment
	end  record.Offset // the limit, within the segment
}

// Read finds the batches from the one that holds offset from, or the first one after it,
// below limit; at most maxBytes of them, but the first one is given whole however long it
// is. A last batch may be cut short by maxBytes, as in Kafka. nil: the segment has none
// below limit. The error is ErrTorn where the file is damaged, ErrManyReaders where it may
// succeed once other readers have got theirs.
func (g *Segment) Read(from, limit record.Offset, maxBytes int) (*Chunk, error) {
	most := min(int64(maxBytes), maxSegment) // so that no position overflows
	sp := g.spanInMemory(from, limit, most)
	if sp.pos < 0 || sp.stop < 0 || sp.cut < 0 {
		err := g.lookUp(&sp, from, most)
		if errors.Is(err, io.EOF) {
			return nil, nil //nolint:nilnil // the caller is told: nothing
		}
		if err != nil {
			return nil, err
		}
	}
	if sp.pos >= sp.stop || sp.one > sp.stop {
		return nil, nil //nolint:nilnil // no batch is below limit as a whole
	}
	to := min(sp.stop, max(sp.one, sp.pos+most))
	if sp.cut > sp.pos && sp.cut < to {
		to = sp.cut
	}
	h, err := g.open()
	if err != nil {
		return nil, err
	}
	if !g.files.pin(h) {
		h.release()
		return nil, ErrManyReaders
	}
	return chunkOf(h, sp.pos, to), nil
}

// spanInMemory answers from memory as much as it can.
func (g *Segment) spanInMemory(from, limit record.Offset, maxBytes int64) span {
	g.mu.Lock()
	defer g.mu.Unlock()
	sp := span{pos: -1, one: -1, stop: -1, cut: -1, size: g.size, end: min(limit, g.next)}
	if limit >= g.next {
		sp.stop = g.size
	}
	r := &g.recent
	if i := r.holding(from); i >= 0 {
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
		if i := r.holding(limit); i >= 0 {
			sp.stop = r.get(i).pos
		}
	}
	return sp
}

// lookUp finds in the indexes and the file what memory did not have.
func (g *Segment) lookUp(sp *span, from record.Offset, maxBytes int64) error {
	cur := g.files.cursors.take(cursorKey{g, from})
	switch {
	case cur != nil:
		sp.pos = cur.pos
	case sp.pos < 0:
		first, err := g.Locate(from)
		if err != nil {
			return err
		}
		if first.Base >= sp.end { // a gap, in which the limit lies
			return io.EOF
		}
		sp.pos, sp.one = first.Pos, first.End
		fallthrough
	default:
		cur = &cursor{place: cursorKey{g, from}, pos: sp.pos}
	}
	if sp.stop < 0 {
		last, err := g.Locate(sp.end)
		if err != nil {
			return missing(err)
		}
		sp.stop = last.Pos
	}
	if sp.pos+maxBytes >= sp.stop {
		return nil // all of it
	}
	return g.cutSpan(sp, cur, maxBytes)
}

// missing turns the end of a segment into damage, where a batch must be.
func missing(err error) error {
	if errors.Is(err, io.EOF) {
		return ErrTorn
	}
	return err
}

// cutSpan ends a read of old records where a batch begins, and remembers that place: the
// reader will come back for what follows. Where the first batch is longer than maxBytes
// it is all of the read.
func (g *Segment) cutSpan(sp *span, cur *cursor, maxBytes int64) error {
	end, err := g.boundary(cur, sp.pos+maxBytes)
	if err == nil && end.last != noHint && end.pos > sp.pos {
		if h, err := g.open(); err == nil {
			cur.readAhead(h.f, end.pos, sp.size)
			h.release()
		}
		if next, err := g.infoAt(end.pos, sp.size); err == nil && next.Next == end.last+1 {
			sp.cut = end.pos
			g.moveCursor(cur, next.Base, end.pos)
			return nil
		}
	}
	first, err := g.infoAt(sp.pos, sp.size) // else the last batch is cut short
	if err != nil {
		return missing(err)
	}
	sp.one = first.End
	if sp.one >= sp.pos+maxBytes && sp.one < sp.stop {
		g.moveCursor(cur, first.Next, first.End)
	}
	return nil
}

func (g *Segment) moveCursor(c *cursor, base record.Offset, pos int64) {
	c.place.base, c.pos = base, pos
	g.files.cursors.put(c)
}

// LastBaseAt is the base offset of the last batch that begins at a position or before
// it; -1: there is none.
func (g *Segment) LastBaseAt(pos int64) (record.Offset, error) {
	c, err := g.searchPos(pos)
	if err != nil {
		return -1, err
	}
	size := g.Size()
	if found, err := g.infoAt(c.pos, size); c.last != noHint && (err != nil || found.Next != c.last+1) {
		c = hint{0, noHint}
	}
	h, err := g.open()
	if err != nil {
		return -1, err
	}
	defer h.release()
	w := g.walkFrom(h.f, c.pos, size, &hopBuffers)
	defer w.Close()
	w.Trust(size)
	last := record.Offset(-1)
	for w.pos <= pos {
		b, err := w.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return -1, err
		}
		last = b.BaseOffset()
	}
	return last, nil
}
