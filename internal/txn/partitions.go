package txn

import (
	"cmp"
	"slices"
	"strings"
)

// TopicPartitions are partitions of one topic.
type TopicPartitions struct {
	Topic      string
	Partitions []int32
}

// partitionSet is a set of partitions: topics by name, each with its partitions in ascending order.
// No topic is without partitions. Only dropPartition changes a set.
type partitionSet []TopicPartitions

// makeSet makes a set of any list of topics, and copies all of it.
func makeSet(list []TopicPartitions) partitionSet {
	var set partitionSet
	for _, t := range list {
		if len(t.Partitions) == 0 {
			continue
		}
		set = append(set, TopicPartitions{strings.Clone(t.Topic), slices.Clone(t.Partitions)})
	}
	slices.SortStableFunc(set, func(a, b TopicPartitions) int { return cmp.Compare(a.Topic, b.Topic) })
	out := set[:0]
	for _, t := range set {
		if n := len(out); n > 0 && out[n-1].Topic == t.Topic {
			out[n-1].Partitions = append(out[n-1].Partitions, t.Partitions...)
			continue
		}
		out = append(out, t)
	}
	for i := range out {
		slices.Sort(out[i].Partitions)
		out[i].Partitions = slices.Compact(out[i].Partitions)
	}
	return slices.Clip(out)
}

func (set partitionSet) findTopic(topic string) (int, bool) {
	return slices.BinarySearchFunc(set, topic, func(t TopicPartitions, name string) int { return cmp.Compare(t.Topic, name) })
}

// has tells whether a partition is in the set.
func (set partitionSet) has(topic string, partition int32) bool {
	i, ok := set.findTopic(topic)
	if ok {
		_, ok = slices.BinarySearch(set[i].Partitions, partition)
	}
	return ok
}

// hasAll tells whether all partitions of another set are in the set.
func (set partitionSet) hasAll(more partitionSet) bool {
	for _, t := range more {
		for _, p := range t.Partitions {
			if !set.has(t.Topic, p) {
				return false
			}
		}
	}
	return true
}

// union is a new set with the partitions of both.
func (set partitionSet) union(more partitionSet) partitionSet {
	return makeSet(slices.Concat(set, more))
}

// countPartitions is the number of partitions.
func (set partitionSet) countPartitions() (n int) {
	for _, t := range set {
		n += len(t.Partitions)
	}
	return n
}

// dropPartition removes a partition from the set in place, if it is there, and returns the set.
func (set partitionSet) dropPartition(topic string, partition int32) partitionSet {
	i, ok := set.findTopic(topic)
	if !ok {
		return set
	}
	j, ok := slices.BinarySearch(set[i].Partitions, partition)
	if !ok {
		return set
	}
	set[i].Partitions = slices.Delete(set[i].Partitions, j, j+1)
	if len(set[i].Partitions) == 0 {
		return slices.Delete(set, i, i+1)
	}
	return set
}

// copyLists is the set for others, who read it while this one changes.
func (set partitionSet) copyLists() []TopicPartitions {
	list := make([]TopicPartitions, len(set))
	for i, t := range set {
		list[i] = TopicPartitions{t.Topic, slices.Clone(t.Partitions)}
	}
	return list
}
