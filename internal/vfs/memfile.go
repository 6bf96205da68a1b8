package vfs

import (
	"io"
	"io/fs"
	"slices"
	"sync/atomic"
	"syscall"
)

// content has a file's bytes as reads see them now (live), as they are durable (disk),
// and the changes from the second to the first (pending). Mem.mu guards it.
type content struct {
	live    image
	disk    image
	pending []change
	taken   int64 // how many bytes of the file system's space it takes
	links   int   // how many names it has
	handles int   // how many open files it has

	// unreportedFailure is set if a sync of the whole file system has failed at this file,
	// and no Sync of the file has reported it yet.
	unreportedFailure bool
}

// image is a file's bytes: those of b, and zeros from there up to size.
type image struct {
	b    []byte
	size int64
}

// change is a write at off or, if data is nil, a change of the size to off.
type change struct {
	off  int64
	data []byte
}

// lastWrite has the last write, so that KillClone can undo a part of it.
type lastWrite struct {
	c    *content
	off  int64
	n    int    // the bytes written
	old  []byte // the bytes that were overwritten, as far as they lay in b
	size int64  // the file's size before
}

func (i *image) writeBytes(off int64, data []byte) {
	end := off + int64(len(data))
	if have := int64(len(i.b)); end > have {
		i.b = slices.Grow(i.b, int(end-have))[:end]
		if off > have {
			clear(i.b[have:off])
		}
	}
	copy(i.b[off:], data)
	i.size = max(i.size, end)
}

func (i *image) resize(size int64) {
	if int64(len(i.b)) > size {
		i.b = i.b[:size]
	}
	i.size = size
}

func (i *image) applyChange(c change) {
	if c.data == nil {
		i.resize(c.off)
	} else {
		i.writeBytes(c.off, c.data)
	}
}

func (i *image) clone() image { return image{b: slices.Clone(i.b), size: i.size} }

// memFile is an open file of a Mem.
type memFile struct {
	m        *Mem
	c        *content
	mount    int // the value of m.mount when it was opened
	name     string
	readOnly bool
	closed   atomic.Bool
}

func (f *memFile) ReadAt(b []byte, off int64) (int, error) {
	f.m.mu.RLock()
	defer f.m.mu.RUnlock()
	if err := f.usableLocked("read"); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, pathError("read", f.name, fs.ErrInvalid)
	}
	i := &f.c.live
	n := int(max(0, min(int64(len(b)), i.size-off)))
	got := 0
	if off < int64(len(i.b)) {
		got = copy(b[:n], i.b[off:])
	}
	clear(b[got:n])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(b []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.writableLocked("write"); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, pathError("write", f.name, fs.ErrInvalid)
	}
	f.m.last = nil // the one before has returned, also where this one writes nothing
	if len(b) == 0 {
		return 0, nil
	}
	n := f.m.takeLocked(f.c, off, int64(len(b)))
	if n > 0 {
		f.m.writeLocked(f.c, off, slices.Clone(b[:n]))
	}
	if n < int64(len(b)) {
		return int(n), pathError("write", f.name, ErrNoSpace)
	}
	return int(n), nil
}

func (f *memFile) WriteVAt(bufs [][]byte, off int64) (int64, error) {
	return writeParts(f, [][]byte{slices.Concat(bufs...)}, off)
}

func (f *memFile) Size() (int64, error) {
	f.m.mu.RLock()
	defer f.m.mu.RUnlock()
	if err := f.usableLocked("stat"); err != nil {
		return 0, err
	}
	return f.c.live.size, nil
}

func (f *memFile) Truncate(size int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.writableLocked("truncate"); err != nil {
		return err
	}
	if size < 0 {
		return pathError("truncate", f.name, fs.ErrInvalid)
	}
	f.m.resizeLocked(f.c, size)
	return nil
}

func (f *memFile) Allocate(off, n int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.writableLocked("allocate"); err != nil {
		return err
	}
	if off < 0 || n <= 0 {
		return pathError("allocate", f.name, fs.ErrInvalid)
	}
	if need := off + n - f.c.taken; need > max(f.m.avail, 0) {
		return pathError("allocate", f.name, ErrNoSpace)
	}
	f.m.takeLocked(f.c, off, n)
	if off+n > f.c.live.size {
		f.m.resizeLocked(f.c, off+n)
	}
	return nil
}

func (f *memFile) Sync() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.usableLocked("fsync"); err != nil {
		return err
	}
	if f.c.unreportedFailure {
		f.c.unreportedFailure = false
		return pathError("fsync", f.name, syscall.EIO)
	}
	f.c.makeDurable(f.m)
	return nil
}

// makeDurable makes the file's bytes durable. The caller holds mu of m.
func (c *content) makeDurable(m *Mem) {
	for _, ch := range c.pending {
		c.disk.applyChange(ch)
	}
	c.clearPending(m)
}

func (f *memFile) losePending() {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	f.c.losePending(f.m)
}

// losePending changes the file as Linux does after a sync that failed: reads still see
// the changes, but their pages are no longer dirty, so that no later sync writes them.
// The caller holds mu of m.
func (c *content) losePending(m *Mem) {
	for _, ch := range c.pending {
		if ch.data == nil {
			c.disk.resize(ch.off)
		} else {
			c.disk.size = max(c.disk.size, ch.off+int64(len(ch.data)))
		}
	}
	c.clearPending(m)
}

// clearPending removes the changes that are durable or lost.
func (c *content) clearPending(m *Mem) {
	c.pending = nil
	if m.last != nil && m.last.c == c {
		m.last = nil
	}
}

func (f *memFile) Close() error {
	if f.closed.Swap(true) {
		return pathError("close", f.name, fs.ErrClosed)
	}
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	f.releaseLocked()
	return nil
}

// releaseLocked counts the file as closed.
func (f *memFile) releaseLocked() {
	f.m.handles--
	f.c.handles--
	if f.mount == f.m.mount { // else Attach has counted the space anew
		f.m.reclaimLocked(f.c)
	}
}

// usableLocked refuses calls of a file that was closed, or whose volume was detached.
func (f *memFile) usableLocked(op string) error {
	if f.closed.Load() {
		return pathError(op, f.name, fs.ErrClosed)
	}
	if f.m.detached || f.mount != f.m.mount {
		return pathError(op, f.name, syscall.EIO)
	}
	return nil
}

func (f *memFile) writableLocked(op string) error {
	if err := f.usableLocked(op); err != nil {
		return err
	}
	if f.readOnly {
		return pathError(op, f.name, fs.ErrPermission)
	}
	return nil
}

// takeLocked takes space for n bytes at off, and returns for how many there was space.
func (m *Mem) takeLocked(c *content, off, n int64) int64 {
	need := min(max(0, off+n-c.taken), n) // a hole before off takes none
	short := max(0, need-max(m.avail, 0))
	m.avail -= need - short
	if need > short {
		c.taken = max(c.taken, off+n-short)
	}
	return n - short
}

func (m *Mem) writeLocked(c *content, off int64, data []byte) {
	l := &lastWrite{c: c, off: off, n: len(data), size: c.live.size}
	if have := int64(len(c.live.b)); off < have {
		l.old = slices.Clone(c.live.b[off:min(have, off+int64(len(data)))])
	}
	m.last = l
	c.live.writeBytes(off, data)
	c.pending = append(c.pending, change{off, data})
}

func (m *Mem) resizeLocked(c *content, size int64) {
	if c.live.size == size && int64(len(c.live.b)) <= size {
		return
	}
	c.live.resize(size)
	c.pending = append(c.pending, change{off: size})
	if c.taken > size {
		m.avail += c.taken - size
		c.taken = size
	}
	m.last = nil
}

// reclaimLocked gives back the space of a file that has no name and is not open.
func (m *Mem) reclaimLocked(c *content) {
	if c.links == 0 && c.handles == 0 {
		m.avail += c.taken
		c.taken = 0
	}
}
