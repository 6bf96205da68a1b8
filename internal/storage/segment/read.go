package segment

import (
	"errors"
	"fmt"
	"io"
	"sort"

	"github.com/leatstream/leat/internal/record"
)

// recentBatches has the positions of the last batches of an active segment, so that
// readers of new records need no index. Guarded by Segment.mu.
type recentBatches struct {
	ring  []recentBatch // its length is a power of two
	first int           // the oldest batch is at this index, modulo the length
	n     int           // the number of batches
}

// recentBatch has the offsets of a batch, and its position.
type recentBatch struct {
	base, next record.Offset
	pos        int64
}

const (
	minRecent = 16
	maxRecent = 512 // which takes 12 KiB
)

// batch returns the i-th batch, from the oldest on.
func (r *recentBatches) batch(i int) recentBatch { return r.ring[(r.first+i)&(len(r.ring)-1)] }

// pushBatch adds the batch that was appended last, in the place of the oldest one if
// there are too many.
func (r *recentBatches) pushBatch(base, next record.Offset, pos int64) {
	if r.n == len(r.ring) {
		if r.n < maxRecent {
			r.growRing()
		} else {
			r.first++
			r.n--
		}
	}
	r.ring[(r.first+r.n)&(len(r.ring)-1)] = recentBatch{base, next, pos}
	r.n++
}

func (r *recentBatches) growRing() {
	ring := make([]recentBatch, max(minRecent, 4*len(r.ring)))
	for i := range r.n {
		ring[i] = r.batch(i)
	}
	r.ring, r.first = ring, 0
}

// findOffset returns the number of the batch with an offset, or of the first one after it.
// It returns -1 if that batch may be an older one, or is not there.
func (r *recentBatches) findOffset(o record.Offset) int {
	i := sort.Search(r.n, func(i int) bool { return r.batch(i).next > o })
	if i == r.n || i == 0 && r.batch(0).base > o {
		return -1
	}
	return i
}

// lastStart returns the position of the last batch that begins at pos or before; ok is
// false if it does not begin after from.
func (r *recentBatches) lastStart(from, pos int64) (int64, bool) {
	i := sort.Search(r.n, func(i int) bool { return r.batch(i).pos > pos }) - 1
	if i < 0 || r.batch(i).pos <= from {
		return 0, false
	}
	return r.batch(i).pos, true
}

// maxSegment is larger than any segment, since the index has positions of 32 bits.
const maxSegment = 1 << 32

// span has the positions that a read has found so far. A position is -1 as long as it is
// not known.
type span struct {
	begin       int64         // where the read begins
	firstEnd    int64         // where the first batch ends; it may stay -1 if wholeEnd or limitPos is enough
	limitPos    int64         // the position of the batch with the limit
	wholeEnd    int64         // where the last whole batch within maxBytes ends
	segmentSize int64         // the segment's size when the read began
	limit       record.Offset // the limit, or the segment's end if that is lower
}

// Read returns the batches from the one with offset from, or the first one after it, up to
// limit. It returns maxBytes at most, but always the whole first batch; as in Kafka, it
// may cut the last one short. It returns nil if the segment has no such batch. The error
// is ErrTorn if the file is damaged, and ErrManyReaders if the read may succeed once other
// readers have released their chunks.
func (g *Segment) Read(from, limit record.Offset, maxBytes int) (*Chunk, error) {
	most := min(int64(maxBytes), maxSegment) // so that no position overflows
	sp := g.spanInMemory(from, limit, most)
	if sp.begin < 0 || sp.limitPos < 0 || sp.wholeEnd < 0 {
		err := g.lookUp(&sp, from, most)
		if errors.Is(err, io.EOF) {
			return nil, nil //nolint:nilnil // nil is the documented result
		}
		if err != nil {
			return nil, err
		}
	}
	if sp.begin >= sp.limitPos || sp.firstEnd > sp.limitPos {
		return nil, nil //nolint:nilnil // no batch is below limit as a whole
	}
	to := min(sp.limitPos, max(sp.firstEnd, sp.begin+most))
	if sp.wholeEnd > sp.begin && sp.wholeEnd < to {
		to = sp.wholeEnd
	}
	h, err := g.useFile()
	if err != nil {
		return nil, err
	}
	if !g.files.pinForChunk(h) {
		h.removeUser()
		return nil, ErrManyReaders
	}
	return newChunk(h, sp.begin, to), nil
}

// spanInMemory finds the positions that are in memory.
func (g *Segment) spanInMemory(from, limit record.Offset, maxBytes int64) span {
	g.mu.Lock()
	defer g.mu.Unlock()
	sp := span{begin: -1, firstEnd: -1, limitPos: -1, wholeEnd: -1, segmentSize: g.size, limit: min(limit, g.next)}
	if limit >= g.next {
		sp.limitPos = g.size
	}
	r := &g.recent
	if i := r.findOffset(from); i >= 0 {
		sp.begin, sp.firstEnd = r.batch(i).pos, g.size
		if i+1 < r.n {
			sp.firstEnd = r.batch(i + 1).pos
		}
		sp.wholeEnd = sp.firstEnd // a longer one is looked for below
		if pos, ok := r.lastStart(sp.begin, sp.begin+maxBytes); ok && sp.begin+maxBytes < g.size {
			sp.wholeEnd = pos
		} else if sp.begin+maxBytes >= g.size {
			sp.wholeEnd = g.size
		}
	}
	if sp.limitPos < 0 {
		if i := r.findOffset(limit); i >= 0 {
			sp.limitPos = r.batch(i).pos
		}
	}
	return sp
}

// lookUp finds the positions that are not in memory, by cursor, index and file.
func (g *Segment) lookUp(sp *span, from record.Offset, maxBytes int64) error {
	cur := g.files.cursors.takeCursor(cursorKey{g, from})
	switch {
	case cur != nil:
		sp.begin = cur.pos
	case sp.begin < 0:
		first, err := g.Locate(from)
		if err != nil {
			return err
		}
		if err := checkFirst(g, &first, from); err != nil {
			return err
		}
		if first.Base >= sp.limit { // the limit lies in a gap of the offsets
			return io.EOF
		}
		sp.begin, sp.firstEnd = first.Pos, first.End
		fallthrough
	default:
		cur = &cursor{key: cursorKey{g, from}, pos: sp.begin}
	}
	if sp.limitPos < 0 {
		last, err := g.Locate(sp.limit)
		if err != nil {
			return tornAtEnd(err)
		}
		sp.limitPos = last.Pos
	}
	if sp.begin+maxBytes >= sp.limitPos {
		return nil // the read goes up to the limit
	}
	return g.cutSpan(sp, cur, maxBytes)
}

// checkFirst refuses a batch from which a read begins and which does not have the offset, where that can be no gap: no checksum
// covers its base offset.
func checkFirst(g *Segment, first *BatchInfo, from record.Offset) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.hasGaps || from < g.base || first.Base <= from && from < first.Next {
		return nil
	}
	return fmt.Errorf("%w at byte %d: it begins with offset %d, and offset %d is not in it", ErrTorn, first.Pos, first.Base, from)
}

// tornAtEnd makes io.EOF an ErrTorn. It is for a position at which a batch must be.
func tornAtEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return ErrTorn
	}
	return err
}

// cutSpan ends a read of old records at the beginning of a batch, and puts the cursor
// there, since the reader will go on from it. If the first batch is longer than maxBytes,
// the read ends after it.
func (g *Segment) cutSpan(sp *span, cur *cursor, maxBytes int64) error {
	end, err := g.findBoundary(cur, sp.begin+maxBytes)
	if err == nil && end.last != noHint && end.pos > sp.begin {
		if h, err := g.useFile(); err == nil {
			cur.readAhead(h.f, end.pos, sp.segmentSize)
			h.removeUser()
		}
		if next, err := g.infoAt(end.pos, sp.segmentSize); err == nil && next.Next == end.last+1 {
			sp.wholeEnd = end.pos
			g.moveCursor(cur, next.Base, end.pos)
			return nil
		}
	}
	first, err := g.infoAt(sp.begin, sp.segmentSize) // no boundary: the last batch is cut short
	if err != nil {
		return tornAtEnd(err)
	}
	if err := checkFirst(g, &first, cur.key.base); err != nil {
		return err
	}
	sp.firstEnd = first.End
	if sp.firstEnd >= sp.begin+maxBytes && sp.firstEnd < sp.limitPos {
		g.moveCursor(cur, first.Next, first.End)
	}
	return nil
}

func (g *Segment) moveCursor(c *cursor, base record.Offset, pos int64) {
	c.key.base, c.pos = base, pos
	g.files.cursors.putCursor(c)
}

// LastBaseAt returns the base offset of the last batch that begins at a position or
// before it, or -1 if there is none.
func (g *Segment) LastBaseAt(pos int64) (record.Offset, error) {
	c, err := g.searchPosition(pos)
	if err != nil {
		return -1, err
	}
	size := g.Size()
	if found, err := g.infoAt(c.pos, size); c.last != noHint && (err != nil || found.Next != c.last+1) {
		c = hint{0, noHint}
	}
	h, err := g.useFile()
	if err != nil {
		return -1, err
	}
	defer h.removeUser()
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
