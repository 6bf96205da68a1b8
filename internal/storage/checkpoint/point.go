// Package checkpoint keeps on disk where a recovery begins: the place in the journal from
// which on rounds are played back, and for each log a Point, how far its files are known
// to be whole and on disk. Table has the points in memory, Pair writes them to two files
// in turn.
//
// A store has two pairs of files of one format:
//
//	points-a, points-b          the points of all logs, written now and then
//	checkpoint-a, checkpoint-b  the place in the journal, and the points that changed since
//
// so that a checkpoint costs what the logs that are written to cost, not all there are. A
// file is, in big endian:
//
//	0   magic "LEATCKPT"
//	8   version 2, zeros 2
//	12  checksum (CRC-32C) of the bytes from 8 to 12 and from 16 on 4
//	16  length of everything from 28 on 4
//	20  generation 8: it rises with each file written, over both pairs
//	28  journal id 16
//	44  mark: ring file 4, position 8, round 8, checksum of the round before 4
//	68  metadata index 8
//	76  number of points 4, points
//
// and a point
//
//	0   topic id 16, partition 4
//	20  flags 1: 1 vouched, 2 gaps, 4 lost
//	21  segment's base offset 8, position 8, next offset 8
//	45  start 8, high watermark 8
//	61  snapshot 8, producers' offset 8
//	77  oldest time 8
//	85  bytes of the segments before that one 8; version 1 has no such field
//
// A file that was written by a newer version is refused (ErrNewer). The version is that of the
// whole store: whoever changes the layout of any of its files raises it, and saves a
// checkpoint before the first of the new files is written. The first 28 bytes and the
// checksum stay as they are in every version.
//
// Everything here is safe for concurrent use, except Pair.
package checkpoint

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"sync"

	"github.com/leatstream/leat/internal/record"
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	be         = binary.BigEndian
)

// TimeUnknown stands for a time that was not looked up.
const TimeUnknown int64 = -2

// Point is what checkpoints know of one log, so that opening it reads no more than what
// came after. A point that is too old is right all the same, only slower.
type Point struct {
	Vouched bool // Base, Pos, Next hold; else Start and HighWatermark are all that is known
	Gaps    bool // the log's offsets have gaps
	Lost    bool // there was a better one, in checkpoint files that were damaged; Vouched is false

	Base record.Offset // of the segment in which the part that is on disk ends
	Pos  int64         // where it ends
	Next record.Offset // the offset there

	Start         record.Offset // of the log
	HighWatermark record.Offset // as the leader last knew it; 0: not known
	Snapshot      record.Offset // the newest producer snapshot; -1: none, since there were no producers
	ProducersAt   record.Offset // the offset, not above Next, up to which the snapshot is the truth
	Oldest        int64         // ms; no record is older

	// Closed is the number of bytes of the segments from the one with Start on and before Base;
	// BytesUnknown where nobody counted them. Fewer in the directory are damage.
	Closed int64
}

// BytesUnknown stands for a number of bytes that was not counted.
const BytesUnknown int64 = -1

// The flags of a point in a file.
const (
	flagVouched = 1
	flagGaps    = 2
	flagLost    = 4

	pointLen  = 16 + 4 + 1 + 9*8
	pointLen1 = pointLen - 8 // in version 1
)

func appendPoint(b []byte, id record.LogID, p Point) []byte {
	b = append(b, id.Topic[:]...)
	b = be.AppendUint32(b, uint32(id.Partition))
	flags := byte(0)
	if p.Vouched {
		flags |= flagVouched
	}
	if p.Gaps {
		flags |= flagGaps
	}
	if p.Lost {
		flags |= flagLost
	}
	b = append(b, flags)
	for _, v := range [...]int64{
		int64(p.Base), p.Pos, int64(p.Next), int64(p.Start), int64(p.HighWatermark),
		int64(p.Snapshot), int64(p.ProducersAt), p.Oldest, p.Closed,
	} {
		b = be.AppendUint64(b, uint64(v))
	}
	return b
}

func decodePoint(b []byte) (record.LogID, Point) {
	id := record.LogID{Topic: [16]byte(b), Partition: int32(be.Uint32(b[16:]))}
	v := func(i int) int64 { return int64(be.Uint64(b[21+8*i:])) }
	p := Point{
		Vouched: b[20]&flagVouched != 0, Gaps: b[20]&flagGaps != 0, Lost: b[20]&flagLost != 0,
		Base: record.Offset(v(0)), Pos: v(1), Next: record.Offset(v(2)),
		Start: record.Offset(v(3)), HighWatermark: record.Offset(v(4)),
		Snapshot: record.Offset(v(5)), ProducersAt: record.Offset(v(6)), Oldest: v(7),
		Closed: BytesUnknown,
	}
	if len(b) == pointLen {
		p.Closed = v(8)
	}
	return id, p
}

// isSane tells whether the numbers can be those of a log.
func (p *Point) isSane() bool {
	return p.Base >= 0 && p.Pos >= 0 && p.Next >= p.Base && p.Start >= 0 && p.HighWatermark >= 0 &&
		p.Snapshot >= -1 && p.ProducersAt >= -1 && p.Closed >= BytesUnknown
}

// Size is a segment's base and its number of bytes.
type Size struct {
	Base  record.Offset
	Bytes int64
}

// CountClosed counts the bytes of segments, in their order, as Closed does.
func (p *Point) CountClosed(segs []Size) (n int64) {
	for i, g := range segs {
		if isBelow := i+1 < len(segs) && segs[i+1].Base <= p.Start; !isBelow && g.Base < p.Base {
			n += g.Bytes
		}
	}
	return n
}

// HadRecords tells whether a log that is as its point says has a segment with records.
func (p *Point) HadRecords() bool {
	return p.Vouched && (p.Pos > 0 || p.Closed > 0) && p.Next > p.Start
}

// IsWhole tells whether a log's segments have as many bytes as its point says.
func (p *Point) IsWhole(segs []Size) bool {
	if !p.HadRecords() {
		return true
	}
	hasLast := p.Pos == 0 || slices.ContainsFunc(segs, func(g Size) bool { return g.Base == p.Base && g.Bytes >= p.Pos })
	return hasLast && p.CountClosed(segs) >= p.Closed
}

// Mark is a place in the journal: where the round with a number begins.
type Mark struct {
	File  int    // the ring file's number
	Pos   int64  // in it
	Round uint64 // the number
	Prev  uint32 // checksum of the head of the round before
}

// Sheet is the contents of one of the files.
type Sheet struct {
	Generation uint64 // set by Pair.Save
	Journal    [16]byte
	At         Mark   // where recovery begins
	Metadata   uint64 // index up to which this store followed the cluster's metadata
	Points     map[record.LogID]Point
}

const (
	magic     = "LEATCKPT"
	oldMagic  = "LEATCP0" // of versions before 0.1, whose format was not promised
	version   = 2
	headLen   = 28
	markLen   = 4 + 8 + 8 + 4
	beforeLen = 16 + markLen + 8 + 4
)

var (
	// ErrNotWhole is returned for bytes that are no checkpoint, or not a whole one.
	ErrNotWhole = errors.New("not a whole checkpoint")
	// ErrNewer is returned for a file that a newer version of this program wrote.
	ErrNewer = errors.New("the data directory was written by a newer version of leat; start that version, or a newer one")
	// ErrOlder is returned for a file of a version whose format was never promised.
	ErrOlder = errors.New("the data directory was written by a development version of leat, whose format this version does not read; " +
		"read the records out with that version, or begin with an empty directory")
)

// Encode returns the contents of the file.
func (s *Sheet) Encode() []byte {
	b := make([]byte, headLen, headLen+beforeLen+len(s.Points)*pointLen)
	copy(b, magic)
	be.PutUint16(b[8:], version)
	b = append(b, s.Journal[:]...)
	b = be.AppendUint32(b, uint32(s.At.File))
	b = be.AppendUint64(b, uint64(s.At.Pos))
	b = be.AppendUint64(b, s.At.Round)
	b = be.AppendUint32(b, s.At.Prev)
	b = be.AppendUint64(b, s.Metadata)
	b = be.AppendUint32(b, uint32(len(s.Points)))
	for _, id := range slices.SortedFunc(maps.Keys(s.Points), record.LogID.Compare) { // the same points, the same bytes
		b = appendPoint(b, id, s.Points[id])
	}
	be.PutUint32(b[16:], uint32(len(b)-headLen))
	be.PutUint64(b[20:], s.Generation)
	be.PutUint32(b[12:], checksum(b))
	return b
}

// checksum is that of a file. It covers the version, so that a flipped bit in it is not taken
// for another version.
func checksum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[8:12], castagnoli), castagnoli, b[16:])
}

// Decode reads the contents of a file. Bytes beyond its end do not matter.
func Decode(b []byte) (*Sheet, error) {
	if len(b) >= len(magic) && string(b[:len(oldMagic)]) == oldMagic && string(b[:len(magic)]) != magic {
		return nil, ErrOlder
	}
	if len(b) < headLen || string(b[:8]) != magic {
		return nil, fmt.Errorf("%w: its head is wrong", ErrNotWhole)
	}
	n := int64(be.Uint32(b[16:]))
	if n > int64(len(b)-headLen) {
		return nil, fmt.Errorf("%w: it is cut short", ErrNotWhole)
	}
	b = b[:headLen+n]
	if be.Uint32(b[12:]) != checksum(b) {
		return nil, fmt.Errorf("%w: its checksum is wrong", ErrNotWhole)
	}
	size := pointLen
	if v := be.Uint16(b[8:]); v > version {
		return nil, fmt.Errorf("%w (format %d, this version knows %d)", ErrNewer, v, version)
	} else if v == 1 {
		size = pointLen1
	}
	s := &Sheet{Generation: be.Uint64(b[20:]), Points: map[record.LogID]Point{}}
	if b = b[headLen:]; len(b) < beforeLen {
		return nil, fmt.Errorf("%w: it is cut short", ErrNotWhole)
	}
	s.Journal, b = [16]byte(b), b[16:]
	s.At = Mark{int(be.Uint32(b)), int64(be.Uint64(b[4:])), be.Uint64(b[12:]), be.Uint32(b[20:])}
	s.Metadata = be.Uint64(b[markLen:])
	count, b := int64(be.Uint32(b[markLen+8:])), b[markLen+12:]
	if int64(len(b)) != count*int64(size) || s.At.Pos < 0 {
		return nil, fmt.Errorf("%w: %d points do not fit", ErrNotWhole, count)
	}
	for ; len(b) > 0; b = b[size:] {
		id, p := decodePoint(b[:size])
		if !p.isSane() {
			return nil, fmt.Errorf("%w: a point is wrong", ErrNotWhole)
		}
		s.Points[id] = p
	}
	return s, nil
}

// Table has the points of all logs, opened or not.
type Table struct {
	mu      sync.Mutex
	all     map[record.LogID]Point    // guarded by mu
	changed map[record.LogID]struct{} // guarded by mu: since all of them were written
	// Those that had changed when all of them were written last: the file with all of them
	// that was written before that one lacks them, should that one rot. Guarded by mu.
	before map[record.LogID]struct{}
}

// manyChanged is how many points a checkpoint file has before all points are written.
const manyChanged = 256

// NewTable makes the table from the files that were read; nil ones are left out. Of two
// points of a log the one in the file that was written later counts.
func NewTable(base, hot *Sheet) *Table {
	t := &Table{all: map[record.LogID]Point{}, changed: map[record.LogID]struct{}{}}
	if base != nil {
		maps.Copy(t.all, base.Points)
	}
	if hot == nil {
		return t
	}
	for id, p := range hot.Points {
		if _, ok := t.all[id]; !ok || hot.Generation > base.Generation {
			t.all[id] = p
		}
		if t.all[id] == noPoint() { // it was forgotten
			delete(t.all, id)
		}
		t.changed[id] = struct{}{}
	}
	return t
}

func noPoint() Point {
	return Point{Snapshot: -1, ProducersAt: -1, Oldest: TimeUnknown, Closed: BytesUnknown}
}

// Get is what is known of a log; Point.Vouched is false where that is its start at most.
func (t *Table) Get(id record.LogID) Point {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p, ok := t.all[id]; ok {
		return p
	}
	return noPoint()
}

// Set replaces a log's point.
func (t *Table) Set(id record.LogID, p Point) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all[id] = p
	t.changed[id] = struct{}{}
}

// RaiseStart moves a log's start forward.
func (t *Table) RaiseStart(id record.LogID, start record.Offset) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok := t.all[id]
	if !ok {
		p = noPoint()
	}
	if p.Start < start {
		p.Start, p.Closed = start, BytesUnknown // that one counts from the start on
		t.all[id] = p
		t.changed[id] = struct{}{}
	}
}

// Lower has the point of a log that was truncated vouch for no more than what lies before
// a place: the segment with that base up to pos, where the next offset was next.
func (t *Table) Lower(id record.LogID, base record.Offset, pos int64, next record.Offset) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok := t.all[id]
	if !ok || p.Next <= next {
		return
	}
	p.Base, p.Pos, p.Next = base, pos, next
	p.ProducersAt = min(p.ProducersAt, next)
	p.Closed = BytesUnknown
	t.all[id] = p
	t.changed[id] = struct{}{}
}

// Lose notes that what was known of a log was lost, but for its start, its high watermark and
// whether it has gaps, of which the points may be old.
func (t *Table) Lose(id record.LogID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	was, p := t.all[id], noPoint()
	p.Lost, p.Gaps, p.Start, p.HighWatermark = true, was.Gaps, was.Start, was.HighWatermark
	t.all[id] = p
	t.changed[id] = struct{}{}
}

// Forget drops the point of a log that was deleted. Checkpoint files say so as long as one with
// all points may have it: a log of the same identity must not find it there.
func (t *Table) Forget(id record.LogID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.all, id)
	t.changed[id] = struct{}{}
}

// Changed are the points that the next checkpoint file has; many is true where it is
// time to write all of them.
func (t *Table) Changed() (points map[record.LogID]Point, many bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	many = len(t.changed) > max(manyChanged, len(t.all)/4)
	points = make(map[record.LogID]Point, len(t.changed)+len(t.before))
	for _, ids := range []map[record.LogID]struct{}{t.before, t.changed} {
		for id := range ids {
			if p, ok := t.all[id]; ok {
				points[id] = p
			} else {
				points[id] = noPoint()
			}
		}
	}
	return points, many
}

// All are all points; Written says that they are on disk.
func (t *Table) All() map[record.LogID]Point {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.all)
}

// Written notes that all points were written as they are given.
func (t *Table) Written(points map[record.LogID]Point) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.before = maps.Clone(t.changed)
	maps.DeleteFunc(t.changed, func(id record.LogID, _ struct{}) bool {
		p, ok := points[id]
		now, is := t.all[id]
		return ok == is && p == now
	})
}

// IDs lists the logs that have a point.
func (t *Table) IDs() []record.LogID {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Collect(maps.Keys(t.all))
}
