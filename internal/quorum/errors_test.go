package quorum

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/leatstream/leat/internal/vfs"
)

// TestFailedCalls proves, with many seeds, that one or two calls of the file system in a row that fail
// at a random moment, also while a node starts, and then a power cut or a kill, four times in a row,
// lose no acknowledged line and never make a start be refused.
func TestFailedCalls(t *testing.T) {
	seeds := uint64(600)
	if testing.Short() {
		seeds = 60
	}
	for seed := range seeds {
		if err := failCalls(seed); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func failCalls(seed uint64) error {
	rng := rand.New(rand.NewPCG(seed, 77))
	disk := newFS()
	var have []string
	for life := range 4 {
		var err error
		if have, err = checkLines(disk, have); err != nil {
			return fmt.Errorf("life %d: %w", life, err)
		}
		disk, have = failSomeCalls(rng, disk, life, have)
	}
	_, err := checkLines(disk, have)
	return err
}

// checkLines checks that a clone of the disk starts and has the lines, and returns all that it has.
func checkLines(disk *vfs.Mem, lines []string) ([]string, error) {
	m := &machine{}
	n, err := openTuned(config(disk.KillClone(nil), m), small)
	if err != nil {
		return nil, err
	}
	closeNode(n)
	got := m.state()
	if len(got) < len(lines) || !slices.Equal(got[:len(lines)], lines) {
		return nil, fmt.Errorf("%d lines were acknowledged or found, %d are there", len(lines), len(got))
	}
	return lines, nil
}

// failSomeCalls runs a node on a disk of which one call fails, or two, and returns the disk after a
// kill or a power cut, and the lines that are acknowledged then.
func failSomeCalls(rng *rand.Rand, disk *vfs.Mem, life int, have []string) (*vfs.Mem, []string) {
	cause := []error{
		errors.New("medium error"), vfs.ErrNoSpace, vfs.ErrNoHandles,
		&vfs.ShortWriteError{N: rng.Int64N(600), Err: errors.New("medium error")},
		&vfs.ShortWriteError{N: rng.Int64N(600), Err: vfs.ErrNoSpace},
	}[rng.IntN(5)]
	var mu sync.Mutex
	left, more := 1+rng.IntN([]int{8, 120}[rng.IntN(2)]), rng.IntN(2)
	until := 1 + rng.IntN(3) // drawn here: the calls come from several goroutines
	m := &machine{}
	n, err := openTuned(config(vfs.NewFaulty(disk, func(op vfs.Op, _ string) error {
		mu.Lock()
		defer mu.Unlock()
		noHandle := errors.Is(cause, vfs.ErrNoHandles)
		if !op.Changes() || noHandle && op != vfs.OpOpen && op != vfs.OpSyncDir {
			return nil
		}
		if left--; left == 0 {
			if more > 0 {
				more, left = 0, until
			}
			return cause
		}
		return nil
	}), m), small)
	if err != nil {
		return disk.KillClone(nil), have
	}
	defer closeNode(n)
	acked := m.state() // durable once a start has ended
	for i := range rng.IntN(120) {
		line := fmt.Sprintf("%d-%d-%s", life, i, strings.Repeat("x", rng.IntN(200)))
		if rng.IntN(12) == 0 {
			line += strings.Repeat("y", rng.IntN(1500))
		}
		if err := put(context.Background(), n, []byte(line)); err == nil {
			acked = append(acked, line)
		} else if !errors.Is(err, ErrDiskFull) {
			break
		}
	}
	if rng.IntN(2) == 0 {
		return disk.Crash(rng), acked
	}
	return disk.KillClone(nil), acked
}
