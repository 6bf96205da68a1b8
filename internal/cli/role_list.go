package cli

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/meta"
)

func (a *app) newRoleList() *cobra.Command {
	var user, name string
	cmd := &cobra.Command{
		Use: "list", Short: "List the roles that users and groups have", Args: cobra.NoArgs, ValidArgsFunction: completeNothing,
		Example: `  leat role list
  leat role list --user alice
  leat role list --topic orders-2024`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var of *string
			if user != "" {
				principal, err := principalOf(user)
				if err != nil {
					return err
				}
				of = &principal
			}
			return a.withClient(cmd.Context(), func(ctx context.Context, cl *kgo.Client) error {
				roles, err := findRoles(ctx, cl, of)
				if err != nil {
					return err
				}
				if name != "" {
					f := auth.AllRoles()
					f.Resource, f.Pattern, f.Name = meta.TopicResource, meta.MatchPattern, &name
					roles = slices.DeleteFunc(roles, func(r meta.ACL) bool { return !f.Matches(&r) })
				}
				return a.listRoles(roles)
			})
		},
	}
	cmd.Flags().StringVar(&user, "user", "", "only those of a user, or of group:NAME")
	cmd.Flags().StringVar(&name, "topic", "", "only those that are about a topic of this name, also by a prefix or *")
	return cmd
}

func (a *app) listRoles(roles []meta.ACL) error {
	all := make([]shownRole, len(roles))
	for i := range roles {
		all[i] = showRole(&roles[i])
	}
	slices.SortFunc(all, func(x, y shownRole) int {
		return cmp.Or(cmp.Compare(x.Principal, y.Principal), cmp.Compare(x.Resource, y.Resource), cmp.Compare(x.Name, y.Name), cmp.Compare(x.Role, y.Role))
	})
	return a.show(all, func() string {
		t := columns{head: []string{"PRINCIPAL", "ROLE", "RESOURCE", "NAME", "FROM"}}
		for i := range all {
			l := &all[i]
			name := l.Name
			if l.Pattern == "prefixed" {
				name += "*"
			}
			t.addRow(l.Principal, l.Role, l.Resource, name, l.Host)
		}
		return t.String()
	})
}

// describedRole is an element of the output of role describe.
type describedRole struct {
	Role    string              `json:"role"`
	Summary string              `json:"summary"`
	Allows  []describedRoleLine `json:"allows"`
}

// describedRoleLine is a line of a role's table.
type describedRoleLine struct {
	Resource   string   `json:"resource"`
	Operations []string `json:"operations"`
	OnlyAll    bool     `json:"only_for_all_topics"`
}

func (a *app) newRoleDescribe() *cobra.Command {
	return &cobra.Command{
		Use: "describe [ROLE...]", Short: "Show what roles may do", ValidArgsFunction: completeWords(roleNames()...),
		Long: "Show what roles may do. It asks no broker.",
		Example: `  leat role describe
  leat role describe reader`,
		RunE: func(_ *cobra.Command, args []string) error {
			roles := auth.Roles()
			if len(args) > 0 {
				roles = nil
				for _, name := range withoutRepeats(args) {
					r, err := parseRole(name)
					if err != nil {
						return err
					}
					roles = append(roles, r)
				}
			}
			all := make([]describedRole, len(roles))
			for i := range roles {
				all[i] = describeRole(&roles[i])
			}
			return a.show(all, func() string {
				t := columns{head: []string{"ROLE", "RESOURCE", "OPERATIONS", "FOR"}}
				for _, r := range all {
					for _, l := range r.Allows {
						t.addRow(r.Role, l.Resource, strings.Join(l.Operations, ", "), scopeText(l.OnlyAll))
					}
				}
				return t.String()
			})
		},
	}
}

func describeRole(r *auth.Role) describedRole {
	d := describedRole{Role: r.Name, Summary: r.Summary}
	for _, line := range r.Lines {
		l := describedRoleLine{Resource: strings.ToLower(auth.ResourceName(line.Resource)), OnlyAll: line.OnlyAll}
		for _, op := range line.Operations {
			l.Operations = append(l.Operations, strings.ToLower(auth.OperationName(op)))
		}
		d.Allows = append(d.Allows, l)
	}
	return d
}

// scopeText says for which names a line of a role's table counts.
func scopeText(onlyAll bool) string {
	if onlyAll {
		return "roles on all topics (*)"
	}
	return "the names of the role"
}
