package record

import (
	"context"
	"errors"
	"fmt"

	"github.com/leatstream/leat/internal/budget"
)

// Target is how Recompress encodes a batch.
type Target struct {
	Codec    Codec
	Level    int   // of the codec, as compression.*.level; 0: its default
	MaxBytes int   // of the batch when it is encoded; 0: no bound
	Records  int64 // bytes of its records when they are decompressed, as CheckRecords found; 0: not known
}

// Memory is the most that the encoded batch takes: what a caller reserves before
// Recompress, for as long as it keeps the batch.
func (t *Target) Memory() int64 {
	n := t.Records
	if t.Codec != None {
		n += n/128 + 4<<10 // data that do not compress grow by less than this
	}
	if n += HeaderLen; t.MaxBytes > 0 {
		n = min(n, int64(t.MaxBytes))
	}
	return n
}

// Recompress encodes the records of b with another codec. Everything else in the
// batch stays. A batch that has the codec already is returned as it is. The records
// stream from the decoder into the encoder, with memory and a processor of the
// budget, for which the call may wait; only the encoded batch is held whole, and not
// beyond the target's bound. The errors are ErrCorrupt, ErrInvalid, ErrTooLarge and
// the context's.
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
	out := &encoded{max: to.MaxBytes}
	if to.Records > 0 {
		out.b = make([]byte, 0, to.Memory())
	}
	out.b = append(out.b, b[:HeaderLen]...)
	e, err := newEncoder(out, to.Codec, level)
	if err != nil {
		return nil, err
	}
	err = errors.Join(s.writeTo(e), e.Close())
	e.free()
	if out.full {
		return nil, fmt.Errorf("%w: it has more than %d bytes when it is encoded as %s", ErrTooLarge, to.MaxBytes, to.Codec)
	}
	if err != nil {
		return nil, err
	}
	again := Batch(out.b)
	again[atAttributes+1] = again[atAttributes+1]&^attrCodec | byte(to.Codec)
	return again.finish()
}

// encoded is the batch that an encoder writes.
type encoded struct {
	b    []byte
	max  int  // 0: no bound
	full bool // the bound was reached
}

// Write appends p, unless the batch would be too large.
func (o *encoded) Write(p []byte) (int, error) {
	if o.max > 0 && len(o.b)+len(p) > o.max {
		o.full = true
		return 0, ErrTooLarge
	}
	o.b = append(o.b, p...)
	return len(p), nil
}
