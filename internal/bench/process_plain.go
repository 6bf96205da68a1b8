//go:build !linux

package bench

import (
	"errors"
	"time"
)

var errNoProc = errors.New("--pid needs Linux: it reads /proc")

func processCPU(pids []int) (time.Duration, error) {
	if len(pids) > 0 {
		return 0, errNoProc
	}
	return 0, nil
}

func processMemory(pids []int) (now, peak int64, err error) {
	if len(pids) > 0 {
		return 0, 0, errNoProc
	}
	return 0, 0, nil
}

func resetPeak([]int) {}

func processWritten([]int) int64 { return 0 }

func touchMemory(int64) {}
