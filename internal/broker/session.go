package broker

import (
	"fmt"
	"sync"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/group"
	"github.com/leatstream/leat/internal/replica"
	"github.com/leatstream/leat/internal/wire"
)

// session is one connection's state. Its methods run on the connection's
// goroutine, but for those of the list of parked fetches.
type session struct {
	b    *Broker
	conn *wire.Conn

	appends replica.Appends      // what the requests in queue bring
	queue   []*produce           // requests whose appends were collected, in order
	encoded []budget.Reservation // of the collected batches that were encoded anew
	commits []group.OffsetCommit // that were collected, in order
	held    int                  // partitions of the requests in queue and commits, and requestWeight for each

	mu      sync.Mutex
	parked  *fetch // list of parked fetches, guarded by mu
	waiting int    // its length, guarded by mu
	gone    bool   // the connection is closed, guarded by mu
}

const (
	// keepQueued is for how many requests a connection keeps memory after a flush.
	keepQueued = 1024
	// maxHeld partitions of produce requests and commits are collected before they are
	// appended, even where one read brought more. A request takes as much memory as
	// requestWeight of them, besides.
	maxHeld       = 2048
	requestWeight = 4
	// maxParkedFetches of a connection wait at a time; clients send the next one when
	// the last was answered. Those above are answered at once with what there is.
	maxParkedFetches = 100
	// maxUnknown is how many partitions that do not exist a fetch may name, beyond as
	// many as exist, and still be parked with all of them.
	maxUnknown = 1000
)

// reserve reserves memory for what a request makes the node hold until its answer was sent.
// A request that may take more than any reservation takes the largest, and so is the only
// large one. Where it has to wait, what this connection holds is finished and goes out first.
func (s *session) reserve(n int64) (budget.Reservation, error) {
	work := s.b.cfg.Work
	n = min(n, work.Most(budget.Data))
	if held, ok := work.TryReserve(budget.Data, n); ok {
		return held, nil
	}
	s.Flush()
	s.conn.Uncork()
	return work.Reserve(s.b.cfg.Context(), budget.Data, n)
}

// Serve handles one request.
func (s *session) Serve(r *wire.Request) error {
	a := s.b.api(r.Key)
	if a == nil {
		return ErrUnsupported
	}
	s.b.stats.requests[r.Key].Add(1)
	if (r.Version < a.min || r.Version > a.max) && r.Key != apiVersionsKey {
		return fmt.Errorf("%w: versions %d to %d are served", ErrUnsupported, a.min, a.max)
	}
	if a.raw != nil {
		return a.raw(s, r)
	}
	s.Flush()
	s.conn.Uncork()
	req, err := r.Decode()
	if err != nil {
		return err
	}
	return a.serve(s, r, req)
}

func (b *Broker) api(key int16) *api {
	if key < 0 || int(key) >= len(b.apis) {
		return nil
	}
	return b.apis[key]
}

// Flush appends what the requests served since the last one brought, one write a
// partition, answers those that wait for nothing more, and commits.
func (s *session) Flush() {
	if len(s.queue) == 0 && len(s.commits) == 0 {
		return
	}
	s.writeAppends()
	var bytes, records int64
	for i, p := range s.queue {
		bytes, records = bytes+p.bytes, records+p.stored
		p.answerOrWait()
		s.queue[i] = nil
	}
	s.b.stats.bytesIn.Add(bytes)
	s.b.stats.recordsIn.Add(records)
	var pending coord.PendingCommit
	if len(s.commits) > 0 {
		pending = s.b.cfg.Groups.Commit(s.commits)
	}
	s.forgetRequests()
	s.appends.Commit()
	pending.Commit()
}

// writeAppends appends the collected batches, and gives back the memory of those that were
// encoded anew.
func (s *session) writeAppends() {
	s.appends.Write()
	s.releaseEncoded()
}

func (s *session) releaseEncoded() {
	for i := range s.encoded {
		s.encoded[i].Release()
	}
	s.encoded = s.encoded[:0]
}

// forgetRequests ends the collection of requests.
func (s *session) forgetRequests() {
	clear(s.queue)
	s.queue, s.held, s.commits = s.queue[:0], 0, nil
	if cap(s.queue) > keepQueued {
		s.queue = nil
	}
}

// Close tells that the connection is gone: nobody reads the answers of its parked
// fetches any more. Where a request met a bug, what was collected and not flushed is
// dropped: the buffer that it stands in may be another connection's by now. Nobody has
// acknowledged it.
func (s *session) Close() {
	s.appends.Drop()
	s.releaseEncoded()
	for _, p := range s.queue {
		p.memory.Release()
	}
	s.forgetRequests()
	s.mu.Lock()
	s.gone = true
	s.mu.Unlock()
	s.wakeFetches()
	s.b.forget(s)
}

// permission says how a fetch may wait.
type permission uint8

const (
	mayNotWait permission = iota
	mayWatch              // it is woken by what comes
	maySleep              // until its time is over
)

// admitFetch begins the poll of a fetch that lacks bytes and enters it into the list, if it may
// wait at all, and takes what it needs of the node's bounds. A list of partitions of which
// hardly any exists is not kept in memory to be looked up again and again.
func (s *session) admitFetch(f *fetch, need int64) permission {
	watched := 0
	for i := range f.parts {
		if f.parts[i].part != nil {
			watched++
		}
	}
	p := mayWatch
	if !f.park(watched) {
		p, watched = maySleep, 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone || s.b.closed.Load() || s.waiting >= maxParkedFetches {
		return mayNotWait
	}
	s.b.watched.Add(int64(watched))
	f.watched = watched
	f.poll.Begin(need, watched) // before anybody finds it in the list, to end it
	s.waiting++
	f.before, f.after = nil, s.parked
	if f.after != nil {
		f.after.before = f
	}
	s.parked = f
	return p
}

// park reserves the memory of a parked fetch that watches so many of its partitions. What it
// held until then goes back. An eighth of the memory is left to the answers of those that find
// no room and sleep.
func (f *fetch) park(watched int) bool {
	if len(f.parts)-watched > watched+maxUnknown {
		return false
	}
	if f.parked.Bytes() == 0 {
		n := parkedMemory + fetchPartMemory*int64(cap(f.parts)) + fetchTopicMemory*int64(cap(f.topics)) + int64(f.nameBytes) +
			replica.WatchMemory*int64(watched)
		var ok bool
		if f.parked, ok = f.b.cfg.Work.TryReserveLarge(budget.Parked, n); !ok {
			return false
		}
	}
	f.work.Release()
	return true
}

// dismissFetch ends the poll of a fetch that was admitted, takes it out of the list, and gives
// back what it had of the node's bounds.
func (s *session) dismissFetch(f *fetch) {
	f.poll.End()
	s.b.watched.Add(-int64(f.watched))
	f.watched = 0
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting--
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
