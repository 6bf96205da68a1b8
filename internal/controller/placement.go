package controller

import (
	"slices"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/place"
)

// placeReplicas chooses brokers for count more partitions; start turns the circle of
// brokers, so that topics with one partition do not all begin at the same broker. Fenced
// brokers get replicas if there are not enough active ones, as in Kafka; they are not in sync.
func placeReplicas(m *meta.Image, load place.Load, start, count int, factor int16) ([]meta.Partition, *Error) {
	brokers := place.Brokers(m)
	if place.CountActive(brokers) == 0 {
		return nil, refuse(InvalidReplicationFactor, "Unable to replicate the partition %d time(s): "+
			"All brokers are currently fenced.", factor)
	}
	if int(factor) > len(brokers) {
		return nil, refuse(InvalidReplicationFactor, "Unable to replicate the partition %d time(s): "+
			"The target replication factor of %d cannot be reached because only %d broker(s) are registered "+
			"or some brokers have all their log directories cordoned.", factor, factor, len(brokers))
	}
	parts := make([]meta.Partition, count)
	for i, replicas := range place.Spread(brokers, load, start, count, int(factor)) {
		parts[i] = newPartition(m, replicas)
	}
	return parts, nil
}

// newPartition is a partition with these replicas: the active ones are in sync, and the first
// of them leads.
func newPartition(m *meta.Image, replicas []int32) meta.Partition {
	p := meta.Partition{Replicas: replicas, ISR: slices.DeleteFunc(slices.Clone(replicas), func(id int32) bool {
		return m.Brokers[id].State != meta.BrokerActive
	})}
	if len(p.ISR) > 0 {
		p.Leader = p.ISR[0]
	}
	return p
}

// placeMore chooses brokers for more partitions of a topic.
func placeMore(m *meta.Image, t *meta.Topic, more int) ([]meta.Partition, *Error) {
	load := place.Load{}
	load.AddTopic(t)
	last := &t.Partitions[len(t.Partitions)-1]
	start := place.StartAfter(place.Brokers(m), last.Replicas[0])
	return placeReplicas(m, load, start, more, int16(place.Factor(&t.Partitions[0])))
}

// checkAssignment makes a partition of a list of replicas that the client chose, or
// refuses it. factor is the number of replicas of the topic's other partitions, or 0 if
// there are none yet.
func checkAssignment(m *meta.Image, replicas []int32, factor int) (meta.Partition, *Error) {
	if err := checkReplicas(m, replicas, factor); err != nil {
		return meta.Partition{}, err
	}
	p := newPartition(m, slices.Clone(replicas))
	if len(p.ISR) == 0 {
		return meta.Partition{}, refuse(InvalidAssignment, "All brokers specified in the manual partition assignment "+
			"are fenced or in controlled shutdown.")
	}
	return p, nil
}

// checkReplicas refuses a list of replicas that the client chose; see checkAssignment.
func checkReplicas(m *meta.Image, replicas []int32, factor int) *Error {
	if len(replicas) == 0 {
		return refuse(InvalidAssignment, "The manual partition assignment includes an empty replica list.")
	}
	sorted := slices.Sorted(slices.Values(replicas))
	for i, id := range sorted {
		if m.Brokers[id] == nil {
			return refuse(InvalidAssignment, "The manual partition assignment includes broker %d, "+
				"but no such broker is registered.", id)
		}
		if i > 0 && sorted[i-1] == id {
			return refuse(InvalidAssignment, "The manual partition assignment includes the broker %d "+
				"more than once.", id)
		}
	}
	if factor != 0 && len(replicas) != factor {
		return refuse(InvalidAssignment, "The manual partition assignment includes a partition with %d replica(s), "+
			"but this is not consistent with previous partitions, which have %d replica(s).", len(replicas), factor)
	}
	return nil
}
