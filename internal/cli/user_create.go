package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/auth"
)

func (a *app) newUserCreate() *cobra.Command {
	var from passwordSource
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Create a user that logs in by SCRAM-SHA-256 or SCRAM-SHA-512", Args: cobra.ExactArgs(1), ValidArgsFunction: completeNothing,
		SuggestFor: []string{"add"},
		Example: `  leat user create alice
  leat user create alice --password-file alice.txt`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkNewUser(args[0]); err != nil {
				return err
			}
			return a.changePassword(cmd.Context(), args[0], from, true)
		},
	}
	from.addFlag(cmd)
	return cmd
}

// checkNewUser refuses a name that other verbs would take for the name of another user, or of a group.
func checkNewUser(user string) error {
	typ, name, hasType := strings.Cut(user, ":")
	switch {
	case !hasType || !strings.EqualFold(typ, auth.UserType) && !strings.EqualFold(typ, auth.GroupType):
		return nil
	case strings.EqualFold(typ, auth.GroupType):
		return usagef("%s: other verbs take that for a group, so that nothing could be granted to such a user: choose a name without %s: in front", user, typ)
	}
	return usagef("%s: a user is created by its name alone, and ACLs put %s: in front of it: write %s", user, auth.UserType, name)
}

func (a *app) newUserRotate() *cobra.Command {
	var from passwordSource
	cmd := &cobra.Command{
		Use: "rotate NAME", Short: "Give a user another password", Args: cobra.ExactArgs(1), ValidArgsFunction: completeNothing,
		SuggestFor: []string{"passwd", "password"},
		Long: `Give a user another password. Each login from now on needs the new one, and clients that have logged in with the old one are served no more.
Delegation tokens of the user stay.`,
		Example: `  leat user rotate alice`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changePassword(cmd.Context(), args[0], from, false)
		},
	}
	from.addFlag(cmd)
	return cmd
}

// changePassword gives a user a password; the user must be a new one, or must exist.
func (a *app) changePassword(ctx context.Context, user string, from passwordSource, isNew bool) error {
	password, isMade, err := a.readPassword(from)
	if err != nil {
		return err
	}
	return a.withClient(ctx, func(ctx context.Context, cl *kgo.Client) error {
		adm := kadm.NewClient(cl)
		known, err := mechanismsOf(ctx, adm, user)
		switch {
		case err != nil:
			return err
		case isNew && len(known) > 0:
			return fmt.Errorf("user %s exists: \"leat user rotate\" gives it another password", user)
		case !isNew && len(known) == 0:
			return noSuchUserError(user)
		}
		if err := a.setPassword(ctx, adm, user, password); err != nil {
			return err
		}
		u, done := changedUser{User: user}, "created"
		if isMade {
			u.Password = password
		}
		if !isNew {
			done = "changed the password of"
		} else {
			a.tellGrants(ctx, cl, user, "leat acl list --user and leat role list --user show them")
		}
		return a.showPassword(u, done)
	})
}
