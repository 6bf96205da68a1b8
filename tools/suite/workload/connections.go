package workload

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/internal/bench"
)

// ConnectionsResumed is the step of Connections with as many requests as sessions of TLS were resumed.
const ConnectionsResumed = "resumed"

// Connections makes connections one after another, on as many goroutines as the options have connections, and ends each as soon as it can be
// used: after TLS, the versions and the login that the options ask for. It counts them as requests, and times each.
func Connections(ctx context.Context, o Options) (*Result, error) {
	workers := max(1, o.Connections)
	callers := make([]*caller, workers)
	for i := range callers {
		c, err := newCaller(&o)
		if err != nil {
			return nil, err
		}
		// One connection each before the clock starts: for what is computed once, and for a session to resume. Java resumes each only once.
		if err := makeOne(ctx, c, nil); err != nil {
			return nil, err
		}
		callers[i] = c
	}
	var stop atomic.Bool
	var made, resumed atomic.Int64
	times, errs := make([][]time.Duration, workers), make([]error, workers)
	work := func(s *Step) error {
		var wg sync.WaitGroup
		end := time.AfterFunc(o.Duration, func() { stop.Store(true) })
		defer end.Stop()
		for i := range workers {
			wg.Go(func() {
				for !stop.Load() && errs[i] == nil {
					began := time.Now()
					errs[i] = makeOne(ctx, callers[i], &resumed)
					times[i] = append(times[i], time.Since(began))
					made.Add(1)
				}
			})
		}
		wg.Wait()
		for _, err := range errs {
			if err != nil {
				return fmt.Errorf("after %d connections: %w", made.Load(), err)
			}
		}
		s.Requests = made.Load()
		return nil
	}
	s, err := MeasureStep("connections", o.PIDs, work)
	if err != nil {
		return nil, err
	}
	var all []time.Duration
	for _, t := range times {
		all = append(all, t...)
	}
	return &Result{
		Result: bench.Result{
			Kind: KindConnections, Options: o.Options, Started: time.Now().Truncate(time.Second), Seconds: s.Seconds, Requests: s.Requests, ClientCPU: s.ClientCPU,
			Server: s.Server, Ack: bench.NewQuantiles(all),
		},
		Steps: []Step{{Name: ConnectionsResumed, Seconds: s.Seconds, Requests: resumed.Load()}},
	}, nil
}

// makeOne makes a connection and ends it.
func makeOne(ctx context.Context, c *caller, resumed *atomic.Int64) error {
	conn, didResume, err := c.connect(ctx)
	if err != nil {
		return err
	}
	conn.Close()
	if didResume && resumed != nil {
		resumed.Add(1)
	}
	return nil
}
