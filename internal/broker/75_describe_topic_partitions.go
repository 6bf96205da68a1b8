package broker

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// DescribeTopicPartitions, key 75, version 0 (KIP-966).
//
// Topics are answered in the order of their names, with as many partitions as the client
// and max.request.partition.size.limit allow. The answer's cursor is the first partition
// that is left over. Here only replicas in sync may lead, so there are no other eligible
// leaders.

func (b *Broker) describeTopicPartitions(_ *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.DescribeTopicPartitionsRequest)
	m := b.cfg.Image()
	resp := kmsg.NewPtrDescribeTopicPartitionsResponse()
	names, ok := namesToDescribe(m, req)
	if !ok {
		for i := range req.Topics {
			rt := emptyDescription(req.Topics[i].Topic, kerr.InvalidRequest.Code)
			rt.AuthorizedOperations = notAsked
			resp.Topics = append(resp.Topics, rt)
		}
		r.Reply(resp)
		return nil
	}
	room := meta.ServerSettings(m, b.cfg.Static).MaxDescribedPartitions
	room = max(1, min(room, int(req.ResponsePartitionLimit)))
	for _, name := range names {
		if room <= 0 {
			resp.NextCursor = cursorAt(name, 0)
			break
		}
		first := 0
		if c := req.Cursor; c != nil && c.Topic == name {
			first = int(c.Partition)
		}
		rt, next := describePartitions(m, name, first, room)
		resp.Topics = append(resp.Topics, rt)
		room -= len(rt.Partitions)
		if next > 0 {
			resp.NextCursor = cursorAt(name, next)
			break
		}
	}
	r.Reply(resp)
	return nil
}

// namesToDescribe are the sorted names of the topics to describe, from the cursor on; if the
// request names none, those of all topics. It returns false if the cursor is not valid.
func namesToDescribe(m *meta.Image, req *kmsg.DescribeTopicPartitionsRequest) ([]string, bool) {
	var names []string
	for i := range req.Topics {
		names = append(names, req.Topics[i].Topic)
	}
	if len(req.Topics) == 0 {
		for t := range m.Topics() {
			names = append(names, t.Name)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if c := req.Cursor; c != nil {
		at, found := slices.BinarySearch(names, c.Topic)
		if c.Partition < 0 || !found && len(req.Topics) > 0 {
			return nil, false
		}
		names = names[at:]
	}
	return names, true
}

func cursorAt(topic string, partition int) *kmsg.DescribeTopicPartitionsResponseNextCursor {
	c := kmsg.NewDescribeTopicPartitionsResponseNextCursor()
	c.Topic, c.Partition = topic, int32(partition)
	return &c
}

func emptyDescription(name string, code int16) kmsg.DescribeTopicPartitionsResponseTopic {
	rt := kmsg.NewDescribeTopicPartitionsResponseTopic()
	rt.Topic, rt.ErrorCode, rt.IsInternal = &name, code, meta.InternalTopic(name)
	rt.AuthorizedOperations = topicOperations
	return rt
}

// describePartitions describes at most room of a topic's partitions from first on; next is
// the first one that is left over, or 0 if there is none.
func describePartitions(m *meta.Image, name string, first, room int) (rt kmsg.DescribeTopicPartitionsResponseTopic, next int) {
	t := m.Topic(name)
	if t == nil {
		code := kerr.UnknownTopicOrPartition.Code
		if controller.CheckTopicName(name) != nil {
			code = kerr.InvalidTopicException.Code
		}
		return emptyDescription(name, code), 0
	}
	rt = emptyDescription(name, none)
	rt.TopicID = t.ID
	last := min(len(t.Partitions), first+room)
	for i := first; i < last; i++ {
		p := &t.Partitions[i]
		rp := kmsg.NewDescribeTopicPartitionsResponseTopicPartition()
		rp.Partition, rp.LeaderID, rp.LeaderEpoch = int32(i), p.Leader, p.LeaderEpoch
		rp.Replicas, rp.ISR, rp.OfflineReplicas = p.Replicas, p.ISR, offlineReplicas(m.Brokers, p.Replicas)
		rp.EligibleLeaderReplicas, rp.LastKnownELR = []int32{}, []int32{}
		if p.Leader < 0 || m.Brokers[p.Leader] == nil {
			rp.LeaderID, rp.ErrorCode = -1, kerr.LeaderNotAvailable.Code
		}
		rt.Partitions = append(rt.Partitions, rp)
	}
	if last < len(t.Partitions) {
		next = last
	}
	return rt, next
}
