package record

import "context"

// Header is a header of a record.
type Header struct {
	Key   []byte
	Value []byte // nil if it is null
}

// Record is one record. Its slices refer to the bytes of the batch or, if the batch is
// compressed, to memory of the Reader.
type Record struct {
	Offset    Offset
	Timestamp int64  // ms
	Key       []byte // nil if it is null
	Value     []byte // nil if it is null
	Headers   []Header
}

// Reader iterates over the records of a batch, which need not be a valid one:
//
//	var r record.Reader
//	defer r.Close()
//	for r.Reset(b, limit); r.Next(); {
//		use(r.Record)
//	}
//	if err := r.Err(); err != nil { ... }
//
// Compressed records are decompressed one at a time. A Reader reserves no memory of a
// budget, since it is for a node's own batches. The zero value is ready for Reset; one
// Reader can read many batches, one after another.
type Reader struct {
	Record Record // the current one, valid until the next call

	batch  Batch
	data   []byte  // the bytes of all records or, if they are compressed, of the current one
	p      int     // the position of the next record in data
	stream *stream // decompresses the records; nil if they are not compressed
	i, n   int64   // the number of the next record, and of all records
	err    error
}

// Reset begins with the first record of b. limit bounds the bytes of the decompressed
// records, with 0 for MaxInflated; the error of more is ErrTooLarge.
func (r *Reader) Reset(b Batch, limit int64) {
	headers, data := r.Record.Headers, r.data
	if r.stream == nil {
		data = nil // it is a part of the last batch
	}
	r.Close()
	r.Record.Headers = headers
	if r.err = b.checkSize(); r.err != nil {
		return
	}
	r.batch, r.n, r.data = b, int64(b.Count()), b.recordBytes()
	if b.Codec() == None {
		return
	}
	r.data = data[:0]
	r.stream, r.err = openStream(context.Background(), nil, b, limit, 0) //nolint:forbidigo // without a budget nothing waits
}

// Next moves to the next record. It returns false at the end and after an error, which
// Err returns.
func (r *Reader) Next() bool {
	if r.err != nil || r.i >= r.n {
		return false
	}
	if r.stream != nil {
		if r.err = r.loadRecord(); r.err != nil {
			return false
		}
	}
	if p := r.parseRecord(); p != badPos {
		r.p = p
		r.i++
		return true
	}
	r.err = recordError(uint64(r.i), "it cannot be read")
	return false
}

// Err is the error that ended the iteration, or nil if all records were read.
func (r *Reader) Err() error { return r.err }

// Close gives back the Reader's memory. The Reader may be used again after Reset.
func (r *Reader) Close() {
	if r.stream != nil {
		r.stream.close()
	}
	*r = Reader{}
}

// loadRecord decompresses the next record into data.
func (r *Reader) loadRecord() error {
	s := r.stream
	size := s.readVarint()
	if s.err == nil && (size < 0 || size > s.left+int64(s.n)) {
		s.setError(recordError(uint64(r.i), "its length is wrong"))
	}
	r.data = s.copyTo(appendVarint(r.data[:0], size), size)
	r.p = 0
	return s.err
}

// parseRecord reads the record at p and returns the position after it, or badPos.
func (r *Reader) parseRecord() int {
	size, at := readVarint(r.data, r.p)
	if size < minRecordLen-1 || size > int64(len(r.data)-at) {
		return badPos
	}
	end := at + int(size)
	rec := r.data[:end]
	delta, at := readVarint(rec, at+1)
	offset, at := readVarint(rec, at)
	key, at := readField(rec, at)
	value, at := readField(rec, at)
	n, at := readVarint(rec, at)
	if n < 0 || n > int64(len(rec))/2 {
		return badPos
	}
	headers := r.Record.Headers[:0]
	for range n {
		var h Header
		h.Key, at = readField(rec, at)
		h.Value, at = readField(rec, at)
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

// readField reads a length and that many bytes. A length of -1 means nil.
func readField(b []byte, p int) ([]byte, int) {
	n, p := readVarint(b, p)
	if n == -1 {
		return nil, p
	}
	if n < 0 || p > len(b) || n > int64(len(b)-p) {
		return nil, badPos
	}
	end := p + int(n)
	return b[p:end:end], end
}
