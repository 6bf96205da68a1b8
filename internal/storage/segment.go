package storage

import (
	"sync"
	"sync/atomic"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/vfs"
)

// segment is one file of a log and its indexes.
type segment struct {
	log  *Log
	base record.Offset
	h    atomic.Pointer[handle] // the file, where it is open

	usage usage
	room  int64 // bytes that the file had when it was taken over from a dropped segment; guarded by Log.mu

	late   atomic.Bool // the file lacks bytes, or is not there yet: see writeOut
	unmade bool        // it is not there yet; guarded by Log.out

	// Guarded by Log.pub. A closed segment's size and next do not change.
	size      int64         // bytes of whole batches
	next      record.Offset // after the last record
	synced    int64         // bytes that a sync of this file covered
	linked    bool          // the file's name is durable
	maxTime   int64         // the largest timestamp; timeUnknown until it was looked up
	maxAt     record.Offset // last offset of the batch that has it
	firstTime int64         // the first batch's largest timestamp, by which the segment ages; timeUnknown
	created   int64         // ms, where firstTime is not known
	allocated bool          // the file is longer than size: trim it when the segment is closed
	waits     []byte        // the last bytes, which the file has not yet
	flushing  bool          // waits is being written
}

// timeUnknown stands for a timestamp that was not looked up.
const timeUnknown = -2

func (g *segment) path(suffix string) string {
	return g.log.s.path(g.log.dir, fileName(g.base, suffix))
}

// open returns the segment's file, with all that the segment had when it was called,
// and with a use of it, which drop gives back.
func (g *segment) open() (*handle, error) {
	if g.late.Load() {
		if err := g.writeOut(); err != nil {
			return nil, err
		}
	}
	return g.openAs(vfs.Existing)
}

// openAs opens the file as it is, in a mode where it is not open.
func (g *segment) openAs(mode vfs.Mode) (*handle, error) {
	if h := g.h.Load(); h != nil && h.take() {
		return h, nil
	}
	return g.log.s.files.open(g, mode)
}

// forget closes the file as soon as nobody uses it.
func (g *segment) forget() { g.log.s.files.forget(g) }

// handle is an open file and the number of its users. It is closed by the last one.
type handle struct {
	f    vfs.File
	refs atomic.Int32 // its users, and one for files, which keeps it open; 0: closed
	used atomic.Bool  // since files last looked for one to close
	at   int          // its place in files.open; guarded by files.mu
	seg  *segment
}

// take adds a user; false: it was closed meanwhile.
func (h *handle) take() bool {
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

// drop takes a user away.
func (h *handle) drop() {
	if h.refs.Add(-1) == 0 {
		h.close()
	}
}

func (h *handle) close() {
	_ = h.f.Close() // whatever must last was synced; nothing depends on this
	h.seg.usage.open.Add(-1)
}

// files keeps segments' files open, a bounded number of them: the ones used last,
// about (the clock algorithm).
type files struct {
	fs  vfs.FS
	max int

	mu   sync.Mutex
	kept []*handle // guarded by mu
	hand int       // guarded by mu: where the clock stands
}

func (f *files) init(fs vfs.FS, limit int) { f.fs, f.max = fs, limit }

// open opens a segment's file and keeps it open. Two callers may meet here: the
// second one's file is closed again.
func (f *files) open(g *segment, mode vfs.Mode) (*handle, error) {
	g.usage.open.Add(1) // before it is opened: see takeSpare
	file, err := f.fs.Open(g.path(logSuffix), mode)
	if err != nil {
		g.usage.open.Add(-1)
		return nil, err
	}
	h := &handle{f: file, seg: g}
	if g.log.deleted.Load() { // then the file may be another log's
		h.close()
		return nil, ErrClosed
	}
	h.refs.Store(2)
	h.used.Store(true)
	f.mu.Lock()
	if other := g.h.Load(); other != nil && other.take() {
		f.mu.Unlock()
		h.close()
		return other, nil
	}
	g.h.Store(h)
	h.at = len(f.kept)
	f.kept = append(f.kept, h)
	victim := f.evictLocked()
	f.mu.Unlock()
	if victim != nil {
		victim.close()
	}
	return h, nil
}

// evictLocked takes one unused file out where too many are open. All of them may
// be in use, so it looks at each twice at most.
func (f *files) evictLocked() *handle {
	if len(f.kept) <= f.max {
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

func (f *files) removeLocked(h *handle) {
	last := f.kept[len(f.kept)-1]
	f.kept[h.at], last.at = last, h.at
	f.kept[len(f.kept)-1] = nil
	f.kept = f.kept[:len(f.kept)-1]
}

func (f *files) forget(g *segment) {
	f.mu.Lock()
	h := g.h.Swap(nil)
	if h != nil {
		f.removeLocked(h)
	}
	f.mu.Unlock()
	if h != nil {
		h.drop()
	}
}

func (f *files) closeAll() {
	f.mu.Lock()
	kept := f.kept
	f.kept = nil
	for _, h := range kept {
		h.seg.h.Store(nil)
	}
	f.mu.Unlock()
	for _, h := range kept {
		h.drop()
	}
}
