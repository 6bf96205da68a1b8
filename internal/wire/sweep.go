package wire

import (
	"cmp"
	"slices"
	"time"

	"github.com/leatstream/leat/internal/budget"
)

const (
	halfSentMax = 30 * time.Second // how long no bytes of the rest of a frame may come
	sweepMax    = 2 * time.Second  // the longest time between two sweeps
	sweepsPer   = 8                // the least number of sweeps in the shortest time-out

	suspendAfter = 2 // how many sweeps a connection is idle before it is suspended

	// pressedSweeps is how many sweeps a client may read nothing while the unsent answers of all
	// connections take more memory than they may.
	pressedSweeps = 2

	// never is added to the pace of a request of which no more bytes come.
	never = 1 << 40
)

// sweeper closes and suspends idle connections and drops unused buffers, for all connections at
// once. It measures time in sweeps.
type sweeper struct {
	srv     *Server
	idle    uint32 // sweeps in the idle time-out
	stalled uint32 // sweeps in the time-out of half a request

	conns   []*Conn  // kept to use the memory again
	holders []holder // of the memory that clients have; kept to use the memory again
	peers   []holder // of the reserve
}

// runSweeper sweeps until the server stops.
func (s *Server) runSweeper() {
	half := min(halfSentMax, s.cfg.IdleTimeout)
	period := min(sweepMax, max(half/sweepsPer, time.Millisecond))
	count := func(d time.Duration) uint32 { return uint32((d + period - 1) / period) }
	w := sweeper{srv: s, idle: count(s.cfg.IdleTimeout), stalled: count(half)}
	for s.sleepUnlessStopped(period) {
		w.sweepOnce(s.sweeps.Add(1))
	}
}

// suspendedEvery is the number of sweeps after which one checks suspended connections too. Only
// the idle time-out can end those, and checking thousands takes time, since their memory is in
// no cache.
func (w *sweeper) suspendedEvery() uint32 { return min(16, max(1, w.idle/4)) }

func (w *sweeper) sweepOnce(now uint32) {
	s := w.srv
	w.conns = s.conns.listConns(w.conns, now%w.suspendedEvery() == 0)
	w.holders, w.peers = w.holders[:0], w.peers[:0]
	unsent, pressed := int64(0), s.shared.isPressed()
	for _, c := range w.conns {
		age := now - c.activity.last.Load()
		if pressed && age > pressedSweeps && c.out.holdsMuch() {
			c.Close(errNoReader)
		}
		if age > w.stalled {
			unsent += w.checkTimeouts(c, now)
		}
		if age >= suspendAfter && c.sock.isNonblocking() && c.isIdle() {
			c.interruptRead()
		}
		switch h := w.measureHeld(c, now); {
		case h.bytes == 0:
		case c.in.held.reserve.Load():
			w.peers = append(w.peers, h)
		default:
			h.exempt = c.IsProven()
			w.holders = append(w.holders, h)
		}
	}
	if unsent > s.cfg.RequestMemory {
		w.closeUnread(now)
	}
	w.closeSlowHolders(w.holders, s.buffers)
	w.closeSlowHolders(w.peers, s.reserve)
	s.held.closeUnread(s.cfg.Work.Usage(budget.Command).Waiting + s.cfg.Work.Usage(budget.Data).Waiting)
	clear(w.conns)
	clear(w.holders)
	clear(w.peers)
}

// checkTimeouts closes a connection without progress whose time-out is over; otherwise it
// returns the unsent bytes of its answers. A connection that waits for a buffer is not closed,
// since that is not its client's fault. A peer may be idle, since the system watches the connection.
func (w *sweeper) checkTimeouts(c *Conn, now uint32) (unsent int64) {
	state, load := c.life.currentState(), c.out.currentLoad()
	waits := (state == connReading || state.hasNoGoroutine()) && !c.in.isWaitingForBuffer()
	// The age is read last: a connection notes progress before it begins to wait for its
	// client, so the time in which it has waited for something else does not count.
	age := now - c.activity.last.Load()
	switch {
	case age <= w.stalled:
		return 0
	case waits && state != connMuted && c.in.held.bytes.Load() > 0:
		c.Close(errHalfSent)
	case c.IsProven():
	case age <= w.idle:
		return load.unsent
	case load.unsent > 0:
		c.Close(errNoReader)
	case waits && !load.parked:
		c.Close(errIdle)
	}
	return 0
}

// closeUnread closes connections whose clients do not read, when memory is short.
func (w *sweeper) closeUnread(now uint32) {
	for _, c := range w.conns {
		if !c.IsProven() && now-c.activity.last.Load() > w.stalled && c.out.currentLoad().unsent > boxSize {
			c.Close(errNoReader)
		}
	}
}

// holder is a connection that holds memory for requests while it waits.
type holder struct {
	c     *Conn
	bytes int64
	// pace is how many sweeps its request takes from its first byte to its last, if the
	// rest comes as the bytes since the last sweep did.
	pace   int64
	age    uint32 // how many sweeps ago its request began
	queued bool   // it waits for a larger buffer, not for its client
	works  bool   // it waits for work memory, or is muted, and does not wait for its client
	exempt bool   // it is a peer that holds memory which clients have too, and is not closed for them
}

// heldSample is the state of an unfinished request at the last sweep.
type heldSample struct {
	frame   uint64
	arrived int64
}

// measureHeld returns the memory that a connection holds for an unfinished request, or for
// requests that are not served because the client does not read its answers, or because they wait
// for work memory.
func (*sweeper) measureHeld(c *Conn, now uint32) holder {
	held := &c.in.held
	h := holder{c: c, bytes: held.bytes.Load(), queued: c.in.isWaitingForBuffer()}
	state := c.life.currentState()
	if h.bytes == 0 || state != connReading && state != connBlocked && state != connQueued && state != connMuted {
		return holder{}
	}
	last := c.sample
	c.sample = heldSample{held.frame.Load(), held.arrived.Load()}
	switch state {
	case connBlocked:
		h.age = now - c.activity.last.Load()
		h.pace = never + int64(h.age)
		return h
	case connQueued, connMuted: // this is not its client's fault, so slower clients are closed before it
		h.age, h.works = now-c.activity.last.Load(), true
		h.pace = int64(h.age)
		return h
	default:
	}
	h.age = now - held.since.Load()
	h.pace = int64(h.age)
	if c.sample.frame != last.frame {
		return h // it is new
	}
	if gained := c.sample.arrived - last.arrived; gained > 0 {
		h.pace += held.missing.Load() / gained
	} else {
		h.pace += never
	}
	return h
}

// closeSlowHolders frees memory of a pool if connections wait for it, or if a part of the
// last quarter is held, which must be free for small requests.
func (w *sweeper) closeSlowHolders(holders []holder, pool *bufferPool) {
	short := pool.sweepUnused()
	need := short.wanted
	held := int64(0)
	for i := range holders {
		held += holders[i].bytes
	}
	need = max(need, held-pool.bulk)
	if need <= 0 && !short.stuck {
		return
	}
	for _, h := range chooseVictims(holders, need, w.stalled, short.stuck) {
		if h.works {
			h.c.Close(errQueued)
		} else {
			h.c.Close(errNoMemory)
		}
	}
}

// chooseVictims chooses the holders that are closed to free need bytes: those that would take
// more than slow sweeps to send a request, the slowest first. If there are none, and no waiter
// was served since the last sweep (stuck), all wait for each other. Then it chooses the slowest
// in any case, or else, of those that wait for a larger buffer, the one whose request began
// last, so that the others can continue. Only this one may be exempt.
func chooseVictims(holders []holder, need int64, slow uint32, stuck bool) []holder {
	slices.SortFunc(holders, func(a, b holder) int { return cmp.Compare(b.pace, a.pace) })
	take := func(need int64, mayTake func(holder) bool) (list []holder) {
		for _, h := range holders {
			if need > 0 && mayTake(h) {
				list = append(list, h)
				need -= h.bytes
			}
		}
		return list
	}
	list := take(need, func(h holder) bool { return !h.exempt && !h.queued && h.age >= agedSweeps && h.pace > int64(slow) })
	if len(list) == 0 && stuck {
		list = take(max(need, 1), func(h holder) bool { return !h.exempt && !h.queued && h.age > 0 })
	}
	if len(list) == 0 && stuck {
		slices.SortFunc(holders, func(a, b holder) int { return cmp.Compare(a.age, b.age) })
		list = take(1, func(h holder) bool { return h.queued })
	}
	return list
}
