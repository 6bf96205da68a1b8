package workload

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/leatstream/leat/internal/bench"
	"github.com/leatstream/leat/internal/bench/process"
)

// The steps of Load.
const (
	LoadFill    = "fill"
	LoadProduce = "produce" // together with LoadConsume
	LoadConsume = "consume"
	LoadRest    = "rest" // nothing is asked of the server
)

// restFor is how long the server has to give memory back.
const restFor = 10 * time.Second

// LoadDefaults are the settings of Load.
func LoadDefaults() Options {
	o := Defaults()
	o.Partitions, o.Records, o.Passes = 4, 500_000, 0
	return o
}

// Load produces and consumes at once as fast as the broker does it, and measures how much
// memory that takes and how much is given back after ten seconds without work. The consumer
// reads again and again from the topic's start. The topic must be empty.
func Load(ctx context.Context, o Options) (*Result, error) {
	return loadAndRest(ctx, o, restFor)
}

func loadAndRest(ctx context.Context, o Options, rest time.Duration) (*Result, error) {
	if o.Duration <= 0 || o.Records <= 0 {
		return nil, errors.New("duration and records must be more than 0")
	}
	if o.Connections == 0 {
		o.Connections = o.Partitions
	}
	fill := o.Options
	fill.Duration, fill.PIDs = 0, nil
	first, err := bench.Produce(ctx, fill)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", LoadFill, err)
	}
	r := &Result{Result: bench.Result{Kind: KindLoad, Options: o.Options, Started: time.Now().Truncate(time.Second)}}
	both := o.Options
	both.Records, both.Passes, both.PIDs = 0, 0, nil
	var produced, consumed *bench.Result
	process.ResetPeak(o.PIDs)
	all, err := MeasureStep("both", o.PIDs, func(*Step) error {
		failed := make(chan error, 1)
		go func() {
			var err error
			consumed, err = bench.Consume(ctx, both)
			failed <- err
		}()
		var err error
		produced, err = bench.Produce(ctx, both)
		return errors.Join(err, <-failed)
	})
	if err != nil {
		return nil, err
	}
	idle, err := MeasureStep(LoadRest, o.PIDs, func(*Step) error { return pause(ctx, rest) })
	if err != nil {
		return nil, err
	}
	// The client's CPU is not told apart between the two.
	produced.ClientCPU, consumed.ClientCPU = 0, 0
	r.Steps = []Step{StepOf(LoadFill, first), StepOf(LoadProduce, produced), StepOf(LoadConsume, consumed), idle}
	r.Records, r.Bytes = produced.Records+consumed.Records, produced.Bytes+consumed.Bytes
	r.Requests = produced.Requests + consumed.Requests
	r.Seconds, r.ClientCPU = all.Seconds, all.ClientCPU
	if r.Server = all.Server; r.Server != nil {
		r.Server.RSS = idle.Server.RSS // after the rest
	}
	return r, nil
}
