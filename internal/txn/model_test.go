package txn

import (
	"bytes"
	"os"
	"strconv"
	"testing"
)

// TestModel proves that each transaction ends in one way, whatever happens to the coordinator, the
// markers and the producers; that a fenced producer gets nothing through; and that nothing gets
// stuck. LEAT_TEST_SEEDS is how many histories it runs; LEAT_TEST_SEED runs one seed alone and
// prints its history if it fails.
func TestModel(t *testing.T) {
	const usual = 150
	from, to := uint64(0), uint64(number(t, "LEAT_TEST_SEEDS", usual))
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
			t.Logf("%s", w.trace)
		}
		t.Fatalf("seed %d: %v", seed, err)
	}
	t.Logf("%d steps, %v", steps, seen)
	if to-from < usual {
		return // too few for all that may happen
	}
	for _, what := range []string{
		"Empty to Ongoing", "Ongoing to PrepareCommit", "Ongoing to PrepareAbort", "Empty to CompleteAbort", "CompleteCommit to CompleteAbort",
		"CompleteCommit to Empty", "CompleteAbort to Ongoing", "PrepareCommit to CompleteCommit", "PrepareAbort to CompleteAbort", "expired",
		"another producer id", "another producer id by init", "decision at the last epoch", "committed transaction",
		"init: ok", "init: CONCURRENT_TRANSACTIONS", "init: COORDINATOR_LOAD_IN_PROGRESS", "init again: ok", "init again: PRODUCER_FENCED",
		"add: ok", "add: PRODUCER_FENCED", "add by partition: ok", "add by partition: PRODUCER_FENCED", "add by partition: CONCURRENT_TRANSACTIONS",
		"end: ok", "end: PRODUCER_FENCED", "end: INVALID_TXN_STATE", "end: COORDINATOR_NOT_AVAILABLE", "late end: ok", "late end: PRODUCER_FENCED",
		"crash that loses records", "replaced coordinator", "late high watermark", "decision sent again", "slow marker", "lost marker", "lost result", "doubled marker",
		"doubled result", "marker refused", "partition gone", "lost message", "doubled message", "record of a transaction that has ended",
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
