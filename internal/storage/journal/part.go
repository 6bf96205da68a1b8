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

// Kind says what a Part is.
type Kind uint8

// The kinds of parts.
const (
	// Bytes are bytes of a segment, from a position on.
	Bytes Kind = 1
	// Start says that a log begins with Offset from now on.
	Start Kind = 2
	// Delete says that a log was deleted.
	Delete Kind = 3
	// Truncate says that a log is about to be cut: the segment Base at Pos, where the next
	// record gets Offset. Nothing that came before it is brought back beyond that.
	Truncate Kind = 4
	// Truncated says that the files were cut as the last Truncate said, durably.
	Truncated Kind = 5
)

// Part is a piece of a round.
type Part struct {
	Kind   Kind
	ID     record.LogID
	Dir    string        // the name of the log's directory
	Base   record.Offset // of the segment
	Pos    int64         // in the segment's file, bytes
	Offset record.Offset
	Data   []byte // of Bytes, as Scan found it
}

const (
	partHead = 60
	maxPos   = 1<<31 - 1 // a segment's positions are 32-bit
)

// appendHead encodes the head of a part with n bytes of data and their checksum.
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

// errPart is returned for bytes that are no part.
var errPart = errors.New("not a part of the journal")

// found is a part that was cut off the parts of a round.
type found struct {
	part    Part
	damaged bool // the data are not what they were
}

// cutPart cuts the first part off the parts of a round. It returns errPart where no part
// begins, and nothing behind it can be read.
func cutPart(b []byte) (f found, rest []byte, err error) {
	if len(b) < partHead {
		return f, nil, errPart
	}
	name := int(be.Uint16(b[2:]))
	n := int64(be.Uint32(b[48:]))
	if int64(len(b)) < int64(partHead+name)+n {
		return f, nil, errPart
	}
	sum := crc32.Checksum(b[:partHead-4], castagnoli)
	if crc32.Update(sum, castagnoli, b[partHead:partHead+name]) != be.Uint32(b[partHead-4:]) {
		return f, nil, errPart
	}
	f.part = Part{
		Kind: Kind(b[0]), ID: record.LogID{Partition: int32(be.Uint32(b[4:])), Topic: [16]byte(b[8:24])},
		Base: record.Offset(be.Uint64(b[24:])), Pos: int64(be.Uint64(b[32:])), Offset: record.Offset(be.Uint64(b[40:])),
		Dir: string(b[partHead : partHead+name]),
	}
	if p := &f.part; p.Base < 0 || p.Pos < 0 || p.Pos > maxPos || p.Offset < 0 {
		return f, nil, errPart
	}
	dataSum := be.Uint32(b[52:])
	b = b[partHead+name:]
	f.part.Data, rest = b[:n], b[n:]
	f.damaged = crc32.Checksum(f.part.Data, castagnoli) != dataSum
	return f, rest, nil
}
