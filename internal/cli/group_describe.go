package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/admin"
)

func (a *app) newGroupDescribe() *cobra.Command {
	var c groupChoice
	return a.addGroupArguments(&cobra.Command{
		Use: "describe GROUP...", Short: "Show groups' members, committed offsets and lag",
		Long: `Show groups' members, committed offsets and lag. Groups can be of any kind: classic groups, consumer
groups of Kafka 4, and share groups; of a streams group only the offsets are shown.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(cmd.Context(), func(ctx context.Context, cl *kgo.Client) error {
				entries, missing, err := c.findSomeGroups(ctx, cl, args)
				if err != nil {
					return err
				}
				all, err := admin.DescribeGroups(ctx, cl, entries)
				if err != nil {
					return err
				}
				return errors.Join(missing, a.show(all, func() string {
					parts := make([]string, len(all))
					for i := range all {
						parts[i] = groupText(&all[i])
					}
					return strings.Join(parts, "\n")
				}))
			})
		},
	}, &c)
}

// groupText describes a group for people.
func groupText(d *admin.Description) string {
	var sb strings.Builder
	kind := d.Type
	if d.Assignor != "" {
		kind += ", " + d.Assignor
	}
	members := formatCount(len(d.Members), "member")
	if d.MembersUnknown {
		members = "members not shown"
	}
	fmt.Fprintf(&sb, "group %s: %s, %s, %s, lag %s, coordinator %d\n", escapeLine(d.Group), d.State, kind, members, formatNumber(d.TotalLag), d.Coordinator)
	if d.MembersUnknown {
		fmt.Fprintf(&sb, "leat cannot show the members of %s groups, only their offsets.\n", d.Type)
	}
	if len(d.Members) > 0 {
		t := columns{head: []string{"MEMBER", "INSTANCE", "CLIENT", "HOST", ">PARTITIONS"}}
		for _, m := range d.Members {
			t.addRow(m.ID, m.InstanceID, m.Client, m.Host, strconv.Itoa(m.Partitions))
		}
		sb.WriteString("\n" + t.String())
	}
	if len(d.Partitions) > 0 {
		t := columns{head: []string{"TOPIC", ">PARTITION", ">COMMITTED", ">END", ">LAG", "MEMBER"}}
		if d.Type == admin.Share {
			t.head[2] = ">START"
		}
		for _, p := range d.Partitions {
			t.addRow(p.Topic, strconv.Itoa(int(p.Partition)), formatNumberOrDash(p.Committed), formatNumberOrDash(p.End), formatNumberOrDash(p.Lag), p.Member)
		}
		sb.WriteString("\n" + t.String())
	}
	return sb.String()
}

// formatNumberOrDash writes a number; a negative one is unknown.
func formatNumberOrDash(n int64) string {
	if n < 0 {
		return "-"
	}
	return formatNumber(n)
}
