package sim

import (
	"slices"

	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/replica/progress"
)

// fault is a kind of fault. stage returns false if it cannot happen now.
type fault struct {
	name   string
	weight int
	stage  func(c *cluster, n *node) bool
}

// faults lists the kinds of faults.
func faults() []fault {
	return []fault{
		{"process killed", 3, func(c *cluster, n *node) bool {
			return (c.chance(0.2) || c.survivesLoss(n, n.disk.hasCached)) && c.endNode(n, n.kill)
		}},
		{"power cut", 4, (*cluster).cutPowerOf},
		{"power cut of a leader", 3, (*cluster).cutPowerOfLeader},
		{"power cut of all", 1, (*cluster).cutAllPower},
		{"disk replaced", 1, (*cluster).replaceDisk},
		{"old copy of a disk restored", 1, (*cluster).restoreDisk},
		{"one-way cut", 3, (*cluster).cutOneWay},
		{"node cut off", 2, (*cluster).cutOff},
		{"messages lost and late", 1, (*cluster).burst},
		{"slow disk", 2, func(c *cluster, n *node) bool {
			n.disk.slowUntil = c.now + c.random(900*ms)
			return true
		}},
		{"hung disk", 1, func(c *cluster, n *node) bool {
			n.disk.hungUntil = c.now + 100*ms + c.random(800*ms)
			return true
		}},
		{"clock jump", 1, func(c *cluster, n *node) bool {
			n.clock.shows += c.random(1500 * ms)
			c.clocksAgree = max(c.clocksAgree, c.now+2*session)
			return true
		}},
		{"clock rate", 1, func(c *cluster, n *node) bool {
			n.clock.setRate(c.now, 700+c.rng.Int64N(700))
			c.clocksAgree = faultsEnd + 2*session
			return true
		}},
		{"process stalled", 2, func(c *cluster, n *node) bool {
			n.stalledUntil = c.now + 50*ms + c.random(2*session)
			return true
		}},
		{"controller stalled", 2, func(c *cluster, _ *node) bool {
			if c.quorum.leader == 0 {
				return false
			}
			c.node(c.quorum.leader).stalledUntil = c.now + 2*session + c.random(session) // others have its places by then
			return true
		}},
		{"node stopped in order", 2, func(_ *cluster, n *node) bool {
			n.stopping = true
			return true
		}},
		{"controller deposed", 1, func(c *cluster, _ *node) bool {
			if c.quorum.leader == 0 {
				return false
			}
			c.quorum.depose()
			return true
		}},
		{"controller cut off", 1, func(c *cluster, _ *node) bool {
			return c.quorum.leader != 0 && c.cutOff(c.node(c.quorum.leader))
		}},
		{"metadata applied late", 2, func(c *cluster, n *node) bool {
			n.lagUntil = c.now + c.random(800*ms)
			return true
		}},
	}
}

// injectFault stages the next fault.
func (c *cluster) injectFault() {
	if c.healing {
		return
	}
	c.after(20*ms+c.random(c.plan.faults), c.injectFault)
	all := faults()
	total := 0
	for _, f := range all {
		total += f.weight
	}
	x := c.rng.IntN(total)
	for _, f := range all {
		if x -= f.weight; x >= 0 {
			continue
		}
		n := c.nodes[c.rng.IntN(len(c.nodes))]
		if n.up {
			c.note(note{what: "FAULT: " + f.name, node: n.id})
			if f.stage(c, n) {
				c.saw(f.name)
				c.faults++
			}
		}
		return
	}
}

// endNode ends a node's process, and starts another one after a while.
func (c *cluster) endNode(n *node, end func()) bool {
	end()
	n.restartAfter(20*ms + c.random(600*ms))
	return true
}

// cutPowerOf cuts a node's power. Most of the time it does not where that would be more than the
// promises cover.
func (c *cluster) cutPowerOf(n *node) bool {
	return (c.chance(0.2) || c.survivesLoss(n, n.disk.hasCached)) && c.endNode(n, n.cutPower)
}

// survivesLoss tells whether all promises hold if a node loses records of some partitions. Of the only
// replica nothing is promised.
func (c *cluster) survivesLoss(n *node, loses func(p *partition) bool) bool {
	for _, p := range c.truth.parts {
		mp, l := p.now(), n.disk.find(p)
		if l == nil || !loses(p) || len(p.committed) == 0 || len(mp.Replicas) == 1 || !slices.Contains(membersOf(mp), n.id) {
			continue
		}
		lost, kept := 1, 0
		for _, id := range membersOf(mp) {
			switch {
			case id == n.id:
			case p.tainted[id] || p.copies.lack[id]:
				lost++
			default:
				kept++
			}
		}
		if kept == 0 || lost >= p.needed {
			return false
		}
	}
	return true
}

func (c *cluster) cutPowerOfLeader(_ *node) bool {
	p := c.anyPartition()
	if p == nil || p.now().Leader < 1 || !c.node(p.now().Leader).up {
		return false
	}
	return c.cutPowerOf(c.node(p.now().Leader))
}

// anyPartition is a random partition, or nil.
func (c *cluster) anyPartition() *partition {
	if len(c.truth.parts) == 0 {
		return nil
	}
	return c.truth.parts[c.rng.IntN(len(c.truth.parts))]
}

func (c *cluster) cutAllPower(*node) bool {
	if c.chance(0.5) {
		return false
	}
	for _, n := range c.nodes {
		if n.up {
			c.endNode(n, n.cutPower)
		}
	}
	return true
}

// replaceDisk loses a node's directory. The metadata quorum bears the loss of one voter's at a time.
func (c *cluster) replaceDisk(n *node) bool {
	if !c.mayLoseDisk(n) || c.chance(0.9) && !c.survivesLoss(n, func(*partition) bool { return true }) {
		return false
	}
	n.cutPower()
	c.exchangeDisk(n, newDisk(n))
	n.restartAfter(50*ms + c.random(500*ms))
	return true
}

func (c *cluster) mayLoseDisk(n *node) bool {
	if !slices.Contains(c.quorum.voters, n.id) {
		return true
	}
	return !slices.Contains(c.quorum.lost[:], true) && c.quorum.leader != n.id
}

// exchangeDisk gives a node another directory.
func (c *cluster) exchangeDisk(n *node, d *disk) {
	before := n.disk
	n.disk = d
	for l := range before.each {
		l.part.noteLoss(n.id)
		l.part.touch()
	}
	c.loseMetadata(n)
}

// loseMetadata takes that a node's directory has less of the metadata log than the one before it.
func (c *cluster) loseMetadata(n *node) {
	if slices.Contains(c.quorum.voters, n.id) {
		c.quorum.lost[n.id] = true
	}
	c.quorum.stored[n.id] = n.disk.metadata
}

// copyDisk makes a copy of some node's directory, which may be restored later.
func (c *cluster) copyDisk() {
	if c.healing {
		return
	}
	c.after(300*ms+c.random(900*ms), c.copyDisk)
	n := c.nodes[c.rng.IntN(len(c.nodes))]
	c.copied = n.disk.clone()
}

// restoreDisk gives a node an old copy of its directory. One that has the epoch of the node's present
// registration cannot be told from the directory itself: see copies.
func (c *cluster) restoreDisk(*node) bool {
	d := c.copied
	if d == nil || !d.n.up || !c.mayLoseDisk(d.n) {
		return false
	}
	n := d.n
	if d.recorded >= n.usedEpoch || c.chance(0.9) && !c.survivesLoss(n, func(*partition) bool { return true }) {
		return false
	}
	c.copied = nil
	n.cutPower()
	d.losePower()
	d.clean = d.clean || c.chance(0.5)
	c.exchangeDisk(n, d)
	n.restartAfter(50*ms + c.random(500*ms))
	return true
}

func (c *cluster) cutOneWay(n *node) bool {
	to := c.nodes[c.rng.IntN(len(c.nodes))]
	if to == n {
		return false
	}
	c.net.cut(n.id, to.id, 50*ms+c.random(900*ms))
	return true
}

// cutOff cuts a node off from some of the others or all of them.
func (c *cluster) cutOff(n *node) bool {
	d := 50*ms + c.random(900*ms)
	for _, other := range c.nodes {
		if other != n && c.chance(0.8) {
			c.net.cut(n.id, other.id, d)
			c.net.cut(other.id, n.id, d)
		}
	}
	return true
}

func (c *cluster) burst(*node) bool {
	c.net.burstUntil = c.now + c.random(500*ms)
	return true
}

// injectAtProposal stages a fault at the moment at which it matters most: when a replica is about to
// join the in-sync set. It returns true if the proposal is to come very late.
func (c *cluster) injectAtProposal(r *replica, change *controller.InSyncChange, p *progress.Proposal) bool {
	if c.healing || len(p.ISR) <= len(r.assigned.ISR) || !c.chance(0.15) {
		return false
	}
	joining := c.node(change.ISR[len(change.ISR)-1].ID)
	if joining == r.n || !joining.up {
		return false
	}
	c.faults++
	switch c.rng.IntN(3) {
	case 0:
		c.saw("joining replica cut off")
		c.net.cut(joining.id, r.n.id, 900*ms)
	case 1:
		c.saw("power cut of a joining replica")
		c.cutPowerOf(joining)
	case 2:
		c.saw("leader cut off while a replica joins")
		c.cutOff(r.n)
	}
	return true
}
