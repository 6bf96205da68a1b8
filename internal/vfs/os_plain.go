//go:build !linux || portable

package vfs

// BootID names the run of the kernel; it is "" where the system does not tell.
func BootID() string { return "" }

// ReadAt reads from the file.
func (f *osFile) ReadAt(b []byte, off int64) (int, error) { return f.f.ReadAt(b, off) }

func (f *osFile) WriteVAt(bufs [][]byte, off int64) (int64, error) { return writeParts(f, bufs, off) }

// Allocate only grows the file: there is no reservation.
func (f *osFile) Allocate(off, n int64) error { return f.grow(off + n) }

func (f *osFile) Sync() error { return named(f.f.Sync()) }
