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

// keepWindow is the largest window of a zstd decoder that is kept for the next batch.
const keepWindow = 2 << 20

// keepBuffer is the largest snappy block whose memory is kept for the next batch.
const keepBuffer = 1 << 20

// inflater streams the bytes that a compressed batch decompresses to. Exactly one
// of the decoders is set, the one of its codec.
type inflater struct {
	codec  Codec
	src    source
	gzip   *gzip.Reader
	snappy *snappyReader
	lz4    *lz4.Reader
	zstd   *zstd.Decoder
	keep   bool // worth keeping for the next batch
	r      io.Reader
}

// source reads the bytes of a plan.
type source struct {
	bytes.Reader

	narrow byte
}

// Read reads the next bytes. The first read covers the header of a zstd frame.
func (s *source) Read(p []byte) (int, error) {
	at := s.Size() - int64(s.Len())
	n, err := s.Reader.Read(p)
	if s.narrow != 0 && at <= atZstdWindow && at+int64(n) > atZstdWindow {
		p[atZstdWindow-at] = s.narrow
	}
	return n, err
}

// inflaters are kept for the next batch, by codec. None holds a goroutine, so the
// garbage collector may drop them.
var inflaters [len(codecNames)]sync.Pool

// inflate begins to decompress. Errors here and of Read wrap ErrInvalid.
func inflate(c Codec, p *plan) (*inflater, error) {
	f, ok := inflaters[c].Get().(*inflater)
	if !ok {
		f = &inflater{codec: c}
	}
	f.keep = p.window <= keepWindow
	f.src.Reset(p.src)
	f.src.narrow = p.narrow
	if err := f.open(p.src); err != nil {
		f.close()
		return nil, wrapInflate(c, err)
	}
	return f, nil
}

func (f *inflater) open(src []byte) error {
	switch f.codec {
	case Gzip:
		f.r = f.gzip
		if f.gzip == nil {
			f.gzip = new(gzip.Reader)
			f.r = f.gzip
		}
		return f.gzip.Reset(&f.src.Reader) // for which the library has a faster loop
	case Snappy:
		if f.snappy == nil {
			f.snappy = new(snappyReader)
		}
		f.r = f.snappy
		f.snappy.reset(src)
		return nil
	case LZ4:
		if f.lz4 == nil {
			f.lz4 = lz4.NewReader(nil)
		}
		f.r = f.lz4
		f.lz4.Reset(&f.src)
		return nil
	case Zstd:
		if f.zstd == nil {
			var err error
			f.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
				zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(maxWindow))
			if err != nil {
				return err
			}
		}
		f.r = f.zstd
		return f.zstd.Reset(&f.src)
	default:
		f.r = &f.src
		return nil
	}
}

// Read gives the next decompressed bytes.
func (f *inflater) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = wrapInflate(f.codec, err)
	}
	return n, err
}

func wrapInflate(c Codec, err error) error {
	if errors.Is(err, ErrTooLarge) || errors.Is(err, ErrCodec) {
		return err
	}
	return fmt.Errorf("%w: its %s data does not decompress: %w", ErrInvalid, c, err)
}

func (f *inflater) close() {
	f.src.Reset(nil)
	if f.snappy != nil {
		f.snappy.reset(nil)
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

// snappyReader reads snappy in the xerial framing and as one bare block.
type snappyReader struct {
	src  []byte
	bare bool
	buf  []byte
	out  []byte // decompressed and not yet read, in buf
}

func (s *snappyReader) reset(src []byte) {
	s.out = nil
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

// decode decompresses a block. Its length is stated in front and taken at once, so
// it is bounded first.
func (s *snappyReader) decode(block []byte) error {
	n, err := snappyLen(block)
	if err != nil {
		return err
	}
	if cap(s.buf) < n {
		s.buf = make([]byte, n)
	}
	s.out, err = snappy.DecodeStrict(s.buf[:cap(s.buf)], block)
	return err
}
