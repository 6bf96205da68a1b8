package missing

import (
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/meta"
)

// AlterPartitionReassignments, key 45, versions 0 to 1. ListPartitionReassignments,
// key 46, version 0 (KIP-455).
//
// 1: a client may forbid that the number of replicas changes (KIP-860). Replicas cannot be
// moved yet: a partition can be assigned only the replicas that it has, and no reassignment
// is ever in progress.

func alterPartitionReassignments(n Node, kreq kmsg.Request) Answer {
	req, _ := kreq.(*kmsg.AlterPartitionAssignmentsRequest)
	var size Memory
	for i := range req.Topics {
		size.AddPartitions(req.Topics[i].Topic, len(req.Topics[i].Partitions))
	}
	return Answer{Memory: size, Make: func(pass func()) kmsg.Response {
		m := n.Image
		resp := kmsg.NewPtrAlterPartitionAssignmentsResponse()
		resp.AllowReplicationFactorChange = req.AllowReplicationFactorChange
		if len(req.Topics) == 0 {
			resp.ErrorMessage = new(string) // empty, not null, as in Kafka
		}
		for i := range req.Topics {
			pass()
			t := &req.Topics[i]
			rt := kmsg.AlterPartitionAssignmentsResponseTopic{Topic: t.Topic, Partitions: make([]kmsg.AlterPartitionAssignmentsResponseTopicPartition, len(t.Partitions))}
			for j := range t.Partitions {
				pass()
				rp := &rt.Partitions[j]
				rp.Partition = t.Partitions[j].Partition
				rp.ErrorCode, rp.ErrorMessage = judgeReassignment(m, t.Topic, &t.Partitions[j], req.AllowReplicationFactorChange)
			}
			resp.Topics = append(resp.Topics, rt)
		}
		return resp
	}}
}

// judgeReassignment returns the code and the message for a partition that is to have other
// replicas. Replicas of null would cancel its reassignment.
func judgeReassignment(m *meta.Image, topic string, target *kmsg.AlterPartitionAssignmentsRequestTopicPartition, mayChangeFactor bool) (code int16, message *string) {
	t := m.Topic(topic)
	if t == nil {
		return kerr.UnknownTopicOrPartition.Code, new(fmt.Sprintf("Unable to find a topic named %s.", topic))
	}
	if target.Partition < 0 || int(target.Partition) >= len(t.Partitions) {
		return kerr.UnknownTopicOrPartition.Code, new(fmt.Sprintf("Unable to find partition %s:%d.", topic, target.Partition))
	}
	if target.Replicas == nil {
		return kerr.NoReassignmentInProgress.Code, nil
	}
	if reason := checkReplicas(m, target.Replicas); reason != "" {
		return kerr.InvalidReplicaAssignment.Code, &reason
	}
	now := t.Partitions[target.Partition].Replicas
	if !mayChangeFactor && len(now) != len(target.Replicas) {
		return kerr.InvalidReplicationFactor.Code, new(fmt.Sprintf("The replication factor is changed from %d to %d", len(now), len(target.Replicas)))
	}
	if !slices.Equal(now, target.Replicas) {
		return kerr.InvalidReplicaAssignment.Code, new("This version does not move replicas to other brokers yet.")
	}
	return 0, nil
}

// checkReplicas returns what is wrong with the brokers that are to have a partition.
func checkReplicas(m *meta.Image, replicas []int32) string {
	if len(replicas) == 0 {
		return "The manual partition assignment includes an empty replica list."
	}
	sorted := slices.Sorted(slices.Values(replicas))
	for i, id := range sorted {
		if m.Brokers[id] == nil {
			return fmt.Sprintf("The manual partition assignment includes broker %d, but no such broker is registered.", id)
		}
		if i > 0 && id == sorted[i-1] {
			return fmt.Sprintf("The manual partition assignment includes the broker %d more than once.", id)
		}
	}
	return ""
}

func listPartitionReassignments(Node, kmsg.Request) Answer {
	return fixedAnswer(kmsg.NewPtrListPartitionReassignmentsResponse())
}
