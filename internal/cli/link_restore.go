package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/leatstream/leat/internal/cluster"
)

// restoredTopics is the output of the verb that has topics mirror again.
type restoredTopics struct {
	Link     string              `json:"link"`
	Source   string              `json:"source"`     // the cluster id of the source
	Restored bool                `json:"restored"`   // false: nothing was changed
	Topics   []cluster.LinkTopic `json:"topics"`     // that are restored, or would be
	More     int                 `json:"moreTopics"` // how many are not listed
	// Warnings are of topics that the source has taken over, and that cannot be restored: they are as they were.
	Warnings []cluster.LinkProblem `json:"warnings"`
}

func (v *linkVerbs) newRestore() *cobra.Command {
	var isMeant bool
	cmd := &cobra.Command{
		Use: "restore NAME [TOPIC ...]", Short: "Have topics that were written here mirror the cluster that has taken over", Args: cobra.MinimumNArgs(1), ValidArgsFunction: v.completeLinks,
		SuggestFor: []string{"reverse", "rejoin", "failback"},
		Long: `Have topics of this cluster mirror those of another one that has mirrored them from here and was promoted: this cluster was away, and is to be the copy
from now on. NAME is a link from that other cluster to this one; without TOPIC all topics are meant that it is for and that were promoted there.

The logs of both are compared, and each replica here is cut where they part: behind that are records that the other cluster never got. They are not lost:
each replica keeps them aside. Then only what is missing is copied, with the same offsets. No client can write to the topics here from then on.

Without --yes the verb only says which topics would be restored.`,
		Example: `  leat link create south --from kafka-1.south:9092
  leat link restore south
  leat link restore south --yes`,
		RunE: func(cmd *cobra.Command, args []string) error {
			q := &cluster.LinkRequest{Verb: cluster.LinkRestore, Name: args[0], Topics: withoutRepeats(args[1:]), DryRun: !isMeant}
			return v.dial(cmd, func(ctx context.Context, n *linkNode) error { return v.restore(ctx, cmd, n, q) })
		},
	}
	cmd.Flags().BoolVar(&isMeant, "yes", false, "do it; without it the verb only says what would be done")
	return v.add(cmd)
}

// restore has topics mirror again, or says which ones would.
func (v *linkVerbs) restore(ctx context.Context, cmd *cobra.Command, n *linkNode, q *cluster.LinkRequest) error {
	a, err := v.ask(ctx, cmd, n, q)
	if err == nil && len(a.Problems) > 0 {
		var b strings.Builder
		writeProblems(&b, "problem", a.Problems)
		err = fmt.Errorf("nothing was restored: %s", strings.TrimSpace(b.String()))
	}
	if err != nil {
		return fmt.Errorf("link %s: %w", q.Name, err)
	}
	r := restoredTopics{Link: q.Name, Source: a.Source, Restored: !q.DryRun && a.Changed, Topics: append([]cluster.LinkTopic{}, a.Topics...), More: a.More, Warnings: append([]cluster.LinkProblem{}, a.Warnings...)}
	if err := v.show(r, r.text); err != nil {
		return err
	}
	if !q.DryRun && len(r.Warnings) > 0 {
		return fmt.Errorf("link %s: %s that the source has taken over not restored, as is told above: clients can write there at both sites", q.Name, formatCount(len(r.Warnings), "topic"))
	}
	if q.DryRun && len(r.Topics) > 0 {
		return usagef("nothing was changed: add --yes to have %s mirror the cluster %s", formatCount(len(r.Topics)+r.More, "topic"), r.Source)
	}
	return nil
}

// text says for people what is restored.
func (r *restoredTopics) text() string {
	var b strings.Builder
	writeProblems(&b, "warning", r.Warnings)
	if len(r.Topics) == 0 && len(r.Warnings) > 0 {
		return b.String()
	}
	if len(r.Topics) == 0 {
		return fmt.Sprintf("no topic here was taken over by the cluster %s, or all that were mirror it already: nothing was changed\n", r.Source)
	}
	t := columns{head: []string{"TOPIC", "SOURCE", ">PARTITIONS"}}
	for _, one := range r.Topics {
		t.addRow(one.Name, one.Source, formatNumber(int64(one.Partitions)))
	}
	b.WriteString(t.String())
	if r.More > 0 {
		_, _ = fmt.Fprintf(&b, "and %s more\n", formatNumber(int64(r.More)))
	}
	if r.Restored {
		_, _ = fmt.Fprintf(&b, "These topics mirror the cluster %s from now on, and no client can write to them here. \"leat link describe %s\" shows how far they are.\n", r.Source, escapeLine(quoteWord(r.Link)))
	}
	return b.String()
}
