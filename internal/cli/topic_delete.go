package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
)

// deletedTopic is an element of the output of topic delete.
type deletedTopic struct {
	Topic   string `json:"topic"`
	Deleted bool   `json:"deleted"`
}

func (a *app) newTopicDelete() *cobra.Command {
	return &cobra.Command{
		Use: "delete TOPIC...", Short: "Delete topics and all their records", Args: cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeTopics(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withAdmin(cmd.Context(), func(ctx context.Context, adm *kadm.Client) error {
				res, err := adm.DeleteTopics(ctx, args...)
				if err != nil {
					return fmt.Errorf("deleting topics: %w", err)
				}
				var failed []error
				all := []deletedTopic{}
				for _, name := range args {
					if r := res[name]; r.Err != nil {
						failed = append(failed, topicError(ctx, adm, name, r.Err, r.ErrMessage))
						continue
					}
					all = append(all, deletedTopic{Topic: name, Deleted: true})
				}
				err = showEach(a, all, func(i int) string { return "deleted topic " + all[i].Topic })
				return errors.Join(append(failed, err)...)
			})
		},
	}
}
