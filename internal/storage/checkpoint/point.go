// Package checkpoint keeps the position on disk at which a recovery begins: the mark in the
// journal from which rounds are played back, and for each log a Point, up to which its files
// are known to be whole and on disk. A Sheet is the content of a file, Table has the points in
// memory, and Pair writes sheets to two files in turn.
//
// A store has two pairs of files of one format:
//
//	points-a, points-b          the points of all logs, written now and then
//	checkpoint-a, checkpoint-b  the mark in the journal, and the points that changed since
//
// so that the cost of a checkpoint depends on the logs that are written to, not on all logs.
// A file is, in big endian:
//
//	0   magic "LEATCKPT"
//	8   version 2, zeros 2; version 4 is written where a log may have been cut (Log.Cut of package storage), else 3 where logs
//	    may have transactions, or may be compacted, else 2; the points of version 4 are those of version 3
//	12  checksum (CRC-32C) of the bytes from 8 to 12 and from 16 on 4
//	16  length of everything from 28 on 4
//	20  generation 8: it rises with each file that is written, of either pair
//	28  journal id 16
//	44  mark: ring file 4, position 8, round 8, checksum of the round before 4
//	68  metadata index 8
//	76  number of points 4, points
//
// and a point
//
//	0   topic id 16, partition 4
//	20  flags 1: 1 vouched, 2 gaps, 4 lost, 8 transactional
//	21  segment's base offset 8, position 8, next offset 8
//	45  start 8, high watermark 8
//	61  snapshot 8, producers' offset 8
//	77  oldest time 8
//	85  bytes of the segments before that one 8; version 1 has no such field
//	93  first offset of transactions 8, last stable offset 8; versions 1 and 2 have no such fields
//
// A file of a newer version is refused (ErrNewer). The version is that of the whole store: a
// change of the format of any of its files must raise it, and the program must save a
// checkpoint before it writes the first file of the new format. The first 28 bytes and the
// checksum are the same in every version.
//
// Any goroutine may call the methods of a Table; one at a time may use the Pairs of a Disk.
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

// TimeUnknown stands for a time that is not known.
const TimeUnknown int64 = -2

// Point is a log's state in the checkpoints, so that an opening of the log reads only the part
// after it. An old point is also right, but the opening takes longer.
type Point struct {
	Vouched bool // the log's files are whole and on disk up to Base, Pos, Next; if not, only Start and HighWatermark are known
	Gaps    bool // the log's offsets have gaps
	Lost    bool // damaged checkpoint files had a vouched point; Vouched is false

	Base record.Offset // of the segment in which the part that is whole and on disk ends
	Pos  int64         // of that end in the segment
	Next record.Offset // the offset at that end

	Start         record.Offset // of the log
	HighWatermark record.Offset // the last that the leader knew, of the records up to Next; 0: unknown
	Snapshot      record.Offset // the newest producer snapshot; -1: none, since there were no producers
	ProducersAt   record.Offset // the snapshot has the producers' state at this offset, which is not above Next
	Oldest        int64         // ms; retention by time removes nothing before a record of that time is too old

	// Closed is the number of bytes of the segments before Base, beginning with the one with
	// Start; BytesUnknown if it is unknown. If the directory has fewer it is damaged.
	Closed int64

	Transactional    bool          // the log has batches of transactions
	TransactionsFrom record.Offset // if Transactional: no batch below it is of a transaction
	Stable           record.Offset // if Transactional: the last stable offset below HighWatermark
}

// BytesUnknown stands for a number of bytes that is not known.
const BytesUnknown int64 = -1

// These are the flags and the lengths of a point in a file.
const (
	flagVouched       = 1
	flagGaps          = 2
	flagLost          = 4
	flagTransactional = 8

	pointLen  = 16 + 4 + 1 + 11*8
	pointLen2 = pointLen - 2*8 // in version 2
	pointLen1 = pointLen2 - 8  // in version 1
)

// appendPoint appends a point as a version has it.
func appendPoint(b []byte, id record.LogID, p Point, v uint16) []byte {
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
	if p.Transactional {
		flags |= flagTransactional
	}
	b = append(b, flags)
	for _, n := range [...]int64{
		int64(p.Base), p.Pos, int64(p.Next), int64(p.Start), int64(p.HighWatermark),
		int64(p.Snapshot), int64(p.ProducersAt), p.Oldest, p.Closed,
	} {
		b = be.AppendUint64(b, uint64(n))
	}
	if v >= version3 {
		b = be.AppendUint64(b, uint64(p.TransactionsFrom))
		b = be.AppendUint64(b, uint64(p.Stable))
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
	if len(b) > pointLen1 {
		p.Closed = v(8)
	}
	if len(b) > pointLen2 {
		p.Transactional = b[20]&flagTransactional != 0
		p.TransactionsFrom, p.Stable = record.Offset(v(9)), record.Offset(v(10))
	}
	return id, p
}

// isSane tells whether the numbers are possible for a log.
func (p *Point) isSane() bool {
	return p.Base >= 0 && p.Pos >= 0 && p.Next >= p.Base && p.Start >= 0 && p.HighWatermark >= 0 &&
		p.Snapshot >= -1 && p.ProducersAt >= -1 && p.Closed >= BytesUnknown && p.TransactionsFrom >= 0 && p.Stable >= 0
}

// Size is a segment's base and its number of bytes.
type Size struct {
	Base  record.Offset
	Bytes int64
}

// CountClosed counts those bytes of segments that Closed counts. segs are sorted by base.
func (p *Point) CountClosed(segs []Size) (n int64) {
	for i, g := range segs {
		if isBelow := i+1 < len(segs) && segs[i+1].Base <= p.Start; !isBelow && g.Base < p.Base {
			n += g.Bytes
		}
	}
	return n
}

// HadRecords tells whether the log had a segment with records at the point.
func (p *Point) HadRecords() bool {
	return p.Vouched && (p.Pos > 0 || p.Closed > 0) && p.Next > p.Start
}

// IsWhole tells whether a log's segments have at least the bytes that they had at the point.
func (p *Point) IsWhole(segs []Size) bool {
	if !p.HadRecords() {
		return true
	}
	hasLast := p.Pos == 0 || slices.ContainsFunc(segs, func(g Size) bool { return g.Base == p.Base && g.Bytes >= p.Pos })
	return hasLast && p.CountClosed(segs) >= p.Closed
}

// Mark is a position in the journal, at which the round with a number begins.
type Mark struct {
	File  int    // the ring file's number
	Pos   int64  // in it
	Round uint64 // the number
	Prev  uint32 // checksum of the head of the round before
}

// Sheet is the content of one of the files.
type Sheet struct {
	Generation uint64 // set by Pair.Save
	Journal    [16]byte
	At         Mark   // at which recovery begins
	Metadata   uint64 // index up to which this store has followed the cluster's metadata
	Points     map[record.LogID]Point
	// Transactional says that logs may have transactions, or may be compacted. A version of this program that does
	// not know these must not read such a directory.
	Transactional bool
	// Cut says that logs may have been cut by their cluster's metadata, so that they have the number of that cut, and tails
	// that were kept. A version of this program that does not know these must not read such a directory. A sheet that is read
	// is Transactional, too, then.
	Cut bool
}

const (
	magic     = "LEATCKPT"
	oldMagic  = "LEATCP0" // of versions before 0.1, whose format was not promised
	version   = 4
	version3  = 3 // without cuts, so that earlier versions of this program read it
	version2  = 2 // without transactions, so that still earlier versions of this program read it
	headLen   = 28
	markLen   = 4 + 8 + 8 + 4
	beforeLen = 16 + markLen + 8 + 4
)

var (
	// ErrNotWhole says that bytes are no checkpoint, or not a whole one.
	ErrNotWhole = errors.New("not a whole checkpoint")
	// ErrNewer says that a newer version of this program has written the file.
	ErrNewer = errors.New("the data directory was written by a newer version of leat; start that version, or a newer one")
	// ErrOlder says that a file has a version whose format was never promised.
	ErrOlder = errors.New("the data directory was written by a development version of leat, whose format this version does not read; " +
		"read the records out with that version, or begin with an empty directory")
)

// Encode encodes the content of a file.
func (s *Sheet) Encode() []byte {
	b := make([]byte, headLen, headLen+beforeLen+len(s.Points)*pointLen)
	copy(b, magic)
	v := uint16(version2)
	switch {
	case s.Cut:
		v = version
	case s.hasTransactions():
		v = version3
	}
	be.PutUint16(b[8:], v)
	b = append(b, s.Journal[:]...)
	b = be.AppendUint32(b, uint32(s.At.File))
	b = be.AppendUint64(b, uint64(s.At.Pos))
	b = be.AppendUint64(b, s.At.Round)
	b = be.AppendUint32(b, s.At.Prev)
	b = be.AppendUint64(b, s.Metadata)
	b = be.AppendUint32(b, uint32(len(s.Points)))
	for _, id := range slices.SortedFunc(maps.Keys(s.Points), record.LogID.Compare) { // equal points have equal bytes
		b = appendPoint(b, id, s.Points[id], v)
	}
	be.PutUint32(b[16:], uint32(len(b)-headLen))
	be.PutUint64(b[20:], s.Generation)
	be.PutUint32(b[12:], checksum(b))
	return b
}

// hasTransactions tells whether logs may have transactions.
func (s *Sheet) hasTransactions() bool {
	if s.Transactional {
		return true
	}
	for _, p := range s.Points {
		if p.Transactional {
			return true
		}
	}
	return false
}

// checksum is the checksum of a file. It covers the version, so that a flipped bit in the
// version is damage, not another version.
func checksum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[8:12], castagnoli), castagnoli, b[16:])
}

// Decode decodes the content of a file. It ignores bytes after its end.
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
	size, v := pointLen, be.Uint16(b[8:])
	if v > version {
		return nil, fmt.Errorf("%w (format %d, this version knows %d)", ErrNewer, v, version)
	} else if v == 1 {
		size = pointLen1
	} else if v == version2 {
		size = pointLen2
	}
	s := &Sheet{Generation: be.Uint64(b[20:]), Points: map[record.LogID]Point{}, Transactional: v >= version3, Cut: v >= version}
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
	changed map[record.LogID]struct{} // guarded by mu: logs whose points changed since all points were written
	// before are the logs whose points had changed when all points were written last. The older
	// of the two files with all points lacks these changes, and is used if the newer one is
	// damaged. Guarded by mu.
	before map[record.LogID]struct{}
}

// manyChanged is the number of changed points above which all points are written.
const manyChanged = 256

// NewTable makes the table from the newest files of the two pairs: base has all points, and hot
// the changed ones; nil: there is none. If both have a point of a log, the one in the file that
// was written later counts.
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
		if t.all[id] == UnknownPoint() { // Forget has dropped it
			delete(t.all, id)
		}
		t.changed[id] = struct{}{}
	}
	return t
}

// UnknownPoint is the point of a log of which nothing is known.
func UnknownPoint() Point {
	return Point{Snapshot: -1, ProducersAt: -1, Oldest: TimeUnknown, Closed: BytesUnknown}
}

// Get is a log's point, or one that is not vouched if there is none.
func (t *Table) Get(id record.LogID) Point {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p, ok := t.all[id]; ok {
		return p
	}
	return UnknownPoint()
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
		p = UnknownPoint()
	}
	if p.Start < start {
		p.Start, p.Closed, p.Oldest = start, BytesUnknown, TimeUnknown // they depend on the start
		t.all[id] = p
		t.changed[id] = struct{}{}
	}
}

// Lower lowers the point of a log that was truncated to the place of the cut: pos in the
// segment base, where the next offset is next. If the log starts beyond the cut, as it may within a batch that was
// cut, its next record gets the start for its offset: the high watermark may stay there. start is a start that the
// point may not have yet.
func (t *Table) Lower(id record.LogID, base record.Offset, pos int64, next, start record.Offset) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok := t.all[id]
	high := max(next, start, p.Start)
	if !ok || p.Next <= next && p.HighWatermark <= high {
		return
	}
	p.HighWatermark, p.Stable = min(p.HighWatermark, high), min(p.Stable, next) // they say nothing of the records that come in their place
	t.changed[id] = struct{}{}
	if p.Next <= next {
		t.all[id] = p
		return
	}
	p.Base, p.Pos, p.Next = base, pos, next
	p.ProducersAt = min(p.ProducersAt, next)
	p.Closed = BytesUnknown
	t.all[id] = p
}

// Restart replaces the point of a log all of whose records were taken, so that it begins with an offset, which may be
// below its start.
func (t *Table) Restart(id record.LogID, start record.Offset) {
	p := UnknownPoint()
	p.Start, p.HighWatermark = start, min(t.Get(id).HighWatermark, start)
	t.Set(id, p)
}

// Unvouch replaces the point of a log by one that vouches for no file. It keeps what the point says of the log itself.
func (t *Table) Unvouch(id record.LogID) {
	was, p := t.Get(id), UnknownPoint()
	p.Gaps, p.Start, p.HighWatermark = was.Gaps, was.Start, was.HighWatermark
	t.Set(id, p)
}

// Lose replaces the point of a log by one that is lost. It keeps only the start and whether the log
// has gaps, which may be old. An old high watermark would be wrong: the log may have been truncated
// since, and then it would cover records that came in the place of others.
func (t *Table) Lose(id record.LogID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	was, p := t.all[id], UnknownPoint()
	p.Lost, p.Gaps, p.Start = true, was.Gaps, was.Start
	t.all[id] = p
	t.changed[id] = struct{}{}
}

// Forget drops the point of a deleted log. As long as a file with all points may have it, the
// checkpoint files have an unknown point instead, so that a log of the same identity does not
// get it.
func (t *Table) Forget(id record.LogID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.all, id)
	t.changed[id] = struct{}{}
}

// Changed returns the points for the next checkpoint file; many tells whether all points are to
// be written instead.
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
				points[id] = UnknownPoint()
			}
		}
	}
	return points, many
}

// All returns all points. After they are written, NoteWritten must be called.
func (t *Table) All() map[record.LogID]Point {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.all)
}

// NoteWritten notes that all points are on disk as they are given. Points that have changed
// meanwhile still count as changed.
func (t *Table) NoteWritten(points map[record.LogID]Point) {
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
