package quorum

import (
	"errors"
	"slices"
	"testing"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/leatstream/leat/internal/vfs"
)

func entryOf(index, term uint64, text string) *pb.Entry {
	return &pb.Entry{Index: &index, Term: &term, Type: pb.EntryNormal.Enum(), Data: wrapProposal(term, []byte(text))}
}

func changeOf(t *testing.T, index, term uint64, changes ...*pb.ConfChangeSingle) *pb.Entry {
	t.Helper()
	b, err := proto.Marshal(&pb.ConfChangeV2{Changes: changes})
	if err != nil {
		t.Fatal(err)
	}
	return &pb.Entry{Index: &index, Term: &term, Type: pb.EntryConfChangeV2.Enum(), Data: b}
}

func one(typ pb.ConfChangeType, id uint64) *pb.ConfChangeSingle {
	return &pb.ConfChangeSingle{Type: typ.Enum(), NodeId: &id}
}

func tailOf(t *testing.T, self uint64, conf *pb.ConfState, entries ...*pb.Entry) *tail {
	t.Helper()
	tl, err := newTail(self, &recovered{base: bootBase, conf: conf, state: &pb.HardState{}, entries: entries})
	if err != nil {
		t.Fatal(err)
	}
	return tl
}

// TestSnapshotForOthers proves that raft gets a snapshot to send only if it names the present members,
// and if the entries after it are in memory, and that its data does not travel in raft's message.
func TestSnapshotForOthers(t *testing.T) {
	conf := &pb.ConfState{Voters: []uint64{1}, Learners: []uint64{2}, AutoLeave: new(false)}
	entries := []*pb.Entry{entryOf(2, 1, "a"), entryOf(3, 1, "b"), entryOf(4, 1, "c")}
	for _, c := range []struct {
		name    string
		mark    snapshotMark
		compact uint64
		want    error
	}{
		{"none", snapshotMark{}, 0, raft.ErrSnapshotTemporarilyUnavailable},
		{"without the receiver", snapshotMark{position{3, 1}, &pb.ConfState{Voters: []uint64{1}, AutoLeave: new(false)}}, 0, raft.ErrSnapshotTemporarilyUnavailable},
		{"no members", snapshotMark{position{3, 1}, &pb.ConfState{}}, 0, raft.ErrSnapshotTemporarilyUnavailable},
		{"entries after it are gone", snapshotMark{position{2, 1}, conf}, 3, raft.ErrSnapshotTemporarilyUnavailable},
		{"good", snapshotMark{position{3, 1}, conf}, 3, nil},
	} {
		tl := tailOf(t, 1, conf, entries...)
		tl.snapshot = c.mark
		if c.compact > 0 {
			if err := tl.memory.Compact(c.compact); err != nil {
				t.Fatal(err)
			}
		}
		s, err := coreStorage{tl.memory, tl, nil}.Snapshot()
		if !errors.Is(err, c.want) || err == nil && (s.GetMetadata().GetIndex() != c.mark.index || len(s.GetData()) > 0) {
			t.Errorf("%s: %v, %v", c.name, s, err)
		}
	}
}

// TestMayBeMember proves that a node goes on as a member while an entry that is not known to be committed
// makes it one: it may have acknowledged entries on which the others count.
func TestMayBeMember(t *testing.T) {
	conf := &pb.ConfState{Voters: []uint64{1}, AutoLeave: new(false)}
	for _, c := range []struct {
		name   string
		change *pb.Entry
		want   bool
	}{
		{"nothing", entryOf(3, 1, "x"), false},
		{"another learner", changeOf(t, 3, 1, one(pb.ConfChangeAddLearnerNode, 8)), false},
		{"its own removal", changeOf(t, 3, 1, one(pb.ConfChangeRemoveNode, 7)), false},
		{"a learner", changeOf(t, 3, 1, one(pb.ConfChangeAddLearnerNode, 7)), true},
		{"a voter among others", changeOf(t, 3, 1, one(pb.ConfChangeAddNode, 8), one(pb.ConfChangeAddNode, 7)), true},
	} {
		entries := []*pb.Entry{entryOf(2, 1, "a"), c.change, entryOf(4, 1, "b")}
		tl := tailOf(t, 7, conf, entries...)
		if err := tl.commit(entries[:1], nil, nil); err != nil {
			t.Fatal(err)
		}
		if got := tl.mayBeMember(); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
		if err := tl.append([]*pb.Entry{entryOf(3, 2, "instead")}); err != nil { // a new leader replaces it
			t.Fatal(err)
		}
		if tl.mayBeMember() {
			t.Errorf("%s: it was replaced, and still makes the node a member", c.name)
		}
	}
}

// TestEarlierChangeStays proves that of two changes of the members which are not known to be committed
// the earlier one still counts when the later one is replaced.
func TestEarlierChangeStays(t *testing.T) {
	tl := tailOf(t, 7, &pb.ConfState{Voters: []uint64{1}, AutoLeave: new(false)},
		changeOf(t, 2, 1, one(pb.ConfChangeAddLearnerNode, 7)), changeOf(t, 3, 1, one(pb.ConfChangeAddLearnerNode, 8)))
	if err := tl.append([]*pb.Entry{entryOf(3, 2, "instead")}); err != nil {
		t.Fatal(err)
	}
	if tl.lastConf != 2 || !tl.mayBeMember() {
		t.Errorf("the last change is entry %d", tl.lastConf)
	}
}

// writeLog writes frames of a log, as a member would, and a snapshot of another member.
func writeLog(t *testing.T, frames [][]*pb.Entry, commits []uint64, s *snapshot) vfs.FS {
	t.Helper()
	fs := newFS()
	cfg := config(fs, &machine{})
	cfg.Join, cfg.Transport = true, simTransport{}
	l, _, err := openLog(cfg, small)
	if err != nil {
		t.Fatal(err)
	}
	for i, entries := range frames {
		term := l.state.GetTerm()
		if n := len(entries); n > 0 {
			term = max(term, entries[n-1].GetTerm())
		}
		l.state = &pb.HardState{Term: &term, Vote: new(uint64(0)), Commit: new(commits[i])}
		if _, err := l.saveFrame(entries); err != nil {
			t.Fatal(err)
		}
	}
	s.raftID, s.nodeID = l.raftID, 1
	if err := errors.Join(writeSnapshot(fs, l.dir, s, tmpSuffix), l.syncDir(), l.close()); err != nil {
		t.Fatal(err)
	}
	return fs
}

// TestReplacedLog proves which entries a start finds beside a snapshot of another member: those that it
// has replaced do not come back, those after it are there, and a snapshot behind which the log
// has not gone on does not count.
func TestReplacedLog(t *testing.T) {
	conf := &pb.ConfState{Voters: []uint64{5}, AutoLeave: new(false)}
	for _, c := range []struct {
		name    string
		frames  [][]*pb.Entry
		commits []uint64
		base    uint64
		entries []uint64 // their terms
		err     error
	}{
		{
			"it replaces entries of an older leader",
			[][]*pb.Entry{{entryOf(2, 1, "a"), entryOf(3, 2, "junk"), entryOf(4, 2, "junk"), entryOf(5, 2, "junk")}, nil},
			[]uint64{2, 4},
			4, nil, nil,
		}, {
			"entries follow it",
			[][]*pb.Entry{{entryOf(2, 1, "a"), entryOf(3, 2, "junk"), entryOf(4, 2, "junk"), entryOf(5, 2, "junk")}, nil, {entryOf(5, 3, "b"), entryOf(6, 3, "c")}},
			[]uint64{2, 4, 5},
			4,
			[]uint64{3, 3},
			nil,
		}, {
			"it leaves a gap",
			[][]*pb.Entry{{entryOf(2, 1, "a")}, nil, {entryOf(5, 3, "b")}},
			[]uint64{2, 4, 5},
			4,
			[]uint64{3},
			nil,
		}, {
			"the log has the same entries",
			[][]*pb.Entry{{entryOf(2, 1, "a"), entryOf(3, 2, "b"), entryOf(4, 3, "c"), entryOf(5, 3, "d")}},
			[]uint64{2},
			4,
			[]uint64{3},
			nil,
		}, {
			"the log has not gone on behind it",
			[][]*pb.Entry{{entryOf(2, 1, "a"), entryOf(3, 2, "junk")}},
			[]uint64{2},
			1,
			[]uint64{1, 2},
			nil,
		}, {
			"an entry after it is lost",
			[][]*pb.Entry{{entryOf(2, 1, "a")}, nil, {entryOf(6, 3, "b")}},
			[]uint64{2, 4, 6},
			4, nil, ErrDamaged,
		},
	} {
		fs := writeLog(t, c.frames, c.commits, &snapshot{at: position{4, 3}, boot: boot{conf: conf}, data: []byte("state")})
		for range 2 {
			cfg := config(fs, &machine{})
			l, found, err := openLog(cfg, small)
			if !errors.Is(err, c.err) {
				t.Fatalf("%s: %v", c.name, err)
			}
			if err != nil {
				break
			}
			var terms []uint64
			for _, e := range found.entries {
				terms = append(terms, e.GetTerm())
			}
			if found.base.index != c.base || !slices.Equal(terms, c.entries) {
				t.Errorf("%s: after entry %d, %v", c.name, found.base.index, found.entries)
			}
			if err := errors.Join(l.removeLeftovers(), l.close()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestStateAfter proves that an observer's state keeps the vote of its term, and that a commit index
// never goes back.
func TestStateAfter(t *testing.T) {
	state := func(term, vote, commit uint64) *pb.HardState {
		return &pb.HardState{Term: &term, Vote: &vote, Commit: &commit}
	}
	for _, c := range []struct {
		have *pb.HardState
		at   position
		want *pb.HardState
	}{
		{state(5, 7, 10), position{12, 5}, state(5, 7, 12)},
		{state(5, 7, 10), position{12, 4}, state(5, 7, 12)},
		{state(5, 7, 10), position{12, 6}, state(6, 0, 12)},
		{state(5, 7, 10), position{9, 5}, state(5, 7, 10)},
	} {
		if got := stateAfter(c.have, c.at); !proto.Equal(got, c.want) {
			t.Errorf("%v after %v: %v", c.have, c.at, got)
		}
	}
}

// TestOneChangeAtATime proves that a leader refuses a change of the members before its first entry is
// committed: a change of an earlier term may be among the entries before it.
func TestOneChangeAtATime(t *testing.T) {
	tl := tailOf(t, 1, &pb.ConfState{Voters: []uint64{1}, AutoLeave: new(false)})
	c, err := newCore(tl, &pb.HardState{Term: new(uint64(4)), Commit: new(uint64(1))}, raftLogger{config(nil, nil).Logger}, nil)
	if err != nil {
		t.Fatal(err)
	}
	drain := func(each func()) {
		for w, ok := c.next(); ok; w, ok = c.next() {
			if _, err := c.written(w); err != nil {
				t.Fatal(err)
			}
			each()
		}
	}
	if !c.leadAlone() {
		t.Fatal("no election")
	}
	refused := false
	drain(func() {
		if c.leads && c.committed.index < c.termStart {
			err := c.startChange(c.term, Members{Voters: []uint64{1}, Learners: []uint64{2}}, &waiter{done: make(chan error, 1)})
			refused = errors.Is(err, ErrChangeUnderWay)
		}
	})
	if !refused {
		t.Error("it was not refused")
	}
	w := &waiter{done: make(chan error, 1)}
	if err := c.startChange(c.term, Members{Voters: []uint64{1}, Learners: []uint64{2}}, w); err != nil {
		t.Fatal(err)
	}
	if err := c.startChange(c.term, Members{Voters: []uint64{1}, Learners: []uint64{3}}, w); !errors.Is(err, ErrChangeUnderWay) {
		t.Errorf("a second change: %v", err)
	}
	drain(func() {})
	if ended := c.endedWaiters(); len(ended) != 1 || ended[0] != w || w.err != nil || !slices.Equal(c.conf.GetLearners(), []uint64{2}) {
		t.Errorf("%v, members %v", ended, c.conf)
	}
}

// TestRestartKeepsAcknowledgedEntries proves that a member which starts again, and does not know yet that
// the entry that made it one is committed, keeps the entries that it has acknowledged; and that a
// node which no entry makes a member keeps only what is committed.
func TestRestartKeepsAcknowledgedEntries(t *testing.T) {
	for _, isNamed := range []bool{true, false} {
		fs := newFS()
		cfg := config(fs, &machine{})
		cfg.Join, cfg.Transport = true, simTransport{}
		l, _, err := openLog(cfg, small)
		if err != nil {
			t.Fatal(err)
		}
		id := l.raftID
		if !isNamed {
			id = 77
		}
		conf := &pb.ConfState{Voters: []uint64{5}, AutoLeave: new(false)}
		s := &snapshot{at: position{4, 3}, raftID: l.raftID, boot: boot{1, conf}, data: []byte("state")}
		if err := errors.Join(writeSnapshot(fs, l.dir, s, tmpSuffix), l.syncDir()); err != nil {
			t.Fatal(err)
		}
		l.state = &pb.HardState{Term: new(uint64(3)), Vote: new(uint64(0)), Commit: new(uint64(5))}
		entries := []*pb.Entry{entryOf(5, 3, "a"), changeOf(t, 6, 3, one(pb.ConfChangeAddLearnerNode, id)), entryOf(7, 3, "acknowledged")}
		if _, err := l.saveFrame(entries); err != nil {
			t.Fatal(err)
		}
		if err := l.close(); err != nil {
			t.Fatal(err)
		}
		n, err := prepareNode(cfg, small)
		if err != nil {
			t.Fatal(err)
		}
		_, last := n.loop.bounds()
		if want := map[bool]uint64{true: 7, false: 5}[isNamed]; last != want || (n.Status().Role == Observer) == isNamed || n.Applied() != 5 {
			t.Errorf("named %v: the log ends with %d, %+v", isNamed, last, n.Status())
		}
		n.endRequests()
		if err := n.loop.log.close(); err != nil {
			t.Fatal(err)
		}
	}
}

// startFollower makes a voter of three whose log begins with a snapshot of entry 4 of term 3.
func startFollower(t *testing.T) (*Node, *vfs.Mem) {
	t.Helper()
	fs := newFS()
	cfg := config(fs, &machine{})
	cfg.Join, cfg.Transport = true, simTransport{}
	l, _, err := openLog(cfg, small)
	if err != nil {
		t.Fatal(err)
	}
	conf := &pb.ConfState{Voters: []uint64{l.raftID, 5, 6}, AutoLeave: new(false)}
	s := &snapshot{at: position{4, 3}, raftID: l.raftID, boot: boot{1, conf}, data: []byte("state")}
	l.state = &pb.HardState{Term: new(uint64(3)), Vote: new(uint64(0)), Commit: new(uint64(4))}
	_, frameErr := l.saveFrame(nil)
	if err := errors.Join(writeSnapshot(fs, l.dir, s, tmpSuffix), l.syncDir(), frameErr, l.close()); err != nil {
		t.Fatal(err)
	}
	n, err := prepareNode(cfg, small)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n.endRequests()
		_ = n.loop.log.close()
	})
	return n, fs
}

// TestSnapshotThatIsThere proves that a leader which offers a snapshot again, since the first answer was
// lost, is told that its entry is there.
func TestSnapshotThatIsThere(t *testing.T) {
	n, _ := startFollower(t)
	self, told := n.Status().RaftID, uint64(0)
	n.loop.requests.send = func(messages []*pb.Message) {
		for _, m := range messages {
			if m.GetType() == pb.MsgAppResp && m.GetTo() == 5 && !m.GetReject() {
				told = m.GetIndex()
			}
		}
	}
	n.loop.stepBatch([]*pb.Message{{
		Type: pb.MsgSnap.Enum(), From: new(uint64(5)), To: &self, Term: new(uint64(3)),
		Snapshot: snapshotMark{position{4, 3}, n.loop.conf}.raftSnapshot(),
	}})
	if told != 4 || n.loop.download != nil {
		t.Errorf("the leader is told of entry %d", told)
	}
}

// TestVotesAreOnDisk proves that a vote is on disk before it is sent, also if its term is there already.
func TestVotesAreOnDisk(t *testing.T) {
	n, fs := startFollower(t)
	self := n.Status().RaftID
	votes := 0
	n.loop.requests.send = func(messages []*pb.Message) {
		for _, m := range messages {
			if m.GetType() != pb.MsgVoteResp || m.GetReject() {
				continue
			}
			votes++
			log, found, err := openLog(config(fs.KillClone(nil), &machine{}), small)
			if err != nil {
				t.Fatal(err)
			}
			if found.state.GetTerm() != m.GetTerm() || found.state.GetVote() != m.GetTo() {
				t.Errorf("%v was sent, and the disk has %v", m, found.state)
			}
			_ = log.close()
		}
	}
	vote := func(from, term, last uint64) *pb.Message {
		return &pb.Message{Type: pb.MsgVote.Enum(), From: &from, To: &self, Term: &term, Index: &last, LogTerm: new(uint64(3))}
	}
	n.loop.stepBatch([]*pb.Message{vote(5, 9, 3)}) // refused: its log is behind
	n.loop.stepBatch([]*pb.Message{vote(6, 9, 4)})
	if votes != 1 {
		t.Errorf("%d votes", votes)
	}
}

// TestSoleVoter proves who is the only voter, which leads without ticks, also in the middle of a change of
// its learners.
func TestSoleVoter(t *testing.T) {
	for _, c := range []struct {
		name         string
		conf         *pb.ConfState
		sole, others bool
	}{
		{"alone", &pb.ConfState{Voters: []uint64{7}}, true, false},
		{"alone in a change", &pb.ConfState{Voters: []uint64{7}, VotersOutgoing: []uint64{7}, AutoLeave: new(true)}, true, false},
		{"with a learner", &pb.ConfState{Voters: []uint64{7}, Learners: []uint64{8}}, true, true},
		{"it was alone", &pb.ConfState{Voters: []uint64{7, 8, 9}, VotersOutgoing: []uint64{7}}, false, true},
		{"it will be alone", &pb.ConfState{Voters: []uint64{7}, VotersOutgoing: []uint64{7, 8, 9}}, false, true},
		{"a learner of one voter", &pb.ConfState{Voters: []uint64{8}, Learners: []uint64{7}}, false, true},
		{"no member yet", &pb.ConfState{Voters: []uint64{8}}, false, true},
		{"none known", &pb.ConfState{}, false, false},
	} {
		tl := tailOf(t, 7, c.conf)
		if tl.isSoleVoter() != c.sole || tl.hasOthers() != c.others {
			t.Errorf("%s: sole %v, others %v", c.name, tl.isSoleVoter(), tl.hasOthers())
		}
	}
}

// TestRemovedMember proves that a member which asks, and hears that it is none any more, keeps entries that it
// has acknowledged as long as the answer does not reach so far: a later one may make it a member again.
func TestRemovedMember(t *testing.T) {
	n, _ := startFollower(t)
	l := n.loop
	others := &pb.ConfState{Voters: []uint64{5}, AutoLeave: new(false)}
	l.stepBatch([]*pb.Message{{
		Type: pb.MsgApp.Enum(), From: new(uint64(5)), To: new(l.self), Term: new(uint64(3)), Index: new(uint64(4)), LogTerm: new(uint64(3)),
		Commit: new(uint64(4)), Entries: []*pb.Entry{entryOf(5, 3, "a"), entryOf(6, 3, "acknowledged")},
	}})
	for _, c := range []struct {
		commit, last uint64
		role         Role
	}{{5, 6, Voter}, {9, 5, Observer}} {
		answer := &pulled{member: 5, term: 3, commit: c.commit, conf: others, prev: position{4, 3}, entries: []*pb.Entry{entryOf(5, 3, "a")}}
		l.handle(func() error { return l.notePulled(encodePulled(n.cfg.Cluster, answer), nil) })
		if _, last := l.bounds(); last != c.last || n.Status().Role != c.role {
			t.Errorf("committed up to %d: the log ends with %d, %+v", c.commit, last, n.Status())
		}
	}
}

// TestFilesWithReplacedEntries proves that a snapshot does not remove a file in which a leader has replaced
// entries of an earlier one, while a file after it begins with entries behind those.
func TestFilesWithReplacedEntries(t *testing.T) {
	n, fs := startFollower(t)
	l := n.loop.log
	if _, err := l.saveFrame([]*pb.Entry{entryOf(5, 3, "a"), entryOf(6, 3, "b"), entryOf(7, 3, "c")}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.saveFrame([]*pb.Entry{entryOf(5, 4, "instead")}); err != nil {
		t.Fatal(err)
	}
	if err := l.beginFile(100); err != nil {
		t.Fatal(err)
	}
	if _, err := l.saveFrame([]*pb.Entry{entryOf(6, 4, "d")}); err != nil {
		t.Fatal(err)
	}
	s := &snapshot{at: position{5, 4}, raftID: l.raftID, boot: boot{1, n.loop.conf}, data: []byte("state")}
	if err := errors.Join(writeSnapshot(fs, l.dir, s, tmpSuffix), l.syncDir()); err != nil {
		t.Fatal(err)
	}
	before := len(l.files)
	if err := l.dropReplaced(5); err != nil || len(l.files) != before {
		t.Errorf("%d files of %d: %v", len(l.files), before, err)
	}
	again, found, err := openLog(config(fs, &machine{}), small)
	if err != nil {
		t.Fatal(err)
	}
	defer again.close()
	if found.lastIndex() != 6 || again.files[0].last != 7 {
		t.Errorf("the log ends with %d, and its first file with %d", found.lastIndex(), again.files[0].last)
	}
}
