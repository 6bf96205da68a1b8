package broker

import (
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// Metadata, key 3, versions 0 to 13.
//
// 1: null asks for all topics, an empty list for none. 4: the client says whether
// missing topics are to be made (KIP-361 on the client's side). 5: offline
// replicas. 7: leader epochs (KIP-320). 8: authorised operations (KIP-430). 10 and
// 12: topic ids (KIP-516). 13: an error of the whole answer (KIP-1102).
//
// This node's address in the answer is the one on which the client came, unless it
// was set. A topic that is made by asking is in the answer at once; Kafka answers
// with an error first and has the client ask again.

func (b *Broker) metadata(s *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.MetadataRequest)
	if code := badMetadata(r.Version, req); code != none {
		r.Reply(refusedMetadata(req, code))
		return nil
	}
	m := b.cfg.Image()
	all := req.Topics == nil || r.Version == 0 && len(req.Topics) == 0
	var codes map[string]int16
	if !all && (r.Version < 4 || req.AllowAutoTopicCreation) {
		m, codes = b.autoCreate(m, req)
	}
	resp := kmsg.NewPtrMetadataResponse()
	for _, id := range slices.Sorted(maps.Keys(m.Brokers)) {
		n := kmsg.NewMetadataResponseBroker()
		n.NodeID = id
		n.Host, n.Port = s.address(m.Brokers[id])
		if rack := m.Brokers[id].Rack; rack != "" {
			n.Rack = &rack
		}
		resp.Brokers = append(resp.Brokers, n)
	}
	resp.ClusterID = &m.ClusterID
	resp.ControllerID = b.controllerID()
	if r.Version >= 8 && r.Version <= 10 && req.IncludeClusterAuthorizedOperations {
		resp.AuthorizedOperations = clusterOperations
	}
	d := topicDescriber{m: m, operations: r.Version >= 8 && req.IncludeTopicAuthorizedOperations, codes: codes}
	if all && b.all.isShared(m) {
		return b.all.replyAll(r, resp, m, d.operations)
	}
	if all {
		d.list = listTopics(m)
	} else {
		d.ask(req.Topics)
	}
	return b.replyList(r, resp, list{n: len(d.list), memory: topicMemory * int64(len(d.list)), with: d.answer})
}

// topicMemory is about what a topic of an answer keeps in memory until it is sent.
const topicMemory = 64

// badMetadata tells what is wrong with a request as a whole: topics cannot be asked
// for by id before version 12, nor by nothing at all.
func badMetadata(version int16, req *kmsg.MetadataRequest) int16 {
	for i := range req.Topics {
		t := &req.Topics[i]
		unnamed, byID := t.Topic == nil, t.TopicID != [16]byte{}
		if version < 12 && (unnamed || byID) || unnamed && !byID {
			return kerr.InvalidRequest.Code
		}
	}
	return none
}

func refusedMetadata(req *kmsg.MetadataRequest, code int16) *kmsg.MetadataResponse {
	resp := kmsg.NewPtrMetadataResponse()
	resp.ControllerID = -1
	for i := range req.Topics {
		t := kmsg.NewMetadataResponseTopic()
		t.Topic, t.TopicID, t.ErrorCode = req.Topics[i].Topic, req.Topics[i].TopicID, code
		if t.Topic == nil {
			t.Topic = new(string)
		}
		resp.Topics = append(resp.Topics, t)
	}
	resp.ErrorCode = code
	return resp
}

// controllerID is the node that clients are to send changes of the cluster to.
func (b *Broker) controllerID() int32 {
	return b.cfg.Quorum().Leader
}

// autoCreate makes the topics that are asked for by name and missing, where that is
// allowed, and returns the image that has them, and why some could not be made.
func (b *Broker) autoCreate(m *meta.Image, req *kmsg.MetadataRequest) (*meta.Image, map[string]int16) {
	var missing []controller.NewTopic
	seen := map[string]bool{}
	for i := range req.Topics {
		t := &req.Topics[i]
		if t.TopicID != [16]byte{} {
			return m, nil // Kafka looks at ids only where there are any
		}
		if t.Topic == nil || m.Topic(*t.Topic) != nil || seen[*t.Topic] || controller.CheckTopicName(*t.Topic) != nil {
			continue
		}
		seen[*t.Topic] = true
		missing = append(missing, controller.Auto(m, b.cfg.Static, *t.Topic))
	}
	if len(missing) == 0 {
		return m, nil
	}
	server := meta.ServerSettings(m, b.cfg.Static)
	if !server.AutoCreateTopics {
		return m, nil
	}
	ctx, cancel := b.within(int32(server.RequestTimeout.Milliseconds()))
	defer cancel()
	made, err := b.cfg.Controller.CreateTopics(ctx, missing, false)
	if err != nil {
		b.cfg.Logger.Warn("cannot make topics that clients asked for", "error", err)
		return b.cfg.Image(), nil
	}
	codes := map[string]int16{}
	for i := range made {
		if e := made[i].Err; e != nil && e.Kind != controller.TopicExists {
			codes[made[i].Name], _ = outcome(e, nil)
			b.cfg.Logger.Warn("cannot make a topic that a client asked for", "topic", made[i].Name, "error", e)
		}
	}
	return b.cfg.Image(), codes
}

// topicDescriber writes topics into answers, in any order and as often as it is
// asked to, always the same way.
type topicDescriber struct {
	m          *meta.Image
	operations bool
	codes      map[string]int16 // why topics could not be made
	list       []describedTopic
}

// describedTopic is a topic of an answer: one that there is, or the name or the id
// of one that there is not.
type describedTopic struct {
	topic *meta.Topic
	name  *string
	id    meta.UUID
}

// answer is the answer with topic i alone; none for -1.
func (d *topicDescriber) answer(i int) kmsg.Response {
	resp := kmsg.NewPtrMetadataResponse()
	if i >= 0 {
		resp.Topics = []kmsg.MetadataResponseTopic{d.described(&d.list[i])}
	}
	return resp
}

// ask enters the topics that a client named, each of them once. Where ids are given,
// names are not looked at.
func (d *topicDescriber) ask(topics []kmsg.MetadataRequestTopic) {
	byID := slices.ContainsFunc(topics, func(t kmsg.MetadataRequestTopic) bool { return t.TopicID != [16]byte{} })
	d.list = make([]describedTopic, 0, len(topics))
	names := make(map[string]struct{}, len(topics))
	ids := make(map[meta.UUID]struct{})
	for i := range topics {
		t := &topics[i]
		switch {
		case byID && t.TopicID != [16]byte{}:
			if _, twice := ids[t.TopicID]; twice {
				continue
			}
			ids[t.TopicID] = struct{}{}
			d.list = append(d.list, describedTopic{topic: d.m.TopicByID(t.TopicID), id: t.TopicID})
		case !byID && t.Topic != nil:
			if _, twice := names[*t.Topic]; twice {
				continue
			}
			names[*t.Topic] = struct{}{}
			d.list = append(d.list, describedTopic{topic: d.m.Topic(*t.Topic), name: t.Topic})
		}
	}
}

func (d *topicDescriber) described(t *describedTopic) kmsg.MetadataResponseTopic {
	switch {
	case t.topic != nil:
		return d.topic(t.topic)
	case t.name != nil:
		return d.missing(*t.name)
	}
	missing := kmsg.NewMetadataResponseTopic()
	missing.TopicID, missing.ErrorCode = t.id, kerr.UnknownTopicID.Code
	return missing
}

func (d *topicDescriber) missing(name string) kmsg.MetadataResponseTopic {
	missing := kmsg.NewMetadataResponseTopic()
	missing.Topic, missing.IsInternal = &name, meta.InternalTopic(name)
	missing.ErrorCode = kerr.UnknownTopicOrPartition.Code
	if controller.CheckTopicName(name) != nil {
		missing.ErrorCode = kerr.InvalidTopicException.Code
	} else if code, ok := d.codes[name]; ok {
		missing.ErrorCode = code
	}
	if d.operations {
		missing.AuthorizedOperations = topicOperations
	}
	return missing
}

func (d *topicDescriber) topic(t *meta.Topic) kmsg.MetadataResponseTopic {
	rt := kmsg.NewMetadataResponseTopic()
	rt.Topic, rt.TopicID, rt.IsInternal = &t.Name, t.ID, t.Internal()
	if d.operations {
		rt.AuthorizedOperations = topicOperations
	}
	rt.Partitions = make([]kmsg.MetadataResponseTopicPartition, len(t.Partitions))
	for i := range t.Partitions {
		p, rp := &t.Partitions[i], &rt.Partitions[i]
		rp.Partition, rp.Leader, rp.LeaderEpoch = int32(i), p.Leader, p.LeaderEpoch
		rp.Replicas, rp.ISR, rp.OfflineReplicas = p.Replicas, p.ISR, offline(d.m, p.Replicas)
		if p.Leader < 0 || d.m.Brokers[p.Leader] == nil {
			rp.Leader, rp.ErrorCode = -1, kerr.LeaderNotAvailable.Code
		}
	}
	return rt
}

// offline are the replicas whose brokers are not there.
func offline(m *meta.Image, replicas []int32) []int32 {
	var gone []int32
	for _, id := range replicas {
		if m.Brokers[id] == nil {
			gone = append(gone, id)
		}
	}
	return gone
}
