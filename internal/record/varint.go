package record

import (
	"encoding/binary"
	"math"
)

// badPos is the position after a varint that cannot be read. It lies beyond every
// slice, so that the next bounds check fails, and does not overflow when lengths are
// added to it.
const badPos = math.MaxInt / 2

// readShort reads a varint of one or two bytes at b[p:], without undoing the zigzag, and
// returns it with the position after it. It returns notShort, and p, if the varint is
// longer or at the end of b; then the caller must call readRaw. It is a function of its
// own so that the compiler inlines the common case.
func readShort(b []byte, p int) (uint64, int) {
	if uint(p)+1 < uint(len(b)) {
		u, v := uint64(b[p]), uint64(b[p+1])
		if u < 0x80 {
			return u, p + 1
		}
		if v < 0x80 {
			return u&0x7f | v<<7, p + 2
		}
	}
	return notShort, p
}

// notShort is larger than every varint of two bytes.
const notShort = 1 << 14

// readRaw reads a varint of any length at b[p:], without undoing the zigzag, and returns
// it with the position after it, or badPos.
func readRaw(b []byte, p int) (uint64, int) {
	if p >= len(b) {
		return 0, badPos
	}
	u, n := binary.Uvarint(b[p:])
	if n <= 0 {
		return 0, badPos
	}
	return u, p + n
}

// readVarint reads a zigzag varint at b[p:] and returns it with the position after it,
// or badPos.
func readVarint(b []byte, p int) (int64, int) {
	u, p := readShort(b, p)
	if u >= notShort {
		u, p = readRaw(b, p)
	}
	return undoZigzag(u), p
}

func undoZigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }

func appendVarint(b []byte, v int64) []byte { return binary.AppendVarint(b, v) }

// varintLen is the encoded length of v.
func varintLen(v int64) int {
	u := uint64(v)<<1 ^ uint64(v>>63)
	n := 1
	for ; u >= 0x80; u >>= 7 {
		n++
	}
	return n
}
