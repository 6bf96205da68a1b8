package workload

import (
	"errors"
	"testing"
)

// TestVerify proves that a run is void of which the offsets do not tell as much
// as was acknowledged, and that one is not of which nothing is missing.
func TestVerify(t *testing.T) {
	_, o := fake(t)
	o.Partitions, o.Records, o.Batch = 3, 3000, 10
	makeTopic(t, &o)
	r, err := Produce(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, offsets := range []bool{false, true} {
		if err := Verify(t.Context(), &o, Proof{Records: r.Records, Offsets: offsets}); err != nil {
			t.Error(err)
		}
		if err := Verify(t.Context(), &o, Proof{Records: r.Records + 1, Offsets: offsets}); !errors.Is(err, ErrVoid) {
			t.Error("one more was acknowledged:", err)
		}
	}
}

// TestTally proves that only records in order, from the first to the last, are all.
func TestTally(t *testing.T) {
	for name, test := range map[string]struct {
		deleted int64   // offsets before it are deleted meanwhile
		take    []int64 // offsets of a partition that has 5, 6 and 7
		open    int
		void    bool
	}{
		"all":               {take: []int64{5, 6, 7}},
		"not the last":      {take: []int64{5, 6}, open: 1},
		"a gap":             {take: []int64{5, 7}, void: true},
		"twice":             {take: []int64{5, 5}, void: true},
		"not the first":     {take: []int64{6, 7}, void: true},
		"one too many":      {take: []int64{5, 6, 7, 8}, void: true},
		"the first deleted": {deleted: 6, take: []int64{6, 7}},
		"deleted later":     {deleted: 7, take: []int64{5, 7}},
		"a gap beyond":      {deleted: 6, take: []int64{5, 7}, void: true},
	} {
		t.Run(name, func(t *testing.T) {
			tally := newTally([]int64{0, 5}, []int64{0, 8})
			if test.deleted > 0 {
				tally.earliest = func(int) (int64, error) { return test.deleted, nil }
			}
			var err error
			for _, offset := range test.take {
				err = errors.Join(err, tally.take(1, offset))
			}
			if errors.Is(err, ErrVoid) != test.void || !test.void && tally.open != test.open {
				t.Errorf("%v, %d open", err, tally.open)
			}
		})
	}
	if err := newTally([]int64{0}, []int64{1}).take(1, 0); !errors.Is(err, ErrVoid) {
		t.Error("a partition that is not there:", err)
	}
}
