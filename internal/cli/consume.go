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

// consumeFlags are the flags of the consume verb.
type consumeFlags struct {
	topics        []string
	from, to      string
	partitions    []int32
	group         string
	count         int64
	exit          bool
	format        string
	readCommitted bool
}

func (a *app) newConsume() *cobra.Command {
	var f consumeFlags
	var output string
	cmd := &cobra.Command{
		Use: "consume TOPIC...", Short: "Read topics and write their records, one per line", Args: cobra.MinimumNArgs(1),
		Long: `Read topics and write their records to the standard output, until Ctrl-C.

--from and --to take ` + admin.PositionHelp + `.
The record at --to is not written; a place beyond the last record is the end.
With --group, reading goes on from the group's committed offsets if there are any, the partitions
are shared with the group's other members, and the offsets of written records are committed.

--format: ` + format.Help + ".",
		Example: `  leat consume orders --from start --exit
  leat consume orders --from -10m --format '%d %k: %v\n'
  leat consume orders --from 2026-05-17 --to 2026-05-18
  leat consume orders --group billing -o json`,
		ValidArgsFunction: a.completeTopics(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.topics, f.exit = args, f.exit || f.to != ""
			if cmd.Flags().Changed("count") && f.count < 1 {
				return usagef("--count %d: give a number of records, at least 1", f.count)
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
	fl.Int32SliceVarP(&f.partitions, "partition", "p", nil, "only these partitions, separated by commas")
	fl.StringVarP(&f.group, "group", "g", "", "read as a member of this group")
	fl.Int64VarP(&f.count, "count", "n", 0, "stop after this many records")
	fl.BoolVarP(&f.exit, "exit", "e", false, "stop at the end that the topics had when the verb started")
	fl.StringVarP(&f.format, "format", "f", `%v\n`, "how to write a record")
	fl.StringVarP(&output, "output", "o", "text", `"text" as --format says, or "json": one object per line`)
	fl.BoolVar(&f.readCommitted, "read-committed", false, "leave out the records of transactions that did not commit")
	cmd.MarkFlagsMutuallyExclusive("group", "partition")
	cmd.MarkFlagsMutuallyExclusive("exit", "to")
	a.completeFlag(cmd, "group", a.completeGroups(0))
	a.completeFlag(cmd, "from", completeWords("start", "end", "-1h", "-10"))
	a.completeFlag(cmd, "to", completeWords("end", "-1h", "-10"))
	a.completeFlag(cmd, "output", completeWords("text", "json"))
	return a.addClientFlags(cmd)
}

// chooseWriter makes the writer that the flags ask for. For a terminal it escapes control characters in records.
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
	from, to, err := f.parseBounds(time.Now())
	if err != nil {
		return err
	}
	c := consumer{flags: f, until: newEnds(to), out: bufio.NewWriterSize(a.out, 64<<10), write: write, timeout: orDefault(a.timeout)}
	shows := showLive
	if isTerminal(a.out) {
		shows = showNothing // the records on the screen show the progress
	}
	opts, err := a.consumeOptions(ctx, f, from, c.until)
	if err != nil {
		return err
	}
	c.meter = newMeter(a.err, "consumed", shows)
	defer c.meter.stopAndSumUp()
	return a.withBroker(ctx, c.meter.tellPerson, opts, func(ctx context.Context, b *broker) error {
		c.cl = b.cl
		return c.consumeRecords(ctx)
	})
}

// parseBounds parses where to begin and where to stop.
func (f consumeFlags) parseBounds(now time.Time) (from, to admin.Position, err error) {
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

// consumeOptions checks that the topics exist, and makes the options of the client.
func (a *app) consumeOptions(ctx context.Context, f consumeFlags, pos admin.Position, until *ends) ([]kgo.Opt, error) {
	opts := []kgo.Opt{kgo.FetchMaxWait(time.Second), kgo.KeepControlRecords(), kgo.MetadataMinAge(time.Second)}
	if f.readCommitted {
		opts = append(opts, kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	}
	err := a.withAdmin(ctx, func(ctx context.Context, adm *kadm.Client) error {
		_, err := topicDetails(ctx, adm, f.topics...)
		if err != nil {
			return err
		}
		if f.group != "" {
			opts = append(opts, f.memberOptions(pos, until)...)
			return nil
		}
		if !f.exit && len(f.partitions) == 0 {
			opts = append(opts, kgo.ConsumeTopics(f.topics...), kgo.ConsumeStartOffset(pos.Offset()))
			if pos.Kind == admin.AtOffset {
				// The client moves this one into the partition. By default it would go back to the
				// start from an offset beyond the end.
				opts = append(opts, kgo.ConsumeResetOffset(pos.Offset()))
			}
			return nil
		}
		from, err := f.resolvePosition(ctx, adm, pos)
		if err != nil {
			return err
		}
		opts = append(opts, kgo.ConsumePartitions(from.KOffsets()))
		if f.exit {
			to, err := f.resolvePosition(ctx, adm, until.at)
			until.addEnds(from, to)
			return err
		}
		return nil
	})
	return opts, err
}

// memberOptions are the options of a client that is a member of the group. Records are marked once the output has
// taken them; the client commits the marks each second, and the verb at its end.
func (f consumeFlags) memberOptions(pos admin.Position, until *ends) []kgo.Opt {
	opts := []kgo.Opt{
		kgo.ConsumerGroup(f.group), kgo.ConsumeTopics(f.topics...), kgo.ConsumeResetOffset(pos.Offset()),
		kgo.BlockRebalanceOnPoll(), kgo.AutoCommitMarks(), kgo.AutoCommitInterval(time.Second),
	}
	if !f.exit {
		return append(opts, kgo.OnPartitionsAssigned(until.noteAssigned))
	}
	return append(opts, kgo.OnPartitionsAssigned(until.onAssigned(f.group, pos)), kgo.OnPartitionsLost(until.onRevoked),
		kgo.OnPartitionsRevoked(func(ctx context.Context, cl *kgo.Client, gone map[string][]int32) {
			until.onRevoked(ctx, cl, gone)
			// A failed commit means that another member reads these records again.
			_ = cl.CommitMarkedOffsets(ctx)
		}))
}

// resolvePosition finds the offsets of a position in the partitions that the flags ask for.
func (f consumeFlags) resolvePosition(ctx context.Context, adm *kadm.Client, pos admin.Position) (kadm.Offsets, error) {
	all := kadm.Offsets{}
	for _, t := range f.topics {
		offsets, err := resolvePositionIn(ctx, adm, t, pos, f.partitions)
		if err != nil {
			return nil, err
		}
		offsets.Each(all.Add)
	}
	return all, nil
}

// consumer writes what a client fetches.
type consumer struct {
	cl            *kgo.Client
	flags         consumeFlags
	until         *ends
	write         format.Writer
	out           *bufio.Writer
	meter         *meter
	timeout       time.Duration
	buf           []byte
	unflushed     []*kgo.Record // records that the output may not have taken yet, those of the last poll
	written       int64         // records written, perhaps into out only
	lastRecord    time.Time     // when the last record came; the start if none has
	groupWaitTold bool          // the user was told that we wait for the group
	heldBackTold  bool          // we have looked for a transaction that holds us back
	groupRefusal  error         // the last answer by which the group did not let us in; nil: there is none
}

// pollTimeout is how long a poll waits where the consumer has something to check while no record comes.
const pollTimeout = 200 * time.Millisecond

// tellGroupWaitAfter is how long we wait for the group to assign partitions before the user is told.
const tellGroupWaitAfter = time.Second

// tellHeldBackAfter is how long we wait for records before the user is told of an open transaction.
const tellHeldBackAfter = time.Second

// consumeRecords writes records until ctx ends, which is how the user stops it, until it has written
// as many as were asked for or has reached the ends, or until it fails. It commits the offsets of
// written records if there is a group.
func (c *consumer) consumeRecords(ctx context.Context) error {
	c.lastRecord = time.Now()
	var err error
	for err == nil && !c.isFinished() && ctx.Err() == nil {
		fetches := c.pollFetches(ctx)
		c.noteRefusal(fetches)
		if err = findFailure(fetches); err == nil {
			err = c.writeRecords(fetches)
		}
		if err == nil {
			err = c.flushRecords()
		}
		c.cl.AllowRebalance()
		if err == nil {
			err = c.checkProgress(ctx, fetches.NumRecords() > 0)
		}
	}
	if lost := context.Cause(ctx); err == nil && errors.Is(lost, errUnreachable) {
		return lost // there is no broker to commit to
	}
	return errors.Join(err, c.commitWritten(ctx))
}

// checkProgress tells the user when the group has not assigned partitions for a while, or a transaction holds us back. With --exit or
// --to it fails when no record has come for the timeout, although brokers answer.
func (c *consumer) checkProgress(ctx context.Context, came bool) error {
	now := time.Now()
	if came {
		c.lastRecord = now
	}
	waited := now.Sub(c.lastRecord)
	if c.flags.group != "" && !c.groupWaitTold && waited >= tellGroupWaitAfter && c.written == 0 && !c.until.isAssigned() {
		c.groupWaitTold = true
		c.meter.tellPerson("waiting for group " + c.flags.group + " to assign partitions: it waits some seconds for members that may still come, and longer for members that do not answer")
	}
	if c.groupRefusal != nil && waited >= c.timeout && !c.until.isAssigned() {
		return c.refusedError()
	}
	if c.flags.exit && c.flags.group != "" && waited >= c.timeout && !c.until.isAssigned() {
		return &sentenceError{kind: errUnreachable, sentence: fmt.Sprintf("group %s has assigned no partitions to us for %s: it waits for members that may still come, "+
			"or that do not answer; \"leat group describe %s\" shows them", c.flags.group, formatDuration(c.timeout), c.flags.group)}
	}
	if c.flags.exit && c.flags.readCommitted && !c.heldBackTold && waited >= tellHeldBackAfter && !c.isFinished() {
		c.heldBackTold = true
		if held := c.until.describeHeldBack(ctx, kadm.NewClient(c.cl)); held != "" {
			c.meter.tellPerson(held)
		}
	}
	if c.flags.exit && waited >= c.timeout && !c.isFinished() {
		if c.flags.readCommitted {
			if held := c.until.describeHeldBack(ctx, kadm.NewClient(c.cl)); held != "" {
				return fmt.Errorf("no record came for %s before the end was reached: %s", formatDuration(c.timeout), held)
			}
		}
		return fmt.Errorf("no record came for %s before the end was reached: %s", formatDuration(c.timeout), c.until.describeMissing())
	}
	return nil
}

// noteRefusal notes that the group has not let us in, though it may at the client's next attempt. A group that
// only waits for its members refuses nobody.
func (c *consumer) noteRefusal(fetches kgo.Fetches) {
	fetches.EachError(func(_ string, _ int32, err error) {
		if session, ok := errors.AsType[*kgo.ErrGroupSession](err); ok && !isNetwork(err) {
			c.groupRefusal = session.Err
		}
	})
}

// refusedError says that the group has not let us in for the timeout, and its coordinator's last answer.
func (c *consumer) refusedError() error {
	why := oneLine(c.groupRefusal)
	if k, ok := errors.AsType[*kerr.Error](c.groupRefusal); ok {
		why = k.Message
		switch {
		case errors.Is(k, kerr.KafkaStorageError), errors.Is(k, kerr.CoordinatorNotAvailable), errors.Is(k, kerr.NotCoordinator):
			why += ", as where the broker's disk is full: its log says why"
		}
	}
	return &sentenceError{kind: errUnreachable, sentence: fmt.Sprintf("group %s has not let us in for %s: its coordinator answers %s",
		c.flags.group, formatDuration(c.timeout), why)}
}

// pollFetches waits for records. It returns without any after pollTimeout if checkProgress has something to check.
func (c *consumer) pollFetches(ctx context.Context) kgo.Fetches {
	if c.flags.exit || c.flags.group != "" && !c.until.isAssigned() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, pollTimeout)
		defer cancel()
	}
	return c.cl.PollFetches(ctx)
}

func (c *consumer) isFinished() bool {
	return c.flags.count > 0 && c.written >= c.flags.count || c.flags.exit && c.until.allReached()
}

// findFailure finds an error of a poll that does not go away by itself.
func findFailure(fetches kgo.Fetches) error {
	var failed error
	fetches.EachError(func(topic string, partition int32, err error) {
		switch {
		case failed != nil, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.UnknownTopicID):
			failed = notFoundf("topic %s does not exist any more", topic)
		case !kerr.IsRetriable(err) && !isNetwork(err):
			failed = answerError(fmt.Sprintf("topic %s, partition %d", topic, partition), err, "")
		}
	})
	return failed
}

// writeRecords writes records, but none beyond the count or the ends.
func (c *consumer) writeRecords(fetches kgo.Fetches) error {
	for it := fetches.RecordIter(); !it.Done(); {
		r := it.Next()
		if c.flags.exit && !c.until.admitRecord(r) || c.flags.count > 0 && c.written >= c.flags.count {
			continue
		}
		c.unflushed = append(c.unflushed, r)
		if r.Attrs.IsControl() {
			continue
		}
		c.buf = c.write(c.buf[:0], r)
		if _, err := c.out.Write(c.buf); err != nil {
			return err
		}
		c.written++
	}
	return nil
}

// flushRecords hands the records of a poll over to the output. Only when it has taken them all are they counted and,
// in a group, marked: an offset that is committed says that its record was written, and no other member reads it.
func (c *consumer) flushRecords() error {
	if err := c.out.Flush(); err != nil {
		return err
	}
	if c.flags.group != "" {
		c.cl.MarkCommitRecords(c.unflushed...)
	}
	for _, r := range c.unflushed {
		if !r.Attrs.IsControl() {
			c.meter.addRecord(len(r.Key) + len(r.Value))
		}
	}
	clear(c.unflushed)
	c.unflushed = c.unflushed[:0]
	return nil
}

func (c *consumer) commitWritten(ctx context.Context) error {
	if c.flags.group == "" {
		return nil
	}
	// The offsets of written records are committed even after Ctrl-C.
	within := c.timeout
	if ctx.Err() != nil {
		within = closeTimeout
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), within)
	defer cancel()
	if err := c.cl.CommitMarkedOffsets(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("committing offsets of group %s: %w", c.flags.group, err)
	}
	return nil
}
