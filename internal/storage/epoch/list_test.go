package epoch

import (
	"testing"

	"github.com/leatstream/leat/internal/record"
)

// TestList proves what each method of a List does and returns.
func TestList(t *testing.T) {
	var es List
	for _, c := range []struct {
		epoch record.Epoch
		at    record.Offset
		added bool
	}{{1, 0, true}, {3, 10, true}, {3, 12, false}, {2, 15, false}, {5, 20, true}, {6, 20, true}} {
		next, added := es.Begin(c.epoch, c.at)
		if added != c.added {
			t.Errorf("epoch %d at %d: added %v", c.epoch, c.at, added)
		}
		es = next
	}
	for _, c := range []struct {
		asked, epoch record.Epoch
		end          record.Offset
	}{{0, 0, 0}, {1, 1, 10}, {2, 1, 10}, {3, 3, 20}, {4, 3, 20}, {5, 3, 20}, {6, 6, 33}, {7, record.NoEpoch, -1}, {-1, record.NoEpoch, -1}} {
		if epoch, end := es.End(c.asked, 33); epoch != c.epoch || end != c.end {
			t.Errorf("of epoch %d: %d ends at %d, want %d at %d", c.asked, epoch, end, c.epoch, c.end)
		}
	}
	for o, want := range map[record.Offset]record.Epoch{0: 1, 9: 1, 10: 3, 19: 3, 20: 6, 1000: 6} {
		if e := es.At(o); e != want {
			t.Errorf("epoch %d at %d, want %d", e, o, want)
		}
	}
	if cut := es.Cut(20); cut.Last() != 3 || es.Last() != 6 {
		t.Errorf("cut at 20 the last one is %d, of the whole %d", cut.Last(), es.Last())
	}
	if cut := es.Cut(10); cut.Last() != 1 {
		t.Errorf("cut at 10 the last one is %d", cut.Last())
	}
	if len(es.Cut(0)) != 0 || es.Cut(0).Last() != record.NoEpoch {
		t.Error("cut at 0 some are left")
	}
	trimmed := es.Trim(15)
	if len(trimmed) != 2 || trimmed[0] != (Start{3, 15}) || es[0] != (Start{1, 0}) {
		t.Errorf("trimmed to 15: %v of %v", trimmed, es)
	}
	if trimmed.At(14) != record.NoEpoch || trimmed.At(15) != 3 {
		t.Error("the epoch of a trimmed record is known")
	}
}

// TestDecodeRefuses proves that a file which is incomplete or out of order is refused.
func TestDecodeRefuses(t *testing.T) {
	for _, text := range []string{"", "0", "1\n0\n", "0\n2\n1 0\n", "0\n1\n1\n", "0\n1\nx 0\n", "0\n2\n2 0\n1 5\n", "0\n2\n1 5\n2 4\n", "0\n1\n-1 0\n"} {
		if es, err := Decode([]byte(text)); err == nil {
			t.Errorf("%q is read as %v", text, es)
		}
	}
}

// FuzzEpochs proves that no bytes make Decode panic, and that a list which is accepted is encoded
// to the same bytes.
func FuzzEpochs(f *testing.F) {
	f.Add([]byte("0\n2\n0 0\n3 17\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if es, err := Decode(b); err == nil {
			if _, err := Decode(es.Encode()); err != nil {
				t.Fatal(err)
			}
		}
	})
}
