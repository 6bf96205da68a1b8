package place

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/meta"
)

// drawBrokers draws brokers in some racks, at least one of them active.
func drawBrokers(t *rapid.T) []Broker {
	n := rapid.IntRange(1, 9).Draw(t, "brokers")
	racks := rapid.IntRange(1, 4).Draw(t, "racks")
	list := make([]Broker, n)
	for i := range list {
		list[i] = Broker{
			ID: int32(i * 3), Rack: fmt.Sprint("r", rapid.IntRange(1, racks).Draw(t, "rack")),
			Active: rapid.IntRange(0, 4).Draw(t, "active") > 0,
		}
	}
	list[rapid.IntRange(0, n-1).Draw(t, "alive")].Active = true
	return list
}

func spreadOf(counts map[int32]int, ids []int32) int {
	least, most := counts[ids[0]], counts[ids[0]]
	for _, id := range ids {
		least, most = min(least, counts[id]), max(most, counts[id])
	}
	return most - least
}

// bestRacks is how many replicas the racks get when each new one goes to the rack that has
// fewest of those that still have a broker.
func bestRacks(brokers []Broker, factor int) []int {
	left, got := map[string]int{}, map[string]int{}
	for _, b := range brokers {
		left[b.Rack]++
		got[b.Rack] = 0
	}
	for range factor {
		best, found := "", false
		for r := range left {
			if left[r] > 0 && (!found || got[r] < got[best]) {
				best, found = r, true
			}
		}
		left[best]--
		got[best]++
	}
	var counts []int
	for _, n := range got {
		if n > 0 {
			counts = append(counts, n)
		}
	}
	slices.Sort(counts)
	return counts
}

// TestSpread proves that each partition gets different brokers, the first of which is active;
// that brokers which are not active are used only if the others are too few; that the
// leaders of the active brokers differ by one at most; that the replicas of a partition are
// in as many racks, and as evenly, as the brokers allow; that without racks the brokers'
// replicas differ by two at most; and that equal arguments give equal answers.
func TestSpread(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		brokers := drawBrokers(t)
		factor := rapid.IntRange(1, len(brokers)).Draw(t, "factor")
		count, start := rapid.IntRange(1, 60).Draw(t, "partitions"), rapid.IntRange(0, 100).Draw(t, "start")
		lists := Spread(brokers, nil, start, count, factor)
		if again := Spread(slices.Clone(brokers), Load{}, start, count, factor); fmt.Sprint(again) != fmt.Sprint(lists) {
			t.Fatalf("%v, and then %v", lists, again)
		}
		var active []Broker
		var activeIDs, ids []int32
		rackOf := map[int32]string{}
		for _, b := range brokers {
			ids = append(ids, b.ID)
			rackOf[b.ID] = b.Rack
			if b.Active {
				active, activeIDs = append(active, b), append(activeIDs, b.ID)
			}
		}
		leads, has := map[int32]int{}, map[int32]int{}
		for _, l := range lists {
			leads[l[0]]++
			sorted := slices.Sorted(slices.Values(l))
			if len(l) != factor || len(slices.Compact(sorted)) != factor {
				t.Fatalf("replicas %v instead of %d", l, factor)
			}
			serving, racks := 0, map[string]int{}
			for _, id := range l {
				has[id]++
				racks[rackOf[id]]++
				if slices.Contains(activeIDs, id) {
					serving++
				}
			}
			if serving != min(factor, len(active)) || !slices.Contains(activeIDs, l[0]) {
				t.Fatalf("replicas %v, active are %v", l, activeIDs)
			}
			if len(active) >= factor {
				var counts []int
				for _, n := range racks {
					counts = append(counts, n)
				}
				slices.Sort(counts)
				// The leader's rack is given, so a rack without a second broker may be the
				// one that would have been left out: only the number of racks is sure.
				if want := bestRacks(active, factor); len(counts) != len(want) {
					t.Fatalf("replicas %v are in racks %v, where %v are possible", l, counts, want)
				}
			}
		}
		if d := spreadOf(leads, activeIDs); d > 1 {
			t.Fatalf("leaders %v", leads)
		}
		oneRack := len(bestRacks(brokers, len(brokers))) == 1
		if oneRack && len(active) == len(brokers) && spreadOf(has, ids) > 2 {
			t.Fatalf("replicas %v", has)
		}
	})
}

// TestSpreadFillsUp proves that brokers which had fewer replicas before get more of them, so
// that in the end the brokers differ by two at most.
func TestSpreadFillsUp(t *testing.T) {
	brokers := []Broker{{ID: 0, Active: true}, {ID: 1, Active: true}, {ID: 2, Active: true}, {ID: 3, Active: true}}
	load := Load{0: 12, 1: 12, 2: 12}
	for _, l := range Spread(brokers, load, 0, 24, 2) {
		for _, id := range l {
			load[id]++
		}
	}
	for id, n := range load {
		if n < 19 || n > 23 {
			t.Errorf("broker %d has %d of 84 replicas", id, n)
		}
	}
}

// TestStartAfter proves that the partition that is added to a topic goes on where the circle
// was left, also if the racks take turns.
func TestStartAfter(t *testing.T) {
	brokers := []Broker{{0, "a", true}, {1, "a", true}, {2, "b", false}, {3, "b", true}}
	for id, want := range map[int32]int32{0: 1, 1: 3, 3: 0, 2: 1, 9: 0} {
		if got := Spread(brokers, nil, StartAfter(brokers, id), 1, 1)[0][0]; got != want {
			t.Errorf("after broker %d comes %d, want %d", id, got, want)
		}
	}
}

// TestReplaceMovesOne proves that a replica which leaves a broker goes to an active broker
// without one, in the rack that has fewest of them, and that no other replica moves.
func TestReplaceMovesOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		brokers := drawBrokers(t)
		factor := rapid.IntRange(1, len(brokers)).Draw(t, "factor")
		replicas := Spread(brokers, nil, rapid.IntRange(0, 9).Draw(t, "start"), 1, factor)[0]
		gone := rapid.SampledFrom(replicas).Draw(t, "gone")
		if rapid.Bool().Draw(t, "removed") {
			brokers = slices.DeleteFunc(brokers, func(b Broker) bool { return b.ID == gone })
		}
		list, ok := Replace(brokers, Load{}, replicas, gone)
		rest := slices.DeleteFunc(slices.Clone(replicas), func(id int32) bool { return id == gone })
		inRack, free := map[string]int{}, map[int32]string{}
		for _, b := range brokers {
			if slices.Contains(rest, b.ID) {
				inRack[b.Rack]++
			} else if b.Active && b.ID != gone {
				free[b.ID] = b.Rack
			}
		}
		if ok != (len(free) > 0) {
			t.Fatalf("%v without %d: %v, free are %v", replicas, gone, ok, free)
		}
		if !ok {
			return
		}
		for i, id := range replicas {
			if id != gone {
				if list[i] != id {
					t.Fatalf("%v becomes %v", replicas, list)
				}
				continue
			}
			rack, isFree := free[list[i]]
			if !isFree {
				t.Fatalf("broker %d is not free", list[i])
			}
			for _, other := range free {
				if inRack[other] < inRack[rack] {
					t.Fatalf("%v becomes %v, and rack %s has fewer", replicas, list, other)
				}
			}
		}
	})
}

// TestFactors proves how many replicas a partition gets and how many must be in sync.
func TestFactors(t *testing.T) {
	for nodes, want := range []int{1, 1, 2, 3, 3, 3} {
		if got := WantedFactor(nodes); got != want {
			t.Errorf("%d nodes: %d replicas, want %d", nodes, got, want)
		}
	}
	for factor, want := range []int{1, 1, 1, 2, 2, 3} {
		p := meta.Partition{Replicas: make([]int32, factor+1), Adding: make([]int32, 1)}
		if got := MinISR(&config.Settings{MinISR: 1}, &p); got != want {
			t.Errorf("%d replicas: %d in sync, want %d", factor, got, want)
		}
		if got := MinISR(&config.Settings{MinISR: 2, MinISRSet: true}, &p); got != max(1, min(2, factor)) {
			t.Errorf("%d replicas, 2 are set: %d in sync", factor, got)
		}
		wide := meta.Partition{Replicas: make([]int32, factor+2)}
		if got := TopicDefaultMinISR(&meta.Topic{Partitions: []meta.Partition{wide, p, wide}}); got != want {
			t.Errorf("a topic with at least %d replicas: %d in sync, want %d", factor, got, want)
		}
	}
	if got := TopicDefaultMinISR(&meta.Topic{}); got != 1 {
		t.Errorf("a topic without partitions: %d in sync", got)
	}
}

// TestBrokers proves that a leaving broker gets no replica.
func TestBrokers(t *testing.T) {
	var b []byte
	for id, state := range []meta.BrokerState{meta.BrokerFenced, meta.BrokerActive, meta.BrokerLeaving} {
		b = meta.Append(b, meta.BrokerRegistered{Broker: meta.Broker{ID: int32(id), Epoch: 1, State: state, Rack: "r"}})
	}
	topic := meta.UUID{1}
	b = meta.Append(b, meta.TopicCreated{ID: topic, Name: "t"})
	b = meta.Append(b, meta.PartitionsSet{Topic: topic, Partitions: []meta.Partition{{Replicas: []int32{0, 1}}, {Replicas: []int32{1}}}})
	m, _, err := meta.Apply(meta.Empty(), b)
	if err != nil {
		t.Fatal(err)
	}
	want := []Broker{{0, "r", false}, {1, "r", true}}
	if got := Brokers(m); !slices.Equal(got, want) || CountActive(got) != 1 {
		t.Errorf("%v", got)
	}
	if load := CountReplicas(m); load[0] != 1 || load[1] != 2 || len(load) != 2 {
		t.Errorf("%v", load)
	}
}

// TestPreferLeastLed proves that the preferred leader is the replica that has to lead least, and that nothing else moves.
func TestPreferLeastLed(t *testing.T) {
	for _, test := range []struct {
		replicas []int32
		leads    Load
		want     []int32
	}{
		{[]int32{1, 2, 3}, Load{1: 2, 2: 1, 3: 1}, []int32{2, 1, 3}},
		{[]int32{1, 2, 3}, Load{1: 2, 2: 1}, []int32{3, 1, 2}},
		{[]int32{3, 1}, Load{}, []int32{3, 1}},
		{[]int32{7}, Load{7: 9}, []int32{7}},
	} {
		if got := PreferLeastLed(test.replicas, test.leads); !slices.Equal(got, test.want) {
			t.Errorf("%v with %v: %v, want %v", test.replicas, test.leads, got, test.want)
		}
	}
}
