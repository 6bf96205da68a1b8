package mirror

import (
	"time"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror/progress"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/txn/entry"
)

// firstReading is the local leader epoch in which a reading begins: above the epochs of sources, so that none is ever raised.
const firstReading record.Epoch = 1 << 30

// reading reads a partition of the coordinators' log of a source by the machine of a mirror, which knows when it has all that the source had committed. It is the Log of that machine, and keeps nothing of the log but where its
// epochs end, and the last batch. It belongs to its partition's mu.
type reading struct {
	of     *evidence
	number int32
	p      *partition

	start, end record.Offset
	last       progress.Batch
	epochs     []progress.Tail // ascending
}

// mostReadEpochs is how many epochs a reading knows the ends of: the last ones.
const mostReadEpochs = 64

// newReading makes a partition that reads a partition of the coordinators' log of a link's source.
func newReading(l *link, number int32) *partition {
	p := newPartition(l.s, PartitionID{Number: number})
	p.reading = &reading{of: l.evidence, number: number, p: p}
	p.newest.Store(readingOrder(l, firstReading, &meta.PartitionMirror{State: meta.PartitionMirrors}))
	l.s.turns.add(p)
	return p
}

func readingOrder(l *link, e record.Epoch, m *meta.PartitionMirror) *order {
	return &order{
		epoch: e, topic: entry.Topic, of: &meta.Mirror{Link: l.id, Topic: entry.Topic}, mirror: m, link: l,
		settings: progress.Settings{Start: progress.Earliest, AcceptLoss: true, IsCompacted: true},
	}
}

// decide decides what a machine asks the controller for that reads the coordinators' log. A begin, a loss at the log's start and a halt are as it says; anything else has it begin anew. The partition's mu is held.
func (r *reading) decide(a *progress.Action) {
	o := r.p.at
	if a.Kind == progress.Declare && o.mirror.State == meta.PartitionMirrors && a.Durable.State != progress.Cutting {
		d := &a.Durable
		r.follow(readingOrder(o.link, o.epoch, &meta.PartitionMirror{State: durableStates[d.State], Reason: d.Reason, Gap: gapOf(d), Begin: *beginOf(d)}))
		return
	}
	r.start, r.end, r.last, r.epochs = 0, 0, progress.Batch{}, nil
	r.of.forgetPartition(r.number)
	r.follow(readingOrder(o.link, o.epoch+1, &meta.PartitionMirror{State: meta.PartitionMirrors}))
}

func (r *reading) follow(o *order) {
	r.p.newest.Store(o)
	r.p.s.turns.add(r.p)
}

// asOf is a time at which the source's coordinators had written nothing into this partition of their log that was not read here; Never: none is known.
func (r *reading) asOf() time.Duration {
	r.p.mu.Lock()
	defer r.p.mu.Unlock()
	if r.p.at == nil || r.p.at.mirror.State != meta.PartitionMirrors {
		return progress.Never
	}
	asOf, _ := r.p.machine.HeldAt(0)
	return asOf
}

// Open is as Log has it.
func (r *reading) Open(record.Epoch, int32) (progress.Log, error) { return r.State() }

// State is as Log has it.
func (r *reading) State() (progress.Log, error) {
	s := progress.Log{Start: r.start, End: r.end, LastEpoch: record.NoEpoch, Last: r.last}
	if n := len(r.epochs); n > 0 {
		s.LastEpoch = r.epochs[n-1].Epoch
	}
	return s, nil
}

// Append is as Log has it.
func (r *reading) Append(_ record.Epoch, batches []byte) error {
	for len(batches) > 0 {
		b, rest, err := record.Next(batches)
		if err != nil {
			return err
		}
		n := len(r.epochs)
		if b.BaseOffset() < r.end || n > 0 && b.LeaderEpoch() < r.epochs[n-1].Epoch {
			return ErrDoesNotFit
		}
		r.of.read(r.number, b, r.p.s.now())
		r.last, r.end, batches = progress.BatchOf(b), b.NextOffset(), rest
		if n > 0 && r.epochs[n-1].Epoch == b.LeaderEpoch() {
			r.epochs[n-1].End = r.end
			continue
		}
		if r.epochs = append(r.epochs, progress.Tail{Epoch: b.LeaderEpoch(), End: r.end}); n >= mostReadEpochs {
			r.epochs = r.epochs[1:]
		}
	}
	return nil
}

// OnCommit is as Log has it: nothing is written.
func (*reading) OnCommit(done func()) { done() }

// Trim is as Log has it.
func (r *reading) Trim(_ record.Epoch, to record.Offset) error {
	r.start = max(r.start, min(to, r.end))
	return nil
}

// Skip is as Log has it.
func (r *reading) Skip(_ record.Epoch, to record.Offset) error {
	r.start, r.end, r.last, r.epochs = to, to, progress.Batch{}, nil
	return nil
}

// EpochEnd is as progress.Reader has it.
func (r *reading) EpochEnd(e record.Epoch) progress.Tail {
	found := progress.Tail{Epoch: record.NoEpoch}
	for _, t := range r.epochs {
		if t.Epoch <= e {
			found = t
		}
	}
	return found
}

// BatchBefore is as progress.Reader has it. Of earlier batches nothing is kept; where one is asked for, all is read anew.
func (r *reading) BatchBefore(o record.Offset) progress.Batch {
	if r.last.Base < o {
		return r.last
	}
	return progress.Batch{}
}
