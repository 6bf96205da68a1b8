package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Topic is a topic that is to be created.
type Topic struct {
	Name        string
	Partitions  int      // at least 1
	Replication int      // -1: the broker's default
	Configs     []string // name=value
}

// Layout says which brokers lead a topic's partitions.
type Layout struct {
	Leaders []string // by partition: its leader's address; "": it has none
}

// The leaders of an existing topic must be known within foundWithin, and those of a new topic
// within madeWithin: Apache Kafka needs 10 ms for each partition.
const foundWithin, madeWithin = 2 * time.Second, 3 * time.Minute

// FindTopic asks for a topic's layout until all its leaders are known. The error for a missing
// topic is kerr.UnknownTopicOrPartition.
func (c *Conn) FindTopic(ctx context.Context, name string) (*Layout, error) {
	var l *Layout
	err := retryUntil(ctx, time.Now().Add(foundWithin), func() (err error) {
		l, err = c.LookUpTopic(ctx, name)
		return err
	}, func(err error) bool { return kerr.IsRetriable(err) && !errors.Is(err, kerr.UnknownTopicOrPartition) })
	return l, err
}

// MakeTopic creates a topic and waits until all its leaders serve: Apache Kafka has them in its
// metadata before they do. The error for an existing topic is kerr.TopicAlreadyExists.
func (c *Conn) MakeTopic(ctx context.Context, t Topic) error {
	err := c.AtController(ctx, func(c *Conn) error { return c.createTopic(ctx, t) })
	if err == nil {
		err = retryUntil(ctx, time.Now().Add(madeWithin), func() error {
			l, err := c.LookUpTopic(ctx, t.Name)
			if err != nil {
				return err
			}
			return checkLeaders(ctx, t.Name, l)
		}, kerr.IsRetriable)
	}
	if err != nil {
		return fmt.Errorf("make topic %s: %w", t.Name, err)
	}
	return nil
}

// retryUntil calls do until it succeeds, returns an error that will not pass, or the deadline
// is over.
func retryUntil(ctx context.Context, deadline time.Time, do func() error, passes func(error) bool) error {
	const atMost = time.Second / 2
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, atMost) {
		err := do()
		if err == nil || !passes(err) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// checkLeaders asks all leaders of a topic for its end offsets, which they can tell only once
// they serve.
func checkLeaders(ctx context.Context, topic string, l *Layout) error {
	of := map[string][]int32{}
	for p, addr := range l.Leaders {
		of[addr] = append(of[addr], int32(p))
	}
	if n := len(of[""]); n > 0 {
		return fmt.Errorf("%d partitions of %s: %w", n, topic, kerr.LeaderNotAvailable)
	}
	for addr, partitions := range of {
		leader, err := Dial(ctx, addr)
		if err != nil {
			return err
		}
		_, err = leader.Offsets(ctx, topic, partitions, Latest)
		leader.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// LookUpTopic asks once for a topic's layout.
func (c *Conn) LookUpTopic(ctx context.Context, name string) (*Layout, error) {
	req := kmsg.NewPtrMetadataRequest()
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = &name
	req.Topics = append(req.Topics, t)
	answer, err := c.Call(ctx, req)
	if err != nil {
		return nil, err
	}
	resp, _ := answer.(*kmsg.MetadataResponse)
	if len(resp.Topics) != 1 {
		return nil, errors.New("the broker did not answer for the topic")
	}
	if err := kerr.ErrorForCode(resp.Topics[0].ErrorCode); err != nil {
		return nil, err
	}
	brokers := map[int32]string{}
	for _, b := range resp.Brokers {
		brokers[b.NodeID] = net.JoinHostPort(b.Host, fmt.Sprint(b.Port))
	}
	l := &Layout{}
	partitions := resp.Topics[0].Partitions
	slices.SortFunc(partitions, func(a, b kmsg.MetadataResponseTopicPartition) int { return int(a.Partition - b.Partition) })
	for _, p := range partitions {
		if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
			return nil, err
		}
		l.Leaders = append(l.Leaders, brokers[p.Leader])
	}
	return l, nil
}

// AtController calls do, which only a controller can answer, with this broker, or with the
// controller if this broker is not it.
func (c *Conn) AtController(ctx context.Context, do func(c *Conn) error) error {
	err := do(c)
	if !errors.Is(err, kerr.NotController) {
		return err
	}
	resp, err := c.Cluster(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(resp.Brokers, func(b kmsg.MetadataResponseBroker) bool { return b.NodeID == resp.ControllerID })
	if i < 0 {
		return errors.New("the cluster has no controller at the moment")
	}
	controller, err := Dial(ctx, net.JoinHostPort(resp.Brokers[i].Host, fmt.Sprint(resp.Brokers[i].Port)))
	if err != nil {
		return err
	}
	defer controller.Close()
	return do(controller)
}

// Cluster asks for the brokers and the controller.
func (c *Conn) Cluster(ctx context.Context) (*kmsg.MetadataResponse, error) {
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{} // none, not all
	answer, err := c.Call(ctx, req)
	if err != nil {
		return nil, err
	}
	resp, _ := answer.(*kmsg.MetadataResponse)
	return resp, nil
}

func (c *Conn) createTopic(ctx context.Context, t Topic) error {
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = int32(CallWithin.Milliseconds())
	req.Topics = append(req.Topics, c.NewTopic(t))
	answer, err := c.Call(ctx, req)
	if err != nil {
		return err
	}
	resp, _ := answer.(*kmsg.CreateTopicsResponse)
	for i := range resp.Topics {
		if err := CreateError(&resp.Topics[i]); err != nil {
			return err
		}
	}
	return nil
}

// NewTopic is the topic's entry in a CreateTopics request.
func (c *Conn) NewTopic(t Topic) kmsg.CreateTopicsRequestTopic {
	req := kmsg.NewCreateTopicsRequestTopic()
	req.Topic, req.NumPartitions, req.ReplicationFactor = t.Name, int32(max(1, t.Partitions)), int16(t.Replication)
	if have := c.versions[kmsg.CreateTopics.Int16()]; have[1] < 4 && t.Replication < 0 {
		req.ReplicationFactor = 1 // the broker's default cannot be asked for
	}
	for _, config := range t.Configs {
		name, value, _ := strings.Cut(config, "=")
		tc := kmsg.NewCreateTopicsRequestTopicConfig()
		tc.Name, tc.Value = name, &value
		req.Configs = append(req.Configs, tc)
	}
	return req
}

// CreateError says why a topic was not created; nil: it was.
func CreateError(t *kmsg.CreateTopicsResponseTopic) error {
	err := kerr.ErrorForCode(t.ErrorCode)
	if err != nil && t.ErrorMessage != nil && *t.ErrorMessage != "" {
		return fmt.Errorf("%w (%s)", err, *t.ErrorMessage)
	}
	return err
}

// DeleteTopic deletes a topic. A missing topic is no error.
func (c *Conn) DeleteTopic(ctx context.Context, name string) error {
	return c.AtController(ctx, func(c *Conn) error {
		err := c.DeleteTopics(ctx, []string{name})
		if err != nil && !errors.Is(err, kerr.UnknownTopicOrPartition) {
			return fmt.Errorf("delete topic %s: %w", name, err)
		}
		return nil
	})
}

// DeleteTopics deletes topics with one request to this broker, which must be the controller.
func (c *Conn) DeleteTopics(ctx context.Context, names []string) error {
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.TimeoutMillis = int32(CallWithin.Milliseconds())
	req.TopicNames = names // in old versions; new ones have them in Topics
	for _, name := range names {
		t := kmsg.NewDeleteTopicsRequestTopic()
		t.Topic = &name
		req.Topics = append(req.Topics, t)
	}
	answer, err := c.Call(ctx, req)
	if err != nil {
		return err
	}
	resp, _ := answer.(*kmsg.DeleteTopicsResponse)
	for _, t := range resp.Topics {
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
			return err
		}
	}
	return nil
}

// These are the values of when for Offsets.
const (
	Earliest = -2
	Latest   = -1
)

// Offsets asks a broker that leads some of a topic's partitions for their first (Earliest) or
// next (Latest) offsets. The result is indexed by partition.
func (c *Conn) Offsets(ctx context.Context, topic string, partitions []int32, when int64) ([]int64, error) {
	req := kmsg.NewPtrListOffsetsRequest()
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic = topic
	for _, i := range partitions {
		p := kmsg.NewListOffsetsRequestTopicPartition()
		p.Partition, p.Timestamp = i, when
		t.Partitions = append(t.Partitions, p)
	}
	req.Topics = append(req.Topics, t)
	if have := c.versions[req.Key()]; have[1] < 1 {
		return nil, errors.New("the broker is older than Kafka 0.10.1")
	}
	answer, err := c.Call(ctx, req)
	if err != nil {
		return nil, err
	}
	resp, _ := answer.(*kmsg.ListOffsetsResponse)
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != len(partitions) {
		return nil, errors.New("the broker did not answer for all partitions")
	}
	all := make([]int64, slices.Max(partitions)+1)
	for _, p := range resp.Topics[0].Partitions {
		if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
			return nil, fmt.Errorf("offsets of %s-%d: %w", topic, p.Partition, err)
		}
		if p.Partition < 0 || int(p.Partition) >= len(all) {
			return nil, fmt.Errorf("the broker answered for partition %d, which it was not asked for", p.Partition)
		}
		all[p.Partition] = p.Offset
	}
	return all, nil
}

// Offset asks a partition's leader for one partition's offset.
func (c *Conn) Offset(ctx context.Context, topic string, partition int32, when int64) (int64, error) {
	all, err := c.Offsets(ctx, topic, []int32{partition}, when)
	if err != nil {
		return 0, err
	}
	return all[partition], nil
}
