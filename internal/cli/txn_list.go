package cli

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/admin"
)

// transactionFilter says which transactions to list, and how.
type transactionFilter struct {
	topics  []string // empty: all
	least   time.Duration
	hanging bool
	quiet   bool // ids only
}

func (a *app) newTxnList() *cobra.Command {
	var f transactionFilter
	cmd := &cobra.Command{
		Use: "list", Short: "List open transactions, the oldest one first", Args: cobra.NoArgs, ValidArgsFunction: completeNothing,
		SuggestFor: []string{"find-hanging"},
		Long: `List open transactions, the oldest one first, and the partitions in which each holds the last stable
offset back: from there on, consumers with isolation.level=read_committed wait for its end.

A transaction in the state Hanging is open in partitions although no coordinator knows of it there, so that
no timeout ends it. "leat txn abort" does. Its age counts from the last write of its producer.`,
		Example: `  leat txn list --older-than 1m
  leat txn list --hanging -o json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.least < 0 {
				return usagef("--older-than %v: give a time that is not below 0", f.least)
			}
			return a.withClient(cmd.Context(), func(ctx context.Context, cl *kgo.Client) error { return a.listTransactions(ctx, cl, &f) })
		},
	}
	flags := cmd.Flags()
	flags.StringSliceVarP(&f.topics, "topic", "t", nil, "only transactions with partitions of these topics, separated by commas")
	flags.DurationVar(&f.least, "older-than", 0, "only transactions that are older than this")
	flags.BoolVar(&f.hanging, "hanging", false, "only transactions that no coordinator is going to end")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "only the transactional ids, one per line")
	a.completeFlag(cmd, "topic", a.completeTopics(0))
	return cmd
}

func (a *app) listTransactions(ctx context.Context, cl *kgo.Client, f *transactionFilter) error {
	found, silent, err := admin.FindTransactions(ctx, cl, f.topics)
	if err != nil {
		return explainNotServed(err)
	}
	a.tellSilent(silent)
	all := slices.DeleteFunc(showTransactions(found, time.Now()), func(t shownTransaction) bool {
		return f.hanging && t.State != admin.Hanging || f.least > 0 && t.AgeMillis <= f.least.Milliseconds()
	})
	if f.quiet {
		ids := []string{}
		for _, t := range all {
			if t.ID != "" {
				ids = append(ids, t.ID)
			}
		}
		return showEach(a, ids, func(i int) string { return ids[i] })
	}
	return a.show(all, func() string {
		if len(all) == 0 {
			return "no open transactions\n"
		}
		t := columns{head: []string{"TRANSACTIONAL ID", "STATE", ">AGE", ">TIMEOUT", ">PRODUCER", ">EPOCH", ">COORDINATOR", ">PARTITIONS", "HOLDS BACK"}}
		for i := range all {
			x := &all[i]
			t.addRow(textOrDash(x.ID), x.State, formatAge(x.AgeMillis), formatAge(int64(x.TimeoutMillis)), strconv.FormatInt(x.Producer, 10),
				strconv.Itoa(int(x.Epoch)), numberOrDash(int64(x.Coordinator)), strconv.Itoa(len(x.Partitions)), heldText(&x.Transaction))
		}
		return t.String()
	})
}

// heldText names the partitions whose last stable offset a transaction holds back, with the first offset that is held.
func heldText(t *admin.Transaction) string {
	const named = 3
	var held []string
	more := 0
	for _, p := range t.Partitions {
		switch {
		case !p.HoldsBack:
		case len(held) == named:
			more++
		default:
			held = append(held, fmt.Sprintf("%s-%d at %s", p.Topic, p.Partition, formatNumber(p.Start)))
		}
	}
	if more > 0 {
		held = append(held, fmt.Sprintf("%s more", formatNumber(int64(more))))
	}
	return textOrDash(strings.Join(held, ", "))
}
