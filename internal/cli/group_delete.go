package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
)

func (a *app) groupDelete() *cobra.Command {
	return &cobra.Command{
		Use: "delete GROUP...", Short: "Delete groups with their committed offsets", Args: cobra.MinimumNArgs(1),
		ValidArgsFunction: a.groups(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.admin(cmd.Context(), func(ctx context.Context, adm *kadm.Client) error {
				res, err := adm.DeleteGroups(ctx, args...)
				if err != nil {
					return fmt.Errorf("deleting groups: %w", err)
				}
				var failed []error
				for _, name := range args {
					if r := res[name]; r.Err != nil {
						failed = append(failed, about("group "+name, r.Err, r.ErrMessage))
					} else if err := a.say("deleted group %s", name); err != nil {
						return err
					}
				}
				return errors.Join(failed...)
			})
		},
	}
}
