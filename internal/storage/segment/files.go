package segment

import (
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/leatstream/leat/internal/vfs"
)

// Files keeps segment files of all logs of a store open, a bounded number of them: about
// those that were used last (the clock algorithm). It also remembers where readers of
// old records will go on (cursors).
type Files struct {
	fs    vfs.FS
	limit int // of files that are open at a time
	log   *slog.Logger
	sync  func(vfs.File) error

	cursors cursors

	forReaders int64        // files that chunks may keep open; 0: no bound
	pinned     atomic.Int64 // files with chunks

	mu   sync.Mutex
	kept []*handle // guarded by mu
	hand int       // guarded by mu: where the clock stands
}

// NewFiles makes an empty set of open files. limit is how many may be open at a time,
// syncFile makes a file durable and takes notice where that fails.
func NewFiles(fs vfs.FS, limit int, log *slog.Logger, syncFile func(vfs.File) error) *Files {
	return &Files{fs: fs, limit: limit, log: log, sync: syncFile}
}

// ErrManyReaders is returned for a read where as many files as may be are open for chunks
// that were not released yet.
var ErrManyReaders = errors.New("as many segment files as readers may have are open for them")

// BoundReaders bounds how many files chunks may keep open: a client that does not take its
// answers must leave some for appends. It is to be called before any file is open.
func (f *Files) BoundReaders(n int) { f.forReaders = int64(n) }

// pin keeps a file open for one more chunk; it returns false where it would be one more
// file than chunks may keep open.
func (f *Files) pin(h *handle) bool {
	if h.chunks.Add(1) > 1 || f.pinned.Add(1) <= f.forReaders || f.forReaders <= 0 {
		return true
	}
	f.unpin(h)
	return false
}

// unpin takes a chunk away.
func (f *Files) unpin(h *handle) {
	if h.chunks.Add(-1) == 0 {
		f.pinned.Add(-1)
	}
}

// handle is an open file and the number of its users. The last one closes it.
type handle struct {
	f    vfs.File
	refs atomic.Int32 // its users, and one for Files, which keeps it open; 0: closed
	used atomic.Bool  // since Files last looked for one to close

	chunks atomic.Int32 // that keep it open, and are users, too

	at  int // its place in Files.kept; guarded by Files.mu
	seg *Segment
}

// acquire adds a user; it returns false where the file was closed meanwhile.
func (h *handle) acquire() bool {
	for {
		n := h.refs.Load()
		if n == 0 {
			return false
		}
		if h.refs.CompareAndSwap(n, n+1) {
			if !h.used.Load() {
				h.used.Store(true)
			}
			return true
		}
	}
}

// release takes a user away.
func (h *handle) release() {
	if h.refs.Add(-1) == 0 {
		h.close()
	}
}

// close ends the use of the file. Bytes that must last were synced, so that nothing
// depends on its outcome.
func (h *handle) close() { _ = h.f.Close() }

// open opens a segment's file and keeps it open. Two callers may do so at a time: the
// second one's file is closed again.
func (f *Files) open(g *Segment, mode vfs.Mode) (*handle, error) {
	var file vfs.File
	err := g.dir.Do(func() (err error) {
		file, err = f.openFile(g.Path(LogSuffix), mode)
		return err
	})
	if err != nil {
		return nil, err
	}
	h := &handle{f: file, seg: g}
	h.refs.Store(2)
	h.used.Store(true)
	f.mu.Lock()
	if other := g.h.Load(); other != nil && other.acquire() {
		f.mu.Unlock()
		h.close()
		return other, nil
	}
	if g.retired {
		f.mu.Unlock()
		h.refs.Store(1) // the caller's use is the last one
		return h, nil
	}
	g.h.Store(h)
	h.at = len(f.kept)
	f.kept = append(f.kept, h)
	var victims []*handle // several where many were in use at a time before
	for v := f.evictLocked(f.limit); v != nil; v = f.evictLocked(f.limit) {
		victims = append(victims, v)
	}
	f.mu.Unlock()
	for _, v := range victims {
		v.close()
	}
	return h, nil
}

// openFile opens a file, and makes room for it where the process has too many open.
func (f *Files) openFile(name string, mode vfs.Mode) (vfs.File, error) {
	file, err := f.fs.Open(name, mode)
	for errors.Is(err, vfs.ErrNoHandles) && f.closeUnused() {
		file, err = f.fs.Open(name, mode)
	}
	return file, err
}

// closeUnused closes one file that nobody uses; it returns false where there is none.
func (f *Files) closeUnused() bool {
	f.mu.Lock()
	victim := f.evictLocked(0)
	f.mu.Unlock()
	if victim == nil {
		return false
	}
	victim.close()
	return true
}

// evictLocked takes an unused file out where more than limit are open. All of them may
// be in use, so it looks at each twice at most. mu is held.
func (f *Files) evictLocked(limit int) *handle {
	if len(f.kept) <= limit {
		return nil
	}
	for range 2 * len(f.kept) {
		f.hand = (f.hand + 1) % len(f.kept)
		h := f.kept[f.hand]
		if h.used.Swap(false) || !h.refs.CompareAndSwap(1, 0) {
			continue
		}
		h.seg.h.CompareAndSwap(h, nil)
		f.removeLocked(h)
		return h
	}
	return nil
}

// removeLocked takes a file out of the list. mu is held.
func (f *Files) removeLocked(h *handle) {
	last := f.kept[len(f.kept)-1]
	f.kept[h.at], last.at = last, h.at
	f.kept[len(f.kept)-1] = nil
	f.kept = f.kept[:len(f.kept)-1]
}

// forget closes a segment's file as soon as nobody uses it.
func (f *Files) forget(g *Segment) {
	f.mu.Lock()
	h := f.takeOutLocked(g)
	f.mu.Unlock()
	if h != nil {
		h.release()
	}
}

// retire has the segment's file not be kept open any more, as its name is gone or about to
// be: late readers may open it once more, and each closes it again. The space of a file that
// was removed is free only when nobody has it open.
func (f *Files) retire(g *Segment) {
	f.mu.Lock()
	g.retired = true
	h := f.takeOutLocked(g)
	f.mu.Unlock()
	if h != nil {
		h.release()
	}
}

// takeOutLocked takes a segment's file out of the list, if it is there. mu is held.
func (f *Files) takeOutLocked(g *Segment) *handle {
	h := g.h.Swap(nil)
	if h != nil {
		f.removeLocked(h)
	}
	return h
}

// Close closes all files; those that are in use when their users release them.
func (f *Files) Close() {
	f.mu.Lock()
	kept := f.kept
	f.kept = nil
	for _, h := range kept {
		h.seg.h.Store(nil)
	}
	f.mu.Unlock()
	for _, h := range kept {
		h.release()
	}
}

// writeEnd writes b into a file from off on, making it where it is missing, and ends it there.
func (f *Files) writeEnd(name string, b []byte, off int64) error {
	file, err := f.openFile(name, vfs.Create)
	if err != nil {
		return err
	}
	if _, err = file.WriteAt(b, off); err == nil {
		err = file.Truncate(off + int64(len(b)))
	}
	return errors.Join(err, file.Close())
}

// replaceFile gives a file new contents in one step for who reads it. A crash may leave
// the old contents, the new ones or an empty file.
func (f *Files) replaceFile(name string, b []byte) error {
	tmp := name + ".tmp"
	file, err := f.openFile(tmp, vfs.Fresh)
	if err != nil {
		return err
	}
	_, err = file.WriteAt(b, 0)
	if err = errors.Join(err, file.Close()); err != nil {
		return errors.Join(err, f.fs.Remove(tmp))
	}
	return f.fs.Rename(tmp, name)
}
