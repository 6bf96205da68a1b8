package bench

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// processCPU is the CPU time, user and system, that processes have used.
func processCPU(pids []int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		// The process's own clock counts nanoseconds; /proc counts hundredths of a
		// second, which is too coarse for what takes a few milliseconds.
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
			return 0, fmt.Errorf("no process %d on this machine: %w", pid, err)
		}
		sum += time.Duration(t.Nano())
	}
	return sum, nil
}

// processWritten is how many bytes processes have given to the disk; 0 where that
// is not to be known.
func processWritten(pids []int) (sum int64) {
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
		if err != nil {
			return 0 // another user's process
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

// processMemory is the resident memory of processes now, and at most since resetPeak.
func processMemory(pids []int) (now, peak int64, err error) {
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return 0, 0, fmt.Errorf("no process %d on this machine: %w", pid, err)
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

// resetPeak begins a new maximum. It is refused for processes of other users,
// whose maximum is then since their start.
func resetPeak(pids []int) {
	for _, pid := range pids {
		_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
	}
}

// touchMemory has the system find memory, and gives it back at once: pages that a
// virtual machine has not used for a while cost its host several times what a broker
// does for the bytes in them, and would fall to whoever's turn it is.
func touchMemory(n int64) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return
	}
	n = min(n, int64(info.Freeram)*int64(info.Unit)/2) //nolint:gosec // fits
	b, err := unix.Mmap(-1, 0, int(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return // it is a matter of fairness only
	}
	// What is freed in large pages is found first by whoever needs memory next.
	_ = unix.Madvise(b, unix.MADV_HUGEPAGE)
	for i := 0; i < len(b); i += os.Getpagesize() {
		b[i] = 1
	}
	_ = unix.Munmap(b)
}
