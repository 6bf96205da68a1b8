package record

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/leatstream/leat/internal/budget"
)

// outlines collects what VisitKeys tells.
type outlines struct {
	key  []byte
	keys []string
	all  []Outline
	stop int // after so many records, if it is not 0
}

func (o *outlines) WriteKey(part []byte) { o.key = append(o.key, part...) }

func (o *outlines) VisitRecord(r Outline) bool {
	o.keys, o.all, o.key = append(o.keys, string(o.key)), append(o.all, r), o.key[:0]
	return len(o.all) != o.stop
}

// TestVisitKeys proves that keys and outlines are the same with all codecs, also those of keys that are longer than
// the window of a stream.
func TestVisitKeys(t *testing.T) {
	long := bytes.Repeat([]byte("long"), windowLen)
	for c := None; c <= Zstd; c++ {
		bu := Builder{Codec: c}
		bu.Append(1, []byte("a"), []byte("v"))
		bu.Append(2, nil, bytes.Repeat(long, 2))
		bu.Append(3, []byte{}, nil)
		bu.Append(4, long, []byte("v"), Header{Key: []byte("h"), Value: nil})
		b, err := bu.Build()
		if err != nil {
			t.Fatal(err)
		}
		b.SetBaseOffset(70)
		var o outlines
		if err := VisitKeys(t.Context(), nil, b, &o); err != nil {
			t.Fatalf("%s: %v", c, err)
		}
		if want := []string{"a", "", "", string(long)}; fmt.Sprint(o.keys) != fmt.Sprint(want) {
			t.Errorf("%s: the keys are wrong", c)
		}
		total := int64(0)
		for i, r := range o.all {
			total += r.Size
			if r.Offset != Offset(70+i) || r.HasKey != (i != 1) || r.HasValue != (i != 2) {
				t.Errorf("%s: record %d is %+v", c, i, r)
			}
		}
		if total != int64(bu.Len()-HeaderLen) {
			t.Errorf("%s: %d bytes of %d", c, total, bu.Len()-HeaderLen)
		}
		o = outlines{stop: 2}
		if err := VisitKeys(t.Context(), nil, b, &o); err != nil || len(o.all) != 2 {
			t.Errorf("%s: %d records before the end: %v", c, len(o.all), err)
		}
	}
}

// TestVisitKeysRefusesMalformedRecords goes through faults that a right checksum does not show.
func TestVisitKeysRefusesMalformedRecords(t *testing.T) {
	for _, c := range []Codec{None, Gzip} {
		for name, records := range map[string][]byte{
			"no bytes":                      {},
			"a length beyond the end":       {40, 0, 0, 0, 1, 1, 0},
			"a length that is too short":    {8, 0, 0, 0, 1, 1, 0},
			"a length that is too long":     {16, 0, 0, 0, 1, 1, 0, 0, 0},
			"a key beyond the end":          {12, 0, 0, 0, 20, 1, 0},
			"a key of length -2":            {12, 0, 0, 0, 3, 1, 0},
			"a value of length -2":          {12, 0, 0, 0, 1, 3, 0},
			"too many headers":              {12, 0, 0, 0, 1, 1, 60},
			"a header without a key":        {16, 0, 0, 0, 1, 1, 2, 1, 1},
			"an offset delta below 0":       {12, 0, 0, 1, 1, 1, 0},
			"an offset delta above the end": {12, 0, 0, 2, 1, 1, 0},
			"bytes after the last":          {12, 0, 0, 0, 1, 1, 0, 0},
		} {
			b := rawBatch(t, c, 1, records)
			if err := VisitKeys(t.Context(), nil, b, new(outlines)); !errors.Is(err, ErrInvalid) {
				t.Errorf("%s, %s: %v", c, name, err)
			}
		}
		again := rawBatch(t, c, 2, []byte{12, 0, 0, 0, 1, 1, 0, 12, 0, 0, 0, 1, 1, 0})
		if err := VisitKeys(t.Context(), nil, again, new(outlines)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s, an offset twice: %v", c, err)
		}
		if err := VisitKeys(t.Context(), nil, rawBatch(t, c, 1, []byte{12, 0, 0, 0, 1, 1, 0}), new(outlines)); err != nil {
			t.Errorf("%s: a right one is refused: %v", c, err)
		}
	}
	for _, c := range []Codec{None, Gzip} {
		if err := VisitKeys(t.Context(), nil, rawBatch(t, c, 0, []byte{0}), new(outlines)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: bytes without a record: %v", c, err)
		}
		if err := VisitKeys(t.Context(), nil, AppendEmpty(nil, sample(t, c)), new(outlines)); err != nil {
			t.Errorf("%s: an empty batch: %v", c, err)
		}
	}
	b := rawBatch(t, None, -1, nil)
	if err := VisitKeys(t.Context(), nil, b, new(outlines)); !errors.Is(err, ErrInvalid) {
		t.Errorf("a negative count: %v", err)
	}
}

// rawBatch makes a batch of bytes that need be no records.
func rawBatch(t *testing.T, c Codec, count int32, records []byte) Batch {
	t.Helper()
	b := make(Batch, HeaderLen)
	b[atMagic], b[atAttributes+1] = byte(Magic), byte(c)
	be.PutUint32(b[atCount:], uint32(count))
	be.PutUint32(b[atLastOffsetDelta:], uint32(max(0, count-1)))
	b, err := appendCompressed(b, records, c, 0)
	if err != nil {
		t.Fatal(err)
	}
	if b, err = b.writeLengthAndCRC(); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestRewriteBounds proves that a rewritten batch keeps its bound, that nothing is appended with an error, and
// that a batch without records is one.
func TestRewriteBounds(t *testing.T) {
	for c := None; c <= Zstd; c++ {
		b := sample(t, c)
		dst := []byte("before")
		for name, how := range map[string]struct {
			Rewrite

			want error
		}{
			"too large": {Rewrite{Keep: func(int) bool { return true }, Horizon: 5, MaxBytes: HeaderLen + 3}, ErrTooLarge},
			"empty":     {Rewrite{Keep: func(int) bool { return false }, Horizon: NoTimestamp}, ErrEmpty},
		} {
			out, err := how.AppendTo(t.Context(), nil, dst, b)
			if !errors.Is(err, how.want) || string(out) != "before" {
				t.Errorf("%s, %s: %q, %v", c, name, out, err)
			}
		}
		out, err := (&Rewrite{Keep: func(int) bool { return true }, Horizon: NoTimestamp}).AppendTo(t.Context(), nil, dst, b)
		if err != nil {
			t.Fatal(err)
		}
		got := Batch(bytes.TrimPrefix(out, dst))
		if err := got.Verify(); err != nil || got.Count() != b.Count() || got.BaseTimestamp() != b.BaseTimestamp() {
			t.Errorf("%s: %v, %d records", c, err, got.Count())
		}
		cut := b[:len(b)-1]
		if _, err := new(Rewrite).AppendTo(t.Context(), nil, nil, cut); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: a cut batch: %v", c, err)
		}
	}
}

// TestLargeRecordsNeedLittleMemory proves that a batch with a record of 64 MiB passes with the smallest budget, which is
// held while it does and given back, also after an error.
func TestLargeRecordsNeedLittleMemory(t *testing.T) {
	large := bytes.Repeat([]byte("large"), 64<<20/5)
	for _, c := range []Codec{Gzip, Zstd} {
		bu := Builder{Codec: c}
		bu.Append(1, []byte("a"), large)
		bu.Append(2, []byte("b"), []byte("small"))
		b, err := bu.Build()
		if err != nil {
			t.Fatal(err)
		}
		work := budget.New(budget.Config{Bytes: budget.MinBytes})
		for _, fails := range []bool{false, true} {
			if fails {
				b = b[:len(b)/2]
				be.PutUint32(b[atLength:], uint32(len(b)-prefixLen))
			}
			_ = work.TakePeak(budget.Codec)
			if err := VisitKeys(t.Context(), work, b, new(outlines)); (err != nil) != fails {
				t.Fatalf("%s: %v", c, err)
			}
			out, err := (&Rewrite{Keep: func(i int) bool { return i == 1 }, Horizon: NoTimestamp}).AppendTo(t.Context(), work, nil, b)
			if (err != nil) != fails || len(out) > 200 {
				t.Fatalf("%s: %d bytes, %v", c, len(out), err)
			}
			if peak, held := work.TakePeak(budget.Codec), work.Usage(budget.Codec).Used; peak == 0 || held != 0 {
				t.Errorf("%s: %d bytes at most, %d are still held", c, peak, held)
			}
		}
	}
}
