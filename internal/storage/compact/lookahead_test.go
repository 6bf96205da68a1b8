package compact

import (
	"fmt"
	"slices"
	"testing"

	"github.com/leatstream/leat/internal/record"
)

// TestLongBatches proves that batches with fewer, just as many and more records than are looked ahead keep the last record
// of each key, and that a Map that is full in the middle of a batch ends just where it has no room, whatever was looked
// ahead behind that.
func TestLongBatches(t *testing.T) {
	for _, codec := range []record.Codec{record.None, record.Zstd} {
		for _, n := range []int{1, lookaheadRecords - 1, lookaheadRecords, lookaheadRecords + 1, 3*lookaheadRecords + 7} {
			for _, bytes := range []int64{MinMapBytes, 1 << 20} {
				t.Run(fmt.Sprintf("%v, %d records, %d bytes", codec, n, bytes), func(t *testing.T) { testLongBatch(t, codec, n, bytes) })
			}
		}
	}
}

func testLongBatch(t *testing.T, codec record.Codec, n int, bytes int64) {
	t.Helper()
	var recs []rec
	for i := range n {
		one := of(fmt.Sprintf("key %d", i*i%97), fmt.Sprint(i))
		if i%11 == 5 {
			one.key = nil // as in a topic that was not compacted before
		}
		recs = append(recs, one)
	}
	m, err := NewMap(bytes)
	if err != nil {
		t.Fatal(err)
	}
	end := n
	last := map[string]int{}
	for i, r := range recs {
		if r.key == nil {
			continue
		}
		if !m.Put(r.key, record.Offset(i)) {
			end = i
			break
		}
		last[string(r.key)] = i
	}
	m.Reset(0)
	b := makeBatch(t, 0, shape{codec: codec}, recs...)
	x := NewIndexer(m, 0, nil)
	full, err := x.AddBatch(t.Context(), nil, b)
	if err != nil || full != (end < n) {
		t.Fatalf("full: %v, %v", full, err)
	}
	if x.Finish(record.Offset(n)); m.End() != record.Offset(end) {
		t.Errorf("the Map ends at %d, and should at %d", m.End(), end)
	}
	var want, got []int
	for i, r := range recs {
		if i >= end || r.key != nil && last[string(r.key)] == i {
			want = append(want, i)
		}
	}
	f := NewFilter(Rules{Map: m, Upper: record.Offset(n)})
	v, err := f.Judge(t.Context(), nil, b)
	if err != nil {
		t.Fatal(err)
	}
	left, err := f.AppendTo(t.Context(), nil, nil, b, &v)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range readBatch(t, left) {
		got = append(got, int(r.offset))
	}
	if !slices.Equal(got, want) {
		t.Errorf("left are %v, and should be %v", got, want)
	}
}
