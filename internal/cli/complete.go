package cli

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/leatstream/leat/internal/cli/phrase"
	"github.com/leatstream/leat/internal/config"
)

// completeTimeout is how long a key press waits for a broker.
const completeTimeout = time.Second

// newCompletion makes the verb that writes a script for a shell.
func newCompletion() *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use: "completion SHELL", Short: "Write a script that lets a shell complete verbs and names", Args: cobra.ExactArgs(1),
		Long: `Write a script that lets a shell complete verbs, flags, and the names of topics, groups and configs.
SHELL is bash, zsh, fish or powershell.`,
		Example: `  source <(leat completion bash)
  leat completion zsh > "${fpath[1]}/_leat"
  leat completion fish > ~/.config/fish/completions/leat.fish`,
		ValidArgs: shells,
		RunE: func(cmd *cobra.Command, args []string) error {
			root, out := cmd.Root(), cmd.OutOrStdout()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(out, true)
			case "zsh":
				return root.GenZshCompletion(out)
			case "fish":
				return root.GenFishCompletion(out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(out)
			default:
				return usagef("there is no script for %s: write %s", args[0], phrase.Join(shells, "or"))
			}
		},
	}
}

// completer proposes words for the shell.
type completer = func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective)

// completeFlag attaches a completer to a flag of cmd.
func (*app) completeFlag(cmd *cobra.Command, flag string, fn completer) {
	if err := cmd.RegisterFlagCompletionFunc(flag, fn); err != nil {
		panic("BUG: " + err.Error())
	}
}

// completeWords proposes a fixed list.
func completeWords(list ...string) completer {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return list, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeNothing proposes nothing.
func completeNothing(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// completeTopics proposes the topics that exist, for at most limit arguments (0: any number).
func (a *app) completeTopics(limit int) completer {
	return a.completeNames(limit, func(ctx context.Context, adm *kadm.Client) ([]string, error) {
		list, err := adm.ListTopics(ctx)
		return list.Names(), err
	})
}

// completeGroups proposes the groups that exist, for at most limit arguments (0: any number).
func (a *app) completeGroups(limit int) completer {
	return a.completeNames(limit, func(ctx context.Context, adm *kadm.Client) ([]string, error) {
		list, err := adm.ListGroups(ctx)
		return list.Groups(), err
	})
}

// completeBrokers proposes the ids of the brokers, for at most limit arguments (0: any number).
func (a *app) completeBrokers(limit int) completer {
	return a.completeNames(limit, func(ctx context.Context, adm *kadm.Client) ([]string, error) {
		list, err := adm.ListBrokers(ctx)
		var names []string
		for _, id := range list.NodeIDs() {
			names = append(names, strconv.Itoa(int(id)))
		}
		return names, err
	})
}

// completeConfigNames proposes the names of Kafka's configs, each followed by suffix.
func completeConfigNames(of config.ResourceType, suffix string) completer {
	return func(_ *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		var all []string
		for _, d := range config.Defs(of) {
			if strings.HasPrefix(d.Name, prefix) && !slices.Contains(args, d.Name) {
				all = append(all, d.Name+suffix)
			}
		}
		directive := cobra.ShellCompDirectiveNoFileComp
		if suffix != "" {
			directive |= cobra.ShellCompDirectiveNoSpace
		}
		return all, directive
	}
}

// completeTargetConfigs proposes the names of the configs that the target has, each followed
// by suffix.
func completeTargetConfigs(suffix string) completer {
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		of := config.Broker
		if cmd.Flags().Changed("topic") {
			of = config.Topic
		}
		return completeConfigNames(of, suffix)(cmd, args, prefix)
	}
}

// completeNames proposes what a broker lists, and nothing if no broker answers: a shell has no
// place for an error.
func (a *app) completeNames(limit int, list func(context.Context, *kadm.Client) ([]string, error)) completer {
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		const quiet = cobra.ShellCompDirectiveNoFileComp
		if limit > 0 && len(args) >= limit {
			return nil, quiet
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
		defer cancel()
		cl, err := a.connectClient(ctx)
		if err != nil {
			return nil, quiet
		}
		defer cl.Close()
		all, err := list(ctx, kadm.NewClient(cl))
		if err != nil {
			return nil, quiet
		}
		return slices.DeleteFunc(all, func(n string) bool {
			return !strings.HasPrefix(n, prefix) || slices.Contains(args, n)
		}), quiet
	}
}
