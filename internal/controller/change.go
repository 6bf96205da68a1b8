package controller

import (
	"slices"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/place"
)

// change is a change of one partition under construction. Its maker sets the fields of
// next that it wants to change; finish then ends a reassignment that can end, keeps the
// eligible replicas (KIP-966), elects a leader and raises the epochs.
//
// A replica is eligible if it is known to have all committed records and is not in sync:
// it left the in-sync set while that was too small to commit. The leader is the first of
// these that is there, unless the present leader has named its successor:
//
//  1. the present leader, if it is in sync
//  2. a replica in sync, in the order of the replicas
//  3. an eligible replica, in that order
//  4. the present leader, if it is in sync and its broker is leaving: it leads until it ends
//  5. the last leader, if it is known and there is neither a replica in sync nor an
//     eligible one, as Kafka does: all of them may have lost records, and it had most
//  6. the only replica, whatever it has left: there is no other one
//  7. any replica, if an unclean election is allowed
//
// Those of 3 and 5 to 7 then are the whole in-sync set.
type change struct {
	rules  *Rules
	topic  *meta.Topic
	number int32
	old    *meta.Partition
	next   meta.Partition

	included  int32   // counts as active although it is not yet; -1: nobody
	excluded  int32   // does not count as active; -1: nobody
	lost      int32   // has lost records, so it is not eligible; -1: nobody
	damaged   []int32 // have lost records, so they are not eligible
	successor int32   // becomes the leader if it is in sync; -1: nobody
	forgotten bool    // the lost one has lost all of them: it is not the last leader either
	preferred bool    // the first replica becomes the leader if it is in sync
	unclean   bool    // an unclean election is allowed
	renew     bool    // the partition epoch rises even if nothing changes
}

const noBroker int32 = -1

// newChange begins a change. It allows an unclean election if the topic's settings do.
func (r *Rules) newChange(t *meta.Topic, number int32) *change {
	old := &t.Partitions[number]
	return &change{
		rules: r, topic: t, number: number, old: old, next: *old,
		included: noBroker, excluded: noBroker, lost: noBroker, successor: noBroker,
		unclean: r.settings(t).UncleanElection,
	}
}

// without returns ids without some of them.
func without(ids []int32, gone ...int32) []int32 {
	return slices.DeleteFunc(slices.Clone(ids), func(id int32) bool { return slices.Contains(gone, id) })
}

func containsAll(ids, all []int32) bool {
	for _, id := range all {
		if !slices.Contains(ids, id) {
			return false
		}
	}
	return true
}

// remove takes a broker out of the in-sync set and from the candidates.
func (c *change) remove(id int32) {
	c.next.ISR = without(c.next.ISR, id)
	c.excluded = id
}

// lose is remove for a broker that has lost records.
func (c *change) lose(id int32, all bool) {
	c.remove(id)
	c.lost, c.forgotten = id, all
}

func (c *change) mayLead(id int32) bool {
	return id != c.excluded && (id == c.included || c.rules.isActive(id))
}

func (c *change) needed() int { return place.MinISR(c.rules.settings(c.topic), &c.next) }

// finish completes the change and returns its encoded record, or nil if it changes nothing.
func (c *change) finish() []byte {
	p := &c.next
	c.endReassignment()
	c.keepEligible()
	p.Leader = c.elect()
	c.keepLastLeader()
	if !c.renew && c.isSame() {
		return nil
	}
	p.PartitionEpoch++
	// A replica that is gone must not be believed in the present leader epoch any more.
	if p.Leader != c.old.Leader || !containsAll(p.Replicas, c.old.Replicas) {
		p.LeaderEpoch++
	}
	if slices.Equal(p.Replicas, c.old.Replicas) && slices.Equal(p.Adding, c.old.Adding) && slices.Equal(p.Removing, c.old.Removing) {
		return meta.Append(nil, meta.PartitionChanged{
			Topic: c.topic.ID, Partition: c.number, ISR: p.ISR, Leader: p.Leader, LeaderEpoch: p.LeaderEpoch,
			PartitionEpoch: p.PartitionEpoch, Eligible: p.Eligible, LastEligible: p.LastEligible,
		})
	}
	return meta.Append(nil, meta.PartitionsSet{Topic: c.topic.ID, First: c.number, Partitions: []meta.Partition{*p}})
}

func (c *change) isSame() bool {
	a, b := &c.next, c.old
	return a.Leader == b.Leader && slices.Equal(a.Replicas, b.Replicas) && slices.Equal(a.ISR, b.ISR) &&
		slices.Equal(a.Adding, b.Adding) && slices.Equal(a.Removing, b.Removing) &&
		slices.Equal(a.Eligible, b.Eligible) && slices.Equal(a.LastEligible, b.LastEligible)
}

// endReassignment ends a reassignment when all replicas that it adds are in sync, and
// enough of those that stay: it must not make the committed records less safe. One that
// lowers the number of replicas waits until all that stay are in sync.
func (c *change) endReassignment() {
	p := &c.next
	if !isReassigned(p) {
		return
	}
	after := meta.Partition{Replicas: without(p.Replicas, p.Removing...)}
	isr := without(p.ISR, p.Removing...)
	switch {
	case !slices.ContainsFunc(isr, c.mayLead), !containsAll(isr, p.Adding):
		return
	case len(p.Adding) < len(p.Removing) && !containsAll(isr, after.Replicas):
		return
	case len(isr) < c.rules.minISR(c.topic, &after):
		return
	}
	p.Replicas, p.ISR, p.Adding, p.Removing = after.Replicas, isr, nil, nil
}

// keepEligible computes the eligible replicas: while the in-sync set is too small to
// commit, those that leave it have everything that is committed.
func (c *change) keepEligible() {
	p := &c.next
	if len(p.ISR) >= c.needed() {
		p.Eligible = nil
		return
	}
	var eligible []int32
	for _, id := range p.Replicas {
		had := slices.Contains(c.old.ISR, id) || slices.Contains(p.Eligible, id)
		if had && id != c.lost && !slices.Contains(c.damaged, id) && !slices.Contains(p.ISR, id) {
			eligible = append(eligible, id)
		}
	}
	p.Eligible = eligible
}

// elect returns the leader, and makes it the in-sync set if it was not in it.
func (c *change) elect() int32 {
	p := &c.next
	inSync := func(id int32) bool { return slices.Contains(p.ISR, id) && c.mayLead(id) }
	eligible := func(id int32) bool { return slices.Contains(p.Eligible, id) && c.mayLead(id) }
	if c.preferred && inSync(p.Replicas[0]) {
		return p.Replicas[0]
	}
	if inSync(c.successor) {
		return c.successor
	}
	if inSync(c.old.Leader) {
		return c.old.Leader
	}
	if i := slices.IndexFunc(p.Replicas, inSync); i >= 0 {
		return p.Replicas[i]
	}
	if i := slices.IndexFunc(p.Replicas, eligible); i >= 0 {
		leader := p.Replicas[i]
		p.Eligible = slices.Concat(p.Eligible, p.ISR) // they wait for their brokers
		p.ISR = []int32{leader}
		c.keepEligible()
		return leader
	}
	if c.isLeaderLeaving() {
		return c.old.Leader
	}
	leader := noBroker
	if last := c.lastLeader(); last >= 0 && c.mayLead(last) {
		leader = last
	} else if only := c.onlyReplica(); only >= 0 && c.mayLead(only) {
		leader = only
	} else if i := slices.IndexFunc(p.Replicas, c.mayLead); i >= 0 && c.unclean {
		leader = p.Replicas[i]
	}
	if leader >= 0 {
		p.ISR, p.Eligible = []int32{leader}, nil
	}
	return leader
}

// isLeaderLeaving tells whether the present leader is in sync and can go on, though its broker is
// about to end.
func (c *change) isLeaderLeaving() bool {
	b := c.rules.Image.Brokers[c.old.Leader]
	return b != nil && b.State == meta.BrokerLeaving && b.ID != c.excluded && slices.Contains(c.next.ISR, b.ID)
}

// lastLeader is the last leader of a partition that has neither a replica in sync nor an
// eligible one, or -1.
func (c *change) lastLeader() int32 {
	p := &c.next
	if len(p.ISR) > 0 || len(p.Eligible) > 0 || len(p.LastEligible) != 1 {
		return noBroker
	}
	last := p.LastEligible[0]
	if c.forgotten && last == c.lost || !slices.Contains(p.Replicas, last) {
		return noBroker
	}
	return last
}

// onlyReplica is the replica of a partition that has one, or -1.
func (c *change) onlyReplica() int32 {
	if len(c.next.Replicas) != 1 {
		return noBroker
	}
	return c.next.Replicas[0]
}

// keepLastLeader keeps who led last for as long as nobody leads.
func (c *change) keepLastLeader() {
	p := &c.next
	switch {
	case p.Leader >= 0:
		p.LastEligible = nil
	case c.old.Leader >= 0 && len(p.LastEligible) == 0:
		p.LastEligible = []int32{c.old.Leader}
	}
	p.LastEligible = slices.DeleteFunc(slices.Clone(p.LastEligible), func(id int32) bool {
		return c.forgotten && id == c.lost || !slices.Contains(p.Replicas, id)
	})
}
