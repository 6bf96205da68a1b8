// Package place decides where the replicas and the leaders of partitions, and the voters
// of the metadata quorum, should be, and how many of them there should be. It is pure:
// equal arguments give equal answers, and all functions may be called concurrently.
//
// Brokers stand in a circle in which the racks take turns. Leaders go round in it. Each
// further replica goes to the broker that is best by these rules, the first of which
// weighs most:
//
//  1. it is active
//  2. few replicas of the partition are in its rack
//  3. it has few replicas so far
//  4. it comes soon after the leader in the circle
package place

import (
	"cmp"
	"maps"
	"slices"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/meta"
)

// Broker is a broker that may get replicas.
type Broker struct {
	ID     int32
	Rack   string // brokers without a rack are in one rack
	Active bool   // it serves; one that is not active gets replicas only if the active ones are too few
}

// Load is how many replicas brokers have. A broker that is not in it has none.
type Load map[int32]int

// Brokers are the brokers that may get replicas, by id: all but those that are leaving.
func Brokers(m *meta.Image) []Broker {
	list := make([]Broker, 0, len(m.Brokers))
	for _, id := range slices.Sorted(maps.Keys(m.Brokers)) {
		if b := m.Brokers[id]; b.State != meta.BrokerLeaving {
			list = append(list, Broker{ID: id, Rack: b.Rack, Active: b.State == meta.BrokerActive})
		}
	}
	return list
}

// CountReplicas is the Load of all partitions.
func CountReplicas(m *meta.Image) Load {
	load := Load{}
	for t := range m.Topics() {
		load.AddTopic(t)
	}
	return load
}

// CountPreferred counts for each broker the partitions of which it is the preferred leader.
func CountPreferred(m *meta.Image) Load {
	load := Load{}
	for t := range m.Topics() {
		for i := range t.Partitions {
			load[t.Partitions[i].Replicas[0]]++
		}
	}
	return load
}

// PreferLeastLed returns the replicas with the one first that is the preferred leader of the fewest partitions. Of
// several the first one is chosen, and the others stay in their order.
func PreferLeastLed(replicas []int32, leads Load) []int32 {
	best := slices.MinFunc(replicas, func(a, b int32) int { return cmp.Compare(leads[a], leads[b]) })
	rest := slices.DeleteFunc(slices.Clone(replicas), func(id int32) bool { return id == best })
	return append([]int32{best}, rest...)
}

// AddTopic counts a topic's replicas.
func (l Load) AddTopic(t *meta.Topic) {
	for i := range t.Partitions {
		for _, id := range t.Partitions[i].Replicas {
			l[id]++
		}
	}
}

// CountActive counts the active brokers.
func CountActive(brokers []Broker) int {
	n := 0
	for _, b := range brokers {
		if b.Active {
			n++
		}
	}
	return n
}

// Spread chooses brokers for count partitions. The first one of each list is the preferred
// leader, and active. start is the place of the first leader in the circle. There must be an
// active broker, and at least factor brokers. load is what the brokers have before; it does
// not change.
func Spread(brokers []Broker, load Load, start, count, factor int) [][]int32 {
	circle := newCircle(brokers)
	leaders := slices.DeleteFunc(slices.Clone(circle), func(b Broker) bool { return !b.Active })
	replicas := make([]int, len(circle)) // of each broker in the circle
	for i, b := range circle {
		replicas[i] = load[b.ID]
	}
	lists := make([][]int32, count)
	for i := range lists {
		leader := leaders[(start+i)%len(leaders)].ID
		at := slices.IndexFunc(circle, func(b Broker) bool { return b.ID == leader })
		chosen := choose(circle, replicas, at, factor)
		lists[i] = make([]int32, 0, factor)
		for _, c := range chosen {
			replicas[c]++
			lists[i] = append(lists[i], circle[c].ID)
		}
	}
	return lists
}

// choose returns the places in the circle of a partition's brokers; the leader's is given.
func choose(circle []Broker, replicas []int, leader, factor int) []int {
	n := len(circle)
	chosen := append(make([]int, 0, factor), leader)
	inRack := map[string]int{circle[leader].Rack: 1}
	for len(chosen) < factor {
		best := -1
		for step := 1; step < n; step++ {
			at := (leader + step) % n
			if slices.Contains(chosen, at) {
				continue
			}
			if best < 0 || isBetter(&circle[at], &circle[best], inRack, replicas[at], replicas[best]) {
				best = at
			}
		}
		chosen = append(chosen, best)
		inRack[circle[best].Rack]++
	}
	return chosen
}

// isBetter tells whether broker a is a better place for one more replica than b, which has n
// replicas more or less: see the package's documentation.
func isBetter(a, b *Broker, inRack map[string]int, replicasA, replicasB int) bool {
	if a.Active != b.Active {
		return a.Active
	}
	return cmp.Or(cmp.Compare(inRack[a.Rack], inRack[b.Rack]), cmp.Compare(replicasA, replicasB)) < 0
}

// newCircle puts brokers in an order in which the racks take turns.
func newCircle(brokers []Broker) []Broker {
	byRack := map[string][]Broker{}
	for _, b := range brokers {
		byRack[b.Rack] = append(byRack[b.Rack], b)
	}
	racks := slices.Sorted(maps.Keys(byRack))
	circle := make([]Broker, 0, len(brokers))
	for turn := 0; len(circle) < len(brokers); turn++ {
		for _, r := range racks {
			if turn < len(byRack[r]) {
				circle = append(circle, byRack[r][turn])
			}
		}
	}
	return circle
}

// StartAfter is the start with which Spread begins at the first active broker after the
// given one. It is 0 if that is not there.
func StartAfter(brokers []Broker, id int32) int {
	at := 0
	for _, b := range newCircle(brokers) {
		if b.Active {
			at++
		}
		if b.ID == id {
			return at
		}
	}
	return 0
}

// Another chooses an active broker for one more replica of a partition. ok is false if each
// active broker has one.
func Another(brokers []Broker, load Load, replicas []int32) (id int32, ok bool) {
	inRack := map[string]int{}
	for _, b := range brokers {
		if slices.Contains(replicas, b.ID) {
			inRack[b.Rack]++
		}
	}
	var best *Broker
	for i := range brokers {
		b := &brokers[i]
		if !b.Active || slices.Contains(replicas, b.ID) {
			continue
		}
		if best == nil || isBetter(b, best, inRack, load[b.ID], load[best.ID]) {
			best = b
		}
	}
	if best == nil {
		return 0, false
	}
	return best.ID, true
}

// Replace chooses an active broker in the place of one that a partition is to leave, and
// returns the replicas with it; all others stay. ok is false if each active broker has a
// replica.
func Replace(brokers []Broker, load Load, replicas []int32, gone int32) (list []int32, ok bool) {
	rest := slices.DeleteFunc(slices.Clone(brokers), func(b Broker) bool { return b.ID == gone })
	id, ok := Another(rest, load, replicas)
	if !ok {
		return nil, false
	}
	list = slices.Clone(replicas)
	list[slices.Index(list, gone)] = id
	return list, true
}

// Factor is the number of replicas of a partition, without those that a reassignment adds.
func Factor(p *meta.Partition) int { return len(p.Replicas) - len(p.Adding) }

// WantedFactor is how many replicas a partition gets for which no number was chosen, in a
// cluster of so many nodes.
func WantedFactor(nodes int) int { return max(1, min(3, nodes)) }

// DefaultMinISR is min.insync.replicas, where it is not set, of a partition with so many
// replicas: 1, 1, 2, 2, 3 for 1 to 5 of them.
func DefaultMinISR(factor int) int { return max(1, (factor+1)/2) }

// TopicDefaultMinISR is min.insync.replicas, where it is not set, of those partitions of a topic
// that have the fewest replicas, without those that a reassignment adds.
func TopicDefaultMinISR(t *meta.Topic) int {
	if len(t.Partitions) == 0 {
		return DefaultMinISR(0)
	}
	least := Factor(&t.Partitions[0])
	for i := range t.Partitions {
		least = min(least, Factor(&t.Partitions[i]))
	}
	return DefaultMinISR(least)
}

// MinISR is how many replicas of a partition must be in sync so that records with acks=all
// are accepted and committed. Replicas that are being added do not raise it.
func MinISR(s *config.Settings, p *meta.Partition) int {
	factor := Factor(p)
	if !s.MinISRSet {
		return DefaultMinISR(factor)
	}
	return max(1, min(s.MinISR, factor))
}
