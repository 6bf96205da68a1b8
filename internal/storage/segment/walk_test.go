package segment_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/segment"
)

// walked walks through bytes and returns how many batches there were and why it ended.
func walked(b []byte, least record.Offset, strict bool) (n int, err error) {
	w := segment.NewWalker(bytes.NewReader(b), 0, int64(len(b)), least, strict)
	defer w.Close()
	for {
		if _, err := w.Next(); err != nil {
			return n, err
		}
		n++
	}
}

// TestWalkerFindsEveryFlip proves that a walk with checksums ends at every flipped bit, at the
// batch with the bit or at the next one. Only two changes can stay unseen, and only if the
// next batch may still follow: a larger base offset where gaps are allowed, and a larger
// epoch.
func TestWalkerFindsEveryFlip(t *testing.T) {
	for _, strict := range []bool{true, false} {
		h := newHistory(seeded(7), 1000)
		h.gaps, h.value, h.epoch = !strict, 20, 5
		h.grow(t, 6)
		if n, err := walked(h.bytes, h.base, strict); n != 6 || !errors.Is(err, io.EOF) {
			t.Fatalf("untouched: %d batches, %v", n, err)
		}
		for bit := range len(h.bytes) * 8 {
			b := bytes.Clone(h.bytes)
			b[bit/8] ^= 1 << (bit % 8)
			n, err := walked(b, h.base, strict)
			if errors.Is(err, segment.ErrTorn) {
				if i := batchAt(h, int64(bit/8)); n < i || n > i+1 {
					t.Errorf("strict %v, bit %d of batch %d: found at batch %d", strict, bit, i, n)
				}
				continue
			}
			if !errors.Is(err, io.EOF) || n != 6 || !mayHide(h, bit, strict) {
				t.Errorf("strict %v: bit %d of byte %d of batch %d was not seen: %v", strict, bit%8,
					int64(bit/8)-h.at[batchAt(h, int64(bit/8))], batchAt(h, int64(bit/8)), err)
			}
		}
	}
}

func batchAt(h *history, pos int64) int {
	i := 0
	for i+1 < len(h.at) && h.at[i+1] <= pos {
		i++
	}
	return i
}

// mayHide tells whether the bytes are still a valid log after a flip.
func mayHide(h *history, bit int, strict bool) bool {
	i := batchAt(h, int64(bit/8))
	b := record.Batch(bytes.Clone(h.batches[i]))
	in := bit - int(h.at[i])*8
	b[in/8] ^= 1 << (in % 8)
	last := i == len(h.batches)-1
	switch {
	case in < 8*8: // the base offset
		least := h.base
		if i > 0 {
			least = h.batches[i-1].NextOffset()
		}
		return !strict && b.BaseOffset() >= least && (last || b.NextOffset() <= h.batches[i+1].BaseOffset())
	case in >= 12*8 && in < 16*8: // the epoch
		fits := i == 0 || b.LeaderEpoch() >= h.batches[i-1].LeaderEpoch()
		return fits && (last || b.LeaderEpoch() <= h.batches[i+1].LeaderEpoch())
	default:
		return false
	}
}

// TestWalkerEndsAtTornTails proves that a walk over a file of any length returns the whole
// batches, and then ErrTorn for the rest.
func TestWalkerEndsAtTornTails(t *testing.T) {
	h := newHistory(seeded(8), 0)
	h.value = 30
	h.grow(t, 5)
	for size := range len(h.bytes) + 1 {
		whole := batchAt(h, int64(size))
		if size == len(h.bytes) {
			whole = 5
		}
		for _, tail := range []int{0, 1, record.HeaderLen, 200} { // zeros, as of space that was reserved
			b := append(bytes.Clone(h.bytes[:size]), make([]byte, tail)...)
			n, err := walked(b, 0, false)
			want := segment.ErrTorn
			if tail == 0 && h.end(whole) == int64(size) {
				want = io.EOF
			}
			// A batch whose last bytes are zeros is whole where zeros take their place.
			if n < whole || n > whole && !bytes.Equal(b[:h.end(n)], h.bytes[:h.end(n)]) || n == whole && !errors.Is(err, want) {
				t.Fatalf("%d bytes and %d zeros: %d batches, %v, want %d, %v", size, tail, n, err, whole, want)
			}
		}
	}
}

// TestWalkerRefuses proves which batches must not follow each other although each is whole.
func TestWalkerRefuses(t *testing.T) {
	make2 := func(base2 record.Offset, epoch1, epoch2 record.Epoch) []byte {
		var all []byte
		for i, base := range []record.Offset{10, base2} {
			var bu record.Builder
			bu.Append(1, nil, []byte("value"))
			b, err := bu.Build()
			must(t, err)
			b.SetBaseOffset(base)
			b.SetLeaderEpoch([]record.Epoch{epoch1, epoch2}[i])
			all = append(all, b...)
		}
		return all
	}
	for _, c := range []struct {
		what    string
		bytes   []byte
		least   record.Offset
		strict  bool
		batches int
		whole   bool
	}{
		{"in order", make2(11, 1, 1), 10, true, 2, true},
		{"an epoch rises", make2(11, 1, 2), 10, true, 2, true},
		{"an epoch falls", make2(11, 2, 1), 10, false, 1, false},
		{"an epoch falls to none", make2(11, 0, record.NoEpoch), 10, false, 1, false},
		{"a gap", make2(12, 1, 1), 10, true, 1, false},
		{"a gap that is fine", make2(12, 1, 1), 10, false, 2, true},
		{"the same offset again", make2(10, 1, 1), 10, false, 1, false},
		{"a gap at the beginning", make2(11, 1, 1), 9, true, 0, false},
		{"a gap at the beginning that is fine", make2(11, 1, 1), 9, false, 2, true},
		{"below its least offset", make2(11, 1, 1), 11, false, 0, false},
	} {
		n, err := walked(c.bytes, c.least, c.strict)
		want := segment.ErrTorn
		if c.whole {
			want = io.EOF
		}
		if n != c.batches || !errors.Is(err, want) {
			t.Errorf("%s: %d batches, %v", c.what, n, err)
		}
	}
}

// TestWalkerTrusts proves that checksums are verified only from a position on, that a walk
// can step back and read bytes again that were mended meanwhile, and that it knows its
// position.
func TestWalkerTrusts(t *testing.T) {
	h := newHistory(seeded(9), 100)
	h.grow(t, 4)
	b := bytes.Clone(h.bytes)
	for i := range h.at {
		b[h.end(i+1)-1] ^= 1
	}
	w := segment.NewWalker(bytes.NewReader(b), 0, h.size(), 100, false)
	defer w.Close()
	w.Trust(h.at[2])
	for i := range 2 {
		if got, err := w.Next(); err != nil || got.BaseOffset() != h.batches[i].BaseOffset() {
			t.Fatalf("batch %d is trusted: %v", i, err)
		}
	}
	for range 2 {
		if _, err := w.Next(); !errors.Is(err, segment.ErrTorn) {
			t.Fatalf("batch 2 is not: %v", err)
		}
		if w.Pos() != h.at[2] || w.Least() != h.batches[1].NextOffset() {
			t.Errorf("it stands at byte %d, offset %d", w.Pos(), w.Least())
		}
	}
	copy(b, h.bytes)
	w.Reread()
	for i := 2; i < 4; i++ {
		if _, err := w.Next(); err != nil {
			t.Fatalf("batch %d was mended: %v", i, err)
		}
	}
	w.StepBack(h.at[3], h.batches[2].NextOffset())
	if got, err := w.Next(); err != nil || got.BaseOffset() != h.batches[3].BaseOffset() {
		t.Errorf("the last one again: %v", err)
	}
	if _, err := w.Next(); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

// failingReader fails with an error of its own from a position on.
type failingReader struct {
	b    []byte
	from int64
}

func (r failingReader) ReadAt(b []byte, off int64) (int, error) {
	if off+int64(len(b)) <= r.from {
		return copy(b, r.b[off:]), nil
	}
	return copy(b, r.b[min(off, r.from):r.from]), errInjected
}

// TestWalkerTellsErrorsFromTears proves that a read which fails is never taken for the end
// of the log, since the log would be cut there and lose records.
func TestWalkerTellsErrorsFromTears(t *testing.T) {
	h := newHistory(seeded(10), 0)
	h.gaps = false
	h.grow(t, 5)
	for from := range h.size() {
		w := segment.NewWalker(failingReader{h.bytes, from}, 0, h.size(), 0, true)
		n := 0
		var err error
		for ; err == nil; n++ {
			_, err = w.Next()
		}
		w.Close()
		if !errors.Is(err, errInjected) || errors.Is(err, segment.ErrTorn) || n-1 != batchAt(h, from) {
			t.Fatalf("from byte %d on: batch %d, %v", from, n-1, err)
		}
	}
}

// TestWalkerOverLargeBatches proves that batches which are larger than the buffer are
// verified as a whole.
func TestWalkerOverLargeBatches(t *testing.T) {
	h := newHistory(seeded(11), 0)
	h.gaps, h.value = false, 300_000
	h.grow(t, 4)
	if n, err := walked(h.bytes, 0, true); n != 4 || !errors.Is(err, io.EOF) {
		t.Fatalf("%d batches, %v", n, err)
	}
	for range 100 {
		b := bytes.Clone(h.bytes)
		pos := h.rng.Int64N(h.size())
		if in := pos - h.at[batchAt(h, pos)]; in < record.HeaderLen {
			continue
		}
		b[pos] ^= 0x10
		if n, err := walked(b, 0, true); n != batchAt(h, pos) || !errors.Is(err, segment.ErrTorn) {
			t.Fatalf("byte %d: %d batches, %v", pos, n, err)
		}
	}
}

// FuzzWalker proves that a walk over any bytes ends, never panics, and returns only whole
// batches that may follow each other.
func FuzzWalker(f *testing.F) {
	h := newHistory(seeded(12), 3)
	h.gaps = false
	h.grow(f, 3)
	f.Add(h.bytes, true)
	f.Add(append(bytes.Clone(h.bytes), h.bytes...), false)
	f.Fuzz(func(t *testing.T, b []byte, strict bool) {
		w := segment.NewWalker(bytes.NewReader(b), 0, int64(len(b)), 3, strict)
		defer w.Close()
		next := record.Offset(3)
		for {
			pos := w.Pos()
			got, err := w.Next()
			if err != nil {
				if !errors.Is(err, io.EOF) && !errors.Is(err, segment.ErrTorn) {
					t.Fatal(err)
				}
				return
			}
			whole := record.Batch(b[pos:w.Pos()])
			if err := whole.Verify(); err != nil {
				t.Fatalf("byte %d: %v", pos, err)
			}
			if got.BaseOffset() < next || strict && got.BaseOffset() != next {
				t.Fatalf("offset %d comes after %d", got.BaseOffset(), next)
			}
			next = w.Least()
		}
	})
}

// TestDamage proves that all methods which meet a damaged batch return ErrTorn, and that the
// batches before it can be read.
func TestDamage(t *testing.T) {
	mem := newMemSubject(t, 13)
	s := mem.subject
	s.append(10)
	s.close()
	damaged := bytes.Clone(s.bytes)
	copy(damaged[s.at[6]:], make([]byte, record.HeaderLen))
	put(t, mem.fs, s.g.Path(segment.LogSuffix), damaged)
	put(t, mem.fs, s.g.Path(segment.IndexSuffix), nil)
	put(t, mem.fs, s.g.Path(segment.TimeSuffix), nil)
	s.reopen()
	for i, b := range s.batches {
		got, err := s.g.Locate(b.BaseOffset())
		if i < 6 && (err != nil || got != s.info(i)) || i >= 6 && !errors.Is(err, segment.ErrTorn) {
			t.Errorf("batch %d: %v", i, err)
		}
	}
	for what, call := range map[string]func() error{
		"read":     func() error { _, err := s.g.Read(s.batches[7].BaseOffset(), s.next, 1); return err },
		"time":     func() error { _, err := s.g.MaxTime(false); return err },
		"activate": func() error { return s.g.Activate(0) },
		"base":     func() error { _, err := s.g.LastBaseAt(s.at[8]); return err },
		"short":    func() error { return s.g.ReadAt(make([]byte, 10), s.size()-5) },
	} {
		if err := call(); !errors.Is(err, segment.ErrTorn) {
			t.Errorf("%s: %v", what, err)
		}
	}
	f, err := s.g.OpenApart()
	must(t, err)
	defer func() { must(t, f.Close()) }()
	b := make([]byte, s.at[6])
	if _, err := f.ReadAt(b, 0); err != nil || !bytes.Equal(b, s.bytes[:s.at[6]]) {
		t.Error(fmt.Errorf("apart: %w", err))
	}
}
