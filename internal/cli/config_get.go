package cli

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
)

// shownConfig is one line of config get.
type shownConfig struct {
	Name      string  `json:"name"`
	Value     *string `json:"value"`
	Source    string  `json:"source"` // Kafka's word for who set it
	Sensitive bool    `json:"sensitive,omitempty"`
	// Synonyms are all values that were set for it, in Kafka's order: the one in effect first,
	// the default last.
	Synonyms []givenValue `json:"synonyms,omitempty"`
}

// givenValue is a value that was set for a config, and who set it.
type givenValue struct {
	Name   string  `json:"name"`
	Value  *string `json:"value"`
	Source string  `json:"source"`
}

func (a *app) newConfigGet() *cobra.Command {
	var t targetFlags
	var set bool
	cmd := &cobra.Command{
		Use: "get [NAME...]", Short: "Show configs, all of them or those named", ValidArgsFunction: completeTargetConfigs(""),
		Example: `  leat config get --topic orders
  leat config get --topic orders retention.ms`,
		RunE: func(cmd *cobra.Command, args []string) error {
			of, err := t.chooseTarget(cmd)
			if err != nil {
				return err
			}
			return a.withAdmin(cmd.Context(), func(ctx context.Context, adm *kadm.Client) error {
				return a.getConfigs(ctx, adm, of, set, args)
			})
		},
	}
	cmd.Flags().BoolVar(&set, "set", false, "only configs that somebody set, not defaults")
	return a.addTargetFlags(cmd, &t)
}

func (a *app) getConfigs(ctx context.Context, adm *kadm.Client, t target, onlySet bool, names []string) error {
	configs, err := t.describeConfigs(ctx, adm)
	if err != nil {
		return err
	}
	var known []string
	for _, c := range configs {
		known = append(known, c.Key)
	}
	var missing []error
	for _, n := range names {
		if !slices.Contains(known, n) {
			missing = append(missing, t.noSuchConfigError(n, known))
		}
	}
	if len(names) > 0 && len(missing) == len(names) {
		return errors.Join(missing...)
	}
	all := []shownConfig{}
	for _, c := range configs {
		if len(names) > 0 && !slices.Contains(names, c.Key) || onlySet && !isSet(c) {
			continue
		}
		got := shownConfig{Name: c.Key, Value: c.Value, Source: strings.ToLower(c.Source.String()), Sensitive: c.Sensitive}
		for _, s := range c.Synonyms {
			got.Synonyms = append(got.Synonyms, givenValue{Name: s.Key, Value: s.Value, Source: strings.ToLower(s.Source.String())})
		}
		all = append(all, got)
	}
	err = a.show(all, func() string {
		t := columns{head: []string{"NAME", "VALUE", "SOURCE"}}
		for _, c := range all {
			value := "(null)"
			if c.Value != nil {
				value = *c.Value
			}
			if c.Sensitive {
				value = "(hidden)"
			}
			t.addRow(c.Name, value, c.Source)
		}
		return t.String()
	})
	return errors.Join(append(missing, err)...)
}
