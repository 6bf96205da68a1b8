package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
)

// deletedGroup is what group delete tells.
type deletedGroup struct {
	Group   string `json:"group"`
	Deleted bool   `json:"deleted"`
}

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
				all := []deletedGroup{}
				for _, name := range args {
					if r := res[name]; r.Err != nil {
						failed = append(failed, aboutGroup(ctx, adm, name, r.Err, r.ErrMessage))
						continue
					}
					all = append(all, deletedGroup{Group: name, Deleted: true})
				}
				err = showEach(a, all, func(i int) string { return "deleted group " + all[i].Group })
				return errors.Join(append(failed, err)...)
			})
		},
	}
}
