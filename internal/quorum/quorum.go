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
	"log/slog"
	"sync"
	"sync/atomic"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/leatstream/leat/internal/vfs"
)

var (
	// ErrNotLeader is returned for a proposal of another term than the one in which this node
	// leads. It is also returned if the node stops leading before it knows whether the proposal
	// is committed, which it may be.
	ErrNotLeader = errors.New("quorum: not the leader")
	// ErrTooLarge is returned for a proposal above MaxProposal; it has no effect.
	ErrTooLarge = errors.New("quorum: proposal too large")
	// ErrDiskFull is returned for a proposal for which the log has no room; it has no effect.
	// Later ones succeed when there is room again.
	ErrDiskFull = errors.New("quorum: the disk is full, metadata cannot change until there is room")
	// ErrFaulted is returned for every proposal after a write or sync of the log has failed,
	// and for those under way, which the next start may find committed.
	ErrFaulted = errors.New("quorum: the metadata log cannot be written, restart the node when the disk is repaired")
	// ErrNotApplied is returned by Open if a committed entry cannot be applied, and for every
	// proposal after that has happened. No later entry is applied.
	ErrNotApplied = errors.New("quorum: an entry of the metadata log cannot be applied")
	// ErrMembers is returned for members that a quorum must not have.
	ErrMembers = errors.New("quorum: not possible as the quorum's members")
	// ErrChangeUnderWay is returned for a change of the members while there is another one, or
	// before this leader has committed its first entry.
	ErrChangeUnderWay = errors.New("quorum: another change of the members is under way")
	// ErrNotCaughtUp is returned for a voter that is a learner whose log is far behind.
	ErrNotCaughtUp = errors.New("quorum: the learner has not caught up")
	// ErrNotMoved is returned if leadership could not be transferred.
	ErrNotMoved = errors.New("quorum: no other voter has taken the leadership over")
	// ErrNotMember is returned if a node is asked for entries that is no member itself and has none, or
	// that is faulted.
	ErrNotMember = errors.New("quorum: this node is no member that can answer")
	// ErrNoSnapshot is returned for a snapshot that is not there, since there is a newer one.
	ErrNoSnapshot = errors.New("quorum: there is no such snapshot")

	errNotForUs      = fmt.Errorf("%w: it is for another node", ErrMessage)
	errUnknownMember = fmt.Errorf("%w: it is the answer of a node that is no member", ErrMessage)

	// ErrDamaged is returned by Open if the directory's files are not as they were written.
	ErrDamaged = errors.New("quorum: damaged metadata")
	// ErrNewer is returned by Open for a directory that a newer version has written.
	ErrNewer = errors.New("quorum: written by a newer version of leat, start that one")
	// ErrOlder is returned by Open for a directory of a format that is not read any more.
	ErrOlder = errors.New("quorum: written by a version of leat whose format is not read any more, start with an empty data directory")
)

// MaxProposal is the largest proposal, in bytes.
const MaxProposal = 16 << 20

// Config is the input of Open.
type Config struct {
	ID     int32 // of this node; raft's id is another one, random for each directory
	Dir    string
	FS     vfs.FS
	Logger *slog.Logger
	// Apply gets committed updates in order, before the Propose that made them returns. It is
	// called on the applier's goroutine, and during Open on the caller's. An error, which must
	// say what is wrong with which entry, ends the node: no entry of the update counts as
	// applied, no later one is passed to Apply, and no snapshot is made of them.
	Apply func(Update) error
	// Capture keeps the state after the last Apply and returns a function that encodes it.
	// It is called on the applier's goroutine, and encode on another one, while further
	// updates are applied.
	Capture func() (encode func() []byte)
	// SnapshotBytes is the amount of log after which a snapshot is made; 0 means 16 MiB.
	SnapshotBytes int64
	// CheckEnd is called by Open, before it writes into the log, with the index of the last
	// entry there. An error refuses the start. It may be nil.
	CheckEnd func(last uint64) error
	// Transport reaches other nodes. If it is nil, this node must be the only voter.
	Transport Transport
	// Cluster is in each message: messages of another cluster are dropped. It has at most 255 bytes.
	Cluster string
	// Join makes a node with a new directory an observer of a quorum that exists already, instead of the
	// only voter of a new one. It has no effect on a directory that is not new.
	Join bool
}

// Update is committed state: first a snapshot that replaces all state (nil: none), then
// entries.
type Update struct {
	Snapshot []byte
	Entries  []Entry
}

// Entry is one committed proposal.
type Entry struct {
	Index uint64
	Term  uint64
	Data  []byte
}

// State says how a node treats proposals.
//
//	           the disk is full
//	Serving  <------------------>  Full
//	   |      there is room again    |
//	   | a write or a sync fails     |
//	   +----------> Faulted <--------+
//	   |               |
//	   | Close, or an entry cannot be applied
//	   +----------> Ended
type State uint8

// These are the states of a node.
const (
	Serving State = iota // it accepts proposals
	Full                 // it refuses them with ErrDiskFull until there is room
	Faulted              // it refuses them with ErrFaulted until a restart
	Ended                // its loop has ended, or is about to: see Node.Err
)

// String is the state's name in messages.
func (s State) String() string {
	return [...]string{"serving", "full", "faulted", "ended"}[s]
}

// Role is a node's part in the quorum.
type Role uint8

// These are the roles.
const (
	Observer Role = iota // no member: it pulls the committed log
	Learner              // it gets all entries and has no vote
	Voter
)

// String is the role's name in messages.
func (r Role) String() string { return [...]string{"observer", "learner", "voter"}[r] }

// Status is the part of a node's state that DescribeQuorum and the node's health show.
type Status struct {
	State   State
	Leader  int32 // -1: not this node, see LeaderRaftID
	Term    uint64
	Voters  []int32 // this node, if it is a voter; see Members for all
	Commit  uint64
	Applied uint64

	Role         Role
	RaftID       uint64 // raft's id of this node's directory
	LeaderRaftID uint64 // 0: none known
	Members      Members
	IsChanging   bool              // a change of the voters is under way
	Match        map[uint64]uint64 // the leader's: up to which entry each member has its log
	Observers    map[uint64]uint64 // that pull from this node: up to which entry each has the log
}

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
	termStart uint64 // index of the first entry of the newest term in the log
	committed position
	conf      *pb.ConfState       // the members at the last committed entry
	memory    *raft.MemoryStorage // has a lock of its own
	snapshot  uint64              // index of the newest snapshot
}

// proposal is one call of Propose.
type proposal struct {
	term  uint64
	data  []byte
	index uint64     // of its entry; 0: not known yet
	done  chan error // of size 1; gets the result
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

// Done is closed when the node has ended: after Close, or because an entry cannot be applied.
func (n *Node) Done() <-chan struct{} { return n.done }

// Err says why the node's state is Ended: ErrNotLeader after Close, or ErrNotApplied; nil in
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
