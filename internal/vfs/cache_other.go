//go:build !linux || portable

package vfs

// ReadAhead does nothing where the system takes no hints.
func ReadAhead(File, int64, int64) {}

// IsCold cannot tell on this system, so it says that a read does not wait.
func IsCold(File, int64) bool { return false }

// ReadPassing reads as File.ReadAt does: the page cache of this system takes no hints.
func ReadPassing(f File, b []byte, off int64) (int, error) { return f.ReadAt(b, off) }
