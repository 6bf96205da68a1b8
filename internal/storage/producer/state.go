// Package producer keeps what a log knows of its idempotent producers: State applies
// Kafka's rules for sequence numbers, by which a batch that is sent again is stored once
// (KIP-98), and turns into a snapshot file and back.
//
// A producer id is in one of three states here: unknown (any sequence is right, since its
// records may all have been deleted), known with batches (the next sequence must follow,
// or the batch be one of the last five), and known without batches (after a control
// batch of a new epoch: the next sequence must be 0).
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
	// ErrOutOfOrderSequence is returned for a batch whose sequence does not follow.
	ErrOutOfOrderSequence = errors.New("out of order sequence")
	// ErrFenced is returned for a batch with an older producer epoch than one seen before.
	ErrFenced = errors.New("producer epoch is fenced")
)

// KeptBatches is how many of a producer's last batches are known: as many as a client may
// have in flight.
const KeptBatches = 5

// Batch is one of a producer's last batches.
type Batch struct {
	LastOffset record.Offset
	Time       int64 // ms, its largest timestamp
	AppendTime bool  // Time is the broker's
	lastSeq    int32
	delta      int32 // its last offset less its first
}

// Base is the offset of its first record.
func (p *Batch) Base() record.Offset { return p.LastOffset - record.Offset(p.delta) }

func (p *Batch) firstSeq() int32 {
	return int32((int64(p.lastSeq) - int64(p.delta)) & math.MaxInt32)
}

// entry is one producer. It has no pointers: a log may know very many.
type entry struct {
	id      int64
	seen    int64 // ms, when it last appended or was recovered; it expires by that
	epoch   int16
	n       int8 // batches known
	batches [KeptBatches]Batch
}

func (p *entry) last() *Batch { return &p.batches[p.n-1] }

// State is what a log knows of its producers. The zero State knows none.
type State struct {
	at      map[int64]int32 // an id's place in list
	list    []entry
	changed bool // since the last snapshot
	undo    []undo
	swept   int64 // ms, when expired producers were last looked for
}

// undo is what a producer was before an append that may yet fail.
type undo struct {
	was   entry
	fresh bool // it was not known
}

// Changed tells whether something changed since the last snapshot.
func (s *State) Changed() bool { return s.changed }

// SetChanged says whether the last snapshot lacks something.
func (s *State) SetChanged(changed bool) { s.changed = changed }

// Check judges a batch that a client sends. It returns the earlier batch, and true, where
// the batch is one of the producer's last ones again, and an error where it may not be
// appended.
func (s *State) Check(b record.Batch) (earlier Batch, duplicate bool, err error) {
	at, ok := s.at[b.ProducerID()]
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
	case (epoch > p.epoch || p.n == 0) && first != 0:
		return Batch{}, false, fmt.Errorf("%w: producer %d began its epoch %d with sequence %d", ErrOutOfOrderSequence, p.id, epoch, first)
	case epoch > p.epoch || p.n == 0:
		return Batch{}, false, nil
	}
	for _, known := range p.batches[:p.n] {
		if known.lastSeq == last && known.firstSeq() == first {
			return known, true, nil
		}
	}
	if want := record.AddSequence(p.last().lastSeq, 1); first != want {
		return Batch{}, false, fmt.Errorf("%w: producer %d sent %d after %d", ErrOutOfOrderSequence, p.id, first, p.last().lastSeq)
	}
	return Batch{}, false, nil
}

// Apply takes a batch that was or is about to be appended; now is the time in ms. It can
// be undone until Settle.
func (s *State) Apply(b record.Batch, now int64) {
	id := b.ProducerID()
	at, ok := s.at[id]
	if !ok {
		at = s.add(entry{id: id, epoch: b.ProducerEpoch()})
	}
	p := &s.list[at]
	s.undo = append(s.undo, undo{*p, !ok})
	s.changed = true
	p.seen = now
	if e := b.ProducerEpoch(); e != p.epoch {
		p.epoch, p.n = e, 0
	}
	if !b.Control() {
		p.push(Batch{
			LastOffset: b.LastOffset(), Time: b.MaxTimestamp(),
			lastSeq: b.LastSequence(), delta: b.LastOffsetDelta(),
			AppendTime: b.TimestampType() == record.LogAppendTime,
		})
	}
}

func (s *State) add(e entry) int32 {
	if s.at == nil {
		s.at = map[int64]int32{}
	}
	at := int32(len(s.list))
	s.at[e.id] = at
	s.list = append(s.list, e)
	return at
}

func (p *entry) push(b Batch) {
	if p.n == KeptBatches {
		copy(p.batches[:], p.batches[1:])
		p.n--
	}
	p.batches[p.n] = b
	p.n++
}

// Settle makes everything that was applied final.
func (s *State) Settle() { s.undo = s.undo[:0] }

// Revert takes back everything that was applied since the last Settle.
func (s *State) Revert() {
	for _, u := range slices.Backward(s.undo) {
		if u.fresh {
			s.list = s.list[:len(s.list)-1]
			delete(s.at, u.was.id)
		} else {
			s.list[s.at[u.was.id]] = u.was
		}
	}
	s.Settle()
}

// sweepEvery is how often, in ms, expired producers are looked for.
const sweepEvery = 60_000

// Expire forgets producers that were not seen for a time. now and after are in ms;
// after <= 0: for ever. It makes everything that was applied final.
func (s *State) Expire(now, after int64) {
	s.Settle()         // what was applied is undone by its place in the list
	if now < s.swept { // the clock was set back
		s.swept = now
	}
	if after <= 0 || now-s.swept < min(sweepEvery, after) {
		return
	}
	s.swept = now
	kept := s.list[:0]
	for _, p := range s.list {
		p.seen = min(p.seen, now) // the clock may have been set back
		if now-p.seen >= after {
			delete(s.at, p.id)
			s.changed = true
			continue
		}
		s.at[p.id] = int32(len(kept))
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
		out := Description{ID: p.id, Epoch: p.epoch, LastSequence: record.NoSequence, LastTime: p.seen, LastOffset: -1}
		if p.n > 0 {
			last := p.last()
			out.LastSequence, out.LastTime, out.LastOffset = last.lastSeq, last.Time, last.LastOffset
		}
		list = append(list, out)
	}
	return list
}
