//go:build linux && !portable

package storage

import (
	"golang.org/x/sys/unix"

	"github.com/leatstream/leat/internal/vfs"
)

// readCold reads what nobody else may want soon: what the page cache does not have
// goes from it again, and what it has stays.
func readCold(f vfs.File, b []byte, off int64) (int, error) {
	d, ok := f.(vfs.Descriptor)
	if !ok || len(b) == 0 {
		return f.ReadAt(b, off)
	}
	fd := int(d.Fd())
	had, err := unix.Preadv2(fd, [][]byte{b}, off, unix.RWF_NOWAIT)
	if err != nil || had < 0 {
		had = 0
	}
	if had == len(b) {
		return had, nil
	}
	// Without this the kernel would read ahead, and keep it.
	_ = unix.Fadvise(fd, off, 0, unix.FADV_RANDOM) // a hint
	n, err := f.ReadAt(b[had:], off+int64(had))
	_ = unix.Fadvise(fd, off+int64(had), int64(n), unix.FADV_DONTNEED) // a hint
	return had + n, err
}
