package segment

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/vfs"
)

// TimeUnknown stands for a timestamp that was not looked up yet.
const TimeUnknown int64 = -2

// ErrTainted is returned where a failed write could not be taken back: nobody can tell
// what the file has after a crash.
var ErrTainted = errors.New("a failed write could not be taken back")

// Segment is one file of a log and its indexes. See the package's doc for its states
// and for which calls may be made at a time.
type Segment struct {
	files *Files
	dir   *Dir
	base  record.Offset
	h     atomic.Pointer[handle] // the file, while it is kept open

	retired bool // guarded by files.mu: the file is not kept open any more

	indexFiles sync.Mutex // held over changes of the index files; before mu

	mu           sync.Mutex    // held for moments
	size         int64         // guarded by mu: bytes of whole batches
	next         record.Offset // guarded by mu: the offset after the last record
	synced       int64         // guarded by mu: bytes that a sync of this file covered
	named        bool          // guarded by mu: the file's name is durable
	preallocated bool          // guarded by mu: the file is longer than size
	maxTime      int64         // guarded by mu: the largest timestamp, ms; TimeUnknown until it was looked up
	maxTimeAt    record.Offset // guarded by mu: the last offset of the batch that has it
	firstTime    int64         // guarded by mu: the first batch's largest timestamp; TimeUnknown
	hasGaps      bool          // guarded by mu: offsets may have gaps
	created      int64         // ms: stands in where firstTime is not known; never changes
	tail         *tail         // guarded by mu: the ends of the indexes; nil: closed, or active and not loaded yet
	recent       recent        // guarded by mu: where the last batches lie; empty unless active
}

// Create makes the empty file of a segment that goes on from base, with prealloc bytes
// reserved. Where that fails no file is left behind, or the error is ErrTainted. now is
// the time in ms.
func Create(files *Files, dir *Dir, base record.Offset, prealloc, now int64) (*Segment, error) {
	g := &Segment{
		files: files, dir: dir, base: base, next: base, maxTime: record.NoTimestamp,
		firstTime: TimeUnknown, created: now,
	}
	g.tail = &tail{lastMS: record.NoTimestamp}
	h, err := files.open(g, vfs.Fresh)
	if err != nil {
		return nil, err
	}
	defer h.release()
	if prealloc <= 0 {
		return g, nil
	}
	if err := h.f.Allocate(0, prealloc); err != nil {
		return nil, g.unmake(err)
	}
	g.preallocated = true
	return g, nil
}

// unmake removes the file of a segment that could not begin, and returns why. The
// segment before it may go on beyond the offset in its name: were that file left, the
// next start would take it for the segment that follows.
func (g *Segment) unmake(err error) error {
	g.files.retire(g)
	e := g.dir.Do(func() error { return g.files.fs.Remove(g.Path(LogSuffix)) })
	if e != nil && !errors.Is(e, ErrGone) {
		return fmt.Errorf("%w: segment %d could not begin (%w), nor its file be removed: %w", ErrTainted, g.base, err, e)
	}
	return err
}

// Attach is a segment whose file is there, with size bytes of which nothing is known
// yet. now is the time in ms.
func Attach(files *Files, dir *Dir, base record.Offset, size, now int64) *Segment {
	return &Segment{
		files: files, dir: dir, base: base, size: size, next: base,
		maxTime: TimeUnknown, firstTime: TimeUnknown, created: now,
	}
}

// Base is the offset from which the segment goes on.
func (g *Segment) Base() record.Offset { return g.base }

// Path is the name of one of its files.
func (g *Segment) Path(suffix string) string { return g.dir.Path(FileName(g.base, suffix)) }

// End is the number of bytes of whole batches and the offset after the last record.
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

// Synced is the number of bytes that a sync of the file covered, and whether its name is
// durable.
func (g *Segment) Synced() (size int64, named bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.synced, g.named
}

// Found tells the segment what recovery found out about it: the bytes of whole batches,
// the offset after the last record, how many bytes are on disk for sure, and whether the
// name is.
func (g *Segment) Found(size int64, next record.Offset, synced int64, named bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.size, g.next, g.synced, g.named = size, next, min(synced, size), named
}

// AllowGaps says that the segment's offsets may have gaps. Without it a gap is damage.
func (g *Segment) AllowGaps() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hasGaps = true
}

// SetNamed notes that the file's name is durable.
func (g *Segment) SetNamed() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.named = true
}

// Age is how old the segment is, in ms, for a batch with a largest timestamp of latest
// (NoTimestamp: it has none) at the time now.
func (g *Segment) Age(latest, now int64) int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.firstTime >= 0 && latest >= 0 {
		return latest - g.firstTime
	}
	return now - g.created
}

// open returns the segment's file with a use of it, which release gives back.
func (g *Segment) open() (*handle, error) {
	if h := g.h.Load(); h != nil && h.acquire() {
		return h, nil
	}
	return g.files.open(g, vfs.Existing)
}

// Append writes batches, one a buffer, behind the last one and shows them to readers.
// interval is the number of bytes after which the index gets another entry. Where the
// write fails nothing is left behind, or the error is ErrTainted.
func (g *Segment) Append(bufs [][]byte, interval int) error {
	h, err := g.open()
	if err != nil {
		return err
	}
	defer h.release()
	pos := g.Size()
	if _, err := h.f.WriteVAt(bufs, pos); err != nil {
		return g.cutBack(h.f, pos, err)
	}
	if g.publish(bufs, pos, interval) {
		if err := g.FlushIndexes(); err != nil {
			g.files.log.Debug("an index could not be written; it stays in memory", "file", g.Path(IndexSuffix), "err", err)
		}
	}
	return nil
}

// publish shows batches that were written at pos to readers. It returns true where the
// indexes' ends in memory are full.
func (g *Segment) publish(bufs [][]byte, pos int64, interval int) (full bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, buf := range bufs {
		b := record.Batch(buf)
		g.noteTimeLocked(b)
		g.tail.note(g, b, pos, interval)
		g.recent.push(b.BaseOffset(), b.NextOffset(), pos)
		pos += int64(len(b))
		g.next = b.NextOffset()
	}
	g.size = pos
	return len(g.tail.offsets) >= tailEntries || len(g.tail.times) >= tailEntries
}

// noteTimeLocked keeps the largest timestamp. mu is held, or nobody else has g.
func (g *Segment) noteTimeLocked(b record.Batch) {
	if ms := b.MaxTimestamp(); ms > g.maxTime {
		g.maxTime, g.maxTimeAt = ms, b.LastOffset()
	}
	if g.firstTime == TimeUnknown {
		g.firstTime = b.MaxTimestamp()
	}
}

// cutBack takes away what a failed write left, and returns why it failed. The bytes must
// not come back after a crash behind those that are written there next, so the cut is
// synced.
func (g *Segment) cutBack(f vfs.File, pos int64, cause error) error {
	err := f.Truncate(pos)
	if err == nil {
		err = g.files.sync(f)
	}
	if err != nil {
		return fmt.Errorf("%w: %w; %w", ErrTainted, cause, err)
	}
	g.mu.Lock()
	g.preallocated = false
	g.mu.Unlock()
	return cause
}

// Sync makes the file's contents durable.
func (g *Segment) Sync() error {
	size := g.Size()
	h, err := g.open()
	if err != nil {
		return err
	}
	defer h.release()
	if err := g.files.sync(h.f); err != nil {
		return err
	}
	g.MarkSynced(size)
	return nil
}

// MarkSynced notes that the first size bytes of the file are on disk.
func (g *Segment) MarkSynced(size int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.synced = max(g.synced, min(size, g.size))
}

// StartSync has the system begin to write what a Sync will wait for, and returns how
// many bytes those are.
func (g *Segment) StartSync() int64 {
	g.mu.Lock()
	from, n := g.synced, g.size-g.synced
	g.mu.Unlock()
	if n == 0 {
		return 0
	}
	h, err := g.open()
	if err != nil {
		return 0 // the sync will tell
	}
	defer h.release()
	if f, ok := h.f.(vfs.Starter); ok {
		f.StartSync(from, n)
	}
	return n
}

// Rewrite writes the file's bytes from one position to another once more, so that the
// next sync writes them to disk even if an earlier one failed: after that the kernel
// takes them for written.
func (g *Segment) Rewrite(from, to int64) error {
	h, err := g.open()
	if err != nil {
		return err
	}
	defer h.release()
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

// Truncate cuts the file behind its first size bytes, after which the next record will have
// the offset next, durably. It returns the segment that takes this one's place: readers that
// know where the bytes lay that went do not know that one. now is the time in ms.
func (g *Segment) Truncate(size int64, next record.Offset, now int64) (*Segment, error) {
	h, err := g.open()
	if err != nil {
		return nil, err
	}
	defer h.release()
	if err := h.f.Truncate(size); err != nil {
		return nil, err
	}
	if err := g.files.sync(h.f); err != nil {
		return nil, err
	}
	g.files.retire(g)
	g.indexFiles.Lock()
	defer g.indexFiles.Unlock()
	// Old entries may name positions that later batches come to lie at.
	err = g.dir.Do(func() error {
		return errors.Join(g.files.fs.Remove(g.Path(IndexSuffix)), g.files.fs.Remove(g.Path(TimeSuffix)))
	})
	cut := Attach(g.files, g.dir, g.base, size, now)
	g.mu.Lock()
	defer g.mu.Unlock()
	cut.next, cut.synced, cut.named, cut.hasGaps = next, min(g.synced, size), g.named, g.hasGaps
	return cut, err
}

// Seal closes an active segment: the ends of its indexes are written out, and the file is
// cut to its length. Where it fails the segment stays active.
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

// Close ends the time in which the segment is active, after Seal: its memory is given
// back.
func (g *Segment) Close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.tail, g.recent = nil, recent{}
}

// Trim gives back the space that the file has beyond its batches.
func (g *Segment) Trim() error {
	g.mu.Lock()
	size, preallocated := g.size, g.preallocated
	g.mu.Unlock()
	if !preallocated {
		return nil
	}
	h, err := g.open()
	if err != nil {
		return err
	}
	defer h.release()
	if err := h.f.Truncate(size); err != nil {
		return err
	}
	g.mu.Lock()
	g.preallocated = false
	g.synced = min(g.synced, size-1) // the cut is to be synced, too
	g.mu.Unlock()
	return nil
}

// SyncIndexes makes the index files durable. Retention takes a closed segment's largest
// timestamp from there.
func (g *Segment) SyncIndexes() error {
	g.indexFiles.Lock()
	defer g.indexFiles.Unlock()
	return g.dir.Do(func() error {
		for _, suffix := range []string{IndexSuffix, TimeSuffix} {
			f, err := g.files.openFile(g.Path(suffix), vfs.Create)
			if err != nil {
				return err
			}
			err = g.files.sync(f)
			if err = errors.Join(err, f.Close()); err != nil {
				return err
			}
		}
		return nil
	})
}

// Discard takes the segment's files out of the log, as far as names go, and returns the
// names under which they are to be removed.
func (g *Segment) Discard() (names []string, err error) {
	g.files.retire(g)
	g.indexFiles.Lock()
	defer g.indexFiles.Unlock()
	err = g.dir.Do(func() error {
		for _, suffix := range []string{LogSuffix, IndexSuffix, TimeSuffix} {
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

// CloseFile closes the file as soon as nobody uses it.
func (g *Segment) CloseFile() { g.files.forget(g) }

// Walk makes a walker from a position on, where the batch with offset least or a later
// one begins; see NewWalker. The caller calls close at its end.
func (g *Segment) Walk(pos int64, least record.Offset, strict bool) (w *Walker, closeWalk func(), err error) {
	h, err := g.open()
	if err != nil {
		return nil, nil, err
	}
	w = NewWalker(h.f, pos, g.Size(), least, strict)
	return w, func() { w.Close(); h.release() }, nil
}

// OpenApart opens the segment's file apart from the files that are kept open, to be
// read by who wants to leave those as they are.
func (g *Segment) OpenApart() (f vfs.File, err error) {
	err = g.dir.Do(func() error {
		f, err = g.files.openFile(g.Path(LogSuffix), vfs.ReadOnly)
		return err
	})
	return f, err
}

// ReadAt reads the bytes of batches that were written.
func (g *Segment) ReadAt(b []byte, pos int64) error {
	h, err := g.open()
	if err != nil {
		return err
	}
	defer h.release()
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
