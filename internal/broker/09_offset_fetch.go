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
// A partition without an offset has -1, whether the topic exists or not. An offset beyond the end of a
// partition that mirrors another cluster is given as that end: see mirrored_offsets.go.

func (b *Broker) offsetFetch(s *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.OffsetFetchRequest)
	if r.Version < 8 {
		return b.offsetFetchOne(s, r, req)
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
	by := s.sharedAccess()
	asking, places, denied := by.splitOffsetGroups(req.Groups)
	unknown := make([][]kmsg.OffsetFetchResponseGroupTopic, len(asking))
	for i := range asking {
		unknown[i] = b.resolveTopics(&by, image, &asking[i], r.Version >= 10)
	}
	b.cfg.Groups.Fetch(asking, req.RequireStable, containPanics(r, func(groups []kmsg.OffsetFetchResponseGroup) {
		b.boundOffsets(r, image, groups, func() {
			defer held.Release()
			resp := kmsg.NewPtrOffsetFetchResponse()
			for i := range groups {
				g := &groups[i]
				if g.ErrorCode != none {
					continue
				}
				if asking[i].Topics == nil {
					g.Topics = by.dropHiddenTopics(dropDeletedTopics(image, g.Topics, r.Version >= 10))
				}
				g.Topics = append(g.Topics, unknown[i]...)
			}
			resp.Groups = mergeOffsetGroups(groups, places, denied)
			b.replyHeld(r, resp, &held)
		})
	}))
	return nil
}

// splitOffsetGroups parts the groups of a request into those that the client may describe, whose places in the request it
// returns, and the answers for the others, by their places.
func (a *access) splitOffsetGroups(groups []kmsg.OffsetFetchRequestGroup) (allowed []kmsg.OffsetFetchRequestGroup, places []int, denied map[int]kmsg.OffsetFetchResponseGroup) {
	denied = map[int]kmsg.OffsetFetchResponseGroup{}
	for i := range groups {
		if a.mayGroup(meta.Describe, groups[i].Group) {
			allowed, places = append(allowed, groups[i]), append(places, i)
			continue
		}
		g := kmsg.NewOffsetFetchResponseGroup()
		g.Group, g.ErrorCode = groups[i].Group, kerr.GroupAuthorizationFailed.Code
		denied[i] = g
	}
	return allowed, places, denied
}

// mergeOffsetGroups undoes splitOffsetGroups for the answers.
func mergeOffsetGroups(groups []kmsg.OffsetFetchResponseGroup, places []int, denied map[int]kmsg.OffsetFetchResponseGroup) []kmsg.OffsetFetchResponseGroup {
	if len(denied) == 0 {
		return groups
	}
	all := make([]kmsg.OffsetFetchResponseGroup, len(groups)+len(denied))
	for j, i := range places {
		all[i] = groups[j]
	}
	for i, g := range denied {
		all[i] = g
	}
	return all
}

// dropHiddenTopics removes the topics that the client may not describe.
func (a *access) dropHiddenTopics(topics []kmsg.OffsetFetchResponseGroupTopic) []kmsg.OffsetFetchResponseGroupTopic {
	if a.by == nil {
		return topics
	}
	quiet := a.quietly()
	return slices.DeleteFunc(topics, func(t kmsg.OffsetFetchResponseGroupTopic) bool { return !quiet.mayTopic(meta.Describe, t.Topic) })
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
// those whose id is unknown, and those that the client may not describe, and returns their part of the answer.
func (b *Broker) resolveTopics(by *access, image *meta.Image, g *kmsg.OffsetFetchRequestGroup, byID bool) (unknown []kmsg.OffsetFetchResponseGroupTopic) {
	if g.Topics == nil {
		return nil
	}
	type missingTopic struct {
		kmsg.OffsetFetchRequestGroupTopic
		code int16
	}
	var missing []missingTopic
	asked := g.Topics
	g.Topics = asked[:0]
	b.inTurns(len(asked), func(i int) {
		t := asked[i]
		if byID && image.TopicByID(t.TopicID) == nil {
			missing = append(missing, missingTopic{t, kerr.UnknownTopicID.Code})
			return
		}
		known := t
		_, _ = completeTopicName(image, &known.Topic, &known.TopicID, byID) // a deleted topic may still have offsets
		if !by.mayTopic(meta.Describe, known.Topic) {
			missing = append(missing, missingTopic{t, kerr.TopicAuthorizationFailed.Code})
			return
		}
		g.Topics = append(g.Topics, known)
	})
	for _, t := range missing {
		parts := make([]kmsg.OffsetFetchResponseGroupTopicPartition, len(t.Partitions))
		b.inTurns(len(parts), func(j int) {
			parts[j] = kmsg.OffsetFetchResponseGroupTopicPartition{
				Partition: t.Partitions[j], Offset: -1, LeaderEpoch: -1, Metadata: new(string), ErrorCode: t.code,
			}
		})
		unknown = append(unknown, kmsg.OffsetFetchResponseGroupTopic{Topic: t.Topic, TopicID: t.TopicID, Partitions: parts})
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
func (b *Broker) offsetFetchOne(s *session, r *wire.Request, req *kmsg.OffsetFetchRequest) error {
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
	by := s.sharedAccess()
	if !by.mayGroup(meta.Describe, req.Group) {
		denied := kmsg.NewOffsetFetchResponseGroup()
		denied.ErrorCode = kerr.GroupAuthorizationFailed.Code
		r.Reply(convertToOneGroup(req, version, &denied))
		return nil
	}
	hidden := b.resolveTopics(&by, image, &g, false)
	held, err := b.reserveAnswer(r, b.groupAnswerMemory()+askedOffsetMemory*int64(asked))
	if err != nil {
		return err
	}
	b.cfg.Groups.Fetch([]kmsg.OffsetFetchRequestGroup{g}, req.RequireStable, containPanics(r, func(groups []kmsg.OffsetFetchResponseGroup) {
		b.boundOffsets(r, image, groups, func() {
			defer held.Release()
			if g.Topics == nil {
				groups[0].Topics = by.dropHiddenTopics(dropDeletedTopics(image, groups[0].Topics, false))
			}
			if groups[0].ErrorCode == none {
				groups[0].Topics = append(groups[0].Topics, hidden...)
			}
			b.replyHeld(r, convertToOneGroup(req, version, &groups[0]), &held)
		})
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
