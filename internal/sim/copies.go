package sim

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica/progress"
)

// copier puts a node's directory back from a copy of the same run, in some seeds. Directories get another generation from time to time
// there. A copy that is older than the one which the metadata know loses its places, and nothing else. The metadata cannot tell a newer
// copy from the directory itself, so its replicas keep their places: see copies. The copier draws from a source of its own, so that other
// seeds are the histories that they would be without it.
type copier struct {
	rng  *rand.Rand
	made *disk
}

// copies is what is known of a partition's replicas that lack committed records, and have a place for all that: those of
// directories that were put back, and those that have followed one of them since. What is promised of the partition while there are
// some:
//
//   - a member that knows of committed records does not cut them
//   - a leader does not go on when a member has told it that it lacks records, and forgets no such member
//   - a leader has a follower leave that shows less than is committed
//   - as long as a member has all committed records, nothing else is committed in their place
//
// When no member is left that has them, more is lost than the rules promise.
type copies struct {
	p     *partition
	lack  [maxNodes + 1]bool
	put   [maxNodes + 1]int64         // the registration of the node whose directory was put back last
	had   [maxNodes + 1]record.Offset // the end of its log before that, up to which a leader may have heard of it
	since [maxNodes + 1]int32         // the epoch of the leader that they have followed
	told  [maxNodes + 1]objection
	led   []record.Epoch // the leader epochs of replicas that lacked records
}

// objection says that a node's process has told a leader that it lacks committed records.
type objection struct {
	leaderEpoch record.Epoch
	brokerEpoch int64
}

// randomOf draws a time of less than so many milliseconds.
func randomOf(rng *rand.Rand, below int64) time.Duration {
	return time.Duration(rng.Int64N(below * int64(time.Millisecond)))
}

// beginCopying has directories be put back in two of eight seeds. No mutant of other rules has such a seed. In one of them most
// copies come when other nodes have lost their power, so that a copy may lead before they are back; in the other one few do, so that
// copies follow.
func (c *cluster) beginCopying() {
	if c.seed%4 == 0 {
		c.copier.rng = rand.New(rand.NewPCG(c.seed, 0xc09e))
		c.after(500*ms, c.takeCopy)
		for _, n := range c.nodes {
			c.after(randomOf(c.copier.rng, 400), func() { c.raiseGeneration(n) })
		}
	}
}

// raiseGeneration gives a node's directory another generation, if the node runs. What is on disk by now is in all copies that have it.
func (c *cluster) raiseGeneration(n *node) {
	rng := c.copier.rng
	c.after(100*ms+randomOf(rng, 400), func() { c.raiseGeneration(n) })
	if d := n.disk; n.up && d.recorded == n.epoch && n.epoch > 0 {
		n.later(ms+randomOf(rng, 5), func() { d.generation++ })
	}
}

// takeCopy makes a copy of some node's directory, while the node runs.
func (c *cluster) takeCopy() {
	rng := c.copier.rng
	n := c.nodes[rng.IntN(len(c.nodes))]
	if !c.healing && n.up && n.usedEpoch > 0 && n.disk.recorded == n.usedEpoch {
		c.copier.made = n.disk.clone()
		c.copier.made.clean = false
		c.note(note{what: "its directory is copied", node: n.id})
	}
	if !c.healing {
		c.after(50*ms+randomOf(rng, 500), c.putCopyBack)
	}
}

// putCopyBack puts a node's directory back from the copy, if the node's run goes on since. Other nodes may lose their power with it.
func (c *cluster) putCopyBack() {
	rng, d := c.copier.rng, c.copier.made
	if c.healing {
		return
	}
	c.after(randomOf(rng, 200), c.takeCopy)
	if d == nil || !d.n.up || d.recorded != d.n.usedEpoch || d.n.disk.recorded != d.recorded || d.n.disk.directory != d.directory || !c.mayLoseDisk(d.n) {
		return
	}
	n := d.n
	if !c.survivesLoss(n, func(*partition) bool { return true }) {
		return
	}
	c.copier.made = nil
	c.note(note{what: "FAULT: its directory is put back from a copy of the same run", node: n.id})
	c.saw("copy of the same run put back")
	c.faults++
	others := rng.IntN(3) == 0 == (c.seed%8 == 4)
	for _, m := range c.nodes {
		if m != n && m.up && others {
			m.cutPower()
			m.restartAfter(randomOf(rng, 700))
		}
	}
	n.cutPower()
	d.losePower()
	before := n.disk
	n.disk = d
	c.loseMetadata(n)
	isKnown := d.generation < generationOf(c.truth.image.Brokers[n.id])
	if isKnown {
		c.saw("copy from before the last generation put back")
	}
	for _, p := range c.truth.parts {
		if isKnown {
			p.noteLoss(n.id)
			p.touch()
		} else {
			p.copies.noteCopy(n, before.find(p))
		}
	}
	n.restartAfter(randomOf(rng, 60))
}

// noteCopy takes that a node's log is that of a copy.
func (k *copies) noteCopy(n *node, before *diskLog) {
	p := k.p
	if l := n.disk.find(p); l != nil {
		l.agreed = record.NoEpoch
	}
	k.lack[n.id], k.put[n.id], k.had[n.id] = true, n.usedEpoch, 0
	if before != nil {
		k.had[n.id] = before.Committed()
	}
	if mp := p.now(); mp != nil {
		p.weighLosses(mp)
	}
	p.touch()
}

// lacks tells whether a replica lacks committed records since a directory was put back.
func (k *copies) lacks(id int32) bool {
	p := k.p
	return id >= 0 && k.lack[id] && p.commonEnd(p.c.node(id).disk.find(p)) < p.end()
}

// isLedByCopy tells whether the leader lacks committed records since a directory was put back.
func (k *copies) isLedByCopy() bool {
	mp := k.p.now()
	return mp != nil && mp.Leader >= 0 && k.lacks(mp.Leader)
}

// wasCopy tells whether a replica was put back, or has followed one that was: it may have been found to lack records that it has by now.
func (k *copies) wasCopy(id int32) bool { return id >= 0 && (k.put[id] > 0 || k.since[id] > 0) }

// followCopies finds out which replicas still lack records. Those are some, too, that have followed a leader which lacks them.
func (k *copies) followCopies(mp *meta.Partition) {
	p := k.p
	if k.lack == [maxNodes + 1]bool{} {
		return
	}
	leads := k.isLedByCopy()
	for _, n := range p.c.nodes {
		l := n.disk.find(p)
		lacks := p.commonEnd(l) < p.end() || l == nil || l.Committed() < k.had[n.id]
		isRegistered := brokerEpochOf(p.c.truth.image.Brokers[n.id]) != k.put[n.id] // before that, what it had counts as what it has
		switch isMember := slices.Contains(membersOf(mp), n.id); {
		case !lacks || !isMember:
			k.lack[n.id] = k.lack[n.id] && !isRegistered
		case leads && !k.lack[n.id] && !p.tainted[n.id]:
			k.lack[n.id], k.since[n.id] = true, mp.LeaderEpoch
			p.c.saw("replica has followed an old copy")
		}
	}
	p.weighLosses(mp)
}

// noteJoined finds the replicas that a leader which lacks records has had join.
func (k *copies) noteJoined(old, mp *meta.Partition) {
	if old.Leader < 0 || !k.lacks(old.Leader) {
		return
	}
	for _, id := range mp.ISR {
		if !slices.Contains(membersOf(old), id) {
			k.lack[id], k.since[id] = true, old.LeaderEpoch
		}
	}
}

// checkCut proves that a replica which counts as complete does not cut what it knows to be committed.
func (k *copies) checkCut(r *replica, to record.Offset) {
	p := k.p
	known := min(r.log.HighWatermark(), r.log.Committed())
	_, epoch := r.follower.Leader()
	if slices.Contains(k.led, epoch) && to < p.end() && r.log.End() > to {
		k.lack[r.n.id], k.since[r.n.id] = true, int32(epoch)
	}
	if slices.Contains(k.led, epoch) {
		r.log.highest = 0
	}
	if p.exempt || to >= known || !slices.Contains(membersOf(&meta.Partition{ISR: r.assigned.ISR, Eligible: r.assigned.Eligible}), r.n.id) {
		return
	}
	p.fail("node %d is in sync or eligible, and cuts its log at %d, though it knows that what is below %d is committed", r.n.id, to, known)
}

// noteObjection takes that a leader was told by a follower that it lacks committed records.
func (k *copies) noteObjection(r *replica, o *progress.Report) {
	mp := k.p.now()
	isProposing := r.proposedAt == mp.PartitionEpoch && len(r.proposed) > 0 // an earlier proposal may be accepted yet
	if mp.Leader == r.n.id && record.Epoch(mp.LeaderEpoch) == o.Epoch && r.leader.Epoch() == o.Epoch && k.lacks(r.n.id) && !isProposing {
		k.told[o.Replica] = objection{o.Epoch, o.BrokerEpoch}
	}
}

// checkObjectors proves that a leader does not have the controller forget a member that has told it that it lacks records.
func (k *copies) checkObjectors(old, mp *meta.Partition) {
	p := k.p
	for _, id := range membersOf(old) {
		b := p.c.truth.image.Brokers[id]
		isTold := k.told[id] == objection{record.Epoch(mp.LeaderEpoch), brokerEpochOf(b)}
		if isTold && b.State == meta.BrokerActive && !p.exempt && !p.c.truth.configured && !p.c.truth.mayForget(id) && slices.Contains(mp.Replicas, id) && !slices.Contains(membersOf(mp), id) &&
			p.commonEnd(p.c.node(id).disk.find(p)) >= p.end() {
			p.fail("node %d has told the leader %d that it lacks records, and is forgotten: in sync %v, eligible %v", id, mp.Leader, mp.ISR, mp.Eligible)
		}
	}
	if k.hasGivenUp(old, mp) {
		for _, id := range mp.ISR { // the leader knows which replicas have followed it, or may have
			k.lack[id] = k.lack[id] && k.since[id] != old.LeaderEpoch
		}
	}
}

// hasGivenUp tells whether a leader that lacks records has given its place to another replica.
func (k *copies) hasGivenUp(old, mp *meta.Partition) bool {
	t, led := k.p.c.truth, old.Leader
	return led >= 0 && k.lack[led] && mp.Leader >= 0 && !slices.Contains(membersOf(mp), led) && slices.Contains(mp.Replicas, led) &&
		!t.fencing[led] && !t.mayForget(led) && t.image.Brokers[led].State == meta.BrokerActive
}

func generationOf(b *meta.Broker) int64 {
	if b == nil {
		return 0
	}
	return b.Generation
}

func brokerEpochOf(b *meta.Broker) int64 {
	if b == nil {
		return -1
	}
	return b.Epoch
}

// checkProposal proves that a leader proposes no member that has shown less than is committed, and calls those damaged.
func (k *copies) checkProposal(r *replica, next *progress.Proposal) {
	p := k.p
	for _, id := range r.assigned.Replicas {
		if !r.showsLess(id) {
			continue
		}
		if slices.ContainsFunc(next.ISR, func(m progress.Member) bool { return m.ID == id }) {
			p.fail("node %d proposes that node %d be in sync, which lacks records below its high watermark %d", r.n.id, id, r.leader.HighWatermark())
		}
		if slices.Contains(append(slices.Clone(r.assigned.ISR), r.assigned.Eligible...), id) && !slices.Contains(next.Damaged, id) {
			p.fail("node %d lets node %d be eligible, which lacks records below its high watermark %d", r.n.id, id, r.leader.HighWatermark())
		}
	}
}

// checkSilence proves that a leader does not leave a follower in sync or eligible that has shown less than is committed.
func (k *copies) checkSilence(r *replica) {
	p := k.p
	if r.proposedAt == r.assigned.PartitionEpoch && len(r.proposed) > 0 {
		return // a proposal is under way, or is repeated soon
	}
	for _, id := range append(slices.Clone(r.assigned.ISR), r.assigned.Eligible...) {
		if r.showsLess(id) {
			p.fail("node %d leaves node %d in sync or eligible, which lacks records below its high watermark %d", r.n.id, id, r.leader.HighWatermark())
		}
	}
}

// fetchedEnd is the end of what a follower's process has shown to have on disk, by fetches that a leader has served.
type fetchedEnd struct {
	brokerEpoch int64 // 0: nothing was served to it
	durable     record.Offset
}

// noteFetched takes a fetch that was served.
func (r *replica) noteFetched(q *progress.Fetch) {
	e := &r.fetched[q.Replica]
	if q.BrokerEpoch > e.brokerEpoch {
		*e = fetchedEnd{brokerEpoch: q.BrokerEpoch}
	}
	e.durable = max(e.durable, min(q.Durable, q.Offset))
}

// noteReported takes a report of a durable end, or of what the leader lacks.
func (r *replica) noteReported(q *progress.Report, objects bool) {
	if objects {
		r.part.copies.noteObjection(r, q)
	} else if e := &r.fetched[q.Replica]; q.BrokerEpoch == e.brokerEpoch && q.Epoch == r.leader.Epoch() {
		e.durable = max(e.durable, q.Durable)
	}
}

// showsLess tells whether a follower has shown, and does have, less than the leader knows to be committed.
func (r *replica) showsLess(id int32) bool {
	e, l, hw := r.fetched[id], r.n.c.node(id).disk.find(r.part), r.leader.HighWatermark()
	return e.brokerEpoch > 0 && e.durable < hw && l != nil && l.End() < hw
}
