package source

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// TopicID is the id of a topic; all zero: the source has none (before Apache Kafka 2.8).
type TopicID [16]byte

// Cluster is what a source says of itself.
type Cluster struct {
	ID      string
	Brokers []Broker
	Topics  []Topic // those that were asked for, and those that the client may see of all
}

// Broker is a node of a source, by the address that it advertises.
type Broker struct {
	ID   int32
	Host string
	Port int32
	Rack string // "": it has none
}

// Topic is a topic of a source.
type Topic struct {
	Name       string
	ID         TopicID
	IsInternal bool
	Partitions []Partition // by number
	Err        error       // why nothing is known of it: a kerr.Error
}

// Partition is a partition of a source.
type Partition struct {
	Number      int32
	Leader      int32 // -1: none
	LeaderEpoch int32 // -1: the source does not tell
	Replicas    []int32
	Err         error // why it cannot be read now: a kerr.Error
}

// Describe describes the cluster and topics by their names; nil: all of them.
func (s *Client) Describe(ctx context.Context, names []string) (*Cluster, error) {
	return s.DescribeBy(ctx, anyBroker, names)
}

// DescribeBy is Describe by a broker of which the client knows.
func (s *Client) DescribeBy(ctx context.Context, broker int32, names []string) (*Cluster, error) {
	q := kmsg.NewPtrMetadataRequest()
	q.AllowAutoTopicCreation = false
	if names != nil {
		q.Topics = []kmsg.MetadataRequestTopic{}
	}
	for _, name := range names {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = &name
		q.Topics = append(q.Topics, t)
	}
	r, err := ask[*kmsg.MetadataResponse](ctx, s, broker, q)
	if err != nil {
		return nil, fmt.Errorf("asking the source for its topics: %w", err)
	}
	c := &Cluster{}
	if r.ClusterID != nil {
		c.ID = *r.ClusterID
	}
	for i := range r.Brokers {
		b := &r.Brokers[i]
		one := Broker{ID: b.NodeID, Host: b.Host, Port: b.Port}
		if b.Rack != nil {
			one.Rack = *b.Rack
		}
		c.Brokers = append(c.Brokers, one)
	}
	for i := range r.Topics {
		t := &r.Topics[i]
		one := Topic{ID: t.TopicID, IsInternal: t.IsInternal, Err: errorOf(t.ErrorCode)}
		if t.Topic != nil {
			one.Name = *t.Topic
		}
		one.Partitions = partitionsOf(t)
		c.Topics = append(c.Topics, one)
	}
	return c, nil
}

// partitionsOf are the partitions of an answer, in the order of their numbers. Those that the answer lacks have no leader.
func partitionsOf(t *kmsg.MetadataResponseTopic) []Partition {
	all := make([]Partition, len(t.Partitions))
	for i := range all {
		all[i] = Partition{Number: int32(i), Leader: -1, LeaderEpoch: -1}
	}
	for i := range t.Partitions {
		p := &t.Partitions[i]
		if p.Partition < 0 || int(p.Partition) >= len(all) {
			continue
		}
		all[p.Partition] = Partition{Number: p.Partition, Leader: p.Leader, LeaderEpoch: p.LeaderEpoch, Replicas: p.Replicas, Err: errorOf(p.ErrorCode)}
	}
	return all
}
