package txn

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/leatstream/leat/internal/mutant"
)

// These are the mutants that are tried each time; LEAT_TEST_MUTANTS=all tries all of them, and
// LEAT_TEST_MUTANTS=search, or the name of one, looks for a new seed and writes it into the file.
var usualMutants = []string{"results-of-any-decision", "fences-without-a-bump", "answers-before-committed"}

// TestMutants proves that the model test sees broken rules: with each patch applied, the history
// that its file names ends with a failure.
func TestMutants(t *testing.T) {
	mode := os.Getenv("LEAT_TEST_MUTANTS")
	if testing.Short() && mode == "" {
		t.Skip("it builds the package's tests several times")
	}
	list, err := mutant.List("testdata/mutants")
	if err != nil {
		t.Fatal(err)
	}
	if len(list) < 20 {
		t.Fatalf("there are only %d mutants", len(list))
	}
	tried := 0
	for _, m := range list {
		if mode == "" && !slices.Contains(usualMutants, m.Name) || mode != "" && mode != "all" && mode != "search" && mode != m.Name {
			continue
		}
		tried++
		t.Run(m.Name, func(t *testing.T) { tryMutant(t, m, mode != "" && mode != "all") })
	}
	if tried == 0 || mode == "" && tried < len(usualMutants) {
		t.Errorf("only %d mutants were tried", tried)
	}
}

// tryMutant runs the model test with a patch. search: with many seeds, and it keeps the first one
// that finds the mutant.
func tryMutant(t *testing.T, m *mutant.Mutant, search bool) {
	t.Helper()
	program, err := m.Build(t.Context(), ".", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	env := fmt.Sprintf("LEAT_TEST_SEED=%d", m.Seed)
	if search {
		env = "LEAT_TEST_SEEDS=3000"
	}
	seed, found, out := mutant.Run(t.Context(), program, "^TestModel$", env)
	if !found {
		t.Fatalf("%s does not find it. LEAT_TEST_MUTANTS=search may find another seed.\n%.2000s", env, out)
	}
	if search {
		if err := m.SetSeed(seed); err != nil {
			t.Fatal(err)
		}
		t.Logf("%.300s", out)
	}
}
