//go:build linux && !portable

package vfs

import "golang.org/x/sys/unix"

// ReadAhead has the system read a stretch of a file into the page cache without
// waiting for it, and then lets other threads run first. A kernel that is not
// preemptible (PREEMPT_NONE) takes the processor from a thread that makes one system
// call after the other only at a tick, up to 4 ms later: without the yield a reader at
// the tail waits behind a reader of old records (scripts/bench.sh --only cold).
func ReadAhead(f File, pos, n int64) {
	if d, ok := f.(Descriptor); ok {
		_ = unix.Fadvise(int(d.Fd()), pos, n, unix.FADV_WILLNEED) // it is a hint
		_, _, _ = unix.Syscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
	}
}

// IsCold tells whether a read at a position of a file would wait for the disk.
func IsCold(f File, pos int64) bool {
	d, ok := f.(Descriptor)
	if !ok {
		return false
	}
	var b [1]byte
	_, err := unix.Preadv2(int(d.Fd()), [][]byte{b[:]}, pos, unix.RWF_NOWAIT)
	return err == unix.EAGAIN
}

// ReadPassing reads bytes that nobody else may want soon: those that the page cache did
// not have are dropped from it again, the others stay.
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
	// Without this hint the kernel would read ahead and keep what it read.
	_ = unix.Fadvise(fd, off, 0, unix.FADV_RANDOM) // a hint
	n, err := f.ReadAt(b[had:], off+int64(had))
	_ = unix.Fadvise(fd, off+int64(had), int64(n), unix.FADV_DONTNEED) // a hint
	return had + n, err
}
