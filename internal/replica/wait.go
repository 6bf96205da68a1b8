package replica

import (
	"time"

	"github.com/leatstream/leat/internal/record"
)

// Acks says when a producer is told that its records are kept.
type Acks uint8

// These are the values of acks in a Produce request.
const (
	AcksNone   Acks = iota // never
	AcksLeader             // when they are below the committed end of the leader's log
	AcksAll                // when they are below the high watermark: all in-sync replicas have them

	acksTrim // not of a Produce request: when all replicas that AwaitTrim names have deleted what is below an offset
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
	Slot  int32        // given to Complete; tells the owner which of its waits has ended
	Epoch record.Epoch // the leader epoch in which it was appended: the wait ends with it
	Acks  Acks         // AcksLeader or AcksAll
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
