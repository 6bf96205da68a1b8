package progress

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica/progress/memlog"
)

// The world of the model test: nodes with one replica of one partition each, a controller, and a
// network between them. Everything happens in events, in the order of their times, and every
// choice is drawn from one seeded source, so a seed is a history.

const ms = time.Millisecond

// The times of the world.
const (
	tickEvery     = 20 * ms
	lagLimit      = 300 * ms // replica.lag.time.max.ms
	session       = 250 * ms // without a heartbeat for so long a broker is fenced
	answerTimeout = 150 * ms // then a request is given up
	retryPause    = 30 * ms
	faultsEnd     = 3 * time.Second
	healingEnd    = faultsEnd + 8*time.Second
)

// theController is its number on the network, among the nodes that count from 1.
const theController = 0

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

	pageCache bool
	healing   bool
	loss      float64
	doubles   float64
	cuts      map[[2]int32]time.Duration // from, to: cut until then
	nodes     []*node                    // by id - 1
	dead      int32                      // the node that never comes back; 0: none
	// silentUntil is when the controller hears of proposals again.
	silentUntil time.Duration
	ctl         *controller
	check       *checker
	seen        coverage
	nextValue   uint64

	worldOfCuts // see model_cuts_test.go
}

// newWorld makes a world of 2 to 5 nodes.
func newWorld(seed uint64, seen coverage) *world {
	w := &world{rng: rand.New(rand.NewPCG(seed, 0x1ea7)), cuts: map[[2]int32]time.Duration{}, seen: seen}
	n := 2 + w.rng.IntN(4)
	w.pageCache = n > 2 && w.rng.IntN(3) == 0
	w.loss = []float64{0, 0.01, 0.05}[w.rng.IntN(3)]
	w.doubles = []float64{0, 0.05}[w.rng.IntN(2)]
	replicas := n
	if n > 2 && w.rng.IntN(2) == 0 {
		replicas = n - 1
	}
	minISR := 1 + w.rng.IntN(2)
	if w.pageCache {
		minISR = 2 // with one, a page cache promises nothing
		replicas = max(replicas, 3)
	}
	w.check = newChecker(w)
	w.beginCuts(seed)
	w.ctl = newController(w, n, replicas, minISR)
	for id := range int32(n) {
		w.nodes = append(w.nodes, &node{w: w, id: id + 1, log: memlog.New(w.pageCache)})
	}
	w.note("world: %d nodes, %d replicas, min ISR %d, page cache %v", n, replicas, minISR, w.pageCache)
	for _, nd := range w.nodes {
		nd.start()
	}
	w.after(w.random(10*ms), w.ctl.tick)
	w.after(w.random(50*ms), w.produce)
	w.after(w.random(50*ms), w.read)
	w.after(300*ms, w.fault)
	w.stageCuts()
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
		if w.healing && w.now > faultsEnd+time.Second && w.check.isHealed() == nil {
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
	w.loss, w.doubles, w.silentUntil = 0, 0, 0
	clear(w.cuts)
	if w.dead != 0 && !w.ctl.bury(w.dead) {
		w.dead = 0
	}
	for _, n := range w.nodes {
		n.slowUntil, n.fullUntil = 0, 0
		if n.readOnly {
			w.crash(n)
		}
		if !n.up && n.id != w.dead {
			n.start()
		}
	}
}

// loseForGood stops a node that comes back only if the others cannot go on without it.
func (w *world) loseForGood(id int32) {
	n := w.node(id)
	if w.dead != 0 || !n.up || w.pageCache || w.healing {
		return
	}
	w.dead = id
	n.log.Crash(0)
	n.stop()
	w.note("%d is lost for good", id)
}

// send has something happen at another node after a delay, or never, or twice.
func (w *world) send(from, to int32, what string, do func()) {
	if w.cuts[[2]int32{from, to}] > w.now || w.chance(w.loss) {
		w.note("%d>%d %s: dropped", from, to, what)
		w.seen["dropped message"]++
		return
	}
	times := 1
	if w.chance(w.doubles) {
		times = 2
		w.seen["doubled message"]++
	}
	for range times {
		d := ms + w.random(6*ms)
		if !w.healing && w.chance(0.02) {
			d += w.random(400 * ms)
			w.seen["late message"]++
		}
		w.after(d, func() {
			w.note("%d>%d %s", from, to, what)
			do()
		})
	}
}

func (w *world) node(id int32) *node { return w.nodes[id-1] }

// leaders are the nodes that believe to lead.
func (w *world) leaders() []*node {
	var ls []*node
	for _, n := range w.nodes {
		if n.up && n.leader != nil {
			ls = append(ls, n)
		}
	}
	return ls
}

// produce has a producer send records to a node that believes to lead.
func (w *world) produce() {
	if w.healing {
		return
	}
	w.after(w.random(16*ms), w.produce)
	if w.mirrors {
		w.source.produce()
		return
	}
	if ls := w.leaders(); len(ls) > 0 {
		ls[w.rng.IntN(len(ls))].produce(1+w.rng.IntN(3), w.chance(0.7))
	}
}

// read has a reader ask a node that believes to lead.
func (w *world) read() {
	if w.healing && w.now > faultsEnd+time.Second {
		return
	}
	w.after(w.random(16*ms), w.read)
	ls := w.leaders()
	if len(ls) == 0 {
		return
	}
	n := ls[w.rng.IntN(len(ls))]
	hw, ok := n.leader.Readable()
	if !ok {
		w.seen["not readable yet"]++
		return
	}
	w.check.readerSaw(n, hw)
}

// fault stages the next fault.
func (w *world) fault() {
	if w.healing {
		return
	}
	w.after(20*ms+w.random(150*ms), w.fault)
	n := w.nodes[w.rng.IntN(len(w.nodes))]
	switch w.rng.IntN(16) {
	case 0, 1, 2:
		w.crash(n)
	case 3: // the leader, which matters most
		if ls := w.leaders(); len(ls) > 0 {
			w.crash(ls[w.rng.IntN(len(ls))])
		}
	case 4, 5:
		from, to := int32(w.rng.IntN(len(w.nodes)+1)), int32(w.rng.IntN(len(w.nodes)+1))
		w.cuts[[2]int32{from, to}] = w.now + w.random(600*ms)
		w.note("cut %d>%d", from, to)
		w.seen["one-way cut"]++
	case 6:
		n.slowUntil = w.now + w.random(600*ms)
		w.note("slow disk at %d", n.id)
		w.seen["slow disk"]++
	case 7, 8:
		w.ctl.moveLeader()
	case 9:
		w.ctl.changeMinISR(1 + w.rng.IntN(3))
	case 10:
		w.ctl.reassign()
	case 11:
		if w.now > faultsEnd-500*ms {
			w.loseForGood(n.id)
		}
	case 12:
		if ls := w.leaders(); len(ls) > 0 && w.chance(0.3) {
			w.breakLog(ls[w.rng.IntN(len(ls))])
		}
	case 13:
		w.fillDisk(n)
	case 14: // of the leader
		if ls := w.leaders(); len(ls) > 0 {
			w.fillDisk(ls[w.rng.IntN(len(ls))])
		}
	case 15:
		w.damageLog(n)
	}
}

// damageLog has a node's log be damaged, until the node has deleted it.
func (w *world) damageLog(n *node) {
	if w.pageCache || !n.up || n.readOnly || n.isDamaged || slices.ContainsFunc(w.nodes, func(m *node) bool { return m.isDamaged }) {
		return // two damaged logs may be too many
	}
	w.note("the log of %d is damaged", n.id)
	n.isDamaged = true
	if n.leader != nil {
		n.leader.LogChanged(w.now, LogFaulted)
	}
	n.followAgain() // one that is to be cut cannot be any more
	n.act()
}

// fillDisk has a node's log take no records for a while.
func (w *world) fillDisk(n *node) {
	n.fullUntil = w.now + w.random(900*ms)
	w.note("full disk at %d", n.id)
	w.seen["full disk"]++
}

// breakLog has a node's log be read-only until the node is started again, as after a failed sync.
func (w *world) breakLog(n *node) {
	if w.pageCache || n.readOnly { // only a crash mends it, which this world cannot always afford
		return
	}
	w.note("the log of %d is read-only", n.id)
	n.readOnly = true
	n.leader.LogChanged(w.now, LogFaulted)
	n.act()
}

// crash stops a node at once, unless nothing promised that the records survive that.
func (w *world) crash(n *node) {
	if !n.up || w.pageCache && !w.check.survivesWithout(n.id) {
		return
	}
	w.seen["crash"]++
	keep := 0
	if w.chance(0.3) {
		keep = w.rng.IntN(4)
	}
	lost := n.log.End()
	n.log.Crash(keep)
	w.note("crash of %d: %d records lost", n.id, lost-n.log.End())
	if lost > n.log.End() {
		w.seen["crash that loses records"]++
	}
	n.stop()
	n.tainted = w.pageCache
	w.after(20*ms+w.random(500*ms), func() {
		if !n.up && n.id != w.dead {
			n.start()
		}
	})
}

// node is a broker with its replica.
type node struct {
	w    *world
	id   int32
	up   bool
	life int // counts starts; events of an earlier life do nothing
	log  *memlog.Log

	applied     int   // the metadata that it has applied, which is kept over a crash
	brokerEpoch int64 // 0: not registered in this life
	active      bool  // its own registration is applied: it may lead and follow
	tainted     bool  // its page cache is lost, and the controller does not know it yet

	leader    *Leader
	follower  *Follower
	pending   []batch
	trim      record.Offset // as the leader: a start that a client has asked for
	proposed  []int32       // who was proposed at partition epoch propAt
	propAt    int32
	slowUntil time.Duration
	fullUntil time.Duration
	// startsLate is the time from which on the log's start can be moved to the leader's.
	startsLate time.Duration
	syncing    bool
	readOnly   bool // the log cannot be written until the node is started again
	isDamaged  bool // the log cannot be written, until another one takes its place

	nodeOfCuts // see model_cuts_test.go
}

// batch is records of one producer that wait for their acknowledgement.
type batch struct {
	first, end record.Offset
	entries    []memlog.Entry
}

func (n *node) start() {
	n.up, n.life = true, n.life+1
	n.w.note("start of %d: %d..%d", n.id, n.log.Start(), n.log.End())
	n.w.seen["start"]++
	n.tick(n.life)
}

func (n *node) stop() {
	n.up, n.active, n.syncing, n.readOnly, n.brokerEpoch = false, false, false, false, 0
	n.leader, n.follower, n.pending, n.proposed = nil, nil, nil, nil
	n.nodeOfCuts = nodeOfCuts{}
}

// later does something after a delay, if the node lives on by then.
func (n *node) later(d time.Duration, do func()) {
	life := n.life
	n.w.after(d, func() {
		if n.up && n.life == life {
			do()
		}
	})
}

// send sends something to another node, or to the controller.
func (n *node) send(to int32, what string, do func()) { n.w.send(n.id, to, what, do) }

// tick lets the time pass, and asks the controller to be registered and told of the metadata.
func (n *node) tick(life int) {
	if !n.up || n.life != life {
		return
	}
	n.w.after(tickEvery-2*ms+n.w.random(4*ms), func() { n.tick(life) })
	c, applied, epoch := n.w.ctl, n.applied, n.brokerEpoch
	if epoch == 0 {
		n.send(theController, "register", func() {
			got := c.register(n.id, life)
			c.send(n, life, "registered", func() { n.brokerEpoch = got })
		})
	} else {
		n.send(theController, "heartbeat", func() {
			c.heartbeat(n.id, epoch, applied)
			to := len(c.images)
			c.send(n, life, "metadata", func() { n.apply(to) })
		})
	}
	if n.leader != nil {
		if !n.isFull() {
			n.leader.LogChanged(n.w.now, LogSound)
		}
		n.leader.Tick(n.w.now)
	}
	n.act()
}

func (n *node) isFull() bool { return n.w.now < n.fullUntil }

// apply follows the metadata log up to an entry.
func (n *node) apply(to int) {
	if to <= n.applied || n.brokerEpoch == 0 {
		return
	}
	for n.applied < to { // one at a time or many at once, as it comes
		n.applied = min(to, n.applied+1+n.w.rng.IntN(3))
		img := n.w.ctl.images[n.applied-1]
		if img.brokers[n.id].Epoch == n.brokerEpoch {
			n.active = true
		}
		if n.active {
			n.follow(img)
		}
	}
	n.act()
}

// follow brings the replica to its place in an image.
func (n *node) follow(img *image) {
	epoch := record.Epoch(img.leaderEpoch)
	switch {
	case !slices.Contains(img.Replicas, n.id):
		if n.leader != nil || n.follower != nil || n.log.End() > 0 {
			n.w.seen["replica removed"]++
			n.log, n.readOnly, n.isDamaged = memlog.New(n.w.pageCache), false, false
		}
		n.leader, n.follower, n.pending = nil, nil, nil
		n.nodeOfCuts = nodeOfCuts{}
	case !n.obey(img):
		if img.leader != n.id && !n.readOnly {
			n.makeFollower()
			n.follower.MustCut()
			n.followLeader(img)
		}
	case img.leader == n.id && n.leader != nil && n.leader.Epoch() == epoch:
		n.leader.BrokersChanged(n.w.now, img.brokers)
		n.leader.Assigned(n.w.now, img.Assignment)
	case img.leader == n.id:
		n.lead(epoch, img)
	default:
		if n.leader != nil {
			switch {
			case n.readOnly, n.isDamaged:
				n.w.seen["leader gave up"]++
			case n.leader.LogState() == LogRefuses:
				n.w.seen["full leader gave up"]++
			}
			n.leader, n.pending = nil, nil
		}
		if n.readOnly {
			return // it is no use as a follower
		}
		n.makeFollower()
		n.followLeader(img)
	}
	n.keepProgress()
}

// makeFollower makes the machine of a follower, if there is none.
func (n *node) makeFollower() {
	if n.follower == nil {
		n.follower = NewFollower(n.id, n.brokerEpoch, retryPause, Following{
			Log: n.ends(), LastEpoch: n.log.EpochAt(n.log.End() - 1), HighWatermark: n.log.HighWatermark(),
		})
	}
}

// followLeader tells the machine of the follower of its leader.
func (n *node) followLeader(img *image) {
	isMember := slices.Contains(img.ISR, n.id) || slices.Contains(img.Eligible, n.id)
	n.follower.Follow(n.w.now, img.leader, record.Epoch(img.leaderEpoch), img.PartitionEpoch, isMember)
}

func (n *node) lead(epoch record.Epoch, img *image) {
	n.w.note("%d leads in epoch %d from %d", n.id, epoch, n.log.End())
	n.follower, n.pending, n.proposed, n.trim = nil, nil, nil, 0
	start := Start{Epoch: epoch, EpochStart: n.log.End(), WasCut: n.cutIn == epoch, CutTo: n.cutTo}
	if !n.w.mirrors {
		n.must(n.log.BeginEpoch(epoch))
	}
	n.appendEarly(epoch)
	start.Log, start.HighWatermark = n.ends(), max(n.log.HighWatermark(), n.shown)
	n.leader = NewLeader(n.w.now, Config{ID: n.id, Lag: lagLimit, Retry: retryPause}, start, img.Assignment, img.brokers)
	if n.isDamaged {
		n.leader.LogChanged(n.w.now, LogFaulted)
	}
	n.w.check.leads(n, epoch)
}

func (n *node) must(err error) {
	if err != nil {
		n.w.check.fail("node %d: %v", n.id, err)
	}
}

func (n *node) ends() Ends {
	return Ends{Start: n.log.Start(), End: n.log.End(), Durable: n.log.Committed()}
}

// keepProgress notes the machine's high watermark in the log, and a follower's start.
func (n *node) keepProgress() {
	switch {
	case n.leader != nil:
		n.log.SetHighWatermark(n.leader.HighWatermark())
		n.shown = n.leader.HighWatermark()
		n.w.check.commit(n)
	case n.follower != nil:
		n.log.SetHighWatermark(n.follower.HighWatermark())
		n.shown = n.follower.HighWatermark()
		if n.w.now >= n.startsLate {
			n.must(n.log.SetStart(n.follower.Start()))
		}
	}
}

// act does what the machines ask for, after any event.
func (n *node) act() {
	n.sync()
	if n.leader != nil {
		n.actAsLeader()
	}
	if n.unable != nil {
		n.actAsProposer(n.unable)
	}
	if n.follower != nil {
		n.actAsFollower()
	}
	n.keepProgress()
}

// sync has the disk sync the log, which takes a while.
func (n *node) sync() {
	if n.syncing || n.readOnly || n.log.Durable() == n.log.End() {
		return
	}
	n.syncing = true
	d := ms + n.w.random(8*ms)
	if n.w.now < n.slowUntil {
		d += n.w.random(400 * ms)
	}
	n.later(d, func() {
		n.syncing = false
		if n.readOnly {
			return
		}
		n.log.CommitTo(n.log.End())
		if n.leader != nil {
			n.leader.Moved(n.w.now, n.ends())
		}
		if n.follower != nil {
			n.follower.Synced(n.log.Committed())
		}
		n.act()
	})
}

// produce appends a producer's records.
func (n *node) produce(count int, all bool) {
	w := n.w
	if n.readOnly || n.isDamaged {
		w.seen["append refused: read-only"]++
		return
	}
	if n.isFull() {
		w.seen["append refused: full disk"]++
		n.leader.LogChanged(w.now, LogRefuses)
		n.act()
		return
	}
	if all && !n.leader.EnoughInSync() {
		w.seen["append refused: too few in sync"]++
		return
	}
	first := n.log.End()
	for range count {
		w.nextValue++
		n.must(n.log.Append(n.leader.Epoch(), w.nextValue))
	}
	w.note("append at %d: %d..%d, all %v", n.id, first, n.log.End(), all)
	if all {
		entries, err := n.log.Read(first, count)
		n.must(err)
		n.pending = append(n.pending, batch{first, n.log.End(), entries})
	}
	if w.chance(0.05) {
		n.must(n.log.SetStart(n.log.Start() + (n.leader.HighWatermark()-n.log.Start())/2))
		n.trim = n.log.Start()
		w.seen["retention"]++
	}
	n.leader.Moved(w.now, n.ends())
	n.act()
}

func (n *node) actAsLeader() {
	w := n.w
	for len(n.pending) > 0 {
		b := n.pending[0]
		done, enough := n.leader.Acked(b.end)
		if !done {
			break
		}
		if enough {
			w.check.acked(n, b)
		} else {
			w.seen["answer refused: too few in sync"]++
		}
		n.pending = n.pending[1:]
	}
	if n.trim > 0 && n.leader.LowWatermark() >= n.trim {
		w.seen["deletion answered"]++
		w.check.trimmed, n.trim = max(w.check.trimmed, n.trim), 0
	}
	n.actAsProposer(n.leader)
}

// actAsProposer has a leader's proposal sent.
func (n *node) actAsProposer(l *Leader) {
	w := n.w
	p, ok := l.Propose(w.now)
	if !ok {
		return
	}
	if n.propAt != p.PartitionEpoch || len(n.proposed) == 0 {
		n.proposed, n.propAt = nil, p.PartitionEpoch
	} else {
		w.seen["proposed again"]++
	}
	for _, m := range p.ISR {
		n.proposed = append(n.proposed, m.ID)
	}
	life := n.life
	ended := func() {
		if n.leader == l || n.unable == l {
			l.Answered(w.now, p.Attempt)
			n.act()
		}
	}
	n.later(answerTimeout, ended)
	n.propose(&p, func() {
		verdict := w.ctl.alterPartition(n.id, &p)
		w.seen["proposal: "+verdict]++
		w.ctl.send(n, life, "proposal "+verdict, ended)
	})
}

// propose sends a proposal to the controller. A change of the in-sync set is the moment at which
// faults of the replica that joins matter most, so some are staged here.
func (n *node) propose(p *Proposal, do func()) {
	w := n.w
	what := fmt.Sprintf("propose %v at %d", p.ISR, p.PartitionEpoch)
	joins := p.ISR[len(p.ISR)-1].ID
	switch {
	case w.now < w.silentUntil:
		w.note("%d %s: lost", n.id, what)
		w.seen["proposal: lost"]++
	case w.healing || joins == n.id || w.chance(0.8):
		n.send(theController, what, do)
	case w.chance(0.3): // the replica does not come back, and the controller hears of nothing
		w.note("%d %s: lost", n.id, what)
		w.loseForGood(joins)
	default: // it comes when the replica has been cut off for long, and later ones do not come
		w.cuts[[2]int32{joins, n.id}] = w.now + 900*ms
		w.silentUntil = w.now + 700*ms
		w.note("%d %s: very late", n.id, what)
		w.after(350*ms+w.random(350*ms), func() {
			w.note("%d %s: now", n.id, what)
			do()
		})
		w.seen["proposal: very late"]++
	}
}

func (n *node) actAsFollower() {
	f := n.follower
	if n.isDamaged {
		f.LogFailed(n.w.now)
	}
	if r, ok := f.NextReport(); ok {
		to, _ := f.Leader()
		leader := n.w.node(to)
		n.send(to, fmt.Sprintf("report %d", r.Durable), func() { leader.takeReport(r) })
	}
	if !n.isFull() {
		f.TryStoring()
	}
	if q, ok := f.NextFetch(n.w.now); ok {
		to, _ := f.Leader()
		q.Start, q.IsDamaged = min(q.Start, n.log.Start()), n.isDamaged
		leader, life := n.w.node(to), n.life
		lose := func() {
			if n.follower == f {
				f.FetchLost(n.w.now, q.ID)
				n.act()
			}
		}
		n.later(answerTimeout, lose)
		hasRoom := !n.isFull()
		n.send(to, fmt.Sprintf("fetch %d after epoch %d, durable %d, in epoch %d, cannot store %v", q.Offset, q.LastEpoch, q.Durable, q.Epoch, q.CannotStore), func() {
			if leader.up && leader.leader != nil {
				leader.leader.Heard(n.id, q.BrokerEpoch, n.w.now, hasRoom)
			}
			if leader.up && leader.unable != nil {
				leader.unable.Heard(n.id, q.BrokerEpoch, n.w.now, hasRoom)
			}
			leader.takeFetch(&q, n, f, life)
		})
	}
}

func (n *node) takeReport(r Report) {
	if n.up && n.leader != nil {
		n.leader.Reported(n.w.now, r)
		n.act()
	}
}

// fetched is an answer with its records.
type fetched struct {
	Answer
	entries []memlog.Entry
}

// takeFetch answers a follower's fetch.
func (n *node) takeFetch(q *Fetch, from *node, f *Follower, life int) {
	if !n.up {
		return
	}
	a := &fetched{Answer: Answer{ID: q.ID, Verdict: Unavailable}}
	if n.leader != nil {
		var tail Tail
		tail.Epoch, tail.End = n.log.EpochEnd(q.LastEpoch)
		if n.w.mirrors {
			tail = TailOfMirror(q.LastEpoch, tail, n.log.EpochAt(n.log.End()-1), n.log.End())
		}
		a.Verdict, a.Diverging = n.leader.Fetched(n.w.now, q, tail), tail
		a.HighWatermark, a.Start, a.End = n.leader.HighWatermark(), n.log.Start(), n.log.End()
	}
	n.w.seen[fmt.Sprintf("fetch: verdict %d", a.Verdict)]++
	if a.Verdict == Served {
		var err error
		a.entries, err = n.log.Read(q.Offset, 1+n.w.rng.IntN(8))
		n.must(err)
		for i, e := range a.entries {
			o := q.Offset + record.Offset(i)
			a.Batches = append(a.Batches, Batch{o, o + 1, e.Epoch})
		}
		n.act()
	}
	answer := func() {
		n.w.send(n.id, from.id, fmt.Sprintf("answer: verdict %d, %d records, high watermark %d", a.Verdict, len(a.entries), a.HighWatermark), func() {
			if from.up && from.life == life && from.follower == f {
				from.takeAnswer(a)
			}
		})
	}
	if a.Verdict == Served && len(a.entries) == 0 {
		n.later(n.w.random(20*ms), answer) // a long poll
		return
	}
	answer()
}

// takeAnswer does the step that an answer asks for, at once or a little later.
func (n *node) takeAnswer(a *fetched) {
	f := n.follower
	if a.Verdict == Rebuild {
		n.rebuild(f)
	}
	if f = n.follower; f == nil {
		return
	}
	var own Tail
	own.Epoch, own.End = n.log.EpochEnd(a.Diverging.Epoch)
	if a.Start > n.log.Start() && n.w.chance(0.2) {
		n.startsLate = n.w.now + n.w.random(400*ms)
	}
	s := f.Answered(n.w.now, &a.Answer, own)
	do := func() {
		if n.follower == f && s.Kind != NoStep {
			n.do(s, a)
		}
	}
	if s.Kind != NoStep && n.w.chance(0.1) {
		n.later(n.w.random(20*ms), do)
		return
	}
	do()
	n.act()
}

// rebuild has an empty log take the place of a damaged one, if the metadata do not count on that.
func (n *node) rebuild(f *Follower) {
	img := n.w.ctl.images[n.applied-1]
	if _, e := f.Leader(); !n.isDamaged || img.leaderEpoch != int32(e) || img.leader == n.id || slices.Contains(img.ISR, n.id) || slices.Contains(img.Eligible, n.id) {
		return
	}
	n.w.note("%d deletes its damaged log", n.id)
	n.w.seen["rebuilt"]++
	n.log, n.isDamaged, n.follower = memlog.New(n.w.pageCache), false, nil
	n.nodeOfCuts = nodeOfCuts{}
	n.follow(img)
}

func (n *node) do(s Step, a *fetched) {
	if !n.follower.MayWrite() {
		n.w.seen["step of before a cut"]++
		n.follower.StepDropped(n.w.now)
		n.act()
		return
	}
	if n.isDamaged {
		n.follower.WriteFailed(n.w.now, true)
		n.act()
		return
	}
	if n.isFull() {
		n.w.seen["follower cannot store"]++
		n.follower.WriteFailed(n.w.now, false)
		n.act()
		return
	}
	end := n.log.End()
	switch s.Kind {
	case Truncate:
		n.must(n.log.Truncate(s.To))
		n.w.note("%d truncates to %d from %d", n.id, s.To, end)
		n.w.seen["truncation"]++
	case Restart:
		n.must(n.log.Clear(s.To))
		n.w.note("%d begins anew at %d", n.id, s.To)
		n.w.seen["begin anew"]++
	case Append:
		n.must(n.log.AppendAt(a.Batches[0].Base, a.entries[:s.Batches]...))
	case NoStep:
	}
	n.follower.Wrote(n.w.now, n.ends(), n.log.EpochAt(n.log.End()-1))
	n.act()
}
