package controller

import (
	"context"
	"strings"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/meta"
)

// Limits of the ACLs that a cluster keeps.
const (
	maxACLBytes        = 64 << 20 // of all, as meta.ACLs counts them
	maxACLText         = 1 << 10  // bytes of a principal, and of a host
	maxACLsOfCommand   = MostDeletedACLs
	tooManyToDelete    = "Cannot remove more than 10000 acls in a single delete operation."
	tooManyToCreate    = "Unable to perform excessively large batch operation."
	maxRoles           = 20_000 // ACLs with a role
	rolesNeedLevelText = "Roles need level 6 of leat.metadata: when all nodes run this version, raise it with leat cluster finalize."
	aclsNeedLevelText  = "ACLs and users need level 3 of leat.metadata: when all nodes run this version, raise it with leat cluster finalize."
)

// MostDeletedACLs is how many ACLs one command deletes at most, counted for each filter that chooses them. It is Kafka's bound.
const MostDeletedACLs = 10_000

// CreateACLs creates ACLs. The errors are in the order of the request; nil means that there is such an ACL now.
func (c *Controller) CreateACLs(ctx context.Context, acls []meta.ACL) (results []*Error, err error) {
	_, err = c.runParts(ctx, ofClients, func(r *Rules) (d Part, _ *Error) {
		d.Records, results = createACLs(r.Image, acls)
		return d, nil
	})
	return results, err
}

// createACLs decides which ACLs to create.
func createACLs(m *meta.Image, acls []meta.ACL) (records []byte, results []*Error) {
	results = make([]*Error, len(acls))
	old := m.ACLs()
	seen, made := map[meta.ACL]bool{}, 0
	bytes, roles := old.Bytes(), old.Roles()
	for i := range acls {
		a := &acls[i]
		if results[i] = checkACL(m, a); results[i] != nil {
			continue
		}
		if seen[*a] {
			continue
		}
		seen[*a] = true
		if old.Has(*a) {
			records = claimACL(records, m, *a)
			continue
		}
		if bytes += meta.ACLBytes(a); bytes > maxACLBytes {
			results[i] = refuse(PolicyViolation, "All ACLs of the cluster together take at most %d MiB: remove those that are not used, or use prefixed ones.", maxACLBytes>>20)
			bytes -= meta.ACLBytes(a)
			continue
		}
		if a.Operation.IsRole() {
			if roles == maxRoles {
				results[i] = refuse(PolicyViolation, "A cluster has at most %d granted roles: revoke those that are not used, or grant roles by prefixes.", maxRoles)
				bytes -= meta.ACLBytes(a)
				continue
			}
			roles++
		}
		made++
		records = meta.Append(claimACL(records, m, *a), meta.ACLSet{ACL: *a})
	}
	if made > maxACLsOfCommand {
		for i := range results {
			results[i] = refuse(PolicyViolation, tooManyToCreate)
		}
		return nil, results
	}
	return records, results
}

// checkACL refuses an ACL that cannot be created.
func checkACL(m *meta.Image, a *meta.ACL) *Error {
	switch {
	case a.Resource == meta.ClusterResource && a.Name != meta.ClusterName:
		return refuse(InvalidRequest, "The only valid name for the CLUSTER resource is %s", meta.ClusterName)
	case a.Name == "":
		return refuse(InvalidRequest, "Invalid empty resource name")
	case a.Resource < meta.TopicResource || a.Resource > meta.UserResource:
		return refuse(InvalidRequest, "Invalid resourceType %s", auth.ResourceName(a.Resource))
	case a.Pattern != meta.LiteralPattern && a.Pattern != meta.PrefixedPattern:
		return refuse(InvalidRequest, "Invalid patternType %s", auth.PatternName(a.Pattern))
	case !a.Operation.IsRole() && (a.Operation < meta.AllOperations || a.Operation > meta.TwoPhaseCommit):
		return refuse(InvalidRequest, "Invalid operation %s", auth.OperationName(a.Operation))
	case a.Permission != meta.Deny && a.Permission != meta.Allow:
		return refuse(InvalidRequest, "Invalid permissionType %s", auth.PermissionName(a.Permission))
	case !strings.Contains(a.Principal, ":"):
		return refuse(InvalidRequest, "Could not parse principal from `%s` (no colon is present separating the principal type from the principal name)", a.Principal)
	case a.Host == "":
		return refuse(InvalidRequest, "An ACL needs a host; * stands for all.")
	case len(a.Principal) > maxACLText || len(a.Host) > maxACLText || len(a.Name) > maxResourceName:
		return refuse(InvalidRequest, "A principal and a host have at most %d bytes, and a name %d.", maxACLText, maxResourceName)
	case m.Level() < meta.LevelSecurity:
		return refuse(UnsupportedFeature, aclsNeedLevelText)
	}
	return checkRole(m, a)
}

// checkRole refuses an ACL with a role that nobody could have.
func checkRole(m *meta.Image, a *meta.ACL) *Error {
	role, isRole := auth.FindRole(a.Operation)
	p, err := auth.ParsePrincipal(a.Principal)
	switch {
	case !isRole:
	case a.Permission != meta.Allow:
		return refuse(InvalidRequest, "A role only allows: deny single operations by ACLs, which come before all roles.")
	case err != nil || p.Type != auth.GroupType && p.Type != auth.UserType:
		return refuse(InvalidRequest, "A role is granted to User:NAME, or to Group:NAME for all users in a group.")
	case p.Type == auth.GroupType && p.Name == meta.AnyName:
		return refuse(InvalidRequest, "No group stands for all: grant the role to User:*.")
	case !role.CanBeOn(a.Resource):
		return refuse(InvalidRequest, "The role %s has nothing to do with a %s by its name: grant it on topics.", role.Name, strings.ToLower(auth.ResourceName(a.Resource)))
	case m.Level() < meta.LevelIdentity:
		return refuse(UnsupportedFeature, rolesNeedLevelText)
	}
	return nil
}

// DeletedACLs are the ACLs that one filter has chosen, and that are deleted now.
type DeletedACLs struct {
	ACLs []meta.ACL
	Err  *Error // nil: they are
}

// DeleteACLs deletes all ACLs that one of the filters chooses. The results are in the order of the filters.
func (c *Controller) DeleteACLs(ctx context.Context, filters []auth.Filter) (results []DeletedACLs, err error) {
	_, err = c.runParts(ctx, ofClients, func(r *Rules) (d Part, _ *Error) {
		d.Records, results = deleteACLs(r.Image, filters)
		return d, nil
	})
	return results, err
}

// deleteACLs decides which ACLs to delete.
func deleteACLs(m *meta.Image, filters []auth.Filter) (records []byte, results []DeletedACLs) {
	results = make([]DeletedACLs, len(filters))
	gone := map[meta.ACL]struct{}{}
	chosen := 0
	for i := range filters {
		f := &filters[i]
		if !f.IsKnown() {
			results[i].Err = refuse(InvalidRequest, "Unknown filter.")
			continue
		}
		results[i].ACLs = f.Choose(m.ACLs())
		for _, a := range results[i].ACLs {
			if _, again := gone[a]; !again {
				gone[a] = struct{}{}
				records = meta.Append(records, meta.ACLUnset{ACL: a})
			}
		}
		if chosen += len(results[i].ACLs); chosen > maxACLsOfCommand {
			for i := range results {
				results[i] = DeletedACLs{Err: refuse(InvalidRequest, tooManyToDelete)}
			}
			return nil, results
		}
	}
	return records, results
}
