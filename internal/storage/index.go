package storage

import (
	"errors"
	"io"
	"sort"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/vfs"
)

const (
	entryLen     = 8  // of .index: the last offset of a batch less the segment's base, the batch's position
	timeEntryLen = 12 // of .timeindex: the largest timestamp so far, the last offset of the batch that has it
	tailEntries  = 512
)

// entry says where a batch lies.
type entry struct {
	rel uint32 // its last offset less the segment's base
	pos uint32
}

// timeEntry says that no record up to one offset is later than ms.
type timeEntry struct {
	ms  int64
	rel uint32 // the last offset of the batch that has it, less the base
}

// tail is the end of the active segment's indexes, which is not in their files
// yet: flat and bounded, so that busy logs cost little memory. Guarded by Log.pub.
type tail struct {
	seg    *segment
	offs   []entry
	times  []timeEntry
	inFile int // entries that are in the .index file
	inTime int // and in the .timeindex file
	since  int // bytes since the last entry
	lastMS int64
}

// note takes a batch that was appended at pos; the caller keeps seg.maxTime.
func (t *tail) note(b record.Batch, pos int64, interval int) {
	if t.since > interval {
		t.offs = append(t.offs, entry{uint32(b.LastOffset() - t.seg.base), uint32(pos)})
		t.noteTime()
		t.since = 0
	}
	t.since += b.Size()
}

// noteTime adds the segment's largest timestamp if it grew.
func (t *tail) noteTime() {
	if g := t.seg; g.maxTime > t.lastMS {
		t.times = append(t.times, timeEntry{g.maxTime, uint32(g.maxAt - g.base)})
		t.lastMS = g.maxTime
	}
}

// entries are how many there are in all.
func (t *tail) entries() (offs, times int) {
	return t.inFile + len(t.offs), t.inTime + len(t.times)
}

// flushTail writes the entries to their files and forgets them. Log.mu is held, so
// that nothing is added meanwhile; readers see the entries in one place or the other.
func (l *Log) flushTail(t *tail) error {
	return l.change(func() error { return l.flushTailLocked(t) })
}

func (l *Log) flushTailLocked(t *tail) error {
	g := t.seg
	// Both files are made together: Kafka's tools take one without the other for damage.
	first := t.inFile+t.inTime == 0 && len(t.offs)+len(t.times) > 0
	if first || len(t.offs) > 0 {
		b := appendEntries(make([]byte, 0, len(t.offs)*entryLen), t.offs)
		if err := l.s.writeAt(g.path(indexSuffix), b, int64(t.inFile)*entryLen); err != nil {
			return err
		}
	}
	if first || len(t.times) > 0 {
		b := appendTimeEntries(make([]byte, 0, len(t.times)*timeEntryLen), t.times)
		if err := l.s.writeAt(g.path(timeSuffix), b, int64(t.inTime)*timeEntryLen); err != nil {
			return err
		}
	}
	l.pub.Lock()
	t.inFile, t.offs = t.inFile+len(t.offs), t.offs[:0]
	t.inTime, t.times = t.inTime+len(t.times), t.times[:0]
	l.pub.Unlock()
	return nil
}

func appendEntries(b []byte, offs []entry) []byte {
	for _, e := range offs {
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

// writeAt writes into a file, making it where it is missing.
func (s *Store) writeAt(name string, b []byte, off int64) error {
	f, err := s.fs.Open(name, vfs.Create)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, off)
	return errors.Join(err, f.Close())
}

// replace writes a file anew, in one step for who reads it: durably if sync.
func (s *Store) replace(dir, name string, b []byte, sync bool) error {
	if err := s.replaceFile(dir, name, b, sync); err != nil || !sync {
		return err
	}
	return s.syncDir(s.path(dir))
}

// replaceFile does so but for the file's name: a sync of its directory has to follow.
func (s *Store) replaceFile(dir, name string, b []byte, sync bool) error {
	tmp := s.path(dir, name+".tmp")
	f, err := s.fs.Open(tmp, vfs.Fresh)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	if err == nil && sync {
		err = f.Sync() // what comes of it is thrown away if this fails
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, s.fs.Remove(tmp))
	}
	return s.fs.Rename(tmp, s.path(dir, name))
}

// indexFile is a file of n entries, sorted by each of their fields.
type indexFile struct {
	f    vfs.File // nil: it is missing
	n    int
	size int // of an entry
}

// openIndex opens an index file; a missing one has no entries.
func (s *Store) openIndex(name string, size int) (indexFile, error) {
	f, err := s.fs.Open(name, vfs.ReadOnly)
	if errors.Is(err, vfs.ErrNotExist) {
		return indexFile{size: size}, nil
	}
	if err != nil {
		return indexFile{}, err
	}
	n, err := f.Size()
	if err != nil {
		return indexFile{}, errors.Join(err, f.Close())
	}
	return indexFile{f: f, n: int(n / int64(size)), size: size}, nil
}

func (x *indexFile) close() {
	if x.f != nil {
		_ = x.f.Close() // it was read only
	}
}

// blockEntries are read at a time: one page of a file, about.
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

// claim is what an index says: a batch that ends with offset last begins at pos.
// A segment's beginning needs no index: last is then noClaim.
type claim struct {
	pos  int64
	last record.Offset
}

const noClaim record.Offset = -1

func (g *segment) claim(e entry) claim { return claim{int64(e.pos), g.base + record.Offset(e.rel)} }

// search finds, by index, where in the segment a walk to the batch that holds an
// offset begins.
func (l *Log) search(g *segment, o record.Offset) (claim, error) {
	rel := uint32(min(max(o-g.base, 0), 1<<32-1))
	return l.searchBy(g, func(e entry) bool { return e.rel > rel })
}

// searchPos finds, by index, the last batch that begins at pos or before.
func (l *Log) searchPos(g *segment, pos int64) (claim, error) {
	return l.searchBy(g, func(e entry) bool { return int64(e.pos) > pos })
}

// searchBy finds the last entry for which after is false.
func (l *Log) searchBy(g *segment, after func(e entry) bool) (claim, error) {
	if c, ok := l.searchTail(g, after); ok {
		return c, nil
	}
	begin := claim{0, noClaim}
	x, err := l.indexOf(g)
	if err != nil {
		return begin, err
	}
	defer x.close()
	b, err := x.last(func(b []byte) bool { return after(decodeEntry(b)) })
	if err != nil || b == nil {
		return begin, err
	}
	return g.claim(decodeEntry(b)), nil
}

// searchTail does so among the entries that are in memory; false: none of those.
func (l *Log) searchTail(g *segment, after func(e entry) bool) (claim, bool) {
	l.pub.Lock()
	defer l.pub.Unlock()
	t := l.tail
	if t == nil || t.seg != g {
		return claim{}, false
	}
	i := sort.Search(len(t.offs), func(i int) bool { return after(t.offs[i]) })
	if i == 0 {
		return claim{}, false
	}
	return g.claim(t.offs[i-1]), true
}

// indexOf opens a segment's index file, as far as its entries count; there is none
// where they are all in memory.
func (l *Log) indexOf(g *segment) (indexFile, error) {
	n := -1 // entries of the file that count
	l.pub.Lock()
	if t := l.tail; t != nil && t.seg == g {
		n = t.inFile
	}
	l.pub.Unlock()
	if n == 0 {
		return indexFile{size: entryLen}, nil
	}
	x, err := l.s.openIndex(g.path(indexSuffix), entryLen)
	if err == nil && n >= 0 {
		x.n = min(n, x.n)
	}
	return x, err
}

// spot is where a batch lies.
type spot struct {
	pos, end   int64
	base, next record.Offset
	epoch      record.Epoch
	maxTime    int64
}

func spotOf(b record.Batch, pos, end int64) spot {
	return spot{pos, end, b.BaseOffset(), b.NextOffset(), b.LeaderEpoch(), b.MaxTimestamp()}
}

// maxHops is how many batches beyond the one that an index named a search walks
// before it takes the index for incomplete and has it made anew.
const maxHops = 4 * tailEntries

// locate finds the batch that holds an offset, or the first one after it; io.EOF
// where the segment has none. A wrong index is made anew.
func (l *Log) locate(g *segment, o record.Offset) (spot, error) {
	c, err := l.search(g, o)
	if err != nil {
		c = claim{0, noClaim}
	}
	sp, hops, err := l.walkTo(g, c, o)
	switch {
	case err == nil && hops <= maxHops, errors.Is(err, io.EOF) && c.last == noClaim:
		return sp, err
	case err != nil && !errors.Is(err, errTorn) && !errors.Is(err, io.EOF):
		return spot{}, err
	}
	if err := l.mendIndex(g); err != nil {
		l.s.log.Warn("an index could not be made anew; reads of this segment are slow",
			"log", l.dir, "segment", int64(g.base), "err", err)
	}
	if err == nil {
		return sp, nil
	}
	sp, _, err = l.walkTo(g, claim{0, noClaim}, o)
	return sp, err
}

// walkTo walks from where an index says to the batch that holds an offset. It
// returns errTorn where the index lied.
func (l *Log) walkTo(g *segment, from claim, o record.Offset) (sp spot, hops int, err error) {
	h, err := g.open()
	if err != nil {
		return spot{}, 0, err
	}
	defer h.drop()
	buf, _ := hopBuffers.Get().(*[]byte)
	defer hopBuffers.Put(buf)
	l.pub.Lock()
	size := g.size
	l.pub.Unlock()
	if from.pos > size {
		return spot{}, 0, errTorn
	}
	w := walker{f: h.f, end: size, pos: from.pos, verify: size, buf: *buf, chained: from.pos == 0, expect: g.base}
	for ; ; hops++ {
		at := w.pos
		b, err := w.next()
		if err != nil {
			return spot{}, hops, err
		}
		if b.BaseOffset() < g.base || hops == 0 && from.last != noClaim && b.LastOffset() != from.last {
			return spot{}, hops, errTorn
		}
		if b.LastOffset() >= o {
			return spotOf(b, at, w.pos), hops, nil
		}
	}
}

// mendIndex makes a segment's index files anew from its batches.
func (l *Log) mendIndex(g *segment) error {
	l.s.log.Info("making a segment's index anew", "log", l.dir, "segment", int64(g.base))
	return l.change(func() error { return l.mendIndexLocked(g) })
}

func (l *Log) mendIndexLocked(g *segment) error {
	h, err := g.open()
	if err != nil {
		return err
	}
	defer h.drop()
	l.pub.Lock()
	end := g.size
	active := l.tail != nil && l.tail.seg == g
	if active && len(l.tail.offs) > 0 {
		end = int64(l.tail.offs[0].pos) // the rest is in memory
	}
	l.pub.Unlock()
	t := &tail{seg: &segment{log: l, base: g.base, maxTime: record.NoTimestamp}, lastMS: record.NoTimestamp}
	if err := t.index(h.f, 0, end, l.options().IndexInterval); errors.Is(err, errTorn) {
		return l.damaged(g, err)
	} else if err != nil {
		return err
	}
	if !active {
		t.noteTime()
	}
	if err := l.s.replace(l.dir, fileName(g.base, indexSuffix), appendEntries(nil, t.offs), false); err != nil {
		return err
	}
	if err := l.s.replace(l.dir, fileName(g.base, timeSuffix), appendTimeEntries(nil, t.times), false); err != nil {
		return err
	}
	l.pub.Lock()
	defer l.pub.Unlock()
	if active {
		l.tail.inFile, l.tail.inTime = len(t.offs), len(t.times)
	} else {
		g.maxTime, g.maxAt = t.seg.maxTime, t.seg.maxAt
	}
	return nil
}

// index notes the batches of a file from pos to end. It verifies them, since what it
// notes is believed from then on.
func (t *tail) index(f vfs.File, pos, end int64, interval int) error {
	buf, _ := walkBuffers.Get().(*[]byte)
	defer walkBuffers.Put(buf)
	w := walker{f: f, end: end, pos: pos, buf: *buf, chained: pos == 0, expect: t.seg.base}
	for {
		at := w.pos
		b, err := w.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		t.seg.noteTime(b)
		t.note(b, at, interval)
	}
}

// noteTime keeps the largest timestamp. The caller holds Log.pub or has g alone.
func (g *segment) noteTime(b record.Batch) {
	if ms := b.MaxTimestamp(); ms > g.maxTime {
		g.maxTime, g.maxAt = ms, b.LastOffset()
	}
	if g.firstTime == timeUnknown {
		g.firstTime = b.MaxTimestamp()
	}
}
