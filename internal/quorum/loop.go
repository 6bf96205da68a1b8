package quorum

import (
	"bytes"
	"errors"
	"fmt"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/confchange"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"

	"github.com/leatstream/leat/internal/vfs"
)

const (
	maxBatchProposals = 1024     // in one frame of the log
	maxBatchBytes     = 4 << 20  // in one frame, unless a single proposal is larger
	maxPending        = 64 << 20 // bytes that are committed and not taken by the applier; above it no proposal is taken
	keepEntries       = 1024     // committed ones in memory; a sole voter sends them to nobody
	keepBytes         = 1 << 20
)

// loop orders proposals: it owns raft and the log on disk.
type loop struct {
	node    *Node
	raft    *raft.RawNode
	memory  *raft.MemoryStorage
	log     *diskLog
	applier *applier

	state     State
	conf      *pb.ConfState // the members as of the last committed entry
	leads     bool
	lastTerm  uint64      // of the log's newest entry
	termStart uint64      // the first entry of lastTerm
	waiting   []*proposal // taken by raft, in the order of their entries, and not committed
	pending   job         // committed, and not taken by the applier
	committed position    // handed to pending, or before that
	bytesKept int64       // of committed entries in memory

	since     int64  // bytes of log since the last snapshot, or the last try
	snapshots chore  // what is done about the next snapshot
	onDisk    uint64 // index of the newest snapshot; 0: there is none
	written   chan writtenSnapshot
}

// chore is how far a snapshot has come.
//
//	idle -> asked -> writing -> idle
type chore uint8

const (
	idle    chore = iota
	asked         // of the applier
	writing       // the writer runs
)

type writtenSnapshot struct {
	index uint64
	err   error
}

func newLoop(n *Node, log *diskLog, found *recovered) (*loop, error) {
	l := &loop{
		node: n, log: log, applier: n.applier, conf: found.conf, memory: raft.NewMemoryStorage(),
		committed: found.base, lastTerm: found.base.term, termStart: found.base.index,
		since: found.bytes, written: make(chan writtenSnapshot, 1),
	}
	if found.snapshot != nil {
		l.onDisk = found.base.index
	}
	l.noteTerms(found.entries)
	base := &pb.Snapshot{Metadata: &pb.SnapshotMetadata{Index: &found.base.index, Term: &found.base.term, ConfState: found.conf}}
	err := errors.Join(l.memory.ApplySnapshot(base), l.memory.SetHardState(found.state), l.memory.Append(found.entries))
	if err != nil {
		return nil, fmt.Errorf("quorum: %w", err)
	}
	l.raft, err = raft.NewRawNode(&raft.Config{
		ID: log.raftID, Storage: raftStorage{l.memory, l.readSnapshot}, Applied: found.base.index, Logger: raftLogger{n.cfg.Logger},
		ElectionTick: 10, HeartbeatTick: 2, PreVote: true, CheckQuorum: true, DisableProposalForwarding: true,
		MaxSizePerMsg: 1 << 20, MaxCommittedSizePerReady: 16 << 20, MaxInflightMsgs: 256,
	})
	if err != nil {
		return nil, fmt.Errorf("quorum: %w", err)
	}
	return l, nil
}

// raftStorage is the log in memory, with the snapshots that are on disk.
type raftStorage struct {
	*raft.MemoryStorage
	snapshot func() (*pb.Snapshot, error)
}

// Snapshot returns the newest snapshot with its data.
func (s raftStorage) Snapshot() (*pb.Snapshot, error) { return s.snapshot() }

func (l *loop) readSnapshot() (*pb.Snapshot, error) {
	if l.onDisk == 0 {
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	s, err := readSnapshot(l.log.fs, l.log.dir, l.onDisk)
	if err != nil {
		l.node.cfg.Logger.Error("the metadata's snapshot cannot be read", "err", err)
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	return s.raftSnapshot(), nil
}

// takeOffice applies what was found on disk, on the caller's goroutine and at once,
// and makes a sole voter the leader: waiting for an election would cost it a second.
func (l *loop) takeOffice(found *recovered) error {
	if found.snapshot != nil {
		l.pending = job{snapshot: found.snapshot, at: found.base, conf: found.conf}
	}
	l.applier.at, l.applier.conf = found.base, found.conf
	err := l.drain()
	if err == nil {
		err = l.applyPending()
	}
	if err == nil && l.isSoleVoter() {
		err = l.raft.Campaign()
	}
	if err == nil {
		err = l.drain()
	}
	switch {
	case err != nil:
		return fmt.Errorf("quorum: start: %w", err)
	case !l.isSoleVoter(): // perhaps by an entry that was committed just now
		return fmt.Errorf("%w: the quorum has several voters", ErrNewer)
	case !l.leads:
		return fmt.Errorf("%w: its only voter cannot lead it", ErrDamaged)
	}
	return l.applyPending()
}

// applyPending applies on the caller's goroutine, before the applier has its own.
func (l *loop) applyPending() error {
	err := l.applier.do(&l.pending)
	l.pending = job{}
	return err
}

func (l *loop) isSoleVoter() bool {
	return len(l.conf.GetVoters()) == 1 && l.conf.GetVoters()[0] == l.log.raftID && len(l.conf.GetVotersOutgoing()) == 0
}

func (l *loop) run() {
	n := l.node
	defer close(n.done)
	for l.state != Ended {
		jobs, props := l.handOver()
		select {
		case jobs <- l.pending:
			l.pending = job{}
		case p := <-props:
			l.serve(gather(p, props))
		case c := <-l.applier.captured:
			l.writeSnapshot(c)
		case w := <-l.written:
			l.noteSnapshot(w)
		case err := <-l.applier.failed:
			l.end(err)
		case <-n.stop:
			l.end(ErrNotLeader)
		}
	}
}

// handOver gives the applier what it can take at once, before the loop turns to the
// disk again. It returns the channels to wait on: nil ones where nothing is pending,
// and where too much is.
func (l *loop) handOver() (jobs chan<- job, props <-chan *proposal) {
	if !l.pending.isEmpty() {
		select {
		case l.applier.jobs <- l.pending:
			l.pending = job{}
		default:
			jobs = l.applier.jobs
		}
	}
	if l.pending.bytes < maxPending {
		props = l.node.props
	}
	return jobs, props
}

// gather adds to the first proposal those that others are waiting to hand over.
func gather(first *proposal, props <-chan *proposal) []*proposal {
	batch := []*proposal{first}
	for bytes := len(first.data); len(batch) < maxBatchProposals && bytes < maxBatchBytes; {
		select {
		case p := <-props:
			batch = append(batch, p)
			bytes += len(p.data)
		default:
			return batch
		}
	}
	return batch
}

// serve makes a batch of proposals durable, with one sync, or fails it.
func (l *loop) serve(batch []*proposal) {
	if err := l.makeRoom(batch); err != nil {
		l.show()
		failAll(batch, err)
		return
	}
	for _, p := range batch {
		// Between here and raft's appending it no term can begin.
		if !l.leads || p.term != l.raft.BasicStatus().GetTerm() {
			p.done <- fmt.Errorf("%w in term %d", ErrNotLeader, p.term)
			continue
		}
		if err := l.raft.Propose(p.data); err != nil {
			p.done <- fmt.Errorf("%w: %w", ErrNotLeader, err)
			continue
		}
		l.waiting = append(l.waiting, p)
	}
	if err := l.drain(); err != nil {
		l.fault(err)
		return
	}
	l.forget()
	if l.since >= l.node.cfg.SnapshotBytes {
		l.askSnapshot()
	}
	l.log.prepare()
}

// makeRoom makes sure that the log takes the batch before raft does: raft cannot give
// an entry back.
func (l *loop) makeRoom(batch []*proposal) error {
	if l.state == Faulted {
		return ErrFaulted
	}
	var size int64
	for _, p := range batch {
		size += entryHead + int64(len(p.data))
	}
	err := l.log.room(size)
	switch {
	case errors.Is(err, vfs.ErrNoSpace):
		if l.state == Serving {
			l.node.cfg.Logger.Error("disk full: metadata changes are refused until there is room", "err", err)
		}
		l.state = Full
		return ErrDiskFull
	case err != nil:
		l.fault(err)
		return ErrFaulted
	}
	l.state = Serving
	return nil
}

// drain does what raft wants done until it wants nothing.
func (l *loop) drain() error {
	for l.raft.HasReady() {
		rd := l.raft.Ready()
		if err := l.step(rd); err != nil {
			return err
		}
		l.raft.Advance(rd)
	}
	l.show()
	return nil
}

// show publishes what others may see. It comes before the answer of a proposal that
// failed: the caller may look at once for the reason.
func (l *loop) show() {
	st := l.raft.BasicStatus()
	o := &office{leads: l.leads, termStart: l.termStart}
	o.State, o.Leader, o.Term, o.Commit = l.state, -1, st.GetTerm(), st.GetCommit()
	if l.leads {
		o.Leader = l.node.cfg.ID
	}
	for _, v := range l.conf.GetVoters() {
		if v == l.log.raftID {
			o.Voters = append(o.Voters, l.node.cfg.ID)
		}
	}
	l.node.status.Store(o)
}

// step handles one Ready.
func (l *loop) step(rd raft.Ready) error {
	if rd.SoftState != nil {
		l.leads = rd.RaftState == raft.StateLeader
		if !l.leads {
			l.failWaiting(ErrNotLeader) // what raft dropped with its office is never answered otherwise
		}
	}
	if !raft.IsEmptySnap(rd.Snapshot) {
		return fmt.Errorf("%w: a snapshot of another voter", ErrNewer)
	}
	if !raft.IsEmptyHardState(rd.HardState) {
		l.log.state = rd.HardState
	}
	if len(rd.Entries) > 0 || l.log.isStateDue() {
		written, err := l.log.save(rd.Entries)
		if err != nil {
			return err
		}
		l.since += written
		if err := l.memory.Append(rd.Entries); err != nil {
			return err
		}
		l.noteTerms(rd.Entries)
		l.noteIndexes(rd.Entries)
	}
	// Term, vote and entries are on disk: from here on messages may leave.
	l.dropMessages(rd.Messages)
	return l.commit(rd.CommittedEntries)
}

// dropMessages is in the place of a transport: to raft the messages were lost.
func (l *loop) dropMessages(messages []*pb.Message) {
	for _, m := range messages {
		l.raft.ReportUnreachable(m.GetTo())
		if m.GetType() == pb.MsgSnap {
			l.raft.ReportSnapshot(m.GetTo(), raft.SnapshotFailure)
		}
	}
}

// noteTerms follows where the newest term begins.
func (l *loop) noteTerms(entries []*pb.Entry) {
	for _, e := range entries {
		if e.GetTerm() > l.lastTerm {
			l.lastTerm, l.termStart = e.GetTerm(), e.GetIndex()
		}
	}
}

// noteIndexes notes which entries the waiting proposals became. Entries that nobody
// here has proposed are passed over: raft makes some itself.
func (l *loop) noteIndexes(entries []*pb.Entry) {
	i := 0
	for i < len(l.waiting) && l.waiting[i].index != 0 {
		i++
	}
	for _, e := range entries {
		if i == len(l.waiting) {
			return
		}
		if e.GetType() == pb.EntryNormal && bytes.Equal(e.GetData(), l.waiting[i].data) {
			l.waiting[i].index = e.GetIndex()
			i++
		}
	}
}

// commit puts committed entries where the applier gets them, and follows the members.
func (l *loop) commit(committed []*pb.Entry) error {
	if len(committed) == 0 {
		return nil
	}
	for _, e := range committed {
		if len(e.GetData()) == 0 && e.GetType() == pb.EntryNormal {
			continue // a new leader's own
		}
		if e.GetType() != pb.EntryNormal {
			if err := l.changeMembers(e); err != nil {
				return err
			}
			continue
		}
		l.pending.entries = append(l.pending.entries, e)
		l.pending.bytes += len(e.GetData())
		l.bytesKept += int64(len(e.GetData()))
	}
	last := committed[len(committed)-1]
	l.committed = position{last.GetIndex(), last.GetTerm()}
	l.pending.at, l.pending.conf = l.committed, l.conf
	for len(l.waiting) > 0 && l.waiting[0].index != 0 && l.waiting[0].index <= l.committed.index {
		l.pending.waiting = append(l.pending.waiting, l.waiting[0])
		l.waiting = l.waiting[1:]
	}
	return nil
}

// changeMembers follows a committed change of the members. One that does not fit is
// passed over, on every voter alike. The next snapshot must have the members as they
// are now, so that one is asked for.
func (l *loop) changeMembers(e *pb.Entry) error {
	change, err := parseConfChange(e)
	if err != nil {
		return fmt.Errorf("%w: entry %d: %w", ErrNotApplied, e.GetIndex(), err)
	}
	if err := checkConfChange(l.conf, change); err != nil {
		l.node.cfg.Logger.Warn("a change of the quorum's members does not fit, it changes nothing", "entry", e.GetIndex(), "err", err)
		return nil
	}
	l.conf = l.raft.ApplyConfChange(change)
	l.since = max(l.since, l.node.cfg.SnapshotBytes)
	return nil
}

func parseConfChange(e *pb.Entry) (*pb.ConfChangeV2, error) {
	if e.GetType() == pb.EntryConfChange {
		var one pb.ConfChange
		if err := proto.Unmarshal(e.GetData(), &one); err != nil {
			return nil, err
		}
		return one.AsV2(), nil
	}
	if e.GetType() != pb.EntryConfChangeV2 {
		return nil, fmt.Errorf("%w: entry of type %d", ErrNewer, e.GetType())
	}
	var many pb.ConfChangeV2
	return &many, proto.Unmarshal(e.GetData(), &many)
}

// checkConfChange tells whether raft can apply a change; it panics where it cannot.
func checkConfChange(conf *pb.ConfState, change *pb.ConfChangeV2) error {
	changer := confchange.Changer{Tracker: tracker.MakeProgressTracker(1, 0), LastIndex: 1}
	var err error
	changer.Tracker.Config, changer.Tracker.Progress, err = confchange.Restore(changer, conf)
	if err != nil {
		return err
	}
	if change.LeaveJoint() {
		_, _, err = changer.LeaveJoint()
	} else if autoLeave, joint := change.EnterJoint(); joint {
		_, _, err = changer.EnterJoint(autoLeave, change.GetChanges()...)
	} else {
		_, _, err = changer.Simple(change.GetChanges()...)
	}
	return err
}

// forget drops committed entries from memory. Members other than this node get what
// the newest snapshot lacks.
func (l *loop) forget() {
	first, err := l.memory.FirstIndex()
	if err != nil {
		panic("BUG: " + err.Error())
	}
	if l.bytesKept < keepBytes && l.committed.index < first+keepEntries {
		return
	}
	upTo := l.committed.index
	if len(l.conf.GetVoters())+len(l.conf.GetLearners())+len(l.conf.GetVotersOutgoing()) > 1 {
		upTo = min(upTo, l.onDisk)
	}
	l.bytesKept = 0
	if upTo < first {
		return
	}
	if err := l.memory.Compact(upTo); err != nil && !errors.Is(err, raft.ErrCompacted) {
		panic("BUG: " + err.Error())
	}
}

// askSnapshot has the applier capture the state after what is pending.
func (l *loop) askSnapshot() {
	if l.snapshots != idle {
		return
	}
	l.snapshots, l.since, l.pending.capture = asked, 0, true
}

// writeSnapshot starts the writer.
func (l *loop) writeSnapshot(c capture) {
	l.snapshots = writing
	fs, dir := l.log.fs, l.log.dir
	s := &snapshot{at: c.at, raftID: l.log.raftID, boot: boot{l.node.cfg.ID, c.conf}}
	go func() {
		s.data = c.encode()
		l.written <- writtenSnapshot{s.at.index, writeSnapshot(fs, dir, s)}
	}()
}

// noteSnapshot drops the log that a snapshot replaces. A failure costs disk space
// only; the snapshot is tried again when the log has grown by a part.
func (l *loop) noteSnapshot(w writtenSnapshot) {
	l.snapshots = idle
	if w.err == nil {
		l.onDisk = w.index
		w.err = l.log.drop(w.index)
	}
	if w.err != nil {
		l.node.cfg.Logger.Error("the metadata's snapshot failed, its log goes on growing", "err", w.err)
		l.since = max(l.since, l.node.cfg.SnapshotBytes-l.node.cfg.SnapshotBytes/4)
	}
}

// fault ends the node's writing: after a failed write or sync nobody knows what
// is on disk, so nothing is acknowledged any more.
func (l *loop) fault(err error) {
	if errors.Is(err, ErrNotApplied) {
		l.end(err)
		return
	}
	l.state = Faulted
	l.node.cfg.Logger.Error("the metadata log cannot be written, metadata is read-only until a restart", "err", err)
	l.show()
	l.failWaiting(ErrFaulted)
}

// end fails all who wait, and closes what the loop has opened.
func (l *loop) end(err error) {
	l.state = Ended
	l.failWaiting(err)
	failAll(l.pending.waiting, err)
	l.pending = job{}
	close(l.applier.jobs)
	<-l.applier.done
	if l.snapshots == writing {
		l.noteSnapshot(<-l.written)
	}
	l.node.err, l.node.disk = err, l.log.close()
	l.show()
}

func (l *loop) failWaiting(err error) {
	failAll(l.waiting, err)
	l.waiting = nil
}
