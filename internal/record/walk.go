package record

import (
	"context"
	"fmt"
	"math"

	"github.com/leatstream/leat/internal/budget"
)

// minRecordLen is the length of the smallest record, which has seven fields of one byte.
const minRecordLen = 7

// walk goes through the records of a batch and collects the figures that the rules
// need. It reads lengths and skips keys and values, so that its cost hardly depends on
// the size of the records.
type walk struct {
	count    int64 // how many records the header announces
	base     int64 // the timestamp to which the records' deltas are added
	sameTime bool  // base is the timestamp of all records

	minTime, maxTime int64
	nullKeys         uint64
	bytes            int64 // of the decompressed records

	rules    *Rules         // each record is judged by them; nil on the first walk
	rejected *RejectedError // has the records that break the rules
}

// Found has the figures that CheckRecords has collected.
type Found struct {
	MaxTimestamp int64 // the largest timestamp of the records, or NoTimestamp if none has one
	Bytes        int64 // of the decompressed records
}

// CheckRecords checks the records of a batch that has passed Check: the offset deltas
// count from 0, every length is within its bounds, no bytes follow the last record, the
// timestamps lie within the rules' bounds, and every record has a key if the topic needs
// keys. Compressed records are decompressed piece by piece, with memory and a processor
// of the budget, for which the call may wait. The errors are ErrInvalid, ErrTimestamp,
// ErrTooLarge, the context's and, if certain records break the rules, *RejectedError.
func (b Batch) CheckRecords(ctx context.Context, work *budget.Budget, r *Rules) (Found, error) {
	if b.TimestampType() == LogAppendTime && !r.Internal {
		return Found{}, fmt.Errorf("%w: producers should not set the timestamp type to LogAppendTime", ErrTimestamp)
	}
	w := newWalk(b)
	if err := w.walkBatch(ctx, work, b, r); err != nil {
		return Found{}, err
	}
	if w.keepsRules(r) {
		return w.result(), nil
	}
	// Some record may break the rules. A second walk judges each of them, and does so
	// exactly: the first walk does not know which records have no timestamp.
	w = newWalk(b)
	w.rules, w.rejected = r, new(RejectedError)
	if err := w.walkBatch(ctx, work, b, r); err != nil {
		return Found{}, err
	}
	if w.rejected.Total > 0 {
		return Found{}, w.rejected
	}
	return w.result(), nil
}

func newWalk(b Batch) walk {
	w := walk{
		count: int64(b.Count()), base: b.BaseTimestamp(), sameTime: b.TimestampType() == LogAppendTime,
		minTime: math.MaxInt64, maxTime: NoTimestamp,
	}
	if w.sameTime {
		w.base = b.MaxTimestamp()
	}
	return w
}

func (w *walk) walkBatch(ctx context.Context, work *budget.Budget, b Batch, r *Rules) error {
	if b.Codec() == None {
		w.bytes = int64(len(b.recordBytes()))
		return w.walkPlain(b.recordBytes())
	}
	s, err := openStream(ctx, work, b, r.MaxDecompressed, 0)
	if err != nil {
		return err
	}
	defer s.close()
	return w.walkStream(s)
}

func (w *walk) result() Found { return Found{MaxTimestamp: w.maxTime, Bytes: w.bytes} }

// keepsRules tells whether all records keep the rules for certain.
func (w *walk) keepsRules(r *Rules) bool {
	if r.NeedKey && w.nullKeys > 0 {
		return false
	}
	lo, hi := r.timeBounds()
	return r.TimestampType == LogAppendTime || w.minTime >= lo && w.maxTime <= hi
}

// timeBounds are the earliest and the latest timestamp that the rules allow.
func (r *Rules) timeBounds() (lo, hi int64) {
	lo, hi = math.MinInt64, math.MaxInt64
	if r.Before >= 0 && r.Now >= math.MinInt64+r.Before {
		lo = r.Now - r.Before
	}
	if r.After >= 0 && r.Now <= math.MaxInt64-r.After {
		hi = r.Now + r.After
	}
	return lo, hi
}

// noteRecord adds one record to the figures.
func (w *walk) noteRecord(i uint64, delta int64, hasKey bool) {
	t := w.base
	if !w.sameTime {
		t += delta
	}
	w.minTime, w.maxTime = min(w.minTime, t), max(w.maxTime, t)
	if !hasKey {
		w.nullKeys++
	}
	if w.rules != nil {
		w.judgeRecord(int(i), t, hasKey)
	}
}

// judgeRecord lists a record that breaks the rules.
func (w *walk) judgeRecord(i int, t int64, hasKey bool) {
	lo, hi := w.rules.timeBounds()
	switch {
	case w.rules.NeedKey && !hasKey:
		if w.rejected.Kind == nil {
			w.rejected.Kind = ErrInvalid
		}
		w.rejected.addRecord(i, "Compacted topic cannot accept message without key")
	case w.rules.TimestampType == CreateTime && t != NoTimestamp && (t < lo || t > hi):
		w.rejected.Kind = ErrTimestamp
		w.rejected.addRecord(i, fmt.Sprintf("Timestamp %d of message with offset %d is out of range. "+
			"The timestamp should be within [%d, %d]", t, i, lo, hi))
	}
}

func recordError(i uint64, what string) error {
	return fmt.Errorf("%w: record %d: %s", ErrInvalid, i, what)
}

// walkPlain goes through records that are not compressed. It leaves numbers in zigzag,
// in which n is 2n and null is 1. A position beyond the end, such as badPos, makes every
// later read fail, so that one check at the end of a record is enough for all its
// fields; before that check they may reach into the next record.
func (w *walk) walkPlain(b []byte) error {
	p, base, stamped, judging := 0, w.base, !w.sameTime, w.rules != nil
	minTime, maxTime, nullKeys := w.minTime, w.maxTime, uint64(0)
	for i := range uint64(w.count) {
		size, at := readShort(b, p)
		if size >= notShort {
			size, at = readRaw(b, at)
		}
		if size&1 != 0 || size>>1 > uint64(len(b)) || int(size>>1) > len(b)-at {
			return recordError(i, "its length is wrong")
		}
		p = at + int(size>>1)
		delta, at := readShort(b, at+1) // after the attributes
		if delta >= notShort {
			delta, at = readRaw(b, at)
		}
		offset, at := readShort(b, at)
		if offset >= notShort {
			offset, at = readRaw(b, at)
		}
		key, at := readShort(b, at)
		if key >= notShort {
			key, at = readRaw(b, at)
		}
		value, at := readShort(b, skipField(at, key))
		if value >= notShort {
			value, at = readRaw(b, at)
		}
		at = skipField(at, value)
		if at+1 == p && b[at] == 0 {
			at++ // no headers
		} else {
			at = skipHeaders(b[:p], at)
		}
		if at != p {
			return recordError(i, "its fields do not fill its length")
		}
		if offset != i<<1 {
			return recordError(i, fmt.Sprintf("its offset delta is %d", undoZigzag(offset)))
		}
		t := base
		if stamped {
			t += undoZigzag(delta)
		}
		minTime, maxTime = min(minTime, t), max(maxTime, t)
		nullKeys += key & 1
		if judging {
			w.judgeRecord(int(i), t, key&1 == 0)
		}
	}
	w.minTime, w.maxTime, w.nullKeys = minTime, maxTime, nullKeys
	if p != len(b) {
		return fmt.Errorf("%w: bytes follow its last record", ErrInvalid)
	}
	return nil
}

// skipField returns the position after a field whose length is in zigzag. The length of
// null skips no bytes; a length that no field can have leads to badPos.
func skipField(p int, zigzag uint64) int {
	if zigzag&1 == 0 && zigzag <= 2*math.MaxInt32 {
		return p + int(zigzag>>1)
	}
	if zigzag == 1 {
		return p
	}
	return badPos
}

// skipHeaders skips the number of headers at p, and the headers, of which each takes at
// least two bytes. It returns the position after them, or badPos.
func skipHeaders(rec []byte, p int) int {
	zigzag, p := readRaw(rec, p)
	if zigzag&1 != 0 || zigzag>>1 > uint64(len(rec))/2 {
		return badPos
	}
	var key, value uint64
	for range zigzag >> 1 {
		key, p = readRaw(rec, p)
		value, p = readRaw(rec, skipField(p, key))
		p = skipField(p, value)
		if key&1 != 0 || p > len(rec) {
			return badPos
		}
	}
	return p
}

// walkStream goes through compressed records, with the same results as walkPlain.
func (w *walk) walkStream(s *stream) error {
	for i := range uint64(w.count) {
		size := s.readVarint()
		start := s.bytesRead()
		s.skipBytes(1)
		delta, offset := s.readVarint(), s.readVarint()
		key := s.skipField()
		value := s.skipField()
		s.skipHeaders(i, size)
		if s.err != nil {
			return s.err
		}
		if s.bytesRead()-start != size || key < -1 || value < -1 {
			return recordError(i, "its fields do not fill its length")
		}
		if offset != int64(i) {
			return recordError(i, fmt.Sprintf("its offset delta is %d", offset))
		}
		w.noteRecord(i, delta, key >= 0)
	}
	w.bytes = s.bytesRead()
	return s.checkEnd()
}
