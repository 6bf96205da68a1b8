package vfs

import (
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// limitHandles lets few more files be opened until the test ends.
func limitHandles(t *testing.T, fsys FS) {
	t.Helper()
	if _, ok := fsys.(OS); !ok {
		limitMemHandles(t, fsys)
		return
	}
	var limit unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	t.Cleanup(func() { must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)) })
	fds, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	highest := 0
	for _, fd := range fds {
		n, err := strconv.Atoi(fd.Name())
		must(t, err)
		highest = max(highest, n)
	}
	few := unix.Rlimit{Cur: uint64(highest + 5), Max: limit.Max}
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &few))
}
