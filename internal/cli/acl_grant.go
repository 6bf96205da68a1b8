package cli

import (
	"context"
	"slices"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/meta"
)

func (a *app) newACLGrant() *cobra.Command {
	w := aclWords{grants: true}
	cmd := &cobra.Command{
		Use: "grant USER OPERATION RESOURCE [NAME]", Short: "Let a user do something", Args: aclArgumentCount(), ValidArgsFunction: completeNothing,
		SuggestFor: []string{"add", "create", "allow"},
		Long:       "Let a user do something, or with --deny make sure that a user may not.\n\n" + aclArguments,
		Example: `  leat acl grant alice read topic 'orders-*'
  leat acl grant alice read group billing
  leat acl grant bob all cluster
  leat acl grant '*' write topic secrets --deny`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeGrant(cmd.Context(), &w, args, "there is now: ", func(ctx context.Context, cl *kgo.Client, acl *meta.ACL) error {
				if err := createACL(ctx, cl, acl); err != nil {
					return err
				}
				if acl.Permission == meta.Deny {
					a.noteSuperUser(ctx, cl, acl.Principal)
				}
				return nil
			})
		},
	}
	w.addFlags(cmd)
	return cmd
}

// noteSuperUser notes that to deny something to a super user has no effect.
func (a *app) noteSuperUser(ctx context.Context, cl *kgo.Client, principal string) {
	supers, _ := readAuthorizerConfigs(ctx, cl)
	if slices.ContainsFunc(supers, func(p auth.Principal) bool { return p.String() == principal }) {
		a.writeNote(principal, "it is in super.users, and may do everything, whatever ACLs deny")
	}
}

func createACL(ctx context.Context, cl *kgo.Client, acl *meta.ACL) error {
	req := kmsg.NewPtrCreateACLsRequest()
	c := kmsg.NewCreateACLsRequestCreation()
	c.Principal, c.Host, c.ResourceName = acl.Principal, acl.Host, acl.Name
	c.ResourceType, c.ResourcePatternType = kmsg.ACLResourceType(acl.Resource), kmsg.ACLResourcePatternType(acl.Pattern)
	c.Operation, c.PermissionType = kmsg.ACLOperation(acl.Operation), kmsg.ACLPermissionType(acl.Permission)
	req.Creations = append(req.Creations, c)
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return err
	}
	for i := range resp.Results {
		if err := aclError(resp.Results[i].ErrorCode, resp.Results[i].ErrorMessage); err != nil {
			return err
		}
	}
	return nil
}
