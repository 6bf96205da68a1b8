package sim

import "time"

// network carries messages between nodes, and between clients and nodes. It loses, delays, doubles
// and reorders them, and cuts links in one direction.
type network struct {
	c          *cluster
	cuts       [maxNodes + 1][maxNodes + 1]time.Duration // from, to: cut until then
	loss       float64
	doubles    float64
	delay      time.Duration // the longest of most messages
	burstUntil time.Duration // until then the two above are larger
}

func newNetwork(c *cluster) network {
	return network{c: c, loss: c.plan.loss, doubles: c.plan.doubles, delay: 5 * ms}
}

func (w *network) heal() {
	w.cuts = [maxNodes + 1][maxNodes + 1]time.Duration{}
	w.loss, w.doubles, w.delay, w.burstUntil = 0, 0, 5*ms, 0
}

// isCut tells whether messages from one node do not reach another one.
func (w *network) isCut(from, to int32) bool {
	return from <= maxNodes && to <= maxNodes && w.cuts[from][to] > w.c.now
}

// isConnected tells whether two nodes reach each other.
func (w *network) isConnected(a, b int32) bool { return !w.isCut(a, b) && !w.isCut(b, a) }

// cut cuts the link from one node to another for a while.
func (w *network) cut(from, to int32, d time.Duration) {
	w.cuts[from][to] = max(w.cuts[from][to], w.c.now+d)
	w.c.note(note{what: "cut for %d ms", node: from, peer: to, a: int64(d / ms)})
}

// send has something happen at a node or a client after a delay, or never, or twice.
func (w *network) send(from, to int32, what string, do func()) {
	c := w.c
	loss, delay := w.loss, w.delay
	if c.now < w.burstUntil {
		loss, delay = loss+0.2, delay+60*ms
	}
	if w.isCut(from, to) || c.chance(loss) {
		c.saw("message lost")
		c.note(note{what: what, node: from, peer: to, part: onNetwork, text: "(lost)"})
		return
	}
	times := 1
	if w.doubles > 0 && c.chance(w.doubles) {
		times = 2
		c.saw("message doubled")
	}
	for range times {
		d := ms/2 + c.random(delay)
		if !c.healing && c.chance(0.01) {
			d += c.random(500 * ms)
			c.saw("message late")
		}
		c.after(d, func() { w.deliver(from, to, what, do) })
	}
}

// deliver delivers a message, unless its receiver is down. A receiver that is stalled gets it later, some time after it goes on: what
// it has to do itself may come first.
func (w *network) deliver(from, to int32, what string, do func()) {
	c := w.c
	if to <= maxNodes {
		n := c.node(to)
		if !n.up {
			return
		}
		if c.now < n.stalledUntil {
			c.after(n.stalledUntil-c.now+c.random(ownSession), func() { w.deliver(from, to, what, do) })
			return
		}
	}
	c.note(note{what: what, node: from, peer: to, part: onNetwork})
	do()
}
