// Package producer keeps the idempotent producers of a log. A State applies Kafka's rules
// for sequence numbers, so that a batch which is sent again is stored only once (KIP-98).
// It is encoded as a snapshot file, and decoded from one.
//
// A producer id is in one of three states. If it is unknown, every sequence is accepted,
// since its records may all have been deleted. If it has batches, the next sequence must
// follow, or the batch must be one of the last five. If it has none, which is so after a
// control batch with a new epoch, the next sequence must be 0.
//
//	          a batch                      a control batch of a newer epoch
//	unknown ------------> has batches <-----------------------------------------> has none
//	   ^                       |                      a batch                        |
//	   +-----------------------+-----------------------------------------------------+
//	             Expire, for its age, or Evict, since the Budget of all logs is exceeded
//
// A State is for one goroutine at a time; any goroutine may use a Budget.
package producer

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/leatstream/leat/internal/record"
)

var (
	// ErrOutOfOrderSequence is returned for a batch whose sequence does not follow the
	// producer's last one.
	ErrOutOfOrderSequence = errors.New("out of order sequence")
	// ErrFenced is returned for a batch with an older epoch than the producer's last one.
	ErrFenced = errors.New("producer epoch is fenced")
)

// KeptBatches is how many of a producer's last batches are kept. A client may have as
// many in flight.
const KeptBatches = 5

// Batch is one of a producer's last batches.
type Batch struct {
	Base, LastOffset record.Offset // of its first and its last record
	Time             int64         // its largest timestamp, ms
	AppendTime       bool          // the broker set Time, not the producer
}

// keptBatch is a batch as an entry keeps it.
type keptBatch struct {
	lastOffset record.Offset
	time       int64 // its largest timestamp, ms
	lastSeq    int32
	delta      int32 // its last offset less its first
}

func (k *keptBatch) firstSeq() int32 {
	return int32((int64(k.lastSeq) - int64(k.delta)) & math.MaxInt32)
}

// entry is one producer.
type entry struct {
	id          int64
	lastSeen    int64 // when it last appended or was recovered, ms; see Expire
	epoch       int16
	kept        int8                   // how many of batches are set
	appendTimes uint8                  // bit i: the broker set the time of batches[i], not the producer
	batches     [KeptBatches]keptBatch // the oldest first
}

func (p *entry) lastBatch() *keptBatch { return &p.batches[p.kept-1] }

// lastOffset says which of two producers of a log was used later, also where the clock was set
// or the log was opened again in between. It is -1 after a control batch.
func (p *entry) lastOffset() record.Offset {
	if p.kept == 0 {
		return -1
	}
	return p.lastBatch().lastOffset
}

// State has the producers of a log. The zero State has none, and no Budget.
type State struct {
	budget    *Budget
	known     table
	grown     int    // producers that were added since the last Evict
	changed   bool   // since the last snapshot
	undoLog   []undo // one for each batch since the last Confirm, the oldest first
	removals  int    // how often producers were removed by keep
	lastSweep int64  // when Expire last looked for expired producers, ms
}

// New makes a State that counts its producers in a Budget, until Release.
func New(b *Budget) State { return State{budget: b} }

// undo is a producer before an append that may fail.
type undo struct {
	before entry
	added  bool // the producer was unknown
}

// Changed tells whether a producer changed since the last snapshot.
func (s *State) Changed() bool { return s.changed }

// SetChanged sets the result of Changed: false after a snapshot was written, true if it
// was lost.
func (s *State) SetChanged(changed bool) { s.changed = changed }

// Check checks a batch that a client sends. It returns an error if the batch must not be
// appended. If it is a repetition of one of the producer's last batches, it returns that
// batch, and true.
func (s *State) Check(b record.Batch) (earlier Batch, duplicate bool, err error) {
	p := s.known.find(b.ProducerID())
	if p == nil {
		return Batch{}, false, nil
	}
	epoch, first, last := b.ProducerEpoch(), b.BaseSequence(), b.LastSequence()
	switch {
	case epoch < p.epoch:
		return Batch{}, false, fmt.Errorf("%w: producer %d came with epoch %d after %d", ErrFenced, p.id, epoch, p.epoch)
	case b.Control():
		return Batch{}, false, nil
	case (epoch > p.epoch || p.kept == 0) && first != 0:
		return Batch{}, false, fmt.Errorf("%w: producer %d began its epoch %d with sequence %d", ErrOutOfOrderSequence, p.id, epoch, first)
	case epoch > p.epoch || p.kept == 0:
		return Batch{}, false, nil
	}
	for i := range p.batches[:p.kept] {
		if k := &p.batches[i]; k.lastSeq == last && k.firstSeq() == first {
			base := k.lastOffset - record.Offset(k.delta)
			return Batch{Base: base, LastOffset: k.lastOffset, Time: k.time, AppendTime: p.appendTimes>>i&1 == 1}, true, nil
		}
	}
	if want := record.AddSequence(p.lastBatch().lastSeq, 1); first != want {
		return Batch{}, false, fmt.Errorf("%w: producer %d sent %d after %d", ErrOutOfOrderSequence, p.id, first, p.lastBatch().lastSeq)
	}
	return Batch{}, false, nil
}

// Apply adds a batch that was appended, or that is about to be; now is the time in ms.
// Revert undoes it, until Confirm makes it final.
func (s *State) Apply(b record.Batch, now int64) {
	id := b.ProducerID()
	p := s.known.find(id)
	added := p == nil
	if added {
		p = s.addEntry(entry{id: id, epoch: b.ProducerEpoch()})
	}
	s.undoLog = append(s.undoLog, undo{*p, added})
	s.changed = true
	p.lastSeen = now
	if e := b.ProducerEpoch(); e != p.epoch {
		p.epoch, p.kept = e, 0
	}
	if !b.Control() {
		p.pushBatch(keptBatch{
			lastOffset: b.LastOffset(), time: b.MaxTimestamp(),
			lastSeq: b.LastSequence(), delta: b.LastOffsetDelta(),
		}, b.TimestampType() == record.LogAppendTime)
	}
}

func (s *State) addEntry(e entry) *entry {
	p := s.known.add(e)
	s.grown++
	s.budget.resize(s.known.n-1, s.known.n)
	return p
}

func (p *entry) pushBatch(k keptBatch, appendTime bool) {
	if p.kept == KeptBatches {
		copy(p.batches[:], p.batches[1:])
		p.kept--
		p.appendTimes >>= 1
	}
	p.batches[p.kept] = k
	p.appendTimes &= 1<<p.kept - 1
	if appendTime {
		p.appendTimes |= 1 << p.kept
	}
	p.kept++
}

// keptUndo is the most batches for which Confirm keeps the memory that Revert needs.
const keptUndo = 4

// Confirm makes all batches final that were applied.
func (s *State) Confirm() {
	if s.undoLog = s.undoLog[:0]; cap(s.undoLog) > keptUndo {
		s.undoLog = nil
	}
}

// Revert undoes all batches that were applied since the last Confirm.
func (s *State) Revert() {
	before := s.known.n
	for _, u := range slices.Backward(s.undoLog) {
		if u.added {
			s.known.removeLast()
		} else {
			*s.known.find(u.before.id) = u.before
		}
	}
	s.grown -= before - s.known.n
	s.budget.resize(before, s.known.n)
	s.Confirm()
}

// Release forgets all producers, and gives their memory back.
func (s *State) Release() {
	s.budget.resize(s.known.n, 0)
	*s = State{budget: s.budget}
}

// keep removes the producers for which a function returns false. It makes all batches final
// that were applied, since Revert needs the order of the entries.
func (s *State) keep(isKept func(p *entry) bool) {
	s.Confirm()
	before := s.known.n
	s.known.keep(isKept)
	if s.known.n != before {
		s.changed = true
		s.removals++
		s.budget.resize(before, s.known.n)
	}
}

// Evict forgets the longest unused producers while the Budget is exceeded, as far as this log
// has to. It returns true if the Budget is exceeded still, since other logs have more. Evict
// makes all batches final that were applied. A log that evicts any producers evicts a ninth of
// them at least, since it sorts all of them to find the longest unused ones.
func (s *State) Evict() (exceeded bool) {
	s.Confirm()
	grown := s.grown
	s.grown = 0
	if !s.budget.isExceeded() {
		return false
	}
	n, share := s.known.n, s.budget.fairShare()
	drop := countAbove(n, share)
	if above := countAbove(n, share/8); grown > 0 && s.budget.isFarExceeded() {
		drop = max(drop, min(max(grown, n/8), above))
	}
	if drop = min(drop, n-minKept); drop > 0 {
		s.evictOldest(drop)
	}
	return s.budget.isExceeded()
}

// countAbove counts the producers of n that are above a number, if those are more than an eighth of it.
func countAbove(n, most int) int {
	if n-most <= most/8 {
		return 0
	}
	return n - most
}

// evictOldest forgets a number of producers, the longest unused ones.
func (s *State) evictOldest(drop int) {
	used := make([]record.Offset, s.known.n)
	for i := range used {
		used[i] = s.known.at(i).lastOffset()
	}
	slices.Sort(used)
	upTo := used[drop-1]
	left := drop
	s.keep(func(p *entry) bool {
		if left > 0 && p.lastOffset() <= upTo {
			left--
			return false
		}
		return true
	})
	s.budget.evicted.Add(int64(drop))
}

// CutAt forgets the batches that end at an offset or behind it, as a log does that is truncated there, and
// the producers of which nothing else is known: their next batch is accepted, whatever its sequence is.
func (s *State) CutAt(end record.Offset) {
	s.keep(func(p *entry) bool {
		if p.kept == 0 {
			return true // nothing tells where its control batch is
		}
		for p.kept > 0 && p.lastBatch().lastOffset >= end {
			p.kept--
			s.changed = true
		}
		p.appendTimes &= 1<<p.kept - 1
		return p.kept > 0
	})
}

// sweepIntervalMS is how often, at most, Expire looks for expired producers.
const sweepIntervalMS = 60_000

// Expire removes producers that have appended nothing for the time after. now and after
// are in ms; if after is 0 or less, producers never expire. Expire makes all batches
// final that were applied.
func (s *State) Expire(now, after int64) {
	s.Confirm()
	if now < s.lastSweep { // the clock was set back
		s.lastSweep = now
	}
	if after <= 0 || now-s.lastSweep < min(sweepIntervalMS, after) {
		return
	}
	s.lastSweep = now
	s.keep(func(p *entry) bool {
		p.lastSeen = min(p.lastSeen, now) // the clock may have been set back
		return now-p.lastSeen < after
	})
}

// Description is one producer as DescribeProducers shows it.
type Description struct {
	ID           int64
	Epoch        int16
	LastSequence int32
	LastTime     int64 // ms
	LastOffset   record.Offset
}

// Len is the number of producers.
func (s *State) Len() int { return s.known.n }

// Removals counts how often producers were removed, which changes the places of others.
func (s *State) Removals() int { return s.removals }

// Describe lists the producers.
func (s *State) Describe() []Description { return s.DescribeMore(nil, s.known.n) }

// DescribeMore appends to a list that has the first producers the next ones, up to n.
func (s *State) DescribeMore(list []Description, n int) []Description {
	from := len(list)
	to := from + max(0, min(n, s.known.n-from))
	if list == nil {
		list = make([]Description, 0, to)
	}
	for i := from; i < to; i++ {
		p := s.known.at(i)
		out := Description{ID: p.id, Epoch: p.epoch, LastSequence: record.NoSequence, LastTime: p.lastSeen, LastOffset: -1}
		if p.kept > 0 {
			last := p.lastBatch()
			out.LastSequence, out.LastTime, out.LastOffset = last.lastSeq, last.time, last.lastOffset
		}
		list = append(list, out)
	}
	return list
}
