package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
)

// listedQuotas is a line of the output of quota list.
type listedQuotas struct {
	quotaOwner

	Quotas map[string]float64 `json:"quotas"`

	text string
}

func (a *app) newQuotaList() *cobra.Command {
	var c quotaChoice
	cmd := &cobra.Command{
		Use: "list", Short: "List quotas", Args: cobra.NoArgs, ValidArgsFunction: completeNothing,
		SuggestFor: []string{"describe", "ls"},
		Long:       "List quotas: all of them, or those of entities that have the parts that the flags name.",
		Example: `  leat quota list
  leat quota list --user alice`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			entity, err := c.entity()
			if err != nil {
				return err
			}
			return a.withAdmin(cmd.Context(), func(ctx context.Context, adm *kadm.Client) error {
				all, err := findQuotas(ctx, adm, entity, false)
				if err != nil {
					return err
				}
				return a.show(all, func() string {
					t := columns{head: []string{"OF", "QUOTAS"}}
					for i := range all {
						t.addRow(all[i].text, describeQuotas(all[i].Quotas))
					}
					return t.String()
				})
			})
		},
	}
	c.addFlags(cmd)
	return cmd
}

// findQuotas returns the quotas of the entities with these parts, or, if it is strict, with no others.
func findQuotas(ctx context.Context, adm *kadm.Client, e kadm.ClientQuotaEntity, strict bool) ([]listedQuotas, error) {
	var parts []kadm.DescribeClientQuotaComponent
	for _, p := range e {
		d := kadm.DescribeClientQuotaComponent{Type: p.Type, MatchName: p.Name}
		if p.Name == nil {
			d.MatchType = 1 // the default
		}
		parts = append(parts, d)
	}
	res, err := adm.DescribeClientQuotas(ctx, strict, parts)
	if err != nil {
		return nil, answerError("quotas", err, "")
	}
	all := []listedQuotas{}
	for _, q := range res {
		l := listedQuotas{quotaOwner: ownerOf(q.Entity), Quotas: map[string]float64{}, text: describeEntity(q.Entity)}
		for _, v := range q.Values {
			l.Quotas[v.Key] = v.Value
		}
		all = append(all, l)
	}
	slices.SortFunc(all, func(x, y listedQuotas) int { return strings.Compare(x.text, y.text) })
	return all, nil
}

func (a *app) newQuotaDelete() *cobra.Command {
	var c quotaChoice
	cmd := &cobra.Command{
		Use: "delete [QUOTA...]", Short: "Delete quotas: those that are named, or all of a user, a client id or an address", ValidArgs: quotaKeys(),
		SuggestFor: []string{"remove", "unset"},
		Example: `  leat quota delete --user alice producer_byte_rate
  leat quota delete --client-default`,
		RunE: func(cmd *cobra.Command, args []string) error {
			entity, err := c.mustEntity()
			if err != nil {
				return err
			}
			return a.withAdmin(cmd.Context(), func(ctx context.Context, adm *kadm.Client) error {
				return a.deleteQuotas(ctx, adm, entity, withoutRepeats(args))
			})
		},
	}
	c.addFlags(cmd)
	return cmd
}

// deleteQuotas deletes quotas of an entity; no keys: all of them.
func (a *app) deleteQuotas(ctx context.Context, adm *kadm.Client, e kadm.ClientQuotaEntity, keys []string) error {
	found, err := findQuotas(ctx, adm, e, true)
	if err != nil {
		return err
	}
	set := map[string]float64{}
	for i := range found {
		maps.Copy(set, found[i].Quotas)
	}
	if len(keys) == 0 {
		for key := range set {
			keys = append(keys, key)
		}
		slices.Sort(keys)
	}
	if len(keys) == 0 {
		return notFoundf("%s has no quotas: \"leat quota list\" lists all", describeEntity(e))
	}
	var ops []kadm.AlterClientQuotaOp
	for _, key := range keys {
		if _, ok := set[key]; !ok {
			return notFoundf("%s has no quota %s: \"leat quota list\" lists all", describeEntity(e), escapeLine(key))
		}
		ops = append(ops, kadm.AlterClientQuotaOp{Key: key, Remove: true})
	}
	if err := alterQuotas(ctx, adm, e, ops); err != nil {
		return err
	}
	return a.show(changedQuotas{quotaOwner: ownerOf(e), Deleted: keys}, func() string {
		return fmt.Sprintf("deleted quotas of %s: %s\n", describeEntity(e), strings.Join(keys, ", "))
	})
}
