package segment

import (
	"math"
	"sort"
	"sync"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/vfs"
)

const (
	maxCursors    = 1024 // bound of the cursors of a store
	cursorEntries = 512  // index entries of a cursor: 4 KiB, for 2 MiB of small batches or 8 MiB of batches of 16 KiB

	// readAheadBytes is how far a file is read ahead of a reader whose records are only on
	// disk, readAheadStep how much of that at a time. The system's own read-ahead is at most
	// 128 KiB, and a reader waits for each of these. A step may keep Go's scheduler from
	// looking at the network, so steps are short (scripts/bench.sh --only cold).
	readAheadBytes = 8 << 20
	readAheadStep  = 512 << 10
)

// cursor is the position from which a reader of old records will go on, with the index
// entries that follow it. With a cursor nearly all reads do without the index file
// (BenchmarkRead/old).
type cursor struct {
	key     cursorKey
	pos     int64   // the position of the batch that key names
	entries []entry // some entries of the index file, in order
	next    int     // the number in the file of the entry after entries; 0 if it is not known
	aheadTo int64   // the file is read ahead up to here; 0 if it is not known whether that is needed; or inCache
	slot    int     // in cursors.ring; guarded by cursors.mu
}

// inCache is the aheadTo of a reader whose records seem to be in the page cache.
const inCache = math.MaxInt64

// cursorKey names a batch by the offset that it begins with.
type cursorKey struct {
	seg  *Segment
	base record.Offset
}

// cursors are the cursors of all logs of a store. Their number is bounded for the store,
// since memory for each log would be too much. A reader takes its cursor out and puts it
// back at its next position, in the place of the oldest one.
type cursors struct {
	mu     sync.Mutex
	byKey  map[cursorKey]*cursor // guarded by mu
	ring   [maxCursors]*cursor   // guarded by mu: in the order in which they were put
	oldest int                   // guarded by mu: the oldest one's slot
}

// takeCursor takes the cursor of a batch out and returns it, or nil if there is none.
func (s *cursors) takeCursor(p cursorKey) *cursor {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.byKey[p]
	if c != nil {
		delete(s.byKey, p)
		s.ring[c.slot] = nil
	}
	return c
}

// putCursor adds a cursor, and drops the oldest one if there are too many.
func (s *cursors) putCursor(c *cursor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byKey == nil {
		s.byKey = map[cursorKey]*cursor{}
	}
	if s.byKey[c.key] != nil {
		return // another reader goes on there, and one cursor is enough
	}
	if old := s.ring[s.oldest]; old != nil {
		delete(s.byKey, old.key)
	}
	c.slot = s.oldest
	s.ring[s.oldest], s.byKey[c.key] = c, c
	s.oldest = (s.oldest + 1) % maxCursors
}

// covers tells whether the entries reach beyond pos, so that lastBefore(pos) needs no
// later ones.
func (c *cursor) covers(pos int64) bool {
	return len(c.entries) > 0 && int64(c.entries[len(c.entries)-1].pos) > pos
}

// lastBefore is the cursor's last entry for a batch at pos or before, or the segment's
// beginning if there is none.
func (c *cursor) lastBefore(pos int64) hint {
	i := sort.Search(len(c.entries), func(i int) bool { return int64(c.entries[i].pos) > pos })
	if i == 0 {
		return hint{0, noHint}
	}
	return c.key.seg.hintOf(c.entries[i-1])
}

// findBoundary finds the last indexed batch that begins at pos or before. It looks into
// the cursor first.
func (g *Segment) findBoundary(c *cursor, pos int64) (hint, error) {
	if c.covers(pos) {
		return c.lastBefore(pos), nil
	}
	if found, ok := g.searchTail(func(e entry) bool { return int64(e.pos) > pos }); ok {
		return found, nil
	}
	if err := g.refillCursor(c); err != nil {
		return hint{}, err
	}
	if c.covers(pos) {
		return c.lastBefore(pos), nil
	}
	return g.searchPosition(pos) // the position is near the segment's end, or the read is very large
}

// refillCursor reads the next entries of the index file into the cursor.
func (g *Segment) refillCursor(c *cursor) error {
	x, err := g.openOffsetIndex()
	if err != nil {
		return err
	}
	defer x.closeFile()
	from := c.next - 1 // keeps the last entry, which may be the last one before a position
	if c.next == 0 || from >= x.n {
		if from, err = x.searchEntries(func(b []byte) bool { return int64(decodeEntry(b).pos) > c.pos }); err != nil {
			return err
		}
	}
	n := min(x.n-from, cursorEntries)
	if c.entries = c.entries[:0]; n <= 0 {
		return nil
	}
	b := make([]byte, n*entryLen)
	if err := x.readEntries(b, from); err != nil {
		return err
	}
	if c.entries == nil {
		c.entries = make([]entry, 0, cursorEntries)
	}
	for ; len(b) > 0; b = b[entryLen:] {
		c.entries = append(c.entries, decodeEntry(b))
	}
	c.next = from + n
	if c.aheadTo == inCache {
		c.aheadTo = 0 // readAhead looks again
	}
	return nil
}

// readAhead has the system read the bytes after end, where this read ends, before the
// reader asks for them. It does so only if they are not in the page cache.
func (c *cursor) readAhead(f vfs.File, end, size int64) {
	if c.aheadTo == 0 {
		if !vfs.IsCold(f, end) {
			c.aheadTo = inCache // until refillCursor
			return
		}
		c.aheadTo = end
	}
	for c.aheadTo < min(end+readAheadBytes-readAheadStep, size) {
		n := min(readAheadStep, size-c.aheadTo)
		vfs.ReadAhead(f, c.aheadTo, n)
		c.aheadTo += n
	}
}
