package record

import (
	"bytes"
	"fmt"
	"strconv"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
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

// codecNames are Kafka's, as in compression.type.
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

// ParseCodec finds a codec by Kafka's name; "uncompressed" is what a topic's
// compression.type calls none.
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

// The bounds of the levels, as compression.{gzip,lz4,zstd}.level have them. 0
// always stands for the codec's default.
const (
	minGzipLevel, maxGzipLevel = 1, 9
	maxLZ4Level, defLZ4Level   = 17, 9
	minZstdLevel, maxZstdLevel = -131072, 22
	defZstdLevel               = 3
)

// Compressors are kept for the next batch. They hold no goroutine, so the garbage
// collector may drop them.
var (
	gzipWriters  [maxGzipLevel + 1]sync.Pool // by level; 0 is the default
	lz4Writers   sync.Pool
	zstdEncoders [zstd.SpeedBestCompression + 1]sync.Pool // by the library's level
)

// compress appends src, compressed, to dst.
func compress(dst, src []byte, c Codec, level int) ([]byte, error) {
	switch c {
	case None:
		return append(dst, src...), nil
	case Gzip:
		return compressGzip(dst, src, level)
	case Snappy:
		return compressSnappy(dst, src), nil
	case LZ4:
		return compressLZ4(dst, src, level)
	case Zstd:
		return compressZstd(dst, src, level)
	default:
		return dst, fmt.Errorf("%w: it is %d", ErrCodec, c)
	}
}

func compressGzip(dst, src []byte, level int) ([]byte, error) {
	if level < minGzipLevel || level > maxGzipLevel {
		level = 0
	}
	w, ok := gzipWriters[level].Get().(*gzip.Writer)
	if !ok {
		l := level
		if l == 0 {
			l = gzip.DefaultCompression
		}
		var err error
		if w, err = gzip.NewWriterLevel(nil, l); err != nil {
			return dst, err
		}
	}
	defer gzipWriters[level].Put(w)
	out := bytes.NewBuffer(dst)
	w.Reset(out)
	if _, err := w.Write(src); err != nil {
		return dst, err
	}
	if err := w.Close(); err != nil {
		return dst, err
	}
	return out.Bytes(), nil
}

// compressLZ4 writes one frame as Kafka's own producers do (KIP-57): independent
// blocks of 64 KiB, no checksums.
func compressLZ4(dst, src []byte, level int) ([]byte, error) {
	w, ok := lz4Writers.Get().(*lz4.Writer)
	if !ok {
		w = lz4.NewWriter(nil)
	}
	defer lz4Writers.Put(w)
	out := bytes.NewBuffer(dst)
	w.Reset(out)
	err := w.Apply(lz4.BlockSizeOption(lz4.Block64Kb), lz4.ChecksumOption(false), lz4.CompressionLevelOption(lz4Level(level)))
	if err != nil {
		return dst, err
	}
	if _, err := w.Write(src); err != nil {
		return dst, err
	}
	if err := w.Close(); err != nil {
		return dst, err
	}
	return out.Bytes(), nil
}

// lz4Level maps Kafka's levels, of which 9, the default, stands for the fast
// compressor and all others for the thorough one.
func lz4Level(level int) lz4.CompressionLevel {
	levels := [...]lz4.CompressionLevel{
		lz4.Level1, lz4.Level2, lz4.Level3, lz4.Level4, lz4.Level5, lz4.Level6, lz4.Level7, lz4.Level8, lz4.Level9,
	}
	if level <= 0 || level == defLZ4Level || level > maxLZ4Level {
		return lz4.Fast
	}
	return levels[min(level, len(levels))-1]
}

// zstdWindow bounds what a consumer must keep to decompress.
const zstdWindow = 1 << 20

func compressZstd(dst, src []byte, level int) ([]byte, error) {
	if level == 0 || level < minZstdLevel || level > maxZstdLevel {
		level = defZstdLevel
	}
	l := zstd.EncoderLevelFromZstd(level)
	e, ok := zstdEncoders[l].Get().(*zstd.Encoder)
	if !ok {
		var err error
		e, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(l), zstd.WithEncoderConcurrency(1),
			zstd.WithEncoderCRC(false), zstd.WithWindowSize(zstdWindow), zstd.WithZeroFrames(true))
		if err != nil {
			return dst, err
		}
	}
	defer zstdEncoders[l].Put(e)
	return e.EncodeAll(src, dst), nil
}

// The framing of the xerial library, in which Kafka's Java clients and brokers
// send snappy: a header of 16 bytes, then blocks, each with its length in front.
// librdkafka and others send one bare block; everybody reads both.
const (
	xerialHeaderLen = 16
	xerialBlock     = 32 << 10
)

var xerialHeader = [xerialHeaderLen]byte{0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1}

func compressSnappy(dst, src []byte) []byte {
	dst = append(dst, xerialHeader[:]...)
	for len(src) > 0 {
		block := src[:min(len(src), xerialBlock)]
		src = src[len(block):]
		at := len(dst)
		need := 4 + s2.MaxEncodedLen(len(block))
		dst = append(dst, make([]byte, need)...)
		n := len(s2.EncodeSnappy(dst[at+4:], block))
		be.PutUint32(dst[at:], uint32(n))
		dst = dst[:at+4+n]
	}
	return dst
}
