package mirror

import (
	"slices"
	"testing"

	"github.com/leatstream/leat/internal/meta"
)

// TestUndecidedTransactionsAreAborted proves that a transaction ends as it was decided, and is aborted if no decision is about it: there is none, or it is of another epoch, or only to be told of.
func TestUndecidedTransactionsAreAborted(t *testing.T) {
	r := &meta.PartitionMirror{IsDecided: true, Decisions: []meta.MirrorDecision{
		{Producer: 1, Epoch: 4, MarkerEpoch: 5, First: 10, Commit: true},
		{Producer: 2, Epoch: 4, MarkerEpoch: 4, First: 11, Commit: true},
		{Producer: 2, Epoch: 3, MarkerEpoch: 3, First: -1, Commit: false},
		{Producer: 3, Epoch: 3, MarkerEpoch: 4, First: 12, Commit: true},
		{Producer: 4, Epoch: 4, MarkerEpoch: 5, First: -1, Commit: true},
	}}
	var open []OpenTransaction
	for id := range int64(5) {
		open = append(open, OpenTransaction{Producer: id + 1, Epoch: 4})
	}
	want := []Ending{{Transaction: open[0], Epoch: 5, Commit: true}, {Transaction: open[1], Epoch: 4, Commit: true}, {Transaction: open[2], Epoch: 5, Commit: false}, {Transaction: open[3], Epoch: 5, Commit: false}, {Transaction: open[4], Epoch: 5, Commit: false}}
	if got := endingsOf(r, open); !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
}
