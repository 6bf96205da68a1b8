package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/admin"
	"github.com/leatstream/leat/internal/cli/phrase"
)

// movedOffset is a line of the output of group reset. From is -1 if nothing was committed.
type movedOffset struct {
	Group     string `json:"group"`
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	From      int64  `json:"from"`
	To        int64  `json:"to"`
	DryRun    bool   `json:"dry_run,omitempty"` // nothing was changed
}

// offsetReset is the task of group reset: groups go to pos if that is set, to the offsets of file if
// those are set, and otherwise forward by so many records.
type offsetReset struct {
	groups     groupChoice
	pos        *admin.Position
	by         int64
	file       []fileOffset
	topics     []string
	partitions []int32
	dryRun     bool
	known      []string // all groups that exist; filled in by findStoppedGroups
}

func (a *app) newGroupReset() *cobra.Command {
	var r offsetReset
	var to, file string
	cmd := a.addGroupArguments(&cobra.Command{
		Use: "reset GROUP... (--to PLACE | --by N | --from-file FILE)", Short: "Set the offsets at which groups go on",
		SuggestFor: []string{"seek", "reset-offsets"},
		Long: `Set the offsets at which groups go on. Their members must have stopped.

PLACE is ` + admin.PositionHelp + `.
Without --topic, the offsets are set in all topics for which the group has committed offsets.
FILE has lines of topic,partition,offset or of group,topic,partition,offset, as "leat group export" and
Kafka's tools write them; - is the standard input. An offset outside a partition becomes its first or its end.`,
		Example: `  leat group reset billing --to start
  leat group reset billing --topic orders --to 2026-05-17T00:00:00Z --dry-run
  leat group reset billing --topic orders --partition 0 --by -100
  leat group reset billing --from-file offsets.csv`,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if len(r.partitions) > 0 && len(r.topics) != 1 {
				return usagef("--partition needs exactly one --topic")
			}
			switch f := cmd.Flags(); {
			case f.Changed("to"):
				pos, err := parsePosition(to, time.Now())
				if err != nil {
					return err
				}
				r.pos = &pos
			case f.Changed("from-file"):
				if len(r.topics) > 0 {
					return usagef("--topic has no effect with --from-file: the file says which topics")
				}
				if r.file, err = a.readOffsets(file, args); err != nil {
					return err
				}
			}
			return a.withClient(cmd.Context(), func(ctx context.Context, cl *kgo.Client) error {
				return a.resetGroups(ctx, cl, &r, args)
			})
		},
	}, &r.groups)
	f := cmd.Flags()
	f.StringVar(&to, "to", "", "the `PLACE` at which to go on")
	f.Int64Var(&r.by, "by", 0, "go forward by N records, or back if N is negative")
	f.StringVar(&file, "from-file", "", "go on at the offsets in this CSV `FILE`")
	f.StringSliceVarP(&r.topics, "topic", "t", nil, "only these topics, separated by commas")
	f.Int32SliceVarP(&r.partitions, "partition", "p", nil, "only these partitions, separated by commas")
	f.BoolVar(&r.dryRun, "dry-run", false, "only show what would be done")
	cmd.MarkFlagsMutuallyExclusive("to", "by", "from-file")
	cmd.MarkFlagsOneRequired("to", "by", "from-file")
	a.completeFlag(cmd, "topic", a.completeTopics(0))
	return cmd
}

// resetGroups plans the offsets of all groups before it sets any. A group, topic or partition that does
// not exist is named, and the others are reset; any other error in one plan changes nothing.
func (a *app) resetGroups(ctx context.Context, cl *kgo.Client, r *offsetReset, names []string) error {
	adm := kadm.NewClient(cl)
	groups, err := r.findStoppedGroups(ctx, cl, names)
	if err != nil {
		return err
	}
	commits, err := admin.CommittedOffsets(ctx, adm, groups...)
	if err != nil {
		return err
	}
	plan := make([]kadm.Offsets, len(groups))
	all := []movedOffset{}
	var missing missingNames
	for i, g := range groups {
		if plan[i], err = r.planGroup(ctx, adm, g, commits[g], &missing); err != nil {
			return err
		}
		for _, o := range plan[i].Sorted() {
			m := movedOffset{Group: g, Topic: o.Topic, Partition: o.Partition, From: -1, To: o.At, DryRun: r.dryRun}
			if c, ok := commits[g].Lookup(o.Topic, o.Partition); ok {
				m.From = c.At
			}
			all = append(all, m)
		}
	}
	for i, g := range groups {
		if r.dryRun || len(plan[i]) == 0 {
			continue
		}
		res, err := adm.CommitOffsets(ctx, g, plan[i])
		if err == nil {
			err = res.Error()
		}
		if err != nil {
			return answerError("group "+g, err, "")
		}
	}
	if len(all) == 0 && missing.err() != nil {
		return missing.err()
	}
	return errors.Join(missing.err(), a.show(all, func() string {
		t := columns{head: []string{"GROUP", "TOPIC", ">PARTITION", ">FROM", ">TO"}}
		for _, m := range all {
			t.addRow(m.Group, m.Topic, strconv.Itoa(int(m.Partition)), formatNumberOrDash(m.From), formatNumber(m.To))
		}
		return t.String()
	}))
}

// missingNames are the errors about what was named and does not exist, each once.
type missingNames struct{ found []error }

// take notes an error about something that does not exist, and returns any other one.
func (m *missingNames) take(err error) error {
	if !errors.Is(err, errNotFound) {
		return err
	}
	if !slices.ContainsFunc(m.found, func(e error) bool { return e.Error() == err.Error() }) {
		m.found = append(m.found, err)
	}
	return nil
}

func (m *missingNames) err() error { return errors.Join(m.found...) }

// withoutRepeats are names in their order, each once.
func withoutRepeats[T comparable](names []T) []T {
	var once []T
	for _, n := range names {
		if !slices.Contains(once, n) {
			once = append(once, n)
		}
	}
	return once
}

// findStoppedGroups gives the names of the chosen groups. It fails if one has members, which would
// commit over the reset, or is of a kind whose offsets only its coordinator sets. A named group need
// not exist: it is made by the reset.
func (r *offsetReset) findStoppedGroups(ctx context.Context, cl *kgo.Client, names []string) ([]string, error) {
	listed, err := admin.FindGroups(ctx, cl, nil, nil)
	if err != nil {
		return nil, err
	}
	for _, g := range listed {
		r.known = append(r.known, g.Name)
	}
	if r.groups.all {
		for _, g := range listed {
			if r.file == nil || slices.ContainsFunc(r.file, func(o fileOffset) bool { return o.group == g.Name }) {
				names = append(names, g.Name)
			}
		}
	}
	names = withoutRepeats(names)
	listed = slices.DeleteFunc(listed, func(g admin.Group) bool { return !slices.Contains(names, g.Name) })
	for _, g := range listed {
		if g.Kind == admin.Share || g.Kind == admin.Streams {
			return nil, fmt.Errorf("group %s is a %s group: leat cannot set its offsets", g.Name, g.Kind)
		}
	}
	described, err := admin.DescribeGroups(ctx, cl, listed)
	if err != nil {
		return nil, err
	}
	for _, g := range described {
		if n := len(g.Members); n > 0 {
			return nil, fmt.Errorf("group %s still has %s: stop them first, or they would commit over the reset", g.Group, formatCount(n, "member"))
		}
	}
	return names, nil
}

// planGroup finds the offsets at which a group is to go on.
func (r *offsetReset) planGroup(ctx context.Context, adm *kadm.Client, group string, commits kadm.OffsetResponses, missing *missingNames) (kadm.Offsets, error) {
	if r.file != nil {
		return r.planFromFile(ctx, adm, group, missing)
	}
	topics := withoutRepeats(r.topics)
	if len(topics) == 0 {
		topics = sortedKeys(commits)
	}
	if len(topics) == 0 {
		return nil, missing.take(r.noOffsetsError(group))
	}
	var to kadm.Offsets
	for _, t := range topics {
		offsets, err := r.planTopic(ctx, adm, t, commits)
		if err := missing.take(err); err != nil {
			return nil, err
		}
		offsets.Each(to.Add)
	}
	return to, nil
}

// noOffsetsError says that a group has no offsets to reset, and which groups may have been meant.
func (r *offsetReset) noOffsetsError(group string) error {
	meant := ""
	if near := phrase.Nearest(group, r.known); len(near) > 0 && !slices.Contains(r.known, group) {
		meant = fmt.Sprintf(" (did you mean %s?)", phrase.Join(near, "or"))
	}
	return notFoundf("group %s has no committed offsets: name a topic with --topic%s", group, meant)
}

// planTopic finds the offsets in one topic at which a group is to go on.
func (r *offsetReset) planTopic(ctx context.Context, adm *kadm.Client, topic string, commits kadm.OffsetResponses) (kadm.Offsets, error) {
	if r.pos != nil {
		return resolvePositionIn(ctx, adm, topic, *r.pos, r.partitions)
	}
	ends, err := resolvePositionIn(ctx, adm, topic, admin.Position{Kind: admin.AtEnd}, r.partitions)
	if err != nil {
		return nil, err
	}
	all, err := admin.Spans(ctx, adm, topic)
	if err != nil {
		return nil, err
	}
	var to kadm.Offsets
	ends.Each(func(e kadm.Offset) {
		if c, ok := commits.Lookup(e.Topic, e.Partition); ok {
			to.AddOffset(e.Topic, e.Partition, all[topic][e.Partition].Shift(c.At, r.by), -1)
		}
	})
	return to, nil
}

// planFromFile takes the offsets of a group from the file.
func (r *offsetReset) planFromFile(ctx context.Context, adm *kadm.Client, group string, missing *missingNames) (kadm.Offsets, error) {
	var to kadm.Offsets
	all := map[string]map[int32]admin.Span{}
	none := true
	for _, o := range r.file {
		if o.group != "" && o.group != group {
			continue
		}
		none = false
		if all[o.topic] == nil {
			if _, err := topicDetails(ctx, adm, o.topic); err != nil {
				if err := missing.take(err); err != nil {
					return nil, err
				}
				continue
			}
			found, err := admin.Spans(ctx, adm, o.topic)
			if err != nil {
				return nil, err
			}
			all[o.topic] = found[o.topic]
		}
		s, ok := all[o.topic][o.partition]
		if !ok {
			if err := missing.take(noSuchPartitionError(o.topic, o.partition, len(all[o.topic]))); err != nil {
				return nil, err
			}
			continue
		}
		to.AddOffset(o.topic, o.partition, s.Clamp(o.offset), -1)
	}
	if none {
		return nil, missing.take(notFoundf("the file has no offsets for group %s", group))
	}
	return to, nil
}
