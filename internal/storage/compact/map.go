package compact

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"math/bits"

	"github.com/leatstream/leat/internal/record"
)

// EntryBytes is how many bytes a key takes in a Map, whatever its length.
const EntryBytes = 24

const (
	// MinMapBytes is the smallest size of a Map.
	MinMapBytes = 1 << 10
	// partBytes is the least size of a part of a Map: one that is smaller has one part.
	partBytes = 64 << 10
	// maxParts bounds how many parts a Map has. One part at a time is in memory twice, while it grows.
	maxParts = 64
	// firstSlots is how many slots a part has at first.
	firstSlots = 128
	// maxLoad is how many percent of a part's slots are used at most. Most look-ups are for
	// keys that are not in the Map, and those take longer the fuller it is.
	maxLoad = 80
)

// Map has the latest offset of each key in a part of a log, in bounded memory.
//
// It keeps no keys but the first 128 bits of their SHA-256, with a random seed of the Map in
// front. Two keys with the same hash would be one key to it: the older record of the two would
// be lost. Among 2^32 keys that happens with a probability of 2^-65, which is less than that of
// a fault of memory that goes unnoticed; and nobody can make two such keys, since the seed is secret
// and the hash is a cryptographic one.
//
// The memory grows with the number of keys. The Map has parts, of which each has the keys with
// certain hashes, is an open-addressed table, and grows for itself.
type Map struct {
	parts     []part
	mostSlots int // of each part
	hasher    hasher
	used      int64
	full      bool
	end       record.Offset
}

// part is one table of a Map.
type part struct {
	slots []slot
	used  int
}

// slot is a key's hash and the offset after its latest record; next is 0 if the slot is free.
type slot struct {
	sum  sum
	next record.Offset
}

// sum is the hash of a key.
type sum struct{ high, low uint64 }

// NewMap makes a Map that never has more than the given bytes of memory. It takes them when
// they are needed.
func NewMap(bytes int64) (*Map, error) {
	if bytes < MinMapBytes {
		return nil, fmt.Errorf("a map of %d bytes is too small to compact a log: give it %d bytes at least", bytes, MinMapBytes)
	}
	m := &Map{}
	parts := min(bytes/partBytes, maxParts)
	if parts <= 1 {
		m.parts, m.mostSlots = make([]part, 1), int(bytes/EntryBytes)
		m.parts[0].slots = make([]slot, m.mostSlots) // it is small, and never twice in memory
	} else {
		m.parts, m.mostSlots = make([]part, parts), int(bytes/EntryBytes/(parts+1))
	}
	m.hasher.init()
	return m, nil
}

// Reset removes all keys, and gives the memory of many back. The dirty part begins at first, so
// the Map is complete up to there.
func (m *Map) Reset(first record.Offset) {
	for i := range m.parts {
		p := &m.parts[i]
		if len(p.slots) > firstSlots && len(m.parts) > 1 {
			p.slots = nil
		}
		clear(p.slots)
		p.used = 0
	}
	m.used, m.full, m.end = 0, false, first
}

// Put notes that a key has a record at the offset, which must be higher than those before. It
// returns false if the Map is full and the key is not in it; after that it takes no more keys.
func (m *Map) Put(key []byte, at record.Offset) bool {
	m.hasher.write(key)
	return m.putSum(m.hasher.sum(), at)
}

// Latest is the highest offset of a key's records; ok is false if the key is not in the Map.
func (m *Map) Latest(key []byte) (at record.Offset, ok bool) {
	m.hasher.write(key)
	return m.latestSum(m.hasher.sum())
}

// Len is the number of keys.
func (m *Map) Len() int64 { return m.used }

// End is the offset up to which the Map is complete: it has the keys of all records that the
// Indexer has read below it.
func (m *Map) End() record.Offset { return m.end }

// Bytes is how much memory the keys take now.
func (m *Map) Bytes() int64 {
	n := int64(0)
	for i := range m.parts {
		n += int64(len(m.parts[i].slots)) * EntryBytes
	}
	return n
}

func (m *Map) putSum(s sum, at record.Offset) bool {
	p := m.findPart(s)
	if found := p.find(s); found != nil && found.next != 0 {
		found.next = at + 1
		return true
	}
	if m.full || !p.makeRoom(m.mostSlots) {
		m.full = true
		return false
	}
	*p.find(s) = slot{s, at + 1}
	p.used++
	m.used++
	return true
}

func (m *Map) latestSum(s sum) (record.Offset, bool) {
	found := m.findPart(s).find(s)
	if found == nil || found.next == 0 {
		return 0, false
	}
	return found.next - 1, true
}

// findPart is the part of a hash. Its low half says which, and its high half the place in it.
func (m *Map) findPart(s sum) *part { return &m.parts[scale(s.low, len(m.parts))] }

// scale maps a hash to a number below n.
func scale(hash uint64, n int) int {
	high, _ := bits.Mul64(hash, uint64(n))
	return int(high)
}

// find is the slot of a hash, or the free one where it belongs. A part has always a free
// slot, or none at all; then the result is nil.
func (p *part) find(s sum) *slot {
	if len(p.slots) == 0 {
		return nil
	}
	for i := scale(s.high, len(p.slots)); ; i++ {
		if i == len(p.slots) {
			i = 0
		}
		if at := &p.slots[i]; at.next == 0 || at.sum == s {
			return at
		}
	}
}

// makeRoom grows the part if it is too full for another key, up to most slots. It returns false if it
// cannot.
func (p *part) makeRoom(most int) bool {
	if 100*(p.used+1) <= maxLoad*len(p.slots) {
		return true
	}
	if len(p.slots) >= most {
		return false
	}
	before := p.slots
	p.slots = make([]slot, min(most, max(firstSlots, 2*len(before))))
	for _, s := range before {
		if s.next != 0 {
			*p.find(s.sum) = s
		}
	}
	return true
}

const (
	seedLen = 16
	// shortKey is the length up to which a key is hashed with one call.
	shortKey = 256
)

// hasher hashes one key after another. A key may come in pieces.
type hasher struct {
	short  []byte    // the seed and the key, while it is short
	long   hash.Hash // of the seed and a key that is not
	isLong bool
	result [sha256.Size]byte
}

func (h *hasher) init() {
	h.short = make([]byte, seedLen, seedLen+shortKey)
	_, _ = rand.Read(h.short) // it never fails
	h.long = sha256.New()
}

// write adds the next bytes of the key.
func (h *hasher) write(part []byte) {
	if !h.isLong && len(h.short)+len(part) <= cap(h.short) {
		h.short = append(h.short, part...)
		return
	}
	if !h.isLong {
		h.isLong = true
		h.long.Reset()
		_, _ = h.long.Write(h.short) // a hash never fails
	}
	_, _ = h.long.Write(part)
}

// sum is the hash of the key that was written, and begins the next key.
func (h *hasher) sum() sum {
	if h.isLong {
		h.long.Sum(h.result[:0])
	} else {
		h.result = sha256.Sum256(h.short)
	}
	h.forget()
	return sum{binary.BigEndian.Uint64(h.result[:]), binary.BigEndian.Uint64(h.result[8:])}
}

// forget drops what was written of a key.
func (h *hasher) forget() { h.short, h.isLong = h.short[:seedLen], false }
