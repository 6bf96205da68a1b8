package quorum

import (
	"errors"
	"fmt"
	"path"

	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/leatstream/leat/internal/vfs"
)

const (
	maxPartFailures = 5 // in a row, after which a download is given up
)

// download is a snapshot on its way from another member. Its parts are asked for one after the
// other, and it is written, beside the loop. It counts when its name is durable.
//
//	fetching <--> paused     a part failed: it is asked for again at the next tick
//	fetching  ->  storing    all parts are there
//	storing   ->  naming     its file is written, or could not be
//	naming    ->  installed, or given up; then there is no download
//
// The leader sends raft's message again if it hears of no success, and an observer pulls again,
// so a download may be given up at any time.
type download struct {
	message  *pb.Message // raft's, which counts when the snapshot is stored; nil for a node that has asked itself
	of       uint64      // raft's id of the member that has the snapshot
	index    uint64
	phase    downloadPhase
	failures int
	file     []byte // the sender's file, as far as it is here
	stored   *snapshot
}

type downloadPhase uint8

const (
	fetching downloadPhase = iota // a part is due
	paused
	storing
	naming // a loop that ends in it waits for nothing more
)

// partAnswer is the result of one request.
type partAnswer struct {
	of   Part
	data []byte
	err  error
}

// startDownload begins to fetch a snapshot, unless one is under way already.
func (l *loop) startDownload(d *download) {
	if l.download != nil || d.index <= l.committed.index || l.node.cfg.Transport == nil {
		return
	}
	l.download = d
	d.fetchPart(&l.requests)
}

func (d *download) fetchPart(r *requests) {
	d.phase = fetching
	r.fetch(Part{Of: d.of, Index: d.index, Offset: int64(len(d.file))})
}

// notePart takes the answer to a request for a part.
func (l *loop) notePart(a partAnswer) {
	d := l.download
	whole := int64(0)
	var part []byte
	if a.err == nil {
		whole, part, a.err = decodePart(l.node.cfg.Cluster, a.data)
	}
	if a.err == nil && (len(part) == 0 || int64(len(d.file)+len(part)) > whole || len(part) > snapshotPart) {
		a.err = fmt.Errorf("%w: %d bytes at %d of a snapshot with %d", ErrMessage, len(part), len(d.file), whole)
	}
	if a.err != nil {
		d.phase = paused
		if d.failures++; d.failures > maxPartFailures || errors.Is(a.err, ErrNoSnapshot) {
			l.giveUpDownload(a.err)
		}
		return
	}
	d.failures = 0
	d.file = append(d.file, part...)
	if int64(len(d.file)) < whole {
		l.download.fetchPart(&l.requests)
		return
	}
	l.storeDownload()
}

func (l *loop) giveUpDownload(err error) {
	l.node.cfg.Logger.Warn("a snapshot of the metadata cannot be fetched from another node, it is tried again", "err", err)
	l.download = nil
}

// storeDownload writes a snapshot as this node's own, beside the loop.
func (l *loop) storeDownload() {
	d := l.download
	s, err := parseSnapshot(d.file)
	if err == nil && (s.at.index != d.index || d.message != nil && s.at.term != d.message.GetSnapshot().GetMetadata().GetTerm()) {
		err = fmt.Errorf("%w: it is the snapshot of another entry", ErrDamaged)
	}
	if err == nil {
		_, err = newChanger(s.conf)
	}
	if err != nil {
		l.giveUpDownload(err)
		return
	}
	s.raftID, s.nodeID = l.log.raftID, l.node.cfg.ID
	if s.data == nil {
		s.data = []byte{}
	}
	d.file, d.phase, d.stored = nil, storing, s
	fs, dir := l.log.fs, l.log.dir
	l.spawn(func() { l.stored <- writeSnapshot(fs, dir, s, fetchedSuffix) })
}

// noteStored makes the name of a fetched snapshot durable, and replaces the log by it. It is the
// state after a committed entry, so it does no harm if it is there and raft does not want it.
func (l *loop) noteStored(err error) error {
	d := l.download
	d.phase = naming
	if err == nil {
		err = l.log.syncDir()
		if errors.Is(err, errNamesLost) {
			return err
		}
	}
	if err != nil {
		l.giveUpDownload(err)
		return nil
	}
	mark := snapshotMark{d.stored.at, d.stored.conf}
	if d.message == nil && l.core != nil {
		d.message = l.core.committedBy(d.of, &pb.Message{Type: pb.MsgSnap.Enum()})
	}
	switch {
	case l.core != nil:
		d.message.Snapshot = mark.raftSnapshot()
		d.message.Term = new(max(d.message.GetTerm(), mark.term))
		if err := l.core.step(d.message); isWentBack(err) {
			return err
		} else if err != nil {
			l.node.cfg.Logger.Warn("a snapshot of the metadata was fetched and does not fit", "err", err)
		}
		err = l.handleReadies() // installs it, if raft takes it
	case mark.index > l.committed.index:
		l.log.state = stateAfter(l.log.state, mark.position)
		if err = l.writeFrame(nil, true); err == nil {
			err = l.install(mark)
		}
		l.observer.tick()
	}
	l.download = nil
	if err == nil && l.snapshot.index < mark.index && l.committed.index >= mark.index {
		l.snapshot = mark // raft had the entries meanwhile
	}
	if err == nil && l.snapshot.index != mark.index {
		err = l.log.fs.Remove(l.log.pathOf(fileName(mark.index, snapshotSuffix)))
	}
	return err
}

// install replaces the state by the snapshot that has just been stored, whose frame is written.
// Raft's part is replaced already, unless this node is an observer.
func (l *loop) install(mark snapshotMark) error {
	if l.observer != nil {
		if err := l.tail.install(mark); err != nil {
			return err
		}
	}
	l.pending = job{
		snapshot: l.download.stored.data, at: mark.position, conf: mark.conf,
		waiting: l.pending.waiting, capture: l.pending.capture,
	}
	l.sinceSnapshot = 0
	return l.log.dropAll(mark.index)
}

// readSnapshotPart reads a part of a snapshot's file, and the size of the file. It uses no file of
// the log, and may be called beside the loop.
func readSnapshotPart(fs vfs.FS, dir string, p Part, limit int64) (part []byte, size int64, err error) {
	f, err := fs.Open(path.Join(dir, fileName(p.Index, snapshotSuffix)), vfs.ReadOnly)
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %w", ErrNoSnapshot, err)
	}
	defer func() { _ = f.Close() }() // it was only read
	if size, err = f.Size(); err != nil {
		return nil, 0, err
	}
	if p.Offset < 0 || p.Offset >= size {
		return nil, 0, fmt.Errorf("%w: offset %d of %d bytes", ErrNoSnapshot, p.Offset, size)
	}
	part = make([]byte, min(limit, size-p.Offset))
	n, err := f.ReadAt(part, p.Offset)
	if n < len(part) {
		return nil, 0, fmt.Errorf("quorum: a snapshot cannot be read: %w", err)
	}
	return part, size, nil
}
