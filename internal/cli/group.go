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
