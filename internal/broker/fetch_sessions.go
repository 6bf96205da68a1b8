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

// Incremental fetch sessions (KIP-227). A client begins one with a full fetch. From then on
// its requests name only partitions for which it wants something else, and the answers have
// only partitions that have changed.

// The epochs of a fetch request that do not continue a session.
const (
	initialEpoch = 0
	finalEpoch   = -1
)

// evictAfter is min.incremental.fetch.session.eviction.ms. A session that was not used for
// so long is evicted for any new one, and one that was created so long ago for a larger one.
const evictAfter = 2 * time.Minute

// MostFetchSessionBytes is the largest useful Config.FetchSessionBytes, and its default. It is
// enough for sessions of 500,000 partitions.
const MostFetchSessionBytes = 500_000 * sessionPartitionMemory

// sessionPartitionMemory is about how many bytes a partition of a session takes. The partitions
// of all sessions together are bounded, since a client may name any number that do not exist.
// The names of topics count as so many partitions more as would take their memory. A client for
// whose session there is no room is served without one. A request that waits for records keeps
// nothing of its session (leaveSession), so a removed session takes no memory any more.
const sessionPartitionMemory = 300

// sessionSize is the size of a session, in partitions.
func sessionSize(partitions, nameBytes int) int {
	return partitions + 2*nameBytes/sessionPartitionMemory // a name is a key, too
}

// fetchSessions are the sessions of all connections. A client may continue its
// session on another connection.
type fetchSessions struct {
	mu       sync.Mutex
	max      int // bound of the number of sessions
	maxParts int // bound of parts
	parts    int // the sizes of all sessions
	byID     map[int32]*fetchSession
	// oldest and newest are the ends of the list of all sessions, which is ordered by
	// their last use.
	oldest, newest *fetchSession
}

// fetchSession is the session of one client.
type fetchSession struct {
	id      int32
	byID    bool // its requests name topics by id
	created time.Time

	// Guarded by fetchSessions.mu.
	used         time.Time
	size         int // see sessionSize
	older, newer *fetchSession

	mu          sync.Mutex               // guards the fields below
	epoch       int32                    // the epoch that the next request must have
	topics      map[string]*sessionTopic // by name or by id, as byID says
	nameBytes   int                      // of the names of topics
	parts       map[partKey]*cachedPart
	first, last *cachedPart // the ends of the list of parts, in the order in which they are read
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

// cachedPart is a partition of a session: the client's request for it, and the last answer.
type cachedPart struct {
	fetchWant
	key        partKey
	part       *replica.Partition // nil if it was not found
	hw, start  record.Offset      // as they were answered; hw is -1 if the next answer must have the partition
	prev, next *cachedPart
}

func newFetchSessions(slots int, bytes int64) *fetchSessions {
	return &fetchSessions{max: slots, maxParts: int(bytes / sessionPartitionMemory), byID: map[int32]*fetchSession{}}
}

func (c *fetchSessions) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.byID)
}

// joinSession finds the session that a request continues, applies the request to it, and
// sets f.parts to all partitions of the session. It returns the code of the whole answer.
func (f *fetch) joinSession() int16 {
	defer f.dropForgotten()
	if !f.continuesSession() {
		if f.sessionID != 0 {
			f.b.cache.removeSession(f.sessionID)
		}
		return none
	}
	s := f.b.cache.find(f.sessionID)
	if s == nil {
		return kerr.FetchSessionIDNotFound.Code
	}
	code, size := s.applyRequest(f)
	if code != none {
		return code
	}
	if size == 0 {
		f.b.cache.removeSession(s.id)
		f.epoch = finalEpoch // answered as if without a session
		return none
	}
	f.open = s
	f.b.cache.noteUse(s, size)
	clear(f.topics) // the session has its own names
	f.topics = f.topics[:0]
	f.trimLists(keepResults)
	return none
}

// continuesSession tells whether the request is a later one of a session.
func (f *fetchRequest) continuesSession() bool {
	return f.epoch != initialEpoch && f.epoch != finalEpoch
}

// leaveSession is called before the request waits. A request of a session gives up the list of
// the session's partitions: these belong to the session alone, which may be removed meanwhile.
func (f *fetch) leaveSession() {
	if f.open == nil {
		return
	}
	f.open = nil
	clear(f.parts)
	f.parts = f.parts[:0]
	f.trimLists(keepResults)
}

// rejoinSession is called when the wait is over. It lists the partitions of the session again.
// It returns the code of the whole answer: the session may be removed, or have gone on without
// this request.
func (f *fetch) rejoinSession() int16 {
	if f.open != nil || !f.continuesSession() {
		return none
	}
	s := f.b.cache.find(f.sessionID)
	if s == nil {
		return kerr.FetchSessionIDNotFound.Code
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.epoch != nextEpoch(f.epoch) {
		return kerr.InvalidFetchSessionEpoch.Code
	}
	s.listParts(f)
	f.open = s
	return none
}

// find returns the session with the id; nil: there is none.
func (c *fetchSessions) find(id int32) *fetchSession {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.byID[id]
}

// sizeOf is the size of a session, at least the number of its partitions, or 0 if there is no session with the id.
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

// noteUse makes a session the one that was used last, and notes its size. If all sessions
// are too large together then, it removes this one.
func (c *fetchSessions) noteUse(s *fetchSession, size int) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byID[s.id] != s {
		return // evicted meanwhile
	}
	c.parts += size - s.size
	s.used, s.size = now, size
	if c.parts > c.maxParts {
		c.removeLocked(s)
		return
	}
	if c.newest != s {
		c.unlink(s)
		c.linkNewest(s)
	}
}

func (c *fetchSessions) linkNewest(s *fetchSession) {
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

func (c *fetchSessions) removeSession(id int32) {
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

// createSession creates a session with the partitions of a full fetch, and returns its id, or
// 0 if there is no room for it.
func (c *fetchSessions) createSession(f *fetch) int32 {
	now, nameBytes := time.Now(), 0
	for i := range f.topics {
		nameBytes += len(f.topics[i].name)
	}
	size := sessionSize(len(f.parts), nameBytes)
	if !c.hasRoom(size, now) {
		return 0
	}
	s := &fetchSession{
		byID: f.version >= 13, created: now, used: now, size: size, epoch: nextEpoch(initialEpoch),
		topics: map[string]*sessionTopic{}, parts: make(map[partKey]*cachedPart, len(f.parts)),
	}
	for i := range f.parts {
		q := &f.parts[i]
		s.putPart(&q.fetchWant).recordAnswer(q)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.hasRoomLocked(size, now) { // others have taken it meanwhile
		return 0
	}
	if len(c.byID) >= c.max {
		c.removeLocked(c.findVictim(size, now))
	}
	for s.id == 0 || c.byID[s.id] != nil {
		s.id = rand.Int32()
	}
	c.byID[s.id] = s
	c.parts += s.size
	c.linkNewest(s)
	return s.id
}

// hasRoom tells whether a session of so many partitions could be created now. It saves making
// one for which there is no room.
func (c *fetchSessions) hasRoom(size int, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hasRoomLocked(size, now)
}

func (c *fetchSessions) hasRoomLocked(size int, now time.Time) bool {
	return c.parts+size <= c.maxParts && (len(c.byID) < c.max || c.findVictim(size, now) != nil)
}

// findVictim returns the session that is to be evicted for one of so many partitions; nil:
// none may be.
func (c *fetchSessions) findVictim(size int, now time.Time) *fetchSession {
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

// nextEpoch is the epoch after e. The one after the largest is 1, since 0 begins a session.
func nextEpoch(e int32) int32 {
	switch {
	case e < 0:
		return finalEpoch
	case e == math.MaxInt32:
		return 1
	}
	return e + 1
}

// applyRequest applies a request's changes to the session, and sets f.parts to all partitions
// of the session, in the order in which they are read.
func (s *fetchSession) applyRequest(f *fetch) (code int16, size int) {
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
		s.putPart(&f.parts[i].fetchWant)
	}
	for i := range f.forgotten {
		s.forgetPart(&f.forgotten[i])
	}
	s.epoch = nextEpoch(s.epoch)
	s.listParts(f)
	if len(s.parts) == 0 {
		return none, 0
	}
	return none, sessionSize(len(s.parts), s.nameBytes)
}

// listParts sets f.parts to all partitions of the session, in the order in which they are read.
func (s *fetchSession) listParts(f *fetch) {
	clear(f.parts)
	f.parts = slices.Grow(f.parts[:0], len(s.parts))
	for c := s.first; c != nil; c = c.next {
		f.parts = append(f.parts, fetchPart{fetchWant: c.fetchWant, cached: c, part: c.part})
	}
}

// findTopic finds a topic of the session. With create it adds the topic if it is not there.
func (s *fetchSession) findTopic(t *fetchTopic, create bool) *sessionTopic {
	key := t.name
	if s.byID {
		key = t.id[:]
	}
	st := s.topics[string(key)]
	if st == nil && create {
		st = &sessionTopic{fetchTopic: fetchTopic{name: bytes.Clone(t.name), id: t.id}}
		s.topics[string(key)] = st
		s.nameBytes += len(t.name)
	}
	return st
}

// putPart adds a partition to the session, or replaces the client's request for it.
func (s *fetchSession) putPart(w *fetchWant) *cachedPart {
	key := partKey{s.findTopic(w.topic, true), w.index}
	c := s.parts[key]
	if c == nil {
		c = &cachedPart{key: key, hw: -1, start: -1}
		s.parts[key] = c
		key.topic.parts++
		s.appendPart(c)
	}
	c.fetchWant = *w
	c.topic = &key.topic.fetchTopic
	return c
}

func (s *fetchSession) forgetPart(g *forgotten) {
	t := s.findTopic(&g.topic, false)
	if t == nil {
		return
	}
	c := s.parts[partKey{t, g.index}]
	if c == nil {
		return
	}
	delete(s.parts, c.key)
	s.removePart(c)
	if t.parts--; t.parts > 0 {
		return
	}
	s.nameBytes -= len(t.name)
	if s.byID {
		delete(s.topics, string(t.id[:]))
	} else {
		delete(s.topics, string(t.name))
	}
}

func (s *fetchSession) appendPart(c *cachedPart) {
	c.prev, c.next = s.last, nil
	if s.last != nil {
		s.last.next = c
	} else {
		s.first = c
	}
	s.last = c
}

func (s *fetchSession) removePart(c *cachedPart) {
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

// applyAnswer records the answer in the session, and skips the partitions that the answer
// need not have. Partitions with records go to the end of the order, so that large ones do
// not starve the others.
func (s *fetchSession) applyAnswer(f *fetch) int16 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.epoch != nextEpoch(f.epoch) {
		return kerr.InvalidFetchSessionEpoch.Code
	}
	for i := range f.parts {
		q := &f.parts[i]
		c := q.cached
		q.skip = !c.recordAnswer(q)
		if q.chunkSize > 0 && s.parts[c.key] == c {
			s.removePart(c)
			s.appendPart(c)
		}
	}
	return none
}

// isAt tells whether a session has an epoch.
func (s *fetchSession) isAt(epoch int32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.epoch == epoch
}

// recordAnswer keeps a partition's answer to compare the next one with it, and returns
// whether it differs from the one before. An error always does, an answer that sends the
// reader elsewhere, and the first answer after either.
func (c *cachedPart) recordAnswer(q *fetchPart) (differs bool) {
	refused := q.code != none || q.found.DivergingEnd >= 0 || q.found.Preferred >= 0
	differs = q.chunkSize > 0 || q.found.HighWatermark != c.hw || q.found.Start != c.start || refused
	c.part, c.hw, c.start = q.part, q.found.HighWatermark, q.found.Start
	if refused {
		c.hw = -1
	}
	return differs
}
