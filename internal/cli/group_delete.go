package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/admin"
)

// deletedGroup is an element of the output of group delete.
type deletedGroup struct {
	Group   string `json:"group"`
	Deleted bool   `json:"deleted"`
}

func (a *app) newGroupDelete() *cobra.Command {
	return &cobra.Command{
		Use: "delete GROUP...", Short: "Delete groups and their committed offsets", Args: cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeGroups(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(cmd.Context(), func(ctx context.Context, cl *kgo.Client) error {
				res, err := kadm.NewClient(cl).DeleteGroups(ctx, args...)
				if err != nil {
					return fmt.Errorf("deleting groups: %w", err)
				}
				var failed []error
				all := []deletedGroup{}
				for _, name := range args {
					if r := res[name]; r.Err != nil {
						failed = append(failed, groupError(ctx, cl, name, r.Err, r.ErrMessage))
						continue
					}
					all = append(all, deletedGroup{Group: name, Deleted: true})
				}
				err = showEach(a, all, func(i int) string { return "deleted group " + escapeLine(all[i].Group) })
				return errors.Join(append(failed, err)...)
			})
		},
	}
}

// deletedOffset is a line of the output of group delete-offsets.
type deletedOffset struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Committed int64  `json:"committed"`         // the offset that is gone
	DryRun    bool   `json:"dry_run,omitempty"` // nothing was deleted
}

// offsetDeletion is the task of group delete-offsets.
type offsetDeletion struct {
	group      string
	topics     []string
	partitions []int32
	dryRun     bool
}

func (a *app) newGroupDeleteOffsets() *cobra.Command {
	var d offsetDeletion
	cmd := &cobra.Command{
		Use: "delete-offsets GROUP --topic TOPIC", Short: "Delete a group's committed offsets in topics", Args: cobra.ExactArgs(1),
		SuggestFor: []string{"offset-delete"},
		Long:       "Delete a group's committed offsets in topics that no member of the group reads.",
		Example: `  leat group delete-offsets billing --topic orders
  leat group delete-offsets billing --topic orders --partition 0,1 --dry-run`,
		ValidArgsFunction: a.completeGroups(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d.group = args[0]
			if len(d.partitions) > 0 && len(d.topics) != 1 {
				return usagef("--partition needs exactly one --topic")
			}
			return a.withClient(cmd.Context(), func(ctx context.Context, cl *kgo.Client) error { return a.deleteOffsets(ctx, cl, d) })
		},
	}
	f := cmd.Flags()
	f.StringSliceVarP(&d.topics, "topic", "t", nil, "the topics, separated by commas")
	f.Int32SliceVarP(&d.partitions, "partition", "p", nil, "only these partitions, separated by commas")
	f.BoolVar(&d.dryRun, "dry-run", false, "only show what would be deleted")
	if err := cmd.MarkFlagRequired("topic"); err != nil {
		panic("BUG: " + err.Error())
	}
	a.completeFlag(cmd, "topic", a.completeTopics(0))
	return cmd
}

func (a *app) deleteOffsets(ctx context.Context, cl *kgo.Client, d offsetDeletion) error {
	adm := kadm.NewClient(cl)
	if _, err := (groupChoice{}).findGroups(ctx, cl, []string{d.group}); err != nil {
		return err
	}
	commits, err := admin.CommittedOffsets(ctx, adm, d.group)
	if err != nil {
		return err
	}
	lines, failed := d.findOffsets(commits[d.group])
	if len(lines) == 0 {
		return errors.Join(failed...)
	}
	set := kadm.TopicsSet{}
	for _, l := range lines {
		set.Add(l.Topic, l.Partition)
	}
	done := []deletedOffset{}
	var res kadm.DeleteOffsetsResponses
	if !d.dryRun {
		if res, err = adm.DeleteOffsets(ctx, d.group, set); err != nil {
			return answerError("group "+d.group, err, "")
		}
	}
	for _, l := range lines {
		switch err, _ := res.Lookup(l.Topic, l.Partition); {
		case errors.Is(err, kerr.GroupSubscribedToTopic):
			failed = append(failed, fmt.Errorf("group %s: its members read topic %s: stop them first", d.group, l.Topic))
		case err != nil:
			failed = append(failed, answerError(fmt.Sprintf("group %s, topic %s, partition %d", d.group, l.Topic, l.Partition), err, ""))
		default:
			done = append(done, l)
		}
	}
	err = a.show(done, func() string {
		t := columns{head: []string{"TOPIC", ">PARTITION", ">DELETED"}}
		if d.dryRun {
			t.head[2] = ">WOULD DELETE"
		}
		for _, l := range done {
			t.addRow(l.Topic, strconv.Itoa(int(l.Partition)), formatNumber(l.Committed))
		}
		return t.String()
	})
	return errors.Join(append(failed, err)...)
}

// findOffsets finds the committed offsets that are to be deleted, and names what has none.
func (d *offsetDeletion) findOffsets(commits kadm.OffsetResponses) (lines []deletedOffset, missing []error) {
	for _, topic := range withoutRepeats(d.topics) {
		partitions := withoutRepeats(d.partitions)
		if len(partitions) == 0 {
			partitions = sortedIDs(commits[topic])
		}
		for _, p := range partitions {
			c, ok := commits.Lookup(topic, p)
			if !ok {
				missing = append(missing, notFoundf("group %s has no committed offset for %s, partition %d", d.group, topic, p))
				continue
			}
			lines = append(lines, deletedOffset{Topic: topic, Partition: p, Committed: c.At, DryRun: d.dryRun})
		}
		if len(partitions) == 0 {
			missing = append(missing, notFoundf("group %s has no committed offsets for topic %s", d.group, topic))
		}
	}
	return lines, missing
}
