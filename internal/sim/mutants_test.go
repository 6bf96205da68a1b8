package sim

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/leatstream/leat/internal/mutant"
)

// These are the mutants that are tried each time, with the first seeds if that of their file has become
// another history. LEAT_TEST_MUTANTS=all tries all of them with their seeds only;
// LEAT_TEST_MUTANTS=search looks for a new seed for each and writes it into the file, beginning with
// seed 0, and the name of a mutant does so for that one.
var usualMutants = []string{"isr-counts-the-page-cache", "eligible-forgotten"}

// TestMutants proves that the simulator sees broken rules: with each patch applied, the seed that its
// file names fails.
func TestMutants(t *testing.T) {
	mode := os.Getenv("LEAT_TEST_MUTANTS")
	if testing.Short() && mode == "" {
		t.Skip("it builds the package's tests several times")
	}
	list, err := mutant.List("testdata/mutants")
	if err != nil {
		t.Fatal(err)
	}
	if len(list) < 15 {
		t.Errorf("there are only %d mutants", len(list))
	}
	tried := 0
	for _, m := range list {
		if mode == "all" || mode == "search" || mode == m.Name || mode == "" && slices.Contains(usualMutants, m.Name) {
			tried++
			t.Run(m.Name, func(t *testing.T) { tryMutant(t, m, mode) })
		}
	}
	if tried == 0 {
		t.Errorf("there is no mutant %q", mode)
	}
}

func tryMutant(t *testing.T, m *mutant.Mutant, mode string) {
	t.Helper()
	program, err := m.Build(t.Context(), "../..", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	run := func(env string) (seed uint64, found bool) {
		seed, found, out := mutant.Run(t.Context(), program, "^TestSeeds$", env)
		t.Logf("%s: %s", env, out[max(0, len(out)-400):])
		return seed, found
	}
	search := mode == "search" || mode == m.Name
	seed, found := m.Seed, false
	if !search {
		seed, found = run(fmt.Sprintf("LEAT_TEST_SEED=%d", m.Seed))
	}
	if !found && mode != "all" {
		seed, found = run(fmt.Sprintf("LEAT_TEST_SEEDS=%d", number(t, "LEAT_TEST_SEARCH", 100)))
	}
	if !found {
		t.Fatalf("it is not found; LEAT_TEST_MUTANTS=%s LEAT_TEST_SEARCH=3000 may find another seed", m.Name)
	}
	if search {
		if err := m.SetSeed(seed); err != nil {
			t.Fatal(err)
		}
	}
}
