package record

import (
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
)

// minRecordLen is the length of the least record: seven fields of one byte.
const minRecordLen = 7

// walk goes over the records of a batch and takes down what the rules need. It
// reads lengths and skips what they span, so that its cost hardly depends on the
// size of the records.
type walk struct {
	count  int64 // of records that the header announces
	base   int64 // timestamp
	logged bool  // the header's time holds for all records

	minTime, maxTime int64
	nullKeys         int

	rules *Rules        // where set, each record is judged
	bad   *RecordsError // and this lists the bad ones
}

// Found is what CheckRecords saw in the records.
type Found struct {
	MaxTimestamp int64 // the largest of the records' timestamps; NoTimestamp: none has one
}

// CheckRecords judges the records of a batch that passed Check: the offset deltas
// count from 0, every length is inside its bounds, nothing follows the last one,
// timestamps lie within the rules' bounds, and there are keys where the topic
// needs them. Compressed records are decompressed in pieces. The errors are
// ErrInvalid, ErrTimestamp, ErrTooLarge, and *RecordsError where some records are
// to blame.
func (b Batch) CheckRecords(r *Rules) (Found, error) {
	if b.TimestampType() == LogAppendTime && !r.Internal {
		return Found{}, fmt.Errorf("%w: producers should not set the timestamp type to LogAppendTime", ErrTimestamp)
	}
	w := newWalk(b)
	if err := w.run(b, r); err != nil {
		return Found{}, err
	}
	if w.within(r) {
		return Found{MaxTimestamp: w.maxTime}, nil
	}
	// Somebody breaks the rules: walk again and note who. Records without a
	// timestamp may have made the first look too strict.
	w = newWalk(b)
	w.rules, w.bad = r, new(RecordsError)
	if err := w.run(b, r); err != nil {
		return Found{}, err
	}
	if w.bad.Total > 0 {
		return Found{}, w.bad
	}
	return Found{MaxTimestamp: w.maxTime}, nil
}

func newWalk(b Batch) walk {
	w := walk{
		count: int64(b.Count()), base: b.BaseTimestamp(), logged: b.TimestampType() == LogAppendTime,
		minTime: math.MaxInt64, maxTime: NoTimestamp,
	}
	if w.logged {
		w.base = b.MaxTimestamp()
	}
	return w
}

func (w *walk) run(b Batch, r *Rules) error {
	if b.Codec() == None {
		return w.slice(b.payload())
	}
	s, err := openStream(b, r.MaxDecompressed)
	if err != nil {
		return err
	}
	defer s.close()
	return w.stream(s)
}

// within tells whether all records keep the rules for sure.
func (w *walk) within(r *Rules) bool {
	if r.NeedKey && w.nullKeys > 0 {
		return false
	}
	lo, hi := r.bounds()
	return r.TimestampType == LogAppendTime || w.minTime >= lo && w.maxTime <= hi
}

// bounds are the earliest and the latest timestamp allowed.
func (r *Rules) bounds() (lo, hi int64) {
	lo, hi = math.MinInt64, math.MaxInt64
	if r.Before >= 0 && r.Now >= math.MinInt64+r.Before {
		lo = r.Now - r.Before
	}
	if r.After >= 0 && r.Now <= math.MaxInt64-r.After {
		hi = r.Now + r.After
	}
	return lo, hi
}

// note takes down one record.
func (w *walk) note(i int64, delta int64, hasKey bool) {
	t := w.base
	if !w.logged {
		t += delta
	}
	w.minTime, w.maxTime = min(w.minTime, t), max(w.maxTime, t)
	if !hasKey {
		w.nullKeys++
	}
	if w.rules != nil {
		w.judge(int(i), t, hasKey)
	}
}

func (w *walk) judge(i int, t int64, hasKey bool) {
	lo, hi := w.rules.bounds()
	switch {
	case w.rules.NeedKey && !hasKey:
		if w.bad.Kind == nil {
			w.bad.Kind = ErrInvalid
		}
		w.bad.add(i, "Compacted topic cannot accept message without key")
	case w.rules.TimestampType == CreateTime && t != NoTimestamp && (t < lo || t > hi):
		w.bad.Kind = ErrTimestamp
		w.bad.add(i, fmt.Sprintf("Timestamp %d of message with offset %d is out of range. "+
			"The timestamp should be within [%d, %d]", t, i, lo, hi))
	}
}

func badRecord(i int64, what string) error {
	return fmt.Errorf("%w: record %d: %s", ErrInvalid, i, what)
}

// slice walks over uncompressed records. A position of badPos or beyond the end
// makes every later read fail, so one check at the record's end covers them all.
func (w *walk) slice(b []byte) error {
	p := 0
	for i := range w.count {
		size, at := varint(b, p)
		if size < minRecordLen-1 || size > int64(len(b)-at) {
			return badRecord(i, "its length is wrong")
		}
		end := at + int(size)
		rec := b[:end]
		delta, at := varint(rec, at+1)
		offset, at := varint(rec, at)
		key, at := varint(rec, at)
		if key > 0 {
			at = skip(at, key)
		}
		value, at := varint(rec, at)
		if value > 0 {
			at = skip(at, value)
		}
		headers, at := varint(rec, at)
		if headers != 0 {
			at = skipHeaders(rec, at, headers)
		}
		if at != end || key < -1 || value < -1 {
			return badRecord(i, "its fields do not fill its length")
		}
		if offset != i {
			return badRecord(i, fmt.Sprintf("its offset delta is %d", offset))
		}
		w.note(i, delta, key >= 0)
		p = end
	}
	if p != len(b) {
		return fmt.Errorf("%w: bytes follow its last record", ErrInvalid)
	}
	return nil
}

// skip moves a position over n bytes, which may be any number.
func skip(p int, n int64) int {
	if n > math.MaxInt32 || p >= badPos {
		return badPos
	}
	return p + int(n)
}

// skipHeaders moves over n headers; each takes two bytes at least.
func skipHeaders(rec []byte, p int, n int64) int {
	if n < 0 || n > int64(len(rec))/2 {
		return badPos
	}
	for range n {
		var key, value int64
		key, p = varint(rec, p)
		if key < 0 {
			return badPos
		}
		value, p = varint(rec, skip(p, key))
		if value < -1 {
			return badPos
		}
		p = skip(p, max(value, 0))
		if p > len(rec) {
			return badPos
		}
	}
	return p
}

// stream walks over compressed records with the same verdicts as slice.
func (w *walk) stream(s *stream) error {
	for i := range w.count {
		size := s.varint()
		start := s.read()
		s.skip(1)
		delta, offset := s.varint(), s.varint()
		key := s.bytes()
		value := s.bytes()
		headers := s.varint()
		if headers < 0 || headers > size/2 {
			s.fail(badRecord(i, "its number of headers is wrong"))
		}
		for n := headers; n > 0 && s.err == nil; n-- {
			if s.bytes() < 0 || s.bytes() < -1 {
				s.fail(badRecord(i, "a header's length is wrong"))
			}
		}
		if s.err != nil {
			return s.err
		}
		if s.read()-start != size || key < -1 || value < -1 {
			return badRecord(i, "its fields do not fill its length")
		}
		if offset != i {
			return badRecord(i, fmt.Sprintf("its offset delta is %d", offset))
		}
		w.note(i, delta, key >= 0)
	}
	if s.p < s.n || s.fill() {
		return fmt.Errorf("%w: bytes follow its last record", ErrInvalid)
	}
	if errors.Is(s.err, errEnd) {
		return nil
	}
	return s.err
}

// errEnd stands for the end of a stream, where another byte is wanted.
var errEnd = fmt.Errorf("%w: its records end early", ErrInvalid)

// stream is a window on the decompressed records of a batch. After the first
// error all that it reads is zero.
type stream struct {
	src  *inflater
	buf  [32 << 10]byte
	p, n int   // buf[p:n] is unread
	past int64 // bytes that left the window
	left int64 // bytes that may still come
	err  error
}

// streams are windows kept for the next batch.
var streams = sync.Pool{New: func() any { return new(stream) }}

func openStream(b Batch, limit int64) (*stream, error) {
	src, err := inflate(b.Codec(), b.payload(), limit)
	if err != nil {
		return nil, err
	}
	if limit <= 0 {
		limit = math.MaxInt64
	}
	s, _ := streams.Get().(*stream)
	s.src, s.p, s.n, s.past, s.left, s.err = src, 0, 0, 0, limit, nil
	return s, nil
}

func (s *stream) close() {
	s.src.close()
	s.src = nil
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
	for range maxEmptyReads {
		n, err := s.src.Read(s.buf[:])
		s.left -= int64(n)
		switch {
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
