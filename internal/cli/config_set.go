package cli

import (
	"context"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
)

func (a *app) configSet() *cobra.Command {
	return a.configAlter(&cobra.Command{
		Use: "set NAME=VALUE...", Short: "Set configs", Args: cobra.MinimumNArgs(1),
		Example: `  leat config set --topic orders retention.ms=86400000
  leat config set --cluster log.retention.ms=86400000`,
	}, func(args []string) ([]kadm.AlterConfig, error) { return configChange(args, nil) })
}

func (a *app) configUnset() *cobra.Command {
	return a.configAlter(&cobra.Command{
		Use: "unset NAME...", Short: "Give configs their defaults again", Args: cobra.MinimumNArgs(1),
		Example: "  leat config unset --topic orders retention.ms",
	}, func(args []string) ([]kadm.AlterConfig, error) { return configChange(nil, args) })
}

// configAlter makes a verb that changes a target's configs as its arguments say.
func (a *app) configAlter(cmd *cobra.Command, read func(args []string) ([]kadm.AlterConfig, error)) *cobra.Command {
	var t target
	var dryRun bool
	cmd.ValidArgsFunction = none
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		change, err := read(args)
		if err != nil {
			return err
		}
		return a.admin(cmd.Context(), func(ctx context.Context, adm *kadm.Client) error {
			res, err := t.alter(ctx, adm, change, dryRun)
			for i := range res {
				res[i].Name = t.String()
			}
			return a.showAltered("", res, err, dryRun)
		})
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only ask the broker whether it would do it")
	return a.asTarget(cmd, &t)
}
