package coord

import "time"

// Timers are the deadlines of a machine. They are a heap, so that thousands of members
// need neither a goroutine nor a timer of Go's runtime each. The lock that guards the
// machine guards its timers.
type Timers struct {
	heap []*Timer
}

// Timer is one deadline; the zero value is not set. Fire is called when the deadline
// has come, and may set the timer again; it must not be nil when the timer is set.
type Timer struct {
	Fire func(s *Step)

	at  time.Time
	pos int // its index in the heap, plus one; 0 if it is not set
}

// At is the deadline of a timer that is set.
func (t *Timer) At() time.Time { return t.at }

// IsSet tells whether the timer waits for its deadline.
func (t *Timer) IsSet() bool { return t.pos != 0 }

// Set sets a timer, or moves the deadline of one that is set.
func (ts *Timers) Set(t *Timer, at time.Time) {
	t.at = at
	if t.pos == 0 {
		ts.heap = append(ts.heap, t)
		t.pos = len(ts.heap)
		ts.siftUp(t.pos - 1)
		return
	}
	if i := t.pos - 1; !ts.siftDown(i) {
		ts.siftUp(i)
	}
}

// Stop unsets a timer. It does nothing to one that is not set.
func (ts *Timers) Stop(t *Timer) {
	if t.pos == 0 {
		return
	}
	i, last := t.pos-1, len(ts.heap)-1
	if i != last {
		ts.swapTimers(i, last)
	}
	ts.heap[last] = nil
	ts.heap = ts.heap[:last]
	t.pos = 0
	if i != last && !ts.siftDown(i) {
		ts.siftUp(i)
	}
}

// Delay moves all deadlines by d.
func (ts *Timers) Delay(d time.Duration) {
	for _, t := range ts.heap { // their order stays
		t.at = t.at.Add(d)
	}
}

// Next is the earliest deadline; ok is false if no timer is set.
func (ts *Timers) Next() (at time.Time, ok bool) {
	if len(ts.heap) == 0 {
		return time.Time{}, false
	}
	return ts.heap[0].at, true
}

// Due removes the earliest timer and returns it, if its deadline has come; else it
// returns nil.
func (ts *Timers) Due(now time.Time) *Timer {
	if len(ts.heap) == 0 || ts.heap[0].at.After(now) {
		return nil
	}
	t := ts.heap[0]
	ts.Stop(t)
	return t
}

func (ts *Timers) swapTimers(i, j int) {
	h := ts.heap
	h[i], h[j] = h[j], h[i]
	h[i].pos, h[j].pos = i+1, j+1
}

// siftUp moves the i-th timer towards the root, as far as it belongs there.
func (ts *Timers) siftUp(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !ts.heap[i].at.Before(ts.heap[parent].at) {
			return
		}
		ts.swapTimers(i, parent)
		i = parent
	}
}

// siftDown moves the i-th timer towards the leaves, as far as it belongs there, and
// tells whether it moved.
func (ts *Timers) siftDown(i int) bool {
	start := i
	for {
		child := 2*i + 1
		if child >= len(ts.heap) {
			break
		}
		if right := child + 1; right < len(ts.heap) && ts.heap[right].at.Before(ts.heap[child].at) {
			child = right
		}
		if !ts.heap[child].at.Before(ts.heap[i].at) {
			break
		}
		ts.swapTimers(i, child)
		i = child
	}
	return i > start
}
