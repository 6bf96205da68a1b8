package vfs

import (
	"io"
	"io/fs"
	"slices"
	"sync/atomic"
	"syscall"
)

// content is a file's bytes: as read now, as a power cut right now is sure to
// leave them, and the changes between the two. Guarded by Mem.mu.
type content struct {
	live    image
	disk    image
	pending []change
	taken   int64 // bytes of the file system's space
	links   int   // names, 0 or 1
	handles int
	failed  bool // a sync of the whole file system failed here, and no sync of the file has told; nobody tells another process
}

// image is a file's bytes; what lies beyond b, up to size, is zeros.
type image struct {
	b    []byte
	size int64
}

// change is a write at off, or, where data is nil, a new size.
type change struct {
	off  int64
	data []byte
}

// lastWrite is what KillClone needs to cut a write short.
type lastWrite struct {
	c    *content
	off  int64
	n    int
	old  []byte // what the write covered, as far as it lay in b
	size int64  // before it
}

func (i *image) write(off int64, data []byte) {
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

func (i *image) apply(c change) {
	if c.data == nil {
		i.resize(c.off)
	} else {
		i.write(c.off, c.data)
	}
}

func (i *image) clone() image { return image{b: slices.Clone(i.b), size: i.size} }

// memFile is an open file of a Mem.
type memFile struct {
	m        *Mem
	c        *content
	mount    int // of m, when it was opened
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
		return 0, fail("read", f.name, fs.ErrInvalid)
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
		return 0, fail("write", f.name, fs.ErrInvalid)
	}
	if len(b) == 0 {
		return 0, nil
	}
	n := f.m.takeLocked(f.c, off, int64(len(b)))
	if n > 0 {
		f.m.writeLocked(f.c, off, slices.Clone(b[:n]))
	}
	if n < int64(len(b)) {
		return int(n), fail("write", f.name, ErrNoSpace)
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
		return fail("truncate", f.name, fs.ErrInvalid)
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
		return fail("allocate", f.name, fs.ErrInvalid)
	}
	if need := off + n - f.c.taken; need > max(f.m.avail, 0) {
		return fail("allocate", f.name, ErrNoSpace)
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
	if f.c.failed {
		f.c.failed = false
		return fail("fsync", f.name, syscall.EIO)
	}
	f.c.sync(f.m)
	return nil
}

// sync makes the file's bytes durable. The Mem's mu is held.
func (c *content) sync(m *Mem) {
	for _, ch := range c.pending {
		c.disk.apply(ch)
	}
	c.settle(m)
}

func (f *memFile) lose() {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	f.c.lose(f.m)
}

// lose is what Linux does to a file whose sync failed: the pages count as clean,
// so reads still see them, and no later sync writes them. The Mem's mu is held.
func (c *content) lose(m *Mem) {
	for _, ch := range c.pending {
		if ch.data == nil {
			c.disk.resize(ch.off)
		} else {
			c.disk.size = max(c.disk.size, ch.off+int64(len(ch.data)))
		}
	}
	c.settle(m)
}

func (c *content) settle(m *Mem) {
	c.pending = nil
	if m.last != nil && m.last.c == c {
		m.last = nil
	}
}

func (f *memFile) Close() error {
	if f.closed.Swap(true) {
		return fail("close", f.name, fs.ErrClosed)
	}
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	f.releaseLocked()
	return nil
}

// releaseLocked gives the handle back.
func (f *memFile) releaseLocked() {
	f.m.handles--
	f.c.handles--
	if f.mount == f.m.mount { // else the space of the file is counted no more
		f.m.reclaimLocked(f.c)
	}
}

// usableLocked refuses calls on a file that was closed, or whose volume was torn away.
func (f *memFile) usableLocked(op string) error {
	if f.closed.Load() {
		return fail(op, f.name, fs.ErrClosed)
	}
	if f.m.away || f.mount != f.m.mount {
		return fail(op, f.name, syscall.EIO)
	}
	return nil
}

func (f *memFile) writableLocked(op string) error {
	if err := f.usableLocked(op); err != nil {
		return err
	}
	if f.readOnly {
		return fail(op, f.name, fs.ErrPermission)
	}
	return nil
}

// takeLocked takes space for n bytes at off and tells for how many there was some.
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
	c.live.write(off, data)
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

// reclaimLocked gives the space of a file back that has neither name nor user.
func (m *Mem) reclaimLocked(c *content) {
	if c.links == 0 && c.handles == 0 {
		m.avail += c.taken
		c.taken = 0
	}
}
