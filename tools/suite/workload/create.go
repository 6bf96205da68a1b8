package workload

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/bench"
	"github.com/leatstream/leat/internal/bench/client"
	"github.com/leatstream/leat/internal/bench/process"
	"github.com/leatstream/leat/internal/record"
)

// The steps of Create; those of the second round have CreateAgain behind them.
const (
	CreateAnswer   = "create"   // until the request is answered
	CreateWritable = "writable" // until a record is acknowledged in each partition, from the request on
	CreateDelete   = "delete"   // until no topic is known any more
	CreateAgain    = ", again"
)

// topicPartitions is how many partitions each of the topics has that are made.
const topicPartitions = 1000

// CreateDefaults are the settings of Create.
func CreateDefaults() Options {
	o := Defaults()
	o.Partitions, o.Connections, o.Batch, o.Size, o.InFlight = 10_000, 1, 1, 100, 1
	return o
}

// Create makes thousands of partitions by one request, writes a record to each, deletes
// them, and all of it again: it measures how long new partitions take to be of use. The
// topics are called TOPIC-0, TOPIC-1 and so on. If the broker refuses so many in one
// request, they are asked for in halves. The broker must be a single node.
func Create(ctx context.Context, o Options) (*Result, error) {
	c, err := client.DialAny(ctx, o.Brokers)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	m, err := newMaker(ctx, c, &o)
	if err != nil {
		return nil, err
	}
	process.ResetPeak(o.PIDs)
	r := &Result{Result: bench.Result{Kind: KindCreate, Options: o.Options, Started: time.Now().Truncate(time.Second)}}
	for _, again := range []string{"", CreateAgain} {
		began := time.Now()
		for _, step := range []struct {
			name string
			do   func(ctx context.Context, s *Step) error
		}{{CreateAnswer, m.create}, {CreateWritable, m.write}, {CreateDelete, m.remove}} {
			s, err := MeasureStep(step.name+again, o.PIDs, func(s *Step) error { return step.do(ctx, s) })
			if err != nil {
				return nil, err
			}
			r.Seconds += s.Seconds
			if step.name == CreateWritable {
				s.Seconds = time.Since(began).Seconds()
			}
			r.Steps = append(r.Steps, s)
		}
	}
	seconds := r.Seconds
	r.AddSteps()
	r.Seconds = seconds // writable has the time of create in it
	return r, nil
}

// acksAll makes a produce request wait until its records are safe.
const acksAll = -1

// maker makes topics, writes to their partitions and deletes them.
type maker struct {
	c      *client.Conn
	topics []kmsg.CreateTopicsRequestTopic
	writes []write

	partitions int // of all topics
}

// write is a request with a record for each partition of a topic.
type write struct {
	version int16
	request []byte // encoded before the clock starts
}

func newMaker(ctx context.Context, c *client.Conn, o *Options) (*maker, error) {
	cluster, err := c.Cluster(ctx)
	if err != nil {
		return nil, err
	}
	if n := len(cluster.Brokers); n != 1 {
		return nil, fmt.Errorf("the cluster has %d brokers: this run needs a single one", n)
	}
	version, err := c.PickVersion(kmsg.Produce.Int16(), bench.ProduceLow, bench.ProduceHigh)
	if err != nil {
		return nil, err
	}
	batch, err := bench.MakeBatch(record.None, 1, o.Size, time.Now().UnixMilli(), 1)
	if err != nil {
		return nil, err
	}
	m := &maker{c: c, partitions: max(1, o.Partitions)}
	for left := m.partitions; left > 0; left -= topicPartitions {
		part := client.Topic{
			Name: fmt.Sprintf("%s-%d", o.Topic, len(m.topics)), Partitions: min(left, topicPartitions),
			Replication: o.Replication, Configs: o.Configs,
		}
		m.topics = append(m.topics, c.NewTopic(part))
		w := write{version: version}
		partitions, batches := make([]int32, part.Partitions), make([]record.Batch, part.Partitions)
		for i := range partitions {
			partitions[i], batches[i] = int32(i), batch
		}
		w.request = bench.EncodeProduce(version, acksAll, part.Name, partitions, batches)
		m.writes = append(m.writes, w)
	}
	return m, nil
}

// create makes all topics by one request, or by as few as the broker allows.
func (m *maker) create(ctx context.Context, s *Step) error {
	return m.createSome(ctx, s, m.topics)
}

func (m *maker) createSome(ctx context.Context, s *Step, topics []kmsg.CreateTopicsRequestTopic) error {
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = int32(client.CallWithin.Milliseconds())
	req.Topics = topics
	answer, err := m.c.Call(ctx, req)
	if err != nil {
		return err
	}
	s.Requests++
	resp, _ := answer.(*kmsg.CreateTopicsResponse)
	var refused []kmsg.CreateTopicsRequestTopic
	for i, t := range resp.Topics {
		if t.ErrorCode != 0 {
			err = client.CreateError(&resp.Topics[i])
			at := slices.IndexFunc(topics, func(c kmsg.CreateTopicsRequestTopic) bool { return c.Topic == t.Topic })
			if at < 0 || errors.Is(err, kerr.TopicAlreadyExists) {
				return fmt.Errorf("make topic %s: %w", t.Topic, err)
			}
			refused = append(refused, topics[at])
		}
	}
	if len(topics) == 1 && len(refused) == 1 {
		return fmt.Errorf("make topic %s: %w", topics[0].Topic, err)
	}
	for half := range slices.Chunk(refused, (len(topics)+1)/2) {
		if err := m.createSome(ctx, s, half); err != nil {
			return err
		}
	}
	return nil
}

// write writes to each partition until all have acknowledged.
func (m *maker) write(ctx context.Context, s *Step) error {
	began := time.Now()
	deadline := began.Add(timeFor(m.partitions))
	for _, w := range m.writes {
		err := retryUntil(ctx, deadline, func() error {
			req := kmsg.NewPtrProduceRequest()
			req.SetVersion(w.version)
			answer, err := m.c.Exchange(ctx, w.request, req)
			if err != nil {
				return err
			}
			s.Requests++
			acknowledged, err := countAccepted(answer)
			if err == nil {
				s.Records += int64(acknowledged)
				s.Bytes += int64(len(w.request))
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("after %s %d of %d partitions take records: %w", time.Since(began).Round(time.Second), s.Records, m.partitions, err)
		}
	}
	return nil
}

// countAccepted counts the partitions that took a record, if all of them did.
func countAccepted(answer kmsg.Response) (n int, err error) {
	resp, _ := answer.(*kmsg.ProduceResponse)
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if p.ErrorCode != 0 {
				return 0, kerr.ErrorForCode(p.ErrorCode)
			}
			n++
		}
	}
	return n, nil
}

// remove deletes the topics and waits until the broker knows none of them.
func (m *maker) remove(ctx context.Context, s *Step) error {
	names := make([]string, len(m.topics))
	for i, t := range m.topics {
		names[i] = t.Topic
	}
	if err := m.c.DeleteTopics(ctx, names); err != nil {
		return err
	}
	s.Requests++
	deadline := time.Now().Add(timeFor(m.partitions))
	for i, t := range m.topics {
		err := retryUntil(ctx, deadline, func() error {
			_, err := m.c.LookUpTopic(ctx, t.Topic)
			s.Requests++
			switch {
			case errors.Is(err, kerr.UnknownTopicOrPartition):
				return nil
			case err == nil: // it is still there
				return kerr.RequestTimedOut
			default:
				return err
			}
		})
		if err != nil {
			return fmt.Errorf("%d of %d topics are gone, but not %s: %w", i, len(m.topics), t.Topic, err)
		}
	}
	return nil
}
