package producer

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/leatstream/leat/internal/record"
)

// TestFormat proves that a snapshot has the bytes that it had when its format, which is
// Kafka's, was promised, that they are read correctly, and that a snapshot of another version
// is refused.
func TestFormat(t *testing.T) {
	var s State
	for i := range 2 {
		var bu record.Builder
		bu.SetProducer(1000, 2, int32(i))
		bu.Append(5, nil, []byte("value"))
		b, err := bu.Build()
		if err != nil {
			t.Fatal(err)
		}
		b.SetBaseOffset(record.Offset(7 + i))
		s.Apply(b, 5)
	}
	for _, c := range []struct {
		want State
		hex  string
	}{
		{s, "00014b143b800000000200000000000003e80002000000000000000000000007000000000000000000000005ffffffffffffffffffffffff00000000000003e80002000000010000000000000008000000000000000000000005ffffffffffffffffffffffff"},
	} {
		b, err := hex.DecodeString(c.hex)
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(c.want.Encode()); got != c.hex {
			t.Errorf("it is written as %s, and was %s", got, c.hex)
		}
		var got State
		if err := got.Decode(bytes.NewReader(b), 5); err != nil || cmp.Diff(c.want.Describe(), got.Describe()) != "" {
			t.Errorf("%v: (-was +is)\n%s", err, cmp.Diff(c.want.Describe(), got.Describe()))
		}
		b[1]++
		if err := got.Decode(bytes.NewReader(b), 5); !errors.Is(err, ErrSnapshot) || len(got.Describe()) > 0 {
			t.Errorf("another version: %v, %v", err, got.Describe())
		}
	}
}
