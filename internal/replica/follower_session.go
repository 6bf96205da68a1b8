package replica

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/internal/replica/progress"
)

const (
	// MaxAnswered is the largest number of partitions in one answer.
	MaxAnswered = 1000
	// MaxNamed is the largest number of partitions that a message names of each kind: those to be fetched, those
	// that leave the session, reports, and proposals for in-sync sets.
	MaxNamed = 1000
	// spareFollowed is how many partitions a session may have beyond those of the cluster: the follower may
	// know of new ones before the leader does.
	spareFollowed = 10_000
	// leastMaxBytes is how many bytes of records an answer may have however few this node asks for as a
	// follower: the default of replica.fetch.response.max.bytes.
	leastMaxBytes = 10 << 20
	// longestPoll is the longest time that a request may wait for records.
	longestPoll = time.Minute
)

// followerSessions has the sessions of the nodes that follow this one.
type followerSessions struct {
	host    *host
	buffers sync.Pool // of *[]byte, for answers

	mu         sync.Mutex
	byFollower map[int32]*followerSession // guarded by mu
	ended      bool                       // guarded by mu: the Set is closed
}

// followerSession is the fetch session of one follower's node (KIP-227). Its partitions note their
// news here, so that a request looks only at those that have any. A request waits by a Poll, as
// consumers' do.
type followerSession struct {
	all         *followerSessions
	host        *host
	id          uint64
	replica     int32
	brokerEpoch int64
	heard       atomic.Pointer[heardFollower] // by its last request

	turn    chan struct{} // of size 1; filled while a request is served, to which the next three fields belong
	number  uint32        // of the next request
	subs    map[PartitionID]*subscription
	refused []PartitionID // by the next answer, since the session has too many partitions

	poll    Poll
	woken   chan struct{} // of size 1; filled: the poll was fired by another goroutine
	isEnded atomic.Bool   // another session has taken its place

	mu      sync.Mutex
	ready   []*subscription            // guarded by mu: they may have news, the oldest first
	missing map[*subscription]struct{} // guarded by mu: their partitions are not here
}

// Wake has the request that waits go on.
func (s *followerSession) Wake() { fill(s.woken) }

// serve is Set.ServeFetch.
func (c *followerSessions) serve(ctx context.Context, r *FetchRequest) (*FetchAnswer, error) {
	s, err := c.findSession(r)
	if err != nil {
		return nil, err
	}
	s.heard.Store(&heardFollower{r.Replica, r.BrokerEpoch, c.host.Now(), r.IsFull})
	select {
	case s.turn <- struct{}{}:
	default: // a follower has one request under way
		return nil, ErrSessionLost
	}
	defer func() { <-s.turn }()
	if s.isEnded.Load() || r.Number != s.number {
		return nil, ErrSessionLost
	}
	s.number++
	s.takeRequest(r)
	r.release()
	return s.answer(ctx, r)
}

// findSession finds the session that a request continues, or begins one.
func (c *followerSessions) findSession(r *FetchRequest) (*followerSession, error) {
	c.mu.Lock()
	old := c.byFollower[r.Replica]
	switch {
	case c.ended:
		c.mu.Unlock()
		return nil, ErrClosed
	case r.Session != 0 && old != nil && old.id == r.Session:
		c.mu.Unlock()
		return old, nil
	case r.Session != 0 || r.Number != 0 || old != nil && r.BrokerEpoch < old.brokerEpoch:
		c.mu.Unlock()
		return nil, ErrSessionLost
	}
	s := &followerSession{
		all: c, host: c.host, id: rand.Uint64() | 1, replica: r.Replica, brokerEpoch: r.BrokerEpoch,
		turn: make(chan struct{}, 1), subs: map[PartitionID]*subscription{}, woken: make(chan struct{}, 1),
	}
	s.poll.Owner = s
	if c.byFollower == nil {
		c.byFollower = map[int32]*followerSession{}
	}
	c.byFollower[r.Replica] = s
	c.mu.Unlock()
	if old != nil {
		old.end()
	}
	return s, nil
}

// list lists the sessions.
func (c *followerSessions) list() []*followerSession {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]*followerSession, 0, len(c.byFollower))
	for _, s := range c.byFollower {
		all = append(all, s)
	}
	return all
}

// lookAgain has the sessions look again for partitions that were not here.
func (c *followerSessions) lookAgain() {
	for _, s := range c.list() {
		s.mu.Lock()
		missing := s.missing
		s.missing = nil
		s.mu.Unlock()
		for sub := range missing {
			sub.noteNews(newsBytes)
		}
	}
}

// endAll ends all sessions, and refuses later ones.
func (c *followerSessions) endAll() {
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	for _, s := range c.list() {
		s.end()
	}
}

// end ends the session: a request that waits is refused, and its partitions forget it.
func (s *followerSession) end() {
	s.isEnded.Store(true)
	if s.poll.Expire() {
		s.Wake()
	}
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	for _, sub := range s.subs {
		sub.leavePartition()
	}
	clear(s.subs)
}

// takeRequest takes the news in a request. Durable ends count at once.
func (s *followerSession) takeRequest(r *FetchRequest) {
	for _, id := range r.Forgotten {
		if sub := s.subs[id]; sub != nil {
			sub.leavePartition()
			s.forgetMissing(sub)
			sub.isAsked = false
			delete(s.subs, id)
		}
	}
	for i := range r.Partitions {
		sub := s.subs[r.Partitions[i].ID]
		if sub == nil && len(s.subs) >= int(s.host.partitions.Load())+spareFollowed {
			s.refused = append(s.refused, r.Partitions[i].ID)
			continue
		}
		if sub == nil {
			sub = &subscription{s: s, id: r.Partitions[i].ID}
			s.subs[sub.id] = sub
		}
		sub.takeFetch(r, &r.Partitions[i])
		sub.noteNews(0)
	}
	for i := range r.Reports {
		s.all.takeReport(r.Replica, r.BrokerEpoch, &r.Reports[i])
	}
}

// noteMissing has the session look for a partition again when the metadata have changed.
func (s *followerSession) noteMissing(sub *subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.missing == nil {
		s.missing = map[*subscription]struct{}{}
	}
	s.missing[sub] = struct{}{}
}

func (s *followerSession) forgetMissing(sub *subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.missing, sub)
}

// answer answers a request when there is enough to tell, or its time is over.
func (s *followerSession) answer(ctx context.Context, r *FetchRequest) (*FetchAnswer, error) {
	over := s.host.Now() + max(0, min(r.MaxWait, longestPoll))
	for {
		s.poll.Begin(int64(max(r.MinBytes, 1)), 0)
		c := s.collect(r)
		now := s.host.Now()
		isEnded := s.isEnded.Load()
		if isEnded || c.bytes >= max(r.MinBytes, 1) || now >= over || ctx.Err() != nil {
			s.poll.End()
			c.relistHeld()
			if isEnded {
				c.answer.Release()
				return nil, ErrSessionLost
			}
			return c.answer, nil
		}
		c.undo()
		limit := over - now
		if c.throttled > 0 {
			limit = min(limit, c.throttled)
		}
		s.poll.need.Add(-int64(c.bytes))
		if s.poll.Park() {
			s.await(ctx, limit)
		}
		s.poll.End()
	}
}

// await waits until the poll was fired, at most for a time.
func (s *followerSession) await(ctx context.Context, limit time.Duration) {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-s.woken:
		return
	case <-t.C:
	case <-ctx.Done():
	}
	if !s.poll.Expire() {
		<-s.woken // another goroutine has fired it, and tells so
	}
}

// takeReady takes the first partition that may have news; nil: there is none.
func (s *followerSession) takeReady() *subscription {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ready) == 0 {
		return nil
	}
	sub := s.ready[0]
	s.ready[0] = nil
	if s.ready = s.ready[1:]; len(s.ready) == 0 {
		s.ready = nil
	}
	sub.isReady.Store(false)
	return sub
}

// relist puts partitions in front of those that may have news.
func (s *followerSession) relist(subs []*subscription) {
	if len(subs) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	front := make([]*subscription, 0, len(subs)+len(s.ready))
	for _, sub := range subs {
		if !sub.isReady.Swap(true) {
			front = append(front, sub)
		}
	}
	s.ready = append(front, s.ready...)
}

// collection is an answer that is being made.
type collection struct {
	s         *followerSession
	answer    *FetchAnswer
	left      int             // bytes of records that still fit
	bytes     int             // what counts for MinBytes: records, and news of which a follower is told at once
	answered  []answeredSub   // those of answer.Partitions, but for refused ones
	held      []*subscription // they have news that this answer cannot have
	throttled time.Duration   // after which a throttled partition may be read; 0: none is throttled
}

// answeredSub is a subscription that is in an answer, and what its follower was told before.
type answeredSub struct {
	sub    *subscription
	before lastAnswer
}

// collect makes an answer of all news.
func (s *followerSession) collect(r *FetchRequest) *collection {
	c := &collection{s: s, answer: &FetchAnswer{Session: s.id}, left: min(r.MaxBytes, max(s.host.replication.Load().FetchMaxBytes, leastMaxBytes))}
	c.refuse()
	for len(c.answer.Partitions) < MaxAnswered {
		sub := s.takeReady()
		if sub == nil {
			break
		}
		if !sub.isAsked {
			continue
		}
		if !sub.collectNews(c, r) {
			break
		}
	}
	return c
}

// refuse answers the fetches of partitions for which the session has no room: the follower asks again later.
func (c *collection) refuse() {
	for _, id := range c.s.refused {
		c.answer.Partitions = append(c.answer.Partitions, PartitionAnswer{ID: id, Verdict: progress.Unavailable})
		c.bytes = newsBytes
	}
	c.s.refused = nil
}

// takeBuffer gives the answer a buffer.
func (c *collection) takeBuffer() {
	buffers := &c.s.all.buffers
	b, ok := buffers.Get().(*[]byte)
	if !ok {
		b = new([]byte)
	}
	c.answer.Buffer = (*b)[:0]
	c.answer.Reuse = func(a *FetchAnswer) {
		*b, a.Buffer = a.Buffer, nil
		buffers.Put(b)
	}
}

// undo takes back an answer that does not have enough yet.
func (c *collection) undo() {
	var subs []*subscription
	for _, a := range c.answered {
		a.sub.isAsked, a.sub.last = true, a.before
		subs = append(subs, a.sub)
	}
	c.answer.Release()
	c.s.relist(subs)
	c.relistHeld()
}

// relistHeld has the next answer look at what this one cannot have.
func (c *collection) relistHeld() {
	c.s.relist(c.held)
	c.held = nil
}
