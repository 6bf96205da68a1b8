package sim

import (
	"slices"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/record"
)

// followChange takes a change of the partition's metadata, and checks it.
func (p *partition) followChange(old, mp *meta.Partition, t *meta.Topic, prev *meta.Image) {
	p.countChange(old, mp)
	if mp.PartitionEpoch <= old.PartitionEpoch || mp.LeaderEpoch < old.LeaderEpoch || mp.Leader != old.Leader && mp.LeaderEpoch == old.LeaderEpoch {
		p.fail("the epochs do not rise: %+v becomes %+v", *old, *mp)
	}
	p.checkJoined(old, mp)
	p.copies.noteJoined(old, mp)
	p.copies.checkObjectors(old, mp)
	mayLose := mp.Leader != old.Leader && mp.Leader >= 0 && p.judgeElection(old, mp, t, prev)
	minISR, _, _ := p.c.truth.settings(p.c.truth.image, t)
	if !mayLose && len(mp.ISR) < minISR(mp) {
		p.checkEligible(old, mp)
	}
	if endsReassignment(old, mp) {
		p.checkReassigned(old, mp, minISR(mp))
	}
	if p.exempt && mp.Leader >= 0 && mp.Leader == old.Leader && mp.LeaderEpoch > old.LeaderEpoch && !p.tainted[mp.Leader] {
		p.cutTo(p.commonEnd(p.c.node(mp.Leader).disk.find(p)), record.Epoch(mp.LeaderEpoch)) // it leads on with what it has left
	}
	p.weighLosses(mp)
	p.touch()
}

// countChange counts what has changed.
func (p *partition) countChange(old, mp *meta.Partition) {
	c := p.c
	for what, happened := range map[string]bool{
		"leader lost":          mp.Leader < 0 && old.Leader >= 0,
		"leader elected":       mp.Leader >= 0 && mp.Leader != old.Leader,
		"ISR grew":             len(mp.ISR) > len(old.ISR),
		"ISR shrank":           len(mp.ISR) < len(old.ISR),
		"replica eligible":     len(mp.Eligible) > len(old.Eligible),
		"reassignment began":   !isReassigned(old) && isReassigned(mp),
		"reassignment ended":   isReassigned(old) && !isReassigned(mp) && slices.ContainsFunc(mp.Replicas, func(id int32) bool { return slices.Contains(old.Adding, id) }),
		"reassignment changed": isReassigned(old) && isReassigned(mp) && !slices.Equal(old.Replicas, mp.Replicas),
		"leader epoch renewed": mp.Leader == old.Leader && mp.LeaderEpoch > old.LeaderEpoch,
		"ISR proposed as is":   slices.Equal(old.ISR, mp.ISR) && mp.LeaderEpoch == old.LeaderEpoch && slices.Equal(old.Replicas, mp.Replicas) && slices.Equal(old.Eligible, mp.Eligible),
	} {
		if happened {
			c.saw(what)
		}
	}
}

func isReassigned(mp *meta.Partition) bool { return len(mp.Adding)+len(mp.Removing) > 0 }

// endsReassignment tells whether a change ends a reassignment, and not because it is cancelled.
func endsReassignment(old, mp *meta.Partition) bool {
	isReplica := func(id int32) bool { return slices.Contains(mp.Replicas, id) }
	return isReassigned(old) && !isReassigned(mp) && !slices.ContainsFunc(old.Removing, isReplica) &&
		!slices.ContainsFunc(old.Adding, func(id int32) bool { return !isReplica(id) })
}

// judgeElection checks that the new leader may lead, and has all committed records unless it may have
// lost some.
func (p *partition) judgeElection(old, mp *meta.Partition, t *meta.Topic, prev *meta.Image) (mayLose bool) {
	id := mp.Leader
	common := p.commonEnd(p.c.node(id).disk.find(p))
	mayLose = p.exempt
	switch {
	case slices.Contains(old.ISR, id):
		p.c.saw("clean election")
	case slices.Contains(old.Eligible, id):
		p.c.saw("election of an eligible replica")
	case endsReassignment(old, mp) && (common >= p.end() || p.tainted[id] || p.copies.lacks(id)): // it was proposed for the in-sync set
		p.c.saw("election of a joining replica")
	case p.copies.hasGivenUp(old, mp): // to one that was forgotten when it had objected
		p.c.saw("election of a replica that has objected")
	case slices.Equal(old.LastEligible, []int32{id}):
		p.c.saw("election of the last leader")
		if !p.allowsUnclean(t, prev) {
			p.checkNobodyIsLeft(old, id)
		}
		mayLose = true
	case len(mp.Replicas) == 1:
		p.c.saw("election of the only replica")
		mayLose = true
	case p.allowsUnclean(t, prev):
		p.c.saw("unclean election")
		if old.Leader >= 0 && slices.Contains(mp.Replicas, old.Leader) && p.isAlive(old.Leader) {
			p.fail("%d was elected uncleanly, though the leader %d goes on: in sync were %v", id, old.Leader, old.ISR)
		}
		mayLose = true
	default:
		p.fail("%d was elected: in sync were %v, eligible %v, last %v", id, old.ISR, old.Eligible, old.LastEligible)
	}
	if p.copies.lack[id] && !mayLose && common < p.end() {
		p.c.saw("old copy of the same run elected")
		return false
	}
	if p.tainted[id] {
		// A process that has ended may be elected, if nobody knows that it has. It leads nothing before
		// it is registered, and then its losses are known.
		p.exempt = mayLose
		return mayLose
	}
	if mayLose {
		p.cutTo(common, record.Epoch(mp.LeaderEpoch))
	} else if common < p.end() {
		p.fail("the new leader %d has the first %d committed records of %d; in sync were %v, eligible %v", id, common, p.end(), old.ISR, old.Eligible)
	}
	return mayLose
}

// checkNobodyIsLeft proves that the last leader is elected only if nobody is in sync or eligible.
func (p *partition) checkNobodyIsLeft(old *meta.Partition, last int32) {
	for _, member := range membersOf(old) {
		if !p.c.truth.mayForget(member) {
			p.fail("the last leader %d was elected, though there are in sync %v and eligible %v", last, old.ISR, old.Eligible)
		}
	}
}

// allowsUnclean tells whether a leader may be elected that lacks records.
func (p *partition) allowsUnclean(t *meta.Topic, prev *meta.Image) bool {
	_, _, unclean := p.c.truth.settings(p.c.truth.image, t)
	if before := prev.TopicByID(p.topic); !unclean && before != nil {
		_, _, unclean = p.c.truth.settings(prev, before)
	}
	return unclean || p.c.now < p.forcedUntil
}

// isAlive tells whether the metadata have a broker that is not fenced, and that is not just being
// registered or fenced.
func (p *partition) isAlive(id int32) bool {
	t := p.c.truth
	b := t.image.Brokers[id]
	return b != nil && b.State != meta.BrokerFenced && !t.mayForget(id) && !t.fencing[id]
}

// commonEnd is how many of the committed records a log has, as far as it has committed them itself.
// Those that it has deleted count.
func (p *partition) commonEnd(l *diskLog) record.Offset {
	if l == nil {
		return 0
	}
	o, end := min(l.Start(), p.end()), min(l.Committed(), p.end())
	for o < end && p.hasCommitted(l, o) {
		o++
	}
	return o
}

// cutTo takes an election that may lose records.
func (p *partition) cutTo(end record.Offset, epoch record.Epoch) {
	if end < p.end() {
		p.c.saw("records lost as allowed")
		p.c.note(note{what: "%d committed records are lost, %d are left", part: p.index, a: int64(p.end() - end), b: int64(end)})
	}
	p.committed = p.committed[:end]
	p.cutEpoch, p.exempt, p.shown = epoch, false, nil
	for _, n := range p.c.nodes {
		if l := n.disk.find(p); l != nil {
			l.verified = min(l.verified, end)
		}
	}
}

// checkEligible proves the rule of KIP-966: while the in-sync set is too small to commit, everybody
// who has all committed records is known. A leader may give up to a copy that objects, if it knows of nothing that this one lacks.
func (p *partition) checkEligible(old, mp *meta.Partition) {
	for _, id := range membersOf(old) {
		if slices.Contains(mp.Replicas, id) && !slices.Contains(membersOf(mp), id) && !p.c.truth.mayForget(id) && !p.copies.wasCopy(id) && (id != old.Leader || !p.copies.wasCopy(mp.Leader)) {
			p.fail("node %d has all committed records and is forgotten: in sync %v, eligible %v", id, mp.ISR, mp.Eligible)
		}
	}
}

// checkJoined proves that only replicas join the in-sync set whose brokers are active: a fenced one may be
// gone, and a leaving one is about to be.
func (p *partition) checkJoined(old, mp *meta.Partition) {
	for _, id := range mp.ISR {
		if b := p.c.truth.image.Brokers[id]; !slices.Contains(old.ISR, id) && (b == nil || b.State != meta.BrokerActive) {
			p.fail("node %d joins the in-sync set %v, and is not active: %+v", id, mp.ISR, b)
		}
	}
}

// checkReassigned proves that a reassignment ends only when everybody is in sync whom it has added, and as
// many as are needed.
func (p *partition) checkReassigned(old, mp *meta.Partition, minISR int) {
	inSync := func(id int32) bool { return slices.Contains(mp.ISR, id) }
	if len(mp.ISR) < minISR || slices.ContainsFunc(old.Adding, func(id int32) bool { return !inSync(id) }) {
		p.fail("the reassignment of %v, adding %v and removing %v, ends with in sync %v, and %d are needed",
			old.Replicas, old.Adding, old.Removing, mp.ISR, minISR)
	}
}
