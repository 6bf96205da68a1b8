package progress

import (
	"testing"

	"github.com/leatstream/leat/internal/mutant"
)

// TestMutants proves that the model test sees broken rules: see mutant.Suite.
func TestMutants(t *testing.T) {
	s := mutant.Suite{
		Directory: "testdata/mutants", Root: ".", Test: "^TestModel$", Fewest: 15, Search: 2000,
		Usual: []string{"committed-set-only", "page-cache-counts", "cut-at-the-leaders-end", "crash-forgets-the-cut"},
	}
	s.Try(t)
}
