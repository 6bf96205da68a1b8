package cli

import (
	"context"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
)

func (a *app) topicAlter() *cobra.Command {
	var set, unset []string
	var dryRun bool
	cmd := &cobra.Command{
		Use: "alter TOPIC...", Short: "Change topics' configs", Args: cobra.MinimumNArgs(1), ValidArgsFunction: a.topics(0),
		Example: "  leat topic alter orders --set retention.ms=86400000 --unset segment.bytes",
		RunE: func(cmd *cobra.Command, args []string) error {
			change, err := configChange(set, unset)
			if err != nil {
				return err
			}
			if len(change) == 0 {
				return usagef("nothing to alter: name configs with --set name=value or --unset name")
			}
			return a.admin(cmd.Context(), func(ctx context.Context, adm *kadm.Client) error {
				return a.alterTopics(ctx, adm, change, dryRun, args)
			})
		},
	}
	f := cmd.Flags()
	f.StringArrayVarP(&set, "set", "s", nil, "a config to set, as name=value; may be repeated")
	f.StringArrayVarP(&unset, "unset", "u", nil, "a config to give its default again; may be repeated")
	f.BoolVar(&dryRun, "dry-run", false, "only ask the broker whether it would do it")
	return cmd
}

func (a *app) alterTopics(ctx context.Context, adm *kadm.Client, change []kadm.AlterConfig, dryRun bool, topics []string) error {
	if _, err := topicDetails(ctx, adm, topics...); err != nil {
		return err
	}
	alter := adm.AlterTopicConfigs
	if dryRun {
		alter = adm.ValidateAlterTopicConfigs
	}
	res, err := alter(ctx, change, topics...)
	return a.showAltered("topic ", res, err, dryRun)
}
