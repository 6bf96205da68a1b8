package segment

import (
	"errors"
	"io"
	"math"
	"slices"
	"sort"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/vfs"
)

const (
	entryLen     = 8  // bytes of an entry of .index
	timeEntryLen = 12 // bytes of an entry of .timeindex
	tailEntries  = 512

	// MinIndexBytes is the least size of an index file that has room for entries.
	MinIndexBytes = 2 * timeEntryLen
	// defaultInterval is the number of bytes between two index entries where nobody says.
	defaultInterval = 4096
	// fewBytes is how much of a segment is read as fast as an index of it is opened: to
	// make two files for each of thousands of logs is most of what closing them takes
	// (BenchmarkClose).
	fewBytes = 64 << 10
)

// entry says where a batch lies.
type entry struct {
	rel uint32 // its last offset less the segment's base
	pos uint32
}

// timeEntry says that no record up to an offset is later than ms.
type timeEntry struct {
	ms  int64
	rel uint32 // the last offset of the batch that has that timestamp, less the base
}

// tail is the end of an active segment's indexes that is not in their files yet. It is
// flat and bounded, so that busy logs cost little memory. Guarded by Segment.mu.
type tail struct {
	offsets  []entry
	times    []timeEntry
	inIndex  int // entries that are in the .index file
	inTimes  int // entries that are in the .timeindex file
	since    int // bytes since the last entry
	lastMS   int64
	interval int
}

// note takes a batch that was appended at pos. The segment's largest timestamp has been
// noted.
func (t *tail) note(g *Segment, b record.Batch, pos int64, interval int) {
	if t.since > interval {
		t.offsets = append(t.offsets, entry{uint32(b.LastOffset() - g.base), uint32(pos)})
		t.noteTime(g)
		t.since = 0
	}
	t.since += b.Size()
}

// noteTime adds the segment's largest timestamp if it grew.
func (t *tail) noteTime(g *Segment) {
	if g.maxTime > t.lastMS {
		t.times = append(t.times, timeEntry{g.maxTime, uint32(g.maxTimeAt - g.base)})
		t.lastMS = g.maxTime
	}
}

// IndexEntries is the number of entries of an active segment's indexes.
func (g *Segment) IndexEntries() (offsets, times int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.tail == nil {
		return 0, 0
	}
	return g.tail.inIndex + len(g.tail.offsets), g.tail.inTimes + len(g.tail.times)
}

// FlushIndexes writes the entries that are in memory to the index files. Readers see
// each entry in one place or the other.
func (g *Segment) FlushIndexes() error { return g.flushIndexes(false) }

// flushIndexes writes the entries that are in memory to the index files, which end with them
// then: bytes of an earlier life of the files may have followed, and would count once the
// segment is closed. all has it end both files also where no entry is to be written.
func (g *Segment) flushIndexes(all bool) error {
	g.indexFiles.Lock()
	defer g.indexFiles.Unlock()
	g.mu.Lock()
	t := g.tail
	if t == nil || t.inIndex+t.inTimes == 0 && len(t.offsets)+len(t.times) == 0 {
		g.mu.Unlock()
		return nil
	}
	// Both files are made together: Kafka's tools take one without the other for damage.
	all = all || t.inIndex+t.inTimes == 0
	offsets, times := t.offsets, t.times // entries may be added to them meanwhile, but none is taken away
	g.mu.Unlock()
	err := g.dir.Do(func() error {
		if all || len(offsets) > 0 {
			b := appendEntries(make([]byte, 0, len(offsets)*entryLen), offsets)
			if err := g.files.writeEnd(g.Path(IndexSuffix), b, int64(t.inIndex)*entryLen); err != nil {
				return err
			}
		}
		if all || len(times) > 0 {
			b := appendTimeEntries(make([]byte, 0, len(times)*timeEntryLen), times)
			return g.files.writeEnd(g.Path(TimeSuffix), b, int64(t.inTimes)*timeEntryLen)
		}
		return nil
	})
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	t.inIndex, t.offsets = t.inIndex+len(offsets), slices.Delete(t.offsets, 0, len(offsets))
	t.inTimes, t.times = t.inTimes+len(times), slices.Delete(t.times, 0, len(times))
	return nil
}

// FlushIndexesAtEnd writes the entries of an active segment when its log is closed,
// unless the segment is so small that an index saves nothing.
func (g *Segment) FlushIndexesAtEnd() error {
	g.mu.Lock()
	few := g.tail == nil || g.size <= fewBytes && g.tail.inIndex+g.tail.inTimes == 0
	g.mu.Unlock()
	if few {
		return nil
	}
	return g.FlushIndexes()
}

func appendEntries(b []byte, offsets []entry) []byte {
	for _, e := range offsets {
		b = be.AppendUint32(be.AppendUint32(b, e.rel), e.pos)
	}
	return b
}

func appendTimeEntries(b []byte, times []timeEntry) []byte {
	for _, e := range times {
		b = be.AppendUint32(be.AppendUint64(b, uint64(e.ms)), e.rel)
	}
	return b
}

func decodeEntry(b []byte) entry { return entry{be.Uint32(b), be.Uint32(b[4:])} }

func decodeTimeEntry(b []byte) timeEntry {
	return timeEntry{int64(be.Uint64(b)), be.Uint32(b[8:])}
}

// indexFile is an open file of n entries, sorted by each of their fields.
type indexFile struct {
	f    vfs.File // nil: it is missing
	n    int
	size int // of an entry, bytes
}

// openIndex opens an index file; a missing one has no entries.
func (g *Segment) openIndex(suffix string, size int) (x indexFile, err error) {
	x.size = size
	err = g.dir.Do(func() error {
		x.f, err = g.files.openFile(g.Path(suffix), vfs.ReadOnly)
		return err
	})
	if errors.Is(err, vfs.ErrNotExist) {
		return indexFile{size: size}, nil
	}
	if err != nil {
		return indexFile{}, err
	}
	n, err := x.f.Size()
	if err != nil {
		return indexFile{}, errors.Join(err, x.f.Close())
	}
	x.n = int(n / int64(size))
	return x, nil
}

func (x *indexFile) close() {
	if x.f != nil {
		_ = x.f.Close() // it was only read
	}
}

// blockEntries is the number of entries that are read at a time: about one page of a file.
const blockEntries = 340

// last returns the last entry for which after is false, as bytes; nil: there is none.
func (x *indexFile) last(after func(b []byte) bool) ([]byte, error) {
	i, err := x.search(after)
	if err != nil || i == 0 {
		return nil, err
	}
	b := make([]byte, x.size)
	return b, x.read(b, i-1)
}

// search returns the number of the first entry for which after is true; n: there is
// none. It halves the file down to one block, then looks into that.
func (x *indexFile) search(after func(b []byte) bool) (int, error) {
	lo, hi := 0, x.n // after is false for all below lo and true from hi on
	b := make([]byte, blockEntries*x.size)
	for hi-lo > blockEntries {
		mid := lo + (hi-lo)/2
		if err := x.read(b[:x.size], mid); err != nil {
			return 0, err
		}
		if after(b[:x.size]) {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	b = b[:(hi-lo)*x.size]
	if err := x.read(b, lo); err != nil {
		return 0, err
	}
	return lo + sort.Search(hi-lo, func(i int) bool { return after(b[i*x.size:][:x.size]) }), nil
}

func (x *indexFile) read(b []byte, i int) error {
	if len(b) == 0 {
		return nil
	}
	n, err := x.f.ReadAt(b, int64(i)*int64(x.size))
	if n == len(b) {
		return nil
	}
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// hint is what an index says: a batch that ends with offset last begins at pos. The
// beginning of a segment needs no index: last is then noHint.
type hint struct {
	pos  int64
	last record.Offset
}

const noHint record.Offset = -1

func (g *Segment) hintOf(e entry) hint { return hint{int64(e.pos), g.base + record.Offset(e.rel)} }

// search finds, by index, where a walk to the batch that holds an offset begins.
func (g *Segment) search(o record.Offset) (hint, error) {
	rel := uint32(min(max(o-g.base, 0), 1<<32-1))
	return g.searchBy(func(e entry) bool { return e.rel > rel })
}

// searchPos finds, by index, the last batch that begins at pos or before.
func (g *Segment) searchPos(pos int64) (hint, error) {
	return g.searchBy(func(e entry) bool { return int64(e.pos) > pos })
}

// searchBy finds the last entry for which after is false.
func (g *Segment) searchBy(after func(e entry) bool) (hint, error) {
	if c, ok := g.searchTail(after); ok {
		return c, nil
	}
	begin := hint{0, noHint}
	x, err := g.openOffsetIndex()
	if err != nil {
		return begin, err
	}
	defer x.close()
	b, err := x.last(func(b []byte) bool { return after(decodeEntry(b)) })
	if err != nil || b == nil {
		return begin, err
	}
	return g.hintOf(decodeEntry(b)), nil
}

// searchTail searches the entries that are in memory; false: it is none of those.
func (g *Segment) searchTail(after func(e entry) bool) (hint, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.tail == nil {
		return hint{}, false
	}
	offsets := g.tail.offsets
	i := sort.Search(len(offsets), func(i int) bool { return after(offsets[i]) })
	if i == 0 {
		return hint{}, false
	}
	return g.hintOf(offsets[i-1]), true
}

// openOffsetIndex opens the offset index, as far as its entries count; there is none
// where they are all in memory.
func (g *Segment) openOffsetIndex() (indexFile, error) {
	n := -1 // entries of the file that count
	g.mu.Lock()
	if g.tail != nil {
		n = g.tail.inIndex
	}
	g.mu.Unlock()
	if n == 0 {
		return indexFile{size: entryLen}, nil
	}
	x, err := g.openIndex(IndexSuffix, entryLen)
	if err == nil && n >= 0 {
		x.n = min(n, x.n)
	}
	return x, err
}

// maxHops is how many batches beyond the one that an index named a search walks before
// it takes the index for incomplete and has it made anew.
const maxHops = 4 * tailEntries

// Locate finds the batch that holds an offset, or the first one after it; io.EOF where
// the segment has none, ErrTorn where the file is damaged. A wrong index is made anew.
func (g *Segment) Locate(o record.Offset) (BatchInfo, error) {
	c, err := g.search(o)
	if err != nil {
		c = hint{0, noHint}
	}
	found, hops, err := g.walkTo(c, o)
	switch {
	case err == nil && hops <= maxHops, errors.Is(err, io.EOF):
		return found, err
	case err != nil && !errors.Is(err, ErrTorn):
		return BatchInfo{}, err
	}
	if err := g.rebuildIndexes(); errors.Is(err, ErrTorn) {
		return BatchInfo{}, err
	} else if err != nil {
		g.files.log.Warn("an index could not be made anew; reads of this segment are slow",
			"file", g.Path(IndexSuffix), "err", err)
	}
	if err == nil {
		return found, nil
	}
	found, _, err = g.walkTo(hint{0, noHint}, o)
	return found, err
}

// walkTo walks from where an index says to the batch that holds an offset. It returns
// ErrTorn where the index lied.
func (g *Segment) walkTo(from hint, o record.Offset) (found BatchInfo, hops int, err error) {
	h, err := g.open()
	if err != nil {
		return BatchInfo{}, 0, err
	}
	defer h.release()
	size := g.Size()
	if from.pos > size {
		return BatchInfo{}, 0, ErrTorn
	}
	w := g.walkFrom(h.f, from.pos, size, &hopBuffers)
	defer w.Close()
	w.Trust(size)
	for ; ; hops++ {
		at := w.pos
		b, err := w.Next()
		if errors.Is(err, io.EOF) && hops == 0 && from.last != noHint {
			err = ErrTorn // no batch begins there
		}
		if err != nil {
			return BatchInfo{}, hops, err
		}
		if b.BaseOffset() < g.base || hops == 0 && from.last != noHint && b.LastOffset() != from.last {
			return BatchInfo{}, hops, ErrTorn
		}
		if b.LastOffset() >= o {
			return infoOf(b, at, w.pos), hops, nil
		}
	}
}

// infoAt reads the header of the batch at a position, and nothing else.
func (g *Segment) infoAt(pos, size int64) (BatchInfo, error) {
	h, err := g.open()
	if err != nil {
		return BatchInfo{}, err
	}
	defer h.release()
	w := newWalker(h.f, pos, min(size, pos+hopBuffer), &hopBuffers)
	defer w.Close()
	if err := w.fillHeader(size); err != nil {
		return BatchInfo{}, err
	}
	w.Trust(size)
	w.end = size
	b, err := w.Next()
	if err == nil && b.BaseOffset() < g.base {
		err = ErrTorn
	}
	if err != nil {
		return BatchInfo{}, err
	}
	return infoOf(b, pos, w.pos), nil
}

// fillHeader reads the header at pos and not more.
func (w *Walker) fillHeader(size int64) error {
	if w.pos+record.HeaderLen > size {
		return nil // Next will say so
	}
	got, err := w.f.ReadAt((*w.buf)[:record.HeaderLen], w.pos)
	w.at, w.n = w.pos, got
	if got == record.HeaderLen || err == nil || errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// rebuildIndexes makes the index files anew from the batches.
func (g *Segment) rebuildIndexes() error {
	g.files.log.Info("making a segment's index anew", "file", g.Path(IndexSuffix))
	g.indexFiles.Lock()
	defer g.indexFiles.Unlock()
	g.mu.Lock()
	end, active := g.size, g.tail != nil
	interval := defaultInterval
	if active {
		if len(g.tail.offsets) > 0 {
			end = int64(g.tail.offsets[0].pos) // the rest is in memory
		}
		interval = g.tail.intervalOr(interval)
	}
	g.mu.Unlock()
	twin := &Segment{base: g.base, maxTime: record.NoTimestamp, firstTime: TimeUnknown}
	t := &tail{lastMS: record.NoTimestamp}
	if err := g.scan(twin, t, 0, end, interval); err != nil {
		return err
	}
	if !active {
		t.noteTime(twin)
	}
	err := g.dir.Do(func() error {
		if err := g.files.replaceFile(g.Path(IndexSuffix), appendEntries(nil, t.offsets)); err != nil {
			return err
		}
		return g.files.replaceFile(g.Path(TimeSuffix), appendTimeEntries(nil, t.times))
	})
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case active && g.tail != nil:
		g.tail.inIndex, g.tail.inTimes = len(t.offsets), len(t.times)
	case !active && g.tail == nil:
		g.maxTime, g.maxTimeAt = twin.maxTime, twin.maxTimeAt
	}
	return nil
}

// intervalOr is the interval between entries that the tail was loaded with.
func (t *tail) intervalOr(other int) int {
	if t.interval > 0 {
		return t.interval
	}
	return other
}

// scan notes the batches from pos to end in a tail and in the segment that it is for. It
// verifies them, since what it notes is believed from then on.
func (g *Segment) scan(into *Segment, t *tail, pos, end int64, interval int) error {
	h, err := g.open()
	if err != nil {
		return err
	}
	defer h.release()
	w := g.walkFrom(h.f, pos, end, &walkBuffers)
	defer w.Close()
	for {
		at := w.pos
		b, err := w.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		into.noteTimeLocked(b) // nobody else has it
		t.note(into, b, at, interval)
	}
}

// maxBadEntries is how many wrong entries at an index's end are skipped before all of it
// is made anew: entries for batches that a crash took away.
const maxBadEntries = 64

// Activate takes the ends of the indexes into memory, once, for the log's last segment.
// interval is the number of bytes between two entries; 0: as is usual.
func (g *Segment) Activate(interval int) error {
	if interval <= 0 {
		interval = defaultInterval
	}
	g.indexFiles.Lock()
	defer g.indexFiles.Unlock()
	g.mu.Lock()
	loaded, size, next := g.tail != nil, g.size, g.next
	g.mu.Unlock()
	if loaded {
		return nil
	}
	// The tail is built beside the segment, so that readers see all of it or nothing.
	twin := &Segment{base: g.base, size: size, next: next, maxTime: record.NoTimestamp, firstTime: TimeUnknown}
	t := &tail{lastMS: record.NoTimestamp, interval: interval}
	pos, err := g.resumeTail(twin, t)
	if err != nil {
		return err
	}
	if err := g.scan(twin, t, pos, size, interval); err != nil {
		return err
	}
	if pos > 0 { // the first batch was not among those
		first, _, err := g.walkTo(hint{0, noHint}, 0)
		if err != nil {
			return err
		}
		twin.firstTime = first.MaxTime
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.maxTime, g.maxTimeAt, g.firstTime = twin.maxTime, twin.maxTimeAt, twin.firstTime
	g.tail = t
	return nil
}

// resumeTail reads the ends of the index files and returns the position from which on
// batches are to be noted: after the last batch that both files vouch for.
func (g *Segment) resumeTail(twin *Segment, t *tail) (int64, error) {
	x, err := g.openIndex(IndexSuffix, entryLen)
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
		c := g.hintOf(e)
		found, hops, err := g.walkTo(c, c.last)
		if err != nil || hops > 0 {
			continue
		}
		from, ok, err := g.resumeTimes(twin, t, e)
		if err != nil || !ok {
			return 0, err
		}
		// The time index may have lost entries that the other one's file still has.
		if err := g.scan(twin, &tail{}, from, found.End, math.MaxInt); err != nil {
			return 0, err
		}
		t.inIndex, t.since = n, int(found.End-found.Pos)
		return found.End, nil
	}
	return 0, nil
}

// resumeTimes takes up the time index at its last entry that fits and is not beyond the other
// index's entry e. It returns the position after the batch which that entry names.
func (g *Segment) resumeTimes(twin *Segment, t *tail, e entry) (pos int64, ok bool, err error) {
	x, err := g.openIndex(TimeSuffix, timeEntryLen)
	if err != nil {
		return 0, false, err
	}
	defer x.close()
	b := make([]byte, timeEntryLen)
	for n := x.n; n > 0 && n > x.n-maxBadEntries; n-- {
		if err := x.read(b, n-1); err != nil {
			return 0, false, err
		}
		te := decodeTimeEntry(b)
		if te.rel > e.rel {
			continue
		}
		if end, fits := g.timeFits(te); fits {
			t.inTimes, t.lastMS = n, te.ms
			twin.maxTime, twin.maxTimeAt = te.ms, g.base+record.Offset(te.rel)
			return end, true, nil
		}
	}
	return 0, false, nil
}
