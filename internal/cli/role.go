package cli

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/cli/phrase"
	"github.com/leatstream/leat/internal/meta"
)

func (a *app) newRole() *cobra.Command {
	return a.addOutputFlag(a.addClientFlags(newParent("role", "Grant, revoke, list and describe roles of users and groups",
		a.newRoleGrant(), a.newRoleRevoke(), a.newRoleList(), a.newRoleDescribe())))
}

const roleArguments = `USER is a name, or group:NAME for all users whose token says that they are in the group, or * for every
user. ROLE is reader, writer, operator or admin: "leat role describe" shows what each may do. NAME is the
name of a topic; one that ends with * stands for all that begin like it, and * alone for all. The role
counts for groups and transactional ids of the same name, too; group NAME or transactional-id NAME grants
it for these alone.`

// roleWords are the arguments and flags of a verb about one granted role.
type roleWords struct {
	user, role, kind, name, host string

	grants bool // what could never count is refused
}

// takeArguments reads USER ROLE [RESOURCE] NAME.
func (w *roleWords) takeArguments(args []string) {
	w.user, w.role, w.kind, w.name = args[0], args[1], "topic", args[len(args)-1]
	if len(args) > 3 {
		w.kind = args[2]
	}
}

func (w *roleWords) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&w.host, "host", meta.AnyHost, "only for clients with this address; * stands for all")
}

func (*roleWords) show(acl *meta.ACL) any { return showRole(acl) }

// roleNames are the names of all roles.
func roleNames() (names []string) {
	for _, r := range auth.Roles() {
		names = append(names, r.Name)
	}
	return names
}

// parseRole finds the role of a name.
func parseRole(name string) (auth.Role, error) {
	r, ok := auth.ParseRole(name)
	if !ok {
		return r, usagef("%s is no role: write %s", name, phrase.Join(roleNames(), "or"))
	}
	return r, nil
}

// parseACL makes the ACL that grants the role.
func (w *roleWords) parseACL() (acl meta.ACL, err error) {
	if acl.Principal, err = principalOf(w.user); err != nil {
		return acl, err
	}
	role, err := parseRole(w.role)
	if err != nil {
		return acl, err
	}
	words := aclWords{kind: w.kind, name: w.name}
	r, pattern, err := words.parseResource()
	switch {
	case err != nil:
		return acl, err
	case !role.CanBeOn(r.Type):
		return acl, usagef("the role %s has nothing to do with a %s by its name: grant it on topics, as in \"leat role grant %s %s 'orders-*'\"", role.Name, w.kind, w.user, role.Name)
	}
	acl = meta.ACL{
		Principal: acl.Principal, Host: w.host, Resource: r.Type, Pattern: pattern, Name: r.Name, Operation: role.Operation, Permission: meta.Allow,
	}
	if w.grants {
		err = checkGrant(w.user, &acl)
	}
	return acl, err
}

// completeRole proposes the names of roles as the second argument.
func completeRole(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 1 {
		return roleNames(), cobra.ShellCompDirectiveNoFileComp
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// shownRole is a granted role in the output.
type shownRole struct {
	Principal string `json:"principal"`
	Role      string `json:"role"`
	Resource  string `json:"resource"`
	Name      string `json:"name"`
	Pattern   string `json:"pattern"`
	Host      string `json:"host"`
}

func showRole(a *meta.ACL) shownRole {
	return shownRole{
		Principal: a.Principal, Role: strings.ToLower(auth.OperationName(a.Operation)), Resource: strings.ToLower(auth.ResourceName(a.Resource)),
		Name: a.Name, Pattern: strings.ToLower(auth.PatternName(a.Pattern)), Host: a.Host,
	}
}

func (a *app) newRoleGrant() *cobra.Command {
	w := roleWords{grants: true}
	cmd := &cobra.Command{
		Use: "grant USER ROLE [RESOURCE] NAME", Short: "Give a user or a group a role", Args: aclArgumentCount(), ValidArgsFunction: completeRole,
		SuggestFor: []string{"add", "bind"},
		Long:       "Give a user or a group a role. An ACL that denies something comes before all roles.\n\n" + roleArguments,
		Example: `  leat role grant alice reader 'orders-*'
  leat role grant alice reader group 'billing-*'
  leat role grant group:team-a writer 'pay-*'
  leat role grant olga operator '*'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeGrant(cmd.Context(), &w, args, "there is now: ", func(ctx context.Context, cl *kgo.Client, acl *meta.ACL) error {
				if err := checkRoles(ctx, cl); err != nil {
					return err
				}
				return createACL(ctx, cl, acl)
			})
		},
	}
	w.addFlags(cmd)
	return cmd
}

func (a *app) newRoleRevoke() *cobra.Command {
	var w roleWords
	cmd := &cobra.Command{
		Use: "revoke USER ROLE [RESOURCE] NAME", Short: "Take a role back", Args: aclArgumentCount(), ValidArgsFunction: completeRole,
		SuggestFor: []string{"remove", "unbind"},
		Long:       "Take a role back, in the words by which it was granted. Other roles and ACLs may allow the same.\n\n" + roleArguments,
		Example:    `  leat role revoke alice reader 'orders-*'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeGrant(cmd.Context(), &w, args, "there is no longer: ", func(ctx context.Context, cl *kgo.Client, acl *meta.ACL) error {
				if err := checkRoles(ctx, cl); err != nil {
					return err
				}
				gone, err := deleteACL(ctx, cl, acl)
				if err == nil && !gone {
					err = notFoundf("nobody was granted that: %s; \"leat role list\" lists all", auth.FormatACL(acl))
				}
				return err
			})
		},
	}
	w.addFlags(cmd)
	return cmd
}

// errNoRoles is returned for a cluster that knows no roles. Other clusters take the number of a role for a mistake, or close the
// connection, so they are not asked.
var errNoRoles = errors.New("this cluster knows no roles: it is no cluster of Leat, or its metadata have an older level, which \"leat cluster finalize\" raises when all nodes run this version; " +
	"ACLs can do the same (\"leat acl grant\")")

// checkRoles returns errNoRoles if the cluster knows no roles.
func checkRoles(ctx context.Context, cl *kgo.Client) error {
	const withFeatures = 3
	req := kmsg.NewPtrApiVersionsRequest()
	req.ClientSoftwareName, req.ClientSoftwareVersion = "leat", "1"
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return err
	}
	isKnown := resp.Version >= withFeatures && slices.ContainsFunc(resp.FinalizedFeatures, func(f kmsg.ApiVersionsResponseFinalizedFeature) bool {
		return f.Name == meta.LevelFeature && f.MaxVersionLevel >= meta.LevelIdentity
	})
	if !isKnown {
		return errNoRoles
	}
	return nil
}

// findRoles asks for the roles that were granted, to one principal if it is not nil.
func findRoles(ctx context.Context, cl *kgo.Client, principal *string) ([]meta.ACL, error) {
	if err := checkRoles(ctx, cl); err != nil {
		return nil, err
	}
	f := auth.AllRoles()
	f.Principal = principal
	return findACLs(ctx, cl, &f)
}
