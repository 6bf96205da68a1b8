package record

import "context"

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
// Compressed records are decompressed as they are asked for, one at a time; those
// of a node's own batches, so that it draws on no budget. The zero value is ready
// for Reset; one Reader serves many batches.
type Reader struct {
	Record Record // the current one, valid until the next call

	batch  Batch
	data   []byte  // the records; where they are compressed, the current one
	p      int     // the next record's place in data
	stream *stream // nil: they are not compressed
	i, n   int64
	err    error
}

// Reset begins with the first record of b. Compressed records may be decompressed
// to limit bytes (0: MaxInflated); more is ErrTooLarge.
func (r *Reader) Reset(b Batch, limit int64) {
	headers, data := r.Record.Headers, r.data
	if r.stream == nil {
		data = nil // it is the last batch's own
	}
	r.Close()
	r.Record.Headers = headers
	if r.err = b.checkSize(); r.err != nil {
		return
	}
	r.batch, r.n, r.data = b, int64(b.Count()), b.payload()
	if b.Codec() == None {
		return
	}
	r.data = data[:0]
	r.stream, r.err = openStream(context.Background(), nil, b, limit, 0) //nolint:forbidigo // without a budget nothing waits
}

// Next moves to the next record. It returns false at the end and at the first
// fault, which Err tells.
func (r *Reader) Next() bool {
	if r.err != nil || r.i >= r.n {
		return false
	}
	if r.stream != nil {
		if r.err = r.load(); r.err != nil {
			return false
		}
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

// Close gives back what the Reader holds. It may be used again by Reset.
func (r *Reader) Close() {
	if r.stream != nil {
		r.stream.close()
	}
	*r = Reader{}
}

// load decompresses the next record into data.
func (r *Reader) load() error {
	s := r.stream
	size := s.varint()
	if s.err == nil && (size < 0 || size > s.left+int64(s.n)) {
		s.fail(badRecord(uint64(r.i), "its length is wrong"))
	}
	r.data = s.copyTo(appendVarint(r.data[:0], size), size)
	r.p = 0
	return s.err
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
