package producer

import (
	"bytes"
	"testing"

	"github.com/leatstream/leat/internal/record"
)

// FuzzSnapshot proves that reading a producer snapshot never panics and that one that is
// accepted is written the same.
func FuzzSnapshot(f *testing.F) {
	var bu record.Builder
	bu.SetProducer(1, 0, 0)
	bu.Append(1, nil, []byte("value"))
	b, err := bu.Build()
	if err != nil {
		f.Fatal(err)
	}
	var s State
	s.Apply(b, 5)
	f.Add(s.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		var s State
		if s.Decode(bytes.NewReader(b), 0) == nil {
			var again State
			if err := again.Decode(bytes.NewReader(s.Encode()), 0); err != nil {
				t.Fatal(err)
			}
		}
	})
}
