package sim

import (
	"fmt"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/record"
)

// addClients adds the producers, the consumers and the consumer groups.
func (c *cluster) addClients() {
	for _, t := range c.plan.topics {
		for number := range t.partitions {
			for i := range t.producers {
				p := &producer{c: c, topic: t.name, number: number, acksAll: i == 0 || c.chance(0.3), idempotent: i == 0 || c.chance(0.5)}
				c.clients = append(c.clients, p)
			}
			if t.producers > 0 {
				c.clients = append(c.clients,
					&consumer{c: c, topic: t.name, number: number},
					&consumer{c: c, topic: t.name, number: number, followers: true})
			}
		}
	}
	for id := range uint32(2) {
		c.clients = append(c.clients, &group{c: c, id: id + 1})
	}
	for _, k := range c.clients {
		k.start()
	}
}

// isHealed tells whether everything that was asked for is done: all replicas are in sync and equal,
// and nobody waits.
func (c *cluster) isHealed() error {
	if len(c.truth.image.Brokers) < len(c.nodes) {
		return fmt.Errorf("%d of %d nodes are registered", len(c.truth.image.Brokers), len(c.nodes))
	}
	for _, n := range c.nodes {
		if b := c.truth.image.Brokers[n.id]; !n.up || b.State != meta.BrokerActive || b.Incarnation != n.incarnation {
			return fmt.Errorf("node %d is not active: up %v, %+v", n.id, n.up, *b)
		}
		if n.member.applied != c.quorum.committed() {
			return fmt.Errorf("node %d has applied entry %d of %d", n.id, n.member.applied, c.quorum.committed())
		}
	}
	for i := range c.plan.topics {
		if c.truth.image.Topic(c.plan.topics[i].name) == nil {
			return fmt.Errorf("topic %s was not made", c.plan.topics[i].name)
		}
	}
	for _, p := range c.truth.parts {
		if err := p.isHealed(); err != nil {
			c.concerned = p.index
			return fmt.Errorf("%s: %w", c.truth.names[p.index-1], err)
		}
	}
	if c.txns != nil {
		if err := c.txns.isHealed(); err != nil {
			return err
		}
	}
	for _, k := range c.clients {
		if err := k.isDone(); err != nil {
			return err
		}
	}
	c.concerned = 0
	return nil
}

// isHealed tells whether all replicas of the partition are in sync and equal.
func (p *partition) isHealed() error {
	mp := p.now()
	switch {
	case mp.Leader < 1:
		return fmt.Errorf("nobody leads: in sync %v, eligible %v, last %v", mp.ISR, mp.Eligible, mp.LastEligible)
	case len(mp.Adding)+len(mp.Removing) > 0:
		return fmt.Errorf("replicas %v are being added and %v removed, in sync are %v", mp.Adding, mp.Removing, mp.ISR)
	case len(mp.ISR) < len(mp.Replicas):
		return fmt.Errorf("in sync are %v of %v", mp.ISR, mp.Replicas)
	}
	r := p.c.node(mp.Leader).replica(p)
	if r == nil || r.leader == nil || r.leader.Epoch() != record.Epoch(mp.LeaderEpoch) {
		return fmt.Errorf("node %d does not lead in epoch %d", mp.Leader, mp.LeaderEpoch)
	}
	if hw, ok := r.leader.Readable(); !ok || hw < r.log.End() {
		return fmt.Errorf("the high watermark is %d of %d", hw, r.log.End())
	}
	for _, id := range mp.Replicas {
		l := p.c.node(id).disk.find(p)
		if l == nil || l.End() != r.log.End() || l.HighWatermark() != l.End() || l.Start() < r.log.Start() {
			return fmt.Errorf("%w: node %d has %v, the leader %d ends at %d", errNotConverged, id, l, mp.Leader, r.log.End())
		}
		if err := compareLogs(l, r.log); err != nil {
			return fmt.Errorf("node %d: %w", id, err)
		}
	}
	return nil
}

// compareLogs proves that two logs have the same records.
func compareLogs(l, leader *diskLog) error {
	for o := max(l.Start(), leader.Start()); o < l.End(); o++ {
		a, _ := l.EntryAt(o)
		if b, _ := leader.EntryAt(o); a != b {
			return fmt.Errorf("%w at %d: %x and %x", errNotConverged, o, a.Value, b.Value)
		}
	}
	return nil
}
