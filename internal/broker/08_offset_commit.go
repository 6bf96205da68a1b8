package broker

import (
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/group"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// OffsetCommit, key 8, versions 2 to 10.
//
// 2 to 4: a retention of the request's own. 5: without it (KIP-211). 6: leader
// epochs (KIP-320). 7: static members (KIP-345). 8: flexible. 9: KIP-848's error
// codes: GROUP_ID_NOT_FOUND for a generation of a group that does not exist.
// 10: topics by id.
//
// Offsets of topics or partitions that do not exist are refused here; the coordinator
// gets the others, with the topics' ids in every version, so that it can drop the
// offsets of a topic that is deleted.
//
// All commits that one read has brought go to the coordinator together, at the session's
// flush, and become durable together with the batches of that flush.

func (s *session) offsetCommit(r *wire.Request) error {
	kreq, err := r.Decode()
	if err != nil {
		return err
	}
	req, _ := kreq.(*kmsg.OffsetCommitRequest)
	watchCommit(s, r, req)
	by := s.access()
	if !by.mayGroup(meta.Read, req.Group) {
		r.Reply(refuseCommits(req, kerr.GroupAuthorizationFailed.Code))
		return nil
	}
	image := s.b.cfg.Image()
	refused := map[string]kmsg.OffsetCommitResponseTopic{}
	good := req.Topics[:0]
	for _, t := range req.Topics {
		asked := t.Topic
		topic, code := completeTopicName(image, &t.Topic, &t.TopicID, r.Version >= 10)
		if isUnknownID := topic == nil && r.Version >= 10; !isUnknownID && !by.mayTopic(auth.CommitOffsets, t.Topic) {
			topic, code = nil, kerr.TopicAuthorizationFailed.Code
			if t.Topic = asked; r.Version < 10 {
				t.TopicID = [16]byte{}
			}
		}
		var bad []kmsg.OffsetCommitResponseTopicPartition
		t.Partitions = slices.DeleteFunc(t.Partitions, func(p kmsg.OffsetCommitRequestTopicPartition) bool {
			c := code
			if topic != nil && (p.Partition < 0 || int(p.Partition) >= len(topic.Partitions)) {
				c = kerr.UnknownTopicOrPartition.Code
			}
			if c != none {
				bad = append(bad, kmsg.OffsetCommitResponseTopicPartition{Partition: p.Partition, ErrorCode: c})
			}
			return c != none
		})
		if len(bad) > 0 {
			addRefused(refused, &t, bad)
		}
		if len(t.Partitions) > 0 {
			good = append(good, t)
		}
	}
	if req.Topics = good; len(good) == 0 {
		resp := kmsg.NewPtrOffsetCommitResponse()
		resp.Topics = slices.Collect(maps.Values(refused))
		r.Reply(resp)
		return nil
	}
	reply := func(resp *kmsg.OffsetCommitResponse) {
		for i := range resp.Topics {
			t := &resp.Topics[i]
			key := topicKey(t.Topic, t.TopicID)
			t.Partitions = append(t.Partitions, refused[key].Partitions...)
			delete(refused, key)
		}
		resp.Topics = slices.AppendSeq(resp.Topics, maps.Values(refused))
		r.Reply(resp)
	}
	s.commits = append(s.commits, group.OffsetCommit{Req: req, Reply: containPanics(r, reply)})
	s.pendingWeight += requestWeight
	for i := range good {
		s.pendingWeight += len(good[i].Partitions)
	}
	if s.pendingWeight > maxPendingWeight {
		s.Flush()
	}
	return nil
}

// refuseCommits answers all partitions of a request with a code.
func refuseCommits(req *kmsg.OffsetCommitRequest, code int16) *kmsg.OffsetCommitResponse {
	resp := kmsg.NewPtrOffsetCommitResponse()
	for i := range req.Topics {
		t := &req.Topics[i]
		rt := kmsg.OffsetCommitResponseTopic{Topic: t.Topic, TopicID: t.TopicID}
		for j := range t.Partitions {
			rt.Partitions = append(rt.Partitions, kmsg.OffsetCommitResponseTopicPartition{Partition: t.Partitions[j].Partition, ErrorCode: code})
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp
}

// topicKey identifies a topic of a request, whether it exists or not.
func topicKey(name string, id [16]byte) string { return name + "/" + string(id[:]) }

func addRefused(refused map[string]kmsg.OffsetCommitResponseTopic, t *kmsg.OffsetCommitRequestTopic, bad []kmsg.OffsetCommitResponseTopicPartition) {
	key := topicKey(t.Topic, t.TopicID)
	refused[key] = kmsg.OffsetCommitResponseTopic{
		Topic: t.Topic, TopicID: t.TopicID, Partitions: append(refused[key].Partitions, bad...),
	}
}

// completeTopicName finds the topic that a request names by its id or its name, and sets the
// other one. It returns an error code if there is no such topic.
func completeTopicName(image *meta.Image, name *string, id *[16]byte, byID bool) (*meta.Topic, int16) {
	if byID {
		t := image.TopicByID(*id)
		if t == nil {
			return nil, kerr.UnknownTopicID.Code
		}
		*name = t.Name
		return t, none
	}
	t := image.Topic(*name)
	if t == nil {
		return nil, kerr.UnknownTopicOrPartition.Code
	}
	*id = t.ID
	return t, none
}
