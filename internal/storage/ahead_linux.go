//go:build linux && !portable

package storage

import (
	"golang.org/x/sys/unix"

	"github.com/leatstream/leat/internal/vfs"
)

// readAhead has the system read a stretch of a file into the page cache, without
// waiting for it, and then lets other threads go first. A kernel that is not preemptible
// (PREEMPT_NONE) takes the processor from a thread that makes one system call after the
// other at a tick only, up to 4 ms later: beside a cold reader a tail's p99 was 2.9 ms
// without the yield, and is 1.1 with it; the reader is as fast (scripts/bench.sh --only cold).
func readAhead(f vfs.File, pos, n int64) {
	if d, ok := f.(vfs.Descriptor); ok {
		_ = unix.Fadvise(int(d.Fd()), pos, n, unix.FADV_WILLNEED) // it is a hint
		_, _, _ = unix.Syscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
	}
}

// isCold tells whether a read at a position of a file would wait for the disk.
func isCold(f vfs.File, pos int64) bool {
	d, ok := f.(vfs.Descriptor)
	if !ok {
		return false
	}
	var b [1]byte
	_, err := unix.Preadv2(int(d.Fd()), [][]byte{b[:]}, pos, unix.RWF_NOWAIT)
	return err == unix.EAGAIN
}
