package quorum

import (
	"errors"

	"github.com/leatstream/leat/internal/vfs"
)

// gatherBatch adds to the first proposal those of other callers that wait now.
func gatherBatch(first *proposal, props <-chan *proposal) []*proposal {
	batch := []*proposal{first}
	for bytes := len(first.data); len(batch) < maxBatchProposals && bytes < maxBatchBytes; {
		select {
		case p := <-props:
			batch = append(batch, p)
			bytes += len(p.data)
		default:
			return batch
		}
	}
	return batch
}

// proposeBatch makes a batch of proposals durable with one sync, or answers them with an error.
func (l *loop) proposeBatch(batch []*proposal) {
	var size int64
	for _, p := range batch {
		size += entryHead + int64(len(p.data))
	}
	if err := l.makeRoom(size); err != nil {
		l.publishStatus()
		failAll(batch, err)
		return
	}
	for _, p := range batch {
		err := ErrNotLeader
		if l.core != nil {
			err = l.core.propose(p)
		}
		if err != nil {
			p.done <- err
		}
	}
	if err := l.handleReadies(); err != nil {
		l.becomeFaulted(err)
	}
}

// makeRoom makes sure that the log has room for entries of so many bytes, before raft gets them: an
// entry cannot be taken back from raft.
func (l *loop) makeRoom(size int64) error {
	if l.state == Faulted {
		return ErrFaulted
	}
	err := l.log.ensureRoom(size)
	switch {
	case errors.Is(err, vfs.ErrNoSpace):
		if l.state == Serving {
			l.node.cfg.Logger.Error("disk full: metadata changes are refused until there is room", "err", err)
		}
		l.state = Full
		return ErrDiskFull
	case err != nil:
		l.becomeFaulted(err)
		return ErrFaulted
	}
	l.state = Serving
	return nil
}
