package position_test

import (
	"bytes"
	"os"
	"strconv"
	"testing"

	"github.com/leatstream/leat/internal/mutant"
)

// TestModel proves the rules of the package over random histories of two clusters: of groups at the source (commits, transactions, resets, deletions, expiry, topics that are deleted and made again, logs
// that are compacted or cut, clocks that are wrong), of groups here (members, commits of others, deletions), and of the link (delays, restarts, polls). A history fails if
//
//   - a machine that has read a log up to an offset knows other positions than the log has up to there,
//   - a position is committed that the source does not have, or over a group with members, or over a later commit of somebody else,
//   - a position is deleted that the link has not made, that the source has or has lost, or whose topic the source has deleted,
//   - the two sides differ without such a reason when nothing happens any more.
//
// LEAT_TEST_SEEDS is how many histories it runs; LEAT_TEST_SEED runs one alone and prints it if it fails.
func TestModel(t *testing.T) {
	const usual = 400
	from, to := uint64(0), uint64(number(t, "LEAT_TEST_SEEDS", usual))
	if one := number(t, "LEAT_TEST_SEED", -1); one >= 0 {
		from, to = uint64(one), uint64(one)+1
	}
	seen := map[string]int{}
	for seed := from; seed < to; seed++ {
		w := newWorld(seed, seen)
		if err := w.run(); err != nil {
			if to == from+1 {
				t.Logf("%s", w.trace.Bytes())
			}
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
	t.Logf("%v", seen)
	if to-from < usual {
		return // too few for all that may happen
	}
	for _, what := range []string{
		"commit", "reset", "begin", "send", "end: commit", "end: abort", "delete position", "delete group", "delete topic", "make topic", "compact", "cut",
		"join here", "leave here", "commit here", "delete here", "expire here", "restart", "poll", "step: commit", "step: delete", "over a commit here",
		"held: the group has members here", "held: it was committed here later than at the source", "held: at the source it is one of another topic of that name",
		"kept for a deleted topic", "kept after a loss", "deletion put off", "held: the source has none, and does not say that it was deleted",
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
		w := newWorld(7, map[string]int{})
		if err := w.run(); err != nil {
			t.Fatal(err)
		}
		traces[i] = w.trace.Bytes()
	}
	if len(traces[0]) == 0 || !bytes.Equal(traces[0], traces[1]) {
		t.Error("the same seed gives two histories")
	}
}

// TestMutants proves that the model sees broken rules: see mutant.Suite.
func TestMutants(t *testing.T) {
	s := mutant.Suite{
		Directory: "testdata/mutants", Root: ".", Test: "^TestModel$", Fewest: 12, Search: 3000,
		Usual: []string{"marker-order-counts", "deletes-for-a-deleted-topic"},
	}
	s.Try(t)
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
