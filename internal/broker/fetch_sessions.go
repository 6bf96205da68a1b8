package broker

import (
	"bytes"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica"
)

// Incremental fetch sessions (KIP-227). A client that begins one with a full fetch
// names only what changes from then on, and is told only what changed.

// The epochs of a fetch request that do not continue a session.
const (
	initialEpoch = 0
	finalEpoch   = -1
)

// evictAfter is min.incremental.fetch.session.eviction.ms: a session unused for so
// long gives way to any new one; one that has lived so long to a larger one.
const evictAfter = 2 * time.Minute

// maxSessionPartitions bounds the partitions of all sessions together: each takes
// some 300 bytes, and a client may name some that do not exist. Who finds no room
// for a session goes on without one.
const maxSessionPartitions = 500_000

// fetchSessions are the sessions of all connections. A client may continue its
// session on another connection.
type fetchSessions struct {
	mu    sync.Mutex
	max   int
	parts int // of all sessions
	byID  map[int32]*fetchSession
	// oldest and newest end the list of all sessions by their last use.
	oldest, newest *fetchSession
}

// fetchSession is one of them.
type fetchSession struct {
	id      int32
	byID    bool // its topics go by id
	created time.Time

	// Guarded by fetchSessions.mu.
	used         time.Time
	size         int // partitions
	older, newer *fetchSession

	mu          sync.Mutex // guards the rest
	epoch       int32      // that the next request must have
	topics      map[string]*sessionTopic
	parts       map[partKey]*cachedPart
	first, last *cachedPart // in the order in which partitions are read
}

// sessionTopic is a topic with the number of its partitions in the session.
type sessionTopic struct {
	fetchTopic
	parts int
}

type partKey struct {
	topic *sessionTopic
	index int32
}

// cachedPart is a partition of a session: what the client wants of it and what it
// was told last.
type cachedPart struct {
	fetchWant
	key        partKey
	part       *replica.Partition
	hw, start  record.Offset
	prev, next *cachedPart
}

func newFetchSessions(slots int) *fetchSessions {
	return &fetchSessions{max: slots, byID: map[int32]*fetchSession{}}
}

func (c *fetchSessions) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.byID)
}

// join finds the session that a request belongs to, and makes of f.parts all
// partitions that are to be read. It returns an error code for the whole answer.
func (f *fetch) join() int16 {
	if f.epoch == initialEpoch || f.epoch == finalEpoch {
		if f.sessionID != 0 {
			f.b.cache.remove(f.sessionID)
		}
		return none
	}
	s := f.b.cache.get(f.sessionID)
	if s == nil {
		return kerr.FetchSessionIDNotFound.Code
	}
	code, size := s.update(f)
	if code != none {
		return code
	}
	if size == 0 {
		f.b.cache.remove(s.id)
		f.epoch = finalEpoch // answered as if without a session
		return none
	}
	f.open = s
	f.b.cache.touch(s, size)
	return none
}

// get finds a session.
func (c *fetchSessions) get(id int32) *fetchSession {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.byID[id]
}

// sizeOf is how many partitions a session has; 0 where there is none such.
func (c *fetchSessions) sizeOf(id int32) int {
	if id == 0 {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.byID[id]; s != nil {
		return s.size
	}
	return 0
}

// touch notes a use.
func (c *fetchSessions) touch(s *fetchSession, size int) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byID[s.id] != s {
		return // evicted meanwhile
	}
	c.parts += size - s.size
	s.used, s.size = now, size
	if c.parts > maxSessionPartitions {
		c.removeLocked(s)
		return
	}
	if c.newest != s {
		c.unlink(s)
		c.push(s)
	}
}

func (c *fetchSessions) push(s *fetchSession) {
	s.older, s.newer = c.newest, nil
	if c.newest != nil {
		c.newest.newer = s
	} else {
		c.oldest = s
	}
	c.newest = s
}

func (c *fetchSessions) unlink(s *fetchSession) {
	if s.older != nil {
		s.older.newer = s.newer
	} else {
		c.oldest = s.newer
	}
	if s.newer != nil {
		s.newer.older = s.older
	} else {
		c.newest = s.older
	}
	s.older, s.newer = nil, nil
}

func (c *fetchSessions) remove(id int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.removeLocked(c.byID[id])
}

func (c *fetchSessions) removeLocked(s *fetchSession) {
	if s != nil {
		delete(c.byID, s.id)
		c.parts -= s.size
		c.unlink(s)
	}
}

// create begins a session with the partitions of a full fetch and returns its id;
// 0: there is no room for it.
func (c *fetchSessions) create(f *fetch) int32 {
	now := time.Now()
	if !c.room(len(f.parts), now) {
		return 0
	}
	s := &fetchSession{
		byID: f.version >= 13, created: now, used: now, size: len(f.parts), epoch: nextEpoch(initialEpoch),
		topics: map[string]*sessionTopic{}, parts: make(map[partKey]*cachedPart, len(f.parts)),
	}
	for i := range f.parts {
		q := &f.parts[i]
		s.want(&q.fetchWant).changed(q)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.byID) >= c.max {
		victim := c.victim(s.size, now)
		if victim == nil {
			return 0
		}
		c.removeLocked(victim)
	}
	for s.id == 0 || c.byID[s.id] != nil {
		s.id = rand.Int32()
	}
	c.byID[s.id] = s
	c.parts += s.size
	c.push(s)
	return s.id
}

// room tells whether a session of so many partitions would find a place now.
func (c *fetchSessions) room(size int, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.parts+size <= maxSessionPartitions && (len(c.byID) < c.max || c.victim(size, now) != nil)
}

// victim is the session that gives way to one of so many partitions.
func (c *fetchSessions) victim(size int, now time.Time) *fetchSession {
	if s := c.oldest; s != nil && now.Sub(s.used) > evictAfter {
		return s
	}
	var least *fetchSession
	for s := c.oldest; s != nil; s = s.newer {
		if now.Sub(s.created) > evictAfter && s.size < size && (least == nil || s.size < least.size) {
			least = s
		}
	}
	return least
}

// nextEpoch follows an epoch; it goes round to 1, since 0 begins a session.
func nextEpoch(e int32) int32 {
	switch {
	case e < 0:
		return finalEpoch
	case e == math.MaxInt32:
		return 1
	}
	return e + 1
}

// update applies a request's changes to the session and fills f.parts with all
// partitions of the session, in its order.
func (s *fetchSession) update(f *fetch) (code int16, size int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.epoch != f.epoch:
		return kerr.InvalidFetchSessionEpoch.Code, 0
	case s.byID != (f.version >= 13):
		return kerr.FetchSessionTopicIDError.Code, 0
	case len(s.parts)+len(f.parts) > maxFetchPartitions:
		return kerr.InvalidRequest.Code, 0
	}
	for i := range f.parts {
		s.want(&f.parts[i].fetchWant)
	}
	for i := range f.forgotten {
		s.forget(&f.forgotten[i])
	}
	s.epoch = nextEpoch(s.epoch)
	clear(f.parts)
	f.parts = slices.Grow(f.parts[:0], len(s.parts))
	for c := s.first; c != nil; c = c.next {
		f.parts = append(f.parts, fetchPart{fetchWant: c.fetchWant, cached: c, part: c.part})
	}
	return none, len(s.parts)
}

// topic finds a topic of the session; create makes one that is missing.
func (s *fetchSession) topic(t *fetchTopic, create bool) *sessionTopic {
	key := t.name
	if s.byID {
		key = t.id[:]
	}
	st := s.topics[string(key)]
	if st == nil && create {
		st = &sessionTopic{fetchTopic: fetchTopic{name: bytes.Clone(t.name), id: t.id}}
		s.topics[string(key)] = st
	}
	return st
}

// want enters a partition, or what is new about it.
func (s *fetchSession) want(w *fetchWant) *cachedPart {
	key := partKey{s.topic(w.topic, true), w.index}
	c := s.parts[key]
	if c == nil {
		c = &cachedPart{key: key, hw: -1, start: -1}
		s.parts[key] = c
		key.topic.parts++
		s.append(c)
	}
	c.fetchWant = *w
	c.topic = &key.topic.fetchTopic
	return c
}

func (s *fetchSession) forget(g *forgotten) {
	t := s.topic(&g.topic, false)
	if t == nil {
		return
	}
	c := s.parts[partKey{t, g.index}]
	if c == nil {
		return
	}
	delete(s.parts, c.key)
	s.take(c)
	if t.parts--; t.parts > 0 {
		return
	}
	if s.byID {
		delete(s.topics, string(t.id[:]))
	} else {
		delete(s.topics, string(t.name))
	}
}

func (s *fetchSession) append(c *cachedPart) {
	c.prev, c.next = s.last, nil
	if s.last != nil {
		s.last.next = c
	} else {
		s.first = c
	}
	s.last = c
}

func (s *fetchSession) take(c *cachedPart) {
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		s.first = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	} else {
		s.last = c.prev
	}
	c.prev, c.next = nil, nil
}

// answered takes down what the answer will tell, and marks the partitions that it
// need not mention. Those that had records go to the end of the order, so that
// large ones do not starve the others.
func (s *fetchSession) answered(f *fetch) int16 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.epoch != nextEpoch(f.epoch) {
		return kerr.InvalidFetchSessionEpoch.Code
	}
	for i := range f.parts {
		q := &f.parts[i]
		c := q.cached
		q.skip = !c.changed(q)
		if q.chunkSize > 0 && s.parts[c.key] == c {
			s.take(c)
			s.append(c)
		}
	}
	return none
}

// changed tells whether an answer differs from the one before, and keeps it for
// the next time. An error is always told, and told again when it is over.
func (c *cachedPart) changed(q *fetchPart) bool {
	told := q.chunkSize > 0 || q.found.HighWatermark != c.hw || q.found.Start != c.start || q.code != none || q.found.DivergingEnd >= 0
	c.part, c.hw, c.start = q.part, q.found.HighWatermark, q.found.Start
	if q.code != none || q.found.DivergingEnd >= 0 {
		c.hw = -1
	}
	return told
}
