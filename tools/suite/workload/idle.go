package workload

import (
	"context"
	"fmt"
	"time"

	"github.com/leatstream/leat/internal/bench"
	"github.com/leatstream/leat/internal/bench/client"
	"github.com/leatstream/leat/internal/bench/process"
)

// Idle measures the cost of connections that do nothing after their first request.
func Idle(ctx context.Context, o Options) (*Result, error) {
	o.Connections = max(1, o.Connections)
	from, err := newCaller(&o)
	if err != nil {
		return nil, err
	}
	before, _, err := process.Memory(o.PIDs)
	if err != nil {
		return nil, err
	}
	process.ResetPeak(o.PIDs)
	conns := make([]*client.Conn, 0, o.Connections)
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for len(conns) < o.Connections {
		c, _, err := from.connect(ctx)
		if err != nil {
			return nil, fmt.Errorf("after %d connections: %w", len(conns), err)
		}
		conns = append(conns, c)
	}
	if err := pause(ctx, o.Settle); err != nil {
		return nil, err
	}
	r := &Result{Result: bench.Result{Kind: KindIdle, Options: o.Options, Started: time.Now().Truncate(time.Second)}, RSSBefore: before}
	m, err := process.Start(o.PIDs)
	if err != nil {
		return nil, err
	}
	m.Begin()
	if err := pause(ctx, o.Duration); err != nil {
		return nil, err
	}
	m.End()
	r.Seconds, r.ClientCPU = m.Seconds, m.OwnCPU
	if r.Server, err = m.Usage(); err != nil {
		return nil, err
	}
	for i, c := range conns {
		if err := c.AskVersions(ctx); err != nil {
			return nil, fmt.Errorf("connection %d of %d was not served any more: %w", i+1, len(conns), err)
		}
	}
	r.Requests = int64(len(conns))
	return r, nil
}
