package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"
)

// The steps of Cold.
const (
	coldDisk    = "disk"       // the files, read by this program
	coldAlone   = "tail alone" // latency on another topic
	coldConsume = "consume cold"
	coldTail    = "tail beside the cold reader"
)

// tailSize is bytes of a value of the topic whose latency is measured.
const tailSize = 100

func coldCommand() *cobra.Command {
	o := coldDefaults()
	cmd := &cobra.Command{
		Use:   "cold",
		Short: "Consume what is not in memory, and see what that does to others' latency",
		Long: `Fill a topic, drop it from the page cache, and consume it from its start, again and again, while records are sent at a fixed rate to
another topic and read back at once; beside it how fast the disk gives the same files, and the latency without the reader.

This needs Linux, and the server's data directory on this machine.`,
		Example: `  leat bench cold --data ./leat-data --records 4000000 --pid $(pidof leat)`,
	}
	f := cmd.Flags()
	f.StringVar(&o.Data, "data", o.Data, "the server's data directory")
	f.DurationVarP(&o.Duration, "duration", "d", o.Duration, "how long to read, and to time the other topic")
	f.Int64Var(&o.Records, "records", o.Records, "records to read")
	f.IntVar(&o.Size, "size", o.Size, "bytes of a record's value")
	f.IntVar(&o.Batch, "batch", o.Batch, "records in a batch")
	f.IntVar(&o.FetchBytes, "fetch-bytes", o.FetchBytes, "bytes asked for in one request")
	f.IntVar(&o.Rate, "rate", o.Rate, "records a second of the other topic")
	bindTopic(cmd, &o)
	return bind(cmd, &o, Cold)
}

func coldDefaults() Options {
	o := defaults()
	o.Partitions, o.Records, o.Duration = 1, 2_000_000, 5*time.Second
	return o
}

// Cold measures a reader of old records, and what it does to those who read new ones.
func Cold(ctx context.Context, o Options) (*Result, error) {
	if o.Data == "" || o.Records <= 0 || o.Duration <= 0 {
		return nil, errors.New("--data, --records and --duration are needed")
	}
	r := &Result{Kind: "cold", Options: o, Started: time.Now().Truncate(time.Second)}
	old := o
	old.Topic = fmt.Sprintf("%s-cold-%08x", o.Topic, rand.Uint32())
	old.Duration, old.PIDs, old.step = 0, nil, loadFill
	if _, err := Produce(ctx, old); err != nil {
		return nil, err
	}
	syncDisks() // what is not written yet cannot be dropped
	files, err := filesOf(o.Data, old.Topic)
	if err != nil {
		return nil, err
	}
	disk, err := diskRate(files)
	if err != nil {
		return nil, err
	}
	r.Steps = append(r.Steps, disk)
	tail := o
	tail.Partitions, tail.Size, tail.Batch, tail.InFlight, tail.Records = 1, tailSize, 1, 1, 0
	tail.step = coldAlone
	alone, err := Latency(ctx, tail)
	if err != nil {
		return nil, err
	}
	r.Steps = append(r.Steps, alone.as(coldAlone))
	old.Passes = 1
	reader := readCold(ctx, &old, files, warmUp+o.Duration)
	tail.step = coldTail
	beside, err := Latency(ctx, tail)
	cold := <-reader
	if err = errors.Join(err, cold.err); err != nil {
		return nil, err
	}
	r.Steps = append(r.Steps, cold.step, beside.as(coldTail))
	c, err := dialAny(ctx, o.Brokers)
	if err != nil {
		return nil, err
	}
	defer c.close()
	r.Seconds, r.Bytes, r.Records, r.Requests = cold.step.Seconds, cold.step.Bytes, cold.step.Records, cold.step.Requests
	r.ClientCPU, r.Server = beside.ClientCPU, beside.Server
	return r, c.atController(ctx, func(c *client) error { return c.remove(ctx, old.Topic) })
}

// filesOf finds the logs of a topic under a server's data directory: Leat and Kafka
// have a directory for each partition, called TOPIC-NUMBER.
func filesOf(data, topic string) (files []string, err error) {
	err = filepath.WalkDir(data, func(path string, d os.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil // it was removed meanwhile
		}
		if err != nil || d.IsDir() || filepath.Ext(path) != ".log" {
			return err
		}
		if dir := filepath.Base(filepath.Dir(path)); len(dir) > len(topic) && dir[:len(topic)+1] == topic+"-" {
			files = append(files, path)
		}
		return nil
	})
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("--data %s has no files of topic %s: is it the server's data directory?", data, topic)
	}
	slices.Sort(files)
	return files, err
}

// diskRate reads files around the page cache.
func diskRate(files []string) (Step, error) {
	if err := dropFiles(files); err != nil {
		return Step{}, err
	}
	return measured(coldDisk, nil, func(s *Step) error {
		for _, name := range files {
			n, err := readAll(name)
			if s.Bytes += n; err != nil {
				return err
			}
		}
		return nil
	})
}

// coldRead is what a reader did.
type coldRead struct {
	step Step
	err  error
}

// readCold consumes from the start to the end and drops what was read, again and
// again for some time. Only the time of consuming counts.
func readCold(ctx context.Context, o *Options, files []string, limit time.Duration) <-chan coldRead {
	done := make(chan coldRead, 1)
	go func() {
		var c coldRead
		c.step.Name = coldConsume
		quiet := *o
		quiet.progress = nil
		for began := time.Now(); c.err == nil && (time.Since(began) < limit || c.step.Bytes == 0); {
			if c.err = dropFiles(files); c.err != nil {
				break
			}
			var r *Result
			if r, c.err = Consume(ctx, quiet); c.err == nil {
				c.step.Seconds += r.Seconds
				c.step.Bytes += r.Bytes
				c.step.Records += r.Records
				c.step.Requests += r.Requests
			}
		}
		done <- c
	}()
	return done
}
