package progress

import (
	"bytes"
	"os"
	"strconv"
	"testing"
)

// TestModel proves that a mirror is at every moment a copy of one history of its source, has in the end all that the source has, and says truly what it lacks, over many histories of faults.
// LEAT_TEST_SEEDS is how many; LEAT_TEST_SEED runs one seed alone and prints its history if it fails.
func TestModel(t *testing.T) {
	from, to := uint64(number(t, "LEAT_TEST_FROM", 0)), uint64(number(t, "LEAT_TEST_SEEDS", 60))
	if one := number(t, "LEAT_TEST_SEED", -1); one >= 0 {
		from, to = uint64(one), uint64(one)+1
	}
	seen := coverage{}
	steps := 0
	for seed := from; seed < to; seed++ {
		w := newWorld(seed, seen)
		err := w.run()
		steps += w.steps
		if err == nil {
			continue
		}
		if to == from+1 {
			w.dump()
			t.Logf("%s", w.trace)
		}
		t.Fatalf("seed %d: %v", seed, err)
	}
	t.Logf("%d steps, %v", steps, seen)
}

// TestModelReplays proves that a seed is always the same history.
func TestModelReplays(t *testing.T) {
	var traces [2][]byte
	for i := range traces {
		w := newWorld(7, coverage{})
		if err := w.run(); err != nil {
			t.Fatal(err)
		}
		traces[i] = w.trace
	}
	if len(traces[0]) == 0 || !bytes.Equal(traces[0], traces[1]) {
		t.Error("the same seed gives two histories")
	}
}

func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
