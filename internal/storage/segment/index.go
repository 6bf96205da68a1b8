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
	// defaultInterval is the number of bytes between two index entries, unless the caller
	// sets another.
	defaultInterval = 4096
	// smallSegment is the size in bytes up to which a segment needs no index files when its
	// log is closed: to read the segment takes no longer than to open an index, and to make
	// two files for each of thousands of logs takes most of the time of a stop
	// (BenchmarkClose).
	smallSegment = 64 << 10
)

// entry is an entry of the offset index: the position of a batch.
type entry struct {
	rel uint32 // the batch's last offset less the segment's base
	pos uint32
}

// timeEntry is an entry of the time index: no record up to the offset has a timestamp
// larger than ms.
type timeEntry struct {
	ms  int64
	rel uint32 // the last offset of the batch with that timestamp, less the segment's base
}

// tail has the entries of an active segment's indexes that are not in their files yet.
// Their number is bounded by tailEntries. Guarded by Segment.mu.
type tail struct {
	offsets         []entry
	times           []timeEntry
	offsetsInFile   int // entries that are in the .index file
	timesInFile     int // entries that are in the .timeindex file
	bytesSinceEntry int
	lastTime        int64 // ms of the last entry of the time index, in the file or in times
	interval        int   // bytes between two entries, set by Activate; 0 after Create
}

// noteBatch adds the entries for a batch that was appended at pos. The segment's largest
// timestamp is up to date.
func (t *tail) noteBatch(g *Segment, b record.Batch, pos int64, interval int) {
	if t.bytesSinceEntry > interval {
		t.offsets = append(t.offsets, entry{uint32(b.LastOffset() - g.base), uint32(pos)})
		t.noteTime(g)
		t.bytesSinceEntry = 0
	}
	t.bytesSinceEntry += b.Size()
}

// noteTime adds an entry for the segment's largest timestamp, if that has grown.
func (t *tail) noteTime(g *Segment) {
	if g.maxTime > t.lastTime {
		t.times = append(t.times, timeEntry{g.maxTime, uint32(g.maxTimeAt - g.base)})
		t.lastTime = g.maxTime
	}
}

// IndexEntries is the number of entries of an active segment's indexes.
func (g *Segment) IndexEntries() (offsets, times int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.tail == nil {
		return 0, 0
	}
	return g.tail.offsetsInFile + len(g.tail.offsets), g.tail.timesInFile + len(g.tail.times)
}

// FlushIndexes writes the entries that are in memory to the index files. At any moment a
// reader finds each entry in memory or in the file.
func (g *Segment) FlushIndexes() error { return g.flushIndexes(false) }

// flushIndexes writes the entries that are in memory to the index files, and cuts the
// files after them. Bytes behind them may be left from before a crash, and would count as
// entries once the segment is closed. If all is true it cuts both files even if there are
// no entries to write.
func (g *Segment) flushIndexes(all bool) error {
	g.indexFiles.Lock()
	defer g.indexFiles.Unlock()
	g.mu.Lock()
	t := g.tail
	if t == nil || t.offsetsInFile+t.timesInFile == 0 && len(t.offsets)+len(t.times) == 0 {
		g.mu.Unlock()
		return nil
	}
	// Both files are made together: to Kafka's tools one without the other is damage.
	all = all || t.offsetsInFile+t.timesInFile == 0
	offsets, times := t.offsets, t.times // entries may be added meanwhile, but none is removed
	g.mu.Unlock()
	err := inDir(g, func() error {
		if all || len(offsets) > 0 {
			b := appendEntries(make([]byte, 0, len(offsets)*entryLen), offsets)
			if err := g.files.writeEnd(g.Path(IndexSuffix), b, int64(t.offsetsInFile)*entryLen); err != nil {
				return err
			}
		}
		if all || len(times) > 0 {
			b := appendTimeEntries(make([]byte, 0, len(times)*timeEntryLen), times)
			return g.files.writeEnd(g.Path(TimeSuffix), b, int64(t.timesInFile)*timeEntryLen)
		}
		return nil
	})
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	t.offsetsInFile, t.offsets = t.offsetsInFile+len(offsets), slices.Delete(t.offsets, 0, len(offsets))
	t.timesInFile, t.times = t.timesInFile+len(times), slices.Delete(t.times, 0, len(times))
	return nil
}

// FlushIndexesAtEnd is FlushIndexes for an active segment whose log is being closed. It
// does nothing for a segment that is so small that an index saves nothing.
func (g *Segment) FlushIndexesAtEnd() error {
	g.mu.Lock()
	few := g.tail == nil || g.size <= smallSegment && g.tail.offsetsInFile+g.tail.timesInFile == 0
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

// indexFile is an open index file. Its entries are sorted by each of their fields.
type indexFile struct {
	f    vfs.File // nil if the file is missing
	n    int      // the number of entries
	size int      // of an entry, in bytes
}

// openIndex opens an index file. A missing one has no entries.
func (g *Segment) openIndex(suffix string, size int) (x indexFile, err error) {
	x.size = size
	err = inDir(g, func() error {
		x.f, err = g.files.openFile(g.Path(suffix), vfs.ReadOnly)
		return err
	})
	if errors.Is(err, vfs.ErrNotExist) && !errors.Is(err, ErrReplaced) {
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

func (x *indexFile) closeFile() {
	if x.f != nil {
		_ = x.f.Close() // it was only read
	}
}

// blockEntries is the number of entries that are read at a time: about one page of a file.
const blockEntries = 340

// lastEntry returns the bytes of the last entry for which after is false, or nil if there
// is none.
func (x *indexFile) lastEntry(after func(b []byte) bool) ([]byte, error) {
	i, err := x.searchEntries(after)
	if err != nil || i == 0 {
		return nil, err
	}
	b := make([]byte, x.size)
	return b, x.readEntries(b, i-1)
}

// searchEntries returns the number of the first entry for which after is true, or x.n if
// there is none. It halves the range down to one block, which it reads at once.
func (x *indexFile) searchEntries(after func(b []byte) bool) (int, error) {
	lo, hi := 0, x.n // after is false for all below lo and true from hi on
	b := make([]byte, blockEntries*x.size)
	for hi-lo > blockEntries {
		mid := lo + (hi-lo)/2
		if err := x.readEntries(b[:x.size], mid); err != nil {
			return 0, err
		}
		if after(b[:x.size]) {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	b = b[:(hi-lo)*x.size]
	if err := x.readEntries(b, lo); err != nil {
		return 0, err
	}
	return lo + sort.Search(hi-lo, func(i int) bool { return after(b[i*x.size:][:x.size]) }), nil
}

func (x *indexFile) readEntries(b []byte, i int) error {
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

// hint is a position from an index: a batch whose last offset is last should begin at
// pos. It may be wrong. The beginning of a segment needs no index; its last is noHint.
type hint struct {
	pos  int64
	last record.Offset
}

const noHint record.Offset = -1

func (g *Segment) hintOf(e entry) hint { return hint{int64(e.pos), g.base + record.Offset(e.rel)} }

// searchOffset finds, by the index, where a walk to the batch with an offset begins.
func (g *Segment) searchOffset(o record.Offset) (hint, error) {
	rel := uint32(min(max(o-g.base, 0), 1<<32-1))
	return g.searchBy(func(e entry) bool { return e.rel > rel })
}

// searchPosition finds the last indexed batch that begins at pos or before.
func (g *Segment) searchPosition(pos int64) (hint, error) {
	return g.searchBy(func(e entry) bool { return int64(e.pos) > pos })
}

// searchBy finds the last entry for which after is false, in memory or in the file.
func (g *Segment) searchBy(after func(e entry) bool) (hint, error) {
	if c, ok := g.searchTail(after); ok {
		return c, nil
	}
	begin := hint{0, noHint}
	x, err := g.openOffsetIndex()
	if err != nil {
		return begin, err
	}
	defer x.closeFile()
	b, err := x.lastEntry(func(b []byte) bool { return after(decodeEntry(b)) })
	if err != nil || b == nil {
		return begin, err
	}
	return g.hintOf(decodeEntry(b)), nil
}

// searchTail searches the entries that are in memory. It returns false if the entry is
// not among them.
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

// openOffsetIndex opens the offset index. For an active segment it has only the entries
// that this process has read or written, and no file is opened if there are none.
func (g *Segment) openOffsetIndex() (indexFile, error) {
	n := -1 // how many entries of the file are valid; -1: all
	g.mu.Lock()
	if g.tail != nil {
		n = g.tail.offsetsInFile
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

// maxHops is how many batches a search may walk from the indexed batch. If it walks more
// the index is incomplete, and is built again.
const maxHops = 4 * tailEntries

// Locate finds the batch with an offset, or the first one after it. The error is io.EOF if
// the segment has none, and ErrTorn if the file is damaged. A wrong index is built again.
func (g *Segment) Locate(o record.Offset) (BatchInfo, error) {
	c, err := g.searchOffset(o)
	if errors.Is(err, ErrReplaced) {
		return BatchInfo{}, err
	}
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
		g.files.log.Warn("an index could not be built again; reads of this segment are slow",
			"file", g.Path(IndexSuffix), "err", err)
	}
	if err == nil {
		return found, nil
	}
	found, _, err = g.walkTo(hint{0, noHint}, o)
	return found, err
}

// walkTo walks from a hint to the batch with an offset, or the first one after it, and
// returns how many batches lay before it. It returns ErrTorn if the hint is wrong.
func (g *Segment) walkTo(from hint, o record.Offset) (found BatchInfo, hops int, err error) {
	h, err := g.useFile()
	if err != nil {
		return BatchInfo{}, 0, err
	}
	defer h.removeUser()
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

// infoAt reads the header of the batch at a position, and no more of the file.
func (g *Segment) infoAt(pos, size int64) (BatchInfo, error) {
	h, err := g.useFile()
	if err != nil {
		return BatchInfo{}, err
	}
	defer h.removeUser()
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

// fillHeader reads the header at pos into the buffer, and no more of the file.
func (w *Walker) fillHeader(size int64) error {
	if w.pos+record.HeaderLen > size {
		return nil // Next returns the error
	}
	got, err := w.f.ReadAt((*w.buf)[:record.HeaderLen], w.pos)
	w.at, w.n = w.pos, got
	if got == record.HeaderLen || err == nil || errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// rebuildIndexes builds the index files again from the batches.
func (g *Segment) rebuildIndexes() error {
	g.files.log.Info("building a segment's index again", "file", g.Path(IndexSuffix))
	g.indexFiles.Lock()
	defer g.indexFiles.Unlock()
	g.mu.Lock()
	end, active := g.size, g.tail != nil
	interval := defaultInterval
	if active {
		if len(g.tail.offsets) > 0 {
			end = int64(g.tail.offsets[0].pos) // the entries from there on are in memory
		}
		interval = g.tail.intervalOrDefault(interval)
	}
	g.mu.Unlock()
	twin := &Segment{base: g.base, maxTime: record.NoTimestamp, firstTime: TimeUnknown}
	t := &tail{lastTime: record.NoTimestamp}
	if err := g.scanBatches(twin, t, 0, end, interval); err != nil {
		return err
	}
	if !active {
		t.noteTime(twin)
	}
	err := inDir(g, func() error {
		if err := g.files.replaceFile(g.Path(IndexSuffix), appendEntries(nil, t.offsets), false); err != nil {
			return err
		}
		return g.files.replaceFile(g.Path(TimeSuffix), appendTimeEntries(nil, t.times), false)
	})
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case active && g.tail != nil:
		g.tail.offsetsInFile, g.tail.timesInFile = len(t.offsets), len(t.times)
	case !active && g.tail == nil:
		g.maxTime, g.maxTimeAt = twin.maxTime, twin.maxTimeAt
	}
	return nil
}

// intervalOrDefault is the interval between entries with which the tail was loaded, or
// other if it has none.
func (t *tail) intervalOrDefault(other int) int {
	if t.interval > 0 {
		return t.interval
	}
	return other
}

// scanBatches adds the entries of the batches from pos to end to a tail, and their
// timestamps to the segment into, which no other goroutine uses. It verifies the
// batches, since the results are used without another check.
func (g *Segment) scanBatches(into *Segment, t *tail, pos, end int64, interval int) error {
	h, err := g.useFile()
	if err != nil {
		return err
	}
	defer h.removeUser()
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
		into.noteTimeLocked(b) // no lock is needed
		t.noteBatch(into, b, at, interval)
	}
}

// maxBadEntries is how many wrong entries at the end of an index are skipped before it is
// built again. They are of batches that a crash has removed.
const maxBadEntries = 64

// Activate makes the log's last segment active after Attach: it loads the ends of the
// indexes into memory. It does nothing if they are there. interval is the number of bytes
// between two entries; 0 means the default.
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
	// The tail is built apart from the segment, so that readers see all of it or none.
	twin := &Segment{base: g.base, size: size, next: next, maxTime: record.NoTimestamp, firstTime: TimeUnknown}
	t := &tail{lastTime: record.NoTimestamp, interval: interval}
	pos, err := g.resumeTail(twin, t)
	if err != nil {
		return err
	}
	if err := g.scanBatches(twin, t, pos, size, interval); err != nil {
		return err
	}
	if pos > 0 { // the first batch was not scanned
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

// resumeTail finds the last entries of the index files that are right, and returns the
// position after their batches, from which on scanBatches adds the entries.
func (g *Segment) resumeTail(twin *Segment, t *tail) (int64, error) {
	x, err := g.openIndex(IndexSuffix, entryLen)
	if err != nil {
		return 0, err
	}
	defer x.closeFile()
	b := make([]byte, timeEntryLen)
	for n := x.n; n > 0 && n > x.n-maxBadEntries; n-- {
		if err := x.readEntries(b[:entryLen], n-1); err != nil {
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
		// The time index may have lost entries of batches that the offset index has.
		if err := g.scanBatches(twin, &tail{}, from, found.End, math.MaxInt); err != nil {
			return 0, err
		}
		t.offsetsInFile, t.bytesSinceEntry = n, int(found.End-found.Pos)
		return found.End, nil
	}
	return 0, nil
}

// resumeTimes finds the last entry of the time index that is right and not beyond e, an
// entry of the offset index. It returns the position after the entry's batch; ok is false
// if there is no such entry.
func (g *Segment) resumeTimes(twin *Segment, t *tail, e entry) (pos int64, ok bool, err error) {
	x, err := g.openIndex(TimeSuffix, timeEntryLen)
	if err != nil {
		return 0, false, err
	}
	defer x.closeFile()
	b := make([]byte, timeEntryLen)
	for n := x.n; n > 0 && n > x.n-maxBadEntries; n-- {
		if err := x.readEntries(b, n-1); err != nil {
			return 0, false, err
		}
		te := decodeTimeEntry(b)
		if te.rel > e.rel {
			continue
		}
		if end, fits := g.checkTimeEntry(te); fits {
			t.timesInFile, t.lastTime = n, te.ms
			twin.maxTime, twin.maxTimeAt = te.ms, g.base+record.Offset(te.rel)
			return end, true, nil
		}
	}
	return 0, false, nil
}
