package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

func idleCommand() *cobra.Command {
	o := defaults()
	o.Connections = 10_000
	cmd := &cobra.Command{
		Use:     "idle",
		Short:   "Open many connections, each with one request, and hold them",
		Example: `  leat bench idle --connections 10000 --pid $(pidof leat)`,
	}
	f := cmd.Flags()
	f.DurationVarP(&o.Duration, "duration", "d", o.Duration, "how long to hold them")
	f.DurationVar(&o.Settle, "settle", o.Settle, "how long to wait before that: a server that was just busy still tidies up")
	f.IntVar(&o.Connections, "connections", o.Connections, "connections")
	return bind(cmd, &o, Idle)
}

// Idle measures what connections cost that do nothing.
func Idle(ctx context.Context, o Options) (*Result, error) {
	o.Connections = max(1, o.Connections)
	before, _, err := processMemory(o.PIDs)
	if err != nil {
		return nil, err
	}
	resetPeak(o.PIDs)
	conns := make([]*client, 0, o.Connections)
	defer func() {
		for _, c := range conns {
			c.close()
		}
	}()
	began := time.Now()
	for len(conns) < o.Connections {
		c, err := dialAny(ctx, o.Brokers)
		if err != nil {
			return nil, fmt.Errorf("after %d connections: %w", len(conns), err)
		}
		c.versions = nil // ten thousand of them take memory
		conns = append(conns, c)
	}
	opened := time.Since(began)
	if err := pause(ctx, o.Settle); err != nil {
		return nil, err
	}
	r := &Result{Kind: "idle", Options: o, Started: began.Truncate(time.Second), OpenSeconds: opened.Seconds()}
	m, err := startMeter(o.PIDs)
	if err != nil {
		return nil, err
	}
	m.begin()
	if err := pause(ctx, o.Duration); err != nil {
		return nil, err
	}
	m.end(r)
	if err := m.server(r); err != nil {
		return nil, err
	}
	if r.Server != nil {
		r.Server.Before = before
	}
	for i, c := range conns {
		if err := c.learn(ctx); err != nil {
			return nil, fmt.Errorf("connection %d of %d was not served any more: %w", i+1, len(conns), err)
		}
	}
	r.Requests = int64(len(conns))
	return r, nil
}

// pause waits, unless the run ends.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
