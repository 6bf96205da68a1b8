package replica

import (
	"context"
	"time"

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
	// Rack is the reader's rack; "": not given. A leader may send a reader with one to a replica
	// there (KIP-392).
	Rack string
	// AnyReplica tells that the reader can read from a follower (KIP-392).
	AnyReplica bool
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
	Preferred      int32 // the node from which the reader should read instead; -1: none
	DivergingEnd   record.Offset
	Chunk          Chunk // the batches
	// Aborted are the aborted transactions that may have records among the batches, in the order of their
	// first offsets, for readers of committed ones; nil: there are none. It is a pointer since readers ask for thousands of
	// partitions.
	Aborted *[]Aborted
}

// Aborted is a transaction that was aborted.
type Aborted struct {
	Producer int64
	First    record.Offset // of its first record, or of the first one that the log still had
}

// Nothing is the answer before anything is known.
func Nothing() Found {
	return Found{HighWatermark: -1, LastStable: -1, Start: -1, DivergingEpoch: record.NoEpoch, DivergingEnd: -1, Preferred: -1}
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
	v, err := viewOf(p, q.Epoch, q.AnyReplica)
	if err != nil {
		return err
	}
	end, err := v.fillOffsets(f, q.Isolation)
	if err != nil {
		return err
	}
	if q.LastEpoch != record.NoEpoch {
		if diverged, err := v.findDivergence(q, f); diverged || err != nil {
			return err
		}
	}
	if q.Rack != "" && v.sendElsewhere(q, f) {
		return nil
	}
	if q.Offset == end && f.Start <= end || !q.Whole && q.MaxBytes == 0 && f.Start <= q.Offset && q.Offset < end {
		return nil // there is nothing to read, or no bytes of it may be sent: no file is read
	}
	c, err := p.log.Load().Read(q.Offset, end, q.MaxBytes)
	if err != nil {
		return err
	}
	if c != nil && c.Len() > q.MaxBytes && !q.Whole {
		c.Release()
		c = nil
	}
	f.Chunk = Chunk{c}
	if c != nil && q.Isolation == ReadCommitted {
		if f.Aborted, err = findAborted(p.log.Load(), c, q.Offset, end); err != nil {
			c.Release()
			f.Chunk = Chunk{}
		}
	}
	return err
}

// findAborted finds the aborted transactions with records in a chunk, which was read from an offset on and
// ends below another one.
func findAborted(log *storage.Log, c *storage.Chunk, from, end record.Offset) (*[]Aborted, error) {
	if !storage.HasTransactions(log, end) {
		return nil, nil //nolint:nilnil // nil is the documented result
	}
	if end-from > fewOffsets {
		end = min(end, endOfChunk(c, end))
	}
	found, err := storage.AbortedTransactions(log, from, end)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	list := make([]Aborted, len(found))
	for i := range found {
		list[i] = Aborted{found[i].Producer, found[i].First}
	}
	return &list, nil
}

// fewOffsets is how many offsets beyond those of a chunk are searched for aborted transactions, rather than
// to look for the chunk's end.
const fewOffsets = 4096

// endOfChunk finds the offset after the batches of a chunk, of which the last one may be cut short. It returns
// most if it cannot be found.
func endOfChunk(c *storage.Chunk, most record.Offset) record.Offset {
	const piece = 32 << 10
	buf := make([]byte, min(piece, c.Len()))
	end := most
	for pos, from, have := 0, 0, 0; pos+record.HeaderLen <= c.Len(); {
		if pos+record.HeaderLen > from+have {
			n, err := c.ReadAt(buf[:min(len(buf), c.Len()-pos)], int64(pos))
			if from, have = pos, n; n < record.HeaderLen {
				_ = err // the reader of the chunk meets it
				return most
			}
		}
		b := record.Batch(buf[pos-from : have])
		if b.Size() < record.HeaderLen {
			return most
		}
		end = b.NextOffset()
		pos += b.Size()
	}
	return end
}

// view is a partition as readers see it in one leadership.
type view struct {
	p *Partition
	l *Leadership
}

// viewOf is a partition's present view, for readers who know an epoch and read from the leader, or from a
// follower, too.
func viewOf(p *Partition, current record.Epoch, orFollows bool) (view, error) {
	l, err := p.checkEpoch(current, orFollows)
	return view{p, l}, err
}

// fillOffsets fills in the partition's offsets and returns the end of what a reader may see.
func (v view) fillOffsets(f *Found, i Isolation) (end record.Offset, err error) {
	p := v.p
	f.HighWatermark = p.HighWatermark()
	if p.readable.Load() != int32(v.l.Epoch) {
		if err := v.lookAgain(); err != nil {
			return -1, err
		}
		f.HighWatermark = p.HighWatermark()
	}
	if f.LastStable, err = storage.StableEnd(p.log.Load(), f.HighWatermark); err != nil && i == ReadCommitted {
		return -1, err
	}
	f.Start = p.Start()
	if i == ReadCommitted {
		return f.LastStable, nil
	}
	return f.HighWatermark, nil
}

// lookAgain looks once more whether the high watermark can be told to readers, since the leadership may
// have begun a moment ago.
func (v view) lookAgain() error {
	v.p.advanceEnds()
	if v.p.readable.Load() == int32(v.l.Epoch) {
		return nil
	}
	if _, err := logEnds(v.p.log.Load()); err != nil {
		return err
	}
	return ErrOffsetNotAvailable
}

// sendElsewhere tells whether a reader with a rack should read from another replica, and fills in f
// then.
func (v view) sendElsewhere(q *Query, f *Found) bool {
	p, l := v.p, v.l
	self := p.host.cfg.NodeID
	if l.Leader != self || !l.isReplicated() || !p.host.replication.Load().NearestReplica {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.leading.leadsIn(l.Epoch) {
		if id := p.leading.findNearest(self, q.Rack, q.Offset); id != self {
			f.Preferred = id
		}
	}
	return f.Preferred >= 0
}

// findDivergence compares the epoch of the reader's last record with the log's. It tells
// whether the logs have parted, and fills in f then.
func (v view) findDivergence(q *Query, f *Found) (bool, error) {
	e, end, err := v.p.epochEnd(q.LastEpoch)
	if err != nil {
		return false, err
	}
	own := progress.Ends{Start: f.Start, End: end}
	switch progress.Compare(q.Offset, q.LastEpoch, own, progress.Tail{Epoch: e, End: end}) {
	case progress.OutOfRange:
		return false, ErrOffsetOutOfRange
	case progress.Diverged:
		f.DivergingEpoch, f.DivergingEnd = e, end
		return true, nil
	default:
		return false, nil
	}
}

// FindEnd finds the end of what a reader may see.
func (p *Partition) FindEnd(current record.Epoch, i Isolation) (Position, error) {
	v, end, err := findEnd(p, current, i)
	if err != nil {
		return Nowhere(), err
	}
	at := Position{Offset: end, Time: record.NoTimestamp, Epoch: v.l.Epoch}
	if v.l.hasSourceEpochs() { // the next record will have an epoch of the source
		at.Epoch = p.log.Load().EpochAt(end - 1)
	}
	return at, nil
}

// findEnd finds the end of what a reader may see, in a view.
func findEnd(p *Partition, current record.Epoch, i Isolation) (v view, end record.Offset, err error) {
	if v, err = viewOf(p, current, false); err == nil {
		end, err = v.fillOffsets(&Found{}, i)
	}
	return v, end, err
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
	log := p.log.Load()
	start, err := log.Start()
	if err != nil {
		return Nowhere(), err
	}
	at := Position{Offset: start, Time: record.NoTimestamp, Epoch: record.NoEpoch}
	if end, err := log.End(); err == nil && start < end {
		at.Epoch = log.EpochAt(start)
	} else if l := p.lead.Load(); !l.hasSourceEpochs() { // the next record will have this epoch, which the log may not know yet
		at.Epoch = l.Epoch
	}
	return at, err
}

// FindTime finds the first record with a timestamp of at least ms, if a reader may see it. It
// may wait for work memory; the context ends that.
func (p *Partition) FindTime(ctx context.Context, current record.Epoch, i Isolation, ms int64) (Position, error) {
	return findRecord(p, current, i, func() (storage.Stamp, bool, error) { return p.log.Load().FindTime(ctx, ms) })
}

// FindNewest finds the record with the largest timestamp, if a reader may see it. It may wait
// for work memory; the context ends that.
func (p *Partition) FindNewest(ctx context.Context, current record.Epoch, i Isolation) (Position, error) {
	return findRecord(p, current, i, func() (storage.Stamp, bool, error) { return p.log.Load().MaxTime(ctx) })
}

func findRecord(p *Partition, current record.Epoch, i Isolation, lookUp func() (storage.Stamp, bool, error)) (Position, error) {
	_, end, err := findEnd(p, current, i)
	if err != nil {
		return Nowhere(), err
	}
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
	if _, _, err := findEnd(p, current, ReadUncommitted); err != nil {
		return record.NoEpoch, -1, err
	}
	return p.epochEnd(e)
}

func (p *Partition) epochEnd(e record.Epoch) (record.Epoch, record.Offset, error) {
	log, l := p.log.Load(), p.lead.Load()
	if e == l.Epoch && l.Leader == p.host.cfg.NodeID && !l.hasSourceEpochs() {
		end, err := log.End() // the epoch has not ended, and the log may not know it yet
		return e, end, err
	}
	tail, err := tailOf(log, l, e)
	return tail.Epoch, tail.End, err
}

// Trim moves the partition's start forward to an offset, at most to the high watermark, and
// returns the start after that, as far as it is durable. -1 stands for the high watermark.
func (p *Partition) Trim(to record.Offset) (record.Offset, error) {
	v, hw, err := findEnd(p, record.NoEpoch, ReadUncommitted)
	if err == nil && v.l.mirrors() {
		err = ErrMirrors
	}
	if err != nil {
		return -1, err
	}
	if to == -1 {
		to = hw
	}
	if to < 0 || to > hw {
		return -1, ErrOffsetOutOfRange
	}
	log := p.log.Load()
	if err := log.SetStart(to); err != nil { // even if the start is there already: it may not be durable
		return -1, err
	}
	p.advanceEnds() // followers are to have the same start
	return storage.DurableStart(log)
}

// AwaitTrim calls fn(nil) once the replicas that are in sync, and all others that are alive, have deleted all
// records below an offset, to which Trim has moved the start, or fn(err) as Await does.
func (p *Partition) AwaitTrim(off record.Offset, limit time.Duration, fn func(error)) {
	w := &Waiter{Owner: completeFunc(fn), Acks: acksTrim, Epoch: p.lead.Load().Epoch}
	if limit > 0 {
		w.Deadline = p.host.Now() + limit
	}
	p.Wait(w, off)
}

// LowWatermark is the lowest start of those replicas; all records below it are deleted, durably. -1: it is
// not known.
func (p *Partition) LowWatermark() record.Offset {
	start, err := storage.DurableStart(p.log.Load())
	if err != nil {
		return -1
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	_, low := p.waitsLocked(acksTrim)
	return min(low, start)
}

// Producer is an idempotent producer that has appended to the partition and has not expired.
type Producer struct {
	ID           int64
	Epoch        int16
	LastSequence int32
	LastTime     int64 // ms
	// CoordinatorEpoch is that of the last marker; -1: there was none.
	CoordinatorEpoch int32
	// TransactionStart is the first offset of its open transaction; -1: none is open.
	TransactionStart record.Offset
}

// CountProducers counts a partition's producers that have not expired.
func CountProducers(p *Partition) (int, error) {
	if err := p.CheckLeader(record.NoEpoch); err != nil {
		return 0, err
	}
	return storage.CountProducers(p.log.Load())
}

// Producers lists the producers that have not expired, at most so many.
func (p *Partition) Producers(most int) ([]Producer, error) {
	if err := p.CheckLeader(record.NoEpoch); err != nil {
		return nil, err
	}
	known, err := p.log.Load().Producers(most)
	list := make([]Producer, len(known))
	for i, k := range known {
		list[i] = Producer{
			ID: k.ID, Epoch: k.Epoch, LastSequence: k.LastSequence, LastTime: k.LastTime,
			CoordinatorEpoch: k.CoordinatorEpoch, TransactionStart: k.TransactionStart,
		}
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
	o, err := p.log.Load().Start()
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
func (p *Partition) Fault() error { return p.log.Load().Fault() }
