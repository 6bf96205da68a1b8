package txn

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/group/memory"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica"
)

// worldStart is when the worlds begin.
var worldStart = time.UnixMilli(1_000_000)

// coordinator is the node that leads the partition of transactions, with its log, which outlives it.
type coordinator struct {
	w         *world
	log       []coord.Record
	committed int // the high watermark: records below it outlive a crash
	epoch     record.Epoch
	life      int // counts its lives, so that events of an earlier one are heard no more
	up        bool
	full      bool          // appends fail
	stalled   time.Duration // the high watermark stands still until then
	ids       blockOfIDs
	settings  Settings

	m       *Machine
	timers  *coord.Timers
	waiting []waitingReply
	service *service
}

// waitingReply is the replies of a step that wait for the high watermark.
type waitingReply struct {
	after record.Offset
	reply func(error)
}

// newCoordinator makes a coordinator whose log may have ids that are nearly out of epochs.
func newCoordinator(w *world, ids []string) *coordinator {
	c := &coordinator{w: w, ids: blockOfIDs{1000, 2000}, settings: Settings{MaxTimeout: time.Second, Expiration: 1500 * ms, ExpirationScan: 300 * ms}}
	c.settings.AddWait = []time.Duration{-1, 10 * ms, 100 * ms}[w.rng.IntN(3)]
	for i, id := range ids {
		if w.rng.IntN(3) == 0 {
			continue
		}
		st := newState(int64(7+i), 300, worldStart.UnixMilli())
		st.epoch = int16(32767 - 2 - w.rng.IntN(10))
		c.log = append(c.log, coord.Record{Key: appendKey(nil, id), Value: appendValue(nil, &st)})
	}
	c.committed = len(c.log)
	w.after(0, c.start)
	return c
}

func (c *coordinator) now() time.Time { return worldStart.Add(c.w.now) }

// loadLog makes a machine of a log, whose decisions go to send.
func (c *coordinator) loadLog(log []coord.Record, send func(Decision)) (*Machine, *coord.Timers) {
	timers := new(coord.Timers)
	m := New(Config{
		Settings: func() Settings { return c.settings }, IDs: &c.ids,
		Memory: memory.NewTransactionBudget(slog.New(slog.DiscardHandler), 0), Send: send,
	}, timers)
	for i, r := range log {
		s := coord.NewStep(c.now()).InEpoch(c.epoch)
		s.Put(r.Key, r.Value)
		s.Run(m, record.Offset(i), nil)
	}
	return m, timers
}

// start loads the log and serves.
func (c *coordinator) start() {
	c.epoch++
	c.service = &service{w: c.w, underWay: map[string]bool{}, step: c.step}
	c.m, c.timers = c.loadLog(c.log, c.service.take)
	c.committed = len(c.log)
	c.w.check.committedUpTo(c.committed)
	c.up = true
	c.w.note("coordinator of epoch %d, %d records", c.epoch, len(c.log))
	c.step(func(m *Machine, s *coord.Step) { m.Loaded(s) })
}

// crash ends this life. Records above the high watermark may be lost.
func (c *coordinator) crash() {
	if !c.up {
		return
	}
	c.w.check.checkReload()
	c.up = false
	c.life++
	keep := c.committed + c.w.rng.IntN(len(c.log)-c.committed+1)
	if keep < len(c.log) {
		c.w.seen["crash that loses records"]++
	}
	c.w.note("coordinator dies, %d records of %d are left", keep, len(c.log))
	c.log = c.log[:keep]
	waiting := c.waiting
	c.waiting = nil
	for _, r := range waiting {
		r.reply(coord.ErrNotLeading)
	}
	replaced := c.w.chance(0.4)
	if replaced {
		c.replace()
	} else {
		s := coord.NewStep(c.now()).InEpoch(c.epoch)
		c.m.Unload(s)
		s.Run(c.m, 0, nil)
	}
	if !replaced {
		c.service.step = func(op func(m *Machine, s *coord.Step)) { // its results reach the next life
			if c.up {
				c.step(op)
			}
		}
	}
	c.w.after(5*ms+c.w.random(80*ms), c.start)
}

// replace has this life go on for a while beside the next one, without knowing it: its node was replaced
// as the leader. It can append nothing, but its timers send decisions that were committed again.
func (c *coordinator) replace() {
	c.w.seen["replaced coordinator"]++
	old := &replaced{w: c.w, m: c.m, timers: c.timers, epoch: c.epoch, committed: c.committed, until: c.w.now + c.w.random(800*ms)}
	c.service.step = old.step
	c.w.after(old.until-c.w.now, func() { old.step(func(m *Machine, s *coord.Step) { m.Unload(s) }) })
	for range 8 {
		c.w.after(c.w.random(800*ms), func() {
			for _, t := range old.open() {
				old.step(func(_ *Machine, s *coord.Step) { t.timer.Fire(s) })
			}
		})
	}
}

// replaced is a coordinator that was replaced.
type replaced struct {
	w         *world
	m         *Machine
	timers    *coord.Timers
	epoch     record.Epoch
	committed int
	until     time.Duration // then it knows
}

// open are its transactions that are not complete, in order.
func (r *replaced) open() (list []*transaction) {
	for _, id := range []string{"x", "y"} {
		if t := r.m.ids[id]; t != nil && !t.isIdle() {
			list = append(list, t)
		}
	}
	return list
}

// step runs a step whose append fails, since another node leads.
func (r *replaced) step(op func(m *Machine, s *coord.Step)) {
	if r.w.now > r.until {
		return
	}
	s := coord.NewStep(worldStart.Add(r.w.now)).InEpoch(r.epoch)
	op(r.m, s)
	_, after, reply := s.RunUncommitted(r.m, 0, replica.ErrNotLeader)
	r.w.seen["step of a replaced coordinator"]++
	if int(after) > r.committed {
		reply(coord.ErrNotLeading)
		return
	}
	reply(nil)
}

// Apply takes the records that a step appends.
func (c *coordinator) Apply(s *coord.Step, r coord.Record) error {
	c.log = append(c.log, coord.Record{Key: append([]byte{}, r.Key...), Value: cloneOrNil(r.Value)})
	return c.m.Apply(s, r)
}

func (c *coordinator) Loaded(s *coord.Step) { c.m.Loaded(s) }
func (c *coordinator) Unload(s *coord.Step) { c.m.Unload(s) }

func cloneOrNil(b []byte) []byte {
	if b == nil {
		return nil
	}
	return append([]byte{}, b...)
}

// step runs one step on the machine.
func (c *coordinator) step(op func(m *Machine, s *coord.Step)) {
	s := coord.NewStep(c.now()).InEpoch(c.epoch)
	op(c.m, s)
	var fail error
	if c.full {
		fail = replica.ErrDiskFull
	}
	before := len(c.log)
	_, after, reply := s.RunUncommitted(c, record.Offset(len(c.log)), fail)
	switch {
	case fail != nil && after == 0, int(after) <= c.committed:
		reply(nil)
	default:
		c.waiting = append(c.waiting, waitingReply{after, reply})
		c.giveUpLate()
	}
	if len(c.log) > before {
		c.commitLater(c.life, len(c.log))
		if c.w.chance(0.01) && !c.w.healing { // between two steps
			life := c.life
			c.w.after(c.w.random(3*ms), func() {
				if c.life == life {
					c.crash()
				}
			})
		}
	}
	c.arm()
}

// giveUpLate has the last of the waiting replies time out before the high watermark comes, sometimes.
func (c *coordinator) giveUpLate() {
	chance := 0.05
	if c.w.now < c.stalled {
		chance = 0.5
	}
	if c.w.healing || !c.w.chance(chance) {
		return
	}
	r, life := &c.waiting[len(c.waiting)-1], c.life
	reply := r.reply
	done := false
	once := func(err error) {
		if !done {
			done = true
			reply(err)
		}
	}
	r.reply = once
	c.w.after(c.w.random(4*ms), func() {
		if c.life == life && !done {
			c.w.seen["late high watermark"]++
			once(replica.ErrTimedOut)
		}
	})
}

// commitLater raises the high watermark to an offset after a while.
func (c *coordinator) commitLater(life, end int) {
	c.w.after(ms/4+c.w.random(6*ms), func() {
		switch {
		case c.life != life || end <= c.committed:
			return
		case c.w.now < c.stalled:
			c.commitLater(life, end)
			return
		}
		c.committed = end
		c.w.check.committedUpTo(end)
		var ready []waitingReply
		left := c.waiting[:0]
		for _, r := range c.waiting {
			if int(r.after) <= end {
				ready = append(ready, r)
			} else {
				left = append(left, r)
			}
		}
		c.waiting = left
		for _, r := range ready {
			r.reply(nil)
		}
	})
}

// arm has the timers fire when the next one is due.
func (c *coordinator) arm() {
	at, ok := c.timers.Next()
	if !ok {
		return
	}
	life := c.life
	c.w.after(max(0, at.Sub(c.now())), func() {
		if c.life != life {
			return
		}
		if t := c.timers.Due(c.now()); t != nil {
			c.step(func(_ *Machine, s *coord.Step) { t.Fire(s) })
		}
	})
}

// service writes the markers of one life of the coordinator.
type service struct {
	w        *world
	underWay map[string]bool // markers that it has sent and not given up
	step     func(op func(m *Machine, s *coord.Step))
}

// take takes a decision.
func (sv *service) take(d Decision) {
	sv.w.note("send %+v", d)
	sv.w.check.sent(d)
	for _, t := range d.Partitions {
		for _, n := range t.Partitions {
			sv.write(d, sv.w.parts[n])
		}
	}
}

// write writes a marker by its partition's leader, and reports the result. Both may be lost, come late or twice.
func (sv *service) write(d Decision, p *partition) {
	w := sv.w
	key := fmt.Sprintf("%s %d %d", d.TransactionalID, d.Offset, p.n)
	if sv.underWay[key] {
		return
	}
	sv.underWay[key] = true
	report := func(o Outcome) {
		delete(sv.underWay, key)
		sv.step(func(m *Machine, s *coord.Step) {
			m.ReportMarkers(s, d.TransactionalID, d.Offset, []MarkerResult{{p.topic, p.n, o}})
		})
	}
	deliver := func() Outcome {
		o := p.takeMarker(d)
		w.note("marker of %s/%d of epoch %d at %d: %d", d.TransactionalID, d.Offset, d.CoordinatorEpoch, p.n, o)
		return o
	}
	if p.gone {
		w.after(w.random(3*ms), func() { report(PartitionGone) })
		return
	}
	delay := ms/2 + w.random(8*ms)
	if w.chance(0.05) && !w.healing {
		delay += w.random(400 * ms)
		w.seen["slow marker"]++
	}
	switch {
	case w.chance(w.loss): // it does not come there, or only when nobody waits for it any more
		w.seen["lost marker"]++
		if d.Version == bumpEpoch {
			w.after(delay+w.random(900*ms), func() { deliver() })
		}
		w.after(answerTimeout, func() { report(AskAgain) })
	case w.chance(w.loss): // the result is lost, and the service forgets it
		w.seen["lost result"]++
		w.after(delay, func() { deliver() })
		w.after(delay+answerTimeout, func() { delete(sv.underWay, key) })
	default:
		w.after(delay, func() {
			o := deliver()
			w.after(ms/2+w.random(5*ms), func() { report(o) })
			if w.chance(w.doubles) {
				w.seen["doubled result"]++
				w.after(w.random(800*ms), func() { report(o) })
			}
		})
		if d.Version == bumpEpoch && w.chance(w.doubles) {
			w.seen["doubled marker"]++
			w.after(delay+w.random(900*ms), func() { deliver() })
		}
	}
}
