package storage

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/vfs"
)

// The journal is a ring of files whose blocks were written before, so that a sync
// of new bytes in them changes no metadata of the file system. A round is
//
//	0   magic  4, checksum of the rest of the head 4
//	8   journal id 16
//	24  number 8
//	32  checksum of the previous round's head 4
//	36  checksum of the payload 4
//	40  length of the payload 4, flags 1, zeros to 64
//	64  payload: parts
//	    zeros to a multiple of 4096
//
// and a part is
//
//	0   kind 1, length of the directory's name 1, partition 4, topic id 16
//	22  segment's base offset 8, position in it 8, length of the bytes 4, start offset 8
//	50  the directory's name, the bytes
//
// A round is part of the journal if it follows from the one before it: by number,
// id and checksum. So a round of an earlier lap, or one that an earlier run of the
// process wrote but never acknowledged, cannot be taken for the next one.
//
// The rounds of one write belong together, as their flags say: a batch may begin in
// one and end in the next. Where a power cut took the last of them, none is played
// back. Else the next run would find half a batch, cut it off and write something
// else there, and after another power cut find that half in front of what is left of
// the other: a batch that nobody may have any more, whole again.
const (
	roundMagic   = 0x4c4a3031
	roundHead    = 64
	partHeadLen  = 50
	journalBlock = 4096
	journalDir   = "journal"
	ringSuffix   = ".ring"

	maxRound    = 4 << 20 // bytes of a round's payload, about; more is split
	ringFiles   = 8       // that the ring is made of, when it is complete
	minRingFile = 4 * journalBlock
	spareFiles  = 8 // that the ring may have more of while a checkpoint is late

	flagGoesOn  = 1 // the round goes on with the write of the one before
	flagFollows = 2 // another round of the same write follows
)

type partKind uint8

const (
	partBytes  partKind = 1 // bytes of a segment
	partStart  partKind = 2 // the log's start moved
	partDelete partKind = 3 // the log was deleted
	partNone   partKind = 4 // nothing; it ends a write of which the rest could not be read
	partLate   partKind = 5 // bytes of a segment that its file did not have then
	partLazy   partKind = 6 // the same, of a log that a power cut may take them from; start stands for the kernel's run
)

// partHead is a part as it stands in the journal, without its bytes.
type partHead struct {
	kind  partKind
	id    LogID
	dir   string
	base  record.Offset
	pos   int64
	n     int
	start record.Offset
}

// part is a stretch of a segment that a round is to make durable, without what the
// round's image has of it.
type part struct {
	l   *Log
	g   *segment
	pos int64
	n   int64
}

// image is a round of the journal in the making: room for its head, then parts.
// Appends copy their bytes into it while those are in the processor's cache, which
// saves the round one read a log (BenchmarkCommit).
type image struct {
	b      []byte
	sum    uint32 // of the parts
	closed bool   // it takes no more
}

func (m *image) reset() { m.b, m.sum, m.closed = m.b[:0], 0, false }

// shrink lets go of memory that is much more than need.
func (m *image) shrink(need int) {
	if cap(m.b) > 4*need {
		m.b = nil
	}
}

// add adds a part; false: it has no room for that, nor for any that comes later, so
// that those of a log stay in their order.
func (m *image) add(h partHead, bufs [][]byte, room int) bool {
	begin := max(len(m.b), roundHead)
	end := begin + partHeadLen + len(h.dir) + h.n
	if m.closed || end > roundHead+room {
		m.closed = true
		return false
	}
	if end > cap(m.b) {
		m.b = growAligned(m.b, min(max(2*cap(m.b), end+journalBlock, 64<<10), roundHead+room+journalBlock))
	}
	m.b = appendPart(m.b[:begin], h)
	for _, b := range bufs {
		m.b = append(m.b, b...)
	}
	if len(m.b) != end {
		panic("BUG: a part of the journal is not as long as its head says")
	}
	m.sum = crc32.Update(m.sum, castagnoli, m.b[begin:])
	return true
}

// errNoJournal is returned where the journal has no room for a round and cannot get any.
var errNoJournal = errors.New("the journal is full")

// mark is a place in the journal: the next round to come there.
type mark struct {
	file   int    // the ring file's number
	pos    int64  // in it
	number uint64 // of the round
	prev   uint32 // checksum of the head of the round before
}

// journal is the ring. Rounds are written by one goroutine at a time, that of the
// round; mu guards what checkpoints and the filler share with it.
type journal struct {
	s         *Store
	id        [16]byte
	fileSize  int64
	roundSize int // bytes of a round's payload, about

	base    atomic.Uint64 // the round with which a recovery begins
	known   atomic.Bool   // a checkpoint on disk names it: else nobody would find its rounds
	dead    error         // why nothing is written any more
	lost    atomic.Bool   // there is a reason
	lazy    bool          // the round under way is not synced
	control []byte        // of the round under way
	buf     []byte        // of the round under way: a head, then parts
	summed  int           // the length of the parts of which sum is the checksum
	sum     uint32
	current *ringFile // changed under mu
	pos     int64
	number  uint64
	prev    uint32
	goesOn  bool        // the next round belongs to the write of the last one
	pending []*ringFile // written to and not synced

	mu      sync.Mutex
	files   []*ringFile // guarded by mu; by number
	at      mark        // guarded by mu: where the next round goes
	filling bool        // guarded by mu: the filler was started
	used    int64       // guarded by mu: bytes since the last checkpoint
	pinned  bool        // guarded by mu: nothing is recycled, since the files did not take what the journal has
}

// ringFile is one file of the ring.
type ringFile struct {
	number int
	name   string
	f      vfs.File
	direct vfs.File  // the same, written around the page cache; nil: not opened yet; f: that cannot be done
	size   int64     // blocks written before
	state  ringState // guarded by journal.mu
	last   uint64    // guarded by journal.mu: the number of the last round in it
}

type ringState uint8

const (
	ringFree ringState = iota
	ringFilling
	ringUsed
)

func newJournal(s *Store, id [16]byte) *journal {
	j := &journal{s: s, id: id}
	j.fileSize = max(s.cfg.Journal/ringFiles/journalBlock*journalBlock, minRingFile)
	j.roundSize = min(maxRound, int(j.fileSize/2)-journalBlock)
	return j
}

func ringName(n int) string { return fmt.Sprintf("%04d%s", n, ringSuffix) }

// setControl takes the parts that are no batches for the round that begins.
func (j *journal) setControl(b []byte) { j.control = append(j.control[:0], b...) }

func (j *journal) hasControl() bool { return len(j.control) > 0 }

// appendPart encodes a part's head.
func appendPart(b []byte, h partHead) []byte {
	b = append(b, byte(h.kind), byte(len(h.dir)))
	b = be.AppendUint32(b, uint32(h.id.Partition))
	b = append(b, h.id.Topic[:]...)
	b = be.AppendUint64(b, uint64(h.base))
	b = be.AppendUint64(b, uint64(h.pos))
	b = be.AppendUint32(b, uint32(h.n))
	b = be.AppendUint64(b, uint64(h.start))
	return append(b, h.dir...)
}

// errRound is returned for bytes that are no round.
var errRound = errors.New("not a round of the journal")

// encodedPart is a part of a round with its bytes.
type encodedPart struct {
	partHead
	data []byte
}

// cutPart cuts the first part off a payload.
func cutPart(b []byte) (p encodedPart, rest []byte, err error) {
	if len(b) < partHeadLen {
		return p, nil, errRound
	}
	n := partHeadLen + int(b[1])
	p.partHead = partHead{
		kind: partKind(b[0]),
		id:   LogID{Topic: [16]byte(b[6:22]), Partition: int32(be.Uint32(b[2:]))},
		base: record.Offset(be.Uint64(b[22:])), pos: int64(be.Uint64(b[30:])),
		n: int(be.Uint32(b[38:])), start: record.Offset(be.Uint64(b[42:])),
	}
	if p.n > len(b)-n || p.base < 0 || p.pos < 0 || p.pos > maxSegmentBytes {
		return p, nil, errRound
	}
	p.dir = string(b[partHeadLen:n])
	p.data = b[n : n+p.n]
	return p, b[n+p.n:], nil
}

// write makes a round, and what setControl took, durable with as few rounds of its
// own as hold them and one sync; or it writes the round only. errNoJournal says that there is no room. After any other
// failure nobody can know what the disk has, so the journal is closed for good.
func (j *journal) write(r *round, durable bool) error {
	if j.dead != nil {
		return j.dead
	}
	if !j.known.Load() {
		return errNoJournal
	}
	j.buf, j.summed, j.sum = r.image.b, max(len(r.image.b)-roundHead, 0), r.image.sum
	j.lazy = !durable
	err := j.put(r.parts)
	r.image.b, j.buf = j.buf, nil // it may have grown
	if err == nil && durable {
		err = j.sync()
	}
	if err != nil && !errors.Is(err, errNoJournal) {
		j.dead = err
		j.lost.Store(true)
	}
	return err
}

// read reads what was written to the segment before.
func (g *segment) read(b []byte, pos int64) error {
	h, err := g.open()
	if err != nil {
		return err
	}
	defer h.drop()
	n, err := h.f.ReadAt(b, pos)
	switch {
	case n == len(b):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return fmt.Errorf("segment %d is shorter than what was written to it", g.base)
	default:
		return err
	}
}

// abandon ends the log's writing after an error of its files, unless it was
// deleted meanwhile: then nobody waits for them.
func (l *Log) abandon(err error) {
	if !l.deleted.Load() {
		l.fail(err)
	}
}

// growAligned gives a buffer a larger capacity.
func growAligned(b []byte, n int) []byte {
	grown := vfs.Aligned(n)
	return grown[:copy(grown, b)]
}

// put writes the rounds.
func (j *journal) put(parts []part) error {
	for _, p := range parts {
		p.l.pub.Lock()
		p.l.marks.journaled = true
		p.l.pub.Unlock()
	}
	if len(j.buf) == 0 {
		j.begin()
	}
	j.goesOn = false
	for rest := j.control; len(rest) > 0; {
		_, next, err := cutPart(rest)
		if err != nil {
			panic("BUG: a control part that cannot be read")
		}
		if len(j.buf) >= j.roundSize {
			if err := j.flush(flagFollows); err != nil {
				return err
			}
		}
		j.buf = append(j.buf, rest[:len(rest)-len(next)]...)
		rest = next
	}
	for _, p := range parts {
		head := partHeadLen + len(p.l.dir)
		for p.n > 0 {
			room := int64(j.roundSize + roundHead - len(j.buf) - head)
			if room < min(p.n, journalBlock/4) {
				if err := j.flush(flagFollows); err != nil {
					return err
				}
				continue
			}
			n := min(p.n, room)
			if err := j.read(p, int(n)); err != nil {
				p.l.abandon(err)
				break
			}
			p.pos, p.n = p.pos+n, p.n-n
		}
	}
	if j.goesOn && len(j.buf) == roundHead {
		j.buf = appendPart(j.buf, partHead{kind: partNone})
	}
	return j.flush(0)
}

// sync makes the rounds durable that were written.
func (j *journal) sync() error {
	for _, f := range j.pending {
		if err := j.s.sync(f.f); err != nil {
			return err
		}
	}
	clear(j.pending)
	j.pending = j.pending[:0]
	j.control = j.control[:0]
	return nil
}

func (j *journal) begin() {
	if cap(j.buf) < roundHead {
		j.buf = vfs.Aligned(64 << 10)
	}
	j.buf, j.summed, j.sum = j.buf[:roundHead], 0, 0
}

// read adds n bytes of a segment to the round. They are in the page cache, or wait.
func (j *journal) read(p part, n int) error {
	begin := len(j.buf)
	j.buf = appendPart(j.buf, partHead{kind: partBytes, id: p.l.id, dir: p.l.dir, base: p.g.base, pos: p.pos, n: n})
	at := len(j.buf)
	if need := at + n; need > cap(j.buf) {
		j.buf = growAligned(j.buf, min(max(2*cap(j.buf), need+journalBlock), max(roundHead+maxRound+journalBlock, need+journalBlock)))
	}
	j.buf = j.buf[:at+n]
	if p.g.late.Load() && p.g.readWaiting(j.buf[at:], p.pos) {
		j.buf[begin] = byte(partLate)
		return nil
	}
	err := p.g.read(j.buf[at:], p.pos)
	if err != nil {
		j.buf = j.buf[:begin]
	}
	return err
}

// flush writes the round, without a sync, and begins another one. flags say whether
// that is to be of the same write.
func (j *journal) flush(flags byte) error {
	payload := len(j.buf) - roundHead
	if payload == 0 {
		return nil
	}
	for pad := -len(j.buf) & (journalBlock - 1); pad > 0; {
		n := min(pad, len(zeros))
		j.buf = append(j.buf, zeros[:n]...)
		pad -= n
	}
	if err := j.makeRoom(int64(len(j.buf))); err != nil {
		return err
	}
	b := j.buf
	clear(b[:roundHead])
	be.PutUint32(b, roundMagic)
	copy(b[8:], j.id[:])
	be.PutUint64(b[24:], j.number)
	be.PutUint32(b[32:], j.prev)
	be.PutUint32(b[36:], crc32.Update(j.sum, castagnoli, b[roundHead+j.summed:roundHead+payload]))
	be.PutUint32(b[40:], uint32(payload))
	b[44] = flags
	if j.goesOn {
		b[44] |= flagGoesOn
	}
	sum := crc32.Checksum(b[8:roundHead], castagnoli)
	be.PutUint32(b[4:], sum)
	if err := j.current.write(j.s.fs, b, j.pos, j.lazy); err != nil {
		if full(err) {
			err = fmt.Errorf("%w: %w", errNoJournal, err)
		}
		return err
	}
	if n := len(j.pending); n == 0 || j.pending[n-1] != j.current {
		j.pending = append(j.pending, j.current)
	}
	j.pos += int64(len(b))
	j.mu.Lock()
	j.current.last = j.number
	j.current.size = max(j.current.size, j.pos)
	j.number, j.prev = j.number+1, sum
	j.at = mark{j.current.number, j.pos, j.number, j.prev}
	j.used += int64(len(b))
	late := j.used >= j.fileSize*ringFiles/4
	fill := !j.filling
	j.filling = true
	j.mu.Unlock()
	j.s.keeper.journaled(late, fill)
	j.goesOn = flags&flagFollows != 0
	j.begin()
	return nil
}

var zeros [journalBlock]byte

// write writes a round, around the page cache where its blocks were written before:
// that saves a copy, and the sync the search for what to write (BenchmarkCommit). lazy:
// the page cache is enough.
func (f *ringFile) write(sys vfs.FS, b []byte, pos int64, lazy bool) error {
	d, ok := sys.(vfs.Director)
	if !ok || lazy || pos+int64(len(b)) > f.size {
		_, err := f.f.WriteAt(b, pos)
		return err
	}
	if f.direct == nil {
		var err error
		if f.direct, err = d.OpenDirect(f.name); err != nil {
			f.direct = f.f
		}
	}
	_, err := f.direct.WriteAt(b, pos)
	if err != nil && f.direct != f.f && !full(err) {
		_ = f.direct.Close() // it was only to save time
		f.direct = f.f
		_, err = f.f.WriteAt(b, pos)
	}
	return err
}

// makeRoom makes room for n bytes: behind the last round, or in another file.
func (j *journal) makeRoom(n int64) error {
	if j.current != nil && j.pos+n <= j.fileSize {
		return nil
	}
	f, err := j.nextFile()
	if err != nil {
		return err
	}
	j.mu.Lock()
	j.current, j.pos = f, 0
	j.mu.Unlock()
	return nil
}

// nextFile takes a free file, one that was filled if there is one, or makes one.
func (j *journal) nextFile() (*ringFile, error) {
	j.mu.Lock()
	var free *ringFile
	for _, f := range j.files {
		if f.state == ringFree && (free == nil || f.size > free.size) {
			free = f
		}
	}
	if free != nil {
		free.state = ringUsed
	}
	n := len(j.files)
	j.mu.Unlock()
	if free != nil {
		return free, nil
	}
	if n >= ringFiles+spareFiles {
		return nil, errNoJournal
	}
	return j.makeFile(ringUsed)
}

// makeFile adds an empty file to the ring. Its name is durable when it returns.
func (j *journal) makeFile(state ringState) (*ringFile, error) {
	s := j.s
	j.mu.Lock()
	f := &ringFile{number: len(j.files), state: state, f: brokenFile{}}
	f.name = s.path(journalDir, ringName(f.number))
	j.files = append(j.files, f)
	j.mu.Unlock()
	file, err := s.fs.Open(f.name, vfs.Fresh)
	if err == nil {
		err = s.fs.SyncDir(s.path(journalDir))
	}
	j.mu.Lock()
	if file != nil {
		f.f = file
	}
	if err != nil {
		f.state = ringFilling // for good: nobody uses it
	}
	j.mu.Unlock()
	if err == nil {
		return f, nil
	}
	if full(err) {
		return nil, fmt.Errorf("%w: %w", errNoJournal, err)
	}
	return nil, err
}

// brokenFile stands for a file that could not be opened.
type brokenFile struct{ vfs.File }

func (brokenFile) Close() error { return nil }

func (brokenFile) ReadAt([]byte, int64) (int, error) { return 0, io.EOF }

// fill makes the ring complete: it writes zeros into the blocks that were never
// written, once in a directory's life, while nobody waits for it.
func (j *journal) fill() {
	b := make([]byte, 256<<10)
	for !j.s.closing.Load() {
		f := j.toFill()
		if f == nil {
			return
		}
		err := j.fillFile(f, b)
		j.mu.Lock()
		f.state = ringFree
		j.mu.Unlock()
		if err != nil {
			j.s.log.Info("the journal could not be laid out; commits are slower", "err", err)
			return
		}
	}
}

// toFill takes a free file that is not filled, or makes one where the ring is short of files.
func (j *journal) toFill() *ringFile {
	j.mu.Lock()
	n := len(j.files)
	for _, f := range j.files {
		if f.state == ringFree && f.size < j.fileSize {
			f.state = ringFilling
			j.mu.Unlock()
			return f
		}
	}
	j.mu.Unlock()
	if n >= ringFiles || !j.s.space.roomFor(j.fileSize) {
		return nil
	}
	f, err := j.makeFile(ringFilling)
	if err != nil {
		return nil
	}
	return f
}

func (j *journal) fillFile(f *ringFile, b []byte) error {
	for f.size < j.fileSize && !j.s.closing.Load() {
		n := min(int64(len(b)), j.fileSize-f.size)
		if _, err := f.f.WriteAt(b[:n], f.size); err != nil {
			return err
		}
		f.size += n
		if err := f.f.Sync(); err != nil {
			return err
		}
	}
	return nil
}

// next is the number of the next round.
func (j *journal) next() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.at.number
}

// here is where the next round will go, for a checkpoint that is about to begin.
func (j *journal) here() mark {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.used = 0
	return j.at
}

// recycle frees the files whose rounds all come before a number.
func (j *journal) recycle(before uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.pinned {
		return
	}
	for _, f := range j.files {
		if f.state == ringUsed && f != j.current && f.last < before {
			f.state = ringFree
		}
	}
}

// pin keeps all rounds from now on: some file did not take what the journal has.
func (j *journal) pin() {
	j.mu.Lock()
	j.pinned = true
	j.mu.Unlock()
}

func (j *journal) isPinned() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.pinned
}

func (j *journal) unpin() {
	j.mu.Lock()
	j.pinned = false
	j.mu.Unlock()
}

func (j *journal) close() {
	if j == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, f := range j.files {
		_ = f.f.Close() // every round that counts was synced
		if f.direct != nil && f.direct != f.f {
			_ = f.direct.Close()
		}
	}
	j.files = nil
}

// open opens the ring's files that are there. Their names are durable when it returns.
func (j *journal) open() error {
	s := j.s
	infos, err := s.fs.ReadDir(s.path(journalDir))
	if errors.Is(err, vfs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, i := range infos {
		var n int
		if _, err := fmt.Sscanf(i.Name, "%04d"+ringSuffix, &n); err != nil || i.Name != ringName(n) || !strings.HasSuffix(i.Name, ringSuffix) {
			continue
		}
		if n > ringFiles+2*spareFiles {
			continue // not one of ours
		}
		for len(j.files) <= n {
			j.files = append(j.files, &ringFile{number: len(j.files), state: ringFilling, f: brokenFile{}})
		}
		f, err := s.fs.Open(s.path(journalDir, i.Name), vfs.Existing)
		if err != nil {
			return err
		}
		*j.files[n] = ringFile{number: n, name: s.path(journalDir, i.Name), f: f, size: i.Size / journalBlock * journalBlock}
	}
	return s.fs.SyncDir(s.path(journalDir)) // a killed process may have left names that are not durable
}
