package record

import (
	"bytes"
	"math/rand/v2"
	"strconv"
	"testing"
)

// benchBatch has n records of random, thus incompressible, values.
func benchBatch(tb testing.TB, c Codec, n, size int) Batch {
	tb.Helper()
	bu := Builder{Codec: c}
	rnd := rand.NewChaCha8([32]byte{1})
	value := make([]byte, size)
	for i := range n {
		rnd.Read(value)
		bu.Append(1_700_000_000_000+int64(i), nil, value)
	}
	b, err := bu.Build()
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

var benchShapes = []struct{ n, size int }{{16, 1024}, {160, 100}}

func shapeName(n, size int) string { return strconv.Itoa(n) + "x" + strconv.Itoa(size) }

// BenchmarkCheck measures the checks of a produced batch: its checksum, its header and a
// walk over its records.
func BenchmarkCheck(b *testing.B) {
	for _, s := range benchShapes {
		batch := benchBatch(b, None, s.n, s.size)
		rules := &Rules{MaxBytes: 1 << 20, Now: 1_700_000_000_000, Before: -1, After: 3_600_000}
		b.Run(shapeName(s.n, s.size)+"/crc", func(b *testing.B) {
			b.SetBytes(int64(len(batch)))
			for b.Loop() {
				if err := batch.checkCRC(); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(shapeName(s.n, s.size)+"/records", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := batch.CheckRecords(b.Context(), nil, rules); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*s.n), "ns/record")
		})
		b.Run(shapeName(s.n, s.size)+"/all", func(b *testing.B) {
			b.SetBytes(int64(len(batch)))
			b.ReportAllocs()
			for b.Loop() {
				if err := batch.Check(rules); err != nil {
					b.Fatal(err)
				}
				if _, err := batch.CheckRecords(b.Context(), nil, rules); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// textBatch holds lines that compress as logs do.
func textBatch(tb testing.TB, c Codec) Batch {
	tb.Helper()
	bu := Builder{Codec: c}
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range 160 {
		line := "10.0.0." + strconv.Itoa(rnd.IntN(256)) + " - - [17/May/2015:10:05:" + strconv.Itoa(rnd.IntN(60)) +
			" +0000] \"GET /presentations/images/" + strconv.Itoa(rnd.IntN(10000)) + ".png HTTP/1.1\" 200 " + strconv.Itoa(rnd.IntN(99999))
		bu.Append(1_700_000_000_000+int64(i), nil, []byte(line))
	}
	b, err := bu.Build()
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// BenchmarkCodecs measures reading and making compressed batches.
func BenchmarkCodecs(b *testing.B) {
	plain := textBatch(b, None)
	rules := &Rules{Before: -1, After: -1, MaxDecompressed: 1 << 24}
	for c := None; c <= Zstd; c++ {
		packed, err := plain.Recompress(b.Context(), nil, &Target{Codec: c})
		if err != nil {
			b.Fatal(err)
		}
		b.Run(c.String()+"/check", func(b *testing.B) {
			b.SetBytes(int64(len(plain)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := packed.CheckRecords(b.Context(), nil, rules); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(c.String()+"/read", func(b *testing.B) {
			b.SetBytes(int64(len(plain)))
			b.ReportAllocs()
			var r Reader
			for b.Loop() {
				for r.Reset(packed, 0); r.Next(); {
				}
				if r.Err() != nil {
					b.Fatal(r.Err())
				}
			}
		})
		b.Run(c.String()+"/make", func(b *testing.B) {
			b.SetBytes(int64(len(plain)))
			b.ReportAllocs()
			to := &Target{Codec: c, Records: int64(len(plain) - HeaderLen)}
			for b.Loop() {
				if _, err := plain.Recompress(b.Context(), nil, to); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(plain))/float64(len(packed)), "ratio")
		})
	}
	if !bytes.Equal(plain, textBatch(b, None)) {
		b.Fatal("a batch was changed while it was read")
	}
}

// BenchmarkBuilder measures making a batch record by record.
func BenchmarkBuilder(b *testing.B) {
	value := make([]byte, 100)
	var bu Builder
	b.ReportAllocs()
	for b.Loop() {
		bu.Reset()
		for i := range 160 {
			bu.Append(int64(i), value[:8], value)
		}
		if _, err := bu.Build(); err != nil {
			b.Fatal(err)
		}
	}
}
