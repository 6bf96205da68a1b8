//go:build !linux || portable

package vfs

// BootID is an id of the kernel's run. It is "", since this system does not tell.
func BootID() string { return "" }

// ReadAt reads from the file.
func (f *osFile) ReadAt(b []byte, off int64) (int, error) { return f.f.ReadAt(b, off) }

func (f *osFile) WriteVAt(bufs [][]byte, off int64) (int64, error) { return writeParts(f, bufs, off) }

// Allocate only grows the file, since this system cannot reserve space.
func (f *osFile) Allocate(off, n int64) error { return f.growTo(off + n) }

func (f *osFile) Sync() error { return translateError(f.f.Sync()) }
