package broker

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/group"
	"github.com/leatstream/leat/internal/peer"
	"github.com/leatstream/leat/internal/quota"
	"github.com/leatstream/leat/internal/replica"
	"github.com/leatstream/leat/internal/wire"
)

// session is one connection's state. Its methods run on the connection's goroutine,
// except those that use the list of parked fetches, which any goroutine may call.
type session struct {
	conn *wire.Conn
	peer *peer.Session // what the other end has proven; nil: no request with a private key came

	principal auth.Principal // of the client
	groups    []string       // that the client is in, by their names
	login     access         // of the client, unless it is a peer: see access
	owner     *quota.Owner   // whose quotas the last request counted for; nil: nobody's
	gate      *clientLogin   // nil: the client need not log in
	audit     *auditor       // nil: nothing is recorded
	rules     Rules          // by which login was made

	plain atomic.Pointer[plainNote] // of a client without TLS; nil: nothing was noted. The connection's goroutine sets it

	held heldRequests

	// These are collected between two flushes.
	collected
	commits       []group.OffsetCommit // OffsetCommit requests, in order
	pendingWeight int                  // the partitions of all these requests, and requestWeight for each

	mu        sync.Mutex
	parked    *fetch // the list of the fetches that wait, guarded by mu
	numParked int    // its length, guarded by mu
	gone      bool   // the connection is closed, guarded by mu
}

const (
	// keepQueued is the number of requests for which a connection keeps memory after a flush.
	keepQueued = 1024
	// When the weight of the collected requests is above maxPendingWeight they are flushed,
	// even if the same read has brought more. A partition weighs 1, and a request
	// requestWeight more, since it takes as much memory as so many partitions.
	maxPendingWeight = 2048
	requestWeight    = 4
	// maxParkedFetches is how many fetches of a connection may wait at a time; further ones
	// are answered at once. It bounds clients that misbehave: others wait for the answer to
	// one before they send the next.
	maxParkedFetches = 100
	// maxUnknown is how many more unknown partitions than known ones a fetch may name and
	// still be parked with its list of partitions.
	maxUnknown = 1000
)

// reserveMemory reserves the memory that a request needs until its answer is sent. A request
// that may need more than the largest reservation gets that one, so that it is the only large
// request.
func (s *session) reserveMemory(r *wire.Request, n int64) (budget.Reservation, error) {
	return r.Reserve(budget.Data, min(n, s.b.cfg.Work.Most(budget.Data)))
}

// Serve serves one request.
func (s *session) Serve(r *wire.Request) error {
	if peer.IsPrivate(r.Key) {
		return s.servePeer(r)
	}
	if s.gate != nil {
		if isServed, err := s.gate.serveLogin(r); isServed || err != nil {
			return err
		}
	}
	if s.b.cfg.Rules != nil && wire.IsPlain(s.conn) {
		notePlain(s, r.ClientID)
	}
	a := s.b.findAPI(r.Key)
	if a == nil || !s.mayCall(a) {
		return ErrUnsupported
	}
	s.b.stats.requests[r.Key].Add(1)
	s.audit.begin(a, r)
	if (r.Version < a.min || r.Version > a.max) && r.Key != apiVersionsKey {
		return fmt.Errorf("%w: versions %d to %d are served", ErrUnsupported, a.min, a.max)
	}
	if l := s.b.cfg.Quotas; l != nil && l.Has(quota.Request) {
		return s.serveCharged(a, r)
	}
	return s.serveAPI(a, r)
}

// serveAPI serves a request of an API.
func (s *session) serveAPI(a *api, r *wire.Request) error {
	if a.raw != nil {
		return a.raw(s, r)
	}
	s.Flush()
	s.conn.Uncork()
	req, err := r.Decode()
	if err != nil {
		return err
	}
	s.conn.GiveUpBodies()
	if a.needs.cluster != 0 {
		if by := s.access(); !a.mayServe(&by) {
			r.Reply(refuseOfCluster(req))
			return nil
		}
	}
	watchChange(s, a, r, req)
	if a.decide != nil {
		settleCharge(r) // the active controller's time is not that of this node
		return s.b.decideRequest(s, a, r, req)
	}
	return a.serve(s, r, req)
}

func (b *Broker) findAPI(key int16) *api {
	if key < 0 || int(key) >= len(b.apis) {
		return nil
	}
	return b.apis[key]
}

// Flush appends the collected batches with one write for each partition, takes the collected
// offset commits, and commits both. Requests whose answers do not depend on the commit are
// answered before it.
func (s *session) Flush() {
	if len(s.queue) == 0 && len(s.commits) == 0 {
		return
	}
	s.writeAppends()
	s.answerOrWait()
	var pending coord.PendingCommit
	if len(s.commits) > 0 {
		pending = s.b.cfg.Groups.Commit(s.commits)
	}
	s.forgetRequests()
	s.appends.Commit()
	pending.Commit()
}

// forgetRequests empties the lists of collected requests.
func (s *session) forgetRequests() {
	clear(s.queue)
	s.queue, s.pendingWeight, s.commits = s.queue[:0], 0, nil
	if cap(s.queue) > keepQueued {
		s.queue = nil
	}
}

// Close ends the session of a connection that is closed, and the waits of its fetches. If a
// request has panicked, there may be batches that were collected and not appended. They are
// dropped, since another connection may use their buffer by now; none was acknowledged.
func (s *session) Close() {
	if s.peer != nil {
		s.peer.Close()
	}
	if s.gate != nil {
		s.gate.settle() // its timer has the session
	}
	s.drop()
	s.forgetRequests()
	s.mu.Lock()
	s.gone = true
	s.mu.Unlock()
	s.wakeFetches()
	s.b.removeSession(s)
}

// permission says how a fetch may wait.
type permission uint8

const (
	mayNotWait permission = iota
	mayWatch              // until enough bytes are appended, or its time is over
	maySleep              // until its time is over
)

// admitFetch decides how a fetch that needs so many more bytes may wait. If it may, it begins
// its poll, adds it to the session's list, and counts its partitions as watched.
func (s *session) admitFetch(f *fetch, need int64) permission {
	watched := 0
	for i := range f.parts {
		if f.parts[i].part != nil {
			watched++
		}
	}
	p := mayWatch
	if !f.reserveParked(watched) {
		p, watched = maySleep, 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone || s.b.closed.Load() || s.numParked >= maxParkedFetches {
		return mayNotWait
	}
	s.b.watched.Add(int64(watched))
	f.watched = watched
	f.poll.Begin(need, watched) // before wakeFetches can find it in the list
	s.numParked++
	f.before, f.after = nil, s.parked
	if f.after != nil {
		f.after.before = f
	}
	s.parked = f
	return p
}

// reserveParked replaces the memory that a fetch holds while it is served by that of a parked
// fetch that watches so many of its partitions. It returns false if there is not enough: an
// eighth of that memory is left to fetches that sleep. It returns false too if hardly any
// of the partitions exists, so that no long list of unknown ones is kept and searched again.
func (f *fetch) reserveParked(watched int) bool {
	if len(f.parts)-watched > watched+maxUnknown {
		return false
	}
	if f.parked.Bytes() == 0 {
		parts := cap(f.parts)
		if f.open != nil {
			parts = min(parts, keepResults) // leaveSession frees the rest
		}
		n := parkedMemory + fetchPartMemory*int64(parts) + fetchTopicMemory*int64(cap(f.topics)) + int64(f.nameBytes) +
			replica.WatchMemory*int64(watched)
		var ok bool
		if f.parked, ok = f.b.cfg.Work.TryReserveLarge(budget.Parked, n); !ok {
			return false
		}
	}
	f.work.Release()
	return true
}

// dismissFetch undoes admitFetch: it ends the poll, takes the fetch out of the session's list,
// and counts its partitions as watched no longer.
func (s *session) dismissFetch(f *fetch) {
	f.poll.End()
	s.b.watched.Add(-int64(f.watched))
	f.watched = 0
	s.mu.Lock()
	defer s.mu.Unlock()
	s.numParked--
	if f.before != nil {
		f.before.after = f.after
	} else {
		s.parked = f.after
	}
	if f.after != nil {
		f.after.before = f.before
	}
	f.before, f.after = nil, nil
}

// wakeFetches ends the waits of all parked fetches.
func (s *session) wakeFetches() {
	var fired []*fetch
	s.mu.Lock()
	for f := s.parked; f != nil; f = f.after {
		if f.poll.Expire() {
			fired = append(fired, f)
		}
	}
	s.mu.Unlock()
	for _, f := range fired {
		f.Wake()
	}
}
