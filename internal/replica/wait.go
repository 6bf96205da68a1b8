package replica

import (
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/leatstream/leat/internal/record"
)

// Completer is told that a wait has ended. Complete must not block or panic. It runs on the
// goroutine that ended the wait, which holds no lock.
type Completer interface {
	Complete(slot int32, err error)
}

// Waiter waits for an acknowledgement of a partition. It is part of the memory of the request
// that waits, so that waiting allocates nothing. It must not be moved or used again before
// Complete is called.
type Waiter struct {
	Owner Completer
	Slot  int32 // given to Complete; tells the owner which of its waits has ended
	Acks  Acks  // AcksLeader or AcksAll
	// Deadline is the time of Set.Now at which Set.Expire ends the wait; 0: never.
	Deadline time.Duration

	need record.Offset
	next *Waiter
}

// waitList is a list of waiters, sorted by the offset that they need. Guarded by
// Partition.mu.
type waitList struct{ head, tail *Waiter }

// add inserts w, nearly always at the end of the list, since offsets are assigned in order.
func (l *waitList) add(w *Waiter) {
	w.next = nil
	if l.tail == nil {
		l.head, l.tail = w, w
		return
	}
	if l.tail.need <= w.need {
		l.tail.next, l.tail = w, w
		return
	}
	at := &l.head
	for (*at).need <= w.need {
		at = &(*at).next
	}
	w.next, *at = *at, w
}

// takeReached removes the waiters that an end satisfies and returns them as a chain.
func (l *waitList) takeReached(end record.Offset) *Waiter {
	head, at := l.head, &l.head
	var last *Waiter
	for *at != nil && (*at).need <= end {
		last, at = *at, &(*at).next
	}
	if last == nil {
		return nil
	}
	l.head, last.next = last.next, nil
	if l.head == nil {
		l.tail = nil
	}
	return head
}

// takeAll removes all waiters.
func (l *waitList) takeAll() *Waiter {
	head := l.head
	l.head, l.tail = nil, nil
	return head
}

// takeExpired removes the waiters whose deadline is not after now.
func (l *waitList) takeExpired(now time.Duration) *Waiter {
	var head, last *Waiter
	end := &head
	for at := &l.head; *at != nil; {
		w := *at
		if w.Deadline == 0 || w.Deadline > now {
			last, at = w, &w.next
			continue
		}
		*at, w.next = w.next, nil
		*end, end = w, &w.next
	}
	l.tail = last
	return head
}

// expireWaits ends the waits whose deadline is not after now, and all of them if they cannot
// succeed any more. It tells whether there are waiters left.
func (p *Partition) expireWaits(now time.Duration) bool {
	p.mu.Lock()
	done := [...]*Waiter{p.onLeader.takeExpired(now), p.inSync.takeExpired(now)}
	var rest [2]*Waiter
	var fault error
	if p.onLeader.head != nil || p.inSync.head != nil {
		if fault = p.stuckError(); fault != nil {
			rest = [...]*Waiter{p.onLeader.takeAll(), p.inSync.takeAll()}
		}
	}
	p.listed = p.onLeader.head != nil || p.inSync.head != nil
	left := p.listed
	p.mu.Unlock()
	for i := range done {
		completeWaits(done[i], ErrTimedOut)
		completeWaits(rest[i], fault)
	}
	return left
}

// completeWaits ends the waits of a chain. It reads next before it calls Complete, since the
// owner may use the waiter again from then on.
func completeWaits(w *Waiter, err error) {
	for w != nil {
		next := w.next
		w.next = nil
		w.Owner.Complete(w.Slot, err)
		w = next
	}
}

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
func (w *Poll) Watch(p *Partition, hw record.Offset) {
	w.watchers = append(w.watchers, watcher{poll: w, p: p})
	p.addWatcher(&w.watchers[len(w.watchers)-1], hw)
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
		w.watchers[i].p.removeWatcher(&w.watchers[i])
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

func wakePolls(w *Poll) {
	for w != nil {
		next := w.next
		w.next = nil
		w.Owner.Wake()
		w = next
	}
}
