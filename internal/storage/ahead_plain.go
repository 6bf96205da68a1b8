//go:build !linux || portable

package storage

import "github.com/leatstream/leat/internal/vfs"

// readAhead would have the system read a stretch of a file into the page cache.
func readAhead(vfs.File, int64, int64) {}

// isCold would tell whether a read waits for the disk.
func isCold(vfs.File, int64) bool { return false }
