package segment

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/vfs"
)

// batchesBuffer is how many bytes Batches read at a time, but for a batch that is longer.
const batchesBuffer = 1 << 20

// Batches reads all batches of a closed segment, or of a file that was one, as a whole, one after the other. It has the file for itself and
// leaves the page cache as it was, so that others are not disturbed. It does not verify checksums. It is for one
// goroutine.
type Batches struct {
	f        vfs.File
	pos, end int64 // of the next batch, and of the last one's end
	buf      []byte
	at       int64 // the position of buf's first byte
	n        int   // bytes in buf
	held     budget.Reservation
}

// OpenBatches begins to read a segment. buf is memory that it may use, and may be nil.
func OpenBatches(g *Segment, buf []byte) (*Batches, error) {
	size := g.Size()
	f, err := g.OpenApart()
	if err != nil {
		return nil, err
	}
	if cap(buf) < batchesBuffer {
		buf = make([]byte, batchesBuffer)
	}
	return &Batches{f: f, end: size, buf: buf[:cap(buf)]}, nil
}

// ReadBatches begins to read the first size bytes of a file, which Close closes.
func ReadBatches(f vfs.File, size int64) *Batches {
	return &Batches{f: f, end: size, buf: make([]byte, batchesBuffer)}
}

// Next returns the next batch, which is valid until the next call. A batch that is longer than the buffer has
// its memory, twice, from the budget, for which the call may wait. The error is io.EOF at the end, and ErrTorn if
// there is no whole batch.
func (r *Batches) Next(ctx context.Context, work *budget.Budget) (record.Batch, error) {
	r.held.Release()
	r.held = budget.Reservation{}
	left := r.end - r.pos
	if left == 0 {
		return nil, io.EOF
	}
	if left < record.HeaderLen {
		return nil, fmt.Errorf("%w at byte %d: %d bytes are left", ErrTorn, r.pos, left)
	}
	if err := r.fill(record.HeaderLen); err != nil {
		return nil, err
	}
	head := record.Batch(r.buf[r.pos-r.at:])
	size := int64(head.Size())
	if head.Magic() != record.Magic || size < record.HeaderLen || size > left {
		return nil, fmt.Errorf("%w at byte %d: its format is %d, and it says it has %d bytes of %d", ErrTorn, r.pos, head.Magic(), size, left)
	}
	if size > batchesBuffer {
		held, err := work.Reserve(ctx, budget.Batch, min(2*size, work.Most(budget.Batch)))
		if err != nil {
			return nil, err
		}
		r.held = held
	}
	if err := r.fill(int(size)); err != nil {
		return nil, err
	}
	at := r.pos - r.at
	r.pos += size
	return record.Batch(r.buf[at:][:size:size]), nil
}

// fill makes sure that the n bytes at pos are in the buffer.
func (r *Batches) fill(n int) error {
	if r.pos >= r.at && r.pos+int64(n) <= r.at+int64(r.n) {
		return nil
	}
	if len(r.buf) < n || len(r.buf) > batchesBuffer && n <= batchesBuffer {
		r.buf = make([]byte, max(n, batchesBuffer))
	}
	b := r.buf[:min(int64(len(r.buf)), r.end-r.pos)]
	got, err := vfs.ReadPassing(r.f, b, r.pos)
	r.at, r.n = r.pos, max(got, 0)
	if r.n >= n {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return fmt.Errorf("%w at byte %d: the file ends", ErrTorn, r.pos)
	}
	return err
}

// Close ends the reading, and returns the buffer.
func (r *Batches) Close() (buf []byte) {
	r.held.Release()
	_ = r.f.Close() // it was only read
	return r.buf
}
