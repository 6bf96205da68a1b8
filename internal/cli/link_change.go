package cli

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/leatstream/leat/internal/cli/phrase"
	"github.com/leatstream/leat/internal/cluster"
)

func (v *linkVerbs) newPause() *cobra.Command {
	cmd := &cobra.Command{
		Use: "pause NAME [TOPIC ...]", Short: "Have a link, or some of its topics, read nothing for a time", Args: cobra.MinimumNArgs(1), ValidArgsFunction: v.completeMirrors,
		SuggestFor: []string{"stop", "disable"},
		Long: `Pause a link, or topics that it mirrors, by their names here. What is here can be read all the same, and what the source deletes meanwhile is missed: a link
that is paused for longer than the source keeps records has a gap afterwards.`,
		Example: `  leat link pause north
  leat link pause north orders web`,
		RunE: v.pauseOrResume(cluster.LinkPause, "paused", "paused already"),
	}
	return v.add(cmd)
}

func (v *linkVerbs) newResume() *cobra.Command {
	cmd := &cobra.Command{
		Use: "resume NAME [TOPIC ...]", Short: "Have a link, or some of its topics, go on", Args: cobra.MinimumNArgs(1), ValidArgsFunction: v.completeMirrors,
		SuggestFor: []string{"start", "enable", "continue"},
		Long: `Have a link go on, or topics that it mirrors, by their names here. Topics that were paused by themselves stay so when their link goes on, and the other
way round: both must go on.`,
		Example: `  leat link resume north
  leat link resume north orders`,
		RunE: v.pauseOrResume(cluster.LinkResume, "resumed", "not paused"),
	}
	return v.add(cmd)
}

// pauseOrResume pauses or resumes; done and was are the words for that, and for what was so before.
func (v *linkVerbs) pauseOrResume(verb cluster.LinkVerb, done, was string) func(cmd *cobra.Command, args []string) error {
	return func(cmd *cobra.Command, args []string) error {
		q := &cluster.LinkRequest{Verb: verb, Name: args[0], Topics: withoutRepeats(args[1:])}
		return v.dial(cmd, func(ctx context.Context, n *linkNode) error {
			return v.change(ctx, cmd, n, q, func(changed bool) string {
				of, is := "link "+q.Name, " is "
				if len(q.Topics) > 0 {
					of = phrase.Join(q.Topics, "and") + " of " + of
				}
				if len(q.Topics) > 1 {
					is = " are "
				}
				if !changed {
					return of + is + was
				}
				return done + " " + of
			})
		})
	}
}

// change has a node change something of a link, and shows that with the words for it.
func (v *linkVerbs) change(ctx context.Context, cmd *cobra.Command, n *linkNode, q *cluster.LinkRequest, words func(changed bool) string) error {
	a, err := v.ask(ctx, cmd, n, q)
	if err != nil {
		return fmt.Errorf("link %s: %w", q.Name, err)
	}
	r := resultOf(q, &a)
	if err := v.show(r, func() string {
		if !r.Done {
			return r.text()
		}
		return r.text() + escapeLine(words(a.Changed)) + "\n"
	}); err != nil {
		return err
	}
	if !r.Done {
		return fmt.Errorf("link %s: %s", q.Name, tellProblems(a.Problems))
	}
	return nil
}

func (v *linkVerbs) newDelete() *cobra.Command {
	cmd := &cobra.Command{
		Use: "delete NAME", Short: "Delete a link by which nothing mirrors any more", Args: cobra.ExactArgs(1), ValidArgsFunction: v.completeLinks,
		SuggestFor: []string{"remove", "rm", "drop"},
		Long: `Delete a link, with its login. It is refused while topics mirror by it, since they would neither go on nor become ordinary topics: promote
or delete them first ("leat link promote", or "leat link failover" if the source is gone). What "leat link report" tells of the link's topics goes with it. Nothing
is changed at the source.`,
		Example: `  leat link delete north`,
		RunE: func(cmd *cobra.Command, args []string) error {
			q := &cluster.LinkRequest{Verb: cluster.LinkDelete, Name: args[0]}
			return v.dial(cmd, func(ctx context.Context, n *linkNode) error {
				return v.change(ctx, cmd, n, q, func(bool) string { return "deleted link " + q.Name })
			})
		},
	}
	return v.add(cmd)
}

// acceptedLoss is a partition in the output of the verb that accepts losses.
type acceptedLoss struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	State     string `json:"state"` // the one in which it was
	From      *int64 `json:"from,omitempty"`
	To        *int64 `json:"to,omitempty"` // the offset after the last one that is lost, or may be
	Accepted  bool   `json:"accepted"`     // with --dry-run: it would be
}

// acceptedLosses is the output of the verb that accepts losses.
type acceptedLosses struct {
	Link       string         `json:"link"`
	DryRun     bool           `json:"dryRun,omitempty"`
	Partitions []acceptedLoss `json:"partitions"`
}

func (v *linkVerbs) newSkip() *cobra.Command {
	var all, dryRun bool
	cmd := &cobra.Command{
		Use: "skip NAME TOPIC [PARTITION ...]", Short: "Accept that records are missing, or try again what has failed", Args: cobra.MinimumNArgs(2), ValidArgsFunction: v.completeMirrors,
		SuggestFor: []string{"accept"},
		Long: `Have partitions of a topic, by its name here, go on that have stopped for a person to decide: with GAP and TOMBSTONES_LOST what is missing here is accepted,
and noted for good; with FAILED it is tried again. It says what exactly was accepted. Partitions that do not wait for that are left as they are.`,
		Example: `  leat link skip north orders 3 --dry-run
  leat link skip north orders 3
  leat link skip north orders --all`,
		RunE: func(cmd *cobra.Command, args []string) error {
			partitions, err := parsePartitions(args[2:])
			switch {
			case err != nil:
				return err
			case all == (len(partitions) > 0):
				return usagef("name partitions of %s, or all of them with --all", args[1])
			}
			return v.dial(cmd, func(ctx context.Context, n *linkNode) error {
				return v.skip(ctx, cmd, n, &skipping{args[0], args[1], partitions, dryRun})
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "all partitions of the topic that wait for it")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only show what would be accepted")
	return v.add(cmd)
}

func parsePartitions(args []string) (list []int32, err error) {
	for _, text := range args {
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil || n < 0 {
			return nil, usagef("%s is not a partition: write whole numbers, such as 0 or 3", text)
		}
		list = append(list, int32(n))
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

// skipping is what is to be skipped; no partitions: all that wait for it.
type skipping struct {
	link, topic string
	partitions  []int32
	dryRun      bool
}

// skip accepts the losses of partitions, and says which ones.
func (v *linkVerbs) skip(ctx context.Context, cmd *cobra.Command, n *linkNode, s *skipping) error {
	d, err := v.describe(ctx, cmd, n, s.link, []string{s.topic})
	if err != nil {
		return fmt.Errorf("link %s: %w", s.link, err)
	}
	for _, p := range s.partitions {
		if int(p) >= len(d.PartitionList) {
			return noSuchPartitionError(s.topic, p, len(d.PartitionList))
		}
	}
	done := acceptedLosses{Link: s.link, DryRun: s.dryRun, Partitions: []acceptedLoss{}}
	q := &cluster.LinkRequest{Verb: cluster.LinkSkip, Name: s.link, Topics: []string{s.topic}}
	for i := range d.PartitionList {
		p := &d.PartitionList[i]
		waits := slices.Contains([]string{stateGap, stateTombstonesLost, stateFailed}, p.State)
		if len(s.partitions) > 0 && !slices.Contains(s.partitions, p.Partition) || len(s.partitions) == 0 && !waits {
			continue
		}
		done.Partitions = append(done.Partitions, acceptedLoss{p.Topic, p.Partition, p.State, p.From, p.To, waits})
		if waits {
			q.Partitions = append(q.Partitions, p.Partition)
		}
	}
	if len(q.Partitions) > 0 && !s.dryRun {
		a, err := v.ask(ctx, cmd, n, q)
		if err == nil && len(a.Problems) > 0 {
			var b strings.Builder
			writeProblems(&b, "problem", a.Problems)
			err = fmt.Errorf("it was not done: %s", strings.TrimSpace(b.String()))
		}
		if err != nil {
			return fmt.Errorf("link %s: %w", s.link, err)
		}
	}
	return v.show(done, done.text)
}

// text says for people what was accepted.
func (d *acceptedLosses) text() string {
	if len(d.Partitions) == 0 {
		return "no partition waits for anything to be accepted: nothing was changed\n"
	}
	var b strings.Builder
	for i := range d.Partitions {
		p := &d.Partitions[i]
		of := fmt.Sprintf("partition %d of %s", p.Partition, escapeLine(p.Topic))
		verb := "accepted"
		if d.DryRun {
			verb = "would accept"
		}
		switch {
		case !p.Accepted:
			_, _ = fmt.Fprintf(&b, "%s is %s, and waits for nothing to be accepted\n", of, p.State)
		case p.State == stateFailed && d.DryRun:
			_, _ = fmt.Fprintf(&b, "%s would try again\n", of)
		case p.State == stateFailed:
			_, _ = fmt.Fprintf(&b, "%s tries again\n", of)
		case p.State == stateTombstonesLost && p.To != nil:
			_, _ = fmt.Fprintf(&b, "%s that keys which the source has deleted in the offsets %d to %d may live on in %s\n", verb, *p.From, *p.To-1, of)
		case p.To != nil:
			_, _ = fmt.Fprintf(&b, "%s that the offsets %d to %d are missing in %s, at most %s\n", verb, *p.From, *p.To-1, of, formatCount(int(*p.To-*p.From), "record"))
		default:
			_, _ = fmt.Fprintf(&b, "%s the loss of %s\n", verb, of)
		}
	}
	return b.String()
}
