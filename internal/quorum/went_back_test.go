package quorum

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/leatstream/leat/internal/vfs"
)

// killClone is the disk of a member as it is now.
func (m *member) killClone() vfs.FS { return m.fs.(*vfs.Mem).KillClone(nil) }

// awaitEnd waits until a node has ended, and returns why.
func awaitEnd(t *testing.T, m *member) error {
	t.Helper()
	select {
	case <-m.Done():
	case <-time.After(time.Minute):
		t.Fatalf("the node goes on: %+v", m.Status())
	}
	return m.Err()
}

// TestRestoredVoterEnds proves that a voter which starts with an older copy of its directory, and whose leader knows what it has
// acknowledged, ends with a sentence, and that the others go on.
func TestRestoredVoterEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, all := cluster(t, 3, 3, nil)
		l := leader(t, all...)
		others := slices.DeleteFunc(slices.Clone(all), func(m *member) bool { return m == l })
		restored := others[0]
		old := restored.killClone()
		propose(t, l.Node, count(0, 10)...)
		time.Sleep(time.Second)
		if err := closeNode(restored.Node); err != nil {
			t.Fatal(err)
		}
		again := w.join(t, int(restored.cfg.ID), old)
		var back *WentBackError
		if err := awaitEnd(t, again); !errors.As(err, &back) || back.Of != again.Status().RaftID || back.Last == 0 || !strings.Contains(err.Error(), "restored from a copy") {
			t.Fatalf("it has ended: %v", err)
		}
		propose(t, l.Node, "after")
		time.Sleep(time.Second)
		if got := others[1].m.state(); got[len(got)-1] != "after" {
			t.Errorf("%q", got)
		}
	})
}

// TestIntactVoterEnds proves that a voter which has committed entries that the others lack, since one of them was started with an
// older copy, ends with a sentence that names the first of them, acknowledges nothing of theirs, and keeps its own log.
func TestIntactVoterEnds(t *testing.T) {
	for _, more := range []int{0, 30} { // lines that the others write before it comes back: it meets a candidate's log, or a longer one
		synctest.Test(t, func(t *testing.T) {
			w, all := cluster(t, 3, 3, nil)
			l := leader(t, all...)
			others := slices.DeleteFunc(slices.Clone(all), func(m *member) bool { return m == l })
			behind, restored := others[0], others[1]
			if err := closeNode(behind.Node); err != nil {
				t.Fatal(err)
			}
			old, last := restored.killClone(), restored.Status().Commit
			propose(t, l.Node, count(0, 10)...)
			time.Sleep(time.Second)
			for _, m := range []*member{l, restored} {
				if err := closeNode(m.Node); err != nil {
					t.Fatal(err)
				}
			}
			before := l.m.state()
			behind, restored = w.join(t, int(behind.cfg.ID), behind.fs), w.join(t, int(restored.cfg.ID), old)
			propose(t, leader(t, behind, restored).Node, count(100, 100+more)...)
			intact := w.join(t, int(l.cfg.ID), l.fs)
			var back *WentBackError
			if err := awaitEnd(t, intact); !errors.As(err, &back) || back.Last != 0 || back.Entry <= last || !strings.Contains(err.Error(), "keep its directory") {
				t.Fatalf("it has ended: %v", err)
			}
			if got := intact.m.state(); len(got) < len(before)-1 || !slices.Equal(got, before[:len(got)]) { // it may not have heard yet that its last entry was committed
				t.Errorf("it has %q, and had %q", got, before)
			}
			w.mu.Lock()
			for _, m := range w.sent {
				if m.GetFrom() == intact.Status().RaftID && m.GetType() == pb.MsgAppResp && !m.GetReject() && m.GetTerm() > back.Here {
					t.Errorf("it has acknowledged %v", m)
				}
			}
			w.mu.Unlock()
			propose(t, leader(t, behind, restored).Node, "after")
		})
	}
}

// TestRestoredSoleVoterEnds proves that the only voter, started with an older copy, ends when a node asks it for entries after
// one that it does not have, or has another one for: the node's log is behind, or as long by then.
func TestRestoredSoleVoterEnds(t *testing.T) {
	for _, more := range []int{0, 9} {
		synctest.Test(t, func(t *testing.T) {
			w, all := cluster(t, 2, 1, nil)
			old := all[0].killClone()
			propose(t, all[0].Node, count(0, 10)...)
			time.Sleep(time.Second)
			if err := closeNode(all[0].Node); err != nil {
				t.Fatal(err)
			}
			again := w.join(t, 0, old)
			propose(t, again.Node, count(100, 100+more)...) // and the first entry of its term
			if got, want := again.Status().Last, all[1].Status().Commit; more > 0 && got != want {
				t.Fatalf("the log ends with entry %d, and the other one with %d", got, want)
			}
			var back *WentBackError
			if err := awaitEnd(t, again); !errors.As(err, &back) || !back.IsSole || back.Entry != all[1].Status().Commit || !strings.Contains(err.Error(), "leat cluster recover") {
				t.Fatalf("it has ended: %v", err)
			}
			if s := all[1].Status(); s.State != Serving {
				t.Errorf("the observer: %+v", s)
			}
		})
	}
}

// TestObserverWithAnotherHistoryEnds proves that an observer ends whose last entry is another one than the members', instead of asking
// for the next one for ever.
func TestObserverWithAnotherHistoryEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, all := cluster(t, 2, 1, nil)
		old := all[0].killClone()
		propose(t, all[0].Node, count(0, 10)...)
		time.Sleep(time.Second)
		if err := closeNode(all[0].Node); err != nil {
			t.Fatal(err)
		}
		w.mu.Lock()
		w.nodes = w.nodes[1:] // it meets nobody until its log is as long
		w.mu.Unlock()
		again := w.join(t, 0, old) // its new term begins with an entry of its own
		propose(t, again.Node, count(100, 120)...)
		var back *WentBackError
		if err := awaitEnd(t, all[1]); !errors.As(err, &back) || back.Of != again.Status().RaftID {
			t.Fatalf("it has ended: %v", err)
		}
	})
}

// TestContradictions proves which messages show that the log of those who lead went back, and that no message does which an
// earlier leader may have sent.
func TestContradictions(t *testing.T) {
	n, _ := startFollower(t)
	l := n.loop
	app := func(term uint64, prev position, commit uint64, entries ...*pb.Entry) *pb.Message {
		return &pb.Message{
			Type: pb.MsgApp.Enum(), From: new(uint64(5)), To: new(l.self), Term: &term, Index: &prev.index, LogTerm: &prev.term, Commit: &commit, Entries: entries,
		}
	}
	l.stepBatch([]*pb.Message{app(5, position{4, 3}, 6, entryOf(5, 4, "a"), entryOf(6, 5, "b"), entryOf(7, 5, "not committed"))})
	if l.committed.index != 6 || l.knownIn != 5 {
		t.Fatalf("committed %v, known in term %d", l.committed, l.knownIn)
	}
	snap := func(term uint64, at position) *pb.Message {
		return &pb.Message{Type: pb.MsgSnap.Enum(), From: new(uint64(5)), To: new(l.self), Term: &term, Snapshot: snapshotMark{at, l.conf}.raftSnapshot()}
	}
	for _, c := range []struct {
		name  string
		m     *pb.Message
		entry uint64 // that contradicts; 0: none does
	}{
		{"the same entries", app(6, position{4, 3}, 6, entryOf(5, 4, "a"), entryOf(6, 5, "b")), 0},
		{"others in place of what is not committed", app(6, position{6, 5}, 6, entryOf(7, 6, "c")), 0},
		{"an entry in place of a committed one", app(6, position{5, 4}, 5, entryOf(6, 6, "c")), 6},
		{"the entry before", app(6, position{6, 4}, 5), 6},
		{"an earlier leader's", app(4, position{5, 4}, 5, entryOf(6, 4, "c")), 0},
		{"an earlier leader's that is committed there", app(4, position{5, 4}, 6, entryOf(6, 4, "c")), 6},
		{"an entry of before the memory, of a later term", app(6, position{2, 4}, 2), 4},
		{"an entry of before the memory, of an earlier term", app(6, position{2, 2}, 2), 0},
		{"a snapshot of the same entry", snap(6, position{6, 5}), 0},
		{"a snapshot of another entry", snap(6, position{6, 4}), 6},
		{"a later snapshot", snap(6, position{9, 6}), 0},
	} {
		var back *WentBackError
		err := l.core.findContradiction(c.m)
		if is := errors.As(err, &back); is != (c.entry > 0) || is && (back.Of != 5 || c.entry != max(back.Entry, 4)) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestCopiesLeadInOtherTerms proves that an only voter and copies of its directory lead in terms that differ, so that raft can tell their
// entries apart. Of twenty random terms all are the same once in more than 10^30 times.
func TestCopiesLeadInOtherTerms(t *testing.T) {
	fs := newFS()
	n, _ := start(t, fs)
	propose(t, n, "x")
	if err := closeNode(n); err != nil {
		t.Fatal(err)
	}
	before, terms := n.Status().Term, map[uint64]bool{}
	for range 20 {
		copied, _ := start(t, fs.KillClone(nil))
		term, ok := copied.Leading()
		if terms[term] = true; !ok || term <= before {
			t.Errorf("it leads %v in term %d, after term %d", ok, term, before)
		}
		propose(t, copied, "y")
	}
	if len(terms) == 1 {
		t.Errorf("all copies lead in the terms %v", terms)
	}
}
