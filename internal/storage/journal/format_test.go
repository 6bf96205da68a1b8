package journal

import (
	"encoding/hex"
	"hash/crc32"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/leatstream/leat/internal/record"
)

// TestPartsKeepTheirFormat proves that each kind of part has the bytes that it had when its
// format was promised, and that they are decoded correctly.
func TestPartsKeepTheirFormat(t *testing.T) {
	id := record.LogID{Topic: [16]byte{1, 15: 2}, Partition: 3}
	for _, c := range []struct {
		want Part
		hex  string
	}{
		{Part{Kind: Bytes, ID: id, Dir: "t-3", Base: 4, Pos: 5, Offset: 0, Data: []byte("data")}, "01000003000000030100000000000000000000000000000200000000000000040000000000000005000000000000000000000004aed87dd153180696742d3364617461"},
		{Part{Kind: Start, ID: id, Dir: "t-3", Offset: 6, Data: []byte{}}, "0200000300000003010000000000000000000000000000020000000000000000000000000000000000000000000000060000000000000000d216c341742d33"},
		{Part{Kind: Delete, ID: id, Dir: "t-3", Data: []byte{}}, "03000003000000030100000000000000000000000000000200000000000000000000000000000000000000000000000000000000000000004173b655742d33"},
		{Part{Kind: Truncate, ID: id, Dir: "t-3", Base: 4, Pos: 5, Offset: 6, Data: []byte{}}, "040000030000000301000000000000000000000000000002000000000000000400000000000000050000000000000006000000000000000002510682742d33"},
		{Part{Kind: Truncated, ID: id, Dir: "t-3", Data: []byte{}}, "0500000300000003010000000000000000000000000000020000000000000000000000000000000000000000000000000000000000000000f8f69bed742d33"},
		{Part{Kind: Compacted, ID: id, Dir: "t-3", Base: 4, Data: []byte{}}, "060000030000000301000000000000000000000000000002000000000000000400000000000000000000000000000000000000000000000027bacc03742d33"},
		{Part{Kind: Restart, ID: id, Dir: "t-3", Offset: 6, Data: []byte{}}, "070000030000000301000000000000000000000000000002000000000000000000000000000000000000000000000006000000000000000037517825742d33"},
	} {
		b, err := hex.DecodeString(c.hex)
		if err != nil {
			t.Fatal(err)
		}
		head := appendHead(nil, &c.want, len(c.want.Data), crc32.Checksum(c.want.Data, castagnoli))
		if got := hex.EncodeToString(append(head, c.want.Data...)); got != c.hex {
			t.Errorf("kind %d is written as %s, and was %s", c.want.Kind, got, c.hex)
		}
		f, rest, err := decodePart(b)
		if diff := cmp.Diff(c.want, f.part); err != nil || f.damaged || len(rest) > 0 || diff != "" {
			t.Errorf("kind %d: %v, damaged %v, %d bytes left: (-was +is)\n%s", c.want.Kind, err, f.damaged, len(rest), diff)
		}
	}
}
