package journal

import (
	"encoding/binary"
	"errors"
	"hash/crc32"

	"github.com/leatstream/leat/internal/record"
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	be         = binary.BigEndian
)

// Kind is the kind of a Part.
type Kind uint8

// These are the kinds of parts.
const (
	// Bytes are bytes of a segment, beginning at a position.
	Bytes Kind = 1
	// Start says that a log begins with Offset from now on.
	Start Kind = 2
	// Delete says that a log is deleted.
	Delete Kind = 3
	// Truncate says that a log is about to be cut off in the segment Base at Pos, where the
	// next record gets Offset. No earlier part is played back beyond that.
	Truncate Kind = 4
	// Truncated says that the files are cut off as the last Truncate says, durably.
	Truncated Kind = 5
	// Compacted says that the segments of a log below Base are on disk, and about to be replaced by
	// others. No earlier part of them is played back.
	Compacted Kind = 6
	// Restart says that a log is about to lose all its records, and to begin with Offset, which may be below its start.
	// No earlier part is played back, and no earlier Start counts. Truncated says when it is done.
	Restart Kind = 7
)

// Part is a piece of a round.
type Part struct {
	Kind   Kind
	ID     record.LogID
	Dir    string        // the name of the log's directory
	Base   record.Offset // of the segment
	Pos    int64         // in the segment's file, bytes
	Offset record.Offset
	Data   []byte // of Bytes; only Scan sets it
}

const (
	partHead = 60
	maxPos   = 1<<31 - 1 // a segment's positions are 32-bit
)

// appendHead encodes the head of a part that has n bytes of data with the checksum dataSum.
func appendHead(b []byte, p *Part, n int, dataSum uint32) []byte {
	at := len(b)
	b = append(b, byte(p.Kind), 0)
	b = be.AppendUint16(b, uint16(len(p.Dir)))
	b = be.AppendUint32(b, uint32(p.ID.Partition))
	b = append(b, p.ID.Topic[:]...)
	b = be.AppendUint64(b, uint64(p.Base))
	b = be.AppendUint64(b, uint64(p.Pos))
	b = be.AppendUint64(b, uint64(p.Offset))
	b = be.AppendUint32(b, uint32(n))
	b = be.AppendUint32(b, dataSum)
	sum := crc32.Checksum(b[at:], castagnoli)
	b = be.AppendUint32(b, 0)
	b = append(b, p.Dir...)
	sum = crc32.Update(sum, castagnoli, b[at+partHead:])
	be.PutUint32(b[at+partHead-4:], sum)
	return b
}

// errPart says that bytes are not a part.
var errPart = errors.New("not a part of the journal")

// decodedPart is a part of a round on disk.
type decodedPart struct {
	part    Part
	damaged bool // the checksum of the data is wrong
}

// decodePart decodes the first of a round's parts and returns the bytes after it. After errPart
// no later part can be found.
func decodePart(b []byte) (d decodedPart, rest []byte, err error) {
	if len(b) < partHead {
		return d, nil, errPart
	}
	name := int(be.Uint16(b[2:]))
	n := int64(be.Uint32(b[48:]))
	if int64(len(b)) < int64(partHead+name)+n {
		return d, nil, errPart
	}
	sum := crc32.Checksum(b[:partHead-4], castagnoli)
	if crc32.Update(sum, castagnoli, b[partHead:partHead+name]) != be.Uint32(b[partHead-4:]) {
		return d, nil, errPart
	}
	d.part = Part{
		Kind: Kind(b[0]), ID: record.LogID{Partition: int32(be.Uint32(b[4:])), Topic: [16]byte(b[8:24])},
		Base: record.Offset(be.Uint64(b[24:])), Pos: int64(be.Uint64(b[32:])), Offset: record.Offset(be.Uint64(b[40:])),
		Dir: string(b[partHead : partHead+name]),
	}
	if p := &d.part; p.Base < 0 || p.Pos < 0 || p.Pos > maxPos || p.Offset < 0 {
		return d, nil, errPart
	}
	dataSum := be.Uint32(b[52:])
	b = b[partHead+name:]
	d.part.Data, rest = b[:n], b[n:]
	d.damaged = crc32.Checksum(d.part.Data, castagnoli) != dataSum
	return d, rest, nil
}
