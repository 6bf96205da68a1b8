package quorum

import (
	"errors"
	"fmt"

	pb "go.etcd.io/raft/v3/raftpb"
)

// ErrNoLog is returned by Recover for a directory that has no metadata log.
var ErrNoLog = errors.New("quorum: there is no metadata log")

// Found is the end of a log that is to go on without the other voters.
type Found struct {
	Last      uint64 // index of the newest entry
	Uncertain int    // entries at the end that may have been committed, or not
	IsAlone   bool   // this node is the only voter already, and has no learners
}

// Recover makes the node of a directory the only voter of its quorum, for the case that most of the voters are
// lost for good. It passes all entries that are on the disk to Config.Apply, also those of which this node does
// not know whether they were committed: the lost voters may have committed them. Then decide returns the
// state with which the quorum goes on, or nil, which leaves the directory as it is. No node may run in it.
//
// One rename makes the change: a snapshot of the state at the newest entry, which names this node as the only
// member. Entries that only the lost voters had may have the same indexes as those that follow it, so the
// caller must see to it that no other node of the quorum as it was is ever reached again.
func Recover(cfg Config, decide func(f Found) (state []byte, err error)) error {
	if err := cfg.validate(); err != nil {
		return err
	}
	infos, err := cfg.FS.ReadDir(cfg.Dir)
	if err != nil || len(infos) == 0 {
		return errors.Join(ErrNoLog, err)
	}
	log, found, err := openLog(cfg, defaultTuning)
	if err != nil {
		return err
	}
	return errors.Join(recoverLog(cfg, log, found, decide), log.close())
}

func recoverLog(cfg Config, log *diskLog, found *recovered, decide func(f Found) ([]byte, error)) error {
	t, err := newTail(log.raftID, found)
	if err != nil {
		return err
	}
	known := max(found.state.GetCommit(), found.base.index)
	l := &loop{tail: t}
	if found.snapshot != nil {
		l.pending = job{snapshot: found.snapshot, at: found.base, conf: found.conf}
	}
	if err := t.commit(found.entries, nil, reportMisfit(cfg.Logger)); err != nil {
		return err
	}
	l.queueCommitted(found.entries, nil)
	if err := newApplier(cfg).applyJob(&l.pending); err != nil {
		return err
	}
	state, err := decide(Found{Last: t.committed.index, Uncertain: int(t.committed.index - known), IsAlone: t.isSoleVoter() && !t.hasOthers()})
	if err != nil || state == nil {
		return err
	}
	if err := log.removeLeftovers(); err != nil { // a snapshot that does not count is newer than this one
		return fmt.Errorf("quorum: %w", err)
	}
	alone := &pb.ConfState{Voters: []uint64{log.raftID}}
	s := &snapshot{at: t.committed, raftID: log.raftID, boot: boot{cfg.ID, alone}, data: state}
	err = writeSnapshot(log.fs, log.dir, s, tmpSuffix)
	if err == nil {
		err = log.syncNames()
	}
	if err != nil {
		return fmt.Errorf("quorum: %w", err)
	}
	return nil
}
