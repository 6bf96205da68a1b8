package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/record"
)

// The steps of Create; those of the second go have createAgain behind them.
const (
	createAnswer   = "create"   // until the request is answered
	createWritable = "writable" // until a record is acknowledged in each partition, from the request on
	createDelete   = "delete"   // until no topic is known any more
	createAgain    = ", again"
)

const (
	topicPartitions = 1000                  // of each of the topics that are made
	askAgain        = 2 * time.Millisecond  // after an answer that said "not yet", and longer each time,
	askSlowly       = 50 * time.Millisecond // up to this
)

// patience is how long something may take with so many partitions: Apache Kafka needs
// 10 ms for each to be made, and twice that on a busy machine.
func patience(partitions int) time.Duration {
	return 30*time.Second + time.Duration(partitions)*20*time.Millisecond
}

// errPatience is returned when that was not enough.
var errPatience = errors.New("that is as long as this run waits")

// insist does something until it succeeds, fails for a reason that does not pass, or
// the deadline is over.
func insist(ctx context.Context, deadline time.Time, do func() error) error {
	for wait := askAgain; ; wait = min(wait*3/2, askSlowly) {
		err := do()
		if err == nil || !kerr.IsRetriable(err) {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%w: %w", errPatience, err)
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

func createCommand() *cobra.Command {
	o := createDefaults()
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Create thousands of partitions, write to each, delete them, and all of it again",
		Long: `Create thousands of partitions by one request, write a record to each, delete them, and all of it again.

The topics are called TOPIC-0, TOPIC-1 and so on and have up to 1,000 partitions each. Where the broker refuses so many in one
request they are asked for in halves. The broker must be a single node.`,
		Example: `  leat bench create --partitions 10000 --pid $(pidof leat)`,
	}
	f := cmd.Flags()
	f.IntVar(&o.Size, "size", o.Size, "bytes of a record's value")
	f.StringVar(&o.Acks, "acks", o.Acks, "1 or all")
	bindTopic(cmd, &o)
	return bind(cmd, &o, Create)
}

func createDefaults() Options {
	o := defaults()
	o.Partitions, o.Connections, o.Batch, o.Size, o.InFlight = 10_000, 1, 1, 100, 1
	return o
}

// Create measures how long new partitions take to be of use.
func Create(ctx context.Context, o Options) (*Result, error) {
	c, err := dialAny(ctx, o.Brokers)
	if err != nil {
		return nil, err
	}
	defer c.close()
	m, err := newMaker(ctx, c, &o)
	if err != nil {
		return nil, err
	}
	resetPeak(o.PIDs)
	r := &Result{Kind: "create", Options: o, Started: time.Now().Truncate(time.Second)}
	for _, again := range []string{"", createAgain} {
		began := time.Now()
		for _, step := range []struct {
			name string
			do   func(ctx context.Context, s *Step) error
		}{{createAnswer, m.create}, {createWritable, m.write}, {createDelete, m.remove}} {
			s, err := measured(step.name+again, o.PIDs, func(s *Step) error { return step.do(ctx, s) })
			if err != nil {
				return nil, err
			}
			r.Seconds += s.Seconds
			if step.name == createWritable {
				s.Seconds = time.Since(began).Seconds()
			}
			r.Steps = append(r.Steps, s)
		}
	}
	seconds := r.Seconds
	r.sum()
	r.Seconds = seconds // writable has the time of create in it
	return r, nil
}

// maker makes topics, writes to their partitions and deletes them.
type maker struct {
	c      *client
	topics []kmsg.CreateTopicsRequestTopic
	writes []write

	partitions int // of all topics
}

// write is a request with a record for each partition of a topic.
type write struct {
	topic   string
	version int16
	request []byte // encoded before the clock starts
}

func newMaker(ctx context.Context, c *client, o *Options) (*maker, error) {
	metadata := kmsg.NewPtrMetadataRequest()
	metadata.Topics = []kmsg.MetadataRequestTopic{} // none, not all
	answer, err := c.call(ctx, metadata)
	if err != nil {
		return nil, err
	}
	if resp, _ := answer.(*kmsg.MetadataResponse); len(resp.Brokers) != 1 {
		return nil, fmt.Errorf("the cluster has %d brokers: this run needs a single one", len(resp.Brokers))
	}
	version, err := c.pick(kmsg.Produce.Int16(), produceLow, produceHigh)
	if err != nil {
		return nil, err
	}
	acks, err := o.acks()
	if err != nil || acks == 0 {
		return nil, errors.Join(err, errors.New("--acks must be 1 or all: what is not acknowledged cannot be waited for"))
	}
	batch, err := makeBatch(record.None, 1, o.Size, time.Now().UnixMilli(), 1)
	if err != nil {
		return nil, err
	}
	m := &maker{c: c, partitions: max(1, o.Partitions)}
	for left := m.partitions; left > 0; left -= topicPartitions {
		part := *o
		part.Partitions = min(left, topicPartitions)
		part.Topic = fmt.Sprintf("%s-%d", o.Topic, len(m.topics))
		m.topics = append(m.topics, c.newTopic(&part))
		w := write{topic: part.Topic, version: version}
		partitions, batches := make([]int32, part.Partitions), make([]record.Batch, part.Partitions)
		for i := range partitions {
			partitions[i], batches[i] = int32(i), batch
		}
		w.request = produceRequest(version, acks, part.Topic, partitions, batches)
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
	req.TimeoutMillis = int32(callWithin.Milliseconds())
	req.Topics = topics
	answer, err := m.c.call(ctx, req)
	if err != nil {
		return err
	}
	s.Requests++
	resp, _ := answer.(*kmsg.CreateTopicsResponse)
	var refused []kmsg.CreateTopicsRequestTopic
	for i, t := range resp.Topics {
		if t.ErrorCode != 0 {
			err = createError(&resp.Topics[i])
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
	deadline := began.Add(patience(m.partitions))
	for _, w := range m.writes {
		err := insist(ctx, deadline, func() error {
			req := kmsg.NewPtrProduceRequest()
			req.SetVersion(w.version)
			answer, err := m.c.exchange(ctx, w.request, req)
			if err != nil {
				return err
			}
			s.Requests++
			acknowledged, err := accepted(answer)
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

// accepted counts the partitions that took a record, if all of them did.
func accepted(answer kmsg.Response) (n int, err error) {
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
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.TimeoutMillis = int32(callWithin.Milliseconds())
	for _, t := range m.topics {
		req.TopicNames = append(req.TopicNames, t.Topic)
		rt := kmsg.NewDeleteTopicsRequestTopic()
		rt.Topic = new(t.Topic)
		req.Topics = append(req.Topics, rt)
	}
	answer, err := m.c.call(ctx, req)
	if err != nil {
		return err
	}
	s.Requests++
	resp, _ := answer.(*kmsg.DeleteTopicsResponse)
	for _, t := range resp.Topics {
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
			return err
		}
	}
	deadline := time.Now().Add(patience(m.partitions))
	for i, t := range m.topics {
		err := insist(ctx, deadline, func() error {
			_, err := m.c.lookup(ctx, t.Topic)
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

// newTopic is the topic of the options in a request that makes it.
func (c *client) newTopic(o *Options) kmsg.CreateTopicsRequestTopic {
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = o.Topic, int32(max(1, o.Partitions)), int16(o.Replication)
	if have := c.versions[kmsg.CreateTopics.Int16()]; have[1] < 4 && o.Replication < 0 {
		t.ReplicationFactor = 1 // the broker's default cannot be asked for
	}
	for _, config := range o.Configs {
		name, value, _ := strings.Cut(config, "=")
		tc := kmsg.NewCreateTopicsRequestTopicConfig()
		tc.Name, tc.Value = name, &value
		t.Configs = append(t.Configs, tc)
	}
	return t
}

// createError is why a topic was not made.
func createError(t *kmsg.CreateTopicsResponseTopic) error {
	err := kerr.ErrorForCode(t.ErrorCode)
	if err != nil && t.ErrorMessage != nil && *t.ErrorMessage != "" {
		return fmt.Errorf("%w (%s)", err, *t.ErrorMessage)
	}
	return err
}
