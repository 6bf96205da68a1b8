package broker

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/broker/missing"
	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/quorum"
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
//
// The leader answers, since only it knows how far the others are; it is asked by the node that the
// client has asked. If it does not answer soon, that node tells what it knows itself. Its answer has two fields that Kafka does not have: how many
// nodes are to vote, while fewer do, and a note of the nodes that it keeps fenced since it cannot reach them.

func (b *Broker) describeQuorum(d *decision, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.DescribeQuorumRequest)
	resp := kmsg.NewPtrDescribeQuorumResponse()
	resp.ErrorMessage = new(string) // empty, not null, as in Kafka
	if len(req.Topics) != 1 || req.Topics[0].Topic != metadataTopic || len(req.Topics[0].Partitions) != 1 || req.Topics[0].Partitions[0].Partition != 0 {
		return b.replyAnswer(r, missing.Answer{Memory: sizeOfQuorumTopics(req), Make: func(pass func()) kmsg.Response {
			for i := range req.Topics {
				resp.Topics = append(resp.Topics, refuseQuorumTopic(&req.Topics[i], pass))
			}
			return resp
		}})
	}
	m, st := b.cfg.Image(), b.cfg.Quorum()
	isLeader := st.Leader == b.cfg.NodeID || st.LeaderRaftID != 0 && st.LeaderRaftID == st.RaftID
	if !isLeader && d.canMove {
		return quorum.ErrNotLeader
	}
	q := quorumView{Status: st, self: b.cfg.NodeID, leader: b.controllerID(), image: m}
	if isLeader {
		q.leader = q.self
		if b.cfg.Cluster != nil {
			q.positions = b.cfg.Cluster.Positions()
		}
	}
	rt := kmsg.NewDescribeQuorumResponseTopic()
	rt.Topic, rt.Partitions = metadataTopic, []kmsg.DescribeQuorumResponseTopicPartition{q.describe(time.Now())}
	resp.Topics = append(resp.Topics, rt)
	for _, v := range rt.Partitions[0].CurrentVoters {
		n := kmsg.NewDescribeQuorumResponseNode()
		n.NodeID = v.ReplicaID
		if node := m.Brokers[v.ReplicaID]; node != nil {
			l := kmsg.NewDescribeQuorumResponseNodeListener()
			host, port := d.addressOf(node)
			l.Name, l.Host, l.Port = "CONTROLLER", host, uint16(port)
			n.Listeners = append(n.Listeners, l)
		}
		resp.Nodes = append(resp.Nodes, n)
	}
	if len(rt.Partitions[0].CurrentVoters) < st.Wanted {
		resp.UnknownTags.Set(config.VotersTag, binary.AppendUvarint(nil, uint64(st.Wanted)))
	}
	if note := noteOfUnreached(q.positions); note != "" {
		resp.UnknownTags.Set(config.NoteTag, []byte(note))
	}
	r.Reply(resp)
	return nil
}

// noteOfUnreached is what is said of the nodes that are kept fenced; "": there are none.
func noteOfUnreached(positions map[int32]controller.Position) string {
	var sentences []string
	for _, id := range slices.Sorted(maps.Keys(positions)) {
		if why := positions[id].Unreached; why != "" && len(sentences) < maxNotedNodes {
			sentences = append(sentences, fmt.Sprintf("Node %d stays fenced: %s.", id, why))
		}
	}
	return strings.Join(sentences, " ")
}

// quorumView is the metadata quorum as its leader sees it, or as far as another node knows it.
type quorumView struct {
	quorum.Status

	self, leader int32 // leader: -1 if it is not known
	image        *meta.Image
	positions    map[int32]controller.Position // what nodes have told of themselves; empty on other nodes than the leader
}

// describe describes the quorum's only partition.
func (q *quorumView) describe(now time.Time) kmsg.DescribeQuorumResponseTopicPartition {
	rp := kmsg.NewDescribeQuorumResponseTopicPartition()
	rp.ErrorMessage = new(string)
	rp.LeaderID, rp.LeaderEpoch, rp.HighWatermark = q.leader, int32(q.Term), int64(q.Commit)
	isVoter := map[int32]bool{}
	for _, id := range q.listVoters() {
		isVoter[id] = true
		rp.CurrentVoters = append(rp.CurrentVoters, q.describeReplica(id, now))
	}
	for _, id := range slices.Sorted(maps.Keys(q.image.Brokers)) {
		if !isVoter[id] {
			rp.Observers = append(rp.Observers, q.describeReplica(id, now))
		}
	}
	return rp
}

// listVoters lists the nodes that vote, as far as the metadata have their ids of raft.
func (q *quorumView) listVoters() []int32 {
	voters := slices.Clone(q.Voters)
	if slices.Contains(q.Members.Voters, q.RaftID) {
		voters = append(voters, q.self)
	}
	for id, n := range q.image.Brokers {
		if n.RaftID != 0 && slices.Contains(q.Members.Voters, n.RaftID) {
			voters = append(voters, id)
		}
	}
	slices.Sort(voters)
	return slices.Compact(voters)
}

// describeReplica describes how far a node has the metadata log. A member's log is known to the end, of an
// observer only what it has applied.
func (q *quorumView) describeReplica(id int32, now time.Time) kmsg.DescribeQuorumResponseTopicPartitionReplicaState {
	v := kmsg.NewDescribeQuorumResponseTopicPartitionReplicaState()
	v.ReplicaID, v.LogEndOffset = id, -1
	raftID := uint64(0)
	if n := q.image.Brokers[id]; n != nil {
		v.ReplicaDirectoryID, raftID = n.Directory, n.RaftID
	}
	if id == q.leader {
		if id == q.self {
			v.LogEndOffset, v.LastFetchTimestamp, v.LastCaughtUpTimestamp = int64(q.Commit), now.UnixMilli(), now.UnixMilli()
		}
		return v
	}
	end := max(q.Match[raftID], q.Observers[raftID])
	if p, ok := q.positions[id]; ok {
		end = max(end, p.Applied)
		v.LastFetchTimestamp = now.Add(-p.Ago).UnixMilli()
	}
	if end == 0 {
		return v
	}
	v.LogEndOffset = int64(min(end, q.Commit))
	if end >= q.Commit {
		v.LastCaughtUpTimestamp = now.UnixMilli()
	}
	return v
}

// sizeOfQuorumTopics is the memory of an answer that refuses all partitions that a request names.
func sizeOfQuorumTopics(req *kmsg.DescribeQuorumRequest) (size missing.Memory) {
	message := len(kerr.UnknownTopicOrPartition.Description)
	for i := range req.Topics {
		size.Add(1, len(req.Topics[i].Topic))
		size.Add(len(req.Topics[i].Partitions), message*len(req.Topics[i].Partitions))
	}
	return size
}

func refuseQuorumTopic(t *kmsg.DescribeQuorumRequestTopic, pass func()) kmsg.DescribeQuorumResponseTopic {
	rt := kmsg.NewDescribeQuorumResponseTopic()
	rt.Topic = t.Topic
	rt.Partitions = make([]kmsg.DescribeQuorumResponseTopicPartition, 0, len(t.Partitions))
	for i := range t.Partitions {
		if i%stretch == stretch-1 {
			pass()
		}
		rp := kmsg.NewDescribeQuorumResponseTopicPartition()
		rp.Partition, rp.ErrorCode = t.Partitions[i].Partition, kerr.UnknownTopicOrPartition.Code
		rp.ErrorMessage = &kerr.UnknownTopicOrPartition.Description
		rt.Partitions = append(rt.Partitions, rp)
	}
	return rt
}
