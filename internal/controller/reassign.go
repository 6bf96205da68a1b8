package controller

import (
	"context"
	"slices"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/place"
)

// Reassignment asks for other replicas of a partition. Replicas is nil to cancel the
// reassignment that is under way.
type Reassignment struct {
	Partition
	Replicas []int32
}

// AlterReassignments begins and cancels reassignments, each by itself. The errors are in
// the order of the requests; nil means that it was done. A topic whose replicas are chosen
// this way does not follow the size of the cluster any more.
func (c *Controller) AlterReassignments(ctx context.Context, asked []Reassignment, allowFactorChange bool) ([]*Error, error) {
	results := make([]*Error, 0, len(asked))
	err := c.runItems(ctx, ofClients, len(asked), func(r *Rules, from int) ([]byte, int) {
		d, some := r.AlterReassignments(asked[from:], allowFactorChange)
		results = append(results[:from], some...)
		return d.Records, from + len(some)
	})
	if err != nil {
		return nil, err
	}
	return results, nil
}

// AlterReassignments decides as many of the requests as fit into one part.
func (r *Rules) AlterReassignments(asked []Reassignment, allowFactorChange bool) (d Part, results []*Error) {
	d = r.newPart()
	first := map[Partition]int{}  // the first request for a partition
	ended := map[meta.UUID]bool{} // topics that follow no longer
	for i := range asked {
		a := &asked[i]
		t := r.Image.Topic(a.Topic)
		rec, refused := r.alterReassignment(t, a, allowFactorChange)
		if at, again := first[a.Partition]; !again {
			first[a.Partition] = i
		} else if rec = nil; refused == nil && !slices.Equal(asked[at].Replicas, a.Replicas) {
			refused = refuse(InvalidRequest, "The partition is in the request more than once, with other replicas.")
		}
		// The topic stops following first: its next part would then go on without that record.
		if refused == nil && a.Replicas != nil && t.Follows && !ended[t.ID] {
			ended[t.ID] = true
			d.addRecord(meta.TopicChanged{ID: t.ID})
		}
		if !d.add(rec) {
			break
		}
		results = append(results, refused)
	}
	return d, results
}

func (r *Rules) alterReassignment(t *meta.Topic, a *Reassignment, allowFactorChange bool) (record []byte, err *Error) {
	if t == nil {
		return nil, refuse(UnknownPartition, "Unable to find a topic named %s.", a.Topic)
	}
	if a.Number < 0 || int(a.Number) >= len(t.Partitions) {
		return nil, refuse(UnknownPartition, "Unable to find partition %s:%d.", a.Topic, a.Number)
	}
	c := r.newChange(t, a.Number)
	if a.Replicas == nil {
		if err := c.cancelReassignment(a); err != nil {
			return nil, err
		}
	} else {
		if err := r.checkReassignment(c.old, a.Replicas, allowFactorChange); err != nil {
			return nil, err
		}
		c.unclean = false
		c.reassign(a.Replicas)
	}
	return c.finish(), nil
}

func (r *Rules) checkReassignment(p *meta.Partition, target []int32, allowFactorChange bool) *Error {
	if err := checkReplicas(r.Image, target, 0); err != nil {
		return err
	}
	have := len(without(p.Replicas, p.Removing...))
	if !allowFactorChange && have != len(target) {
		return refuse(InvalidReplicationFactor, "The replication factor is changed from %d to %d", have, len(target))
	}
	return nil
}

// reassign makes the target the replicas of the partition. The new ones are being added
// until all of them are in sync; those that are not in the target stay until then. A
// replica that an earlier reassignment was adding goes at once if it is not in the target,
// unless it is all that is in sync.
func (c *change) reassign(target []int32) {
	p := &c.next
	original := without(p.Replicas, p.Adding...)
	dropped := without(p.Adding, target...)
	if isr := without(p.ISR, dropped...); slices.ContainsFunc(isr, c.mayLead) && len(isr) >= min(len(p.ISR), c.needed()) {
		p.ISR, p.Replicas = isr, without(p.Replicas, dropped...)
	}
	removing := without(p.Replicas, target...)
	slices.Sort(removing)
	adding := without(target, original...)
	slices.Sort(adding)
	p.Replicas, p.Adding, p.Removing = slices.Concat(target, removing), adding, removing
}

// cancelReassignment goes back to the replicas before the reassignment. Unless an unclean election is
// allowed, it needs one of them that has all committed records, and takes none away from those in
// sync that min.insync.replicas asks for: what was committed with a replica that is being added
// would have fewer copies than were promised.
func (c *change) cancelReassignment(a *Reassignment) *Error {
	p := &c.next
	if !isReassigned(p) {
		return refuse(NoReassignment, "No partition reassignment is in progress.")
	}
	adding := p.Adding
	p.Replicas, p.ISR, p.Eligible = without(p.Replicas, adding...), without(p.ISR, adding...), without(p.Eligible, adding...)
	p.Adding, p.Removing = nil, nil
	if least := c.needed(); len(p.ISR) > 0 && len(p.ISR) < min(len(c.old.ISR), least) && !c.unclean {
		return refuse(InvalidAssignment, "Unable to revert partition assignment for %s:%d because only %d of its replicas would be in sync, and min.insync.replicas is %d: "+
			"wait until more are in sync, or set a lower min.insync.replicas of the topic first.", a.Topic, a.Number, len(p.ISR), least)
	}
	if len(p.ISR) == 0 && len(p.Eligible) == 0 && !c.unclean {
		return refuse(InvalidAssignment, "Unable to revert partition assignment for %s:%d because it would require an unclean leader election.",
			a.Topic, a.Number)
	}
	return nil
}

// OngoingReassignment is a reassignment that is under way.
type OngoingReassignment struct {
	Partition
	Replicas, Adding, Removing []int32
}

// ListReassignments lists the reassignments of some partitions, or of all if asked is nil,
// that are under way.
func (r *Rules) ListReassignments(asked []Partition) []OngoingReassignment {
	if asked == nil {
		for _, t := range r.concerned(isReassigned) {
			for i := range t.Partitions {
				asked = append(asked, Partition{t.Name, int32(i)})
			}
		}
	}
	var list []OngoingReassignment
	for _, a := range asked {
		t := r.Image.Topic(a.Topic)
		if t == nil || a.Number < 0 || int(a.Number) >= len(t.Partitions) {
			continue
		}
		if p := &t.Partitions[a.Number]; isReassigned(p) {
			list = append(list, OngoingReassignment{a, p.Replicas, p.Adding, p.Removing})
		}
	}
	return list
}

// ReplicaMoves bounds how many replicas the cluster moves by itself, so that they take no more
// than a share of the disks and the network.
type ReplicaMoves struct {
	Most int                 // partitions with a reassignment under way
	Room func(id int32) bool // a broker's disk has room for more replicas; nil: all have
}

// FollowCluster gives partitions the replicas that they lack: all of them others in place of those whose
// nodes were removed, and those of topics that follow the size of the cluster more as nodes have joined. It
// is called at intervals, and never lowers their number. A reassignment to a node that was removed would never
// end, so it goes on to another one.
func (r *Rules) FollowCluster(moves ReplicaMoves) Part {
	wanted := place.WantedFactor(len(r.Image.Brokers))
	isRemoved := func(id int32) bool { return r.Image.Brokers[id] == nil }
	return r.moveReplicas(moves, func(m *mover, t *meta.Topic, p *meta.Partition) []int32 {
		replicas := without(p.Replicas, p.Removing...)
		switch i := slices.IndexFunc(replicas, isRemoved); {
		case i >= 0:
			return m.replace(replicas, replicas[i])
		case isReassigned(p) || !t.Follows:
			return nil
		}
		return m.addUpTo(replicas, wanted)
	})
}

// MoveReplicas gives the replicas of a broker to others, where there are others, so that
// the node can be removed. "leat cluster drain" chooses them by package place in the same way, and asks for reassignments; models
// and simulations ask for all of them here.
func (r *Rules) MoveReplicas(id int32, moves ReplicaMoves) Part {
	return r.moveReplicas(moves, func(m *mover, _ *meta.Topic, p *meta.Partition) []int32 {
		if isReassigned(p) || !slices.Contains(p.Replicas, id) {
			return nil
		}
		return m.replace(p.Replicas, id)
	})
}

// mover chooses brokers for replicas.
type mover struct {
	brokers []place.Broker
	load    place.Load
	leads   place.Load // of how many partitions each is the preferred leader
}

func (r *Rules) newMover(moves ReplicaMoves) *mover {
	brokers := place.Brokers(r.Image)
	for i := range brokers {
		b := &brokers[i]
		b.Active = b.Active && (moves.Room == nil || moves.Room(b.ID))
	}
	return &mover{brokers: brokers, load: place.CountReplicas(r.Image), leads: place.CountPreferred(r.Image)}
}

// replace returns the replicas with another one in the place of that of a broker, or nil.
func (m *mover) replace(replicas []int32, id int32) []int32 {
	target, _ := place.Replace(m.brokers, m.load, replicas, id)
	return target
}

// addUpTo returns the replicas with as many more as there are brokers for, or nil. The preferred leader becomes
// the one that has to lead least, or the brokers that were there first would lead everything.
func (m *mover) addUpTo(replicas []int32, wanted int) []int32 {
	target := slices.Clone(replicas)
	for len(target) < wanted {
		id, ok := place.Another(m.brokers, m.load, target)
		if !ok {
			break
		}
		target = append(target, id)
	}
	if len(target) == len(replicas) {
		return nil
	}
	return place.PreferLeastLed(target, m.leads)
}

// moveReplicas begins reassignments, as many as may be under way. target returns the replicas
// that a partition should have, also in place of those of a reassignment that is under way, or nil.
func (r *Rules) moveReplicas(moves ReplicaMoves, target func(m *mover, t *meta.Topic, p *meta.Partition) []int32) Part {
	d, m := r.newPart(), r.newMover(moves)
	room := moves.Most
	for _, t := range r.concerned(isReassigned) {
		for i := range t.Partitions {
			if isReassigned(&t.Partitions[i]) {
				room--
			}
		}
	}
	all := func(*meta.Partition) bool { return true }
	r.changeEach(&d, all, func(c *change) bool {
		isCounted := isReassigned(c.old)
		if room < 1 && !isCounted {
			return false
		}
		replicas := target(m, c.topic, c.old)
		if replicas == nil {
			return false
		}
		if !isCounted {
			room--
		}
		for _, id := range without(replicas, c.old.Replicas...) {
			m.load[id]++
		}
		m.leads[c.old.Replicas[0]]--
		m.leads[replicas[0]]++
		c.unclean = false
		c.reassign(replicas)
		return true
	})
	return d
}
