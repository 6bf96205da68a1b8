package quorum

import (
	"errors"

	"github.com/leatstream/leat/internal/vfs"
)

// askSnapshot has the applier capture the state after the pending job.
func (l *loop) askSnapshot() {
	if l.snapshotPhase != idle {
		return
	}
	l.snapshotPhase, l.sinceSnapshot, l.pending.capture = asked, 0, true
}

// askSnapshotFor has a snapshot made for an observer that needs one, unless there is one.
func (l *loop) askSnapshotFor() {
	first, _ := l.bounds()
	if l.snapshot.index == 0 || l.snapshot.index+1 < first {
		l.sinceSnapshot = max(l.sinceSnapshot, l.node.cfg.SnapshotBytes)
	}
}

// writeSnapshot starts the writer.
func (l *loop) writeSnapshot(c capture) {
	l.snapshotPhase = writing
	fs, dir := l.log.fs, l.log.dir
	s := &snapshot{at: c.at, raftID: l.log.raftID, boot: boot{l.node.cfg.ID, c.conf}}
	l.spawn(func() {
		s.data = c.encode()
		l.written <- writtenSnapshot{snapshotMark{s.at, s.conf}, writeSnapshot(fs, dir, s, tmpSuffix)}
	})
}

// noteSnapshot makes the name of a written snapshot durable, and drops the log that the
// snapshot replaces. A failure costs only disk space: another snapshot is made when the log has
// grown by a quarter of SnapshotBytes. Only a failed sync of the directory is a fault, since
// it may have lost other names, too, and a failed frame. After a fault nothing is dropped: it is
// unknown which frames are on disk.
func (l *loop) noteSnapshot(w writtenSnapshot) {
	l.snapshotPhase = idle
	if l.state == Faulted {
		return
	}
	if w.err == nil {
		w.err = l.log.syncDir()
	}
	if w.err == nil && w.mark.index > l.snapshot.index {
		l.snapshot = w.mark
		l.publishStatus()
	}
	isFrameLost := false
	if w.err == nil {
		w.err = l.log.noteCommit(l.snapshot.index)
		isFrameLost = w.err != nil && !errors.Is(w.err, vfs.ErrNoSpace)
	}
	if w.err == nil {
		w.err = l.log.dropReplaced(l.snapshot.index) // also this one, if a newer one has come from the leader
	}
	switch {
	case (isFrameLost || errors.Is(w.err, errNamesLost)) && l.state != Ended:
		l.becomeFaulted(w.err)
	case w.err != nil:
		l.node.cfg.Logger.Error("the metadata's snapshot failed, its log goes on growing", "err", w.err)
		l.sinceSnapshot = max(l.sinceSnapshot, l.node.cfg.SnapshotBytes-l.node.cfg.SnapshotBytes/4)
	}
}
