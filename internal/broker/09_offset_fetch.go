package broker

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// OffsetFetch, key 9, versions 1 to 10.
//
// 2: no topics (null) means all; a code for the whole answer. 5: leader epochs
// (KIP-320). 6: flexible. 7: only stable offsets (KIP-447); without transactions all
// are stable. 8: many groups in one request (KIP-709). 9: the id and the epoch of a
// member (KIP-848). 10: topics by id.
//
// A partition without an offset has -1, whether the topic exists or not.

func (b *Broker) offsetFetch(_ *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.OffsetFetchRequest)
	if r.Version < 8 {
		return b.offsetFetchOne(r, req)
	}
	asked := 0
	req.Groups = dropRepeatedGroups(req.Groups)
	for i := range req.Groups {
		asked += b.dropRepeatedPartitions(req.Groups[i].Topics)
	}
	held, err := b.reserveAnswer(r, b.groupAnswerMemory()+askedOffsetMemory*int64(asked))
	if err != nil {
		return err
	}
	image := b.cfg.Image()
	unknown := make([][]kmsg.OffsetFetchResponseGroupTopic, len(req.Groups))
	for i := range req.Groups {
		unknown[i] = b.resolveTopics(image, &req.Groups[i], r.Version >= 10)
	}
	b.cfg.Groups.Fetch(req.Groups, req.RequireStable, containPanics(r, func(groups []kmsg.OffsetFetchResponseGroup) {
		defer held.Release()
		resp := kmsg.NewPtrOffsetFetchResponse()
		resp.Groups = groups
		for i := range groups {
			g := &groups[i]
			if g.ErrorCode != none {
				continue
			}
			if req.Groups[i].Topics == nil {
				g.Topics = dropDeletedTopics(image, g.Topics, r.Version >= 10)
			}
			g.Topics = append(g.Topics, unknown[i]...)
		}
		b.replyHeld(r, resp, &held)
	}))
	return nil
}

// dropRepeatedGroups drops groups of which all topics are asked for a second time, so that a
// small request does not have a huge answer.
func dropRepeatedGroups(groups []kmsg.OffsetFetchRequestGroup) []kmsg.OffsetFetchRequestGroup {
	seen := make(map[string]struct{}, len(groups))
	return slices.DeleteFunc(groups, func(g kmsg.OffsetFetchRequestGroup) bool {
		if g.Topics != nil {
			return false
		}
		_, again := seen[g.Group]
		seen[g.Group] = struct{}{}
		return again
	})
}

// dropRepeatedPartitions drops partitions that are asked for a second time, so that a small
// request does not have a huge answer. It returns how many are left.
func (b *Broker) dropRepeatedPartitions(topics []kmsg.OffsetFetchRequestGroupTopic) (left int) {
	type name struct {
		topic string
		id    [16]byte
	}
	seen := make(map[name]map[int32]struct{})
	for i := range topics {
		t := &topics[i]
		of := seen[name{t.Topic, t.TopicID}]
		if of == nil {
			of = make(map[int32]struct{})
			seen[name{t.Topic, t.TopicID}] = of
		}
		all := t.Partitions
		t.Partitions = all[:0]
		b.inTurns(len(all), func(j int) {
			if _, again := of[all[j]]; !again {
				of[all[j]] = struct{}{}
				t.Partitions = append(t.Partitions, all[j])
			}
		})
		left += len(t.Partitions)
	}
	return left
}

// askedOffsetMemory is about how much memory a partition takes in an answer, as a structure
// and in encoded form, whether it has an offset or not.
const askedOffsetMemory = 160

// groupAnswerMemory is an upper bound of the memory of an answer about groups: no answer has
// more than all that the groups keep, once as structures and once in encoded form.
func (b *Broker) groupAnswerMemory() int64 {
	return elementMemory + 2*b.cfg.Groups.MemoryUsed()
}

// resolveTopics completes the names and ids of the topics that are asked for. It removes
// those whose id is unknown, and returns their part of the answer.
func (b *Broker) resolveTopics(image *meta.Image, g *kmsg.OffsetFetchRequestGroup, byID bool) (unknown []kmsg.OffsetFetchResponseGroupTopic) {
	if g.Topics == nil {
		return nil
	}
	var missing []kmsg.OffsetFetchRequestGroupTopic
	asked := g.Topics
	g.Topics = asked[:0]
	b.inTurns(len(asked), func(i int) {
		t := asked[i]
		if byID && image.TopicByID(t.TopicID) == nil {
			missing = append(missing, t)
			return
		}
		_, _ = completeTopicName(image, &t.Topic, &t.TopicID, byID) // a deleted topic may still have offsets
		g.Topics = append(g.Topics, t)
	})
	for _, t := range missing {
		parts := make([]kmsg.OffsetFetchResponseGroupTopicPartition, len(t.Partitions))
		b.inTurns(len(parts), func(j int) {
			parts[j] = kmsg.OffsetFetchResponseGroupTopicPartition{
				Partition: t.Partitions[j], Offset: -1, LeaderEpoch: -1, Metadata: new(string), ErrorCode: kerr.UnknownTopicID.Code,
			}
		})
		unknown = append(unknown, kmsg.OffsetFetchResponseGroupTopic{TopicID: t.TopicID, Partitions: parts})
	}
	return unknown
}

// dropDeletedTopics removes the offsets of topics that were deleted and whose name another
// topic has now: they wait to be deleted, and are not the new topic's. If topics are shown
// by id, those whose name no topic has any more cannot be shown either.
func dropDeletedTopics(image *meta.Image, topics []kmsg.OffsetFetchResponseGroupTopic, byID bool) []kmsg.OffsetFetchResponseGroupTopic {
	return slices.DeleteFunc(topics, func(t kmsg.OffsetFetchResponseGroupTopic) bool {
		topic := image.Topic(t.Topic)
		if topic == nil {
			return byID
		}
		return t.TopicID != [16]byte{} && t.TopicID != topic.ID
	})
}

// offsetFetchOne answers the versions that ask for one group.
func (b *Broker) offsetFetchOne(r *wire.Request, req *kmsg.OffsetFetchRequest) error {
	version := r.Version
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = req.Group
	if req.Topics != nil || r.Version < 2 {
		g.Topics = make([]kmsg.OffsetFetchRequestGroupTopic, len(req.Topics))
		for i, t := range req.Topics {
			g.Topics[i].Topic, g.Topics[i].Partitions = t.Topic, t.Partitions
		}
	}
	asked := b.dropRepeatedPartitions(g.Topics)
	image := b.cfg.Image()
	_ = b.resolveTopics(image, &g, false) // without ids it removes none
	held, err := b.reserveAnswer(r, b.groupAnswerMemory()+askedOffsetMemory*int64(asked))
	if err != nil {
		return err
	}
	b.cfg.Groups.Fetch([]kmsg.OffsetFetchRequestGroup{g}, req.RequireStable, containPanics(r, func(groups []kmsg.OffsetFetchResponseGroup) {
		defer held.Release()
		if g.Topics == nil {
			groups[0].Topics = dropDeletedTopics(image, groups[0].Topics, false)
		}
		b.replyHeld(r, convertToOneGroup(req, version, &groups[0]), &held)
	}))
	return nil
}

// convertToOneGroup converts a group's answer to the form of the versions that have one group.
// In version 1 only partitions can have an error code.
func convertToOneGroup(req *kmsg.OffsetFetchRequest, version int16, g *kmsg.OffsetFetchResponseGroup) *kmsg.OffsetFetchResponse {
	resp := kmsg.NewPtrOffsetFetchResponse()
	resp.ErrorCode = g.ErrorCode
	if g.ErrorCode != none && version < 2 {
		for _, t := range req.Topics {
			out := kmsg.NewOffsetFetchResponseTopic()
			out.Topic = t.Topic
			for _, p := range t.Partitions {
				rp := kmsg.NewOffsetFetchResponseTopicPartition()
				rp.Partition, rp.Offset, rp.ErrorCode, rp.Metadata = p, -1, g.ErrorCode, new(string)
				out.Partitions = append(out.Partitions, rp)
			}
			resp.Topics = append(resp.Topics, out)
		}
	}
	for _, t := range g.Topics {
		out := kmsg.NewOffsetFetchResponseTopic()
		out.Topic = t.Topic
		for _, p := range t.Partitions {
			out.Partitions = append(out.Partitions, kmsg.OffsetFetchResponseTopicPartition{
				Partition: p.Partition, Offset: p.Offset, LeaderEpoch: p.LeaderEpoch, Metadata: p.Metadata, ErrorCode: p.ErrorCode,
			})
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp
}
