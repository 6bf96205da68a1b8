package workload

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/leatstream/leat/internal/bench"
)

// The steps of Cold.
const (
	ColdDisk    = "disk"       // the files, read by this program
	ColdAlone   = "tail alone" // latency on another topic
	ColdConsume = "consume cold"
	ColdTail    = "tail beside the cold reader"
)

// tailSize is bytes of a value of the topic whose latency is measured.
const tailSize = 100

// ColdDefaults are the settings of Cold.
func ColdDefaults() Options {
	o := Defaults()
	o.Partitions, o.Records, o.Duration = 1, 2_000_000, 5*time.Second
	return o
}

// Cold fills a topic, drops it from the page cache, and consumes it from its start, again
// and again, while records are sent at a fixed rate to another topic and read back at
// once. Beside that it measures how fast the disk gives the same files, and the latency
// without the reader. It makes both topics, and deletes the one that it fills. It needs
// Linux, and the server's data directory on this machine.
func Cold(ctx context.Context, o Options) (r *Result, err error) {
	if o.Records <= 0 || o.Duration <= 0 {
		return nil, errors.New("records and duration must be more than 0")
	}
	if _, err := os.Stat(o.Data); err != nil {
		return nil, fmt.Errorf("the server's data directory: %w", err)
	}
	old, tail := o.Options, o.Options
	old.Topic = fmt.Sprintf("%s-cold-%08x", o.Topic, rand.Uint32())
	old.Duration, old.PIDs = 0, nil
	tail.Partitions, tail.Size = 1, tailSize
	for _, made := range []*bench.Options{&old, &tail} {
		if err := bench.MakeTopic(ctx, made); err != nil {
			return nil, err
		}
	}
	defer func() { err = errors.Join(err, bench.DeleteTopic(ctx, &old)) }()
	if _, err := bench.Produce(ctx, old); err != nil {
		return nil, err
	}
	SyncDisks() // pages that are not written yet cannot be dropped
	files, err := filesOf(o.Data, old.Topic)
	if err != nil {
		return nil, err
	}
	disk, err := diskRate(files)
	if err != nil {
		return nil, err
	}
	alone, err := bench.Latency(ctx, tail)
	if err != nil {
		return nil, err
	}
	old.Passes = 1
	reader := readCold(ctx, old, files, bench.WarmUp+o.Duration)
	beside, err := bench.Latency(ctx, tail)
	cold := <-reader
	if err = errors.Join(err, cold.err); err != nil {
		return nil, err
	}
	r = &Result{Result: *beside, Steps: []Step{disk, StepOf(ColdAlone, alone), cold.step, StepOf(ColdTail, beside)}}
	r.Kind, r.Options = KindCold, o.Options
	r.Seconds, r.Bytes, r.Records, r.Requests = cold.step.Seconds, cold.step.Bytes, cold.step.Records, cold.step.Requests
	return r, nil
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
		err = fmt.Errorf("%s has no files of topic %s: is it the server's data directory?", data, topic)
	}
	slices.Sort(files)
	return files, err
}

// diskRate reads files around the page cache.
func diskRate(files []string) (Step, error) {
	if err := dropFiles(files); err != nil {
		return Step{}, err
	}
	return MeasureStep(ColdDisk, nil, func(s *Step) error {
		for _, name := range files {
			n, err := readAll(name)
			if s.Bytes += n; err != nil {
				return err
			}
		}
		return nil
	})
}

// coldRead is the outcome of a reader.
type coldRead struct {
	step Step
	err  error
}

// readCold consumes from the start to the end and drops the files, again and
// again for some time. Only the time of consuming counts.
func readCold(ctx context.Context, o bench.Options, files []string, limit time.Duration) <-chan coldRead {
	done := make(chan coldRead, 1)
	go func() {
		var c coldRead
		c.step.Name = ColdConsume
		for began := time.Now(); c.err == nil && (time.Since(began) < limit || c.step.Bytes == 0); {
			if c.err = dropFiles(files); c.err != nil {
				break
			}
			var r *bench.Result
			if r, c.err = bench.Consume(ctx, o); c.err == nil {
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
