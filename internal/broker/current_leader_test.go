package broker

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/meta"
)

// TestLeadersOfPartitionsElsewhere proves that a node which has no replica of a partition names its leader
// and the leader's address, and no other; that a leader which does not serve has no address; and that a
// partition which does not exist is not another node's.
func TestLeadersOfPartitionsElsewhere(t *testing.T) {
	g := newRig(t)
	g.apply(brokerOn(2, ""), brokerOn(3, ""), brokerOn(4, ""))
	g.apply(meta.BrokerChanged{ID: 4, Epoch: 4, State: meta.BrokerFenced})
	g.place("t",
		meta.Partition{Replicas: []int32{2}, ISR: []int32{2}, Leader: 2, LeaderEpoch: 5},
		meta.Partition{Replicas: []int32{4}, Leader: -1, LeaderEpoch: 6},
		meta.Partition{Replicas: []int32{1}, ISR: []int32{1}, Leader: 1, LeaderEpoch: 7})
	g.place("far", meta.Partition{Replicas: []int32{4}, ISR: []int32{4}, Leader: 4, LeaderEpoch: 8})
	c := dial(t, g.addr)
	for _, step := range []struct {
		topic     string
		partition int32
		code      int16
		leader    int32
		epoch     int32
		brokers   int
	}{
		{"t", 0, notLeader, 2, 5, 1},
		{"t", 1, notLeader, -1, 6, 0},
		{"t", 3, 3, -1, -1, 0},
		{"t", -1, 3, -1, -1, 0},
		{"far", 0, notLeader, 4, 8, 0},
		{"far", 1, 3, -1, -1, 0},
		{"nowhere", 0, 3, -1, -1, 0},
	} {
		resp := ask[*kmsg.ProduceResponse](c, at(12, put(step.topic, step.partition, -1, batch(t, "x"))))
		p := produced(t, resp)
		if p.ErrorCode != step.code || p.CurrentLeader.LeaderID != step.leader || p.CurrentLeader.LeaderEpoch != step.epoch || len(resp.Brokers) != step.brokers {
			t.Errorf("produce to %s-%d: %+v, %+v", step.topic, step.partition, p, resp.Brokers)
		}
		req := at(16, get(step.topic, step.partition, 0))
		topic := g.image.Load().Topic(step.topic)
		if topic == nil {
			continue
		}
		req.Topics[0].TopicID = topic.ID
		fresp := ask[*kmsg.FetchResponse](c, req)
		f := fetched(t, fresp)
		if f.ErrorCode != step.code || f.CurrentLeader.LeaderID != step.leader || f.CurrentLeader.LeaderEpoch != step.epoch || len(fresp.Brokers) != step.brokers {
			t.Errorf("fetch of %s-%d: %+v, %+v", step.topic, step.partition, f, fresp.Brokers)
		}
		if len(resp.Brokers) == 1 && (resp.Brokers[0].NodeID != step.leader || resp.Brokers[0].Host != "host-2" || fresp.Brokers[0].Host != "host-2") {
			t.Errorf("%+v, %+v", resp.Brokers, fresp.Brokers)
		}
	}
	old := at(9, put("t", 0, -1, batch(t, "x")))
	if p := produced(t, ask[*kmsg.ProduceResponse](c, old)); p.ErrorCode != notLeader {
		t.Errorf("%+v", p)
	}
	fenced := at(16, get("t", 2, 0))
	fenced.Topics[0].TopicID, fenced.Topics[0].Partitions[0].CurrentLeaderEpoch = g.image.Load().Topic("t").ID, 6
	if f := fetched(t, ask[*kmsg.FetchResponse](c, fenced)); f.ErrorCode != fencedEpoch || f.CurrentLeader.LeaderID != 1 || f.CurrentLeader.LeaderEpoch != 7 {
		t.Errorf("of an old epoch: %+v", f)
	}
}
