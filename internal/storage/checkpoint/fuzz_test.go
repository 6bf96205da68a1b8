package checkpoint

import (
	"testing"

	"github.com/leatstream/leat/internal/record"
)

// FuzzSheet proves that no bytes make the decoder of checkpoint files panic, and that a sheet
// which is accepted is encoded to the same bytes.
func FuzzSheet(f *testing.F) {
	s := &Sheet{Generation: 3, Points: map[record.LogID]Point{{Partition: 1}: {Next: 5, Snapshot: -1}}}
	f.Add(s.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Decode(b)
		if err != nil {
			return
		}
		if again, err := Decode(s.Encode()); err != nil || len(again.Points) != len(s.Points) {
			t.Fatal(err)
		}
	})
}
