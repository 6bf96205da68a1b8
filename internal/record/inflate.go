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

// maxKeptWindow is the largest window of a zstd decoder that goes back to its pool.
const maxKeptWindow = 2 << 20

// maxKeptBlock is the largest buffer of a snappy decoder that goes back to its pool.
const maxKeptBlock = 1 << 20

// inflater decompresses the records of a batch as a stream. Only the decoder of its
// codec is set.
type inflater struct {
	codec    Codec
	src      source
	gzip     *gzip.Reader
	snappy   *snappyReader
	lz4      *lz4.Reader
	zstd     *zstd.Decoder
	reusable bool // it goes back to its pool
	r        io.Reader
}

// source reads the bytes of a plan, with its windowByte in the place of the original.
type source struct {
	bytes.Reader

	windowByte byte
}

// Read reads the next bytes.
func (s *source) Read(p []byte) (int, error) {
	at := s.Size() - int64(s.Len())
	n, err := s.Reader.Read(p)
	if s.windowByte != 0 && at <= atZstdWindow && at+int64(n) > atZstdWindow {
		p[atZstdWindow-at] = s.windowByte
	}
	return n, err
}

// inflaters are kept for the next batch, by codec. They have no goroutine, so the
// garbage collector may free them.
var inflaters [len(codecNames)]sync.Pool

// newInflater begins to decompress. Errors here and of Read wrap ErrInvalid.
func newInflater(c Codec, p *plan) (*inflater, error) {
	f, ok := inflaters[c].Get().(*inflater)
	if !ok {
		f = &inflater{codec: c}
	}
	f.reusable = p.window <= maxKeptWindow
	f.src.Reset(p.src)
	f.src.windowByte = p.windowByte
	if err := f.openDecoder(p.src); err != nil {
		f.close()
		return nil, wrapInflateError(c, err)
	}
	return f, nil
}

func (f *inflater) openDecoder(src []byte) error {
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

// Read returns the next decompressed bytes.
func (f *inflater) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = wrapInflateError(f.codec, err)
	}
	return n, err
}

func wrapInflateError(c Codec, err error) error {
	if errors.Is(err, ErrTooLarge) || errors.Is(err, ErrCodec) {
		return err
	}
	return fmt.Errorf("%w: its %s data does not decompress: %w", ErrInvalid, c, err)
}

func (f *inflater) close() {
	f.src.Reset(nil)
	if f.snappy != nil {
		f.snappy.reset(nil)
		f.reusable = cap(f.snappy.buf) <= maxKeptBlock
	}
	if !f.reusable {
		if f.zstd != nil {
			f.zstd.Close()
		}
		return
	}
	inflaters[f.codec].Put(f)
}

// snappyReader decompresses snappy, in the xerial framing or as one bare block.
type snappyReader struct {
	src  []byte // not decompressed yet
	bare bool   // src is one bare block
	buf  []byte // memory for a decompressed block
	out  []byte // the part of buf that was not read yet
}

func (s *snappyReader) reset(src []byte) {
	s.out = nil
	s.bare = len(src) < xerialHeaderLen || !bytes.Equal(src[:8], xerialHeader[:8])
	if !s.bare {
		src = src[xerialHeaderLen:]
	}
	s.src = src
}

// Read returns the next decompressed bytes.
func (s *snappyReader) Read(p []byte) (int, error) {
	for len(s.out) == 0 {
		if len(s.src) == 0 {
			return 0, io.EOF
		}
		block, err := s.cutBlock()
		if err != nil {
			return 0, err
		}
		if err := s.decodeBlock(block); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.out)
	s.out = s.out[n:]
	return n, nil
}

// cutBlock cuts the next block off the source.
func (s *snappyReader) cutBlock() ([]byte, error) {
	if s.bare {
		block := s.src
		s.src = nil
		return block, nil
	}
	// Several streams may follow one another, each with a header of its own.
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

// decodeBlock decompresses a block. The block's decompressed length is at its beginning,
// and is checked before memory of that length is allocated.
func (s *snappyReader) decodeBlock(block []byte) error {
	n, err := snappyLength(block)
	if err != nil {
		return err
	}
	if cap(s.buf) < n {
		s.buf = make([]byte, n)
	}
	s.out, err = snappy.DecodeStrict(s.buf[:cap(s.buf)], block)
	return err
}
