package quorum

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"

	pb "go.etcd.io/raft/v3/raftpb"
)

func (s *simulation) nodeOf(raftID uint64) *simNode {
	for _, n := range s.nodes {
		if n.node != nil && n.node.loop.self == raftID {
			return n
		}
	}
	return nil
}

// passes tells whether the network delivers something now, and after how long.
func (s *simulation) passes(from, to *simNode) (delay int, ok bool) {
	if s.cut[[2]int{from.id, to.id}] || s.rng.Float64() < s.loss {
		return 0, false
	}
	if !s.calm && s.rng.IntN(30) == 0 {
		return 1 + s.rng.IntN(100), true // overtaken by many others
	}
	return 1 + s.rng.IntN(s.delay), true
}

// checkAfterCut checks that a power cut at this moment would leave the entries that a message
// acknowledges.
func (n *simNode) checkAfterCut(m *pb.Message) {
	fs := n.disk.Crash(rand.New(rand.NewPCG(uint64(n.acks), uint64(n.id))))
	l, found, err := openLog(Config{ID: int32(n.id), Dir: "data/meta", FS: fs, Logger: slog.New(slog.DiscardHandler)}, small)
	if err != nil {
		n.s.fail("node %d would not start after a power cut: %w", n.id, err)
		return
	}
	if found.lastIndex() < m.GetIndex() || found.state.GetTerm() < m.GetTerm() {
		n.s.fail("node %d sends %v, and after a power cut it would have term %d and entries up to %d", n.id, m, found.state.GetTerm(), found.lastIndex())
	}
	_ = l.close()
}

// checkOnDisk checks that the term, the vote and the entries of which messages speak are written.
func (n *simNode) checkOnDisk(messages []*pb.Message) {
	l := n.node.loop
	_, last := l.bounds()
	term, vote := l.log.saved.GetTerm(), l.log.saved.GetVote()
	for _, m := range messages {
		ok := true
		switch m.GetType() {
		case pb.MsgPreVote, pb.MsgPreVoteResp:
		case pb.MsgVote:
			ok = term > m.GetTerm() || term == m.GetTerm() && vote == l.self
		case pb.MsgVoteResp:
			ok = m.GetReject() || term > m.GetTerm() || term == m.GetTerm() && vote == m.GetTo()
		case pb.MsgAppResp:
			ok = term >= m.GetTerm() && (m.GetReject() || m.GetIndex() <= last)
			if n.acks++; n.acks%50 == 0 && !m.GetReject() && n.left == nil {
				n.checkAfterCut(m)
			}
		default:
			ok = term >= m.GetTerm()
		}
		if !ok {
			n.s.fail("node %d sends %v, and has on disk term %d, vote %x and entries up to %d", n.id, m, term, vote, last)
		}
	}
}

func (s *simulation) send(from *simNode, messages []Message) {
	if from.left != nil {
		return // it has no power
	}
	for _, m := range messages {
		to := s.nodeOf(m.To)
		if to == nil {
			continue
		}
		for range 1 + max(0, s.rng.IntN(40)-38) { // a few are doubled
			if delay, ok := s.passes(from, to); ok {
				s.after(delay, func() {
					if !from.isLost { // else its messages are lost with it
						s.deliver(m)
					}
				})
			}
		}
	}
}

func (s *simulation) deliver(m Message) {
	to := s.nodeOf(m.To)
	if to == nil {
		return
	}
	if err := to.node.Step(m.Data); err != nil && !errors.Is(err, errUnknownMember) {
		s.fail("a message is refused: %w", err)
	}
	if !to.isUp() {
		return
	}
	l := to.node.loop
	replaced := uint64(0)
	if len(to.node.messages) > 0 {
		batch := gatherMessages(<-to.node.messages, to.node.messages)
		_, before := l.bounds()
		for _, m := range batch {
			if m.GetType() == pb.MsgApp && l.core != nil && m.GetIndex() < before && len(m.GetEntries()) > 0 {
				if term, err := l.memory.Term(m.GetEntries()[0].GetIndex()); err == nil && term != m.GetEntries()[0].GetTerm() {
					replaced++
				}
			}
		}
		l.stepBatch(batch)
	}
	if replaced > 0 {
		s.saw("replaced entries")
	}
	s.note("deliver", m.To, l.committed, l.lastTerm)
	to.afterEvent()
}

// pull passes a pull to some member, which answers when it has entries.
func (s *simulation) pull(from *simNode, p Pull) {
	life := from.node
	if os.Getenv("LEAT_QUORUM_LOG") != "" {
		fmt.Fprintln(os.Stderr, s.now, "node", from.id, "pull", p)
	}
	done := func(data []byte, err error) func() {
		return func() {
			if from.node != life {
				return
			}
			if !from.isUp() {
				err = errors.New("too late")
				s.after(from.hungUntil-s.now+1, s.pulledLate(from, life))
				return
			}
			l := life.loop
			l.handle(func() error { return l.notePulled(data, err) })
			from.afterEvent()
		}
	}
	to := s.nodes[s.rng.IntN(len(s.nodes))]
	delay, ok := s.passes(from, to)
	if !ok || to == from || to.node == nil {
		s.after(50, done(nil, errors.New("nobody answers")))
		return
	}
	target := to.node
	tries := 0
	var try func()
	try = func() {
		tries++
		if to.node != target || !to.isUp() || tries > 10 {
			s.after(1, done(nil, errors.New("no answer")))
			return
		}
		st := target.status.Load()
		if st.State == Faulted {
			s.after(1, done(nil, ErrNotMember))
			return
		}
		target.observers.note(p.Observer, p.Last)
		answer, ok, err := target.readCommitted(st, p)
		if err != nil {
			s.after(1, done(nil, err))
			return
		}
		if !ok && (st.Role == Observer || st.LeaderRaftID == 0) {
			s.after(1, done(nil, ErrNotMember))
			return
		}
		if !ok {
			s.after(10, try)
			return
		}
		back, arrives := s.passes(to, from)
		if !arrives {
			s.after(50, done(nil, errors.New("the answer is lost")))
			return
		}
		s.after(back, done(encodePulled("sim", answer), nil))
	}
	s.after(delay, try)
}

func (s *simulation) pulledLate(from *simNode, life *Node) func() {
	return func() {
		if from.node != life {
			return
		}
		if !from.isUp() {
			s.after(from.hungUntil-s.now+1, s.pulledLate(from, life))
			return
		}
		l := life.loop
		l.handle(func() error { return l.notePulled(nil, io.ErrUnexpectedEOF) })
		from.afterEvent()
	}
}

// fetch passes a request for a part of a snapshot, and its answer.
func (s *simulation) fetch(from *simNode, p Part) {
	life := from.node
	var done func(a partAnswer) func()
	done = func(a partAnswer) func() {
		return func() {
			if from.node != life {
				return
			}
			if !from.isUp() {
				s.after(from.hungUntil-s.now+1, done(a))
				return
			}
			l := life.loop
			if a.err == nil {
				s.seen["snapshot of another node"]++
			}
			l.handle(func() error { l.notePart(a); return nil })
			from.afterEvent()
		}
	}
	to := s.nodeOf(p.Of)
	if to == nil || to == from {
		s.after(20, done(partAnswer{p, nil, errors.New("it does not run")}))
		return
	}
	there, ok := s.passes(from, to)
	back, arrives := s.passes(to, from)
	if !ok || !arrives || to.left != nil {
		s.after(20, done(partAnswer{p, nil, errors.New("lost")}))
		return
	}
	target := to.node
	s.after(there, func() {
		if to.node != target {
			s.after(20, done(partAnswer{p, nil, errors.New("it ended")}))
			return
		}
		data, err := target.ReadSnapshot(p)
		if to.left != nil {
			to.restartLater()
			data, err = nil, errPower
		}
		s.after(back, done(partAnswer{p, data, err}))
	})
}
