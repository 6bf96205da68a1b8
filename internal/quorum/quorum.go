// Package quorum hosts the metadata quorum on etcd's raft library: log on disk,
// snapshots, membership; it proposes entries and hands on what was committed.
//
// Node is one voter; so far it is always the only one that votes, and raft's messages
// to others are dropped: see loop.step, where a transport joins. A sole voter needs no
// clock, so an idle Node costs nothing.
//
// Four goroutines share the work, and each owns its part:
//
//	loop      orders: raft and the log on disk (loop.go); it waits for the disk only
//	applier   applies what was committed, as many entries at a time as have come, and
//	          answers their proposals (applier.go); it alone calls Apply and Capture
//	writer    encodes and syncs one snapshot, then ends
//	spare     makes the log's next file ahead, then ends (log.go)
//
// The loop never waits for the applier or for the writer, and for the spare file only
// where the log goes on in it. Propose, Status, Leading,
// Applied and Close may be called from any goroutine, but Propose from within Apply
// waits for itself for ever. There is no lock.
//
// The directory holds (frame.go and snapshot.go draw the formats)
//
//	00000000000000000001.log       frames from number 1 on
//	00000000000000000042.log       frames from number 42 on; the last one is written
//	00000000000000001234.snapshot  the state after raft's entry 1234
//	spare                          the next .log file, its blocks written already
//	*.tmp                          a file that a crash left unfinished
package quorum

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/leatstream/leat/internal/vfs"
)

var (
	// ErrNotLeader is returned for a proposal of another term than the one in which this
	// node leads, and for one that was lost with leadership; the latter may or may not
	// have been committed.
	ErrNotLeader = errors.New("quorum: not the leader")
	// ErrTooLarge is returned for a proposal above MaxProposal; it was not made.
	ErrTooLarge = errors.New("quorum: proposal too large")
	// ErrDiskFull is returned for a proposal for which the log has no room; it was
	// not made. Later ones succeed when there is room again.
	ErrDiskFull = errors.New("quorum: the disk is full, metadata cannot change until there is room")
	// ErrFaulted is returned for every proposal after a write or sync of the log
	// failed, and for those under way; these may be found committed by the next start.
	ErrFaulted = errors.New("quorum: the metadata log cannot be written, restart the node when the disk is repaired")
	// ErrNotApplied is returned by Open, and for every proposal from then on, where a
	// committed entry cannot be applied. Nothing that follows it is applied.
	ErrNotApplied = errors.New("quorum: an entry of the metadata log cannot be applied")
	// ErrDamaged is returned by Open where the directory's files are not as they were written.
	ErrDamaged = errors.New("quorum: damaged metadata")
	// ErrNewer is returned by Open for a directory that a newer version has written.
	ErrNewer = errors.New("quorum: written by a newer version of leat, start that one")
	// ErrOlder is returned by Open for a directory of a format that is not read any more.
	ErrOlder = errors.New("quorum: written by a version of leat whose format is not read any more, start with an empty data directory")
)

// MaxProposal is the largest proposal, in bytes.
const MaxProposal = 16 << 20

// Config says how a node takes part.
type Config struct {
	ID     int32 // of this node; raft's id is another one, drawn for the directory
	Dir    string
	FS     vfs.FS
	Logger *slog.Logger
	// Apply gets committed updates in order, on the applier's goroutine (during Open on
	// the caller's), before the Propose that made them returns. An error, which must say
	// what is wrong with which entry, ends the node: no entry of the update counts as
	// applied, none that follows is handed on, and no snapshot is made of them.
	Apply func(Update) error
	// Capture notes the state after the last Apply and returns what encodes it. It is
	// called on the applier's goroutine; the encoding runs on another one, while more is
	// applied.
	Capture func() (encode func() []byte)
	// SnapshotBytes is how much log triggers a snapshot; 0 means 16 MiB.
	SnapshotBytes int64
	// CheckEnd is asked by Open before it writes into the log, with the index of the last
	// entry there; an error refuses the start. It may be nil.
	CheckEnd func(last uint64) error
}

// Update is what was committed: first a snapshot that replaces all state (nil
// where there is none), then entries.
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

// State says what a node does with proposals.
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

// States of a node.
const (
	Serving State = iota // takes proposals
	Full                 // refuses them with ErrDiskFull, until there is room
	Faulted              // refuses them with ErrFaulted, until a restart
	Ended                // the loop has ended: see Node.Err
)

// String is the state's name in messages.
func (s State) String() string {
	return [...]string{"serving", "full", "faulted", "ended"}[s]
}

// Status is what DescribeQuorum and the node's health show.
type Status struct {
	State   State
	Leader  int32 // -1: none known
	Term    uint64
	Voters  []int32
	Commit  uint64
	Applied uint64
}

// Node is one voter.
type Node struct {
	cfg     Config
	loop    *loop
	applier *applier
	props   chan *proposal
	stop    chan struct{}
	done    chan struct{} // closed when the loop has ended
	closing sync.Once
	err     error // why the loop has ended, read after done
	disk    error // of closing the log, read after done
	status  atomic.Pointer[office]
}

// office is what the loop shows of itself after each of its rounds.
type office struct {
	Status
	leads     bool
	termStart uint64 // the first entry of the newest term in the log
}

// proposal is one call of Propose.
type proposal struct {
	term  uint64
	data  []byte
	index uint64     // of its entry; 0: not known yet
	done  chan error // size 1
}

// Open recovers or bootstraps the node. When it returns, everything committed
// earlier has been applied, and a sole voter is the leader. Dir is made where it
// is missing and is durable then; its parent's own name must be.
func Open(cfg Config) (*Node, error) { return open(cfg, defaultTuning) }

func open(cfg Config, tune tuning) (*Node, error) {
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
		if err := cfg.CheckEnd(found.end()); err != nil {
			return nil, errors.Join(err, log.close())
		}
	}
	n := &Node{cfg: cfg, props: make(chan *proposal), stop: make(chan struct{}), done: make(chan struct{})}
	n.applier = newApplier(cfg)
	if n.loop, err = newLoop(n, log, found); err == nil {
		err = n.loop.takeOffice(found)
	}
	if err == nil {
		err = log.removeLeftovers(found)
	}
	if err != nil {
		return nil, errors.Join(err, log.close())
	}
	go n.applier.run()
	go n.loop.run()
	return n, nil
}

func (c *Config) validate() error {
	if c.ID < 0 {
		return fmt.Errorf("quorum: node id %d is negative", c.ID)
	}
	if c.Dir == "" || c.FS == nil || c.Logger == nil || c.Apply == nil || c.Capture == nil {
		panic("BUG: quorum: incomplete Config")
	}
	return nil
}

// Leading returns the term in which this node leads, once it has applied that term's
// first entry, and with it all that was committed in earlier terms. A decision for
// Propose must be made on a state that was read after this.
func (n *Node) Leading() (term uint64, ok bool) {
	o := n.status.Load()
	return o.Term, o.leads && o.State != Ended && n.Applied() >= o.termStart
}

// Propose returns when data was committed, is on disk, and has been applied. It is
// refused with ErrNotLeader unless this node leads in the term that Leading returned
// before data was decided: what was decided in another term may not fit. Where ctx
// ends first the proposal may still be committed. Callers that propose at the same
// time share a sync.
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
	case err := <-p.done: // the loop answers whatever it took, also when it ends
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Status describes the quorum as this node sees it.
func (n *Node) Status() Status {
	s := n.status.Load().Status
	s.Applied = n.Applied()
	return s
}

// Applied is the index of the last entry that was applied.
func (n *Node) Applied() uint64 { return n.applier.applied.Load() }

// Done is closed when the node has ended: after Close, or since an entry cannot be
// applied.
func (n *Node) Done() <-chan struct{} { return n.done }

// Err tells why the node has ended: ErrNotLeader after Close, else ErrNotApplied; nil
// while it has not.
func (n *Node) Err() error {
	select {
	case <-n.done:
		return n.err
	default:
		return nil
	}
}

// Close stops the node; proposals under way fail with ErrNotLeader. Where ctx ends
// first the node stops when the disk lets it.
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
