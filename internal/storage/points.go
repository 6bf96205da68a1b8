package storage

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"sync"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/vfs"
)

// point is what checkpoints know of one log, so that opening it reads no more than
// what came after. A point that is too old is right all the same.
type point struct {
	vouched bool // else start is all that is known

	base record.Offset // of the segment in which the part that is on disk ends
	pos  int64         // where it ends
	next record.Offset // the offset there

	live  bool          // the log was opened, and so checked, since the kernel started, and
	wbase record.Offset // up to here it was written then
	wpos  int64
	wnext record.Offset

	start  record.Offset // of the log
	snap   record.Offset // the newest producer snapshot; -1: none, since there were no producers
	prodAt record.Offset // up to where that is the truth
	oldest int64         // ms; no record is older
}

// The flags of a point in a file.
const (
	flagLive    = 1
	flagVouched = 2
)

const pointLen = 16 + 4 + 1 + 10*8

func appendPoint(b []byte, id LogID, p point) []byte {
	b = append(b, id.Topic[:]...)
	b = be.AppendUint32(b, uint32(id.Partition))
	flags := byte(0)
	if p.live {
		flags |= flagLive
	}
	if p.vouched {
		flags |= flagVouched
	}
	b = append(b, flags)
	for _, v := range [...]int64{
		int64(p.base), p.pos, int64(p.next), int64(p.wbase), p.wpos, int64(p.wnext),
		int64(p.start), int64(p.snap), int64(p.prodAt), p.oldest,
	} {
		b = be.AppendUint64(b, uint64(v))
	}
	return b
}

func (id LogID) compare(other LogID) int {
	return cmp.Or(bytes.Compare(id.Topic[:], other.Topic[:]), cmp.Compare(id.Partition, other.Partition))
}

func decodePoint(b []byte) (LogID, point) {
	id := LogID{Topic: [16]byte(b), Partition: int32(be.Uint32(b[16:]))}
	v := func(i int) int64 { return int64(be.Uint64(b[21+8*i:])) }
	return id, point{
		live: b[20]&flagLive != 0, vouched: b[20]&flagVouched != 0,
		base: record.Offset(v(0)), pos: v(1), next: record.Offset(v(2)),
		wbase: record.Offset(v(3)), wpos: v(4), wnext: record.Offset(v(5)),
		start: record.Offset(v(6)), snap: record.Offset(v(7)), prodAt: record.Offset(v(8)), oldest: v(9),
	}
}

// sane tells whether the numbers can be those of a log.
func (p *point) sane() bool {
	return p.base >= 0 && p.pos >= 0 && p.next >= p.base && p.wbase >= 0 && p.wpos >= 0 && p.wnext >= p.wbase &&
		p.start >= 0 && p.snap >= -1 && p.prodAt >= -1
}

// sheet is the content of a checkpoint file or of a points file.
type sheet struct {
	sequence uint64
	boot     string
	journal  [16]byte
	at       mark // where recovery begins
	points   map[LogID]point
}

const (
	sheetMagic = "LEATCP01"
	sheetHead  = 8 + 4 + 4 + 8 // magic, checksum of what follows it, length of the rest, sequence
	markLen    = 4 + 8 + 8 + 4
)

// sheetRoom is what a checkpoint file takes from the start, so that on a full disk
// there is room for the next one.
const sheetRoom = 32 << 10

// errSheet is returned for bytes that are no checkpoint.
var errSheet = errors.New("not a checkpoint")

func (h *sheet) encode() []byte {
	b := make([]byte, sheetHead, sheetHead+1+len(h.boot)+16+markLen+4+len(h.points)*pointLen)
	copy(b, sheetMagic)
	b = append(b, byte(len(h.boot)))
	b = append(b, h.boot...)
	b = append(b, h.journal[:]...)
	b = be.AppendUint32(b, uint32(h.at.file))
	b = be.AppendUint64(b, uint64(h.at.pos))
	b = be.AppendUint64(b, h.at.number)
	b = be.AppendUint32(b, h.at.prev)
	b = be.AppendUint32(b, uint32(len(h.points)))
	for _, id := range slices.SortedFunc(maps.Keys(h.points), LogID.compare) { // the same points, the same bytes
		b = appendPoint(b, id, h.points[id])
	}
	be.PutUint32(b[12:], uint32(len(b)-sheetHead))
	be.PutUint64(b[16:], h.sequence)
	be.PutUint32(b[8:], crc32.Checksum(b[12:], castagnoli))
	return b
}

func decodeSheet(b []byte) (*sheet, error) {
	if len(b) < sheetHead || string(b[:8]) != sheetMagic {
		return nil, fmt.Errorf("%w: its head is wrong", errSheet)
	}
	n := int64(be.Uint32(b[12:]))
	if n > int64(len(b)-sheetHead) {
		return nil, fmt.Errorf("%w: it is cut short", errSheet)
	}
	b = b[:sheetHead+n]
	if be.Uint32(b[8:]) != crc32.Checksum(b[12:], castagnoli) {
		return nil, fmt.Errorf("%w: its checksum is wrong", errSheet)
	}
	h := &sheet{sequence: be.Uint64(b[16:]), points: map[LogID]point{}}
	b = b[sheetHead:]
	if len(b) < 1 || len(b) < 1+int(b[0])+16+markLen+4 {
		return nil, fmt.Errorf("%w: it is cut short", errSheet)
	}
	h.boot, b = string(b[1:1+b[0]]), b[1+b[0]:]
	h.journal, b = [16]byte(b), b[16:]
	h.at = mark{int(be.Uint32(b)), int64(be.Uint64(b[4:])), be.Uint64(b[12:]), be.Uint32(b[20:])}
	count, b := int64(be.Uint32(b[markLen:])), b[markLen+4:]
	if int64(len(b)) != count*pointLen || h.at.pos < 0 {
		return nil, fmt.Errorf("%w: %d entries do not fit", errSheet, count)
	}
	for ; len(b) > 0; b = b[pointLen:] {
		id, p := decodePoint(b)
		if !p.sane() {
			return nil, fmt.Errorf("%w: an entry is wrong", errSheet)
		}
		h.points[id] = p
	}
	return h, nil
}

// pair is two files that are written in turn, in place, so that one of them is
// always whole, and a full disk has room for the other.
type pair struct {
	name string
	next uint64 // the next sequence
	made [2]bool
}

func (p *pair) file(sequence uint64) string { return p.name + "-" + string("ab"[sequence%2]) }

// load reads the two; nil: it is not there, or not whole. The newest is durable
// when it returns: what a killed process wrote last may not be.
func (p *pair) load(s *Store) (newest, older *sheet, err error) {
	var raw []byte
	for i := range uint64(2) {
		b, err := s.readFile(s.path(p.file(i)))
		if err != nil {
			return nil, nil, err
		}
		if b == nil {
			continue
		}
		p.made[i] = true
		h, err := decodeSheet(b)
		if err != nil {
			// One of the two is being written when the power goes: that is no damage.
			s.log.Info("a checkpoint file is not whole", "file", p.file(i), "err", err)
			continue
		}
		older = h
		if newest == nil || newest.sequence < h.sequence {
			newest, older, raw = h, newest, b
		}
	}
	if newest == nil {
		return nil, nil, nil
	}
	p.next = newest.sequence + 1
	f, err := s.fs.Open(s.path(p.file(newest.sequence)), vfs.Existing)
	if err == nil {
		// Once more, since a sync of it may have failed: the same bytes, so that the
		// file stays whole whatever happens here.
		_, err = f.WriteAt(raw, 0)
		if err == nil {
			err = s.sync(f)
		}
		err = errors.Join(err, f.Close(), s.syncDir(s.cfg.Dir))
	}
	return newest, older, err
}

// save writes the older one of the two, durably.
func (p *pair) save(s *Store, h *sheet) error {
	h.sequence = p.next
	i := h.sequence % 2
	f, err := s.fs.Open(s.path(p.file(h.sequence)), vfs.Create)
	if err != nil {
		return err
	}
	if !p.made[i] {
		if err := f.Allocate(0, sheetRoom); err != nil && !full(err) {
			return errors.Join(err, f.Close())
		}
	}
	_, err = f.WriteAt(h.encode(), 0)
	if err == nil {
		err = s.sync(f)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if !p.made[i] {
		if err := s.syncDir(s.cfg.Dir); err != nil {
			return err
		}
		p.made[i] = true
	}
	p.next++
	return nil
}

// points are what is known of all logs, opened or not. All of it is written now
// and then (the points files), and what changed since with each checkpoint: so a
// checkpoint's cost depends on the logs that are written to, not on all there are.
type points struct {
	mu  sync.Mutex
	all map[LogID]point    // guarded by mu
	hot map[LogID]struct{} // guarded by mu: changed since all were written
}

const minHot = 256

func (p *points) init(base, hot *sheet, boot string) {
	p.all, p.hot = map[LogID]point{}, map[LogID]struct{}{}
	for _, h := range []*sheet{base, hot} {
		if h == nil {
			continue
		}
		for id, pt := range h.points {
			if boot == "" || h.boot != boot {
				pt.live = false
			}
			if old, ok := p.all[id]; ok && old.next > pt.next { // the file is older: see pair.load
				old.start = max(old.start, pt.start)
				pt = old
			} else if ok {
				pt.start = max(old.start, pt.start)
			}
			p.all[id] = pt
			if h == hot {
				p.hot[id] = struct{}{}
			}
		}
	}
}

// get is what is known of a log; vouched is false where that is its start at most.
func (p *points) get(id LogID) (pt point, vouched bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	pt, ok := p.all[id]
	if !ok {
		pt.snap, pt.oldest = -1, timeUnknown
	}
	return pt, pt.vouched
}

func (p *points) set(id LogID, pt point) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all[id] = pt
	p.hot[id] = struct{}{}
}

// raise moves a log's start forward.
func (p *points) raise(id LogID, start record.Offset) {
	p.mu.Lock()
	defer p.mu.Unlock()
	pt, ok := p.all[id]
	if !ok {
		pt.snap, pt.oldest = -1, timeUnknown
	}
	if pt.start < start {
		pt.start = start
		p.all[id] = pt
		p.hot[id] = struct{}{}
	}
}

func (p *points) forget(id LogID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.all, id)
	delete(p.hot, id)
}

// changed are the points that the next checkpoint writes; many is true where it is
// time to write all of them.
func (p *points) changed() (hot map[LogID]point, many bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.hot) > max(minHot, len(p.all)/4) {
		return nil, true
	}
	hot = make(map[LogID]point, len(p.hot))
	for id := range p.hot {
		hot[id] = p.all[id]
	}
	return hot, false
}

// everything are all points; settle says that they are written.
func (p *points) everything() map[LogID]point {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.all)
}

func (p *points) settle(written map[LogID]point) {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.hot, func(id LogID, _ struct{}) bool {
		pt, ok := written[id]
		return ok && pt == p.all[id]
	})
}

// ids lists the logs of which something is known.
func (p *points) ids() []LogID {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Keys(p.all))
}
