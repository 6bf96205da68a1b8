package replica

import (
	"cmp"
	"sync"
	"sync/atomic"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica/progress"
	"github.com/leatstream/leat/internal/storage"
)

// Leadership says who leads a partition and who is in sync. It never changes; a
// step of the metadata brings a new one.
type Leadership struct {
	Leader   int32 // -1: nobody
	Epoch    record.Epoch
	Replicas []int32
	ISR      []int32
}

// Partition is this node's replica of a partition, and the only door to its log.
type Partition struct {
	id    storage.LogID
	ord   int64 // see Compare
	topic *Topic
	set   *Set
	log   *storage.Log

	// fence is held shared over an append and whole over a change of leadership:
	// no batch is appended with an epoch that has ended.
	fence sync.RWMutex
	begun record.Epoch // the epoch that the log was told of; written with fence held and mu held

	lead atomic.Pointer[Leadership]
	gone atomic.Bool // deleted, or the set is closed

	opened atomic.Bool  // the log was asked for its end: hw is what it says
	hw     atomic.Int64 // high watermark; written with mu held, never falls

	mu        sync.Mutex    // guards what follows; the innermost lock
	committed record.Offset // the log's committed end; never falls
	onLeader  waitList      // of those who wait for committed
	inSync    waitList      // of those who wait for the high watermark
	noted     bool          // Set.waiting has it
	polls     watcher       // head of a ring of watching polls
	arrived   tally
}

// tally counts bytes for the polls of a partition. Bytes are counted when they
// were appended, and readers see them when the high watermark has passed them:
// a poll that begins between the two must still be told of them. Guarded by
// Partition.mu.
type tally struct {
	bytes int64         // appended by this leader
	end   record.Offset // all of those lie below
	read  int64         // of bytes, those that surely lie below the high watermark

	// The next step of read: marked bytes lie below mark.
	mark   record.Offset
	marked int64
}

// advanceTo brings read up to a high watermark.
func (c *tally) advanceTo(hw record.Offset) {
	if hw < c.mark {
		return
	}
	c.read, c.mark, c.marked = c.marked, c.end, c.bytes
	if hw >= c.end {
		c.read = c.bytes
	}
}

func newPartition(s *Set, t *Topic, n int32, l *Leadership) *Partition {
	p := &Partition{id: storage.LogID{Topic: t.ID, Partition: n}, ord: s.made.Add(1), topic: t, set: s, begun: record.NoEpoch}
	p.polls.prev, p.polls.next = &p.polls, &p.polls
	p.lead.Store(l)
	p.log = s.cfg.Store.Log(p.id, t.Name, t.Settings().log, func(*storage.Log) { p.advanceEnds() })
	return p
}

// Compare orders the partitions of a Set, by no meaning.
func (p *Partition) Compare(q *Partition) int { return cmp.Compare(p.ord, q.ord) }

// Topic is the topic that the partition belongs to.
func (p *Partition) Topic() *Topic { return p.topic }

// Leadership tells who leads.
func (p *Partition) Leadership() *Leadership { return p.lead.Load() }

// Gone tells that the partition was deleted or its node stops; a topic that was
// made again has another Partition.
func (p *Partition) Gone() bool { return p.gone.Load() }

// Leads returns nil where this node leads the partition in the epoch that the
// asker believes to be the current one (NoEpoch: it does not say).
func (p *Partition) Leads(asker record.Epoch) error {
	l := p.lead.Load()
	switch {
	case p.gone.Load():
		return ErrNotLeader
	case asker != record.NoEpoch && asker < l.Epoch:
		return ErrFencedEpoch
	case asker != record.NoEpoch && asker > l.Epoch:
		return ErrUnknownEpoch
	case l.Leader != p.set.cfg.NodeID:
		return ErrNotLeader
	}
	return nil
}

// progressState is what the rules of progress look at, but for the ends that are known.
func (p *Partition) progressState() progress.State {
	l := p.lead.Load()
	return progress.State{ISR: l.ISR, Replicas: len(l.Replicas), MinISR: p.topic.Settings().MinISR}
}

// EnoughInSync returns ErrNotEnoughReplicas where acks=all cannot be promised.
func (p *Partition) EnoughInSync() error {
	if s := p.progressState(); !s.EnoughInSync() {
		return ErrNotEnoughReplicas
	}
	return nil
}

// Wait completes w once the log, or the high watermark, has come as far as w.Acks says,
// at once where it has. Who appends asks for the commit: see Appends.
func (p *Partition) Wait(w *Waiter, need record.Offset) {
	p.mu.Lock()
	list, end := p.waitsLocked(w.Acks)
	var err error
	done := end >= need
	if !done {
		err = p.whyStuck()
		done = err != nil
	}
	note := false
	if !done {
		w.need = need
		list.add(w)
		note, p.noted = !p.noted, true
	}
	p.mu.Unlock()
	if note {
		p.set.watch(p)
	}
	if done {
		w.Owner.Complete(w.Slot, err)
	}
}

// waitsLocked is the list of those who wait for such acknowledgements, and the end that
// they wait for.
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

// advanceEnds takes the log's committed end, moves the high watermark as the rules of
// progress have it, and releases and wakes who waited for either.
func (p *Partition) advanceEnds() {
	end, err := p.log.Committed()
	if err != nil {
		return // closed or faulted: the high watermark stays
	}
	p.opened.Store(true)
	p.mu.Lock()
	p.committed = max(p.committed, end)
	done := p.onLeader.takeReached(p.committed)
	s := p.progressState()
	known := [1]progress.Member{{ID: p.set.cfg.NodeID, End: p.committed}}
	s.Known = known[:]
	now := record.Offset(p.hw.Load())
	var readable *Waiter
	var woken *Poll
	if hw := s.HighWatermark(now); hw > now {
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

// countForPollsLocked tells the polls how much came and returns those that have enough now
// (all: every one), fired, as a chain.
func (p *Partition) countForPollsLocked(all bool) *Poll {
	var chain *Poll
	bytes := p.arrived.bytes
	for s := p.polls.next; s != &p.polls; s = s.next {
		n := max(bytes-s.seen, 1) // what another leader appended is not counted: one byte at least
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

func (p *Partition) watch(s *watcher, hw record.Offset) {
	p.mu.Lock()
	s.seen = p.arrived.read // what was read, or less: being woken too early does no harm
	s.prev, s.next = p.polls.prev, &p.polls
	s.prev.next, s.next.prev = s, s
	if record.Offset(p.hw.Load()) > hw || p.Leads(record.NoEpoch) != nil {
		s.poll.need.Store(0) // it moved since the poll has looked
	}
	p.mu.Unlock()
}

func (p *Partition) unwatch(s *watcher) {
	p.mu.Lock()
	s.prev.next, s.next.prev = s.next, s.prev
	s.prev, s.next = nil, nil
	p.mu.Unlock()
}

// setLeadership changes who leads. Who waits is told when this node does not lead any more. A
// log that nobody has asked for anything is left alone.
func (p *Partition) setLeadership(l *Leadership) {
	p.fence.Lock()
	old := p.lead.Swap(l)
	p.fence.Unlock()
	if l.Leader != p.set.cfg.NodeID || l.Epoch != old.Epoch {
		p.endWaits()
		return
	}
	p.reapplyRules()
}

// reapplyRules moves the high watermark where what the rules look at has changed: the
// in-sync set may have shrunk, or may be large enough now.
func (p *Partition) reapplyRules() {
	if p.opened.Load() {
		p.advanceEnds()
	}
}

// retire ends the replica: its topic was deleted, or the node stops.
func (p *Partition) retire() {
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

// whyStuck says why neither end will move any more.
func (p *Partition) whyStuck() error {
	if p.Leads(record.NoEpoch) != nil {
		return ErrNotLeader
	}
	return p.log.Fault()
}
