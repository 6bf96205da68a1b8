package segment

import (
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/leatstream/leat/internal/vfs"
)

// Files keeps segment files of all logs of a store open. Their number is bounded; the
// files to close are chosen by the clock algorithm, which keeps about those that were
// used last. Files also has the cursors of readers of old records.
type Files struct {
	fs       vfs.FS
	limit    int // how many files are kept open at a time; more are open only while they are used
	log      *slog.Logger
	syncFile func(vfs.File) error

	cursors cursors

	pinLimit int64        // how many files chunks may keep open; 0: no bound
	pinned   atomic.Int64 // how many files chunks keep open

	mu   sync.Mutex
	open []*handle // guarded by mu: the files that are kept open
	hand int       // guarded by mu: the index in open at which the clock algorithm goes on
}

// NewFiles makes an empty set of open files. limit is how many are kept open at a time.
// syncFile makes a file durable, and sees to the consequences if that fails.
func NewFiles(fs vfs.FS, limit int, log *slog.Logger, syncFile func(vfs.File) error) *Files {
	return &Files{fs: fs, limit: limit, log: log, syncFile: syncFile}
}

// ErrManyReaders is returned for a read while chunks that were not released yet keep as
// many files open as they may.
var ErrManyReaders = errors.New("as many segment files as readers may have are open for them")

// BoundReaders bounds how many files chunks may keep open, so that clients which do not
// take their answers leave some for appends. It must be called before any file is open.
func (f *Files) BoundReaders(n int) { f.pinLimit = int64(n) }

// pinForChunk counts one more chunk of a file. It returns false, and counts nothing, if
// chunks would then keep too many files open.
func (f *Files) pinForChunk(h *handle) bool {
	if h.chunks.Add(1) > 1 || f.pinned.Add(1) <= f.pinLimit || f.pinLimit <= 0 {
		return true
	}
	f.unpinForChunk(h)
	return false
}

// unpinForChunk counts one chunk of a file less.
func (f *Files) unpinForChunk(h *handle) {
	if h.chunks.Add(-1) == 0 {
		f.pinned.Add(-1)
	}
}

// handle is an open file with the number of its users. The last user closes it.
type handle struct {
	f     vfs.File
	users atomic.Int32 // how many there are; Files is one while it keeps the file open; 0: closed
	used  atomic.Bool  // a user was added since the clock algorithm last looked at it

	chunks atomic.Int32 // how many of the users are chunks

	index int // in Files.open; guarded by Files.mu
	seg   *Segment
}

// addUser adds a user. It returns false if the file was closed.
func (h *handle) addUser() bool {
	for {
		n := h.users.Load()
		if n == 0 {
			return false
		}
		if h.users.CompareAndSwap(n, n+1) {
			if !h.used.Load() {
				h.used.Store(true)
			}
			return true
		}
	}
}

// removeUser removes a user, and closes the file after the last one.
func (h *handle) removeUser() {
	if h.users.Add(-1) == 0 {
		h.closeFile()
	}
}

// closeFile closes the file. An error has no consequences, since bytes that must be
// durable were synced.
func (h *handle) closeFile() { _ = h.f.Close() }

// openSegment opens a segment's file, keeps it open, and adds a user for the caller. If
// two callers do so at the same time, the second one's file is closed again.
func (f *Files) openSegment(g *Segment, mode vfs.Mode) (*handle, error) {
	var file vfs.File
	err := inDir(g, func() (err error) {
		file, err = f.openFile(g.Path(LogSuffix), mode)
		return err
	})
	if err != nil {
		return nil, err
	}
	h := &handle{f: file, seg: g}
	h.users.Store(2)
	h.used.Store(true)
	f.mu.Lock()
	if other := g.handle.Load(); other != nil && other.addUser() {
		f.mu.Unlock()
		h.closeFile()
		return other, nil
	}
	if g.notKept {
		f.mu.Unlock()
		h.users.Store(1) // only the caller
		return h, nil
	}
	g.handle.Store(h)
	h.index = len(f.open)
	f.open = append(f.open, h)
	var victims []*handle // there are several if too many files were in use before
	for v := f.evictLocked(f.limit); v != nil; v = f.evictLocked(f.limit) {
		victims = append(victims, v)
	}
	f.mu.Unlock()
	for _, v := range victims {
		v.closeFile()
	}
	return h, nil
}

// openFile opens a file. If the process has too many files open, it closes some that are
// not used.
func (f *Files) openFile(name string, mode vfs.Mode) (vfs.File, error) {
	file, err := f.fs.Open(name, mode)
	for errors.Is(err, vfs.ErrNoHandles) && f.closeUnused() {
		file, err = f.fs.Open(name, mode)
	}
	return file, err
}

// closeUnused closes one file that has no users. It returns false if there is none.
func (f *Files) closeUnused() bool {
	f.mu.Lock()
	victim := f.evictLocked(0)
	f.mu.Unlock()
	if victim == nil {
		return false
	}
	victim.closeFile()
	return true
}

// evictLocked removes a file without users from the list, if there are more than limit,
// and returns it. It looks at each file at most twice, since all of them may be in use.
// The caller holds mu.
func (f *Files) evictLocked(limit int) *handle {
	if len(f.open) <= limit {
		return nil
	}
	for range 2 * len(f.open) {
		f.hand = (f.hand + 1) % len(f.open)
		h := f.open[f.hand]
		if h.used.Swap(false) || !h.users.CompareAndSwap(1, 0) {
			continue
		}
		h.seg.handle.CompareAndSwap(h, nil)
		f.removeLocked(h)
		return h
	}
	return nil
}

// removeLocked removes a file from the list. The caller holds mu.
func (f *Files) removeLocked(h *handle) {
	last := f.open[len(f.open)-1]
	f.open[h.index], last.index = last, h.index
	f.open[len(f.open)-1] = nil
	f.open = f.open[:len(f.open)-1]
}

// closeWhenUnused no longer keeps a segment's file open: the last user closes it. The
// next use opens and keeps it again.
func (f *Files) closeWhenUnused(g *Segment) {
	f.mu.Lock()
	h := f.takeOutLocked(g)
	f.mu.Unlock()
	if h != nil {
		h.removeUser()
	}
}

// stopKeeping is closeWhenUnused for a file that is being removed: a reader that opens it
// again closes it after use. The space of a removed file becomes free only when it is
// closed.
func (f *Files) stopKeeping(g *Segment) {
	f.mu.Lock()
	g.notKept = true
	h := f.takeOutLocked(g)
	f.mu.Unlock()
	if h != nil {
		h.removeUser()
	}
}

// takeOutLocked removes a segment's file from the list and returns it, or nil if it is
// not in the list. The caller holds mu.
func (f *Files) takeOutLocked(g *Segment) *handle {
	h := g.handle.Swap(nil)
	if h != nil {
		f.removeLocked(h)
	}
	return h
}

// Close closes all files. Those that are in use are closed by their last users.
func (f *Files) Close() {
	f.mu.Lock()
	kept := f.open
	f.open = nil
	for _, h := range kept {
		h.seg.handle.Store(nil)
	}
	f.mu.Unlock()
	for _, h := range kept {
		h.removeUser()
	}
}

// writeEnd writes b into a file at off, so that the file ends after b. It makes the file
// if it is missing.
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

// replaceFile replaces the contents of a file. Readers see either the old contents or
// the new ones. After a crash it may also be empty, unless sync is true: then the new contents are
// durable before they get the name.
func (f *Files) replaceFile(name string, b []byte, sync bool) error {
	tmp := name + ".tmp"
	file, err := f.openFile(tmp, vfs.Fresh)
	if err != nil {
		return err
	}
	_, err = file.WriteAt(b, 0)
	if err == nil && sync {
		err = f.syncFile(file)
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return errors.Join(err, f.fs.Remove(tmp))
	}
	return f.fs.Rename(tmp, name)
}
