package quorum

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/leatstream/leat/internal/vfs"
)

// tuning holds sizes that tests make small.
type tuning struct {
	first   int64 // bytes of the first log file, which the first start writes
	segment int64 // bytes of the other log files
	reserve int64 // bytes at a file's end that only a start and elections use, so that a full disk does not prevent them
	tick    time.Duration
	part    int64 // bytes of a snapshot that travel at once
}

var defaultTuning = tuning{first: 256 << 10, segment: 1 << 20, reserve: 64 << 10, tick: 100 * time.Millisecond, part: snapshotPart}

const (
	logSuffix      = ".log"
	snapshotSuffix = ".snapshot"
	tmpSuffix      = ".tmp"
	fetchedSuffix  = ".fetched.tmp" // of a snapshot that was fetched: this node may make one of the same entry meanwhile
	spareName      = "spare"
)

// bootBase is the position before the first entry of a new log. It is no entry: raft gets the
// first voters as the members of a snapshot at it.
var bootBase = position{index: 1, term: 1}

// diskLog is raft's log in files. All blocks of a file are written when it is made, so that a
// later write neither needs space nor changes the file's metadata, which halves the cost of a
// sync. Only the loop uses it.
type diskLog struct {
	fs     vfs.FS
	dir    string
	logger *slog.Logger
	tune   tuning
	raftID uint64       // of this directory; it never changes
	boot   boot         // the content of the first frame
	spawn  func(func()) // runs a function beside the loop

	files  []logFile // the oldest first; the last is written
	f      vfs.File  // the last of files; nil: there is none yet
	off    int64     // of the next frame in f
	size   int64     // of f
	number uint64    // of the next frame
	spare  int64     // bytes of the spare file; 0: there is none that can be used

	// making gets the result when the spare file is made; nil: none is being made. Only one is
	// made at a time, since all have the same temporary name.
	making chan madeSpare

	unfinished []string // names of files that an earlier run has not finished

	state *pb.HardState // the state that the next frame will have
	saved *pb.HardState // the state that was written last

	body, frame []byte // memory for the frame that is being built
}

var (
	// errNamesLost is returned after a failed sync of the directory: a later sync would not
	// report which names it has lost. It never counts as a full disk.
	errNamesLost = errors.New("a sync of the directory failed")
	// errHalfBegun is returned if a new file has its name already when an error occurs. It never
	// counts as a full disk, since the log cannot go on in the file before it.
	errHalfBegun = errors.New("a new file of the log was not begun completely")
)

// madeSpare is the size of a new spare file, or the error.
type madeSpare struct {
	size int64
	err  error
}

// logFile is one file of the log.
type logFile struct {
	first uint64 // its first frame
	last  uint64 // the largest index of the entries in it and in earlier files
}

// recovered is the content of a directory.
type recovered struct {
	base     position      // before the first of entries
	conf     *pb.ConfState // the members at base
	snapshot []byte        // the state at base; nil: none
	state    *pb.HardState
	entries  []*pb.Entry
	bytes    int64 // of the entries' frames

	// A snapshot of another member may have replaced a log whose end was not committed. isOff is true
	// while entries are read that contradict the snapshot. gap is set while entries are read before
	// which others are missing. Both end with the first state that commits the snapshot's entry, or
	// with an entry that follows the snapshot.
	isOff bool
	gap   error

	// counts tells whether the log has the snapshot's entry, or has gone on behind it.
	counts bool
}

// lastIndex is the index of the last entry.
func (r *recovered) lastIndex() uint64 { return r.base.index + uint64(len(r.entries)) }

// lastFrame is the newest whole frame of the log.
type lastFrame struct {
	file  int // in diskLog.files
	at    int64
	bytes []byte
}

// restoreAdvice ends each message about damaged files. The metadata must not be restored alone, since an older copy does not
// have the topics that were created after it; and a copy of a voter's directory lacks what it has agreed to since.
const restoreAdvice = "if the cluster has other nodes, do not restore an older copy: remove this node with leat cluster remove, and join with an empty data directory; " +
	"if it is the only node, restore the whole data directory from a backup, since an older copy of this directory alone would not know the newest topics"

func (l *diskLog) syncNames() error {
	return errors.Join(l.syncDir(), l.fs.SyncDir(path.Dir(path.Clean(l.dir))))
}

// syncDir makes the names in the directory durable. Only the loop calls it: of two syncs at the
// same time one could succeed although the other has failed and lost its names. After
// errNamesLost the log must not be written any more. A sync for which there was no file
// handle has not begun, and has lost nothing.
func (l *diskLog) syncDir() error {
	err := l.fs.SyncDir(l.dir)
	if err == nil || errors.Is(err, vfs.ErrNoHandles) {
		return err
	}
	return fmt.Errorf("%w: %v", errNamesLost, err) //nolint:errorlint // it must not be taken for a full disk
}

// isStateDue tells whether a term or a vote is not on disk yet. A commit index may wait for the
// next frame, since it is only a hint.
func (l *diskLog) isStateDue() bool {
	return l.state.GetTerm() != l.saved.GetTerm() || l.state.GetVote() != l.saved.GetVote()
}

// saveFrame writes entries and the state as one frame, and syncs it. It returns the frame's
// size. The frame uses the reserve, unless ensureRoom was called for it.
func (l *diskLog) saveFrame(entries []*pb.Entry) (int64, error) {
	size := int64(0)
	for _, e := range entries {
		size += entryHead + int64(len(e.GetData()))
	}
	if l.f != nil && l.off+l.frameSpace(size) > l.size {
		if err := l.beginFile(size); err != nil {
			return 0, err
		}
	}
	off := max(l.off, fileHead) // a new directory has no file yet
	body := l.body[:0]
	if l.number == 1 {
		body = appendBoot(body, &l.boot)
	}
	if off == fileHead || l.state != l.saved {
		body = appendState(body, l.state)
	}
	for _, e := range entries {
		body = appendEntry(body, e)
	}
	b := appendFrame(l.frame[:0], off, l.number, l.raftID, body)
	if err := l.writeFrame(b); err != nil {
		return 0, err
	}
	l.off = off + int64(len(b))
	l.number++
	l.saved = l.state
	if n := len(entries); n > 0 {
		file := &l.files[len(l.files)-1]
		file.last = max(file.last, entries[n-1].GetIndex())
	}
	if l.body, l.frame = body, b; cap(b) > maxBatchBytes {
		l.body, l.frame = nil, nil
	}
	return int64(len(b)), nil
}

func (l *diskLog) writeFrame(frame []byte) error {
	if l.f == nil {
		return l.makeFirstFile(frame)
	}
	if _, err := l.f.WriteAt(frame, l.off); err != nil {
		return err
	}
	return l.f.Sync()
}

// makeFirstFile makes the first file, with its first frame. The file gets its name when it is
// complete, so that an interrupted start leaves a directory that is still new.
func (l *diskLog) makeFirstFile(frame []byte) error {
	if err := l.makeDirAgain(); err != nil {
		return err
	}
	name := fileName(l.number, logSuffix)
	size := max(l.tune.first, fileHead+int64(len(frame))+l.tune.reserve)
	f, err := l.fs.Open(l.pathOf(name+tmpSuffix), vfs.Fresh)
	if err != nil {
		return err
	}
	err = fillFile(f, size)
	if err == nil {
		_, err = f.WriteAt(frame, fileHead)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = l.fs.Rename(l.pathOf(name+tmpSuffix), l.pathOf(name))
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	if err := l.syncDir(); err != nil { // a later sync would not make the name durable: the next start makes it again
		gone := l.fs.Remove(l.pathOf(name))
		if gone != nil {
			gone = l.fs.Rename(l.pathOf(name), l.pathOf(name+tmpSuffix))
		}
		return errors.Join(err, f.Close(), gone)
	}
	l.f, l.size = f, size
	l.files = []logFile{{first: l.number}}
	return nil
}

// makeDirAgain makes the directory again, and its name durable, before it gets its first file: a
// sync that an earlier start has tried may have lost the name, and a later sync does not make
// such a name durable. It does not touch files that it does not know.
func (l *diskLog) makeDirAgain() error {
	infos, err := l.fs.ReadDir(l.dir)
	if err != nil {
		return err
	}
	isLeftover := func(i vfs.Info) bool { return i.Name == spareName || strings.HasSuffix(i.Name, tmpSuffix) }
	if !slices.ContainsFunc(infos, func(i vfs.Info) bool { return !isLeftover(i) }) {
		if err := errors.Join(l.fs.Remove(l.dir), l.fs.MkdirAll(l.dir)); err != nil {
			return err
		}
		l.spare = 0
	}
	return l.fs.SyncDir(path.Dir(path.Clean(l.dir)))
}

// frameSpace is the largest size of a frame with entries of so many bytes.
func (l *diskLog) frameSpace(entries int64) int64 {
	return frameSpace(entries + 2*recordHead + stateSize + 4 + int64(confSize(l.boot.conf)))
}

// ensureRoom makes sure that there is room for a frame with entries of so many bytes, beside
// the reserve. If it returns vfs.ErrNoSpace it has changed nothing.
func (l *diskLog) ensureRoom(entries int64) error {
	if l.off+l.frameSpace(entries)+l.tune.reserve <= l.size {
		return nil
	}
	return l.beginFile(entries)
}

// beginFile begins a new file, which has room for a frame with entries of so many bytes. If it
// returns vfs.ErrNoSpace it has changed nothing.
func (l *diskLog) beginFile(entries int64) error {
	if err := l.makeSpare(max(l.tune.segment, fileHead+l.frameSpace(entries)+l.tune.reserve)); err != nil {
		return err
	}
	name := l.pathOf(fileName(l.number, logSuffix))
	if err := l.fs.Rename(l.pathOf(spareName), name); err != nil {
		return err
	}
	size := l.spare
	l.spare = 0
	if err := l.switchFile(name, size); err != nil {
		return fmt.Errorf("%w: %v", errHalfBegun, err) //nolint:errorlint // it must not be taken for a full disk
	}
	return nil
}

// switchFile makes the name of a new file durable, and the file the last one.
func (l *diskLog) switchFile(name string, size int64) error {
	if err := l.syncDir(); err != nil {
		return err
	}
	f, err := l.fs.Open(name, vfs.Existing)
	if err != nil {
		return err
	}
	old := l.f
	l.f, l.off, l.size = f, fileHead, size
	if last := l.files[len(l.files)-1]; last.first != l.number { // else this one takes the place of a file without frames, which was too small
		l.files = append(l.files, logFile{first: l.number, last: last.last})
	}
	return old.Close()
}

// prepareSpare has the next file made in advance, on a goroutine of its own, so that topics can
// be deleted on a full disk, and no proposal waits for the file. If there is no space for the
// file now it does nothing.
func (l *diskLog) prepareSpare() {
	if len(l.making) > 0 {
		l.awaitSpare()
	}
	if l.making != nil || l.spare > 0 || l.size-l.off-l.tune.reserve > l.size/2 {
		return
	}
	size := l.tune.segment
	if avail, _, err := l.fs.Free(l.dir); err != nil || avail < size {
		return
	}
	making := make(chan madeSpare, 1)
	l.making = making
	l.spawn(func() { making <- madeSpare{size, writeSpare(l.fs, l.dir, size)} })
}

// awaitSpare waits for the spare file that is being made, if one is.
func (l *diskLog) awaitSpare() {
	if l.making == nil {
		return
	}
	made := <-l.making
	l.making = nil
	if made.err != nil {
		l.logger.Warn("no spare file for the metadata log", "err", made.err)
		return
	}
	l.spare = made.size
}

// makeSpare makes the spare file of at least so many bytes.
func (l *diskLog) makeSpare(size int64) error {
	l.awaitSpare()
	if l.spare >= size {
		return nil
	}
	if err := writeSpare(l.fs, l.dir, size); err != nil {
		return err
	}
	l.spare = size
	return nil
}

// writeSpare makes a durable spare file. It uses no other file of the log.
func writeSpare(fs vfs.FS, dir string, size int64) error {
	name := path.Join(dir, spareName)
	f, err := fs.Open(name+tmpSuffix, vfs.Fresh)
	if err != nil {
		return err
	}
	err = fillFile(f, size)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = fs.Rename(name+tmpSuffix, name)
	}
	if err != nil {
		return errors.Join(err, fs.Remove(name+tmpSuffix)) // a full disk needs its space
	}
	return nil
}

// noteCommit makes durable that the entry at an index is committed, unless the log says so already. The
// first frame of each later file says so, too. After vfs.ErrNoSpace the log can go on.
func (l *diskLog) noteCommit(index uint64) error {
	if l.saved.GetCommit() >= index {
		return nil
	}
	_, err := l.saveFrame(nil)
	return err
}

// dropReplaced removes the log files and snapshots that the snapshot at index replaces, the
// oldest first, so that the files that are left never have a gap. It keeps a file that has a
// frame, which shows the next start that no frame is missing. The log must say that the snapshot's
// entry is committed, or a start may take an older snapshot that is still there.
func (l *diskLog) dropReplaced(index uint64) error {
	keep := 1
	if l.number == l.files[len(l.files)-1].first {
		keep = 2 // the last file has no frame yet
	}
	for len(l.files) > keep && l.files[0].last <= index {
		if err := l.fs.Remove(l.pathOf(fileName(l.files[0].first, logSuffix))); err != nil {
			return err
		}
		l.files = l.files[1:]
	}
	return l.dropSnapshots(index)
}

// dropAll removes the log files and snapshots that the snapshot at index replaces, which
// another member has made: it replaces all entries. The last file stays.
func (l *diskLog) dropAll(index uint64) error {
	for i := range l.files {
		l.files[i].last = index
	}
	return l.dropReplaced(index)
}

func (l *diskLog) dropSnapshots(before uint64) error {
	infos, err := l.fs.ReadDir(l.dir)
	if err != nil {
		return err
	}
	for _, info := range infos {
		name, suffix := splitName(info.Name)
		if at, err := strconv.ParseUint(name, 10, 64); err != nil || suffix != snapshotSuffix || at >= before {
			continue
		}
		if err := l.fs.Remove(l.pathOf(info.Name)); err != nil {
			return err
		}
	}
	return nil
}

func (l *diskLog) close() error {
	l.awaitSpare()
	if l.f == nil {
		return nil
	}
	return l.f.Close()
}

func (l *diskLog) pathOf(name string) string { return path.Join(l.dir, name) }

func fileName(number uint64, suffix string) string { return fmt.Sprintf("%020d%s", number, suffix) }

func splitName(name string) (stem, suffix string) {
	suffix = path.Ext(name)
	return strings.TrimSuffix(name, suffix), suffix
}

// fillFile writes a file's head and zeros, n bytes in all.
func fillFile(f vfs.File, n int64) error {
	if err := f.Allocate(0, n); err != nil {
		return err // before anything is written, if there is no space
	}
	zeros := make([]byte, 64<<10)
	bufs := [][]byte{newFileHead()}
	for left := n - fileHead; left > 0; left -= int64(len(bufs[len(bufs)-1])) {
		bufs = append(bufs, zeros[:min(left, int64(len(zeros)))])
	}
	_, err := f.WriteVAt(bufs, 0)
	return err
}

func readAll(f vfs.File) ([]byte, error) {
	size, err := f.Size()
	if err != nil || size == 0 {
		return nil, err
	}
	b := make([]byte, size)
	n, err := f.ReadAt(b, 0)
	if n == len(b) {
		return b, nil
	}
	return nil, cmp.Or(err, errors.New("the file shrinks while it is read"))
}
