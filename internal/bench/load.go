package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

// The steps of Load.
const (
	loadFill    = "fill"
	loadProduce = "produce" // together with loadConsume
	loadConsume = "consume"
	loadRest    = "rest" // nothing is asked of the server
)

// restFor is how long the server has to give memory back.
const restFor = 10 * time.Second

func loadCommand() *cobra.Command {
	o := loadDefaults()
	cmd := &cobra.Command{
		Use:   "load",
		Short: "Produce and consume at once, and see what memory that takes and what is given back",
		Long: `Produce and consume at once as fast as the broker does it, and see what memory that takes and what is given back afterwards.

What is consumed is read again and again from the topic's start. The server's memory counts at its peak, and at the end of ten
seconds without work.`,
		Example: `  leat bench load --partitions 4 --duration 10s --pid $(pidof leat)`,
	}
	f := cmd.Flags()
	f.DurationVarP(&o.Duration, "duration", "d", o.Duration, "how long to run")
	f.Int64Var(&o.Records, "records", o.Records, "records that are there to be consumed")
	f.IntVar(&o.Size, "size", o.Size, "bytes of a record's value")
	f.IntVar(&o.Batch, "batch", o.Batch, "records in a batch")
	f.IntVar(&o.InFlight, "in-flight", o.InFlight, "produce requests in flight on each connection")
	f.IntVar(&o.FetchBytes, "fetch-bytes", o.FetchBytes, "bytes asked for in one request")
	f.StringVar(&o.Acks, "acks", o.Acks, "0, 1 or all")
	bindTopic(cmd, &o)
	return bind(cmd, &o, Load)
}

func loadDefaults() Options {
	o := defaults()
	o.Partitions, o.Records, o.Passes = 4, 500_000, 0
	return o
}

// Load measures memory under full load and after it.
func Load(ctx context.Context, o Options) (*Result, error) {
	return loadAndRest(ctx, o, restFor)
}

func loadAndRest(ctx context.Context, o Options, rest time.Duration) (*Result, error) {
	if o.Duration <= 0 || o.Records <= 0 {
		return nil, errors.New("--duration and --records must be more than 0")
	}
	if o.Connections == 0 {
		o.Connections = o.Partitions
	}
	fill := o
	fill.Duration, fill.PIDs, fill.step = 0, nil, loadFill
	first, err := Produce(ctx, fill)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", loadFill, err)
	}
	r := &Result{Kind: "load", Options: o, Started: time.Now().Truncate(time.Second)}
	both := o
	both.Records, both.Passes, both.PIDs, both.progress = 0, 0, nil, nil
	sending := both
	sending.progress, sending.step = o.progress, loadProduce
	var produced, consumed *Result
	resetPeak(o.PIDs)
	all, err := measured("both", o.PIDs, func(*Step) error {
		failed := make(chan error, 1)
		go func() {
			var err error
			consumed, err = Consume(ctx, both)
			failed <- err
		}()
		var err error
		produced, err = Produce(ctx, sending)
		return errors.Join(err, <-failed)
	})
	if err != nil {
		return nil, err
	}
	if o.progress != nil {
		_, _ = fmt.Fprintf(o.progress, "%s for %s", loadRest, rest)
		defer func() { _, _ = fmt.Fprint(o.progress, "\r\x1b[K") }()
	}
	idle, err := measured(loadRest, o.PIDs, func(*Step) error {
		select {
		case <-time.After(rest):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	if err != nil {
		return nil, err
	}
	// The client's CPU is not told apart between the two.
	produced.ClientCPU, consumed.ClientCPU = 0, 0
	r.Steps = []Step{first.as(loadFill), produced.as(loadProduce), consumed.as(loadConsume), idle}
	r.Records, r.Bytes = produced.Records+consumed.Records, produced.Bytes+consumed.Bytes
	r.Requests = produced.Requests + consumed.Requests
	r.Seconds, r.ClientCPU = all.Seconds, all.ClientCPU
	if r.Server = all.Server; r.Server != nil {
		r.Server.RSS = idle.Server.RSS // after the rest
	}
	return r, nil
}
