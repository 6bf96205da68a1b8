package broker

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/broker/missing"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// ElectLeaders, key 43, versions 0 to 2 (KIP-460).
//
// 1: kinds of elections. 2: flexible. The preferred replica becomes the leader if it is in sync.
// An unclean election is for partitions without a leader, which may lose records by it.

// The kinds of elections.
const (
	preferredElection = 0
	uncleanElection   = 1
)

func (b *Broker) electLeaders(d *decision, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.ElectLeadersRequest)
	if req.Topics == nil {
		return b.electAll(d, r, req)
	}
	if err := b.checkAnswerSize(sizeOfElections(req)); err != nil && req.Version > 0 { // version 0 has no code for the whole
		resp := kmsg.NewPtrElectLeadersResponse()
		resp.ErrorCode, _ = outcomeOf(nil, err)
		r.Reply(resp)
		return nil
	}
	var results []controller.ElectionResult
	var failed error
	run := func() error {
		if !isKnownElection(req.ElectionType) {
			return nil
		}
		var asked []controller.Partition
		for i := range req.Topics {
			for _, p := range req.Topics[i].Partitions {
				asked = append(asked, controller.Partition{Topic: req.Topics[i].Topic, Number: p})
			}
		}
		ctx, cancel := d.withTimeout(req.TimeoutMillis)
		defer cancel()
		results, failed = d.ElectLeaders(ctx, asked, req.ElectionType == uncleanElection)
		if d.isElsewhere(failed) {
			return failed
		}
		return nil
	}
	return b.replyCommand(r, run, missing.Answer{Memory: sizeOfElections(req), Make: func(pass func()) kmsg.Response {
		resp := kmsg.NewPtrElectLeadersResponse()
		next := 0
		for i := range req.Topics {
			pass()
			t := &req.Topics[i]
			rt := kmsg.ElectLeadersResponseTopic{Topic: t.Topic, Partitions: make([]kmsg.ElectLeadersResponseTopicPartition, len(t.Partitions))}
			for j, p := range t.Partitions {
				pass()
				rp := &rt.Partitions[j]
				rp.Partition = p
				if len(results) == 0 {
					rp.ErrorCode, rp.ErrorMessage = describeFailedElection(req.ElectionType, failed)
					continue
				}
				rp.ErrorCode, rp.ErrorMessage = outcomeOf(results[next].Err, nil)
				next++
			}
			resp.Topics = append(resp.Topics, rt)
		}
		if failed != nil || !isKnownElection(req.ElectionType) {
			resp.ErrorCode, _ = describeFailedElection(req.ElectionType, failed)
		}
		return resp
	}})
}

func sizeOfElections(req *kmsg.ElectLeadersRequest) (size missing.Memory) {
	for i := range req.Topics {
		size.AddPartitions(req.Topics[i].Topic, len(req.Topics[i].Partitions))
	}
	return size
}

func isKnownElection(kind int8) bool { return kind == preferredElection || kind == uncleanElection }

// describeFailedElection is the code and the message of a request that failed as a whole.
func describeFailedElection(kind int8, failed error) (code int16, message *string) {
	if !isKnownElection(kind) {
		return kerr.InvalidRequest.Code, new(fmt.Sprintf("Unknown election type %d", kind))
	}
	return outcomeOf(nil, failed)
}

// electedTopic has the results of the elections in one topic.
type electedTopic struct {
	name    string
	numbers []int32
	refused []controller.Kind // 0: a leader was elected
}

// electAll elects the leaders of all partitions of the cluster that need it. Each topic is in the
// answer, with those of its partitions. One request at a time looks at all partitions, until the memory of
// its answer is reserved.
func (b *Broker) electAll(d *decision, r *wire.Request, req *kmsg.ElectLeadersRequest) error {
	whole := kmsg.NewPtrElectLeadersResponse()
	if !isKnownElection(req.ElectionType) {
		whole.ErrorCode = kerr.InvalidRequest.Code
		r.Reply(whole)
		return nil
	}
	ctx, cancel := d.withTimeout(req.TimeoutMillis)
	defer cancel()
	var topics []electedTopic
	var err error
	select {
	case b.electingAll <- struct{}{}:
		defer func() { <-b.electingAll }()
		topics, err = electNeeded(ctx, d, b.cfg.Image(), req.ElectionType)
	case <-ctx.Done():
		err = ctx.Err()
	}
	if d.isElsewhere(err) {
		return err
	}
	if err != nil {
		whole.ErrorCode = commandError(err).Code
		r.Reply(whole)
		return nil
	}
	memory := topicMemory * int64(len(topics))
	for i := range topics {
		memory += electionMemory * int64(len(topics[i].numbers))
	}
	return b.replyList(r, whole, list{n: len(topics), memory: memory, answerWith: func(i int) kmsg.Response {
		resp := kmsg.NewPtrElectLeadersResponse()
		if i >= 0 {
			resp.Topics = []kmsg.ElectLeadersResponseTopic{topics[i].describe()}
		}
		return resp
	}})
}

const (
	electionsAtOnce = 1000 // partitions for which one command elects leaders
	electionMemory  = 8    // bytes that the result of one election keeps
)

// electNeeded elects leaders where this kind of election is needed. The result has all topics.
func electNeeded(ctx context.Context, d *decision, m *meta.Image, kind int8) ([]electedTopic, error) {
	topics := make([]electedTopic, 0, m.NumTopics())
	var asked []controller.Partition
	var of []int // the topics of those
	elect := func() error {
		results, err := d.ElectLeaders(ctx, asked, kind == uncleanElection)
		if err != nil {
			return err
		}
		for i, e := range results {
			refused := controller.Kind(0)
			if e.Err != nil {
				refused = e.Err.Kind
			}
			if refused != controller.ElectionNotNeeded { // else it was elected meanwhile
				t := &topics[of[i]]
				t.numbers, t.refused = append(t.numbers, e.Number), append(t.refused, refused)
			}
		}
		asked, of = asked[:0], of[:0]
		return nil
	}
	for t := range m.Topics() {
		topics = append(topics, electedTopic{name: t.Name})
		for i := range t.Partitions {
			if hasElected(&t.Partitions[i], kind) {
				continue
			}
			asked, of = append(asked, controller.Partition{Topic: t.Name, Number: int32(i)}), append(of, len(topics)-1)
			if len(asked) < electionsAtOnce {
				continue
			}
			if err := elect(); err != nil {
				return nil, err
			}
		}
	}
	return topics, elect()
}

// hasElected tells whether the partition has the leader that this kind of election would give
// it.
func hasElected(p *meta.Partition, kind int8) bool {
	if kind == uncleanElection {
		return p.Leader >= 0
	}
	return len(p.Replicas) > 0 && p.Leader == p.Replicas[0]
}

func (t *electedTopic) describe() kmsg.ElectLeadersResponseTopic {
	rt := kmsg.ElectLeadersResponseTopic{Topic: t.name, Partitions: make([]kmsg.ElectLeadersResponseTopicPartition, len(t.numbers))}
	for i, n := range t.numbers {
		rp := &rt.Partitions[i]
		if rp.Partition = n; t.refused[i] != 0 {
			rp.ErrorCode, rp.ErrorMessage = outcomeOf(&controller.Error{Kind: t.refused[i]}, nil)
		}
	}
	return rt
}
