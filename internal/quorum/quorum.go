// Package quorum hosts the metadata quorum on etcd's raft library: log on disk,
// snapshots, membership; it proposes entries and hands on what was committed.
//
// Node is one voter; so far it is always the only one, and the code that sends
// raft's messages to others has no place here yet: see Node.step, where it joins.
// A sole voter needs no clock, so an idle Node costs nothing.
//
// One goroutine, the loop, owns raft, the log and the snapshots, and calls Apply
// and Snapshot. Propose, Status and Close may be called from any goroutine, but
// Propose from within Apply or Snapshot waits for itself for ever.
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

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/leatstream/leat/internal/vfs"
)

var (
	// ErrNotLeader is returned for a proposal that this node cannot make, or that was
	// lost with leadership; it may or may not have been committed.
	ErrNotLeader = errors.New("quorum: not the leader")
	// ErrTooLarge is returned for a proposal above MaxProposal; it was not made.
	ErrTooLarge = errors.New("quorum: proposal too large")
	// ErrDiskFull is returned for a proposal for which the log has no room; it was
	// not made. Later ones succeed when there is room again.
	ErrDiskFull = errors.New("quorum: the disk is full, metadata cannot change until there is room")
	// ErrFaulted is returned for every proposal after a write or sync of the log
	// failed, and for those under way; these may be found committed by the next start.
	ErrFaulted = errors.New("quorum: the metadata log cannot be written, restart the node when the disk is repaired")
	// ErrDamaged is returned by Open where the directory's files are not as they were written.
	ErrDamaged = errors.New("quorum: damaged metadata")
	// ErrNewer is returned by Open for a directory that a newer version has written.
	ErrNewer = errors.New("quorum: written by a newer version of leat, start that one")
)

// MaxProposal is the largest proposal, in bytes.
const MaxProposal = 16 << 20

const (
	maxBatchProposals = 1024    // in one frame of the log
	maxBatchBytes     = 4 << 20 // in one frame, unless a single proposal is larger
	keepEntries       = 1024    // applied ones in memory; a sole voter sends them to nobody
	keepBytes         = 1 << 20
)

// Config says how a node takes part.
type Config struct {
	ID     int32 // of this node; raft's id is ID+1, since raft reserves 0
	Dir    string
	FS     vfs.FS
	Logger *slog.Logger
	// Apply gets committed updates in order, on the node's own goroutine (during
	// Open on the caller's), before the Propose that made them returns.
	Apply func(Update)
	// Snapshot returns the whole state after the last Apply, encoded. It is called
	// on the node's own goroutine when the log has grown enough.
	Snapshot func() []byte
	// SnapshotBytes is how much log triggers a snapshot; 0 means 16 MiB.
	SnapshotBytes int64
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

// Status is what DescribeQuorum shows.
type Status struct {
	Leader  int32 // -1: none known
	Term    uint64
	Voters  []int32
	Commit  uint64
	Applied uint64
}

// Node is one voter.
type Node struct {
	cfg    Config
	props  chan *proposal
	stop   chan struct{}
	done   chan struct{} // closed when the loop has ended
	closed sync.Once
	err    error // of closing; read after done
	status atomic.Pointer[Status]

	// The rest belongs to the loop.
	raft     *raft.RawNode
	memory   *raft.MemoryStorage
	log      *diskLog
	voters   []uint64
	waiting  []*proposal // taken by raft, in the order of their entries
	applied  uint64
	since    int64 // bytes of log since the last snapshot, or the last try
	held     int64 // bytes of applied entries in memory
	faulted  bool
	diskFull bool // said in the log
}

// proposal is one call of Propose.
type proposal struct {
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
	self := uint64(cfg.ID) + 1
	log, found, err := openLog(cfg, tune)
	if err != nil {
		return nil, err
	}
	n := &Node{
		cfg: cfg, log: log, voters: found.voters,
		props: make(chan *proposal), stop: make(chan struct{}), done: make(chan struct{}),
	}
	if len(n.voters) != 1 || n.voters[0] != self {
		return nil, errors.Join(fmt.Errorf("%w: the quorum has several voters", ErrNewer), log.close())
	}
	if err := n.start(self, found); err != nil {
		return nil, errors.Join(err, log.close())
	}
	go n.run()
	return n, nil
}

func (c *Config) validate() error {
	if c.ID < 0 {
		return fmt.Errorf("quorum: node id %d is negative", c.ID)
	}
	if c.Dir == "" || c.FS == nil || c.Logger == nil || c.Apply == nil || c.Snapshot == nil {
		panic("BUG: quorum: incomplete Config")
	}
	return nil
}

// start brings raft up to what was found on disk and takes office.
func (n *Node) start(self uint64, found *recovered) error {
	n.memory = raft.NewMemoryStorage()
	base := &pb.Snapshot{Metadata: &pb.SnapshotMetadata{
		Index: &found.base.index, Term: &found.base.term,
		ConfState: &pb.ConfState{Voters: n.voters},
	}}
	err := errors.Join(n.memory.ApplySnapshot(base), n.memory.SetHardState(found.state), n.memory.Append(found.entries))
	if err != nil {
		return fmt.Errorf("quorum: %w", err)
	}
	n.raft, err = raft.NewRawNode(&raft.Config{
		ID: self, Storage: n.memory, Applied: found.base.index, Logger: raftLogger{n.cfg.Logger},
		ElectionTick: 10, HeartbeatTick: 2, PreVote: true, CheckQuorum: true,
		MaxSizePerMsg: 1 << 20, MaxCommittedSizePerReady: 16 << 20, MaxInflightMsgs: 256,
	})
	if err != nil {
		return fmt.Errorf("quorum: %w", err)
	}
	n.applied, n.since = found.base.index, found.bytes
	if found.snapshot != nil {
		n.cfg.Apply(Update{Snapshot: found.snapshot})
	}
	// Waiting for an election would cost a sole voter a second: it takes office.
	err = n.drain()
	if err == nil {
		err = n.raft.Campaign()
	}
	if err == nil {
		err = n.drain()
	}
	if err != nil {
		return fmt.Errorf("quorum: start: %w", err)
	}
	last, err := n.memory.LastIndex()
	if err != nil || n.applied != last || n.raft.BasicStatus().RaftState != raft.StateLeader {
		panic(fmt.Sprintf("BUG: a sole voter did not take office: applied %d of %d, %v", n.applied, last, err))
	}
	return nil
}

// Propose returns when data was committed, is on disk, and has been applied. It
// keeps data. Where ctx ends first the proposal may still be committed. Callers
// that propose at the same time share a sync.
func (n *Node) Propose(ctx context.Context, data []byte) error {
	if len(data) == 0 {
		panic("BUG: quorum: empty proposal")
	}
	if len(data) > MaxProposal {
		return fmt.Errorf("%w: %d bytes, at most %d can be proposed", ErrTooLarge, len(data), MaxProposal)
	}
	p := &proposal{data: data, done: make(chan error, 1)}
	select {
	case n.props <- p:
	case <-n.done:
		return ErrNotLeader
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
func (n *Node) Status() Status { return *n.status.Load() }

// Close stops the node; proposals under way fail with ErrNotLeader.
func (n *Node) Close() error {
	n.closed.Do(func() { close(n.stop) })
	<-n.done
	return n.err
}

// run is the loop.
func (n *Node) run() {
	defer close(n.done)
	for {
		select {
		case p := <-n.props:
			n.serve(n.gather(p))
		case <-n.stop:
			n.fail(ErrNotLeader)
			n.err = n.log.close()
			return
		}
	}
}

// gather adds to the first proposal those that others are waiting to hand over.
func (n *Node) gather(first *proposal) []*proposal {
	batch := []*proposal{first}
	for bytes := len(first.data); len(batch) < maxBatchProposals && bytes < maxBatchBytes; {
		select {
		case p := <-n.props:
			batch = append(batch, p)
			bytes += len(p.data)
		default:
			return batch
		}
	}
	return batch
}

// serve makes a batch of proposals durable and applied, with one sync, or fails it.
func (n *Node) serve(batch []*proposal) {
	if err := n.room(batch); err != nil {
		for _, p := range batch {
			p.done <- err
		}
		return
	}
	for _, p := range batch {
		if err := n.raft.Propose(p.data); err != nil {
			p.done <- fmt.Errorf("%w: %w", ErrNotLeader, err)
			continue
		}
		n.waiting = append(n.waiting, p)
	}
	if err := n.drain(); err != nil {
		n.fault(err)
		return
	}
	n.forget()
	if n.since >= n.cfg.SnapshotBytes {
		n.snapshot()
	}
	n.log.prepare()
}

// room makes sure that the log takes the batch before raft does: raft cannot give
// an entry back.
func (n *Node) room(batch []*proposal) error {
	if n.faulted {
		return ErrFaulted
	}
	var size int64
	for _, p := range batch {
		size += entryHead + int64(len(p.data))
	}
	err := n.log.room(size)
	switch {
	case errors.Is(err, vfs.ErrNoSpace):
		if !n.diskFull {
			n.cfg.Logger.Error("disk full: metadata changes are refused until there is room", "err", err)
		}
		n.diskFull = true
		return ErrDiskFull
	case err != nil:
		n.fault(err)
		return ErrFaulted
	}
	n.diskFull = false
	return nil
}

// drain does what raft wants done until it wants nothing.
func (n *Node) drain() error {
	for n.raft.HasReady() {
		rd := n.raft.Ready()
		if err := n.step(rd); err != nil {
			return err
		}
		n.raft.Advance(rd)
	}
	st := n.raft.BasicStatus()
	s := &Status{Leader: int32(st.Lead) - 1, Term: st.GetTerm(), Commit: st.GetCommit(), Applied: n.applied}
	for _, v := range n.voters {
		s.Voters = append(s.Voters, int32(v)-1)
	}
	n.status.Store(s)
	for len(n.waiting) > 0 && n.waiting[0].index != 0 && n.waiting[0].index <= n.applied {
		n.waiting[0].done <- nil
		n.waiting = n.waiting[1:]
	}
	return nil
}

// step handles one Ready. rd.Messages are for other voters: with the sole one
// there are none, and with more a transport takes them here, after the save.
func (n *Node) step(rd raft.Ready) error {
	if rd.SoftState != nil && rd.RaftState != raft.StateLeader {
		n.fail(ErrNotLeader) // what raft dropped with its office is never answered otherwise
	}
	if !raft.IsEmptySnap(rd.Snapshot) || len(rd.Messages) > 0 {
		panic("BUG: raft of a sole voter speaks of others")
	}
	if !raft.IsEmptyHardState(rd.HardState) {
		// It goes to disk with the next entries. Before those nobody hears of a
		// term or a vote, as there is nobody; a commit index is only a hint.
		n.log.state = rd.HardState
	}
	if len(rd.Entries) > 0 {
		written, err := n.log.save(rd.Entries)
		if err != nil {
			return err
		}
		n.since += written
		if err := n.memory.Append(rd.Entries); err != nil {
			return err
		}
		n.number(rd.Entries)
	}
	return n.apply(rd.CommittedEntries)
}

// number notes which entries the waiting proposals became.
func (n *Node) number(entries []*pb.Entry) {
	i := 0
	for i < len(n.waiting) && n.waiting[i].index != 0 {
		i++
	}
	for _, e := range entries {
		if len(e.GetData()) == 0 {
			continue // a new leader's own
		}
		if i == len(n.waiting) || len(n.waiting[i].data) != len(e.GetData()) {
			panic("BUG: raft has appended what nobody proposed")
		}
		n.waiting[i].index = e.GetIndex()
		i++
	}
}

func (n *Node) apply(committed []*pb.Entry) error {
	if len(committed) == 0 {
		return nil
	}
	entries := make([]Entry, 0, len(committed))
	for _, e := range committed {
		if e.GetType() != pb.EntryNormal {
			return fmt.Errorf("%w: entry %d changes the membership", ErrNewer, e.GetIndex())
		}
		if data := e.GetData(); len(data) > 0 {
			entries = append(entries, Entry{Index: e.GetIndex(), Term: e.GetTerm(), Data: data})
			n.held += int64(len(data))
		}
	}
	if len(entries) > 0 {
		n.cfg.Apply(Update{Entries: entries})
	}
	n.applied = committed[len(committed)-1].GetIndex()
	return nil
}

// forget drops applied entries from memory.
func (n *Node) forget() {
	first, err := n.memory.FirstIndex()
	if err != nil {
		panic("BUG: " + err.Error())
	}
	if n.held < keepBytes && n.applied < first+keepEntries {
		return
	}
	if err := n.memory.Compact(n.applied); err != nil && !errors.Is(err, raft.ErrCompacted) {
		panic("BUG: " + err.Error())
	}
	n.held = 0
}

// snapshot writes the state to disk and drops the log that made it. A failure
// costs disk space only, and is tried again when the log has grown by a part.
func (n *Node) snapshot() {
	term, err := n.memory.Term(n.applied)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	n.since = 0
	s := snapshot{at: position{n.applied, term}, voters: n.voters, data: n.cfg.Snapshot()}
	if err := n.log.snapshot(s); err != nil {
		n.cfg.Logger.Error("the metadata's snapshot failed, its log goes on growing", "err", err)
		n.since = n.cfg.SnapshotBytes - n.cfg.SnapshotBytes/4
	}
}

// fault ends the node's writing: after a failed write or sync nobody knows what
// is on disk, so nothing is acknowledged any more.
func (n *Node) fault(err error) {
	n.faulted = true
	n.cfg.Logger.Error("the metadata log cannot be written, metadata is read-only until a restart", "err", err)
	n.fail(ErrFaulted)
}

// fail answers everyone who waits.
func (n *Node) fail(err error) {
	for _, p := range n.waiting {
		p.done <- err
	}
	n.waiting = nil
}
