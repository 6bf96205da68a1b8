package record

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/leatstream/leat/internal/budget"
)

// Rewrite says which records of a batch stay.
type Rewrite struct {
	Keep     func(i int) bool // whether record i of the batch stays
	Horizon  int64            // the delete horizon in ms that the new batch has; NoTimestamp: none
	MaxBytes int64            // bound of the new batch; 0: no bound
}

// AppendTo appends to dst a batch that has only some records of b. Offsets, leader
// epoch, producer, sequences, codec and the type of the timestamps stay, and so do the
// records' timestamps; the last offset stays even if its record goes. The base timestamp
// is the delete horizon, if there is one (KIP-534), or else the first record's timestamp;
// the largest timestamp is that of the records that stay. The records stream from the
// decoder into the encoder, with memory and a processor of the budget, for which the call
// may wait; only the new batch is in memory as a whole. The errors are ErrCorrupt,
// ErrInvalid, ErrTooLarge, ErrEmpty if no record stays, and the context's; dst is
// returned unchanged with them.
func (how *Rewrite) AppendTo(ctx context.Context, work *budget.Budget, dst []byte, b Batch) ([]byte, error) {
	if err := b.checkSize(); err != nil {
		return dst, err
	}
	level := fittingLevel(work, b.Codec(), 0)
	s, err := openStream(ctx, work, b, 0, encoderMemory(b.Codec(), level))
	if err != nil {
		return dst, err
	}
	defer s.close()
	at := len(dst)
	room := len(b)
	if how.MaxBytes > 0 {
		room = min(room, int(how.MaxBytes))
	}
	out := &cappedBuffer{b: append(slices.Grow(dst, room), b[:HeaderLen]...)}
	if how.MaxBytes > 0 {
		out.max = at + int(how.MaxBytes)
	}
	e, err := newEncoder(out, b.Codec(), level)
	if err != nil {
		return dst, err
	}
	w := rewriter{from: b, how: how, to: e, maxTime: NoTimestamp, base: how.Horizon, hasBase: how.Horizon != NoTimestamp}
	err = errors.Join(w.copyRecords(s), e.Close())
	e.release()
	if out.full {
		return dst, fmt.Errorf("%w: it has more than %d bytes when it is rewritten", ErrTooLarge, how.MaxBytes)
	}
	if err == nil && w.count == 0 {
		err = ErrEmpty
	}
	if err != nil {
		return dst, err
	}
	again := Batch(out.b[at:])
	again[atAttributes+1] &^= attrDeleteHorizon
	if how.Horizon != NoTimestamp {
		again[atAttributes+1] |= attrDeleteHorizon
	}
	be.PutUint64(again[atBaseTimestamp:], uint64(w.base))
	if b.TimestampType() == CreateTime {
		be.PutUint64(again[atMaxTimestamp:], uint64(w.maxTime))
	}
	be.PutUint32(again[atCount:], uint32(w.count))
	if _, err := again.writeLengthAndCRC(); err != nil {
		return dst, err
	}
	return out.b, nil
}

// rewriter copies records of a batch into another one.
type rewriter struct {
	from    Batch
	how     *Rewrite
	to      io.Writer
	base    int64 // the timestamp to which the new deltas are added, if hasBase is true
	hasBase bool
	maxTime int64
	count   int
	head    []byte // the next record, up to its offset delta
}

// copyRecords copies the records that stay. The bytes after a record's offset delta stay
// as they are.
func (w *rewriter) copyRecords(s *stream) error {
	for i := range max(0, int(w.from.Count())) {
		size := s.readVarint()
		start := s.bytesRead()
		s.skipBytes(1)
		delta, offset := s.readVarint(), s.readVarint()
		rest := size - (s.bytesRead() - start)
		if s.err == nil && rest < 0 {
			s.setError(recordError(uint64(i), "it cannot be read"))
		}
		if s.err != nil {
			return s.err
		}
		if !w.how.Keep(i) {
			s.skipBytes(rest)
			continue
		}
		if err := w.writeHead(w.from.BaseTimestamp()+delta, offset, rest); err != nil {
			return err
		}
		var err error
		s.passTo(rest, func(part []byte) {
			if err == nil {
				_, err = w.to.Write(part)
			}
		})
		if err != nil {
			return err
		}
	}
	if s.err != nil {
		return s.err
	}
	return s.checkEnd()
}

// writeHead writes a record's beginning, which rest bytes follow.
func (w *rewriter) writeHead(ms, offset, rest int64) error {
	if w.from.TimestampType() == LogAppendTime {
		ms = w.from.MaxTimestamp()
	}
	if !w.hasBase {
		w.base, w.hasBase = ms, true
	}
	w.maxTime = max(w.maxTime, ms)
	w.count++
	delta := ms - w.base
	w.head = appendVarint(w.head[:0], 1+int64(varintLen(delta)+varintLen(offset))+rest)
	w.head = append(w.head, 0) // attributes
	w.head = appendVarint(w.head, delta)
	w.head = appendVarint(w.head, offset)
	_, err := w.to.Write(w.head)
	return err
}

// AppendEmpty appends to dst a batch like b without records, as compaction leaves one for
// its offsets and its producer's last sequence. It is not compressed and has no delete
// horizon; its largest timestamp stays.
func AppendEmpty(dst []byte, b Batch) []byte {
	at := len(dst)
	dst = append(slices.Grow(dst, HeaderLen), b[:HeaderLen]...)
	empty := Batch(dst[at:])
	be.PutUint32(empty[atLength:], HeaderLen-prefixLen)
	empty[atAttributes+1] &^= attrCodec | attrDeleteHorizon
	noTimestamp := NoTimestamp
	be.PutUint64(empty[atBaseTimestamp:], uint64(noTimestamp))
	be.PutUint32(empty[atCount:], 0)
	empty.writeCRC()
	return dst
}
