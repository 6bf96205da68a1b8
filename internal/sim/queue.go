package sim

import "time"

const ms = time.Millisecond

// The times of a cluster, which are shorter than those of a real one.
const (
	tickEvery     = 20 * ms  // a node looks at all that it has to do
	beatEvery     = 60 * ms  // a node's heartbeats
	maintainEvery = 110 * ms // the active controller's upkeep
	lagLimit      = 300 * ms // replica.lag.time.max.ms
	session       = 400 * ms // broker.session.timeout.ms
	ownSession    = 200 * ms // after which a node takes its own for ended: a controller that was deposed may answer for 200 ms
	answerTimeout = 150 * ms // then a request is given up
	retryPause    = 30 * ms
	faultsEnd     = 8 * time.Second
	healingEnd    = faultsEnd + 15*time.Second
)

// maxNodes is the size of the largest cluster. Clients have higher numbers than nodes.
const maxNodes = 5

// These are the clients' numbers on the network.
const (
	anAdmin int32 = maxNodes + 1 + iota
	firstClient
)

// event is something that happens at a time. Events of one time happen in the order in which they
// were added.
type event struct {
	at  time.Duration
	seq uint64
	do  func()
}

func (e *event) isBefore(f *event) bool { return e.at < f.at || e.at == f.at && e.seq < f.seq }

// eventQueue is a heap of events, the first one in front.
type eventQueue struct {
	heap  []event
	added uint64
}

func (q *eventQueue) isEmpty() bool { return len(q.heap) == 0 }

func (q *eventQueue) add(at time.Duration, do func()) {
	q.added++
	q.heap = append(q.heap, event{at, q.added, do})
	h := q.heap
	for i := len(h) - 1; i > 0; {
		parent := (i - 1) / 2
		if !h[i].isBefore(&h[parent]) {
			return
		}
		h[i], h[parent] = h[parent], h[i]
		i = parent
	}
}

// takeFirst removes the first event.
func (q *eventQueue) takeFirst() event {
	h := q.heap
	first, last := h[0], len(h)-1
	h[0], h[last] = h[last], event{}
	q.heap = h[:last]
	h = q.heap
	for i := 0; ; {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < last; child++ {
			if h[child].isBefore(&h[least]) {
				least = child
			}
		}
		if least == i {
			return first
		}
		h[i], h[least] = h[least], h[i]
		i = least
	}
}
