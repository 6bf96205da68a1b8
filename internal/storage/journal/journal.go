package journal

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"path"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/leatstream/leat/internal/storage/checkpoint"
	"github.com/leatstream/leat/internal/vfs"
)

const (
	// DirName is the name of the ring's directory.
	DirName = "journal"

	magicAndVersion = 0x4c4a0001
	ringSuffix      = ".ring"
	ringFiles       = 8 // of the complete ring
	spareFiles      = 8 // further files that the ring may have until the next checkpoint
	minRingFile     = 4 * block

	flagNotFirst = 1 // the write has a round before this one
	flagNotLast  = 2 // the write has a round after this one
)

var (
	// ErrNoRoom says that the ring has no room for a write and cannot get any now.
	ErrNoRoom = errors.New("the journal is full")
	// ErrLost says that a write or a sync has failed.
	ErrLost = errors.New("the journal cannot be written any more")

	errNotErased = errors.New("a round for which there was no room may be partly on disk")
)

// Config is the input of Open.
type Config struct {
	FS      vfs.FS
	Dir     string // the store's
	ID      [16]byte
	Size    int64 // bytes of the complete ring
	Log     *slog.Logger
	Sync    func(vfs.File) error
	SyncDir func(dir string) error // once it has failed it always fails, unless it lacked descriptors
	IsFull  func(error) bool
	HasRoom func(n int64) bool // tells whether the file system has room for n bytes that are not essential
	// Written is called after each round. It tells whether a checkpoint is due, and whether
	// Fill is to be called.
	Written func(checkpointDue, fillDue bool)
}

// Mark is a position in the journal, at which the round with a number begins.
type Mark = checkpoint.Mark

// Journal is the ring.
type Journal struct {
	cfg       Config
	fileSize  int64
	RoundSize int // roughly how many bytes of parts a round takes; for Image.Add

	next       atomic.Uint64 // the number of the next round
	writable   atomic.Bool   // a checkpoint on disk names this journal, so that its rounds are found
	lost       atomic.Pointer[error]
	dirDurable atomic.Bool // the name of the ring's directory is durable

	// Only the goroutine that calls Write uses these.
	pos      int64       // of the next round in current
	prev     uint32      // checksum of the last round's head
	midWrite bool        // the next round belongs to the write of the last one
	pending  []*ringFile // files with rounds that are not synced

	mu      sync.Mutex
	files   []*ringFile // guarded by mu; by number
	current *ringFile   // guarded by mu; only Write changes it
	at      Mark        // guarded by mu: of the next round
	synced  Mark        // guarded by mu: of the first round that is not durable
	filling bool        // guarded by mu: Config.Written has asked for Fill
	used    int64       // guarded by mu: bytes since the last checkpoint
	marks   []Mark      // guarded by mu: at which checkpoints began, the oldest first
}

// ringFile is one file of the ring.
type ringFile struct {
	number int
	name   string
	f      vfs.File  // nil: it could not be opened
	direct vfs.File  // the same file, for writes without the page cache; nil: not opened yet; equal to f: the file system cannot do that
	size   int64     // bytes of blocks that are written; changed by its user, with Journal.mu held
	state  ringState // guarded by Journal.mu
	last   uint64    // guarded by Journal.mu: the number of the last round in it
}

// ringState says how a file of the ring is used.
//
//	missing <--> filling <--> free <--> used
//	   |            |          ^          ^
//	   |            +----------|----------+
//	   +----- Open opens it ---+
//
//	any --- a sync of it fails ---> tainted, for the rest of the process
type ringState uint8

const (
	ringFree    ringState = iota // Write may use it
	ringFilling                  // it is being made or filled
	ringUsed                     // it has rounds that a recovery may need
	ringMissing                  // it could not be made or opened; Write or Fill may make it again
	ringTainted                  // a write or a sync of it failed: no later one is believed, so nothing uses it
)

// Open opens the existing files of the ring. Their names are durable when it returns.
func Open(cfg Config) (*Journal, error) {
	j := &Journal{cfg: cfg}
	j.fileSize = max(cfg.Size/ringFiles/block*block, minRingFile)
	j.RoundSize = min(maxRound, int(j.fileSize/2)-block)
	infos, err := cfg.FS.ReadDir(j.pathOf())
	if errors.Is(err, vfs.ErrNotExist) {
		return j, nil
	}
	if err != nil {
		return nil, err
	}
	for _, i := range infos {
		var n int
		if _, err := fmt.Sscanf(i.Name, "%04d"+ringSuffix, &n); err != nil || i.Name != ringName(n) || n >= ringFiles+2*spareFiles {
			continue // not a file of the ring
		}
		for len(j.files) <= n {
			k := len(j.files)
			j.files = append(j.files, &ringFile{number: k, name: j.pathOf(ringName(k)), state: ringMissing})
		}
		f, err := cfg.FS.Open(j.pathOf(i.Name), vfs.Existing)
		if err != nil {
			return nil, err
		}
		j.files[n].f, j.files[n].size, j.files[n].state = f, i.Size/block*block, ringFree
	}
	// A killed process may have left names that are not durable.
	return j, j.syncNames()
}

// syncNames makes the names of the ring's files durable, and the directory's own.
func (j *Journal) syncNames() error {
	if err := j.cfg.SyncDir(j.pathOf()); err != nil {
		return err
	}
	if j.dirDurable.Load() {
		return nil
	}
	err := j.cfg.SyncDir(j.cfg.Dir)
	j.dirDurable.Store(err == nil)
	return err
}

func (j *Journal) pathOf(names ...string) string {
	return path.Join(append([]string{j.cfg.Dir, DirName}, names...)...)
}

func ringName(n int) string { return fmt.Sprintf("%04d%s", n, ringSuffix) }

// HasFiles tells whether the ring has files: only a journal that a checkpoint has named makes
// some.
func (j *Journal) HasFiles() bool { return len(j.files) > 0 }

// Start prepares the journal of a new directory for writes, and returns its first mark.
func (j *Journal) Start() Mark {
	j.next.Store(1)
	j.at = Mark{Round: 1}
	j.synced = j.at
	j.marks = []Mark{j.at}
	return j.at
}

// Resume prepares the journal to write its next round at end, which a Scan that began at begin has
// returned. It syncs the rounds that Scan has found, which may not be on disk yet, since later
// rounds depend on them. Files with rounds from keepFrom on are not used again.
func (j *Journal) Resume(keepFrom, begin, end Mark) error {
	j.next.Store(end.Round)
	j.prev, j.at, j.synced = end.Prev, end, end
	j.marks = []Mark{keepFrom, begin}
	if err := j.eraseFrom(end); err != nil {
		return err
	}
	j.keepFiles(keepFrom)
	if end.Pos > 0 && end.File < len(j.files) { // the round before the mark is in that file
		f := j.files[end.File]
		f.last = max(f.last, end.Round-1)
		if f.f != nil && end.Pos < j.fileSize {
			j.current, j.pos, f.state = f, end.Pos, ringUsed
		}
	}
	for _, f := range j.files {
		if f.f == nil || f.last < keepFrom.Round || f.last == 0 {
			continue
		}
		f.state = ringUsed
		if err := j.cfg.Sync(f.f); err != nil {
			return fmt.Errorf("syncing the journal: %w", err)
		}
	}
	return nil
}

// eraseFrom makes the rounds at a mark and later unreadable, durably. They are of a write that
// was never complete. The next rounds have the same numbers, perhaps in other places: if one of
// those is damaged, a scan must not find an old one instead.
func (j *Journal) eraseFrom(at Mark) error {
	s := &scanner{j: j, files: j.files}
	below := at
	below.Round--
	if len(s.likelyHeads(below)) == 0 {
		return nil
	}
	touched := map[*ringFile]bool{}
	for _, h := range s.allHeads(below.Round) {
		if _, err := h.file.f.WriteAt(zeros[:], h.pos); err != nil {
			return fmt.Errorf("erasing rounds that were not complete: %w", err)
		}
		touched[h.file] = true
	}
	for f := range touched {
		if err := j.cfg.Sync(f.f); err != nil {
			return fmt.Errorf("syncing the journal: %w", err)
		}
	}
	return nil
}

// keepFiles finds the files that have rounds at a mark or later, even if Scan has not visited
// the rounds.
func (j *Journal) keepFiles(keep Mark) {
	s := &scanner{j: j}
	for _, f := range j.files {
		if h := s.readHead(f, 0); h != nil && h.number >= keep.Round {
			f.last = max(f.last, h.number)
		}
		if f.number == keep.File && keep.Round > 1 {
			f.last = max(f.last, keep.Round)
		}
	}
}

// AllowWrites lets the journal be written. It must be called once a checkpoint on disk names
// the journal, and not before.
func (j *Journal) AllowWrites() { j.writable.Store(true) }

// Next is the number of the next round.
func (j *Journal) Next() uint64 { return j.next.Load() }

// Lost says why the journal cannot be written any more; nil: it can.
func (j *Journal) Lost() error {
	if err := j.lost.Load(); err != nil {
		return *err
	}
	return nil
}

// Write makes an image durable. After ErrNoRoom, which says that there is no room now, nothing
// of it is played back. After any other error it is unknown which bytes are on disk, and the
// journal is lost.
func (j *Journal) Write(m *Image) error {
	if err := j.Lost(); err != nil {
		return err
	}
	if !j.writable.Load() {
		return ErrNoRoom
	}
	err := j.writeRounds(m)
	if err == nil || errors.Is(err, ErrNoRoom) {
		// Even if there was room for some rounds only: a later write proves that the rounds
		// before it are synced.
		err = errors.Join(err, j.syncPending())
	}
	if err != nil && (!errors.Is(err, ErrNoRoom) || len(j.pending) > 0) {
		err = fmt.Errorf("%w: %w", ErrLost, err)
		j.lost.Store(&err)
		return err
	}
	j.mu.Lock()
	j.synced = j.at
	j.mu.Unlock()
	return err
}

func (j *Journal) writeRounds(m *Image) error {
	j.midWrite = false
	for i := range m.rounds {
		flags := byte(0)
		if i+1 < len(m.rounds) {
			flags = flagNotLast
		}
		if err := j.writeRound(&m.rounds[i], flags); err != nil {
			return err
		}
	}
	return nil
}

// syncPending makes the written rounds durable.
func (j *Journal) syncPending() error {
	for _, f := range j.pending {
		if err := j.cfg.Sync(f.f); err != nil {
			return err
		}
	}
	clear(j.pending)
	j.pending = j.pending[:0]
	return nil
}

var zeros [block]byte

// writeRound writes one round, without a sync.
func (j *Journal) writeRound(r *roundImage, flags byte) error {
	payload := len(r.b) - roundHead
	r.b = append(r.b, zeros[:-len(r.b)&(block-1)]...)
	b := r.b
	f, err := j.makeRoom(int64(len(b)))
	if err != nil {
		return err
	}
	if j.midWrite {
		flags |= flagNotFirst
	}
	number := j.next.Load()
	sum := j.encodeHead(b, &head{number: number, parts: r.sum, payload: payload, flags: flags})
	n, err := j.writeBlocks(f, b)
	if n > 0 && !slices.Contains(j.pending, f) {
		j.pending = append(j.pending, f)
	}
	if err != nil && j.cfg.IsFull(err) {
		// The next round has the same number, perhaps in another place: this one must not be found.
		if _, eraseErr := f.f.WriteAt(zeros[:min(n, block)], j.pos); eraseErr != nil {
			return errors.Join(eraseErr, errNotErased)
		}
		err = fmt.Errorf("%w: %w", ErrNoRoom, err)
	}
	if err != nil {
		return err
	}
	j.pos, j.prev = j.pos+int64(len(b)), sum
	j.midWrite = flags&flagNotLast != 0
	j.mu.Lock()
	f.last = number
	f.size = max(f.size, j.pos)
	j.at = Mark{File: f.number, Pos: j.pos, Round: number + 1, Prev: sum}
	j.next.Store(number + 1)
	j.used += int64(len(b))
	checkpointDue := j.used >= j.fileSize*ringFiles/4
	fillDue := !j.filling
	j.filling = true
	j.mu.Unlock()
	j.cfg.Written(checkpointDue, fillDue)
	return nil
}

// encodeHead encodes a head at the beginning of a round's bytes, and returns its checksum.
func (j *Journal) encodeHead(b []byte, h *head) uint32 {
	clear(b[:roundHead])
	be.PutUint32(b, magicAndVersion)
	copy(b[8:], j.cfg.ID[:])
	be.PutUint64(b[24:], h.number)
	be.PutUint32(b[32:], j.prev)
	be.PutUint32(b[36:], h.parts)
	be.PutUint32(b[40:], uint32(h.payload))
	b[44] = h.flags
	sum := crc32.Checksum(b[8:roundHead], castagnoli)
	be.PutUint32(b[4:], sum)
	return sum
}

// writeBlocks writes a round after the last one, and returns how many bytes of it may be in the
// file. If the blocks were written before it does so without the page cache, which saves a
// copy, and a search for dirty pages in the sync (BenchmarkCommit).
func (j *Journal) writeBlocks(f *ringFile, b []byte) (int, error) {
	d, ok := j.cfg.FS.(vfs.Director)
	if !ok || j.pos+int64(len(b)) > f.size {
		return f.f.WriteAt(b, j.pos)
	}
	if f.direct == nil {
		var err error
		if f.direct, err = d.OpenDirect(f.name); err != nil {
			f.direct = f.f
		}
	}
	n, err := f.direct.WriteAt(b, j.pos)
	if err != nil && f.direct != f.f && !j.cfg.IsFull(err) {
		_ = f.direct.Close() // it was only an optimisation
		f.direct = f.f
		return f.f.WriteAt(b, j.pos)
	}
	return n, err
}

// makeRoom returns the file with room for n bytes at pos: the present one, or another one.
func (j *Journal) makeRoom(n int64) (*ringFile, error) {
	j.mu.Lock()
	f := j.current
	j.mu.Unlock()
	if f != nil && j.pos+n <= j.fileSize {
		return f, nil
	}
	f, err := j.takeFile()
	if err != nil {
		return nil, err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.current, j.pos = f, 0
	return f, nil
}

// takeFile takes the free file with the most written blocks, or makes a file.
func (j *Journal) takeFile() (*ringFile, error) {
	j.mu.Lock()
	var free *ringFile
	for _, f := range j.files {
		if f.state == ringFree && (free == nil || f.size > free.size) {
			free = f
		}
	}
	if free != nil {
		free.state = ringUsed
	}
	j.mu.Unlock()
	if free != nil {
		return free, nil
	}
	return j.makeFile(ringUsed, ringFiles+spareFiles)
}

// makeFile makes an empty file, if the ring has fewer than limit. Its name is durable when
// makeFile returns. After a failure the next call tries the same name again.
func (j *Journal) makeFile(state ringState, limit int) (*ringFile, error) {
	f := j.takePlace(limit)
	if f == nil {
		return nil, ErrNoRoom
	}
	file, err := j.cfg.FS.Open(f.name, vfs.Fresh)
	if errors.Is(err, vfs.ErrNotExist) { // the directory is missing
		j.dirDurable.Store(false)
		if err = j.cfg.FS.MkdirAll(j.pathOf()); err == nil {
			file, err = j.cfg.FS.Open(f.name, vfs.Fresh)
		}
	}
	if err == nil {
		if err = j.syncNames(); err != nil {
			_ = file.Close() // nothing was written to it
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if err != nil { // after any error, since the store can sync the logs' own files instead
		f.state = ringMissing
		return nil, fmt.Errorf("%w: %w", ErrNoRoom, err)
	}
	f.f, f.size, f.state = file, 0, state
	return f, nil
}

// takePlace takes the entry of a missing file, or adds one; nil: there are limit files.
func (j *Journal) takePlace(limit int) *ringFile {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, f := range j.files {
		if f.state == ringMissing && f.f == nil {
			f.state = ringFilling
			return f
		}
	}
	n := len(j.files)
	if n >= limit {
		return nil
	}
	f := &ringFile{number: n, name: j.pathOf(ringName(n)), state: ringFilling}
	j.files = append(j.files, f)
	return f
}

// Fill makes the ring complete: it writes zeros into the blocks that were never written. It is
// called in the background, and has work once in a directory's life. It stops when stop is true.
func (j *Journal) Fill(stop *atomic.Bool) {
	b := make([]byte, 256<<10)
	for !stop.Load() {
		f := j.takeToFill()
		if f == nil {
			return
		}
		state, err := j.fillFile(f, b, stop)
		j.mu.Lock()
		f.state = state
		j.mu.Unlock()
		if err != nil {
			j.cfg.Log.Info("the journal's files could not be made complete; commits are slower", "err", err)
			return
		}
	}
}

// takeToFill takes a free file that is not full of written blocks, or makes one if the ring has
// too few files; nil: there is nothing to fill.
func (j *Journal) takeToFill() *ringFile {
	j.mu.Lock()
	for _, f := range j.files {
		if f.state == ringFree && f.size < j.fileSize {
			f.state = ringFilling
			j.mu.Unlock()
			return f
		}
	}
	j.mu.Unlock()
	if !j.cfg.HasRoom(j.fileSize) {
		return nil
	}
	f, err := j.makeFile(ringFilling, ringFiles)
	if err != nil {
		return nil
	}
	return f
}

// fillFile writes zeros up to the end of a file, and returns what may be done with it.
func (j *Journal) fillFile(f *ringFile, b []byte, stop *atomic.Bool) (ringState, error) {
	for f.size < j.fileSize && !stop.Load() {
		n := min(int64(len(b)), j.fileSize-f.size)
		if _, err := f.f.WriteAt(b[:n], f.size); errors.Is(err, vfs.ErrNoSpace) {
			return ringFree, err // the part of it that is written can be used
		} else if err != nil {
			return ringTainted, err
		}
		j.mu.Lock()
		f.size += n
		j.mu.Unlock()
		if err := j.cfg.Sync(f.f); err != nil {
			return ringTainted, err
		}
	}
	return ringFree, nil
}

// BeginCheckpoint returns the mark after the last durable write. The rounds of a write that is
// under way come after the mark: a power cut may lose them, and then the next rounds get their numbers.
// If the checkpoint with this mark is damaged later, a scan from an older mark must find every round up to it.
func (j *Journal) BeginCheckpoint() Mark {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.used = 0
	if n := len(j.marks); n == 0 || j.marks[n-1].Round < j.synced.Round {
		j.marks = append(j.marks, j.synced)
	}
	return j.synced
}

// MarkBefore is the last mark, at a round or before it, at which a checkpoint began.
func (j *Journal) MarkBefore(round uint64) Mark {
	j.mu.Lock()
	defer j.mu.Unlock()
	at := j.marks[0]
	for _, m := range j.marks {
		if m.Round <= round {
			at = m
		}
	}
	return at
}

// Recycle frees the files whose rounds all have lower numbers than before.
func (j *Journal) Recycle(before uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, f := range j.files {
		if f.state == ringUsed && f != j.current && f.last < before {
			f.state = ringFree
		}
	}
	for len(j.marks) > 1 && j.marks[1].Round <= before {
		j.marks = j.marks[1:]
	}
}

// Close closes the files. It syncs nothing, since Write does.
func (j *Journal) Close() {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, f := range j.files {
		if f.f == nil {
			continue
		}
		_ = f.f.Close()
		if f.direct != nil && f.direct != f.f {
			_ = f.direct.Close()
		}
	}
	j.files = nil
}

// readAt reads from a file of the ring; ok is false if the file is missing, too short, or
// cannot be read.
func (j *Journal) readAt(f *ringFile, b []byte, pos int64) (ok bool) {
	j.mu.Lock()
	file := f.f
	j.mu.Unlock()
	if file == nil {
		return false
	}
	n, err := file.ReadAt(b, pos)
	if n < len(b) && err != nil && !errors.Is(err, io.EOF) {
		j.cfg.Log.Error("the journal cannot be read", "file", f.name, "at", pos, "err", err)
	}
	return n == len(b)
}

// sizeOf is the number of bytes of a file's written blocks.
func (j *Journal) sizeOf(f *ringFile) int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return f.size
}

// ID is the journal's identity.
func (j *Journal) ID() [16]byte { return j.cfg.ID }
