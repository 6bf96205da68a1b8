package replica

import (
	"fmt"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage"
)

// What follows makes a Partition a coord.Log: a coordinator appends for itself.

// AppendBatch appends one batch as the leader of the given epoch, as acks=all would.
// Whoever calls it owes Commit.
func (p *Partition) AppendBatch(b record.Batch, e record.Epoch) (next record.Offset, err error) {
	if err := p.EnoughInSync(); err != nil {
		return -1, err
	}
	items := []storage.Item{{Batch: b}}
	p.append(items, e)
	return items[0].Next, items[0].Err
}

// Commit makes durable what was appended to this and all other partitions of its Set.
func (p *Partition) Commit() { p.set.Commit() }

// Await calls fn(nil) once the high watermark has reached off, or fn(err) when this
// node stops leading before.
func (p *Partition) Await(off record.Offset, fn func(error)) {
	p.Wait(&Waiter{Owner: awaiting(fn), Acks: AcksAll}, off)
}

// awaiting is a function as a Completer.
type awaiting func(error)

// Complete calls the function.
func (f awaiting) Complete(_ int32, err error) { f(err) }

// ReadCommitted returns whole batches from the one that holds off on, below the
// high watermark, at most about maxBytes; none at the end.
func (p *Partition) ReadCommitted(off record.Offset, maxBytes int) ([]byte, error) {
	c, err := p.log.Read(off, p.HighWatermark(), maxBytes)
	if err != nil || c == nil {
		return nil, err
	}
	defer c.Release()
	b := make([]byte, c.Len())
	if n, err := c.ReadAt(b, 0); n < len(b) {
		return nil, fmt.Errorf("read committed batches from offset %d on: %w", off, err)
	}
	end := 0
	for len(b)-end >= record.HeaderLen {
		n := record.Batch(b[end:]).Size()
		if n < record.HeaderLen || n > len(b)-end {
			break // the last one may be cut short
		}
		end += n
	}
	return b[:end], nil
}
