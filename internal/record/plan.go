package record

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
)

// plan is what decompressing some bytes will take. It is made from the headers of
// frames and blocks alone, before any memory is taken: a frame may claim a window
// of 128 MiB and hold a few bytes.
type plan struct {
	src    []byte // the bytes to be read
	memory int64  // bytes that the decoder takes at most
	most   int64  // bytes that the records have at most when they are decompressed; gzip's may lie
	window int64  // of a zstd decoder
	// narrow replaces the window descriptor of the first zstd frame, where its
	// content is known to be smaller than the window that it claims; 0: nothing is
	// replaced.
	narrow byte
}

// What decoders take beside blocks and windows, rounded up from what was measured
// (TestPlanCoversMemory).
const (
	gzipMemory   = 64 << 10
	snappyMemory = 4 << 10
	lz4Memory    = 16 << 10
	zstdMemory   = 512 << 10
)

// maxWindow is the largest window of zstd that is accepted, which is also the
// reference library's limit.
const maxWindow = 128 << 20

func makePlan(c Codec, src []byte) (plan, error) {
	switch c {
	case None:
		return plan{src: src, most: int64(len(src))}, nil
	case Gzip:
		return plan{src: src, memory: gzipMemory, most: gzipLen(src)}, nil
	case Snappy:
		block, most := snappyLens(src)
		return plan{src: src, memory: snappyMemory + block, most: most}, nil
	case LZ4:
		return planLZ4(src)
	case Zstd:
		return planZstd(src)
	default:
		return plan{}, fmt.Errorf("%w: it is %d", ErrCodec, c)
	}
}

// gzipLen is how long the data say at their end that they are, or the most that
// they can be: 1,032 bytes for each one.
func gzipLen(src []byte) int64 {
	const trailer, ratio = 4, 1032
	if len(src) < trailer {
		return 0
	}
	return min(int64(binary.LittleEndian.Uint32(src[len(src)-trailer:])), ratio*int64(len(src)))
}

// snappyLens are the size of the largest block decompressed, and that of all.
// Blocks that claim what they cannot hold count as nothing: the decoder refuses
// them before it takes memory.
func snappyLens(src []byte) (block, all int64) {
	var s snappyReader
	s.reset(src)
	for len(s.src) > 0 {
		packed, err := s.block()
		if err != nil {
			break
		}
		if n, err := snappyLen(packed); err == nil {
			block, all = max(block, int64(n)), all+int64(n)
		}
	}
	return block, all
}

// maxSnappyRatio is more than any block can grow: 3 bytes make at most 64.
const maxSnappyRatio = 22

// snappyLen is the length of a block decompressed, which it states in front.
func snappyLen(block []byte) (int, error) {
	n, err := snappy.DecodedLen(block)
	if err == nil && n > maxSnappyRatio*len(block) {
		err = snappy.ErrCorrupt
	}
	return n, err
}

// planLZ4 walks over the blocks of a frame. It refuses frames that Kafka's Java
// clients cannot read, although the library here can: old framings, blocks that
// depend on each other, and a second frame.
func planLZ4(src []byte) (plan, error) {
	const (
		magic                     = 0x184d2204
		version, versionMask      = 0x40, 0xc0
		independent, blockSum     = 0x20, 0x10
		sized, contentSum, dict   = 0x08, 0x04, 0x01
		uncompressed, leastHeader = 1 << 31, 7
	)
	le := binary.LittleEndian
	if len(src) < leastHeader {
		return plan{}, io.ErrUnexpectedEOF
	}
	if le.Uint32(src) != magic {
		return plan{}, errors.New("not an lz4 frame")
	}
	flags := src[4]
	if flags&versionMask != version || flags&independent == 0 {
		return plan{}, errors.New("an lz4 frame of another version or with dependent blocks")
	}
	block := int64(1) << (8 + 2*(src[5]>>4&7)) // 64 KiB to 4 MiB are allowed, and the decoder refuses others
	most := int64(0)
	p := leastHeader + 8*int(flags&sized/sized) + 4*int(flags&dict)
	for p+4 <= len(src) {
		n := int(le.Uint32(src[p:]) &^ uncompressed)
		p += 4
		if n == 0 {
			p += 4 * int(flags&contentSum/contentSum)
			break
		}
		p += n + 4*int(flags&blockSum/blockSum)
		most += min(block, maxLZ4Ratio*int64(n))
	}
	if p < len(src) {
		return plan{}, errors.New("bytes follow the lz4 frame")
	}
	return plan{src: src, memory: lz4Memory + 2*block, most: most}, nil
}

// maxLZ4Ratio is more than any block can grow: a byte stands for 255 at most.
const maxLZ4Ratio = 256

// maxZstdBlock is the most that one block decompresses to.
const maxZstdBlock = 128 << 10

// planZstd walks over the blocks of all frames. No frame needs a window that is
// larger than its content, and the headers of the blocks bound that.
func planZstd(src []byte) (plan, error) {
	p := plan{src: src}
	first := true
	for rest := src; len(rest) > 0; first = false {
		var h zstd.Header
		if err := h.Decode(rest); err != nil {
			if first {
				return plan{}, err
			}
			break // the decoder will find the same
		}
		if h.Skippable {
			n := uint64(h.SkippableSize) + 8
			rest = rest[min(n, uint64(len(rest))):]
			continue
		}
		window := h.WindowSize
		if h.SingleSegment {
			window = h.FrameContentSize
		}
		var content uint64
		rest, content = skipZstdFrame(rest[h.HeaderSize:], min(window, maxZstdBlock), h.HasCheckSum)
		p.most += int64(min(content, MaxInflated+1))
		need := min(window, max(content, maxZstdBlock))
		if need > maxWindow {
			return plan{}, fmt.Errorf("%w: it needs a window of %d bytes", ErrTooLarge, need)
		}
		if need < window && h.SingleSegment {
			return plan{}, fmt.Errorf("a frame says that it holds %d bytes, and its blocks hold %d at most", window, content)
		}
		if need < window && first && bytes.HasPrefix(src, zstdMagic[:]) {
			p.narrow, need = zstdDescriptor(need)
		} else if need < window {
			need = min(window, maxWindow) // only a first frame can be made narrower
		}
		p.window = max(p.window, int64(need))
	}
	p.memory = zstdMemory + p.window + 2*min(p.window, maxZstdBlock)
	return p, nil
}

// zstdMagic is how a frame begins, and where in it the window's descriptor is.
var zstdMagic = [4]byte{0x28, 0xb5, 0x2f, 0xfd}

const atZstdWindow = 5

// zstdDescriptor is the least window that the format can express and that has room
// for n bytes.
func zstdDescriptor(n uint64) (descriptor byte, window uint64) {
	for e := byte(0); ; e++ {
		for m := range byte(8) {
			base := uint64(1) << (10 + e)
			if w := base + base/8*uint64(m); w >= n {
				return e<<3 | m, w
			}
		}
	}
}

// skipZstdFrame moves over a frame's blocks and returns what follows them, and the
// most that they can hold.
func skipZstdFrame(b []byte, maxBlock uint64, checksum bool) (rest []byte, content uint64) {
	const headerLen, raw, rle = 3, 0, 1
	for len(b) >= headerLen {
		h := uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16
		last, size := h&1 != 0, h>>3
		b = b[headerLen:]
		switch h >> 1 & 3 {
		case raw:
			content += size
		case rle:
			content += size
			size = 1
		default:
			content += maxBlock
		}
		b = b[min(size, uint64(len(b))):]
		if last {
			break
		}
	}
	if checksum {
		b = b[min(4, len(b)):]
	}
	return b, content
}
