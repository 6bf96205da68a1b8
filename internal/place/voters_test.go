package place

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestVoters proves the rules one by one.
func TestVoters(t *testing.T) {
	in := func(racks ...string) []Node {
		var list []Node
		for i, r := range racks {
			list = append(list, Node{ID: int32(i), Rack: r, Healthy: true})
		}
		return list
	}
	with := func(nodes []Node, id int32, change func(*Node)) []Node {
		nodes = slices.Clone(nodes)
		change(&nodes[id])
		return nodes
	}
	ill := func(n *Node) { n.Healthy = false }
	away := func(n *Node) { n.Healthy, n.Away = false, true }
	three, four, five := in("", "", ""), in("", "", "", ""), in("", "", "", "", "")
	for _, c := range []struct {
		why    string
		nodes  []Node
		voters []int32
		most   int
		want   []int32
	}{
		{"alone", in(""), []int32{0}, 3, []int32{0}},
		{"two nodes are one voter", in("", ""), []int32{0}, 3, []int32{0}},
		{"three nodes", three, []int32{0}, 3, []int32{0, 1, 2}},
		{"not before both are healthy", with(three, 2, ill), []int32{0}, 3, []int32{0}},
		{"four nodes stay at three", four, []int32{0, 1, 2}, 5, []int32{0, 1, 2}},
		{"five nodes, and three are the most", five, []int32{0, 1, 2}, 3, []int32{0, 1, 2}},
		{"five nodes", five, []int32{0, 1, 2}, 5, []int32{0, 1, 2, 3, 4}},
		{"from one to five", five, []int32{0}, 5, []int32{0, 1, 2, 3, 4}},
		{"five, and one is ill", with(five, 4, ill), []int32{0}, 5, []int32{0, 1, 2}},
		{"silent for a short time", with(four, 1, ill), []int32{0, 1, 2}, 3, []int32{0, 1, 2}},
		{"away", with(four, 1, away), []int32{0, 1, 2}, 3, []int32{0, 2, 3}},
		{"away, and nobody replaces it", with(three, 1, away), []int32{0, 1, 2}, 3, []int32{0, 1, 2}},
		{"removed", slices.Delete(slices.Clone(four), 1, 2), []int32{0, 1, 2}, 3, []int32{0, 2, 3}},
		{"removed, and two are left", three[:2], []int32{0, 1, 2}, 3, []int32{0}},
		{"new voters in other racks", in("a", "a", "b", "c"), []int32{0}, 3, []int32{0, 2, 3}},
		{"a rack came later", in("a", "a", "a", "b"), []int32{0, 1, 2}, 3, []int32{0, 2, 3}},
		{"the leader stays", in("a", "b", "b", "c"), []int32{0, 1, 2}, 3, []int32{0, 2, 3}},
		{"five becomes three", five, []int32{0, 1, 2, 3, 4}, 3, []int32{0, 1, 2}},
	} {
		if got := Voters(c.nodes, c.voters, 0, c.most); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.why, got, c.want)
		}
	}
}

// TestVotersHold proves for all clusters that there are never two voters or any even number;
// that the leader stays; that no voter goes without another one in its place while the
// number stays; that a new voter is healthy; and that the changes come to an end.
func TestVotersHold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var nodes []Node
		for i := range rapid.IntRange(1, 8).Draw(t, "nodes") {
			n := Node{ID: int32(i), Rack: fmt.Sprint(rapid.IntRange(0, 3).Draw(t, "rack")), Healthy: rapid.IntRange(0, 3).Draw(t, "health") > 0}
			n.Away = !n.Healthy && rapid.Bool().Draw(t, "away")
			nodes = append(nodes, n)
		}
		nodes[0].Healthy, nodes[0].Away = true, false // it leads
		most := rapid.SampledFrom([]int{1, 3, 5}).Draw(t, "most")
		voters := []int32{0}
		for _, id := range rapid.Permutation([]int32{1, 2, 3, 4, 90, 91}).Draw(t, "others")[:2*rapid.IntRange(0, 2).Draw(t, "pairs")] {
			if int(id) < len(nodes) || id >= 90 { // those from 90 on were removed
				voters = append(voters, id)
			}
		}
		if len(voters)%2 == 0 {
			voters = voters[:len(voters)-1]
		}
		for range 10 {
			next := Voters(nodes, voters, 0, most)
			if len(next)%2 == 0 || len(next) > max(len(voters), WantedVoters(len(nodes), most)) || !slices.Contains(next, 0) {
				t.Fatalf("%v becomes %v", voters, next)
			}
			if len(next) < len(voters) && len(next) < WantedVoters(len(nodes), most) {
				t.Fatalf("%v is dropped to %v", voters, next)
			}
			for _, id := range next {
				if !slices.Contains(voters, id) && !nodes[id].Healthy {
					t.Fatalf("%v becomes %v, and %d is ill", voters, next, id)
				}
			}
			if slices.Equal(next, slices.Sorted(slices.Values(voters))) {
				return
			}
			voters = next
		}
		t.Fatalf("no end: %v", voters)
	})
}
