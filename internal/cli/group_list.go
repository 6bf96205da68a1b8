package cli

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
)

// listedGroup is one line of group list.
type listedGroup struct {
	Group       string `json:"group"`
	State       string `json:"state"`
	Type        string `json:"type"`
	Coordinator int32  `json:"coordinator"`
}

func (a *app) groupList() *cobra.Command {
	var states []string
	cmd := &cobra.Command{
		Use: "list", Short: "List the groups", Args: cobra.NoArgs, ValidArgsFunction: none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.admin(cmd.Context(), func(ctx context.Context, adm *kadm.Client) error {
				return a.listGroups(ctx, adm, states)
			})
		},
	}
	cmd.Flags().StringSliceVar(&states, "state", nil, "only groups in these states, with commas between: Stable, Empty, ...")
	a.complete(cmd, "state", words("Stable", "Empty", "PreparingRebalance", "CompletingRebalance", "Dead"))
	return cmd
}

func (a *app) listGroups(ctx context.Context, adm *kadm.Client, states []string) error {
	groups, err := adm.ListGroups(ctx, states...)
	if err != nil {
		return fmt.Errorf("asking for groups: %w", err)
	}
	all := []listedGroup{}
	for _, g := range groups.Sorted() {
		all = append(all, listedGroup{Group: g.Group, State: g.State, Type: g.ProtocolType, Coordinator: g.Coordinator})
	}
	return a.show(all, func() string {
		if len(all) == 0 {
			return "no groups\n"
		}
		t := columns{head: []string{"GROUP", "STATE", "TYPE", ">COORDINATOR"}}
		for _, g := range all {
			t.add(g.Group, g.State, g.Type, strconv.Itoa(int(g.Coordinator)))
		}
		return t.String()
	})
}
