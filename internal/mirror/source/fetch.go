package source

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// errUnanswered is the error of a partition that an answer leaves out.
var errUnanswered = errors.New("the source has not answered for the partition")

// idsFrom is the first version of Fetch whose topics are ids, and epochsFrom the first one that compares epochs.
const (
	idsFrom    = 13
	epochsFrom = 12
)

// Position is where a partition is read from.
type Position struct {
	Place
	Offset    int64
	Leader    int32 // the leader epoch by which the caller knows the partition; -1: not known
	LastEpoch int32 // of the record before Offset; -1: not known
	MaxBytes  int32 // of its batches; the first one is sent whole, however large it is
}

// Bounds bound one fetch.
type Bounds struct {
	MaxBytes int32         // of the batches of all partitions; the first one is sent whole
	Wait     time.Duration // for MinBytes
	MinBytes int32
}

// Batches are what a partition has been read of.
type Batches struct {
	Place
	Err           error // why nothing was read: a kerr.Error
	HighWatermark int64
	Stable        int64 // the last stable offset
	Start         int64 // the log's start
	// Diverged says that the record before the position is not the source's: what has an epoch above Diverged.Epoch, or an offset from Diverged.End on, is not. Nil: it is, or nobody has compared.
	Diverged *End
	// Nearer is the broker that should be asked instead; -1: this one.
	Nearer int32
	// Raw are batches one behind the other, as they are stored. The last one may be cut. Raw keeps the buffer of the whole answer.
	Raw []byte
}

// End is the end of an epoch.
type End struct {
	Epoch int32
	End   int64
}

// Fetched is the answer to a fetch.
type Fetched struct {
	Version  int16 // of the request
	Throttle time.Duration
	Batches  []Batches // in the order of the positions
}

// ComparesEpochs tells whether the broker has compared Position.LastEpoch. If not, FindEpochEnds must be asked after each change of a leader.
func (f *Fetched) ComparesEpochs() bool { return f.Version >= epochsFrom }

// Fetch reads batches up to the high watermark, those of open and aborted transactions and their markers, too. It is not tried again. It
// costs the memory of the answer, which is little more than Bounds.MaxBytes, unless the first batch is larger.
func (s *Client) Fetch(ctx context.Context, broker int32, positions []Position, b Bounds) (*Fetched, error) {
	q := kmsg.NewPtrFetchRequest()
	q.ReplicaID, q.MaxWaitMillis, q.MinBytes, q.MaxBytes, q.IsolationLevel, q.SessionEpoch, q.Rack = -1, int32(b.Wait.Milliseconds()), b.MinBytes, b.MaxBytes, 0, -1, s.rack
	topics := byTopic{}
	for i := range positions {
		p := &positions[i]
		one := kmsg.NewFetchRequestTopicPartition()
		one.Partition, one.FetchOffset, one.CurrentLeaderEpoch, one.LastFetchedEpoch, one.PartitionMaxBytes = p.Number, p.Offset, p.Leader, p.LastEpoch, p.MaxBytes
		n, isNew := topics.indexOf(p.Topic)
		if isNew {
			q.Topics = append(q.Topics, kmsg.FetchRequestTopic{Topic: p.Topic, TopicID: p.ID})
		}
		q.Topics[n].Partitions = append(q.Topics[n].Partitions, one)
	}
	resp, err := s.cl.Broker(int(broker)).Request(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("reading from broker %d of the source: %w", broker, err)
	}
	r, ok := resp.(*kmsg.FetchResponse)
	if !ok {
		return nil, fmt.Errorf("source: the answer to Fetch is a %T", resp)
	}
	if r.ErrorCode != 0 {
		return nil, fmt.Errorf("reading from broker %d of the source: %w", broker, errorOf(r.ErrorCode))
	}
	f := &Fetched{Version: r.Version, Throttle: time.Duration(r.ThrottleMillis) * time.Millisecond, Batches: make([]Batches, len(positions))}
	f.takeTopics(positions, r)
	return f, nil
}

// fetchedName is how an answer names a partition: by the id of its topic from version 13 on.
type fetchedName struct {
	topic  string
	id     TopicID
	number int32
}

func (f *Fetched) takeTopics(positions []Position, r *kmsg.FetchResponse) {
	byName := make(map[fetchedName]*kmsg.FetchResponseTopicPartition, len(positions))
	for i := range r.Topics {
		t := &r.Topics[i]
		for k := range t.Partitions {
			byName[nameIn(r.Version, t.Topic, t.TopicID, t.Partitions[k].Partition)] = &t.Partitions[k]
		}
	}
	for i := range positions {
		p := &positions[i]
		to := &f.Batches[i]
		to.Place, to.Nearer = p.Place, -1
		from, ok := byName[nameIn(r.Version, p.Topic, p.ID, p.Number)]
		if !ok {
			to.Err = errUnanswered
			continue
		}
		to.take(from)
	}
}

func nameIn(version int16, topic string, id TopicID, number int32) fetchedName {
	if version >= idsFrom {
		return fetchedName{id: id, number: number}
	}
	return fetchedName{topic: topic, number: number}
}

func (b *Batches) take(p *kmsg.FetchResponseTopicPartition) {
	b.HighWatermark, b.Stable, b.Start, b.Raw = p.HighWatermark, p.LastStableOffset, p.LogStartOffset, p.RecordBatches
	if b.Err = errorOf(p.ErrorCode); b.Err != nil {
		b.Raw = nil
	}
	if d := &p.DivergingEpoch; d.Epoch >= 0 && d.EndOffset >= 0 {
		b.Diverged = &End{d.Epoch, d.EndOffset}
		b.Raw = nil
	}
	if p.PreferredReadReplica >= 0 {
		b.Nearer = p.PreferredReadReplica
	}
}

// IsLeaderUnknown tells whether an error says that the caller does not know the present leader of a partition, or its epoch: Describe tells.
func IsLeaderUnknown(err error) bool {
	return errors.Is(err, kerr.NotLeaderForPartition) || errors.Is(err, kerr.FencedLeaderEpoch) || errors.Is(err, kerr.UnknownLeaderEpoch) || errors.Is(err, kerr.LeaderNotAvailable) ||
		errors.Is(err, kerr.ReplicaNotAvailable) || errors.Is(err, kerr.BrokerNotAvailable)
}

// IsTopicGone tells whether an error says that the topic is not there, under its name or its id.
func IsTopicGone(err error) bool {
	return errors.Is(err, kerr.UnknownTopicOrPartition) || errors.Is(err, kerr.UnknownTopicID) || errors.Is(err, kerr.InconsistentTopicID)
}
