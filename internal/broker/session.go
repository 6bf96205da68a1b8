package broker

import (
	"fmt"
	"slices"
	"sync"

	"github.com/leatstream/leat/internal/group"
	"github.com/leatstream/leat/internal/replica"
	"github.com/leatstream/leat/internal/storage"
	"github.com/leatstream/leat/internal/wire"
)

// session is one connection's state. Its methods run on the connection's
// goroutine, but for those of the list of parked fetches.
type session struct {
	b    *Broker
	conn *wire.Conn

	queue []*produce     // requests whose appends were collected, in order
	pend  []pending      // their partitions
	items []storage.Item // parallel to pend, in the order of appending
	// durable tells that one of the partitions is committed by a sync only.
	durable bool
	commits []group.OffsetCommit // that were collected, in order
	held    int                  // partitions of the requests in queue and commits
	broken  bool                 // a flush did not come to its end: it met a bug

	mu      sync.Mutex
	parked  *fetch // list of parked fetches, guarded by mu
	waiting int    // its length, guarded by mu
	gone    bool   // the connection is closed, guarded by mu
}

// pending is one partition of a produce request that waits for the session's flush.
type pending struct {
	p    *replica.Partition
	req  *produce
	slot int32 // index in req.parts
	seq  int32 // place in the order of arrival
	all  bool  // acks=all
}

const (
	// keepPending is for how many partitions a connection keeps memory after a flush.
	keepPending = 1024
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
	s.broken = true // unless it comes to its end
	s.append()
	early, waits := false, false
	for i, p := range s.queue {
		early, waits = early || p.acks != acksAll, waits || p.acks == acksAll
		p.appended()
		s.queue[i] = nil
	}
	commit, durable := len(s.pend) > 0, s.durable
	if len(s.commits) > 0 {
		owed := s.b.cfg.Groups.Commit(s.commits)
		commit, durable, waits = commit || owed, durable || owed, waits || owed
	}
	s.reset()
	switch {
	case !commit:
	case durable && !waits:
		s.b.commitSoon()
	default:
		if durable && early {
			s.conn.Uncork() // who asked not to wait for the disk does not
		}
		s.b.cfg.Store.Commit()
	}
	s.broken = false
}

// append brings the pending batches of each partition together, in the order in
// which they came, and appends them.
func (s *session) append() {
	byPartition := func(a, b pending) int {
		if a.p != b.p {
			return a.p.Compare(b.p)
		}
		return int(a.seq - b.seq)
	}
	if !slices.IsSortedFunc(s.pend, byPartition) {
		slices.SortFunc(s.pend, byPartition)
	}
	for i := range s.pend {
		e := &s.pend[i]
		s.items = append(s.items, storage.Item{Batch: e.req.parts[e.slot].batch, Early: !e.all && e.req.acks != 0})
	}
	for from := 0; from < len(s.pend); {
		p, to := s.pend[from].p, from+1
		for to < len(s.pend) && s.pend[to].p == p {
			to++
		}
		s.appendTo(p, from, to)
		from = to
	}
	var bytes, records int64
	for i := range s.pend {
		e, it := &s.pend[i], &s.items[i]
		e.req.took(e.slot, it)
		if it.Err == nil && !it.Dup {
			bytes += int64(len(e.req.parts[e.slot].records))
			records += int64(it.Batch.Count())
		}
	}
	s.b.stats.bytesIn.Add(bytes)
	s.b.stats.recordsIn.Add(records)
}

// appendTo appends the pending batches from..to to their partition. Those that ask
// for all replicas are left out where there are too few in sync.
func (s *session) appendTo(p *replica.Partition, from, to int) {
	s.durable = s.durable || p.Topic().Settings().FlushMessages <= 1
	if err := p.EnoughInSync(); err != nil {
		for i := from; i < to; i++ {
			if s.pend[i].all {
				s.items[i].Err = err
				continue
			}
			p.Append(s.items[i : i+1])
		}
		return
	}
	p.Append(s.items[from:to])
}

func (s *session) reset() {
	clear(s.items)
	clear(s.pend)
	s.queue, s.pend, s.items = s.queue[:0], s.pend[:0], s.items[:0]
	s.durable, s.held, s.commits = false, 0, nil
	if cap(s.pend) > keepPending || cap(s.queue) > keepPending {
		s.queue, s.pend, s.items = nil, nil, nil
	}
}

// Close tells that the connection is gone: nobody reads the answers of its parked
// fetches any more.
func (s *session) Close() {
	if !s.broken { // else what was appended would be appended again
		s.Flush()
	}
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
