package progress

import (
	"testing"

	"github.com/leatstream/leat/internal/mutant"
)

// TestMutants proves that the two models see broken rules: see mutant.Suite.
func TestMutants(t *testing.T) {
	s := mutant.Suite{
		Directory: "testdata/mutants", Root: ".", Test: "^TestModel(OfPromotions|OfForks)?$", Fewest: 15, Search: 2000,
		Usual: []string{"cut-at-the-sources-end", "epochs-prove-all", "epochs-beyond-the-fork", "complete-before-the-decision"},
	}
	s.Try(t)
}
