package producer_test

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/producer"
)

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func seeded(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 31)) }

// batch is n records of a producer, beginning with an offset; without a sequence it is a marker.
func batch(tb testing.TB, id int64, epoch int16, seq int32, n int, base record.Offset) record.Batch {
	tb.Helper()
	var bu record.Builder
	bu.Control = seq == record.NoSequence
	bu.SetProducer(id, epoch, seq)
	for i := range n {
		bu.Append(1000+int64(base)+int64(i), nil, nil)
	}
	b, err := bu.Build()
	must(tb, err)
	b.SetBaseOffset(base)
	return b
}

// view is the visible part of a state: the bytes of its snapshot, and the descriptions in
// the order of ids.
type view struct {
	Snapshot     []byte
	Descriptions []producer.Description
}

func viewOf(s *producer.State) view {
	d := s.Describe()
	slices.SortFunc(d, func(a, b producer.Description) int { return int(a.ID - b.ID) })
	return view{s.Encode(), d}
}

// TestRules proves Kafka's rules for sequence numbers, batch by batch.
func TestRules(t *testing.T) {
	type step struct {
		epoch int16
		seq   int32
		n     int
		dup   int // the step that it repeats; -1: none
		err   error
	}
	in := func(epoch int16, seq int32, n int) step { return step{epoch, seq, n, -1, nil} }
	again := func(epoch int16, seq int32, n, of int) step { return step{epoch, seq, n, of, nil} }
	bad := func(epoch int16, seq int32, err error) step { return step{epoch, seq, 1, -1, err} }
	marker := func(epoch int16) step { return step{epoch, record.NoSequence, 1, -1, nil} }
	order, fenced := producer.ErrOutOfOrderSequence, producer.ErrFenced
	for name, steps := range map[string][]step{
		"in order":                 {in(0, 0, 2), in(0, 2, 1), in(0, 3, 7), in(0, 10, 1)},
		"an unknown producer":      {in(0, 17, 1), in(0, 18, 1)},
		"a gap":                    {in(0, 0, 1), bad(0, 2, order), in(0, 1, 1)},
		"a retry":                  {in(0, 0, 2), in(0, 2, 1), again(0, 0, 2, 0), again(0, 2, 1, 1)},
		"not quite a retry":        {in(0, 0, 2), in(0, 2, 2), bad(0, 0, order), bad(0, 1, order), bad(0, 3, order)},
		"five batches are known":   {in(0, 0, 1), in(0, 1, 1), in(0, 2, 1), in(0, 3, 1), in(0, 4, 1), again(0, 0, 1, 0)},
		"the sixth is not":         {in(0, 0, 1), in(0, 1, 1), in(0, 2, 1), in(0, 3, 1), in(0, 4, 1), in(0, 5, 1), bad(0, 0, order), again(0, 1, 1, 1)},
		"an older epoch":           {in(3, 0, 1), bad(2, 1, fenced), bad(2, 0, fenced), in(3, 1, 1)},
		"a newer epoch":            {in(0, 5, 1), in(1, 0, 1), in(1, 1, 1), bad(0, 6, fenced)},
		"a newer epoch, not at 0":  {in(0, 5, 1), bad(1, 6, order), in(0, 6, 1)},
		"no retry over epochs":     {in(0, 0, 1), in(1, 0, 1), again(1, 0, 1, 1), bad(0, 0, fenced)},
		"sequences start over":     {in(0, math.MaxInt32-1, 2), in(0, 0, 1), again(0, math.MaxInt32-1, 2, 0), again(0, 0, 1, 1)},
		"a batch over the end":     {in(0, math.MaxInt32-1, 4), in(0, 2, 1), again(0, math.MaxInt32-1, 4, 0)},
		"a gap over the end":       {in(0, math.MaxInt32, 1), bad(0, 1, order), in(0, 0, 1)},
		"a marker of its epoch":    {in(0, 0, 1), marker(0), in(0, 1, 1), again(0, 0, 1, 0)},
		"a marker of a new epoch":  {in(0, 0, 3), marker(1), bad(0, 3, fenced), bad(1, 3, order), in(1, 0, 1)},
		"a marker comes first":     {marker(2), bad(1, 0, fenced), bad(2, 7, order), in(2, 0, 1), in(2, 1, 1)},
		"a marker of an old epoch": {in(2, 0, 1), bad(1, record.NoSequence, fenced), in(2, 1, 1)},
	} {
		t.Run(name, func(t *testing.T) {
			for _, restart := range []bool{false, true} {
				var s producer.State
				bases := make([]record.Offset, len(steps))
				for i, st := range steps {
					bases[i] = record.Offset(10 * i)
					b := batch(t, 7, st.epoch, st.seq, st.n, bases[i])
					earlier, dup, err := s.Check(b, producer.Claim{})
					if !errors.Is(err, st.err) || dup != (st.dup >= 0) || dup && earlier.Base != bases[st.dup] {
						t.Fatalf("step %d: batch at %d, %v, %v", i, earlier.Base, dup, err)
					}
					if err == nil && !dup {
						s.Apply(b, 1)
						s.Confirm()
					}
					if restart { // at any time, through a snapshot
						must(t, s.Decode(bytes.NewReader(s.Encode()), 1))
					}
				}
			}
		})
	}
}

// TestRevert proves that a state is as before after batches of any kind were reverted, and
// that confirmed batches stay.
func TestRevert(t *testing.T) {
	for seed := range uint64(40) {
		rng := seeded(seed)
		var s producer.State
		settled := viewOf(&s)
		for step := range 60 {
			for range rng.IntN(8) {
				s.Apply(randomBatch(t, rng), rng.Int64N(1000))
				if !s.Changed() {
					t.Fatalf("seed %d, step %d: nothing changed", seed, step)
				}
			}
			switch rng.IntN(3) {
			case 0:
				s.Confirm()
				settled = viewOf(&s)
				s.SetChanged(false)
			case 1:
				s.Revert()
				if d := cmp.Diff(settled, viewOf(&s)); d != "" {
					t.Fatalf("seed %d, step %d: %s", seed, step, d)
				}
				s.Revert() // nothing more
				if d := cmp.Diff(settled, viewOf(&s)); d != "" {
					t.Fatalf("seed %d, step %d, twice: %s", seed, step, d)
				}
			default:
				s.Expire(rng.Int64N(100_000), 1+rng.Int64N(100_000))
				settled = viewOf(&s)
			}
		}
	}
}

func randomBatch(tb testing.TB, rng *rand.Rand) record.Batch {
	tb.Helper()
	seq := int32(rng.IntN(100))
	switch rng.IntN(5) {
	case 0:
		seq = record.NoSequence
	case 1:
		seq = math.MaxInt32 - int32(rng.IntN(5))
	}
	return batch(tb, rng.Int64N(12), int16(rng.IntN(3)), seq, 1+rng.IntN(6), record.Offset(rng.IntN(1000)))
}

// TestSnapshot proves that a state which is decoded from a snapshot describes each producer
// in the same way, and accepts and refuses the same batches.
func TestSnapshot(t *testing.T) {
	for seed := range uint64(40) {
		rng := seeded(seed)
		var s, again producer.State
		for range rng.IntN(60) {
			s.Apply(randomBatch(t, rng), 77)
		}
		s.Confirm()
		must(t, again.Decode(bytes.NewReader(s.Encode()), 77))
		if d := cmp.Diff(viewOf(&s), viewOf(&again)); d != "" || again.Changed() {
			t.Fatalf("seed %d: changed: %v, %s", seed, again.Changed(), d)
		}
		for range 100 {
			b := randomBatch(t, rng)
			e1, dup1, err1 := s.Check(b, producer.Claim{})
			e2, dup2, err2 := again.Check(b, producer.Claim{})
			if dup1 != dup2 || e1.Base != e2.Base || e1.Time != e2.Time || (err1 == nil) != (err2 == nil) {
				t.Fatalf("seed %d: %v, %v and %v, %v", seed, dup1, err1, dup2, err2)
			}
		}
	}
}

// TestSnapshotDamaged proves that a snapshot with any flipped bit or of any other length is
// refused, and that the state has no producers then.
func TestSnapshotDamaged(t *testing.T) {
	var good producer.State
	for i := range int64(3) {
		good.Apply(batch(t, i, 1, 5, 2, 100), 1)
	}
	b := good.Encode()
	refuse := func(what string, n int, bad []byte) {
		t.Helper()
		s := good
		if err := s.Decode(bytes.NewReader(bad), 1); !errors.Is(err, producer.ErrSnapshot) || len(s.Describe()) != 0 {
			t.Errorf("%s %d: %v, %d producers", what, n, err, len(s.Describe()))
		}
	}
	for bit := range len(b) * 8 {
		bad := slices.Clone(b)
		bad[bit/8] ^= 1 << (bit % 8)
		refuse("bit", bit, bad)
	}
	for n := range b {
		refuse("length", n, b[:n])
	}
	refuse("longer by", 1, append(slices.Clone(b), 0))
}

// TestExpire proves that producers expire when they have appended nothing for the time, also
// when the clock is set, and that an expired producer may begin with any sequence.
func TestExpire(t *testing.T) {
	const day = 86_400_000
	var s producer.State
	now := int64(100 * day)
	expect := func(what string, ids ...int64) {
		t.Helper()
		var got []int64
		for _, d := range s.Describe() {
			got = append(got, d.ID)
		}
		slices.Sort(got)
		if !slices.Equal(got, ids) {
			t.Errorf("%s: %v are known, not %v", what, got, ids)
		}
	}
	s.Apply(batch(t, 1, 0, 0, 1, 0), now)
	s.Apply(batch(t, 2, 0, 0, 1, 1), now+day/2)
	s.Confirm()
	s.SetChanged(false)
	s.Expire(now+day-1, day)
	expect("just before", 1, 2)
	s.Expire(now+day+1, 0)
	expect("for ever", 1, 2)
	if s.Changed() {
		t.Error("nothing changed")
	}
	s.Expire(now+day+60_000, day)
	expect("a day after", 2)
	if !s.Changed() {
		t.Error("the snapshot still has who expired")
	}
	if _, dup, err := s.Check(batch(t, 1, 0, 99, 1, 2), producer.Claim{}); dup || err != nil {
		t.Errorf("who expired comes with a sequence of its own: %v, %v", dup, err)
	}
	if _, _, err := s.Check(batch(t, 2, 0, 99, 1, 2), producer.Claim{}); !errors.Is(err, producer.ErrOutOfOrderSequence) {
		t.Errorf("who did not expire does so, too: %v", err)
	}

	back := now - 50*day // the clock is set back
	s.Expire(back, day)
	expect("set back", 2)
	s.Expire(back+60_000, day) // counts from here on: it is looked at once a minute
	s.Expire(back+day, day)
	expect("set back, not a day ago", 2)
	s.Expire(back+day+120_000, day)
	expect("set back, a day ago")

	s.Apply(batch(t, 3, 0, 0, 1, 3), back)
	s.Expire(now+1000*day, day) // and forward
	expect("set forward")
}

// TestManyProducers proves that a state of very many producers keeps the sequence of each,
// after half of them have expired and after a snapshot.
func TestManyProducers(t *testing.T) {
	const n, hour = 4_000, 3_600_000
	var s producer.State
	for id := range int64(n) {
		s.Apply(batch(t, id, int16(id%5), int32(id), 1, record.Offset(id)), hour*(id%2))
		s.Confirm()
	}
	s.Expire(2*hour, 3*hour/2)
	again := producer.State{}
	must(t, again.Decode(bytes.NewReader(s.Encode()), 2*hour))
	for _, st := range []*producer.State{&s, &again} {
		if got := len(st.Describe()); got != n/2 {
			t.Fatalf("%d are known", got)
		}
		for id := range int64(n) {
			earlier, dup, err := st.Check(batch(t, id, int16(id%5), int32(id), 1, 0), producer.Claim{})
			if err != nil || dup != (id%2 == 1) || dup && earlier.Base != record.Offset(id) {
				t.Fatalf("producer %d: %+v, %v, %v", id, earlier, dup, err)
			}
		}
	}
}

// TestCutAt proves that a state forgets what lies behind a place, and nothing else.
func TestCutAt(t *testing.T) {
	s := producer.New(producer.NewBudget(1 << 20))
	want := producer.New(nil)
	for _, b := range []record.Batch{
		batch(t, 1, 0, 0, 1, 0), batch(t, 2, 0, 0, 2, 1), batch(t, 2, 0, 2, 3, 3), batch(t, 3, 4, record.NoSequence, 1, 6),
	} {
		s.Apply(b, 1)
		want.Apply(b, 1)
	}
	s.Apply(batch(t, 2, 0, 5, 2, 7), 1)
	s.Apply(batch(t, 4, 0, 0, 1, 9), 1)
	s.Confirm()
	s.SetChanged(false)
	s.CutAt(8) // within a batch
	if !s.Changed() || !bytes.Equal(s.Encode(), want.Encode()) {
		t.Errorf("changed %v: (-want +got)\n%s", s.Changed(), cmp.Diff(viewOf(&want), viewOf(&s)))
	}
	s.SetChanged(false)
	s.CutAt(8)
	if s.Changed() || s.Len() != 3 {
		t.Errorf("cut again: changed %v, %d producers", s.Changed(), s.Len())
	}
}
