package broker

import (
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/broker/missing"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// ElectLeaders, key 43, versions 0 to 2 (KIP-460).
//
// 1: kinds of elections. 2: flexible. While each partition has one replica there is no
// choice: either that replica leads, or there is none that could.

// The kinds of elections.
const (
	preferredElection = 0
	uncleanElection   = 1
)

func (b *Broker) electLeaders(_ *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.ElectLeadersRequest)
	m := b.cfg.Image()
	if req.Topics == nil {
		return b.electAll(r, m, req.ElectionType)
	}
	var size missing.Memory
	for i := range req.Topics {
		size.AddPartitions(req.Topics[i].Topic, len(req.Topics[i].Partitions))
	}
	return b.replyAnswer(r, missing.Answer{Memory: size, Make: func(pass func()) kmsg.Response {
		resp := kmsg.NewPtrElectLeadersResponse()
		for i := range req.Topics {
			pass()
			t := &req.Topics[i]
			rt := kmsg.ElectLeadersResponseTopic{Topic: t.Topic, Partitions: make([]kmsg.ElectLeadersResponseTopicPartition, len(t.Partitions))}
			for j, p := range t.Partitions {
				pass()
				rt.Partitions[j] = electLeader(m.Topic(t.Topic), req.ElectionType, t.Topic, p)
			}
			resp.Topics = append(resp.Topics, rt)
		}
		if !isKnownElection(req.ElectionType) {
			resp.ErrorCode = kerr.InvalidRequest.Code
		}
		return resp
	}})
}

func isKnownElection(kind int8) bool { return kind == preferredElection || kind == uncleanElection }

// electAll answers for all partitions of the cluster. Each topic is in the answer, with those
// of its partitions for which an election is needed and has failed.
func (b *Broker) electAll(r *wire.Request, m *meta.Image, kind int8) error {
	whole := kmsg.NewPtrElectLeadersResponse()
	if !isKnownElection(kind) {
		whole.ErrorCode = kerr.InvalidRequest.Code
		r.Reply(whole)
		return nil
	}
	topics := slices.Collect(m.Topics())
	memory := topicMemory*int64(m.NumTopics()) + partitionMemory*int64(m.NumPartitions())
	return b.replyList(r, whole, list{n: len(topics), memory: memory, answerWith: func(i int) kmsg.Response {
		resp := kmsg.NewPtrElectLeadersResponse()
		if i < 0 {
			return resp
		}
		rt := kmsg.ElectLeadersResponseTopic{Topic: topics[i].Name}
		for n := range topics[i].Partitions {
			if !hasElected(&topics[i].Partitions[n], kind) {
				rt.Partitions = append(rt.Partitions, electLeader(topics[i], kind, rt.Topic, int32(n)))
			}
		}
		resp.Topics = []kmsg.ElectLeadersResponseTopic{rt}
		return resp
	}})
}

// hasElected tells whether the partition has the leader that this kind of election would give
// it.
func hasElected(p *meta.Partition, kind int8) bool {
	if kind == uncleanElection {
		return p.Leader >= 0
	}
	return len(p.Replicas) > 0 && p.Leader == p.Replicas[0]
}

func electLeader(t *meta.Topic, kind int8, topic string, partition int32) kmsg.ElectLeadersResponseTopicPartition {
	refused := func(e *kerr.Error, message string) kmsg.ElectLeadersResponseTopicPartition {
		return kmsg.ElectLeadersResponseTopicPartition{Partition: partition, ErrorCode: e.Code, ErrorMessage: &message}
	}
	switch {
	case !isKnownElection(kind):
		return refused(kerr.InvalidRequest, fmt.Sprintf("Unknown election type %d", kind))
	case t == nil:
		return refused(kerr.UnknownTopicOrPartition, "No such topic as "+topic)
	case partition < 0 || int(partition) >= len(t.Partitions):
		return refused(kerr.UnknownTopicOrPartition, fmt.Sprintf("No such partition as %s-%d", topic, partition))
	case hasElected(&t.Partitions[partition], kind):
		return refused(kerr.ElectionNotNeeded, "Leader election not needed for topic partition.")
	case kind == uncleanElection:
		return refused(kerr.EligibleLeadersNotAvailable, kerr.EligibleLeadersNotAvailable.Description)
	}
	return refused(kerr.PreferredLeaderNotAvailable, kerr.PreferredLeaderNotAvailable.Description)
}
