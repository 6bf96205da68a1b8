package workload

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/bench"
	"github.com/leatstream/leat/internal/bench/process"
)

// Ordinary clients: programs that people run, with their default settings. Each
// costs several times as much as a broker should, so that it is the bottleneck, and its
// own CPU stands beside the server's. Times are from its start to its end.

// The steps of a run with an ordinary client.
const (
	ClientProduce = "produce"
	ClientConsume = "consume"
)

// ErrNoClient is returned where a client is not on this machine.
var ErrNoClient = errors.New("is not installed")

// JavaClient measures with Apache Kafka's own client, by its performance tools.
func JavaClient(ctx context.Context, o Options) (*Result, error) { return javaClient().run(ctx, o) }

// KcatClient measures with librdkafka, by kcat.
func KcatClient(ctx context.Context, o Options) (*Result, error) { return kcatClient().run(ctx, o) }

// FranzClient measures with franz-go, in this process.
func FranzClient(ctx context.Context, o Options) (*Result, error) { return franzClient().run(ctx, o) }

// ordinaryClient produces records to a topic of one partition and reads them back.
type ordinaryClient struct {
	input            func(o *Options) (name string, err error) // makes the file that is produced, before time is taken; nil: there is none
	produce, consume func(ctx context.Context, o *Options, input string) (cpu time.Duration, err error)
}

// run measures both directions.
func (c *ordinaryClient) run(ctx context.Context, o Options) (r *Result, err error) {
	r = &Result{Result: bench.Result{Kind: KindClient, Options: o.Options, Started: time.Now().Truncate(time.Second)}}
	input := ""
	if c.input != nil {
		if input, err = c.input(&o); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, os.Remove(input)) }()
	}
	process.ResetPeak(o.PIDs)
	for _, step := range []struct {
		name string
		do   func(ctx context.Context, o *Options, input string) (time.Duration, error)
	}{{ClientProduce, c.produce}, {ClientConsume, c.consume}} {
		var cpu time.Duration
		s, err := MeasureStep(step.name, o.PIDs, func(s *Step) (err error) {
			s.Records, s.Bytes = o.Records, o.Records*int64(o.Size)
			cpu, err = step.do(ctx, &o, input)
			return err
		})
		if err != nil {
			return nil, err
		}
		if cpu > 0 { // it was a process of its own
			s.ClientCPU = cpu.Seconds()
		}
		r.Steps = append(r.Steps, s)
	}
	r.AddSteps()
	r.Records = o.Records
	return r, nil
}

// runTool runs a program to its end, and tells the CPU that it used. Its output goes to
// nobody: to read it would cost this process.
func runTool(ctx context.Context, name string, args ...string) (time.Duration, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return 0, fmt.Errorf("%s %w", name, ErrNoClient)
	}
	cmd := exec.CommandContext(ctx, path, args...) //nolint:gosec // one of two programs
	said := &capped{max: 2000}
	cmd.Stderr = said
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("%s: %w: %s", name, err, said.b)
	}
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), nil
}

// KafkaMissing says why Apache Kafka cannot be run from a directory, "" where it can.
func KafkaMissing(home string) string {
	if home == "" {
		return "KAFKA_HOME is not set"
	}
	jars, err := filepath.Glob(filepath.Join(home, "libs", "*.jar"))
	if err != nil || len(jars) == 0 {
		return home + "/libs has no jars"
	}
	if _, err := exec.LookPath("java"); err != nil {
		return "there is no java"
	}
	return ""
}

// capped keeps the first bytes that are written to it.
type capped struct {
	b   []byte
	max int
}

func (c *capped) Write(b []byte) (int, error) {
	c.b = append(c.b, b[:min(len(b), c.max-len(c.b))]...)
	return len(b), nil
}

func javaClient() *ordinaryClient {
	run := func(ctx context.Context, o *Options, class string, args ...string) (time.Duration, error) {
		if why := KafkaMissing(o.KafkaHome); why != "" {
			return 0, fmt.Errorf("apache Kafka's client %w: %s", ErrNoClient, why)
		}
		args = append([]string{
			"-Xmx512m", "-cp", filepath.Join(o.KafkaHome, "libs", "*"), "org.apache.kafka.tools." + class,
			"--bootstrap-server", o.Brokers[0], "--topic", o.Topic, "--num-records", strconv.FormatInt(o.Records, 10),
		}, args...)
		return runTool(ctx, "java", args...)
	}
	return &ordinaryClient{
		produce: func(ctx context.Context, o *Options, _ string) (time.Duration, error) {
			return run(ctx, o, "ProducerPerformance", "--record-size", strconv.Itoa(o.Size), "--throughput", "-1",
				"--command-property", "acks=all")
		},
		consume: func(ctx context.Context, o *Options, _ string) (time.Duration, error) {
			return run(ctx, o, "ConsumerPerformance", "--command-property", "auto.offset.reset=earliest")
		},
	}
}

func kcatClient() *ordinaryClient {
	return &ordinaryClient{
		input: linesFile,
		produce: func(ctx context.Context, o *Options, input string) (time.Duration, error) {
			return runTool(ctx, "kcat", "-P", "-b", o.Brokers[0], "-t", o.Topic, "-p", "0", "-l", input)
		},
		consume: func(ctx context.Context, o *Options, _ string) (time.Duration, error) {
			// By -e it would end half a second after the last record: so long its last fetch waits for more.
			return runTool(ctx, "kcat", "-C", "-b", o.Brokers[0], "-t", o.Topic, "-p", "0", "-o", "beginning", "-c", strconv.FormatInt(o.Records, 10), "-q")
		},
	}
}

// linesFile has a line for each record.
func linesFile(o *Options) (name string, err error) {
	f, err := os.CreateTemp("", "leat-bench-lines-")
	if err != nil {
		return "", err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	value := make([]byte, o.Size)
	_, _ = rand.Read(value) // it never fails
	line := []byte(base64.StdEncoding.EncodeToString(value)[:o.Size] + "\n")
	const many = 1000
	block := make([]byte, 0, many*len(line))
	for range many {
		block = append(block, line...)
	}
	for left := o.Records; left > 0 && err == nil; left -= many {
		_, err = f.Write(block[:min(left, many)*int64(len(line))])
	}
	return f.Name(), errors.Join(err, f.Sync()) // or the disk is busy with it while time is taken
}

func franzClient() *ordinaryClient {
	return &ordinaryClient{produce: franzProduce, consume: franzConsume}
}

// newFranz makes a client that comes by the listener that the options name.
func newFranz(o *Options, opts ...kgo.Opt) (*kgo.Client, error) {
	c, err := newCaller(o)
	if err != nil {
		return nil, err
	}
	if c.tls != nil {
		opts = append(opts, kgo.DialTLSConfig(c.tls))
	}
	return kgo.NewClient(append(opts, kgo.SeedBrokers(c.addr))...)
}

func franzProduce(ctx context.Context, o *Options, _ string) (time.Duration, error) {
	cl, err := newFranz(o, kgo.DefaultProduceTopic(o.Topic), kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		return 0, err
	}
	defer cl.Close()
	value := make([]byte, o.Size)
	_, _ = rand.Read(value) // it never fails
	var failed atomic.Pointer[error]
	for range o.Records {
		cl.Produce(ctx, &kgo.Record{Value: value}, func(_ *kgo.Record, err error) {
			if err != nil {
				failed.Store(&err)
			}
		})
	}
	if err := cl.Flush(ctx); err != nil {
		return 0, err
	}
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return 0, nil
}

func franzConsume(ctx context.Context, o *Options, _ string) (time.Duration, error) {
	cl, err := newFranz(o, kgo.ConsumeTopics(o.Topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return 0, err
	}
	defer cl.Close()
	for got := int64(0); got < o.Records; {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return 0, err
		}
		got += int64(fetches.NumRecords())
	}
	return 0, nil
}
