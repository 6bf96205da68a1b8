package checkpoint

import (
	"testing"

	"github.com/leatstream/leat/internal/record"
)

// FuzzSheet proves that reading a checkpoint file never panics and that a sheet that is
// accepted is written the same.
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
