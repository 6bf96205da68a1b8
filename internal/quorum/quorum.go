// Package quorum runs the metadata quorum on etcd's raft library: it keeps raft's log and
// snapshots on disk, follows the members, proposes entries, and applies committed ones.
//
// A Node is a member of the quorum, which is a voter or a learner, or an observer, which pulls the
// committed log from a member. The committed entries name the members by raft's ids, and each node
// follows them: it changes its role on the same files. A sole voter without learners needs no clock,
// so an idle Node costs nothing.
//
//	            it is named                 it becomes a voter
//	observer  <------------->  learner  <--------------------->  voter
//	            it is removed
//
// The rules are two machines without goroutines, clocks and files: core (core.go) for a member, and
// observer (observer.go). They share the newest entries in memory (tail.go).
//
// Four goroutines share the work, and each owns its part:
//
//	loop      drives the machine: owns it and the log on disk, and waits only for the
//	          disk (loop.go)
//	applier   applies committed entries, all that have come at a time, and answers their
//	          proposals (applier.go); only it calls Apply and Capture
//	writer    encodes and syncs one snapshot, whose name the loop makes durable, then ends
//	spare     makes the log's next file in advance, then ends (log.go)
//
// Besides, a goroutine for each request to another node, of which two at most are under way, passes
// the answer to the loop (transport.go). A snapshot of another node comes in parts (download.go).
//
// The loop never waits for the applier or for the writer, and it waits for the spare file
// only when the log needs it. Any goroutine may call the methods of a Node, but a call of
// Propose in Apply never returns. There is no lock.
//
// The directory has these files, whose formats are drawn in frame.go and snapshot.go:
//
//	00000000000000000001.log       frames from number 1 on
//	00000000000000000042.log       frames from number 42 on; only the last file is written
//	00000000000000001234.snapshot  the state after raft's entry 1234
//	spare                          the next .log file, whose blocks are written already
//	*.tmp                          a file that a crash left unfinished
package quorum

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
)

// Node is one node's part of the quorum.
type Node struct {
	cfg     Config
	tune    tuning
	loop    *loop
	applier *applier
	props   chan *proposal
	stop    chan struct{}
	done    chan struct{} // closed when the loop has ended
	closing sync.Once
	err     error // why the loop ends; set before the state is Ended
	disk    error // of the log's close; set before done is closed
	status  atomic.Pointer[loopStatus]

	messages     chan *pb.Message // of other members; Step drops them if it is full
	commands     chan command
	pulled       chan pullAnswer // of size 1, as parts: one request of each kind is under way
	parts        chan partAnswer
	wantSnapshot chan struct{}         // of size 1: an observer needs a snapshot
	endRequests  func()                // ends the requests to other nodes, and waits for their end
	heard        atomic.Pointer[heard] // an observer's
	news         news                  // of entries and snapshots
	observers    observers
	drops        dropLog
}

// heard is what an observer has heard of the leader.
type heard struct{ leader, term uint64 }

// loopStatus is the part of the loop's state that other goroutines read. It never changes: the
// loop publishes a new one after each change.
type loopStatus struct {
	Status
	leads     bool
	isSole    bool   // it is the only voter, and knows of no change that may have made others voters
	termStart uint64 // index of the first entry of the newest term in the log
	committed position
	conf      *pb.ConfState       // the members at the last committed entry
	memory    *raft.MemoryStorage // has a lock of its own
	snapshot  uint64              // index of the newest snapshot
}

// Open starts a node on an existing or a new directory. When it returns, all entries that are
// known to be committed are applied, and a sole voter leads. It makes Dir, and its name durable, if it
// is missing; the name of Dir's parent must be durable.
func Open(cfg Config) (*Node, error) { return openTuned(cfg, defaultTuning) }

func openTuned(cfg Config, tune tuning) (*Node, error) {
	n, err := prepareNode(cfg, tune)
	if err != nil {
		return nil, err
	}
	go n.applier.applyJobs()
	go n.loop.runLoop()
	return n, nil
}

// prepareNode makes a node whose goroutines do not run yet.
func prepareNode(cfg Config, tune tuning) (*Node, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.SnapshotBytes == 0 {
		cfg.SnapshotBytes = 16 << 20
	}
	log, found, err := openLog(cfg, tune)
	if err != nil {
		return nil, err
	}
	if cfg.CheckEnd != nil {
		if err := cfg.CheckEnd(found.lastIndex()); err != nil {
			return nil, errors.Join(err, log.close())
		}
	}
	n := &Node{
		cfg: cfg, tune: tune, props: make(chan *proposal), stop: make(chan struct{}), done: make(chan struct{}),
		messages: make(chan *pb.Message, maxQueuedMessages), commands: make(chan command, maxCommands),
		pulled: make(chan pullAnswer, 1), parts: make(chan partAnswer, 1), wantSnapshot: make(chan struct{}, 1),
		endRequests: func() {},
	}
	n.applier = newApplier(cfg)
	if n.loop, err = newLoop(n, log, found); err == nil {
		err = n.loop.start()
	}
	if err == nil {
		err = log.removeLeftovers()
	}
	if err != nil {
		n.endRequests()
		return nil, errors.Join(err, log.close())
	}
	return n, nil
}

func (c *Config) validate() error {
	if c.ID < 0 {
		return fmt.Errorf("quorum: node id %d is negative", c.ID)
	}
	if len(c.Cluster) > 255 || c.Join && c.Transport == nil {
		panic("BUG: quorum: a long name of the cluster, or no transport to join it")
	}
	if c.Dir == "" || c.FS == nil || c.Logger == nil || c.Apply == nil || c.Capture == nil {
		panic("BUG: quorum: incomplete Config")
	}
	return nil
}

// Leading returns the term in which this node leads, once it has applied that term's first
// entry, and so all entries of earlier terms. A caller must call it before it reads the state
// on which it decides what to propose.
func (n *Node) Leading() (term uint64, ok bool) {
	s := n.status.Load()
	return s.Term, s.leads && s.State != Ended && n.Applied() >= s.termStart
}

// Propose returns nil when data is committed, on disk, and applied. term is that which Leading
// returned before data was decided: the proposal is refused with ErrNotLeader unless the node
// still leads in it, since data may not fit the entries of another term. If ctx ends first the
// proposal may still be committed. Callers that propose at the same time share a sync.
func (n *Node) Propose(ctx context.Context, term uint64, data []byte) error {
	if len(data) == 0 {
		panic("BUG: quorum: empty proposal")
	}
	if len(data) > MaxProposal {
		return fmt.Errorf("%w: %d bytes, at most %d can be proposed", ErrTooLarge, len(data), MaxProposal)
	}
	p := &proposal{term: term, data: wrapProposal(term, data), done: make(chan error, 1)}
	select {
	case n.props <- p:
	case <-n.done:
		return n.err
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-p.done: // the loop answers every proposal that it has received, even if it ends
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Status describes the quorum as this node sees it.
func (n *Node) Status() Status {
	s := n.status.Load().Status
	s.Applied = n.Applied()
	if s.Role != Observer {
		s.Observers = n.observers.matches(n.status.Load().conf)
	} else if h := n.heard.Load(); h != nil {
		s.LeaderRaftID, s.Term = h.leader, max(h.term, s.Term)
	}
	return s
}

// Applied is the index of the last applied entry.
func (n *Node) Applied() uint64 { return n.applier.applied.Load() }

// AwaitApplied waits until the entry with an index, and all before it, are applied. It fails if the node
// or ctx ends before that.
func (n *Node) AwaitApplied(ctx context.Context, index uint64) error {
	for {
		news := n.applier.news.wait()
		if n.Applied() >= index {
			return nil
		}
		select {
		case <-news:
		case <-n.done:
			if n.Applied() >= index { // just before the end
				return nil
			}
			return fmt.Errorf("quorum: entry %d is not applied: %w", index, n.err)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Done is closed when the node has ended: after Close, because an entry cannot be applied, or because entries are lost that
// were there.
func (n *Node) Done() <-chan struct{} { return n.done }

// Err says why the node's state is Ended: ErrNotLeader after Close, ErrNotApplied, or a WentBackError; nil in
// another state.
func (n *Node) Err() error {
	if n.status.Load().State != Ended {
		return nil
	}
	return n.err
}

// Close stops the node and waits until it has stopped. Proposals under way fail with
// ErrNotLeader. If ctx ends first, the node stops as soon as the disk answers.
func (n *Node) Close(ctx context.Context) error {
	n.closing.Do(func() { close(n.stop) })
	select {
	case <-n.done:
		return n.disk
	default:
	}
	select {
	case <-n.done:
		return n.disk
	case <-ctx.Done():
		return fmt.Errorf("quorum: the metadata log does not close: %w", ctx.Err())
	}
}
