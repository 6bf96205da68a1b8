package record

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"github.com/leatstream/leat/internal/budget"
)

// Codec is how the records of a batch are compressed.
type Codec int8

// The codecs, with the numbers that a batch's attributes hold.
const (
	None   Codec = 0
	Gzip   Codec = 1
	Snappy Codec = 2
	LZ4    Codec = 3
	Zstd   Codec = 4
)

// codecNames are Kafka's names, as in compression.type.
var codecNames = [...]string{"none", "gzip", "snappy", "lz4", "zstd"}

// Known tells whether c is one of the five codecs.
func (c Codec) Known() bool { return c >= None && c <= Zstd }

// String is Kafka's name of the codec.
func (c Codec) String() string {
	if !c.Known() {
		return "codec " + strconv.Itoa(int(c))
	}
	return codecNames[c]
}

// ParseCodec returns the codec of a Kafka name. "uncompressed" is the name of None in a
// topic's compression.type.
func ParseCodec(name string) (Codec, error) {
	for c, n := range codecNames {
		if n == name {
			return Codec(c), nil
		}
	}
	if name == "uncompressed" {
		return None, nil
	}
	return None, fmt.Errorf("%w %q: use none, gzip, snappy, lz4 or zstd", ErrCodec, name)
}

// The bounds and defaults of compression.{gzip,lz4,zstd}.level. In this package level 0
// means the codec's default.
const (
	minGzipLevel, maxGzipLevel = 1, 9
	maxLZ4Level, defLZ4Level   = 17, 9
	minZstdLevel, maxZstdLevel = -131072, 22
	defZstdLevel               = 3
)

// Encoders are kept for the next batch. They have no goroutine, so the garbage
// collector may free them.
var (
	gzipEncoders   [maxGzipLevel + 1]sync.Pool // by level
	snappyEncoders sync.Pool
	lz4Encoders    sync.Pool
	zstdEncoders   [zstd.SpeedBestCompression + 1]sync.Pool // by the library's level
)

// encoder compresses records and writes them to its destination. Close writes the rest;
// release must be called after it, even if it failed.
type encoder struct {
	io.WriteCloser

	pool *sync.Pool // to which release gives the writer; may be nil
}

func (e *encoder) release() {
	if e.pool != nil {
		e.pool.Put(e.WriteCloser)
	}
	e.WriteCloser = nil
}

// newEncoder makes an encoder that writes to w, or takes it from a pool.
func newEncoder(w io.Writer, c Codec, level int) (encoder, error) {
	switch c {
	case None:
		return encoder{WriteCloser: plainWriter{w}}, nil
	case Gzip:
		return gzipEncoder(w, level)
	case Snappy:
		e, ok := snappyEncoders.Get().(*snappyWriter)
		if !ok {
			e = new(snappyWriter)
		}
		e.reset(w)
		return encoder{e, &snappyEncoders}, nil
	case LZ4:
		return lz4Encoder(w, level)
	case Zstd:
		return zstdEncoder(w, level)
	default:
		return encoder{}, fmt.Errorf("%w: it is %d", ErrCodec, c)
	}
}

// appendCompressed compresses src and appends it to dst.
func appendCompressed(dst, src []byte, c Codec, level int) ([]byte, error) {
	out := &cappedBuffer{b: dst}
	e, err := newEncoder(out, c, level)
	if err != nil {
		return dst, err
	}
	_, err = e.Write(src)
	err = errors.Join(err, e.Close())
	e.release()
	return out.b, err
}

// Upper bounds of the memory of encoders (TestEncoderMemory).
const (
	plainEncoderMemory  = 0
	gzipEncoderMemory   = 1536 << 10
	snappyEncoderMemory = 160 << 10
	lz4EncoderMemory    = 512 << 10
)

// encoderMemory is how many bytes an encoder takes at most, without its output.
func encoderMemory(c Codec, level int) int64 {
	switch c {
	case Gzip:
		return gzipEncoderMemory
	case Snappy:
		return snappyEncoderMemory
	case LZ4:
		return lz4EncoderMemory
	case Zstd:
		return [...]int64{
			zstd.SpeedFastest: 2 << 20, zstd.SpeedDefault: 4 << 20,
			zstd.SpeedBetterCompression: 8 << 20, zstd.SpeedBestCompression: 38 << 20,
		}[zstdLevel(level)]
	default:
		return plainEncoderMemory
	}
}

// fittingLevel lowers a level until the encoder leaves room for a decoder in the
// budget, so that a small node compresses less rather than not at all. Only the levels
// of zstd differ that much in memory.
func fittingLevel(work *budget.Budget, c Codec, level int) int {
	if c != Zstd {
		return level
	}
	most := work.Most(budget.Codec) / 4 * 3
	for _, lower := range []int{9, 5, 1} { // the highest level of each of the library's encoders
		if encoderMemory(c, level) <= most {
			break
		}
		level = min(lower, level)
	}
	return level
}

// plainWriter is the encoder of records that are not compressed.
type plainWriter struct{ io.Writer }

// Close does nothing.
func (plainWriter) Close() error { return nil }

func gzipEncoder(to io.Writer, level int) (encoder, error) {
	if level < minGzipLevel || level > maxGzipLevel {
		level = 0
	}
	pool := &gzipEncoders[level]
	w, ok := pool.Get().(*gzip.Writer)
	if !ok {
		l := level
		if l == 0 {
			l = gzip.DefaultCompression
		}
		var err error
		if w, err = gzip.NewWriterLevel(nil, l); err != nil {
			return encoder{}, err
		}
	}
	w.Reset(to)
	return encoder{w, pool}, nil
}

// lz4Encoder makes an encoder that writes one frame as Kafka's own producers do
// (KIP-57), with independent blocks of 64 KiB and without checksums.
func lz4Encoder(to io.Writer, level int) (encoder, error) {
	w, ok := lz4Encoders.Get().(*lz4.Writer)
	if !ok {
		w = lz4.NewWriter(nil)
	}
	w.Reset(to)
	err := w.Apply(lz4.BlockSizeOption(lz4.Block64Kb), lz4.ChecksumOption(false), lz4.CompressionLevelOption(lz4Level(level)))
	return encoder{w, &lz4Encoders}, err
}

// lz4Level is the library's level for one of Kafka's. As in Kafka, 9 is the default and
// means the fast compressor, while all other levels mean the thorough one.
func lz4Level(level int) lz4.CompressionLevel {
	levels := [...]lz4.CompressionLevel{
		lz4.Level1, lz4.Level2, lz4.Level3, lz4.Level4, lz4.Level5, lz4.Level6, lz4.Level7, lz4.Level8, lz4.Level9,
	}
	if level <= 0 || level == defLZ4Level || level > maxLZ4Level {
		return lz4.Fast
	}
	return levels[min(level, len(levels))-1]
}

// zstdWindow is the window of zstd encoders, which a consumer must keep to decompress.
const zstdWindow = 1 << 20

// zstdLevel is the library's level for one of Kafka's.
func zstdLevel(level int) zstd.EncoderLevel {
	if level == 0 || level < minZstdLevel || level > maxZstdLevel {
		level = defZstdLevel
	}
	return zstd.EncoderLevelFromZstd(level)
}

func zstdEncoder(to io.Writer, level int) (encoder, error) {
	l := zstdLevel(level)
	e, ok := zstdEncoders[l].Get().(*zstd.Encoder)
	if !ok {
		var err error
		e, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(l), zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true),
			zstd.WithEncoderCRC(false), zstd.WithWindowSize(zstdWindow), zstd.WithZeroFrames(true))
		if err != nil {
			return encoder{}, err
		}
	}
	e.Reset(to)
	return encoder{e, &zstdEncoders[l]}, nil
}

// Kafka's Java clients and brokers send snappy in the framing of the xerial library: a
// header of 16 bytes, then blocks, each with its length in front. librdkafka and others
// send one bare block. All of them read both.
const (
	xerialHeaderLen = 16
	xerialBlock     = 32 << 10
)

var xerialHeader = [xerialHeaderLen]byte{0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1}

// snappyWriter writes the framing of the xerial library.
type snappyWriter struct {
	w      io.Writer
	block  []byte // the next block, not compressed yet
	packed []byte // the header, until it is written, and room to compress a block
}

func (s *snappyWriter) reset(w io.Writer) {
	s.w, s.block, s.packed = w, s.block[:0], append(s.packed[:0], xerialHeader[:]...)
}

// Write compresses whole blocks and keeps the rest.
func (s *snappyWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		k := min(len(p), xerialBlock-len(s.block))
		s.block = append(s.block, p[:k]...)
		p = p[k:]
		if len(s.block) == xerialBlock {
			if err := s.flushBlock(); err != nil {
				return 0, err
			}
		}
	}
	return n, nil
}

// Close writes the last block, or only the header if nothing was written.
func (s *snappyWriter) Close() error {
	err := s.flushBlock()
	s.w = nil
	return err
}

// flushBlock compresses and writes the block. The header goes before the first one.
func (s *snappyWriter) flushBlock() error {
	if len(s.block) > 0 {
		at := len(s.packed)
		s.packed = slices.Grow(s.packed, 4+s2.MaxEncodedLen(xerialBlock))
		n := len(s2.EncodeSnappy(s.packed[at+4:cap(s.packed)], s.block))
		s.packed = s.packed[:at+4+n]
		be.PutUint32(s.packed[at:], uint32(n))
	}
	_, err := s.w.Write(s.packed)
	s.block, s.packed = s.block[:0], s.packed[:0]
	return err
}
