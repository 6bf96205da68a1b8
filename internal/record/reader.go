package record

import (
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
)

// Header is a record's header: a name and bytes of the application's own.
type Header struct {
	Key   []byte
	Value []byte // nil: null
}

// Record is one record. Its slices point into the batch, or into the Reader where
// the batch is compressed.
type Record struct {
	Offset    Offset
	Timestamp int64  // ms
	Key       []byte // nil: null
	Value     []byte // nil: null
	Headers   []Header
}

// Reader iterates over the records of a batch, which may hold anything:
//
//	var r record.Reader
//	defer r.Close()
//	for r.Reset(b, limit); r.Next(); {
//		use(r.Record)
//	}
//	if err := r.Err(); err != nil { ... }
//
// The zero value is ready for Reset; one Reader serves many batches.
type Reader struct {
	Record Record // the current one, valid until the next call

	batch  Batch
	data   []byte // the records, decompressed
	p      int
	i, n   int64
	pooled *[]byte // what data was decompressed into; nil: data is the batch's own
	err    error
}

// buffers are what batches are decompressed into; larger ones than keepBuffer are
// not kept.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// Reset begins with the first record of b. Compressed records are decompressed
// here, to at most limit bytes (0: no bound); more is ErrTooLarge.
func (r *Reader) Reset(b Batch, limit int64) {
	headers := r.Record.Headers
	r.Close()
	r.Record.Headers = headers
	if r.err = b.checkSize(); r.err != nil {
		return
	}
	r.batch, r.n, r.data = b, int64(b.Count()), b.payload()
	if b.Codec() == None {
		return
	}
	r.pooled, _ = buffers.Get().(*[]byte)
	*r.pooled, r.err = decompress((*r.pooled)[:0], b, limit)
	r.data = *r.pooled
	if r.err != nil {
		r.n = 0
	}
}

// Next moves to the next record. It returns false at the end and at the first
// fault, which Err tells.
func (r *Reader) Next() bool {
	if r.err != nil || r.i >= r.n {
		return false
	}
	if p := r.parse(); p != badPos {
		r.p = p
		r.i++
		return true
	}
	r.err = badRecord(uint64(r.i), "it cannot be read")
	return false
}

// Err is the fault that ended the iteration, nil where all records were read.
func (r *Reader) Err() error { return r.err }

// Close gives the Reader's buffer back. It may be used again by Reset.
func (r *Reader) Close() {
	if r.pooled != nil && cap(*r.pooled) <= keepBuffer {
		buffers.Put(r.pooled)
	}
	*r = Reader{}
}

// parse reads the record at p and returns the position after it, or badPos.
func (r *Reader) parse() int {
	size, at := varint(r.data, r.p)
	if size < minRecordLen-1 || size > int64(len(r.data)-at) {
		return badPos
	}
	end := at + int(size)
	rec := r.data[:end]
	delta, at := varint(rec, at+1)
	offset, at := varint(rec, at)
	key, at := field(rec, at)
	value, at := field(rec, at)
	n, at := varint(rec, at)
	if n < 0 || n > int64(len(rec))/2 {
		return badPos
	}
	headers := r.Record.Headers[:0]
	for range n {
		var h Header
		h.Key, at = field(rec, at)
		h.Value, at = field(rec, at)
		if at > end || h.Key == nil {
			return badPos
		}
		headers = append(headers, h)
	}
	if at != end {
		return badPos
	}
	t := r.batch.BaseTimestamp() + delta
	if r.batch.TimestampType() == LogAppendTime {
		t = r.batch.MaxTimestamp()
	}
	r.Record = Record{
		Offset: r.batch.BaseOffset() + Offset(offset), Timestamp: t,
		Key: key, Value: value, Headers: headers,
	}
	return end
}

// field reads a length and that many bytes; -1 makes nil.
func field(b []byte, p int) ([]byte, int) {
	n, p := varint(b, p)
	if n == -1 {
		return nil, p
	}
	if n < 0 || p > len(b) || n > int64(len(b)-p) {
		return nil, badPos
	}
	end := p + int(n)
	return b[p:end:end], end
}

// decompress appends the records of b, decompressed, to dst. The buffer grows with
// what comes, not with what is promised.
func decompress(dst []byte, b Batch, limit int64) ([]byte, error) {
	if limit <= 0 {
		limit = math.MaxInt64
	}
	src, err := inflate(b.Codec(), b.payload(), limit)
	if err != nil {
		return dst, err
	}
	defer src.close()
	start := len(dst)
	for empty := 0; empty < maxEmptyReads; empty++ {
		if len(dst) == cap(dst) {
			dst = append(dst, make([]byte, max(4<<10, len(dst)))...)[:len(dst)]
		}
		n, err := src.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
		switch {
		case int64(len(dst)-start) > limit:
			return dst, fmt.Errorf("%w when it is decompressed", ErrTooLarge)
		case errors.Is(err, io.EOF):
			return dst, nil
		case err != nil:
			return dst, err
		case n > 0:
			empty = 0
		}
	}
	return dst, io.ErrNoProgress
}
