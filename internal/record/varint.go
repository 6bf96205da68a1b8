package record

import (
	"encoding/binary"
	"math"
)

// badPos is the position that a varint leaves behind which is not one: beyond
// every slice, so that the next bounds check fails, and far from overflow when
// lengths are added to it.
const badPos = math.MaxInt / 2

// varint decodes a zigzag varint at b[p:] and returns it with the position after
// it, or badPos. It is split so that the case of one byte is inlined.
func varint(b []byte, p int) (int64, int) {
	if p < len(b) && b[p] < 0x80 {
		return int64(b[p]>>1) ^ -int64(b[p]&1), p + 1
	}
	return longVarint(b, p)
}

func longVarint(b []byte, p int) (int64, int) {
	if p >= len(b) {
		return 0, badPos
	}
	u, n := binary.Uvarint(b[p:])
	if n <= 0 {
		return 0, badPos
	}
	return unzigzag(u), p + n
}

func unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }

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
