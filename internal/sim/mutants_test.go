package sim

import (
	"testing"

	"github.com/leatstream/leat/internal/mutant"
)

// TestMutants proves that the simulator sees broken rules: see mutant.Suite.
func TestMutants(t *testing.T) {
	s := mutant.Suite{
		Directory: "testdata/mutants", Root: "../..", Test: "^TestSeeds$", Fewest: 15, Search: 100,
		Usual: []string{"isr-counts-the-page-cache", "eligible-forgotten"},
	}
	s.Try(t)
}

// TestMutantsOfTransactions proves the same of the rules of transactions.
func TestMutantsOfTransactions(t *testing.T) {
	s := mutant.Suite{
		Directory: "testdata/transactions", Root: "../..", Test: "^TestTransactions$", Fewest: 11, Search: 100,
		Usual: []string{"stable-before-the-marker-is"},
	}
	s.Try(t)
}
