package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

func (a *app) group() *cobra.Command {
	return a.withOutput(a.asClient(parent("group", "List, describe, reset and delete consumer groups",
		a.groupList(), a.groupDescribe(), a.groupReset(), a.groupDelete())))
}

// aboutGroup wraps what a broker said on a group. Where the group does not exist it names
// the one that may have been meant.
func aboutGroup(ctx context.Context, adm *kadm.Client, group string, err error, message string) error {
	if errors.Is(err, kerr.GroupIDNotFound) {
		list, listErr := adm.ListGroups(ctx)
		if hint := didYouMean(group, list.Groups()); listErr == nil && hint != "" {
			return notFoundf("group %s does not exist%s", group, hint)
		}
		return notFoundf("group %s does not exist: \"leat group list\" shows what there is", group)
	}
	return about("group "+group, err, message)
}

// lagOf asks for a group's state, commits and lag, and fails with a sentence where
// there is no such group.
func lagOf(ctx context.Context, adm *kadm.Client, group string) (kadm.DescribedGroupLag, error) {
	lags, err := adm.Lag(ctx, group)
	if err != nil {
		return kadm.DescribedGroupLag{}, fmt.Errorf("asking for group %s: %w", group, err)
	}
	l := lags[group]
	if err := l.Error(); err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return l, about("group "+group, err, "")
	}
	if (l.State == "Dead" || l.DescribeErr != nil) && len(l.Lag) == 0 {
		return l, about("group "+group, kerr.GroupIDNotFound, "")
	}
	return l, nil
}
