package quorum

import (
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/leatstream/leat/internal/vfs"
)

// openLog reads the directory and makes sure that all that it has read is on disk. A new
// directory gets a raft id, which is kept once the first frame is written.
func openLog(cfg Config, tune tuning) (l *diskLog, found *recovered, err error) {
	if l, found, err = loadLog(cfg, tune, math.MaxUint64); err != nil {
		return nil, nil, err
	}
	if found.snapshot != nil && !found.counts {
		// Another member's snapshot was stored, and perhaps the sync of its name has failed, so that the
		// name may vanish. The log has not gone on behind it: the state before it is as good.
		if older, before, err := loadLog(cfg, tune, found.base.index); err == nil {
			if err := l.close(); err != nil {
				return nil, nil, errors.Join(err, older.close())
			}
			older.unfinished = append(older.unfinished, fileName(found.base.index, snapshotSuffix))
			l, found = older, before
		}
	}
	if l.raftID == 0 {
		l.raftID = newRaftID()
		found.conf = &pb.ConfState{}
		if !cfg.Join {
			found.conf.Voters = []uint64{l.raftID}
		}
	}
	l.boot.conf, l.state, l.saved = found.conf, found.state, found.state
	if l.number == 1 && cfg.Join {
		// Raft's id of this directory is kept from now on, since other nodes will hear of it.
		if _, err := l.saveFrame(nil); err != nil {
			return nil, nil, errors.Join(fmt.Errorf("quorum: %w", err), l.close())
		}
	}
	return l, found, nil
}

// loadLog reads a log with the newest snapshot before an index.
func loadLog(cfg Config, tune tuning, before uint64) (l *diskLog, found *recovered, err error) {
	l = &diskLog{fs: cfg.FS, dir: cfg.Dir, logger: cfg.Logger, tune: tune, number: 1, boot: boot{nodeID: cfg.ID}, spawn: func(f func()) { go f() }}
	if err := l.fs.MkdirAll(l.dir); err != nil {
		return nil, nil, fmt.Errorf("quorum: %w", err)
	}
	found = &recovered{base: bootBase, state: &pb.HardState{}}
	if err := l.loadDir(found, before); err != nil {
		if errors.Is(err, ErrDamaged) {
			err = fmt.Errorf("%w; %s", err, restoreAdvice)
		}
		if l.f != nil {
			err = errors.Join(err, l.f.Close())
		}
		return nil, nil, fmt.Errorf("%w (in %s)", err, l.dir)
	}
	return l, found, nil
}

// newRaftID makes a random id that no other directory has: raft requires that an id is never
// used again with another log. It is none of the ids that raft reserves.
func newRaftID() uint64 {
	for {
		var b [8]byte
		_, _ = rand.Read(b[:]) // never fails, as its documentation promises
		if id := binary.LittleEndian.Uint64(b[:]); id != raft.None && id < math.MaxUint64-1 {
			return id
		}
	}
}

// loadDir reads the files of the directory, but for snapshots at an index or after it.
func (l *diskLog) loadDir(found *recovered, before uint64) error {
	infos, err := l.fs.ReadDir(l.dir)
	if err != nil {
		return err
	}
	var snapshots []uint64
	for _, info := range infos {
		name, suffix := splitName(info.Name)
		number, numberErr := strconv.ParseUint(name, 10, 64)
		switch {
		case suffix == tmpSuffix:
			l.unfinished = append(l.unfinished, info.Name)
		case info.Name == spareName:
			l.spare = l.spareSize(info)
		case suffix == logSuffix && numberErr == nil:
			l.files = append(l.files, logFile{first: number})
		case suffix == snapshotSuffix && numberErr == nil && number < before:
			snapshots = append(snapshots, number)
		}
	}
	if err := l.loadSnapshot(snapshots, found); err != nil {
		return err
	}
	return l.loadFrames(found)
}

// removeLeftovers removes the files that an earlier run has not finished. It is called when all
// of the directory has been read, since a start that is refused must not change the directory.
// Snapshots that the newest one replaces stay until the next one is made: if an earlier run's
// sync of the directory failed, the newest one's name is not durable, even after a later sync.
func (l *diskLog) removeLeftovers() error {
	for _, name := range l.unfinished {
		if err := l.fs.Remove(l.pathOf(name)); err != nil {
			return err
		}
	}
	l.unfinished = nil
	return nil
}

// spareSize is the size of the spare file. It is 0 if the file was made by another version:
// frames after the head of another format could not be read again.
func (l *diskLog) spareSize(info vfs.Info) int64 {
	f, err := l.fs.Open(l.pathOf(info.Name), vfs.ReadOnly)
	if err != nil {
		return 0
	}
	defer func() { _ = f.Close() }() // it was only read
	head := make([]byte, fileHead)
	if _, err := f.ReadAt(head, 0); err != nil || checkFileHead(head) != nil {
		return 0
	}
	return info.Size
}

// loadFrames reads the log files.
func (l *diskLog) loadFrames(found *recovered) error {
	if len(l.files) == 0 && found.snapshot == nil {
		return nil // a new directory, or one whose first start was interrupted
	}
	if err := l.skipStaleNames(); err != nil {
		return err
	}
	if len(l.files) == 0 || found.snapshot == nil && l.files[0].first != 1 {
		return fmt.Errorf("%w: log files are missing", ErrDamaged)
	}
	if err := l.loadFiles(found); err != nil {
		return err
	}
	return l.completeState(found)
}

// skipStaleNames skips names of log files that are left of a rename. A start takes back a file that
// has no frame; if it fails to sync the directory, and the power is cut later, the old name is
// there, too: for an empty file, or for the file that the log has begun with it since. An empty
// file is only right as the newest one. If a file lost its frames, the next file's number shows it.
func (l *diskLog) skipStaleNames() error {
	slices.SortFunc(l.files, func(a, b logFile) int { return cmp.Compare(a.first, b.first) })
	var kept []logFile
	for i, file := range l.files {
		first, isEmpty, err := l.lookAtFile(file)
		if err != nil {
			return err
		}
		if first != 0 && first != file.first || isEmpty && i < len(l.files)-1 {
			l.unfinished = append(l.unfinished, fileName(file.first, logSuffix))
		} else {
			kept = append(kept, file)
		}
	}
	if len(kept) == 0 {
		return fmt.Errorf("%w: log files are missing", ErrDamaged)
	}
	l.files = kept
	return nil
}

// lookAtFile returns the number of a log file's first frame, 0 if there is no head of a frame, and
// whether the file has nothing after its own head.
func (l *diskLog) lookAtFile(file logFile) (first uint64, isEmpty bool, err error) {
	f, err := l.fs.Open(l.pathOf(fileName(file.first, logSuffix)), vfs.ReadOnly)
	if err != nil {
		return 0, false, err
	}
	defer func() { _ = f.Close() }() // it was only read
	b, err := readAll(f)
	if err != nil || len(b) < fileHead {
		return 0, false, err
	}
	if h, ok := headAt(b, fileHead); ok {
		return h.number, false, nil
	}
	return 0, isZero(b[fileHead:]), nil
}

// loadSnapshot reads the newest snapshot.
func (l *diskLog) loadSnapshot(indexes []uint64, found *recovered) error {
	if len(indexes) == 0 {
		return nil
	}
	s, err := readSnapshot(l.fs, l.dir, slices.Max(indexes))
	if err != nil {
		return err
	}
	if err := l.checkOwner(s.nodeID); err != nil {
		return err
	}
	l.raftID = s.raftID
	found.base, found.conf, found.snapshot = s.at, s.conf, s.data
	if found.snapshot == nil {
		found.snapshot = []byte{}
	}
	return nil
}

// checkOwner refuses the metadata of another node.
func (l *diskLog) checkOwner(nodeID int32) error {
	if nodeID == l.boot.nodeID {
		return nil
	}
	return fmt.Errorf("the metadata is node %d's, but this is node %d: the files of two nodes were mixed; put those of node %d back where they were; if they are lost, start with an empty directory, or, if the cluster has no other node, restore the whole data directory of node %d from a backup",
		nodeID, l.boot.nodeID, l.boot.nodeID, l.boot.nodeID)
}

// loadFiles reads all frames and prepares the last file for further ones.
func (l *diskLog) loadFiles(found *recovered) error {
	l.number = l.files[0].first
	var last lastFrame
	for i := range l.files {
		if err := l.loadFile(i, found, &last); err != nil {
			return fmt.Errorf("%s: %w", fileName(l.files[i].first, logSuffix), err)
		}
	}
	switch {
	case found.gap != nil:
		return found.gap
	case last.bytes == nil && found.snapshot == nil:
		return fmt.Errorf("%w: %s has no whole frame", ErrDamaged, fileName(l.files[0].first, logSuffix))
	case last.bytes == nil: // the snapshot has replaced all frames
		return l.syncNames()
	case last.file < len(l.files)-1:
		if err := l.takeBackFile(last); err != nil {
			return err
		}
	}
	return l.makeDurable(last)
}

// takeBackFile makes the newest file the spare file again, because it has no frame, and the one
// before it the last. An earlier run may have failed to sync the newest one's name, and a later
// sync does not make such a name durable.
func (l *diskLog) takeBackFile(last lastFrame) error {
	empty, before := l.files[last.file+1], l.files[last.file]
	err := l.f.Close()
	l.f = nil
	if err != nil {
		return err
	}
	if err := l.fs.Rename(l.pathOf(fileName(empty.first, logSuffix)), l.pathOf(spareName)); err != nil {
		return err
	}
	l.spare, l.files = l.size, l.files[:last.file+1]
	if l.f, err = l.fs.Open(l.pathOf(fileName(before.first, logSuffix)), vfs.Existing); err != nil {
		return err
	}
	l.off = last.at + int64(len(last.bytes))
	l.size, err = l.f.Size()
	return err
}

// loadFile reads the frames of one file. If it is the last one it stays open.
//
// If a failed sync of the directory and a power cut have brought back an old file that was
// removed, frames are missing between it and the next file. That is no damage if the snapshot has
// all that was found before them, and the next file has a frame: its first frame shows whether an
// entry after the snapshot is missing, by its entries' indexes, or by the commit index with which
// a start begins.
func (l *diskLog) loadFile(i int, found *recovered, last *lastFrame) error {
	file := &l.files[i]
	f, err := l.fs.Open(l.pathOf(fileName(file.first, logSuffix)), vfs.Existing)
	if err != nil {
		return err
	}
	b, err := readAll(f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	gap, err := l.passGap(file.first, len(b) >= fileHead && isZero(b[fileHead:]), found)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	x, err := scanFrames(b, l.number, l.raftID, func(at, size int64, h frameHeader, r *records) error {
		*last = lastFrame{i, at, b[at : at+size]}
		l.raftID = h.raftID
		if n := len(r.entries); n > 0 {
			file.last = max(file.last, r.entries[n-1].GetIndex())
			if r.entries[0].GetIndex() > found.base.index {
				found.bytes += size
			}
		}
		return l.addFrame(found, h, r, at == fileHead)
	})
	l.number = x.next
	if i > 0 {
		file.last = max(file.last, l.files[i-1].last)
	}
	newest := i == len(l.files)-1
	if err == nil && x.next == file.first {
		err = gap
	}
	if err == nil && x.torn > 0 && !newest {
		err = fmt.Errorf("%w: the frame at byte %d is not whole, and a newer file was begun after it", ErrDamaged, x.end)
	}
	if err != nil || !newest {
		return errors.Join(err, f.Close())
	}
	l.f, l.off, l.size = f, x.end, int64(len(b))
	return l.wipeTorn(x.torn)
}

// passGap returns an error if frames are missing before a file with the first frame in its name. If
// the snapshot may have all of them it goes on with the file, and returns an error that counts
// if the file has no frame. An empty file whose number is too low is no error: it is the newest
// one, and its name is left of a rename (see skipStaleNames).
func (l *diskLog) passGap(first uint64, isEmpty bool, found *recovered) (gap, err error) {
	if first == l.number || first < l.number && isEmpty {
		return nil, nil
	}
	gap = fmt.Errorf("%w: frames %d to %d are missing before it", ErrDamaged, l.number, first-1)
	if first < l.number || found.snapshot == nil || len(found.entries) > 0 {
		return nil, gap
	}
	l.number = first
	return gap, nil
}

// addFrame adds a frame's records to found. first tells whether it is the first of its file.
func (l *diskLog) addFrame(found *recovered, h frameHeader, r *records, first bool) error {
	if first && r.state == nil || (h.number == 1) != (r.boot != nil) {
		return fmt.Errorf("%w: the records that a file begins with are missing or misplaced", ErrDamaged)
	}
	if r.boot != nil {
		if err := l.checkOwner(r.boot.nodeID); err != nil {
			return err
		}
		if found.snapshot == nil {
			found.conf = r.boot.conf
		}
	}
	if r.state != nil {
		found.state = r.state
		if found.snapshot != nil && r.state.GetCommit() >= found.base.index {
			found.isOff, found.gap, found.counts = false, nil, true
		}
	}
	for _, e := range r.entries {
		if found.snapshot != nil && e.GetIndex() == found.base.index {
			found.isOff = e.GetTerm() != found.base.term
			found.counts = found.counts || !found.isOff
		}
		if e.GetIndex() <= found.base.index {
			found.entries, found.gap = nil, nil
			continue // it is in the snapshot
		}
		if found.isOff {
			continue // the snapshot has replaced it
		}
		have := found.lastIndex()
		if e.GetIndex() > have+1 {
			found.gap = fmt.Errorf("%w: frame %d has entry %d, which follows entry %d", ErrDamaged, h.number, e.GetIndex(), have)
			continue
		}
		found.gap = nil
		// A new leader may have replaced entries that were not committed.
		found.entries = append(found.entries[:e.GetIndex()-found.base.index-1], e)
	}
	return nil
}

// isAlone tells whether this node was the only voter at each entry that was found. Then all
// entries are committed, since they are on its disk, and can be applied before the node
// campaigns, which writes: a start that is refused, since an entry is of a newer version, has
// changed nothing.
func (l *diskLog) isAlone(found *recovered) bool {
	c := found.conf
	return len(c.GetVoters()) == 1 && c.GetVoters()[0] == l.raftID && len(c.GetVotersOutgoing()) == 0 &&
		!slices.ContainsFunc(found.entries, func(e *pb.Entry) bool { return e.GetType() != pb.EntryNormal })
}

// completeState sets the term and the commit index that raft needs at a start, or returns an
// error if the log has lost committed entries.
func (l *diskLog) completeState(found *recovered) error {
	s, last := found.state, found.lastIndex()
	if s.GetCommit() > last {
		return fmt.Errorf("%w: entry %d was committed, but the log ends with %d",
			ErrDamaged, s.GetCommit(), last)
	}
	commit := max(s.GetCommit(), found.base.index)
	if l.isAlone(found) {
		commit = last
	}
	found.state = &pb.HardState{
		Term: new(max(s.GetTerm(), found.base.term)), Vote: new(s.GetVote()), Commit: new(commit),
	}
	return nil
}

// wipeTorn overwrites with zeros the bytes that a torn write has left after the last frame, so
// that they never look like a frame. It begins with the mark of the frame's head and ends
// with the rest of the head, so that an interrupted wipe leaves a torn write again.
func (l *diskLog) wipeTorn(torn int64) error {
	if torn == 0 {
		return nil
	}
	l.logger.Warn("the metadata log's last write was cut by a crash; it was never acknowledged",
		"file", fileName(l.files[len(l.files)-1].first, logSuffix), "offset", l.off, "bytes", torn)
	const toMark = frameHead - 1
	for _, part := range []struct{ from, bytes int64 }{{toMark, max(torn-toMark, 1)}, {0, toMark}} {
		if _, err := l.f.WriteAt(make([]byte, part.bytes), l.off+part.from); err != nil {
			return err
		}
		if err := l.f.Sync(); err != nil {
			return err
		}
	}
	return nil
}

// makeDurable syncs what may be in the page cache only, after the process was killed: the last
// frame, and the names. It writes the frame again before the sync, since after a failed sync
// the system regards pages as clean that are not on disk.
func (l *diskLog) makeDurable(last lastFrame) error {
	if _, err := l.f.WriteAt(last.bytes, last.at); err != nil {
		return err
	}
	return errors.Join(l.f.Sync(), l.syncNames())
}
