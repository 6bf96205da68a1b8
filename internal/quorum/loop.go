package quorum

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	pb "go.etcd.io/raft/v3/raftpb"
)

const (
	maxBatchProposals = 1024     // in one frame of the log
	maxPending        = 64 << 20 // bytes of entries that wait for other voters, or for the applier; above it no proposal is accepted
)

// loop drives a member's core, or an observer, and owns the log on disk. What it pulls from other nodes is in loop_pull.go, what it
// proposes in loop_propose.go, and the snapshots of its own state in loop_snapshot.go. All methods run on its
// goroutine, and all writes of the log: while the disk hangs no time passes for raft, so that the
// other voters elect another leader. A simulation calls the same methods one after the other.
type loop struct {
	*tail
	node     *Node
	log      *diskLog
	applier  *applier
	core     *core     // nil: this node is no member
	observer *observer // nil: it is one
	requests requests
	spawn    func(func()) // runs a function beside the loop

	state   State
	pending job // the committed entries that the applier has not received yet
	lost    []*proposal
	pulling bool // a pull is under way, of which there is one at a time

	// removed is the index of a committed entry after which this node is known to be no member, though
	// it lacks the entry that removed it. Up to that index it stays an observer.
	removed uint64

	sinceSnapshot int64         // bytes of log since the last snapshot, or the last attempt
	sinceWanted   int           // ticks since a snapshot was made because raft wanted one
	snapshotPhase snapshotPhase // of the next snapshot
	written       chan writtenSnapshot
	download      *download // nil: none is under way
	stored        chan error
}

// requests are what the loop wants of other nodes. The answers come as events.
type requests struct {
	send  func([]*pb.Message)
	pull  func(Pull)
	fetch func(Part)
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
	mark snapshotMark
	err  error
}

// newLoop makes the loop of a node whose log was found on disk, and applies the entries that are
// committed.
func newLoop(n *Node, log *diskLog, found *recovered) (*loop, error) {
	t, err := newTail(log.raftID, found)
	if err != nil {
		return nil, err
	}
	l := &loop{
		tail: t, node: n, log: log, applier: n.applier, spawn: func(f func()) { go f() },
		sinceSnapshot: found.bytes, written: make(chan writtenSnapshot, 1), stored: make(chan error, 1),
	}
	l.requests = newRequests(n)
	if found.snapshot != nil {
		l.pending = job{snapshot: found.snapshot, at: found.base, conf: found.conf}
	}
	l.applier.at, l.applier.conf = found.base, found.conf
	if err := l.commitFound(found); err != nil {
		return nil, fmt.Errorf("quorum: start: %w", err)
	}
	if l.isSoleVoter() && log.state.GetTerm() > 0 {
		log.state = leapTerm(log.state)
	}
	return l, l.followMembers()
}

// maxTermLeap bounds by how much a start raises the term of an only voter, which nobody else raises: with a term drawn at random, its entries
// tell from those that an older copy of its directory has written since, or the other way round.
const maxTermLeap = 64

// leapTerm raises the term in raft's state by a random number.
func leapTerm(s *pb.HardState) *pb.HardState {
	var b [1]byte
	_, _ = rand.Read(b[:]) // never fails, as its documentation promises
	leap := uint64(b[0]) % maxTermLeap
	if leap == 0 {
		return s
	}
	return &pb.HardState{Term: new(s.GetTerm() + leap), Vote: new(uint64(0)), Commit: new(s.GetCommit())}
}

// commitFound takes the entries that were found on disk and are known to be committed.
func (l *loop) commitFound(found *recovered) error {
	commit := max(found.state.GetCommit(), found.base.index)
	committed := found.entries[:commit-found.base.index]
	if err := l.commit(committed, nil, reportMisfit(l.node.cfg.Logger)); err != nil {
		return err
	}
	l.queueCommitted(committed, nil)
	return nil
}

// reportMisfit returns a function that logs a committed change of the members that does not fit.
func reportMisfit(log *slog.Logger) func(e *pb.Entry, err error) {
	return func(e *pb.Entry, err error) {
		log.Warn("a change of the quorum's members does not fit, it changes nothing", "entry", e.GetIndex(), "err", err)
	}
}

// start makes a sole voter the leader, on the caller's goroutine, and applies all that is
// committed.
func (l *loop) start() error {
	err := l.applyPending()
	if err == nil {
		err = l.handleReadies()
	}
	switch {
	case err != nil:
		return fmt.Errorf("quorum: start: %w", err)
	case l.node.cfg.Transport != nil && !l.isSoleVoter():
	case !l.isSoleVoter(): // an entry that is committed just now may have added another
		return fmt.Errorf("%w: the quorum has several voters", ErrNewer)
	case l.core == nil || !l.core.leads:
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

// followMembers changes between member and observer as the committed entries say. Both continue
// the same log.
func (l *loop) followMembers() error {
	isMember := (l.isMember(l.self) || l.mayBeMember()) && l.committed.index >= l.removed
	switch {
	case isMember && l.core == nil:
		core, err := newCore(l.tail, l.log.state, raftLogger{l.node.cfg.Logger}, reportMisfit(l.node.cfg.Logger))
		if err != nil {
			return err
		}
		l.core, l.observer = core, nil
	case !isMember && l.observer == nil:
		if err := l.becomeObserver(); err != nil {
			return err
		}
	}
	return nil
}

// becomeObserver ends the core. Only committed entries stay: this node has acknowledged no other
// ones as a voter, see mayBeMember.
func (l *loop) becomeObserver() error {
	if l.core != nil {
		l.lost = append(l.lost, l.core.waiting...)
		l.core.leads, l.core.waiting = false, nil
		l.endWaiters()
		l.node.cfg.Logger.Info("this node is no member of the metadata quorum any more, and follows it")
	}
	l.core = nil
	l.observer = &observer{tail: l.tail}
	if l.pulling {
		l.observer.state = observerPulling // its answer goes to the observer
	}
	return l.dropUncommitted()
}

// runLoop is the loop's goroutine.
func (l *loop) runLoop() {
	n := l.node
	defer close(n.done)
	ticker := lazyTicker{interval: n.tune.tick}
	defer ticker.stop()
	l.askOthers()
	for l.state != Ended {
		jobs, props := l.handOver()
		select {
		case jobs <- l.pending:
			l.pending = job{}
		case p := <-props:
			l.proposeBatch(gatherBatch(p, props))
		case m := <-n.messages:
			l.stepBatch(gatherMessages(m, n.messages))
		case c := <-n.commands:
			l.runCommand(c)
		case <-ticker.channel(l.needsTicks()):
			l.tick()
		case a := <-n.pulled:
			l.handle(func() error { return l.notePulled(a.data, a.err) })
		case a := <-n.parts:
			l.handle(func() error { l.notePart(a); return nil })
		case err := <-l.stored:
			l.handle(func() error { return l.noteStored(err) })
		case c := <-l.applier.captured:
			l.writeSnapshot(c)
		case w := <-l.written:
			l.noteSnapshot(w)
		case <-n.wantSnapshot:
			l.askSnapshotFor()
		case f := <-l.applier.failed:
			l.endLoop(f.err, f.waiting...)
		case <-n.stop:
			l.endLoop(ErrNotLeader)
		}
		l.afterEvent()
	}
}

// handle handles an event whose writes may fail. A faulted node ignores it.
func (l *loop) handle(event func() error) {
	if l.state == Faulted || l.state == Ended {
		return
	}
	err := event()
	if l.state == Ended {
		return
	}
	if err == nil {
		err = l.handleReadies()
	}
	if err != nil {
		l.becomeFaulted(err)
	}
}

// runCommand runs a function that another goroutine has sent. A faulted node refuses it.
func (l *loop) runCommand(c command) {
	if l.state == Faulted {
		c.refuse(ErrFaulted)
		return
	}
	l.handle(func() error { c.run(l); return nil })
}

// afterEvent does what may be due after any event: it drops entries from memory, has a snapshot
// made, and asks other nodes for entries.
func (l *loop) afterEvent() {
	if l.state == Ended || l.state == Faulted {
		return
	}
	l.compact()
	if l.sinceSnapshot >= l.node.cfg.SnapshotBytes {
		l.askSnapshot()
	}
	l.log.prepareSpare()
	l.askOthers()
}

// askOthers asks other nodes for entries, if this one is no member, or may be none any more.
func (l *loop) askOthers() {
	if l.node.cfg.Transport == nil {
		return
	}
	if l.pulling {
		return
	}
	var p Pull
	if l.observer != nil && l.download == nil && l.pending.bytes < maxPending {
		p, l.pulling = l.observer.nextPull()
	} else if l.core != nil && l.core.isLost() {
		p, l.pulling = Pull{Observer: l.self, From: l.committed.index + 1, Last: l.committed.index, LastTerm: l.committed.term}, true
	}
	if l.pulling {
		l.requests.pull(p)
	}
}

// needsTicks tells whether time matters: not for a sole voter without learners, which therefore
// costs nothing while it is idle, and not for an observer whose request is under way.
func (l *loop) needsTicks() bool {
	switch {
	case l.state == Faulted || l.state == Ended:
		return false
	case l.core != nil && l.hasOthers():
		return true
	default:
		return l.observer != nil && l.observer.state == observerPaused || l.download != nil && l.download.phase == paused
	}
}

// tick tells the machines that time has passed.
func (l *loop) tick() {
	l.handle(func() error {
		if l.core != nil && l.hasOthers() {
			l.core.tick()
			l.makeWanted()
		}
		if l.observer != nil && l.download == nil {
			l.observer.tick()
		}
		if d := l.download; d != nil && d.phase == paused {
			l.download.fetchPart(&l.requests)
		}
		return nil
	})
}

// makeWanted has a snapshot made if raft wants one that fits: the last one may have failed, or this
// node ended before it was made. It does so once in a while, since it may fail again.
func (l *loop) makeWanted() {
	if l.sinceWanted++; l.wanted && l.sinceWanted > electionTicks {
		l.wanted, l.sinceWanted = false, 0
		l.sinceSnapshot = max(l.sinceSnapshot, l.node.cfg.SnapshotBytes)
	}
}

// stepBatch takes messages of other members. A node that is no member drops them: it
// becomes one by the committed log.
func (l *loop) stepBatch(batch []*pb.Message) {
	l.handle(func() error { return takeMessages(l, batch) })
}

// takeMessages is stepBatch within an event. It returns a WentBackError, and drops other messages that do not fit.
func takeMessages(l *loop, batch []*pb.Message) error {
	if l.core == nil {
		return nil
	}
	var size int64
	for _, m := range batch {
		for _, e := range m.GetEntries() {
			size += entryHead + int64(len(e.GetData()))
		}
	}
	full := l.pending.bytes >= maxPending
	if size > 0 && !full {
		if err := l.makeRoom(size); errors.Is(err, ErrDiskFull) {
			full = true
		} else if err != nil {
			return nil //nolint:nilerr // the node is faulted already
		}
	}
	for _, m := range batch {
		if full && len(m.GetEntries()) > 0 {
			continue // the leader sends it again when there is room
		}
		if m.GetType() == pb.MsgSnap && l.startSnapshot(m) {
			continue
		}
		if err := l.core.step(m); isWentBack(err) {
			return err
		} else if err != nil {
			l.node.drops.report(l.node.cfg.Logger, m.GetFrom(), err)
		}
	}
	return nil
}

// writeFrame writes entries and raft's state, if there is anything to write or it must be.
func (l *loop) writeFrame(entries []*pb.Entry, must bool) error {
	if len(entries) == 0 && !must && !l.log.isStateDue() {
		return nil
	}
	written, err := l.log.saveFrame(entries)
	l.sinceSnapshot += written
	return err
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
	if l.pending.bytes < maxPending && (l.core == nil || l.core.waitingBytes() < maxPending) {
		props = l.node.props
	}
	return jobs, props
}

// handleReadies does all work that the core has, piece by piece.
func (l *loop) handleReadies() error {
	for {
		var w *work
		isDue := false
		if l.core != nil {
			w, isDue = l.core.next()
		}
		if isDue {
			if err := l.carryOut(w); err != nil {
				return err
			}
		}
		if err := l.followMembers(); err != nil {
			return err
		}
		if !isDue && (l.core == nil || !l.core.leadAlone()) {
			break
		}
	}
	l.endWaiters()
	l.publishStatus()
	failAll(l.lost, ErrNotLeader)
	l.lost = nil
	return nil
}

// carryOut does one piece of work. Messages are sent last, since term, vote and entries must be
// on disk before anybody hears of them.
func (l *loop) carryOut(w *work) error {
	l.lost = append(l.lost, w.lost...)
	if w.state != nil {
		l.log.state = w.state
	}
	if err := l.writeFrame(w.entries, w.snapshot != nil); err != nil {
		return err
	}
	before := l.conf
	if w.snapshot != nil {
		if l.download == nil || l.download.stored == nil || l.download.stored.at != w.snapshot.position {
			panic("BUG: quorum: raft takes a snapshot that is not on disk")
		}
		if err := l.install(*w.snapshot); err != nil {
			return err
		}
	}
	answered, err := l.core.written(w)
	if err != nil {
		return err
	}
	if len(w.messages) > 0 {
		l.requests.send(w.messages)
	}
	if w.snapshot == nil {
		noteMembers(l, before)
	}
	l.queueCommitted(w.committed, answered)
	return nil
}

// noteMembers makes a snapshot due if the members have changed: raft sends one only to members
// that it names.
func noteMembers(l *loop, before *pb.ConfState) {
	if before != l.conf {
		l.sinceSnapshot = max(l.sinceSnapshot, l.node.cfg.SnapshotBytes)
	}
}

// endWaiters answers the callers of changes and transfers that have their results.
func (l *loop) endWaiters() {
	if l.core == nil {
		return
	}
	for _, w := range l.core.endedWaiters() {
		w.done <- w.err
	}
}

// publishStatus publishes the loop's status. It is called before the answer to a proposal that
// has failed, since the caller may look there for the reason.
func (l *loop) publishStatus() {
	s := &loopStatus{termStart: l.termStart, memory: l.memory, snapshot: l.snapshot.index, conf: l.conf, committed: l.committed}
	s.State, s.Leader, s.Commit = l.state, -1, l.committed.index
	_, s.Last = l.bounds()
	s.RaftID, s.Members = l.self, Members{Voters: l.conf.GetVoters(), Learners: l.conf.GetLearners()}
	s.IsChanging, s.isSole = isJoint(l.conf), isSole(l)
	s.Term = l.log.state.GetTerm()
	switch {
	case l.core == nil:
		s.Role = Observer
	case l.isVoter(l.self):
		s.Role = Voter
	default:
		s.Role = Learner
	}
	if c := l.core; c != nil {
		s.leads = c.leads && (l.state != Faulted || l.isSoleVoter())
		if s.Term = c.term; c.hearsLeader() {
			s.LeaderRaftID = c.leader
		}
		if s.leads {
			s.Leader = l.node.cfg.ID
		}
		if c.leads && l.hasOthers() {
			s.Match = c.matches()
		}
	}
	if slices.Contains(l.conf.GetVoters(), l.self) {
		s.Voters = []int32{l.node.cfg.ID}
	}
	old := l.node.status.Swap(s)
	if old == nil || old.Commit != s.Commit || old.snapshot != s.snapshot || old.memory != s.memory {
		l.node.news.announce()
	}
}

// queueCommitted adds committed entries, and the proposals that wait for them, to the pending
// job.
func (l *loop) queueCommitted(committed []*pb.Entry, answered []*proposal) {
	l.pending.waiting = append(l.pending.waiting, answered...)
	if len(committed) == 0 {
		return
	}
	for _, e := range committed {
		if len(e.GetData()) == 0 || e.GetType() != pb.EntryNormal {
			continue // a change of the members, or the first entry of a term, which raft makes
		}
		l.pending.entries = append(l.pending.entries, e)
		l.pending.bytes += len(e.GetData())
	}
	l.pending.at, l.pending.conf = l.committed, l.conf
}

// becomeFaulted ends all writes of the node: after a failed write or sync it is unknown which
// bytes are on disk, so no proposal may be acknowledged, and no message answered. A leader asks
// another voter to lead. The node ends if there are entries with which it cannot go on.
func (l *loop) becomeFaulted(err error) {
	if errors.Is(err, ErrNotApplied) || isWentBack(err) {
		l.endLoop(err)
		return
	}
	if l.core != nil && !l.isSoleVoter() {
		if messages := l.core.resign(); len(messages) > 0 {
			l.requests.send(messages)
		}
	}
	l.state = Faulted
	l.node.cfg.Logger.Error("the metadata log cannot be written, metadata is read-only until a restart", "err", err)
	l.publishStatus()
	l.failWaiting(ErrFaulted)
}

// endLoop fails all proposals that wait, and those of a job that could not be applied, ends the
// applier, the writer and all requests, and closes the log.
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
	l.node.endRequests()
	if l.download != nil && l.download.phase == storing {
		if err := <-l.stored; err != nil {
			l.node.cfg.Logger.Warn("a snapshot of another node was not stored", "err", err)
		}
	}
	l.node.disk = l.log.close()
}

func (l *loop) failWaiting(err error) {
	failAll(l.lost, err)
	l.lost = nil
	if l.core == nil {
		return
	}
	failAll(l.core.waiting, err)
	l.core.waiting = nil
	for _, w := range append(l.core.moves, l.core.change) {
		if w != nil {
			w.done <- err
		}
	}
	l.core.moves, l.core.change = nil, nil
}
