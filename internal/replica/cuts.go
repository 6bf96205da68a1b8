package replica

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica/progress"
	"github.com/leatstream/leat/internal/storage"
)

// The functions in this file have replicas make the cuts of the metadata (meta.Cut): before a replica does anything in the leader epoch of a
// cut, or in a later one, its log ends at the cut, once. Until then it neither leads nor follows: it is as if it were away.
//
//	          setLeadership, newPartition                     the log has made all cuts
//	settled -----------------------------> pending: queued -----------------------------> settled
//	                                           ^  |
//	                                           +--+  a pause after a failure, such as a full disk

// cutQueue has the replicas whose logs must make cuts.
type cutQueue struct {
	wanted chan struct{} // of size 1; filled: list is not empty

	mu   sync.Mutex
	list []*Partition // guarded by mu
}

// add has the cuts of a replica made soon, if there are any.
func (q *cutQueue) add(p *Partition) {
	if !p.cuts.isPending.Load() {
		return
	}
	q.mu.Lock()
	if !p.cuts.isQueued {
		p.cuts.isQueued = true
		q.list = append(q.list, p)
	}
	q.mu.Unlock()
	fill(q.wanted)
}

func (q *cutQueue) take() []*Partition {
	q.mu.Lock()
	defer q.mu.Unlock()
	list := q.list
	q.list = nil
	for _, p := range list {
		p.cuts.isQueued = false
	}
	return list
}

// cutters is how many logs are cut at the same time: most of the time goes by in syncs.
const cutters = 8

// run makes cuts until ctx ends. Those that fail are tried again after a pause.
func (q *cutQueue) run(ctx context.Context, h *host) {
	for ctx.Err() == nil {
		list := q.take()
		var failed atomic.Bool
		var next atomic.Int64
		var work sync.WaitGroup
		for range min(cutters, len(list)) {
			work.Go(func() {
				for i := next.Add(1) - 1; i < int64(len(list)) && ctx.Err() == nil; i = next.Add(1) - 1 {
					if !makeCuts(list[i]) {
						failed.Store(true)
						q.add(list[i])
					}
				}
			})
		}
		work.Wait()
		if failed.Load() {
			pause(ctx, h.retryPause())
			continue
		}
		select {
		case <-q.wanted:
		case <-ctx.Done():
		}
	}
}

// makeCuts has the log of a replica make the cuts of the metadata, and then has the replica go on. It returns false if that is to be tried
// again.
func makeCuts(p *Partition) (isDone bool) {
	for !p.gone.Load() && p.cuts.isPending.Load() {
		log := p.log.Load()
		hasCut, made, err := cutLog(p, log)
		if errors.Is(err, ErrClosed) {
			return p.gone.Load() || p.log.Load() == log // else another log has taken its place
		}
		if err != nil {
			failCut(p, err)
			return false
		}
		if isDone, err = endCuts(p, log, hasCut, made); err != nil {
			failCut(p, err)
			return false
		}
		if isDone {
			break
		}
	}
	if p.gone.Load() {
		return true
	}
	p.applyLeadership()
	p.mu.Lock()
	var at *slot
	if p.following != nil {
		at = p.following.slot
	}
	p.mu.Unlock()
	if at != nil {
		at.f.addDue(at)
	}
	return true
}

// cutLog makes the cuts of the present metadata. It returns the number of the last one that the log has made.
func cutLog(p *Partition, log *storage.Log) (hasCut bool, made int32, err error) {
	if made, err = log.CutNumber(); err != nil {
		return false, made, err
	}
	cut, ok := p.lead.Load().Mirror.PendingCut(made)
	if !ok {
		return false, made, nil
	}
	end, err := log.End()
	if err == nil {
		err = log.Cut(cut.Number, record.Offset(cut.Offset))
	}
	if err != nil {
		return false, made, err
	}
	if now, err := log.End(); err == nil && now < end {
		p.host.cutsMade.Add(1)
		p.host.cfg.Logger.Warn("a partition was cut, as the metadata say; what was cut is kept as a tail",
			"topic", p.topic.Name, "partition", p.id.Partition, "cut", cut.Number, "at", cut.Offset, "end", int64(now), "was", int64(end))
	}
	return true, cut.Number, nil
}

// endCuts has a replica go on whose log has made the cuts up to a number. It returns false if the metadata have another one by now.
func endCuts(p *Partition, log *storage.Log, hasCut bool, made int32) (isDone bool, err error) {
	p.fence.Lock() // no leadership begins meanwhile
	defer p.fence.Unlock()
	l := p.lead.Load()
	if p.log.Load() != log || l.Mirror.LastCut().Number > made {
		return false, nil
	}
	ends, err := logEnds(log) // nothing is appended, since the cuts are pending still
	if err != nil {
		return false, err
	}
	start, err := storage.DurableStart(log)
	if err != nil {
		return false, err
	}
	last := lastEpoch(log, ends)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cuts.made = made
	if hasCut {
		p.cuts.in, p.cuts.to = l.Epoch, ends.End
		p.begun = record.NoEpoch
	}
	p.cuts.noteShortened()
	p.committed = min(p.committed, ends.Durable)
	p.audience.cutAt(ends.End)
	if hw := record.Offset(p.hw.Load()); hw > ends.End {
		p.hw.Store(int64(ends.End))
		log.SetHighWatermark(ends.End)
	}
	p.leading.end(p.host.Now(), p.host.replication.Load().Lag)
	if fo := p.following; fo != nil && fo.machine != nil {
		fo.followLocked(l)
		fo.machine.WasCut(p.host.Now(), ends, last)
		fo.heard, fo.start = record.NoEpoch, start
	}
	p.cuts.failure.Store(nil)
	p.cuts.isPending.Store(false)
	return true, nil
}

// failCut takes that a cut could not be made. A leader has another replica take its place.
func failCut(p *Partition, err error) {
	if was := p.cuts.failure.Swap(&err); was == nil || (*was).Error() != err.Error() {
		p.host.cfg.Logger.Error("a replica cannot be cut, as the metadata say, and is of no use until that is done; it is tried again",
			"topic", p.topic.Name, "partition", p.id.Partition, "err", err)
	}
	p.advanceEnds()
}

// Tail is what a cut has taken from the log of a replica, and kept. Each replica has its own.
type Tail = storage.Tail

// TailReader reads the batches of a tail.
type TailReader = storage.TailReader

// ErrNoTail says that a replica has no tail of that cut.
var ErrNoTail = storage.ErrNoTail

// Tails lists the tails of this node's replica, the oldest cut first. If some cannot be read the others are listed, and the error says why.
func Tails(p *Partition) ([]Tail, error) { return storage.Tails(p.log.Load()) }

// OpenTail begins to read the tail of a cut. The caller must close the result.
func OpenTail(p *Partition, cut int32) (*TailReader, error) {
	return storage.OpenTail(p.log.Load(), cut)
}

// DiscardTail removes the tail of a cut from this node, durably.
func DiscardTail(p *Partition, cut int32) error { return storage.DiscardTail(p.log.Load(), cut) }

// CountTails counts the tails that this node has kept, and their bytes.
func CountTails(s *Set) (tails int, bytes int64, err error) { return storage.CountTails(s.cfg.Store) }

// TailsOf is Tails, of a partition that need not be on this node any more: its tails stay until they are discarded, or the topic is deleted.
func TailsOf(s *Set, id PartitionID) ([]Tail, error) { return storage.TailsOf(s.cfg.Store, id) }

// TailedPartitions lists the partitions of which this node may have tails, in no order.
func TailedPartitions(s *Set) []PartitionID { return storage.TailLogs(s.cfg.Store) }

// ReadTail reads bytes of a tail of a partition that TailsOf has listed, from a position on: see storage.ReadTail.
func ReadTail(s *Set, id PartitionID, listed *Tail, pos int64, dst []byte) (int, error) {
	return storage.ReadTail(s.cfg.Store, id, listed, pos, dst)
}

// DiscardTailOf is DiscardTail, of a partition that need not be on this node any more.
func DiscardTailOf(s *Set, id PartitionID, cut int32) error {
	return storage.DiscardTailOf(s.cfg.Store, id, cut)
}

// CountCuts counts the cuts that have taken records from replicas of this node since it was started.
func CountCuts(s *Set) int64 { return s.cutsMade.Load() }

// UncutReplica is a replica that cannot make a cut.
type UncutReplica struct {
	Topic string
	ID    PartitionID
	Err   error
}

// ListUncut lists the replicas of this node that cannot make the cuts of the metadata, in no order.
func ListUncut(s *Set) (list []UncutReplica) {
	for p := range s.Partitions() {
		if err := CutError(p); err != nil {
			list = append(list, UncutReplica{Topic: p.topic.Name, ID: p.id, Err: err})
		}
	}
	return list
}

// followLocked tells the machine of a leadership. The partition's mu is held.
func (fo *following) followLocked(l *Leadership) {
	p := fo.p
	if l.mustCut(p) {
		fo.machine.MustCut()
	}
	fo.machine.Follow(p.host.Now(), l.Leader, l.Epoch, l.PartitionEpoch, l.isMember(p.host.cfg.NodeID))
}

// tailOf is the answer of a leader's log for an epoch, as progress compares logs.
func tailOf(log *storage.Log, l *Leadership, e record.Epoch) (tail progress.Tail, err error) {
	if tail.Epoch, tail.End, err = log.EpochEnd(e); err != nil || !l.hasSourceEpochs() {
		return tail, err
	}
	ends, err := logEnds(log)
	return progress.TailOfMirror(e, tail, lastEpoch(log, ends), ends.End), err
}
