package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/meta"
)

// listedUser is a line of the output of user list.
type listedUser struct {
	User       string   `json:"user"`
	Mechanisms []string `json:"mechanisms"`
}

func (a *app) newUserList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the users that have a password", Args: cobra.NoArgs, ValidArgsFunction: completeNothing,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withAdmin(cmd.Context(), func(ctx context.Context, adm *kadm.Client) error {
				res, err := adm.DescribeUserSCRAMs(ctx)
				if err != nil {
					return answerError("users", err, "")
				}
				all := []listedUser{}
				for _, u := range res.Sorted() {
					if u.Err != nil {
						return answerError("user "+u.User, u.Err, u.ErrMessage)
					}
					l := listedUser{User: u.User}
					for _, c := range u.CredInfos {
						l.Mechanisms = append(l.Mechanisms, auth.ScramName(meta.ScramMechanism(c.Mechanism)))
					}
					all = append(all, l)
				}
				return a.show(all, func() string {
					t := columns{head: []string{"USER", "LOGS IN BY"}}
					for _, u := range all {
						t.addRow(u.User, strings.Join(u.Mechanisms, ", "))
					}
					return t.String()
				})
			})
		},
	}
}
