package quorum

import (
	pb "go.etcd.io/raft/v3/raftpb"
)

// startSnapshot fetches the snapshot that a leader offers, and tells that raft need not be told of
// it yet: it learns of the message when the snapshot is on disk. If its entry is committed here
// already, raft answers at once, or the leader would offer it for ever.
func (l *loop) startSnapshot(m *pb.Message) (isFetched bool) {
	index := m.GetSnapshot().GetMetadata().GetIndex()
	if m.GetTerm() < l.core.term || index <= l.committed.index {
		return false
	}
	l.startDownload(&download{message: m, of: m.GetFrom(), index: index})
	return true
}

// notePulled takes the answer to a pull.
func (l *loop) notePulled(answer []byte, err error) error {
	l.pulling = false
	var p *pulled
	if err == nil {
		p, err = decodePulled(l.node.cfg.Cluster, answer)
	}
	if err == nil && len(p.entries) > 0 {
		err = checkTermStep(l.log.state.GetTerm(), p.entries[len(p.entries)-1].GetTerm())
	}
	if err == nil {
		l.knownIn = max(l.knownIn, p.term)
	}
	if l.core != nil {
		l.core.noteAnswer(err)
		if err == nil && p.commit > l.committed.index && !l.core.leads {
			return l.learn(p)
		}
		return nil
	}
	if err != nil {
		l.observer.failed()
		l.node.drops.report(l.node.cfg.Logger, 0, err)
		return nil
	}
	l.node.heard.Store(&heard{p.leader, p.term})
	return l.observe(p)
}

// learn takes committed entries that a member had to ask for, since no leader sends them. Nobody
// tells a node that it was removed. The last voter that remains of a change may not know that its
// last entry is committed, when those who know are no members any more.
func (l *loop) learn(p *pulled) error {
	_, last := l.bounds()
	switch {
	case !names(p.conf, l.self) && p.commit >= last: // all that this node has acknowledged comes again
		l.removed = p.commit
		return l.followMembers()
	case p.snapshot > 0:
		l.startDownload(&download{of: p.member, index: p.snapshot})
		return nil
	case len(p.entries) == 0:
		return nil
	default:
		return takeMessages(l, []*pb.Message{l.core.committedBy(p.member, &pb.Message{
			Type: pb.MsgApp.Enum(), Index: new(p.prev.index), LogTerm: new(p.prev.term), Entries: p.entries, Commit: new(p.commit),
		})})
	}
}

// observe writes the entries that an observer has pulled.
func (l *loop) observe(p *pulled) error {
	var size int64
	for _, e := range p.entries {
		size += entryHead + int64(len(e.GetData()))
	}
	if size > 0 {
		if err := l.makeRoom(size); err != nil {
			l.observer.failed()
			return nil //nolint:nilerr // the state says it
		}
	}
	w, snapshot, err := l.observer.answer(p, l.log.state)
	switch {
	case isWentBack(err):
		return err
	case err != nil:
		l.node.drops.report(l.node.cfg.Logger, p.member, err)
		return nil
	case snapshot > 0:
		l.startDownload(&download{of: p.member, index: snapshot})
		return nil
	case w == nil:
		return nil
	}
	l.log.state = w.state
	if err := l.writeFrame(w.entries, false); err != nil {
		return err
	}
	before := l.conf
	if err := l.observer.written(w, reportMisfit(l.node.cfg.Logger)); err != nil {
		return err
	}
	noteMembers(l, before)
	l.queueCommitted(w.committed, nil)
	return nil
}
