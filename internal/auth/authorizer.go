package auth

import (
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/leatstream/leat/internal/meta"
)

// Config is what an Authorizer works with.
type Config struct {
	Image func() *meta.Image // the newest image; never nil
	// SuperUsers may do everything: super.users. A group is all users that are in it.
	SuperUsers []Principal
	// AllowUnruled lets everybody use a resource for which there are no ACLs: allow.everyone.if.no.acl.found.
	AllowUnruled bool
}

// Authorizer decides what clients may do. Any goroutine may use it.
type Authorizer struct {
	cfg    Config
	supers map[string]bool

	rules sync.Map // the compiled rules by principal: string to *rules; principals without ACLs have none
	ruled atomic.Pointer[ruledResources]
}

// Client is who asks, and from where.
type Client struct {
	principal string
	groups    []string // the principals of the groups that it is in, in order; never changes
	host      string   // canonical
}

// NewClient is a client that is known as a principal and has an address, without a port. It is in no group.
func NewClient(p Principal, host string) Client {
	return Client{principal: p.String(), host: canonicalHost(host)}
}

// In is the client as one that is in groups, which are given by their names.
func (c *Client) In(groups []string) Client {
	in := Client{principal: c.principal, host: c.host}
	for _, name := range groups {
		in.groups = append(in.groups, Principal{GroupType, name}.String())
	}
	slices.Sort(in.groups)
	in.groups = slices.Compact(in.groups)
	return in
}

// Is tells whether the client is a principal, or is in it as in a group.
func (c *Client) Is(p Principal) bool {
	name := p.String()
	return name == c.principal || slices.Contains(c.groups, name)
}

// isNamedBy tells whether ACLs of a principal are about the client.
func (c *Client) isNamedBy(principal string) bool {
	if principal == c.principal || principal == meta.AnyPrincipal {
		return true
	}
	_, found := slices.BinarySearch(c.groups, principal)
	return found
}

// principals are all whose ACLs are about the client, each once, in no order.
func (c *Client) principals() iter.Seq[string] {
	return func(yield func(string) bool) {
		if c.principal != meta.AnyPrincipal && !yield(c.principal) || !yield(meta.AnyPrincipal) {
			return
		}
		for _, g := range c.groups {
			if g != c.principal && !yield(g) {
				return
			}
		}
	}
}

// Principal is who the client is, as ACLs have it.
func (c *Client) Principal() string { return c.principal }

// Host is the client's address.
func (c *Client) Host() string { return c.host }

// Resource is what a client asks for.
type Resource struct {
	Type meta.ResourceType
	Name string
}

// Cluster is the cluster as a resource.
func Cluster() Resource { return Resource{meta.ClusterResource, meta.ClusterName} }

// New makes an authorizer.
func New(cfg Config) (*Authorizer, error) {
	if cfg.Image == nil {
		return nil, errors.New("auth: Image must be set")
	}
	a := &Authorizer{cfg: cfg, supers: map[string]bool{}}
	for _, p := range cfg.SuperUsers {
		a.supers[p.String()] = true
	}
	return a, nil
}

// Decision is what a client may do, and why.
type Decision struct {
	Allowed bool
	// SuperUser tells that it is allowed because the client is a super user.
	SuperUser bool
	// By is the ACL that says so, which may have a role. If it is nil and the client is no super user, there is none: then all is denied, or
	// allowed if the authorizer allows it and Unruled tells that the resource has no ACLs at all.
	By      *meta.ACL
	Unruled bool
}

// Allows tells whether a client may do something with a resource.
func (a *Authorizer) Allows(c Client, op meta.Operation, r Resource) bool {
	return a.allowedOf(a.cfg.Image().ACLs(), &c, r, bitOf(op)) != 0
}

// AllowedOf returns those of some operations, one bit for each, that a client may do with a resource.
func (a *Authorizer) AllowedOf(c Client, r Resource, ops uint32) uint32 {
	return a.allowedOf(a.cfg.Image().ACLs(), &c, r, ops)
}

func (a *Authorizer) allowedOf(acls *meta.ACLs, c *Client, r Resource, ops uint32) uint32 {
	if a.IsSuper(c) {
		return ops
	}
	var few [8]*rules // those of most clients, without an allocation
	return a.judge(acls, a.appendRules(few[:0], acls, c), &query{r, c.host}, ops)
}

// appendRules appends the compiled rules of all principals that are about a client.
func (a *Authorizer) appendRules(list []*rules, acls *meta.ACLs, c *Client) []*rules {
	for principal := range c.principals() {
		if r := a.rulesOf(acls, principal); r != nil {
			list = append(list, r)
		}
	}
	return list
}

// judge returns those of some operations that the rules of a client, who is no super user, allow.
func (a *Authorizer) judge(acls *meta.ACLs, list []*rules, q *query, ops uint32) uint32 {
	var found verdict
	for _, r := range list {
		r.collect(q, &found)
	}
	if a.cfg.AllowUnruled && found == (verdict{}) && !a.isRuled(acls, q.Resource) {
		return ops
	}
	return ops & found.allowedOn(q.Resource)
}

// rulesOf returns the compiled rules of a principal; nil: it has none.
func (a *Authorizer) rulesOf(acls *meta.ACLs, principal string) *rules {
	grants := acls.Of(principal)
	if grants == nil {
		a.rules.Delete(principal)
		return nil
	}
	if known, ok := a.rules.Load(principal); ok {
		if r, _ := known.(*rules); r.of == grants {
			return r
		}
	}
	r := compileRules(grants)
	a.rules.Store(principal, r)
	return r
}

// AllowsAny tells whether a client may do something with at least one resource of a type that there could be. As in
// Kafka, operations that are implied by others do not count.
func (a *Authorizer) AllowsAny(c Client, op meta.Operation, t meta.ResourceType) bool {
	acls := a.cfg.Image().ACLs()
	if a.allowedOf(acls, &c, Resource{t, someName}, bitOf(op)) != 0 {
		return true
	}
	var denied, allowed []meta.ACL
	var list []granted
	for principal := range c.principals() {
		grants := acls.Of(principal)
		if grants == nil {
			continue
		}
		list = list[:0]
		for i := range grants.ACLs {
			if grants.ACLs[i].Operation == op || grants.ACLs[i].Operation == meta.AllOperations || grants.ACLs[i].Operation.IsRole() {
				list = appendGranted(list, &grants.ACLs[i])
			}
		}
		for _, acl := range list {
			if acl.Resource != t || acl.Operation != op && acl.Operation != meta.AllOperations || !matchesHost(&acl.ACL, c.host) {
				continue
			}
			if acl.Permission == meta.Deny {
				denied = append(denied, acl.ACL)
			} else {
				allowed = append(allowed, acl.ACL)
			}
		}
	}
	isDenied := newDenials(denied)
	return slices.ContainsFunc(allowed, func(acl meta.ACL) bool { return !isDenied.all && !isDenied.covers(&acl) })
}

// someName is a name that Kafka tries first, so that super users are allowed whatever is denied.
const someName = "hardcode"

// denials are ACLs that deny an operation on resources of one type.
type denials struct {
	all               bool // of any name
	literal, prefixed map[string]bool
}

func newDenials(acls []meta.ACL) *denials {
	d := &denials{literal: map[string]bool{}, prefixed: map[string]bool{}}
	for _, acl := range acls {
		switch {
		case acl.Pattern == meta.PrefixedPattern:
			d.prefixed[acl.Name] = true
		case acl.Name == meta.AnyName:
			d.all = true
		default:
			d.literal[acl.Name] = true
		}
	}
	return d
}

// covers tells whether all that an ACL allows is denied.
func (d *denials) covers(allowed *meta.ACL) bool {
	if allowed.Pattern == meta.LiteralPattern && allowed.Name == meta.AnyName {
		return false // a name can always be found that no other rule matches
	}
	if allowed.Pattern == meta.LiteralPattern && d.literal[allowed.Name] {
		return true
	}
	if len(d.prefixed) == 0 {
		return false
	}
	for n := 1; n <= len(allowed.Name); n++ {
		if d.prefixed[allowed.Name[:n]] {
			return true
		}
	}
	return false
}

// Explain decides as Allows does, and tells why. It looks at all ACLs.
func (a *Authorizer) Explain(c Client, op meta.Operation, r Resource) Decision {
	if a.IsSuper(&c) {
		return Decision{Allowed: true, SuperUser: true}
	}
	d := Decide(a.cfg.Image().ACLs().All(), c, op, r)
	d.Allowed = d.Allowed || d.Unruled && a.cfg.AllowUnruled
	return d
}

// Decide tells what ACLs say about a client that is no super user. It looks at all of them.
func Decide(acls iter.Seq[meta.ACL], c Client, op meta.Operation, r Resource) Decision {
	var by *meta.ACL
	unruled := true
	for acl := range acls {
		v, isAbout := judgeACL(&acl, r)
		if !isAbout {
			continue
		}
		unruled = false
		if !c.isNamedBy(acl.Principal) || !matchesHost(&acl, c.host) {
			continue
		}
		if v.deny&bitOf(op) != 0 {
			return Decision{By: &acl}
		}
		if by == nil && v.allowedOn(r)&bitOf(op) != 0 {
			by = &acl
		}
	}
	return Decision{Allowed: by != nil, By: by, Unruled: unruled}
}

// judgeACL is what an ACL says about a resource; isAbout is false if it is about others.
func judgeACL(acl *meta.ACL, r Resource) (v verdict, isAbout bool) {
	for _, one := range appendGranted(nil, acl) {
		if matchesResource(&one.ACL, r) {
			v.add(verdictOf(&one))
			isAbout = true
		}
	}
	return v, isAbout
}

func matchesResource(acl *meta.ACL, r Resource) bool {
	if acl.Resource != r.Type {
		return false
	}
	if acl.Pattern == meta.PrefixedPattern {
		return len(r.Name) >= len(acl.Name) && r.Name[:len(acl.Name)] == acl.Name
	}
	return acl.Name == r.Name || acl.Name == meta.AnyName
}

func matchesHost(acl *meta.ACL, host string) bool {
	return acl.Host == meta.AnyHost || canonicalHost(acl.Host) == host
}

// canonicalHost is a host in the only form that its address has here. Java writes IPv6 addresses without "::", and so
// do ACLs that are made for Kafka.
func canonicalHost(host string) string {
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	return addr.Unmap().String()
}

// ruledResources are the patterns of all ACLs of an image. They are only needed by authorizers that allow
// what has no ACLs.
type ruledResources struct {
	of       *meta.ACLs
	names    map[Resource]bool // of literal patterns
	prefixes map[Resource]bool
	longest  int // bytes of a prefix: names may be longer by far, since clients choose them
}

// isRuled tells whether a resource has ACLs, of whomever.
func (a *Authorizer) isRuled(acls *meta.ACLs, r Resource) bool {
	known := a.ruled.Load()
	if known == nil || known.of != acls {
		known = &ruledResources{of: acls, names: map[Resource]bool{}, prefixes: map[Resource]bool{}}
		var list []granted
		for acl := range acls.All() {
			list = appendGranted(list[:0], &acl)
			for _, one := range list {
				set := known.names
				if one.Pattern == meta.PrefixedPattern {
					set, known.longest = known.prefixes, max(known.longest, len(one.Name))
				}
				set[Resource{one.Resource, one.Name}] = true
			}
		}
		a.ruled.Store(known)
	}
	if known.names[r] || known.names[Resource{r.Type, meta.AnyName}] {
		return true
	}
	for n := 1; n <= min(len(r.Name), known.longest); n++ {
		if known.prefixes[Resource{r.Type, r.Name[:n]}] {
			return true
		}
	}
	return false
}

// String is a sentence that tells why.
func (d *Decision) String() string {
	switch {
	case d.SuperUser:
		return "allowed: it is a super user"
	case d.By != nil && d.Allowed:
		return fmt.Sprintf("allowed by %s", FormatACL(d.By))
	case d.By != nil:
		return fmt.Sprintf("denied by %s", FormatACL(d.By))
	case d.Allowed:
		return "allowed: the resource has no ACLs, and allow.everyone.if.no.acl.found is true"
	}
	return "denied: no ACL allows it"
}

// IsSuper tells whether a client is a super user.
func (a *Authorizer) IsSuper(c *Client) bool {
	return a.supers[c.principal] || slices.ContainsFunc(c.groups, func(g string) bool { return a.supers[g] })
}
