package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/meta"
)

// deletedUser is an element of the output of user delete.
type deletedUser struct {
	User    string `json:"user"`
	Deleted bool   `json:"deleted"`
	// Kept is how many ACLs and roles the user still has, and Revoked how many were taken back.
	Kept    int `json:"kept,omitempty"`
	Revoked int `json:"revoked,omitempty"`
}

func (a *app) newUserDelete() *cobra.Command {
	revoke := false
	cmd := &cobra.Command{
		Use: "delete NAME...", Short: "Delete users", Args: cobra.MinimumNArgs(1), ValidArgsFunction: completeNothing,
		Long: `Delete users. Clients that are logged in as they with a password are served no more, and their delegation tokens are removed. Their ACLs and roles stay,
so that a user of the same name would have them again; with --revoke they are taken back first. The last user of super.users who can log in
is not deleted, and keeps all.`,
		Example: `  leat user delete alice
  leat user delete alice --revoke`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(cmd.Context(), func(ctx context.Context, cl *kgo.Client) error {
				var failed []error
				all := []deletedUser{}
				for _, user := range withoutRepeats(args) {
					done, err := a.removeUser(ctx, cl, user, revoke)
					if err != nil {
						failed = append(failed, err)
						continue
					}
					all = append(all, done)
				}
				err := showEach(a, all, func(i int) string { return "deleted user " + escapeLine(all[i].User) })
				return errors.Join(append(failed, err)...)
			})
		},
	}
	cmd.Flags().BoolVar(&revoke, "revoke", false, "take back the ACLs and roles of the users, too")
	return cmd
}

// removeUser deletes a user, and tells what a user of the same name would have.
func (a *app) removeUser(ctx context.Context, cl *kgo.Client, user string, revoke bool) (done deletedUser, err error) {
	done = deletedUser{User: user, Deleted: true}
	known, err := mechanismsOf(ctx, kadm.NewClient(cl), user)
	if err == nil && len(known) == 0 {
		err = noSuchUserError(user)
	}
	if err != nil {
		return done, err
	}
	var revoked []meta.ACL
	if revoke { // first: a failure must not leave rights of which nobody thinks any more
		if revoked, err = revokeGrants(ctx, cl, auth.User(user).String()); err != nil {
			return done, err
		}
	}
	if err := a.deleteUser(ctx, cl, user, known); err != nil {
		return done, errors.Join(err, restoreGrants(ctx, cl, revoked))
	}
	done.Revoked = len(revoked)
	done.Kept = a.tellGrants(ctx, cl, user, "leat acl list --user and leat role list --user show them, and leat user delete --revoke takes them back, too")
	return done, nil
}

// tellGrants notes how many ACLs and roles a user has by its name alone. It says nothing where these cannot be known.
func (a *app) tellGrants(ctx context.Context, cl *kgo.Client, user, hint string) (n int) {
	principal := auth.User(user).String()
	f := auth.Everything()
	f.Principal = &principal
	acls, err := findACLs(ctx, cl, &f)
	if err != nil {
		return 0
	}
	roles, _ := findRoles(ctx, cl, &principal) // there may be none, or no roles at all
	if n = len(acls) + len(roles); n > 0 {
		a.writeNote("user "+user, fmt.Sprintf("the name has %s and %s, which count for any user of this name: %s", formatCount(len(acls), "ACL"), formatCount(len(roles), "role"), hint))
	}
	return n
}

// restoreGrants grants again what was taken back from a user who was not deleted.
func restoreGrants(ctx context.Context, cl *kgo.Client, revoked []meta.ACL) error {
	for i := range revoked {
		if err := createACL(ctx, cl, &revoked[i]); err != nil {
			return fmt.Errorf("the user has lost what it was granted, which could not be granted again: %s: %w", auth.FormatACL(&revoked[i]), err)
		}
	}
	return nil
}

// revokeGrants takes back all ACLs and roles of a principal, and returns them.
func revokeGrants(ctx context.Context, cl *kgo.Client, principal string) (revoked []meta.ACL, err error) {
	filters := []auth.Filter{auth.Everything()}
	if err := checkRoles(ctx, cl); err == nil {
		filters = append(filters, auth.AllRoles())
	}
	req := kmsg.NewPtrDeleteACLsRequest()
	for _, f := range filters {
		of := kmsg.NewDeleteACLsRequestFilter()
		of.Principal = &principal
		of.ResourceType, of.ResourcePatternType = kmsg.ACLResourceType(f.Resource), kmsg.ACLResourcePatternType(f.Pattern)
		of.Operation, of.PermissionType = kmsg.ACLOperation(f.Operation), kmsg.ACLPermissionType(f.Permission)
		req.Filters = append(req.Filters, of)
	}
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return nil, err
	}
	for i := range resp.Results {
		if err := aclError(resp.Results[i].ErrorCode, resp.Results[i].ErrorMessage); err != nil {
			return nil, err
		}
		for _, m := range resp.Results[i].MatchingACLs {
			revoked = append(revoked, meta.ACL{
				Principal: m.Principal, Host: m.Host, Resource: meta.ResourceType(m.ResourceType), Pattern: meta.PatternType(m.ResourcePatternType),
				Name: m.ResourceName, Operation: meta.Operation(m.Operation), Permission: meta.Permission(m.PermissionType),
			})
		}
	}
	return revoked, nil
}

// deleteUser removes the credentials of a user for the mechanisms: all, or none if they are refused. Of another cluster than one of Leat they are
// removed one after the other, so that a refusal may leave some.
func (a *app) deleteUser(ctx context.Context, cl *kgo.Client, user string, mechanisms []kadm.ScramMechanism) error {
	err := deleteCredential(ctx, cl, user, int8(auth.EveryMechanism))
	if !errors.Is(err, kerr.UnsupportedSaslMechanism) {
		return err
	}
	for _, m := range a.putOwnLast(mechanisms) {
		if err := deleteCredential(ctx, cl, user, int8(m)); err != nil {
			return err
		}
	}
	return nil
}

func deleteCredential(ctx context.Context, cl *kgo.Client, user string, m int8) error {
	req := kmsg.NewPtrAlterUserSCRAMCredentialsRequest()
	req.Deletions = []kmsg.AlterUserSCRAMCredentialsRequestDeletion{{Name: user, Mechanism: m}}
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return answerError("user "+user, err, "")
	}
	for i := range resp.Results {
		if err := kerr.ErrorForCode(resp.Results[i].ErrorCode); err != nil {
			message := ""
			if resp.Results[i].ErrorMessage != nil {
				message = *resp.Results[i].ErrorMessage
			}
			return answerError("user "+user, err, message)
		}
	}
	return nil
}
