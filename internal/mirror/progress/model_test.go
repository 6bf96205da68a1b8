package progress

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"time"
)

// The world of the model test: a source cluster with one partition of three replicas, a cluster here with the mirror of it, on two or three nodes, their controller, and the networks. Everything happens
// in events, in the order of their times, and every choice is drawn from one seeded source, so a seed is a history.

const ms = time.Millisecond

// The times of the world.
const (
	tickEvery     = 20 * ms
	answerTimeout = 250 * ms // then a request is given up
	confirmTime   = 400 * ms
	watchTime     = 700 * ms
	unwatchedTime = 150 * ms
	settleTime    = 300 * ms
	deletionTime  = 300 * ms // for at least so long a topic is gone before there is another one
	faultsEnd     = 5 * time.Second
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
	// copiesAnew tells that in the end a person has a topic be copied anew that is another one.
	copiesAnew bool
	loss       float64
	cutTo      time.Duration // no request gets to the source before
	cutFrom    time.Duration // no answer comes from it before
	// kind is what the source is capable of.
	kind kind
	// hadNoIDs tells that topics had no ids when the mirror was made.
	hadNoIDs bool
	calm     bool // the source has no faults that need a person
	source   *cluster
	ctl      *controller
	nodes    []*node
	check    *checker
}

// kind is what a source is capable of.
type kind struct {
	hasIDs       bool // topics have ids (from 2.8 on)
	compares     bool // fetches compare epochs (from version 12 on)
	asksEpochs   bool // an offset is not told before the high watermark has got to the leader's epoch (KIP-207)
	knowsLower   bool // for an epoch before all others its answer is that epoch, and the start of the first one (as Kafka)
	beginsEpochs bool // a leader notes its epoch when it begins, and not with its first batch
	isCompacted  bool
	hasNear      bool // the leader sends readers to a replica that is near them
	sendsMore    bool // answers have batches from beyond the high watermark, too
}

func newWorld(seed uint64, seen coverage) *world {
	w := &world{rng: rand.New(rand.NewPCG(seed, 0x1ea7)), seen: seen}
	w.kind = kind{hasIDs: true, compares: true, asksEpochs: w.chance(0.8), knowsLower: w.chance(0.7), beginsEpochs: w.chance(0.7), isCompacted: w.chance(0.25), hasNear: w.chance(0.15), sendsMore: w.chance(0.1)}
	switch w.rng.IntN(4) {
	case 0:
		w.kind.hasIDs, w.kind.compares = false, false
	case 1:
		w.kind.hasIDs = false
	}
	w.hadNoIDs, w.calm = !w.kind.hasIDs, w.chance(0.4)
	w.loss = []float64{0, 0.01, 0.05}[w.rng.IntN(3)]
	w.note("world: %+v, calm %v, loss %v", w.kind, w.calm, w.loss)
	w.check = &checker{w: w}
	w.source = newCluster(w)
	w.ctl = newController(w)
	for id := range 2 + w.rng.IntN(2) {
		w.nodes = append(w.nodes, newNode(w, id))
		w.ctl.now.isr = append(w.ctl.now.isr, id)
	}
	w.ctl.publish("the mirror is made")
	for _, n := range w.nodes {
		n.start()
	}
	w.after(w.random(50*ms), w.source.tick)
	w.after(w.random(50*ms), w.source.produce)
	w.after(300*ms, w.fault)
	return w
}

func (w *world) note(format string, args ...any) {
	w.trace = fmt.Appendf(w.trace, "%d ", w.now/time.Microsecond)
	w.trace = fmt.Appendf(w.trace, format, args...)
	w.trace = append(w.trace, '\n')
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
		w.check.step()
		if w.check.err != nil {
			return fmt.Errorf("step %d, at %v: %w", w.steps, w.now, w.check.err)
		}
		if w.healing && w.now > faultsEnd+2*time.Second && w.steps%16 == 0 && w.check.isHealed() == nil {
			return nil
		}
	}
	if err := w.check.isHealed(); err != nil {
		return fmt.Errorf("after %d steps it has not healed: %w", w.steps, err)
	}
	return nil
}

// heal ends all faults.
func (w *world) heal() {
	w.note("healing")
	w.healing = true
	w.loss, w.cutTo, w.cutFrom = 0, 0, 0
	w.source.heal()
	w.ctl.setPaused(false)
	w.copiesAnew = w.chance(0.5)
	w.decide()
	for _, n := range w.nodes {
		n.fullUntil = 0
		if !n.up {
			n.start()
		}
	}
}

// decide has a person decide what only a person can, once everything else works again.
func (w *world) decide() {
	w.after(300*ms+w.random(600*ms), w.decide)
	if l := w.ctl.now.leader; l >= 0 && w.nodes[l].leads != nil {
		s := w.nodes[l].mirror.Status(w.nodes[l].clock()).State
		if s == Gap || s == TombstonesLost {
			w.command(w.chance(0.1))
		}
		if s == Failed && w.now > faultsEnd+3*time.Second || s == SourceRecreated && w.copiesAnew {
			w.command(true)
		}
	}
}

// delay is how long a message takes.
func (w *world) delay() time.Duration {
	d := ms + w.random(8*ms)
	if !w.healing && w.chance(0.02) {
		d += w.random(500 * ms)
		w.seen["late message"]++
	}
	return d
}

// fault stages the next fault.
func (w *world) fault() {
	if w.healing {
		return
	}
	w.after(20*ms+w.random(200*ms), w.fault)
	n := w.nodes[w.rng.IntN(len(w.nodes))]
	switch w.rng.IntN(14) {
	case 0:
		n.crash()
	case 1:
		if l := w.ctl.now.leader; l >= 0 {
			w.nodes[l].crash()
		}
	case 2:
		w.ctl.moveLeader()
	case 3:
		w.cutTo = w.now + w.random(700*ms)
		w.seen["requests lost"]++
	case 4:
		w.cutFrom = w.now + w.random(700*ms)
		w.seen["answers lost"]++
	case 5:
		w.ctl.setPaused(true)
		w.after(w.random(900*ms), func() { w.ctl.setPaused(false) })
	case 6:
		n.fullUntil = w.now + w.random(400*ms)
		w.seen["full disk"]++
	case 7:
		w.command(w.chance(0.1))
	default:
		w.source.fault()
	}
}

// command has a person look at the partition, and decide.
func (w *world) command(copies bool) {
	l := w.ctl.now.leader
	if l < 0 || !w.nodes[l].up {
		return
	}
	n := w.nodes[l]
	c := Accept
	if copies {
		c = CopyAnew
	}
	if n.mirror.Command(c) {
		w.note("a person wants %d", c)
		w.seen[fmt.Sprintf("command %d", c)]++
		n.act()
	}
}
