package record

import (
	"context"
	"fmt"

	"github.com/leatstream/leat/internal/budget"
)

// Outline is a record without the bytes of its key, value and headers.
type Outline struct {
	Offset   Offset
	HasKey   bool  // the key is not null
	HasValue bool  // the value is not null: it is no tombstone
	Size     int64 // bytes of the record, decompressed, with the length in front
}

// KeyVisitor is told of the records of a batch by VisitKeys.
type KeyVisitor interface {
	// WriteKey gets the next bytes of the key of the record of which VisitRecord tells
	// afterwards. It is not called for a key that is null or empty, and may be called
	// several times for a key that is long. It must not keep the bytes.
	WriteKey(part []byte)
	// VisitRecord gets a record whose key is complete. It returns false to end the walk.
	VisitRecord(o Outline) bool
}

// VisitKeys tells v of all records of b, which need not be whole or valid. The
// offset deltas must rise and be within the last one, for compaction leaves gaps. Keys
// pass in pieces, and values and headers are skipped, so that the memory does not depend
// on the size of the records. It may wait for memory and a processor of the budget;
// v must not wait. The errors are ErrCorrupt, ErrMagic, ErrInvalid, ErrTooLarge, ErrCodec
// and the context's.
func VisitKeys(ctx context.Context, work *budget.Budget, b Batch, v KeyVisitor) error {
	if err := b.checkSize(); err != nil {
		return err
	}
	if b.Count() < 0 || b.LastOffsetDelta() < 0 {
		return fmt.Errorf("%w: it has %d records, and its last offset delta is %d", ErrInvalid, b.Count(), b.LastOffsetDelta())
	}
	if b.Count() == 0 { // compaction has emptied it
		if len(b) > HeaderLen {
			return fmt.Errorf("%w: it has %d bytes of records, and says that it has none", ErrInvalid, len(b)-HeaderLen)
		}
		return nil
	}
	if b.Codec() == None {
		return visitPlainKeys(b, v)
	}
	s, err := openStream(ctx, work, b, 0, 0)
	if err != nil {
		return err
	}
	defer s.close()
	return visitStreamKeys(s, b, v)
}

// visitPlainKeys is VisitKeys for records that are not compressed. A position beyond the
// end, such as badPos, makes all later reads fail, so that one check at the end of a
// record is enough for its fields.
func visitPlainKeys(b Batch, v KeyVisitor) error {
	data, p, before := b.recordBytes(), 0, int64(-1)
	for i := range uint64(b.Count()) {
		size, at := readVarint(data, p)
		if size < minRecordLen-1 || at > len(data) || size > int64(len(data)-at) {
			return recordError(i, "its length is wrong")
		}
		end := at + int(size)
		rec := data[:end]
		_, at = readVarint(rec, at+1) // after the attributes
		offset, at := readVarint(rec, at)
		keyLen, keyAt := readRaw(rec, at)
		valueLen, at := readRaw(rec, skipField(keyAt, keyLen))
		if skipHeaders(rec, skipField(at, valueLen)) != end {
			return recordError(i, "its fields do not fill its length")
		}
		if err := checkDelta(b, i, before, offset); err != nil {
			return err
		}
		before = offset
		if keyLen > 1 { // zigzag: 1 is null, 0 is empty
			v.WriteKey(rec[keyAt : keyAt+int(keyLen>>1)])
		}
		o := Outline{b.BaseOffset() + Offset(offset), keyLen&1 == 0, valueLen&1 == 0, int64(end - p)}
		p = end
		if !v.VisitRecord(o) {
			return nil
		}
	}
	if p != len(data) {
		return fmt.Errorf("%w: bytes follow its last record", ErrInvalid)
	}
	return nil
}

// visitStreamKeys is VisitKeys for records that are compressed.
func visitStreamKeys(s *stream, b Batch, v KeyVisitor) error {
	before := int64(-1)
	for i := range uint64(b.Count()) {
		size := s.readVarint()
		start := s.bytesRead()
		s.skipBytes(1)
		_, offset := s.readVarint(), s.readVarint()
		key := s.readVarint()
		if s.err == nil && key > 0 && key <= size {
			s.passTo(key, v.WriteKey)
		}
		value := s.skipField()
		s.skipHeaders(i, size)
		if s.err != nil {
			return s.err
		}
		if s.bytesRead()-start != size || key < -1 || key > size || value < -1 {
			return recordError(i, "its fields do not fill its length")
		}
		if err := checkDelta(b, i, before, offset); err != nil {
			return err
		}
		before = offset
		o := Outline{b.BaseOffset() + Offset(offset), key >= 0, value >= 0, size + int64(varintLen(size))}
		if !v.VisitRecord(o) {
			return nil
		}
	}
	return s.checkEnd()
}

// checkDelta checks the offset delta of record i, which follows the one of the record before.
func checkDelta(b Batch, i uint64, before, delta int64) error {
	if delta <= before || delta > int64(b.LastOffsetDelta()) {
		return recordError(i, fmt.Sprintf("its offset delta is %d, after %d and with %d as the last", delta, before, b.LastOffsetDelta()))
	}
	return nil
}

// passTo passes the next n bytes to a function, piece by piece.
func (s *stream) passTo(n int64, use func([]byte)) {
	for n > 0 {
		if s.p == s.n && !s.fillWindow() {
			return
		}
		k := int(min(n, int64(s.n-s.p)))
		use(s.buf[s.p : s.p+k])
		s.p += k
		n -= int64(k)
	}
}
