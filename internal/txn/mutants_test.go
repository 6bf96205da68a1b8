package txn

import (
	"testing"

	"github.com/leatstream/leat/internal/mutant"
)

// TestMutants proves that the model test sees broken rules: see mutant.Suite.
func TestMutants(t *testing.T) {
	s := mutant.Suite{
		Directory: "testdata/mutants", Root: ".", Test: "^TestModel$", Fewest: 20, Search: 3000,
		Usual: []string{"results-of-any-decision", "fences-without-a-bump", "answers-before-committed"},
	}
	s.Try(t)
}
