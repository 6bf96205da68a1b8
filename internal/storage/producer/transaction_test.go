package producer_test

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/producer"
	"github.com/leatstream/leat/internal/storage/transaction"
)

// transactional is n records of a producer's transaction.
func transactional(tb testing.TB, id int64, epoch int16, seq int32, n int, base record.Offset) record.Batch {
	tb.Helper()
	bu := record.Builder{Transactional: true}
	bu.SetProducer(id, epoch, seq)
	for i := range n {
		bu.Append(1000+int64(base)+int64(i), nil, nil)
	}
	b, err := bu.Build()
	must(tb, err)
	b.SetBaseOffset(base)
	return b
}

// marker ends a producer's transaction.
func marker(tb testing.TB, id int64, epoch int16, coordinator int32, commit bool, base record.Offset) record.Batch {
	tb.Helper()
	b, err := record.BuildMarker(1000, id, epoch, record.Marker{Commit: commit, CoordinatorEpoch: coordinator})
	must(tb, err)
	b.SetBaseOffset(base)
	return b
}

// TestTransactionRules proves Kafka's rules for transactional batches and markers, batch by batch,
// also where the state goes through a snapshot after each.
func TestTransactionRules(t *testing.T) {
	type step struct {
		epoch       int16
		seq         int32
		kind        byte // t: transactional, d: not, c: commit, a: abort
		coordinator int32
		claim       producer.Claim
		dup         bool
		err         error
	}
	verified, v2 := producer.Claim{Verified: true}, producer.Claim{Verified: true, Version: 2}
	in := func(epoch int16, seq int32) step { return step{epoch, seq, 't', 0, verified, false, nil} }
	next := func(epoch int16, seq int32) step { return step{epoch, seq, 't', 0, producer.Claim{}, false, nil} }
	again := func(epoch int16, seq int32) step { return step{epoch, seq, 't', 0, producer.Claim{}, true, nil} }
	in2 := func(epoch int16, seq int32) step { return step{epoch, seq, 't', 0, v2, false, nil} }
	commit := func(epoch int16, coordinator int32) step {
		return step{epoch, record.NoSequence, 'c', coordinator, producer.Claim{}, false, nil}
	}
	abort2 := func(epoch int16) step { return step{epoch, record.NoSequence, 'a', 0, v2, false, nil} }
	but := func(st step, err error) step { st.err = err; return st }
	plain := func(epoch int16, seq int32) step { return step{epoch, seq, 'd', 0, producer.Claim{}, false, nil} }
	state, order, fenced, zombie := producer.ErrTransactionState, producer.ErrOutOfOrderSequence, producer.ErrFenced, producer.ErrCoordinatorFenced
	for name, steps := range map[string][]step{
		"one transaction":                     {in(0, 0), next(0, 1), next(0, 2), commit(0, 1)},
		"nobody asked the coordinator":        {but(next(0, 0), state), in(0, 0), commit(0, 1), but(next(0, 1), state), in(0, 1)},
		"a retry needs no transaction":        {in(0, 0), commit(0, 1), again(0, 0)},
		"a retry of an older epoch":           {in2(0, 0), abort2(1), but(again(0, 0), fenced)},
		"not in its open transaction":         {in(0, 0), but(plain(0, 1), state), next(0, 1), commit(0, 1), plain(0, 2)},
		"not in one of an older epoch either": {in(0, 0), but(plain(1, 0), state)},
		"a newer epoch in an open one":        {in(0, 0), but(next(1, 0), state), in(1, 0), next(1, 1)},
		"an older coordinator":                {in(0, 0), commit(0, 5), in(0, 1), but(commit(0, 4), zombie), commit(0, 5), commit(0, 6)},
		"a marker again":                      {in(0, 0), commit(0, 1), commit(0, 1), in(0, 1), commit(0, 1)},
		"a marker of an older epoch":          {in(3, 0), but(commit(2, 9), fenced)},
		"a marker of nobody":                  {commit(3, 2), but(in(2, 0), fenced), but(in(3, 1), order), in(3, 0), but(commit(3, 1), zombie)},
		"version 2":                           {in2(0, 0), in2(0, 1), abort2(1), but(in2(0, 2), fenced), but(in2(1, 2), order), in2(1, 0), abort2(2)},
		"version 2, of its own epoch":         {in2(4, 0), but(abort2(4), fenced), but(abort2(3), fenced), abort2(5)},
		"version 2, a marker again":           {in2(0, 0), abort2(1), abort2(1), in2(1, 0), but(abort2(1), fenced), abort2(2)},
		"version 2, the last epoch":           {in2(math.MaxInt16, 0), abort2(math.MaxInt16), abort2(math.MaxInt16)},
		"version 2, unknown, not at 0":        {but(in2(0, 7), order), in2(0, 0)},
		"unknown, not at 0":                   {in(0, 7), next(0, 8)},
		"a group coordinator's records":       {in(0, record.NoSequence), next(0, record.NoSequence), commit(0, 1), but(next(0, record.NoSequence), state), in(0, record.NoSequence)},
		"a group coordinator's, fenced":       {in2(0, record.NoSequence), abort2(1), but(in2(0, record.NoSequence), fenced)},
	} {
		t.Run(name, func(t *testing.T) {
			for _, restart := range []bool{false, true} {
				var s producer.State
				for i, st := range steps {
					base := record.Offset(10 * i)
					var b record.Batch
					switch st.kind {
					case 't':
						b = transactional(t, 7, st.epoch, st.seq, 1, base)
					case 'd':
						b = batch(t, 7, st.epoch, st.seq, 1, base)
					default:
						b = marker(t, 7, st.epoch, st.coordinator, st.kind == 'c', base)
					}
					if _, dup, err := s.Check(b, st.claim); !errors.Is(err, st.err) || dup != (st.dup && st.err == nil) {
						t.Fatalf("step %d: duplicate %v, %v", i, dup, err)
					} else if err == nil && !dup {
						s.Apply(b, 1)
						s.Confirm()
					}
					if restart {
						must(t, s.Decode(bytes.NewReader(s.Encode()), 1))
					}
				}
			}
		})
	}
}

// TestChanges proves that a State tells of the same changes as who knows all batches, also after some
// were reverted, through snapshots, and that it counts the open transactions.
func TestChanges(t *testing.T) {
	for seed := range uint64(60) {
		rng := seeded(seed)
		budget := producer.NewBudget(1 << 20)
		s := producer.New(budget)
		var log []record.Batch // those that are confirmed
		next := record.Offset(0)
		for range 80 {
			var run []record.Batch
			at := next
			for range 1 + rng.IntN(4) {
				var b record.Batch
				switch id := rng.Int64N(9); rng.IntN(6) {
				case 0:
					b = batch(t, id, 0, 0, 1+rng.IntN(3), at)
				case 1, 2:
					b = marker(t, id, int16(rng.IntN(3)), int32(rng.IntN(3)), rng.IntN(2) == 0, at)
				default:
					b = transactional(t, id, int16(rng.IntN(3)), 0, 1+rng.IntN(3), at)
				}
				run, at = append(run, b), b.NextOffset()
			}
			var tr transaction.Tracker
			for _, b := range log {
				tr.Apply(b)
			}
			for i, b := range run {
				if got, want := s.Apply(b, 1), tr.Apply(b); got.Kind != want.Kind || want.Kind != transaction.Unchanged && got != want {
					t.Fatalf("seed %d: batch %d: %+v, want %+v", seed, i, got, want)
				}
			}
			if rng.IntN(3) == 0 {
				s.Revert()
			} else {
				s.Confirm()
				log, next = append(log, run...), at
			}
			if rng.IntN(5) == 0 {
				must(t, s.Decode(bytes.NewReader(s.Encode()), 1))
			}
			var v transaction.View
			var all transaction.Tracker
			for _, b := range log {
				v.Apply(all.Apply(b))
			}
			open := s.Open()
			slices.SortFunc(open, func(a, b transaction.Open) int { return int(a.First - b.First) })
			if !slices.Equal(open, v.Open()) || budget.Usage().Open != int64(len(open)) {
				t.Fatalf("seed %d: open are %v, counted %d, want %v", seed, open, budget.Usage().Open, v.Open())
			}
		}
		s.Release()
		if u := budget.Usage(); u.Open != 0 || u.Producers != 0 {
			t.Errorf("seed %d: %+v is left", seed, u)
		}
	}
}

// TestOpenStay proves that a producer with an open transaction is neither evicted nor expires, however
// many others come, and that no other transaction begins when the open ones fill the budget.
func TestOpenStay(t *testing.T) {
	const most = 10
	b := producer.NewBudget(most * producer.EntryBytes)
	s := producer.New(b)
	verified := producer.Claim{Verified: true}
	for id := range int64(most) {
		first := transactional(t, id, 0, 0, 1, record.Offset(id))
		if _, _, err := s.Check(first, verified); err != nil {
			t.Fatalf("transaction %d: %v", id, err)
		}
		s.Apply(first, 1)
		s.Confirm()
	}
	if _, _, err := s.Check(transactional(t, most, 0, 0, 1, 10), verified); !errors.Is(err, producer.ErrManyOpen) {
		t.Errorf("one more: %v", err)
	}
	if _, _, err := s.Check(transactional(t, 3, 0, 1, 1, 10), verified); err != nil {
		t.Errorf("one that is open goes on: %v", err)
	}
	for i := range int64(500) {
		s.Apply(batch(t, 1000+i, 0, 0, 1, record.Offset(100+i)), 1)
		s.Evict()
	}
	must(t, s.Decode(bytes.NewReader(s.Encode()), 1))
	for i := range int64(500) {
		s.Apply(batch(t, 2000+i, 0, 0, 1, record.Offset(1000+i)), 1)
		s.Evict()
	}
	if n := s.Len(); n < most+2 || n > 2*most {
		t.Errorf("beside %d producers with an open transaction there are %d", most, n-most)
	}
	s.Expire(math.MaxInt64, 1)
	if got := len(s.Open()); got != most || s.Len() != most {
		t.Errorf("%d of %d producers have an open transaction", got, s.Len())
	}
	s.Apply(marker(t, 0, 0, 1, true, 5000), 1)
	s.Confirm()
	if _, _, err := s.Check(transactional(t, most, 0, 0, 1, 5001), verified); err != nil {
		t.Errorf("one more when another has ended: %v", err)
	}
	for _, d := range s.Describe() {
		if isOpen := d.ID != 0; isOpen != (d.TransactionStart >= 0) || d.ID == 0 && d.CoordinatorEpoch != 1 || s.HasOpen(d.ID, 0) != isOpen {
			t.Errorf("it is described as %+v", d)
		}
	}
}

// TestAdopt proves that a State takes over what another one knows, and keeps what that does not.
func TestAdopt(t *testing.T) {
	b := producer.NewBudget(1 << 20)
	s, other := producer.New(b), producer.New(b)
	s.Apply(batch(t, 1, 0, 5, 1, 0), 1)
	s.Apply(transactional(t, 2, 0, 0, 1, 1), 1)
	s.Apply(transactional(t, 3, 0, 0, 1, 2), 1)
	s.Confirm()
	other.Apply(transactional(t, 2, 0, 0, 1, 1), 1)
	other.Apply(marker(t, 2, 0, 4, true, 3), 1)
	other.Apply(transactional(t, 4, 0, 0, 1, 4), 1)
	other.Confirm()
	s.CutAt(3)
	if len(s.Open()) != 0 {
		t.Errorf("after a cut %v are open", s.Open())
	}
	s.Adopt(&other)
	if got := s.Open(); !slices.Equal(got, []transaction.Open{{Producer: 4, First: 4}}) || s.Len() != 4 {
		t.Errorf("of %d producers %v are open", s.Len(), got)
	}
	other.Release()
	s.Release()
	if u := b.Usage(); u.Open != 0 || u.Producers != 0 {
		t.Errorf("%+v is left", u)
	}
}
