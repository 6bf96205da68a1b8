package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// The steps of Spread.
const (
	spreadFirst = "first pass"
	spreadLater = "later passes"
	spreadMany  = "later passes, many partitions a request"
	spreadOne   = "one partition"
)

// manyAtOnce is how many partitions a request holds in the step spreadMany.
const manyAtOnce = 500

func spreadCommand() *cobra.Command {
	o := spreadDefaults()
	cmd := &cobra.Command{
		Use:   "spread",
		Short: "Produce single records to thousands of partitions in turn, and to one for comparison",
		Long: `Produce single records to thousands of partitions in turn, and to one for comparison.

The first pass is the one that finds the partitions empty: it makes their files. Later passes go on with one partition a request, and
then with many a request, as clients send that wait for a moment. What a record costs more than with one partition is the price of
partitions.`,
		Example: `  leat bench spread --partitions 5000 --connections 2 --pid $(pidof leat)`,
	}
	f := cmd.Flags()
	f.DurationVarP(&o.Duration, "duration", "d", o.Duration, "how long the later passes run, each kind")
	f.IntVar(&o.Size, "size", o.Size, "bytes of a record's value")
	f.IntVar(&o.InFlight, "in-flight", o.InFlight, "requests in flight on each connection")
	f.IntVar(&o.Connections, "connections", o.Connections, "connections")
	f.StringVar(&o.Acks, "acks", o.Acks, "1 or all")
	f.StringVar(&o.Congestion, "congestion", "", "TCP congestion control of this side's sockets, say reno (Linux; default: the system's)")
	bindTopic(cmd, &o)
	return bind(cmd, &o, Spread)
}

func spreadDefaults() Options {
	o := defaults()
	o.Partitions, o.Connections, o.Batch, o.InFlight, o.Duration = 5000, 2, 1, 256, 3*time.Second
	return o
}

// Spread measures what it costs that records go to many partitions. Its topic must
// be new.
func Spread(ctx context.Context, o Options) (*Result, error) {
	if o.Duration <= 0 {
		return nil, errors.New("it would never end: use --duration")
	}
	c, all, err := prepare(ctx, &o, true, kmsg.Produce.Int16(), produceLow, produceHigh)
	if err != nil {
		return nil, err
	}
	defer c.close()
	end, err := c.offset(ctx, o.Topic, int32(o.Partitions-1), latest)
	if err != nil {
		return nil, err
	}
	if end > 0 {
		return nil, fmt.Errorf("topic %s has records, so that its first pass is over: name a new one with --topic", o.Topic)
	}
	once := make([]int64, len(all))
	for i, l := range all {
		once[i] = int64(len(l.partitions))
	}
	r := &Result{Kind: "spread", Options: o}
	for _, step := range []struct {
		name       string
		lanes      []*lane
		limits     []int64
		perRequest int
	}{
		{spreadFirst, all, once, 1},
		{spreadLater, all, make([]int64, len(all)), 1},
		{spreadMany, all, make([]int64, len(all)), manyAtOnce},
		{spreadOne, oneEach(all), make([]int64, len(all)), 1},
	} {
		p := o
		p.PerRequest, p.step = step.perRequest, step.name
		if p.InFlight = o.InFlight; step.perRequest > 1 {
			p.InFlight = 5 // as clients have
		}
		if step.limits[0] > 0 {
			p.Duration = patience(o.Partitions) // it ends earlier when all have had a record
		}
		one := &Result{}
		if err := produce(ctx, &p, step.lanes, step.limits, one); err != nil {
			return nil, fmt.Errorf("%s: %w", step.name, err)
		}
		r.Steps = append(r.Steps, one.as(step.name))
		r.Started = one.Started
	}
	r.sum()
	return r, nil
}

// oneEach leaves each lane one partition.
func oneEach(all []*lane) (out []*lane) {
	for _, l := range all {
		out = append(out, &lane{addr: l.addr, partitions: l.partitions[:1], version: l.version})
	}
	return out
}
