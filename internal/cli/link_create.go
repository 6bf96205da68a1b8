package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/leatstream/leat/internal/cluster"
)

func (v *linkVerbs) newCreate() *cobra.Command {
	var s linkSource
	var dryRun, force bool
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Mirror topics of another cluster from now on", Args: cobra.ExactArgs(1), ValidArgsFunction: completeNothing,
		SuggestFor: []string{"add", "make", "new"},
		Long: `Make a link: topics of another cluster, the source, are mirrored here from now on, with their offsets. Clients can read them, and cannot write to them.
The source is an Apache Kafka from 2.1 on, a Leat, or what speaks their protocol. Nothing is changed there.

Before the link is made all of it is checked: each address that the source's brokers advertise is dialled, the login, the rights, the versions, the clocks
and the room here. If anything is wrong, nothing is made, and each problem is told with what to do about it. To make a link again that is there changes nothing.`,
		Example: `  leat link create north --from k1.north:9092 --topics 'orders-*' --topics 're:^web-'
  leat link create north --from k1:9092 --source-ca ca.pem --source-user u --source-password-file f
  leat link create north --source-config north.properties --prefix north. --dry-run`,
		RunE: func(cmd *cobra.Command, args []string) error {
			w, err := s.readWish(cmd)
			if err != nil {
				return err
			}
			if w.set[serversKey] == "" {
				return usagef("--from must be given: the addresses of brokers of the source, as host:port")
			}
			if w.set[topicsKey] == "" {
				w.set[topicsKey] = "*"
			}
			q := &cluster.LinkRequest{Verb: cluster.LinkCreate, Name: args[0], Settings: w.settings(), Secrets: w.secrets, DryRun: dryRun, Force: force}
			return v.dial(cmd, func(ctx context.Context, n *linkNode) error { return v.create(ctx, cmd, n, q) })
		},
	}
	s.addFlags(v.app, cmd)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only check, and say what would be mirrored")
	cmd.Flags().BoolVar(&force, "force", false, "make it whatever problems there are")
	return v.add(cmd)
}

// create makes a link, and shows what was found.
func (v *linkVerbs) create(ctx context.Context, cmd *cobra.Command, n *linkNode, q *cluster.LinkRequest) error {
	a, err := v.ask(ctx, cmd, n, q)
	if a.Source != "" && a.Source == n.cluster {
		return explainOwnCluster(n, q)
	}
	if err != nil {
		return fmt.Errorf("making the link %s: %w", q.Name, err)
	}
	r := resultOf(q, &a)
	said := ""
	switch {
	case a.Existed && r.Done:
		said = fmt.Sprintf("link %s is there already, as it was asked for: nothing was changed\n", q.Name)
	case r.Done && q.DryRun && a.Source == "":
		said = fmt.Sprintf("link %s would be made\n", q.Name)
	case r.Done && q.DryRun:
		said = fmt.Sprintf("link %s would be made, from the cluster %s\n", q.Name, a.Source)
	case r.Done && a.Source == "":
		said = fmt.Sprintf("made link %s: \"leat link agent-token %s\" makes a token for the agent beside the source\n", q.Name, quoteWord(q.Name))
	case r.Done:
		said = fmt.Sprintf("made link %s, from the cluster %s: \"leat link describe %s\" shows how it does\n", q.Name, a.Source, quoteWord(q.Name))
	}
	if err := v.show(r, func() string { return r.text() + differencesText(a.Differences) + said }); err != nil {
		return err
	}
	switch {
	case len(a.Differences) > 0:
		return fmt.Errorf("there is a link %s already, with other settings, and nothing was changed: change it with: %s", q.Name, alterLine(q.Name, a.Differences))
	case !r.Done && q.DryRun:
		return fmt.Errorf("link %s would not be made: %s", q.Name, tellProblems(a.Problems))
	case !r.Done:
		return fmt.Errorf("link %s was not made: %s; run this again when all is mended, or make it all the same with --force", q.Name, tellProblems(a.Problems))
	}
	return nil
}

// explainOwnCluster says that a link is made at the other end, and how.
func explainOwnCluster(n *linkNode, q *cluster.LinkRequest) error {
	from := "HOST:PORT"
	if len(n.addresses) > 0 {
		from = n.addresses[0]
	}
	return fmt.Errorf("the brokers of --from are of this cluster, %s, and a link is made at the cluster that mirrors: to mirror this cluster in another one, run this on the machine of a node of the other one: leat link create %s --from %s",
		n.cluster, quoteWord(q.Name), quoteWord(from))
}

// differencesText shows how a link differs from what was asked for.
func differencesText(list []cluster.LinkDifference) string {
	if len(list) == 0 {
		return ""
	}
	t := columns{head: []string{"SETTING", "IT HAS", "ASKED FOR"}}
	for i := range list {
		d := &list[i]
		has, asked := "-", "-"
		if d.Has != nil {
			has = shortSetting(d.Key, *d.Has)
		}
		if d.Asked != nil {
			asked = shortSetting(d.Key, *d.Asked)
		}
		if isSecretSetting(d.Key) {
			has, asked = "a secret", "another one"
		}
		t.addRow(d.Key, has, asked)
	}
	return t.String()
}

func isSecretSetting(key string) bool { return key == cluster.PasswordKey || key == cluster.KeyKey }

// shortSetting is the value of a setting for a table, where certificates have no room.
func shortSetting(key, value string) string {
	switch {
	case key == trustedKey || key == chainKey:
		return formatCount(strings.Count(value, "-----BEGIN CERTIFICATE-----"), "certificate")
	case value == "":
		return `""`
	}
	return value
}

// alterLine is the command that changes a link into what was asked for.
func alterLine(name string, list []cluster.LinkDifference) string {
	words := []string{"leat link alter", quoteWord(name)}
	hasLogin := false
	for i := range list {
		d := &list[i]
		switch flag := linkFlagOf(d.Key); {
		case flag == "":
			hasLogin = true
		case d.Asked == nil:
			words = append(words, "--unset", d.Key)
		case d.Key == allNamesKey || d.Key == defaultsKey:
			words = append(words, flag+"="+*d.Asked)
		default:
			words = append(words, flag, quoteWord(*d.Asked))
		}
	}
	if hasLogin {
		words = append(words, "with the --source flags of this command")
	}
	return strings.Join(words, " ")
}

func (v *linkVerbs) newAlter() *cobra.Command {
	var s linkSource
	var unset []string
	var dryRun, force bool
	cmd := &cobra.Command{
		Use: "alter NAME", Short: "Change the settings of a link", Args: cobra.ExactArgs(1), ValidArgsFunction: v.completeLinks,
		SuggestFor: []string{"change", "set", "update"},
		Long: `Change settings of a link, those that are named alone. The flags of a login replace all of the login. The link is checked as one that is made, and
nothing is changed if anything is wrong. Topics that are mirrored already go on, also if they are not among those of --topics any more; another prefix or name
is for topics that come.`,
		Example: `  leat link alter north --topics 'orders-*' --topics payments
  leat link alter north --throttle 10000000
  leat link alter north --unset throttle.bytes.per.second
  leat link alter north --source-ca ca.pem --source-user u --source-password-file f`,
		RunE: func(cmd *cobra.Command, args []string) error {
			w, err := s.readWish(cmd)
			if err != nil {
				return err
			}
			q := &cluster.LinkRequest{Verb: cluster.LinkAlter, Name: args[0], Secrets: w.secrets, DryRun: dryRun, Force: force}
			if q.Unset, err = findUnset(w, unset); err != nil {
				return err
			}
			if q.Settings = w.settings(); len(q.Settings)+len(q.Unset) == 0 && q.Secrets == nil {
				return usagef("nothing to alter: \"%s --help\" lists the flags", cmd.CommandPath())
			}
			return v.dial(cmd, func(ctx context.Context, n *linkNode) error { return v.alter(ctx, cmd, n, q) })
		},
	}
	s.addFlags(v.app, cmd)
	cmd.Flags().StringArrayVarP(&unset, "unset", "u", nil, "the `name` of a setting, as \"leat link describe\" shows it, that goes back to its default; may be repeated")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only check, and say what would be changed")
	cmd.Flags().BoolVar(&force, "force", false, "change it whatever problems there are")
	v.completeFlag(cmd, "unset", completeWords(unsettable()...))
	return v.add(cmd)
}

// unsettable are the settings that a link need not have.
func unsettable() []string {
	return append([]string{lossKey, rackKey, excludeKey, mapKey, prefixKey, renameKey, startKey, throttleKey, viaKey, groupsKey, noGroupsKey, positionsKey, aheadKey}, accessKeys()...)
}

// findUnset finds the settings that go back to their defaults: those that are named, and all of a login that another one replaces.
func findUnset(w *linkWish, named []string) ([]string, error) {
	unset := map[string]bool{}
	for _, key := range named {
		if !slices.Contains(unsettable(), key) {
			return nil, usagef("--unset %s: these settings have a default: %s", key, strings.Join(unsettable(), ", "))
		}
		if _, isSet := w.set[key]; isSet {
			return nil, usagef("--unset %s and %s cannot be used together", key, linkFlagOf(key))
		}
		unset[key] = true
	}
	if w.secrets != nil {
		for _, key := range loginKeys() {
			if _, isSet := w.set[key]; !isSet {
				unset[key] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(unset)), nil
}

// alter changes a link, and shows what was found.
func (v *linkVerbs) alter(ctx context.Context, cmd *cobra.Command, n *linkNode, q *cluster.LinkRequest) error {
	a, err := v.ask(ctx, cmd, n, q)
	if err != nil {
		return fmt.Errorf("changing the link %s: %w", q.Name, err)
	}
	r := resultOf(q, &a)
	said := ""
	switch {
	case r.Done && !a.Changed:
		said = fmt.Sprintf("link %s is so already: nothing was changed\n", q.Name)
	case r.Done && q.DryRun:
		said = fmt.Sprintf("link %s would be changed\n", q.Name)
	case r.Done:
		said = fmt.Sprintf("changed link %s\n", q.Name)
	}
	if err := v.show(r, func() string { return r.text() + said }); err != nil {
		return err
	}
	if !r.Done {
		return fmt.Errorf("link %s was not changed: %s; run this again when all is mended, or change it all the same with --force", q.Name, tellProblems(a.Problems))
	}
	return nil
}
