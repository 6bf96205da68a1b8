package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/admin"
	"github.com/leatstream/leat/internal/cli/phrase"
)

func (a *app) newTxnDescribe() *cobra.Command {
	return &cobra.Command{
		Use: "describe ID...", Short: "Show the transactions of transactional ids", Args: cobra.MinimumNArgs(1),
		Long: `Show the state of transactional ids, and the partitions that wait for the end of their transactions: where
the transaction begins there, and how many offsets consumers with isolation.level=read_committed wait for.`,
		Example:           `  leat txn describe billing-1`,
		ValidArgsFunction: a.completeTransactions(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(cmd.Context(), func(ctx context.Context, cl *kgo.Client) error {
				return a.describeTransactions(ctx, cl, withoutRepeats(args))
			})
		},
	}
}

func (a *app) describeTransactions(ctx context.Context, cl *kgo.Client, ids []string) error {
	found, silent, err := admin.DescribeTransactions(ctx, cl, ids)
	if err != nil {
		return explainNotServed(err)
	}
	a.tellSilent(silent)
	missing := slices.DeleteFunc(slices.Clone(ids), func(id string) bool {
		return slices.ContainsFunc(found, func(t admin.Transaction) bool { return t.ID == id })
	})
	failed := noSuchTransactions(ctx, cl, missing)
	if len(found) == 0 {
		return failed
	}
	all := showTransactions(found, time.Now())
	return errors.Join(failed, a.show(all, func() string {
		parts := make([]string, len(all))
		for i := range all {
			parts[i] = transactionText(&all[i])
		}
		return strings.Join(parts, "\n")
	}))
}

// noSuchTransactions says which transactional ids do not exist, and which ones may have been meant.
func noSuchTransactions(ctx context.Context, cl *kgo.Client, missing []string) error {
	if len(missing) == 0 {
		return nil
	}
	listed, err := kadm.NewClient(cl).ListTransactions(ctx, nil, nil)
	if err != nil {
		listed = nil // the hint may be left out
	}
	var failed []error
	for _, id := range missing {
		hint := phrase.DidYouMean(id, listed.TransactionalIDs())
		if hint == "" {
			hint = ": it was never used, or was forgotten (transactional.id.expiration.ms)"
		}
		failed = append(failed, notFoundf("transactional id %s does not exist%s", id, hint))
	}
	return errors.Join(failed...)
}

// transactionText describes a transaction for people.
func transactionText(t *shownTransaction) string {
	var sb strings.Builder
	fmt.Fprintf(&sb, "transactional id %s: %s", escapeLine(t.ID), t.State)
	if t.Since >= 0 {
		fmt.Fprintf(&sb, " since %s (%s)", time.UnixMilli(t.Since).UTC().Format(time.RFC3339), formatAge(t.AgeMillis))
	}
	fmt.Fprintf(&sb, ", timeout %s, producer %d with epoch %d, coordinator %d\n", formatAge(int64(t.TimeoutMillis)), t.Producer, t.Epoch, t.Coordinator)
	if len(t.Partitions) == 0 {
		return sb.String()
	}
	table := columns{head: []string{"TOPIC", ">PARTITION", ">FIRST", "HOLDS BACK", ">BEHIND"}}
	for _, p := range t.Partitions {
		holds := "no"
		if p.HoldsBack {
			holds = "yes"
		}
		table.addRow(p.Topic, strconv.Itoa(int(p.Partition)), formatNumberOrDash(p.Start), holds, formatNumberOrDash(p.Behind))
	}
	sb.WriteString("\n" + table.String())
	return sb.String()
}
