package producer_test

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"testing"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/producer"
)

// known lists the ids that a state knows, in order.
func known(s *producer.State) (ids []int64) {
	for _, d := range s.Describe() {
		ids = append(ids, d.ID)
	}
	slices.Sort(ids)
	return ids
}

// flood has as many new producers write one batch each as an append after another does, and
// returns the offset after the last one.
func flood(tb testing.TB, s *producer.State, first int64, n int, base record.Offset) record.Offset {
	tb.Helper()
	for i := range n {
		s.Apply(batch(tb, first+int64(i), 0, 0, 1, base), 1)
		s.Evict()
		base++
	}
	return base
}

func expectCount(tb testing.TB, b *producer.Budget, states ...*producer.State) {
	tb.Helper()
	n := 0
	for _, s := range states {
		n += len(s.Describe())
	}
	if u := b.Usage(); u.Producers != int64(n) || u.Bytes != int64(n)*producer.EntryBytes {
		tb.Errorf("%d are counted, %d known", u.Producers, n)
	}
}

// TestBudget proves that producers without end take no more memory than the budget has, that one
// of the same log which goes on writing keeps its sequences and its last batches all the time,
// that the producers of a log with few stay, and that all is given back at the end.
func TestBudget(t *testing.T) {
	n := 2_000_000
	if testing.Short() {
		n = 20_000
	}
	most := n / 20
	b := producer.NewBudget(int64(most) * producer.EntryBytes)
	s, small := producer.New(b), producer.New(b)
	offset := flood(t, &small, 1, 50, 0)
	few := known(&small)
	var sent []record.Batch
	const honest = 1 << 40
	for i := range n {
		if i%(most/4) == 0 {
			for _, again := range sent {
				if earlier, dup, err := s.Check(again, producer.Claim{}); !dup || err != nil || earlier.Base != again.BaseOffset() {
					t.Fatalf("after %d others: the honest producer's batch at %d: %v, %v", i, again.BaseOffset(), dup, err)
				}
			}
			next := batch(t, honest, 0, int32(i/(most/4)), 1, offset)
			if _, dup, err := s.Check(next, producer.Claim{}); dup || err != nil {
				t.Fatal(dup, err)
			}
			s.Apply(next, 1)
			offset++
			sent = append(sent, next)
			sent = sent[max(0, len(sent)-producer.KeptBatches):]
		}
		offset = flood(t, &s, int64(1000+i), 1, offset)
		if u := b.Usage(); u.Producers > int64(most) || u.Bytes > u.Limit {
			t.Fatalf("after %d: %+v", i, u)
		}
	}
	if got := known(&small); !slices.Equal(got, few) {
		t.Errorf("the log with few producers has %v", got)
	}
	u := b.Usage()
	expectCount(t, b, &s, &small)
	if u.Evicted == 0 || u.Producers < int64(most)/2 {
		t.Errorf("%+v", u)
	}
	s.Release()
	small.Release()
	s.Release()
	if u := b.Usage(); u.Producers != 0 || u.Bytes != 0 {
		t.Errorf("in the end: %+v", u)
	}
}

// TestLongestUnusedGo proves that exactly the longest unused producers are forgotten, by the order in
// which they have written and not by the clock, also after a snapshot, and that a forgotten
// one may go on with any sequence.
func TestLongestUnusedGo(t *testing.T) {
	for _, reopened := range []bool{false, true} {
		b := producer.NewBudget(16 * producer.EntryBytes)
		s := producer.New(b)
		for id := range int64(16) {
			s.Apply(batch(t, id, 0, 0, 1, record.Offset(id)), 1000-id) // the clock goes back
		}
		s.Apply(batch(t, 0, 0, 1, 1, 16), 1)
		s.Apply(batch(t, 2, 0, 1, 1, 17), 1)
		if s.Evict() || len(s.Describe()) != 16 {
			t.Fatal("all fit in")
		}
		if reopened {
			must(t, s.Decode(bytes.NewReader(s.Encode()), 2000))
		}
		s.SetChanged(false)
		s.Apply(batch(t, 99, 0, 0, 1, 18), 1)
		if s.Evict() {
			t.Error("there is nothing more to do")
		}
		if got := known(&s); !slices.Equal(got, []int64{0, 2, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 99}) { // seven eighths of what there may be
			t.Errorf("reopened %v: %v are known", reopened, got)
		}
		if !s.Changed() {
			t.Error("the snapshot has those that were forgotten")
		}
		if _, dup, err := s.Check(batch(t, 1, 0, 77, 1, 19), producer.Claim{}); dup || err != nil {
			t.Errorf("a forgotten one: %v, %v", dup, err)
		}
		if _, dup, err := s.Check(batch(t, 2, 0, 1, 1, 19), producer.Claim{}); !dup || err != nil {
			t.Errorf("one that was used lately: %v, %v", dup, err)
		}
	}
}

// TestFairShares proves which logs have to evict, and down to how many, by how many all have.
func TestFairShares(t *testing.T) {
	for name, c := range map[string]struct{ sizes, want []int }{
		"all fit":     {[]int{500, 300, 200}, []int{500, 300, 200}},
		"a large one": {[]int{1001, 10, 20}, []int{845, 10, 20}},
		"two large ones, of which the first makes enough room": {[]int{600, 550, 20}, []int{427, 550, 20}},
		"many small ones and a large one":                      {append(slices.Repeat([]int{3}, 200), 500), append(slices.Repeat([]int{3}, 200), 275)},
		"more logs than there is room for":                     {slices.Repeat([]int{4}, 600), slices.Repeat([]int{2}, 600)},
	} {
		t.Run(name, func(t *testing.T) {
			b := producer.NewBudget(1000 * producer.EntryBytes)
			states := make([]*producer.State, len(c.sizes))
			for i, n := range c.sizes {
				s := producer.New(b)
				for id := range n {
					s.Apply(batch(t, int64(id), 0, 0, 1, record.Offset(id)), 1)
				}
				s.Confirm()
				states[i] = &s
			}
			for range 2 { // the second time nothing is left to do
				for _, s := range states {
					s.Evict()
				}
			}
			for i, s := range states {
				if got := len(s.Describe()); got != c.want[i] {
					t.Fatalf("log %d of %d producers keeps %d, not %d", i, c.sizes[i], got, c.want[i])
				}
			}
			expectCount(t, b, states...)
		})
	}
}

// TestGrowthBesideIdleLogs proves that logs which are full and idle do not let others, however many, grow
// to more than about twice the budget, that each of those remembers some producers meanwhile, that their producers go when somebody looks at them, and that a log that does not
// grow loses nothing meanwhile.
func TestGrowthBesideIdleLogs(t *testing.T) {
	const most = 1000
	b := producer.NewBudget(most * producer.EntryBytes)
	idle, honest := producer.New(b), producer.New(b)
	flood(t, &honest, 1, 40, 0)
	flood(t, &idle, 1, most-40, 0)
	ids := known(&honest)
	all := []*producer.State{&idle, &honest}
	for i := range 20 {
		s := producer.New(b)
		all = append(all, &s)
		flood(t, &s, 1, 300, 0)
		honest.Apply(batch(t, 1+int64(i%40), 0, 1, 1, record.Offset(1000+i)), 1)
		honest.Evict()
	}
	for i, s := range all {
		if n, least := len(s.Describe()), most*7/8/len(all)/8; n < least { // an eighth of an equal share
			t.Errorf("log %d remembers only %d of %d", i, n, least)
		}
	}
	if u := b.Usage(); u.Producers > most*5/4+most*7/8 {
		t.Errorf("%+v", u)
	}
	if got := known(&honest); !slices.Equal(got, ids) {
		t.Errorf("%d of %d honest producers are left", len(got), len(ids))
	}
	for _, s := range all {
		s.Evict()
	}
	if u := b.Usage(); u.Producers > most {
		t.Errorf("when all were looked at: %+v", u)
	}
	if got := known(&honest); !slices.Equal(got, ids) {
		t.Errorf("%d of %d honest producers are left then", len(got), len(ids))
	}
	expectCount(t, b, all...)
}

// TestBudgetIsExact proves that a budget counts what its states have, whatever they do: batches that
// are reverted, also after an eviction, expiry, snapshots that are read, and releases; and
// that Revert restores what was there after the eviction.
func TestBudgetIsExact(t *testing.T) {
	for seed := range uint64(40) {
		rng := seeded(seed)
		b := producer.NewBudget(60 * producer.EntryBytes)
		states := []*producer.State{}
		for range 3 {
			s := producer.New(b)
			states = append(states, &s)
		}
		offset := record.Offset(0)
		for step := range 300 {
			s := states[rng.IntN(len(states))]
			settled := viewOf(s)
			for range rng.IntN(30) {
				offset++
				s.Apply(batch(t, rng.Int64N(90), int16(rng.IntN(2)), int32(rng.IntN(9)), 1, offset), int64(step))
			}
			switch rng.IntN(6) {
			case 0:
				s.Revert()
				if got := viewOf(s); !bytes.Equal(got.Snapshot, settled.Snapshot) {
					t.Fatalf("seed %d, step %d: Revert left something else", seed, step)
				}
			case 1:
				s.Expire(int64(100_000*step), 150_000)
			case 2:
				must(t, s.Decode(bytes.NewReader(s.Encode()), int64(step)))
			case 3:
				if rng.IntN(5) == 0 {
					s.Release()
				}
			default:
				s.Evict()
			}
			s.Confirm()
			expectCount(t, b, states...)
		}
		for _, s := range states {
			s.Release()
		}
		if u := b.Usage(); u.Producers != 0 {
			t.Fatalf("seed %d: %+v in the end", seed, u)
		}
	}
}

// TestLargeSnapshot proves that a snapshot of more producers than there is room for is read with no more
// memory than the budget has, and that the producers that were used last are known then.
func TestLargeSnapshot(t *testing.T) {
	const most = 2000
	var large producer.State
	for id := range int64(10 * most) {
		large.Apply(batch(t, id, 0, 0, 1, record.Offset(id)), 1)
		large.Confirm()
	}
	b := producer.NewBudget(most * producer.EntryBytes)
	s := producer.New(b)
	r := &watched{r: bytes.NewReader(large.Encode()), look: func() {
		if u := b.Usage(); u.Producers > most+1 {
			t.Errorf("while it is read: %+v", u)
		}
	}}
	must(t, s.Decode(r, 1))
	ids := known(&s)
	if n := len(ids); n < most/2 || n > most || ids[0] != int64(10*most-n) {
		t.Errorf("%d producers from %d on", n, ids[0])
	}
	expectCount(t, b, &s)
}

// watched calls a function before each read.
type watched struct {
	r    *bytes.Reader
	look func()
}

func (w *watched) Read(p []byte) (int, error) {
	w.look()
	return w.r.Read(p)
}

// TestEntryBytes proves that producers take no more memory than a budget counts for them, in logs
// with few and with many, while they grow and after most of them were forgotten.
func TestEntryBytes(t *testing.T) {
	batches := make([]record.Batch, 20_000)
	for id := range batches {
		batches[id] = batch(t, int64(id), 0, 0, 1, record.Offset(id))
	}
	const undo = 160 // what a log keeps to undo its next batch
	for _, n := range []int{1, 2, 5, 9, 17, 65, 1000, 20_000} {
		for _, kept := range []int{n, n - n/3, n / 2, n / 50} {
			t.Run(fmt.Sprintf("%d/%d", kept, n), func(t *testing.T) {
				states := make([]producer.State, max(20_000/n, 1))
				before := liveBytes()
				for i := range states {
					s := &states[i]
					for id := range n {
						now := int64(0)
						if id >= n-kept {
							now = 1_000_000
						}
						s.Apply(batches[id], now)
						s.Confirm()
					}
					s.Expire(1_000_000, 500_000)
					if len(s.Describe()) != kept {
						t.Fatal(len(s.Describe()))
					}
				}
				took := liveBytes() - before - undo*int64(len(states))
				if most := int64(len(states)*kept)*producer.EntryBytes + 64<<10; took > most {
					t.Errorf("%d producers in each of %d logs take %d bytes each", kept, len(states), took/int64(len(states)*max(kept, 1)))
				} else {
					t.Logf("%d bytes each", took/int64(len(states)*max(kept, 1)))
				}
				runtime.KeepAlive(states)
			})
		}
	}
}

// liveBytes is how much memory is in use.
func liveBytes() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
