package quorum

import (
	"errors"
	"fmt"

	pb "go.etcd.io/raft/v3/raftpb"
)

// WentBackError says that metadata which were there are lost: a data directory was started that was restored from an
// older copy. Raft cannot bear that, so the node ends, before it acknowledges anything that it cannot stand for.
//
// If Of is this node, its own log went back: it had Entry, and the log ends with Last. Otherwise the
// log of those that lead went back: Entry is committed here in the term Here, and the member Of has
// another one in its place, of the term There.
type WentBackError struct {
	Of          uint64 // raft's id
	Entry       uint64
	Last        uint64 // 0: another node's log went back; at least Entry: it has another entry there
	IsSole      bool   // this node decides alone
	Here, There uint64
}

func (e *WentBackError) Error() string {
	if e.Last > 0 {
		advice := "a copy is no backup of a node of a cluster: remove this node with leat cluster remove, and join with an empty directory"
		if e.IsSole {
			advice = "start the newest directory of this node; if it is lost, make another node the cluster with leat cluster recover, or this one, without what was decided since"
		}
		what := fmt.Sprintf("its log ends with entry %d", e.Last)
		if e.Last >= e.Entry {
			what = "has another one there now"
		}
		return fmt.Sprintf("quorum: this node had entry %d of the metadata log, and %s: its data directory is older than that, as one that was restored from a copy; %s", e.Entry, what, advice)
	}
	return fmt.Sprintf("quorum: entry %d of the metadata log is committed here in term %d, and the node with raft's id %016x has another one of term %d there: the metadata of the other nodes went back, "+
		"as they do when a data directory is started that was restored from a copy, and lack what was decided before; this node has it, so keep its directory. "+
		"Either stop all nodes, make this one the cluster with leat cluster recover, and join the others with empty directories; "+
		"or give up what the others lack: remove this node with leat cluster remove, and join with an empty directory", e.Entry, e.Here, e.Of, e.There)
}

// noteAhead looks whether another node has an entry, which is committed, that this one lacks or has another one for, though
// nothing is committed without it, since it is the only voter. The loop ends the node.
func (n *Node) noteAhead(s *loopStatus, at position) {
	if term, err := s.memory.Term(at.index); at.index <= s.Last && (err != nil || at.term == 0 || term == at.term) {
		return // an entry that is not in memory any more is compared when its node asks for newer ones
	}
	run := func(l *loop) {
		_, last := l.bounds()
		if isSole(l) && (at.index > last || at.term > 0 && l.contradict(l.self, at) != nil) {
			l.becomeFaulted(&WentBackError{Of: l.self, Entry: at.index, Last: last, IsSole: true})
		}
	}
	select {
	case n.commands <- command{run, func(error) {}}:
	default: // the next pull tells it again
	}
}

func isSole(l *loop) bool { return l.isSoleVoter() && l.lastConf <= l.committed.index }

func isWentBack(err error) bool {
	var w *WentBackError
	return errors.As(err, &w)
}

// findContradiction returns an error for a message that has another entry than the one which is committed here. Raft would
// answer it, and its sender take the answer for an acknowledgement of what the sender has there. It is no proof if the
// message is older than what is committed here, unless its sender says that its entry is committed, too.
func (c *core) findContradiction(m *pb.Message) error {
	list := []position{}
	switch m.GetType() {
	case pb.MsgApp:
		list = append(list, position{m.GetIndex(), m.GetLogTerm()})
		for _, e := range m.GetEntries() {
			if e.GetIndex() > c.committed.index {
				break
			}
			list = append(list, position{e.GetIndex(), e.GetTerm()})
		}
	case pb.MsgSnap:
		at := m.GetSnapshot().GetMetadata()
		list = append(list, position{at.GetIndex(), at.GetTerm()})
	default:
	}
	for _, at := range list {
		isProof := m.GetTerm() >= c.knownIn || m.GetType() == pb.MsgSnap || m.GetCommit() >= at.index
		if err := c.contradict(m.GetFrom(), at); err != nil && isProof {
			return err
		}
	}
	return nil
}

// contradict returns an error if a member has another entry at a position than the one that is committed here, as far as the
// entries in memory tell.
func (t *tail) contradict(member uint64, at position) error {
	if at.index == 0 || at.index > t.committed.index {
		return nil
	}
	first, _ := t.bounds()
	here, err := t.memory.Term(max(at.index, first-1))
	if err != nil || here == at.term || at.index < first-1 && here > at.term { // the terms of entries never fall
		return nil //nolint:nilerr // it was compacted, which cannot be
	}
	return &WentBackError{Of: member, Entry: at.index, Here: here, There: at.term}
}
