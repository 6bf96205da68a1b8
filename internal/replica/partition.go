package replica

import (
	"cmp"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage"
)

var (
	// ErrNotLeader is returned where this node does not lead the partition, or has ceased to.
	ErrNotLeader = errors.New("not the leader of the partition")
	// ErrNotEnoughReplicas is returned where fewer replicas are in sync than min.insync.replicas asks for.
	ErrNotEnoughReplicas = errors.New("not enough replicas in sync")
	// ErrFencedEpoch is returned where the asker knows an older leader epoch than this node.
	ErrFencedEpoch = errors.New("leader epoch is older than the current one")
	// ErrUnknownEpoch is returned where the asker knows a newer leader epoch than this node.
	ErrUnknownEpoch = errors.New("leader epoch is newer than the current one")
	// ErrTimedOut ends a wait whose deadline has passed.
	ErrTimedOut = errors.New("timed out waiting for the in-sync replicas")
)

// Leadership says who leads a partition and who is in sync. It never changes; a
// step of the metadata brings a new one.
type Leadership struct {
	Leader   int32 // -1: nobody
	Epoch    record.Epoch
	Replicas []int32
	ISR      []int32
}

// Partition is this node's replica of a partition.
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
	lead  atomic.Pointer[Leadership]
	gone  atomic.Bool // deleted, or the set is closed

	opened atomic.Bool  // hw has been taken from the log
	hw     atomic.Int64 // high watermark; written with mu held, never falls

	mu    sync.Mutex // guards what follows; the innermost lock
	acks  waitList
	noted bool // Set.waiting has it
	polls spot // head of a ring of watching polls
	come  tally
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

// settle brings read up to a high watermark.
func (c *tally) settle(hw record.Offset) {
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
	p.log = s.cfg.Store.Log(p.id, t.Name, t.Settings().Storage, func(*storage.Log) { p.advance() })
	return p
}

// ID names the partition for ever.
func (p *Partition) ID() storage.LogID { return p.id }

// Compare orders the partitions of a Set, by no meaning.
func (p *Partition) Compare(q *Partition) int { return cmp.Compare(p.ord, q.ord) }

// Topic is the topic that the partition belongs to.
func (p *Partition) Topic() *Topic { return p.topic }

// Log is the partition's log, for what needs no leader.
func (p *Partition) Log() *storage.Log { return p.log }

// Leadership tells who leads.
func (p *Partition) Leadership() *Leadership { return p.lead.Load() }

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

// EnoughInSync returns ErrNotEnoughReplicas where acks=all cannot be promised. A
// topic with fewer replicas than min.insync.replicas asks for all of them.
func (p *Partition) EnoughInSync() error {
	l := p.lead.Load()
	if len(l.ISR) < min(p.topic.Settings().MinISR, len(l.Replicas)) {
		return ErrNotEnoughReplicas
	}
	return nil
}

// Append appends the items as the leader; each has its own outcome. What was
// stored counts as acknowledged when the high watermark passes it: see Wait.
func (p *Partition) Append(items []storage.Item) {
	p.append(items, record.NoEpoch)
	p.count(items)
	p.advance()
}

// count tells the polls of what was stored. Where somebody else's commit was faster
// and has moved the high watermark already, they are told here.
func (p *Partition) count(items []storage.Item) {
	var n int64
	var end record.Offset
	for i := range items {
		if items[i].Err == nil && !items[i].Dup {
			n += int64(len(items[i].Batch))
			end = max(end, items[i].Next)
		}
	}
	if n == 0 {
		return
	}
	var woken *Poll
	p.mu.Lock()
	p.come.bytes += n
	p.come.end = max(p.come.end, end)
	hw := record.Offset(p.hw.Load())
	p.come.settle(hw)
	if hw >= end {
		woken = p.movedLocked(false)
	}
	p.mu.Unlock()
	wakeAll(woken)
}

// append fails all items with ErrNotLeader unless this node leads in epoch e (NoEpoch: any).
func (p *Partition) append(items []storage.Item, e record.Epoch) {
	p.fence.RLock()
	defer p.fence.RUnlock()
	err := p.Leads(record.NoEpoch)
	l := p.lead.Load()
	if err == nil && e != record.NoEpoch && e != l.Epoch {
		err = ErrNotLeader
	}
	if err == nil {
		err = p.begin(l.Epoch)
	}
	if err != nil {
		for i := range items {
			items[i].Err = err
		}
		return
	}
	p.log.Append(l.Epoch, items)
}

// begin tells the log of a new epoch before its first append; a log that is never
// written to is never opened for it.
func (p *Partition) begin(e record.Epoch) error {
	p.mu.Lock()
	known := p.begun == e
	p.mu.Unlock()
	if known {
		return nil
	}
	if err := p.log.BeginEpoch(e); err != nil {
		return err
	}
	p.mu.Lock()
	p.begun = e
	p.mu.Unlock()
	return nil
}

// Wait completes w once the high watermark has reached need, at once where it has.
func (p *Partition) Wait(w *Waiter, need record.Offset) {
	p.mu.Lock()
	var err error
	done := record.Offset(p.hw.Load()) >= need
	if !done {
		err = p.broken()
		done = err != nil
	}
	note := false
	if !done {
		w.need = need
		p.acks.add(w)
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

// advance moves the high watermark to the least end that all in-sync replicas have
// on disk, and releases and wakes who waited for that. It tells whether the log
// could be asked.
func (p *Partition) advance() bool {
	end, err := p.log.Committed()
	if err != nil {
		return false // closed or faulted: the high watermark stays
	}
	p.mu.Lock()
	hw := p.inSyncEnd(end)
	if hw <= record.Offset(p.hw.Load()) {
		p.mu.Unlock()
		return true
	}
	p.hw.Store(int64(hw))
	p.come.settle(hw)
	done := p.acks.take(hw)
	woken := p.movedLocked(false)
	p.mu.Unlock()
	complete(done, nil)
	wakeAll(woken)
	return true
}

// inSyncEnd is the least end over the in-sync set. A member of whose end nothing
// is known holds the high watermark where it is; today the leader is the only member.
func (p *Partition) inSyncEnd(own record.Offset) record.Offset {
	l := p.lead.Load()
	if len(l.ISR) == 1 && l.ISR[0] == p.set.cfg.NodeID {
		return own
	}
	return record.Offset(p.hw.Load())
}

// movedLocked tells the polls how much came and returns those that have enough now
// (all: every one), fired, as a chain.
func (p *Partition) movedLocked(all bool) *Poll {
	var chain *Poll
	bytes := p.come.bytes
	for s := p.polls.next; s != &p.polls; s = s.next {
		n := max(bytes-s.seen, 1) // what another leader appended is not counted: one byte at least
		s.seen = bytes
		if all {
			n = s.poll.need.Load()
		}
		if s.poll.moved(n) {
			s.poll.next, chain = chain, s.poll
		}
	}
	return chain
}

func (p *Partition) watch(s *spot, hw record.Offset) {
	p.mu.Lock()
	s.seen = p.come.read // what was read, or less: being woken too early does no harm
	s.prev, s.next = p.polls.prev, &p.polls
	s.prev.next, s.next.prev = s, s
	if record.Offset(p.hw.Load()) > hw || p.Leads(record.NoEpoch) != nil {
		s.poll.need.Store(0) // it moved since the poll has looked
	}
	p.mu.Unlock()
}

func (p *Partition) unwatch(s *spot) {
	p.mu.Lock()
	s.prev.next, s.next.prev = s.next, s.prev
	s.prev, s.next = nil, nil
	p.mu.Unlock()
}

// HighWatermark is the end of what is committed.
func (p *Partition) HighWatermark() record.Offset {
	p.open()
	return record.Offset(p.hw.Load())
}

// LastStableOffset is the end of what a reader of committed transactions may see.
// There are no transactions yet, so it is the high watermark.
func (p *Partition) LastStableOffset() record.Offset { return p.HighWatermark() }

// Start is the first offset kept; the high watermark where the log cannot tell.
func (p *Partition) Start() record.Offset {
	o, err := p.log.Start()
	if err != nil {
		return record.Offset(p.hw.Load())
	}
	return o
}

// open takes the high watermark from the log at first use: what a sole replica
// recovered is committed. Several callers may do it at once.
func (p *Partition) open() {
	if !p.opened.Load() && p.advance() {
		p.opened.Store(true)
	}
}

// Gone tells that the partition was deleted or its node stops; a topic that was
// made again has another Partition.
func (p *Partition) Gone() bool { return p.gone.Load() }

// EpochEnd answers where the log's records of the epochs up to e end: the largest
// known epoch not above e and the offset after its last record. NoEpoch: the log
// knows none so old, or e is one that has not begun.
func (p *Partition) EpochEnd(e record.Epoch) (record.Epoch, record.Offset, error) {
	if l := p.lead.Load(); e == l.Epoch && l.Leader == p.set.cfg.NodeID {
		end, err := p.log.End() // it lasts; the log may not have heard of it yet
		return e, end, err
	}
	return p.log.EpochEnd(e)
}

// Read finds committed batches; see storage.Log.Read. hw is the limit it read below.
func (p *Partition) Read(from record.Offset, maxBytes int) (c *storage.Chunk, hw record.Offset, err error) {
	hw = p.HighWatermark()
	c, err = p.log.Read(from, hw, maxBytes)
	return c, hw, err
}

// become changes who leads. Who waits is told when this node does not lead any more.
func (p *Partition) become(l *Leadership) {
	p.fence.Lock()
	old := p.lead.Swap(l)
	p.fence.Unlock()
	if l.Leader == p.set.cfg.NodeID && l.Epoch == old.Epoch {
		p.advance() // the in-sync set may have shrunk
		return
	}
	p.fail()
}

// drop ends the replica: its topic was deleted, or the node stops.
func (p *Partition) drop() {
	p.gone.Store(true)
	p.fail()
}

func (p *Partition) fail() {
	p.mu.Lock()
	done := p.acks.all()
	woken := p.movedLocked(true)
	p.mu.Unlock()
	complete(done, ErrNotLeader)
	wakeAll(woken)
}

// broken says why the high watermark will not move any more.
func (p *Partition) broken() error {
	if p.Leads(record.NoEpoch) != nil {
		return ErrNotLeader
	}
	return p.log.Fault()
}

// expire ends the waits whose time is over, and all of them where the log has
// failed meanwhile. It tells whether somebody still waits.
func (p *Partition) expire(now int64) bool {
	p.mu.Lock()
	done := p.acks.expire(now)
	var rest *Waiter
	var fault error
	if p.acks.head != nil {
		if fault = p.broken(); fault != nil {
			rest = p.acks.all()
		}
	}
	p.noted = p.acks.head != nil
	left := p.noted
	p.mu.Unlock()
	complete(done, ErrTimedOut)
	complete(rest, fault)
	return left
}
