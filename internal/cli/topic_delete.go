package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
)

func (a *app) topicDelete() *cobra.Command {
	return &cobra.Command{
		Use: "delete TOPIC...", Short: "Delete topics with all their records", Args: cobra.MinimumNArgs(1),
		ValidArgsFunction: a.topics(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.admin(cmd.Context(), func(ctx context.Context, adm *kadm.Client) error {
				res, err := adm.DeleteTopics(ctx, args...)
				if err != nil {
					return fmt.Errorf("deleting topics: %w", err)
				}
				var failed []error
				for _, name := range args {
					if r := res[name]; r.Err != nil {
						failed = append(failed, about("topic "+name, r.Err, r.ErrMessage))
					} else if err := a.say("deleted topic %s", name); err != nil {
						return err
					}
				}
				return errors.Join(failed...)
			})
		},
	}
}
