package replica

import (
	"sync/atomic"
	"unsafe"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage"
)

// Waker is told once that a Poll has fired. Wake must not block. It runs on the goroutine that
// fired the poll, which holds no lock.
type Waker interface {
	Wake()
}

// keepWatchers is the number of partitions for which a poll keeps memory after its end.
const keepWatchers = 1024

// These are the states of a Poll.
//
//	idle --Begin--> arming --Park--> armed --Fire--> fired
//	 ^                 |                               |
//	 +-------End-------+--------------End--------------+
const (
	pollIdle   = iota
	pollArming // partitions are added: bytes are counted, but the poll cannot be fired
	pollArmed
	pollFired // the caller of Fire owns the poll
)

// Poll waits until enough bytes have come to any of several partitions, as a Fetch does. It is
// part of the request's memory and may be used again after each End.
//
// The owner calls Begin, Watch for each partition, then Park. After Park, the caller whose call
// of Fire returns true owns the poll, and must call End before it uses it again.
type Poll struct {
	Owner Waker

	state    atomic.Uint32
	expired  atomic.Bool  // Expire was called: Park must not wait
	need     atomic.Int64 // bytes still to come
	watchers []watcher    // one for each watched partition
	next     *Poll        // in a chain of fired polls that are to be woken
}

// WatchMemory is the number of bytes that a poll takes for each partition that it watches.
const WatchMemory = int64(unsafe.Sizeof(watcher{}))

// watcher is a poll's entry in one partition's ring, guarded by that partition's mu.
type watcher struct {
	poll       *Poll
	p          *Partition
	seen       int64 // the bytes of the partition's tally that are counted for the poll
	prev, next *watcher

	// A watcher for committed records counts bytes while no transaction is open. While one is, isHeld is set: then
	// it is not known which bytes are readable, and each move of the last stable offset fires the poll.
	committed bool
	isHeld    bool
	stable    record.Offset // the last stable offset up to which bytes are counted
}

// Begin prepares a wait for need bytes in about n partitions.
func (w *Poll) Begin(need int64, n int) {
	if w.state.Load() == pollArmed {
		panic("BUG: a poll that is parked cannot begin")
	}
	if cap(w.watchers) < n {
		w.watchers = make([]watcher, 0, n)
	}
	w.watchers = w.watchers[:0]
	w.need.Store(need)
	w.expired.Store(false)
	w.state.Store(pollArming)
}

// Watch adds a partition that was read up to the high watermark hw.
func (w *Poll) Watch(p *Partition, hw record.Offset) { w.watch(watcher{poll: w, p: p}, hw) }

// WatchCommitted is Watch for a reader of committed records, who has read up to the last stable offset that the partition
// had with that high watermark. It moves only when the high watermark does.
func (w *Poll) WatchCommitted(p *Partition, hw, stable record.Offset) {
	w.watch(watcher{poll: w, p: p, committed: true, isHeld: stable < hw, stable: stable}, hw)
}

func (w *Poll) watch(s watcher, hw record.Offset) {
	p := s.p
	w.watchers = append(w.watchers, s)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.audience.add(&w.watchers[len(w.watchers)-1])
	if _, err := p.checkEpoch(record.NoEpoch, true); err != nil || record.Offset(p.hw.Load()) > hw {
		w.need.Store(0) // the partition has changed since the owner has read it
	}
}

// Park arms the poll. It returns false if enough bytes have come already or Expire was called:
// the caller has fired the poll then and owns it. If it returns true the poll may have been
// fired, ended and begun again by now.
func (w *Poll) Park() bool {
	w.state.Store(pollArmed)
	return w.need.Load() > 0 && !w.expired.Load() || !w.Fire()
}

// Expire ends the wait without enough bytes. A poll that is not parked yet will not wait in
// Park. If Expire returns true the caller owns the poll.
func (w *Poll) Expire() bool {
	w.expired.Store(true)
	return w.Fire()
}

// Fire ends the wait of an armed poll. It returns true to one caller only.
func (w *Poll) Fire() bool { return w.state.CompareAndSwap(pollArmed, pollFired) }

// End removes the poll from its partitions. Only its owner may call it: the caller that has
// fired it, or the one that has begun it and not parked it.
func (w *Poll) End() {
	for i := range w.watchers {
		p := w.watchers[i].p
		p.mu.Lock()
		w.watchers[i].leave()
		p.mu.Unlock()
	}
	clear(w.watchers)
	w.watchers = w.watchers[:0]
	if cap(w.watchers) > keepWatchers {
		w.watchers = nil
	}
	w.state.Store(pollIdle)
}

// countArrived counts bytes that have come, and fires the poll if they are enough. It tells
// whether it has fired it.
func (w *Poll) countArrived(bytes int64) bool {
	return w.need.Add(-bytes) <= 0 && w.Fire()
}

// wakeCommitted wakes polls for committed records if the last stable offset has moved. It is called after the high
// watermark has risen, or bytes were counted that lie below it; no lock may be held.
func wakeCommitted(p *Partition) {
	if p.audience.committed.Load() == 0 {
		return
	}
	hw := record.Offset(p.hw.Load())
	stable, err := storage.StableEnd(p.log.Load(), hw)
	if err != nil {
		stable = hw // so that the readers meet the error
	}
	p.mu.Lock()
	woken := p.audience.countCommitted(stable, hw)
	p.mu.Unlock()
	wakePolls(woken)
}

func wakePolls(w *Poll) {
	for w != nil {
		next := w.next
		w.next = nil
		w.Owner.Wake()
		w = next
	}
}

// arrival is the number of bytes that were appended, and the offset after them.
type arrival struct {
	bytes int64
	end   record.Offset
}

// audience is the polls that watch a partition, and the bytes that they wait for. Bytes are counted when
// they are appended, but readable only when the high watermark has passed them: a poll that
// begins between the two must still be told of them. Guarded by Partition.mu.
type audience struct {
	polls    watcher       // head of the ring
	bytes    int64         // appended to this replica
	end      record.Offset // all of bytes are below it
	readable int64         // of bytes, those that are known to be below the high watermark

	// nextReadable is the value of readable after the high watermark has reached nextEnd.
	nextEnd      record.Offset
	nextReadable int64

	committed atomic.Int32 // watchers for committed records; changed with Partition.mu held
}

// advanceTo raises readable to the high watermark.
func (c *audience) advanceTo(hw record.Offset) {
	if hw < c.nextEnd {
		return
	}
	c.readable, c.nextEnd, c.nextReadable = c.nextReadable, c.end, c.bytes
	if hw >= c.end {
		c.readable = c.bytes
	}
}

// cutAt takes that no record lies at an offset or beyond it any more.
func (c *audience) cutAt(to record.Offset) {
	c.end, c.nextEnd = min(c.end, to), min(c.nextEnd, to)
}

func newAudience(c *audience) { c.polls.prev, c.polls.next = &c.polls, &c.polls }

// count counts the newly appended bytes for each poll, fires the polls that have enough now (all:
// every poll), and returns those that it fired as a chain. Polls for committed records are left to
// countCommitted, unless all are fired.
func (c *audience) count(all bool) *Poll {
	var chain *Poll
	for s := c.polls.next; s != &c.polls; s = s.next {
		if s.committed && !all {
			continue
		}
		n := max(c.bytes-s.seen, 1) // at least one: the batches of another leader are not counted
		s.seen = c.bytes
		if all {
			n = s.poll.need.Load()
		}
		if s.poll.countArrived(n) {
			s.poll.next, chain = chain, s.poll
		}
	}
	return chain
}

// countCommitted is count for the polls for committed records, after the last stable offset was found for a high watermark.
func (c *audience) countCommitted(stable, hw record.Offset) *Poll {
	var chain *Poll
	for s := c.polls.next; s != &c.polls; s = s.next {
		if !s.committed || stable < s.stable || stable == s.stable && (stable < hw || c.bytes == s.seen) {
			continue
		}
		n := max(c.bytes-s.seen, 1)
		if s.isHeld || stable < hw {
			n = s.poll.need.Load()
		}
		s.seen, s.stable = c.bytes, stable
		if s.poll.countArrived(n) {
			s.poll.next, chain = chain, s.poll
		}
	}
	return chain
}

// add adds a poll to the ring.
func (c *audience) add(s *watcher) {
	if s.committed {
		c.committed.Add(1)
	}
	s.seen = c.readable // perhaps less than its owner has read: an early wake does no harm
	s.prev, s.next = c.polls.prev, &c.polls
	s.prev.next, s.next.prev = s, s
}

// leave removes the poll from its ring.
func (s *watcher) leave() {
	if s.committed {
		s.p.audience.committed.Add(-1)
	}
	s.prev.next, s.next.prev = s.next, s.prev
	s.prev, s.next = nil, nil
}
