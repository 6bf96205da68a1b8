package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/admin"
	"github.com/leatstream/leat/internal/cli/format"
)

// consumeFlags are what the consume verb was told.
type consumeFlags struct {
	topics     []string
	from, to   string
	partitions []int32
	group      string
	count      int64
	exit       bool
	format     string
	committed  bool
}

func (a *app) consume() *cobra.Command {
	var f consumeFlags
	var output string
	cmd := &cobra.Command{
		Use: "consume TOPIC...", Short: "Read topics and write their records, one a line", Args: cobra.MinimumNArgs(1),
		Long: `Read topics and write their records to the standard output, until Ctrl-C.

--from and --to take ` + admin.PositionHelp + `.
The record at --to is not written any more; a place that is not there yet is the end.
With --group, the group's committed offsets count where there are any, partitions are
shared with the group's other members, and what was written is committed.

--format: ` + format.Help + ".",
		Example: `  leat consume orders --from start --exit
  leat consume orders --from -10m --format '%d %k: %v\n'
  leat consume orders --from 2026-05-17 --to 2026-05-18
  leat consume orders --group billing -o json`,
		ValidArgsFunction: a.topics(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.topics, f.exit = args, f.exit || f.to != ""
			if cmd.Flags().Changed("count") && f.count < 1 {
				return usagef("--count %d: give a number of records from 1 on", f.count)
			}
			write, err := f.chooseWriter(output, isTerminal(a.out))
			if err != nil {
				return err
			}
			return a.runConsume(cmd.Context(), f, write)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.from, "from", "", `where to begin (default "end"; with --group "start")`)
	fl.StringVar(&f.to, "to", "", "where to stop (default: never)")
	fl.Int32SliceVarP(&f.partitions, "partition", "p", nil, "only these partitions, with commas between")
	fl.StringVarP(&f.group, "group", "g", "", "read as a member of this group")
	fl.Int64VarP(&f.count, "count", "n", 0, "stop after this many records")
	fl.BoolVarP(&f.exit, "exit", "e", false, "stop at what is the end when it begins")
	fl.StringVarP(&f.format, "format", "f", `%v\n`, "how to write a record")
	fl.StringVarP(&output, "output", "o", "text", `"text" as --format says, or "json": an object a line`)
	fl.BoolVar(&f.committed, "read-committed", false, "leave out the records of transactions that did not commit")
	cmd.MarkFlagsMutuallyExclusive("group", "partition")
	cmd.MarkFlagsMutuallyExclusive("exit", "to")
	a.complete(cmd, "group", a.groups(0))
	a.complete(cmd, "from", words("start", "end", "-1h", "-10"))
	a.complete(cmd, "to", words("end", "-1h", "-10"))
	a.complete(cmd, "output", words("text", "json"))
	return a.asClient(cmd)
}

// chooseWriter makes what writes records as the flags say. A terminal gets no control characters of theirs.
func (f consumeFlags) chooseWriter(output string, forTerminal bool) (format.Writer, error) {
	switch output {
	case "json":
		if forTerminal {
			return format.Printable(format.AppendJSON, `\u%04x`), nil
		}
		return format.AppendJSON, nil
	case "text":
		write, err := format.Parse(f.format, forTerminal)
		if err != nil {
			return nil, usagef("%s", err)
		}
		return write, nil
	default:
		return nil, usagef("--output %s: write text or json", output)
	}
}

func (a *app) runConsume(ctx context.Context, f consumeFlags, write format.Writer) error {
	from, to, err := f.bounds(time.Now())
	if err != nil {
		return err
	}
	c := consumer{flags: f, until: newEnds(to), out: bufio.NewWriterSize(a.out, 64<<10), write: write, timeout: orDefault(a.timeout)}
	shows := showLive
	if isTerminal(a.out) {
		shows = showNothing // the records themselves show that they move
	}
	opts, err := a.consumeOptions(ctx, f, from, c.until)
	if err != nil {
		return err
	}
	c.meter = newMeter(a.err, "consumed", shows)
	defer c.meter.finish()
	return a.withBroker(ctx, c.meter.notice, opts, func(ctx context.Context, b *broker) error {
		c.cl = b.cl
		return c.run(ctx)
	})
}

// bounds are where to begin and where to stop.
func (f consumeFlags) bounds(now time.Time) (from, to admin.Position, err error) {
	begin := f.from
	switch {
	case begin != "":
	case f.group != "":
		begin = "start"
	default:
		begin = "end"
	}
	if from, err = parsePosition(begin, now); err != nil || f.to == "" {
		return from, admin.Position{Kind: admin.AtEnd}, err
	}
	to, err = parsePosition(f.to, now)
	return from, to, err
}

// consumeOptions sees to it that the topics exist and makes the client's options.
func (a *app) consumeOptions(ctx context.Context, f consumeFlags, pos admin.Position, until *ends) ([]kgo.Opt, error) {
	opts := []kgo.Opt{kgo.FetchMaxWait(time.Second), kgo.KeepControlRecords(), kgo.MetadataMinAge(time.Second)}
	if f.committed {
		opts = append(opts, kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	}
	err := a.admin(ctx, func(ctx context.Context, adm *kadm.Client) error {
		_, err := topicDetails(ctx, adm, f.topics...)
		if err != nil {
			return err
		}
		if f.group != "" {
			opts = append(opts, f.asMember(pos, until)...)
			return nil
		}
		if !f.exit && len(f.partitions) == 0 {
			opts = append(opts, kgo.ConsumeTopics(f.topics...), kgo.ConsumeStartOffset(pos.Offset()))
			return nil
		}
		from, err := f.places(ctx, adm, pos)
		if err != nil {
			return err
		}
		opts = append(opts, kgo.ConsumePartitions(from.KOffsets()))
		if f.exit {
			to, err := f.places(ctx, adm, until.at)
			until.expect(from, to)
			return err
		}
		return nil
	})
	return opts, err
}

// asMember are the options of a group's member. Records are marked when they were
// written, and the marks are committed each second and at the end.
func (f consumeFlags) asMember(pos admin.Position, until *ends) []kgo.Opt {
	opts := []kgo.Opt{
		kgo.ConsumerGroup(f.group), kgo.ConsumeTopics(f.topics...), kgo.ConsumeResetOffset(pos.Offset()),
		kgo.BlockRebalanceOnPoll(), kgo.AutoCommitMarks(), kgo.AutoCommitInterval(time.Second),
	}
	if !f.exit {
		return append(opts, kgo.OnPartitionsAssigned(until.noteAssigned))
	}
	return append(opts, kgo.OnPartitionsAssigned(until.assigned(f.group, pos)), kgo.OnPartitionsLost(until.revoked),
		kgo.OnPartitionsRevoked(func(ctx context.Context, cl *kgo.Client, gone map[string][]int32) {
			until.revoked(ctx, cl, gone)
			// A failed commit means that another member reads these records again.
			_ = cl.CommitMarkedOffsets(ctx)
		}))
}

// places resolves a position in the partitions that are meant.
func (f consumeFlags) places(ctx context.Context, adm *kadm.Client, pos admin.Position) (kadm.Offsets, error) {
	all := kadm.Offsets{}
	for _, t := range f.topics {
		offsets, err := placesIn(ctx, adm, t, pos, f.partitions)
		if err != nil {
			return nil, err
		}
		offsets.Each(all.Add)
	}
	return all, nil
}

// consumer writes what a client fetches.
type consumer struct {
	cl      *kgo.Client
	flags   consumeFlags
	until   *ends
	write   format.Writer
	out     *bufio.Writer
	meter   *meter
	timeout time.Duration
	buf     []byte
	done    int64     // records written
	moved   time.Time // when a record came, or the start
	hinted  bool      // a person knows that we wait for the group
}

// endsPoll is how often consume --exit looks whether it is done while nothing comes.
const endsPoll = 200 * time.Millisecond

// groupTold is how long a group may take to let us in before a person is told.
const groupTold = time.Second

// run ends with ctx, which is how a person stops it, at the count, at the ends, or
// with a failure. With a group, it commits what was written.
func (c *consumer) run(ctx context.Context) error {
	c.moved = time.Now()
	var err error
	for err == nil && !c.finished() && ctx.Err() == nil {
		fetches := c.poll(ctx)
		if err = failure(fetches); err == nil {
			err = c.take(fetches)
		}
		if err == nil {
			err = c.out.Flush()
		}
		c.cl.AllowRebalance()
		if err == nil {
			err = c.lookAtClock(fetches.NumRecords() > 0)
		}
	}
	if lost := context.Cause(ctx); err == nil && errors.Is(lost, errUnreachable) {
		return lost // nobody is there to commit to
	}
	return errors.Join(err, c.commit(ctx))
}

// lookAtClock says that a group lets us wait, and fails where a verb that is to end gets nothing
// for the time of --timeout, though brokers answer.
func (c *consumer) lookAtClock(came bool) error {
	now := time.Now()
	if came {
		c.moved = now
	}
	waited := now.Sub(c.moved)
	if c.flags.group != "" && !c.hinted && waited >= groupTold && c.done == 0 && !c.until.isAssigned() {
		c.hinted = true
		c.meter.notice("waiting for group " + c.flags.group + " to let us in: a group waits for its members")
	}
	if c.flags.exit && waited >= c.timeout && !c.finished() {
		return fmt.Errorf("no record for %s, while the end is not reached: %s", duration(c.timeout), c.until.missing())
	}
	return nil
}

// poll waits for records. It looks up from time to time, where there is something to look at.
func (c *consumer) poll(ctx context.Context) kgo.Fetches {
	if c.flags.exit || c.flags.group != "" && !c.until.isAssigned() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, endsPoll)
		defer cancel()
	}
	return c.cl.PollFetches(ctx)
}

func (c *consumer) finished() bool {
	return c.flags.count > 0 && c.done >= c.flags.count || c.flags.exit && c.until.reached()
}

// failure finds an error of a poll that does not pass by itself.
func failure(fetches kgo.Fetches) error {
	var failed error
	fetches.EachError(func(topic string, partition int32, err error) {
		switch {
		case failed != nil, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.UnknownTopicID):
			failed = notFoundf("topic %s does not exist any more", topic)
		case !kerr.IsRetriable(err) && !isNetwork(err):
			failed = about(fmt.Sprintf("topic %s, partition %d", topic, partition), err, "")
		}
	})
	return failed
}

// take writes records up to the count and the ends.
func (c *consumer) take(fetches kgo.Fetches) error {
	for it := fetches.RecordIter(); !it.Done(); {
		r := it.Next()
		if c.flags.exit && !c.until.pass(r) || c.flags.count > 0 && c.done >= c.flags.count {
			continue
		}
		if c.flags.group != "" {
			c.cl.MarkCommitRecords(r)
		}
		if r.Attrs.IsControl() {
			continue
		}
		c.buf = c.write(c.buf[:0], r)
		if _, err := c.out.Write(c.buf); err != nil {
			return err
		}
		c.meter.add(len(r.Key) + len(r.Value))
		c.done++
	}
	return nil
}

func (c *consumer) commit(ctx context.Context) error {
	if c.flags.group == "" {
		return nil
	}
	// Records that were written are committed even when Ctrl-C came meanwhile.
	within := c.timeout
	if ctx.Err() != nil {
		within = goodbye
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), within)
	defer cancel()
	if err := c.cl.CommitMarkedOffsets(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("committing offsets of group %s: %w", c.flags.group, err)
	}
	return nil
}
