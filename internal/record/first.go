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
	found := false
	err = walkStamps(ctx, work, b, func(s Stamp) bool {
		if found = s.Offset >= from && s.Timestamp >= ms; found {
			at = s
		}
		return found
	})
	if err != nil {
		return Stamp{}, false, err
	}
	return at, found, nil
}

// MaxTimeFrom is the largest timestamp of the batch's records from an offset on, in ms, or
// NoTimestamp if there is no such record, or none has one. It reads the batch once, with the
// memory and the errors of FirstAt.
func (b Batch) MaxTimeFrom(ctx context.Context, work *budget.Budget, from Offset) (ms int64, err error) {
	if err := b.checkSize(); err != nil {
		return NoTimestamp, err
	}
	if b.LastOffset() < from {
		return NoTimestamp, nil
	}
	if b.TimestampType() == LogAppendTime { // the header has the time of all records
		return b.MaxTimestamp(), nil
	}
	ms = NoTimestamp
	err = walkStamps(ctx, work, b, func(s Stamp) bool {
		if s.Offset >= from {
			ms = max(ms, s.Timestamp)
		}
		return false
	})
	return ms, err
}

// walkStamps calls visit for the records, from the first one on, until it returns true. It skips
// keys, values and headers.
func walkStamps(ctx context.Context, work *budget.Budget, b Batch, visit func(Stamp) (done bool)) error {
	if b.Codec() == None {
		return walkPlainStamps(b, visit)
	}
	s, err := openStream(ctx, work, b, 0, 0)
	if err != nil {
		return err
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
			return s.err
		}
		if visit(Stamp{b.BaseOffset() + Offset(offset), b.BaseTimestamp() + delta}) {
			return nil
		}
		s.skipBytes(rest)
	}
	return nil
}

// walkPlainStamps is walkStamps for records that are not compressed.
func walkPlainStamps(b Batch, visit func(Stamp) (done bool)) error {
	data, p := b.recordBytes(), 0
	for i := range uint64(max(0, b.Count())) {
		size, start := readVarint(data, p)
		delta, next := readVarint(data, start+1) // after the attributes
		offset, next := readVarint(data, next)
		if size < 0 || start > len(data) || size > int64(len(data)-start) || next > start+int(size) {
			return recordError(i, "it cannot be read")
		}
		if visit(Stamp{b.BaseOffset() + Offset(offset), b.BaseTimestamp() + delta}) {
			return nil
		}
		p = start + int(size)
	}
	return nil
}
