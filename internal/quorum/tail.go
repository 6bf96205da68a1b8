package quorum

import (
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/confchange"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"
)

const (
	keepEntries = 1024    // committed entries that stay in memory for other nodes
	keepBytes   = 1 << 20 // their bytes
)

// tail is the part of the log that is in memory, and the members that its committed entries name.
// The core and the observer, of which a node has one at a time, continue the same tail.
type tail struct {
	self      uint64              // raft's id of this directory
	memory    *raft.MemoryStorage // all of it is on disk, too
	conf      *pb.ConfState       // the members at the last committed entry; none: a new observer does not know them
	committed position            // of the last committed entry
	knownIn   uint64              // a term in which a member knew that it is committed: no later leader lacks it
	lastTerm  uint64              // of the newest entry
	termStart uint64              // index of the first entry of lastTerm
	lastConf  uint64              // index of the newest change of the members, committed or not
	snapshot  snapshotMark        // the newest one on disk
	wanted    bool                // raft has wanted a snapshot to send, and there was none that fits
	bytesKept int64               // of committed entries in memory
}

// snapshotMark is a snapshot without its data; index 0 means that there is none.
type snapshotMark struct {
	position
	conf *pb.ConfState
}

// newTail makes the tail of a log that was found on disk. None of its entries is committed yet.
func newTail(self uint64, found *recovered) (*tail, error) {
	t := &tail{
		self: self, memory: raft.NewMemoryStorage(), conf: found.conf,
		committed: found.base, knownIn: found.state.GetTerm(), lastTerm: found.base.term, termStart: found.base.index,
	}
	if found.snapshot != nil {
		t.snapshot = snapshotMark{found.base, found.conf}
	}
	base := snapshotMark{found.base, found.conf}
	if err := errors.Join(t.memory.ApplySnapshot(base.raftSnapshot()), t.memory.Append(found.entries)); err != nil {
		return nil, fmt.Errorf("quorum: %w", err)
	}
	t.noteEntries(found.entries)
	return t, nil
}

// raftSnapshot is the snapshot in the form in which raft keeps and sends it. Its data does not
// travel in raft's message: the receiver asks for it in parts.
func (s snapshotMark) raftSnapshot() *pb.Snapshot {
	return &pb.Snapshot{Metadata: &pb.SnapshotMetadata{ConfState: s.conf, Index: new(s.index), Term: new(s.term)}}
}

// append adds entries that are on disk. They may replace entries that were not committed.
func (t *tail) append(entries []*pb.Entry) error {
	if err := t.memory.Append(entries); err != nil {
		return err
	}
	if len(entries) > 0 && entries[0].GetIndex() <= t.lastConf {
		t.lastConf = t.committed.index // the change is replaced
		if before := entries[0].GetIndex(); before > t.committed.index+1 {
			kept, err := t.memory.Entries(t.committed.index+1, before, noLimit)
			if err != nil {
				return err
			}
			t.noteEntries(kept)
		}
	}
	t.noteEntries(entries)
	return nil
}

// noteEntries finds the beginning of the newest term, and the newest change of the members.
func (t *tail) noteEntries(entries []*pb.Entry) {
	for _, e := range entries {
		if e.GetTerm() > t.lastTerm {
			t.lastTerm, t.termStart = e.GetTerm(), e.GetIndex()
		}
		if e.GetType() != pb.EntryNormal {
			t.lastConf = e.GetIndex()
		}
	}
}

// commit notes that entries are committed, and applies the changes of the members among them.
// Every member skips a change that does not fit, and reports it by misfit.
func (t *tail) commit(entries []*pb.Entry, apply func(pb.ConfChangeI) *pb.ConfState, misfit func(e *pb.Entry, err error)) error {
	for _, e := range entries {
		t.committed = position{e.GetIndex(), e.GetTerm()}
		t.bytesKept += int64(len(e.GetData()))
		if e.GetType() == pb.EntryNormal {
			continue
		}
		change, err := parseConfChange(e)
		if err != nil {
			return fmt.Errorf("%w: entry %d: %w", ErrNotApplied, e.GetIndex(), err)
		}
		conf, err := changeConf(t.conf, change)
		switch {
		case err != nil:
			misfit(e, err)
			continue
		case apply != nil:
			conf = apply(change)
		}
		t.conf = conf
	}
	return nil
}

// install replaces all entries by a snapshot that is on disk.
func (t *tail) install(s snapshotMark) error {
	if err := t.memory.ApplySnapshot(s.raftSnapshot()); err != nil {
		return err
	}
	t.snapshot, t.committed, t.conf = s, s.position, s.conf
	t.lastTerm, t.termStart, t.lastConf, t.bytesKept = s.term, s.index, s.index, 0
	return nil
}

// dropUncommitted drops the entries that are not committed. Only a node that is no member does so.
func (t *tail) dropUncommitted() error {
	first, last := t.bounds()
	if last == t.committed.index {
		return nil
	}
	term, err := t.memory.Term(first - 1)
	if err != nil {
		return err
	}
	entries, err := t.memory.Entries(first, t.committed.index+1, noLimit)
	if err != nil && t.committed.index >= first {
		return err
	}
	memory := raft.NewMemoryStorage()
	base := snapshotMark{position{first - 1, term}, t.conf}
	if err := errors.Join(memory.ApplySnapshot(base.raftSnapshot()), memory.Append(entries)); err != nil {
		return err
	}
	t.memory = memory
	t.lastTerm, t.termStart, t.lastConf = term, first-1, first-1
	t.noteEntries(entries)
	return nil
}

const noLimit = ^uint64(0)

// bounds are the indexes of the first entry in memory and of the last one.
func (t *tail) bounds() (first, last uint64) {
	first, err := t.memory.FirstIndex()
	if err == nil {
		last, err = t.memory.LastIndex()
	}
	if err != nil {
		panic("BUG: " + err.Error()) // it never fails
	}
	return first, last
}

// compact drops committed entries from memory, but for some that other nodes may ask for. If
// there are other members it keeps the entries after the newest snapshot, which raft sends them.
func (t *tail) compact() {
	first, _ := t.bounds()
	if t.bytesKept < 2*keepBytes && t.committed.index < first+2*keepEntries || t.hasOthers() && t.snapshot.index < first {
		return
	}
	entries, err := t.memory.Entries(first, t.committed.index+1, noLimit)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	kept, bytes := 0, int64(0)
	for ; kept < min(keepEntries, len(entries)) && bytes < keepBytes; kept++ {
		bytes += int64(len(entries[len(entries)-1-kept].GetData()))
	}
	upTo := t.committed.index - uint64(kept)
	if t.hasOthers() {
		upTo = min(upTo, t.snapshot.index)
	}
	if upTo < first {
		return
	}
	if err := t.memory.Compact(upTo); err != nil {
		panic("BUG: " + err.Error())
	}
	t.bytesKept = 0
	for _, e := range entries[upTo-first+1:] {
		t.bytesKept += int64(len(e.GetData()))
	}
}

func (t *tail) isVoter(id uint64) bool {
	return slices.Contains(t.conf.GetVoters(), id) || slices.Contains(t.conf.GetVotersOutgoing(), id)
}

func (t *tail) isMember(id uint64) bool {
	return t.isVoter(id) || slices.Contains(t.conf.GetLearners(), id) || slices.Contains(t.conf.GetLearnersNext(), id)
}

// mayBeMember tells whether an entry after those that are known to be committed makes this node a
// member. The others may know that it is committed, and count on the entries after it that this
// node has acknowledged. So it must not drop them, and goes on as a member.
func (t *tail) mayBeMember() bool {
	if t.lastConf <= t.committed.index {
		return false
	}
	_, last := t.bounds()
	entries, err := t.memory.Entries(t.committed.index+1, last+1, noLimit)
	if err != nil {
		return false // there are none
	}
	return slices.ContainsFunc(entries, func(e *pb.Entry) bool {
		if e.GetType() == pb.EntryNormal {
			return false
		}
		change, err := parseConfChange(e)
		return err != nil || slices.ContainsFunc(change.GetChanges(), func(c *pb.ConfChangeSingle) bool {
			return c.GetNodeId() == t.self && c.GetType() != pb.ConfChangeRemoveNode
		})
	})
}

// isSoleVoter tells whether no other voter exists, also in a change that is under way.
func (t *tail) isSoleVoter() bool {
	isOther := func(id uint64) bool { return id != t.self }
	return slices.Contains(t.conf.GetVoters(), t.self) &&
		!slices.ContainsFunc(t.conf.GetVoters(), isOther) && !slices.ContainsFunc(t.conf.GetVotersOutgoing(), isOther)
}

// hasOthers tells whether there are members beside this node.
func (t *tail) hasOthers() bool {
	isOther := func(id uint64) bool { return id != t.self }
	return slices.ContainsFunc(t.conf.GetVoters(), isOther) || slices.ContainsFunc(t.conf.GetLearners(), isOther) ||
		slices.ContainsFunc(t.conf.GetVotersOutgoing(), isOther)
}

func isJoint(c *pb.ConfState) bool { return len(c.GetVotersOutgoing()) > 0 }

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

// changeConf returns the members after a change. It returns an error for a change that raft
// cannot apply, on which raft would panic.
func changeConf(conf *pb.ConfState, change *pb.ConfChangeV2) (*pb.ConfState, error) {
	changer, err := newChanger(conf)
	if err != nil {
		return nil, err
	}
	if change.LeaveJoint() {
		changer.Tracker.Config, changer.Tracker.Progress, err = changer.LeaveJoint()
	} else if autoLeave, joint := change.EnterJoint(); joint {
		changer.Tracker.Config, changer.Tracker.Progress, err = changer.EnterJoint(autoLeave, change.GetChanges()...)
	} else {
		changer.Tracker.Config, changer.Tracker.Progress, err = changer.Simple(change.GetChanges()...)
	}
	if err != nil {
		return nil, err
	}
	return changer.Tracker.ConfState(), nil
}

// newChanger returns an error for members that are no valid configuration.
func newChanger(conf *pb.ConfState) (confchange.Changer, error) {
	changer := confchange.Changer{Tracker: tracker.MakeProgressTracker(1, 0), LastIndex: 1}
	var err error
	changer.Tracker.Config, changer.Tracker.Progress, err = confchange.Restore(changer, conf)
	if err == nil {
		err = conf.Equivalent(changer.Tracker.ConfState()) // an id is in two places
	}
	return changer, err
}
