package cli

import (
	"context"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"
)

func (a *app) configSet() *cobra.Command {
	cmd := &cobra.Command{
		Use: "set NAME=VALUE...", Short: "Set configs", Args: cobra.MinimumNArgs(1),
		Example: `  leat config set --topic orders retention.ms=86400000
  leat config set --cluster log.retention.ms=86400000`,
	}
	return a.configAlter(cmd, "=", func(args []string) (configChange, error) {
		set, err := pairs("", args)
		return configChange{set: set}, err
	})
}

func (a *app) configUnset() *cobra.Command {
	cmd := &cobra.Command{
		Use: "unset NAME...", Short: "Give configs their defaults again", Args: cobra.MinimumNArgs(1),
		Example: "  leat config unset --topic orders retention.ms",
	}
	return a.configAlter(cmd, "", func(args []string) (configChange, error) { return configChange{unset: args}, nil })
}

// configAlter makes a verb that changes a target's configs as its arguments say.
// In an argument, after stands behind the name of a config.
func (a *app) configAlter(cmd *cobra.Command, after string, read func(args []string) (configChange, error)) *cobra.Command {
	var t target
	var dryRun bool
	cmd.ValidArgsFunction = completeConfigs(&t, after)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := read(args)
		if err != nil {
			return err
		}
		c.dryRun = dryRun
		return a.withClient(cmd.Context(), func(ctx context.Context, cl *kgo.Client) error {
			return a.alterConfigs(ctx, cl, c, t)
		})
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only ask the broker whether it would do it")
	return a.asTarget(cmd, &t)
}
