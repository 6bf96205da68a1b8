package wan

import (
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// arrivalsAtOnce is how many packets a path hands on before it lets others use its lock.
	arrivalsAtOnce = 64
	// leastRetransmission is the least time after which Linux sends a TCP segment again that was not acknowledged.
	leastRetransmission = 200 * time.Millisecond
)

// path runs a line by the clock: it takes packets of any goroutine, and one of its own hands them on.
type path struct {
	clock clock
	wake  chan struct{} // of size 1: a packet is due earlier than the goroutine knows

	mu       sync.Mutex
	line     line          // guarded by mu
	counters Counters      // guarded by mu
	changed  chan struct{} // guarded by mu; closed and replaced when the settings change
	handing  bool          // guarded by mu; packets that are no longer in the line are being handed on
}

// clock is the time of a network: since it was made.
type clock struct{ began time.Time }

func (c clock) now() time.Duration { return time.Since(c.began) }

func newPath(c clock, seed1, seed2 uint64) *path {
	return &path{
		clock: c, wake: make(chan struct{}, 1), changed: make(chan struct{}),
		line: line{random: rand.New(rand.NewPCG(seed1, seed2))},
	}
}

// set changes the settings.
func (p *path) set(s Settings) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.line.set(p.clock.now(), s)
	p.counters.Shortest, p.counters.Longest = 0, 0
	close(p.changed)
	p.changed = make(chan struct{})
	p.awaken()
}

// count returns the counters as they are now.
func (p *path) count() Counters {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counters
}

// offer sends a packet. An idle path without delay has the caller hand it on, which is isDirect: the caller then reports how often it arrived. A packet that
// is carried otherwise is put on its way as pack returns it; any other is gone.
func (p *path) offer(z size, pack func() cargo) (o order, isDirect bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.clock.now()
	o = p.line.judge(now, z)
	p.enterLocked(z)
	if o.fate != fateCarried {
		p.dropLocked(o.fate, z)
		return o, false
	}
	p.carryLocked(o, z)
	if o.due <= now && !p.handing && p.line.isEmpty() {
		return o, true
	}
	p.putLocked(&entry{pack(), z, now, o})
	return o, false
}

// send sends cargo that must not get lost. What cannot be carried now is not sent: the caller tries again when the order says so, or when changed is closed; only
// the first try is counted. Cargo that a network would lose is carried, and pack is told by how much later it has to come, since TCP would have sent it again. Refused cargo is gone.
func (p *path) send(z size, pack func(late time.Duration) cargo, isFirstTry bool) (o order, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.clock.now()
	o = p.line.judge(now, z)
	var late time.Duration
	if o.fate == fateLost {
		loss := p.line.settings.Loss
		p.line.settings.Loss = 0
		o = p.line.judge(now, z)
		p.line.settings.Loss = loss
		late = leastRetransmission + 2*p.line.settings.Delay
	}
	switch {
	case o.fate == fateCarried:
		if late > 0 {
			p.dropLocked(fateLost, z)
		}
		p.enterLocked(z)
		p.carryLocked(o, z)
		p.putLocked(&entry{pack(late), z, now, o})
	case o.fate == fateRefused:
		p.enterLocked(z)
		p.dropLocked(o.fate, z)
	case isFirstTry:
		p.dropLocked(o.fate, z)
	}
	return o, p.changed
}

func (p *path) enterLocked(z size) {
	p.counters.Packets += z.packets
	p.counters.Bytes += z.bytes
}

// dropLocked counts a packet that is not carried.
func (p *path) dropLocked(f fate, z size) {
	switch f {
	case fateLost:
		p.counters.Lost += z.packets
	case fateCut:
		p.counters.Cut += z.packets
	case fateOverflowed:
		p.counters.Overflowed += z.packets
	case fateRefused:
		p.counters.Refused += z.packets
	case fateCarried:
		panic("BUG: a packet is dropped that is carried")
	}
}

// carryLocked counts a packet that is carried.
func (p *path) carryLocked(o order, z size) {
	p.counters.UnderWay += z.packets * int64(o.copies)
	p.counters.Duplicated += z.packets * int64(o.copies-1)
	if o.overtake {
		p.counters.Overtaking += z.packets
	}
}

// putLocked puts a packet on its way.
func (p *path) putLocked(e *entry) {
	before, some := p.line.next()
	p.line.put(e)
	if !some || e.order.due < before {
		p.awaken()
	}
}

// awaken has the path's goroutine look when the next packet is due.
func (p *path) awaken() { notify(p.wake) }

// notify tells the only receiver of a channel of size 1.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// reportArrival counts a packet that was handed on so many times; the other copies found no room at the receiver.
func (p *path) reportArrival(e *entry, delivered int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.arriveLocked(e, delivered)
}

func (p *path) arriveLocked(e *entry, delivered int) {
	c := &p.counters
	c.UnderWay -= e.size.packets * int64(e.order.copies)
	c.Delivered += e.size.packets * int64(delivered)
	c.DeliveredBytes += e.size.bytes * int64(delivered)
	c.Overflowed += e.size.packets * int64(e.order.copies-delivered)
	if e.order.overtake || delivered == 0 || e.taken < p.line.since {
		return
	}
	took := p.clock.now() - e.taken
	if c.Shortest == 0 || took < c.Shortest {
		c.Shortest = took
	}
	c.Longest = max(c.Longest, took)
}

// run hands packets on when they are due, until the network is closed.
func (p *path) run(closed <-chan struct{}) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var batch []entry
	for {
		var next time.Duration
		var some bool
		batch, next, some = p.popDue(batch[:0])
		if len(batch) > 0 {
			p.handOn(batch)
			clear(batch)
			continue
		}
		var due <-chan time.Time
		if some {
			timer.Reset(next - p.clock.now())
			due = timer.C
		}
		select {
		case <-due:
		case <-p.wake:
		case <-closed:
			return
		}
	}
}

// popDue appends the packets that are due to the batch. If there is none, it returns when the next one is due; false: no packet is under way.
func (p *path) popDue(batch []entry) (due []entry, next time.Duration, some bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.clock.now()
	for len(batch) < arrivalsAtOnce {
		e, ok := p.line.pop(now)
		if !ok {
			break
		}
		batch = append(batch, e)
	}
	p.handing = len(batch) > 0
	next, some = p.line.next()
	return batch, next, some
}

// handOn hands packets on, which popDue has taken from the line.
func (p *path) handOn(batch []entry) {
	var delivered [arrivalsAtOnce]int
	for i := range batch {
		delivered[i] = batch[i].cargo.arrive(batch[i].order.copies)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range batch {
		p.arriveLocked(&batch[i], delivered[i])
	}
}
