package broker

import (
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// DescribeQuorum, key 55, versions 0 to 2.
//
// 1: the time of each replica's last fetch (KIP-836). 2: directory ids and the voters'
// addresses (KIP-853).
//
// The quorum uses raft, not Kafka's protocol. Its term is shown as the epoch and its
// commit index as the high watermark, so that tools can show the leader and the replicas
// that are behind. There is one partition, __cluster_metadata-0.

func (b *Broker) describeQuorum(s *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.DescribeQuorumRequest)
	resp := kmsg.NewPtrDescribeQuorumResponse()
	resp.ErrorMessage = new(string) // empty, not null, as in Kafka
	if len(req.Topics) != 1 || req.Topics[0].Topic != metadataTopic || len(req.Topics[0].Partitions) != 1 || req.Topics[0].Partitions[0].Partition != 0 {
		for i := range req.Topics {
			resp.Topics = append(resp.Topics, refuseQuorumTopic(&req.Topics[i]))
		}
		r.Reply(resp)
		return nil
	}
	m := b.cfg.Image()
	st := b.cfg.Quorum()
	rt := kmsg.NewDescribeQuorumResponseTopic()
	rt.Topic = metadataTopic
	rp := kmsg.NewDescribeQuorumResponseTopicPartition()
	rp.ErrorMessage = new(string)
	rp.LeaderID, rp.LeaderEpoch, rp.HighWatermark = st.Leader, int32(st.Term), int64(st.Commit)
	now := time.Now().UnixMilli()
	for _, id := range st.Voters {
		v := kmsg.NewDescribeQuorumResponseTopicPartitionReplicaState()
		v.ReplicaID, v.LogEndOffset = id, endOf(m, st.Match, id)
		if id == st.Leader {
			v.LogEndOffset, v.LastFetchTimestamp, v.LastCaughtUpTimestamp = int64(st.Commit), now, now
		}
		rp.CurrentVoters = append(rp.CurrentVoters, v)
	}
	for _, id := range slices.Sorted(maps.Keys(m.Brokers)) {
		if !slices.Contains(st.Voters, id) {
			o := kmsg.NewDescribeQuorumResponseTopicPartitionReplicaState()
			o.ReplicaID, o.LogEndOffset = id, max(endOf(m, st.Match, id), endOf(m, st.Observers, id))
			rp.Observers = append(rp.Observers, o)
		}
	}
	rt.Partitions = append(rt.Partitions, rp)
	resp.Topics = append(resp.Topics, rt)
	for _, id := range st.Voters {
		resp.Nodes = append(resp.Nodes, quorumNode(s, m, id))
	}
	r.Reply(resp)
	return nil
}

// endOf is the end of a node's metadata log, of the ends that are known by the raft ids of their nodes; -1:
// unknown.
func endOf(m *meta.Image, ends map[uint64]uint64, id int32) int64 {
	if b := m.Brokers[id]; b != nil {
		if end, ok := ends[b.RaftID]; ok {
			return int64(end)
		}
	}
	return -1
}

func quorumNode(s *session, m *meta.Image, id int32) kmsg.DescribeQuorumResponseNode {
	n := kmsg.NewDescribeQuorumResponseNode()
	n.NodeID = id
	if b := m.Brokers[id]; b != nil {
		l := kmsg.NewDescribeQuorumResponseNodeListener()
		host, port := s.addressOf(b)
		l.Name, l.Host, l.Port = "CONTROLLER", host, uint16(port)
		n.Listeners = append(n.Listeners, l)
	}
	return n
}

func refuseQuorumTopic(t *kmsg.DescribeQuorumRequestTopic) kmsg.DescribeQuorumResponseTopic {
	rt := kmsg.NewDescribeQuorumResponseTopic()
	rt.Topic = t.Topic
	for i := range t.Partitions {
		rp := kmsg.NewDescribeQuorumResponseTopicPartition()
		rp.Partition, rp.ErrorCode = t.Partitions[i].Partition, kerr.UnknownTopicOrPartition.Code
		rp.ErrorMessage = &kerr.UnknownTopicOrPartition.Description
		rt.Partitions = append(rt.Partitions, rp)
	}
	return rt
}
