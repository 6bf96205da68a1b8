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
	held    int                  // partitions of the requests in queue and commits

	mu      sync.Mutex
	parked  *fetch // list of parked fetches, guarded by mu
	waiting int    // its length, guarded by mu
	gone    bool   // the connection is closed, guarded by mu
}

const (
	// keepQueued is for how many requests a connection keeps memory after a flush.
	keepQueued = 1024
	// maxHeld partitions of produce requests and commits are collected before they are
	// appended, even where one read brought more.
	maxHeld = 50_000
	// maxParkedFetches of a connection wait at a time; clients send the next one when
	// the last was answered.
	maxParkedFetches = 100
	// maxParkedPartitions is how many partitions all parked fetches of a node may
	// wait for; each takes some 250 bytes. Fetches above these bounds are answered
	// at once with what there is.
	maxParkedPartitions = 500_000
)

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
	s.write()
	var bytes, records int64
	for i, p := range s.queue {
		bytes, records = bytes+p.bytes, records+p.stored
		p.answer()
		s.queue[i] = nil
	}
	s.b.stats.bytesIn.Add(bytes)
	s.b.stats.recordsIn.Add(records)
	var owed coord.Owed
	if len(s.commits) > 0 {
		owed = s.b.cfg.Groups.Commit(s.commits)
	}
	s.forget()
	s.appends.Commit()
	owed.Commit()
}

// write appends the collected batches, and gives back the memory of those that were
// encoded anew.
func (s *session) write() {
	s.appends.Write()
	s.release()
}

func (s *session) release() {
	for i := range s.encoded {
		s.encoded[i].Release()
	}
	s.encoded = s.encoded[:0]
}

// forget ends the collection of requests.
func (s *session) forget() {
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
	s.release()
	s.forget()
	s.mu.Lock()
	s.gone = true
	s.mu.Unlock()
	s.wakeFetches()
	s.b.forget(s)
}

// park enters a fetch into the list; false: nobody is to wait any more.
func (s *session) park(f *fetch) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone || s.b.closed.Load() || s.waiting >= maxParkedFetches {
		return false
	}
	if s.b.parked.Add(int64(len(f.parts))) > maxParkedPartitions {
		s.b.parked.Add(-int64(len(f.parts)))
		return false
	}
	s.waiting++
	f.before, f.after = nil, s.parked
	if f.after != nil {
		f.after.before = f
	}
	s.parked = f
	return true
}

func (s *session) unpark(f *fetch) {
	s.b.parked.Add(-int64(len(f.parts)))
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
