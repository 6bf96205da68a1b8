package journal

import (
	"hash/crc32"

	"github.com/leatstream/leat/internal/vfs"
)

const (
	roundHead = 64
	block     = 4096
	maxRound  = 4 << 20 // roughly how many bytes of parts a round has at most; a larger write is split

	minBuffer = 64 << 10
)

// Image has the bytes of the next write: rounds with their parts, and room for their heads.
// Appends copy their bytes into it while those are in the processor's cache (BenchmarkCommit).
// The zero Image is empty. One goroutine at a time may use it.
type Image struct {
	rounds []roundImage
	spare  []byte // a buffer to be used again
	bytes  int64  // of data
}

// roundImage is one round of an Image.
type roundImage struct {
	b   []byte // roundHead bytes of room, then parts
	sum uint32 // of the checksums of the parts' heads
}

// Empty tells whether there is nothing to write.
func (m *Image) Empty() bool { return len(m.rounds) == 0 }

// Bytes is the number of bytes of segments in the image.
func (m *Image) Bytes() int64 { return m.bytes }

// Reset empties the image and keeps the memory of its first round.
func (m *Image) Reset() {
	if len(m.rounds) > 0 {
		m.spare = m.rounds[0].b[:0]
	}
	clear(m.rounds)
	m.rounds, m.bytes = m.rounds[:0], 0
}

// Shrink frees the memory of an empty image if it is much more than need.
func (m *Image) Shrink(need int) {
	if len(m.rounds) == 0 && cap(m.spare) > 4*max(need, minBuffer) {
		m.spare = nil
	}
}

// FirstRound is the number of bytes of the first round, whose memory Reset keeps.
func (m *Image) FirstRound() int {
	if len(m.rounds) == 0 {
		return 0
	}
	return len(m.rounds[0].b)
}

// Add adds a part. bufs are the bytes of a Bytes part, which are copied. If they do not fit
// into a round, the rest goes into a part of the next round.
func (m *Image) Add(p Part, bufs [][]byte, roundSize int) {
	left := 0
	for _, b := range bufs {
		left += len(b)
	}
	m.bytes += int64(left)
	room := m.openRound(&p, min(left, block/4), roundSize)
	if left <= room {
		m.addPart(p, bufs, left)
		return
	}
	for left > 0 {
		room := m.openRound(&p, min(left, block/4), roundSize)
		n := min(left, room)
		var now [][]byte
		now, bufs = splitBuffers(bufs, n)
		m.addPart(p, now, n)
		p.Pos, left = p.Pos+int64(n), left-n
	}
}

// splitBuffers splits buffers into those with the first n bytes and those with the rest.
func splitBuffers(bufs [][]byte, n int) (first, rest [][]byte) {
	for i, b := range bufs {
		if len(b) >= n {
			first = append(append(first, bufs[:i]...), b[:n])
			rest = append(append(rest, b[n:]), bufs[i+1:]...)
			return first, rest
		}
		n -= len(b)
	}
	return bufs, nil
}

// openRound makes sure that the last round has room for a part with at least n bytes, and
// returns how many bytes it has room for.
func (m *Image) openRound(p *Part, n, roundSize int) int {
	need := partHead + len(p.Dir) + n
	if k := len(m.rounds); k > 0 {
		if left := roundHead + roundSize - len(m.rounds[k-1].b); left >= need {
			return left - partHead - len(p.Dir)
		}
	}
	b := m.spare
	m.spare = nil
	if cap(b) < roundHead {
		b = vfs.Aligned(minBuffer)
	}
	m.rounds = append(m.rounds, roundImage{b: b[:roundHead]})
	return roundSize - partHead - len(p.Dir)
}

// addPart adds a part that fits into the last round.
func (m *Image) addPart(p Part, bufs [][]byte, n int) {
	r := &m.rounds[len(m.rounds)-1]
	end := len(r.b) + partHead + len(p.Dir) + n
	if padded := end + block; padded > cap(r.b) {
		r.b = growAligned(r.b, max(2*cap(r.b), padded))
	}
	var dataSum uint32
	for _, b := range bufs {
		dataSum = crc32.Update(dataSum, castagnoli, b)
	}
	at := len(r.b)
	r.b = appendHead(r.b, &p, n, dataSum)
	r.sum = addHeadSum(r.sum, r.b[at:])
	for _, b := range bufs {
		r.b = append(r.b, b...)
	}
	if len(r.b) != end {
		panic("BUG: a part of the journal is not as long as its head says")
	}
}

// addHeadSum adds the checksum of a part's head to those of the parts before it.
func addHeadSum(sum uint32, head []byte) uint32 {
	return crc32.Update(sum, castagnoli, head[partHead-4:partHead])
}

// growAligned gives a buffer a larger capacity.
func growAligned(b []byte, n int) []byte {
	grown := vfs.Aligned(n)
	return grown[:copy(grown, b)]
}
