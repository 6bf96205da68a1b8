package process

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// CPU is the CPU time, user and system, that processes have used.
func CPU(pids []int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		// The process's own clock counts nanoseconds. /proc counts hundredths of a second,
		// which is too coarse for periods of a few milliseconds.
		const (
			sched  = 2       // CPUCLOCK_SCHED
			maxPID = 1 << 22 // PID_MAX_LIMIT
		)
		var t unix.Timespec
		err := error(unix.ESRCH)
		if pid > 0 && pid <= maxPID {
			err = unix.ClockGettime(int32(^pid<<3|sched), &t)
		}
		if err != nil {
			return 0, explainMissing(pid, err)
		}
		sum += time.Duration(t.Nano())
	}
	return sum, nil
}

// Check says why a process cannot be measured, before anything is measured.
func Check(pids []int) error {
	if _, err := CPU(pids); err != nil {
		return err
	}
	_, _, err := Memory(pids)
	return err
}

// explainMissing tells a process that does not exist from one that this program may not see, for which
// the system gives the same errors where /proc hides the processes of others.
func explainMissing(pid int, err error) error {
	if pid <= 0 || errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
		return fmt.Errorf("there is no process %d on this machine", pid)
	}
	return fmt.Errorf("this program may not read what process %d uses, which another user runs (%w): run leat bench as that user or as root, or leave --pid out", pid, err)
}

// bytesWritten is the number of bytes that processes have written to the disk. It is 0 if one
// belongs to another user, since the system does not tell it then.
func bytesWritten(pids []int) (sum int64) {
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
		if err != nil {
			return 0
		}
		for line := range strings.Lines(string(b)) {
			var n int64
			if k, _ := fmt.Sscanf(line, "write_bytes: %d", &n); k == 1 {
				sum += n
			}
		}
	}
	return sum
}

// Memory is the resident memory of processes now, and its maximum since ResetPeak.
func Memory(pids []int) (now, peak int64, err error) {
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return 0, 0, explainMissing(pid, err)
		}
		for line := range strings.Lines(string(b)) {
			var kib int64
			if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &kib); n == 1 {
				now += kib << 10
			}
			if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kib); n == 1 {
				peak += kib << 10
			}
		}
	}
	return now, peak, nil
}

// ResetPeak begins a new maximum for Memory. The system refuses it for processes of other
// users, whose maximum is the one since their start.
func ResetPeak(pids []int) {
	for _, pid := range pids {
		_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
	}
}
