package record

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// Windows of zstd: the largest that is accepted, which is also the reference
// library's limit, and the largest whose decoder is kept for the next batch.
const (
	maxWindow  = 128 << 20
	keepWindow = 8 << 20
)

// keepBuffer is the largest buffer that a pool keeps.
const keepBuffer = 1 << 20

// inflater streams what a compressed batch decompresses to. Exactly one of the
// decoders is set, the one of its codec.
type inflater struct {
	codec  Codec
	src    bytes.Reader
	gzip   *gzip.Reader
	snappy *snappyReader
	lz4    *lz4.Reader
	zstd   *zstd.Decoder
	keep   bool // worth keeping for the next batch
	r      io.Reader
}

// inflaters are kept for the next batch, by codec. None holds a goroutine, so the
// garbage collector may drop them.
var inflaters [len(codecNames)]sync.Pool

// inflate begins to decompress. Errors here and of Read wrap ErrInvalid.
func inflate(c Codec, src []byte, limit int64) (*inflater, error) {
	if !c.Known() {
		return nil, fmt.Errorf("%w: it is %d", ErrCodec, c)
	}
	f, ok := inflaters[c].Get().(*inflater)
	if !ok {
		f = &inflater{codec: c}
	}
	f.keep = true
	f.src.Reset(src)
	if err := f.open(src, limit); err != nil {
		f.close()
		return nil, f.wrap(err)
	}
	return f, nil
}

func (f *inflater) open(src []byte, limit int64) error {
	switch f.codec {
	case Gzip:
		f.r = f.gzip
		if f.gzip == nil {
			f.gzip = new(gzip.Reader)
			f.r = f.gzip
		}
		return f.gzip.Reset(&f.src)
	case Snappy:
		if f.snappy == nil {
			f.snappy = new(snappyReader)
		}
		f.r = f.snappy
		f.snappy.reset(src, limit)
		return nil
	case LZ4:
		if f.lz4 == nil {
			f.lz4 = lz4.NewReader(nil)
		}
		f.r = f.lz4
		f.lz4.Reset(&f.src)
		return checkLZ4(src)
	case Zstd:
		return f.openZstd(src, limit)
	default:
		f.r = &f.src
		return nil
	}
}

// openZstd takes a decoder whose window is bounded by what the frame asks for and
// by what the batch may decompress to, because the window is taken at once.
func (f *inflater) openZstd(src []byte, limit int64) error {
	var h zstd.Header
	if err := h.Decode(src); err != nil {
		return err
	}
	window := h.WindowSize
	if h.SingleSegment {
		window = h.FrameContentSize
	}
	if limit > 0 && window > uint64(limit) && window > keepWindow {
		return fmt.Errorf("%w: it needs a window of %d bytes", ErrTooLarge, window)
	}
	largest := uint64(keepWindow)
	if window > keepWindow {
		f.zstd, f.keep, largest = nil, false, maxWindow
	}
	if f.zstd == nil {
		var err error
		f.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(largest), zstd.WithDecoderMaxMemory(largest))
		if err != nil {
			return err
		}
	}
	f.r = f.zstd
	return f.zstd.Reset(&f.src)
}

// Read gives the next decompressed bytes.
func (f *inflater) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = f.wrap(err)
	}
	return n, err
}

func (f *inflater) wrap(err error) error {
	if errors.Is(err, ErrTooLarge) {
		return err
	}
	return fmt.Errorf("%w: its %s data does not decompress: %w", ErrInvalid, f.codec, err)
}

func (f *inflater) close() {
	f.src.Reset(nil)
	if f.snappy != nil {
		f.snappy.reset(nil, 0)
		f.keep = cap(f.snappy.buf) <= keepBuffer
	}
	if !f.keep {
		if f.zstd != nil {
			f.zstd.Close()
		}
		return
	}
	inflaters[f.codec].Put(f)
}

// checkLZ4 refuses frames that Kafka's Java clients cannot read, although the
// library here can: old framings and blocks that depend on each other.
func checkLZ4(src []byte) error {
	const magic, version, independent = 0x184d2204, 0xc0, 0x60
	if len(src) < 7 {
		return io.ErrUnexpectedEOF
	}
	le := uint32(src[0]) | uint32(src[1])<<8 | uint32(src[2])<<16 | uint32(src[3])<<24
	if le != magic {
		return errors.New("not an lz4 frame")
	}
	if src[4]&(version|independent&^version) != independent {
		return errors.New("an lz4 frame of another version or with dependent blocks")
	}
	return nil
}

// snappyReader reads snappy in the xerial framing and as one bare block.
type snappyReader struct {
	src   []byte
	limit int64 // of a block decompressed; 0: none
	bare  bool
	buf   []byte
	out   []byte // decompressed and not yet read, in buf
}

func (s *snappyReader) reset(src []byte, limit int64) {
	s.limit, s.out = limit, nil
	s.bare = len(src) < xerialHeaderLen || !bytes.Equal(src[:8], xerialHeader[:8])
	if !s.bare {
		src = src[xerialHeaderLen:]
	}
	s.src = src
}

// Read gives the next decompressed bytes.
func (s *snappyReader) Read(p []byte) (int, error) {
	for len(s.out) == 0 {
		if len(s.src) == 0 {
			return 0, io.EOF
		}
		block, err := s.block()
		if err != nil {
			return 0, err
		}
		if err := s.decode(block); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.out)
	s.out = s.out[n:]
	return n, nil
}

// block cuts the next block off the source.
func (s *snappyReader) block() ([]byte, error) {
	if s.bare {
		block := s.src
		s.src = nil
		return block, nil
	}
	// Streams may follow one another, each with a header of its own.
	for len(s.src) >= xerialHeaderLen && bytes.Equal(s.src[:8], xerialHeader[:8]) {
		s.src = s.src[xerialHeaderLen:]
	}
	if len(s.src) == 0 {
		return nil, io.EOF
	}
	if len(s.src) < 4 {
		return nil, io.ErrUnexpectedEOF
	}
	n := int64(be.Uint32(s.src))
	if n > int64(len(s.src)-4) {
		return nil, io.ErrUnexpectedEOF
	}
	block := s.src[4 : 4+n]
	s.src = s.src[4+n:]
	return block, nil
}

// maxSnappyRatio is more than any block can grow: 3 bytes make at most 64.
const maxSnappyRatio = 22

// decode decompresses a block. Its length is stated in front and taken at once, so
// it is bounded first.
func (s *snappyReader) decode(block []byte) error {
	n, err := snappy.DecodedLen(block)
	if err != nil {
		return err
	}
	if n > maxSnappyRatio*len(block) {
		return snappy.ErrCorrupt
	}
	if s.limit > 0 && int64(n) > s.limit {
		return ErrTooLarge
	}
	if cap(s.buf) < n {
		s.buf = make([]byte, n)
	}
	s.out, err = snappy.DecodeStrict(s.buf[:cap(s.buf)], block)
	return err
}
