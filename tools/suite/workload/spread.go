package workload

import (
	"context"
	"fmt"
	"time"

	"github.com/leatstream/leat/internal/bench"
)

// The steps of Spread.
const (
	SpreadFirst = "first pass"
	SpreadLater = "later passes"
	SpreadMany  = "later passes, many partitions a request"
	SpreadOne   = "one partition"
)

// manyAtOnce is how many partitions a request holds in the step SpreadMany.
const manyAtOnce = 500

// SpreadDefaults are the settings of Spread.
func SpreadDefaults() Options {
	o := Defaults()
	o.Partitions, o.Connections, o.Batch, o.InFlight, o.Duration = 5000, 2, 1, 256, 3*time.Second
	return o
}

// Spread produces single records to thousands of partitions in turn, and to one a
// connection for comparison. The first pass finds the partitions empty, so that it makes
// their files: the topic must be new. Later passes go on with one partition a request,
// and then with many a request, as clients send that wait for a moment. By how much a
// record costs more than with one partition is the price of partitions.
func Spread(ctx context.Context, o Options) (*Result, error) {
	r := &Result{Result: bench.Result{Kind: KindSpread, Options: o.Options, Started: time.Now().Truncate(time.Second)}}
	for _, step := range []struct {
		name string
		set  func(o *bench.Options)
	}{
		{SpreadFirst, func(o *bench.Options) {
			o.Records, o.Duration = int64(o.Partitions), timeFor(o.Partitions) // it ends earlier when all have had a record
		}},
		{SpreadLater, func(*bench.Options) {}},
		{SpreadMany, func(o *bench.Options) { o.PerRequest, o.InFlight = manyAtOnce, 5 }}, // as clients have
		{SpreadOne, func(o *bench.Options) { o.Partitions = o.Connections }},
	} {
		p := o.Options
		p.Records = 0
		step.set(&p)
		one, err := bench.Produce(ctx, p)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", step.name, err)
		}
		r.Steps = append(r.Steps, StepOf(step.name, one))
	}
	r.AddSteps()
	return r, nil
}
