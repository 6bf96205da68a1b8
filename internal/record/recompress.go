package record

import (
	"context"
	"errors"
	"fmt"

	"github.com/leatstream/leat/internal/budget"
)

// Target tells Recompress how to encode a batch.
type Target struct {
	Codec    Codec
	Level    int   // of the codec, as compression.*.level; 0 means its default
	MaxBytes int   // bound of the encoded batch; 0: no bound
	Records  int64 // bytes of the decompressed records, from CheckRecords; 0 if they are not known
}

// Memory is an upper bound of the encoded batch's size. The caller of Recompress
// reserves it, for as long as it keeps the batch.
func (t *Target) Memory() int64 {
	n := t.Records
	if t.Codec != None {
		n += n/128 + 4<<10 // data that cannot be compressed grow by less than this
	}
	if n += HeaderLen; t.MaxBytes > 0 {
		n = min(n, int64(t.MaxBytes))
	}
	return n
}

// Recompress encodes the records of b with another codec; everything else in the batch
// stays. A batch that has the codec is returned unchanged. The records stream from the
// decoder into the encoder, with memory and a processor of the budget, for which the
// call may wait. Only the encoded batch is in memory as a whole, and never more of it
// than the target's bound. The errors are ErrCorrupt, ErrInvalid, ErrTooLarge and the
// context's.
func (b Batch) Recompress(ctx context.Context, work *budget.Budget, to *Target) (Batch, error) {
	if err := b.checkSize(); err != nil {
		return nil, err
	}
	if b.Codec() == to.Codec {
		return b, nil
	}
	if !to.Codec.Known() {
		return nil, fmt.Errorf("%w: it is %d", ErrCodec, to.Codec)
	}
	level := fittingLevel(work, to.Codec, to.Level)
	s, err := openStream(ctx, work, b, to.Records, encoderMemory(to.Codec, level))
	if err != nil {
		return nil, err
	}
	defer s.close()
	out := &cappedBuffer{max: to.MaxBytes}
	if to.Records > 0 {
		out.b = make([]byte, 0, to.Memory())
	}
	out.b = append(out.b, b[:HeaderLen]...)
	e, err := newEncoder(out, to.Codec, level)
	if err != nil {
		return nil, err
	}
	err = errors.Join(s.writeTo(e), e.Close())
	e.release()
	if out.full {
		return nil, fmt.Errorf("%w: it has more than %d bytes when it is encoded as %s", ErrTooLarge, to.MaxBytes, to.Codec)
	}
	if err != nil {
		return nil, err
	}
	again := Batch(out.b)
	again[atAttributes+1] = again[atAttributes+1]&^attrCodec | byte(to.Codec)
	return again.writeLengthAndCRC()
}

// cappedBuffer is the batch that an encoder writes.
type cappedBuffer struct {
	b    []byte
	max  int  // 0: no bound
	full bool // the bound was reached
}

// Write appends p, unless the batch would be too large.
func (o *cappedBuffer) Write(p []byte) (int, error) {
	if o.max > 0 && len(o.b)+len(p) > o.max {
		o.full = true
		return 0, ErrTooLarge
	}
	o.b = append(o.b, p...)
	return len(p), nil
}
