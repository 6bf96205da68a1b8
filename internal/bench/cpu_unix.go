//go:build unix

package bench

import (
	"time"

	"golang.org/x/sys/unix"
)

// ownCPU is the CPU time, user and system, that this process has used.
func ownCPU() time.Duration {
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
		return 0
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// syncDisks waits until everything that was written is on disk.
func syncDisks() { unix.Sync() }
