package transaction

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/leatstream/leat/internal/record"
)

func mustBuild(tb testing.TB, b record.Batch, err error) record.Batch {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// data is a batch of n records of a producer.
func data(tb testing.TB, id int64, n int, at record.Offset, isTransactional bool) record.Batch {
	tb.Helper()
	bu := record.Builder{Transactional: isTransactional}
	bu.SetProducer(id, 0, 0)
	for range n {
		bu.Append(1, nil, nil)
	}
	b, err := bu.Build()
	b = mustBuild(tb, b, err)
	b.SetBaseOffset(at)
	return b
}

// end is a marker of a producer.
func end(tb testing.TB, id int64, at record.Offset, commit bool) record.Batch {
	tb.Helper()
	b, err := record.BuildMarker(1, id, 0, record.Marker{Commit: commit})
	b = mustBuild(tb, b, err)
	b.SetBaseOffset(at)
	return b
}

// naive is a log of batches that answers every question by reading all of them.
type naive []record.Batch

// transactions lists all transactions of the log, those that are open with no marker.
func (n naive) transactions() (all []Abort, commits []bool) {
	open := map[int64]int{}
	for _, b := range n {
		i, isOpen := open[b.ProducerID()]
		switch {
		case b.Control() && isOpen:
			m, _ := record.ReadMarker(b)
			all[i].Last, commits[i] = b.BaseOffset(), m.Commit
			delete(open, b.ProducerID())
		case !b.Control() && b.Transactional() && !isOpen:
			open[b.ProducerID()] = len(all)
			all, commits = append(all, Abort{Producer: b.ProducerID(), First: b.BaseOffset(), Last: None}), append(commits, false)
		}
	}
	return all, commits
}

// stableEnd is the last stable offset below a high watermark.
func (n naive) stableEnd(limit record.Offset) record.Offset {
	stable := limit
	all, _ := n.transactions()
	for _, a := range all {
		if a.Last == None || a.Last >= limit {
			stable = min(stable, a.First)
		}
	}
	return stable
}

// aborted lists the aborted transactions, in the order of their markers, without their Stable.
func (n naive) aborted() (list []Abort) {
	all, commits := n.transactions()
	for i, a := range all {
		if a.Last != None && !commits[i] {
			list = append(list, a)
		}
	}
	slices.SortFunc(list, func(a, b Abort) int { return int(a.Last - b.Last) })
	return list
}

// addRandom adds a batch to a log.
func (n naive) addRandom(tb testing.TB, rng *rand.Rand, next record.Offset, producers int64) naive {
	tb.Helper()
	id := rng.Int64N(producers)
	switch rng.IntN(8) {
	case 0, 1, 2:
		return append(n, end(tb, id, next, rng.IntN(2) == 0))
	case 3:
		return append(n, data(tb, 100+id, 1+rng.IntN(3), next, false))
	default:
		return append(n, data(tb, id, 1+rng.IntN(3), next, true))
	}
}

func withoutStable(list []Abort) []Abort {
	list = slices.Clone(list)
	for i := range list {
		list[i].Stable = 0
	}
	return list
}

// TestView proves that a View knows, at any high watermark from the last one on, the same last stable
// offset as who reads the whole log, and the same aborted transactions. So does one whose open
// transactions were read from elsewhere.
func TestView(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var log naive
		var v View
		var tr Tracker
		next, high := record.Offset(rng.Int64N(3)), record.Offset(0)
		for range 80 {
			log = log.addRandom(t, rng, next, 1+int64(seed%7))
			b := log[len(log)-1]
			next = b.NextOffset()
			v.Apply(tr.Apply(b))
			if rng.IntN(3) == 0 {
				high = max(high, record.Offset(rng.Int64N(int64(next)+1)))
				v.Forget(high)
			}
			limit := high + record.Offset(rng.Int64N(int64(next-high)+1))
			if got, want := v.StableEnd(limit), log.stableEnd(limit); got != want {
				t.Fatalf("seed %d: below %d of %d all is stable up to %d, want %d", seed, limit, next, got, want)
			}
			if d := cmp.Diff(log.aborted(), withoutStable(v.Aborted()), cmp.Comparer(func(a, b []Abort) bool { return slices.Equal(a, b) })); d != "" {
				t.Fatalf("seed %d: (-want +got)\n%s", seed, d)
			}
			var again View
			for _, i := range rng.Perm(len(v.Open())) {
				again.AddOpen(v.Open()[i])
			}
			again.Hold(0, next-1)
			if got, want := again.StableEnd(next), log.stableEnd(next); got != want {
				t.Fatalf("seed %d: a View that was read is stable up to %d, want %d", seed, got, want)
			}
			if got := again.StableEnd(next - 1); got > log.stableEnd(next-1) {
				t.Fatalf("seed %d: a View that was read and cannot know is stable up to %d", seed, got)
			}
		}
	}
}

// TestViewIsBounded proves that a View whose high watermark never moves does not grow without a
// bound, and lets no reader through that it would have held back.
func TestViewIsBounded(t *testing.T) {
	var v View
	const n = 5 * maxEnded
	for i := range record.Offset(n) {
		v.Apply(Change{Begun, 1, 3 * i, 0})
		v.Apply(Change{Committed, 1, 3 * i, 3*i + 1})
	}
	if len(v.ended) > maxEnded {
		t.Errorf("%d ended transactions are kept", len(v.ended))
	}
	for i := range record.Offset(n) {
		if got := v.StableEnd(3*i + 1); got > 3*i {
			t.Fatalf("the marker at %d is not known to be there, and all is stable up to %d", 3*i+1, got)
		}
	}
	if got := v.StableEnd(3 * n); got != 3*n {
		t.Errorf("all markers are there, and all is stable up to %d of %d", got, 3*n)
	}
	v.Forget(3 * n)
	if len(v.ended) != 0 {
		t.Errorf("%d are left", len(v.ended))
	}
}

// TestIndex proves that an index file finds the transactions that overlap with any part of the log,
// that nothing that it leaves out begins below the bound that it states, and that a file with a
// flipped bit, or of another length, is refused.
func TestIndex(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 2))
		var log naive
		var v View
		var tr Tracker
		next := record.Offset(0)
		for range rng.IntN(120) {
			log = log.addRandom(t, rng, next, 1+int64(seed%5))
			next = log[len(log)-1].NextOffset()
			v.Apply(tr.Apply(log[len(log)-1]))
		}
		file := Encode(v.Aborted(), next, v.Stable(next))
		s, err := Check(bytes.NewReader(file), int64(len(file)))
		if want := (Summary{next, v.Stable(next), len(v.Aborted())}); err != nil || s != want {
			t.Fatalf("seed %d: %+v, %v, want %+v", seed, s, err, want)
		}
		for range 50 {
			from := record.Offset(rng.Int64N(int64(next) + 1))
			upper := from + record.Offset(rng.Int64N(int64(next-from)+1))
			got, err := ReadIndex(bytes.NewReader(file), s.Count, from, upper)
			var want []Abort
			for _, a := range log.aborted() {
				if a.Overlaps(from, upper) {
					want = append(want, a)
				}
			}
			if err != nil || !slices.Equal(withoutStable(got), want) || !slices.Equal(withoutStable(Find(v.Aborted(), from, upper)), want) {
				t.Fatalf("seed %d: [%d, %d): %v, %v, want %v", seed, from, upper, got, err, want)
			}
		}
		if seed > 3 {
			continue
		}
		for bit := range len(file) * 8 {
			bad := slices.Clone(file)
			bad[bit/8] ^= 1 << (bit % 8)
			if _, err := Check(bytes.NewReader(bad), int64(len(bad))); !errors.Is(err, ErrIndex) {
				t.Fatalf("seed %d: bit %d: %v", seed, bit, err)
			}
		}
		for n := range len(file) + entryLen {
			if bad := append(slices.Clone(file), make([]byte, entryLen)...)[:n]; n != len(file) {
				if _, err := Check(bytes.NewReader(bad), int64(n)); !errors.Is(err, ErrIndex) {
					t.Fatalf("seed %d: length %d: %v", seed, n, err)
				}
			}
		}
	}
}

// TestLargeIndex proves the same for a file that is read in pieces.
func TestLargeIndex(t *testing.T) {
	for _, n := range []int{1023, 1024, 1025, 2048, 5000} {
		var list []Abort
		for i := range record.Offset(n) {
			list = append(list, Abort{Producer: int64(i), First: 2 * i, Last: 2*i + 1, Stable: 2*i + 2})
		}
		file := Encode(list, record.Offset(2*n), record.Offset(2*n))
		s, err := Check(bytes.NewReader(file), int64(len(file)))
		if err != nil || s.Count != n {
			t.Fatalf("%d: %+v, %v", n, s, err)
		}
		if _, err := Check(bytes.NewReader(file[:len(file)-1]), int64(len(file))); !errors.Is(err, ErrIndex) {
			t.Errorf("%d: a file that is shorter than it says: %v", n, err)
		}
		for _, r := range [][2]record.Offset{{0, 1}, {5, 2000}, {2047, 2048}, {2048, 2050}, {0, record.Offset(2 * n)}, {record.Offset(2 * n), record.Offset(2 * n)}} {
			got, err := ReadIndex(bytes.NewReader(file), s.Count, r[0], r[1])
			if want := Find(list, r[0], r[1]); err != nil || !slices.Equal(got, want) {
				t.Errorf("%d: %v: %d found, %v, want %d", n, r, len(got), err, len(want))
			}
		}
	}
}

// TestIndexFormat proves that an index file has Kafka's entries, and the bytes that it had when its
// format was promised.
func TestIndexFormat(t *testing.T) {
	got := Encode([]Abort{{Producer: 1, First: 2, Last: 3, Stable: 4}, {Producer: -1, First: 0x0102030405060708, Last: 6, Stable: 7}}, 9, 8)
	want := []byte("\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x04" +
		"\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\x01\x02\x03\x04\x05\x06\x07\x08\x00\x00\x00\x00\x00\x00\x00\x06\x00\x00\x00\x00\x00\x00\x00\x07" +
		"\x00\x01\x00\x00\x00\x00\x00\x00\x00\x09\x00\x00\x00\x00\x00\x00\x00\x08\x00\x00\x00\x02\x95\xc9\xcc\xc3")
	if !bytes.Equal(got, want) {
		t.Errorf("it is written as %x, and was %x", got, want)
	}
}

// FuzzIndex proves that arbitrary bytes are refused, or read without a panic.
func FuzzIndex(f *testing.F) {
	f.Add(Encode(nil, 5, 3), int64(0), int64(9))
	f.Add(Encode([]Abort{{1, 2, 3, 4}, {2, 3, 5, 6}}, 9, 9), int64(2), int64(4))
	f.Fuzz(func(t *testing.T, b []byte, from, upper int64) {
		s, err := Check(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			if !errors.Is(err, ErrIndex) {
				t.Fatalf("an error without a sentinel: %v", err)
			}
			return
		}
		found, err := ReadIndex(bytes.NewReader(b), s.Count, record.Offset(from), record.Offset(upper))
		if err != nil || len(found) > s.Count {
			t.Fatalf("%d of %d found, %v", len(found), s.Count, err)
		}
	})
}
