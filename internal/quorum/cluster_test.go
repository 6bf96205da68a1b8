package quorum

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/leatstream/leat/internal/vfs"
)

// network connects nodes of one process. Nodes that have ended are not reached.
type network struct {
	mu    sync.Mutex
	nodes []*Node
	first map[int32]int32 // which node another one pulls from first; it goes to the next one after an error
	sent  []*pb.Message
	drop  func(m *pb.Message) bool // nil: none is lost
}

type port struct {
	net  *network
	self int32
}

func (p port) Send(messages []Message) {
	for _, m := range messages {
		decoded, err := decodeMessage("c", m.Data)
		if err != nil {
			panic(err)
		}
		p.net.mu.Lock()
		p.net.sent = append(p.net.sent, decoded)
		lost := p.net.drop != nil && p.net.drop(decoded)
		p.net.mu.Unlock()
		if to := p.net.find(m.To); to != nil && !lost {
			_ = to.Step(m.Data)
		}
	}
}

func (p port) ReadCommitted(ctx context.Context, pull Pull) ([]byte, error) {
	p.net.mu.Lock()
	id, ok := p.net.first[p.self]
	p.net.mu.Unlock()
	if ok {
		b, err := p.net.all()[id].ReadCommitted(ctx, pull)
		if err == nil {
			return b, nil
		}
	}
	for _, n := range p.net.all() {
		if s := n.Status(); n.cfg.ID != p.self && s.State != Ended && s.Role != Observer {
			return n.ReadCommitted(ctx, pull)
		}
	}
	return nil, errors.New("no member")
}

func (p port) ReadSnapshot(_ context.Context, part Part) ([]byte, error) {
	if n := p.net.find(part.Of); n != nil {
		return n.ReadSnapshot(part)
	}
	return nil, errors.New("it does not run")
}

func (w *network) all() []*Node {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.nodes)
}

func (w *network) find(id uint64) *Node {
	for _, n := range w.all() {
		if s := n.Status(); s.RaftID == id && s.State != Ended {
			return n
		}
	}
	return nil
}

// member is a node of a test's cluster.
type member struct {
	*Node
	m  *machine
	fs vfs.FS
}

// join starts a node with an id; node 0 founds the cluster.
func (w *network) join(t *testing.T, id int, fs vfs.FS) *member {
	t.Helper()
	m := &machine{}
	cfg := config(fs, m)
	cfg.ID, cfg.Transport, cfg.Cluster, cfg.Join = int32(id), port{w, int32(id)}, "c", id > 0
	n, err := openTuned(cfg, small)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeNode(n) })
	w.mu.Lock()
	w.nodes = append(slices.DeleteFunc(w.nodes, func(o *Node) bool { return o.cfg.ID == int32(id) }), n)
	w.mu.Unlock()
	return &member{n, m, fs}
}

// cluster starts nodes, of which the first voters are voters.
func cluster(t *testing.T, nodes, voters int, disks func(id int) vfs.FS) (*network, []*member) {
	t.Helper()
	w := &network{}
	var all []*member
	for id := range nodes {
		fs := vfs.FS(newFS())
		if disks != nil {
			fs = disks(id)
		}
		all = append(all, w.join(t, id, fs))
		if id == 0 {
			propose(t, all[0].Node, "first")
		}
	}
	time.Sleep(5 * time.Second)
	if voters > 1 {
		ids := raftIDs(all[:voters])
		for _, want := range []Members{{ids[:1], ids[1:]}, {Voters: ids}} {
			term, _ := all[0].Leading()
			if err := all[0].ChangeMembers(t.Context(), term, want); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Second)
		}
	}
	return w, all
}

func raftIDs(members []*member) (ids []uint64) {
	for _, m := range members {
		ids = append(ids, m.Status().RaftID)
	}
	return ids
}

// leader waits until one of the members leads.
func leader(t *testing.T, members ...*member) *member {
	t.Helper()
	for range 100 {
		for _, m := range members {
			if _, ok := m.Leading(); ok {
				return m
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal("no member leads after ten seconds")
	return nil
}

func (m *member) restart(t *testing.T, w *network) *member {
	t.Helper()
	if err := closeNode(m.Node); err != nil {
		t.Fatal(err)
	}
	return w.join(t, int(m.cfg.ID), m.fs)
}

// TestCluster proves that nodes join as observers, become learners and voters, elect another leader
// when the leader ends, have all the same state, and find all again after a restart.
func TestCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, all := cluster(t, 4, 3, nil)
		want := []string{"first"}
		for life := range 6 {
			l := leader(t, all...)
			line := fmt.Sprintf("line %d", life)
			propose(t, l.Node, line)
			want = append(want, line)
			time.Sleep(time.Second)
			for i, m := range all {
				if diff := cmp.Diff(want, m.m.state()); diff != "" {
					t.Fatalf("life %d, node %d: %s", life, i, diff)
				}
				s := m.Status()
				if role := map[bool]Role{true: Voter, false: Observer}[i < 3]; s.Role != role || s.LeaderRaftID != l.Status().RaftID || len(s.Members.Voters) != 3 {
					t.Fatalf("life %d, node %d: %+v", life, i, s)
				}
			}
			if s := l.Status(); len(s.Match) != 3 || slices.Min(slices.Collect(maps.Values(s.Match))) != s.Commit {
				t.Errorf("%+v", s)
			}
			lags := map[uint64]uint64{}
			for _, m := range all {
				maps.Copy(lags, m.Status().Observers)
			}
			if lag, ok := lags[all[3].Status().RaftID]; !ok || lag != l.Status().Commit || len(lags) != 1 {
				t.Errorf("the observer's progress: %v, committed %d", lags, l.Status().Commit)
			}
			i := slices.Index(all, l)
			closeNode(l.Node)
			others := slices.Delete(slices.Clone(all[:3]), i, i+1)
			next := leader(t, others...)
			propose(t, next.Node, line+" without it")
			want = append(want, line+" without it")
			all[i] = w.join(t, i, l.fs)
		}
	})
}

// TestRemovedLearnersFindTheLeader proves that learners which are removed become observers and follow the log within some
// seconds, also if each of them asks the other one, which hears no more of the leader than it does itself: nobody tells a
// node that it was removed.
func TestRemovedLearnersFindTheLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, all := cluster(t, 3, 1, nil)
		ids := raftIDs(all)
		term, _ := all[0].Leading()
		for _, want := range []Members{{ids[:1], ids[1:]}, {Voters: ids[:1]}} {
			if want.Learners == nil {
				w.mu.Lock()
				w.first = map[int32]int32{1: 2, 2: 1}
				w.drop = func(m *pb.Message) bool { return m.GetFrom() == ids[0] } // they do not hear of their removal
				w.mu.Unlock()
			}
			if err := all[0].ChangeMembers(t.Context(), term, want); err != nil {
				t.Fatal(err)
			}
			if want.Learners != nil {
				time.Sleep(time.Second)
			}
		}
		propose(t, all[0].Node, "after")
		time.Sleep(5 * time.Second)
		for i, m := range all[1:] {
			if s := m.Status(); s.Role != Observer || !slices.Equal(m.m.state(), []string{"first", "after"}) {
				t.Errorf("node %d is %v and has %v", i+1, s.Role, m.m.state())
			}
		}
	})
}

// TestReportDead proves that another voter leads after two ticks at most when the nodes know that the
// leader is dead; an election by time takes ten at least.
func TestReportDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, all := cluster(t, 3, 3, nil)
		dead := all[0].Status().RaftID
		closeNode(all[0].Node)
		for _, m := range all[1:] {
			m.ReportDead(dead)
		}
		time.Sleep(250 * time.Millisecond)
		synctest.Wait()
		if _, one := all[1].Leading(); !one {
			if _, two := all[2].Leading(); !two {
				t.Error("nobody leads")
			}
		}
	})
}

// TestTransferLeadership proves that leadership moves at once, that it cannot move to a node that
// is no voter, and that a voter that does not answer is reported.
func TestTransferLeadership(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, all := cluster(t, 4, 3, nil)
		ids := raftIDs(all)
		for _, to := range []uint64{ids[0], ids[3], 77} {
			if err := all[0].TransferLeadership(t.Context(), to); !errors.Is(err, ErrMembers) {
				t.Errorf("to %x: %v", to, err)
			}
		}
		if err := all[1].TransferLeadership(t.Context(), ids[2]); !errors.Is(err, ErrNotLeader) {
			t.Errorf("a follower: %v", err)
		}
		begin := time.Now()
		if err := all[0].TransferLeadership(t.Context(), ids[2]); err != nil || time.Since(begin) > 500*time.Millisecond {
			t.Errorf("%v, after %v", err, time.Since(begin))
		}
		if l := leader(t, all...); l != all[2] {
			t.Errorf("node %d leads", l.cfg.ID)
		}
		w.mu.Lock()
		w.drop = func(m *pb.Message) bool { return m.GetTo() == ids[1] || m.GetFrom() == ids[1] }
		w.mu.Unlock()
		if err := all[2].TransferLeadership(t.Context(), ids[1]); !errors.Is(err, ErrNotMoved) {
			t.Errorf("to a voter that is cut off: %v", err)
		}
		propose(t, leader(t, all[0], all[2]).Node, "after")
	})
}

// TestChangeMembersRefusals proves that changes that the quorum must not make are refused by name and
// change nothing.
func TestChangeMembersRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, all := cluster(t, 5, 1, nil)
		ids := raftIDs(all)
		a, b, c, d := ids[0], ids[1], ids[2], ids[3]
		term, _ := all[0].Leading()
		change := func(want Members) error { return all[0].ChangeMembers(t.Context(), term, want) }
		if err := change(Members{[]uint64{a}, []uint64{b, c}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		before := all[0].Status().Members
		for _, r := range []struct {
			name string
			want Members
			err  error
		}{
			{"no voter", Members{}, ErrMembers},
			{"two voters", Members{Voters: []uint64{a, b}}, ErrMembers},
			{"a voter twice", Members{Voters: []uint64{a, b, b}}, ErrMembers},
			{"voter and learner", Members{[]uint64{a, b, c}, []uint64{b}}, ErrMembers},
			{"without the leader", Members{Voters: []uint64{b}}, ErrMembers},
			{"not a learner", Members{Voters: []uint64{a, b, d}}, ErrMembers},
			{"an id that is none", Members{[]uint64{a}, []uint64{0}}, ErrMembers},
		} {
			if err := change(r.want); !errors.Is(err, r.err) {
				t.Errorf("%s: %v", r.name, err)
			}
		}
		if err := all[0].ChangeMembers(t.Context(), term+1, Members{Voters: []uint64{a}}); !errors.Is(err, ErrNotLeader) {
			t.Errorf("another term: %v", err)
		}
		if err := all[1].ChangeMembers(t.Context(), term, Members{Voters: []uint64{a}}); !errors.Is(err, ErrNotLeader) {
			t.Errorf("a learner: %v", err)
		}
		if diff := cmp.Diff(before, all[0].Status().Members); diff != "" {
			t.Error(diff)
		}
		w.mu.Lock()
		w.drop = func(m *pb.Message) bool { return m.GetTo() == b || m.GetTo() == c }
		w.mu.Unlock()
		for i := range catchUpEntries + 10 {
			propose(t, all[0].Node, fmt.Sprint(i))
		}
		if err := change(Members{Voters: []uint64{a, b, c}}); !errors.Is(err, ErrNotCaughtUp) {
			t.Errorf("learners that are behind: %v", err)
		}
		w.mu.Lock()
		w.drop = nil
		w.mu.Unlock()
		time.Sleep(10 * time.Second)
		w.mu.Lock()
		w.drop = func(m *pb.Message) bool { return m.GetTo() == b || m.GetTo() == c }
		w.mu.Unlock()
		slow := make(chan error, 1)
		go func() { slow <- change(Members{Voters: []uint64{a, b, c}}) }()
		synctest.Wait()
		if err := change(Members{[]uint64{a}, []uint64{b, c, d}}); !errors.Is(err, ErrChangeUnderWay) {
			t.Errorf("while a change is under way: %v", err)
		}
		w.mu.Lock()
		w.drop = nil
		w.mu.Unlock()
		if err := <-slow; err != nil {
			t.Error(err)
		}
	})
}

// TestSilentLearnersDoNotVote proves that a learner that has never answered becomes no voter, however short the
// log is: the leader could lose the quorum to nodes that it cannot reach.
func TestSilentLearnersDoNotVote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, all := cluster(t, 3, 1, nil)
		ids := raftIDs(all)
		a, b, c := ids[0], ids[1], ids[2]
		term, _ := all[0].Leading()
		w.mu.Lock()
		w.drop = func(m *pb.Message) bool { return m.GetTo() == b || m.GetTo() == c }
		w.mu.Unlock()
		if err := all[0].ChangeMembers(t.Context(), term, Members{[]uint64{a}, []uint64{b, c}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := all[0].ChangeMembers(ctx, term, Members{Voters: []uint64{a, b, c}}); !errors.Is(err, ErrNotCaughtUp) {
			t.Errorf("learners that never answered: %v", err)
		}
	})
}

// TestHungDisk proves that a leader whose disk hangs is replaced by one that makes entries, answers
// nothing meanwhile, and follows when its disk goes on.
func TestHungDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		goOn := make(chan struct{})
		hangs := false
		w, all := cluster(t, 3, 3, func(id int) vfs.FS {
			return vfs.NewFaulty(newFS(), func(op vfs.Op, _ string) error {
				mu.Lock()
				hang := hangs && id == 0 && op == vfs.OpSync
				mu.Unlock()
				if hang {
					<-goOn
				}
				return nil
			})
		})
		mu.Lock()
		hangs = true
		mu.Unlock()
		stuck := make(chan error, 1)
		go func() { stuck <- put(t.Context(), all[0].Node, []byte("stuck")) }()
		synctest.Wait()
		w.mu.Lock()
		w.sent = nil
		w.mu.Unlock()
		l := leader(t, all[1:]...)
		propose(t, l.Node, "goes on")
		w.mu.Lock()
		for _, m := range w.sent {
			if m.GetFrom() == all[0].Status().RaftID {
				t.Errorf("it has sent %v", m)
			}
		}
		w.mu.Unlock()
		mu.Lock()
		hangs = false
		mu.Unlock()
		close(goOn)
		if err := <-stuck; !errors.Is(err, ErrNotLeader) {
			t.Errorf("its proposal: %v", err)
		}
		time.Sleep(5 * time.Second)
		for i, m := range all {
			if diff := cmp.Diff([]string{"first", "goes on"}, m.m.state()); diff != "" {
				t.Errorf("node %d: %s", i, diff)
			}
		}
	})
}

// TestFaultedLeaderResigns proves that a leader whose disk fails has another voter lead at once, and
// answers no message after that.
func TestFaultedLeaderResigns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		broken := false
		w, all := cluster(t, 3, 3, func(id int) vfs.FS {
			return vfs.NewFaulty(newFS(), func(op vfs.Op, _ string) error {
				mu.Lock()
				defer mu.Unlock()
				if broken && id == 0 && op == vfs.OpSync {
					return errMedium
				}
				return nil
			})
		})
		mu.Lock()
		broken = true
		mu.Unlock()
		if err := put(t.Context(), all[0].Node, []byte("lost")); !errors.Is(err, ErrFaulted) {
			t.Errorf("its proposal: %v", err)
		}
		synctest.Wait()
		w.mu.Lock()
		w.sent = nil
		w.mu.Unlock()
		term, _ := all[0].Leading()
		if err := all[0].ChangeMembers(t.Context(), term, Members{}); !errors.Is(err, ErrFaulted) {
			t.Errorf("a change of the members: %v", err)
		}
		if _, ok := all[0].Leading(); ok || all[0].Status().State != Faulted {
			t.Errorf("%+v", all[0].Status())
		}
		_, one := all[1].Leading()
		_, two := all[2].Leading()
		if !one && !two {
			t.Error("nobody else leads at once")
		}
		propose(t, leader(t, all[1:]...).Node, "goes on")
		time.Sleep(5 * time.Second)
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, m := range w.sent {
			if m.GetFrom() == all[0].Status().RaftID {
				t.Errorf("it has sent %v", m)
			}
		}
	})
}

// TestNothingIsSentBeforeItIsOnDisk proves that a voter whose disk hangs grants no vote and
// acknowledges no entry.
func TestNothingIsSentBeforeItIsOnDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		goOn := make(chan struct{})
		hangs := false
		w, all := cluster(t, 3, 3, func(id int) vfs.FS {
			return vfs.NewFaulty(newFS(), func(op vfs.Op, _ string) error {
				mu.Lock()
				hang := hangs && id > 0 && op == vfs.OpSync
				mu.Unlock()
				if hang {
					<-goOn
				}
				return nil
			})
		})
		mu.Lock()
		hangs = true
		mu.Unlock()
		w.mu.Lock()
		w.sent = nil
		w.mu.Unlock()
		commit := all[0].Status().Commit
		asked := make(chan error, 1)
		go func() { asked <- put(t.Context(), all[0].Node, []byte("line")) }()
		synctest.Wait()
		w.mu.Lock()
		sent := slices.Clone(w.sent)
		w.mu.Unlock()
		for _, m := range sent {
			if m.GetType() == pb.MsgAppResp && m.GetIndex() > commit {
				t.Errorf("acknowledged: %v", m)
			}
		}
		if len(sent) == 0 || all[0].Status().Commit != commit {
			t.Errorf("%d messages, committed %d", len(sent), all[0].Status().Commit)
		}
		mu.Lock()
		hangs = false
		mu.Unlock()
		close(goOn)
		if err := <-asked; err != nil {
			t.Error(err)
		}
		// A vote: the first write of a voter that is asked for one has the vote.
		mu.Lock()
		hangs, goOn = true, make(chan struct{})
		mu.Unlock()
		w.mu.Lock()
		w.sent = nil
		w.mu.Unlock()
		closeNode(all[0].Node)
		time.Sleep(20 * time.Second)
		w.mu.Lock()
		defer w.mu.Unlock()
		campaigns := 0
		for _, m := range w.sent {
			if m.GetType() == pb.MsgVoteResp || m.GetType() == pb.MsgVote {
				t.Errorf("a vote, though no disk writes: %v", m)
			}
			if m.GetType() == pb.MsgPreVote {
				campaigns++
			}
		}
		if campaigns == 0 {
			t.Error("nobody has tried to be elected: this proves little")
		}
		mu.Lock()
		hangs = false
		mu.Unlock()
		close(goOn)
	})
}

// TestIdleNodes proves that a sole voter with an observer sends nothing and needs no clock.
func TestIdleNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, all := cluster(t, 2, 1, nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(w.sent) > 0 || all[0].loop.needsTicks() || all[1].loop.needsTicks() {
			t.Errorf("%d messages, ticks %v %v", len(w.sent), all[0].loop.needsTicks(), all[1].loop.needsTicks())
		}
	})
}

// TestLaggingNodes proves that an observer and a learner which are far behind, or new, get a snapshot,
// in several parts, and then the entries after it; that Apply gets it as one that replaces the
// state; and that a restart has it.
func TestLaggingNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, all := cluster(t, 3, 1, nil)
		term, _ := all[0].Leading()
		ids := raftIDs(all)
		if err := all[0].ChangeMembers(t.Context(), term, Members{ids[:1], ids[1:2]}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		closeNode(all[1].Node)
		closeNode(all[2].Node)
		var lines []string
		for i := range 2*keepEntries + 500 {
			lines = append(lines, fmt.Sprintf("line %d %s", i, strings.Repeat("x", i%50)))
		}
		propose(t, all[0].Node, lines...)
		for i := range 2 {
			all[i+1] = w.join(t, i+1, all[i+1].fs)
		}
		time.Sleep(10 * time.Second)
		propose(t, all[0].Node, "last")
		time.Sleep(time.Second)
		want := slices.Concat([]string{"first"}, lines, []string{"last"})
		for i, m := range all {
			if !slices.Equal(want, m.m.state()) {
				t.Errorf("node %d has %d lines of %d: %+v", i, len(m.m.state()), len(want), m.Status())
			}
			snapshots := 0
			for _, u := range m.m.calls {
				if u.Snapshot != nil {
					snapshots++
				}
			}
			if i > 0 && snapshots == 0 {
				t.Errorf("node %d got no snapshot", i)
			}
		}
		for i, m := range all {
			all[i] = m.restart(t, w)
		}
		time.Sleep(time.Second)
		for i, m := range all {
			if !slices.Equal(want, m.m.state()) {
				t.Errorf("node %d has %d lines of %d after a restart", i, len(m.m.state()), len(want))
			}
		}
	})
}

// TestReadCommitted proves that a pull waits for entries, ends with its context, and with the node.
func TestReadCommitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, all := cluster(t, 2, 1, nil)
		n := all[0].Node
		ctx, cancel := context.WithCancel(t.Context())
		errs := make(chan error, 2)
		pull := Pull{Observer: 7, From: n.Status().Commit + 1}
		go func() { _, err := n.ReadCommitted(ctx, pull); errs <- err }()
		synctest.Wait()
		cancel()
		if err := <-errs; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		answers := make(chan []byte, 1)
		go func() {
			b, err := n.ReadCommitted(t.Context(), pull)
			answers <- b
			errs <- err
		}()
		synctest.Wait()
		propose(t, n, "new")
		b, err := <-answers, <-errs
		if err != nil {
			t.Fatal(err)
		}
		p, err := decodePulled("c", b)
		if err != nil || len(p.entries) != 1 || p.entries[0].GetIndex() != pull.From || p.prev.index != pull.From-1 {
			t.Errorf("%+v, %v", p, err)
		}
		if _, err := all[1].ReadCommitted(t.Context(), Pull{Observer: 7, From: 1000}); !errors.Is(err, ErrNotMember) {
			t.Errorf("an observer that has nothing: %v", err)
		}
		go func() { _, err := n.ReadCommitted(t.Context(), Pull{Observer: 7, From: 1000}); errs <- err }()
		synctest.Wait()
		closeNode(n)
		if err := <-errs; !errors.Is(err, ErrNotLeader) {
			t.Errorf("after the end: %v", err)
		}
	})
}

// TestForeignMessages proves that messages of other clusters, for other nodes, of unknown nodes and
// of a hostile one do no harm, and fill no log.
func TestForeignMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var text strings.Builder
		w, all := cluster(t, 3, 3, nil)
		n := all[0].Node
		n.cfg.Logger = slog.New(slog.NewTextHandler(&lockedWriter{&mu, &text}, nil))
		self, other := n.Status().RaftID, all[1].Status().RaftID
		message := func(typ pb.MessageType, from, to uint64) *pb.Message {
			return &pb.Message{Type: typ.Enum(), From: &from, To: &to, Term: new(n.Status().Term), Index: new(uint64(1)), Commit: new(uint64(1))}
		}
		term := n.Status().Term
		inTerm := func(term uint64, m *pb.Message) *pb.Message {
			m.Term = &term
			return m
		}
		for _, m := range []struct {
			name string
			data []byte
		}{
			{"another cluster", encodeMessage("d", message(pb.MsgHeartbeat, other, self))},
			{"another node", encodeMessage("c", message(pb.MsgHeartbeat, other, 77))},
			{"an unknown node", encodeMessage("c", message(pb.MsgAppResp, 77, self))},
			{"an unknown leader", encodeMessage("c", message(pb.MsgHeartbeat, 77, self))},
			{"an unknown node that hands over", encodeMessage("c", message(pb.MsgTimeoutNow, 77, self))},
			{"an unknown candidate", encodeMessage("c", inTerm(term+1, message(pb.MsgVote, 77, self)))},
			{"a member in the last term", encodeMessage("c", inTerm(math.MaxUint64-1, message(pb.MsgHeartbeat, other, self)))},
			{"a member in a term that is far ahead", encodeMessage("c", inTerm(term+maxTermStep+1, message(pb.MsgVote, other, self)))},
			{"itself", encodeMessage("c", message(pb.MsgHeartbeat, self, self))},
			{"a local message", encodeMessage("c", message(pb.MsgHup, other, self))},
			{"a forwarded proposal", encodeMessage("c", message(pb.MsgProp, other, self))},
			{"no bytes", nil},
			{"zeros", make([]byte, 100)},
		} {
			for range 100 {
				if err := n.Step(m.data); !errors.Is(err, ErrMessage) {
					t.Errorf("%s: %v", m.name, err)
				}
			}
		}
		if got := n.Status().Term; got != term {
			t.Errorf("the term has become %d, from %d", got, term)
		}
		far := message(pb.MsgAppResp, other, self)
		far.Index = new(uint64(1 << 40))
		if err := n.Step(encodeMessage("c", far)); err != nil {
			t.Error(err)
		}
		propose(t, n, "after")
		time.Sleep(time.Second)
		if got := all[1].m.state(); got[len(got)-1] != "after" {
			t.Errorf("%q", got)
		}
		mu.Lock()
		defer mu.Unlock()
		if lines := strings.Count(text.String(), "dropped"); lines != 1 {
			t.Errorf("%d lines:\n%s", lines, text.String())
		}
		_ = w
	})
}

type lockedWriter struct {
	mu *sync.Mutex
	b  *strings.Builder
}

func (w *lockedWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(b)
}
