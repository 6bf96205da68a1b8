package quorum

import (
	"fmt"

	pb "go.etcd.io/raft/v3/raftpb"
)

// observer is the machine of a node that is no member. It pulls the committed log from a member
// and writes it into the same files as a member, so that its log is a prefix of every member's.
// When an entry makes the node a member, a core goes on with the same tail, and the other way round.
//
//	idle --nextPull--> pulling --answer, failed--> idle
//	                   pulling --answer: too far behind--> the loop gets a snapshot --> idle
type observer struct {
	*tail
	state observerState
}

type observerState uint8

const (
	observerIdle    observerState = iota
	observerPulling               // an answer is due
	observerPaused                // the last pull failed: the next one begins at the next tick
)

// nextPull returns the request to send now, if one is due.
func (o *observer) nextPull() (p Pull, ok bool) {
	if o.state != observerIdle {
		return Pull{}, false
	}
	o.state = observerPulling
	p = Pull{Observer: o.self, From: o.committed.index + 1, Last: o.committed.index, LastTerm: o.committed.term}
	if o.knowsNothing() {
		p.From, p.Last, p.LastTerm = 0, 0, 0
	}
	return p, true
}

// knowsNothing tells whether this node knows no members yet.
func (o *observer) knowsNothing() bool { return len(o.conf.GetVoters()) == 0 }

func (o *observer) tick() {
	if o.state == observerPaused {
		o.state = observerIdle
	}
}

// failed notes that a pull had no answer, or one that cannot be used.
func (o *observer) failed() { o.state = observerPaused }

// answer takes the answer to a pull. It returns entries to be written, all of them committed, and
// the state to be written with them, or the index of the snapshot that is needed first.
func (o *observer) answer(p *pulled, have *pb.HardState) (w *work, snapshot uint64, err error) {
	if p.snapshot > 0 {
		o.state = observerPaused // until the snapshot is there
		return nil, p.snapshot, nil
	}
	o.state = observerIdle
	if len(p.entries) == 0 {
		return nil, 0, nil
	}
	if err := o.contradict(p.member, p.prev); err != nil && !o.knowsNothing() {
		return nil, 0, err
	}
	if p.prev != o.committed || o.knowsNothing() {
		o.state = observerPaused
		return nil, 0, fmt.Errorf("%w: entries after entry %d of term %d, but the log ends with entry %d of term %d",
			ErrMessage, p.prev.index, p.prev.term, o.committed.index, o.committed.term)
	}
	last := p.entries[len(p.entries)-1]
	return &work{entries: p.entries, committed: p.entries, state: stateAfter(have, position{last.GetIndex(), last.GetTerm()})}, 0, nil
}

// written notes that the work of an answer is on disk.
func (o *observer) written(w *work, misfit func(*pb.Entry, error)) error {
	if err := o.append(w.entries); err != nil {
		return err
	}
	return o.commit(w.committed, nil, misfit)
}

// stateAfter is raft's state on disk of a node whose log is committed up to a position. The vote
// stays: the node may have been a member, and may be one again.
func stateAfter(have *pb.HardState, at position) *pb.HardState {
	s := &pb.HardState{Term: new(have.GetTerm()), Vote: new(have.GetVote()), Commit: new(max(have.GetCommit(), at.index))}
	if at.term > have.GetTerm() {
		s.Term, s.Vote = new(at.term), new(uint64(0))
	}
	return s
}
