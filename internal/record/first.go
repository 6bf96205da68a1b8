package record

import (
	"context"

	"github.com/leatstream/leat/internal/budget"
)

// Stamp is a record's place and time.
type Stamp struct {
	Offset    Offset
	Timestamp int64 // ms
}

// FirstAt finds the first record of the batch that is at offset from or after it
// and has a timestamp of at least ms; ok is false where there is none. It reads
// only as far as that record, and of each record only what says where it begins,
// so that its memory does not depend on the records. It may wait for memory and a
// processor of the budget. The errors are ErrInvalid, ErrTooLarge and the context's.
func (b Batch) FirstAt(ctx context.Context, work *budget.Budget, from Offset, ms int64) (at Stamp, ok bool, err error) {
	if err := b.checkSize(); err != nil {
		return Stamp{}, false, err
	}
	if b.TimestampType() == LogAppendTime { // the header says it all
		return Stamp{max(from, b.BaseOffset()), b.MaxTimestamp()}, b.LastOffset() >= from && b.MaxTimestamp() >= ms, nil
	}
	if b.Codec() == None {
		return b.firstPlain(from, ms)
	}
	s, err := openStream(ctx, work, b, 0, 0)
	if err != nil {
		return Stamp{}, false, err
	}
	defer s.close()
	for i := range uint64(max(0, b.Count())) {
		size := s.varint()
		start := s.read()
		s.skip(1)
		delta, offset := s.varint(), s.varint()
		rest := size - (s.read() - start)
		if s.err == nil && rest < 0 {
			s.fail(badRecord(i, "it cannot be read"))
		}
		if s.err != nil {
			return Stamp{}, false, s.err
		}
		at = Stamp{b.BaseOffset() + Offset(offset), b.BaseTimestamp() + delta}
		if at.Offset >= from && at.Timestamp >= ms {
			return at, true, nil
		}
		s.skip(rest)
	}
	return Stamp{}, false, nil
}

// firstPlain is FirstAt for records that are not compressed.
func (b Batch) firstPlain(from Offset, ms int64) (at Stamp, ok bool, err error) {
	data, p := b.payload(), 0
	for i := range uint64(max(0, b.Count())) {
		size, start := varint(data, p)
		delta, next := varint(data, start+1) // after the attributes
		offset, next := varint(data, next)
		if size < 0 || start > len(data) || size > int64(len(data)-start) || next > start+int(size) {
			return Stamp{}, false, badRecord(i, "it cannot be read")
		}
		at = Stamp{b.BaseOffset() + Offset(offset), b.BaseTimestamp() + delta}
		if at.Offset >= from && at.Timestamp >= ms {
			return at, true, nil
		}
		p = start + int(size)
	}
	return Stamp{}, false, nil
}
