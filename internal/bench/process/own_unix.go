//go:build unix

package process

import (
	"time"

	"golang.org/x/sys/unix"
)

// OwnCPU is the CPU time, user and system, that this process has used.
func OwnCPU() time.Duration {
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
		return 0
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}
