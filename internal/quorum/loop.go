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
	maxPending        = 64 << 20 // bytes of committed entries that wait for the applier; above it no proposal is accepted
	keepEntries       = 1024     // committed entries in memory; a sole voter never sends them
	keepBytes         = 1 << 20  // their bytes
)

// loop orders proposals: it owns raft and the log on disk. All methods run on its goroutine.
type loop struct {
	node    *Node
	raft    *raft.RawNode
	memory  *raft.MemoryStorage
	log     *diskLog
	applier *applier

	state     State
	conf      *pb.ConfState // the members at the last committed entry
	leads     bool
	lastTerm  uint64      // of the log's newest entry
	termStart uint64      // index of the first entry of lastTerm
	waiting   []*proposal // raft has them, in the order of their entries; not committed yet
	pending   job         // the committed entries that the applier has not received yet
	committed position    // of the last committed entry
	bytesKept int64       // of committed entries in memory

	sinceSnapshot int64         // bytes of log since the last snapshot, or the last attempt
	snapshotPhase snapshotPhase // of the next snapshot
	snapshotIndex uint64        // of the newest snapshot on disk; 0: there is none
	written       chan writtenSnapshot
}

// snapshotPhase is how far the next snapshot has come.
//
//	idle -> asked -> writing -> idle
type snapshotPhase uint8

const (
	idle    snapshotPhase = iota
	asked                 // the applier is to capture the state
	writing               // the writer runs
)

type writtenSnapshot struct {
	index uint64
	err   error
}

func newLoop(n *Node, log *diskLog, found *recovered) (*loop, error) {
	l := &loop{
		node: n, log: log, applier: n.applier, conf: found.conf, memory: raft.NewMemoryStorage(),
		committed: found.base, lastTerm: found.base.term, termStart: found.base.index,
		sinceSnapshot: found.bytes, written: make(chan writtenSnapshot, 1),
	}
	if found.snapshot != nil {
		l.snapshotIndex = found.base.index
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
	if l.snapshotIndex == 0 {
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	s, err := readSnapshot(l.log.fs, l.log.dir, l.snapshotIndex)
	if err != nil {
		l.node.cfg.Logger.Error("the metadata's snapshot cannot be read", "err", err)
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	return s.raftSnapshot(), nil
}

// applyAndCampaign applies the entries that were found on disk, on the caller's goroutine, and
// makes a sole voter the leader. It campaigns at once, since the wait for an election would
// take a second.
func (l *loop) applyAndCampaign(found *recovered) error {
	if found.snapshot != nil {
		l.pending = job{snapshot: found.snapshot, at: found.base, conf: found.conf}
	}
	l.applier.at, l.applier.conf = found.base, found.conf
	err := l.handleReadies()
	if err == nil {
		err = l.applyPending()
	}
	if err == nil && l.isSoleVoter() {
		err = l.raft.Campaign()
	}
	if err == nil {
		err = l.handleReadies()
	}
	switch {
	case err != nil:
		return fmt.Errorf("quorum: start: %w", err)
	case !l.isSoleVoter(): // an entry that is committed just now may have added another
		return fmt.Errorf("%w: the quorum has several voters", ErrNewer)
	case !l.leads:
		return fmt.Errorf("%w: its only voter cannot lead it", ErrDamaged)
	}
	return l.applyPending()
}

// applyPending applies the pending job on the caller's goroutine, before the applier has its
// own.
func (l *loop) applyPending() error {
	err := l.applier.applyJob(&l.pending)
	l.pending = job{}
	return err
}

func (l *loop) isSoleVoter() bool {
	return len(l.conf.GetVoters()) == 1 && l.conf.GetVoters()[0] == l.log.raftID && len(l.conf.GetVotersOutgoing()) == 0
}

// serveProposals is the loop's goroutine.
func (l *loop) serveProposals() {
	n := l.node
	defer close(n.done)
	for l.state != Ended {
		jobs, props := l.handOver()
		select {
		case jobs <- l.pending:
			l.pending = job{}
		case p := <-props:
			l.proposeBatch(gatherBatch(p, props))
		case c := <-l.applier.captured:
			l.writeSnapshot(c)
		case w := <-l.written:
			l.noteSnapshot(w)
		case f := <-l.applier.failed:
			l.endLoop(f.err, f.waiting...)
		case <-n.stop:
			l.endLoop(ErrNotLeader)
		}
	}
}

// handOver gives the pending job to the applier if it is ready, before the loop waits for the
// disk again. It returns the channels to wait on: jobs is nil if nothing is pending, and props
// is nil if too much is.
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

// gatherBatch adds to the first proposal those of other callers that wait now.
func gatherBatch(first *proposal, props <-chan *proposal) []*proposal {
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

// proposeBatch makes a batch of proposals durable with one sync, or answers them with an error.
func (l *loop) proposeBatch(batch []*proposal) {
	if err := l.makeRoom(batch); err != nil {
		l.publishStatus()
		failAll(batch, err)
		return
	}
	for _, p := range batch {
		// No term can begin between this check and raft's append.
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
	if err := l.handleReadies(); err != nil {
		l.becomeFaulted(err)
		return
	}
	l.compactMemory()
	if l.sinceSnapshot >= l.node.cfg.SnapshotBytes {
		l.askSnapshot()
	}
	l.log.prepareSpare()
}

// makeRoom makes sure that the log has room for the batch, before raft gets it: an entry
// cannot be taken back from raft.
func (l *loop) makeRoom(batch []*proposal) error {
	if l.state == Faulted {
		return ErrFaulted
	}
	var size int64
	for _, p := range batch {
		size += entryHead + int64(len(p.data))
	}
	err := l.log.ensureRoom(size)
	switch {
	case errors.Is(err, vfs.ErrNoSpace):
		if l.state == Serving {
			l.node.cfg.Logger.Error("disk full: metadata changes are refused until there is room", "err", err)
		}
		l.state = Full
		return ErrDiskFull
	case err != nil:
		l.becomeFaulted(err)
		return ErrFaulted
	}
	l.state = Serving
	return nil
}

// handleReadies handles raft's Readies until there are none.
func (l *loop) handleReadies() error {
	for l.raft.HasReady() {
		rd := l.raft.Ready()
		if err := l.handleReady(rd); err != nil {
			return err
		}
		l.raft.Advance(rd)
	}
	l.publishStatus()
	return nil
}

// publishStatus publishes the loop's status. It is called before the answer to a proposal that
// has failed, since the caller may look there for the reason.
func (l *loop) publishStatus() {
	st := l.raft.BasicStatus()
	s := &loopStatus{leads: l.leads, termStart: l.termStart}
	s.State, s.Leader, s.Term, s.Commit = l.state, -1, st.GetTerm(), st.GetCommit()
	if l.leads {
		s.Leader = l.node.cfg.ID
	}
	for _, v := range l.conf.GetVoters() {
		if v == l.log.raftID {
			s.Voters = append(s.Voters, l.node.cfg.ID)
		}
	}
	l.node.status.Store(s)
}

// handleReady handles one Ready. Messages of raft would be sent here.
func (l *loop) handleReady(rd raft.Ready) error {
	if rd.SoftState != nil {
		l.leads = rd.RaftState == raft.StateLeader
		if !l.leads {
			l.failWaiting(ErrNotLeader) // raft may have dropped their entries with the leadership
		}
	}
	if !raft.IsEmptySnap(rd.Snapshot) {
		return fmt.Errorf("%w: a snapshot of another voter", ErrNewer)
	}
	if !raft.IsEmptyHardState(rd.HardState) {
		l.log.state = rd.HardState
	}
	if len(rd.Entries) > 0 || l.log.isStateDue() {
		written, err := l.log.saveFrame(rd.Entries)
		if err != nil {
			return err
		}
		l.sinceSnapshot += written
		if err := l.memory.Append(rd.Entries); err != nil {
			return err
		}
		l.noteTerms(rd.Entries)
		l.noteIndexes(rd.Entries)
	}
	// Messages may be sent only now, since term, vote and entries are on disk.
	l.dropMessages(rd.Messages)
	return l.queueCommitted(rd.CommittedEntries)
}

// dropMessages tells raft that messages to other voters were lost, since there is no transport.
func (l *loop) dropMessages(messages []*pb.Message) {
	for _, m := range messages {
		l.raft.ReportUnreachable(m.GetTo())
		if m.GetType() == pb.MsgSnap {
			l.raft.ReportSnapshot(m.GetTo(), raft.SnapshotFailure)
		}
	}
}

// noteTerms finds the beginning of the newest term.
func (l *loop) noteTerms(entries []*pb.Entry) {
	for _, e := range entries {
		if e.GetTerm() > l.lastTerm {
			l.lastTerm, l.termStart = e.GetTerm(), e.GetIndex()
		}
	}
}

// noteIndexes finds the entries of the waiting proposals among those that raft has appended.
// It skips the entries that raft makes itself.
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

// queueCommitted adds committed entries, and the proposals that wait for them, to the pending
// job, and applies changes of the members.
func (l *loop) queueCommitted(committed []*pb.Entry) error {
	if len(committed) == 0 {
		return nil
	}
	for _, e := range committed {
		if len(e.GetData()) == 0 && e.GetType() == pb.EntryNormal {
			continue // the first entry of a term, which raft makes
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

// changeMembers applies a committed change of the members. Every voter skips a change that
// does not fit. It makes a snapshot due, which has the new members.
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
	l.sinceSnapshot = max(l.sinceSnapshot, l.node.cfg.SnapshotBytes)
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

// checkConfChange returns an error for a change that raft cannot apply, on which it would panic.
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

// compactMemory drops committed entries from memory. If there are other members it keeps those
// after the newest snapshot, which raft sends to them.
func (l *loop) compactMemory() {
	first, err := l.memory.FirstIndex()
	if err != nil {
		panic("BUG: " + err.Error())
	}
	if l.bytesKept < keepBytes && l.committed.index < first+keepEntries {
		return
	}
	upTo := l.committed.index
	if len(l.conf.GetVoters())+len(l.conf.GetLearners())+len(l.conf.GetVotersOutgoing()) > 1 {
		upTo = min(upTo, l.snapshotIndex)
	}
	l.bytesKept = 0
	if upTo < first {
		return
	}
	if err := l.memory.Compact(upTo); err != nil && !errors.Is(err, raft.ErrCompacted) {
		panic("BUG: " + err.Error())
	}
}

// askSnapshot has the applier capture the state after the pending job.
func (l *loop) askSnapshot() {
	if l.snapshotPhase != idle {
		return
	}
	l.snapshotPhase, l.sinceSnapshot, l.pending.capture = asked, 0, true
}

// writeSnapshot starts the writer.
func (l *loop) writeSnapshot(c capture) {
	l.snapshotPhase = writing
	fs, dir := l.log.fs, l.log.dir
	s := &snapshot{at: c.at, raftID: l.log.raftID, boot: boot{l.node.cfg.ID, c.conf}}
	go func() {
		s.data = c.encode()
		l.written <- writtenSnapshot{s.at.index, writeSnapshot(fs, dir, s)}
	}()
}

// noteSnapshot makes the name of a written snapshot durable, and drops the log that the
// snapshot replaces. A failure costs only disk space: another snapshot is made when the log has
// grown by a quarter of SnapshotBytes. Only a failed sync of the directory is a fault, since
// it may have lost other names, too. After a fault nothing is dropped: it is unknown which
// frames are on disk.
func (l *loop) noteSnapshot(w writtenSnapshot) {
	l.snapshotPhase = idle
	if l.state == Faulted {
		return
	}
	if w.err == nil {
		w.err = l.log.syncDir()
	}
	if w.err == nil {
		l.snapshotIndex = w.index
		w.err = l.log.dropReplaced(w.index)
	}
	switch {
	case errors.Is(w.err, errNamesLost) && l.state != Ended:
		l.becomeFaulted(w.err)
	case w.err != nil:
		l.node.cfg.Logger.Error("the metadata's snapshot failed, its log goes on growing", "err", w.err)
		l.sinceSnapshot = max(l.sinceSnapshot, l.node.cfg.SnapshotBytes-l.node.cfg.SnapshotBytes/4)
	}
}

// becomeFaulted ends all writes of the node: after a failed write or sync it is unknown which
// bytes are on disk, so no proposal may be acknowledged.
func (l *loop) becomeFaulted(err error) {
	if errors.Is(err, ErrNotApplied) {
		l.endLoop(err)
		return
	}
	l.state = Faulted
	l.node.cfg.Logger.Error("the metadata log cannot be written, metadata is read-only until a restart", "err", err)
	l.publishStatus()
	l.failWaiting(ErrFaulted)
}

// endLoop fails all proposals that wait, and those of a job that could not be applied, ends the
// applier and the writer, and closes the log.
func (l *loop) endLoop(err error, unapplied ...*proposal) {
	faulted := l.state == Faulted
	l.state, l.node.err = Ended, err
	l.publishStatus()
	failAll(unapplied, err)
	failAll(l.pending.waiting, err)
	l.failWaiting(err)
	l.pending = job{}
	close(l.applier.jobs)
	<-l.applier.done
	select {
	case f := <-l.applier.failed: // the last job, while the loop was ending
		failAll(f.waiting, f.err)
	default:
	}
	if l.snapshotPhase == writing {
		if w := <-l.written; !faulted {
			l.noteSnapshot(w)
		}
	}
	l.node.disk = l.log.close()
}

func (l *loop) failWaiting(err error) {
	failAll(l.waiting, err)
	l.waiting = nil
}
