package replica

import (
	"cmp"
	"sync"
	"sync/atomic"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica/progress"
	"github.com/leatstream/leat/internal/storage"
)

// Leadership names the leader of a partition and the replicas that are in sync. It never
// changes: a change of the metadata makes a new one.
type Leadership struct {
	Leader         int32 // -1: none
	Epoch          record.Epoch
	PartitionEpoch int32
	Replicas       []int32 // with those that are being added
	Adding         []int32
	ISR            []int32
}

// Partition is this node's replica of a partition. All use of its log goes through it.
type Partition struct {
	id    storage.LogID
	ord   int64 // unique in the Set; Compare orders by it
	topic *Topic
	set   *Set
	log   *storage.Log

	// An append holds fence for reading, and a change of the leadership holds it for
	// writing, so no batch is appended with an epoch that has ended.
	fence sync.RWMutex
	begun record.Epoch // the last epoch that the log was told of; written with fence held for reading, and mu

	lead atomic.Pointer[Leadership]
	gone atomic.Bool // the partition was deleted, or the set is closed

	opened atomic.Bool  // hw includes the committed end that the log had when it was opened
	hw     atomic.Int64 // high watermark; written with mu held, never falls

	mu        sync.Mutex    // guards the fields below; no other lock is taken while it is held
	committed record.Offset // the log's committed end; never falls
	rules     rules
	onLeader  waitList // waiters for the committed end
	inSync    waitList // waiters for the high watermark
	listed    bool     // the partition is in Set.waiting, as it is if anything waits for it
	polls     watcher  // head of the ring of polls that watch the partition
	arrived   tally
}

// tally counts the bytes that a partition's polls wait for. Bytes are counted when they
// are appended, but readable only when the high watermark has passed them: a poll that
// begins between the two must still be told of them. Guarded by Partition.mu.
type tally struct {
	bytes    int64         // appended by this leader
	end      record.Offset // all of bytes are below it
	readable int64         // of bytes, those that are known to be below the high watermark

	// nextReadable is the value of readable after the high watermark has reached nextEnd.
	nextEnd      record.Offset
	nextReadable int64
}

// advanceTo raises readable to the high watermark.
func (c *tally) advanceTo(hw record.Offset) {
	if hw < c.nextEnd {
		return
	}
	c.readable, c.nextEnd, c.nextReadable = c.nextReadable, c.end, c.bytes
	if hw >= c.end {
		c.readable = c.bytes
	}
}

func newPartition(s *Set, t *Topic, n int32, l *Leadership) *Partition {
	p := &Partition{id: storage.LogID{Topic: t.ID, Partition: n}, ord: s.made.Add(1), topic: t, set: s, begun: record.NoEpoch}
	p.polls.prev, p.polls.next = &p.polls, &p.polls
	p.lead.Store(l)
	p.log = s.cfg.Store.Log(p.id, t.Name, t.Settings().log, func(*storage.Log) { p.advanceEnds() })
	return p
}

// Compare orders the partitions of a Set in a fixed order that has no meaning.
func (p *Partition) Compare(q *Partition) int { return cmp.Compare(p.ord, q.ord) }

// Topic is the topic that the partition belongs to.
func (p *Partition) Topic() *Topic { return p.topic }

// Leadership is the present leadership.
func (p *Partition) Leadership() *Leadership { return p.lead.Load() }

// Gone tells whether the partition was deleted or its node stops. A topic that is created
// again under the same name has other Partitions.
func (p *Partition) Gone() bool { return p.gone.Load() }

// CheckLeader returns an error unless this node leads the partition. current is the epoch that
// the caller believes to be the current one, which must be right; NoEpoch: it does not say.
func (p *Partition) CheckLeader(current record.Epoch) error {
	l := p.lead.Load()
	switch {
	case p.gone.Load():
		return ErrNotLeader
	case current != record.NoEpoch && current < l.Epoch:
		return ErrFencedEpoch
	case current != record.NoEpoch && current > l.Epoch:
		return ErrUnknownEpoch
	case l.Leader != p.set.cfg.NodeID:
		return ErrNotLeader
	}
	return nil
}

// checkInSync returns ErrNotEnoughReplicas if acks=all cannot be promised.
func (p *Partition) checkInSync() error {
	if a := assignment(p.lead.Load(), p.topic.Settings().MinISR); !a.EnoughInSync() {
		return ErrNotEnoughReplicas
	}
	return nil
}

// Wait completes w once the end that w.Acks stands for has reached need, at once if it has
// already. It does not ask for a commit: the appender does, see Appends.
func (p *Partition) Wait(w *Waiter, need record.Offset) {
	p.mu.Lock()
	list, end := p.waitsLocked(w.Acks)
	var err error
	done := end >= need
	if !done {
		err = p.stuckError()
		done = err != nil
	}
	enlist := false
	if !done {
		w.need = need
		list.add(w)
		enlist, p.listed = !p.listed, true
	}
	p.mu.Unlock()
	if enlist {
		p.set.addWaiting(p)
	}
	if done {
		w.Owner.Complete(w.Slot, err)
	}
}

// waitsLocked is the list of the waiters for such acknowledgements, and the end that they
// wait for.
func (p *Partition) waitsLocked(a Acks) (*waitList, record.Offset) {
	switch a {
	case AcksLeader:
		return &p.onLeader, p.committed
	case AcksAll:
		return &p.inSync, record.Offset(p.hw.Load())
	case AcksNone:
	}
	panic("BUG: a wait for an acknowledgement that is not given")
}

// advanceEnds takes the log's ends, raises the high watermark as far as the rules of progress
// allow, and completes the waits and wakes the polls that either satisfies.
func (p *Partition) advanceEnds() {
	ends, err := logEnds(p.log)
	if err != nil {
		return // closed or faulted: the high watermark stays
	}
	p.opened.Store(true)
	l := p.lockLeadership(ends)
	p.committed = max(p.committed, ends.Durable)
	done := p.onLeader.takeReached(p.committed)
	now := record.Offset(p.hw.Load())
	var readable *Waiter
	var woken *Poll
	if hw := p.rules.advance(p.set.Now(), l, p.topic.Settings().MinISR, ends); hw > now {
		p.hw.Store(int64(hw))
		p.log.SetHighWatermark(hw) // a checkpoint keeps it
		p.arrived.advanceTo(hw)
		readable = p.inSync.takeReached(hw)
		woken = p.countForPollsLocked(false)
	}
	p.mu.Unlock()
	completeWaits(done, nil)
	completeWaits(readable, nil)
	wakePolls(woken)
}

// lockLeadership locks mu and returns the present leadership, which stays the present one for
// the rules while mu is held: a later one is applied after it. If this node leads, the rules
// have a machine for its epoch.
func (p *Partition) lockLeadership(ends progress.Ends) *Leadership {
	for {
		l := p.lead.Load()
		leads := l.Leader == p.set.cfg.NodeID
		var begin progress.Start
		p.mu.Lock()
		if leads && !p.rules.leadsIn(l.Epoch) {
			p.mu.Unlock() // the log has locks of its own
			begin = beginning(p.log, l, ends)
			p.mu.Lock()
		}
		if l != p.lead.Load() {
			p.mu.Unlock()
			continue
		}
		switch {
		case !leads:
			p.rules = rules{}
		case !p.rules.leadsIn(l.Epoch):
			begin.HighWatermark = max(begin.HighWatermark, record.Offset(p.hw.Load()))
			p.rules.begin(p.set.Now(), progress.Config{ID: p.set.cfg.NodeID}, begin, l, p.topic.Settings().MinISR)
		}
		return l
	}
}

// countForPollsLocked counts the newly appended bytes for each poll, fires the polls that have
// enough now (all: every poll), and returns those that it fired as a chain.
func (p *Partition) countForPollsLocked(all bool) *Poll {
	var chain *Poll
	bytes := p.arrived.bytes
	for s := p.polls.next; s != &p.polls; s = s.next {
		n := max(bytes-s.seen, 1) // at least one: the batches of another leader are not counted
		s.seen = bytes
		if all {
			n = s.poll.need.Load()
		}
		if s.poll.countArrived(n) {
			s.poll.next, chain = chain, s.poll
		}
	}
	return chain
}

// addWatcher has a poll told of the bytes that come after hw, which its owner has read up to.
func (p *Partition) addWatcher(s *watcher, hw record.Offset) {
	p.mu.Lock()
	s.seen = p.arrived.readable // perhaps less than its owner has read: an early wake does no harm
	s.prev, s.next = p.polls.prev, &p.polls
	s.prev.next, s.next.prev = s, s
	if record.Offset(p.hw.Load()) > hw || p.CheckLeader(record.NoEpoch) != nil {
		s.poll.need.Store(0) // the partition has changed since its owner has read it
	}
	p.mu.Unlock()
}

func (p *Partition) removeWatcher(s *watcher) {
	p.mu.Lock()
	s.prev.next, s.next.prev = s.next, s.prev
	s.prev, s.next = nil, nil
	p.mu.Unlock()
}

// setLeadership replaces the leadership. All waits end if the leader or the epoch is another
// one. It does not open the log.
func (p *Partition) setLeadership(l *Leadership) {
	p.fence.Lock()
	old := p.lead.Swap(l)
	p.fence.Unlock()
	if l.Leader != p.set.cfg.NodeID || l.Epoch != old.Epoch {
		p.endWaits()
	}
	p.reapplyRules()
}

// reapplyRules applies the rules of progress after the in-sync set or min.insync.replicas has
// changed, which may raise the high watermark.
func (p *Partition) reapplyRules() {
	if p.opened.Load() {
		p.advanceEnds()
	}
}

// endReplica refuses all later use and ends the waits: the replica was deleted, or the node
// stops.
func (p *Partition) endReplica() {
	p.gone.Store(true)
	p.endWaits()
}

func (p *Partition) endWaits() {
	p.mu.Lock()
	onLeader, inSync := p.onLeader.takeAll(), p.inSync.takeAll()
	woken := p.countForPollsLocked(true)
	p.mu.Unlock()
	completeWaits(onLeader, ErrNotLeader)
	completeWaits(inSync, ErrNotLeader)
	wakePolls(woken)
}

// stuckError says why neither end can rise any more; nil: they can.
func (p *Partition) stuckError() error {
	if p.CheckLeader(record.NoEpoch) != nil {
		return ErrNotLeader
	}
	return p.log.Fault()
}
