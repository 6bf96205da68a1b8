package txn

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"time"
)

// The world of the model test: one coordinator that dies and comes back, the leaders of some
// partitions, producers of both flows with few transactional ids among them, and a network
// between all. Everything happens in events, in the order of their times, and every choice is drawn
// from one seeded source, so a seed is a history.

const ms = time.Millisecond

// The times of the world.
const (
	answerTimeout = 60 * ms // then a lost message is noticed
	faultsEnd     = 4 * time.Second
	healingEnd    = faultsEnd + 40*time.Second
)

type event struct {
	at  time.Duration
	seq uint64
	do  func()
}

type eventQueue []event

func (q *eventQueue) Len() int { return len(*q) }
func (q *eventQueue) Less(i, j int) bool {
	a, b := &(*q)[i], &(*q)[j]
	return a.at < b.at || a.at == b.at && a.seq < b.seq
}
func (q *eventQueue) Swap(i, j int) { (*q)[i], (*q)[j] = (*q)[j], (*q)[i] }
func (q *eventQueue) Push(x any)    { *q = append(*q, x.(event)) }
func (q *eventQueue) Pop() any {
	old := *q
	e := old[len(old)-1]
	*q = old[:len(old)-1]
	return e
}

// coverage counts what happened, over all worlds of a test.
type coverage map[string]int

type world struct {
	rng   *rand.Rand
	now   time.Duration
	seq   uint64
	queue eventQueue
	steps int
	trace []byte
	seen  coverage

	healing bool
	loss    float64 // of messages, and of results of markers
	doubles float64
	err     error // the first broken promise

	co        *coordinator
	parts     []*partition
	producers []*producer
	check     *checker
}

// newWorld makes a world with one or two transactional ids.
func newWorld(seed uint64, seen coverage) *world {
	w := &world{rng: rand.New(rand.NewPCG(seed, 0x7a0)), seen: seen}
	w.loss = []float64{0, 0.03, 0.15}[w.rng.IntN(3)]
	w.doubles = []float64{0, 0.1, 0.3}[w.rng.IntN(3)]
	w.check = newChecker(w)
	for n := range int32(2 + w.rng.IntN(3)) {
		w.parts = append(w.parts, newPartition(w, n))
	}
	ids := []string{"x", "y"}[:1+w.rng.IntN(2)]
	w.co = newCoordinator(w, ids)
	for _, id := range ids {
		w.after(w.random(20*ms), func() { w.startProducer(id) })
	}
	w.after(50*ms+w.random(400*ms), w.fault)
	return w
}

func (w *world) note(format string, args ...any) {
	w.trace = fmt.Appendf(w.trace, "%d ", w.now/time.Microsecond)
	w.trace = fmt.Appendf(w.trace, format, args...)
	w.trace = append(w.trace, '\n')
}

// fail notes that a promise was broken.
func (w *world) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf(format, args...)
	}
}

func (w *world) random(below time.Duration) time.Duration {
	return time.Duration(w.rng.Int64N(int64(below)))
}

func (w *world) chance(p float64) bool { return w.rng.Float64() < p }

func (w *world) after(d time.Duration, do func()) {
	w.seq++
	heap.Push(&w.queue, event{w.now + d, w.seq, do})
}

// run lets the world go on until it has healed, or a check fails.
func (w *world) run() error {
	for w.queue.Len() > 0 && w.now < healingEnd {
		e := heap.Pop(&w.queue).(event)
		w.now = e.at
		if !w.healing && w.now >= faultsEnd {
			w.heal()
		}
		e.do()
		w.steps++
		if w.err != nil {
			return fmt.Errorf("step %d, at %v: %w", w.steps, w.now, w.err)
		}
		if w.healing && w.now > faultsEnd+2*time.Second && w.check.isHealed() == nil {
			break
		}
	}
	if err := w.check.isHealed(); err != nil {
		return fmt.Errorf("after %d steps it has not healed: %w", w.steps, err)
	}
	w.check.checkEnd()
	return w.err
}

// heal ends all faults. Producers end what they have begun, and begin no more.
func (w *world) heal() {
	w.note("healing")
	w.healing = true
	w.loss, w.doubles = 0, 0
	w.co.full, w.co.ids.end = false, w.co.ids.next+1000
}

// fault has something go wrong, and comes again.
func (w *world) fault() {
	if w.healing {
		return
	}
	switch w.rng.IntN(8) {
	case 0, 1:
		w.co.crash()
	case 2, 3:
		w.startProducer(w.producers[w.rng.IntN(len(w.producers))].id) // the older one may live on
	case 4:
		w.co.full = true
		w.after(w.random(200*ms), func() { w.co.full = false })
	case 5:
		w.co.stalled = w.now + w.random(300*ms)
		if w.chance(0.5) {
			w.after(w.random(w.co.stalled-w.now+1), w.co.crash)
		}
	case 6:
		w.co.ids.end = w.co.ids.next // the controller gives none for a while
		w.after(w.random(400*ms), func() { w.co.ids.end = w.co.ids.next + 1000 })
	case 7:
		if p := w.parts[w.rng.IntN(len(w.parts))]; w.chance(0.2) && w.parts[0] != p {
			p.delete()
		}
	}
	w.after(50*ms+w.random(400*ms), w.fault)
}

// send has something happen after a delay. If the message is lost, lost happens instead, when
// its sender notices.
func (w *world) send(do, lost func()) {
	if w.chance(w.loss) {
		w.seen["lost message"]++
		w.after(answerTimeout, lost)
		return
	}
	w.after(ms/2+w.random(5*ms), do)
}

// sendTwice has a message come once more, maybe much later, if messages are doubled.
func (w *world) sendTwice(do func()) {
	if w.chance(w.doubles) {
		w.seen["doubled message"]++
		w.after(ms+w.random(600*ms), do)
	}
}
