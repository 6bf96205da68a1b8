package progress

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/leatstream/leat/internal/record"
)

// TestEnoughInSync proves that acks=all can be promised exactly if min.insync.replicas are in
// sync, or all replicas if the partition has fewer, and never with an empty in-sync set.
func TestEnoughInSync(t *testing.T) {
	for _, tc := range []struct {
		name                  string
		isr, replicas, minISR int
		want                  bool
	}{
		{"the only replica", 1, 1, 1, true},
		{"one replica where two are asked for", 1, 1, 2, true},
		{"nobody", 0, 1, 1, false},
		{"nobody, and nobody is asked for", 0, 3, 0, false},
		{"all of three", 3, 3, 2, true},
		{"exactly enough", 2, 3, 2, true},
		{"one too few", 1, 3, 2, false},
		{"two of two where three are asked for", 2, 2, 3, true},
		{"one of two where three are asked for", 1, 2, 3, false},
	} {
		s := State{ISR: make([]int32, tc.isr), Replicas: tc.replicas, MinISR: tc.minISR}
		if got := s.EnoughInSync(); got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
}

// TestHighWatermark proves that the high watermark is the lowest end in the in-sync set,
// whatever the other replicas have, and that it stays in the cases that are listed.
func TestHighWatermark(t *testing.T) {
	for _, tc := range []struct {
		name   string
		isr    []int32
		minISR int
		known  []Member
		want   record.Offset // from 10
	}{
		{"the leader alone", []int32{1}, 1, []Member{{1, 15}}, 15},
		{"the slowest of three", []int32{1, 2, 3}, 1, []Member{{1, 20}, {2, 12}, {3, 15}}, 12},
		{"in another order", []int32{3, 1, 2}, 1, []Member{{2, 20}, {3, 15}, {1, 12}}, 12},
		{"a slow replica that is not in sync", []int32{1, 2}, 1, []Member{{1, 20}, {2, 18}, {3, 11}}, 18},
		{"a member whose end is unknown", []int32{1, 2}, 1, []Member{{1, 20}}, 10},
		{"the leader is not in sync itself", []int32{2}, 1, []Member{{1, 20}, {2, 14}}, 14},
		{"a member that has lost records", []int32{1, 2}, 1, []Member{{1, 20}, {2, 7}}, 10},
		{"nobody is in sync", nil, 1, []Member{{1, 20}}, 10},
		{"too few in sync", []int32{1}, 2, []Member{{1, 20}}, 10},
		{"just enough in sync", []int32{1, 2}, 2, []Member{{1, 20}, {2, 19}}, 19},
	} {
		s := State{ISR: tc.isr, Replicas: 3, MinISR: tc.minISR, Known: tc.known}
		if got := s.HighWatermark(10); got != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, got, tc.want)
		}
	}
}

// TestHighWatermarkIsSafe proves, for any script of ends, shrinking and growing in-sync
// sets, that the high watermark never falls and never rises above what each member of
// the set has.
func TestHighWatermarkIsSafe(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ends := map[int32]record.Offset{}
		hw := record.Offset(0)
		s := State{Replicas: 3, MinISR: rapid.IntRange(1, 3).Draw(t, "min")}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			id := rapid.Int32Range(1, 3).Draw(t, "replica")
			ends[id] += record.Offset(rapid.IntRange(0, 5).Draw(t, "more"))
			s.ISR = rapid.SliceOfNDistinct(rapid.Int32Range(1, 3), 0, 3, rapid.ID[int32]).Draw(t, "isr")
			s.Known = s.Known[:0]
			for id, end := range ends {
				s.Known = append(s.Known, Member{id, end})
			}
			next := s.HighWatermark(hw)
			if next < hw {
				t.Fatalf("it falls from %d to %d", hw, next)
			}
			for _, id := range s.ISR {
				if end, known := ends[id]; next > hw && (!known || next > end) {
					t.Fatalf("it rises to %d, replica %d has %d (known: %v)", next, id, end, known)
				}
			}
			if next > hw && len(s.ISR) < s.MinISR {
				t.Fatalf("it rises with %d in sync of %d", len(s.ISR), s.MinISR)
			}
			hw = next
		}
	})
}
