package cli

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/leatstream/leat/internal/admin"
	"github.com/leatstream/leat/internal/place"
)

// TestDrainPlan proves what a drain does next with a partition, by who has its replicas, who is in sync, who leads, and what is under way.
func TestDrainPlan(t *testing.T) {
	ids := func(list ...int32) []int32 { return list }
	active := func(list ...int32) (all []place.Broker) {
		for _, id := range list {
			all = append(all, place.Broker{ID: id, Active: true})
		}
		return all
	}
	type under = kadm.ListPartitionReassignmentsResponse
	for name, c := range map[string]struct {
		others        []place.Broker
		isDown        bool
		replicas, isr []int32
		leader        int32
		under         *under
		want          string // "move to", "order", "elect", "wait", "keep", "alone", "stuck" or ""
	}{
		"it has no replica":                           {active(1, 2), false, ids(1, 2), ids(1, 2), 1, nil, ""},
		"another node takes its place":                {active(1, 2, 4), false, ids(1, 3), ids(1, 3), 1, nil, "move to 1,2"},
		"and its place as the preferred leader":       {active(1, 2), false, ids(3, 1), ids(3, 1), 3, nil, "move to 2,1"},
		"the only replica moves":                      {active(1), false, ids(3), ids(3), 3, nil, "move to 1"},
		"all others have one":                         {active(1, 2), false, ids(1, 2, 3), ids(1, 2, 3), 1, nil, "keep"},
		"all others have one, and it leads":           {active(1, 2), false, ids(1, 2, 3), ids(1, 2, 3), 3, nil, "keep elect"},
		"all others have one, and it is preferred":    {active(1, 2), false, ids(3, 1, 2), ids(3, 1, 2), 1, nil, "move to 1,2,3 keep"},
		"only one other is in sync":                   {active(1, 2), false, ids(3, 1, 2), ids(3, 2), 3, nil, "move to 2,1,3 keep"},
		"the preferred leader is not in sync":         {active(1, 2), false, ids(1, 2, 3), ids(3, 2), 3, nil, "move to 2,1,3 keep"},
		"no other is in sync":                         {active(1, 2), false, ids(3, 1, 2), ids(3), 3, nil, "keep alone"},
		"no other is in sync, and none leads":         {active(1, 2), false, ids(3, 1, 2), ids(3), -1, nil, "keep alone"},
		"the only replica, and no node has room":      {[]place.Broker{{ID: 2}}, false, ids(3), ids(3), 3, nil, "keep alone"},
		"a node without room gets none":               {[]place.Broker{{ID: 1, Active: true}, {ID: 2}}, false, ids(1, 3), ids(1, 3), 1, nil, "keep"},
		"it is on the way":                            {active(1, 2), false, ids(1, 3, 2), ids(1, 3), 1, &under{AddingReplicas: ids(2), RemovingReplicas: ids(3)}, "wait"},
		"it is on the way to a node that has died":    {active(1, 4), false, ids(1, 3, 2), ids(1, 3), 1, &under{AddingReplicas: ids(2), RemovingReplicas: ids(3)}, "move to 1,4"},
		"somebody else moves another replica":         {active(1, 2, 4), false, ids(1, 3, 2), ids(1, 3), 1, &under{AddingReplicas: ids(2), RemovingReplicas: ids(1)}, "wait"},
		"it does not serve, and another has it all":   {active(1, 2), true, ids(3, 1), ids(1), 1, nil, "move to 2,1"},
		"it does not serve, and nobody has it all":    {active(1, 2), true, ids(3, 1), ids(3), -1, nil, "stuck"},
		"it does not serve, and has the only replica": {active(1, 2), true, ids(3), ids(3), -1, nil, "stuck"},
	} {
		v := &drainView{others: c.others, load: place.Load{}, serves: !c.isDown, under: kadm.ListPartitionReassignmentsResponses{}}
		v.partitions = []kadm.PartitionDetail{{Topic: "t", Partition: 5, Leader: c.leader, Replicas: c.replicas, ISR: c.isr}}
		if c.under != nil {
			v.under["t"] = map[int32]under{5: *c.under}
		}
		plan := (&drain{node: 3, atOnce: 1}).plan(v)
		var got []string
		for _, m := range plan.moves {
			got = append(got, "move to "+formatIDs(m.To))
		}
		for what, is := range map[string]bool{"keep": len(plan.kept) > 0, "elect": len(plan.elect) > 0, "wait": plan.moving > 0, "stuck": len(plan.stuck) > 0, "alone": len(plan.alone) > 0} {
			if is {
				got = append(got, what)
			}
		}
		want := strings.Fields(strings.ReplaceAll(c.want, "move to ", "move_to_"))
		for i := range want {
			want[i] = strings.ReplaceAll(want[i], "move_to_", "move to ")
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// TestDrainIsBounded proves that no more partitions are on their way than may be, and that the moves are spread over the nodes.
func TestDrainIsBounded(t *testing.T) {
	v := &drainView{others: []place.Broker{{ID: 1, Active: true}, {ID: 2, Active: true}}, load: place.Load{}, serves: true, under: kadm.ListPartitionReassignmentsResponses{"t": {}}}
	for n := range int32(10) {
		v.partitions = append(v.partitions, kadm.PartitionDetail{Topic: "t", Partition: n, Leader: 3, Replicas: []int32{3}, ISR: []int32{3}})
	}
	v.under["t"][0] = kadm.ListPartitionReassignmentsResponse{Topic: "t", AddingReplicas: []int32{1}, RemovingReplicas: []int32{3}}
	plan := (&drain{node: 3, atOnce: 5}).plan(v)
	to := map[int32]int{}
	for _, m := range plan.moves {
		to[m.To[0]]++
	}
	if got := fmt.Sprint(plan.moving, len(plan.moves), len(plan.everyMove), plan.left(), to); got != "1 4 9 10 map[1:2 2:2]" {
		t.Error(got)
	}
}

// TestOnlyVoterIsNotDrained proves that a drain knows the node without which the cluster ends: whoever is told that it is drained stops it.
func TestOnlyVoterIsNotDrained(t *testing.T) {
	for _, c := range []struct {
		first, second, apart string // the roles of brokers 1 and 2, and of node 3, which only keeps metadata
		want                 bool
	}{
		{"leader", "observer", "", true},
		{"voter", "", "", true},
		{"leader", "voter", "", false},
		{"observer", "leader", "", false},
		{"leader", "observer", "voter", false},
		{"", "", "", false}, // the cluster does not tell
	} {
		cluster := &admin.Cluster{Brokers: []admin.Node{{ID: 1, Role: c.first}, {ID: 2, Role: c.second}}}
		if c.apart != "" {
			cluster.Others = []admin.Node{{ID: 3, Role: c.apart}}
		}
		if got := isOnlyVoter(cluster, 1); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}
