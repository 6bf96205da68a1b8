package broker

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/broker/missing"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/wire"
)

// AlterPartitionReassignments, key 45, versions 0 to 1. ListPartitionReassignments,
// key 46, version 0 (KIP-455).
//
// 1: a client may forbid that the number of replicas changes (KIP-860). Replicas of null cancel
// the reassignment of a partition.

func (b *Broker) alterPartitionReassignments(d *decision, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.AlterPartitionAssignmentsRequest)
	if err := b.checkAnswerSize(sizeOfReassignments(req)); err != nil {
		resp := kmsg.NewPtrAlterPartitionAssignmentsResponse()
		resp.ErrorCode, resp.ErrorMessage = outcomeOf(nil, err)
		r.Reply(resp)
		return nil
	}
	var results []*controller.Error
	var failed error
	run := func() error {
		var asked []controller.Reassignment
		for i := range req.Topics {
			t := &req.Topics[i]
			for j := range t.Partitions {
				p := &t.Partitions[j]
				asked = append(asked, controller.Reassignment{Partition: controller.Partition{Topic: t.Topic, Number: p.Partition}, Replicas: p.Replicas})
			}
		}
		ctx, cancel := d.withTimeout(req.TimeoutMillis)
		defer cancel()
		results, failed = d.AlterReassignments(ctx, asked, req.AllowReplicationFactorChange)
		if d.isElsewhere(failed) {
			return failed
		}
		return nil
	}
	return b.replyCommand(r, run, missing.Answer{Memory: sizeOfReassignments(req), Make: func(pass func()) kmsg.Response {
		resp := kmsg.NewPtrAlterPartitionAssignmentsResponse()
		resp.AllowReplicationFactorChange = req.AllowReplicationFactorChange
		if len(req.Topics) == 0 {
			resp.ErrorMessage = new(string) // empty, not null, as in Kafka
		}
		if failed != nil {
			resp.ErrorCode, resp.ErrorMessage = outcomeOf(nil, failed)
		}
		next := 0
		for i := range req.Topics {
			pass()
			t := &req.Topics[i]
			rt := kmsg.AlterPartitionAssignmentsResponseTopic{Topic: t.Topic, Partitions: make([]kmsg.AlterPartitionAssignmentsResponseTopicPartition, len(t.Partitions))}
			for j := range t.Partitions {
				pass()
				rp := &rt.Partitions[j]
				rp.Partition = t.Partitions[j].Partition
				var refused *controller.Error
				if failed == nil {
					refused = results[next]
					next++
				}
				rp.ErrorCode, rp.ErrorMessage = outcomeOf(refused, failed)
				if refused != nil && refused.Kind == controller.NoReassignment {
					rp.ErrorMessage = nil // as in Kafka
				}
			}
			resp.Topics = append(resp.Topics, rt)
		}
		return resp
	}})
}

func sizeOfReassignments(req *kmsg.AlterPartitionAssignmentsRequest) (size missing.Memory) {
	for i := range req.Topics {
		size.AddPartitions(req.Topics[i].Topic, len(req.Topics[i].Partitions))
	}
	return size
}

func (b *Broker) listPartitionReassignments(_ *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.ListPartitionReassignmentsRequest)
	rules := controller.Rules{Image: b.cfg.Image()}
	if req.Topics == nil {
		topics := groupReassignments(rules.ListReassignments(nil))
		memory := int64(0)
		for i := range topics {
			memory += topicMemory + partitionMemory*int64(len(topics[i].Partitions))
		}
		return b.replyList(r, kmsg.NewPtrListPartitionReassignmentsResponse(), list{n: len(topics), memory: memory, answerWith: func(i int) kmsg.Response {
			resp := kmsg.NewPtrListPartitionReassignmentsResponse()
			if i >= 0 {
				resp.Topics = topics[i : i+1]
			}
			return resp
		}})
	}
	var size missing.Memory
	for i := range req.Topics {
		size.AddPartitions(req.Topics[i].Topic, len(req.Topics[i].Partitions))
	}
	return b.replyAnswer(r, missing.Answer{Memory: size, Make: func(pass func()) kmsg.Response {
		resp := kmsg.NewPtrListPartitionReassignmentsResponse()
		for i := range req.Topics {
			pass()
			asked := make([]controller.Partition, 0, len(req.Topics[i].Partitions))
			for _, p := range req.Topics[i].Partitions {
				pass()
				asked = append(asked, controller.Partition{Topic: req.Topics[i].Topic, Number: p})
			}
			resp.Topics = append(resp.Topics, groupReassignments(rules.ListReassignments(asked))...)
		}
		return resp
	}})
}

// groupReassignments groups reassignments, which are ordered by their topics.
func groupReassignments(under []controller.OngoingReassignment) (topics []kmsg.ListPartitionReassignmentsResponseTopic) {
	for i := range under {
		u := &under[i]
		if n := len(topics); n == 0 || topics[n-1].Topic != u.Topic {
			topics = append(topics, kmsg.ListPartitionReassignmentsResponseTopic{Topic: u.Topic})
		}
		t := &topics[len(topics)-1]
		t.Partitions = append(t.Partitions, kmsg.ListPartitionReassignmentsResponseTopicPartition{
			Partition: u.Number, Replicas: u.Replicas, AddingReplicas: u.Adding, RemovingReplicas: u.Removing,
		})
	}
	return topics
}
