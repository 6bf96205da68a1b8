package transaction

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sort"

	"github.com/leatstream/leat/internal/record"
)

// The index file of a segment has the transactions whose abort markers are in the segment, in the
// order of the markers. It begins with Kafka's entries (AbortedTxn), in big endian:
//
//	0   version 2: 0
//	2   producer id 8
//	10  offset of the first record 8
//	18  offset of the marker 8
//	26  last stable offset behind the marker 8
//
// and ends with a trailer, which Kafka's readers ignore, since it is shorter than an entry:
//
//	0   version 2: 1
//	2   offset 8: all markers of the segment below it are here
//	10  the first offset of a transaction that was open there, or that offset 8
//	18  number of entries 4
//	22  checksum (CRC-32C) of all bytes before 4
const (
	entryVersion = 0
	entryLen     = 2 + 4*8

	trailerVersion = 1
	trailerLen     = 2 + 2*8 + 2*4
)

var (
	be         = binary.BigEndian
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// ErrIndex is returned for bytes that are not an index file.
var ErrIndex = errors.New("not an index of transactions")

// Summary is what the trailer of an index file says.
type Summary struct {
	UpTo record.Offset // all markers of the segment below it are in the file
	// Stable is the first offset of a transaction that was open at UpTo, or UpTo: no transaction
	// that was aborted later begins below it.
	Stable record.Offset
	Count  int // of entries
}

// Size is the number of bytes of an index file with n entries.
func Size(n int) int64 { return int64(n)*entryLen + trailerLen }

// Encode returns the contents of an index file.
func Encode(list []Abort, upTo, stable record.Offset) []byte {
	b := make([]byte, 0, len(list)*entryLen+trailerLen)
	for _, a := range list {
		b = be.AppendUint16(b, entryVersion)
		b = be.AppendUint64(b, uint64(a.Producer))
		b = be.AppendUint64(b, uint64(a.First))
		b = be.AppendUint64(b, uint64(a.Last))
		b = be.AppendUint64(b, uint64(a.Stable))
	}
	b = be.AppendUint16(b, trailerVersion)
	b = be.AppendUint64(b, uint64(upTo))
	b = be.AppendUint64(b, uint64(stable))
	b = be.AppendUint32(b, uint32(len(list)))
	return be.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// atOnce is how many bytes of a file are read at a time: entries without a remainder.
const atOnce = 1024 * entryLen

// Check reads a whole index file of size bytes, and returns its summary if it is sound. The error is
// ErrIndex if it is not.
func Check(r io.ReaderAt, size int64) (Summary, error) {
	if size < trailerLen || size%entryLen != trailerLen {
		return Summary{}, fmt.Errorf("%w: it has %d bytes", ErrIndex, size)
	}
	sum := uint32(0)
	buf := make([]byte, min(size, atOnce))
	var tail [trailerLen]byte
	for at := int64(0); at < size; {
		b := buf[:min(int64(len(buf)), size-at)]
		if err := readWhole(r, b, at); err != nil {
			return Summary{}, err
		}
		at += int64(len(b))
		if at == size { // the last piece: it has at least the trailer, since that does not fill one
			copy(tail[:], b[len(b)-trailerLen:])
			b = b[:len(b)-4]
		}
		sum = crc32.Update(sum, castagnoli, b)
	}
	s := Summary{UpTo: record.Offset(be.Uint64(tail[2:])), Stable: record.Offset(be.Uint64(tail[10:])), Count: int(be.Uint32(tail[18:]))}
	switch {
	case sum != be.Uint32(tail[22:]):
		return Summary{}, fmt.Errorf("%w: its checksum is wrong", ErrIndex)
	case be.Uint16(tail[:]) != trailerVersion:
		return Summary{}, fmt.Errorf("%w: unknown version", ErrIndex)
	case int64(s.Count) != size/entryLen || s.UpTo < 0 || s.Stable < 0 || s.Stable > s.UpTo:
		return Summary{}, fmt.Errorf("%w: its trailer is wrong", ErrIndex)
	}
	return s, nil
}

// readWhole fills b.
func readWhole(r io.ReaderAt, b []byte, at int64) error {
	n, err := r.ReadAt(b, at)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: it is too short", ErrIndex)
	}
	return err
}

// ReadIndex finds the transactions in an index file that have records from an offset on and below
// another one. The file is one that was checked, with n entries.
func ReadIndex(r io.ReaderAt, n int, from, upper record.Offset) (found []Abort, err error) {
	var one [entryLen]byte
	var failed error
	at := sort.Search(n, func(i int) bool {
		if failed == nil {
			failed = readWhole(r, one[:], int64(i)*entryLen)
		}
		return failed != nil || decodeEntry(one[:]).Last >= from
	})
	if failed != nil {
		return nil, failed
	}
	const some = atOnce / entryLen
	for ; at < n; at += some {
		b := make([]byte, min(n-at, some)*entryLen)
		if err := readWhole(r, b, int64(at)*entryLen); err != nil {
			return nil, err
		}
		for ; len(b) > 0; b = b[entryLen:] {
			a := decodeEntry(b)
			if a.Overlaps(from, upper) {
				found = append(found, a)
			}
			if a.Stable >= upper { // those that follow begin there or later
				return found, nil
			}
		}
	}
	return found, nil
}

func decodeEntry(b []byte) Abort {
	v := func(at int) record.Offset { return record.Offset(be.Uint64(b[at:])) }
	return Abort{Producer: int64(be.Uint64(b[2:])), First: v(10), Last: v(18), Stable: v(26)}
}
