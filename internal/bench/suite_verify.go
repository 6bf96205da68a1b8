package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// readWithin is how long an ordinary client may wait for the next records.
const readWithin = 30 * time.Second

var errVoid = errors.New("the run is void")

// ended is how many records the topic's partitions have had, those that are
// deleted included.
func ended(ctx context.Context, o *Options) (sum int64, err error) {
	_, ends, err := bounds(ctx, o)
	for _, n := range ends {
		sum += n
	}
	return sum, err
}

// bounds are the first and the next offset of each partition.
func bounds(ctx context.Context, o *Options) (first, next []int64, err error) {
	c, err := dialAny(ctx, o.Brokers)
	if err != nil {
		return nil, nil, err
	}
	defer c.close()
	all := make([]int32, o.Partitions)
	for i := range all {
		all[i] = int32(i)
	}
	if first, err = c.offsets(ctx, o.Topic, all, earliest); err != nil {
		return nil, nil, err
	}
	next, err = c.offsets(ctx, o.Topic, all, latest)
	return first, next, err
}

// offsets asks a broker that leads some of a topic's partitions for their first or
// next offsets. They stand at the partitions' places.
func (c *client) offsets(ctx context.Context, topic string, partitions []int32, when int64) ([]int64, error) {
	req := kmsg.NewPtrListOffsetsRequest()
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic = topic
	for _, i := range partitions {
		p := kmsg.NewListOffsetsRequestTopicPartition()
		p.Partition, p.Timestamp = i, when
		t.Partitions = append(t.Partitions, p)
	}
	req.Topics = append(req.Topics, t)
	answer, err := c.call(ctx, req)
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
			return nil, fmt.Errorf("the broker answered for partition %d, which nobody asked for", p.Partition)
		}
		all[p.Partition] = p.Offset
	}
	return all, nil
}

// proof is how a run is verified.
type proof struct {
	records int64 // that the topic must have had
	cut     bool  // its oldest records are being deleted
	offsets bool  // there is no time to read all: compare the offsets only
}

// verify makes a run void in which a record was lost: the offsets must tell of as
// many records as the topic should have had, and an ordinary client, which checks
// each checksum, must find every one of them, in order.
func verify(ctx context.Context, o *Options, p proof) error {
	first, next, err := bounds(ctx, o)
	if err != nil {
		return err
	}
	var had int64
	for _, n := range next {
		had += n
	}
	if had != p.records {
		return fmt.Errorf("%w: %d records were acknowledged, but offsets tell of %d", errVoid, p.records, had)
	}
	t := newTally(first, next)
	if p.cut {
		t.earliest = func(partition int) (int64, error) {
			now, _, err := bounds(ctx, o)
			if err != nil {
				return 0, err
			}
			return now[partition], nil
		}
	}
	if p.offsets || t.open == 0 {
		return nil
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(o.Brokers...), kgo.ConsumeTopics(o.Topic), kgo.FetchMaxBytes(16<<20),
		kgo.FetchMaxPartitionBytes(4<<20), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err
	}
	defer cl.Close()
	for t.open > 0 {
		wait, cancel := context.WithTimeout(ctx, readWithin)
		fetches := cl.PollFetches(wait)
		cancel()
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("%w: of %d partitions %d were not read to their end: %w", errVoid, len(next), t.open, err)
		}
		for it := fetches.RecordIter(); !it.Done(); {
			r := it.Next()
			if err := t.take(r.Partition, r.Offset); err != nil {
				return err
			}
		}
	}
	return nil
}

// tally checks that the records that come are all there are.
type tally struct {
	at, end []int64 // of each partition its next offset and the one after its last
	open    int     // partitions that are not read to their end
	// earliest is a partition's first offset by now, where records are deleted while
	// they are read; nil: they are not.
	earliest func(partition int) (int64, error)
}

func newTally(first, end []int64) *tally {
	t := &tally{at: first, end: end}
	for p := range end {
		if first[p] < end[p] {
			t.open++
		}
	}
	return t
}

// take takes the next record of a partition.
func (t *tally) take(partition int32, offset int64) error {
	p := int(partition)
	if p >= len(t.at) {
		return fmt.Errorf("%w: partition %d should not be there", errVoid, p)
	}
	if offset > t.at[p] && t.earliest != nil {
		first, err := t.earliest(p)
		if err != nil {
			return err
		}
		if offset <= first {
			t.at[p] = offset // what was before it is deleted
		}
	}
	if offset != t.at[p] || offset >= t.end[p] {
		return fmt.Errorf("%w: partition %d has offset %d where %d should be", errVoid, p, offset, t.at[p])
	}
	if t.at[p]++; t.at[p] == t.end[p] {
		t.open--
	}
	return nil
}
