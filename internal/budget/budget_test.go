package budget_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/leatstream/leat/internal/budget"
)

const mebi = 1 << 20

// reserve reserves bytes that must be free.
func reserve(t *testing.T, b *budget.Budget, c budget.Class, n int64) budget.Reservation {
	t.Helper()
	r, ok := b.TryReserve(c, n)
	if !ok {
		t.Fatalf("%d bytes of %s are not free: %+v", n, c, b.Usage(c))
	}
	return r
}

// TestClassesAreSeparate proves that a full class leaves every other class all of its part.
func TestClassesAreSeparate(t *testing.T) {
	all := []budget.Class{budget.Peer, budget.Command, budget.Data, budget.Batch, budget.Codec}
	for _, flooded := range all {
		b := budget.New(budget.Config{Bytes: 64 * mebi})
		for ok := true; ok; {
			_, ok = b.TryReserve(flooded, 16<<10)
		}
		for _, c := range all {
			if c == flooded {
				continue
			}
			r := reserve(t, b, c, b.Most(c))
			r.Release()
		}
	}
	sum := int64(0)
	b := budget.New(budget.Config{Bytes: 64 * mebi})
	for _, c := range all {
		sum += b.Usage(c).Limit
	}
	if sum != 64*mebi {
		t.Errorf("the classes have %d bytes in all", sum)
	}
}

// TestTooLarge proves that work which can never fit is refused at once, and that the largest
// work that can fit is not.
func TestTooLarge(t *testing.T) {
	b := budget.New(budget.Config{Bytes: 64 * mebi})
	most := b.Most(budget.Data)
	if _, err := b.Reserve(t.Context(), budget.Data, most+1); !errors.Is(err, budget.ErrTooLarge) {
		t.Errorf("one byte too many: %v", err)
	}
	r, err := b.Reserve(t.Context(), budget.Data, most)
	if err != nil || r.Bytes() != most {
		t.Fatalf("%d bytes: %v", r.Bytes(), err)
	}
	r.Release()
	r.Release()
	if u := b.Usage(budget.Data); u.Used != 0 {
		t.Errorf("%+v after everything was released twice", u)
	}
}

// TestFirstComeFirstServed proves that waiting work is served in the order in which it came,
// even if a later piece would fit earlier.
func TestFirstComeFirstServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(budget.Config{Bytes: 128 * mebi})
		held := reserve(t, b, budget.Data, b.Most(budget.Data))
		order := make(chan int64, 4)
		for _, n := range []int64{8, 2, 6, 3} {
			go func() {
				r, err := b.Reserve(context.Background(), budget.Data, n*mebi)
				if err != nil {
					t.Error(err)
				}
				order <- n
				r.Release()
			}()
			synctest.Wait()
		}
		if u := b.Usage(budget.Data); u.Waiting != 4 {
			t.Fatalf("%+v, and four pieces should wait", u)
		}
		held.Shrink(b.Most(budget.Data) - 3*mebi) // the second one would fit, the first does not
		synctest.Wait()
		if u := b.Usage(budget.Data); u.Waiting != 4 {
			t.Fatalf("%+v: a later one overtook the first", u)
		}
		held.Shrink(4 * mebi)
		synctest.Wait()
		close(order)
		got := slices.Collect(func(yield func(int64) bool) {
			for n := range order {
				yield(n)
			}
		})
		if len(got) != 4 || got[0] != 8 {
			t.Errorf("served in the order %v", got)
		}
	})
}

// TestSmallAndLarge proves that large work cannot use the quarter of small work, and that a
// stream of small work does not keep large work waiting for ever.
func TestSmallAndLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(budget.Config{Bytes: 128 * mebi}) // data: 16 MiB, of which 4 for small work
		large := reserve(t, b, budget.Data, b.Most(budget.Data))
		var small []budget.Reservation
		for {
			r, ok := b.TryReserve(budget.Data, mebi/2)
			if !ok {
				break
			}
			small = append(small, r)
		}
		if len(small) != 8 {
			t.Errorf("%d pieces of half a MiB fit beside large work", len(small))
		}
		large.Release()
		for range 20 { // small work takes what large work does not need
			small = append(small, reserve(t, b, budget.Data, mebi/2))
		}
		served := make(chan budget.Reservation, 1)
		go func() {
			r, err := b.Reserve(context.Background(), budget.Data, 10*mebi)
			if err != nil {
				t.Error(err)
			}
			served <- r
		}()
		synctest.Wait()
		for range 100 { // one ends and one begins, as long as small work fits
			small[0].Release()
			small = small[1:]
			if r, ok := b.TryReserve(budget.Data, mebi/2); ok {
				small = append(small, r)
			}
			if len(small) == 0 {
				break
			}
		}
		synctest.Wait()
		select {
		case r := <-served:
			r.Release()
		default:
			t.Errorf("large work still waits: %+v", b.Usage(budget.Data))
		}
	})
}

// TestLongWorkCountsAsLarge proves that work which takes long waits with large work even if it
// needs little, and that short work does not wait for it.
func TestLongWorkCountsAsLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(budget.Config{Bytes: 128 * mebi}) // data: 16 MiB, of which 12 for large work
		for b.Usage(budget.Data).Waiting == 0 {
			go func() { _, _ = b.ReserveLarge(t.Context(), budget.Data, mebi/2) }()
			synctest.Wait()
		}
		if u := b.Usage(budget.Data); u.Used != 12*mebi {
			t.Errorf("%+v: long work does not use the part of large work", u)
		}
		if _, ok := b.TryReserveLarge(budget.Data, 1); ok {
			t.Error("long work took another part than large work's")
		}
		small := reserve(t, b, budget.Data, mebi/2)
		small.Release()
	})
}

// TestContextEndsTheWait proves that work whose client is gone leaves the queue, and that the
// work behind it is served.
func TestContextEndsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(budget.Config{Bytes: 64 * mebi})
		held := reserve(t, b, budget.Command, b.Most(budget.Command)-2*mebi)
		ctx, cancel := context.WithCancel(context.Background())
		ended, served := make(chan error, 1), make(chan budget.Reservation, 1)
		go func() {
			_, err := b.Reserve(ctx, budget.Command, 8*mebi)
			ended <- err
		}()
		synctest.Wait()
		go func() {
			r, _ := b.Reserve(context.Background(), budget.Command, 2*mebi)
			served <- r
		}()
		synctest.Wait()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the wait ended with %v", err)
		}
		r := <-served
		r.Release()
		held.Release()
		if u := b.Usage(budget.Command); u.Used != 0 || u.Waiting != 0 {
			t.Errorf("%+v at the end", u)
		}
	})
}

// TestNoDeadlock proves that any mixture of work that reserves classes in their order ends,
// that the limits are never passed, and that all memory is given back.
func TestNoDeadlock(t *testing.T) {
	const workers, rounds = 40, 200
	b := budget.New(budget.Config{Bytes: mebi, Processors: 2})
	var running atomic.Int32
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(w)))
			for range rounds {
				workOnce(t, b, rnd, &running)
			}
		})
	}
	wg.Wait()
	for c := budget.Peer; c <= budget.Parked; c++ {
		if u := b.Usage(c); u.Used != 0 || u.Waiting != 0 {
			t.Errorf("%s at the end: %+v", c, u)
		}
	}
}

// workOnce does one piece of work: it reserves some of the classes, in their order, then takes
// a processor. The clients of some are gone already.
func workOnce(t *testing.T, b *budget.Budget, rnd *rand.Rand, running *atomic.Int32) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if rnd.IntN(8) == 0 {
		cancel()
	}
	var held [budget.Unsent + 1]budget.Reservation
	defer func() {
		for i := range held {
			held[i].Release()
		}
	}()
	for c := budget.Peer; c <= budget.Parked; c++ {
		if rnd.IntN(2) == 0 {
			continue
		}
		var err error
		if held[c], err = b.Reserve(ctx, c, 1+rnd.Int64N(b.Most(c))); err != nil {
			return
		}
		if u := b.Usage(c); u.Used > u.Limit {
			t.Errorf("of %s: %+v", c, u)
		}
	}
	b.Enter(budget.Codec)
	defer b.Leave()
	for range rnd.IntN(4) {
		if n := running.Add(1); n > 2 {
			t.Errorf("%d run codecs", n)
		}
		running.Add(-1)
		b.Pass(budget.Codec)
	}
}

// TestTurns proves that codecs run only on the configured number of processors at a time, and
// that one which passes its processor on goes on after all that waited.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(budget.Config{Processors: 1})
		var order []string
		var wg sync.WaitGroup
		b.Enter(budget.Codec)
		for _, name := range []string{"first", "second"} {
			wg.Go(func() {
				b.Enter(budget.Codec)
				order = append(order, name)
				b.Leave()
			})
			synctest.Wait()
		}
		if len(order) > 0 {
			t.Fatalf("%v ran beside another one", order)
		}
		b.Pass(budget.Codec)
		order = append(order, "long")
		b.Leave()
		wg.Wait()
		if !slices.Equal(order, []string{"first", "second", "long"}) {
			t.Errorf("the turns were %v", order)
		}
		b.Enter(budget.Codec) // it is free again
		b.Pass(budget.Codec)
		b.Leave()
	})
}

// TestTurnsOfCommands proves that codecs and commands take turns, in whichever numbers they
// wait.
func TestTurnsOfCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(budget.Config{Processors: 1})
		var order []budget.Class
		var wg sync.WaitGroup
		b.Enter(budget.Command)
		for _, c := range []budget.Class{budget.Command, budget.Command, budget.Command, budget.Codec, budget.Codec} {
			wg.Go(func() {
				b.Enter(c)
				order = append(order, c)
				b.Leave()
			})
			synctest.Wait()
		}
		b.Leave()
		wg.Wait()
		if want := []budget.Class{budget.Command, budget.Codec, budget.Command, budget.Codec, budget.Command}; !slices.Equal(order, want) {
			t.Errorf("the turns were %v", order)
		}
	})
}

// TestDefaults proves that the default budget follows the available memory within its bounds,
// and has room for the window that every zstd decoder must accept.
func TestDefaults(t *testing.T) {
	for available, want := range map[int64]int64{64 * mebi: budget.MinBytes, 384 * mebi: 64 * mebi, 24 << 30: 96 * mebi} {
		if got := budget.DefaultBytes(available, 2); got != want {
			t.Errorf("%d of %d bytes", got, available)
		}
	}
	if two, many := budget.DefaultBytes(1<<40, 2), budget.DefaultBytes(1<<40, 64); many < 8*two {
		t.Errorf("%d bytes for 2 processors, %d for 64", two, many)
	}
	if most := budget.New(budget.Config{Bytes: budget.MinBytes}).Most(budget.Codec); most < 8*mebi+mebi/2 {
		t.Errorf("the least budget gives a codec %d bytes", most)
	}
}

// TestReserveIsCheap proves that a reservation which need not wait allocates nothing.
func TestReserveIsCheap(t *testing.T) {
	b := budget.New(budget.Config{})
	n := testing.AllocsPerRun(100, func() {
		r, err := b.Reserve(t.Context(), budget.Codec, 64<<10)
		if err != nil {
			t.Fatal(err)
		}
		b.Enter(budget.Codec)
		b.Pass(budget.Codec)
		b.Leave()
		r.Release()
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkReserve(bm *testing.B) {
	b := budget.New(budget.Config{})
	bm.ReportAllocs()
	bm.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r, _ := b.Reserve(context.Background(), budget.Codec, 64<<10)
			b.Enter(budget.Codec)
			b.Leave()
			r.Release()
		}
	})
}
