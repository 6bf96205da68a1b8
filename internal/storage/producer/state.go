// Package producer keeps the idempotent producers of a log. A State applies Kafka's rules
// for sequence numbers, so that a batch which is sent again is stored only once (KIP-98).
// It is encoded as a snapshot file, and decoded from one.
//
// A producer id is in one of three states. If it is unknown, every sequence is accepted,
// since its records may all have been deleted. If it has batches, the next sequence must
// follow, or the batch must be one of the last five. If it has none, which is so after a
// control batch with a new epoch, the next sequence must be 0.
//
// A State is for one goroutine at a time.
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
	LastOffset record.Offset
	Time       int64 // its largest timestamp, ms
	AppendTime bool  // the broker set Time, not the producer
	lastSeq    int32
	delta      int32 // its last offset less its first
}

// Base is the offset of its first record.
func (p *Batch) Base() record.Offset { return p.LastOffset - record.Offset(p.delta) }

func (p *Batch) firstSeq() int32 {
	return int32((int64(p.lastSeq) - int64(p.delta)) & math.MaxInt32)
}

// entry is one producer. It has no pointers, since a log may have very many producers and
// the garbage collector need not look at them.
type entry struct {
	id       int64
	lastSeen int64 // when it last appended or was recovered, ms; see Expire
	epoch    int16
	kept     int8               // how many of batches are set
	batches  [KeptBatches]Batch // the oldest first
}

func (p *entry) lastBatch() *Batch { return &p.batches[p.kept-1] }

// State has the producers of a log. The zero State has none.
type State struct {
	index     map[int64]int32 // of a producer id in list
	list      []entry
	changed   bool   // since the last snapshot
	undoLog   []undo // one for each batch since the last Confirm, the oldest first
	lastSweep int64  // when Expire last looked for expired producers, ms
}

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
	at, ok := s.index[b.ProducerID()]
	if !ok {
		return Batch{}, false, nil
	}
	p := &s.list[at]
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
	for _, known := range p.batches[:p.kept] {
		if known.lastSeq == last && known.firstSeq() == first {
			return known, true, nil
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
	at, ok := s.index[id]
	if !ok {
		at = s.addEntry(entry{id: id, epoch: b.ProducerEpoch()})
	}
	p := &s.list[at]
	s.undoLog = append(s.undoLog, undo{*p, !ok})
	s.changed = true
	p.lastSeen = now
	if e := b.ProducerEpoch(); e != p.epoch {
		p.epoch, p.kept = e, 0
	}
	if !b.Control() {
		p.pushBatch(Batch{
			LastOffset: b.LastOffset(), Time: b.MaxTimestamp(),
			lastSeq: b.LastSequence(), delta: b.LastOffsetDelta(),
			AppendTime: b.TimestampType() == record.LogAppendTime,
		})
	}
}

func (s *State) addEntry(e entry) int32 {
	if s.index == nil {
		s.index = map[int64]int32{}
	}
	at := int32(len(s.list))
	s.index[e.id] = at
	s.list = append(s.list, e)
	return at
}

func (p *entry) pushBatch(b Batch) {
	if p.kept == KeptBatches {
		copy(p.batches[:], p.batches[1:])
		p.kept--
	}
	p.batches[p.kept] = b
	p.kept++
}

// Confirm makes all batches final that were applied.
func (s *State) Confirm() { s.undoLog = s.undoLog[:0] }

// Revert undoes all batches that were applied since the last Confirm.
func (s *State) Revert() {
	for _, u := range slices.Backward(s.undoLog) {
		if u.added {
			s.list = s.list[:len(s.list)-1]
			delete(s.index, u.before.id)
		} else {
			s.list[s.index[u.before.id]] = u.before
		}
	}
	s.Confirm()
}

// sweepIntervalMS is how often, at most, Expire looks for expired producers.
const sweepIntervalMS = 60_000

// Expire removes producers that have appended nothing for the time after. now and after
// are in ms; if after is 0 or less, producers never expire. Expire makes all batches
// final that were applied.
func (s *State) Expire(now, after int64) {
	s.Confirm()            // since Revert needs the order of the list, which changes
	if now < s.lastSweep { // the clock was set back
		s.lastSweep = now
	}
	if after <= 0 || now-s.lastSweep < min(sweepIntervalMS, after) {
		return
	}
	s.lastSweep = now
	kept := s.list[:0]
	for _, p := range s.list {
		p.lastSeen = min(p.lastSeen, now) // the clock may have been set back
		if now-p.lastSeen >= after {
			delete(s.index, p.id)
			s.changed = true
			continue
		}
		s.index[p.id] = int32(len(kept))
		kept = append(kept, p)
	}
	s.list = kept
}

// Description is one producer as DescribeProducers shows it.
type Description struct {
	ID           int64
	Epoch        int16
	LastSequence int32
	LastTime     int64 // ms
	LastOffset   record.Offset
}

// Describe lists the producers.
func (s *State) Describe() []Description {
	list := make([]Description, 0, len(s.list))
	for i := range s.list {
		p := &s.list[i]
		out := Description{ID: p.id, Epoch: p.epoch, LastSequence: record.NoSequence, LastTime: p.lastSeen, LastOffset: -1}
		if p.kept > 0 {
			last := p.lastBatch()
			out.LastSequence, out.LastTime, out.LastOffset = last.lastSeq, last.Time, last.LastOffset
		}
		list = append(list, out)
	}
	return list
}
