package progress

import (
	"fmt"
	"slices"
	"time"

	"github.com/leatstream/leat/internal/record"
)

// image is what the controller has decided.
type image struct {
	leader     int // -1: none
	epoch      record.Epoch
	isr        []int
	assignment Assignment
	cuts       []cutAt
}

// cutAt is a cut that all replicas make before they do anything else.
type cutAt struct {
	number int
	to     record.Offset
}

// controller decides who leads here, and what a mirror asks for.
type controller struct {
	w      *world
	now    image
	images []image
	// accepted are the losses that the metadata have called accepted.
	accepted []Range
}

func newController(w *world) *controller {
	c := &controller{w: w, now: image{leader: 0, epoch: 1}}
	a := &c.now.assignment
	a.Durable.State = Mirroring
	a.Settings = Settings{Start: []int64{Earliest, Earliest, Earliest, Latest, int64(w.rng.IntN(400))}[w.rng.IntN(5)], AcceptLoss: w.chance(0.3), IsCompacted: w.kind.isCompacted}
	if w.kind.isCompacted && w.chance(0.7) {
		a.Settings.KeepTombstones = 400*ms + w.random(time.Second)
	}
	return c
}

// publish has the present image be a part of the metadata. The nodes learn of it one after another.
func (c *controller) publish(why string) {
	c.now.isr, c.now.cuts = slices.Clone(c.now.isr), slices.Clone(c.now.cuts)
	c.now.assignment.Epoch = c.now.epoch
	c.images = append(c.images, c.now)
	d := c.now.assignment.Durable
	c.w.note("controller: %s: %d leads in epoch %d, in sync %v, %v %+v begun %v at %d", why, c.now.leader, c.now.epoch, c.now.isr, d.State, d.Range, d.HasBegun, d.Begin)
}

// elect chooses another leader of the replicas in sync, if the present one is down or not wanted.
func (c *controller) elect(without int) {
	c.now.leader = -1
	for _, id := range c.now.isr {
		if id != without && c.w.nodes[id].up {
			c.now.leader = id
		}
	}
	c.now.epoch++
}

func (c *controller) crashed(id int) {
	if len(c.now.isr) > 1 {
		c.now.isr = slices.DeleteFunc(slices.Clone(c.now.isr), func(one int) bool { return one == id })
	}
	if c.now.leader == id {
		c.elect(id)
	}
	c.publish(fmt.Sprintf("node %d is down", id))
}

func (c *controller) started() {
	if c.now.leader < 0 {
		if c.elect(-1); c.now.leader >= 0 {
			c.publish("a leader is up")
		}
	}
}

func (c *controller) moveLeader() {
	if was := c.now.leader; was >= 0 && len(c.now.isr) > 1 {
		if c.elect(was); c.now.leader < 0 {
			c.now.leader = was
		}
		c.publish("the leader moves")
		c.w.seen["leader moved"]++
	}
}

func (c *controller) setPaused(is bool) {
	if c.now.assignment.IsPaused != is {
		c.now.assignment.IsPaused = is
		c.publish(fmt.Sprintf("paused: %v", is))
		c.w.seen["paused"]++
	}
}

// decide does what a mirror asks for. What is asked for in another leader epoch, or of another state, is refused.
func (c *controller) decide(a *Action) Trouble {
	if a.Local != c.now.epoch {
		return Trouble{NotLeader, "the leader epoch is another one"}
	}
	switch a.Kind {
	case Raise:
		c.now.epoch = max(c.now.epoch+1, a.Epoch+record.Epoch(c.w.rng.IntN(50)))
		c.publish("raised")
	case Cut:
		c.w.check.cuts(a.Offset)
		c.now.cuts = append(slices.DeleteFunc(slices.Clone(c.now.cuts), func(o cutAt) bool { return o.to >= a.Offset }), cutAt{c.nextCut(), a.Offset})
		c.now.epoch++
		c.publish(fmt.Sprintf("cut at %d", a.Offset))
	case Declare:
		d := &c.now.assignment.Durable
		if *d != a.Was {
			return Trouble{Refused, "the state is another one"}
		}
		*d = a.Durable
		if d.State == Mirroring && !d.Range.IsEmpty() {
			c.accepted = append(c.accepted, d.Range)
		}
		c.w.seen["declared "+d.State.String()]++
		c.publish("declared: " + d.Reason)
	default:
	}
	return Trouble{}
}

func (c *controller) nextCut() int {
	if n := len(c.now.cuts); n > 0 {
		return c.now.cuts[n-1].number + 1
	}
	return 1
}

// localLog is the log of a replica here.
type localLog struct {
	start, end record.Offset
	batches    []*batch
	epochs     []epochStart
	durable    record.Offset
	cutNumber  int
}

func (l *localLog) lastEpoch() record.Epoch {
	if n := len(l.epochs); n > 0 {
		return l.epochs[n-1].epoch
	}
	return record.NoEpoch
}

func (l *localLog) state() Log {
	s := Log{Start: l.start, End: l.end, LastEpoch: l.lastEpoch()}
	if n := len(l.batches); n > 0 {
		s.Last = l.batches[n-1].Batch
	}
	return s
}

// EpochEnd is as the mirror asks for it.
func (l *localLog) EpochEnd(e record.Epoch) Tail {
	for i, begun := range slices.Backward(l.epochs) {
		end := l.end
		if i < len(l.epochs)-1 {
			end = l.epochs[i+1].start
		}
		if begun.epoch <= e && end > l.start {
			return Tail{begun.epoch, end}
		}
	}
	return Tail{Epoch: record.NoEpoch}
}

// BatchBefore is as the mirror asks for it.
func (l *localLog) BatchBefore(o record.Offset) Batch {
	for _, b := range slices.Backward(l.batches) {
		if b.Base < o {
			return b.Batch
		}
	}
	return Batch{}
}

func (l *localLog) append(b *batch) {
	if l.lastEpoch() < b.Epoch || len(l.epochs) == 0 {
		l.epochs = append(l.epochs, epochStart{b.Epoch, b.Base})
	}
	l.batches = append(l.batches, b)
	l.end = b.Next
}

// cut has the log end at an offset. Below its start it is empty, and begins there.
func (l *localLog) cut(to record.Offset) {
	if to >= l.end {
		return
	}
	l.batches = slices.DeleteFunc(slices.Clone(l.batches), func(b *batch) bool { return b.Next > to })
	l.epochs = slices.DeleteFunc(slices.Clone(l.epochs), func(e epochStart) bool { return e.start >= to })
	l.end, l.start, l.durable = to, min(l.start, to), min(l.durable, to)
}

// startAt has the log be empty, and begin at an offset.
func (l *localLog) startAt(o record.Offset) {
	l.batches, l.epochs, l.start, l.end, l.durable = nil, nil, o, o, o
}

func (l *localLog) trim(to record.Offset) {
	l.start = max(l.start, min(to, l.end))
	l.batches = slices.DeleteFunc(slices.Clone(l.batches), func(b *batch) bool { return b.Next <= l.start })
}

// node is a broker here with its replica.
type node struct {
	w       *world
	id      int
	up      bool
	life    int // counts starts; events of an earlier life do nothing
	log     *localLog
	applied int
	skew    time.Duration // its clock has nothing in common with other ones
	mirror  *Mirror
	leads   *image // nil: it does not, as far as it knows
	acts    int    // actions at the present time
	actsAt  time.Duration
	// fullUntil is the time up to which its disk takes no records.
	fullUntil time.Duration
	replicas  *cluster
}

func newNode(w *world, id int) *node {
	return &node{w: w, id: id, log: &localLog{}, skew: w.random(100 * time.Second), replicas: w.source}
}

// clock is the node's own time.
func (n *node) clock() time.Duration { return n.w.now + n.skew }

func (n *node) start() {
	n.up, n.life = true, n.life+1
	c := &Config{Retry: 10 * ms, MaxRetry: 200 * ms, Watch: watchTime, Confirm: confirmTime, Unwatched: unwatchedTime, Settle: settleTime, Jitter: n.w.rng.Float64}
	n.mirror = New(c)
	n.w.note("start of %d: %d..%d", n.id, n.log.start, n.log.end)
	n.w.ctl.started()
	n.tick(n.life)
}

// crash stops a node at once. What is not durable is lost.
func (n *node) crash() {
	if !n.up {
		return
	}
	n.up, n.leads = false, nil
	end := n.log.end
	for i, b := range n.log.batches {
		if b.Next > n.log.durable {
			n.log.batches = n.log.batches[:i:i]
			break
		}
	}
	n.log.end = max(n.log.start, min(n.log.end, n.log.durable))
	n.log.epochs = slices.DeleteFunc(slices.Clone(n.log.epochs), func(e epochStart) bool { return e.start >= n.log.end && n.log.end < end })
	if n.log.end < end {
		n.w.seen["crash that loses records"]++
	}
	n.w.note("crash of %d: %d of %d", n.id, n.log.end, end)
	n.w.ctl.crashed(n.id)
	n.w.after(20*ms+n.w.random(500*ms), func() {
		if !n.up {
			n.start()
		}
	})
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

// tick syncs and replicates, lets the time pass, and learns of the metadata.
func (n *node) tick(life int) {
	if !n.up || n.life != life {
		return
	}
	w := n.w
	w.after(tickEvery/2+w.random(tickEvery), func() { n.tick(life) })
	if w.healing || !w.chance(0.15) {
		to := len(w.ctl.images)
		n.later(w.delay(), func() { n.apply(to) })
	}
	n.follow()
	if n.leads != nil && w.chance(0.2) { // the owner looks at all topics now and then
		n.ask(int32(w.rng.IntN(3)), &Action{Kind: FindTopic})
	}
	if w.chance(0.5) {
		n.log.durable = n.log.end
	}
	n.act()
}

// apply follows the metadata up to an image, and makes all cuts before anything else.
func (n *node) apply(to int) {
	for n.applied < to {
		n.applied++
		img := n.w.ctl.images[n.applied-1]
		for _, c := range img.cuts {
			if c.number > n.log.cutNumber {
				n.w.note("%d cuts its log at %d of %d", n.id, c.to, n.log.end)
				n.log.cut(c.to)
				n.log.cutNumber = c.number
			}
		}
		switch {
		case img.leader != n.id:
			n.mirror.Resign()
			n.leads = nil
		case n.leads != nil && n.leads.epoch == img.epoch:
			n.leads = &img
			n.mirror.Assigned(img.assignment)
		default:
			n.leads = &img
			n.w.note("%d leads in epoch %d from %d", n.id, img.epoch, n.log.end)
			n.mirror.Lead(n.clock(), img.assignment, n.log.state(), n.age(), n.log)
		}
	}
	n.act()
}

// age is what the leader before has told, if it has, and if the log has all that it had by then.
func (n *node) age() Age {
	c := n.w.check
	a := Age{-1, -1}
	if c.told.at > 0 && n.log.end >= c.told.end && c.told.cutNumber == n.log.cutNumber && n.w.chance(0.7) {
		a.Held = -1
		if c.told.lag.IsKnown {
			a.Held = c.told.lag.RPO + n.w.now - c.told.at
		}
		if c.told.tombstones >= 0 {
			a.Tombstones = c.told.tombstones + n.w.now - c.told.at
		}
	}
	return a
}

// follow copies from the leader, after it has cut what that one does not have.
func (n *node) follow() {
	c := n.w.ctl
	img := &c.now
	if img.leader < 0 || n.applied == 0 || n.applied < len(c.images) && n.w.ctl.images[n.applied-1].epoch != img.epoch {
		return
	}
	l := n.w.nodes[img.leader]
	if l == n || !l.up || l.leads == nil || l.leads.epoch != img.epoch || l.log.cutNumber != n.log.cutNumber {
		return
	}
	from, to := l.log, n.log
	to.trim(from.start)
	if to.end < from.start || len(from.batches) == 0 && from.end > to.end {
		to.startAt(max(from.start, to.start))
	}
	k := 0
	for _, b := range to.batches {
		for k < len(from.batches) && from.batches[k] != b && from.batches[k].Next <= b.Base {
			k++
		}
		if k == len(from.batches) || from.batches[k] != b {
			to.cut(b.Base)
			break
		}
		k++
	}
	to.cut(from.end)
	for _, b := range from.batches[k:min(k+1+n.w.rng.IntN(5), len(from.batches))] {
		if b.Base >= to.end || len(to.batches) == 0 && b.Next > to.end {
			to.append(b)
		}
	}
	if len(from.batches) == 0 && from.end > to.end {
		to.startAt(from.end)
	}
	to.trim(min(from.start, to.end))
	if to.end == from.end && to.start == from.start {
		to.durable, to.epochs = to.end, slices.Clone(from.epochs)
		if !slices.Contains(img.isr, n.id) {
			img.isr = append(slices.Clone(img.isr), n.id)
			c.publish(fmt.Sprintf("node %d is in sync", n.id))
		}
	}
}

// committed is the offset up to which all replicas in sync have the leader's records.
func (n *node) committed() record.Offset {
	low := n.log.end
	for _, id := range n.w.ctl.now.isr {
		low = min(low, n.w.nodes[id].log.durable)
	}
	return low
}

// act does what the mirror asks for, after any event.
func (n *node) act() {
	for {
		if !n.up {
			return
		}
		a, ok := n.mirror.Next(n.clock())
		if !ok {
			return
		}
		if n.actsAt != n.w.now {
			n.acts, n.actsAt = 0, n.w.now
		}
		if n.acts++; n.acts > 20 {
			n.w.check.fail("node %d does %d things at once", n.id, n.acts)
			return
		}
		n.do(a)
	}
}

// do does one action.
func (n *node) do(a Action) {
	n.w.seen["action "+a.Kind.String()]++
	if a.Kind != Fetch {
		n.w.note("%d: %v at %d, epoch %d, %d bytes, %v", n.id, a.Kind, a.Offset, a.Epoch, len(a.Raw), a.Durable.State)
	}
	switch a.Kind {
	case FindTopic:
		n.ask(int32(n.w.rng.IntN(3)), &a)
	case Fetch, FindEpoch, Reread, FindRange, FindBegin:
		n.ask(a.Broker, &a)
	case Append, Trim, Skip:
		d := n.w.random(5 * ms)
		if n.leads.assignment.Durable.State != Mirroring {
			n.w.check.fail("node %d is to do %v in the state %v", n.id, a.Kind, n.leads.assignment.Durable.State)
		}
		if n.w.chance(0.02) {
			d = n.w.random(400 * ms)
		}
		n.later(d, func() { n.change(&a) })
	case Declare:
		n.w.check.declares(n, &a.Durable)
		n.request(&a)
	case Raise, Cut:
		n.request(&a)
	case NoAction:
	}
}

// ask asks a broker of the source.
func (n *node) ask(broker int32, a *Action) {
	w, m := n.w, n.mirror
	if a.ID > 0 {
		n.later(answerTimeout, func() { n.tell(m, a, nil) })
	}
	if w.now < w.cutTo || w.chance(w.loss) {
		return
	}
	r := w.source.replicas[broker]
	d, asked := w.delay(), n.clock()
	if a.Kind == Fetch {
		if last := r.end(); a.Offset >= last || w.chance(0.3) {
			d += w.random(80 * ms) // it waits for more
		}
	}
	w.after(d, func() {
		if !r.up {
			return
		}
		answer := w.source.answer(r, a, asked)
		if w.now < w.cutFrom || w.chance(w.loss) {
			return
		}
		n.later(w.delay(), func() { n.tell(m, a, answer) })
	})
}

// answer has a broker answer a request: the result tells a mirror.
func (c *cluster) answer(r *replica, a *Action, asked time.Duration) func(m *Mirror, now time.Duration) {
	switch a.Kind {
	case FindTopic:
		d := c.describe(r)
		d.Asked = asked
		return func(m *Mirror, now time.Duration) { m.Described(now, a.ID, d) }
	case Fetch:
		ans := c.fetch(r, a)
		c.w.note("source: %d answers at %d, epoch %d: trouble %d, diverged %+v, %d..%d, %d bytes", r.id, a.Offset, a.LastEpoch, ans.Trouble.Kind, ans.Diverged, ans.Start, ans.HighWatermark, len(ans.Raw))
		return func(m *Mirror, now time.Duration) { m.Fetched(now, a.ID, ans) }
	case FindEpoch:
		t := c.serve(r, a, false)
		found := c.epochEnd(r, a.Epoch)
		c.w.note("source: %d answers epoch %d: %+v, trouble %d", r.id, a.Epoch, found, t.Kind)
		return func(m *Mirror, now time.Duration) { m.EpochFound(now, a.ID, found, t) }
	case Reread:
		b, t := c.reread(r, a)
		return func(m *Mirror, now time.Duration) { m.Reread(now, a.ID, b, t) }
	case FindRange:
		found, t := c.findRange(r, a)
		return func(m *Mirror, now time.Duration) { m.RangeFound(now, a.ID, found, t) }
	default:
		at, t := c.findBegin(r, a)
		return func(m *Mirror, now time.Duration) { m.BeginFound(now, a.ID, at, t) }
	}
}

// tell has a mirror know the answer; nil: there is none.
func (n *node) tell(m *Mirror, a *Action, answer func(m *Mirror, now time.Duration)) {
	now, lost := n.clock(), Trouble{Lost, "there was no answer"}
	switch {
	case answer != nil:
		answer(m, now)
	case a.Kind == FindTopic:
		m.Described(now, a.ID, &Description{Trouble: lost})
	case a.Kind == Fetch:
		m.Fetched(now, a.ID, &Answer{Trouble: lost, Nearer: -1})
	case a.Kind == FindEpoch:
		m.EpochFound(now, a.ID, Tail{}, lost)
	case a.Kind == Reread:
		m.Reread(now, a.ID, Batch{}, lost)
	case a.Kind == FindRange:
		m.RangeFound(now, a.ID, SourceRange{}, lost)
	default:
		m.BeginFound(now, a.ID, -1, lost)
	}
	n.act()
}

// request asks the controller, whose answer may be late, lost or doubled.
func (n *node) request(a *Action) {
	w, m := n.w, n.mirror
	n.later(answerTimeout, func() {
		m.Decided(n.clock(), a.ID, Trouble{Lost, "there was no answer"})
		n.act()
	})
	times := 1
	if !w.healing && w.chance(0.1) {
		times = w.rng.IntN(3)
	}
	for range times {
		d := w.delay()
		if !w.healing && w.chance(0.1) {
			d += w.random(900 * ms)
		}
		w.after(d, func() {
			t := w.ctl.decide(a)
			w.note("controller: %v of %d: %s", a.Kind, n.id, t.Reason)
			n.later(w.delay(), func() {
				m.Decided(n.clock(), a.ID, t)
				n.act()
			})
		})
	}
}

// change changes the local log, as a leader that the metadata still have, as far as it knows.
func (n *node) change(a *Action) {
	t := n.tryChange(a)
	n.mirror.LogChanged(n.clock(), a.ID, n.log.state(), t)
	n.act()
}

func (n *node) tryChange(a *Action) Trouble {
	switch {
	case n.leads == nil || n.leads.epoch != a.Local:
		return Trouble{Kind: NotLeader}
	case n.w.now < n.fullUntil:
		return Trouble{Refused, "the disk is full"}
	}
	switch a.Kind {
	case Trim:
		to := a.Offset
		if n.w.chance(0.5) {
			to = min(to, n.committed())
		}
		n.w.check.trims(n, to)
		n.log.trim(to)
	case Skip:
		n.w.check.skips(n, a.Offset)
		n.log.startAt(a.Offset)
	default:
		return n.appendAll(a)
	}
	return Trouble{}
}

// appendAll appends batches as AppendMirror does.
func (n *node) appendAll(a *Action) Trouble {
	var all []*batch
	for rest := a.Raw; len(rest) > 0; {
		raw, next, err := record.Next(rest)
		if err != nil || raw.Verify() != nil {
			n.w.check.fail("node %d is to append what is no batch: %v", n.id, err)
			return Trouble{}
		}
		rest = next
		b := n.w.source.batches[batchKey{raw.BaseOffset(), raw.CRC()}]
		switch {
		case b == nil:
			n.w.check.fail("node %d is to append a batch at %d that the source never had", n.id, raw.BaseOffset())
			return Trouble{}
		case b.Epoch > n.leads.epoch:
			return Trouble{Kind: EpochAhead}
		case b.Base < n.log.end && len(all) == 0 && len(n.log.batches) > 0, b.Epoch < n.log.lastEpoch():
			n.w.check.fail("node %d is to append %d of epoch %d to a log that ends at %d in epoch %d", n.id, b.Base, b.Epoch, n.log.end, n.log.lastEpoch())
			return Trouble{Kind: DoesNotFit}
		}
		all = append(all, b)
	}
	if len(all) > 1 && n.w.chance(0.1) { // the owner may append some, and lets others go first
		all = all[:1+n.w.rng.IntN(len(all)-1)]
		n.w.seen["append of some"]++
	}
	for _, b := range all {
		n.w.check.appends(n, b)
		n.log.append(b)
	}
	n.w.note("%d appends up to %d in epoch %d", n.id, n.log.end, n.leads.epoch)
	return Trouble{}
}
