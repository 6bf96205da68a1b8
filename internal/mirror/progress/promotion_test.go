package progress

import (
	"slices"
	"testing"
	"time"
)

// The partitions of the tests of promotions.
var (
	orders = Partition{"orders", 0}
	bills  = Partition{"bills", 3}
)

const producer = 7

// resolveOne decides by evidence and holdings of one node, and returns the resolution of a partition; ok is false if there is none.
func resolveOne(e *Evidence, at Partition, holdings ...Holding) (r Resolution, ok bool) {
	all := Resolve(nil, Examine(e, holdings))
	i := slices.IndexFunc(all, func(r Resolution) bool { return r.Partition == at })
	if i < 0 {
		return Resolution{}, false
	}
	return all[i], true
}

// holding is a mirror with one open transaction of epoch 4, whose first record was here at time 3.
func holding(at Partition, asOf time.Duration) Holding {
	return Holding{Partition: at, AsOf: asOf, Open: []Open{{Producer: producer, Epoch: 4, First: 100, MirroredBy: 3}}}
}

// TestCommitAnsweredBeforeItsMarkers proves that a transaction whose commit was answered, though no marker had gone out before the source was lost, is committed by the coordinator's log; that it is not
// committed where records may be missing; and that without that log it is aborted and listed.
func TestCommitAnsweredBeforeItsMarkers(t *testing.T) {
	decided := Decision{Producer: producer, MarkerEpoch: 5, OwnEpoch: true, Commit: true, Partitions: []Partition{orders, bills}, Seen: 10, Completed: Never}
	for name, c := range map[string]struct {
		evidence Evidence
		asOf     [2]time.Duration // of orders and bills
		commit   bool
		outcome  Outcome
	}{
		"both have all":                         {Evidence{AsOf: 12, Decisions: []Decision{decided}}, [2]time.Duration{11, 12}, true, CommitWhole},
		"asked when the decision was not known": {Evidence{AsOf: 12, Decisions: []Decision{decided}}, [2]time.Duration{10, 12}, false, AbortLacking},
		"another partition may lack some":       {Evidence{AsOf: 12, Decisions: []Decision{decided}}, [2]time.Duration{11, 9}, false, AbortLacking},
		"nothing is known of a partition":       {Evidence{AsOf: 12, Decisions: []Decision{decided}}, [2]time.Duration{11, Never}, false, AbortLacking},
		"the log may not be read":               {Evidence{AsOf: Never}, [2]time.Duration{11, 12}, false, AbortUndecided},
	} {
		r, ok := resolveOne(&c.evidence, orders, holding(orders, c.asOf[0]), holding(bills, c.asOf[1]))
		if !ok || r.Commit != c.commit || r.Outcome != c.outcome || r.First != 100 || r.MarkerEpoch != 5 {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// TestEpochUsedAgain proves that nothing of one transaction is taken for another one with the same epoch, as older clients have them.
func TestEpochUsedAgain(t *testing.T) {
	decided := Decision{Producer: producer, MarkerEpoch: 4, Commit: true, Partitions: []Partition{orders}, Seen: 10, Completed: Never}
	completed, later := decided, decided
	completed.Completed = 11
	later.Commit, later.Partitions = false, []Partition{bills}
	aborted := decided
	aborted.Commit, aborted.MarkerEpoch = false, 5 // by a fence
	marker := []Committed{{producer, 4, 2}}
	for name, c := range map[string]struct {
		evidence Evidence
		asOf     time.Duration
		commit   bool
		outcome  Outcome
	}{
		"a marker of the same epoch in another partition":   {Evidence{AsOf: Never, Markers: marker}, 12, false, AbortUndecided},
		"the decision is of these records":                  {Evidence{AsOf: 12, Decisions: []Decision{decided}}, 12, true, CommitWhole},
		"a later one is of another partition":               {Evidence{AsOf: 12, Decisions: []Decision{decided, later}}, 12, true, CommitWhole},
		"its markers are here, so these are of a later one": {Evidence{AsOf: 12, Decisions: []Decision{completed}}, 12, false, AbortUndecided},
		"a later one goes on here":                          {Evidence{AsOf: 12, Decisions: []Decision{decided}, Ongoing: []Ongoing{{producer, 4, []Partition{orders}}}}, 12, false, AbortUndecided},
		"a later one goes on elsewhere":                     {Evidence{AsOf: 12, Decisions: []Decision{decided}, Ongoing: []Ongoing{{producer, 4, []Partition{bills}}}}, 12, true, CommitWhole},
		"the records came after the log was read":           {Evidence{AsOf: 3, Decisions: []Decision{decided}}, 12, false, AbortUndecided},
		"records may be missing":                            {Evidence{AsOf: 12, Decisions: []Decision{decided}}, 10, false, AbortLacking},
		"it is aborted by a fence":                          {Evidence{AsOf: 12, Decisions: []Decision{aborted}}, 12, false, AbortWhole},
		"the fence may be of the one after it":              {Evidence{AsOf: 12, Decisions: []Decision{aborted}}, 10, false, AbortUndecided},
	} {
		r, ok := resolveOne(&c.evidence, orders, holding(orders, c.asOf))
		if !ok || r.Commit != c.commit || r.Outcome != c.outcome || r.Commit && r.MarkerEpoch != 4 || !r.Commit && r.MarkerEpoch != 5 {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// TestClocksThatDiffer proves that what a node finds does not depend on its clock, and that the claims of nodes whose clocks differ can be put together.
func TestClocksThatDiffer(t *testing.T) {
	claims := func(skew time.Duration, h Holding) []Claim {
		h.AsOf += skew
		h.Open[0].MirroredBy += skew
		return Examine(&Evidence{AsOf: 12 + skew, Decisions: []Decision{
			{Producer: producer, MarkerEpoch: 4, Commit: true, Partitions: []Partition{orders, bills}, Seen: 10 + skew, Completed: Never},
		}}, []Holding{h})
	}
	for _, skew := range []time.Duration{0, -40 * time.Hour, 40 * time.Hour} {
		all := Resolve(nil, slices.Concat(claims(0, holding(orders, 12)), claims(skew, holding(bills, 11))))
		if len(all) != 2 || !all[0].Commit || !all[1].Commit {
			t.Errorf("clocks %v apart: %+v", skew, all)
		}
		all = Resolve(nil, slices.Concat(claims(0, holding(orders, 12)), claims(skew, holding(bills, 9))))
		if len(all) != 2 || all[0].Commit || all[1].Commit || all[0].Outcome != AbortLacking {
			t.Errorf("clocks %v apart, and one lacks records: %+v", skew, all)
		}
	}
}

// TestMarkerOfAnEpochOfItsOwn proves that a marker in one partition proves the commit of another one's records only if the transaction had an epoch of its own.
func TestMarkerOfAnEpochOfItsOwn(t *testing.T) {
	done := Holding{Partition: bills, AsOf: 12, Committed: []Committed{{producer, 5, 10}}}
	none := Evidence{AsOf: Never}
	if r, ok := resolveOne(&none, orders, holding(orders, 11), done); !ok || !r.Commit || r.Outcome != CommitByMarker || r.MarkerEpoch != 5 {
		t.Errorf("the marker was here before all was read: %+v", r)
	}
	if r, ok := resolveOne(&none, orders, holding(orders, 10), done); !ok || r.Commit || r.Outcome != Torn {
		t.Errorf("the marker came later: %+v", r)
	}
	done.Committed[0].MarkerEpoch = 6
	if r, ok := resolveOne(&none, orders, holding(orders, 11), done); !ok || r.Commit || r.Outcome != AbortUndecided {
		t.Errorf("the marker of the next transaction: %+v", r)
	}
}

// TestTornTransactionsAreListed proves that a transaction which readers have seen as committed is committed where all of it is, and listed wherever it is torn.
func TestTornTransactionsAreListed(t *testing.T) {
	e := Evidence{AsOf: 12, Decisions: []Decision{{Producer: producer, MarkerEpoch: 5, OwnEpoch: true, Commit: true, Partitions: []Partition{orders, bills, {"bills", 4}, {"bills", 5}}, Seen: 10, Completed: Never}}}
	holdings := []Holding{
		holding(orders, 12),
		{Partition: bills, AsOf: 12, Committed: []Committed{{producer, 5, 11}}},
		holding(Partition{"bills", 4}, 9),
		{Partition: Partition{"bills", 5}, AsOf: 9}, // has nothing of it yet
	}
	got := map[Partition]Resolution{}
	for _, r := range Resolve(nil, Examine(&e, holdings)) {
		got[r.Partition] = r
	}
	for p, want := range map[Partition]Resolution{
		orders:       {orders, producer, 4, 5, 100, true, Torn},
		{"bills", 4}: {Partition{"bills", 4}, producer, 4, 5, 100, false, Torn},
		{"bills", 5}: {Partition{"bills", 5}, producer, 4, 5, -1, false, Torn},
	} {
		if got[p] != want {
			t.Errorf("%v: %+v, want %+v", p, got[p], want)
		}
	}
}

// TestNothingIsDecidedTwice proves that decisions which were made stay, whatever is known later, and that other partitions follow them.
func TestNothingIsDecidedTwice(t *testing.T) {
	e := Evidence{AsOf: 12, Decisions: []Decision{{Producer: producer, MarkerEpoch: 5, OwnEpoch: true, Commit: true, Partitions: []Partition{orders, bills}, Seen: 10, Completed: Never}}}
	claims := Examine(&e, []Holding{holding(orders, 12), holding(bills, 12)})
	for _, made := range []Resolution{
		{orders, producer, 4, 5, 100, false, AbortUndecided},
		{orders, producer, 4, 5, 100, true, CommitWhole},
	} {
		all := Resolve([]Resolution{made}, claims)
		if len(all) != 2 || all[0] != made || all[1].Commit != made.Commit || all[1].Partition != bills {
			t.Errorf("%+v: %+v", made, all)
		}
		if again := Resolve(all, claims); !slices.Equal(again, all) {
			t.Errorf("%+v: again %+v, and %+v before", made, again, all)
		}
	}
}
