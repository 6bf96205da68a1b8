package record

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/leatstream/leat/internal/budget"
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
	nullKeys         uint64
	bytes            int64 // of the records when they are decompressed

	rules *Rules         // where set, each record is judged
	bad   *RejectedError // and this lists the bad ones
}

// Found is what CheckRecords saw in the records.
type Found struct {
	MaxTimestamp int64 // the largest of the records' timestamps; NoTimestamp: none has one
	Bytes        int64 // of the records when they are decompressed
}

// CheckRecords judges the records of a batch that passed Check: the offset deltas
// count from 0, every length is inside its bounds, nothing follows the last one,
// timestamps lie within the rules' bounds, and there are keys where the topic
// needs them. Compressed records are decompressed in pieces, with memory and a
// processor of the budget, for which the call may wait. The errors are ErrInvalid,
// ErrTimestamp, ErrTooLarge, *RejectedError where some records are to blame, and the
// context's.
func (b Batch) CheckRecords(ctx context.Context, work *budget.Budget, r *Rules) (Found, error) {
	if b.TimestampType() == LogAppendTime && !r.Internal {
		return Found{}, fmt.Errorf("%w: producers should not set the timestamp type to LogAppendTime", ErrTimestamp)
	}
	w := newWalk(b)
	if err := w.run(ctx, work, b, r); err != nil {
		return Found{}, err
	}
	if w.within(r) {
		return w.found(), nil
	}
	// Somebody breaks the rules: walk again and note who. Records without a
	// timestamp may have made the first look too strict.
	w = newWalk(b)
	w.rules, w.bad = r, new(RejectedError)
	if err := w.run(ctx, work, b, r); err != nil {
		return Found{}, err
	}
	if w.bad.Total > 0 {
		return Found{}, w.bad
	}
	return w.found(), nil
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

func (w *walk) run(ctx context.Context, work *budget.Budget, b Batch, r *Rules) error {
	if b.Codec() == None {
		w.bytes = int64(len(b.payload()))
		return w.slice(b.payload())
	}
	s, err := openStream(ctx, work, b, r.MaxDecompressed, 0)
	if err != nil {
		return err
	}
	defer s.close()
	return w.stream(s)
}

func (w *walk) found() Found { return Found{MaxTimestamp: w.maxTime, Bytes: w.bytes} }

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
func (w *walk) note(i uint64, delta int64, hasKey bool) {
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

func badRecord(i uint64, what string) error {
	return fmt.Errorf("%w: record %d: %s", ErrInvalid, i, what)
}

// slice walks over uncompressed records. It compares in zigzag, where n is 2n and
// null is 1. A position of badPos or beyond the end makes every later read fail, so
// one check at the record's end covers them all; until then they may run into the
// next record.
func (w *walk) slice(b []byte) error {
	p, base, stamped, judging := 0, w.base, !w.logged, w.rules != nil
	minTime, maxTime, nullKeys := w.minTime, w.maxTime, uint64(0)
	for i := range uint64(w.count) {
		size, at := short(b, p)
		if size >= long {
			size, at = uvarint(b, at)
		}
		if size&1 != 0 || size>>1 > uint64(len(b)) || int(size>>1) > len(b)-at {
			return badRecord(i, "its length is wrong")
		}
		p = at + int(size>>1)
		delta, at := short(b, at+1) // after the attributes
		if delta >= long {
			delta, at = uvarint(b, at)
		}
		offset, at := short(b, at)
		if offset >= long {
			offset, at = uvarint(b, at)
		}
		key, at := short(b, at)
		if key >= long {
			key, at = uvarint(b, at)
		}
		value, at := short(b, skip(at, key))
		if value >= long {
			value, at = uvarint(b, at)
		}
		at = skip(at, value)
		if at+1 == p && b[at] == 0 {
			at++ // no headers
		} else {
			at = skipHeaders(b[:p], at)
		}
		if at != p {
			return badRecord(i, "its fields do not fill its length")
		}
		if offset != i<<1 {
			return badRecord(i, fmt.Sprintf("its offset delta is %d", unzigzag(offset)))
		}
		t := base
		if stamped {
			t += unzigzag(delta)
		}
		minTime, maxTime = min(minTime, t), max(maxTime, t)
		nullKeys += key & 1
		if judging {
			w.judge(int(i), t, key&1 == 0)
		}
	}
	w.minTime, w.maxTime, w.nullKeys = minTime, maxTime, nullKeys
	if p != len(b) {
		return fmt.Errorf("%w: bytes follow its last record", ErrInvalid)
	}
	return nil
}

// skip moves a position over a field whose length is zigzag: nothing where it is
// null, to badPos where it is below that or larger than anything can be.
func skip(p int, zigzag uint64) int {
	if zigzag&1 == 0 && zigzag <= 2*math.MaxInt32 {
		return p + int(zigzag>>1)
	}
	if zigzag == 1 {
		return p
	}
	return badPos
}

// skipHeaders moves over the number of headers at p and the headers; each takes two
// bytes at least.
func skipHeaders(rec []byte, p int) int {
	zigzag, p := uvarint(rec, p)
	if zigzag&1 != 0 || zigzag>>1 > uint64(len(rec))/2 {
		return badPos
	}
	var key, value uint64
	for range zigzag >> 1 {
		key, p = uvarint(rec, p)
		value, p = uvarint(rec, skip(p, key))
		p = skip(p, value)
		if key&1 != 0 || p > len(rec) {
			return badPos
		}
	}
	return p
}

// stream walks over compressed records with the same verdicts as slice.
func (w *walk) stream(s *stream) error {
	for i := range uint64(w.count) {
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
		if offset != int64(i) {
			return badRecord(i, fmt.Sprintf("its offset delta is %d", offset))
		}
		w.note(i, delta, key >= 0)
	}
	w.bytes = s.read()
	if s.p < s.n || s.fill() {
		return fmt.Errorf("%w: bytes follow its last record", ErrInvalid)
	}
	if errors.Is(s.err, errEnd) {
		return nil
	}
	return s.err
}
