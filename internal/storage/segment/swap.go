package segment

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/transaction"
	"github.com/leatstream/leat/internal/vfs"
)

const (
	cleanedSuffix = ".cleaned" // of a file that a swap has begun
	swapSuffix    = ".swap"    // before the usual suffixes

	// swapBuffer is how many bytes a Swap writes at a time, but for a batch that is longer.
	swapBuffer = 1 << 20
)

// ErrReplaced is returned for files of a segment that a swap has replaced. Who looks for the log's segments
// again finds the one that has its place.
var ErrReplaced = fmt.Errorf("the segment was replaced by a compacted one: %w", vfs.ErrNotExist)

// swapName is the name of a file of a segment that replaces those from base on and below end.
func swapName(base, end record.Offset, suffix string) string {
	return FileName(base, "-") + FileName(end, swapSuffix+suffix)
}

// cleanedName is the name of the segment's file before the swap is decided.
func cleanedName(base, end record.Offset) string {
	return FileName(base, "-") + FileName(end, cleanedSuffix)
}

// swapFile is what the name of a file of a swap tells.
type swapFile struct {
	base, end record.Offset
	suffix    string
}

// parseSwapName is the inverse of swapName. ok is false if it is another file's name.
func parseSwapName(name string) (f swapFile, ok bool) {
	first, second, ok := strings.Cut(name, "-")
	if !ok {
		return swapFile{}, false
	}
	for _, suffix := range fileSuffixes() {
		base, ok1 := ParseFileName(first, "")
		end, ok2 := ParseFileName(second, swapSuffix+suffix)
		if ok1 && ok2 && end > base {
			return swapFile{base, end, suffix}, true
		}
	}
	return swapFile{}, false
}

// Swap writes a segment that replaces others of its log: all those from its base on and below its end. The
// package doc has its states. It is for one goroutine.
type Swap struct {
	files     *Files
	dir       *Dir
	base, end record.Offset
	f         vfs.File // nil: it is closed
	buf       []byte   // batches that are not written yet
	size      int64    // bytes of the file
	next      record.Offset
	interval  int
	twin      *Segment // has the timestamps
	tail      *tail    // has all index entries
	summary   *transaction.Summary
	started   int64 // bytes that the system was asked to write to the disk
}

// BeginSwap makes the file of a segment that is to replace those from base on and below end. interval is the
// number of bytes between two entries of its index.
func BeginSwap(files *Files, dir *Dir, base, end record.Offset, interval int) (*Swap, error) {
	if interval <= 0 {
		interval = defaultInterval
	}
	w := &Swap{files: files, dir: dir, base: base, end: end, next: base, interval: interval}
	w.twin = &Segment{base: base, maxTime: record.NoTimestamp, firstTime: TimeUnknown}
	w.tail = &tail{lastTime: record.NoTimestamp}
	err := dir.Do(func() (err error) {
		w.f, err = files.openFile(dir.Path(cleanedName(base, end)), vfs.Fresh)
		return err
	})
	return w, err
}

// Size is the number of bytes that the segment has so far.
func (w *Swap) Size() int64 { return w.size + int64(len(w.buf)) }

// Append adds the batch that makeBatch appends to a buffer, if it appends one. Batches must come in the order of
// their offsets.
func (w *Swap) Append(makeBatch func(dst []byte) ([]byte, error)) error {
	at := len(w.buf)
	b, err := makeBatch(w.buf)
	if err != nil {
		return err
	}
	w.buf = b
	if len(b) == at {
		return nil
	}
	one := record.Batch(b[at:])
	if len(one) < record.HeaderLen || one.Size() != len(one) || one.BaseOffset() < w.next || one.NextOffset() > w.end {
		return fmt.Errorf("%w: a batch with the offsets %d to %d does not fit into a segment from %d to %d", record.ErrInvalid, one.BaseOffset(), one.LastOffset(), w.next, w.end)
	}
	w.twin.noteTimeLocked(one) // no lock is needed
	w.tail.noteBatch(w.twin, one, w.size+int64(at), w.interval)
	w.next = one.NextOffset()
	if len(w.buf) < swapBuffer {
		return nil
	}
	return w.flush()
}

// flush writes the buffer, and has the system begin to write it to the disk, so that the sync at the end
// finds little left.
func (w *Swap) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	if _, err := w.f.WriteAt(w.buf, w.size); err != nil {
		return err
	}
	w.size += int64(len(w.buf))
	if w.buf = w.buf[:0]; cap(w.buf) > 4*swapBuffer {
		w.buf = nil
	}
	if s, ok := w.f.(vfs.Starter); ok {
		s.StartSync(w.started, w.size-w.started)
		w.started = w.size
	}
	return nil
}

// Finish writes the rest, and the indexes, and makes their bytes durable. The segment must end with its last
// offset. aborts are the aborted transactions with markers in the segment, and stable is the first offset of a
// transaction that was open at its end, or that end; if hasAborts is false the log has no transactions there.
func (w *Swap) Finish(aborts []transaction.Abort, stable record.Offset, hasAborts bool) error {
	if w.next != w.end {
		return fmt.Errorf("%w: a compacted segment ends at %d, not at %d", record.ErrInvalid, w.next, w.end)
	}
	if err := w.flush(); err != nil {
		return err
	}
	w.tail.noteTime(w.twin)
	err := w.files.syncFile(w.f)
	if err = errors.Join(err, w.f.Close()); err != nil {
		w.f = nil
		return err
	}
	w.f = nil
	return w.dir.Do(func() error {
		err := w.files.replaceFile(w.path(IndexSuffix), appendEntries(nil, w.tail.offsets), true)
		if err == nil {
			err = w.files.replaceFile(w.path(TimeSuffix), appendTimeEntries(nil, w.tail.times), true)
		}
		if err == nil && hasAborts {
			w.summary = &transaction.Summary{UpTo: w.end, Stable: stable, Count: len(aborts)}
			err = w.files.replaceFile(w.path(TxnSuffix), transaction.Encode(aborts, w.end, stable), true)
		}
		return err
	})
}

func (w *Swap) path(suffix string) string { return w.dir.Path(swapName(w.base, w.end, suffix)) }

// Decide gives the file the name by which an opening knows that the others are replaced. The caller makes the
// name durable. After an error nothing is decided.
func (w *Swap) Decide() error {
	return w.dir.Do(func() error {
		return w.files.fs.Rename(w.dir.Path(cleanedName(w.base, w.end)), w.path(LogSuffix))
	})
}

// Abandon removes the files of a swap that was not decided.
func (w *Swap) Abandon() error {
	if w.f != nil {
		_ = w.f.Close() // nobody needs its bytes
		w.f = nil
	}
	return w.dir.Do(func() error {
		err := w.files.fs.Remove(w.dir.Path(cleanedName(w.base, w.end)))
		for _, suffix := range fileSuffixes() {
			if suffix != LogSuffix {
				err = errors.Join(err, w.files.fs.Remove(w.path(suffix)))
			}
		}
		return err
	})
}

// Segment is the segment that was written, whose files have the names of the swap. now is the time in ms.
func (w *Swap) Segment(now int64) *Segment {
	g := &Segment{
		files: w.files, dir: w.dir, base: w.base, size: w.size, next: w.end, synced: w.size, nameDurable: true, hasGaps: true,
		maxTime: w.twin.maxTime, maxTimeAt: w.twin.maxTimeAt, firstTime: w.twin.firstTime, created: now,
	}
	g.swapEnd.Store(int64(w.end))
	g.aborts.Store(w.summary)
	return g
}

// Publish calls show, which replaces segments of a log by the one of a swap for all readers. While it runs
// nobody opens a file of the log, and afterwards nobody opens one of the old segments.
func Publish(dir *Dir, olds []*Segment, show func()) error {
	err := dir.DoAlone(func() error {
		for _, g := range olds {
			g.isReplaced.Store(true)
		}
		show()
		return nil
	})
	if err != nil {
		return err
	}
	for _, g := range olds {
		g.files.stopKeeping(g)
		g.indexFiles.Lock()
		g.isDiscarded = true
		g.indexFiles.Unlock()
	}
	return nil
}

// Clear removes the files of segments that were replaced. The caller makes that durable before Settle.
func Clear(dir *Dir, olds []*Segment) error {
	return dir.Do(func() error {
		for _, g := range olds {
			for _, suffix := range fileSuffixes() {
				if err := g.files.fs.Remove(dir.Path(FileName(g.base, suffix))); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// Settle gives the files of a swap's segment the names of a segment, that of the batches last. The caller makes
// that durable. It may be called again after an error.
func Settle(g *Segment) error {
	return g.dir.DoAlone(func() error {
		end := record.Offset(g.swapEnd.Load())
		if end == 0 {
			return nil
		}
		if err := renameSwap(g.files.fs, g.dir, g.base, end); err != nil {
			return err
		}
		g.swapEnd.Store(0)
		return nil
	})
}

// renameSwap gives the files of a swap the names of a segment. The file of the batches has its name last:
// until then an opening does this again.
func renameSwap(fs vfs.FS, dir *Dir, base, end record.Offset) error {
	for _, suffix := range slices.Backward(fileSuffixes()) {
		err := fs.Rename(dir.Path(swapName(base, end, suffix)), dir.Path(FileName(base, suffix)))
		if err != nil && (suffix == LogSuffix || !errors.Is(err, vfs.ErrNotExist)) {
			return err
		}
	}
	return nil
}

// FinishSwaps finishes the swaps that an earlier run has decided in a directory, whose files are given, and removes
// the files of those that it has not. It tells whether the names in the directory have changed. sync makes them durable.
func FinishSwaps(fs vfs.FS, dir *Dir, infos []vfs.Info, sync func() error) (changed bool, err error) {
	for _, i := range infos {
		f, ok := parseSwapName(i.Name)
		if !ok || f.suffix != LogSuffix {
			continue
		}
		changed = true
		if err := finishSwap(fs, dir, infos, f.base, f.end, sync); err != nil {
			return changed, err
		}
	}
	for _, i := range infos {
		f, ok := parseSwapName(i.Name)
		isLeft := ok && f.suffix != LogSuffix && !hasName(infos, swapName(f.base, f.end, LogSuffix))
		if isLeft || strings.HasSuffix(i.Name, cleanedSuffix) {
			changed = true
			if err := fs.Remove(dir.Path(i.Name)); err != nil {
				return changed, err
			}
		}
	}
	return changed, nil
}

func hasName(infos []vfs.Info, name string) bool {
	return slices.ContainsFunc(infos, func(i vfs.Info) bool { return i.Name == name })
}

// finishSwap removes the segments that a swap replaces, durably, and then gives its files their names.
func finishSwap(fs vfs.FS, dir *Dir, infos []vfs.Info, base, end record.Offset, sync func() error) error {
	for _, i := range infos {
		for _, suffix := range fileSuffixes() {
			if at, ok := ParseFileName(i.Name, suffix); ok && at >= base && at < end {
				if err := fs.Remove(dir.Path(i.Name)); err != nil {
					return err
				}
			}
		}
	}
	if err := sync(); err != nil {
		return err
	}
	if err := renameSwap(fs, dir, base, end); err != nil {
		return err
	}
	return sync()
}
