package quorum

import (
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/leatstream/leat/internal/vfs"
)

// tuning holds sizes that tests make small.
type tuning struct {
	first   int64 // bytes of the first log file, written at the first start
	segment int64 // bytes of the others
	reserve int64 // bytes at a file's end that only starts use, so that a full disk cannot keep a node from them
}

var defaultTuning = tuning{first: 256 << 10, segment: 1 << 20, reserve: 64 << 10}

const (
	logSuffix      = ".log"
	snapshotSuffix = ".snapshot"
	tmpSuffix      = ".tmp"
	spareName      = "spare"
)

// bootBase is the position that a new log follows. It is no entry: raft takes it
// for the last one of a snapshot, which is how the first voters are told to it.
var bootBase = position{index: 1, term: 1}

// diskLog is raft's log in files. Their blocks are written when they are made, so
// that a later write neither runs out of space nor changes the file's metadata,
// which halves the cost of a sync. Only the loop uses it.
type diskLog struct {
	fs     vfs.FS
	dir    string
	logger *slog.Logger
	tune   tuning
	raftID uint64 // of this directory, for ever
	boot   boot   // as of the first frame

	files  []logFile // oldest first; the last is being written
	f      vfs.File  // the last of files; nil: there is none yet
	off    int64     // where the next frame goes
	size   int64     // of f
	number uint64    // of the next frame
	spare  int64     // bytes of the spare file; 0: there is none that can be used

	// making has the size of the spare file, or why there is none, when it is made; nil: none
	// is being made. Only one is made at a time, so that nobody else has its temporary name.
	making chan madeSpare

	unfinished []string // files that an earlier run did not finish

	state *pb.HardState // as of the next frame
	saved *pb.HardState // the last that was written

	body, frame []byte // of the frame being built
}

// madeSpare is what became of making a spare file.
type madeSpare struct {
	size int64
	err  error
}

// logFile is one file of the log.
type logFile struct {
	first uint64 // its first frame
	last  uint64 // the largest index of its entries and of those before it
}

// recovered is what a directory holds.
type recovered struct {
	base     position      // the entries follow this one
	conf     *pb.ConfState // the members as of base
	snapshot []byte        // the state at base; nil: none
	state    *pb.HardState
	entries  []*pb.Entry
	bytes    int64 // of the entries' frames
}

// end is the index of the last entry.
func (r *recovered) end() uint64 { return r.base.index + uint64(len(r.entries)) }

// lastFrame is the newest whole frame of the log.
type lastFrame struct {
	file  int // in diskLog.files
	at    int64
	bytes []byte
}

// restoreAdvice ends each refusal of damaged files. The metadata alone must not go
// back: it would know nothing of the topics that were made since.
const restoreAdvice = "restore the whole data directory from a backup; an older copy of this directory alone would not know the newest topics"

// openLog reads the directory and makes sure that what was read is on disk. A new
// directory gets its raft id here; it counts from the first frame on.
func openLog(cfg Config, tune tuning) (l *diskLog, found *recovered, err error) {
	l = &diskLog{fs: cfg.FS, dir: cfg.Dir, logger: cfg.Logger, tune: tune, number: 1, boot: boot{nodeID: cfg.ID}}
	if err := l.fs.MkdirAll(l.dir); err != nil {
		return nil, nil, fmt.Errorf("quorum: %w", err)
	}
	found = &recovered{base: bootBase, state: &pb.HardState{}}
	if err := l.load(found); err != nil {
		if errors.Is(err, ErrDamaged) {
			err = fmt.Errorf("%w; %s", err, restoreAdvice)
		}
		if l.f != nil {
			err = errors.Join(err, l.f.Close())
		}
		return nil, nil, fmt.Errorf("%w (in %s)", err, l.dir)
	}
	if l.raftID == 0 {
		l.raftID = newRaftID()
		found.conf = &pb.ConfState{Voters: []uint64{l.raftID}}
	}
	l.boot.conf, l.state, l.saved = found.conf, found.state, found.state
	return l, found, nil
}

// newRaftID draws an id that no other directory has: raft wants that an id never
// comes back with another log. The ids that raft keeps for itself are left out.
func newRaftID() uint64 {
	for {
		var b [8]byte
		_, _ = rand.Read(b[:]) // never fails, as its documentation promises
		if id := binary.LittleEndian.Uint64(b[:]); id != raft.None && id < math.MaxUint64-1 {
			return id
		}
	}
}

func (l *diskLog) load(found *recovered) error {
	infos, err := l.fs.ReadDir(l.dir)
	if err != nil {
		return err
	}
	var snapshots []uint64
	for _, info := range infos {
		name, suffix := split(info.Name)
		number, numberErr := strconv.ParseUint(name, 10, 64)
		switch {
		case suffix == tmpSuffix:
			l.unfinished = append(l.unfinished, info.Name)
		case info.Name == spareName:
			l.spare = l.spareSize(info)
		case suffix == logSuffix && numberErr == nil:
			l.files = append(l.files, logFile{first: number})
		case suffix == snapshotSuffix && numberErr == nil:
			snapshots = append(snapshots, number)
		}
	}
	if err := l.loadSnapshot(snapshots, found); err != nil {
		return err
	}
	return l.loadLog(found)
}

// removeLeftovers removes the files of earlier runs that a start does not need: those that
// were not finished, and snapshots older than the newest. It is called when it is clear that
// this version reads the directory; one that is refused stays as it is.
func (l *diskLog) removeLeftovers(found *recovered) error {
	for _, name := range l.unfinished {
		if err := l.fs.Remove(l.path(name)); err != nil {
			return err
		}
	}
	l.unfinished = nil
	if found.snapshot == nil {
		return nil
	}
	return l.dropSnapshots(found.base.index)
}

// spareSize is the size of the spare file; 0 where it cannot be used, since another version
// made it: frames under the head of another format could not be read again.
func (l *diskLog) spareSize(info vfs.Info) int64 {
	f, err := l.fs.Open(l.path(info.Name), vfs.ReadOnly)
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

// loadLog reads the log files.
func (l *diskLog) loadLog(found *recovered) error {
	if len(l.files) == 0 && found.snapshot == nil {
		return nil // a new directory, or one whose first start was cut short
	}
	if len(l.files) == 0 || found.snapshot == nil && l.files[0].first != 1 {
		return fmt.Errorf("%w: log files are missing", ErrDamaged)
	}
	if err := l.loadFiles(found); err != nil {
		return err
	}
	return l.check(found)
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
	return fmt.Errorf("the metadata is node %d's, but this is node %d: the files of two nodes were mixed; restore the whole data directory of node %d from a backup, or start with an empty one",
		nodeID, l.boot.nodeID, l.boot.nodeID)
}

// loadFiles reads all frames and makes the last file ready for more.
func (l *diskLog) loadFiles(found *recovered) error {
	l.number = l.files[0].first
	var last lastFrame
	for i := range l.files {
		if err := l.loadFile(i, found, &last); err != nil {
			return fmt.Errorf("%s: %w", fileName(l.files[i].first, logSuffix), err)
		}
	}
	if last.bytes == nil {
		return fmt.Errorf("%w: %s has no whole frame", ErrDamaged, fileName(l.files[0].first, logSuffix))
	}
	return l.makeDurable(last)
}

func (l *diskLog) loadFile(i int, found *recovered, last *lastFrame) error {
	file := &l.files[i]
	if file.first != l.number {
		return fmt.Errorf("%w: frames %d to %d are missing before it", ErrDamaged, l.number, file.first-1)
	}
	f, err := l.fs.Open(l.path(fileName(file.first, logSuffix)), vfs.Existing)
	if err != nil {
		return err
	}
	b, err := readAll(f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	x, err := scan(b, l.number, l.raftID, func(at, size int64, h frameHeader, r *records) error {
		*last = lastFrame{i, at, b[at : at+size]}
		l.raftID = h.raftID
		if len(r.entries) > 0 && r.entries[0].GetIndex() > found.base.index {
			found.bytes += size
		}
		return l.take(found, h, r, at == fileHead)
	})
	l.number = x.next
	if i > 0 {
		file.last = l.files[i-1].last
	}
	if n := len(found.entries); n > 0 {
		file.last = found.entries[n-1].GetIndex()
	}
	newest := i == len(l.files)-1
	if err == nil && x.torn > 0 && !newest {
		err = fmt.Errorf("%w: the frame at byte %d is not whole, and a newer file was begun after it", ErrDamaged, x.end)
	}
	if err != nil || !newest {
		return errors.Join(err, f.Close())
	}
	l.f, l.off, l.size = f, x.end, int64(len(b))
	return l.wipe(x.torn)
}

// take adds a frame's records to what was found.
func (l *diskLog) take(found *recovered, h frameHeader, r *records, first bool) error {
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
	}
	for _, e := range r.entries {
		if e.GetIndex() <= found.base.index {
			continue // the snapshot has it
		}
		have := found.end()
		if e.GetIndex() > have+1 {
			return fmt.Errorf("%w: entry %d follows entry %d", ErrDamaged, e.GetIndex(), have)
		}
		// A new leader may have replaced entries that were not committed.
		found.entries = append(found.entries[:e.GetIndex()-found.base.index-1], e)
	}
	return nil
}

// isAlone tells whether this node was the only voter at each entry that was found. The
// entries are committed then, since they are on its disk. They are applied before the node
// runs for office, which writes: so an entry of a newer version is refused by a start that
// has changed nothing.
func (l *diskLog) isAlone(found *recovered) bool {
	c := found.conf
	return len(c.GetVoters()) == 1 && c.GetVoters()[0] == l.raftID && len(c.GetVotersOutgoing()) == 0 &&
		!slices.ContainsFunc(found.entries, func(e *pb.Entry) bool { return e.GetType() != pb.EntryNormal })
}

// check makes the state fit raft's rules, or says that it cannot.
func (l *diskLog) check(found *recovered) error {
	s, last := found.state, found.end()
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

// wipe removes what a torn write left behind the last frame, so that it can never
// be taken for a frame again. The mark of the frame's head goes before the head: a
// wipe that is cut itself leaves a torn write too.
func (l *diskLog) wipe(torn int64) error {
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

// makeDurable syncs what a killed process may have left to the page cache: the
// last frame, and the names. The frame is written anew, since after a failed sync
// the system takes pages for clean that never reached the disk.
func (l *diskLog) makeDurable(last lastFrame) error {
	f := l.f
	if last.file < len(l.files)-1 {
		var err error
		if f, err = l.fs.Open(l.path(fileName(l.files[last.file].first, logSuffix)), vfs.Existing); err != nil {
			return err
		}
		defer f.Close() //nolint:errcheck // it was synced
	}
	if _, err := f.WriteAt(last.bytes, last.at); err != nil {
		return err
	}
	return errors.Join(f.Sync(), l.syncNames())
}

func (l *diskLog) syncNames() error {
	return errors.Join(l.fs.SyncDir(l.dir), l.fs.SyncDir(path.Dir(path.Clean(l.dir))))
}

// isStateDue tells that a term or a vote is not on disk yet. A commit index alone is
// a hint, which goes with the next frame.
func (l *diskLog) isStateDue() bool {
	return l.state.GetTerm() != l.saved.GetTerm() || l.state.GetVote() != l.saved.GetVote()
}

// save writes entries and the state as one frame, and syncs it. It returns the
// frame's size. Unless room was called for them they may use the reserve.
func (l *diskLog) save(entries []*pb.Entry) (int64, error) {
	size := int64(0)
	for _, e := range entries {
		size += entryHead + int64(len(e.GetData()))
	}
	if l.f != nil && l.off+l.frameSpace(size) > l.size {
		if err := l.rotate(size); err != nil {
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
	if err := l.write(b); err != nil {
		return 0, err
	}
	l.off = off + int64(len(b))
	l.number++
	l.saved = l.state
	if n := len(entries); n > 0 {
		l.files[len(l.files)-1].last = entries[n-1].GetIndex()
	}
	if l.body, l.frame = body, b; cap(b) > maxBatchBytes {
		l.body, l.frame = nil, nil
	}
	return int64(len(b)), nil
}

func (l *diskLog) write(frame []byte) error {
	if l.f == nil {
		return l.bootstrap(frame)
	}
	if _, err := l.f.WriteAt(frame, l.off); err != nil {
		return err
	}
	return l.f.Sync()
}

// bootstrap makes the first file, with its first frame. It has its name only when
// it is whole, so that a cut start leaves a directory that is still new.
func (l *diskLog) bootstrap(frame []byte) error {
	name := fileName(l.number, logSuffix)
	size := max(l.tune.first, fileHead+int64(len(frame))+l.tune.reserve)
	f, err := l.fs.Open(l.path(name+tmpSuffix), vfs.Fresh)
	if err != nil {
		return err
	}
	err = fill(f, size)
	if err == nil {
		_, err = f.WriteAt(frame, fileHead)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = l.fs.Rename(l.path(name+tmpSuffix), l.path(name))
	}
	if err == nil {
		err = l.syncNames()
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.f, l.size = f, size
	l.files = []logFile{{first: l.number}}
	return nil
}

// frameSpace is the most that a frame with entries of so many bytes takes.
func (l *diskLog) frameSpace(entries int64) int64 {
	return frameSpace(entries + 2*recordHead + stateSize + 4 + int64(confSize(l.boot.conf)))
}

// room makes sure that a frame with entries of so many bytes can be saved and that
// the reserve is left. An error that is vfs.ErrNoSpace has changed nothing.
func (l *diskLog) room(entries int64) error {
	if l.off+l.frameSpace(entries)+l.tune.reserve <= l.size {
		return nil
	}
	return l.rotate(entries)
}

// rotate begins a new file.
func (l *diskLog) rotate(entries int64) error {
	if err := l.makeSpare(max(l.tune.segment, fileHead+l.frameSpace(entries)+l.tune.reserve)); err != nil {
		return err
	}
	name := l.path(fileName(l.number, logSuffix))
	if err := l.fs.Rename(l.path(spareName), name); err != nil {
		return err
	}
	if err := l.fs.SyncDir(l.dir); err != nil {
		return err
	}
	f, err := l.fs.Open(name, vfs.Existing)
	if err != nil {
		return err
	}
	old := l.f
	l.f, l.off, l.size, l.spare = f, fileHead, l.spare, 0
	l.files = append(l.files, logFile{first: l.number, last: l.files[len(l.files)-1].last})
	return old.Close()
}

// prepare has the next file made ahead, on a goroutine of its own, so that on a full disk
// there is room for deleting topics and no proposal waits for the file. It is no error where
// that cannot be done now.
func (l *diskLog) prepare() {
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
	go func() { making <- madeSpare{size, writeSpare(l.fs, l.dir, size)} }()
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

// writeSpare makes a spare file durable. It touches nothing that the log uses.
func writeSpare(fs vfs.FS, dir string, size int64) error {
	name := path.Join(dir, spareName)
	f, err := fs.Open(name+tmpSuffix, vfs.Fresh)
	if err != nil {
		return err
	}
	err = fill(f, size)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = fs.Rename(name+tmpSuffix, name)
	}
	if err != nil {
		return errors.Join(err, fs.Remove(name+tmpSuffix)) // on a full disk what it took is needed
	}
	return nil
}

// drop removes the log files and snapshots that the snapshot at index replaces,
// the oldest first: what is left is a log without a gap at any time.
func (l *diskLog) drop(index uint64) error {
	for len(l.files) > 1 && l.files[0].last <= index {
		if err := l.fs.Remove(l.path(fileName(l.files[0].first, logSuffix))); err != nil {
			return err
		}
		l.files = l.files[1:]
	}
	return l.dropSnapshots(index)
}

func (l *diskLog) dropSnapshots(before uint64) error {
	infos, err := l.fs.ReadDir(l.dir)
	if err != nil {
		return err
	}
	for _, info := range infos {
		name, suffix := split(info.Name)
		if at, err := strconv.ParseUint(name, 10, 64); err != nil || suffix != snapshotSuffix || at >= before {
			continue
		}
		if err := l.fs.Remove(l.path(info.Name)); err != nil {
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

func (l *diskLog) path(name string) string { return path.Join(l.dir, name) }

func fileName(number uint64, suffix string) string { return fmt.Sprintf("%020d%s", number, suffix) }

func split(name string) (stem, suffix string) {
	suffix = path.Ext(name)
	return strings.TrimSuffix(name, suffix), suffix
}

// fill writes a file's head and zeros, n bytes in all.
func fill(f vfs.File, n int64) error {
	if err := f.Allocate(0, n); err != nil {
		return err // said at once where there is no space
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
