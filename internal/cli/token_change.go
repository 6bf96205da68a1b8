package cli

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
)

// changedDelegation is an element of the output of the verbs that move the end of a token.
type changedDelegation struct {
	TokenID string    `json:"tokenId"`
	Owner   string    `json:"owner"`
	Expires time.Time `json:"expires"`
	Ended   bool      `json:"ended"` // at once
}

func (a *app) newTokenRenew() *cobra.Command {
	var life time.Duration
	cmd := &cobra.Command{
		Use: "renew TOKEN...", Short: "Have delegation tokens end later", Args: cobra.MinimumNArgs(1), ValidArgsFunction: completeNothing,
		Long: `Have delegation tokens, which are named by their ids, end later: a day from now, or after the time of --for if that is shorter, but not after their
latest end. Their owner may do so, and their renewers.`,
		Example: `  leat token renew kGZ3kYxzQYuWmSPEAG0Aew
  leat token renew kGZ3kYxzQYuWmSPEAG0Aew --for 12h`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkTokenTime(cmd, life); err != nil {
				return err
			}
			period := -time.Millisecond // as long as the nodes' settings allow
			if cmd.Flags().Changed("for") {
				period = life
			}
			return a.changeTokens(cmd.Context(), args, false, func(ctx context.Context, adm *kadm.Client, hmac []byte) (time.Time, error) {
				return adm.RenewDelegationToken(ctx, hmac, period)
			})
		},
	}
	cmd.Flags().DurationVar(&life, "for", 0, "how long they are to last from now on (default: as long as the nodes allow)")
	return cmd
}

func (a *app) newTokenExpire() *cobra.Command {
	var rest time.Duration
	cmd := &cobra.Command{
		Use: "expire TOKEN...", Short: "End delegation tokens", Args: cobra.MinimumNArgs(1), ValidArgsFunction: completeNothing,
		SuggestFor: []string{"delete", "revoke", "remove"},
		Long: `End delegation tokens, which are named by their ids, now or after the time of --for. Sessions that were begun with a token that has ended end
with their next request. Its owner may do so, and its renewers.`,
		Example: `  leat token expire kGZ3kYxzQYuWmSPEAG0Aew
  leat token expire kGZ3kYxzQYuWmSPEAG0Aew --for 10m`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkTokenTime(cmd, rest); err != nil {
				return err
			}
			period, ends := -time.Millisecond, true // at once
			if cmd.Flags().Changed("for") {
				period, ends = rest, false
			}
			return a.changeTokens(cmd.Context(), args, ends, func(ctx context.Context, adm *kadm.Client, hmac []byte) (time.Time, error) {
				return adm.ExpireDelegationToken(ctx, hmac, period)
			})
		},
	}
	cmd.Flags().DurationVar(&rest, "for", 0, "how long they are to last from now on (default: they end at once)")
	return cmd
}

// changeTokens moves the ends of the tokens of some ids, each by its HMAC. With ends they are gone afterwards.
func (a *app) changeTokens(ctx context.Context, ids []string, ends bool, change func(ctx context.Context, adm *kadm.Client, hmac []byte) (time.Time, error)) error {
	return a.withAdmin(ctx, func(ctx context.Context, adm *kadm.Client) error {
		found, failed, err := findTokens(ctx, adm, ids)
		if err != nil {
			return err
		}
		all := []changedDelegation{}
		for i := range found {
			t := &found[i]
			expires, err := change(ctx, adm, t.HMAC)
			if err != nil {
				failed = append(failed, explainDelegation("delegation token "+t.TokenID, err))
				continue
			}
			all = append(all, changedDelegation{TokenID: t.TokenID, Owner: showTokenUser(t.Owner), Expires: expires, Ended: ends})
		}
		err = showEach(a, all, func(i int) string {
			of := "the delegation token " + escapeLine(all[i].TokenID) + " of " + escapeLine(all[i].Owner)
			if ends {
				return of + " has ended"
			}
			return of + " ends on " + formatTokenTime(all[i].Expires)
		})
		return errors.Join(append(failed, err)...)
	})
}
