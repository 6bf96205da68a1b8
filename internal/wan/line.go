package wan

import (
	"math/rand/v2"
	"time"
)

// maxUnderWay is how many bytes of packets one direction keeps, those that wait for the rate and those under way: a second of
// the fastest that a machine of today does. Further packets overflow.
const maxUnderWay = 1 << 30

// fate is what becomes of a packet that is sent into a line.
type fate uint8

const (
	fateCarried    fate = iota
	fateLost            // by Settings.Loss
	fateCut             // the line is cut, or down
	fateOverflowed      // no room in the queue
	fateRefused         // by Settings.Reset
)

// cargo is what a line carries.
type cargo interface {
	// arrive hands on the cargo so many times, and returns how often it could. It must not wait.
	arrive(copies int) (delivered int)
}

// size is how large a packet is, or several that were sent as one.
type size struct{ packets, bytes int64 }

// order is the decision of a line about a packet.
type order struct {
	fate     fate
	departs  time.Duration // when the line has sent it
	due      time.Duration // when it arrives
	copies   int
	overtake bool // it does not wait for those before it
	// again is when a packet that was not carried may be tried again, if nothing changes; 0: not before the settings change.
	again time.Duration
}

// entry is a packet that is under way.
type entry struct {
	cargo cargo
	size  size
	taken time.Duration // when the line took it
	order order
}

// line is one direction between two sites: it decides what becomes of each packet, and keeps those that are under way. It is pure: it has neither a clock nor a goroutine,
// and all times are those since the network was made. Its owner is a path.
type line struct {
	settings Settings
	random   *rand.Rand
	since    time.Duration // when the settings were set
	free     time.Duration // when all packets that the line has taken are sent
	last     time.Duration // when the last packet arrives that keeps the order
	bytes    int64         // under way
	ordered  fifo          // packets under way, in the order in which they arrive
	ahead    fifo          // packets under way that overtake those, in the order in which they arrive
}

// set changes the settings. Packets that wait for the rate wait for the new one.
func (l *line) set(now time.Duration, s Settings) {
	if s.Rate != l.settings.Rate {
		rescale := func(departs time.Duration) time.Duration {
			if departs <= now {
				return departs // it is sent
			}
			if s.Rate == 0 {
				return now
			}
			return now + time.Duration(float64(departs-now)*float64(l.settings.Rate)/float64(s.Rate))
		}
		l.last = 0
		for _, queue := range []*fifo{&l.ordered, &l.ahead} {
			for i := range queue.waiting() {
				o := &queue.waiting()[i].order
				sent := rescale(o.departs)
				o.due += sent - o.departs
				o.departs = sent
			}
		}
		for i := range l.ordered.waiting() { // a packet that was sent longer ago may have the longer delay
			o := &l.ordered.waiting()[i].order
			o.due = max(o.due, l.last)
			l.last = o.due
		}
		l.free = rescale(l.free)
	}
	l.settings, l.since = s, now
}

// judge decides about a packet that is sent now. A packet that is carried has to be put, or to arrive at once.
func (l *line) judge(now time.Duration, z size) order {
	s := &l.settings
	if s.Reset {
		return order{fate: fateRefused}
	}
	if works, again := l.works(now); !works {
		return order{fate: fateCut, again: again}
	}
	if s.Loss > 0 && l.draws(s.Loss, z.packets) {
		return order{fate: fateLost}
	}
	o := order{copies: 1, departs: now, due: now}
	if l.bytes > 0 && l.bytes+z.bytes > maxUnderWay {
		next, _ := l.next()
		return order{fate: fateOverflowed, again: max(next, now+1)}
	}
	if s.Rate > 0 {
		wait, sending := max(0, l.free-now), s.sendingTime(z.bytes)
		if longest := s.longestWait(); wait > 0 && wait+sending > longest {
			return order{fate: fateOverflowed, again: now + max(1, min(wait, wait+sending-longest))}
		}
		o.departs = now + wait + sending
		l.free = o.departs
	}
	if s.Duplicate > 0 && l.draws(s.Duplicate, 1) {
		o.copies = 2
	}
	o.due = o.departs
	if s.Reorder > 0 && l.draws(s.Reorder, 1) {
		o.overtake = true
		return o
	}
	o.due += s.Delay
	if s.Jitter > 0 {
		o.due += time.Duration(l.random.Int64N(int64(s.Jitter)))
	}
	o.due = max(o.due, l.last)
	l.last = o.due
	return o
}

// works tells whether the line carries packets, and if not, from when on it does; 0: not before the settings change.
func (l *line) works(now time.Duration) (works bool, again time.Duration) {
	s := &l.settings
	if s.Cut {
		return false, 0
	}
	if s.Down == 0 {
		return true, 0
	}
	period := s.Up + s.Down
	turn := (now - l.since) % period
	return turn < s.Up, now + period - turn
}

// draws tells whether what has the given share in all packets happened to any of so many.
func (l *line) draws(share float64, packets int64) bool {
	for range packets {
		if l.random.Float64() < share {
			return true
		}
	}
	return false
}

// put keeps a packet until it is due.
func (l *line) put(e *entry) {
	l.bytes += e.size.bytes
	if e.order.overtake {
		l.ahead.push(e)
	} else {
		l.ordered.push(e)
	}
}

// next is when the next packet is due; false: none is under way.
func (l *line) next() (due time.Duration, ok bool) {
	if q := l.nextQueue(); q != nil {
		return q.waiting()[0].order.due, true
	}
	return 0, false
}

// pop takes the next packet that is due; false: there is none.
func (l *line) pop(now time.Duration) (e entry, ok bool) {
	q := l.nextQueue()
	if q == nil || q.waiting()[0].order.due > now {
		return entry{}, false
	}
	e = q.pop()
	l.bytes -= e.size.bytes
	return e, true
}

// isEmpty tells whether no packet is under way.
func (l *line) isEmpty() bool { return l.nextQueue() == nil }

// nextQueue is the queue with the packet that arrives next; nil: none is under way.
func (l *line) nextQueue() *fifo {
	o, a := l.ordered.waiting(), l.ahead.waiting()
	switch {
	case len(o) == 0 && len(a) == 0:
		return nil
	case len(o) == 0 || len(a) > 0 && a[0].order.due <= o[0].order.due:
		return &l.ahead
	default:
		return &l.ordered
	}
}

// fifo is a queue of packets.
type fifo struct {
	entries []entry
	head    int // the first one that waits
}

func (f *fifo) waiting() []entry { return f.entries[f.head:] }

func (f *fifo) push(e *entry) {
	if f.head > 0 && len(f.entries) == cap(f.entries) && f.head >= len(f.entries)/2 {
		n := copy(f.entries, f.entries[f.head:])
		clear(f.entries[n:])
		f.entries, f.head = f.entries[:n], 0
	}
	f.entries = append(f.entries, *e)
}

func (f *fifo) pop() entry {
	e := f.entries[f.head]
	f.entries[f.head] = entry{}
	f.head++
	if f.head == len(f.entries) {
		f.entries, f.head = f.entries[:0], 0
	}
	return e
}
