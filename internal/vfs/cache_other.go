//go:build !linux || portable

package vfs

// ReadAhead does nothing, since this system takes no hints.
func ReadAhead(File, int64, int64) {}

// IsCold is always false, since this system does not tell.
func IsCold(File, int64) bool { return false }

// ReadPassing is ReadAt, since the page cache of this system takes no hints.
func ReadPassing(f File, b []byte, off int64) (int, error) { return f.ReadAt(b, off) }
