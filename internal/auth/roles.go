package auth

import (
	"slices"
	"strings"

	"github.com/leatstream/leat/internal/meta"
)

// A role is granted as an ACL is, with the role in place of an operation (meta.ReaderRole and the others). An ACL on topics with a role stands for
// the ACLs of all lines of the role's table: those on topics, groups and transactional ids have its pattern, and those on the cluster,
// users and tokens are there only if it is about all topics ("*"). An ACL on groups or transactional ids with a role stands for the lines about these
// alone.
//
// A role has two bounds that ACLs do not have. It gives only a part of an operation where the whole would give more than the role
// should (see parts). And a role whose pattern does not begin with the two underlines of reserved topics lets nobody do more to
// such a topic than describe it, so that a role for all topics gives neither the offsets of groups nor the audit log.

// RoleLine is one line of a role's table: operations on resources of a type.
type RoleLine struct {
	Resource   meta.ResourceType
	Operations []meta.Operation
	// OnlyAll tells that the line counts only in a role for all topics. Otherwise it is about what the role's pattern matches.
	OnlyAll bool
}

// Role is one role.
type Role struct {
	Operation meta.Operation // by which ACLs name it
	Name      string
	Summary   string
	Lines     []RoleLine
}

// Roles are all roles, the one that may do the least first. docs/security.md has the same table.
//
// A writer needs no IDEMPOTENT_WRITE on the cluster: since KIP-679 WRITE on any topic is enough for a producer id.
func Roles() []Role { return slices.Clone(roleTable) }

// roleTable has the roles in the order of the operations that name them. It never changes.
var roleTable = makeRoles()

func makeRoles() []Role {
	const topic, group, txn, cluster = meta.TopicResource, meta.GroupResource, meta.TransactionalIDResource, meta.ClusterResource
	of := func(on meta.ResourceType, ops ...meta.Operation) RoleLine {
		return RoleLine{Resource: on, Operations: ops}
	}
	onlyAll := func(on meta.ResourceType, ops ...meta.Operation) RoleLine {
		return RoleLine{Resource: on, Operations: ops, OnlyAll: true}
	}
	return []Role{
		{meta.ReaderRole, "reader", "reads records, in groups and without", []RoleLine{
			of(topic, meta.Read, meta.Describe),
			of(group, meta.Read, meta.Describe),
		}},
		{meta.WriterRole, "writer", "writes records, also in transactions", []RoleLine{
			of(topic, meta.Write, meta.Describe),
			of(txn, meta.Write, meta.Describe),
		}},
		{meta.OperatorRole, "operator", "keeps the cluster running, without seeing records or giving rights", []RoleLine{
			of(topic, meta.Describe, meta.DescribeConfigs, meta.AlterConfigs, CommitOffsets, DescribeProducers),
			of(group, meta.Read, meta.Describe, meta.DescribeConfigs, meta.AlterConfigs),
			of(txn, meta.Describe),
			onlyAll(cluster, meta.Describe, meta.DescribeConfigs, Reassign, AlterQuotas),
		}},
		{meta.AdminRole, "admin", "does everything with its topics; for all topics, also with users and what they may do", []RoleLine{
			of(topic, meta.AllOperations),
			of(group, meta.AllOperations),
			of(txn, meta.AllOperations),
			onlyAll(cluster, meta.Create, meta.Alter, meta.Describe, meta.DescribeConfigs, meta.AlterConfigs, meta.IdempotentWrite),
			onlyAll(meta.UserResource, meta.AllOperations),
			onlyAll(meta.DelegationTokenResource, meta.AllOperations),
		}},
	}
}

// These are parts of Kafka's operations. Who may do the whole may do its parts, and who is denied the whole is denied its parts. Only a
// role gives a part alone. Their numbers are behind those that Kafka uses, and are in no record.
const (
	CommitOffsets     meta.Operation = 24 // of READ on a topic: set the offsets of groups in it
	DescribeProducers meta.Operation = 25 // of READ on a topic: see who writes to it
	Reassign          meta.Operation = 26 // of ALTER on the cluster: move replicas, and elect leaders
	AlterQuotas       meta.Operation = 27 // of ALTER_CONFIGS on the cluster: set quotas
)

// partNames are the names of the parts.
var partNames = [...]string{"COMMIT_OFFSETS", "DESCRIBE_PRODUCERS", "REASSIGN", "ALTER_QUOTAS"}

// PartOf is the operation of Kafka that an operation is a part of; ok is false if it is a whole one.
func PartOf(op meta.Operation) (whole meta.Operation, ok bool) {
	switch op {
	case CommitOffsets, DescribeProducers:
		return meta.Read, true
	case Reassign:
		return meta.Alter, true
	case AlterQuotas:
		return meta.AlterConfigs, true
	default:
		return op, false
	}
}

// partBits are the parts of an operation.
func partBits(op meta.Operation) uint32 {
	switch op {
	case meta.Read:
		return bitOf(CommitOffsets) | bitOf(DescribeProducers)
	case meta.Alter:
		return bitOf(Reassign)
	case meta.AlterConfigs:
		return bitOf(AlterQuotas)
	default:
		return 0
	}
}

// FindRole finds a role by the operation that names it.
func FindRole(op meta.Operation) (r Role, ok bool) {
	if !op.IsRole() {
		return Role{}, false
	}
	return roleTable[op-meta.ReaderRole], true
}

// ParseRole finds a role by its name; case does not matter.
func ParseRole(name string) (r Role, ok bool) {
	i := slices.IndexFunc(roleTable, func(r Role) bool { return strings.EqualFold(r.Name, name) })
	if i < 0 {
		return Role{}, false
	}
	return roleTable[i], true
}

// CanBeOn tells whether an ACL with the role may be about resources of a type.
func (r *Role) CanBeOn(t meta.ResourceType) bool {
	return slices.ContainsFunc(r.Lines, func(l RoleLine) bool { return l.Resource == t && !l.OnlyAll })
}

// granted is an ACL, or one of those that a role stands for.
type granted struct {
	meta.ACL

	isGuarded bool // on a reserved topic it gives guardedBits at most
}

// reservedPrefix begins the names of topics that the program itself keeps.
const reservedPrefix = "__"

// guardedBits are what a role gives on reserved topics, unless it is a role for these.
const guardedBits = 1<<meta.Describe | 1<<meta.DescribeConfigs

// appendGranted appends what an ACL stands for: itself, or the ACLs of its role.
func appendGranted(list []granted, a *meta.ACL) []granted {
	role, isRole := FindRole(a.Operation)
	if !isRole {
		return append(list, granted{ACL: *a})
	}
	isForAll := a.Resource == meta.TopicResource && a.Pattern == meta.LiteralPattern && a.Name == meta.AnyName
	for _, line := range role.Lines {
		one := *a
		one.Resource = line.Resource
		switch {
		case line.OnlyAll && !isForAll, a.Resource != meta.TopicResource && a.Resource != line.Resource:
			continue
		case line.Resource == meta.ClusterResource:
			one.Name = meta.ClusterName
		}
		isGuarded := line.Resource == meta.TopicResource && !strings.HasPrefix(a.Name, reservedPrefix)
		for _, op := range line.Operations {
			one.Operation = op
			list = append(list, granted{one, isGuarded})
		}
	}
	return list
}

// RoleACLs are the ACLs that an ACL with a role stands for, in the order of the role's table. Their operations may be parts.
func RoleACLs(a *meta.ACL) (acls []meta.ACL) {
	for _, g := range appendGranted(nil, a) {
		acls = append(acls, g.ACL)
	}
	return acls
}
