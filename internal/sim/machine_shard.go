package sim

import (
	"cmp"
	"slices"
	"time"

	"github.com/leatstream/leat/internal/coord"
	groups "github.com/leatstream/leat/internal/group"
	"github.com/leatstream/leat/internal/record"
	engine "github.com/leatstream/leat/internal/replica"
	"github.com/leatstream/leat/internal/txn"
)

// machineShard runs a coordinator's machine on the leader of its partition. It follows the rules of package coord, as
// shard does: it loads the whole log, serves when the high watermark has reached the end of that, applies a
// record when it is appended, and replies when the high watermark has passed the records that the reply depends on.
type machineShard struct {
	r       *replica
	epoch   record.Epoch
	end     record.Offset // the offset after the last record that it has loaded or appended
	active  bool
	machine coord.Machine
	timers  *coord.Timers
	waiting []shardReply
	counts  txn.Counts // of the machine's transactions

	requests int              // that were answered or are to be
	ending   bool             // the machine answers what waits in it, in the order of a map
	answers  []unloadedAnswer // those answers
}

// shardReply is the replies of a step that wait for the high watermark.
type shardReply struct {
	after record.Offset
	reply func(error)
}

type unloadedAnswer struct {
	request int
	do      func()
}

// clocksBegin is the time that a node's clock shows at first.
var clocksBegin = time.UnixMilli(1_000_000)

// continueMachine returns the shard of a leader epoch. One that was active in the epoch before goes on
// if nobody else has appended since.
func continueMachine(before *machineShard, r *replica, epoch record.Epoch) *machineShard {
	if before != nil && before.active && epoch == before.epoch+1 && before.end == r.log.End() {
		before.epoch = epoch
		before.failWaiting()
		r.n.c.saw("machine goes on")
		return before
	}
	before.stop()
	s := &machineShard{r: r, epoch: epoch, end: r.log.End(), timers: new(coord.Timers)}
	s.machine = s.newMachine()
	for o := r.log.Start(); o < s.end; o++ {
		e, _ := r.log.EntryAt(o)
		s.replay(o, e.Epoch, r.n.c.contentOf(e.Value))
	}
	return s
}

// replay applies a record of the log.
func (s *machineShard) replay(at record.Offset, epoch record.Epoch, ct *content) {
	step := coord.NewStep(s.now()).InEpoch(epoch)
	if ct.batch != nil && ct.batch.Control() {
		m, err := record.ReadMarker(ct.batch)
		s.r.n.c.must(err)
		step.PutMarker(coord.Marker{Producer: coord.Producer{ID: ct.batch.ProducerID(), Epoch: ct.batch.ProducerEpoch()}, Marker: m})
	} else {
		if ct.batch != nil {
			step.SetProducer(coord.Producer{ID: ct.batch.ProducerID(), Epoch: ct.batch.ProducerEpoch()})
		}
		step.Put(ct.record.Key, ct.record.Value)
	}
	step.Run(s.machine, at, nil)
}

func (s *machineShard) now() time.Time { return clocksBegin.Add(s.r.n.now()) }

// stop ends the shard. Requests that wait are answered, in the order in which they came.
func (s *machineShard) stop() {
	if s == nil {
		return
	}
	s.failWaiting()
	if !s.active {
		return
	}
	s.active, s.ending = false, true
	step := coord.NewStep(s.now()).InEpoch(s.epoch)
	s.machine.Unload(step)
	step.Run(s.machine, s.end, coord.ErrNotLeading)
	slices.SortFunc(s.answers, func(a, b unloadedAnswer) int { return cmp.Compare(a.request, b.request) })
	for _, a := range s.answers {
		a.do()
	}
}

func (s *machineShard) failWaiting() {
	waiting := s.waiting
	s.waiting = nil
	for _, w := range waiting {
		w.reply(coord.ErrNotLeading)
	}
}

// newRequest counts a request, and returns how it is answered.
func (s *machineShard) newRequest() (answer func(do func())) {
	s.requests++
	number := s.requests
	return func(do func()) {
		if s.ending {
			s.answers = append(s.answers, unloadedAnswer{number, do})
			return
		}
		do()
	}
}

// act does what is due.
func (s *machineShard) act() {
	hw := s.r.leader.HighWatermark()
	if !s.active && hw >= s.end {
		s.active = true
		s.r.note("its machine serves from %d", int64(s.end), 0)
		s.r.n.c.saw("machine loaded")
		s.run(func(step *coord.Step) { s.machine.Loaded(step) })
	}
	left := s.waiting[:0]
	var ready []shardReply
	for _, w := range s.waiting {
		if w.after <= hw {
			ready = append(ready, w)
		} else {
			left = append(left, w)
		}
	}
	s.waiting = left
	for _, w := range ready {
		w.reply(nil)
	}
	for s.active {
		t := s.timers.Due(s.now())
		if t == nil {
			break
		}
		s.run(t.Fire)
	}
}

// run runs a step on the machine, which is active.
func (s *machineShard) run(op func(step *coord.Step)) {
	step := coord.NewStep(s.now()).InEpoch(s.epoch)
	op(step)
	var fail error
	if !s.r.leader.EnoughInSync() {
		fail = engine.ErrNotEnoughReplicas
		s.r.n.c.saw("step refused: too few in sync")
	}
	_, after, reply := step.RunUncommitted(s, s.r.log.End(), fail)
	if after <= s.r.leader.HighWatermark() {
		reply(nil)
		return
	}
	s.waiting = append(s.waiting, shardReply{after, reply})
	if c := s.r.n.c; c.txns.injectAtStep(s.r) {
		c.saw("leader dies between two steps")
	}
}

// Apply appends a record, and has the machine apply it.
func (s *machineShard) Apply(step *coord.Step, r coord.Record) error {
	ct := &content{record: coord.Record{Key: slices.Clone(r.Key), Value: slices.Clone(r.Value)}}
	if by, ok := step.Producer(); ok {
		ct.batch = s.r.n.c.txns.newBatch(by, record.NoSequence, ct.record.Key, ct.record.Value)
	}
	ct.name = describeRecord(ct)
	s.end = s.r.appendContent(ct) + 1
	return s.machine.Apply(step, r)
}

// EndTransaction appends a marker, and has the machine end the transaction.
func (s *machineShard) EndTransaction(step *coord.Step, m coord.Marker) {
	s.end = s.r.appendContent(&content{batch: s.r.n.c.txns.newMarker(m), name: nameOfMarker(m)}) + 1
	s.ofGroups().EndTransaction(step, m)
}

// ofTransactions is the machine of a partition of transactions.
func (s *machineShard) ofTransactions() *txn.Machine {
	m, _ := s.machine.(*txn.Machine)
	return m
}

// ofGroups is the machine of a partition of groups.
func (s *machineShard) ofGroups() *groups.Machine {
	m, _ := s.machine.(*groups.Machine)
	return m
}

// Loaded and Unload are there since a step wants a machine.
func (s *machineShard) Loaded(step *coord.Step) { s.machine.Loaded(step) }

// Unload is the machine's.
func (s *machineShard) Unload(step *coord.Step) { s.machine.Unload(step) }
