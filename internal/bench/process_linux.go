package bench

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// clockTick is what /proc counts CPU in: USER_HZ is 100 on every Linux that Go runs on.
const clockTick = 10 * time.Millisecond

// processCPU is the CPU time, user and system, that processes have used.
func processCPU(pids []int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, fmt.Errorf("no process %d on this machine: %w", pid, err)
		}
		// The name in parentheses may hold anything; what follows it does not.
		fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(fields) < 13 {
			return 0, fmt.Errorf("process %d: /proc has another format", pid)
		}
		for _, f := range fields[11:13] {
			ticks, err := strconv.ParseInt(f, 10, 64)
			if err != nil {
				return 0, err
			}
			sum += time.Duration(ticks) * clockTick
		}
	}
	return sum, nil
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
