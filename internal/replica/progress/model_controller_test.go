package progress

import (
	"maps"
	"slices"
	"time"

	"github.com/leatstream/leat/internal/meta"
)

// controller is a controller that never fails. It elects by the rules of KIP-966.
type controller struct {
	w      *world
	now    image
	images []*image // the metadata log, as the image after each entry
	lives  map[int32]int
	heard  map[int32]time.Duration
}

// image is the metadata. Those in the log never change.
type image struct {
	Assignment

	leader      int32
	leaderEpoch int32
	removing    []int32
	brokers     Brokers
	cuts        *meta.PartitionMirror // nil: there were none
}

func newController(w *world, nodes, replicas, minISR int) *controller {
	c := &controller{w: w, lives: map[int32]int{}, heard: map[int32]time.Duration{}}
	c.now = image{leader: -1, brokers: Brokers{}, Assignment: Assignment{MinISR: minISR}}
	for _, id := range w.rng.Perm(nodes)[:replicas] {
		c.now.Replicas = append(c.now.Replicas, int32(id)+1)
	}
	c.now.Eligible = slices.Clone(c.now.Replicas) // all logs are empty
	if w.mirrors {
		c.now.leaderEpoch = 1000 // never below an epoch of the source
	}
	c.write("made")
	return c
}

// write ends a change: it is an entry of the metadata log.
func (c *controller) write(what string) {
	img := c.now
	img.brokers = maps.Clone(img.brokers)
	c.images = append(c.images, &img)
	c.w.note("controller: %s: leader %d in epoch %d.%d, ISR %v, eligible %v, replicas %v, adding %v, min %d",
		what, img.leader, img.leaderEpoch, img.PartitionEpoch, img.ISR, img.Eligible, img.Replicas, img.Adding, img.MinISR)
}

// send sends something to a node, if it still lives the same life when it comes.
func (c *controller) send(n *node, life int, what string, do func()) {
	c.w.send(theController, n.id, what, func() {
		if n.up && n.life == life {
			do()
		}
	})
}

// tick fences the silent brokers.
func (c *controller) tick() {
	c.w.after(tickEvery, c.tick)
	for _, n := range c.w.nodes {
		if c.now.brokers[n.id].MayJoin && c.w.now-c.heard[n.id] > session {
			c.fence(n.id, true)
			c.w.seen["fenced by silence"]++
			c.write("fenced")
		}
	}
}

// register gives a node that has started a broker epoch. A broker is fenced until it has applied
// its registration. What was in its page cache is lost.
func (c *controller) register(id int32, life int) int64 {
	b := c.now.brokers[id]
	switch {
	case c.lives[id] == life:
		return b.Epoch // a repeated request
	case c.lives[id] > life:
		return -1 // a request of a life that has ended
	}
	c.lives[id] = life
	c.fence(id, !c.w.pageCache || life == 1)
	c.now.brokers[id] = Broker{Epoch: int64(len(c.images)) + 1}
	c.w.node(id).tainted = false
	c.write("registered")
	return c.now.brokers[id].Epoch
}

func (c *controller) heartbeat(id int32, epoch int64, applied int) {
	b := c.now.brokers[id]
	if b.Epoch != epoch || c.w.healing && id == c.w.dead {
		return // it comes late
	}
	c.heard[id] = c.w.now
	if !b.MayJoin && int64(applied) >= epoch {
		c.now.brokers[id] = Broker{Epoch: epoch, MayJoin: true}
		if c.now.leader < 0 {
			c.elect()
		}
		c.write("unfenced")
	}
}

// fence ends a broker's part in everything. Its replica stays eligible by the rule only if it
// keeps its records.
func (c *controller) fence(id int32, keepsRecords bool) {
	b := c.now.brokers[id]
	b.MayJoin = false
	c.now.brokers[id] = b
	c.setISR(without(c.now.ISR, id))
	if !keepsRecords {
		c.now.Eligible = without(c.now.Eligible, id)
	}
	if c.now.leader == id {
		c.elect()
	}
}

// bury goes on without a node that never comes back. It tells whether the others can.
func (c *controller) bury(id int32) bool {
	others := without(slices.Concat(c.now.ISR, c.now.Eligible), id)
	if len(others) == 0 || slices.Contains(c.now.Adding, id) {
		return false
	}
	c.fence(id, true)
	c.now.MinISR = 1
	c.setISR(c.now.ISR)
	c.endReassignment()
	c.w.seen["lost for good"]++
	c.write("buried")
	return true
}

// setISR changes the in-sync set. While it is too small to commit, those that leave it stay
// eligible: nothing was committed without them.
func (c *controller) setISR(isr []int32) {
	a := &c.now.Assignment
	var eligible []int32
	if len(isr) < a.needed() {
		for _, id := range append(slices.Clone(c.now.Eligible), a.ISR...) {
			if !slices.Contains(isr, id) && !slices.Contains(eligible, id) {
				eligible = append(eligible, id)
			}
		}
	}
	if !slices.Equal(isr, a.ISR) || !slices.Equal(eligible, c.now.Eligible) {
		a.PartitionEpoch++
	}
	a.ISR, c.now.Eligible = isr, eligible
}

// elect chooses a leader from the in-sync set, or from the eligible ones.
func (c *controller) elect() {
	c.now.leader = -1
	c.now.leaderEpoch++
	c.now.PartitionEpoch++
	c.w.seen["election"]++
	for _, from := range [][]int32{c.now.ISR, c.now.Eligible} {
		for _, id := range c.now.Replicas {
			if c.now.brokers[id].MayJoin && slices.Contains(from, id) {
				c.now.leader = id
				if !slices.Contains(c.now.ISR, id) {
					c.w.seen["election of an eligible replica"]++
					c.setISR([]int32{id})
				}
				return
			}
		}
	}
}

// alterPartition judges a leader's proposal.
func (c *controller) alterPartition(from int32, p *Proposal) string {
	if c.now.leader != from || c.now.leaderEpoch != int32(p.Epoch) || c.now.PartitionEpoch != p.PartitionEpoch {
		return "stale"
	}
	var isr []int32
	for _, m := range p.ISR {
		b := c.now.brokers[m.ID]
		if !b.MayJoin || m.BrokerEpoch != 0 && m.BrokerEpoch != b.Epoch {
			return "refused"
		}
		isr = append(isr, m.ID)
	}
	for _, id := range isr {
		if !slices.Contains(c.now.ISR, id) {
			c.w.seen["ISR grows"]++
		}
	}
	for _, id := range c.now.ISR {
		if !slices.Contains(isr, id) {
			c.w.seen["ISR shrinks"]++
		}
	}
	if slices.Equal(isr, c.now.ISR) {
		c.w.seen["ISR proposed as it is"]++
	}
	before := c.now.PartitionEpoch
	c.setISR(isr)
	if !slices.Contains(isr, from) { // its log is not to be trusted
		c.now.Eligible = without(c.now.Eligible, from)
	}
	for _, id := range p.Damaged {
		c.now.Eligible = without(c.now.Eligible, id)
	}
	if p.GivesUp {
		c.now.leader = p.Successor
		c.now.leaderEpoch++
		c.now.PartitionEpoch++
	}
	c.endReassignment()
	c.now.PartitionEpoch = max(c.now.PartitionEpoch, before+1)
	c.write("altered")
	if !c.w.healing && len(isr) < len(c.now.Replicas)-len(c.now.Adding) && c.w.chance(0.4) {
		c.changeMinISR(len(isr) + 1) // the leader hears of both at once: records are committed, and too few are in sync
	}
	return "accepted"
}

// moveLeader makes another member of the in-sync set the leader, as a preferred election does.
func (c *controller) moveLeader() {
	for _, id := range c.w.rng.Perm(len(c.w.nodes)) {
		id := int32(id) + 1
		if id != c.now.leader && slices.Contains(c.now.ISR, id) && c.now.brokers[id].MayJoin {
			c.now.leader = id
			c.now.leaderEpoch++
			c.now.PartitionEpoch++
			c.w.seen["leader moved"]++
			c.write("leader moved")
			return
		}
	}
}

func (c *controller) changeMinISR(to int) {
	if c.w.pageCache {
		return
	}
	c.now.MinISR = to
	c.setISR(c.now.ISR)
	c.endReassignment()
	c.w.seen["min ISR changed"]++
	c.write("min ISR changed")
}

// reassign adds a replica, and perhaps has another one leave when the new one is in sync. One
// that is under way is cancelled.
func (c *controller) reassign() {
	if len(c.now.Adding) > 0 {
		added := c.now.Adding[0]
		if left := len(without(c.now.ISR, added)); left < min(len(c.now.ISR), c.now.MinISR, len(c.now.Replicas)-1) {
			return // too few others would be in sync
		}
		if len(without(slices.Concat(c.now.ISR, c.now.Eligible), added)) == 0 {
			return // nobody else is known to have the committed records
		}
		c.now.Replicas, c.now.Adding, c.now.removing = without(c.now.Replicas, added), nil, nil
		c.now.PartitionEpoch++
		c.setISR(without(c.now.ISR, added))
		c.now.Eligible = without(c.now.Eligible, added)
		if c.now.leader == added || c.now.leader < 0 {
			c.elect()
		}
		c.w.seen["reassignment cancelled"]++
		c.write("reassignment cancelled")
		return
	}
	for _, id := range c.w.rng.Perm(len(c.w.nodes)) {
		id := int32(id) + 1
		if slices.Contains(c.now.Replicas, id) {
			continue
		}
		c.now.removing = nil
		if len(c.now.Replicas) > 2 || c.w.chance(0.5) {
			c.now.removing = []int32{c.now.Replicas[c.w.rng.IntN(len(c.now.Replicas))]}
		}
		c.now.Replicas = append(slices.Clone(c.now.Replicas), id)
		c.now.Adding = []int32{id}
		c.now.PartitionEpoch++
		c.now.AddingSince = c.now.PartitionEpoch
		c.w.seen["reassignment"]++
		c.write("reassignment")
		return
	}
}

// endReassignment ends a reassignment when all that stay are in sync, enough of them.
func (c *controller) endReassignment() {
	if len(c.now.Adding) == 0 || !slices.Contains(c.now.ISR, c.now.Adding[0]) {
		return
	}
	replicas, isr := c.now.Replicas, c.now.ISR
	for _, id := range c.now.removing {
		replicas, isr = without(replicas, id), without(isr, id)
	}
	if len(isr) < min(c.now.MinISR, len(replicas)) {
		return
	}
	removing := c.now.removing
	c.now.Replicas, c.now.Adding, c.now.removing = replicas, nil, nil
	c.setISR(isr)
	if slices.Contains(removing, c.now.leader) {
		c.elect()
	}
	c.w.seen["reassignment ended"]++
}

func without(ids []int32, id int32) []int32 {
	return slices.DeleteFunc(slices.Clone(ids), func(x int32) bool { return x == id })
}
