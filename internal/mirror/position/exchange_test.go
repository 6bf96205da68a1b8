package position_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/leatstream/leat/internal/mirror/position"
	"github.com/leatstream/leat/internal/record"
)

// TestMessagesAreKept proves that names and metadata of any bytes come as they are, and that a message is about as large as is counted.
func TestMessagesAreKept(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := func(name string) position.Text {
			return position.Text(rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, name))
		}
		c := position.Change{Group: text("group"), Topic: "orders", Partition: 7, Kind: position.Deletes, Offset: 1 << 60, Epoch: record.NoEpoch, Metadata: text("metadata"), Was: &position.Stored{Offset: 5, Time: 1 << 50, IsOurs: true}}
		p := position.ToldPosition{Topic: "orders", Partition: 3, Epoch: 4, Metadata: c.Metadata, Stored: *c.Was, IsAging: true}
		q, a := position.Question{Link: [16]byte{1, 255}, Changes: []position.Change{c}}, position.Answer{Groups: []position.ToldGroup{{Name: c.Group, Positions: []position.ToldPosition{p}}}}
		var gotQ position.Question
		var gotA position.Answer
		for _, m := range []struct{ from, to any }{{q, &gotQ}, {a, &gotA}} {
			b, err := json.Marshal(m.from)
			if err == nil {
				err = json.Unmarshal(b, m.to)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if d := cmp.Diff(q, gotQ) + cmp.Diff(a, gotA); d != "" {
			t.Fatal(d)
		}
		for _, m := range []struct {
			one  any
			size int
		}{{c, c.Size()}, {p, p.Size()}} {
			if b, err := json.Marshal(m.one); err != nil || len(b) > m.size+50 {
				t.Fatalf("%d bytes, counted as %d, %v", len(b), m.size, err)
			}
		}
	})
}
