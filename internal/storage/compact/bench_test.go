package compact

import (
	"fmt"
	"testing"

	"github.com/leatstream/leat/internal/record"
)

// benchLog makes batches of 100 records of about 120 bytes.
func benchLog(b *testing.B, codec record.Codec, count, keys int) (batches []record.Batch, size int64) {
	b.Helper()
	var value []byte
	for i := range 100 {
		value = append(value, byte(i*7%31))
	}
	at, n := record.Offset(0), 0
	for range count {
		var recs []rec
		for range 100 {
			n++
			recs = append(recs, rec{ms: 1000, key: fmt.Appendf(nil, "customer-%d", n*n%keys), value: fmt.Appendf(nil, "%s%d", value, n)})
		}
		one := makeBatch(b, at, shape{codec: codec}, recs...)
		plain := makeBatch(b, at, shape{}, recs...)
		batches, at, size = append(batches, one), one.NextOffset(), size+int64(len(plain))
	}
	return batches, size
}

// BenchmarkRound is a whole round on one core: index and filter. The bytes are those of the batches
// before compression. A million records have half a million keys, for which the Map is larger than the processor's caches.
func BenchmarkRound(b *testing.B) {
	for codec := record.None; codec <= record.Zstd; codec++ {
		b.Run(codec.String(), func(b *testing.B) { benchRound(b, codec, 200, 7919) })
	}
	b.Run("none, many keys", func(b *testing.B) { benchRound(b, record.None, 10_000, 1_000_003) })
}

func benchRound(b *testing.B, codec record.Codec, count, keys int) {
	b.Helper()
	batches, size := benchLog(b, codec, count, keys)
	m, err := NewMap(64 << 20)
	if err != nil {
		b.Fatal(err)
	}
	out := make([]byte, 0, 2*size)
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		x := NewIndexer(m, 0, nil)
		for _, one := range batches {
			if _, err := x.AddBatch(b.Context(), nil, one); err != nil {
				b.Fatal(err)
			}
		}
		f := NewFilter(Rules{Map: m, Upper: m.End()})
		out = out[:0]
		for _, one := range batches {
			v, err := f.Judge(b.Context(), nil, one)
			if err != nil {
				b.Fatal(err)
			}
			if out, err = f.AppendTo(b.Context(), nil, out, one, &v); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkMap is one key put and one that is looked for and not there.
func BenchmarkMap(b *testing.B) {
	m, err := NewMap(64 << 20)
	if err != nil {
		b.Fatal(err)
	}
	key := []byte("customer-0000000000")
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		for j, n := 0, i; j < 9; j, n = j+1, n/10 {
			key[10+j] = byte('0' + n%10)
		}
		key[9] = 'a'
		if !m.Put(key, record.Offset(i)) {
			m.Reset(0)
		}
		key[9] = 'b'
		m.Latest(key)
	}
}
