package cli

import (
	"cmp"
	"context"
	"slices"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
)

func (a *app) newTokenList() *cobra.Command {
	var owners []string
	cmd := &cobra.Command{
		Use: "list", Short: "List delegation tokens", Args: cobra.NoArgs, ValidArgsFunction: completeNothing,
		SuggestFor: []string{"describe", "show"},
		Long: `List the delegation tokens that you may see: your own, those that you have asked for or may renew, and those that ACLs show you. Their HMACs are
not shown.`,
		Example: `  leat token list
  leat token list --owner alice -o json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			of, err := parseTokenUsers(owners)
			if err != nil {
				return err
			}
			return a.withAdmin(cmd.Context(), func(ctx context.Context, adm *kadm.Client) error {
				tokens, err := adm.DescribeDelegationTokens(ctx, of...)
				if err != nil {
					return explainDelegation("delegation tokens", err)
				}
				return a.listDelegations(tokens, of)
			})
		},
	}
	cmd.Flags().StringArrayVar(&owners, "owner", nil, "only those of a `user`, by its name or TYPE:NAME; may be repeated")
	return cmd
}

// listDelegations shows those tokens that are of some owners; none: all. A broker also lists for an owner the tokens that it has asked for or may renew.
func (a *app) listDelegations(tokens kadm.DelegationTokens, owners []kadm.Principal) error {
	all := []shownDelegation{}
	for i := range tokens {
		if len(owners) == 0 || slices.Contains(owners, tokens[i].Owner) {
			all = append(all, showDelegation(&tokens[i]))
		}
	}
	slices.SortFunc(all, func(x, y shownDelegation) int {
		return cmp.Or(cmp.Compare(x.Owner, y.Owner), x.Issued.Compare(y.Issued), cmp.Compare(x.TokenID, y.TokenID))
	})
	return a.show(all, func() string {
		t := columns{head: []string{"TOKEN", "OWNER", "ASKED FOR BY", "RENEWERS", "ENDS", "AT THE LATEST"}}
		for i := range all {
			l := &all[i]
			t.addRow(l.TokenID, l.Owner, l.Requester, listNames(l.Renewers), formatTokenTime(l.Expires), formatTokenTime(l.MaxTime))
		}
		return t.String()
	})
}
