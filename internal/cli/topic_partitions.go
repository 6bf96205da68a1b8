package cli

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
)

// grownTopic is the output of topic add-partitions.
type grownTopic struct {
	Topic      string `json:"topic"`
	Partitions int    `json:"partitions"` // its number now
	Added      int    `json:"added"`
}

func (a *app) newTopicAddPartitions() *cobra.Command {
	var total bool
	cmd := &cobra.Command{
		Use: "add-partitions TOPIC COUNT", Short: "Add partitions to a topic", Args: cobra.ExactArgs(2),
		Long: "Add COUNT partitions to a topic. New records of a key may go to another partition than before; " +
			"records that exist stay where they are.",
		ValidArgsFunction: a.completeTopics(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := strconv.ParseUint(args[1], 10, 31)
			if err != nil || n == 0 {
				return usagef("%q is not a number of partitions", args[1])
			}
			return a.withAdmin(cmd.Context(), func(ctx context.Context, adm *kadm.Client) error {
				return a.addPartitions(ctx, adm, args[0], int(n), total)
			})
		},
	}
	cmd.Flags().BoolVar(&total, "total", false, "COUNT is the number of partitions that the topic shall have in total")
	return cmd
}

func (a *app) addPartitions(ctx context.Context, adm *kadm.Client, topic string, n int, total bool) error {
	details, err := topicDetails(ctx, adm, topic)
	if err != nil {
		return err
	}
	if !total {
		n += len(details[topic].Partitions)
	}
	res, err := adm.UpdatePartitions(ctx, n, topic)
	if err != nil {
		return fmt.Errorf("adding partitions: %w", err)
	}
	if r := res[topic]; r.Err != nil {
		return topicError(ctx, adm, topic, r.Err, r.ErrMessage)
	}
	now := grownTopic{Topic: topic, Partitions: n, Added: n - len(details[topic].Partitions)}
	return a.show(now, func() string { return fmt.Sprintf("topic %s has %s now\n", topic, formatCount(n, "partition")) })
}
