package replica

import (
	"fmt"
	"time"

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
// node stops leading before, or when the limit has passed; 0: there is none.
func (p *Partition) Await(off record.Offset, limit time.Duration, fn func(error)) {
	w := &Waiter{Owner: awaiting(fn), Acks: AcksAll}
	if limit > 0 {
		w.Deadline = p.set.Now() + limit
	}
	p.Wait(w, off)
}

// End is the offset after the last record that this replica has.
func (p *Partition) End() (record.Offset, error) { return p.log.End() }

// awaiting is a function as a Completer.
type awaiting func(error)

// Complete calls the function.
func (f awaiting) Complete(_ int32, err error) { f(err) }

// ReadBatches returns whole batches from the one that holds off on, below the offset
// end, at most about maxBytes; none at the end. They need not be committed.
func (p *Partition) ReadBatches(off, end record.Offset, maxBytes int) ([]byte, error) {
	c, err := p.log.Read(off, end, maxBytes)
	if err != nil || c == nil {
		return nil, err
	}
	defer c.Release()
	b := make([]byte, c.Len())
	if n, err := c.ReadAt(b, 0); n < len(b) {
		return nil, fmt.Errorf("read batches from offset %d on: %w", off, err)
	}
	whole := 0
	for len(b)-whole >= record.HeaderLen {
		n := record.Batch(b[whole:]).Size()
		if n < record.HeaderLen || n > len(b)-whole {
			break // the last one may be cut short
		}
		whole += n
	}
	return b[:whole], nil
}
