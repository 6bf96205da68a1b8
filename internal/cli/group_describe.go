package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
)

// describedGroup is what group describe tells.
type describedGroup struct {
	Group       string            `json:"group"`
	State       string            `json:"state"`
	Type        string            `json:"type"`
	Protocol    string            `json:"protocol,omitempty"`
	Coordinator int32             `json:"coordinator"`
	TotalLag    int64             `json:"total_lag"`
	Members     []describedMember `json:"members"`
	Partitions  []groupPartition  `json:"partitions"`
}

type describedMember struct {
	ID         string `json:"id"`
	InstanceID string `json:"instance_id,omitempty"`
	Client     string `json:"client"`
	Host       string `json:"host"`
	Partitions int    `json:"partitions"`
}

// groupPartition is a partition that a group reads; Committed and Lag are -1 where
// nothing was committed.
type groupPartition struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Committed int64  `json:"committed"`
	End       int64  `json:"end"`
	Lag       int64  `json:"lag"`
	Member    string `json:"member,omitempty"`
}

func (a *app) groupDescribe() *cobra.Command {
	return &cobra.Command{
		Use: "describe GROUP...", Short: "Show groups' members, committed offsets and lag", Args: cobra.MinimumNArgs(1),
		ValidArgsFunction: a.groups(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.admin(cmd.Context(), func(ctx context.Context, adm *kadm.Client) error {
				all := []describedGroup{}
				for _, g := range args {
					l, err := lagOf(ctx, adm, g)
					if err != nil {
						return err
					}
					all = append(all, describeGroup(l))
				}
				return a.show(all, func() string {
					parts := make([]string, len(all))
					for i, g := range all {
						parts[i] = g.String()
					}
					return strings.Join(parts, "\n")
				})
			})
		},
	}
}

func describeGroup(l kadm.DescribedGroupLag) describedGroup {
	d := describedGroup{
		Group: l.Group, State: l.State, Type: l.ProtocolType, Protocol: l.Protocol, Coordinator: l.Coordinator.NodeID,
		Members: []describedMember{}, Partitions: []groupPartition{},
	}
	for _, m := range l.Members {
		dm := describedMember{ID: m.MemberID, Client: m.ClientID, Host: m.ClientHost}
		if m.InstanceID != nil {
			dm.InstanceID = *m.InstanceID
		}
		if as, ok := m.Assigned.AsConsumer(); ok {
			for _, t := range as.Topics {
				dm.Partitions += len(t.Partitions)
			}
		}
		d.Members = append(d.Members, dm)
	}
	for _, p := range l.Lag.Sorted() {
		gp := groupPartition{Topic: p.Topic, Partition: p.Partition, Committed: p.Commit.At, End: p.End.Offset, Lag: p.Lag}
		if p.Member != nil {
			gp.Member = p.Member.MemberID
		}
		d.TotalLag += max(p.Lag, 0)
		d.Partitions = append(d.Partitions, gp)
	}
	return d
}

// String is the description for people.
func (d describedGroup) String() string {
	var sb strings.Builder
	protocol := ""
	if d.Protocol != "" {
		protocol = ", " + d.Protocol
	}
	fmt.Fprintf(&sb, "group %s: %s%s, %s, lag %s, coordinator %d\n", d.Group, d.State, protocol, count(len(d.Members), "member"),
		number(d.TotalLag), d.Coordinator)
	if len(d.Members) > 0 {
		t := columns{head: []string{"MEMBER", "INSTANCE", "CLIENT", "HOST", ">PARTITIONS"}}
		for _, m := range d.Members {
			t.add(m.ID, m.InstanceID, m.Client, m.Host, strconv.Itoa(m.Partitions))
		}
		sb.WriteString("\n" + t.String())
	}
	if len(d.Partitions) > 0 {
		t := columns{head: []string{"TOPIC", ">PARTITION", ">COMMITTED", ">END", ">LAG", "MEMBER"}}
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
