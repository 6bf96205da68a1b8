package quorum

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
)

const (
	electionTicks  = 10 // without a leader's message before a member may begin an election; random up to twice as many
	heartbeatTicks = 2
	snapshotTicks  = 20 // for which the leader waits until it sends a snapshot again: its receiver may have failed
	hurryTicks     = 5
	lostTicks      = 20   // without a leader after which a member asks whether it is still one
	catchUpEntries = 1000 // by which a learner may be behind when it becomes a voter
)

// core is the machine of a member: raft, and the callers who wait for entries. It has no
// goroutine, clock or file. The loop tells it of ticks, messages, proposals and changes. After
// each of these the loop takes the work that follows from it, one piece after the other, puts it
// on disk, and says that it is written. Only then may the messages of that work be sent: term,
// vote and entries that they speak of are on disk before anybody hears of them.
//
//	tick, step, propose, change, transfer        next -> a piece of work -> written -> next ...
type core struct {
	*tail
	raft *raft.RawNode

	leads   bool
	leader  uint64 // raft's id; 0: none is known
	term    uint64
	waiting []*proposal // raft has them, in the order of their entries; not committed yet
	change  *waiter     // the caller of a change of the members that is under way
	moves   []*waiter   // callers that wait until another voter leads

	confirmations []*waiter // callers that wait until most voters have confirmed that this node leads, by their numbers
	asked         uint64    // the number of the last confirmation
	confirmed     uint64    // up to this number they have been confirmed

	dead      uint64         // a leader that is certainly dead
	deadTerm  uint64         // the term that it led
	hurry     int            // ticks for which its late messages are dropped
	noLeader  int            // ticks since a leader was heard of; raft does not count them for a learner
	snapshots map[uint64]int // ticks since a snapshot was sent, by member
	misfit    func(e *pb.Entry, err error)
}

// work is what follows from an event.
type work struct {
	snapshot  *snapshotMark // replaces the log; its data is on disk already
	entries   []*pb.Entry   // for the disk
	state     *pb.HardState // for the disk; nil: as before
	messages  []*pb.Message // to be sent when all above is on disk
	committed []*pb.Entry   // all changes of the members in them are applied by written
	lost      []*proposal   // this node does not lead any more, so that raft may have dropped them
	ready     raft.Ready
}

// waiter is a caller that waits for a change of the members or for another leader.
type waiter struct {
	index     uint64 // of the change's entry, or the number of a confirmation
	confirmed uint64 // of the entry that tells the members that the change is complete; 0: it is not in the log yet
	ticks     int
	err       error
	done      chan error // of size 1
}

// coreStorage is the log in memory, with the state and the snapshot that are on disk.
type coreStorage struct {
	*raft.MemoryStorage
	tail  *tail
	state *pb.HardState
}

// InitialState is what a member begins with: its committed entries are applied already.
func (s coreStorage) InitialState() (*pb.HardState, *pb.ConfState, error) {
	return s.state, s.tail.conf, nil
}

// Snapshot returns the newest snapshot, without its data. It must have the present members: raft
// drops a snapshot that does not name its receiver, and says nothing. A new one is made after
// each change. The entries after it must be in memory, or its receiver would need another one.
func (s coreStorage) Snapshot() (*pb.Snapshot, error) {
	first, _ := s.tail.bounds()
	if at := s.tail.snapshot; at.index > 0 && at.index+1 >= first && at.conf.Equivalent(s.tail.conf) == nil {
		return at.raftSnapshot(), nil
	}
	s.tail.wanted = true
	return nil, raft.ErrSnapshotTemporarilyUnavailable
}

// newCore makes the machine of a member whose committed entries are applied. state is on disk.
func newCore(t *tail, state *pb.HardState, logger raft.Logger, misfit func(*pb.Entry, error)) (*core, error) {
	c := &core{tail: t, term: state.GetTerm(), snapshots: map[uint64]int{}, misfit: misfit}
	var err error
	c.raft, err = raft.NewRawNode(&raft.Config{
		ID: t.self, Storage: coreStorage{t.memory, t, state}, Applied: t.committed.index, Logger: logger,
		ElectionTick: electionTicks, HeartbeatTick: heartbeatTicks, PreVote: true, CheckQuorum: true,
		DisableProposalForwarding: true, StepDownOnRemoval: true,
		MaxSizePerMsg: 1 << 20, MaxCommittedSizePerReady: 16 << 20, MaxInflightMsgs: 256,
	})
	if err != nil {
		return nil, fmt.Errorf("quorum: %w", err)
	}
	return c, nil
}

// tick tells that a tenth of an election's time is over.
func (c *core) tick() {
	c.raft.Tick()
	if c.noLeader++; c.leads {
		c.noLeader = 0
	}
	c.hurryElection()
	for _, w := range c.moves {
		w.ticks++
	}
	if c.leads {
		c.repeatSnapshots()
		c.leaveJoint()
		c.confirmChange()
	}
}

// repeatSnapshots has raft send snapshots again to members that have not answered: they may
// have failed, and raft would wait for ever.
func (c *core) repeatSnapshots() {
	sent := map[uint64]int{}
	c.raft.WithProgress(func(id uint64, _ raft.ProgressType, p tracker.Progress) {
		if p.State == tracker.StateSnapshot {
			sent[id] = c.snapshots[id] + 1
		}
	})
	for id, ticks := range sent {
		if ticks > snapshotTicks {
			c.raft.ReportSnapshot(id, raft.SnapshotFailure)
			delete(sent, id)
		}
	}
	c.snapshots = sent
}

// leaveJoint proposes the second half of a change of the voters. Raft does this itself when the
// first half is applied, unless leadership was being transferred at that moment.
func (c *core) leaveJoint() {
	if isJoint(c.conf) && c.conf.GetAutoLeave() && c.isConfSettled() {
		_ = c.raft.ProposeConfChange(&pb.ConfChangeV2{}) // the next tick tries again
	}
}

// confirmChange proposes an empty entry when a change of the members is complete on this node. The message
// that brings the entry to another member commits the change there. So once the entry is committed, most of the
// new voters know that they vote, and can elect a leader without this node: before that, a node which was the only
// voter could take the knowledge with it.
func (c *core) confirmChange() {
	w := c.change
	if w == nil || w.confirmed != 0 || !c.leads || c.committed.index < w.index || isJoint(c.conf) {
		return
	}
	if c.raft.Propose(nil) == nil { // else leadership is being transferred, and the next tick tries again
		_, last := c.bounds()
		w.confirmed = last + 1 // the log ends there, see startChange
	}
}

// isConfSettled tells whether all changes of the members in the log are committed, and with them all
// entries of earlier terms, among which there could be another one.
func (c *core) isConfSettled() bool {
	return c.committed.index >= c.lastConf && c.committed.index >= c.termStart && c.lastTerm == c.term
}

// isLost tells whether no leader has been heard of for long: this node may be none of the
// members any more, of which it would never be told.
func (c *core) isLost() bool { return c.noLeader > lostTicks }

// hearsLeader tells whether this node leads, or has heard of a leader lately. Raft itself goes on to name the last leader to
// a learner that hears nothing any more.
func (c *core) hearsLeader() bool { return c.leads || c.noLeader <= electionTicks }

// noteAnswer notes the answer to the question that isLost is about. Without one, it is asked again soon.
func (c *core) noteAnswer(err error) {
	if c.noLeader = 0; err != nil {
		c.noLeader = electionTicks + 1
	}
}

// committedBy completes a message with committed entries as if their leader had sent it. For raft it
// makes no difference from whom a committed entry comes. The acknowledgement goes to the node that has
// answered, and is true.
func (c *core) committedBy(from uint64, m *pb.Message) *pb.Message {
	term := max(c.term, m.GetSnapshot().GetMetadata().GetTerm())
	if n := len(m.GetEntries()); n > 0 {
		term = max(term, m.GetEntries()[n-1].GetTerm())
	}
	m.From, m.To, m.Term = new(from), new(c.self), new(term)
	return m
}

// step takes a message of another member. It drops one that raft could not bear, and returns a WentBackError for one that
// shows that this node, or those that lead it, have lost entries which they had.
func (c *core) step(m *pb.Message) error {
	if c.hurry > 0 && m.GetFrom() == c.dead && m.GetTerm() == c.deadTerm {
		return nil // it was late: a node that starts again does not lead that term
	}
	_, last := c.bounds()
	switch {
	case m.GetType() == pb.MsgHeartbeat && m.GetCommit() > last && m.GetTerm() >= c.term: // it speaks of no entry that this node has not acknowledged
		return &WentBackError{Of: c.self, Entry: m.GetCommit(), Last: last}
	case m.GetType() == pb.MsgAppResp && !m.GetReject() && m.GetIndex() > last:
		return fmt.Errorf("entry %d is acknowledged, but the log ends with %d", m.GetIndex(), last)
	}
	if err := c.findContradiction(m); err != nil {
		return err
	}
	switch m.GetType() {
	case pb.MsgApp, pb.MsgHeartbeat, pb.MsgSnap:
		if m.GetTerm() >= c.term {
			c.noLeader = 0
		}
	default:
	}
	if err := c.raft.Step(m); err != nil && !errors.Is(err, raft.ErrStepPeerNotFound) && !errors.Is(err, raft.ErrProposalDropped) {
		return err
	}
	return nil
}

// propose gives a proposal to raft. It is refused if it was decided in another term.
func (c *core) propose(p *proposal) error {
	// No term can begin between this check and raft's append.
	if !c.leads || p.term != c.term {
		return fmt.Errorf("%w in term %d", ErrNotLeader, p.term)
	}
	if err := c.raft.Propose(p.data); err != nil {
		return fmt.Errorf("%w: %w", ErrNotLeader, err)
	}
	c.waiting = append(c.waiting, p)
	return nil
}

// startMove has raft make another voter the leader.
func (c *core) startMove(to uint64, w *waiter) error {
	if !c.leads {
		return ErrNotLeader
	}
	if to == c.self || !slices.Contains(c.conf.GetVoters(), to) {
		return fmt.Errorf("%w: %016x is no other voter", ErrMembers, to)
	}
	c.raft.TransferLeader(to)
	c.moves = append(c.moves, w)
	return nil
}

// leadAlone begins an election if this node is the only voter and does not lead: it has no ticks
// that would do so. It returns whether there is work now.
func (c *core) leadAlone() bool {
	if c.leads || !c.isSoleVoter() {
		return false
	}
	_ = c.raft.Campaign() // it never fails
	return c.raft.HasReady()
}

// forget notes that the leader is dead, for which the caller has a proof such as a refused
// connection. The voter with the lowest id of the others begins an election at once, so that
// votes are not split; the others wait for their time to come. It tries again at the next ticks,
// since others grant no vote before they know of the death, too.
func (c *core) forget(id uint64) {
	if id != c.leader || c.leads {
		return
	}
	c.dead, c.deadTerm, c.hurry = id, c.term, hurryTicks
	_ = c.raft.ForgetLeader() // a follower never refuses it
	c.leader = 0
	c.hurryElection()
}

// hurryElection begins an election if the leader is dead and it is this voter's turn.
func (c *core) hurryElection() {
	if c.hurry == 0 {
		return
	}
	c.hurry--
	others := slices.DeleteFunc(slices.Clone(c.conf.GetVoters()), func(v uint64) bool { return v == c.dead })
	if c.leader == 0 && c.term == c.deadTerm && len(others) > 0 && slices.Min(others) == c.self {
		_ = c.raft.Campaign() // it never fails
	}
}

// startConfirmation asks the voters whether this node still leads. w gets its result when most of them have answered a message
// that was sent after this.
func (c *core) startConfirmation(w *waiter) error {
	if !c.leads {
		return ErrNotLeader
	}
	c.asked++
	w.index = c.asked
	c.confirmations = append(c.confirmations, w)
	c.raft.ReadIndex(binary.BigEndian.AppendUint64(nil, w.index))
	return nil
}

// resign returns the message by which the leader asks the voter that has the most entries to lead.
// It needs no disk.
func (c *core) resign() []*pb.Message {
	if !c.leads {
		return nil
	}
	best, match, active := uint64(0), uint64(0), false
	c.raft.WithProgress(func(id uint64, typ raft.ProgressType, p tracker.Progress) {
		if id == c.self || typ != raft.ProgressTypePeer || active && !p.RecentActive {
			return
		}
		if best == 0 || p.RecentActive && !active || p.Match > match {
			best, match, active = id, p.Match, p.RecentActive
		}
	})
	if best == 0 {
		return nil
	}
	return []*pb.Message{{Type: pb.MsgTimeoutNow.Enum(), To: new(best), From: new(c.self), Term: new(c.term)}}
}

// next returns the next piece of work. The caller must put it on disk, and then call written.
func (c *core) next() (w *work, ok bool) {
	if !c.raft.HasReady() {
		return nil, false
	}
	rd := c.raft.Ready()
	w = &work{entries: rd.Entries, messages: rd.Messages, committed: rd.CommittedEntries, ready: rd}
	if rd.SoftState != nil {
		c.leads, c.leader = rd.RaftState == raft.StateLeader, rd.Lead
	}
	if !raft.IsEmptyHardState(rd.HardState) {
		w.state = rd.HardState
		c.term = rd.GetTerm()
	}
	if !raft.IsEmptySnap(rd.Snapshot) {
		at := rd.Snapshot.GetMetadata()
		w.snapshot = &snapshotMark{position{at.GetIndex(), at.GetTerm()}, at.GetConfState()}
	}
	for _, s := range rd.ReadStates {
		c.confirmed = max(c.confirmed, binary.BigEndian.Uint64(s.RequestCtx))
	}
	if len(c.waiting) > 0 && (!c.leads || c.waiting[0].term != c.term) {
		w.lost, c.waiting = c.waiting, nil
	}
	return w, true
}

// written notes that a piece of work is on disk. It returns the proposals that are committed.
func (c *core) written(w *work) (answered []*proposal, err error) {
	if w.snapshot != nil {
		if err := c.install(*w.snapshot); err != nil {
			return nil, err
		}
	}
	if err := c.append(w.entries); err != nil {
		return nil, err
	}
	c.noteIndexes(w.entries)
	if err := c.commit(w.committed, c.raft.ApplyConfChange, c.misfit); err != nil {
		return nil, err
	}
	c.knownIn = max(c.knownIn, c.term)
	n := 0
	for n < len(c.waiting) && c.waiting[n].index != 0 && c.waiting[n].index <= c.committed.index {
		n++
	}
	answered, c.waiting = c.waiting[:n:n], c.waiting[n:]
	c.raft.Advance(w.ready)
	c.confirmChange()
	return answered, nil
}

// noteIndexes finds the entries of the waiting proposals among those that raft has appended.
// It skips the entries that raft makes itself.
func (c *core) noteIndexes(entries []*pb.Entry) {
	i := 0
	for i < len(c.waiting) && c.waiting[i].index != 0 {
		i++
	}
	for _, e := range entries {
		if i == len(c.waiting) {
			return
		}
		if e.GetType() == pb.EntryNormal && bytes.Equal(e.GetData(), c.waiting[i].data) {
			c.waiting[i].index = e.GetIndex()
			i++
		}
	}
}

// endedWaiters returns the callers of changes, transfers and confirmations that have their results.
func (c *core) endedWaiters() (ended []*waiter) {
	if w := c.change; w != nil {
		switch {
		case !c.leads:
			w.err = ErrNotLeader
		case w.confirmed == 0 || c.committed.index < w.confirmed:
			w = nil
		}
		if w != nil {
			ended, c.change = append(ended, w), nil
		}
	}
	c.confirmations = slices.DeleteFunc(c.confirmations, func(w *waiter) bool {
		if c.leads && c.confirmed < w.index {
			return false
		}
		if !c.leads {
			w.err = ErrNotLeader
		}
		ended = append(ended, w)
		return true
	})
	c.moves = slices.DeleteFunc(c.moves, func(w *waiter) bool {
		if (c.leads || c.leader == 0) && w.ticks <= 2*electionTicks {
			return false
		}
		if c.leads || c.leader == 0 {
			w.err = ErrNotMoved
		}
		ended = append(ended, w)
		return true
	})
	return ended
}

// waitingBytes are the bytes of proposals that are not committed.
func (c *core) waitingBytes() (n int) {
	for _, p := range c.waiting {
		n += len(p.data)
	}
	return n
}

// startChange proposes a change of the members. w gets its result.
func (c *core) startChange(term uint64, want Members, w *waiter) error {
	if !c.leads || term != c.term {
		return fmt.Errorf("%w in term %d", ErrNotLeader, term)
	}
	if !c.isConfSettled() || isJoint(c.conf) || c.change != nil {
		return ErrChangeUnderWay
	}
	if err := c.checkMembers(want); err != nil {
		return err
	}
	changes := diffMembers(c.conf, want)
	if len(changes) == 0 {
		w.done <- nil
		return nil
	}
	change := &pb.ConfChangeV2{Changes: changes}
	if _, err := changeConf(c.conf, change); err != nil {
		return fmt.Errorf("%w: %w", ErrMembers, err)
	}
	if err := c.raft.ProposeConfChange(change); err != nil {
		return fmt.Errorf("%w: %w", ErrNotLeader, err)
	}
	_, last := c.bounds()
	w.index = last + 1 // the log ends there, since all earlier work is written
	c.change = w
	return nil
}

// checkMembers refuses members that the quorum must not have. Two voters are worse than one,
// since both are needed; four are worse than three. A new voter must have answered: a leader that cannot
// reach its voters loses the quorum for good.
func (c *core) checkMembers(want Members) error {
	all := slices.Concat(want.Voters, want.Learners)
	slices.Sort(all)
	switch {
	case len(slices.Compact(slices.Clone(all))) != len(all) || slices.Contains(all, 0):
		return fmt.Errorf("%w: an id is there twice, or is none", ErrMembers)
	case len(all) > maxConfMembers/2:
		return fmt.Errorf("%w: %d members, at most %d are possible", ErrMembers, len(all), maxConfMembers/2)
	case len(want.Voters)%2 == 0:
		return fmt.Errorf("%w: %d voters, an odd number is needed", ErrMembers, len(want.Voters))
	case !slices.Contains(want.Voters, c.self):
		return fmt.Errorf("%w: the leader cannot be removed, transfer leadership first", ErrMembers)
	}
	_, last := c.bounds()
	match := c.matches()
	for _, v := range want.Voters {
		if slices.Contains(c.conf.GetVoters(), v) {
			continue
		}
		if !slices.Contains(c.conf.GetLearners(), v) {
			return fmt.Errorf("%w: %016x must be a learner before it becomes a voter", ErrMembers, v)
		}
		switch {
		case match[v] == 0: // it has not answered this leader
			return fmt.Errorf("%w: learner %016x has not answered yet", ErrNotCaughtUp, v)
		case match[v]+catchUpEntries < last:
			return fmt.Errorf("%w: learner %016x has entries up to %d of %d", ErrNotCaughtUp, v, match[v], last)
		}
	}
	return nil
}

// matches are the indexes up to which the leader knows that members have its log.
func (c *core) matches() map[uint64]uint64 {
	match := map[uint64]uint64{}
	c.raft.WithProgress(func(id uint64, _ raft.ProgressType, p tracker.Progress) { match[id] = p.Match })
	return match
}

// diffMembers returns the changes that make the wanted members of the present ones.
func diffMembers(conf *pb.ConfState, want Members) (changes []*pb.ConfChangeSingle) {
	add := func(typ pb.ConfChangeType, ids, have []uint64) {
		for _, id := range ids {
			if !slices.Contains(have, id) {
				changes = append(changes, &pb.ConfChangeSingle{Type: typ.Enum(), NodeId: new(id)})
			}
		}
	}
	add(pb.ConfChangeAddNode, want.Voters, conf.GetVoters())
	add(pb.ConfChangeAddLearnerNode, want.Learners, conf.GetLearners())
	add(pb.ConfChangeRemoveNode, slices.Concat(conf.GetVoters(), conf.GetLearners()), slices.Concat(want.Voters, want.Learners))
	return changes
}
