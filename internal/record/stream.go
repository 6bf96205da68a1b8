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

// MaxInflated bounds the decompressed records of every batch, whatever a topic allows.
// All readers have this bound, so that a batch that was appended can always be read. It
// is the length of Java's largest array, and therefore of the largest records that Kafka
// can read.
const MaxInflated = math.MaxInt32 - 8

// inflateLimit is the bound of one batch if its topic has the bound n; 0 means none.
func inflateLimit(n int64) int64 {
	if n <= 0 {
		return MaxInflated
	}
	return min(n, MaxInflated)
}

// errEnd is the error of a stream that has ended where another byte is needed.
var errEnd = fmt.Errorf("%w: its records end early", ErrInvalid)

// bytesPerTurn is how many bytes are decompressed before the processor passes to other
// work. It is less than a millisecond's work with the slowest codec.
const bytesPerTurn = 64 << 10

// smallLimit is how many decompressed bytes a batch has at most to be small: small
// batches do not wait for the memory of large ones.
const smallLimit = 1 << 20

// windowLen is how many decompressed bytes are in memory at a time.
const windowLen = 32 << 10

// stream reads the decompressed records of a batch through a window. After the first
// error everything that it reads is zero. From openStream to close the caller occupies a
// processor of the budget, so it must not wait for anything.
type stream struct {
	src    *inflater
	work   *budget.Budget
	memory budget.Reservation

	buf       [windowLen]byte
	p, n      int   // buf[p:n] is unread
	passed    int64 // bytes that have left the window
	left      int64 // how many more bytes may come, by the limit
	sincePass int   // bytes since the processor last passed to other work
	small     bool  // the plan said that the batch is small; if it is not, that is an error
	err       error
}

// streams are kept for the next batch.
var streams = sync.Pool{New: func() any { return new(stream) }} //nolint:gochecknoglobals // a pool

// openStream begins to decompress the records of b, limit bytes at most. It waits until
// the budget has memory and a processor for that; extra is memory that the caller needs
// beside the decoder's.
func openStream(ctx context.Context, work *budget.Budget, b Batch, limit, extra int64) (*stream, error) {
	p, err := makePlan(b.Codec(), b.recordBytes())
	if err != nil {
		return nil, wrapInflateError(b.Codec(), err)
	}
	reserve, small := work.Reserve, true
	if p.maxBytes > smallLimit {
		reserve, small = work.ReserveLarge, false
	}
	held, err := reserve(ctx, budget.Codec, p.memory+windowLen+extra)
	if errors.Is(err, budget.ErrTooLarge) {
		return nil, fmt.Errorf("%w to be decompressed: %w", ErrTooLarge, err)
	}
	if err != nil {
		return nil, err
	}
	work.Enter(budget.Codec)
	src, err := newInflater(b.Codec(), &p)
	if err != nil {
		work.Leave()
		held.Release()
		return nil, err
	}
	s, _ := streams.Get().(*stream)
	s.src, s.work, s.memory = src, work, held
	s.p, s.n, s.passed, s.left, s.sincePass, s.err, s.small = 0, 0, 0, inflateLimit(limit), 0, nil, small
	return s, nil
}

func (s *stream) close() {
	s.src.close()
	s.work.Leave()
	s.memory.Release()
	s.src, s.work = nil, nil
	streams.Put(s)
}

// bytesRead is the number of bytes that were read so far.
func (s *stream) bytesRead() int64 { return s.passed + int64(s.p) }

func (s *stream) setError(err error) {
	if s.err == nil {
		s.err = err
	}
	s.p, s.n = 0, 0
}

// maxEmptyReads bounds how often a decoder may return neither bytes nor an error.
const maxEmptyReads = 100

// fillWindow reads the next bytes into the empty window, and tells whether there are any.
func (s *stream) fillWindow() bool {
	if s.err != nil {
		return false
	}
	s.passed += int64(s.n)
	s.p, s.n = 0, 0
	if s.sincePass >= bytesPerTurn {
		s.sincePass = 0
		s.work.Pass(budget.Codec)
	}
	for range maxEmptyReads {
		n, err := s.src.Read(s.buf[:])
		s.left -= int64(n)
		s.sincePass += n
		switch {
		case s.small && s.passed+int64(n) > smallLimit:
			s.setError(fmt.Errorf("%w: its records are longer than they say", ErrInvalid))
			return false
		case s.left < 0:
			s.setError(fmt.Errorf("%w when it is decompressed", ErrTooLarge))
			return false
		case n > 0:
			s.n = n
			return true // the next read returns the error again
		case errors.Is(err, io.EOF):
			s.setError(errEnd)
			return false
		case err != nil:
			s.setError(err)
			return false
		}
	}
	s.setError(io.ErrNoProgress)
	return false
}

func (s *stream) readVarint() int64 {
	if s.p < s.n && s.buf[s.p] < 0x80 {
		v := s.buf[s.p]
		s.p++
		return int64(v>>1) ^ -int64(v&1)
	}
	var u uint64
	for shift := 0; shift < 64; shift += 7 {
		if s.p == s.n && !s.fillWindow() {
			return 0
		}
		c := s.buf[s.p]
		s.p++
		if shift == 63 && c > 1 {
			break
		}
		u |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return undoZigzag(u)
		}
	}
	s.setError(fmt.Errorf("%w: a number in its records is too long", ErrInvalid))
	return 0
}

// skipField skips a length and that many bytes, and returns the length.
func (s *stream) skipField() int64 {
	n := s.readVarint()
	if n > math.MaxInt32 {
		s.setError(errEnd)
		return 0
	}
	if n > 0 {
		s.skipBytes(n)
	}
	return n
}

func (s *stream) skipBytes(n int64) {
	for n > int64(s.n-s.p) {
		n -= int64(s.n - s.p)
		s.p = s.n
		if !s.fillWindow() {
			return
		}
	}
	s.p += int(n)
}

// skipHeaders skips the number of headers of record i, and the headers, of which each takes at least two of
// the record's size bytes.
func (s *stream) skipHeaders(i uint64, size int64) {
	headers := s.readVarint()
	if headers < 0 || headers > size/2 {
		s.setError(recordError(i, "its number of headers is wrong"))
	}
	for n := headers; n > 0 && s.err == nil; n-- {
		if s.skipField() < 0 || s.skipField() < -1 {
			s.setError(recordError(i, "a header's length is wrong"))
		}
	}
}

// checkEnd checks that all records were read: no bytes are left.
func (s *stream) checkEnd() error {
	if s.p < s.n || s.fillWindow() {
		return fmt.Errorf("%w: bytes follow its last record", ErrInvalid)
	}
	if errors.Is(s.err, errEnd) {
		return nil
	}
	return s.err
}

// copyTo appends n bytes to dst. It allocates memory for the bytes that come, not for n,
// which may be wrong.
func (s *stream) copyTo(dst []byte, n int64) []byte {
	for n > 0 {
		if s.p == s.n && !s.fillWindow() {
			return dst
		}
		k := int(min(n, int64(s.n-s.p)))
		dst = append(dst, s.buf[s.p:s.p+k]...)
		s.p += k
		n -= int64(k)
	}
	return dst
}

// writeTo writes all bytes that are left to w and returns the first error.
func (s *stream) writeTo(w io.Writer) error {
	for s.p < s.n || s.fillWindow() {
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
