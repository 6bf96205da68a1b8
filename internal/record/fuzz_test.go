package record

import (
	"bytes"
	"errors"
	"testing"
)

func seeds(f *testing.F) {
	f.Helper()
	for c := None; c <= Zstd; c++ {
		f.Add([]byte(sample(f, c)))
	}
	f.Add([]byte{})
}

// FuzzNext proves that cutting arbitrary bytes into batches never panics, loses no byte
// and always ends.
func FuzzNext(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		var joined []byte
		rest := data
		for {
			b, after, err := Next(rest)
			if err != nil {
				if !errors.Is(err, ErrShort) && !errors.Is(err, ErrMagic) && !errors.Is(err, ErrCorrupt) {
					t.Fatalf("an error without a sentinel: %v", err)
				}
				joined = append(joined, rest...)
				break
			}
			if b.Size() != len(b) || len(b) < HeaderLen {
				t.Fatalf("a batch of %d bytes that says %d", len(b), b.Size())
			}
			joined, rest = append(joined, b...), after
		}
		if !bytes.Equal(joined, data) {
			t.Fatal("bytes got lost")
		}
	})
}

// FuzzCheck proves that a batch which passes both checks can be read to its last record
// and has the records that its header announces, and that no bytes make the checks panic.
func FuzzCheck(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		_ = Batch(data).Check(rules()) // with its own checksum
		data = bytes.Clone(data)
		sealRaw(data)
		b := Batch(data)
		if b.Check(rules()) != nil {
			return
		}
		found, err := b.CheckRecords(t.Context(), nil, rules())
		got, readErr := read(b, rules().MaxDecompressed)
		if err != nil {
			return
		}
		if readErr != nil || len(got) != int(b.Count()) {
			t.Fatalf("it passed, but gives %d of %d records: %v", len(got), b.Count(), readErr)
		}
		for i, r := range got {
			if r.Offset != Offset(i) || r.Timestamp > found.MaxTimestamp || r.Timestamp > now+rules().After {
				t.Fatalf("record %d has offset %d and time %d of at most %d", i, r.Offset, r.Timestamp, found.MaxTimestamp)
			}
		}
	})
}

// FuzzRecords proves, for arbitrary records in every codec, that the walk over plain
// records, the walk over a stream and the reader have the same results, and that good
// records stay good when their codec changes.
func FuzzRecords(f *testing.F) {
	for c := None; c <= Zstd; c++ {
		b := sample(f, c)
		f.Add(byte(c), int32(3), b.recordBytes())
	}
	f.Fuzz(func(t *testing.T, codec byte, count int32, payload []byte) {
		b := make(Batch, HeaderLen, HeaderLen+len(payload))
		b = append(b, payload...)
		be.PutUint32(b[atCount:], uint32(count))
		be.PutUint32(b[atLastOffsetDelta:], uint32(count-1))
		be.PutUint64(b[atProducerID:], ^uint64(0))
		b[atAttributes+1] = codec % 5
		sealRaw(b)
		if b.Check(lax) != nil {
			return
		}
		const limit = 1 << 20
		r := *lax
		r.MaxDecompressed = limit
		found, err := b.CheckRecords(t.Context(), nil, &r)
		plain, plainErr := b.Recompress(t.Context(), nil, &Target{Records: limit})
		if plainErr != nil {
			if err == nil {
				t.Fatalf("it passed, but does not decompress: %v", plainErr)
			}
			return
		}
		if len(plain) > limit {
			return
		}
		for c := None; c <= Zstd; c++ {
			again, err2 := plain.Recompress(t.Context(), nil, &Target{Codec: c})
			if err2 != nil {
				t.Fatal(err2)
			}
			found2, err2 := again.CheckRecords(t.Context(), nil, &r)
			if (err == nil) != (err2 == nil) || err == nil && found != found2 {
				t.Fatalf("%s: %+v, %v; %s: %+v, %v", b.Codec(), found, err, c, found2, err2)
			}
			if got, readErr := read(again, limit); err == nil && (readErr != nil || len(got) != int(count)) {
				t.Fatalf("%s: %d records, %v", c, len(got), readErr)
			}
		}
	})
}
