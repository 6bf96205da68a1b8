package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/meta"
)

func (a *app) newACLRevoke() *cobra.Command {
	var w aclWords
	cmd := &cobra.Command{
		Use: "revoke USER OPERATION RESOURCE [NAME]", Short: "Take back what was granted", Args: aclArgumentCount(), ValidArgsFunction: completeNothing,
		SuggestFor: []string{"remove", "delete"},
		Long:       "Take back what was granted, in the same words, or with --deny what was denied. Other ACLs may allow the same.\n\n" + aclArguments,
		Example:    `  leat acl revoke alice read topic 'orders-*'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeGrant(cmd.Context(), &w, args, "there is no longer: ", func(ctx context.Context, cl *kgo.Client, acl *meta.ACL) error {
				gone, err := deleteACL(ctx, cl, acl)
				if err == nil && !gone && acl.Resource == meta.UserResource { // by another client, which names the user without its type
					if acl.Name = w.name; acl.Pattern == meta.PrefixedPattern {
						acl.Name = strings.TrimSuffix(w.name, "*")
					}
					gone, err = deleteACL(ctx, cl, acl)
				}
				if err == nil && !gone {
					err = notFoundf("there is no such ACL: %s; \"leat acl list\" lists all", auth.FormatACL(acl))
				}
				return err
			})
		},
	}
	w.addFlags(cmd)
	return cmd
}

// deleteACL deletes exactly one ACL, and tells whether there was one.
func deleteACL(ctx context.Context, cl *kgo.Client, acl *meta.ACL) (gone bool, err error) {
	req := kmsg.NewPtrDeleteACLsRequest()
	f := kmsg.NewDeleteACLsRequestFilter()
	f.Principal, f.Host, f.ResourceName = &acl.Principal, &acl.Host, &acl.Name
	f.ResourceType, f.ResourcePatternType = kmsg.ACLResourceType(acl.Resource), kmsg.ACLResourcePatternType(acl.Pattern)
	f.Operation, f.PermissionType = kmsg.ACLOperation(acl.Operation), kmsg.ACLPermissionType(acl.Permission)
	req.Filters = append(req.Filters, f)
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return false, err
	}
	for i := range resp.Results {
		if err := aclError(resp.Results[i].ErrorCode, resp.Results[i].ErrorMessage); err != nil {
			return false, err
		}
		gone = gone || len(resp.Results[i].MatchingACLs) > 0
	}
	return gone, nil
}
