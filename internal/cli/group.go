package cli

import (
	"context"
	"errors"
	"slices"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/admin"
	"github.com/leatstream/leat/internal/cli/phrase"
)

func (a *app) group() *cobra.Command {
	return a.withOutput(a.asClient(parent("group", "List, describe, reset and delete consumer groups",
		a.groupList(), a.groupDescribe(), a.groupReset(), a.groupExport(), a.groupDelete(), a.groupDeleteOffsets())))
}

// groupChoice is the groups that a verb is about: those that are named, or all.
type groupChoice struct{ all bool }

// chooseGroups makes the arguments of a verb a choice of groups.
func (a *app) chooseGroups(cmd *cobra.Command, c *groupChoice) *cobra.Command {
	cmd.ValidArgsFunction = a.groups(0)
	cmd.Args = func(_ *cobra.Command, args []string) error {
		switch {
		case c.all && len(args) > 0:
			return usagef("--all-groups is given, and groups are named: choose one")
		case !c.all && len(args) == 0:
			return usagef("no group is named: name some, or add --all-groups")
		}
		return nil
	}
	cmd.Flags().BoolVar(&c.all, "all-groups", false, "all groups that there are")
	return cmd
}

// find asks for the groups that were chosen, and fails with a sentence where one is missing.
func (c groupChoice) find(ctx context.Context, cl *kgo.Client, names []string) ([]admin.Group, error) {
	listed, err := admin.FindGroups(ctx, cl, nil, nil)
	if err != nil || c.all {
		return listed, err
	}
	var all []admin.Group
	for _, name := range names {
		i := slices.IndexFunc(listed, func(g admin.Group) bool { return g.Name == name })
		if i < 0 {
			return nil, noGroup(name, listed)
		}
		all = append(all, listed[i])
	}
	return all, nil
}

// noGroup says that a group does not exist, and which one may have been meant.
func noGroup(name string, listed []admin.Group) error {
	known := make([]string, len(listed))
	for i, g := range listed {
		known[i] = g.Name
	}
	if hint := phrase.DidYouMean(name, known); hint != "" {
		return notFoundf("group %s does not exist%s", name, hint)
	}
	return notFoundf("group %s does not exist: \"leat group list\" shows what there is", name)
}

// aboutGroup wraps what a broker said on a group. Where the group does not exist it names
// the one that may have been meant.
func aboutGroup(ctx context.Context, cl *kgo.Client, group string, err error, message string) error {
	if !errors.Is(err, kerr.GroupIDNotFound) {
		return about("group "+group, err, message)
	}
	listed, err := admin.FindGroups(ctx, cl, nil, nil)
	if err != nil {
		listed = nil // the hint is a courtesy
	}
	return noGroup(group, listed)
}
