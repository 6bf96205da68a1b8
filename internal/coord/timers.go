package coord

import "time"

// Timers are a machine's deadlines, ordered: a heap, so that thousands of members
// need neither a goroutine nor a runtime timer each. They are guarded by what
// guards the machine.
type Timers struct {
	heap []*Timer
}

// Timer is one deadline; the zero value is not set. Fire is what it does when it
// is due, and may set the timer anew. It must be filled in before Set.
type Timer struct {
	Fire func(s *Step)

	at  time.Time
	pos int // in the heap, plus one; 0: not set
}

// At is the deadline of a timer that is set.
func (t *Timer) At() time.Time { return t.at }

// IsSet tells whether the timer waits for its deadline.
func (t *Timer) IsSet() bool { return t.pos != 0 }

// Set moves a timer's deadline, setting it where it is not.
func (ts *Timers) Set(t *Timer, at time.Time) {
	t.at = at
	if t.pos == 0 {
		ts.heap = append(ts.heap, t)
		t.pos = len(ts.heap)
		ts.up(t.pos - 1)
		return
	}
	if i := t.pos - 1; !ts.down(i) {
		ts.up(i)
	}
}

// Stop clears a timer; one that is not set stays so.
func (ts *Timers) Stop(t *Timer) {
	if t.pos == 0 {
		return
	}
	i, last := t.pos-1, len(ts.heap)-1
	if i != last {
		ts.swap(i, last)
	}
	ts.heap[last] = nil
	ts.heap = ts.heap[:last]
	t.pos = 0
	if i != last && !ts.down(i) {
		ts.up(i)
	}
}

// Next is the earliest deadline; ok is false where no timer is set.
func (ts *Timers) Next() (at time.Time, ok bool) {
	if len(ts.heap) == 0 {
		return time.Time{}, false
	}
	return ts.heap[0].at, true
}

// Due takes out the earliest timer if its deadline has come, else returns nil.
func (ts *Timers) Due(now time.Time) *Timer {
	if len(ts.heap) == 0 || ts.heap[0].at.After(now) {
		return nil
	}
	t := ts.heap[0]
	ts.Stop(t)
	return t
}

func (ts *Timers) swap(i, j int) {
	h := ts.heap
	h[i], h[j] = h[j], h[i]
	h[i].pos, h[j].pos = i+1, j+1
}

func (ts *Timers) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !ts.heap[i].at.Before(ts.heap[parent].at) {
			return
		}
		ts.swap(i, parent)
		i = parent
	}
}

// down sinks the i-th timer and tells whether it moved.
func (ts *Timers) down(i int) bool {
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
		ts.swap(i, child)
		i = child
	}
	return i > start
}
