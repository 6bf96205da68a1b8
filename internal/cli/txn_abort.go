package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/admin"
	"github.com/leatstream/leat/internal/cli/phrase"
)

// abortedTransaction is a line of the output of txn abort.
type abortedTransaction struct {
	ID        string `json:"transactional_id,omitempty"`
	Producer  int64  `json:"producer_id"`
	Epoch     int16  `json:"producer_epoch"` // as it was
	State     string `json:"state"`          // as it was
	Topic     string `json:"topic,omitempty"`
	Partition *int32 `json:"partition,omitempty"` // nil: all partitions of the transaction
	Start     *int64 `json:"start,omitempty"`
	Aborted   bool   `json:"aborted"`
	DryRun    bool   `json:"dry_run,omitempty"` // nothing was aborted
}

// transactionAbort is the task of txn abort: that of a transactional id, or one that hangs in a partition.
type transactionAbort struct {
	id        string
	topic     string
	partition int32
	start     int64
	dryRun    bool
}

func (a *app) newTxnAbort() *cobra.Command {
	var x transactionAbort
	cmd := &cobra.Command{
		Use: "abort (ID | --topic TOPIC --partition N [--start-offset N])", Short: "Abort an open transaction", Args: cobra.MaximumNArgs(1),
		SuggestFor: []string{"fence", "forceTerminateTransaction"},
		Long: `Abort the open transaction of a transactional id. Its producer is fenced: it can neither write nor commit
any more, and has to start again.

A transaction that hangs has no coordinator that could abort it. It is named by a partition, with --start-offset
if several hang there, and aborted in this partition; "leat txn list --hanging" shows where they are. One that a
coordinator is going to end is refused there, since its other partitions would be committed.`,
		Example: `  leat txn abort billing-1 --dry-run
  leat txn abort --topic orders --partition 3 --start-offset 1042`,
		ValidArgsFunction: a.completeTransactions(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			flags := cmd.Flags()
			isPlace := flags.Changed("topic") || flags.Changed("partition") || flags.Changed("start-offset")
			switch {
			case len(args) == 1 && isPlace:
				return usagef("name a transactional id or a partition, not both")
			case len(args) == 1:
				x.id = args[0]
				return a.withClient(cmd.Context(), func(ctx context.Context, cl *kgo.Client) error { return a.abortID(ctx, cl, &x) })
			case !flags.Changed("topic") || !flags.Changed("partition"):
				return usagef("name a transactional id, or give --topic and --partition")
			case x.partition < 0 || flags.Changed("start-offset") && x.start < 0:
				return usagef("a partition or an offset is not below 0")
			}
			return a.withClient(cmd.Context(), func(ctx context.Context, cl *kgo.Client) error { return a.abortHanging(ctx, cl, &x) })
		},
	}
	f := cmd.Flags()
	f.StringVarP(&x.topic, "topic", "t", "", "the topic in which it hangs")
	f.Int32VarP(&x.partition, "partition", "p", 0, "the partition in which it hangs")
	f.Int64Var(&x.start, "start-offset", -1, "the offset of its first record there")
	f.BoolVar(&x.dryRun, "dry-run", false, "only show what would be aborted")
	a.completeFlag(cmd, "topic", a.completeTopics(0))
	return cmd
}

// abortID aborts the transaction of a transactional id.
func (a *app) abortID(ctx context.Context, cl *kgo.Client, x *transactionAbort) error {
	found, silent, err := admin.DescribeTransactions(ctx, cl, []string{x.id})
	if err != nil {
		return explainNotServed(err)
	}
	switch {
	case len(found) > 0:
	case silent != nil:
		return explainRefusal(silent)
	default:
		return noSuchTransactions(ctx, cl, []string{x.id})
	}
	t := &found[0]
	done := abortedTransaction{ID: t.ID, Producer: t.Producer, Epoch: t.Epoch, State: t.State, DryRun: x.dryRun}
	if !t.IsOpen() {
		return a.show(done, func() string {
			return fmt.Sprintf("transactional id %s has no open transaction (%s): there is nothing to do\n", escapeLine(t.ID), t.State)
		})
	}
	if !x.dryRun {
		if err := admin.AbortTransaction(ctx, cl, t.ID, t.TimeoutMillis); err != nil {
			return err
		}
		done.Aborted = true
	}
	return a.show(done, func() string {
		what := fmt.Sprintf("the transaction of %s in %s, and ", escapeLine(t.ID), formatCount(len(t.Partitions), "partition"))
		who := fmt.Sprintf("producer %d with epoch %d", t.Producer, t.Epoch)
		if x.dryRun {
			return "would abort " + what + "fence " + who + "\n"
		}
		return "aborted " + what + "fenced " + who + "\n"
	})
}

// abortHanging aborts a transaction that hangs in a partition.
func (a *app) abortHanging(ctx context.Context, cl *kgo.Client, x *transactionAbort) error {
	found, silent, err := admin.FindTransactions(ctx, cl, []string{x.topic})
	if err != nil {
		return explainNotServed(err)
	}
	if silent != nil { // a coordinator that does not answer may know the transaction
		return fmt.Errorf("it is not known which transactions hang: %w", explainRefusal(silent))
	}
	t, p, err := x.choose(found)
	if err != nil {
		return err
	}
	if !x.dryRun {
		if err := admin.AbortHanging(ctx, cl, t, p); err != nil {
			return err
		}
	}
	done := abortedTransaction{
		ID: t.ID, Producer: t.Producer, Epoch: t.Epoch, State: t.State, Topic: p.Topic, Partition: &p.Partition, Start: &p.Start,
		Aborted: !x.dryRun, DryRun: x.dryRun,
	}
	return a.show(done, func() string {
		did := "aborted"
		if x.dryRun {
			did = "would abort"
		}
		return fmt.Sprintf("%s the transaction of producer %d with epoch %d that hangs in %s, partition %d, from offset %s on\n",
			did, t.Producer, t.Epoch, p.Topic, p.Partition, formatNumber(p.Start))
	})
}

// choose finds the transaction that is meant.
func (x *transactionAbort) choose(found []admin.Transaction) (*admin.Transaction, *admin.OpenPartition, error) {
	var t *admin.Transaction
	var p *admin.OpenPartition
	var starts []string
	for i := range found {
		at := slices.IndexFunc(found[i].Partitions, func(p admin.OpenPartition) bool {
			return p.Topic == x.topic && p.Partition == x.partition && (x.start < 0 || p.Start == x.start)
		})
		switch {
		case at < 0:
			continue
		case found[i].State != admin.Hanging && x.start < 0:
			continue // there may be one beside it that hangs
		case found[i].State != admin.Hanging:
			return nil, nil, fmt.Errorf("the coordinator of transactional id %s is going to end this transaction: \"leat txn abort %s\" aborts it in all partitions",
				found[i].ID, found[i].ID)
		}
		t, p = &found[i], &found[i].Partitions[at]
		starts = append(starts, strconv.FormatInt(p.Start, 10))
	}
	switch {
	case len(starts) == 0:
		return nil, nil, notFoundf("no transaction hangs in %s, partition %d: \"leat txn list\" shows those that are open", x.topic, x.partition)
	case len(starts) > 1:
		return nil, nil, errors.New("several transactions hang there: choose one by --start-offset " + phrase.Join(starts, "or"))
	}
	return t, p, nil
}
