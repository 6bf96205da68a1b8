package wire

// room sees to it that the receive buffer has room for what comes next: it takes
// a buffer, moves what is there to its front, or grows it when it is full. It is
// false where memory is short; the caller then waits for it.
func (c *Conn) room() bool {
	switch {
	case c.in == nil:
		return c.swap(int(c.hint)) || c.swap(firstClass)
	case c.class < firstClass:
		return c.swap(max(int(c.hint), firstClass)) || c.swap(firstClass) // it holds a rest only
	case c.a == c.b:
		c.a, c.b = 0, 0
		if c.filled && c.class < busyClass {
			c.swap(int(c.class) + 1) // or stay with the smaller one
		}
		return true
	case c.b-c.a == len(c.in): // full, and all of it one frame
		return c.swap(c.grown())
	case c.filled && c.class < busyClass && c.swap(int(c.class)+1):
		return true
	case c.a > 0 && (len(c.in)-c.b < len(c.in)/2 || c.need > len(c.in)-c.a):
		c.b = copy(c.in, c.in[c.a:c.b])
		c.a = 0
	}
	return true
}

// grown is the class to which a full buffer grows: twice the size at most,
// whatever the frame announces.
func (c *Conn) grown() int {
	m := c.srv.memory
	return min(int(c.class)+1, len(m.sizes)-1)
}

// swap replaces the receive buffer by one of the class and moves what has come.
func (c *Conn) swap(class int) bool {
	b := c.srv.memory.take(class, len(c.in))
	if b == nil {
		return false
	}
	c.adopt(b, class)
	return true
}

func (c *Conn) adopt(b []byte, class int) {
	n := copy(b, c.in[c.a:c.b])
	c.giveBuffer()
	c.in, c.class, c.a, c.b, c.peak, c.filled = b, int8(class), 0, n, n, false
}

// giveBuffer gives the receive buffer back.
func (c *Conn) giveBuffer() {
	if c.in != nil {
		c.srv.memory.give(int(c.class), c.in)
		c.in, c.a, c.b = nil, 0, 0
	}
}

// got notes that n bytes were read.
func (c *Conn) got(n int) {
	c.filled = n == len(c.in)-c.b
	c.b += n
	c.peak = max(c.peak, c.b)
	c.srv.stats.BytesIn.Add(int64(n))
	c.moved()
}

// moved notes that the connection makes progress.
func (c *Conn) moved() {
	if t := c.srv.tick.Load(); c.progress.Load() != t {
		c.progress.Store(t)
	}
}

// park is called when nothing is there to be read: it gives the buffer back, or
// keeps one that fits the part of a frame that has come.
func (c *Conn) park() {
	rest := c.b - c.a
	if c.in != nil {
		c.learn()
		c.shrink(rest)
	}
	c.hold()
}

// shrink changes the buffer for the smallest that holds the rest, where that
// saves more than copying it twice costs.
func (c *Conn) shrink(rest int) {
	if rest == 0 {
		c.giveBuffer()
		return
	}
	m := c.srv.memory
	class := m.classFor(rest)
	if m.sizes[class]*4 <= len(c.in) && (rest <= m.sizes[1] || m.short()) {
		c.swap(class)
	}
}

// hold tells the sweeper what is held while the rest of a request is waited for.
func (c *Conn) hold() {
	n := int64(0)
	if c.b > c.a {
		n = int64(len(c.in))
	}
	if c.holds.Load() == n && c.halfOf == c.tail {
		return
	}
	if c.halfOf != c.tail || c.holds.Load() == 0 {
		c.began.Store(c.srv.tick.Load())
	}
	c.halfOf = c.tail
	c.holds.Store(n)
}

// learn remembers which size of buffer the connection makes use of.
func (c *Conn) learn() {
	switch {
	case c.class < firstClass:
	case c.class > c.hint:
		c.hint, c.small = min(c.class, maxHint), 0
	case c.peak > len(c.in)/4:
		c.small = 0
	default:
		if c.small++; c.small >= 16 && c.hint > firstClass {
			c.hint, c.small = c.hint-1, 0
		}
	}
}

// awaitMemory waits until there is a buffer to go on with.
func (c *Conn) awaitMemory() error {
	class := firstClass
	if c.class >= firstClass && c.in != nil {
		class = c.grown()
	}
	c.hold()
	w := c.srv.memory.wait(c, class, len(c.in))
	c.mu.Lock()
	c.waiting = w
	closed := c.closed
	c.mu.Unlock()
	if closed || c.srv.stopping.Load() {
		c.srv.memory.cancel(w)
	}
	<-w.ready
	c.mu.Lock()
	c.waiting = nil
	c.mu.Unlock()
	b := c.srv.memory.collect(w, class)
	if b == nil {
		return errNoMemory
	}
	c.adopt(b, class)
	return nil
}
