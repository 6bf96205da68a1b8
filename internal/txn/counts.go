package txn

import (
	"iter"
	"sync/atomic"
)

// numStatuses is how many statuses an id can have.
const numStatuses = int(completeAbort) + 1

// Counts are the numbers of the transactions that a node coordinates. All machines of the node change them, and anybody may read them
// at any time.
type Counts struct {
	states   [numStatuses]atomic.Int64
	timedOut atomic.Int64
	fenced   atomic.Int64
}

// States iterates over Kafka's names of the states, with the number of transactional ids in each.
func (c *Counts) States() iter.Seq2[string, int64] {
	return func(yield func(string, int64) bool) {
		for i := range c.states {
			if !yield(status(i).String(), c.states[i].Load()) {
				return
			}
		}
	}
}

// TimedOut is how many transactions were aborted since their time was over.
func (c *Counts) TimedOut() int64 { return c.timedOut.Load() }

// Fenced is how many requests of producers were refused in whose place another one has come.
func (c *Counts) Fenced() int64 { return c.fenced.Load() }

// countStatus counts an id's status n times, if the ids of the machine are counted.
func (m *Machine) countStatus(t *transaction, n int64) {
	if m.isCounted {
		m.cfg.Counts.states[t.status].Add(n)
	}
}

// countAll begins or ends the counting of all ids of the machine.
func (m *Machine) countAll(isCounted bool) {
	if m.isCounted == isCounted {
		return
	}
	n := int64(-1)
	if isCounted {
		m.isCounted, n = true, 1
	}
	for _, t := range m.ids {
		m.countStatus(t, n)
	}
	m.isCounted = isCounted
}

// countRefusal counts an answer if its code is that for a producer that was fenced.
func (m *Machine) countRefusal(code int16) {
	if code == producerFenced {
		m.cfg.Counts.fenced.Add(1)
	}
}
