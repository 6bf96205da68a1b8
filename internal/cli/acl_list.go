package cli

import (
	"cmp"
	"context"
	"slices"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/meta"
)

// aclChoice says which ACLs to list.
type aclChoice struct {
	user, resource, name string
}

func (a *app) newACLList() *cobra.Command {
	var c aclChoice
	cmd := &cobra.Command{
		Use: "list", Short: "List what users may do, and may not", Args: cobra.NoArgs, ValidArgsFunction: completeNothing,
		Example: `  leat acl list
  leat acl list --user alice
  leat acl list --resource topic --name orders-2024`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := c.filter()
			if err != nil {
				return err
			}
			return a.withClient(cmd.Context(), func(ctx context.Context, cl *kgo.Client) error {
				acls, err := findACLs(ctx, cl, &f)
				if err != nil {
					return err
				}
				return a.listACLs(acls)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.user, "user", "", "only those of a user, by its name or TYPE:NAME")
	f.StringVar(&c.resource, "resource", "", "only those about topic, group, cluster, transactional-id, user or delegation-token")
	f.StringVar(&c.name, "name", "", "only those that are about a resource of this name, also by a prefix or *")
	return cmd
}

func (c *aclChoice) filter() (auth.Filter, error) {
	f := auth.Everything()
	if c.user != "" {
		principal, err := principalOf(c.user)
		if err != nil {
			return f, err
		}
		f.Principal = &principal
	}
	if c.resource != "" {
		t, ok := auth.ParseResourceType(c.resource)
		if !ok {
			return f, usagef("--resource %s: write topic, group, cluster, transactional-id, user or delegation-token", c.resource)
		}
		f.Resource = t
	}
	if c.name != "" {
		if f.Resource == meta.UserResource && c.name != meta.AnyName {
			var err error
			if c.name, err = principalOf(c.name); err != nil {
				return f, err
			}
		}
		f.Name, f.Pattern = &c.name, meta.MatchPattern
	}
	return f, nil
}

func (a *app) listACLs(acls []meta.ACL) error {
	all := make([]shownACL, len(acls))
	for i := range acls {
		all[i] = showACL(&acls[i])
	}
	slices.SortFunc(all, func(x, y shownACL) int {
		return cmp.Or(cmp.Compare(x.Principal, y.Principal), cmp.Compare(x.Resource, y.Resource), cmp.Compare(x.Name, y.Name), cmp.Compare(x.Operation, y.Operation))
	})
	return a.show(all, func() string {
		t := columns{head: []string{"PRINCIPAL", "PERMISSION", "OPERATION", "RESOURCE", "NAME", "FROM"}}
		for i := range all {
			l := &all[i]
			name := l.Name
			if l.Pattern == "prefixed" {
				name += "*"
			}
			t.addRow(l.Principal, l.Permission, l.Operation, l.Resource, name, l.Host)
		}
		return t.String()
	})
}
