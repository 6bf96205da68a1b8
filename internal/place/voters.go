package place

import (
	"cmp"
	"slices"
)

// Node is a registered node that may be a voter of the metadata quorum.
type Node struct {
	ID      int32
	Rack    string
	Healthy bool // it is heard from and follows the metadata log
	Away    bool // it has been silent for longer than a voter may be
}

// WantedVoters is how many voters a cluster of so many nodes has: 1, from three nodes on 3,
// and from five on 5 if that many are allowed. It is never an even number: that would make
// the quorum larger and survive no more failures.
func WantedVoters(nodes, most int) int {
	switch {
	case nodes < 3 || most < 3:
		return 1
	case nodes < 5 || most < 5:
		return 3
	}
	return 5
}

// Voters are the voters that a cluster should have, by id. voters are the present ones, and
// leader is the one that leads them, which stays.
//
// A voter that is away, or no longer registered, is replaced as soon as there is a healthy
// node, and never just dropped: the others would have to agree without a spare. Voters are
// added in pairs, when both are healthy. If there is nothing else to change, one voter at a
// time moves to another rack so that the voters are in as many racks as possible.
func Voters(nodes []Node, voters []int32, leader int32, most int) []int32 {
	b := ballot{nodes: nodes, leader: leader, voters: slices.Sorted(slices.Values(voters))}
	want := WantedVoters(len(nodes), most)
	if len(b.voters) > want {
		b.shrink(want)
	}
	b.replaceAway()
	b.grow(want)
	if slices.Equal(b.voters, slices.Sorted(slices.Values(voters))) {
		b.spread()
	}
	slices.Sort(b.voters)
	return b.voters
}

// ballot is a set of voters under construction.
type ballot struct {
	nodes  []Node
	leader int32
	voters []int32
}

func (b *ballot) node(id int32) *Node {
	i := slices.IndexFunc(b.nodes, func(n Node) bool { return n.ID == id })
	if i < 0 {
		return nil
	}
	return &b.nodes[i]
}

// isAway tells whether a voter is to be replaced.
func (b *ballot) isAway(id int32) bool {
	n := b.node(id)
	return id != b.leader && (n == nil || n.Away)
}

// shrink keeps so many voters: the leader, then those that are there and healthy.
func (b *ballot) shrink(want int) {
	rank := func(id int32) int {
		switch n := b.node(id); {
		case id == b.leader:
			return 0
		case n == nil:
			return 4
		case n.Away:
			return 3
		case !n.Healthy:
			return 2
		}
		return 1
	}
	slices.SortStableFunc(b.voters, func(x, y int32) int { return cmp.Compare(rank(x), rank(y)) })
	b.voters = b.voters[:want]
}

func (b *ballot) replaceAway() {
	for i, id := range b.voters {
		if !b.isAway(id) {
			continue
		}
		rest := slices.Delete(slices.Clone(b.voters), i, i+1)
		if other, ok := b.candidate(rest); ok {
			b.voters[i] = other
		}
	}
}

// grow adds voters, two at a time.
func (b *ballot) grow(want int) {
	for len(b.voters) < want {
		next := slices.Clone(b.voters)
		for len(next) < len(b.voters)+1+len(b.voters)%2 {
			id, ok := b.candidate(next)
			if !ok {
				return
			}
			next = append(next, id)
		}
		b.voters = next
	}
}

// candidate is the best healthy node beside these voters: in a rack with few of them, then
// the one with the lowest id.
func (b *ballot) candidate(voters []int32) (id int32, ok bool) {
	inRack := b.countByRack(voters)
	var best *Node
	for i := range b.nodes {
		n := &b.nodes[i]
		if !n.Healthy || n.Away || slices.Contains(voters, n.ID) || slices.Contains(b.voters, n.ID) {
			continue
		}
		if best == nil || cmp.Or(cmp.Compare(inRack[n.Rack], inRack[best.Rack]), cmp.Compare(n.ID, best.ID)) < 0 {
			best = n
		}
	}
	if best == nil {
		return 0, false
	}
	return best.ID, true
}

func (b *ballot) countByRack(voters []int32) map[string]int {
	inRack := map[string]int{}
	for _, id := range voters {
		if n := b.node(id); n != nil {
			inRack[n.Rack]++
		}
	}
	return inRack
}

// spread moves one voter to a rack that has none, from one that has several.
func (b *ballot) spread() {
	inRack := b.countByRack(b.voters)
	for i, id := range b.voters {
		n := b.node(id)
		if id == b.leader || n == nil || inRack[n.Rack] < 2 {
			continue
		}
		rest := slices.Delete(slices.Clone(b.voters), i, i+1)
		if other, ok := b.candidate(rest); ok && inRack[b.node(other).Rack] == 0 {
			b.voters[i] = other
			return
		}
	}
}
