package cluster

import (
	"context"
	"time"

	"github.com/leatstream/leat/internal/bench"
	"github.com/leatstream/leat/internal/bench/process"
	"github.com/leatstream/leat/tools/suite/server"
	"github.com/leatstream/leat/tools/suite/workload"
)

// The steps of Idle.
const (
	IdleBusiest = "the node that uses the most CPU"
	IdleLargest = "the node that has the most memory"
)

// Idle measures what each node of a cluster costs that has partitions with a record each, and no clients.
func Idle(ctx context.Context, c *server.Cluster, o workload.Options) (r *workload.Result, err error) {
	r = &workload.Result{Result: bench.Result{Kind: KindIdle, Options: o.Options, Started: time.Now().Truncate(time.Second)}}
	m := newMaker(&o)
	if err := m.create(ctx, c); err != nil {
		return nil, err
	}
	if err := m.writeAll(ctx, c.Brokers(), nil); err != nil {
		return nil, err
	}
	if err := awaitHealth(ctx, c, m.names()...); err != nil {
		return nil, err
	}
	if err := pause(ctx, o.Settle); err != nil {
		return nil, err
	}
	var meters []*process.Meter
	for _, pid := range c.PIDs() {
		meter, err := process.Start([]int{pid})
		if err != nil {
			return nil, err
		}
		meter.Begin()
		meters = append(meters, meter)
	}
	if err := pause(ctx, o.Duration); err != nil {
		return nil, err
	}
	busiest, largest := workload.Step{Name: IdleBusiest}, workload.Step{Name: IdleLargest}
	for _, meter := range meters {
		meter.End()
		used, err := meter.Usage()
		if err != nil {
			return nil, err
		}
		one := workload.Step{Seconds: meter.Seconds, Server: used}
		if busiest.Server == nil || used.CPU > busiest.Server.CPU {
			one.Name = busiest.Name
			busiest = one
		}
		if largest.Server == nil || used.RSS > largest.Server.RSS {
			one.Name = largest.Name
			largest = one
		}
	}
	r.Steps = []workload.Step{busiest, largest}
	return r, m.remove(ctx, c)
}
