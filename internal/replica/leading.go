package replica

import (
	"slices"
	"time"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/place"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica/progress"
	"github.com/leatstream/leat/internal/storage"
)

// retryProposal is the pause after the answer to a proposal. Usually the metadata bring the change
// before it is over.
const retryProposal = 50 * time.Millisecond

// Leadership names the leader of a partition and the replicas that are in sync. It never
// changes: a change of the metadata makes a new one.
type Leadership struct {
	Leader         int32 // -1: none
	Epoch          record.Epoch
	PartitionEpoch int32
	Replicas       []int32 // with those that are being added
	Adding         []int32
	ISR            []int32
	Eligible       []int32 // not in sync, and known to have all committed records
	// Mirror is what the partition mirrors, with the cuts that its replicas must make; nil: it never mirrored another one.
	Mirror *meta.PartitionMirror

	addingSince int32 // the partition epoch at which Adding began, or a later one
}

// newLeadership is the leadership that follows another one in the metadata (nil: there was none).
//
// The metadata do not say when a reassignment began. Where a step of more than one partition epoch
// hides whether the same one goes on, it counts as a new one. That costs no more than another fetch:
// nothing counts of an added replica that was sent before it knew of that epoch.
func newLeadership(before *Leadership, mp *meta.Partition) *Leadership {
	l := &Leadership{
		Leader: mp.Leader, Epoch: record.Epoch(mp.LeaderEpoch), PartitionEpoch: mp.PartitionEpoch,
		Replicas: mp.Replicas, Adding: mp.Adding, ISR: mp.ISR, Eligible: mp.Eligible, Mirror: mp.Mirror,
	}
	if len(l.Adding) > 0 {
		l.addingSince = l.PartitionEpoch
		if before != nil && before.PartitionEpoch+1 >= l.PartitionEpoch && slices.Equal(before.Adding, l.Adding) {
			l.addingSince = before.addingSince
		}
	}
	return l
}

// isMember tells whether a replica has all committed records, as far as the metadata know.
func (l *Leadership) isMember(id int32) bool {
	return slices.Contains(l.ISR, id) || slices.Contains(l.Eligible, id)
}

// mirrors tells whether the partition has the records of another cluster's: clients do not write to it, and its leader's epoch is not that
// of the batches.
func (l *Leadership) mirrors() bool {
	return l.Mirror != nil && l.Mirror.State != meta.PartitionPromoted
}

// isFollowing tells whether the leader appends what the source has.
func (l *Leadership) isFollowing() bool { return l.mirrors() && !l.Mirror.IsEndOfSource() }

// hasSourceEpochs tells whether the leader begins no epoch in the log, which has those of the source. When it is decided how the transactions of a promoted partition end, the leader begins its own one, in which it writes
// their markers.
func (l *Leadership) hasSourceEpochs() bool { return l.mirrors() && !l.Mirror.IsDecided }

// isReplicated tells whether there are other replicas.
func (l *Leadership) isReplicated() bool { return len(l.Replicas) > 1 }

// leading has the machine that leads a partition, with the input that the machine has. Guarded by
// Partition.mu.
type leading struct {
	machine *progress.Leader // nil: this node does not lead, or the log was not used yet
	// unreadable is the machine of a leader whose log cannot be opened; nil: it can, or was not used yet. It only gives up.
	unreadable *progress.Leader
	of         *Leadership
	minISR     int
	nodes      *nodes
	ends       progress.Ends // the highest that were seen in this epoch
	told       record.Offset // the log's start when followers were woken for it
	ticking    bool          // the partition is in Set.ticking
	// keepsUntil is the time before which this node does not give up the partition because its disk is full.
	keepsUntil time.Duration
}

// nodes is the metadata's knowledge of all nodes. It never changes.
type nodes struct {
	brokers progress.Brokers
	racks   map[int32]string
	names   map[string]string // of the racks
}

func newNodes(img *meta.Image) *nodes {
	n := &nodes{brokers: progress.Brokers{}, racks: map[int32]string{}, names: map[string]string{}}
	for id, b := range img.Brokers {
		n.brokers[id] = progress.Broker{Epoch: b.Epoch, MayJoin: b.State == meta.BrokerActive}
		n.racks[id], n.names[b.Rack] = b.Rack, b.Rack
	}
	return n
}

// begin makes the machine of a leader epoch.
func (d *leading) begin(now time.Duration, cfg progress.Config, s progress.Start, l *Leadership, minISR int, n *nodes) {
	d.machine, d.unreadable = progress.NewLeader(now, cfg, s, assignment(l, minISR), n.brokers), nil
	d.of, d.minISR, d.nodes, d.ends = l, minISR, n, s.Log
	d.told = min(d.told, s.Log.Start) // a cut may have taken all records, and the start is an earlier one
}

// leadsIn tells whether there is a machine for a leader epoch.
func (d *leading) leadsIn(e record.Epoch) bool { return d.machine != nil && d.machine.Epoch() == e }

// update tells the machine of the metadata, as far as they have changed, and of the log's ends. Those
// that another goroutine has read later may have come before them. A leader's ends never fall.
func (d *leading) update(now time.Duration, l *Leadership, minISR int, n *nodes, ends progress.Ends) {
	if d.nodes != n {
		d.machine.BrokersChanged(now, n.brokers)
		d.nodes = n
	}
	if d.of != l || d.minISR != minISR {
		d.machine.Assigned(now, assignment(l, minISR))
		d.of, d.minISR = l, minISR
	}
	d.ends.Start = max(d.ends.Start, ends.Start)
	d.ends.End = max(d.ends.End, ends.End)
	d.ends.Durable = max(d.ends.Durable, ends.Durable)
	d.machine.Moved(now, d.ends)
}

// takeNewStart tells whether the log's start has moved since the last call.
func (d *leading) takeNewStart() bool {
	moved := d.ends.Start > d.told
	d.told = d.ends.Start
	return moved
}

// wantsTick tells whether time alone may change something for a machine, and the partition is not in Set.ticking
// yet. The caller puts it there.
func (d *leading) wantsTick(m *progress.Leader) bool {
	if d.ticking || !d.of.isReplicated() || !m.AwaitsTime() {
		return false
	}
	d.ticking = true
	return true
}

// ackError is the error for producers with acks=all whose records are committed; nil: enough
// replicas are in sync to keep the promise that this makes.
func (d *leading) ackError(hw record.Offset) error {
	if _, enough := d.machine.Acked(hw); !enough {
		return ErrNotEnoughAfterAppend
	}
	return nil
}

// findNearest finds the replica from which a reader in a rack should read at an offset: one in that
// rack that has the offset, of those the one that has most, or this node (KIP-392).
func (d *leading) findNearest(self int32, rack string, at record.Offset) int32 {
	best, most := self, record.Offset(-1)
	if d.nodes.racks[self] == rack {
		return self
	}
	for _, id := range d.of.Replicas {
		start, end, ok := d.machine.FollowerEnds(id)
		if !ok || !d.nodes.brokers[id].MayJoin || d.nodes.racks[id] != rack || !slices.Contains(d.of.ISR, id) {
			continue
		}
		if start <= at && at <= end && end > most {
			best, most = id, end
		}
	}
	return best
}

// minInSync is how many replicas must be in sync for a partition to commit, by the rule that the
// controller has, too: if that took a smaller number, it would take replicas for complete that are not.
func minInSync(s *Settings, l *Leadership) int {
	if !l.isReplicated() {
		return 1
	}
	return place.MinISR(s.Settings, &meta.Partition{Replicas: l.Replicas, Adding: l.Adding})
}

// assignment is the partition's part of the metadata as the machines see it.
func assignment(l *Leadership, minISR int) progress.Assignment {
	return progress.Assignment{
		PartitionEpoch: l.PartitionEpoch, Replicas: l.Replicas, Adding: l.Adding, AddingSince: l.addingSince, ISR: l.ISR, Eligible: l.Eligible, MinISR: minISR,
	}
}

// logEnds are a log's ends. The committed one is read first, so that it is never above the end.
func logEnds(log *storage.Log) (ends progress.Ends, err error) {
	if ends.Durable, err = log.Committed(); err != nil {
		return ends, err
	}
	if ends.Start, err = log.Start(); err != nil {
		return ends, err
	}
	ends.End, err = log.End()
	return ends, err
}

// beginning is the state in which a replica begins to lead.
func beginning(log *storage.Log, l *Leadership, ends progress.Ends) progress.Start {
	s := progress.Start{Epoch: l.Epoch, EpochStart: ends.End, Log: ends}
	if hw, err := log.HighWatermark(); err == nil {
		s.HighWatermark = hw
	}
	if l.hasSourceEpochs() {
		return s // the log does not begin the epoch, and that of its batches is another matter
	}
	// The log may have begun the epoch, and have records of it.
	if e, at, err := log.EpochEnd(l.Epoch - 1); err == nil && e != record.NoEpoch {
		s.EpochStart = at
	} else if l.Epoch == 0 {
		s.EpochStart = ends.Start
	}
	return s
}
