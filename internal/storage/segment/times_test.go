package segment

import (
	"testing"

	"github.com/leatstream/leat/internal/record"
)

// TestMaxTimeReadsABatchOnce proves that the largest timestamp of a part of a batch is found by
// reading, and so decompressing, the batch once.
func TestMaxTimeReadsABatchOnce(t *testing.T) {
	bu := record.Builder{}
	for _, ms := range []int64{1 << 40, 7, 9, 8} { // the first record has the largest timestamp of all
		bu.Append(ms, nil, []byte("value"))
	}
	b, err := bu.Build()
	if err != nil {
		t.Fatal(err)
	}
	reads := 0
	ms, err := Work{Ctx: t.Context()}.maxTimeIn(b, func() (record.Batch, error) {
		reads++
		return b, nil
	}, 1)
	if ms != 9 || err != nil || reads != 1 {
		t.Errorf("%d, %v, after %d reads", ms, err, reads)
	}
}
