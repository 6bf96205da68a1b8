//go:build linux && !portable

package vfs

import "golang.org/x/sys/unix"

// ReadAhead asks the system to read n bytes of a file into the page cache, without
// waiting for them, and then yields the processor to other threads. Without the yield a
// kernel that is not preemptible (PREEMPT_NONE) lets a thread which makes one system
// call after the other run until the next tick, up to 4 ms later, and readers of new
// records wait for a reader of old ones (scripts/bench.sh --only cold).
func ReadAhead(f File, pos, n int64) {
	if d, ok := f.(Descriptor); ok {
		_ = unix.Fadvise(int(d.Fd()), pos, n, unix.FADV_WILLNEED) // a hint
		_, _, _ = unix.Syscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
	}
}

// IsCold tells whether a read at a position of a file would have to wait for the disk.
func IsCold(f File, pos int64) bool {
	d, ok := f.(Descriptor)
	if !ok {
		return false
	}
	var b [1]byte
	_, err := unix.Preadv2(int(d.Fd()), [][]byte{b[:]}, pos, unix.RWF_NOWAIT)
	return err == unix.EAGAIN
}

// ReadPassing is ReadAt for bytes that will not be read again soon. It leaves the page
// cache as it was: bytes that were not in the cache before are dropped from it again.
func ReadPassing(f File, b []byte, off int64) (int, error) {
	d, ok := f.(Descriptor)
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
	// Without this hint the kernel would read ahead, and keep those bytes.
	_ = unix.Fadvise(fd, off, 0, unix.FADV_RANDOM) // a hint
	n, err := f.ReadAt(b[had:], off+int64(had))
	_ = unix.Fadvise(fd, off+int64(had), int64(n), unix.FADV_DONTNEED) // a hint
	return had + n, err
}
