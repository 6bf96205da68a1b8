package controller

import (
	"slices"

	"github.com/leatstream/leat/internal/meta"
)

// activeBrokers are the ids of the active brokers, in order. Others get no replicas and
// lead no partitions.
func activeBrokers(m *meta.Image) []int32 {
	ids := make([]int32, 0, len(m.Brokers))
	for id, b := range m.Brokers {
		if b.State == meta.BrokerActive {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// placeReplicas chooses brokers for count partitions, the first of which has the number
// first. The active brokers form a circle: the replicas of a partition are neighbours
// in it, and each partition begins one broker after the one before. start turns the
// circle, so that topics with one partition do not all begin at the same broker.
func placeReplicas(m *meta.Image, start, first, count int, factor int16) ([]meta.Partition, *Error) {
	ids := activeBrokers(m)
	n := len(ids)
	if n == 0 {
		return nil, refuse(InvalidReplicationFactor, "Unable to replicate the partition %d time(s): "+
			"All brokers are currently fenced.", factor)
	}
	if int(factor) > n {
		return nil, refuse(InvalidReplicationFactor, "Unable to replicate the partition %d time(s): "+
			"The target replication factor of %d cannot be reached because only %d broker(s) are registered "+
			"or some brokers have all their log directories cordoned.", factor, factor, n)
	}
	parts := make([]meta.Partition, count)
	circle := make([][]int32, n) // the replicas of the partitions that begin at each broker; they share the list
	for i := range parts {
		at := (start + first + i) % n
		if circle[at] == nil {
			for r := range int(factor) {
				circle[at] = append(circle[at], ids[(at+r)%n])
			}
		}
		parts[i] = meta.Partition{Replicas: circle[at], ISR: circle[at], Leader: circle[at][0]}
	}
	return parts, nil
}

// nextStart returns the start with which placeReplicas puts a topic's next partition
// one broker after its last one.
func nextStart(m *meta.Image, t *meta.Topic) int {
	ids, have := activeBrokers(m), len(t.Partitions)
	n := len(ids)
	at, _ := slices.BinarySearch(ids, t.Partitions[have-1].Replicas[0])
	return at + 1 + have*n - have // have*n keeps it from being negative
}

// checkAssignment makes a partition of a list of replicas that the client chose, or
// refuses it. factor is the number of replicas of the topic's other partitions, or 0 if
// there are none yet.
func checkAssignment(m *meta.Image, replicas []int32, factor int) (meta.Partition, *Error) {
	if len(replicas) == 0 {
		return meta.Partition{}, refuse(InvalidAssignment, "The manual partition assignment includes an empty replica list.")
	}
	sorted := slices.Sorted(slices.Values(replicas))
	for i, id := range sorted {
		if m.Brokers[id] == nil {
			return meta.Partition{}, refuse(InvalidAssignment, "The manual partition assignment includes broker %d, "+
				"but no such broker is registered.", id)
		}
		if i > 0 && sorted[i-1] == id {
			return meta.Partition{}, refuse(InvalidAssignment, "The manual partition assignment includes the broker %d "+
				"more than once.", id)
		}
	}
	if factor != 0 && len(replicas) != factor {
		return meta.Partition{}, refuse(InvalidAssignment, "The manual partition assignment includes a partition with %d replica(s), "+
			"but this is not consistent with previous partitions, which have %d replica(s).", len(replicas), factor)
	}
	p := meta.Partition{Replicas: slices.Clone(replicas)}
	for _, id := range p.Replicas {
		if m.Brokers[id].State == meta.BrokerActive {
			p.ISR = append(p.ISR, id)
		}
	}
	if len(p.ISR) == 0 {
		return meta.Partition{}, refuse(InvalidAssignment, "All brokers specified in the manual partition assignment "+
			"are fenced or in controlled shutdown.")
	}
	p.Leader = p.ISR[0]
	return p, nil
}
