package storage

import (
	"testing"

	"github.com/leatstream/leat/internal/mutant"
)

// TestCutMutants proves that TestCrashInCuts sees broken rules: see mutant.Suite.
func TestCutMutants(t *testing.T) {
	s := mutant.Suite{
		Directory: "testdata/mutants", Root: ".", Test: "^TestCrashInCuts$", Fewest: 8, Search: 500,
		Usual: []string{"number-before-the-cut"},
	}
	s.Try(t)
}
