package replica

import (
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/leatstream/leat/internal/record"
)

// Completer is told that a wait has ended. Complete must not block or panic; it runs on
// the goroutine that moved the partition's end, no lock held.
type Completer interface {
	Complete(slot int32, err error)
}

// Waiter waits for an acknowledgement that a partition can give. It stands in the memory
// of the request that waits, so that waiting allocates nothing; it must not be moved or
// used again before Complete was called.
type Waiter struct {
	Owner Completer
	Slot  int32 // handed to Complete: which of the owner's waits has ended
	Acks  Acks  // what it waits for; not AcksNone
	// Deadline is when Set.Expire ends the wait, on the Set's clock; 0: never.
	Deadline time.Duration

	need record.Offset
	next *Waiter
}

// waitList holds waiters by the offset that they need, the lowest first. Guarded
// by Partition.mu.
type waitList struct{ head, tail *Waiter }

// add puts w in its place: nearly always the end, since offsets are handed out in order.
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

// expireWaits ends the waits whose time is over, and all of them where the log has
// failed meanwhile. It tells whether somebody still waits.
func (p *Partition) expireWaits(now time.Duration) bool {
	p.mu.Lock()
	done := [...]*Waiter{p.onLeader.takeExpired(now), p.inSync.takeExpired(now)}
	var rest [2]*Waiter
	var fault error
	if p.onLeader.head != nil || p.inSync.head != nil {
		if fault = p.whyStuck(); fault != nil {
			rest = [...]*Waiter{p.onLeader.takeAll(), p.inSync.takeAll()}
		}
	}
	p.noted = p.onLeader.head != nil || p.inSync.head != nil
	left := p.noted
	p.mu.Unlock()
	for i := range done {
		completeWaits(done[i], ErrTimedOut)
		completeWaits(rest[i], fault)
	}
	return left
}

// completeWaits ends the waits of a chain. A waiter belongs to its owner again before
// Complete is called, hence the look ahead.
func completeWaits(w *Waiter, err error) {
	for w != nil {
		next := w.next
		w.next = nil
		w.Owner.Complete(w.Slot, err)
		w = next
	}
}

// Waker is told once that a Poll has ended. Wake runs on the goroutine that ended
// it, no lock held, and must not block.
type Waker interface {
	Wake()
}

// keepWatchers is how many partitions a poll keeps memory for when it has ended.
const keepWatchers = 1024

// The states of a Poll.
const (
	pollIdle   = iota
	pollArming // being linked: what moves is counted, nobody fires it
	pollArmed
	pollFired // one caller has it now
)

// Poll waits until enough bytes have come to any of several partitions: a parked
// Fetch. It lives in the request's memory and may be used again after each end.
//
// Begin, Watch for each partition, then Park. From Park on, whoever calls Fire
// with success owns the poll: it must call End before anything else.
type Poll struct {
	Owner Waker

	state    atomic.Uint32
	over     atomic.Bool  // the wait is to end whatever comes
	need     atomic.Int64 // bytes still to come
	watchers []watcher    // one for each watched partition
	next     *Poll        // in a chain of polls to wake; belongs to whoever fired it
}

// WatchMemory is how many bytes a poll takes for each partition that it watches.
const WatchMemory = int64(unsafe.Sizeof(watcher{}))

// watcher is a poll's place in one partition's list, guarded by that partition's mu.
type watcher struct {
	poll       *Poll
	p          *Partition
	seen       int64 // of tally.bytes
	prev, next *watcher
}

// Begin prepares a wait for need bytes in at most n partitions.
func (w *Poll) Begin(need int64, n int) {
	if w.state.Load() == pollArmed {
		panic("BUG: a poll begins that has not ended")
	}
	if cap(w.watchers) < n {
		w.watchers = make([]watcher, 0, n)
	}
	w.watchers = w.watchers[:0]
	w.need.Store(need)
	w.over.Store(false)
	w.state.Store(pollArming)
}

// Watch adds a partition that was read up to the high watermark hw.
func (w *Poll) Watch(p *Partition, hw record.Offset) {
	w.watchers = append(w.watchers, watcher{poll: w, p: p})
	p.watch(&w.watchers[len(w.watchers)-1], hw)
}

// Park arms the poll. It returns false where what was waited for is there already,
// or Expire was called: the caller then owns the poll as if it had fired it. Where
// it returns true the poll may have been fired, ended and begun again by now.
func (w *Poll) Park() bool {
	w.state.Store(pollArmed)
	return w.need.Load() > 0 && !w.over.Load() || !w.Fire()
}

// Expire ends the wait although nothing came, also one that begins just now. Where
// it returns true the caller owns the poll.
func (w *Poll) Expire() bool {
	w.over.Store(true)
	return w.Fire()
}

// Fire ends the wait; only one caller is told true.
func (w *Poll) Fire() bool { return w.state.CompareAndSwap(pollArmed, pollFired) }

// End unlinks the poll from its partitions. Only who fired it may call it, or who
// began it and did not park it.
func (w *Poll) End() {
	for i := range w.watchers {
		w.watchers[i].p.unwatch(&w.watchers[i])
	}
	clear(w.watchers)
	w.watchers = w.watchers[:0]
	if cap(w.watchers) > keepWatchers {
		w.watchers = nil
	}
	w.state.Store(pollIdle)
}

// countArrived counts bytes and tells whether the caller has fired the poll by that.
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
