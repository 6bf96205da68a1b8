package cli

import (
	"context"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"
)

func (a *app) newConfigSet() *cobra.Command {
	cmd := &cobra.Command{
		Use: "set NAME=VALUE...", Short: "Set configs", Args: cobra.MinimumNArgs(1),
		Example: `  leat config set --topic orders retention.ms=86400000
  leat config set --cluster log.retention.ms=86400000`,
	}
	return a.newConfigAlter(cmd, "=", func(args []string) (configChange, error) {
		set, err := parsePairs("", args)
		return configChange{set: set}, err
	})
}

func (a *app) newConfigUnset() *cobra.Command {
	cmd := &cobra.Command{
		Use: "unset NAME...", Short: "Reset configs to their defaults", Args: cobra.MinimumNArgs(1),
		Example: "  leat config unset --topic orders retention.ms",
	}
	return a.newConfigAlter(cmd, "", func(args []string) (configChange, error) { return configChange{unset: args}, nil })
}

// newConfigAlter makes a verb that changes a target's configs as its arguments say.
// A completed name of a config is followed by suffix.
func (a *app) newConfigAlter(cmd *cobra.Command, suffix string, read func(args []string) (configChange, error)) *cobra.Command {
	var t targetFlags
	var dryRun bool
	cmd.ValidArgsFunction = completeTargetConfigs(suffix)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := read(args)
		if err != nil {
			return err
		}
		c.dryRun = dryRun
		of, err := t.chooseTarget(cmd)
		if err != nil {
			return err
		}
		return a.withClient(cmd.Context(), func(ctx context.Context, cl *kgo.Client) error {
			return a.alterConfigs(ctx, cl, c, of)
		})
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only ask the broker whether it would accept the change")
	return a.addTargetFlags(cmd, &t)
}
