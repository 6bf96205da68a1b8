package source

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Times that ListOffsets takes in place of ms since 1970.
const (
	Latest   int64 = -1 // the high watermark
	Earliest int64 = -2 // the log's start
)

// Place is a partition of a topic.
type Place struct {
	Topic  string
	ID     TopicID // for requests of versions that name topics by ids
	Number int32
}

// Found is an offset that was found; -1: there is none, or Err says why not.
type Found struct {
	Place
	Offset int64
	Epoch  int32 // of the record there; -1: not known
	Err    error
}

// FindOffsets finds the offsets of the first records at or after a time, Latest or Earliest, in partitions that one broker leads. epochs are the
// leader epochs by which the caller knows them (-1: not known), in the order of places.
func (s *Client) FindOffsets(ctx context.Context, broker int32, places []Place, epochs []int32, at int64) ([]Found, error) {
	q := kmsg.NewPtrListOffsetsRequest()
	q.ReplicaID = -1
	topics := byTopic{}
	for i, p := range places {
		one := kmsg.NewListOffsetsRequestTopicPartition()
		one.Partition, one.Timestamp, one.CurrentLeaderEpoch = p.Number, at, epochs[i]
		n, isNew := topics.indexOf(p.Topic)
		if isNew {
			q.Topics = append(q.Topics, kmsg.ListOffsetsRequestTopic{Topic: p.Topic})
		}
		q.Topics[n].Partitions = append(q.Topics[n].Partitions, one)
	}
	r, err := ask[*kmsg.ListOffsetsResponse](ctx, s, broker, q)
	if err != nil {
		return nil, fmt.Errorf("asking broker %d of the source for offsets: %w", broker, err)
	}
	found := map[Place]Found{}
	for i := range r.Topics {
		for _, p := range r.Topics[i].Partitions {
			at := Place{Topic: r.Topics[i].Topic, Number: p.Partition}
			found[at] = Found{at, p.Offset, p.LeaderEpoch, errorOf(p.ErrorCode)}
		}
	}
	return inOrder(places, found), nil
}

// Epoch is a question for the end of an epoch.
type Epoch struct {
	Place
	Leader int32 // the leader epoch by which the caller knows the partition; -1: not known
	Epoch  int32 // of whose end, or that of the last one before it, the offset is asked for
}

// FindEpochEnds finds the ends of epochs in partitions that one broker leads: the offset after the last record of the highest epoch that is not above the one in question (KIP-101,
// KIP-320). A log that has other records at the end of its epoch has diverged.
func (s *Client) FindEpochEnds(ctx context.Context, broker int32, epochs []Epoch) ([]Found, error) {
	q := kmsg.NewPtrOffsetForLeaderEpochRequest()
	q.ReplicaID = -1
	topics := byTopic{}
	places := make([]Place, len(epochs))
	for i, e := range epochs {
		one := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
		one.Partition, one.CurrentLeaderEpoch, one.LeaderEpoch = e.Number, e.Leader, e.Epoch
		n, isNew := topics.indexOf(e.Topic)
		if isNew {
			q.Topics = append(q.Topics, kmsg.OffsetForLeaderEpochRequestTopic{Topic: e.Topic})
		}
		q.Topics[n].Partitions = append(q.Topics[n].Partitions, one)
		places[i] = e.Place
	}
	r, err := ask[*kmsg.OffsetForLeaderEpochResponse](ctx, s, broker, q)
	if err != nil {
		return nil, fmt.Errorf("asking broker %d of the source for the ends of epochs: %w", broker, err)
	}
	found := map[Place]Found{}
	for i := range r.Topics {
		for _, p := range r.Topics[i].Partitions {
			at := Place{Topic: r.Topics[i].Topic, Number: p.Partition}
			found[at] = Found{at, p.EndOffset, p.LeaderEpoch, errorOf(p.ErrorCode)}
		}
	}
	return inOrder(places, found), nil
}

// byTopic numbers topics in the order in which they come.
type byTopic map[string]int

func (b byTopic) indexOf(topic string) (n int, isNew bool) {
	n, ok := b[topic]
	if !ok {
		n = len(b)
		b[topic] = n
	}
	return n, !ok
}

// inOrder are the answers for places. A broker that leaves one out breaks the protocol.
func inOrder(places []Place, found map[Place]Found) []Found {
	all := make([]Found, len(places))
	for i, p := range places {
		f, ok := found[Place{Topic: p.Topic, Number: p.Number}]
		if !ok {
			f = Found{Offset: -1, Epoch: -1, Err: errUnanswered}
		}
		f.Place = p
		if f.Err != nil {
			f.Offset, f.Epoch = -1, -1
		}
		all[i] = f
	}
	return all
}
