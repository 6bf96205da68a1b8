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

// completeTimeout bounds how long a key press waits for a broker.
const completeTimeout = time.Second

// newCompletion makes the verb that writes a script for a shell.
func newCompletion() *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use: "completion SHELL", Short: "Write the script by which a shell completes verbs and names", Args: cobra.ExactArgs(1),
		Long: `Write the script by which a shell completes verbs, flags, and the names of topics, groups and configs.
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
				return usagef("there is no script for %s: name %s", args[0], phrase.Join(shells, "or"))
			}
		},
	}
}

// completer proposes words for the shell.
type completer = func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective)

// complete attaches a completer to a flag of cmd.
func (*app) complete(cmd *cobra.Command, flag string, fn completer) {
	if err := cmd.RegisterFlagCompletionFunc(flag, fn); err != nil {
		panic("BUG: " + err.Error())
	}
}

// words proposes a fixed list.
func words(list ...string) completer {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return list, cobra.ShellCompDirectiveNoFileComp
	}
}

// none proposes nothing.
func none(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// topics proposes the topics there are, for at most limit arguments (0: any number).
func (a *app) topics(limit int) completer {
	return a.names(limit, func(ctx context.Context, adm *kadm.Client) ([]string, error) {
		list, err := adm.ListTopics(ctx)
		return list.Names(), err
	})
}

// groups proposes the groups there are, for at most limit arguments (0: any number).
func (a *app) groups(limit int) completer {
	return a.names(limit, func(ctx context.Context, adm *kadm.Client) ([]string, error) {
		list, err := adm.ListGroups(ctx)
		return list.Groups(), err
	})
}

// brokers proposes the ids of the brokers.
func (a *app) brokers() completer {
	return a.names(0, func(ctx context.Context, adm *kadm.Client) ([]string, error) {
		list, err := adm.ListBrokers(ctx)
		var names []string
		for _, id := range list.NodeIDs() {
			names = append(names, strconv.Itoa(int(id)))
		}
		return names, err
	})
}

// configNames proposes the names of Kafka's configs, with after behind each.
func configNames(of config.ResourceType, after string) completer {
	return func(_ *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		var all []string
		for _, d := range config.Defs(of) {
			if strings.HasPrefix(d.Name, prefix) && !slices.Contains(args, d.Name) {
				all = append(all, d.Name+after)
			}
		}
		directive := cobra.ShellCompDirectiveNoFileComp
		if after != "" {
			directive |= cobra.ShellCompDirectiveNoSpace
		}
		return all, directive
	}
}

// completeConfigs proposes the names of the configs that the target has, with after
// behind each.
func completeConfigs(t *target, after string) completer {
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		of := config.Broker
		if t.topic != "" {
			of = config.Topic
		}
		return configNames(of, after)(cmd, args, prefix)
	}
}

// names proposes what a broker lists. A broker that does not answer proposes
// nothing: a shell has no place for an error.
func (a *app) names(limit int, list func(context.Context, *kadm.Client) ([]string, error)) completer {
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		const quiet = cobra.ShellCompDirectiveNoFileComp
		if limit > 0 && len(args) >= limit {
			return nil, quiet
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
		defer cancel()
		cl, err := a.connect(ctx)
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
