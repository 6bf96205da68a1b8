//go:build !linux || portable

package storage

import "github.com/leatstream/leat/internal/vfs"

// readCold reads what nobody else may want soon.
func readCold(f vfs.File, b []byte, off int64) (int, error) { return f.ReadAt(b, off) }
