package replica

import (
	"errors"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica/progress"
)

// newsBytes counts for news of which a follower is told at once, however many bytes it waits for.
const newsBytes = math.MaxInt32

// subscription is a partition's place in a follower's session, and the fetch that stands for it.
type subscription struct {
	s       *followerSession
	id      PartitionID
	isReady atomic.Bool // it is in followerSession.ready

	// These belong to the request that is served.
	p       *Partition // nil: it is not here
	fetch   progress.Fetch
	isAsked bool // the fetch is not answered yet
	// isLacking tells that the log of this node has said that the follower lacks committed records.
	isLacking bool
	judged    *Leadership // in which the verdict was made; nil: there is none
	verdict   progress.Verdict
	tail      progress.Tail
	last      lastAnswer
}

// lastAnswer is what a follower was told of a partition last, in an answer with the verdict Served.
// Before the first such answer in a leader epoch it is empty: then the follower is answered at once,
// since its machine must learn that the logs agree.
type lastAnswer struct {
	exists    bool
	hw, start record.Offset
}

// subscribers has a partition's places in the sessions of followers.
type subscribers struct {
	list atomic.Pointer[[]*subscription] // nil: there are none; the slice is replaced, never changed

	mu sync.Mutex // held while the list is replaced; it is taken last
}

// wake tells the sessions of followers that there is news of the partition: n bytes that were appended, or
// newsBytes.
func (c *subscribers) wake(n int64) {
	if n == 0 {
		return
	}
	subs := c.list.Load()
	if subs == nil {
		return
	}
	for _, sub := range *subs {
		sub.noteNews(n)
	}
}

// change replaces the list.
func (c *subscribers) change(to func(subs []*subscription) []*subscription) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var subs []*subscription
	if old := c.list.Load(); old != nil {
		subs = *old
	}
	if subs = to(subs); len(subs) == 0 {
		c.list.Store(nil)
		return
	}
	c.list.Store(&subs)
}

// noteNews has the session look at the partition, for news that counts as n bytes.
func (sub *subscription) noteNews(n int64) {
	s := sub.s
	if !sub.isReady.Swap(true) {
		s.mu.Lock()
		s.ready = append(s.ready, sub)
		s.mu.Unlock()
	}
	if n > 0 && s.poll.countArrived(n) {
		s.Wake()
	}
}

// takeFetch takes a follower's fetch, and judges it.
func (sub *subscription) takeFetch(r *FetchRequest, f *PartitionFetch) {
	if f.Epoch != sub.fetch.Epoch {
		sub.last = lastAnswer{}
	}
	sub.fetch = progress.Fetch{
		Replica: r.Replica, BrokerEpoch: r.BrokerEpoch, Epoch: f.Epoch, Assigned: f.Assigned,
		Offset: f.Offset, LastEpoch: f.LastEpoch, Start: f.Start, Durable: f.Durable, CannotStore: f.CannotStore, IsDamaged: f.IsDamaged,
	}
	sub.isAsked, sub.judged = true, nil
	sub.judge()
}

// judge makes the verdict on the fetch, unless it was made in the present leadership. It returns
// false if there is none yet: the partition, or the leader epoch, is not known here, and the fetch
// stands until it is.
func (sub *subscription) judge() bool {
	for {
		if !sub.enterPartition() {
			return false
		}
		p := sub.p
		l := p.lead.Load()
		switch {
		case sub.judged == l:
			return true
		case sub.fetch.Epoch > l.Epoch:
			sub.judged = nil
			return false
		case sub.fetch.Epoch < l.Epoch:
			sub.judged, sub.verdict = l, progress.FencedEpoch
			return true
		case l.Leader != p.host.cfg.NodeID:
			sub.judged, sub.verdict = l, progress.Unavailable
			return true
		}
		if sub.judgeIn(l) {
			return true
		}
	}
}

// enterPartition subscribes to the partition. If it is not here the session looks again when the
// metadata have changed.
func (sub *subscription) enterPartition() bool {
	if sub.p != nil && !sub.p.gone.Load() {
		return true
	}
	sub.leavePartition()
	p := sub.s.host.find(sub.id)
	if p != nil && !p.gone.Load() {
		p.followers.change(func(subs []*subscription) []*subscription { return append(slices.Clip(subs), sub) })
		sub.p = p
		return true
	}
	sub.s.noteMissing(sub)
	return false
}

// leavePartition ends the subscription to the partition.
func (sub *subscription) leavePartition() {
	if sub.p == nil {
		return
	}
	sub.p.followers.change(func(subs []*subscription) []*subscription {
		return slices.DeleteFunc(slices.Clone(subs), func(other *subscription) bool { return other == sub })
	})
	sub.p, sub.judged = nil, nil
}

// judgeIn has the leader's machine judge the fetch. It returns false if the leadership is not l any
// more.
func (sub *subscription) judgeIn(l *Leadership) bool {
	p := sub.p
	p.fence.RLock()
	var err error
	log, mustCut := p.log.Load(), l.mustCut(p)
	if !mustCut && !l.hasSourceEpochs() {
		err = p.beginEpoch(log, l.Epoch) // the log must know where the epoch begins before it is compared
	}
	isPresent := p.lead.Load() == l
	p.fence.RUnlock()
	if !isPresent {
		return false
	}
	if sub.judged, sub.verdict = l, progress.Unavailable; mustCut {
		return true // the follower asks again
	}
	if err == nil {
		sub.tail, err = tailOf(log, l, sub.fetch.LastEpoch)
	}
	if err != nil {
		p.advanceEnds() // the leader gives up
		return true
	}
	now := p.host.Now()
	switch p.lockLeader(now) {
	case nil:
		return p.lead.Load() == l
	case l:
		m := p.leading.machine
		sub.verdict = m.Fetched(now, &sub.fetch, sub.tail)
		lacks := m.LacksCommitted(sub.fetch.Replica)
		p.settleAndUnlock(now)
		sub.noteLack(lacks)
		return true
	}
	p.mu.Unlock()
	return false
}

// takeReport takes a follower's report of a durable end.
func (c *followerSessions) takeReport(replica int32, brokerEpoch int64, r *PartitionReport) {
	p := c.host.find(r.ID)
	if p == nil || p.lead.Load().Leader != c.host.cfg.NodeID {
		return
	}
	now := c.host.Now()
	if p.lockLeader(now) == nil {
		return
	}
	m := p.leading.machine
	was := m.IsBehind()
	m.Reported(now, progress.Report{
		Replica: replica, BrokerEpoch: brokerEpoch, Epoch: r.Epoch, Assigned: r.Assigned, Durable: r.Durable,
	})
	is := m.IsBehind()
	p.settleAndUnlock(now)
	if is && !was {
		p.host.cfg.Logger.Warn("this node leads a partition and lacks records that are committed, as if its data directory was put back from an older copy: another replica is to lead",
			"topic", p.topic.Name, "partition", p.id.Partition, "told_by", replica)
	}
}

// noteLack logs, once in a session, that a follower which counts as complete lacks committed records.
func (sub *subscription) noteLack(lacks bool) {
	if !lacks || sub.isLacking {
		return
	}
	sub.isLacking = true
	sub.p.host.cfg.Logger.Warn("a replica lacks committed records that it had, as if its data directory was put back from an older copy: it is not in sync until it has them again",
		"topic", sub.p.topic.Name, "partition", sub.p.id.Partition, "replica", sub.s.replica)
}

// collectNews adds the partition to an answer if there is news of it. It returns false if the answer
// is full.
func (sub *subscription) collectNews(c *collection, r *FetchRequest) bool {
	for {
		if !sub.judge() {
			return true
		}
		a := PartitionAnswer{ID: sub.id, Verdict: sub.verdict, DivergingEpoch: sub.tail.Epoch, DivergingEnd: sub.tail.End}
		a.From, a.To = len(c.answer.Buffer), len(c.answer.Buffer)
		next, err := sub.fillAnswer(c, r, &a)
		switch {
		case errors.Is(err, ErrOffsetOutOfRange) && a.Verdict == progress.Served || sub.p.lead.Load() != sub.judged:
			c.answer.Buffer = c.answer.Buffer[:a.From]
			sub.judged = nil
			continue
		case err != nil:
			c.answer.Buffer = c.answer.Buffer[:a.From]
			a.Verdict, a.To = progress.Unavailable, a.From
		}
		switch next {
		case collectAnswer:
			sub.addTo(c, &a)
		case collectLater, collectNoMore:
			c.held = append(c.held, sub)
		case collectNothing:
		}
		return next != collectNoMore
	}
}

// collected says what to do with a partition after a look at its news.
type collected uint8

const (
	collectAnswer  collected = iota // the answer has it
	collectNothing                  // there is no news
	collectLater                    // it is throttled
	collectNoMore                   // its records do not fit into the answer, which is full
)

// fillAnswer fills in the partition's ends, and reads its records into the answer's buffer.
func (sub *subscription) fillAnswer(c *collection, r *FetchRequest, a *PartitionAnswer) (collected, error) {
	p := sub.p
	log := p.log.Load()
	ends, err := logEnds(log)
	if err != nil {
		return collectAnswer, err
	}
	a.HighWatermark, a.Start, a.End = record.Offset(p.hw.Load()), ends.Start, ends.End
	if a.Verdict != progress.Served {
		return collectAnswer, nil
	}
	if sub.fetch.Offset >= ends.End {
		if (lastAnswer{true, a.HighWatermark, a.Start}) == sub.last {
			return collectNothing, nil
		}
		return collectAnswer, nil
	}
	isThrottled := sub.isThrottled()
	if isThrottled {
		if wait := p.host.asLeader.delay(p.host.Now()); wait > 0 {
			if c.throttled == 0 || wait < c.throttled {
				c.throttled = wait
			}
			return collectLater, nil
		}
	}
	next, err := sub.readRecords(c, r, a)
	if n := a.To - a.From; isThrottled && n > 0 {
		p.host.asLeader.take(p.host.Now(), int64(n))
	}
	return next, err
}

// isThrottled tells whether leader.replication.throttled.replicas has this replica, and the follower
// is not in sync (KIP-73).
func (sub *subscription) isThrottled() bool {
	p := sub.p
	return p.topic.Settings().LeaderThrottled.Has(p.id.Partition, p.host.cfg.NodeID) && !slices.Contains(sub.judged.ISR, sub.s.replica)
}

// readRecords reads records into the answer's buffer. The first batch of an answer is in it however
// large it is (KIP-74).
func (sub *subscription) readRecords(c *collection, r *FetchRequest, a *PartitionAnswer) (collected, error) {
	isFirst := a.From == 0
	most := max(0, min(r.PartitionBytes, c.left))
	if !isFirst && c.left <= 0 {
		return collectNoMore, nil
	}
	chunk, err := sub.p.log.Load().Read(sub.fetch.Offset, a.End, most)
	if err != nil || chunk == nil {
		return collectAnswer, err
	}
	defer chunk.Release()
	n := chunk.Len()
	if n > most && !isFirst {
		return collectNoMore, nil
	}
	if c.answer.Reuse == nil {
		c.takeBuffer()
	}
	b := slices.Grow(c.answer.Buffer, n)[:a.From+n]
	read, err := chunk.ReadAt(b[a.From:], 0)
	if read < n {
		return collectAnswer, err
	}
	c.answer.Buffer, a.To = b, a.From+n
	c.left -= n
	return collectAnswer, nil
}

// addTo adds the partition to an answer.
func (sub *subscription) addTo(c *collection, a *PartitionAnswer) {
	c.answered = append(c.answered, answeredSub{sub, sub.last})
	c.answer.Partitions = append(c.answer.Partitions, *a)
	sub.isAsked = false
	n := a.To - a.From
	if a.Verdict != progress.Served || n == 0 {
		n = newsBytes
	}
	if a.Verdict == progress.Served {
		sub.last = lastAnswer{true, a.HighWatermark, a.Start}
	}
	c.bytes = min(c.bytes+n, newsBytes)
}
