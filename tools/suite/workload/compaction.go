package workload

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/leatstream/leat/internal/bench"
	"github.com/leatstream/leat/internal/bench/client"
	"github.com/leatstream/leat/internal/bench/process"
	"github.com/leatstream/leat/tools/suite/server"
)

// The steps of Compaction.
const (
	CompactionFill   = "fill"
	CompactionClean  = "clean"                  // its seconds are those that the broker's log tells, its bytes those that are new to compaction
	CompactionAlone  = "producer alone"         // of CompactionBeside: latency on another topic
	CompactionBeside = "producer while cleaned" // of CompactionBeside
)

const (
	// cleanedWithin is how long the compaction of one topic may take.
	cleanedWithin = 5 * time.Minute
	// segmentsOf is how many segments a topic fills, about: all but the last one are compacted.
	segmentsOf = 16
	// leastSegment is the smallest segment.bytes that Apache Kafka takes.
	leastSegment = 1 << 20
	// warmPart is the part of the records that is compacted first, so that Java has compiled the code.
	warmPart = 5
)

// CompactionDefaults are the settings of Compaction: 10 million records of 100 bytes as they are stored, each with a key
// of its own.
func CompactionDefaults() Options {
	o := Defaults()
	o.Partitions, o.Records, o.Batch, o.InFlight, o.Duration = 1, 10_000_000, 160, 32, 0
	o.Size = storedRecord - recordOverhead - keySize
	return o
}

// Compaction starts a program on dir, which is empty, fills a topic with o.Records records with keys, lets the broker
// compact it, and measures that: how long it takes by the broker's own log, and its CPU and memory. Before that it does
// the same with a fifth as many records, which warms the broker up. The program must compact soon after a topic
// allows it, and write about each round. The run is void if not just the last record of each key is left.
func Compaction(ctx context.Context, p *server.Program, dir string, o Options) (*Result, error) {
	return compactOn(ctx, p, dir, &o, (*compaction).cleanAlone)
}

// CompactionWithProducer is Compaction during which records are sent to another topic at o.Rate for o.Duration, as
// they are for as long before it.
func CompactionWithProducer(ctx context.Context, p *server.Program, dir string, o Options) (*Result, error) {
	if o.Duration <= 0 {
		return nil, errors.New("duration must be more than 0")
	}
	return compactOn(ctx, p, dir, &o, (*compaction).cleanBeside)
}

// compaction is a broker that compacts topics.
type compaction struct {
	o *Options
	s *server.Server
	r *Result
}

// compactOn runs a program for a compaction that clean makes and measures.
func compactOn(ctx context.Context, p *server.Program, dir string, o *Options, clean func(c *compaction, ctx context.Context, t *keyedTopic) error) (r *Result, err error) {
	if o.Records < warmPart*int64(o.Batch) {
		return nil, fmt.Errorf("%d records are too few to compact", o.Records)
	}
	s, err := p.Start(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Stop()) }()
	o.Brokers, o.Data, o.PIDs = []string{s.Addr}, dir, []int{s.PID()}
	c := &compaction{o: o, s: s, r: &Result{Result: bench.Result{Kind: KindCompaction, Options: o.Options, Started: time.Now().Truncate(time.Second)}}}
	warm := *o
	warm.Topic, warm.Records, warm.Keys = "warm-"+o.Topic, o.Records/warmPart, (o.Keys+warmPart-1)/warmPart
	first, err := makeKeyed(ctx, &warm)
	if err != nil {
		return nil, err
	}
	if err := c.clean(ctx, first); err != nil {
		return nil, err
	}
	if err := first.remove(ctx); err != nil {
		return nil, err
	}
	t, err := makeKeyed(ctx, o)
	if err != nil {
		return nil, err
	}
	c.r.Steps = append(c.r.Steps, t.filled)
	SyncDisks() // the disk must not be busy with the filling
	if err := clean(c, ctx, t); err != nil {
		return nil, err
	}
	return c.r, t.verify(ctx)
}

// makeKeyed makes a topic that is not compacted yet, and fills it.
func makeKeyed(ctx context.Context, o *Options) (*keyedTopic, error) {
	t := &keyedTopic{o: *o}
	t.o.PIDs = nil
	t.o.Configs = append(slices.Clip(t.o.Configs), "cleanup.policy=delete", "retention.ms=-1", "retention.bytes=-1",
		fmt.Sprint("segment.bytes=", max(leastSegment, o.Records*storedRecord/segmentsOf)), "min.cleanable.dirty.ratio=0.01", "max.message.bytes=1048576")
	if err := bench.MakeTopic(ctx, &t.o.Options); err != nil {
		return nil, err
	}
	return t, t.fill(ctx)
}

// cleanAlone compacts the topic while nothing else happens.
func (c *compaction) cleanAlone(ctx context.Context, t *keyedTopic) error {
	before, _, err := process.Memory(c.o.PIDs)
	if err != nil {
		return err
	}
	c.r.RSSBefore = before
	process.ResetPeak(c.o.PIDs)
	var told cleanings
	s, err := MeasureStep(CompactionClean, c.o.PIDs, func(s *Step) (err error) {
		told, s.Bytes, err = c.cleanTopic(ctx, t)
		return err
	})
	if err != nil {
		return err
	}
	s.Seconds, s.Requests, s.Records = told.took.Seconds(), int64(told.rounds), t.closed
	c.r.Steps = append(c.r.Steps, s)
	c.r.Seconds, c.r.Server, c.r.Bytes, c.r.Records, c.r.Requests = s.Seconds, s.Server, s.Bytes, s.Records, s.Requests
	return nil
}

// cleanBeside compacts the topic while records are sent to another one.
func (c *compaction) cleanBeside(ctx context.Context, t *keyedTopic) error {
	other := c.o.Options
	other.Topic, other.Partitions, other.Size, other.Configs = "other-"+c.o.Topic, 1, tailSize, nil
	if err := bench.MakeTopic(ctx, &other); err != nil {
		return err
	}
	alone, err := bench.Latency(ctx, other)
	if err != nil {
		return err
	}
	type outcome struct {
		ended time.Time
		err   error
	}
	cleaned := make(chan outcome, 1)
	go func() {
		err := c.clean(ctx, t)
		cleaned <- outcome{time.Now(), err}
	}()
	beside, err := bench.Latency(ctx, other)
	measured := time.Now()
	done := <-cleaned
	if err = errors.Join(err, done.err); err != nil {
		return err
	}
	if done.ended.Before(measured) {
		return errors.New("the topic was compacted before the latency beside it was measured: this needs more records")
	}
	c.r.Steps = append(c.r.Steps, StepOf(CompactionAlone, alone), StepOf(CompactionBeside, beside))
	c.r.AddSteps()
	return nil
}

// clean is cleanTopic for those who only wait for the end.
func (c *compaction) clean(ctx context.Context, t *keyedTopic) error {
	_, _, err := c.cleanTopic(ctx, t)
	return err
}

// cleanTopic lets the broker compact a topic and waits until its log says that all segments are compacted but the
// last one. It returns how many bytes these had.
func (c *compaction) cleanTopic(ctx context.Context, t *keyedTopic) (told cleanings, dirty int64, err error) {
	if dirty, t.closed, err = closedSegments(c.o.Data, t.o.Topic); err != nil {
		return told, 0, err
	}
	conn, err := client.Dial(ctx, c.s.Addr)
	if err != nil {
		return told, 0, err
	}
	defer conn.Close()
	if err := alterTopic(ctx, conn, t.o.Topic, "cleanup.policy", "compact"); err != nil {
		return told, 0, err
	}
	deadline := time.Now().Add(cleanedWithin)
	for {
		output, err := c.s.Output()
		if err != nil {
			return told, 0, err
		}
		if told = findCleanings(output, t.o.Topic+"-0"); told.upTo >= t.closed {
			return told, dirty, nil
		}
		if c.s.Ended() || time.Now().After(deadline) {
			return told, 0, fmt.Errorf("of %d records %d are compacted after %d rounds: %w; the broker says: %s", t.closed, told.upTo, told.rounds, errNoTime, c.s.LastWords())
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return told, 0, err
		}
	}
}

// closedSegments is how many bytes all segments of a topic's only partition have but the last one, and where that
// begins.
func closedSegments(data, topic string) (bytes, end int64, err error) {
	files, err := filesOf(data, topic)
	if err != nil {
		return 0, 0, err
	}
	last := files[len(files)-1]
	if end, err = strconv.ParseInt(strings.TrimSuffix(filepath.Base(last), ".log"), 10, 64); err != nil {
		return 0, 0, fmt.Errorf("%s is no segment: %w", last, err)
	}
	if len(files) < 2 {
		return 0, 0, fmt.Errorf("topic %s has one segment, which is not compacted: it needs more than %d bytes", topic, leastSegment)
	}
	for _, name := range files[:len(files)-1] {
		info, err := os.Stat(name)
		if err != nil {
			return 0, 0, err
		}
		bytes += info.Size()
	}
	return bytes, end, nil
}
