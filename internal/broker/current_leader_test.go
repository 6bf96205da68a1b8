package broker

import (
	"net"
	"slices"
	"strconv"
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

// TestLeadersThatCameMeanwhile proves that an answer to a producer which has waited names the new leader of a
// partition that was given to another node meanwhile, and its address, in each version that can; and that all
// other parts of the answer stay as they are.
func TestLeadersThatCameMeanwhile(t *testing.T) {
	for version := int16(7); version <= 13; version++ {
		r := newReplicated(t, []string{"a", "b", "c"})
		ids := map[string]meta.UUID{}
		for _, name := range []string{"moved", "elsewhere", "stays", "vacant"} {
			ids[name] = meta.NewUUID()
			p := meta.Partition{Replicas: []int32{1, 2}, ISR: []int32{1, 2}, Leader: 1}
			switch name {
			case "elsewhere":
				p = meta.Partition{Replicas: []int32{3}, ISR: []int32{3}, Leader: 3, LeaderEpoch: 4}
			case "stays":
				p = meta.Partition{Replicas: []int32{1}, ISR: []int32{1}, Leader: 1}
			}
			r.write(meta.TopicCreated{ID: ids[name], Name: name}, meta.PartitionsSet{Topic: ids[name], Partitions: []meta.Partition{p}})
		}
		r.brokers[1].cutOff.Store(true) // so that nothing is committed
		c := dial(t, r.brokers[0].addr)
		req := at(version, put("moved", 0, -1, batch(t, "x")))
		req.TimeoutMillis = 600_000
		for _, name := range []string{"elsewhere", "stays", "vacant"} {
			req.Topics = append(req.Topics, put(name, 0, -1, batch(t, "x")).Topics...)
		}
		for i := range req.Topics {
			req.Topics[i].TopicID = ids[req.Topics[i].Topic]
		}
		c.send(req)
		eventually(t, "the records are written", func() bool {
			for _, name := range []string{"moved", "stays", "vacant"} {
				if end, err := r.brokers[0].set.Partition(name, 0).End(); end == 0 || err != nil {
					return false
				}
			}
			return true
		})
		r.write(meta.PartitionChanged{Topic: ids["moved"], ISR: []int32{2}, Leader: 2, LeaderEpoch: 5, PartitionEpoch: 1},
			meta.PartitionChanged{Topic: ids["vacant"], Leader: -1, LeaderEpoch: 6, PartitionEpoch: 1})
		resp := c.receive(req).(*kmsg.ProduceResponse)
		want := []struct {
			code          int16
			leader, epoch int32
			base, start   int64
		}{{notLeader, 2, 5, 0, 0}, {notLeader, 3, 4, -1, -1}, {none, -1, -1, 0, 0}, {notLeader, -1, 6, 0, 0}}
		brokers := []int32{2, 3}
		for i := range resp.Topics {
			p, w := resp.Topics[i].Partitions[0], want[i]
			if version < leadersInProduce {
				w.leader, w.epoch, brokers = -1, -1, nil
			}
			if p.ErrorCode != w.code || p.CurrentLeader.LeaderID != w.leader || p.CurrentLeader.LeaderEpoch != w.epoch || p.BaseOffset != w.base || p.LogStartOffset != w.start {
				t.Errorf("v%d, %s: %+v", version, req.Topics[i].Topic, p)
			}
		}
		if len(resp.Topics) != len(want) || len(resp.Brokers) != len(brokers) {
			t.Fatalf("v%d: %+v", version, resp)
		}
		for _, b := range resp.Brokers {
			if addr := net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port))); !slices.Contains(brokers, b.NodeID) || addr != r.brokers[b.NodeID-1].addr {
				t.Errorf("v%d: %+v", version, b)
			}
		}
	}
}
