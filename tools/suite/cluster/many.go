package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/bench"
	"github.com/leatstream/leat/internal/bench/client"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/tools/suite/server"
	"github.com/leatstream/leat/tools/suite/workload"
)

// The steps of Many.
const (
	ManyCreate   = "created"                                    // until the request is answered
	ManyWritable = "all writable"                               // until each partition has acknowledged a record, from the request on
	ManyFailover = "killed, all of its partitions writable"     // from the kill on
	ManyReturn   = "started again, all in sync"                 // from the start of its process on
	ManyRestart  = "all stopped and started, all writable"      // from the start of the first process on
	ManyRejoin   = "all stopped and started, all in sync again" // from there, too
)

// topicPartitions is how many partitions each of the topics has that are made.
const topicPartitions = 1000

// Many makes thousands of partitions, kills the node that leads the most of them and starts it again, and
// then stops and starts all nodes. Each partition acknowledges a record after each of that.
func Many(ctx context.Context, c *server.Cluster, o workload.Options) (*workload.Result, error) {
	r := &workload.Result{Result: bench.Result{Kind: KindMany, Options: o.Options, Started: time.Now().Truncate(time.Second)}}
	m := newMaker(&o)
	note := func(name string, began time.Time) {
		r.Steps = append(r.Steps, workload.Step{Name: name, Seconds: time.Since(began).Seconds(), Records: int64(m.partitions)})
	}
	began := time.Now()
	if err := m.create(ctx, c); err != nil {
		return nil, err
	}
	note(ManyCreate, began)
	if err := m.writeAll(ctx, c.Brokers(), nil); err != nil {
		return nil, err
	}
	note(ManyWritable, began)
	if err := m.failOver(ctx, c, note); err != nil {
		return nil, err
	}
	if err := c.Stop(); err != nil {
		return nil, err
	}
	began = time.Now()
	if err := c.LaunchAll(ctx); err != nil {
		return nil, err
	}
	if err := m.writeAll(ctx, c.Brokers(), nil); err != nil {
		return nil, err
	}
	note(ManyRestart, began)
	if err := awaitHealth(ctx, c, m.names()...); err != nil {
		return nil, err
	}
	note(ManyRejoin, began)
	return r, m.remove(ctx, c)
}

// failOver kills the node that leads the most partitions, and starts it again.
func (m *maker) failOver(ctx context.Context, c *server.Cluster, note func(name string, began time.Time)) error {
	if err := awaitHealth(ctx, c, m.names()...); err != nil {
		return err
	}
	v, err := lookAtAny(ctx, c.Brokers(), m.names()...)
	if err != nil {
		return err
	}
	node, led := v.busiest(c.Brokers())
	began := time.Now()
	if err := c.Kill(node); err != nil {
		return err
	}
	if err := m.writeAll(ctx, c.Running(), led); err != nil {
		return err
	}
	note(ManyFailover, began)
	if err := c.Launch(ctx, node); err != nil {
		return err
	}
	began = c.Nodes[node].Began
	if err := awaitHealth(ctx, c, m.names()...); err != nil {
		return err
	}
	note(ManyReturn, began)
	return nil
}

// one is a partition of a topic.
type one struct {
	topic     string
	partition int32
}

// busiest is the node that leads the most partitions, and which those are.
func (v *view) busiest(addrs []string) (node int, led []one) {
	all := make([][]one, len(addrs))
	for _, t := range v.topics {
		for i := range t.Partitions {
			if at := slices.Index(addrs, v.leader(&t.Partitions[i])); at >= 0 {
				all[at] = append(all[at], one{*t.Topic, t.Partitions[i].Partition})
			}
		}
	}
	for i := range all {
		if len(all[i]) > len(all[node]) {
			node = i
		}
	}
	return node, all[node]
}

// maker makes topics with many partitions, and writes to each.
type maker struct {
	topics     []client.Topic
	partitions int
	size       int
}

func newMaker(o *workload.Options) *maker {
	m := &maker{partitions: max(1, o.Partitions), size: o.Size}
	for left := m.partitions; left > 0; left -= topicPartitions {
		m.topics = append(m.topics, client.Topic{
			Name: fmt.Sprintf("%s-%d", o.Topic, len(m.topics)), Partitions: min(left, topicPartitions),
			Replication: o.Replication, Configs: o.Configs,
		})
	}
	return m
}

func (m *maker) names() (names []string) {
	for _, t := range m.topics {
		names = append(names, t.Name)
	}
	return names
}

// create makes all topics with one request.
func (m *maker) create(ctx context.Context, c *server.Cluster) error {
	conn, err := client.DialAny(ctx, c.Brokers())
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.AtController(ctx, func(at *client.Conn) error {
		var topics []kmsg.CreateTopicsRequestTopic
		for _, t := range m.topics {
			topics = append(topics, at.NewTopic(t))
		}
		return createTopics(ctx, at, topics)
	})
}

func (m *maker) remove(ctx context.Context, c *server.Cluster) error {
	conn, err := client.DialAny(ctx, c.Brokers())
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.AtController(ctx, func(at *client.Conn) error { return at.DeleteTopics(ctx, m.names()) })
}

// writeAll writes a record to each partition of a list, nil: to all, until each has acknowledged one. It
// asks the nodes for the leaders again and again.
func (m *maker) writeAll(ctx context.Context, addrs []string, which []one) error {
	if which == nil {
		for _, t := range m.topics {
			for p := range t.Partitions {
				which = append(which, one{t.Name, int32(p)})
			}
		}
	}
	open := map[one]bool{}
	for _, p := range which {
		open[p] = true
	}
	batch, err := bench.MakeBatch(record.None, 1, m.size, time.Now().UnixMilli(), 1)
	if err != nil {
		return err
	}
	deadline := time.Now().Add(healWithin + time.Duration(m.partitions)*healPartition)
	for {
		err := m.writeOpen(ctx, addrs, batch, open)
		if len(open) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.Join(fmt.Errorf("%w: %d of %d partitions take no records", errUnhealthy, len(open), len(which)), err)
		}
		if err := pause(ctx, probeAgain); err != nil {
			return err
		}
	}
}

// writeOpen writes to those partitions that are open, and leaves those that have not acknowledged.
func (m *maker) writeOpen(ctx context.Context, addrs []string, batch record.Batch, open map[one]bool) error {
	v, err := lookAtAny(ctx, addrs, m.names()...)
	if err != nil {
		return err
	}
	of := map[string]map[string][]int32{} // by leader and topic
	for _, t := range v.topics {
		for i := range t.Partitions {
			p, leader := t.Partitions[i].Partition, v.leader(&t.Partitions[i])
			if leader == "" || !open[one{*t.Topic, p}] {
				continue
			}
			if of[leader] == nil {
				of[leader] = map[string][]int32{}
			}
			of[leader][*t.Topic] = append(of[leader][*t.Topic], p)
		}
	}
	var mu sync.Mutex // guards open and failed
	var failed []error
	var writing sync.WaitGroup
	for leader, topics := range of {
		writing.Go(func() {
			err := writeTo(ctx, leader, topics, batch, func(p one) {
				mu.Lock()
				defer mu.Unlock()
				delete(open, p)
			})
			mu.Lock()
			defer mu.Unlock()
			failed = append(failed, err)
		})
	}
	writing.Wait()
	return errors.Join(failed...)
}

// writeTo writes a record to each of the partitions that a node leads, with a request for each topic.
func writeTo(ctx context.Context, leader string, topics map[string][]int32, batch record.Batch, acknowledged func(one)) error {
	conn, err := client.Dial(ctx, leader)
	if err != nil {
		return err
	}
	defer conn.Close()
	version, err := conn.PickVersion(kmsg.Produce.Int16(), bench.ProduceLow, bench.ProduceHigh)
	if err != nil {
		return err
	}
	var failed error
	for topic, partitions := range topics {
		req := kmsg.NewPtrProduceRequest()
		req.SetVersion(version)
		batches := slices.Repeat([]record.Batch{batch}, len(partitions))
		answer, err := conn.Exchange(ctx, bench.EncodeProduce(version, acksAll, topic, partitions, batches), req)
		if err != nil {
			return err
		}
		resp, _ := answer.(*kmsg.ProduceResponse)
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					failed = err
					continue
				}
				acknowledged(one{t.Topic, p.Partition})
			}
		}
	}
	return failed
}
