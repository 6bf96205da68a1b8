package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/meta"
)

// explainedAccess is the output of acl explain.
type explainedAccess struct {
	Principal string `json:"principal"`
	Operation string `json:"operation"`
	Resource  string `json:"resource"`
	Name      string `json:"name"`
	Allowed   bool   `json:"allowed"`
	Why       string `json:"why"`
	// One of these says so, if any does.
	ACL  *shownACL  `json:"acl,omitempty"`
	Role *shownRole `json:"role,omitempty"`
	// Instead are the APIs for which another right is enough, which the user has.
	Instead []insteadOf `json:"instead,omitempty"`
}

// insteadOf is an API, and the right that is enough for it.
type insteadOf struct {
	API       string `json:"api"`
	Operation string `json:"operation"`
	Resource  string `json:"resource"`
}

func (a *app) newACLExplain() *cobra.Command {
	w := aclWords{parts: true}
	var groups []string
	cmd := &cobra.Command{
		Use: "explain USER OPERATION RESOURCE [NAME]", Short: "Tell whether a user may do something, and which ACL or role says so", Args: aclArgumentCount(),
		ValidArgsFunction: completeNothing,
		Long: "Tell whether a user may do something, and which ACL or role says so. NAME is the name of one resource. Where another right is\n" +
			"enough for what an API does, such as CREATE on the cluster for creating any topic, that is told, too. OPERATION may also be a part\n" +
			"that roles have: commit-offsets, describe-producers, reassign or alter-quotas.\n\n" + aclArguments,
		Example: `  leat acl explain alice write topic orders
  leat acl explain alice read group billing --host 10.0.0.7
  leat acl explain alice write topic pay-1 --group team-a`,
		RunE: func(cmd *cobra.Command, args []string) error {
			w.takeArguments(args)
			asked, err := w.parseACL()
			if err != nil {
				return err
			}
			if asked.Pattern == meta.PrefixedPattern {
				return usagef("%s: name one resource", w.name)
			}
			if w.host == meta.AnyHost {
				w.host = ""
			}
			return a.withClient(cmd.Context(), func(ctx context.Context, cl *kgo.Client) error {
				return a.explainAccess(ctx, cl, &asked, w.host, groups)
			})
		},
	}
	cmd.Flags().StringVar(&w.host, "host", "", "the address of the client; without it only ACLs for all addresses count")
	cmd.Flags().StringSliceVar(&groups, "group", nil, "a group that the user is in, as the token says; can be given several times")
	return cmd
}

func (a *app) explainAccess(ctx context.Context, cl *kgo.Client, asked *meta.ACL, host string, groups []string) error {
	all := auth.Everything()
	acls, err := findACLs(ctx, cl, &all)
	if err != nil {
		return err
	}
	roles, err := findRoles(ctx, cl, nil)
	if err != nil && !errors.Is(err, errNoRoles) {
		return err
	}
	acls = append(acls, roles...)
	supers, allowUnruled := readAuthorizerConfigs(ctx, cl)
	p, err := auth.ParsePrincipal(asked.Principal)
	if err != nil {
		return err
	}
	client := auth.NewClient(p, host)
	client = client.In(groups)
	by, err := authorizerOf(acls, supers, allowUnruled)
	if err != nil {
		return err
	}
	r := auth.Resource{Type: asked.Resource, Name: asked.Name}
	d := by.Explain(client, asked.Operation, r)
	e := explainedAccess{
		Principal: asked.Principal, Operation: strings.ToLower(auth.OperationName(asked.Operation)), Resource: strings.ToLower(auth.ResourceName(asked.Resource)),
		Name: asked.Name, Allowed: d.Allowed, Why: d.String(),
	}
	if !d.Allowed {
		e.explainInstead(by.Instead(client, asked.Operation, r))
	}
	switch {
	case d.By == nil:
	case d.By.Operation.IsRole():
		by := showRole(d.By)
		e.Role = &by
	default:
		by := showACL(d.By)
		e.ACL = &by
	}
	a.noteStranger(ctx, cl, p)
	return a.show(e, func() string { return escapeLine(e.Why) + "\n" })
}

// explainInstead adds the APIs for which another right is enough. If there is no other API that asks for this one, it is allowed.
func (e *explainedAccess) explainInstead(chosen []auth.Chosen) {
	for _, c := range chosen {
		e.Instead = append(e.Instead, insteadOf{c.API, strings.ToLower(auth.OperationName(c.By.Operation)), strings.ToLower(auth.ResourceName(c.By.On))})
		if c.IsAll && !e.Allowed {
			e.Allowed, e.Why = true, fmt.Sprintf("allowed: %s is enough, which is allowed", c.By)
		}
	}
	if e.Allowed {
		return
	}
	for i, c := range chosen {
		joint := ", and "
		if i == 0 {
			joint = "; but "
		}
		e.Why += fmt.Sprintf("%s%s is enough for %s, and is allowed", joint, c.By, c.API)
	}
}

// authorizerOf decides by ACLs as a broker does.
func authorizerOf(acls []meta.ACL, supers []auth.Principal, allowUnruled bool) (*auth.Authorizer, error) {
	records := meta.Append(nil, meta.LevelSet{Level: meta.LatestLevel})
	for i := range acls {
		records = meta.Append(records, meta.ACLSet{ACL: acls[i]})
	}
	m, _, err := meta.Apply(meta.Empty(), records)
	if err != nil {
		return nil, err
	}
	return auth.New(auth.Config{Image: func() *meta.Image { return m }, SuperUsers: supers, AllowUnruled: allowUnruled})
}

// noteStranger notes that a user has no password in the cluster. It says nothing where that cannot be known.
func (a *app) noteStranger(ctx context.Context, cl *kgo.Client, p auth.Principal) {
	if p.Type != auth.UserType || p == auth.Anonymous() || p.Name == "*" {
		return
	}
	if known, err := mechanismsOf(ctx, kadm.NewClient(cl), p.Name); err == nil && len(known) == 0 {
		a.writeNote(p.String(), "no such user has a password here: it may log in by a certificate or a token, or the name is misspelt")
	}
}

// readAuthorizerConfigs asks a broker for its super users, and whether everybody may use what has no ACLs. A client that may not see them
// goes without.
func readAuthorizerConfigs(ctx context.Context, cl *kgo.Client) (supers []auth.Principal, allowUnruled bool) {
	adm := kadm.NewClient(cl)
	brokers, err := adm.ListBrokers(ctx)
	if err != nil || len(brokers) == 0 {
		return nil, false
	}
	described, err := adm.DescribeBrokerConfigs(ctx, brokers[0].NodeID)
	if err != nil {
		return nil, false
	}
	for _, r := range described {
		for _, c := range r.Configs {
			switch c.Key {
			case "super.users":
				supers, _ = auth.ParsePrincipals(c.MaybeValue()) // the broker has checked it
			case "allow.everyone.if.no.acl.found":
				allowUnruled = strings.EqualFold(c.MaybeValue(), "true")
			}
		}
	}
	return supers, allowUnruled
}
