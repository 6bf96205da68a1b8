package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/record"
)

// The steps of restart. All times count from the start of the process.
const (
	restartTopic = "empty directory to first topic made"
	restartKill  = "killed, to first acknowledgement"
	restartClean = "stopped, to first acknowledgement"
)

func restartCommand() *cobra.Command {
	o := restartDefaults()
	var dir string
	cmd := &cobra.Command{
		Use:   "restart",
		Short: "Time how soon Leat acknowledges again after it was killed, and after it was stopped",
		Long: `Start Leat on an empty directory, fill it, kill it (kill -9), start it again, stop it, start it once more, and time each start until
the first record is acknowledged. After the kill every acknowledged record must be there.`,
		Example: `  leat bench restart --partitions 10 --records 10000000 --extra 5000`,
	}
	f := cmd.Flags()
	f.StringVar(&dir, "dir", "", "directory for the data (default: a temporary one)")
	f.Int64Var(&o.Records, "records", o.Records, "records to fill it with")
	f.IntVar(&o.Size, "size", o.Size, "bytes of a record's value")
	f.IntVar(&o.Batch, "batch", o.Batch, "records in a batch")
	f.IntVar(&o.Extra, "extra", o.Extra, "more partitions, with one record each")
	bindTopic(cmd, &o)
	return bind(cmd, &o, func(ctx context.Context, o Options) (r *Result, err error) {
		if runtime.GOOS != "linux" {
			return nil, errSuiteLinux
		}
		leat, err := os.Executable()
		if err != nil {
			return nil, err
		}
		temp, err := os.MkdirTemp(dir, "leat-bench-")
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()
		p := &program{command: func(dir, addr string) (string, []string) {
			return leat, []string{"up", "--data", dir, "--listen", addr, "--http", "off", "--log-level", "warn"}
		}}
		return restart(ctx, p, filepath.Join(temp, "data"), o)
	})
}

func restartDefaults() Options {
	o := defaults()
	o.Partitions, o.Records, o.Duration = 10, 2_000_000, 0
	return o
}

// restart times a program's starts on dir, which is empty: with o.Records records
// in o.Partitions partitions, and o.Extra more partitions with a record each.
func restart(ctx context.Context, p *program, dir string, o Options) (r *Result, err error) {
	o.Partitions = max(1, o.Partitions)
	r = &Result{Kind: "restart", Options: o, Started: time.Now().Truncate(time.Second)}
	s, err := p.start(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if s != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	o.Brokers = []string{s.addr}
	c, err := dial(ctx, s.addr)
	if err != nil {
		return nil, err
	}
	_, err = c.topic(ctx, &o, true)
	c.close()
	if err != nil {
		return nil, err
	}
	if err := r.started(restartTopic, s); err != nil {
		return nil, err
	}
	if err := fill(ctx, &o); err != nil {
		return nil, err
	}
	for _, step := range []struct {
		name string
		end  func() error
	}{{restartKill, s.kill}, {restartClean, func() error { return s.stop() }}} {
		if err := step.end(); err != nil {
			return nil, err
		}
		addr := s.addr
		s = nil
		if s, err = p.launch(ctx, dir, addr); err != nil {
			return nil, err
		}
		if err := firstAck(ctx, &o, r, step.name, s); err != nil {
			return nil, err
		}
	}
	r.sum()
	return r, nil
}

// started notes the time and the cost of a start until now.
func (r *Result) started(name string, s *server) error {
	took := time.Since(s.began)
	m := &meter{pids: []int{s.pid()}}
	m.stop()
	used, err := m.servers()
	r.Steps = append(r.Steps, Step{Name: name, Seconds: took.Seconds(), Server: used})
	return err
}

// fill produces what a restart finds.
func fill(ctx context.Context, o *Options) error {
	if o.Records > 0 {
		p := *o
		p.Duration, p.PIDs, p.progress = 0, nil, nil
		if _, err := Produce(ctx, p); err != nil {
			return err
		}
	}
	if o.Extra == 0 {
		return nil
	}
	c, err := dial(ctx, o.Brokers[0])
	if err != nil {
		return err
	}
	defer c.close()
	extra := *o
	extra.Partitions, extra.Topic, extra.Size = o.Extra, o.Topic+"-extra", 100
	m, err := newMaker(ctx, c, &extra)
	if err != nil {
		return err
	}
	var s Step
	return errors.Join(m.create(ctx, &s), m.write(ctx, &s))
}

// firstAck produces a record as soon as the server takes it, and counts what it has.
func firstAck(ctx context.Context, o *Options, r *Result, name string, s *server) error {
	batch, err := makeBatch(record.None, 1, o.Size, time.Now().UnixMilli(), 1)
	if err != nil {
		return err
	}
	c, err := dial(ctx, s.addr)
	if err != nil {
		return err
	}
	defer c.close()
	version, err := c.pick(kmsg.Produce.Int16(), produceLow, produceHigh)
	if err != nil {
		return err
	}
	req := kmsg.NewPtrProduceRequest()
	req.SetVersion(version)
	b := produceRequest(version, -1, o.Topic, []int32{0}, []record.Batch{batch})
	err = insist(ctx, s.began.Add(readyWithin), func() error {
		answer, err := c.exchange(ctx, b, req)
		if err == nil {
			_, err = accepted(answer)
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := r.started(name, s); err != nil {
		return err
	}
	have := int64(0)
	err = insist(ctx, time.Now().Add(patience(o.Partitions+o.Extra)), func() (err error) { // the others may come later
		have, err = ended(ctx, o)
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
