package replica

import (
	"context"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage"
)

// Isolation says which records a reader may see.
type Isolation uint8

// What readers ask for.
const (
	ReadUncommitted Isolation = iota // all below the high watermark
	ReadCommitted                    // all below the last stable offset: no open transaction's
)

// Query is what a reader asks of a partition.
type Query struct {
	Epoch     record.Epoch // the leader epoch that the reader knows; NoEpoch: it does not say
	LastEpoch record.Epoch // the epoch of the record before Offset, as the reader has it; NoEpoch: it does not say
	Offset    record.Offset
	Isolation Isolation
	MaxBytes  int
	// Whole asks for the first batch however long it is; else one that is longer than
	// MaxBytes is left out.
	Whole bool
}

// Found is what a reader gets. Offsets are -1 where there is none.
type Found struct {
	HighWatermark record.Offset
	LastStable    record.Offset
	Start         record.Offset
	// DivergingEnd is where the reader's log leaves this one, by its epoch's end here,
	// and DivergingEpoch that epoch (KIP-595); -1: it does not.
	DivergingEpoch record.Epoch
	DivergingEnd   record.Offset
	Chunk          Chunk // the batches; none where nothing was found
}

// Nothing is what is found where there is nothing.
func Nothing() Found {
	return Found{HighWatermark: -1, LastStable: -1, Start: -1, DivergingEpoch: record.NoEpoch, DivergingEnd: -1}
}

// Chunk is a stretch of batches as they stand in the partition's log, which it keeps in
// place until Release. It satisfies wire.Section; the zero value is none.
type Chunk struct{ c *storage.Chunk }

// Exists tells whether there is a chunk.
func (c Chunk) Exists() bool { return c.c != nil }

// Len is its length in bytes.
func (c Chunk) Len() int { return c.c.Len() }

// ReadAt reads from it; 0 is its start.
func (c Chunk) ReadAt(b []byte, off int64) (int, error) { return c.c.ReadAt(b, off) }

// Fd is the file's descriptor and the chunk's position in it; ok is false where it is
// only to be read, by ReadAt.
func (c Chunk) Fd() (fd uintptr, pos int64, ok bool) { return c.c.Fd() }

// Release gives the chunk back; it must not be used any more.
func (c Chunk) Release() { c.c.Release() }

// Read finds batches for a reader: it holds the reader's epochs against this node's,
// shows what the isolation level allows, and nothing beyond. A last batch may be cut
// short by MaxBytes, as in Kafka. f is Nothing before, and filled in: readers ask for
// thousands of partitions at a time. What it has after an error counts for nothing.
func (p *Partition) Read(q *Query, f *Found) error {
	if err := p.Leads(q.Epoch); err != nil {
		return err
	}
	if q.LastEpoch != record.NoEpoch {
		if diverged, err := p.findDivergence(q, f); diverged || err != nil {
			return err
		}
	}
	end := p.fillOffsets(f, q.Isolation)
	if q.Offset == end && f.Start <= end || !q.Whole && q.MaxBytes == 0 && f.Start <= q.Offset && q.Offset < end {
		return nil // the tail: nobody need look into a file
	}
	c, err := p.log.Read(q.Offset, end, q.MaxBytes)
	if err != nil {
		return err
	}
	if c != nil && c.Len() > q.MaxBytes && !q.Whole {
		c.Release()
		c = nil
	}
	f.Chunk = Chunk{c}
	return nil
}

// fillOffsets fills in the partition's offsets and returns the end of what a reader may see.
func (p *Partition) fillOffsets(f *Found, i Isolation) (end record.Offset) {
	f.HighWatermark = p.HighWatermark()
	f.LastStable = f.HighWatermark // there are no transactions yet
	f.Start = p.Start()
	if i == ReadCommitted {
		return f.LastStable
	}
	return f.HighWatermark
}

// findDivergence compares the epoch of the reader's last record with the log's. It is
// true where the logs have parted and f says where.
func (p *Partition) findDivergence(q *Query, f *Found) (bool, error) {
	e, end, err := p.epochEnd(q.LastEpoch)
	start := p.Start()
	switch {
	case err != nil:
		return false, err
	case e == record.NoEpoch || end < 0 || q.Offset < start:
		return false, ErrOffsetOutOfRange
	case e < q.LastEpoch || end < q.Offset:
		p.fillOffsets(f, q.Isolation)
		f.DivergingEpoch, f.DivergingEnd = e, end
		return true, nil
	}
	return false, nil
}

// FindEnd is the end of what a reader may see, for one that knows the given epoch.
func (p *Partition) FindEnd(asker record.Epoch, i Isolation) (Position, error) {
	if err := p.Leads(asker); err != nil {
		return Nowhere(), err
	}
	var f Found
	return Position{Offset: p.fillOffsets(&f, i), Time: record.NoTimestamp, Epoch: p.lead.Load().Epoch}, nil
}

// Position is an offset that was looked up, with the timestamp and the epoch of the
// record there; -1 where there is no such record.
type Position struct {
	Offset record.Offset
	Time   int64 // ms
	Epoch  record.Epoch
}

// Nowhere is the position of what is not found.
func Nowhere() Position {
	return Position{Offset: -1, Time: record.NoTimestamp, Epoch: record.NoEpoch}
}

// FindStart is the first offset that can be read.
func (p *Partition) FindStart(asker record.Epoch) (Position, error) {
	if err := p.Leads(asker); err != nil {
		return Nowhere(), err
	}
	start, err := p.log.Start()
	if err != nil {
		return Nowhere(), err
	}
	at := Position{Offset: start, Time: record.NoTimestamp}
	if end, err := p.log.End(); err == nil && start < end {
		at.Epoch = p.log.EpochAt(start)
	} else { // the next record will be this epoch's; the log may not have heard of it yet
		at.Epoch = p.lead.Load().Epoch
	}
	return at, err
}

// FindTime is the first record that a reader may see with a timestamp of at least ms.
// It may wait for work memory; the context ends that.
func (p *Partition) FindTime(ctx context.Context, asker record.Epoch, i Isolation, ms int64) (Position, error) {
	return p.findRecord(asker, i, func() (storage.Stamp, bool, error) { return p.log.FindTime(ctx, ms) })
}

// FindNewest is the record with the largest timestamp, where a reader may see it. It
// may wait for work memory; the context ends that.
func (p *Partition) FindNewest(ctx context.Context, asker record.Epoch, i Isolation) (Position, error) {
	return p.findRecord(asker, i, func() (storage.Stamp, bool, error) { return p.log.MaxTime(ctx) })
}

func (p *Partition) findRecord(asker record.Epoch, i Isolation, lookUp func() (storage.Stamp, bool, error)) (Position, error) {
	if err := p.Leads(asker); err != nil {
		return Nowhere(), err
	}
	var f Found
	end := p.fillOffsets(&f, i)
	s, ok, err := lookUp()
	if err != nil || !ok || s.Offset >= end {
		return Nowhere(), err
	}
	return Position{s.Offset, s.Time, s.Epoch}, nil
}

// EpochEnd answers where the log's records of the epochs up to e end: the largest
// known epoch not above e and the offset after its last record. NoEpoch: the log
// knows none so old, or e is one that has not begun.
func (p *Partition) EpochEnd(asker, e record.Epoch) (record.Epoch, record.Offset, error) {
	if err := p.Leads(asker); err != nil {
		return record.NoEpoch, -1, err
	}
	return p.epochEnd(e)
}

func (p *Partition) epochEnd(e record.Epoch) (record.Epoch, record.Offset, error) {
	if l := p.lead.Load(); e == l.Epoch && l.Leader == p.set.cfg.NodeID {
		end, err := p.log.End() // it lasts; the log may not have heard of it yet
		return e, end, err
	}
	return p.log.EpochEnd(e)
}

// Trim moves the start forward to an offset, at most to the high watermark, and returns
// where it is then. -1 stands for the high watermark.
func (p *Partition) Trim(to record.Offset) (record.Offset, error) {
	if err := p.Leads(record.NoEpoch); err != nil {
		return -1, err
	}
	hw := p.HighWatermark()
	if to == -1 {
		to = hw
	}
	if to < 0 || to > hw {
		return -1, ErrOffsetOutOfRange
	}
	if err := p.log.SetStart(to); err != nil { // also where it lies there already: it may not be durable
		return -1, err
	}
	return p.log.Start()
}

// Producer is an idempotent producer that has written to the partition of late.
type Producer struct {
	ID           int64
	Epoch        int16
	LastSequence int32
	LastTime     int64 // ms
}

// Producers lists the active producers.
func (p *Partition) Producers() ([]Producer, error) {
	if err := p.Leads(record.NoEpoch); err != nil {
		return nil, err
	}
	known, err := p.log.Producers()
	list := make([]Producer, len(known))
	for i, k := range known {
		list[i] = Producer{ID: k.ID, Epoch: k.Epoch, LastSequence: k.LastSequence, LastTime: k.LastTime}
	}
	return list, err
}

// HighWatermark is the end of what is committed.
func (p *Partition) HighWatermark() record.Offset {
	p.readEnds()
	return record.Offset(p.hw.Load())
}

// Start is the first offset kept; the high watermark where the log cannot tell.
func (p *Partition) Start() record.Offset {
	o, err := p.log.Start()
	if err != nil {
		return record.Offset(p.hw.Load())
	}
	return o
}

// readEnds takes the ends from the log at first use: what a sole replica recovered is
// committed. Several callers may do it at once.
func (p *Partition) readEnds() {
	if !p.opened.Load() {
		p.advanceEnds()
	}
}

// Fault is why the partition's log can only be read; nil where it is sound.
func (p *Partition) Fault() error { return p.log.Fault() }
