package sim

import (
	"fmt"
	"slices"

	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/place"
	"github.com/leatstream/leat/internal/record"
	engine "github.com/leatstream/leat/internal/replica"
	"github.com/leatstream/leat/internal/replica/progress"
	"github.com/leatstream/leat/internal/replica/progress/memlog"
)

// replica is a node's replica of a partition in one life of the node. It runs the machines of package
// progress on the node's log.
type replica struct {
	n    *node
	part *partition
	log  *diskLog

	leader   *progress.Leader
	follower *progress.Follower
	assigned progress.Assignment
	// pageCache tells that the topic's settings commit records before they are on disk.
	pageCache bool
	waiting   []*ackWait    // in the order of their ends
	shard     *shard        // of the committed offsets
	machine   *machineShard // of a coordinator, in a cluster with transactions
	// verifications are those of the transactions that are to begin here.
	verifications engine.Verifications

	// These belong to the checks.
	fetched    [maxNodes + 1]fetchedEnd
	begunWith  record.Offset // the high watermark with which it began to lead
	proposed   []int32       // everybody who was proposed at the partition epoch proposedAt
	proposedAt int32
}

// ackWait waits until records are acknowledged.
type ackWait struct {
	end     record.Offset
	acksAll bool
	answer  func(outcome produceOutcome)
}

func newReplica(n *node, p *partition) *replica { return &replica{n: n, part: p, log: n.disk.log(p)} }

func (r *replica) touch() { r.part.touch() }

func (r *replica) note(what string, a, b int64) {
	r.n.c.note(note{what: what, node: r.n.id, part: r.part.index, a: a, b: b})
}

func (r *replica) ends() progress.Ends {
	return progress.Ends{Start: r.log.Start(), End: r.log.End(), Durable: r.log.Committed()}
}

// lastEpoch is the epoch of the last record.
func (r *replica) lastEpoch() record.Epoch { return r.log.EpochAt(r.log.End() - 1) }

// follow brings the replica to its place in the node's image.
func (r *replica) follow(t *meta.Topic, p *meta.Partition) {
	n := r.n
	settings := meta.TopicSettings(n.image, n.static, t)
	r.pageCache = settings.FlushMessages > 1
	r.assigned = progress.Assignment{
		PartitionEpoch: p.PartitionEpoch, Replicas: p.Replicas, Adding: p.Adding, AddingSince: r.findAddingSince(p), ISR: p.ISR,
		Eligible: p.Eligible, MinISR: place.MinISR(settings, p),
	}
	epoch := record.Epoch(p.LeaderEpoch)
	switch {
	case p.Leader == n.id && r.leader != nil && r.leader.Epoch() == epoch:
		r.leader.Assigned(n.now(), r.assigned)
	case p.Leader == n.id:
		r.lead(epoch)
	default:
		r.endLeading()
		if r.follower == nil {
			r.follower = progress.NewFollower(n.id, n.epoch, retryPause, progress.Following{
				Log: r.ends(), LastEpoch: r.lastEpoch(), HighWatermark: r.log.HighWatermark(),
			})
		}
		r.follower.Follow(n.now(), p.Leader, epoch, p.PartitionEpoch, slices.Contains(membersOf(p), n.id))
	}
	r.keepProgress()
}

// findAddingSince finds the partition epoch at which a reassignment began, or a later one: the metadata do
// not say it. Where a step of more than one epoch hides whether the same one goes on, it is a new one.
func (r *replica) findAddingSince(p *meta.Partition) int32 {
	before := &r.assigned
	switch {
	case len(p.Adding) == 0:
		return 0
	case before.PartitionEpoch+1 >= p.PartitionEpoch && slices.Equal(before.Adding, p.Adding):
		return before.AddingSince
	}
	return p.PartitionEpoch
}

// lead begins to lead in an epoch.
func (r *replica) lead(epoch record.Epoch) {
	n := r.n
	before, machine := r.shard, r.machine
	r.machine = nil // it may go on
	r.endLeading()
	r.follower = nil
	r.note("leads in epoch %d from %d", int64(epoch), int64(r.log.End()))
	n.c.must(r.log.BeginEpoch(epoch))
	r.leader = progress.NewLeader(n.now(), progress.Config{ID: n.id, Lag: lagLimit, Retry: retryPause}, progress.Start{
		Epoch: epoch, EpochStart: r.log.End(), Log: r.ends(), HighWatermark: r.log.HighWatermark(),
	}, r.assigned, n.brokers)
	r.log.agreed, r.begunWith = epoch, r.leader.HighWatermark()
	r.part.noteLeader(r, epoch)
	if r.part.isOffsets() {
		r.shard = continueShard(before, r, epoch)
	}
	if r.part.isCoordinators() {
		r.machine = continueMachine(machine, r, epoch)
	}
}

// endLeading ends what only a leader does.
func (r *replica) endLeading() {
	if r.leader == nil {
		return
	}
	r.note("leads no more in epoch %d", int64(r.leader.Epoch()), 0)
	r.leader, r.shard, r.proposed, r.fetched = nil, nil, nil, [maxNodes + 1]fetchedEnd{}
	waiting := r.waiting
	r.waiting = nil
	for _, w := range waiting {
		w.answer(notLeader)
	}
	r.verifications.Outdate(func() bool { return true })
	machine := r.machine
	r.machine = nil
	machine.stop()
}

// keepProgress notes the machine's high watermark in the log, and a follower's start.
func (r *replica) keepProgress() {
	switch {
	case r.leader != nil:
		r.log.SetHighWatermark(r.leader.HighWatermark())
		r.part.commit(r)
	case r.follower != nil:
		r.log.SetHighWatermark(r.follower.HighWatermark())
		r.n.c.must(r.log.moveStart(r.follower.Start()))
	}
	r.touch()
}

// noteEnds tells the machine that more of the log is on disk.
func (r *replica) noteEnds() {
	switch {
	case r.leader != nil:
		r.leader.Moved(r.n.now(), r.ends())
	case r.follower != nil:
		r.follower.Synced(r.log.Committed())
	}
}

// act does what the machine asks for, after any event.
func (r *replica) act() {
	if r.leader == nil {
		if r.follower != nil {
			r.keepProgress()
		}
		return
	}
	r.keepProgress()
	r.answerWaiting()
	if p, ok := r.leader.Propose(r.n.now()); ok {
		r.propose(&p)
	} else {
		r.part.copies.checkSilence(r)
	}
	if r.shard != nil {
		r.shard.act()
	}
	if r.machine != nil {
		r.machine.act()
	}
}

// answerWaiting answers the producers whose records are acknowledged, at once or a little later.
func (r *replica) answerWaiting() {
	if len(r.waiting) == 0 || r.n.c.chance(0.1) {
		return
	}
	left := r.waiting[:0]
	for i, w := range r.waiting {
		outcome := acknowledged
		switch {
		case w.acksAll:
			done, enough := r.leader.Acked(w.end)
			if !done {
				left = append(left, r.waiting[i])
				continue
			}
			if !enough {
				outcome = tooFewAfterAppend
				r.n.c.saw("acknowledgement refused: too few in sync")
			}
		case r.log.Committed() < w.end:
			left = append(left, r.waiting[i])
			continue
		}
		if outcome == acknowledged && w.acksAll {
			r.part.noteAcked(r, w.end)
		}
		w.answer(outcome)
	}
	r.waiting = left
}

// append appends a record as the leader.
func (r *replica) append(value uint64) (at record.Offset) {
	at = r.log.End()
	r.noteMode()
	r.n.c.must(r.log.appendAsLeader(r.leader.Epoch(), r.pageCache, value))
	r.note("appends at %d %x", int64(at), int64(value))
	r.leader.Moved(r.n.now(), r.ends())
	r.keepProgress() // before followers are told of it
	r.n.fetcher.wakeParked(r.part)
	return at
}

// noteMode notes that records are about to be committed before they are on disk.
func (r *replica) noteMode() {
	if r.pageCache {
		r.n.disk.noteCached(r.part.topic)
	}
}

// trim moves the start forward, as retention does.
func (r *replica) trim(to record.Offset) {
	to = min(to, r.leader.HighWatermark())
	if to <= r.log.Start() {
		return
	}
	r.note("deletes the records from %d to %d", int64(r.log.Start()), int64(to))
	r.n.c.saw("records deleted")
	r.n.c.must(r.log.moveStart(to))
	r.part.start = max(r.part.start, to)
	r.leader.Moved(r.n.now(), r.ends())
}

// propose sends a proposal for the in-sync set to the active controller.
func (r *replica) propose(p *progress.Proposal) {
	n, l := r.n, r.leader
	if r.proposedAt != p.PartitionEpoch {
		r.proposed, r.proposedAt = nil, p.PartitionEpoch
	} else if len(r.proposed) > 0 {
		n.c.saw("proposal repeated")
	}
	change := controller.InSyncChange{
		Topic: r.part.topic, Partition: r.part.number, LeaderEpoch: int32(p.Epoch), PartitionEpoch: p.PartitionEpoch,
		GivesUp: p.GivesUp, Successor: p.Successor, Damaged: p.Damaged,
	}
	if p.GivesUp {
		n.c.saw("leader that lacks records gave up")
	}
	r.part.copies.checkProposal(r, p)
	for _, m := range p.ISR {
		r.proposed = append(r.proposed, m.ID)
		change.ISR = append(change.ISR, controller.Member{ID: m.ID, Epoch: m.BrokerEpoch})
	}
	n.c.note(note{what: "proposes at partition epoch %d", node: n.id, part: r.part.index, a: int64(p.PartitionEpoch), text: fmt.Sprint(p.ISR)})
	attempt := p.Attempt
	ended := func() {
		if r.leader == l {
			l.Answered(n.now(), attempt)
			r.act()
		}
	}
	epoch := n.epoch
	n.callController("alter partition", func(a *activeController, answer func(func())) {
		if n.c.injectAtProposal(r, &change, p) {
			n.c.after(200*ms+n.c.random(500*ms), func() { a.n.alterLate(n.id, epoch, &change) })
			return
		}
		a.alterPartition(n.id, epoch, &change, func(verdict string) {
			n.c.saw("proposal " + verdict)
			answer(ended)
		})
	}, ended)
}

// members are the in-sync set as the leader knows it, with everybody who was proposed since.
func (r *replica) members() []int32 {
	ids := slices.Clone(r.assigned.ISR)
	if r.proposedAt == r.assigned.PartitionEpoch {
		ids = append(ids, r.proposed...)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// readFrom reads records from an offset on, up to an end.
func (r *replica) readFrom(from, end record.Offset, most int) []memlog.Entry {
	if from >= end {
		return nil
	}
	es, err := r.log.Read(from, min(most, int(end-from)))
	r.n.c.must(err)
	return es
}
