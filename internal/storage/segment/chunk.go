package segment

import (
	"io"
	"sync"

	"github.com/leatstream/leat/internal/vfs"
)

// Chunk is a stretch of a segment's file, which it keeps open until Release.
type Chunk struct {
	h   *handle // pinned
	pos int64
	n   int
}

var chunks = sync.Pool{New: func() any { return new(Chunk) }}

// chunkOf makes the chunk from pos to end. It takes over the caller's use of h, which is pinned.
func chunkOf(h *handle, pos, end int64) *Chunk {
	c, _ := chunks.Get().(*Chunk)
	c.h, c.pos, c.n = h, pos, int(end-pos)
	return c
}

// Len is its length in bytes.
func (c *Chunk) Len() int { return c.n }

// ReadAt reads from it; 0 is its beginning.
func (c *Chunk) ReadAt(b []byte, off int64) (int, error) {
	if off < 0 || off >= int64(c.n) {
		return 0, io.EOF
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

// Fd is the file's descriptor and the chunk's position in it, for sendfile; ok is false
// where the file has no descriptor of the system.
func (c *Chunk) Fd() (fd uintptr, pos int64, ok bool) {
	d, ok := c.h.f.(vfs.Descriptor)
	if !ok {
		return 0, 0, false
	}
	return d.Fd(), c.pos, true
}

// Release gives the chunk back; it must not be used any more.
func (c *Chunk) Release() {
	c.h.seg.files.unpin(c.h)
	c.h.release()
	*c = Chunk{}
	chunks.Put(c)
}
