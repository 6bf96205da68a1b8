package auth

import (
	"strings"

	"github.com/leatstream/leat/internal/meta"
)

// Filter chooses ACLs, as Kafka's filters do. A nil text fits all, and so does each number of "any".
type Filter struct {
	Resource   meta.ResourceType
	Name       *string
	Pattern    meta.PatternType
	Principal  *string
	Host       *string
	Operation  meta.Operation
	Permission meta.Permission
}

// Everything chooses all ACLs without a role.
func Everything() Filter {
	return Filter{Resource: meta.AnyResource, Pattern: meta.AnyPattern, Operation: meta.AnyOperation, Permission: meta.AnyPermission}
}

// AllRoles chooses all ACLs with a role.
func AllRoles() Filter {
	f := Everything()
	f.Operation = meta.AnyRole
	return f
}

// Matches tells whether the filter chooses an ACL.
func (f *Filter) Matches(a *meta.ACL) bool {
	switch {
	case f.Resource != meta.AnyResource && f.Resource != a.Resource,
		f.Pattern != meta.AnyPattern && f.Pattern != meta.MatchPattern && f.Pattern != a.Pattern,
		f.Principal != nil && *f.Principal != a.Principal,
		f.Host != nil && *f.Host != a.Host,
		!f.matchesOperation(a.Operation),
		f.Permission != meta.AnyPermission && f.Permission != a.Permission:
		return false
	case f.Name == nil:
		return true
	case f.Pattern != meta.MatchPattern:
		return *f.Name == a.Name
	case a.Pattern == meta.PrefixedPattern:
		return strings.HasPrefix(*f.Name, a.Name)
	}
	return *f.Name == a.Name || a.Name == meta.AnyName
}

// matchesOperation tells whether the filter's operation fits one of an ACL. Any operation is none of the roles.
func (f *Filter) matchesOperation(op meta.Operation) bool {
	switch f.Operation {
	case meta.AnyOperation:
		return !op.IsRole()
	case meta.AnyRole:
		return op.IsRole()
	default:
		return f.Operation == op
	}
}

// Choose lists the ACLs that a filter chooses.
func (f *Filter) Choose(acls *meta.ACLs) (chosen []meta.ACL) {
	if f.Principal != nil { // the others need not be looked at
		if g := acls.Of(*f.Principal); g != nil {
			for i := range g.ACLs {
				if f.Matches(&g.ACLs[i]) {
					chosen = append(chosen, g.ACLs[i])
				}
			}
		}
		return chosen
	}
	for a := range acls.All() {
		if f.Matches(&a) {
			chosen = append(chosen, a)
		}
	}
	return chosen
}

// IsKnown tells whether all numbers of the filter are known.
func (f *Filter) IsKnown() bool {
	return f.Resource >= meta.AnyResource && f.Resource <= meta.UserResource && f.Pattern >= meta.AnyPattern && f.Pattern <= meta.PrefixedPattern &&
		(f.Operation >= meta.AnyOperation && f.Operation <= meta.TwoPhaseCommit || f.Operation == meta.AnyRole || f.Operation.IsRole()) && f.Permission >= meta.AnyPermission && f.Permission <= meta.Allow
}
