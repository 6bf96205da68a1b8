package replica

import (
	"cmp"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica/progress"
	"github.com/leatstream/leat/internal/storage"
)

// Partition is this node's replica of a partition. All use of its log goes through it.
type Partition struct {
	id    storage.LogID
	ord   int64 // unique in the Set; Compare orders by it
	topic *Topic
	host  *host

	// log is another one after a follower had to begin anew; changed with fence held for writing.
	log atomic.Pointer[storage.Log]

	// An append holds fence for reading, and a change of the leadership holds it for
	// writing, so no batch is appended with an epoch that has ended. The same holds for the steps of
	// a follower.
	fence sync.RWMutex
	begun record.Epoch // the last epoch that the log was told of; written with fence held for reading, and mu

	verifications Verifications

	cuts logCuts

	lead atomic.Pointer[Leadership]
	gone atomic.Bool // the partition was deleted, or the set is closed

	refused atomic.Bool // the last append of a producer found the disk full

	opened atomic.Bool  // hw includes the committed end that the log had when it was opened
	hw     atomic.Int64 // high watermark; written with mu held; it falls only if the log becomes shorter
	// readable is the leader epoch in which hw may be told to readers; written with mu held.
	readable  atomic.Int32
	followers subscribers

	mu        sync.Mutex    // guards the fields below; no other lock is taken while it is held
	committed record.Offset // the log's committed end; it falls only if the log becomes shorter
	leading   leading
	following *following // nil: this node does not follow
	onLeader  waitList   // waiters for the committed end
	inSync    waitList   // waiters for the high watermark
	onTrim    waitList   // waiters for the low watermark
	listed    bool       // the partition is in host.waiting, as it is if anything waits for it
	audience  audience
}

func newPartition(h *host, t *Topic, n int32, l *Leadership, ord int64) *Partition {
	p := &Partition{id: storage.LogID{Topic: t.ID, Partition: n}, ord: ord, topic: t, host: h, begun: record.NoEpoch}
	newAudience(&p.audience)
	p.readable.Store(int32(record.NoEpoch))
	p.cuts.in = record.NoEpoch
	p.cuts.expect(l)
	p.lead.Store(l)
	p.log.Store(openLog(p))
	return p
}

// openLog finds or adds a partition's log in the store.
func openLog(p *Partition) *storage.Log {
	return p.host.cfg.Store.Log(p.id, p.topic.Name, logOptions(p), func(*storage.Log) { p.advanceEnds() })
}

// logOptions are the settings of a partition's log. Retention is the leader's: followers take its
// start. That of a partition which mirrors is the source's.
func logOptions(p *Partition) storage.Options {
	o, l := p.topic.Settings().log, p.lead.Load()
	o.Delete = o.Delete && l.Leader == p.host.cfg.NodeID && !l.mirrors()
	o.Replicated = l.isReplicated()
	return o
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
	_, err := p.checkEpoch(current, false)
	return err
}

// checkEpoch returns the present leadership, or an error unless this node leads the partition, or
// follows it and orFollows is set, and its log has made the cuts of the metadata.
func (p *Partition) checkEpoch(current record.Epoch, orFollows bool) (*Leadership, error) {
	l := p.lead.Load()
	switch {
	case p.gone.Load():
		return l, ErrNotLeader
	case current != record.NoEpoch && current < l.Epoch:
		return l, ErrFencedEpoch
	case current != record.NoEpoch && current > l.Epoch:
		return l, ErrUnknownEpoch
	case l.Leader != p.host.cfg.NodeID && (!orFollows || !p.host.follows(l)):
		return l, ErrNotLeader
	case l.mustCut(p):
		return l, ErrNotLeader // the client asks again
	}
	return l, nil
}

// checkInSync returns ErrNotEnoughReplicas if acks=all cannot be promised.
func (p *Partition) checkInSync() error {
	l := p.lead.Load()
	if a := assignment(l, minInSync(p.topic.Settings(), l)); !a.EnoughInSync() {
		return ErrNotEnoughReplicas
	}
	return nil
}

// Wait completes w once the end that w.Acks stands for has reached need, at once if it has
// already. It does not ask for a commit: the appender does, see Appends.
func (p *Partition) Wait(w *Waiter, need record.Offset) {
	p.mu.Lock()
	list, end := p.waitsLocked(w.Acks)
	l, err := p.checkEpoch(record.NoEpoch, false)
	if err == nil && l.Epoch != w.Epoch {
		err = ErrNotLeader // the offset may be another record's by now
	}
	done := err != nil || end >= need
	switch {
	case err == nil && done && w.Acks == AcksAll && p.leading.leadsIn(l.Epoch):
		err = p.leading.ackError(end)
	case !done:
		err = p.log.Load().Fault()
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
		p.host.addWaiting(p)
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
	case acksTrim:
		if p.leading.machine == nil {
			return &p.onTrim, -1
		}
		return &p.onTrim, p.leading.machine.LowWatermark()
	case AcksNone:
	}
	panic("BUG: a wait for an acknowledgement that is not given")
}

// advanceEnds takes the log's ends. If this node leads, that raises the high watermark as far as the
// rules of progress allow, and completes the waits and wakes the polls that either satisfies.
func (p *Partition) advanceEnds() {
	seen, err := readLogEnds(p)
	if err != nil { // the high watermark stays
		giveUpUnreadable(p, err)
		return
	}
	p.opened.Store(true)
	trouble := findTrouble(p, seen.log)
	l, ok := p.lockLeadership(&seen)
	if !ok {
		p.advanceEnds()
		return
	}
	ends := seen.ends
	if p.leading.machine == nil {
		at := p.following.syncedLocked()
		p.mu.Unlock()
		if at != nil {
			at.f.reportSoon(at)
		}
		if err := CutError(p); err != nil {
			giveUpUnreadable(p, err)
		}
		return
	}
	p.committed = max(p.committed, ends.Durable)
	now := p.host.Now()
	p.leading.update(now, l, minInSync(p.topic.Settings(), l), p.host.nodes.Load(), ends)
	p.leading.noteTrouble(p.leading.machine, now, trouble)
	p.settleAndUnlock(now)
}

// endsSeen are the ends of a log at some time. They are not those of the log any more if that has become shorter since.
type endsSeen struct {
	log       *storage.Log
	ends      progress.Ends
	shortened int64 // logCuts.shortened before
}

// readLogEnds reads the ends of a partition's log.
func readLogEnds(p *Partition) (s endsSeen, err error) {
	s.shortened = p.cuts.shortened.Load()
	s.log = p.log.Load()
	s.ends, err = logEnds(s.log)
	return s, err
}

// lockLeadership locks mu and returns the present leadership, which stays the present one for
// the rules while mu is held: a later one is applied after it. If this node leads, and its log has made the cuts of the metadata, there is a
// machine for its epoch. ok is false, and mu is not locked, if the log has become shorter since its ends were read.
func (p *Partition) lockLeadership(seen *endsSeen) (l *Leadership, ok bool) {
	log, ends := seen.log, seen.ends
	for {
		l := p.lead.Load()
		leads := l.Leader == p.host.cfg.NodeID && !l.mustCut(p)
		var begin progress.Start
		p.mu.Lock()
		if leads && !p.leading.leadsIn(l.Epoch) {
			p.mu.Unlock() // the log has locks of its own
			begin = beginning(log, l, ends)
			p.mu.Lock()
		}
		if l != p.lead.Load() {
			p.mu.Unlock()
			continue
		}
		if seen.shortened != p.cuts.shortened.Load() {
			p.mu.Unlock()
			return l, false
		}
		switch {
		case !leads && l.Leader == p.host.cfg.NodeID:
			p.leading.machine = nil // of an earlier leader epoch; if the log cannot be cut, unreadable stays
		case !leads:
			p.leading.end(p.host.Now(), p.host.replication.Load().Lag)
		case !p.leading.leadsIn(l.Epoch):
			begin.HighWatermark = max(begin.HighWatermark, record.Offset(p.hw.Load()))
			begin.WasCut, begin.CutTo = p.cuts.in == l.Epoch, p.cuts.to
			p.leading.begin(p.host.Now(), p.host.leaderConfig(), begin, l, minInSync(p.topic.Settings(), l), p.host.nodes.Load())
			p.committed = ends.Durable
		}
		return l, true
	}
}

// lockLeader locks mu, with the machine told of the present metadata and ends of the log. It returns
// nil if this node does not lead, or the log cannot be read: mu is not locked then.
func (p *Partition) lockLeader(now time.Duration) *Leadership {
	seen, err := readLogEnds(p)
	if err != nil {
		return nil
	}
	l, ok := p.lockLeadership(&seen)
	if !ok {
		return p.lockLeader(now)
	}
	if p.leading.machine == nil {
		p.mu.Unlock()
		return nil
	}
	p.opened.Store(true)
	p.leading.update(now, l, minInSync(p.topic.Settings(), l), p.host.nodes.Load(), seen.ends)
	return l
}

// settleAndUnlock does what is to be done after an event of the leader's machine, and unlocks mu.
func (p *Partition) settleAndUnlock(now time.Duration) {
	d := &p.leading
	done := p.onLeader.takeReached(p.committed)
	var readable, trimmed *Waiter
	var woken *Poll
	var failed error
	hw := d.machine.HighWatermark()
	hasNews := d.takeNewStart()
	if hw > record.Offset(p.hw.Load()) {
		hasNews = true
		woken = raiseWatermarkLocked(p, hw)
		if readable = p.inSync.takeReached(hw); readable != nil {
			failed = d.ackError(hw)
		}
	}
	if _, ok := d.machine.Readable(); ok && p.readable.Load() != int32(d.machine.Epoch()) {
		p.readable.Store(int32(d.machine.Epoch()))
	}
	if p.onTrim.head != nil {
		trimmed = p.onTrim.takeReached(d.machine.LowWatermark())
	}
	next, isProposed := progress.Proposal{}, false
	if p.host.propose != nil && d.of.isReplicated() {
		next, isProposed = d.machine.Propose(now)
	}
	machine, tick := d.machine, d.wantsTick(d.machine)
	p.mu.Unlock()
	completeWaits(done, nil)
	completeWaits(readable, failed)
	completeWaits(trimmed, nil)
	wakePolls(woken)
	if hasNews {
		wakeCommitted(p)
		p.followers.wake(newsBytes)
	}
	if tick {
		p.host.addTicking(p)
	}
	if isProposed {
		p.host.propose(p, machine, next)
	}
}

// raiseWatermarkLocked raises the high watermark, and returns the polls that this fires as a chain.
func raiseWatermarkLocked(p *Partition, hw record.Offset) *Poll {
	p.hw.Store(int64(hw))
	p.log.Load().SetHighWatermark(hw) // a checkpoint keeps it
	p.audience.advanceTo(hw)
	return p.audience.count(false)
}

// setLeadership replaces the leadership. All waits end if the leader or the epoch is another
// one. It does not open the log.
func (p *Partition) setLeadership(l *Leadership) {
	var old *Leadership
	p.verifications.Outdate(func() bool {
		p.fence.Lock()
		defer p.fence.Unlock()
		p.cuts.expect(l)
		old = p.lead.Swap(l)
		return l.Epoch != old.Epoch
	})
	leads, led := l.Leader == p.host.cfg.NodeID, old.Leader == p.host.cfg.NodeID
	if !leads || l.Epoch != old.Epoch {
		p.endWaits()
	}
	if leads != led || l.isReplicated() != old.isReplicated() || l.mirrors() != old.mirrors() {
		p.log.Load().Configure(logOptions(p))
	}
}

// applyLeadership applies the rules of progress after the metadata have changed, which may raise the
// high watermark. Followers that wait for a leader that has changed are told.
func (p *Partition) applyLeadership() {
	if p.opened.Load() {
		p.advanceEnds()
	}
	p.followers.wake(newsBytes)
}

// endReplica refuses all later use and ends the waits: the replica was deleted, or the node
// stops. When it returns, nothing is appended any more.
func (p *Partition) endReplica() {
	p.fence.Lock()
	p.gone.Store(true)
	p.fence.Unlock()
	p.endWaits()
	p.followers.wake(newsBytes)
}

func (p *Partition) endWaits() {
	p.mu.Lock()
	waits := [...]*Waiter{p.onLeader.takeAll(), p.inSync.takeAll(), p.onTrim.takeAll()}
	woken := p.audience.count(true)
	p.mu.Unlock()
	for _, w := range waits {
		completeWaits(w, ErrNotLeader)
	}
	wakePolls(woken)
}

// endLimitedWaits ends the waits that have a deadline. Its waiters leave the partition in the list of those that Expire
// looks at.
func endLimitedWaits(p *Partition) {
	p.mu.Lock()
	waits := [...]*Waiter{p.inSync.takeExpired(math.MaxInt64), p.onTrim.takeExpired(math.MaxInt64)}
	p.mu.Unlock()
	for _, w := range waits {
		completeWaits(w, ErrNotLeader)
	}
}

// expireWaits ends the waits whose deadline is not after now, and all of them if they cannot
// succeed any more. It tells whether there are waiters left.
func expireWaits(p *Partition, now time.Duration) bool {
	p.mu.Lock()
	lists := [...]*waitList{&p.onLeader, &p.inSync, &p.onTrim}
	var done, rest [len(lists)]*Waiter
	var fault error
	p.listed = false
	for i, list := range lists {
		done[i] = list.takeExpired(now)
		p.listed = p.listed || list.head != nil
	}
	if p.listed {
		if fault = cmp.Or(p.CheckLeader(record.NoEpoch), p.log.Load().Fault()); fault != nil {
			for i, list := range lists {
				rest[i] = list.takeAll()
			}
			p.listed = false
		}
	}
	left := p.listed
	p.mu.Unlock()
	for i := range done {
		completeWaits(done[i], ErrTimedOut)
		completeWaits(rest[i], fault)
	}
	return left
}

// countForPolls counts stored bytes for the polls. A commit of another appender may have
// moved the high watermark beyond them already; then it wakes the polls, which otherwise
// advanceEnds does.
func (p *Partition) countForPolls(a arrival) {
	if a.bytes == 0 {
		return
	}
	var woken *Poll
	p.mu.Lock()
	p.audience.bytes += a.bytes
	p.audience.end = max(p.audience.end, a.end)
	hw := record.Offset(p.hw.Load())
	p.audience.advanceTo(hw)
	if hw >= a.end {
		woken = p.audience.count(false)
	}
	p.mu.Unlock()
	wakePolls(woken)
	if hw >= a.end {
		wakeCommitted(p)
	}
}

// logCuts is what a replica knows of the cuts of its log.
type logCuts struct {
	// isPending tells that the metadata may have a cut that the log has not made. It is set before the leadership with the cut is the
	// present one, and cleared with fence held for writing.
	isPending atomic.Bool
	// shortened counts how often the log has become shorter. Who has read its ends before that must read them again.
	shortened atomic.Int64
	// failure is why a pending cut could not be made; nil: nothing has failed.
	failure atomic.Pointer[error]

	made int32 // the number of the last cut that the log is known to have made; guarded by fence

	in record.Epoch  // the leader epoch in which the log was cut last; NoEpoch: it was not; guarded by mu
	to record.Offset // the log's end then; guarded by mu

	isQueued bool // guarded by cutQueue.mu
}

// mustCut tells whether a replica's log must make a cut before the replica does anything in the leadership.
func (l *Leadership) mustCut(p *Partition) bool { return l.Mirror != nil && p.cuts.isPending.Load() }

// expect notes, before a leadership is the present one, whether the metadata have cuts that the log may not have made. The partition's fence
// is held for writing, or nobody else knows the partition yet.
func (c *logCuts) expect(l *Leadership) {
	if l.Mirror.LastCut().Number > c.made {
		c.isPending.Store(true)
	}
}

// noteShortened notes that the log has become shorter.
func (c *logCuts) noteShortened() { c.shortened.Add(1) }

// CutError says why the replica has not made the cuts of the metadata yet; nil: it has made them, or is about to.
func CutError(p *Partition) error {
	if why := p.cuts.failure.Load(); why != nil && p.lead.Load().mustCut(p) {
		return *why
	}
	return nil
}
