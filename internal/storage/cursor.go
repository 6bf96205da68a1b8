package storage

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
	// only, and aheadStep how much of that at a time. The system's own reading ahead
	// stays within 128 KiB and makes who sends the file wait for each of these: with
	// ours the other connections wait half as long (leat bench latency beside consume).
	// A step takes 0.1 to 0.2 ms, in which nobody may look at the network; others go first
	// after it. In steps of 1 MiB a tail's p99 was 1.4 ms, in these it is 1.1, in steps of
	// 256 KiB it was no lower (scripts/bench.sh --only cold).
	aheadBytes = 8 << 20
	aheadStep  = 512 << 10
)

// cursor is where a reader of old records will go on, and a stretch of the index
// that lies ahead of it. It saves such a reader the index file at nearly every read: all
// but one of more than twenty system calls, nine tenths of the time of finding 64 KiB
// (BenchmarkRead/old) and 40 % of the CPU of a fetch of them (leat bench consume).
type cursor struct {
	place cursorPlace
	pos   int64   // of the batch that begins with place.base
	offs  []entry // of the index file, in order
	next  int     // the entry of the file that follows offs; 0: not known
	ahead int64   // the file is read ahead up to here; 0: to be looked at; inCache
	slot  int     // in cursors.ring; guarded by cursors.mu
}

// inCache stands for a reader who need not wait for the disk, as far as is known.
const inCache = math.MaxInt64

// cursorPlace names a batch by the offset that it begins with.
type cursorPlace struct {
	seg  *segment
	base record.Offset
}

// cursors are those of all logs of a store: a bounded number, since memory for each
// log would be too much where there are many. A reader takes its cursor and puts it
// back where it will go on; the one that was not used for longest gives way.
type cursors struct {
	mu   sync.Mutex
	at   map[cursorPlace]*cursor // guarded by mu
	ring [maxCursors]*cursor     // guarded by mu: in the order in which they were put
	hand int                     // guarded by mu: the oldest one's place
}

// take returns the cursor at a place; nil: there is none.
func (s *cursors) take(p cursorPlace) *cursor {
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
		s.at = map[cursorPlace]*cursor{}
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
	return len(c.offs) > 0 && int64(c.offs[len(c.offs)-1].pos) > pos
}

// before is the last entry that begins at pos or before; the segment's beginning
// where there is none.
func (c *cursor) before(pos int64) claim {
	i := sort.Search(len(c.offs), func(i int) bool { return int64(c.offs[i].pos) > pos })
	if i == 0 {
		return claim{0, noClaim}
	}
	return c.place.seg.claim(c.offs[i-1])
}

// boundary finds, by index, the last batch that begins at pos or before.
func (l *Log) boundary(c *cursor, pos int64) (claim, error) {
	if c.reaches(pos) {
		return c.before(pos), nil
	}
	if cl, ok := l.searchTail(c.place.seg, func(e entry) bool { return int64(e.pos) > pos }); ok {
		return cl, nil
	}
	if err := l.refill(c); err != nil {
		return claim{}, err
	}
	if c.reaches(pos) {
		return c.before(pos), nil
	}
	return l.searchPos(c.place.seg, pos) // near the segment's end, or a very large read
}

// refill reads the entries that follow those the cursor has.
func (l *Log) refill(c *cursor) error {
	g := c.place.seg
	x, err := l.indexOf(g)
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
	if c.offs = c.offs[:0]; n <= 0 {
		return nil
	}
	b := make([]byte, n*entryLen)
	if err := x.read(b, from); err != nil {
		return err
	}
	if c.offs == nil {
		c.offs = make([]entry, 0, cursorEntries)
	}
	for ; len(b) > 0; b = b[entryLen:] {
		c.offs = append(c.offs, decodeEntry(b))
	}
	c.next = from + n
	if c.ahead == inCache {
		c.ahead = 0 // look anew
	}
	return nil
}

// readAhead sees to it that what comes next is being read when its reader comes
// back, where it is on disk only. end is where this read ends.
func (c *cursor) readAhead(f vfs.File, end, size int64) {
	if c.ahead == 0 {
		if !isCold(f, end) {
			c.ahead = inCache // until more of the index is read
			return
		}
		c.ahead = end
	}
	for c.ahead < min(end+aheadBytes-aheadStep, size) {
		n := min(aheadStep, size-c.ahead)
		readAhead(f, c.ahead, n)
		c.ahead += n
	}
}
