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

func (a *app) newGroup() *cobra.Command {
	return a.addOutputFlag(a.addClientFlags(newParent("group", "List, describe, reset and delete consumer groups",
		a.newGroupList(), a.newGroupDescribe(), a.newGroupReset(), a.newGroupExport(), a.newGroupDelete(), a.newGroupDeleteOffsets())))
}

// groupChoice says which groups a verb is about: those that its arguments name, or all.
type groupChoice struct{ all bool }

// addGroupArguments lets the arguments of a verb name groups, or --all-groups stand for all of them.
func (a *app) addGroupArguments(cmd *cobra.Command, c *groupChoice) *cobra.Command {
	cmd.ValidArgsFunction = a.completeGroups(0)
	cmd.Args = func(_ *cobra.Command, args []string) error {
		switch {
		case c.all && len(args) > 0:
			return usagef("name groups or give --all-groups, not both")
		case !c.all && len(args) == 0:
			return usagef("no group is named: name at least one, or give --all-groups")
		}
		return nil
	}
	cmd.Flags().BoolVar(&c.all, "all-groups", false, "all groups")
	return cmd
}

// findGroups asks for the groups that were chosen. It fails with errNotFound if one does not exist.
func (c groupChoice) findGroups(ctx context.Context, cl *kgo.Client, names []string) ([]admin.Group, error) {
	found, missing, err := c.findSomeGroups(ctx, cl, names)
	if err = errors.Join(err, missing); err != nil {
		return nil, err
	}
	return found, nil
}

// findSomeGroups asks for those of the groups that exist. The error missing names the others; err ends the verb.
func (c groupChoice) findSomeGroups(ctx context.Context, cl *kgo.Client, names []string) (found []admin.Group, missing, err error) {
	listed, err := admin.FindGroups(ctx, cl, nil, nil)
	if err != nil || c.all {
		return listed, nil, err
	}
	var failed []error
	for _, name := range names {
		i := slices.IndexFunc(listed, func(g admin.Group) bool { return g.Name == name })
		if i < 0 {
			failed = append(failed, noSuchGroupError(name, listed))
			continue
		}
		found = append(found, listed[i])
	}
	missing = errors.Join(failed...)
	if len(names) > 0 && len(found) == 0 {
		return nil, nil, missing // there is nothing else to do
	}
	return found, missing, nil
}

// noSuchGroupError says that a group does not exist, and which ones may have been meant.
func noSuchGroupError(name string, listed []admin.Group) error {
	known := make([]string, len(listed))
	for i, g := range listed {
		known[i] = g.Name
	}
	if hint := phrase.DidYouMean(name, known); hint != "" {
		return notFoundf("group %s does not exist%s", name, hint)
	}
	return notFoundf("group %s does not exist: \"leat group list\" lists all groups", name)
}

// groupError makes a sentence of a broker's error about a group. If the group does not exist, the
// sentence names the groups that may have been meant.
func groupError(ctx context.Context, cl *kgo.Client, group string, err error, message string) error {
	if !errors.Is(err, kerr.GroupIDNotFound) {
		return answerError("group "+group, err, message)
	}
	listed, err := admin.FindGroups(ctx, cl, nil, nil)
	if err != nil {
		listed = nil // the hint may be left out
	}
	return noSuchGroupError(group, listed)
}
