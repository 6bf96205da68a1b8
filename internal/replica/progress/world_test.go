package progress

import (
	"bytes"
	"os"
	"strconv"
	"testing"
)

// TestModel proves that replicas which run the machines lose no acknowledged record, stay equal
// and do not get stuck, over many histories of faults. LEAT_TEST_SEEDS is how many;
// LEAT_TEST_SEED runs one seed alone and prints its history if it fails.
func TestModel(t *testing.T) {
	from, to := uint64(0), uint64(number(t, "LEAT_TEST_SEEDS", 60))
	if one := number(t, "LEAT_TEST_SEED", -1); one >= 0 {
		from, to = uint64(one), uint64(one)+1
	}
	seen := coverage{}
	steps, acks := 0, 0
	for seed := from; seed < to; seed++ {
		w := newWorld(seed, seen)
		err := w.run()
		steps, acks = steps+w.steps, acks+w.check.ackCount
		if err == nil {
			continue
		}
		if to == from+1 {
			t.Logf("%s", w.trace)
		}
		t.Fatalf("seed %d: %v", seed, err)
	}
	t.Logf("%d steps, %d acknowledgements, %v", steps, acks, seen)
	if to-from < 60 {
		return // too few for all that may happen
	}
	for _, what := range []string{
		"acknowledgement", "append refused: too few in sync", "answer refused: too few in sync", "not readable yet", "reader served",
		"crash that loses records", "one-way cut", "slow disk", "late message", "dropped message", "doubled message", "lost for good",
		"election", "election of an eligible replica", "leader moved", "fenced by silence", "leader gave up", "full leader gave up", "follower cannot store", "append refused: full disk", "rebuilt", "deletion answered", "append refused: read-only", "min ISR changed", "retention",
		"reassignment ended", "replica removed", "ISR grows", "ISR shrinks", "truncation", "begin anew",
		"proposal: accepted", "proposal: stale", "proposal: lost", "proposal: very late", "proposed again",
		"cut", "cut made", "cut made late", "cut that a replica had missed", "cut below a start", "cut by a mirror", "step of before a cut", "acknowledgement beyond a cut",
		"leader that cannot cut", "append before the machine", "epoch of the source from two leaders",
		"fetch: verdict 1", "fetch: verdict 2", "fetch: verdict 3", "fetch: verdict 4", "fetch: verdict 5", "fetch: verdict 6",
	} {
		if seen[what] == 0 {
			t.Errorf("in %d histories there was no %q", to-from, what)
		}
	}
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
