package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/admin"
)

func (a *app) groupDescribe() *cobra.Command {
	var c groupChoice
	return a.chooseGroups(&cobra.Command{
		Use: "describe GROUP...", Short: "Show groups' members, committed offsets and lag",
		Long: `Show groups' members, committed offsets and lag. Groups of all kinds are shown: classic ones,
consumer groups of Kafka 4, share groups, and of streams groups the offsets.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(cmd.Context(), func(ctx context.Context, cl *kgo.Client) error {
				entries, err := c.find(ctx, cl, args)
				if err != nil {
					return err
				}
				all, err := admin.DescribeGroups(ctx, cl, entries)
				if err != nil {
					return err
				}
				return a.show(all, func() string {
					parts := make([]string, len(all))
					for i := range all {
						parts[i] = describeText(&all[i])
					}
					return strings.Join(parts, "\n")
				})
			})
		},
	}, &c)
}

// describeText is a group for people.
func describeText(d *admin.Description) string {
	var sb strings.Builder
	kind := d.Type
	if d.Assignor != "" {
		kind += ", " + d.Assignor
	}
	members := count(len(d.Members), "member")
	if d.Hidden {
		members = "members not shown"
	}
	fmt.Fprintf(&sb, "group %s: %s, %s, %s, lag %s, coordinator %d\n", d.Group, d.State, kind, members, number(d.TotalLag), d.Coordinator)
	if d.Hidden {
		fmt.Fprintf(&sb, "leat does not ask for the members of %s groups; their offsets are shown.\n", d.Type)
	}
	if len(d.Members) > 0 {
		t := columns{head: []string{"MEMBER", "INSTANCE", "CLIENT", "HOST", ">PARTITIONS"}}
		for _, m := range d.Members {
			t.add(m.ID, m.InstanceID, m.Client, m.Host, strconv.Itoa(m.Partitions))
		}
		sb.WriteString("\n" + t.String())
	}
	if len(d.Partitions) > 0 {
		t := columns{head: []string{"TOPIC", ">PARTITION", ">COMMITTED", ">END", ">LAG", "MEMBER"}}
		if d.Type == admin.Share {
			t.head[2] = ">START"
		}
		for _, p := range d.Partitions {
			t.add(p.Topic, strconv.Itoa(int(p.Partition)), orDash(p.Committed), orDash(p.End), orDash(p.Lag), p.Member)
		}
		sb.WriteString("\n" + t.String())
	}
	return sb.String()
}

// orDash writes a number that is unknown where it is negative.
func orDash(n int64) string {
	if n < 0 {
		return "-"
	}
	return number(n)
}
