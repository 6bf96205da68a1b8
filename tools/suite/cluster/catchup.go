package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/leatstream/leat/internal/bench"
	"github.com/leatstream/leat/tools/suite/server"
	"github.com/leatstream/leat/tools/suite/workload"
)

// The steps of CatchUp.
const (
	CatchUpProduce = "produced while a node is away"
	CatchUpStart   = "process start to serving"
	CatchUpFetch   = "serving to in sync"
)

// CatchUp stops a node, produces the options' records, starts the node again, and measures how long it
// takes until it is in sync.
func CatchUp(ctx context.Context, c *server.Cluster, o workload.Options) (r *workload.Result, err error) {
	r = &workload.Result{Result: bench.Result{Kind: KindCatchUp, Options: o.Options, Started: time.Now().Truncate(time.Second)}}
	err = withTopic(ctx, c, &o, func() error {
		away := len(c.Places) - 1
		if err := c.StopNode(away); err != nil {
			return err
		}
		produced, err := produceWithout(ctx, c, &o, away)
		if err != nil {
			return errors.Join(err, c.Launch(ctx, away))
		}
		r.Steps = append(r.Steps, workload.StepOf(CatchUpProduce, produced))
		if err := c.Launch(ctx, away); err != nil {
			return err
		}
		started := workload.Step{Name: CatchUpStart, Seconds: time.Since(c.Nodes[away].Began).Seconds()}
		fetched, err := workload.MeasureStep(CatchUpFetch, c.PIDs(), func(s *workload.Step) error {
			s.Records, s.Bytes = produced.Records, produced.Bytes
			return awaitHealth(ctx, c, o.Topic)
		})
		if err != nil {
			return err
		}
		r.Steps = append(r.Steps, started, fetched)
		return verifyOffsets(ctx, &o, produced.Records)
	})
	r.AddSteps()
	return r, err
}

// produceWithout produces to the leaders among the nodes that run.
func produceWithout(ctx context.Context, c *server.Cluster, o *workload.Options, away int) (*bench.Result, error) {
	deadline := time.Now().Add(noticeWithin)
	for {
		v, err := lookAtAny(ctx, c.Running(), o.Topic)
		if err == nil && v.ledWithout(c.Places[away].Addr) {
			break
		}
		if time.Now().After(deadline) {
			return nil, errors.Join(fmt.Errorf("%w: the other nodes do not lead all partitions", errUnhealthy), err)
		}
		if err := pause(ctx, pollEvery); err != nil {
			return nil, err
		}
	}
	p := o.Options
	p.Brokers, p.Duration, p.PIDs = c.Running(), 0, c.PIDs()
	return bench.Produce(ctx, p)
}

// ledWithout tells whether all partitions have a leader that is not the node at addr.
func (v *view) ledWithout(addr string) bool {
	for _, t := range v.topics {
		for i := range t.Partitions {
			if leader := v.leader(&t.Partitions[i]); leader == "" || leader == addr {
				return false
			}
		}
	}
	return true
}
