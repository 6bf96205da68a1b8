package cli

import (
	"context"
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

// moved is one line of what group reset tells; From is -1 where nothing was committed.
type moved struct {
	Group     string `json:"group"`
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	From      int64  `json:"from"`
	To        int64  `json:"to"`
	DryRun    bool   `json:"dry_run,omitempty"` // nothing was changed
}

// reset is what group reset is to do. One of pos, by and file says where to.
type reset struct {
	groups     groupChoice
	pos        *admin.Position
	by         int64
	file       []fileOffset
	topics     []string
	partitions []int32
	dryRun     bool
	known      []string // the groups that there are, once they were asked for
}

func (a *app) groupReset() *cobra.Command {
	var r reset
	var to, file string
	cmd := a.chooseGroups(&cobra.Command{
		Use: "reset GROUP... (--to PLACE | --by N | --from-file FILE)", Short: "Set the offsets from which groups go on",
		SuggestFor: []string{"seek", "reset-offsets"},
		Long: `Set the offsets from which groups go on. Their members must have stopped.

PLACE is ` + admin.PositionHelp + `.
Without --topic, all topics are meant for which the group has committed offsets.
FILE has lines of topic,partition,offset or of group,topic,partition,offset, as "leat group export" and
Kafka's tools write them; - is the input. An offset that a partition does not have becomes its first or last.`,
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
	f.StringVar(&to, "to", "", "the `PLACE` to go on from")
	f.Int64Var(&r.by, "by", 0, "go N records on, or back where N is negative")
	f.StringVar(&file, "from-file", "", "go on from the offsets in this CSV `FILE`")
	f.StringSliceVarP(&r.topics, "topic", "t", nil, "only these topics, with commas between")
	f.Int32SliceVarP(&r.partitions, "partition", "p", nil, "only these partitions, with commas between")
	f.BoolVar(&r.dryRun, "dry-run", false, "only show what would be done")
	cmd.MarkFlagsMutuallyExclusive("to", "by", "from-file")
	cmd.MarkFlagsOneRequired("to", "by", "from-file")
	a.complete(cmd, "topic", a.topics(0))
	return cmd
}

// resetGroups finds the places in all groups first, so that a fault of one of them changes none.
func (a *app) resetGroups(ctx context.Context, cl *kgo.Client, r *reset, names []string) error {
	adm := kadm.NewClient(cl)
	groups, err := r.stopped(ctx, cl, names)
	if err != nil {
		return err
	}
	commits, err := admin.CommittedOffsets(ctx, adm, groups...)
	if err != nil {
		return err
	}
	plan := make([]kadm.Offsets, len(groups))
	all := []moved{}
	for i, g := range groups {
		if plan[i], err = r.plan(ctx, adm, g, commits[g]); err != nil {
			return err
		}
		for _, o := range plan[i].Sorted() {
			m := moved{Group: g, Topic: o.Topic, Partition: o.Partition, From: -1, To: o.At, DryRun: r.dryRun}
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
			return about("group "+g, err, "")
		}
	}
	return a.show(all, func() string {
		t := columns{head: []string{"GROUP", "TOPIC", ">PARTITION", ">FROM", ">TO"}}
		for _, m := range all {
			t.add(m.Group, m.Topic, strconv.Itoa(int(m.Partition)), orDash(m.From), number(m.To))
		}
		return t.String()
	})
}

// stopped are the names of the groups that were chosen. It fails where one has members, which
// would commit over the reset, or is of a kind whose offsets only its coordinator sets. A group
// that is named may be a new one.
func (r *reset) stopped(ctx context.Context, cl *kgo.Client, names []string) ([]string, error) {
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
	listed = slices.DeleteFunc(listed, func(g admin.Group) bool { return !slices.Contains(names, g.Name) })
	for _, g := range listed {
		if g.Kind == admin.Share || g.Kind == admin.Streams {
			return nil, fmt.Errorf("group %s is a %s group: leat does not set the offsets of those", g.Name, g.Kind)
		}
	}
	described, err := admin.DescribeGroups(ctx, cl, listed)
	if err != nil {
		return nil, err
	}
	for _, g := range described {
		if n := len(g.Members); n > 0 {
			return nil, fmt.Errorf("group %s has %s running: stop them first, they would commit over the reset", g.Group, count(n, "member"))
		}
	}
	return names, nil
}

// plan are the offsets that a group is to go on from.
func (r *reset) plan(ctx context.Context, adm *kadm.Client, group string, commits kadm.OffsetResponses) (kadm.Offsets, error) {
	if r.file != nil {
		return r.placesOfFile(ctx, adm, group)
	}
	topics := r.topics
	if len(topics) == 0 {
		topics = sortedKeys(commits)
	}
	if len(topics) == 0 {
		return nil, r.noOffsets(group)
	}
	var to kadm.Offsets
	for _, t := range topics {
		offsets, err := r.places(ctx, adm, t, commits)
		if err != nil {
			return nil, err
		}
		offsets.Each(to.Add)
	}
	return to, nil
}

// noOffsets says that there is nothing to reset, and which group may have been meant.
func (r *reset) noOffsets(group string) error {
	meant := ""
	if near := phrase.Nearest(group, r.known); len(near) > 0 && !slices.Contains(r.known, group) {
		meant = fmt.Sprintf(" (did you mean %s?)", phrase.Join(near, "or"))
	}
	return notFoundf("group %s has no committed offsets: name a topic with --topic%s", group, meant)
}

// places are the offsets in one topic that the reset asks for.
func (r *reset) places(ctx context.Context, adm *kadm.Client, topic string, commits kadm.OffsetResponses) (kadm.Offsets, error) {
	if r.pos != nil {
		return placesIn(ctx, adm, topic, *r.pos, r.partitions)
	}
	ends, err := placesIn(ctx, adm, topic, admin.Position{Kind: admin.AtEnd}, r.partitions)
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
			to.AddOffset(e.Topic, e.Partition, all[topic][e.Partition].Clamp(c.At+r.by), -1)
		}
	})
	return to, nil
}

// placesOfFile are the offsets that the file has for a group.
func (r *reset) placesOfFile(ctx context.Context, adm *kadm.Client, group string) (kadm.Offsets, error) {
	var to kadm.Offsets
	all := map[string]map[int32]admin.Span{}
	for _, o := range r.file {
		if o.group != "" && o.group != group {
			continue
		}
		if all[o.topic] == nil {
			if _, err := topicDetails(ctx, adm, o.topic); err != nil {
				return nil, err
			}
			found, err := admin.Spans(ctx, adm, o.topic)
			if err != nil {
				return nil, err
			}
			all[o.topic] = found[o.topic]
		}
		s, ok := all[o.topic][o.partition]
		if !ok {
			return nil, notFoundf("topic %s has no partition %d: it has %d, from 0 on", o.topic, o.partition, len(all[o.topic]))
		}
		to.AddOffset(o.topic, o.partition, s.Clamp(o.offset), -1)
	}
	if len(to) == 0 {
		return nil, notFoundf("the file has no offsets for group %s", group)
	}
	return to, nil
}
