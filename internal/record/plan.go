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

// plan tells how much memory it takes to decompress some bytes. It is made from the
// headers of frames and blocks, before any memory is allocated, since a frame of a few
// bytes may claim a window of 128 MiB.
type plan struct {
	src      []byte // the compressed bytes
	memory   int64  // upper bound of the decoder's memory
	maxBytes int64  // upper bound of the decompressed length; that of gzip may be wrong
	window   int64  // of a zstd decoder
	// windowByte replaces the window descriptor of the first zstd frame if it is not 0.
	// It makes the window smaller, since the frame's content is known to be smaller than
	// the window that it claims.
	windowByte byte
}

// The memory of decoders without blocks and windows, measured and rounded up
// (TestPlanCoversMemory).
const (
	gzipMemory   = 64 << 10
	snappyMemory = 4 << 10
	lz4Memory    = 16 << 10
	zstdMemory   = 512 << 10
)

// maxWindow is the largest window of zstd that is accepted. It is also the limit of the
// reference library.
const maxWindow = 128 << 20

func makePlan(c Codec, src []byte) (plan, error) {
	switch c {
	case None:
		return plan{src: src, maxBytes: int64(len(src))}, nil
	case Gzip:
		return plan{src: src, memory: gzipMemory, maxBytes: gzipLength(src)}, nil
	case Snappy:
		block, most := snappyLengths(src)
		return plan{src: src, memory: snappyMemory + block, maxBytes: most}, nil
	case LZ4:
		return planLZ4(src)
	case Zstd:
		return planZstd(src)
	default:
		return plan{}, fmt.Errorf("%w: it is %d", ErrCodec, c)
	}
}

// gzipLength is the decompressed length in the last bytes of the data, which may be
// wrong, or the largest possible one: 1,032 times the compressed length.
func gzipLength(src []byte) int64 {
	const trailer, ratio = 4, 1032
	if len(src) < trailer {
		return 0
	}
	return min(int64(binary.LittleEndian.Uint32(src[len(src)-trailer:])), ratio*int64(len(src)))
}

// snappyLengths are the decompressed lengths of the largest block and of all blocks. A
// block that claims an impossible length is not counted, since the decoder refuses it
// before it allocates memory.
func snappyLengths(src []byte) (block, all int64) {
	var s snappyReader
	s.reset(src)
	for len(s.src) > 0 {
		packed, err := s.cutBlock()
		if err != nil {
			break
		}
		if n, err := snappyLength(packed); err == nil {
			block, all = max(block, int64(n)), all+int64(n)
		}
	}
	return block, all
}

// maxSnappyRatio is more than any block can grow: at most 64 bytes are made of 3.
const maxSnappyRatio = 22

// snappyLength is the decompressed length of a block, which is at its beginning.
func snappyLength(block []byte) (int, error) {
	n, err := snappy.DecodedLen(block)
	if err == nil && n > maxSnappyRatio*len(block) {
		err = snappy.ErrCorrupt
	}
	return n, err
}

// planLZ4 makes the plan from the headers of a frame's blocks. It refuses frames that
// the library can read but Kafka's Java clients cannot: old framings, blocks that depend
// on each other, and a second frame.
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
	block := int64(1) << (8 + 2*(src[5]>>4&7)) // 64 KiB to 4 MiB; the decoder refuses other sizes
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
	return plan{src: src, memory: lz4Memory + 2*block, maxBytes: most}, nil
}

// maxLZ4Ratio is more than any block can grow: at most 255 bytes are made of one.
const maxLZ4Ratio = 256

// maxZstdBlock is the largest decompressed length of one block.
const maxZstdBlock = 128 << 10

// planZstd makes the plan from the headers of all frames and their blocks. No frame
// needs a window that is larger than its content, whose length the headers of the
// blocks bound.
func planZstd(src []byte) (plan, error) {
	p := plan{src: src}
	first := true
	for rest := src; len(rest) > 0; first = false {
		var h zstd.Header
		if err := h.Decode(rest); err != nil {
			if first {
				return plan{}, err
			}
			break // the decoder will return the error
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
		p.maxBytes += int64(min(content, MaxInflated+1))
		need := min(window, max(content, maxZstdBlock))
		if need > maxWindow {
			return plan{}, fmt.Errorf("%w: it needs a window of %d bytes", ErrTooLarge, need)
		}
		if need < window && h.SingleSegment {
			return plan{}, fmt.Errorf("a frame says that it holds %d bytes, and its blocks hold %d at most", window, content)
		}
		if need < window && first && bytes.HasPrefix(src, zstdMagic[:]) {
			p.windowByte, need = fitZstdWindow(need)
		} else if need < window {
			need = min(window, maxWindow) // only the window of a first frame can be made smaller
		}
		p.window = max(p.window, int64(need))
	}
	p.memory = zstdMemory + p.window + 2*min(p.window, maxZstdBlock)
	return p, nil
}

// zstdMagic is the beginning of a frame.
var zstdMagic = [4]byte{0x28, 0xb5, 0x2f, 0xfd}

// atZstdWindow is the position of the window descriptor in a frame.
const atZstdWindow = 5

// fitZstdWindow returns the smallest window of the format that has room for n bytes, and
// its descriptor.
func fitZstdWindow(n uint64) (descriptor byte, window uint64) {
	for e := byte(0); ; e++ {
		for m := range byte(8) {
			base := uint64(1) << (10 + e)
			if w := base + base/8*uint64(m); w >= n {
				return e<<3 | m, w
			}
		}
	}
}

// skipZstdFrame skips the blocks of a frame. It returns the bytes after them, and an
// upper bound of their decompressed length.
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
