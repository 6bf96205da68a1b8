package broker

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/group"
	"github.com/leatstream/leat/internal/meta"
)

// brokerOn is a registration of an active node on a listener.
func brokerOn(id int32, listener string) meta.BrokerRegistered {
	return meta.BrokerRegistered{Broker: meta.Broker{
		ID: id, Epoch: int64(id), State: meta.BrokerActive, Listeners: []meta.Listener{{Name: listener, Host: fmt.Sprint("host-", id), Port: id}},
	}}
}

// TestOtherListenersAreNotShown proves that clients are sent to brokers only that have a listener of the
// name by which they ask, and are told that a leader has none.
func TestOtherListenersAreNotShown(t *testing.T) {
	g := newAdminRig(t, nil)
	g.apply(brokerOn(2, ""), brokerOn(3, "INTERNAL"))
	g.place("t",
		meta.Partition{Replicas: []int32{1, 2, 3}, ISR: []int32{1, 2, 3}, Leader: 1},
		meta.Partition{Replicas: []int32{3, 2}, ISR: []int32{3, 2}, Leader: 3})
	c := dial(t, g.addr)
	name := "t"
	for version, want := range map[int16]string{
		0:  "9 1 [1 2] [1 2] []; 5 -1 [2] [2] []",
		5:  "0 1 [1 2 3] [1 2 3] [3]; 5 -1 [3 2] [3 2] [3]",
		6:  "0 1 [1 2 3] [1 2 3] [3]; 72 -1 [3 2] [3 2] [3]",
		12: "0 1 [1 2 3] [1 2 3] [3]; 72 -1 [3 2] [3 2] [3]",
	} {
		for _, topics := range [][]kmsg.MetadataRequestTopic{{{Topic: &name}}, nil} {
			req := at(version, kmsg.NewPtrMetadataRequest())
			if req.Topics = topics; topics == nil && version == 0 {
				req.Topics = []kmsg.MetadataRequestTopic{}
			}
			resp := ask[*kmsg.MetadataResponse](c, req)
			if len(resp.Brokers) != 2 || resp.Brokers[1].Host != "host-2" {
				t.Errorf("v%d: brokers %+v", version, resp.Brokers)
			}
			got := ""
			for i, p := range resp.Topics[0].Partitions {
				if i > 0 {
					got += "; "
				}
				got += fmt.Sprint(p.ErrorCode, p.Leader, p.Replicas, p.ISR, p.OfflineReplicas)
			}
			if got != want {
				t.Errorf("v%d: %s, want %s", version, got, want)
			}
		}
	}
	described := kmsg.NewPtrDescribeTopicPartitionsRequest()
	described.ResponsePartitionLimit = 10
	parts := ask[*kmsg.DescribeTopicPartitionsResponse](c, described).Topics[0].Partitions
	if parts[1].LeaderID != -1 || !slices.Equal(parts[1].OfflineReplicas, []int32{3}) {
		t.Errorf("%+v", parts)
	}
	cluster := at(2, kmsg.NewPtrDescribeClusterRequest())
	cluster.IncludeFencedBrokers = true
	if n := len(ask[*kmsg.DescribeClusterResponse](c, cluster).Brokers); n != 2 {
		t.Errorf("%d brokers", n)
	}
}

// TestAllTopicsByListener proves that clients who ask for all topics by different listeners do not share
// an encoding.
func TestAllTopicsByListener(t *testing.T) {
	g := newAdminRig(t, nil)
	g.apply(brokerOn(2, "INTERNAL"))
	for i := range shortAnswer + 1 {
		g.place(fmt.Sprint("t", i), meta.Partition{Replicas: []int32{2}, ISR: []int32{2}, Leader: 2})
	}
	m := g.image.Load()
	for listener, leader := range map[string]int32{"INTERNAL": 2, "": -1} {
		e, err := g.broker.all.shareTopics(t.Context(), m, topicsForm{version: 12, listener: listener})
		if err != nil {
			t.Fatal(err)
		}
		resp := kmsg.NewPtrMetadataResponse()
		resp.SetVersion(12)
		whole := resp.AppendTo(nil)
		body := appendLen(whole[:len(whole)-e.tail-1], true, m.NumTopics())
		body = append(append(body, e.body...), make([]byte, e.tail)...)
		e.Release()
		if err := resp.ReadFrom(body); err != nil || resp.Topics[0].Partitions[0].Leader != leader {
			t.Errorf("by %q: %v, %+v", listener, err, resp.Topics[0])
		}
	}
	g.broker.all.dropUnused(nil)
}

// TestControllerThatClientsSee proves that clients are told the active controller's node, and, while it is
// not known or not for them, another one that serves them.
func TestControllerThatClientsSee(t *testing.T) {
	g := newAdminRig(t, nil)
	c := dial(t, g.addr)
	for _, step := range []struct {
		leader, want int32
		recs         []meta.Record
	}{
		{1, 1, nil},
		{2, 1, nil},
		{-1, 1, nil},
		{2, 2, []meta.Record{brokerOn(2, "")}},
		{2, 1, []meta.Record{meta.BrokerChanged{ID: 2, Epoch: 2, State: meta.BrokerFenced}}},
	} {
		if len(step.recs) > 0 {
			g.apply(step.recs...)
		}
		g.broker.cfg.Cluster = &reached{leader: step.leader}
		shown := ask[*kmsg.MetadataResponse](c, metadataOf(12, false)).ControllerID
		described := ask[*kmsg.DescribeClusterResponse](c, at(2, kmsg.NewPtrDescribeClusterRequest())).ControllerID
		if shown != step.want || described != step.want {
			t.Errorf("node %d leads: clients are told %d and %d", step.leader, shown, described)
		}
	}
}

// TestCoordinatorIsTheLeader proves that a client is sent to the node that leads the partition of its
// group, as long as that serves it.
func TestCoordinatorIsTheLeader(t *testing.T) {
	g := newGroupRig(t)
	g.apply(brokerOn(2, ""), brokerOn(3, "INTERNAL"), brokerOn(4, ""))
	g.apply(meta.BrokerChanged{ID: 4, Epoch: 4, State: meta.BrokerFenced})
	leaders := []int32{1, 2, 3, 4, -1}
	var parts []meta.Partition
	for _, id := range leaders {
		parts = append(parts, meta.Partition{Replicas: []int32{max(id, 1)}, ISR: []int32{max(id, 1)}, Leader: id})
	}
	id := meta.NewUUID()
	g.apply(meta.TopicCreated{ID: id, Name: group.Topic}, meta.PartitionsSet{Topic: id, Partitions: parts})
	req := at(4, kmsg.NewPtrFindCoordinatorRequest())
	want := map[string]int32{}
	for i := range 50 {
		key := fmt.Sprint("group-", i)
		req.CoordinatorKeys = append(req.CoordinatorKeys, key)
		if want[key] = leaders[coord.PartitionOf(key, int32(len(leaders)))]; want[key] > 2 {
			want[key] = -1
		}
	}
	got := map[string]int32{}
	for _, f := range ask[*kmsg.FindCoordinatorResponse](dial(t, g.addr), req).Coordinators {
		if got[f.Key] = f.NodeID; (f.NodeID < 0) != (f.ErrorCode == 15) || f.NodeID == 2 && f.Host != "host-2" {
			t.Errorf("%+v", f)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
