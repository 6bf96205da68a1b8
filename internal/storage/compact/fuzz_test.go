package compact

import (
	"bytes"
	"hash/crc32"
	"slices"
	"testing"

	"github.com/leatstream/leat/internal/record"
)

// seal makes the length and the checksum of the batch right.
func seal(b []byte) {
	if len(b) < record.HeaderLen {
		return
	}
	n := uint32(len(b) - 12)
	b[8], b[9], b[10], b[11] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
	b[16] = byte(record.Magic)
	crc := crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli))
	b[17], b[18], b[19], b[20] = byte(crc>>24), byte(crc>>16), byte(crc>>8), byte(crc)
}

// FuzzFilter proves that no bytes make an Indexer or a Filter panic, and that what a Filter leaves of a batch that a
// reader can read is whole, has the same offsets, and only records that were there.
func FuzzFilter(f *testing.F) {
	for codec := record.None; codec <= record.Zstd; codec++ {
		f.Add([]byte(makeBatch(f, 5, shape{codec: codec, producer: 1}, of("a", "1"), of("b", "-"), of("a", "2"), of("-", "x"))), int64(10))
	}
	f.Add([]byte(makeMarker(f, 5, 1, true)), int64(10))
	f.Add([]byte(makeMarker(f, 5, 1, false)), int64(-10))
	f.Add(record.AppendEmpty(nil, makeBatch(f, 5, shape{}, of("a", "1"))), int64(0))
	m, err := NewMap(MinMapBytes)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte, now int64) {
		data = bytes.Clone(data)
		seal(data)
		b := record.Batch(data)
		x := NewIndexer(m, 0, nil)
		_, indexErr := x.AddBatch(t.Context(), nil, b)
		filter := NewFilter(Rules{Map: m, Upper: 9, Now: now, Retention: 5, Producers: map[int64]LastOfProducer{1: {Data: 8}}})
		v, err := filter.Judge(t.Context(), nil, b)
		if (err == nil) != (indexErr == nil) && indexErr != nil {
			t.Fatalf("a filter takes what an indexer does not: %v", indexErr)
		}
		if err != nil {
			return
		}
		left, err := filter.AppendTo(t.Context(), nil, []byte("before"), b, &v)
		if err != nil {
			t.Fatalf("a batch that was judged cannot be rewritten: %v", err)
		}
		if !bytes.HasPrefix(left, []byte("before")) || int64(len(left)-6) > v.Memory(b) {
			t.Fatalf("%d bytes where %d is the bound", len(left)-6, v.Memory(b))
		}
		if left = left[6:]; len(left) == 0 || v.Action == Copy {
			return
		}
		var was []rec
		if b.Count() > 0 && v.Action == Change {
			was = readBatch(t, b)
		}
		is := readBatch(t, left)
		got := record.Batch(left)
		if got.BaseOffset() != b.BaseOffset() || got.LastOffset() != b.LastOffset() || len(is) != v.Records {
			t.Fatalf("%d-%d became %d-%d with %d records", b.BaseOffset(), b.LastOffset(), got.BaseOffset(), got.LastOffset(), len(is))
		}
		for _, r := range is {
			if !slices.ContainsFunc(was, func(w rec) bool { return sameRecord(r, w) }) {
				t.Fatalf("record %v was not there", r)
			}
		}
	})
}
