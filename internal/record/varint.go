package record

import (
	"encoding/binary"
	"math"
)

// badPos is the position that a varint leaves behind which is not one: beyond
// every slice, so that the next bounds check fails, and far from overflow when
// lengths are added to it.
const badPos = math.MaxInt / 2

// short reads a varint of one or two bytes at b[p:], without undoing the zigzag,
// and returns it with the position after it. long, which no such varint reaches,
// says that uvarint must read it: it is longer, or at the end of b. The two are
// apart so that the common case is inlined.
func short(b []byte, p int) (uint64, int) {
	if uint(p)+1 < uint(len(b)) {
		u, v := uint64(b[p]), uint64(b[p+1])
		if u < 0x80 {
			return u, p + 1
		}
		if v < 0x80 {
			return u&0x7f | v<<7, p + 2
		}
	}
	return long, p
}

const long = 1 << 14

// uvarint reads a varint at b[p:], without undoing the zigzag, and returns it with
// the position after it, or badPos.
func uvarint(b []byte, p int) (uint64, int) {
	if p >= len(b) {
		return 0, badPos
	}
	u, n := binary.Uvarint(b[p:])
	if n <= 0 {
		return 0, badPos
	}
	return u, p + n
}

// varint decodes a zigzag varint as uvarint does.
func varint(b []byte, p int) (int64, int) {
	u, p := short(b, p)
	if u >= long {
		u, p = uvarint(b, p)
	}
	return unzigzag(u), p
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
