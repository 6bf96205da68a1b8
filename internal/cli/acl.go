package cli

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/cli/phrase"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
)

func (a *app) newACL() *cobra.Command {
	return a.addOutputFlag(a.addClientFlags(newParent("acl", "Grant, revoke, list, explain and suggest what users may do",
		a.newACLGrant(), a.newACLRevoke(), a.newACLList(), a.newACLExplain(), a.newACLSuggest())))
}

// aclWords are the arguments and flags of a verb about one ACL.
type aclWords struct {
	user, operation, kind, name string

	host   string
	deny   bool
	grants bool // what could never count is refused
	parts  bool // the operation may be a part of one
}

const aclArguments = `USER is a name, or group:NAME, or TYPE:NAME, or * for every user. OPERATION is read, write, create, delete,
alter, describe, describe-configs, alter-configs, cluster-action, idempotent-write, create-tokens (on a user),
describe-tokens (on a user) or all. RESOURCE is topic NAME, group NAME, transactional-id NAME, user NAME,
delegation-token NAME or cluster. A name that ends with * stands for all that begin like it, and * alone for all.`

// takeArguments reads USER OPERATION RESOURCE [NAME].
func (w *aclWords) takeArguments(args []string) {
	w.user, w.operation, w.kind, w.name = args[0], args[1], args[2], ""
	if len(args) > 3 {
		w.name = args[3]
	}
}

// aclArgumentCount accepts as many arguments as USER OPERATION RESOURCE [NAME] has.
func aclArgumentCount() cobra.PositionalArgs { return cobra.RangeArgs(3, 4) }

// principalOf is the principal that a user is named by.
func principalOf(user string) (string, error) {
	typ, name, hasType := strings.Cut(user, ":")
	switch {
	case !hasType:
		user = auth.UserType + ":" + user
	case strings.EqualFold(typ, auth.UserType): // types have capitals, and nobody remembers that
		user = auth.UserType + ":" + name
	case strings.EqualFold(typ, auth.GroupType):
		user = auth.GroupType + ":" + name
	}
	if _, err := auth.ParsePrincipal(user); err != nil {
		return "", usagef("%s: write the name of a user, or TYPE:NAME", user)
	}
	return user, nil
}

// parseResource finds what the words say about a resource. A name with a star at its end is a prefix.
func (w *aclWords) parseResource() (r auth.Resource, pattern meta.PatternType, err error) {
	var ok bool
	if r.Type, ok = auth.ParseResourceType(w.kind); !ok {
		return r, 0, usagef("%s: write topic, group, cluster, transactional-id, user or delegation-token", w.kind)
	}
	r.Name, pattern = w.name, meta.LiteralPattern
	switch {
	case r.Type == meta.ClusterResource && (w.name == "" || w.name == meta.ClusterName):
		r.Name = meta.ClusterName
	case r.Type == meta.ClusterResource:
		return r, 0, usagef("cluster %s: there is one cluster, which needs no name", w.name)
	case w.name == "":
		return r, 0, usagef("%s needs a name; * stands for all", w.kind)
	case len(w.name) > 1 && strings.HasSuffix(w.name, "*"):
		r.Name, pattern = strings.TrimSuffix(w.name, "*"), meta.PrefixedPattern
	}
	if r.Type == meta.UserResource && r.Name != meta.AnyName { // the name of such a resource is a principal
		r.Name, err = principalOf(r.Name)
	}
	return r, pattern, err
}

// checkGrant refuses to grant what could never count, since no client is so and no resource has such a name.
func checkGrant(user string, acl *meta.ACL) error {
	if err := checkPrincipal(user, acl.Principal); err != nil {
		return err
	}
	if _, err := netip.ParseAddr(acl.Host); acl.Host != meta.AnyHost && err != nil {
		return usagef("--host %s: write the address of a client, such as 10.0.0.7 or fd00::7, or * for all: ACLs know neither names of hosts nor ranges of addresses", acl.Host)
	}
	if acl.Resource != meta.TopicResource || acl.Name == meta.AnyName {
		return nil
	}
	if strings.Contains(acl.Name, "*") {
		return usagef("topic %s: a * is only at the end of a name, for all that begin so, or alone, for all", acl.Name)
	}
	if refused := controller.CheckTopicName(acl.Name); refused != nil && (acl.Pattern == meta.LiteralPattern || acl.Name != "." && acl.Name != "..") {
		return usagef("topic %s: no topic can be called so, or begin so: names have letters, digits, '.', '_' and '-'", acl.Name)
	}
	return nil
}

// checkOperation refuses to grant an operation that no request needs on such a resource.
func checkOperation(op meta.Operation, on meta.ResourceType) error {
	can := auth.OperationsOn(on)
	if op == meta.AllOperations || slices.Contains(can, op) {
		return nil
	}
	return usagef("%s on a %s counts for nothing: no request needs it; what counts there is %s", toolWord(auth.OperationName(op)), toolWord(auth.ResourceName(on)), operationWords(can))
}

// toolWord is the name of an operation or a type of resources as verbs take it.
func toolWord(name string) string { return strings.ToLower(strings.ReplaceAll(name, "_", "-")) }

// operationWords lists operations as verbs take them.
func operationWords(ops []meta.Operation) string {
	words := make([]string, 0, len(ops)+1)
	for _, op := range ops {
		words = append(words, toolWord(auth.OperationName(op)))
	}
	return phrase.Join(append(words, "all"), "or")
}

// checkPrincipal refuses a principal that no client has: a list of users, which looks like a name with commas, and a type that Leat does not know. Names of
// certificates have commas, too, and a = in each part.
func checkPrincipal(user, principal string) error {
	typ, name, _ := strings.Cut(principal, ":")
	if typ != auth.UserType && typ != auth.GroupType {
		return usagef("%s: no client is of the type %s: write User:%s for a user of that name, or Group:NAME", user, typ, user)
	}
	for _, part := range strings.Split(name, ",")[1:] {
		of, _, hasType := strings.Cut(strings.TrimSpace(part), ":")
		isList := hasType && (strings.EqualFold(of, auth.UserType) || strings.EqualFold(of, auth.GroupType))
		if isList || !strings.Contains(user, ":") && !strings.Contains(part, "=") {
			return usagef("%s: name one user, and run this for each; a user whose name has a comma is written User:NAME", user)
		}
	}
	return nil
}

// parseOperation finds the operation, or a part of one, that the words say.
func (w *aclWords) parseOperation() (meta.Operation, error) {
	if op, ok := auth.ParseOperation(w.operation); ok {
		return op, nil
	}
	part, isPart := auth.ParsePart(w.operation)
	switch {
	case isPart && w.parts:
		return part, nil
	case isPart:
		whole, _ := auth.PartOf(part)
		return 0, usagef("%s is a part of %s, which only roles give alone: grant a role (\"leat role describe\" shows which has it), or %s",
			w.operation, auth.OperationName(whole), toolWord(auth.OperationName(whole)))
	}
	return 0, usagef("%s is no operation: write read, write, create, delete, alter, describe, describe-configs, alter-configs, cluster-action, idempotent-write, create-tokens, describe-tokens or all", w.operation)
}

// parseACL makes the ACL that the words say.
func (w *aclWords) parseACL() (acl meta.ACL, err error) {
	if acl.Principal, err = principalOf(w.user); err != nil {
		return acl, err
	}
	if acl.Operation, err = w.parseOperation(); err != nil {
		return acl, err
	}
	r, pattern, err := w.parseResource()
	if err != nil {
		return acl, err
	}
	acl.Resource, acl.Name, acl.Pattern, acl.Host, acl.Permission = r.Type, r.Name, pattern, w.host, meta.Allow
	if w.deny {
		acl.Permission = meta.Deny
	}
	if !w.grants {
		return acl, nil
	}
	if err := checkOperation(acl.Operation, acl.Resource); err != nil {
		return acl, err
	}
	return acl, checkGrant(w.user, &acl)
}

// grantWords are the arguments of a verb about one ACL, or one granted role, which is an ACL, too.
type grantWords interface {
	takeArguments(args []string)
	parseACL() (meta.ACL, error)
	show(acl *meta.ACL) any // for programs
}

// changeGrant grants or revokes what the words say, and tells that it is done.
func (a *app) changeGrant(ctx context.Context, w grantWords, args []string, done string, change func(ctx context.Context, cl *kgo.Client, acl *meta.ACL) error) error {
	w.takeArguments(args)
	acl, err := w.parseACL()
	if err != nil {
		return err
	}
	return a.withClient(ctx, func(ctx context.Context, cl *kgo.Client) error {
		if err := change(ctx, cl, &acl); err != nil {
			return err
		}
		return a.show(w.show(&acl), func() string { return done + escapeLine(auth.FormatACL(&acl)) + "\n" })
	})
}

func (*aclWords) show(acl *meta.ACL) any { return showACL(acl) }

func (w *aclWords) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&w.host, "host", meta.AnyHost, "only for clients with this address; * stands for all")
	cmd.Flags().BoolVar(&w.deny, "deny", false, "deny it, whatever other ACLs allow")
}

// shownACL is an ACL in the output.
type shownACL struct {
	Principal  string `json:"principal"`
	Permission string `json:"permission"`
	Operation  string `json:"operation"`
	Resource   string `json:"resource"`
	Name       string `json:"name"`
	Pattern    string `json:"pattern"`
	Host       string `json:"host"`
}

func showACL(a *meta.ACL) shownACL {
	return shownACL{
		Principal: a.Principal, Permission: strings.ToLower(auth.PermissionName(a.Permission)), Operation: strings.ToLower(auth.OperationName(a.Operation)),
		Resource: strings.ToLower(auth.ResourceName(a.Resource)), Name: a.Name, Pattern: strings.ToLower(auth.PatternName(a.Pattern)), Host: a.Host,
	}
}

// findACLs asks for the ACLs that a filter chooses.
func findACLs(ctx context.Context, cl *kgo.Client, f *auth.Filter) ([]meta.ACL, error) {
	req := kmsg.NewPtrDescribeACLsRequest()
	req.ResourceType, req.ResourceName, req.ResourcePatternType = kmsg.ACLResourceType(f.Resource), f.Name, kmsg.ACLResourcePatternType(f.Pattern)
	req.Principal, req.Host = f.Principal, f.Host
	req.Operation, req.PermissionType = kmsg.ACLOperation(f.Operation), kmsg.ACLPermissionType(f.Permission)
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return nil, err
	}
	if err := aclError(resp.ErrorCode, resp.ErrorMessage); err != nil {
		return nil, err
	}
	var all []meta.ACL
	for i := range resp.Resources {
		r := &resp.Resources[i]
		for j := range r.ACLs {
			a := &r.ACLs[j]
			all = append(all, meta.ACL{
				Principal: a.Principal, Host: a.Host, Resource: meta.ResourceType(r.ResourceType), Pattern: meta.PatternType(r.ResourcePatternType),
				Name: r.ResourceName, Operation: meta.Operation(a.Operation), Permission: meta.Permission(a.PermissionType),
			})
		}
	}
	return all, nil
}

// aclError is the error of an answer about ACLs.
func aclError(code int16, message *string) error {
	err := kerr.ErrorForCode(code)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, kerr.SecurityDisabled):
		return errors.New("this cluster has no ACLs: its nodes run without authorizer.class.name, so every client may do everything")
	case message != nil:
		return answerError("ACLs", err, *message)
	}
	return answerError("ACLs", err, "")
}
