package broker

import (
	"slices"
	"sync"

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
// that is left over. As in Kafka, a partition without a leader has no code.

func (b *Broker) describeTopicPartitions(s *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.DescribeTopicPartitionsRequest)
	m := b.cfg.Image()
	resp := kmsg.NewPtrDescribeTopicPartitionsResponse()
	by := s.access()
	names, ok := b.namesToDescribe(m, req)
	if !ok {
		for i := range req.Topics {
			rt := emptyDescription(req.Topics[i].Topic, kerr.InvalidRequest.Code)
			rt.AuthorizedOperations = notAsked
			resp.Topics = append(resp.Topics, rt)
		}
		r.Reply(resp)
		return nil
	}
	view := s.view(m)
	room := meta.ServerSettings(m, b.cfg.Static).MaxDescribedPartitions
	room = max(1, min(room, int(req.ResponsePartitionLimit)))
	var denied []string
	if !by.isAll() || by.watch.isNoting() {
		if len(req.Topics) > 0 {
			names, denied = by.splitTopics(names)
		} else {
			names, _ = by.quietly().splitTopics(names) // the client is not told which others there are
		}
	}
	named := describedNameMemory*int64(len(req.Topics)) + 2*int64(r.BodySize())
	held, err := b.reserveAnswer(r, describedTopicMemory*int64(min(room, m.NumPartitions()))+named)
	if err != nil {
		return err
	}
	defer held.Release()
	for _, name := range names {
		if room <= 0 {
			resp.NextCursor = cursorAt(name, 0)
			break
		}
		first := 0
		if c := req.Cursor; c != nil && c.Topic == name {
			first = int(c.Partition)
		}
		rt, next := describePartitions(m, &view, name, partitionRange{first, room})
		rt.AuthorizedOperations = by.operations(topicOperations, meta.TopicResource, name)
		resp.Topics = append(resp.Topics, rt)
		room -= len(rt.Partitions)
		if next > 0 {
			resp.NextCursor = cursorAt(name, next)
			break
		}
	}
	for _, name := range denied {
		rt := emptyDescription(name, kerr.TopicAuthorizationFailed.Code)
		rt.IsInternal, rt.AuthorizedOperations = false, notAsked
		resp.Topics = append(resp.Topics, rt)
	}
	b.replyHeld(r, resp, &held)
	return nil
}

// splitTopics parts topics into those that the client may describe, and the others.
func (a *access) splitTopics(names []string) (allowed, denied []string) {
	for _, name := range names {
		if a.mayTopic(meta.Describe, name) {
			allowed = append(allowed, name)
		} else {
			denied = append(denied, name)
		}
	}
	return allowed, denied
}

// These are about how much memory a partition takes in an answer, as a structure and in encoded
// form, together with a topic that has no other, and how much a name takes in encoded form.
const (
	describedTopicMemory = 768
	describedNameMemory  = 96
)

// namesToDescribe are the sorted names of the topics to describe, from the cursor on; if the
// request names none, those of all topics. It returns false if the cursor is not valid.
func (b *Broker) namesToDescribe(m *meta.Image, req *kmsg.DescribeTopicPartitionsRequest) ([]string, bool) {
	var names []string
	if len(req.Topics) == 0 {
		names = b.names.sortedNames(m)
	} else {
		for i := range req.Topics {
			names = append(names, req.Topics[i].Topic)
		}
		slices.Sort(names)
		names = slices.Compact(names)
	}
	if c := req.Cursor; c != nil {
		at, found := slices.BinarySearch(names, c.Topic)
		if c.Partition < 0 || !found && len(req.Topics) > 0 {
			return nil, false
		}
		names = names[at:]
	}
	return names, true
}

// topicNames keeps the sorted names of all topics of one image, since a client that reads page by
// page needs them for each page.
type topicNames struct {
	mu    sync.Mutex // held while they are sorted, so that this is done once for an image
	image *meta.Image
	names []string
}

// sortedNames are the names of all topics of an image. The caller must not change the list.
func (n *topicNames) sortedNames(m *meta.Image) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.image == m {
		return n.names
	}
	names := make([]string, 0, m.NumTopics())
	for t := range m.Topics() {
		names = append(names, t.Name)
	}
	slices.Sort(names)
	n.image, n.names = m, names
	return names
}

// dropUnused is called now and then. It drops the names if their image is not the newest one.
func (n *topicNames) dropUnused(newest *meta.Image) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.image != newest {
		n.image, n.names = nil, nil
	}
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

// partitionRange are at most room partitions of a topic from first on.
type partitionRange struct{ first, room int }

// describePartitions describes partitions of a topic; next is the first one that is left over, or 0 if
// there is none.
func describePartitions(m *meta.Image, view *clientView, name string, r partitionRange) (rt kmsg.DescribeTopicPartitionsResponseTopic, next int) {
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
	last := min(len(t.Partitions), r.first+r.room)
	for i := r.first; i < last; i++ {
		p := &t.Partitions[i]
		rp := kmsg.NewDescribeTopicPartitionsResponseTopicPartition()
		rp.Partition, rp.LeaderID, rp.LeaderEpoch = int32(i), p.Leader, p.LeaderEpoch
		rp.Replicas, rp.ISR, rp.OfflineReplicas = p.Replicas, p.ISR, view.hidden(p.Replicas)
		rp.EligibleLeaderReplicas, rp.LastKnownELR = emptyIfNil(p.Eligible), emptyIfNil(p.LastEligible)
		if view.shown[p.Leader] == nil {
			rp.LeaderID = -1
		}
		rt.Partitions = append(rt.Partitions, rp)
	}
	if last < len(t.Partitions) {
		next = last
	}
	return rt, next
}

// emptyIfNil makes a list that is not null in an answer.
func emptyIfNil(ids []int32) []int32 {
	if ids == nil {
		return []int32{}
	}
	return ids
}
