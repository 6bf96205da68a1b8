package storage

import (
	"io"
	"sync"

	"github.com/leatstream/leat/internal/vfs"
)

// Chunk is a stretch of one segment's file, which it keeps open until Release, or
// of what waits to be written there. It satisfies wire.Section.
type Chunk struct {
	h   *handle // nil: mem has it
	mem []byte
	pos int64
	n   int
}

var chunks = sync.Pool{New: func() any { return new(Chunk) }}

// newChunk takes over the caller's use of h.
func newChunk(h *handle, pos, end int64) *Chunk {
	c, _ := chunks.Get().(*Chunk)
	c.h, c.pos, c.n = h, pos, int(end-pos)
	return c
}

// copyWaiting is a stretch of what waits; nil: some of it is in the file.
func (g *segment) copyWaiting(pos, end int64) *Chunk {
	g.log.pub.Lock()
	defer g.log.pub.Unlock()
	b := g.waitingLocked(pos, end)
	if b == nil {
		return nil
	}
	c, _ := chunks.Get().(*Chunk)
	c.mem, c.n = append(c.mem[:0], b...), len(b)
	return c
}

// Len is its length in bytes.
func (c *Chunk) Len() int { return c.n }

// ReadAt reads from it; 0 is its start.
func (c *Chunk) ReadAt(b []byte, off int64) (int, error) {
	if off < 0 || off >= int64(c.n) {
		return 0, io.EOF
	}
	if c.h == nil {
		n := copy(b, c.mem[off:])
		if n < len(b) {
			return n, io.EOF
		}
		return n, nil
	}
	if left := int64(c.n) - off; int64(len(b)) > left {
		n, err := c.h.f.ReadAt(b[:left], c.pos+off)
		if err == nil {
			err = io.EOF
		}
		return n, err
	}
	return c.h.f.ReadAt(b, c.pos+off)
}

// Fd is the file's descriptor and the chunk's position in it; ok is false where the
// file is only to be read, by ReadAt.
func (c *Chunk) Fd() (fd uintptr, pos int64, ok bool) {
	if c.h == nil {
		return 0, 0, false
	}
	d, ok := c.h.f.(vfs.Descriptor)
	if !ok || !c.h.seg.usage.send() {
		return 0, 0, false
	}
	return d.Fd(), c.pos, true
}

// Release gives the chunk back; it must not be used any more.
func (c *Chunk) Release() {
	if h := c.h; h != nil {
		h.drop()
	}
	*c = Chunk{mem: c.mem[:0]}
	chunks.Put(c)
}
