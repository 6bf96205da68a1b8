package node

import (
	"fmt"
	"strings"

	"github.com/leatstream/leat/internal/audit"
	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror"
)

// recordAccess records what a link has done with an ACL or a quota to follow its source.
func recordAccess(n *Node, c *mirror.AccessChange) {
	if n.audit == nil {
		return
	}
	e := audit.Event{API: "FollowSource", Result: audit.Allowed}
	if c.Refused != nil {
		e.Result, e.Reason = audit.Failed, c.Refused.Message
	}
	if c.ACL != nil {
		describeACL(&e, c.ACL.Action, &c.ACL.ACL)
	} else {
		describeQuota(&e, c.Quota)
	}
	e.Details = append(e.Details, audit.Detail{Key: "link", Value: c.Link})
	n.audit.Record(e)
}

// describeACL describes an ACL as the requests of clients do.
func describeACL(e *audit.Event, action controller.AccessAction, a *meta.ACL) {
	isMade := action == controller.AddAccess
	e.ResourceType, e.Resource = strings.ToLower(auth.ResourceName(a.Resource)), a.Name
	add := func(key, value string) { e.Details = append(e.Details, audit.Detail{Key: key, Value: value}) }
	add("principal", a.Principal)
	role, isRole := auth.FindRole(a.Operation)
	switch {
	case isRole && isMade:
		e.Type = audit.RoleGranted
	case isRole:
		e.Type = audit.RoleRevoked
	case isMade:
		e.Type = audit.ACLCreated
	default:
		e.Type = audit.ACLDeleted
	}
	if isRole {
		add("role", role.Name)
	} else {
		add("operation", auth.OperationName(a.Operation))
		add("permission", auth.PermissionName(a.Permission))
	}
	add("host", a.Host)
	add("pattern", auth.PatternName(a.Pattern))
}

// describeQuota describes a quota as the requests of clients do.
func describeQuota(e *audit.Event, q *controller.LinkQuota) {
	var entity []string
	for _, part := range []struct {
		kind string
		name meta.QuotaName
	}{{controller.QuotaUser, q.Quota.Entity.User}, {controller.QuotaClientID, q.Quota.Entity.ClientID}} {
		switch {
		case part.name.Is && part.name.Name == "":
			entity = append(entity, part.kind+" (default)")
		case part.name.Is:
			entity = append(entity, part.kind+" "+part.name.Name)
		}
	}
	value := "(unset)"
	if q.Action == controller.AddAccess {
		value = fmt.Sprint(q.Value)
	}
	e.Type, e.ResourceType, e.Resource, e.Details = audit.QuotaChanged, "quota", strings.Join(entity, ", "), []audit.Detail{{Key: string(q.Quota.Key), Value: value}}
}
