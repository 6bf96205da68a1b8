package record

import (
	"context"

	"github.com/leatstream/leat/internal/budget"
)

// Stamp is a record's offset and timestamp.
type Stamp struct {
	Offset    Offset
	Timestamp int64 // ms
}

// FirstAt returns the first record of the batch with an offset of at least from and a
// timestamp of at least ms; ok is false if there is none. It reads no further than that
// record, and skips keys, values and headers, so that its memory does not depend on the
// size of the records. It may wait for memory and a processor of the budget. The errors
// are ErrInvalid, ErrTooLarge and the context's.
func (b Batch) FirstAt(ctx context.Context, work *budget.Budget, from Offset, ms int64) (at Stamp, ok bool, err error) {
	if err := b.checkSize(); err != nil {
		return Stamp{}, false, err
	}
	if b.TimestampType() == LogAppendTime { // the header has the time of all records
		return Stamp{max(from, b.BaseOffset()), b.MaxTimestamp()}, b.LastOffset() >= from && b.MaxTimestamp() >= ms, nil
	}
	if b.Codec() == None {
		return b.findInPlain(from, ms)
	}
	s, err := openStream(ctx, work, b, 0, 0)
	if err != nil {
		return Stamp{}, false, err
	}
	defer s.close()
	for i := range uint64(max(0, b.Count())) {
		size := s.readVarint()
		start := s.bytesRead()
		s.skipBytes(1)
		delta, offset := s.readVarint(), s.readVarint()
		rest := size - (s.bytesRead() - start)
		if s.err == nil && rest < 0 {
			s.setError(recordError(i, "it cannot be read"))
		}
		if s.err != nil {
			return Stamp{}, false, s.err
		}
		at = Stamp{b.BaseOffset() + Offset(offset), b.BaseTimestamp() + delta}
		if at.Offset >= from && at.Timestamp >= ms {
			return at, true, nil
		}
		s.skipBytes(rest)
	}
	return Stamp{}, false, nil
}

// findInPlain does the work of FirstAt for records that are not compressed.
func (b Batch) findInPlain(from Offset, ms int64) (at Stamp, ok bool, err error) {
	data, p := b.recordBytes(), 0
	for i := range uint64(max(0, b.Count())) {
		size, start := readVarint(data, p)
		delta, next := readVarint(data, start+1) // after the attributes
		offset, next := readVarint(data, next)
		if size < 0 || start > len(data) || size > int64(len(data)-start) || next > start+int(size) {
			return Stamp{}, false, recordError(i, "it cannot be read")
		}
		at = Stamp{b.BaseOffset() + Offset(offset), b.BaseTimestamp() + delta}
		if at.Offset >= from && at.Timestamp >= ms {
			return at, true, nil
		}
		p = start + int(size)
	}
	return Stamp{}, false, nil
}
