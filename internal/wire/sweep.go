package wire

import "time"

// sweep looks after idle connections and unused buffers, for all connections at
// once: a timer for each would cost memory.
func (s *Server) sweep() {
	half := min(halfSentMax, s.cfg.IdleTimeout)
	period := min(sweepMax, max(half/sweepsPer, time.Millisecond))
	ticks := func(d time.Duration) uint32 { return uint32((d + period - 1) / period) }
	idle, stalled := ticks(s.cfg.IdleTimeout), ticks(half)
	for s.sleep(period) {
		now := s.tick.Add(1)
		unsent := int64(0)
		conns := s.all()
		for _, c := range conns {
			if age := now - c.progress.Load(); age > stalled {
				unsent += c.sweep(age > idle)
			}
		}
		if unsent > s.cfg.RequestMemory {
			for _, c := range conns {
				if now-c.progress.Load() > stalled {
					c.closeUnread()
				}
			}
		}
		if stuck := s.memory.sweep(); stuck != nil {
			oldestHolder(conns, stuck, now).Close(errNoMemory)
		}
	}
}

// oldestHolder chooses the connection that is closed when those that wait for
// memory wait for each other: that which takes longest to send a large request,
// or else the one that waits and holds most.
func oldestHolder(conns []*Conn, oldest *Conn, now uint32) *Conn {
	age := uint32(0)
	for _, c := range conns {
		if c.holds.Load() <= lightHolder {
			continue
		}
		if a := now - c.began.Load(); a > age {
			oldest, age = c, a
		}
	}
	return oldest
}

// sweep is called for a connection that made no progress for some time. It ends
// it where nothing can be hoped for, else it returns the bytes that it holds.
func (c *Conn) sweep(idle bool) (unsent int64) {
	c.mu.Lock()
	unsent = c.out.size + c.held
	reading := !c.serving && c.relief == nil
	parked := c.taken != c.done
	waiting := c.waiting != nil
	c.mu.Unlock()
	switch {
	case c.holds.Load() > 0 && waiting:
		c.Close(errNoMemory)
	case c.holds.Load() > 0 && reading:
		c.Close(errHalfSent)
	case !idle:
		return unsent
	case unsent > 0:
		c.Close(errNoReader)
	case reading && !parked:
		c.Close(errIdle)
	}
	return 0
}

// closeUnread ends a connection whose client does not read, when memory is short.
func (c *Conn) closeUnread() {
	c.mu.Lock()
	unread := c.out.size > boxSize
	c.mu.Unlock()
	if unread {
		c.Close(errNoReader)
	}
}
