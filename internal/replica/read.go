package replica

import (
	"context"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica/progress"
	"github.com/leatstream/leat/internal/storage"
)

// Isolation says which records a reader may see.
type Isolation uint8

// These are the isolation levels of Kafka.
const (
	ReadUncommitted Isolation = iota // all below the high watermark
	ReadCommitted                    // all below the last stable offset: none of an open transaction
)

// Query is a reader's request to a partition.
type Query struct {
	Epoch     record.Epoch // the leader epoch that the reader knows; NoEpoch: not given
	LastEpoch record.Epoch // the epoch of the record before Offset in the reader's log; NoEpoch: not given
	Offset    record.Offset
	Isolation Isolation
	MaxBytes  int
	// Whole asks for the first batch even if it is longer than MaxBytes. Without it nothing
	// is returned then.
	Whole bool
}

// Found is the answer to a Query. Offsets are -1 if they are unknown.
type Found struct {
	HighWatermark record.Offset
	LastStable    record.Offset
	Start         record.Offset
	// DivergingEpoch is the last epoch of this log that is not after the Query's LastEpoch,
	// and DivergingEnd its end, if the reader's log has parted from this one (KIP-595); -1 if
	// it has not.
	DivergingEpoch record.Epoch
	DivergingEnd   record.Offset
	Chunk          Chunk // the batches
}

// Nothing is the answer before anything is known.
func Nothing() Found {
	return Found{HighWatermark: -1, LastStable: -1, Start: -1, DivergingEpoch: record.NoEpoch, DivergingEnd: -1}
}

// Chunk is a run of batches in the partition's log, whose bytes stay readable until Release,
// even if the log deletes them. It satisfies wire.Section; the zero value is none.
type Chunk struct{ c *storage.Chunk }

// Exists tells whether there is a chunk.
func (c Chunk) Exists() bool { return c.c != nil }

// Len is its length in bytes.
func (c Chunk) Len() int { return c.c.Len() }

// ReadAt reads from the chunk, which starts at 0.
func (c Chunk) ReadAt(b []byte, off int64) (int, error) { return c.c.ReadAt(b, off) }

// Fd is the file's descriptor and the chunk's position in it; ok is false if only ReadAt can
// read the chunk.
func (c Chunk) Fd() (fd uintptr, pos int64, ok bool) { return c.c.Fd() }

// Release gives the chunk back; it must not be used any more.
func (c Chunk) Release() { c.c.Release() }

// Read finds batches for a reader whose epochs agree with this node's, as far as its isolation
// level allows. MaxBytes may cut the last batch short, as in Kafka. The caller passes f as
// Nothing, and Read fills it in, since readers ask for thousands of partitions at a time. After
// an error the content of f is undefined.
func (p *Partition) Read(q *Query, f *Found) error {
	if err := p.CheckLeader(q.Epoch); err != nil {
		return err
	}
	if q.LastEpoch != record.NoEpoch {
		if diverged, err := p.findDivergence(q, f); diverged || err != nil {
			return err
		}
	}
	end := p.fillOffsets(f, q.Isolation)
	if q.Offset == end && f.Start <= end || !q.Whole && q.MaxBytes == 0 && f.Start <= q.Offset && q.Offset < end {
		return nil // there is nothing to read, or no bytes of it may be sent: no file is read
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

// findDivergence compares the epoch of the reader's last record with the log's. It tells
// whether the logs have parted, and fills in f then.
func (p *Partition) findDivergence(q *Query, f *Found) (bool, error) {
	e, end, err := p.epochEnd(q.LastEpoch)
	if err != nil {
		return false, err
	}
	own := progress.Ends{Start: p.Start(), End: end}
	switch progress.Compare(q.Offset, q.LastEpoch, own, progress.Tail{Epoch: e, End: end}) {
	case progress.OutOfRange:
		return false, ErrOffsetOutOfRange
	case progress.Diverged:
		p.fillOffsets(f, q.Isolation)
		f.DivergingEpoch, f.DivergingEnd = e, end
		return true, nil
	default:
		return false, nil
	}
}

// FindEnd finds the end of what a reader may see.
func (p *Partition) FindEnd(current record.Epoch, i Isolation) (Position, error) {
	if err := p.CheckLeader(current); err != nil {
		return Nowhere(), err
	}
	var f Found
	return Position{Offset: p.fillOffsets(&f, i), Time: record.NoTimestamp, Epoch: p.lead.Load().Epoch}, nil
}

// Position is an offset that was looked up, with the timestamp and the epoch of the record
// there; -1 if there is no record, or it has none.
type Position struct {
	Offset record.Offset
	Time   int64 // ms
	Epoch  record.Epoch
}

// Nowhere is the position of a record that is not found.
func Nowhere() Position {
	return Position{Offset: -1, Time: record.NoTimestamp, Epoch: record.NoEpoch}
}

// FindStart finds the first offset that can be read.
func (p *Partition) FindStart(current record.Epoch) (Position, error) {
	if err := p.CheckLeader(current); err != nil {
		return Nowhere(), err
	}
	start, err := p.log.Start()
	if err != nil {
		return Nowhere(), err
	}
	at := Position{Offset: start, Time: record.NoTimestamp}
	if end, err := p.log.End(); err == nil && start < end {
		at.Epoch = p.log.EpochAt(start)
	} else { // the next record will have this epoch, which the log may not know yet
		at.Epoch = p.lead.Load().Epoch
	}
	return at, err
}

// FindTime finds the first record with a timestamp of at least ms, if a reader may see it. It
// may wait for work memory; the context ends that.
func (p *Partition) FindTime(ctx context.Context, current record.Epoch, i Isolation, ms int64) (Position, error) {
	return p.findRecord(current, i, func() (storage.Stamp, bool, error) { return p.log.FindTime(ctx, ms) })
}

// FindNewest finds the record with the largest timestamp, if a reader may see it. It may wait
// for work memory; the context ends that.
func (p *Partition) FindNewest(ctx context.Context, current record.Epoch, i Isolation) (Position, error) {
	return p.findRecord(current, i, func() (storage.Stamp, bool, error) { return p.log.MaxTime(ctx) })
}

func (p *Partition) findRecord(current record.Epoch, i Isolation, lookUp func() (storage.Stamp, bool, error)) (Position, error) {
	if err := p.CheckLeader(current); err != nil {
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

// EpochEnd finds the end of the log's records of the epochs up to e: the largest epoch of the
// log that is not above e, and the offset after its last record. It is NoEpoch if all epochs
// of the log are above e, or if e has not begun.
func (p *Partition) EpochEnd(current, e record.Epoch) (record.Epoch, record.Offset, error) {
	if err := p.CheckLeader(current); err != nil {
		return record.NoEpoch, -1, err
	}
	return p.epochEnd(e)
}

func (p *Partition) epochEnd(e record.Epoch) (record.Epoch, record.Offset, error) {
	if l := p.lead.Load(); e == l.Epoch && l.Leader == p.set.cfg.NodeID {
		end, err := p.log.End() // the epoch has not ended, and the log may not know it yet
		return e, end, err
	}
	return p.log.EpochEnd(e)
}

// Trim moves the partition's start forward to an offset, at most to the high watermark, and
// returns the start after that. -1 stands for the high watermark.
func (p *Partition) Trim(to record.Offset) (record.Offset, error) {
	if err := p.CheckLeader(record.NoEpoch); err != nil {
		return -1, err
	}
	hw := p.HighWatermark()
	if to == -1 {
		to = hw
	}
	if to < 0 || to > hw {
		return -1, ErrOffsetOutOfRange
	}
	if err := p.log.SetStart(to); err != nil { // even if the start is there already: it may not be durable
		return -1, err
	}
	return p.log.Start()
}

// Producer is an idempotent producer that has appended to the partition and has not expired.
type Producer struct {
	ID           int64
	Epoch        int16
	LastSequence int32
	LastTime     int64 // ms
}

// CountProducers counts a partition's producers that have not expired.
func CountProducers(p *Partition) (int, error) {
	if err := p.CheckLeader(record.NoEpoch); err != nil {
		return 0, err
	}
	return storage.CountProducers(p.log)
}

// Producers lists the producers that have not expired, at most so many.
func (p *Partition) Producers(most int) ([]Producer, error) {
	if err := p.CheckLeader(record.NoEpoch); err != nil {
		return nil, err
	}
	known, err := p.log.Producers(most)
	list := make([]Producer, len(known))
	for i, k := range known {
		list[i] = Producer{ID: k.ID, Epoch: k.Epoch, LastSequence: k.LastSequence, LastTime: k.LastTime}
	}
	return list, err
}

// HighWatermark is the offset below which all records are committed.
func (p *Partition) HighWatermark() record.Offset {
	p.readEnds()
	return record.Offset(p.hw.Load())
}

// Start is the first offset kept, or the high watermark if the log cannot be opened.
func (p *Partition) Start() record.Offset {
	o, err := p.log.Start()
	if err != nil {
		return record.Offset(p.hw.Load())
	}
	return o
}

// IsOpen tells whether the log was opened. The first use of one that was not may wait for the disk.
func (p *Partition) IsOpen() bool { return p.opened.Load() }

// readEnds opens the log at the first use and takes its committed end, since the high watermark
// of a sole replica is there. Several callers may do it at once.
func (p *Partition) readEnds() {
	if !p.opened.Load() {
		p.advanceEnds()
	}
}

// Fault says why the partition's log can only be read; nil if it is sound.
func (p *Partition) Fault() error { return p.log.Fault() }
