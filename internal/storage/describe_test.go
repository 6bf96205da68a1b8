package storage

import (
	"math"
	"slices"
	"testing"

	"github.com/leatstream/leat/internal/vfs"
)

// TestProducersAreListedInPieces proves that a list of many producers is made in pieces, between
// which appends have their turn, and that it has each producer once, no more than were asked for,
// also if producers were removed between two pieces.
func TestProducersAreListedInPieces(t *testing.T) {
	const many = 3*describedAtOnce + 5
	s := boundedStore(t, vfs.NewMem(), many)
	l := testLog(s, 0, testOptions())
	floodLog(t, l, 0, many)
	if n, err := CountProducers(l); n != many || err != nil {
		t.Fatalf("%d producers, %v", n, err)
	}
	ids := func(list []Producer) (ids []int64) {
		for _, p := range list {
			ids = append(ids, p.ID)
		}
		slices.Sort(ids)
		return slices.Compact(ids)
	}
	list, err := l.Producers(math.MaxInt)
	if len(list) != many || len(ids(list)) != many || err != nil {
		t.Fatalf("%d producers are listed, %v", len(list), err)
	}
	if list, err = l.Producers(describedAtOnce + 1); len(list) != describedAtOnce+1 || err != nil {
		t.Errorf("%d producers are listed, %v", len(list), err)
	}
	var d describer
	pieces := 0
	for done := false; !done; pieces++ {
		if done, err = d.copyMore(l, math.MaxInt); err != nil {
			t.Fatal(err)
		}
		if pieces == 0 { // the oldest producers are removed for new ones
			floodLog(t, l, many, 200)
		}
	}
	if want := knownProducers(t, l); pieces < 3 || len(d.list) != len(want) || !slices.Equal(ids(d.list), want) || want[0] == 0 {
		t.Errorf("%d producers in %d pieces, the log has %d", len(d.list), pieces, len(want))
	}
}
