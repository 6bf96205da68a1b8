package cli

import (
	"context"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/config"
)

func (a *app) newTopicAlter() *cobra.Command {
	var set []string
	var c configChange
	cmd := &cobra.Command{
		Use: "alter TOPIC...", Short: "Change topics' configs", Args: cobra.MinimumNArgs(1), ValidArgsFunction: a.completeTopics(0),
		Example: "  leat topic alter orders --set retention.ms=86400000 --unset segment.bytes",
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if c.set, err = parsePairs("--set ", set); err != nil {
				return err
			}
			if len(c.set)+len(c.unset) == 0 {
				return usagef("nothing to alter: name configs with --set name=value or --unset name")
			}
			c.unset = withoutRepeats(c.unset)
			if err := c.checkChange(); err != nil {
				return err
			}
			targets := make([]target, len(args))
			for i, name := range args {
				targets[i] = topicOf(name)
			}
			return a.withClient(cmd.Context(), func(ctx context.Context, cl *kgo.Client) error {
				return a.alterConfigs(ctx, cl, c, targets...)
			})
		},
	}
	f := cmd.Flags()
	f.StringArrayVarP(&set, "set", "s", nil, "a config to set, as name=value; may be repeated")
	f.StringArrayVarP(&c.unset, "unset", "u", nil, "the `name` of a config to reset to its default; may be repeated")
	f.BoolVar(&c.dryRun, "dry-run", false, "only ask the broker whether it would accept the change")
	a.completeFlag(cmd, "set", completeConfigNames(config.Topic, "="))
	a.completeFlag(cmd, "unset", completeConfigNames(config.Topic, ""))
	return cmd
}
