package segment

import (
	"io"
	"sync"

	"github.com/leatstream/leat/internal/vfs"
)

// Chunk is a part of a segment's file, which it keeps open until Release.
type Chunk struct {
	handle *handle // pinned
	pos    int64
	n      int
}

var chunks = sync.Pool{New: func() any { return new(Chunk) }}

// newChunk makes a chunk of the bytes from pos to end. The caller has called useFile and
// pinForChunk for h; Release undoes both.
func newChunk(h *handle, pos, end int64) *Chunk {
	c, _ := chunks.Get().(*Chunk)
	c.handle, c.pos, c.n = h, pos, int(end-pos)
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
		n, err := c.handle.f.ReadAt(b[:left], c.pos+off)
		if err == nil {
			err = io.EOF
		}
		return n, err
	}
	return c.handle.f.ReadAt(b, c.pos+off)
}

// Fd returns the file's descriptor and the chunk's position in it, for sendfile; ok is
// false if the file has no descriptor of the operating system.
func (c *Chunk) Fd() (fd uintptr, pos int64, ok bool) {
	d, ok := c.handle.f.(vfs.Descriptor)
	if !ok {
		return 0, 0, false
	}
	return d.Fd(), c.pos, true
}

// Release ends the use of the chunk. It must not be used after that.
func (c *Chunk) Release() {
	c.handle.seg.files.unpinForChunk(c.handle)
	c.handle.removeUser()
	*c = Chunk{}
	chunks.Put(c)
}
