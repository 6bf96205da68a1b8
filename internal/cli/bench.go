package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatstream/leat/internal/bench"
	"github.com/leatstream/leat/internal/bench/client"
)

// benchPrefix begins the name of each topic that bench makes. It is how bench
// recognises its own topics, also those of killed runs: it writes junk into no other topic unless
// it is told to.
const benchPrefix = "leat-bench-"

func (a *app) newBench() *cobra.Command {
	cmd := newParent("bench", "Measure a broker: throughput, latency, CPU", a.newBenchProduce(), a.newBenchConsume(), a.newBenchLatency(), a.newBenchCompare())
	cmd.Long = `Measure a broker that speaks Kafka's protocol: Leat, Apache Kafka, or any other.

Each run makes a topic of its own, whose name begins with ` + benchPrefix + `, and deletes it at the end
unless --keep is given. A run that was killed leaves its topic behind; "leat topic delete" removes it.

With --pid the result also shows the CPU and memory of a server process on this machine. Compare these
first where client and server share the machine: throughput then depends on both.`
	cmd.Example = `  leat bench produce --size 1024 --batch 16 --duration 10s
  leat bench consume --fetch-bytes 1048576
  leat bench latency --rate 1000 --size 100 --acks all
  leat bench produce -o json > before.json
  leat bench compare before.json after.json`
	return cmd
}

func (a *app) newBenchProduce() *cobra.Command {
	r := newBenchRun(bench.KindProduce, bench.Produce)
	cmd := &cobra.Command{
		Use: "produce", Short: "Produce as fast as the broker accepts records", Args: cobra.NoArgs,
		Example: `  leat bench produce --size 1024 --batch 16 --in-flight 32
  leat bench produce --partitions 64 --acks 1 --duration 30s --pid $(pidof leat)`,
	}
	f, o := cmd.Flags(), &r.options
	f.DurationVarP(&o.Duration, "duration", "d", o.Duration, "how long to run")
	f.Int64Var(&o.Records, "records", 0, "stop after this many records (0: only --duration counts)")
	f.IntVar(&o.Size, "size", o.Size, "bytes of a record's value")
	f.IntVar(&o.Batch, "batch", o.Batch, "records in a batch; a batch is a request")
	f.IntVar(&o.InFlight, "in-flight", o.InFlight, "requests in flight on each connection")
	f.IntVar(&o.Connections, "connections", 0, "connections (0: one for each partition)")
	f.IntVar(&o.PerRequest, "per-request", 1, "partitions in one request, with one batch each")
	f.IntVar(&o.Threads, "threads", 0, "threads of this program that send (0: one for each of a few connections, two for many)")
	f.StringVar(&o.Congestion, "congestion", "", "TCP congestion control of this side's sockets, say reno (Linux; default: the system's)")
	f.StringVar(&o.Acks, "acks", o.Acks, "0, 1 or all")
	f.StringVar(&o.Compression, "compression", o.Compression, "none, gzip, snappy, lz4 or zstd; records are compressed once, before the clock starts")
	f.IntVar(&o.WriteBytes, "write-bytes", o.WriteBytes, "bytes of requests to send with one write (0: one write for each request, as ordinary clients do)")
	f.IntVarP(&o.Partitions, "partitions", "p", 0, "partitions to use (0: all of an existing topic, one of a new one)")
	f.BoolVar(&r.junkAllowed, "yes", false, "write junk records into a --topic that bench did not make")
	a.completeFlag(cmd, "acks", completeWords("all", "1", "0"))
	a.completeFlag(cmd, "compression", completeWords("none", "gzip", "snappy", "lz4", "zstd"))
	return a.addBenchFlags(cmd, r)
}

func (a *app) newBenchConsume() *cobra.Command {
	r := newBenchRun(bench.KindConsume, bench.Consume)
	r.options.Duration, r.options.Records = 0, 500_000
	cmd := &cobra.Command{
		Use: "consume", Short: "Read a topic from its start to its end as fast as the broker sends it", Args: cobra.NoArgs,
		Long: `Read a topic from its start to its end as fast as the broker sends it.

Without --topic the run makes a topic and fills it before the clock starts. A topic that --topic names
is only read.`,
		Example: `  leat bench consume --records 1000000
  leat bench consume --topic orders --passes 0 --duration 10s --fetch-bytes 65536`,
	}
	f, o := cmd.Flags(), &r.options
	f.DurationVarP(&o.Duration, "duration", "d", o.Duration, "stop after this long (0: only --passes counts)")
	f.IntVar(&o.Passes, "passes", o.Passes, "how often to read the topic (0: until --duration is over)")
	f.IntVar(&o.FetchBytes, "fetch-bytes", o.FetchBytes, "bytes asked for in one request")
	f.IntVar(&o.Connections, "connections", 0, "connections (0: one for each partition)")
	f.IntVarP(&o.Partitions, "partitions", "p", 0, "partitions to read (0: all of an existing topic, one of a new one)")
	f.Int64Var(&o.Records, "records", o.Records, "records to fill a new topic with")
	f.IntVar(&o.Size, "size", o.Size, "bytes of each value in a new topic")
	f.IntVar(&o.Batch, "batch", o.Batch, "records in each batch of a new topic")
	r.creationFlags = []string{"records", "size", "batch"}
	return a.addBenchFlags(cmd, r)
}

func (a *app) newBenchLatency() *cobra.Command {
	r := newBenchRun(bench.KindLatency, bench.Latency)
	r.options.Size = 100
	cmd := &cobra.Command{
		Use: "latency", Short: "Send records at a fixed rate and time their acknowledgement and their arrival", Args: cobra.NoArgs,
		Long: `Send records at a fixed rate, each in a request of its own, and time their acknowledgement and their
arrival at a consumer. All go to one partition, the first.

Times count from the moment at which a record was due, not from the one at which it could be sent: a
stall of the broker is seen in every record that it delays. The first second is not counted.`,
		Example: `  leat bench latency --rate 1000 --size 100
  leat bench latency --rate 5000 --size 1024 --acks 1 --duration 30s`,
	}
	f, o := cmd.Flags(), &r.options
	f.DurationVarP(&o.Duration, "duration", "d", o.Duration, "how long to run")
	f.IntVar(&o.Rate, "rate", o.Rate, "records a second")
	f.IntVar(&o.Size, "size", o.Size, "bytes of a record's value, at least 16")
	f.StringVar(&o.Acks, "acks", o.Acks, "0, 1 or all")
	f.BoolVar(&r.junkAllowed, "yes", false, "write junk records into a --topic that bench did not make")
	a.completeFlag(cmd, "acks", completeWords("all", "1", "0"))
	return a.addBenchFlags(cmd, r)
}

func (a *app) newBenchCompare() *cobra.Command {
	return &cobra.Command{
		Use: "compare BEFORE.json AFTER.json", Short: "Compare two runs that were written with -o json", Args: cobra.ExactArgs(2),
		Example: `  leat bench compare before.json after.json`,
		RunE: func(_ *cobra.Command, args []string) error {
			var results [2]*bench.Result
			for i, name := range args {
				var err error
				if results[i], err = bench.LoadResult(name); errors.Is(err, fs.ErrNotExist) {
					return notFoundf("file %s does not exist", name)
				} else if err != nil {
					return err
				}
			}
			return bench.Compare(a.out, results[0], results[1])
		},
	}
}

// benchRun is one run of a bench verb: what it measures, and what it may do with its topic.
type benchRun struct {
	kind          bench.Kind
	measure       func(context.Context, bench.Options) (*bench.Result, error)
	options       bench.Options
	reached       bool     // a broker has answered: who does not answer from now on is lost
	mayHaveMade   bool     // the run has made its topic, or may have
	junkAllowed   bool     // junk may be written into a topic that bench did not make
	keep          bool     // the topic that was made stays
	creationFlags []string // flags that have an effect only on a topic that the run makes
}

func newBenchRun(kind bench.Kind, measure func(context.Context, bench.Options) (*bench.Result, error)) *benchRun {
	return &benchRun{kind: kind, measure: measure, options: bench.Defaults()}
}

// addBenchFlags gives a bench verb the flags that all of them have, and makes it do the run r.
func (a *app) addBenchFlags(cmd *cobra.Command, r *benchRun) *cobra.Command {
	f, o := cmd.Flags(), &r.options
	f.StringVarP(&o.Topic, "topic", "t", "", "topic to use instead of one that the run makes and deletes")
	f.BoolVar(&r.keep, "keep", false, "do not delete the topic that the run made")
	f.IntVar(&o.Replication, "replication", o.Replication, "replicas of the topic that is made (-1: the broker's default)")
	f.StringArrayVar(&o.Configs, "config", nil, "config of the topic that is made, name=value; may be repeated")
	f.IntSliceVar(&o.PIDs, "pid", nil, "process ids of servers on this machine: show their CPU and memory (Linux)")
	a.completeFlag(cmd, "topic", a.completeTopics(0))
	r.creationFlags = append(r.creationFlags, "keep", "replication", "config")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		// A flag that would have no effect is refused.
		topicExists := func() error {
			for _, name := range r.creationFlags {
				if cmd.Flags().Changed(name) {
					return usagef("--%s is for a topic that the run makes: it has no effect on topic %s", name, o.Topic)
				}
			}
			return nil
		}
		return a.runBench(cmd.Context(), r, topicExists)
	}
	return a.addClientFlags(a.addOutputFlag(cmd))
}

// runBench does a run and shows its result. It deletes the topic that the run made, unless --keep
// is given.
func (a *app) runBench(ctx context.Context, r *benchRun, topicExists func() error) error {
	o := &r.options
	o.Brokers = strings.FieldsFunc(a.bootstrap, func(c rune) bool { return c == ',' || c == ' ' })
	if _, terminal := terminalWidth(a.err); terminal {
		o.Progress = a.err
	}
	if a.output != "table" && a.output != "json" {
		return usagef("--output %s: write table or json", a.output)
	}
	if _, err := parsePairs("--config ", o.Configs); err != nil {
		return err
	}
	if a.identity.isAsked() {
		return usagef("leat bench measures brokers without a login and without TLS: leave out the flags for both, and name the address of a listener that asks for neither")
	}
	if err := o.Validate(r.kind); err != nil {
		return a.benchError(r, err)
	}
	seen := newContact(a.bootstrap, a.timeout, a.tellPerson)
	seen.alwaysOwed = true
	ctx, stop := seen.watchBrokers(ctx)
	defer stop()
	result, err := r.measureTopic(client.WithWatch(ctx, seen.noteAnswer), topicExists)
	if lost := context.Cause(ctx); err != nil && errors.Is(lost, errUnreachable) {
		err = lost
	}
	err = a.benchError(r, err)
	if r.mayHaveMade && !r.keep {
		err = errors.Join(err, r.deleteTopic(ctx, err == nil, seen.timeout))
	}
	if result != nil {
		err = errors.Join(err, a.show(result, result.Text))
	}
	return err
}

// deleteTopic deletes the topic that the run made. After a run that failed or was interrupted it
// tries for a moment only, since the broker may be gone.
func (r *benchRun) deleteTopic(ctx context.Context, succeeded bool, timeout time.Duration) error {
	if !succeeded {
		timeout = closeTimeout
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	if err := bench.DeleteTopic(ctx, &r.options); err != nil {
		return fmt.Errorf("topic %s is left behind: delete it with \"leat topic delete\"", r.options.Topic)
	}
	return nil
}

// measureTopic finds or makes the topic of the run, and measures with it.
func (r *benchRun) measureTopic(ctx context.Context, topicExists func() error) (*bench.Result, error) {
	var err error
	if r.mayHaveMade, err = r.findOrMakeTopic(ctx, topicExists); err != nil {
		return nil, err
	}
	if r.mayHaveMade && r.kind == bench.KindConsume {
		fill := r.options
		fill.Duration, fill.PIDs = 0, nil
		if _, err := bench.Produce(ctx, fill); err != nil {
			return nil, fmt.Errorf("fill topic %s: %w", r.options.Topic, err)
		}
	}
	result, err := r.measure(ctx, r.options)
	if err != nil {
		return nil, err
	}
	return result, nil
}

// findOrMakeTopic makes the topic of the run, or checks that the one that exists may be used.
// After a failure, made tells whether a topic may have been made nevertheless.
func (r *benchRun) findOrMakeTopic(ctx context.Context, topicExists func() error) (made bool, err error) {
	o, reads, unnamed := &r.options, r.kind == bench.KindConsume, r.options.Topic == ""
	switch {
	case reads && !unnamed:
		return false, topicExists() // the run itself fails if the topic is missing
	case reads && o.Records == 0:
		return false, usagef("--records 0: a topic without records cannot be read")
	case unnamed:
		o.Topic = fmt.Sprintf("%s%s-%dp-%06x", benchPrefix, r.kind, max(1, o.Partitions), rand.Uint32()>>8)
	case !r.junkAllowed && !strings.HasPrefix(o.Topic, benchPrefix):
		return false, usagef("bench would write junk records into topic %s, which it did not make: leave --topic out, or add --yes", o.Topic)
	}
	err = bench.MakeTopic(ctx, o)
	r.reached = err == nil || errors.Is(err, kerr.TopicAlreadyExists)
	if errors.Is(err, kerr.TopicAlreadyExists) {
		return false, topicExists()
	}
	return err == nil || unnamed && !errors.Is(err, client.ErrNoBroker), err
}

// benchError makes a sentence and an exit code of the failure of a run.
func (a *app) benchError(r *benchRun, err error) error {
	var option *bench.OptionError
	switch {
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.As(err, &option):
		return usagef("%s", option.Why)
	case isOwnLimit(err):
		return ownLimitError(err)
	case errors.Is(err, client.ErrNoBroker) && !r.reached:
		return unreachableError(a.bootstrap, err)
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		return answerError("topic "+r.options.Topic, err, "")
	case (isNetwork(err) || errors.Is(err, client.ErrNoBroker)) && !errors.Is(err, errUnreachable):
		return &sentenceError{kind: errUnreachable, sentence: fmt.Sprintf("lost the broker on %s (%s) before the end: there is no result", a.bootstrap, describeNetwork(err))}
	case errors.Is(err, bench.ErrEmpty):
		return fmt.Errorf("topic %s is empty: there is nothing to read", r.options.Topic)
	default:
		return err
	}
}
