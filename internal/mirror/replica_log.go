package mirror

import (
	"errors"
	"fmt"

	"github.com/leatstream/leat/internal/mirror/progress"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica"
)

// searchBytes is how many bytes are read at a time where the last batch before an offset is looked for.
const searchBytes = 64 << 10

// ReplicaLog is the Log of a replica of this node. It belongs to one goroutine at a time.
type ReplicaLog struct {
	p    *replica.Partition
	l    *replica.Leadership // since Open
	last progress.Batch      // the last batch, if it ends where the log does
	// With isSkipped the log counts as one that has no records and begins at skipped, where it goes on with the next append: there will be a gap, and the records before it go when the start is moved
	// there. If nothing is appended before another leadership begins, all of that is found out anew.
	isSkipped bool
	skipped   record.Offset
}

// NewReplicaLog makes the Log of a partition of which this node has a replica.
func NewReplicaLog(p *replica.Partition) *ReplicaLog { return &ReplicaLog{p: p} }

// Open is as Log has it.
func (r *ReplicaLog) Open(epoch record.Epoch, _ int32) (progress.Log, error) {
	*r = ReplicaLog{p: r.p, l: r.p.Leadership()}
	if err := r.p.CheckLeader(epoch); err != nil || r.l.Epoch != epoch { // so also while cuts are to be made
		return progress.Log{}, ErrNotLeader
	}
	return r.State()
}

// State is as Log has it.
func (r *ReplicaLog) State() (s progress.Log, err error) {
	ends, err := replica.MirrorEnds(r.p)
	if err != nil {
		return s, err
	}
	s.Start, s.End, s.LastEpoch = ends.Start, ends.End, ends.LastEpoch
	if r.isSkipped {
		return progress.Log{Start: r.skipped, End: r.skipped, LastEpoch: record.NoEpoch}, nil
	}
	if r.last.Next != s.End {
		r.last = r.BatchBefore(s.End)
	}
	if r.last.Next == s.End {
		s.Last = r.last
	}
	return s, nil
}

// Append is as Log has it.
func (r *ReplicaLog) Append(epoch record.Epoch, batches []byte) error {
	if r.l.Epoch != epoch {
		return ErrNotLeader
	}
	err := nameError(r.p.AppendMirror(r.l, batches))
	if err == nil {
		r.last, r.isSkipped = lastOf(batches), false
	}
	return err
}

// lastOf is the last of some batches.
func lastOf(batches []byte) progress.Batch {
	for {
		b, rest, err := record.Next(batches)
		switch {
		case err != nil:
			return progress.Batch{}
		case len(rest) == 0:
			return progress.BatchOf(b)
		}
		batches = rest
	}
}

// OnCommit is as Log has it.
func (r *ReplicaLog) OnCommit(done func()) {
	end, err := r.p.End()
	if err != nil {
		done()
		return
	}
	r.p.Wait(&replica.Waiter{Owner: commitWaiter(done), Acks: replica.AcksLeader, Epoch: r.l.Epoch}, end)
}

// commitWaiter calls a function when a wait has ended, in whatever way.
type commitWaiter func()

// Complete calls the function.
func (f commitWaiter) Complete(int32, error) { f() }

// nameError makes an error of a replica one of this package, where a machine tells it apart.
func nameError(err error) error {
	for _, n := range []struct{ from, to error }{
		{replica.ErrNotLeader, ErrNotLeader},
		{replica.ErrFencedEpoch, ErrNotLeader},
		{replica.ErrUnknownEpoch, ErrNotLeader},
		{replica.ErrEpochAhead, ErrEpochAhead},
		{replica.ErrNotMirroring, ErrNotMirroring},
		{replica.ErrOffsetOutOfRange, ErrDoesNotFit},
		{replica.ErrEpochBack, ErrDoesNotFit},
	} {
		if errors.Is(err, n.from) {
			return fmt.Errorf("%w: %w", n.to, err)
		}
	}
	return err
}

// Trim is as Log has it.
func (r *ReplicaLog) Trim(epoch record.Epoch, to record.Offset) error {
	if r.l.Epoch != epoch {
		return ErrNotLeader
	}
	return nameError(replica.StartMirrorAt(r.p, r.l, to))
}

// Skip is as Log has it.
func (r *ReplicaLog) Skip(epoch record.Epoch, to record.Offset) error {
	if r.l.Epoch != epoch {
		return ErrNotLeader
	}
	if err := replica.StartMirrorAt(r.p, r.l, to); err != nil && !errors.Is(err, replica.ErrOffsetOutOfRange) { // that says that it has records
		return nameError(err)
	}
	ends, err := replica.MirrorEnds(r.p)
	r.isSkipped, r.skipped = ends.Start != to || ends.End != to || ends.LastEpoch != record.NoEpoch, to
	return err
}

// EpochEnd is as progress.Reader has it.
func (r *ReplicaLog) EpochEnd(e record.Epoch) progress.Tail {
	epoch, end, err := replica.MirrorEpochEnd(r.p, e)
	if err != nil || epoch == record.NoEpoch {
		return progress.Tail{Epoch: record.NoEpoch}
	}
	return progress.Tail{Epoch: epoch, End: end}
}

// BatchBefore is as progress.Reader has it. Where offsets are missing before the one in question, it looks further and further back.
func (r *ReplicaLog) BatchBefore(o record.Offset) (last progress.Batch) {
	ends, err := replica.MirrorEnds(r.p)
	if err != nil {
		return last
	}
	start := ends.Start
	o = min(o, ends.End)
	for back := record.Offset(1); o > start; back *= 8 {
		from := max(start, o-back)
		for at := from; at < o; {
			batches, err := r.p.ReadBatches(at, o, searchBytes)
			if err != nil || len(batches) == 0 {
				break
			}
			for len(batches) > 0 {
				b, rest, err := record.Next(batches)
				if err != nil || b.BaseOffset() >= o {
					return last
				}
				last, at, batches = progress.BatchOf(b), b.NextOffset(), rest
			}
		}
		if !last.IsNone() || from == start {
			return last
		}
	}
	return last
}
