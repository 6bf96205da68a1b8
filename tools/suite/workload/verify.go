package workload

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/bench/client"
)

// readWithin is how long an ordinary client may wait for the next records.
const readWithin = 30 * time.Second

// ErrVoid is returned for a run in which a record was lost.
var ErrVoid = errors.New("the run is void")

// CountRecords is how many records the topic's partitions have had, those that are
// deleted included.
func CountRecords(ctx context.Context, o *Options) (sum int64, err error) {
	_, ends, err := findBounds(ctx, o)
	for _, n := range ends {
		sum += n
	}
	return sum, err
}

// findBounds asks for the first and the next offset of each partition.
func findBounds(ctx context.Context, o *Options) (first, next []int64, err error) {
	c, err := client.DialAny(ctx, o.Brokers)
	if err != nil {
		return nil, nil, err
	}
	defer c.Close()
	all := make([]int32, o.Partitions)
	for i := range all {
		all[i] = int32(i)
	}
	if first, err = c.Offsets(ctx, o.Topic, all, client.Earliest); err != nil {
		return nil, nil, err
	}
	next, err = c.Offsets(ctx, o.Topic, all, client.Latest)
	return first, next, err
}

// Proof is how a run is verified.
type Proof struct {
	Records int64 // that the topic must have had
	Cut     bool  // its oldest records are being deleted
	Offsets bool  // there is no time to read all: compare the offsets only
}

// Verify makes a run void in which a record was lost: the offsets must tell of as
// many records as the topic should have had, and an ordinary client, which checks
// each checksum, must find every one of them, in order.
func Verify(ctx context.Context, o *Options, p Proof) error {
	first, next, err := findBounds(ctx, o)
	if err != nil {
		return err
	}
	var had int64
	for _, n := range next {
		had += n
	}
	if had != p.Records {
		return fmt.Errorf("%w: %d records were acknowledged, but offsets tell of %d", ErrVoid, p.Records, had)
	}
	t := newTally(first, next)
	if p.Cut {
		t.earliest = func(partition int) (int64, error) {
			now, _, err := findBounds(ctx, o)
			if err != nil {
				return 0, err
			}
			return now[partition], nil
		}
	}
	if p.Offsets || t.open == 0 {
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
			return fmt.Errorf("%w: of %d partitions %d were not read to their end: %w", ErrVoid, len(next), t.open, err)
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
		return fmt.Errorf("%w: partition %d should not be there", ErrVoid, p)
	}
	if offset > t.at[p] && t.earliest != nil {
		first, err := t.earliest(p)
		if err != nil {
			return err
		}
		if offset <= first {
			t.at[p] = offset // those before it are deleted
		}
	}
	if offset != t.at[p] || offset >= t.end[p] {
		return fmt.Errorf("%w: partition %d has offset %d where %d should be", ErrVoid, p, offset, t.at[p])
	}
	if t.at[p]++; t.at[p] == t.end[p] {
		t.open--
	}
	return nil
}
