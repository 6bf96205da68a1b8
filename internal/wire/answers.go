package wire

// claim hands out the place behind the outbox when r's answer is the next one.
func (c *Conn) claim(r *Request) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.seq != c.done || c.closed {
		return nil
	}
	r.resp.claimed = true
	return c.out.tail(&c.srv.boxes, c.writing)
}

// complete takes the answer of r; it goes out when all before it have.
func (c *Conn) complete(r *Request) {
	var finished *Request
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		r.resp.discard()
		c.srv.recycle(r)
		return
	}
	if r.seq != c.done {
		c.ring.put(r, c.done)
		c.held += int64(r.resp.size())
		if c.held >= sendEarly {
			c.pressed.Store(true)
		}
		c.mu.Unlock()
		return
	}
	for n := r; n != nil; n = c.ring.take(c.done) {
		if n != r {
			c.held -= int64(n.resp.size())
		}
		c.done++
		if c.out.add(n, &c.srv.boxes, c.writing) {
			n.next, finished = finished, n
		}
	}
	if c.counted > 0 && !c.corked {
		c.recountLocked()
	}
	if c.out.size >= sendEarly {
		c.pressed.Store(true)
	}
	write := !c.corked && !c.writing && c.out.size > 0 && c.directLocked()
	if write {
		c.writing, c.later = true, false
	}
	c.relieveLocked()
	c.mu.Unlock()
	c.srv.recycle(finished)
	if write {
		c.write(byOther)
	}
}

// directLocked tells whether who completes an answer shall send it himself. While
// more are outstanding he will likely complete those too, one after the other, as
// a group commit does: then all go out with the last one's write, or by a
// goroutine that comes to it first (BenchmarkParked).
func (c *Conn) directLocked() bool {
	if c.taken == c.done {
		return true
	}
	c.later = true
	if !c.laterRuns {
		c.laterRuns = true
		c.drains.Go(c.writeLater)
	}
	return false
}

// writeLater sends what was left to it, unless somebody else has.
func (c *Conn) writeLater() {
	c.mu.Lock()
	write := c.later && !c.writing
	c.later, c.laterRuns = false, false
	if write {
		c.writing = true
	}
	c.mu.Unlock()
	if write {
		c.write(byDrain)
	}
}

// relieveLocked wakes the connection's goroutine where it waits for room.
func (c *Conn) relieveLocked() {
	if c.relief != nil && c.withinLocked(c.relieve) {
		close(c.relief)
		c.relief = nil
	}
}

// ring keeps answers that are ready before it is their turn, by the order of
// their requests.
type ring struct {
	list []*Request // a power of two long; seq's place is its low bits
	n    int
}

func (g *ring) put(r *Request, done uint64) {
	if d := int(r.seq - done); d >= len(g.list) {
		size := max(16, len(g.list))
		for size <= d {
			size *= 2
		}
		list := make([]*Request, size)
		for _, o := range g.list {
			if o != nil {
				list[o.seq&uint64(size-1)] = o
			}
		}
		g.list = list
	}
	i := r.seq & uint64(len(g.list)-1)
	if g.list[i] != nil {
		panic("BUG: a request was answered twice")
	}
	g.list[i] = r
	g.n++
}

// take removes the answer with that place in the order, if it is ready.
func (g *ring) take(seq uint64) *Request {
	if g.n == 0 {
		return nil
	}
	i := seq & uint64(len(g.list)-1)
	r := g.list[i]
	if r == nil {
		return nil
	}
	g.list[i] = nil
	if g.n--; g.n == 0 && len(g.list) > 64 {
		g.list = nil
	}
	return r
}
