package txn

import (
	"slices"

	"github.com/leatstream/leat/internal/coord"
)

// waiter is a request for the next transaction that waits until the present one has ended.
type waiter struct {
	timer coord.Timer
	// decide decides the request if the code is 0, and else answers with the code.
	decide func(s *coord.Step, code int16)
}

// waitForEnd has a request wait if its producer may begin the next transaction when the present one has ended,
// and tells whether it waits. The end mostly comes within a few milliseconds, while clients that are told to ask again
// do so after 20 ms at the earliest.
func (m *Machine) waitForEnd(s *coord.Step, id string, p producerEpoch, decide func(s *coord.Step, code int16)) bool {
	t, limit := m.ids[id], m.settings().AddWait
	if t == nil || !t.isEnding() || limit <= 0 || len(t.waiting) >= maxWaiting {
		return false
	}
	if next := t.completed(0); p != (producerEpoch{next.producer, next.epoch}) {
		return false
	}
	w := &waiter{decide: decide}
	w.timer.Fire = func(s *coord.Step) {
		t.waiting = slices.DeleteFunc(t.waiting, func(other *waiter) bool { return other == w })
		w.decide(s, concurrentTransactions)
	}
	t.waiting = append(t.waiting, w)
	m.timers.Set(&w.timer, s.Now.Add(limit))
	return true
}

// resumeWaiting decides the requests that wait for an id, one after the other: each of them must see the records of
// those before it.
func (m *Machine) resumeWaiting(s *coord.Step, t *transaction) {
	if len(t.waiting) == 0 {
		return
	}
	w := t.waiting[0]
	t.waiting = slices.Delete(t.waiting, 0, 1)
	m.timers.Stop(&w.timer)
	s.Else(func(error) { m.answerWaiting(s, t, coordinatorNotAvailable) })
	s.Then(func() { m.resumeWaiting(s, t) })
	w.decide(s, 0)
}

// answerWaiting answers all requests that wait for an id with a code.
func (m *Machine) answerWaiting(s *coord.Step, t *transaction, code int16) {
	for _, w := range t.waiting {
		m.timers.Stop(&w.timer)
		w.decide(s, code)
	}
	t.waiting = nil
}
