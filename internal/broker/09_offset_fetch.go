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
// are. 8: many groups in one request (KIP-709). 9: a member of a KIP-848 group
// asks. 10: topics by id.
//
// A partition without an offset has -1, whether the topic exists or not.

func (b *Broker) offsetFetch(_ *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.OffsetFetchRequest)
	if r.Version < 8 {
		return b.offsetFetchOne(r, req)
	}
	req.Groups = onceAll(req.Groups)
	for i := range req.Groups {
		onceEach(req.Groups[i].Topics)
	}
	held, err := b.reserveAnswer(b.groupAnswer())
	if err != nil {
		return err
	}
	image := b.cfg.Image()
	unknown := make([][]kmsg.OffsetFetchResponseGroupTopic, len(req.Groups))
	for i := range req.Groups {
		unknown[i] = resolve(image, &req.Groups[i], r.Version >= 10)
	}
	b.cfg.Groups.Fetch(req.Groups, contained(r, func(groups []kmsg.OffsetFetchResponseGroup) {
		defer held.Release()
		resp := kmsg.NewPtrOffsetFetchResponse()
		resp.Groups = groups
		for i := range groups {
			g := &groups[i]
			if g.ErrorCode != none {
				continue
			}
			if r.Version >= 10 && req.Groups[i].Topics == nil {
				g.Topics = identify(image, g.Topics)
			}
			g.Topics = append(g.Topics, unknown[i]...)
		}
		b.replyHeld(r, resp, &held)
	}))
	return nil
}

// onceAll drops groups of which everything is asked a second time: a small request
// must not have a huge answer.
func onceAll(groups []kmsg.OffsetFetchRequestGroup) []kmsg.OffsetFetchRequestGroup {
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

// onceEach drops partitions that are asked for a second time, for the same reason.
func onceEach(topics []kmsg.OffsetFetchRequestGroupTopic) {
	type place struct {
		topic     string
		id        [16]byte
		partition int32
	}
	seen := make(map[place]struct{})
	for i := range topics {
		t := &topics[i]
		t.Partitions = slices.DeleteFunc(t.Partitions, func(n int32) bool {
			at := place{t.Topic, t.TopicID, n}
			_, again := seen[at]
			seen[at] = struct{}{}
			return again
		})
	}
}

// groupAnswer bounds what an answer about groups takes while it is built: none tells
// more than the groups keep, as structures and as bytes.
func (b *Broker) groupAnswer() int64 {
	return elementMemory + 2*b.cfg.Groups.MemoryUsed()
}

// resolve completes the names and ids of the topics that a group is asked for.
// Topics that are named by an id that there is not are taken out and answered.
func resolve(image *meta.Image, g *kmsg.OffsetFetchRequestGroup, byID bool) (unknown []kmsg.OffsetFetchResponseGroupTopic) {
	if g.Topics == nil {
		return nil
	}
	g.Topics = slices.DeleteFunc(g.Topics, func(t kmsg.OffsetFetchRequestGroupTopic) bool {
		if !byID || image.TopicByID(t.TopicID) != nil {
			return false
		}
		out := kmsg.OffsetFetchResponseGroupTopic{TopicID: t.TopicID}
		for _, p := range t.Partitions {
			rp := kmsg.NewOffsetFetchResponseGroupTopicPartition()
			rp.Partition, rp.Offset, rp.LeaderEpoch, rp.ErrorCode = p, -1, -1, kerr.UnknownTopicID.Code
			rp.Metadata = new(string)
			out.Partitions = append(out.Partitions, rp)
		}
		unknown = append(unknown, out)
		return true
	})
	for i := range g.Topics {
		t := &g.Topics[i]
		_, _ = named(image, &t.Topic, &t.TopicID, byID) // a topic that is gone may still have offsets
	}
	return unknown
}

// identify gives topics their ids; those that are gone have none, and cannot be shown.
func identify(image *meta.Image, topics []kmsg.OffsetFetchResponseGroupTopic) []kmsg.OffsetFetchResponseGroupTopic {
	return slices.DeleteFunc(topics, func(t kmsg.OffsetFetchResponseGroupTopic) bool {
		return image.Topic(t.Topic) == nil
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
	onceEach(g.Topics)
	_ = resolve(b.cfg.Image(), &g, false) // by name nothing is taken out
	held, err := b.reserveAnswer(b.groupAnswer())
	if err != nil {
		return err
	}
	b.cfg.Groups.Fetch([]kmsg.OffsetFetchRequestGroup{g}, contained(r, func(groups []kmsg.OffsetFetchResponseGroup) {
		defer held.Release()
		b.replyHeld(r, oneGroup(req, version, &groups[0]), &held)
	}))
	return nil
}

// oneGroup puts a group's answer into the older form. Version 1 has no place for
// the group's code but in each partition.
func oneGroup(req *kmsg.OffsetFetchRequest, version int16, g *kmsg.OffsetFetchResponseGroup) *kmsg.OffsetFetchResponse {
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
