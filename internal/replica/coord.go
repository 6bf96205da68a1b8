package replica

import (
	"fmt"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage"
)

// The methods in this file make a Partition a coord.Log, to which a coordinator appends
// without an Appends.

// AppendBatch appends one batch as the leader of the given epoch, if enough replicas are in
// sync for acks=all. The caller must call Commit after it. AppendBatch ends no wait and wakes no
// poll, since a coordinator holds its lock meanwhile: the commit does that.
func (p *Partition) AppendBatch(b record.Batch, e record.Epoch) (next record.Offset, err error) {
	return appendForCoordinator(p, storage.Item{Batch: b}, e)
}

// AppendMarker is AppendBatch for a marker that ends a producer's transaction of the given version, see Marker.
func (p *Partition) AppendMarker(b record.Batch, e record.Epoch, version int16) (next record.Offset, err error) {
	return appendForCoordinator(p, storage.Item{Batch: b, Claim: storage.Claim{Version: version}}, e)
}

func appendForCoordinator(p *Partition, it storage.Item, e record.Epoch) (next record.Offset, err error) {
	if err := p.checkInSync(); err != nil {
		return -1, err
	}
	items := []storage.Item{it}
	p.appendToLog(items, e)
	noteRefusal(p, items)
	stored := countStored(items)
	p.followers.wake(stored.bytes) // which takes no lock of a coordinator
	p.host.advanceAtCommit(p, stored)
	return items[0].Next, items[0].Err
}

// Commit makes durable all that was appended to this and the other partitions of its Set.
func (p *Partition) Commit() { p.host.Commit() }

// IsCommitted tells whether all records below an offset, of which the caller has heard in a leader
// epoch of this node, are committed, and this node still leads in that epoch and has not given up.
func (p *Partition) IsCommitted(e record.Epoch, off record.Offset) bool {
	p.readEnds()
	hw := record.Offset(p.hw.Load()) // before the epoch is compared: a later leader may have other records there
	l, err := p.checkEpoch(record.NoEpoch, false)
	return err == nil && l.Epoch == e && off <= hw && !mayHaveGivenUp(p, l)
}

// mayHaveGivenUp tells whether another replica may have been elected since this one's log cannot be written. A
// leader that is alone in sync stays, and goes on to answer what it has.
func mayHaveGivenUp(p *Partition, l *Leadership) bool { return len(l.ISR) > 1 && p.Fault() != nil }

// Await calls fn(nil) once the high watermark has reached off, or fn(err) if before that this
// node stops leading in epoch e, the log fails, or the limit passes (0: there is no limit).
func (p *Partition) Await(e record.Epoch, off record.Offset, limit time.Duration, fn func(error)) {
	if mayHaveGivenUp(p, p.lead.Load()) {
		fn(p.Fault())
		return
	}
	w := &Waiter{Owner: completeFunc(fn), Acks: AcksAll, Epoch: e}
	if limit > 0 {
		w.Deadline = p.host.Now() + limit
	}
	p.Wait(w, off)
}

// End is the offset after the last record that this replica has.
func (p *Partition) End() (record.Offset, error) { return p.log.Load().End() }

// completeFunc makes a function a Completer.
type completeFunc func(error)

// Complete calls the function.
func (f completeFunc) Complete(_ int32, err error) { f(err) }

// ReadBatches returns whole batches below the offset end, from the one with the record at off, or the next one:
// at most maxBytes, but at least one batch; none if there is none below the end. They need not be committed.
func (p *Partition) ReadBatches(off, end record.Offset, maxBytes int) ([]byte, error) {
	c, err := p.log.Load().Read(off, end, maxBytes)
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
			break // maxBytes may cut the last one short
		}
		whole += n
	}
	return b[:whole], nil
}
