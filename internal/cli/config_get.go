package cli

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
)

// gotConfig is one line of config get.
type gotConfig struct {
	Name      string  `json:"name"`
	Value     *string `json:"value"`
	Source    string  `json:"source"`
	Sensitive bool    `json:"sensitive,omitempty"`
}

func (a *app) configGet() *cobra.Command {
	var t target
	var set bool
	cmd := &cobra.Command{
		Use: "get [NAME...]", Short: "Show configs, all of them or those named", ValidArgsFunction: none,
		Example: `  leat config get --topic orders
  leat config get --topic orders retention.ms`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.admin(cmd.Context(), func(ctx context.Context, adm *kadm.Client) error {
				return a.getConfigs(ctx, adm, t, set, args)
			})
		},
	}
	cmd.Flags().BoolVar(&set, "set", false, "only what somebody set, not the defaults")
	return a.asTarget(cmd, &t)
}

func (a *app) getConfigs(ctx context.Context, adm *kadm.Client, t target, onlySet bool, names []string) error {
	configs, err := t.describe(ctx, adm)
	if err != nil {
		return err
	}
	for _, n := range names {
		if !slices.ContainsFunc(configs, func(c kadm.Config) bool { return c.Key == n }) {
			return notFoundf("%s has no config %s: \"leat config get\" without a name shows what there is", t, n)
		}
	}
	all := []gotConfig{}
	for _, c := range configs {
		if len(names) > 0 && !slices.Contains(names, c.Key) || onlySet && !isSet(c) {
			continue
		}
		all = append(all, gotConfig{
			Name: c.Key, Value: c.Value, Source: strings.ToLower(c.Source.String()), Sensitive: c.Sensitive,
		})
	}
	return a.show(all, func() string {
		t := columns{head: []string{"NAME", "VALUE", "SOURCE"}}
		for _, c := range all {
			value := "(null)"
			if c.Value != nil {
				value = *c.Value
			}
			if c.Sensitive {
				value = "(hidden)"
			}
			t.add(c.Name, value, c.Source)
		}
		return t.String()
	})
}
