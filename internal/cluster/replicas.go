package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/peer"
	"github.com/leatstream/leat/internal/quorum"
	"github.com/leatstream/leat/internal/replica"
	"github.com/leatstream/leat/internal/wire"
)

const (
	// forRecords and forReports are the connections of a follower's node to a leader's: a report must not
	// wait behind an answer with records, nor behind a fetch that waits for some.
	forRecords, forReports = 0, 1
	// anyBatch is the largest batch that a follower takes from each leader, whatever the settings are now: in an
	// earlier version of them it may have been stored. So much does a request have by default.
	anyBatch = 100 << 20
	// maxFetches is how many fetches of other nodes are served at a time. A node has one under way.
	maxFetches = 1 << 10
	// proposalTime is how long it may take to have proposals decided. Newer ones wait for them.
	proposalTime = 2 * time.Second
)

// ReplicasConfig is what Replicas work with.
type ReplicasConfig struct {
	NodeID      int32
	Links       *peer.Links
	Controller  *Controller
	BrokerEpoch func() int64 // of this node's registration
}

// Replicas carries what the replicas on this node say to those on others: it is the replica.Transport of
// this node's Set, and serves those of others.
type Replicas struct {
	cfg    ReplicasConfig
	work   *worker
	memory fetchMemory
	set    atomic.Pointer[replica.Set] // nil before Attach
}

// NewReplicas makes the transport of this node's Set. The fetches that it serves end with the context, or
// with Close.
func NewReplicas(ctx context.Context, cfg ReplicasConfig) *Replicas {
	return &Replicas{cfg: cfg, work: newWorker(ctx, maxFetches)}
}

// Attach gives the Replicas the Set to which other nodes speak.
func (t *Replicas) Attach(s *replica.Set) { t.set.Store(s) }

// Close answers the fetches that wait, and refuses later ones.
func (t *Replicas) Close() { t.work.close() }

// Fetch asks a leader for records. It implements replica.Transport. A leader that is alive and does not
// answer is waited for: the metadata end that, by another leader.
func (t *Replicas) Fetch(ctx context.Context, leader int32, q *replica.FetchRequest) (*replica.FetchAnswer, error) {
	conn, err := t.cfg.Links.Get(ctx, leader, peer.Fetcher(forRecords))
	if err != nil {
		return nil, err
	}
	into := t.memory.take(leader)
	b, err := conn.CallInto(ctx, peer.ReplicaFetch, encodeFetch(q), into.buffer, largestAnswer(q))
	if err != nil {
		return nil, err // nobody has the memory: it was for much more than nothing
	}
	into.buffer = b
	body, err := splitAnswer(b)
	if err == nil {
		err = decodeAnswer(body, &into.answer)
	}
	if err != nil {
		return nil, fmt.Errorf("fetching from node %d: %w", leader, err)
	}
	into.answer.Reuse = func(*replica.FetchAnswer) { t.memory.put(leader, into) }
	return &into.answer, nil
}

// largestAnswer is how many bytes the answer to a request may have. Its first batch may be larger than all
// that was asked for (KIP-74).
func largestAnswer(q *replica.FetchRequest) int {
	head := 1 + 8 + 4 + replica.MaxAnswered*answerSize
	return min(head+q.MaxBytes+max(q.LargestBatch, anyBatch), math.MaxInt32/2)
}

// Report tells a leader of durable ends. It implements replica.Transport.
func (t *Replicas) Report(ctx context.Context, leader int32, q *replica.Reports) error {
	conn, err := t.cfg.Links.Get(ctx, leader, peer.Fetcher(forReports))
	if err != nil {
		return err
	}
	return conn.Send(peer.DurableEnds, encodeDurable(q))
}

// AlterInSync asks the active controller for changes of in-sync sets. It implements replica.Transport.
func (t *Replicas) AlterInSync(ctx context.Context, changes []replica.InSyncChange) error {
	q := &proposals{t.cfg.NodeID, t.cfg.BrokerEpoch(), changes}
	ctx, cancel := context.WithTimeout(ctx, proposalTime)
	defer cancel()
	c := t.cfg.Controller
	here := func(ctx context.Context) error { return c.alterInSync(ctx, q) }
	there := func(ctx context.Context, node int32) error {
		_, err := c.call(ctx, node, peer.Commands, peer.AlterInSync, q.encode())
		return err
	}
	return c.repeat(ctx, here, there)
}

// alterInSync has this node's controller decide on proposals. What it decides is in the metadata.
func (c *Controller) alterInSync(ctx context.Context, q *proposals) error {
	asked := make([]controller.InSyncChange, len(q.changes))
	for i := range q.changes {
		p := &q.changes[i]
		asked[i] = controller.InSyncChange{
			Topic: meta.UUID(p.ID.Topic), Partition: p.ID.Partition,
			LeaderEpoch: int32(p.Epoch), PartitionEpoch: p.PartitionEpoch, GivesUp: p.GivesUp, Successor: p.Successor,
			Damaged: p.Damaged,
		}
		for _, m := range p.ISR {
			asked[i].ISR = append(asked[i].ISR, controller.Member{ID: m.ID, Epoch: m.BrokerEpoch})
		}
	}
	_, refused, err := c.cfg.Local.AlterPartitions(ctx, q.broker, q.brokerEpoch, asked)
	if err == nil && refused != nil {
		err = refused
	}
	return err
}

// Handlers serve what the replicas of other nodes say.
func (t *Replicas) Handlers() []peer.Handler {
	return []peer.Handler{
		{Key: peer.ReplicaFetch, From: peer.Nodes, Serve: t.serveFetch},
		{Key: peer.DurableEnds, From: peer.Nodes, Serve: t.takeReports},
		{Key: peer.AlterInSync, From: peer.Nodes, Serve: t.serveProposals},
	}
}

var errNoReplicas = errors.New("the replicas of this node do not run")

// decodedSize is about how many bytes a request takes when it is decoded, for each byte of its body.
const decodedSize = 2

func (t *Replicas) serveFetch(from *peer.Identity, r *wire.Request) error {
	memory, err := r.Reserve(budget.Command, decodedSize*int64(r.BodySize())) // of budget.Peer, since it is a peer's
	if err != nil {
		return err
	}
	q, err := decodeFetch(r.Body())
	if err == nil {
		err = checkSelf(from, q.Replica)
	}
	if err != nil {
		memory.Release()
		return err
	}
	set := t.set.Load()
	if set == nil {
		memory.Release()
		replyError(r, errNoReplicas)
		return nil
	}
	q.Release = memory.Release
	isServed := t.work.serve(r, func(ctx context.Context) {
		a, err := set.ServeFetch(ctx, q)
		memory.Release()
		if err != nil {
			replyError(r, err)
			return
		}
		p := r.Begin()
		p.B = appendAnswer(append(p.B, byte(statusDone)), a)
		p.Attach(&recordsOf{a})
		r.Send(p)
	})
	if !isServed {
		memory.Release()
	}
	return nil
}

// recordsOf is the section of an answer that has the records of all partitions.
type recordsOf struct{ answer *replica.FetchAnswer }

// ReadAt copies records from a place on.
func (s *recordsOf) ReadAt(p []byte, off int64) (int, error) {
	n := copy(p, s.answer.Buffer[min(off, int64(len(s.answer.Buffer))):])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Len is the section's length.
func (s *recordsOf) Len() int { return len(s.answer.Buffer) }

// Fd tells that the section is not in a file.
func (*recordsOf) Fd() (fd uintptr, pos int64, ok bool) { return 0, 0, false }

// Release gives the memory of the answer back.
func (s *recordsOf) Release() { s.answer.Release() }

func (t *Replicas) takeReports(from *peer.Identity, r *wire.Request) error {
	q, err := decodeDurable(r.Body())
	if err == nil {
		err = checkSelf(from, q.Replica)
	}
	if err != nil {
		return err
	}
	if set := t.set.Load(); set != nil {
		set.TakeReports(q)
	}
	return nil
}

func (t *Replicas) serveProposals(from *peer.Identity, r *wire.Request) error {
	q, err := decodeProposals(r.Body())
	if err == nil {
		err = checkSelf(from, q.broker)
	}
	if err != nil {
		return err
	}
	c := t.cfg.Controller
	c.work.serve(r, func(ctx context.Context) {
		err := c.alterInSync(ctx, q)
		switch {
		case err == nil:
			replyBody(r, nil)
			return
		case ctx.Err() != nil:
			err = errStopping
		case errors.Is(err, quorum.ErrNotLeader):
			err = &notLeaderError{c.cfg.Quorum.Leader()}
		}
		replyError(r, err)
	})
	return nil
}

const (
	// keptMemory is the memory for answers that is kept however small they are.
	keptMemory = 64 << 10
	// fewAnswers is the number of answers in a row after which memory is given up of which they have used
	// less than a quarter.
	fewAnswers = 16
)

// fetchMemory has the memory for the answers of leaders, so that it is used again.
type fetchMemory struct {
	mu   sync.Mutex
	free map[int32]*answerMemory // guarded by mu; by leader: one answer of each is under way
}

// answerMemory is an answer, and the memory of its bytes.
type answerMemory struct {
	answer replica.FetchAnswer
	buffer []byte
	small  int // answers in a row that have used little of the buffer
}

// take returns the memory for the next answer of a leader.
func (m *fetchMemory) take(leader int32) *answerMemory {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.free[leader]
	delete(m.free, leader)
	if a == nil {
		a = new(answerMemory)
	}
	return a
}

// put gives the memory back when the answer in it is not needed any more.
func (m *fetchMemory) put(leader int32, a *answerMemory) {
	a.answer.Buffer = nil
	a.small++
	if len(a.buffer) >= cap(a.buffer)/4 || cap(a.buffer) <= keptMemory {
		a.small = 0
	}
	if a.small >= fewAnswers {
		a.buffer, a.small = nil, 0
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.free == nil {
		m.free = map[int32]*answerMemory{}
	}
	m.free[leader] = a
}
