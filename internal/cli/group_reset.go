package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// moved is one line of what group reset tells; From is -1 where nothing was committed.
type moved struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	From      int64  `json:"from"`
	To        int64  `json:"to"`
}

// reset is what group reset is to do.
type reset struct {
	group      string
	to         string
	by         int64
	topics     []string
	partitions []int32
	dryRun     bool
}

func (a *app) groupReset() *cobra.Command {
	var r reset
	cmd := &cobra.Command{
		Use: "reset GROUP (--to PLACE | --by N)", Short: "Set the offsets from which a group goes on", Args: cobra.ExactArgs(1),
		Long: `Set the offsets from which a group goes on. Its members must have stopped.

PLACE is ` + positionHelp + `.
Without --topic, all topics are meant for which the group has committed offsets.`,
		Example: `  leat group reset billing --to start
  leat group reset billing --topic orders --to 2026-05-17T00:00:00Z --dry-run
  leat group reset billing --topic orders --partition 0 --by -100`,
		ValidArgsFunction: a.groups(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r.group = args[0]
			if len(r.partitions) > 0 && len(r.topics) != 1 {
				return usagef("--partition needs exactly one --topic")
			}
			var pos position
			if r.to != "" {
				var err error
				if pos, err = parsePosition(r.to, time.Now()); err != nil {
					return err
				}
			}
			return a.admin(cmd.Context(), func(ctx context.Context, adm *kadm.Client) error {
				return a.resetGroup(ctx, adm, r, pos)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&r.to, "to", "", "the place to go on from")
	f.Int64Var(&r.by, "by", 0, "go N records on, or back where N is negative")
	f.StringSliceVarP(&r.topics, "topic", "t", nil, "only these topics, with commas between")
	f.Int32SliceVarP(&r.partitions, "partition", "p", nil, "only these partitions, with commas between")
	f.BoolVar(&r.dryRun, "dry-run", false, "only show what would be done")
	cmd.MarkFlagsMutuallyExclusive("to", "by")
	cmd.MarkFlagsOneRequired("to", "by")
	a.complete(cmd, "topic", a.topics(0))
	return cmd
}

func (a *app) resetGroup(ctx context.Context, adm *kadm.Client, r reset, pos position) error {
	commits, err := commitsOf(ctx, adm, r.group)
	if err != nil {
		return err
	}
	topics := r.topics
	if len(topics) == 0 {
		topics = sortedKeys(commits)
	}
	if len(topics) == 0 {
		return notFoundf("group %s has no committed offsets: name a topic with --topic", r.group)
	}
	var to kadm.Offsets
	for _, t := range topics {
		offsets, err := r.places(ctx, adm, t, pos, commits)
		if err != nil {
			return err
		}
		offsets.Each(to.Add)
	}
	all := []moved{}
	for _, o := range to.Sorted() {
		from := int64(-1)
		if c, ok := commits.Lookup(o.Topic, o.Partition); ok {
			from = c.At
		}
		all = append(all, moved{Topic: o.Topic, Partition: o.Partition, From: from, To: o.At})
	}
	if !r.dryRun {
		res, err := adm.CommitOffsets(ctx, r.group, to)
		if err == nil {
			err = res.Error()
		}
		if err != nil {
			return about("group "+r.group, err, "")
		}
	}
	return a.show(all, func() string {
		t := columns{head: []string{"TOPIC", ">PARTITION", ">FROM", ">TO"}}
		for _, m := range all {
			t.add(m.Topic, strconv.Itoa(int(m.Partition)), orDash(m.From), number(m.To))
		}
		return t.String()
	})
}

// commitsOf are a group's committed offsets, of a group that nobody is in.
func commitsOf(ctx context.Context, adm *kadm.Client, group string) (kadm.OffsetResponses, error) {
	groups, err := adm.DescribeGroups(ctx, group)
	if err != nil {
		return nil, fmt.Errorf("asking for group %s: %w", group, err)
	}
	g := groups[group]
	if g.Err != nil && !errors.Is(g.Err, kerr.GroupIDNotFound) {
		return nil, about("group "+group, g.Err, g.ErrMessage)
	}
	if len(g.Members) > 0 {
		return nil, fmt.Errorf("group %s has %s running: stop them first, they would commit over the reset",
			group, count(len(g.Members), "member"))
	}
	commits, err := adm.FetchOffsets(ctx, group)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return nil, fmt.Errorf("asking for the offsets of group %s: %w", group, err)
	}
	return commits, nil
}

// places are the offsets in one topic that the reset asks for.
func (r reset) places(ctx context.Context, adm *kadm.Client, topic string, pos position, commits kadm.OffsetResponses) (kadm.Offsets, error) {
	if r.to != "" {
		return placesIn(ctx, adm, topic, pos, r.partitions)
	}
	starts, err := placesIn(ctx, adm, topic, position{kind: atStart}, r.partitions)
	if err != nil {
		return nil, err
	}
	ends, err := placesIn(ctx, adm, topic, position{kind: atEnd}, r.partitions)
	if err != nil {
		return nil, err
	}
	var to kadm.Offsets
	starts.Each(func(s kadm.Offset) {
		c, ok := commits.Lookup(s.Topic, s.Partition)
		if !ok {
			return
		}
		e, _ := ends.Lookup(s.Topic, s.Partition)
		to.AddOffset(s.Topic, s.Partition, min(max(c.At+r.by, s.At), e.At), -1)
	})
	return to, nil
}
