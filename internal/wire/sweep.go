package wire

import "time"

// sweep looks after idle connections and unused buffers, for all connections at
// once: a timer for each would cost memory.
func (s *Server) sweep() {
	half := min(halfSentMax, s.cfg.IdleTimeout)
	period := min(sweepMax, max(half/sweepsPer, time.Millisecond))
	ticks := func(d time.Duration) uint32 { return uint32((d + period - 1) / period) }
	idle, stalled := ticks(s.cfg.IdleTimeout), ticks(half)
	var conns []*Conn
	var q quiet
	for s.sleep(period) {
		now := s.tick.Add(1)
		unsent := int64(0)
		conns = s.all(conns, now%dozingEvery(idle) == 0)
		for _, c := range conns {
			age := now - c.progress.Load()
			if age > stalled {
				unsent += c.sweep(age > idle)
			}
			if age >= dozeAfter && c.idle() {
				q.owed += dozeGain
				c.sock.drowse()
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
		clear(conns)
		if q.now(s.stats.BytesIn.Load()+s.stats.BytesOut.Load()) && s.cfg.Quiet != nil {
			s.cfg.Quiet()
		}
	}
}

// dozingEvery is how often a sweep looks at connections that doze, too: only the
// idle time-out can end them, and their memory is in no cache (9,900 of them took
// 0.2 % of a core when each sweep looked, and take 0.06 %).
func dozingEvery(idle uint32) uint32 { return min(16, max(1, idle/4)) }

const (
	dozeAfter = 2       // sweeps that a connection is idle before it dozes
	dozeGain  = 8 << 10 // bytes that this frees

	quietSweeps = 3        // sweeps with little traffic until it counts as ceased
	quietBytes  = 1 << 20  // little traffic, between two sweeps
	quietOwed   = 16 << 20 // bytes of traffic, or freed, after which there is something to give back
)

// quiet finds the time to give memory back: when traffic has ceased that there was.
type quiet struct {
	last  int64 // bytes moved until the last sweep
	owed  int64 // bytes moved or freed since the last time
	still int   // sweeps in a row that saw little traffic
}

// now is told at each sweep how many bytes were moved in all.
func (q *quiet) now(moved int64) bool {
	n := moved - q.last
	q.last = moved
	q.owed += n
	if n >= quietBytes {
		q.still = 0
		return false
	}
	if q.still++; q.still < quietSweeps || q.owed < quietOwed {
		return false
	}
	q.owed = 0
	return true
}

// idle tells that the connection waits for a request, has none unanswered, and does
// not doze yet.
func (c *Conn) idle() bool {
	if c.holds.Load() > 0 {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.dozing && !c.closed && !c.serving && !c.writing && c.taken == c.done && c.out.size == 0 &&
		c.relief == nil && c.waiting == nil
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
