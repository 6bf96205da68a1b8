package record

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"

	"github.com/leatstream/leat/internal/budget"
)

// MaxInflated bounds the records of any batch when they are decompressed, whatever
// a topic allows. All who decompress have this one bound, so that a batch that was
// let in can be read for as long as it is kept. It is the largest array of Java,
// and with it the most that Kafka can read.
const MaxInflated = math.MaxInt32 - 8

// inflateLimit is the bound of one batch where its topic has the bound n (0: none).
func inflateLimit(n int64) int64 {
	if n <= 0 {
		return MaxInflated
	}
	return min(n, MaxInflated)
}

// errEnd stands for the end of a stream, where another byte is wanted.
var errEnd = fmt.Errorf("%w: its records end early", ErrInvalid)

// passEvery is how many bytes are decompressed before others may have the
// processor: less than a millisecond's work with the slowest codec.
const passEvery = 64 << 10

// longFrom is how many bytes records decompress to for it to count as long: short
// work does not wait for the memory of long work.
const longFrom = 1 << 20

// windowLen is how many decompressed bytes are held at a time.
const windowLen = 32 << 10

// stream is a window on the decompressed records of a batch. After the first
// error all that it reads is zero. Between openStream and close its user has a
// processor and the memory of the decoder, and must not wait for anything.
type stream struct {
	src  *inflater
	work *budget.Budget
	held budget.Reservation

	buf   [windowLen]byte
	p, n  int   // buf[p:n] is unread
	past  int64 // bytes that left the window
	left  int64 // bytes that may still come
	stint int   // bytes decompressed since others had the processor
	short bool  // it was taken for short work
	err   error
}

// streams are windows kept for the next batch.
var streams = sync.Pool{New: func() any { return new(stream) }} //nolint:gochecknoglobals // a pool

// openStream begins to decompress the records of b, to at most limit bytes. It
// waits until there are memory and a processor for it; extra is memory that the
// user needs beside the decoder's.
func openStream(ctx context.Context, work *budget.Budget, b Batch, limit, extra int64) (*stream, error) {
	p, err := makePlan(b.Codec(), b.payload())
	if err != nil {
		return nil, wrapInflate(b.Codec(), err)
	}
	reserve, short := work.Reserve, true
	if p.most > longFrom {
		reserve, short = work.ReserveLarge, false
	}
	held, err := reserve(ctx, budget.Codec, p.memory+windowLen+extra)
	if errors.Is(err, budget.ErrTooLarge) {
		return nil, fmt.Errorf("%w to be decompressed: %w", ErrTooLarge, err)
	}
	if err != nil {
		return nil, err
	}
	work.Enter(budget.Codec)
	src, err := inflate(b.Codec(), &p)
	if err != nil {
		work.Leave()
		held.Release()
		return nil, err
	}
	s, _ := streams.Get().(*stream)
	s.src, s.work, s.held = src, work, held
	s.p, s.n, s.past, s.left, s.stint, s.err, s.short = 0, 0, 0, inflateLimit(limit), 0, nil, short
	return s, nil
}

func (s *stream) close() {
	s.src.close()
	s.work.Leave()
	s.held.Release()
	s.src, s.work = nil, nil
	streams.Put(s)
}

// read is the number of bytes read so far.
func (s *stream) read() int64 { return s.past + int64(s.p) }

func (s *stream) fail(err error) {
	if s.err == nil {
		s.err = err
	}
	s.p, s.n = 0, 0
}

// maxEmptyReads bounds how often a decompressor may give nothing and no error.
const maxEmptyReads = 100

// fill brings the next bytes into the empty window and tells whether there are any.
func (s *stream) fill() bool {
	if s.err != nil {
		return false
	}
	s.past += int64(s.n)
	s.p, s.n = 0, 0
	if s.stint >= passEvery {
		s.stint = 0
		s.work.Pass(budget.Codec)
	}
	for range maxEmptyReads {
		n, err := s.src.Read(s.buf[:])
		s.left -= int64(n)
		s.stint += n
		switch {
		case s.short && s.past+int64(n) > longFrom:
			s.fail(fmt.Errorf("%w: its records are longer than they say", ErrInvalid))
			return false
		case s.left < 0:
			s.fail(fmt.Errorf("%w when it is decompressed", ErrTooLarge))
			return false
		case n > 0:
			s.n = n
			return true // an error comes again with the next read
		case errors.Is(err, io.EOF):
			s.fail(errEnd)
			return false
		case err != nil:
			s.fail(err)
			return false
		}
	}
	s.fail(io.ErrNoProgress)
	return false
}

func (s *stream) varint() int64 {
	if s.p < s.n && s.buf[s.p] < 0x80 {
		v := s.buf[s.p]
		s.p++
		return int64(v>>1) ^ -int64(v&1)
	}
	var u uint64
	for shift := 0; shift < 64; shift += 7 {
		if s.p == s.n && !s.fill() {
			return 0
		}
		c := s.buf[s.p]
		s.p++
		if shift == 63 && c > 1 {
			break
		}
		u |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return unzigzag(u)
		}
	}
	s.fail(fmt.Errorf("%w: a number in its records is too long", ErrInvalid))
	return 0
}

// bytes moves over a length and that many bytes and returns the length.
func (s *stream) bytes() int64 {
	n := s.varint()
	if n > math.MaxInt32 {
		s.fail(errEnd)
		return 0
	}
	if n > 0 {
		s.skip(n)
	}
	return n
}

func (s *stream) skip(n int64) {
	for n > int64(s.n-s.p) {
		n -= int64(s.n - s.p)
		s.p = s.n
		if !s.fill() {
			return
		}
	}
	s.p += int(n)
}

// copyTo appends n bytes to dst, which grows with what comes, not with what is
// promised.
func (s *stream) copyTo(dst []byte, n int64) []byte {
	for n > 0 {
		if s.p == s.n && !s.fill() {
			return dst
		}
		k := int(min(n, int64(s.n-s.p)))
		dst = append(dst, s.buf[s.p:s.p+k]...)
		s.p += k
		n -= int64(k)
	}
	return dst
}

// writeTo writes everything that is left and returns the first error.
func (s *stream) writeTo(w io.Writer) error {
	for s.p < s.n || s.fill() {
		if _, err := w.Write(s.buf[s.p:s.n]); err != nil {
			return err
		}
		s.p = s.n
	}
	if errors.Is(s.err, errEnd) {
		return nil
	}
	return s.err
}
