// Package cluster is the things that the suite asks of a cluster of several nodes: records with
// several replicas, faults of a node and how long they are felt, a node that catches up, thousands
// of partitions, and the cost of doing nothing. Each is a Func that takes a cluster that runs and
// leaves one whose nodes all run, with all replicas in sync. A Func makes the topics that it needs
// and deletes them. They run one at a time.
//
// A view (view.go) is what clients can be told of a cluster. A witness is a client that produces all
// the time: the prober (prober.go), which asks for a new leader as soon as it needs one, or Apache
// Kafka's own producer (java.go), with its defaults. A fault (fault.go) is injected while a witness
// works, and the gap is the longest time between two of its acknowledgements.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/leatstream/leat/internal/bench"
	"github.com/leatstream/leat/internal/bench/client"
	"github.com/leatstream/leat/tools/suite/server"
	"github.com/leatstream/leat/tools/suite/workload"
)

// Func is a workload of a cluster.
type Func func(ctx context.Context, c *server.Cluster, o workload.Options) (*workload.Result, error)

// The kinds of results.
const (
	KindProduce bench.Kind = "replicated produce"
	KindLatency bench.Kind = "replicated latency"
	KindCatchUp bench.Kind = "catch up"
	KindFault   bench.Kind = "fault"
	KindMany    bench.Kind = "many replicated partitions"
	KindIdle    bench.Kind = "idle cluster"
)

// The steps of Latency.
const (
	LatencyOften  = "at the rate"
	LatencySeldom = "1/s"
)

// seldomFor is how many times longer Latency sends a record a second than it sends many.
const seldomFor = 10

// Produce is bench.Produce on a topic with replicas.
func Produce(ctx context.Context, c *server.Cluster, o workload.Options) (r *workload.Result, err error) {
	err = withTopic(ctx, c, &o, func() error {
		workload.TouchMemory(o.Records * int64(o.Size) * int64(o.Replication) * 5 / 4)
		produced, err := bench.Produce(ctx, o.Options)
		if err != nil {
			return err
		}
		r = &workload.Result{Result: *produced}
		r.Kind = KindProduce
		return verifyOffsets(ctx, &o, produced.Records)
	})
	return r, err
}

// Latency sends records at the options' rate, and then one a second. The first record of each is
// not counted, and a second of the first.
func Latency(ctx context.Context, c *server.Cluster, o workload.Options) (r *workload.Result, err error) {
	r = &workload.Result{Result: bench.Result{Kind: KindLatency, Options: o.Options, Started: time.Now().Truncate(time.Second)}}
	err = withTopic(ctx, c, &o, func() error {
		for _, step := range []struct {
			name  string
			rate  int
			lasts time.Duration
		}{{LatencyOften, o.Rate, o.Duration}, {LatencySeldom, 1, seldomFor * o.Duration}} {
			one := o.Options
			one.Rate, one.Duration, one.Records = step.rate, step.lasts, 0
			measured, err := bench.Latency(ctx, one)
			if err != nil {
				return fmt.Errorf("%s: %w", step.name, err)
			}
			r.Steps = append(r.Steps, workload.StepOf(step.name, measured))
		}
		r.AddSteps()
		return nil
	})
	return r, err
}

// withTopic makes the topic of the options, waits until all replicas are in sync, and deletes the
// topic in the end.
func withTopic(ctx context.Context, c *server.Cluster, o *workload.Options, do func() error) error {
	if err := bench.MakeTopic(ctx, &o.Options); err != nil {
		return err
	}
	err := awaitHealth(ctx, c, o.Topic)
	if err == nil {
		err = do()
	}
	alive := o.Options
	alive.Brokers = c.Running()
	return errors.Join(err, bench.DeleteTopic(ctx, &alive))
}

// verifyOffsets makes a run void unless the leaders have as many records as were acknowledged.
func verifyOffsets(ctx context.Context, o *workload.Options, want int64) error {
	l, err := lookUp(ctx, o.Brokers, o.Topic)
	if err != nil {
		return err
	}
	var have int64
	for p, addr := range l.Leaders {
		n, err := askOffset(ctx, addr, o.Topic, int32(p))
		if err != nil {
			return err
		}
		have += n
	}
	if have != want {
		return fmt.Errorf("%w: %d records were acknowledged, but the leaders have %d", workload.ErrVoid, want, have)
	}
	return nil
}

func lookUp(ctx context.Context, brokers []string, topic string) (*client.Layout, error) {
	conn, err := client.DialAny(ctx, brokers)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.LookUpTopic(ctx, topic)
}

func askOffset(ctx context.Context, addr, topic string, partition int32) (int64, error) {
	conn, err := client.Dial(ctx, addr)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	return conn.Offset(ctx, topic, partition, client.Latest)
}
