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
	ringFiles       = 8 // that the ring is made of, when it is complete
	spareFiles      = 8 // that the ring may have more of while a checkpoint is late
	minRingFile     = 4 * block

	flagGoesOn  = 1 // the round goes on with the write of the one before
	flagFollows = 2 // another round of the same write follows
)

var (
	// ErrNoRoom is returned where the ring has no room for a write and cannot get any now.
	ErrNoRoom = errors.New("the journal is full")
	// ErrLost is returned once a write or a sync has failed.
	ErrLost = errors.New("the journal cannot be written any more")

	errNotErased = errors.New("a round that found no room may be there in part")
)

// Config hands a Journal what it needs.
type Config struct {
	FS      vfs.FS
	Dir     string // the store's
	ID      [16]byte
	Size    int64 // bytes of the complete ring
	Log     *slog.Logger
	Sync    func(vfs.File) error
	SyncDir func(dir string) error // it does not succeed after it failed, but for a lack of descriptors
	IsFull  func(error) bool
	HasRoom func(n int64) bool          // the file system has room for n bytes that can be done without
	Written func(late, incomplete bool) // after each round: a checkpoint is due; the ring is to be filled
}

// Mark is a place in the journal: where the round with a number begins.
type Mark = checkpoint.Mark

// Journal is the ring.
type Journal struct {
	cfg       Config
	fileSize  int64
	RoundSize int // bytes of a round's parts, about; for Image.Add

	next    atomic.Uint64 // the number of the next round
	started atomic.Bool   // a checkpoint on disk names this journal: else nobody would find its rounds
	lost    atomic.Pointer[error]
	isNamed atomic.Bool // the directory's own name is durable

	// The writer's alone.
	pos     int64 // in current
	prev    uint32
	goesOn  bool        // the next round belongs to the write of the last one
	pending []*ringFile // written to and not synced

	mu      sync.Mutex
	files   []*ringFile // guarded by mu; by number
	current *ringFile   // guarded by mu; changed by the writer
	at      Mark        // guarded by mu: where the next round goes
	synced  Mark        // guarded by mu: where the first round goes that is not durable
	filling bool        // guarded by mu: Fill was asked for
	used    int64       // guarded by mu: bytes since the last checkpoint
	marks   []Mark      // guarded by mu: where checkpoints began, the oldest first
}

// ringFile is one file of the ring.
type ringFile struct {
	number int
	name   string
	f      vfs.File  // nil: it could not be opened
	direct vfs.File  // the same, written around the page cache; nil: not opened yet; f: that cannot be done
	size   int64     // blocks written before; changed by its user, with Journal.mu held
	state  ringState // guarded by Journal.mu
	last   uint64    // guarded by Journal.mu: the number of the last round in it
}

// ringState says who may use a file of the ring.
type ringState uint8

const (
	ringFree    ringState = iota // the writer may take it
	ringFilling                  // Fill has it
	ringUsed                     // it has rounds that a recovery may need
	ringMissing                  // it could not be made or read; the writer may make it anew
)

// Open opens the ring's files that are there. Their names are durable when it returns.
func Open(cfg Config) (*Journal, error) {
	j := &Journal{cfg: cfg}
	j.fileSize = max(cfg.Size/ringFiles/block*block, minRingFile)
	j.RoundSize = min(maxRound, int(j.fileSize/2)-block)
	infos, err := cfg.FS.ReadDir(j.path())
	if errors.Is(err, vfs.ErrNotExist) {
		return j, nil
	}
	if err != nil {
		return nil, err
	}
	for _, i := range infos {
		var n int
		if _, err := fmt.Sscanf(i.Name, "%04d"+ringSuffix, &n); err != nil || i.Name != ringName(n) || n >= ringFiles+2*spareFiles {
			continue // not one of ours
		}
		for len(j.files) <= n {
			k := len(j.files)
			j.files = append(j.files, &ringFile{number: k, name: j.path(ringName(k)), state: ringMissing})
		}
		f, err := cfg.FS.Open(j.path(i.Name), vfs.Existing)
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
	if err := j.cfg.SyncDir(j.path()); err != nil {
		return err
	}
	if j.isNamed.Load() {
		return nil
	}
	err := j.cfg.SyncDir(j.cfg.Dir)
	j.isNamed.Store(err == nil)
	return err
}

func (j *Journal) path(names ...string) string {
	return path.Join(append([]string{j.cfg.Dir, DirName}, names...)...)
}

func ringName(n int) string { return fmt.Sprintf("%04d%s", n, ringSuffix) }

// HasFiles tells whether any of the ring's files was ever made: only a journal that a checkpoint
// named makes some.
func (j *Journal) HasFiles() bool { return len(j.files) > 0 }

// Start readies the journal of a new directory.
func (j *Journal) Start() Mark {
	j.next.Store(1)
	j.at = Mark{Round: 1}
	j.synced = j.at
	j.marks = []Mark{j.at}
	return j.at
}

// Resume readies the journal for the round at a mark, which Scan returned when it began at
// from. The last rounds that Scan found may not be on disk yet, and the next ones must not
// rest on them before. Files with rounds from keep on stay as they are.
func (j *Journal) Resume(keep, from, at Mark) error {
	j.next.Store(at.Round)
	j.prev, j.at, j.synced = at.Prev, at, at
	j.marks = []Mark{keep, from}
	if err := j.eraseFrom(at); err != nil {
		return err
	}
	j.keepFiles(keep)
	if at.Pos > 0 && at.File < len(j.files) { // the round before the mark is in that file
		f := j.files[at.File]
		f.last = max(f.last, at.Round-1)
		if f.f != nil && at.Pos < j.fileSize {
			j.current, j.pos, f.state = f, at.Pos, ringUsed
		}
	}
	for _, f := range j.files {
		if f.f == nil || f.last < keep.Round || f.last == 0 {
			continue
		}
		f.state = ringUsed
		if err := j.cfg.Sync(f.f); err != nil {
			return fmt.Errorf("syncing the journal: %w", err)
		}
	}
	return nil
}

// eraseFrom makes the rounds from a mark on unreadable, durably. They are of a write that was
// never complete. Rounds with the same numbers are written next, in other places perhaps:
// should one of those be damaged, the scan must not take an old one for it.
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

// keepFiles finds the files that have rounds from a mark on, also those before the place
// where Scan began.
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

// Named says that a checkpoint on disk names this journal, so that it may be written.
func (j *Journal) Named() { j.started.Store(true) }

// Next is the number of the next round.
func (j *Journal) Next() uint64 { return j.next.Load() }

// Lost is why the journal cannot be written any more; nil: it can.
func (j *Journal) Lost() error {
	if err := j.lost.Load(); err != nil {
		return *err
	}
	return nil
}

// Write makes an image durable. ErrNoRoom says that there is no room now; any other error
// that nobody can know what the disk has of it, and ends the journal's writing.
func (j *Journal) Write(m *Image) error {
	if err := j.Lost(); err != nil {
		return err
	}
	if !j.started.Load() {
		return ErrNoRoom
	}
	err := j.writeRounds(m)
	if err == nil || errors.Is(err, ErrNoRoom) {
		// Also where only some rounds found room: a later write proves that those before it
		// were synced.
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
	j.goesOn = false
	for i := range m.rounds {
		flags := byte(0)
		if i+1 < len(m.rounds) {
			flags = flagFollows
		}
		if err := j.writeRound(&m.rounds[i], flags); err != nil {
			return err
		}
	}
	return nil
}

// syncPending makes the rounds durable that were written.
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
	if j.goesOn {
		flags |= flagGoesOn
	}
	number := j.next.Load()
	sum := j.encodeHead(b, &head{number: number, parts: r.sum, payload: payload, flags: flags})
	n, err := j.writeBlocks(f, b)
	if n > 0 && !slices.Contains(j.pending, f) {
		j.pending = append(j.pending, f)
	}
	if err != nil && j.cfg.IsFull(err) {
		// The next round has the same number and may go elsewhere: this one must not be found.
		if _, eraseErr := f.f.WriteAt(zeros[:min(n, block)], j.pos); eraseErr != nil {
			return errors.Join(eraseErr, errNotErased)
		}
		err = fmt.Errorf("%w: %w", ErrNoRoom, err)
	}
	if err != nil {
		return err
	}
	j.pos, j.prev = j.pos+int64(len(b)), sum
	j.goesOn = flags&flagFollows != 0
	j.mu.Lock()
	f.last = number
	f.size = max(f.size, j.pos)
	j.at = Mark{File: f.number, Pos: j.pos, Round: number + 1, Prev: sum}
	j.next.Store(number + 1)
	j.used += int64(len(b))
	late := j.used >= j.fileSize*ringFiles/4
	fill := !j.filling
	j.filling = true
	j.mu.Unlock()
	j.cfg.Written(late, fill)
	return nil
}

// encodeHead writes the head of a round into its place and returns its checksum.
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

// writeBlocks writes a round behind the last one: around the page cache where its blocks
// were written before, which saves a copy, and the sync the search for dirty pages
// (BenchmarkCommit). It returns how many bytes may be there.
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
		_ = f.direct.Close() // it was only to save time
		f.direct = f.f
		return f.f.WriteAt(b, j.pos)
	}
	return n, err
}

// makeRoom makes room for n bytes: behind the last round, or in another file.
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

// takeFile takes a free file, one that was filled if there is one, or makes one.
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

// makeFile makes an empty file of the ring, one of at most limit. Its name is durable when
// it returns. A failure leaves the file's place free for the next try.
func (j *Journal) makeFile(state ringState, limit int) (*ringFile, error) {
	f := j.takePlace(limit)
	if f == nil {
		return nil, ErrNoRoom
	}
	file, err := j.cfg.FS.Open(f.name, vfs.Fresh)
	if errors.Is(err, vfs.ErrNotExist) { // the directory is missing
		j.isNamed.Store(false)
		if err = j.cfg.FS.MkdirAll(j.path()); err == nil {
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
	if err != nil { // whatever it is, the files themselves can take what the ring cannot
		f.state = ringMissing
		return nil, fmt.Errorf("%w: %w", ErrNoRoom, err)
	}
	f.f, f.size, f.state = file, 0, state
	return f, nil
}

// takePlace takes the place of a missing file, or a new one; nil: there are limit files.
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
	f := &ringFile{number: n, name: j.path(ringName(n)), state: ringFilling}
	j.files = append(j.files, f)
	return f
}

// Fill makes the ring complete: it writes zeros into the blocks that were never written,
// once in a directory's life, while nobody waits for it. It stops when stop is true.
func (j *Journal) Fill(stop *atomic.Bool) {
	b := make([]byte, 256<<10)
	for !stop.Load() {
		f := j.takeToFill()
		if f == nil {
			return
		}
		err := j.fillFile(f, b, stop)
		j.mu.Lock()
		f.state = ringFree
		j.mu.Unlock()
		if err != nil {
			j.cfg.Log.Info("the journal could not be laid out; commits are slower", "err", err)
			return
		}
	}
}

// takeToFill takes a free file that is not filled, or makes one while the ring is short of
// files.
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

func (j *Journal) fillFile(f *ringFile, b []byte, stop *atomic.Bool) error {
	for f.size < j.fileSize && !stop.Load() {
		n := min(int64(len(b)), j.fileSize-f.size)
		if _, err := f.f.WriteAt(b[:n], f.size); err != nil {
			return err
		}
		j.mu.Lock()
		f.size += n
		j.mu.Unlock()
		if err := f.f.Sync(); err != nil {
			return err
		}
	}
	return nil
}

// BeginCheckpoint returns the place behind the last write that is durable. A write that is
// under way lies behind it: a power cut may take its rounds, and the next ones would have
// their numbers. Should the checkpoint with this mark rot, a scan from an older mark has to
// find every round up to this one.
func (j *Journal) BeginCheckpoint() Mark {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.used = 0
	if n := len(j.marks); n == 0 || j.marks[n-1].Round < j.synced.Round {
		j.marks = append(j.marks, j.synced)
	}
	return j.synced
}

// MarkBefore is the last place at which a checkpoint began and that lies at a round or
// before it.
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

// Recycle frees the files whose rounds all come before a number.
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

// Close closes the files. Every round that counts was synced.
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

// readAt reads from a file of the ring; ok is false where the file is missing, ends or
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

// sizeOf is the number of bytes of a file's whole blocks.
func (j *Journal) sizeOf(f *ringFile) int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return f.size
}

// ID is the journal's identity.
func (j *Journal) ID() [16]byte { return j.cfg.ID }
