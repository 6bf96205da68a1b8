package sim

import (
	"bytes"
	"maps"
	"slices"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/replica/progress"
)

// followImage brings the node to its image. It does nothing before the image shows that this process
// is active: everything that was decided before its start is in the image then.
func (n *node) followImage(d *meta.Delta) {
	if n.control != nil {
		n.control.followImage()
	}
	if !n.following {
		if !n.isActive() {
			return
		}
		n.following, d = true, meta.Diff(meta.Empty(), n.image)
		n.usedEpoch = n.epoch
		n.removeStrays()
	}
	if d.Brokers || n.brokers == nil {
		n.takeBrokers()
	}
	ids := slices.SortedFunc(maps.Keys(d.Topics), func(a, b meta.UUID) int { return bytes.Compare(a[:], b[:]) })
	for _, id := range ids {
		n.followTopic(id, d.Topics[id])
	}
	for res := range d.Configs { // in any order: the topics are independent
		if res.Type != config.Topic {
			continue
		}
		if t := n.image.Topic(res.Name); t != nil {
			n.configureTopic(t)
		}
	}
}

// isActive tells whether this process is active in the image, and not an earlier one.
func (n *node) isActive() bool {
	b := n.image.Brokers[n.id]
	return b != nil && b.Incarnation == n.incarnation && b.State != meta.BrokerFenced
}

// takeBrokers tells the leaders of a change of the brokers.
func (n *node) takeBrokers() {
	n.brokers = progress.Brokers{}
	for id, b := range n.image.Brokers {
		n.brokers[id] = progress.Broker{Epoch: b.Epoch, MayJoin: b.State == meta.BrokerActive}
	}
	for _, r := range n.replicas {
		if r != nil && r.leader != nil {
			r.leader.BrokersChanged(n.now(), n.brokers)
		}
	}
}

// removeStrays deletes the logs of replicas that are not this node's any more.
func (n *node) removeStrays() {
	for l := range n.disk.each {
		p := l.part.in(n.image)
		if p == nil || !slices.Contains(p.Replicas, n.id) {
			n.disk.remove(l.part)
		}
	}
}

func (n *node) followTopic(id meta.UUID, ch meta.TopicChange) {
	if ch.New == nil {
		for i := range ch.Old.Partitions {
			n.removeReplica(n.c.truth.partition(id, int32(i)))
		}
		return
	}
	for i := range ch.New.Partitions {
		p, mp := n.c.truth.partition(id, int32(i)), &ch.New.Partitions[i]
		if !slices.Contains(mp.Replicas, n.id) {
			n.removeReplica(p)
			continue
		}
		r := n.replica(p)
		if r == nil {
			r = newReplica(n, p)
			n.addReplica(r)
		}
		r.follow(ch.New, mp)
	}
}

func (n *node) configureTopic(t *meta.Topic) {
	for i := range t.Partitions {
		if r := n.replica(n.c.truth.partition(t.ID, int32(i))); r != nil {
			r.follow(t, &t.Partitions[i])
		}
	}
}

// replica returns the node's replica of a partition, or nil.
func (n *node) replica(p *partition) *replica {
	if len(n.replicas) < int(p.index) {
		return nil
	}
	return n.replicas[p.index-1]
}

func (n *node) addReplica(r *replica) {
	for len(n.replicas) < int(r.part.index) {
		n.replicas = append(n.replicas, nil)
	}
	n.replicas[r.part.index-1] = r
}

func (n *node) removeReplica(p *partition) {
	r := n.replica(p)
	if r == nil {
		n.disk.remove(p)
		return
	}
	r.endLeading()
	n.replicas[p.index-1] = nil
	n.disk.remove(p)
	n.c.note(note{what: "removes its replica", node: n.id, part: p.index})
	n.c.saw("replica removed")
}
