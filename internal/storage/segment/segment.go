package segment

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/transaction"
	"github.com/leatstream/leat/internal/vfs"
)

// TimeUnknown is a timestamp that was not looked up yet.
const TimeUnknown int64 = -2

// ErrTainted is returned after a write that failed and could not be undone: it is not
// known which bytes the file will have after a crash.
var ErrTainted = errors.New("a failed write could not be taken back")

// Segment is one file of a log and its indexes. The package doc has its states, and says
// which methods may be called concurrently.
type Segment struct {
	files  *Files
	dir    *Dir
	base   record.Offset
	handle atomic.Pointer[handle] // the open file while Files keeps it; else nil

	swapEnd    atomic.Int64 // its files have the names of a swap up to this offset; 0: those of a segment. Changed by DoAlone
	isReplaced atomic.Bool  // a swap has replaced the segment: its files are gone, or another segment's. Set by DoAlone

	notKept bool // guarded by files.mu: Files must not keep the file open, since it is being removed

	indexFiles  sync.Mutex                          // held while the index files change; before mu
	isDiscarded bool                                // guarded by indexFiles: the segment is no part of the log any more
	aborts      atomic.Pointer[transaction.Summary] // of the file of aborted transactions; nil: it was not checked

	mu           sync.Mutex    // held for moments
	size         int64         // guarded by mu: bytes of whole batches
	next         record.Offset // guarded by mu: the offset after the last record
	synced       int64         // guarded by mu: how many bytes of the file are durable
	nameDurable  bool          // guarded by mu: the file's name is durable
	preallocated bool          // guarded by mu: the file may be longer than size
	maxTime      int64         // guarded by mu: the largest timestamp, ms; TimeUnknown until it was looked up
	maxTimeAt    record.Offset // guarded by mu: the last offset of the batch with maxTime
	firstTime    int64         // guarded by mu: the first batch's largest timestamp, ms, or TimeUnknown
	hasGaps      bool          // guarded by mu: there may be gaps between offsets
	created      int64         // when Create or Attach was called, ms; never changes
	tail         *tail         // guarded by mu: the ends of the indexes; nil if closed, or active before Activate
	recent       recentBatches // guarded by mu: the last batches that this process has appended; empty if closed
}

// Create makes the empty file of an active segment that begins at the offset base, and
// reserves prealloc bytes for it. If that fails it removes the file; if it cannot, the
// error is ErrTainted. now is the time in ms.
func Create(files *Files, dir *Dir, base record.Offset, prealloc, now int64) (*Segment, error) {
	g := &Segment{
		files: files, dir: dir, base: base, next: base, maxTime: record.NoTimestamp,
		firstTime: TimeUnknown, created: now,
	}
	g.tail = &tail{lastTime: record.NoTimestamp}
	h, err := files.openSegment(g, vfs.Fresh)
	if err != nil {
		return nil, err
	}
	defer h.removeUser()
	if prealloc <= 0 {
		return g, nil
	}
	if err := h.f.Allocate(0, prealloc); err != nil {
		return nil, g.removeFailed(err)
	}
	g.preallocated = true
	return g, nil
}

// removeFailed removes the file of a segment that could not be created, and returns
// err. If it cannot remove the file, the error is ErrTainted: records may be appended to
// the segment before, beyond the offset in the file's name, and the next start would take
// the file for the segment that follows.
func (g *Segment) removeFailed(err error) error {
	g.files.stopKeeping(g)
	e := inDir(g, func() error { return g.files.fs.Remove(g.Path(LogSuffix)) })
	if e != nil && !errors.Is(e, ErrGone) {
		return fmt.Errorf("%w: %s could not begin (%w), nor be removed: %w", ErrTainted, g.Path(LogSuffix), err, e)
	}
	return err
}

// Attach returns the segment of a file that exists and has size bytes; nothing else is
// known of them. now is the time in ms.
func Attach(files *Files, dir *Dir, base record.Offset, size, now int64) *Segment {
	return &Segment{
		files: files, dir: dir, base: base, size: size, next: base,
		maxTime: TimeUnknown, firstTime: TimeUnknown, created: now,
	}
}

// Base is the offset at which the segment begins.
func (g *Segment) Base() record.Offset { return g.base }

// CreatedAt is the time in ms when Create or Attach was called for a segment.
func CreatedAt(g *Segment) int64 { return g.created }

// Path is the path of one of the segment's files.
func (g *Segment) Path(suffix string) string {
	if end := record.Offset(g.swapEnd.Load()); end > 0 {
		return g.dir.Path(swapName(g.base, end, suffix))
	}
	return g.dir.Path(FileName(g.base, suffix))
}

// inDir calls fn while the directory is certain to be the log's own, and while no swap replaces a segment.
// Once one has, the error is ErrReplaced: a file of the segment's name may have other bytes by then.
func inDir(g *Segment, fn func() error) error {
	return g.dir.Do(func() error {
		if g.isReplaced.Load() {
			return ErrReplaced
		}
		return fn()
	})
}

// End returns the number of bytes of whole batches, and the offset after the last record.
func (g *Segment) End() (size int64, next record.Offset) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.size, g.next
}

// Size is the number of bytes of whole batches.
func (g *Segment) Size() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.size
}

// Synced returns how many bytes of the file are durable, and whether its name is.
func (g *Segment) Synced() (size int64, named bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.synced, g.nameDurable
}

// SetRecovered sets the results of recovery: the bytes of whole batches, the offset after
// the last record, how many bytes are certain to be durable, and whether the name is.
func (g *Segment) SetRecovered(size int64, next record.Offset, synced int64, named bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.size, g.next, g.synced, g.nameDurable = size, next, min(synced, size), named
}

// AllowGaps allows gaps between the offsets of batches. Without it a gap is damage.
func (g *Segment) AllowGaps() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hasGaps = true
}

// SetNamed notes that the file's name is durable.
func (g *Segment) SetNamed() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.nameDurable = true
}

// Age is the segment's age in ms when a batch with the largest timestamp latest comes at
// the time now. It counts by timestamps if the batch and the segment's first one have
// some, else by the clock.
func (g *Segment) Age(latest, now int64) int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.firstTime >= 0 && latest >= 0 {
		return latest - g.firstTime
	}
	return now - g.created
}

// useFile opens the segment's file, if it is not open, and adds a user, whom the caller
// must remove.
func (g *Segment) useFile() (*handle, error) {
	if h := g.handle.Load(); h != nil && h.addUser() {
		return h, nil
	}
	return g.files.openSegment(g, vfs.Existing)
}

// Append writes batches, one in each buffer, after the last one, and then shows them to
// readers. interval is the number of bytes after which the index gets another entry. If
// the write fails the file is cut back; if it cannot be, the error is ErrTainted.
func (g *Segment) Append(bufs [][]byte, interval int) error {
	h, err := g.useFile()
	if err != nil {
		return err
	}
	defer h.removeUser()
	pos := g.Size()
	if _, err := h.f.WriteVAt(bufs, pos); err != nil {
		return g.cutBack(h.f, pos, sizeOfAll(bufs), err)
	}
	if g.publishBatches(bufs, pos, interval) {
		if err := g.FlushIndexes(); err != nil {
			g.files.log.Debug("an index could not be written; it stays in memory", "file", g.Path(IndexSuffix), "err", err)
		}
	}
	return nil
}

func sizeOfAll(bufs [][]byte) (n int64) {
	for _, b := range bufs {
		n += int64(len(b))
	}
	return n
}

// publishBatches shows batches that were written at pos to readers. full is true if the
// tail must be flushed.
func (g *Segment) publishBatches(bufs [][]byte, pos int64, interval int) (full bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, buf := range bufs {
		b := record.Batch(buf)
		g.noteTimeLocked(b)
		g.tail.noteBatch(g, b, pos, interval)
		g.recent.pushBatch(b.BaseOffset(), b.NextOffset(), pos)
		pos += int64(len(b))
		g.next = b.NextOffset()
	}
	g.size = pos
	return len(g.tail.offsets) >= tailEntries || len(g.tail.times) >= tailEntries
}

// noteTimeLocked updates the segment's timestamps for a batch. The caller holds mu, or no
// other goroutine uses g.
func (g *Segment) noteTimeLocked(b record.Batch) {
	if b.Count() == 0 { // compaction has emptied it: no record has the time
		return
	}
	if ms := b.MaxTimestamp(); ms > g.maxTime {
		g.maxTime, g.maxTimeAt = ms, b.LastOffset()
	}
	if g.firstTime == TimeUnknown {
		g.firstTime = b.MaxTimestamp()
	}
}

// cutBack cuts the file after a write at pos that failed, and returns cause. It syncs the
// file, since otherwise bytes of the failed write might be there after a crash, behind
// those that are written there next. A mark says so to the next process, should this one be
// killed before the sync. If there is no room for the mark, the bytes are wiped before the cut,
// so that those which a crash brings back are no batches.
func (g *Segment) cutBack(f vfs.File, pos, n int64, cause error) error {
	marked := g.dir.MarkCut(g.files.fs)
	var err error
	if marked != nil {
		err = wipe(f, pos, n, g.files.syncFile)
	}
	if err == nil {
		err = f.Truncate(pos)
	}
	if err == nil {
		err = g.files.syncFile(f)
	}
	if err != nil {
		return fmt.Errorf("%w: %w; %w", ErrTainted, cause, err)
	}
	if marked == nil {
		_ = g.dir.UnmarkCut(g.files.fs) // else the next start makes sure once more
	}
	g.mu.Lock()
	g.preallocated = false
	g.mu.Unlock()
	return cause
}

// wipe overwrites the bytes with zeros, durably, that a failed write of n bytes at pos has left. They
// have their space, so a full disk does not prevent it. If even that needs space, as on a file
// system that never overwrites, the cut is made without it.
func wipe(f vfs.File, pos, n int64, sync func(vfs.File) error) error {
	size, err := f.Size()
	if err != nil {
		return err
	}
	zeros := make([]byte, min(64<<10, max(size-pos, 0)))
	for end := min(size, pos+n); pos < end; {
		b := zeros[:min(int64(len(zeros)), end-pos)]
		if _, err := f.WriteAt(b, pos); err != nil && !errors.Is(err, vfs.ErrNoSpace) {
			return err
		}
		pos += int64(len(b))
	}
	return sync(f)
}

// Sync makes the file's contents durable.
func (g *Segment) Sync() error {
	size := g.Size()
	h, err := g.useFile()
	if err != nil {
		return err
	}
	defer h.removeUser()
	if err := g.files.syncFile(h.f); err != nil {
		return err
	}
	g.MarkSynced(size)
	return nil
}

// MarkSynced notes that the first size bytes of the file are durable.
func (g *Segment) MarkSynced(size int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.synced = max(g.synced, min(size, g.size))
}

// StartSync asks the system to begin to write the bytes that are not synced yet, and
// returns how many those are. A Sync then takes less time.
func (g *Segment) StartSync() int64 {
	g.mu.Lock()
	from, n := g.synced, g.size-g.synced
	g.mu.Unlock()
	if n == 0 {
		return 0
	}
	h, err := g.useFile()
	if err != nil {
		return 0 // Sync returns the error
	}
	defer h.removeUser()
	if f, ok := h.f.(vfs.Starter); ok {
		f.StartSync(from, n)
	}
	return n
}

// Rewrite reads the file's bytes from one position to another and writes them again. The
// next sync then writes them to disk even if an earlier sync failed, after which the
// kernel takes them for written.
func (g *Segment) Rewrite(from, to int64) error {
	h, err := g.useFile()
	if err != nil {
		return err
	}
	defer h.removeUser()
	buf, _ := walkBuffers.Get().(*[]byte)
	defer walkBuffers.Put(buf)
	for from < to {
		b := (*buf)[:min(int64(len(*buf)), to-from)]
		if n, err := h.f.ReadAt(b, from); n < len(b) {
			return err
		}
		if _, err := h.f.WriteAt(b, from); err != nil {
			return err
		}
		from += int64(len(b))
	}
	return nil
}

// Truncate cuts the file after its first size bytes, durably; the next record will have
// the offset next. It returns the segment that replaces this one, so that no reader goes
// on in it from a position that it has found before. now is the time in ms.
func (g *Segment) Truncate(size int64, next record.Offset, now int64) (*Segment, error) {
	h, err := g.useFile()
	if err != nil {
		return nil, err
	}
	defer h.removeUser()
	if err := h.f.Truncate(size); err != nil {
		return nil, err
	}
	if err := g.files.syncFile(h.f); err != nil {
		return nil, err
	}
	g.files.stopKeeping(g)
	g.indexFiles.Lock()
	defer g.indexFiles.Unlock()
	g.isDiscarded = true
	// Old entries may name positions at which later batches will be, or markers that are cut.
	err = inDir(g, func() error {
		return errors.Join(g.files.fs.Remove(g.Path(IndexSuffix)), g.files.fs.Remove(g.Path(TimeSuffix)), g.files.fs.Remove(g.Path(TxnSuffix)))
	})
	cut := Attach(g.files, g.dir, g.base, size, now)
	g.mu.Lock()
	defer g.mu.Unlock()
	cut.next, cut.synced, cut.nameDurable, cut.hasGaps = next, min(g.synced, size), g.nameDurable, g.hasGaps
	return cut, err
}

// Seal prepares an active segment for Close: it writes the ends of the indexes, and cuts
// the file to its length. If it fails the segment stays active.
func (g *Segment) Seal() error {
	if err := g.Activate(0); err != nil {
		return err
	}
	g.mu.Lock()
	g.tail.noteTime(g)
	g.mu.Unlock()
	if err := g.flushIndexes(true); err != nil {
		return err
	}
	return g.Trim()
}

// Close makes a segment closed, after Seal, and gives back its memory.
func (g *Segment) Close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.tail, g.recent = nil, recentBatches{}
}

// Trim gives back the reserved space after the last batch.
func (g *Segment) Trim() error {
	g.mu.Lock()
	size, preallocated := g.size, g.preallocated
	g.mu.Unlock()
	if !preallocated {
		return nil
	}
	h, err := g.useFile()
	if err != nil {
		return err
	}
	defer h.removeUser()
	if err := h.f.Truncate(size); err != nil {
		return err
	}
	g.mu.Lock()
	g.preallocated = false
	g.synced = min(g.synced, size-1) // so that the new length is synced, too
	g.mu.Unlock()
	return nil
}

// SyncIndexes makes the index files durable. Retention reads a closed segment's largest
// timestamp from them.
func (g *Segment) SyncIndexes() error {
	g.indexFiles.Lock()
	defer g.indexFiles.Unlock()
	return inDir(g, func() error {
		for _, suffix := range []string{IndexSuffix, TimeSuffix} {
			f, err := g.files.openFile(g.Path(suffix), vfs.Create)
			if err != nil {
				return err
			}
			err = g.files.syncFile(f)
			if err = errors.Join(err, f.Close()); err != nil {
				return err
			}
		}
		return syncAborts(g)
	})
}

// Discard renames the segment's files, so that they are no longer part of the log, and
// returns the new names. The caller removes them.
func (g *Segment) Discard() (names []string, err error) {
	g.files.stopKeeping(g)
	g.indexFiles.Lock()
	defer g.indexFiles.Unlock()
	g.isDiscarded = true
	err = inDir(g, func() error {
		for _, suffix := range fileSuffixes() {
			name := g.Path(suffix)
			err := g.files.fs.Rename(name, name+DeletedSuffix)
			if errors.Is(err, vfs.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			names = append(names, name+DeletedSuffix)
		}
		return nil
	})
	return names, err
}

// CloseFile closes the file as soon as it has no users. The next use opens it again.
func (g *Segment) CloseFile() { g.files.closeWhenUnused(g) }

// Walk makes a walker that begins at pos, where a batch begins whose offset is not below
// least; see NewWalker. The caller must call closeWalk at the end.
func (g *Segment) Walk(pos int64, least record.Offset, strict bool) (w *Walker, closeWalk func(), err error) {
	h, err := g.useFile()
	if err != nil {
		return nil, nil, err
	}
	w = NewWalker(h.f, pos, g.Size(), least, strict)
	return w, func() { w.Close(); h.removeUser() }, nil
}

// OpenApart opens the segment's file for reading, independent of Files: it closes no file
// that others use, and the caller must close the result.
func (g *Segment) OpenApart() (f vfs.File, err error) {
	err = inDir(g, func() error {
		f, err = g.files.openFile(g.Path(LogSuffix), vfs.ReadOnly)
		return err
	})
	return f, err
}

// ReadAt reads len(b) bytes of batches. If the file ends before, the error is ErrTorn.
func (g *Segment) ReadAt(b []byte, pos int64) error {
	h, err := g.useFile()
	if err != nil {
		return err
	}
	defer h.removeUser()
	n, err := h.f.ReadAt(b, pos)
	switch {
	case n == len(b):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return fmt.Errorf("%w at byte %d: the file ends", ErrTorn, pos+int64(n))
	default:
		return err
	}
}
