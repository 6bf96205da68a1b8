package segment

import (
	"math"
	"sort"
	"sync"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/vfs"
)

const (
	maxCursors    = 1024 // readers of old records that a store remembers
	cursorEntries = 512  // 4 KiB, for 2 MiB of small batches or 8 MiB of batches of 16 KiB

	// aheadBytes is how far a file is read ahead of a reader whose records are on disk
	// only, aheadStep how much of that at a time. The system's own reading ahead stays
	// within 128 KiB and makes who sends the file wait for each of these. Nobody may
	// look at the network during a step, so steps are short (scripts/bench.sh --only cold).
	aheadBytes = 8 << 20
	aheadStep  = 512 << 10
)

// cursor is where a reader of old records will go on, and a stretch of the index that
// lies ahead of it. It saves such a reader the index file at nearly every read
// (BenchmarkRead/old).
type cursor struct {
	place   cursorKey
	pos     int64   // of the batch that begins with place.base
	offsets []entry // of the index file, in order
	next    int     // the entry of the file that follows offsets; 0: not known
	ahead   int64   // the file is read ahead up to here; 0: to be looked at; inCache
	slot    int     // in cursors.ring; guarded by cursors.mu
}

// inCache stands for a reader who need not wait for the disk, as far as is known.
const inCache = math.MaxInt64

// cursorKey names a batch by the offset that it begins with.
type cursorKey struct {
	seg  *Segment
	base record.Offset
}

// cursors are those of all logs of a store: a bounded number, since memory for each log
// would be too much where there are many. A reader takes its cursor and puts it back
// where it will go on; the one that was not used for longest gives way.
type cursors struct {
	mu   sync.Mutex
	at   map[cursorKey]*cursor // guarded by mu
	ring [maxCursors]*cursor   // guarded by mu: in the order in which they were put
	hand int                   // guarded by mu: the oldest one's place
}

// take returns the cursor at a place; nil: there is none.
func (s *cursors) take(p cursorKey) *cursor {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.at[p]
	if c != nil {
		delete(s.at, p)
		s.ring[c.slot] = nil
	}
	return c
}

// put remembers a cursor at its place.
func (s *cursors) put(c *cursor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at == nil {
		s.at = map[cursorKey]*cursor{}
	}
	if s.at[c.place] != nil {
		return // another reader goes on there; one cursor will do for its next read
	}
	if old := s.ring[s.hand]; old != nil {
		delete(s.at, old.place)
	}
	c.slot = s.hand
	s.ring[s.hand], s.at[c.place] = c, c
	s.hand = (s.hand + 1) % maxCursors
}

// reaches tells whether the last entry that begins at pos or before is surely known.
func (c *cursor) reaches(pos int64) bool {
	return len(c.offsets) > 0 && int64(c.offsets[len(c.offsets)-1].pos) > pos
}

// before is the last entry that begins at pos or before; the segment's beginning where
// there is none.
func (c *cursor) before(pos int64) hint {
	i := sort.Search(len(c.offsets), func(i int) bool { return int64(c.offsets[i].pos) > pos })
	if i == 0 {
		return hint{0, noHint}
	}
	return c.place.seg.hintOf(c.offsets[i-1])
}

// boundary finds, by index, the last batch that begins at pos or before.
func (g *Segment) boundary(c *cursor, pos int64) (hint, error) {
	if c.reaches(pos) {
		return c.before(pos), nil
	}
	if found, ok := g.searchTail(func(e entry) bool { return int64(e.pos) > pos }); ok {
		return found, nil
	}
	if err := g.refill(c); err != nil {
		return hint{}, err
	}
	if c.reaches(pos) {
		return c.before(pos), nil
	}
	return g.searchPos(pos) // near the segment's end, or a very large read
}

// refill reads the entries that follow those the cursor has.
func (g *Segment) refill(c *cursor) error {
	x, err := g.openOffsetIndex()
	if err != nil {
		return err
	}
	defer x.close()
	from := c.next - 1 // the last one that it had may be the last before a place
	if c.next == 0 || from >= x.n {
		if from, err = x.search(func(b []byte) bool { return int64(decodeEntry(b).pos) > c.pos }); err != nil {
			return err
		}
	}
	n := min(x.n-from, cursorEntries)
	if c.offsets = c.offsets[:0]; n <= 0 {
		return nil
	}
	b := make([]byte, n*entryLen)
	if err := x.read(b, from); err != nil {
		return err
	}
	if c.offsets == nil {
		c.offsets = make([]entry, 0, cursorEntries)
	}
	for ; len(b) > 0; b = b[entryLen:] {
		c.offsets = append(c.offsets, decodeEntry(b))
	}
	c.next = from + n
	if c.ahead == inCache {
		c.ahead = 0 // look anew
	}
	return nil
}

// readAhead has the bytes that come next be read from disk before their reader comes
// back, where they are on disk only. end is where this read ends.
func (c *cursor) readAhead(f vfs.File, end, size int64) {
	if c.ahead == 0 {
		if !vfs.IsCold(f, end) {
			c.ahead = inCache // until more of the index is read
			return
		}
		c.ahead = end
	}
	for c.ahead < min(end+aheadBytes-aheadStep, size) {
		n := min(aheadStep, size-c.ahead)
		vfs.ReadAhead(f, c.ahead, n)
		c.ahead += n
	}
}
