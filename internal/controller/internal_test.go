package controller

import (
	"slices"
	"testing"
)

// TestOffsetsTopicFollowsTheCluster proves that the topic of committed offsets has as many replicas as
// there are nodes, up to three, and that the number rises as nodes join, with that of the replicas that
// must be in sync; and that a number which was chosen stays.
func TestOffsetsTopicFollowsTheCluster(t *testing.T) {
	for _, c := range []struct {
		set  map[string]string
		want [][2]int // replicas, and those that must be in sync, with 1, 2, 3 and 4 nodes
	}{
		{nil, [][2]int{{1, 1}, {2, 1}, {3, 2}, {3, 2}}},
		{map[string]string{"offsets.topic.replication.factor": "1"}, [][2]int{{1, 1}, {1, 1}, {1, 1}, {1, 1}}},
	} {
		cl := newCluster(t, c.set)
		ctl := cl.controller()
		if err := ctl.Bootstrap(t.Context(), "MkU3OEVBNTcwNTJENDM2Qk"); err != nil {
			t.Fatal(err)
		}
		for i, want := range c.want {
			join(t, ctl, int32(i+1))
			if err := ctl.EnsureTopic(t.Context(), "__consumer_offsets"); err != nil {
				t.Fatal(err)
			}
			if err := ctl.Maintain(t.Context(), 0, Upkeep{Moves: 1000}); err != nil {
				t.Fatal(err)
			}
			takeIn(t, cl, ctl)
			m := cl.Image()
			topic := m.Topic("__consumer_offsets")
			r := Rules{Image: m, Static: cl.static}
			for n := range topic.Partitions {
				p := &topic.Partitions[n]
				if got := [2]int{len(p.Replicas), r.minISR(topic, p)}; got != want || len(p.Adding) > 0 {
					t.Fatalf("%v, %d nodes, partition %d: %v, adding %v, want %v", c.set, i+1, n, got, p.Adding, want)
				}
			}
		}
	}
}

// takeIn has the leaders take the replicas that are being added into their in-sync sets.
func takeIn(t *testing.T, cl *cluster, ctl *Controller) {
	t.Helper()
	m := cl.Image()
	topic := m.Topic("__consumer_offsets")
	for n := range topic.Partitions {
		p := &topic.Partitions[n]
		if len(p.Adding) == 0 {
			continue
		}
		a := InSyncChange{Topic: topic.ID, Partition: int32(n), LeaderEpoch: p.LeaderEpoch, PartitionEpoch: p.PartitionEpoch}
		for _, id := range slices.Sorted(slices.Values(p.Replicas)) {
			a.ISR = append(a.ISR, Member{ID: id, Epoch: m.Brokers[id].Epoch})
		}
		results, refused, err := ctl.AlterPartitions(t.Context(), p.Leader, m.Brokers[p.Leader].Epoch, []InSyncChange{a})
		if err != nil || refused != nil || results[0].Err != nil {
			t.Fatal(err, refused, results)
		}
	}
}

// TestEnsuredTopicsAreMadeInParts proves that topics of which only the names are known are made as many at a
// time as one request of a client could make, so that others have their turn between them, and one entry of
// the metadata log has room for them.
func TestEnsuredTopicsAreMadeInParts(t *testing.T) {
	cl := newCluster(t, map[string]string{"num.partitions": "4000"})
	ctl := cl.controller()
	join(t, ctl, 1)
	before := cl.log
	refused, err := ctl.EnsureTopics(t.Context(), []string{"a", "b", "c", "d", "e"})
	if err != nil || len(refused) > 0 || cl.Image().NumTopics() != 5 {
		t.Fatal(refused, err)
	}
	if n := cl.log - before; n != 3 {
		t.Errorf("20000 partitions are made in %d proposals", n)
	}
}
