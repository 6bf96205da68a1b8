package sim

import "testing"

// TestTransactions proves that clusters keep their promises of transactions over many histories of faults: see the
// package's documentation for what is checked. The variables of TestSeeds choose the seeds.
func TestTransactions(t *testing.T) {
	testSeeds(t, RunTransactions, 60, Coverage.MissingTransactions)
}

// TestTransactionsReplay proves that a seed is the same history each time.
func TestTransactionsReplay(t *testing.T) {
	for seed := range uint64(3) {
		a, b := RunTransactions(seed), RunTransactions(seed)
		if a.Digest != b.Digest || a.Events != b.Events {
			t.Errorf("seed %d has two histories: %d and %d events", seed, a.Events, b.Events)
		}
	}
}
