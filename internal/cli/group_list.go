package cli

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/admin"
	"github.com/leatstream/leat/internal/cli/phrase"
)

// listedGroup is a line of the output of group list.
type listedGroup struct {
	Group       string `json:"group"`
	Type        string `json:"type"` // classic, consumer, share or streams
	Protocol    string `json:"protocol_type,omitempty"`
	State       string `json:"state"`
	Members     int    `json:"members"` // -1: not known
	Lag         int64  `json:"lag"`
	Coordinator int32  `json:"coordinator"`
}

// groupFilter says which groups to list, and how.
type groupFilter struct {
	states, kinds []string // empty: all
	quiet         bool     // names only
}

var (
	groupStates = []string{"Stable", "Empty", "PreparingRebalance", "CompletingRebalance", "Assigning", "Reconciling", "NotReady", "Dead"}
	groupKinds  = []string{admin.Classic, admin.Consumer, admin.Share, admin.Streams}
)

func (a *app) newGroupList() *cobra.Command {
	var f groupFilter
	cmd := &cobra.Command{
		Use: "list", Short: "List groups with their lag", Args: cobra.NoArgs, ValidArgsFunction: completeNothing,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if f.states, err = chosenWords("--state", f.states, groupStates); err != nil {
				return err
			}
			if f.kinds, err = chosenWords("--type", f.kinds, groupKinds); err != nil {
				return err
			}
			return a.withClient(cmd.Context(), func(ctx context.Context, cl *kgo.Client) error { return a.listGroups(ctx, cl, f) })
		},
	}
	cmd.Flags().StringSliceVar(&f.states, "state", nil, "only groups in these states, separated by commas: Stable, Empty, ...")
	cmd.Flags().StringSliceVar(&f.kinds, "type", nil, "only groups of these types, separated by commas: "+phrase.Join(groupKinds, "or"))
	cmd.Flags().BoolVarP(&f.quiet, "quiet", "q", false, "only the names, one per line")
	a.completeFlag(cmd, "state", completeWords(groupStates...))
	a.completeFlag(cmd, "type", completeWords(groupKinds...))
	return cmd
}

// chosenWords finds the chosen words among the known ones, in upper or lower case, and refuses others.
func chosenWords(flag string, chosen, known []string) ([]string, error) {
	var all []string
	for _, c := range chosen {
		i := slices.IndexFunc(known, func(k string) bool { return strings.EqualFold(c, k) })
		if i < 0 {
			return nil, usagef("%s %s: write %s", flag, c, phrase.Join(known, "or"))
		}
		all = append(all, known[i])
	}
	return all, nil
}

func (a *app) listGroups(ctx context.Context, cl *kgo.Client, f groupFilter) error {
	entries, err := admin.FindGroups(ctx, cl, f.states, f.kinds)
	if err != nil {
		return err
	}
	if f.quiet {
		names := make([]string, len(entries))
		for i, e := range entries {
			names[i] = e.Name
		}
		return showEach(a, names, func(i int) string { return names[i] })
	}
	described, err := admin.DescribeGroups(ctx, cl, entries)
	if err != nil {
		return err
	}
	all := []listedGroup{}
	for _, g := range described {
		l := listedGroup{
			Group: g.Group, Type: g.Type, Protocol: g.Protocol, State: g.State, Members: len(g.Members), Lag: g.TotalLag, Coordinator: g.Coordinator,
		}
		if g.MembersUnknown {
			l.Members = -1
		}
		all = append(all, l)
	}
	return a.show(all, func() string {
		if len(all) == 0 {
			return "no groups\n"
		}
		t := columns{head: []string{"GROUP", "TYPE", "PROTOCOL", "STATE", ">MEMBERS", ">LAG", ">COORDINATOR"}}
		for _, g := range all {
			t.addRow(g.Group, g.Type, g.Protocol, g.State, formatNumberOrDash(int64(g.Members)), formatNumber(g.Lag), strconv.Itoa(int(g.Coordinator)))
		}
		return t.String()
	})
}
