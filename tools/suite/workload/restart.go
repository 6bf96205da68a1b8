package workload

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/bench"
	"github.com/leatstream/leat/internal/bench/client"
	"github.com/leatstream/leat/internal/bench/process"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/tools/suite/server"
)

// The steps of Restart. All times count from the start of the process.
const (
	RestartTopic = "empty directory to first topic made"
	RestartKill  = "killed, to first acknowledgement"
	RestartClean = "stopped, to first acknowledgement"
)

// RestartDefaults are the settings of Restart.
func RestartDefaults() Options {
	o := Defaults()
	o.Partitions, o.Records, o.Duration = 10, 2_000_000, 0
	return o
}

// Restart starts a program on dir, which is empty, fills it, kills it (kill -9), starts it
// again, stops it, starts it once more, and times each start until the first record is
// acknowledged. It fills o.Records records into o.Partitions partitions, and one record
// into each of o.Extra more partitions. After each start every acknowledged record must
// be there.
func Restart(ctx context.Context, p *server.Program, dir string, o Options) (r *Result, err error) {
	o.Partitions = max(1, o.Partitions)
	r = &Result{Result: bench.Result{Kind: KindRestart, Options: o.Options, Started: time.Now().Truncate(time.Second)}}
	s, err := p.Start(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if s != nil {
			err = errors.Join(err, s.Stop())
		}
	}()
	o.Brokers = []string{s.Addr}
	if err := bench.MakeTopic(ctx, &o.Options); err != nil {
		return nil, err
	}
	if err := r.addStart(RestartTopic, s); err != nil {
		return nil, err
	}
	if err := fillForRestart(ctx, &o); err != nil {
		return nil, err
	}
	for _, step := range []struct {
		name string
		end  func() error
	}{{RestartKill, s.Kill}, {RestartClean, func() error { return s.Stop() }}} {
		if err := step.end(); err != nil {
			return nil, err
		}
		addr := s.Addr
		s = nil
		if s, err = p.Launch(ctx, dir, addr); err != nil {
			return nil, err
		}
		if err := produceFirst(ctx, &o, r, step.name, s); err != nil {
			return nil, err
		}
	}
	r.AddSteps()
	return r, nil
}

// addStart notes the time and the cost of a start until now.
func (r *Result) addStart(name string, s *server.Server) error {
	m := process.StartAtBirth([]int{s.PID()}, s.Began)
	m.End()
	used, err := m.Usage()
	r.Steps = append(r.Steps, Step{Name: name, Seconds: m.Seconds, Server: used})
	return err
}

// fillForRestart produces the records that a restart finds.
func fillForRestart(ctx context.Context, o *Options) error {
	if o.Records > 0 {
		p := o.Options
		p.Duration, p.PIDs = 0, nil
		if _, err := bench.Produce(ctx, p); err != nil {
			return err
		}
	}
	if o.Extra == 0 {
		return nil
	}
	c, err := client.Dial(ctx, o.Brokers[0])
	if err != nil {
		return err
	}
	defer c.Close()
	extra := *o
	extra.Partitions, extra.Topic, extra.Size = o.Extra, o.Topic+"-extra", 100
	m, err := newMaker(ctx, c, &extra)
	if err != nil {
		return err
	}
	var s Step
	return errors.Join(m.create(ctx, &s), m.write(ctx, &s))
}

// produceFirst produces a record as soon as the server takes it, and counts the records there.
func produceFirst(ctx context.Context, o *Options, r *Result, name string, s *server.Server) error {
	batch, err := bench.MakeBatch(record.None, 1, o.Size, time.Now().UnixMilli(), 1)
	if err != nil {
		return err
	}
	c, err := client.Dial(ctx, s.Addr)
	if err != nil {
		return err
	}
	defer c.Close()
	version, err := c.PickVersion(kmsg.Produce.Int16(), bench.ProduceLow, bench.ProduceHigh)
	if err != nil {
		return err
	}
	req := kmsg.NewPtrProduceRequest()
	req.SetVersion(version)
	b := bench.EncodeProduce(version, acksAll, o.Topic, []int32{0}, []record.Batch{batch})
	err = retryUntil(ctx, s.Began.Add(server.ReadyWithin), func() error {
		answer, err := c.Exchange(ctx, b, req)
		if err == nil {
			_, err = countAccepted(answer)
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := r.addStart(name, s); err != nil {
		return err
	}
	have := int64(0)
	err = retryUntil(ctx, time.Now().Add(timeFor(o.Partitions+o.Extra)), func() (err error) { // the others may come later
		have, err = CountRecords(ctx, o)
		return err
	})
	if err != nil {
		return err
	}
	batches := (o.Records + int64(o.Batch) - 1) / int64(o.Batch) * int64(o.Batch)
	if want := batches + int64(len(r.Steps)-1); have != want { // and one record of each start
		return fmt.Errorf("%s: %d records were acknowledged, but %d are there", name, want, have)
	}
	return nil
}
