package meta

import (
	"cmp"
	"iter"
	"slices"
	"strings"
)

// The numbers of the following types are Kafka's, in its protocol and in records.

// ResourceType is the kind of a resource that ACLs are about.
type ResourceType int8

// The kinds of resources. AnyResource is for filters only.
const (
	AnyResource             ResourceType = 1
	TopicResource           ResourceType = 2
	GroupResource           ResourceType = 3
	ClusterResource         ResourceType = 4
	TransactionalIDResource ResourceType = 5
	DelegationTokenResource ResourceType = 6
	UserResource            ResourceType = 7
)

// PatternType says which resources the name of an ACL stands for.
type PatternType int8

// The types of patterns. AnyPattern and MatchPattern are for filters only.
const (
	AnyPattern      PatternType = 1
	MatchPattern    PatternType = 2 // all that a resource of the name matches
	LiteralPattern  PatternType = 3 // the resource of that name; AnyName stands for all
	PrefixedPattern PatternType = 4 // the resources whose names begin with it
)

// Operation is what a client does with a resource.
type Operation int8

// The operations. AnyOperation is for filters only.
const (
	AnyOperation    Operation = 1
	AllOperations   Operation = 2
	Read            Operation = 3
	Write           Operation = 4
	Create          Operation = 5
	DeleteOperation Operation = 6
	Alter           Operation = 7
	Describe        Operation = 8
	ClusterAction   Operation = 9
	DescribeConfigs Operation = 10
	AlterConfigs    Operation = 11
	IdempotentWrite Operation = 12
	CreateTokens    Operation = 13
	DescribeTokens  Operation = 14
	TwoPhaseCommit  Operation = 15
)

// The roles. As AllOperations stands for all operations, a role stands for several of them: those that package auth lists, on the resources that
// its pattern matches and on those that go with them. Kafka has no roles, and no operations with these numbers. An ACL with a role needs
// LevelIdentity. AnyRole is for filters only, and AnyOperation does not choose roles: Kafka's clients cannot read them.
const (
	AnyRole      Operation = 100
	ReaderRole   Operation = 101
	WriterRole   Operation = 102
	OperatorRole Operation = 103
	AdminRole    Operation = 104
)

// IsRole tells whether an operation is a role.
func (op Operation) IsRole() bool { return op >= ReaderRole && op <= AdminRole }

// Permission says whether an ACL allows or denies.
type Permission int8

// The permissions. AnyPermission is for filters only.
const (
	AnyPermission Permission = 1
	Deny          Permission = 2
	Allow         Permission = 3
)

// These stand for all in ACLs.
const (
	AnyName      = "*"      // as the name of a literal pattern: every resource of the type
	AnyHost      = "*"      // every address
	AnyPrincipal = "User:*" // every user
	ClusterName  = "kafka-cluster"
)

// ACL allows or denies a principal an operation on some resources. An equal one is the same one.
type ACL struct {
	Principal  string // "User:alice"
	Host       string // the address that the client has; AnyHost: any
	Resource   ResourceType
	Pattern    PatternType
	Name       string
	Operation  Operation
	Permission Permission
}

// IsComplete tells whether all fields have values that an ACL, and not only a filter, may have.
func (a *ACL) IsComplete() bool {
	hasOperation := a.Operation >= AllOperations && a.Operation <= TwoPhaseCommit || a.Operation.IsRole() && a.Permission == Allow
	return a.Resource >= TopicResource && a.Resource <= UserResource && (a.Pattern == LiteralPattern || a.Pattern == PrefixedPattern) &&
		a.Name != "" && a.Host != "" && strings.Contains(a.Principal, ":") && hasOperation && (a.Permission == Deny || a.Permission == Allow)
}

// leastLevel is the level from which on the ACL may be written.
func (a *ACL) leastLevel() int16 {
	if a.Operation.IsRole() {
		return LevelIdentity
	}
	return LevelSecurity
}

// compareACLs orders the ACLs of one principal.
func compareACLs(a, b ACL) int {
	return cmp.Or(
		cmp.Compare(a.Resource, b.Resource), strings.Compare(a.Name, b.Name), cmp.Compare(a.Pattern, b.Pattern),
		cmp.Compare(a.Operation, b.Operation), cmp.Compare(a.Permission, b.Permission), strings.Compare(a.Host, b.Host),
	)
}

// aclShards is how many maps the principals with ACLs are spread over; a power of two.
const aclShards = 64

// ACLs are all ACLs of an image, by their principals. They never change, so that an equal pointer means equal ACLs.
type ACLs struct {
	byPrincipal [aclShards]map[string]*Grants
	n, bytes    int
	roles       int // how many of them have a role as their operation
}

// aclCost is about how much memory an ACL takes besides its texts.
const aclCost = 128

// ACLBytes is about how much memory an ACL takes.
func ACLBytes(a *ACL) int { return aclCost + len(a.Principal) + len(a.Host) + len(a.Name) }

// Grants are the ACLs of one principal, in order, at least one. They never change, so that an equal pointer means
// equal ACLs.
type Grants struct{ ACLs []ACL }

// Len counts the ACLs.
func (l *ACLs) Len() int {
	if l == nil {
		return 0
	}
	return l.n
}

// Roles counts the ACLs whose operation is a role.
func (l *ACLs) Roles() int {
	if l == nil {
		return 0
	}
	return l.roles
}

// Bytes is about how much memory the ACLs take.
func (l *ACLs) Bytes() int {
	if l == nil {
		return 0
	}
	return l.bytes
}

// Of returns the ACLs of a principal; nil: it has none.
func (l *ACLs) Of(principal string) *Grants {
	if l == nil {
		return nil
	}
	return l.byPrincipal[shardOfPrincipal(principal)][principal]
}

// Has tells whether there is this ACL.
func (l *ACLs) Has(a ACL) bool {
	g := l.Of(a.Principal)
	if g == nil {
		return false
	}
	_, found := slices.BinarySearchFunc(g.ACLs, a, compareACLs)
	return found
}

// All iterates over all ACLs. Those of a principal are in order, and the principals in none.
func (l *ACLs) All() iter.Seq[ACL] {
	return func(yield func(ACL) bool) {
		if l == nil {
			return
		}
		for _, shard := range l.byPrincipal {
			for _, g := range shard {
				for _, a := range g.ACLs {
					if !yield(a) {
						return
					}
				}
			}
		}
	}
}

// sorted lists all ACLs in an order that depends only on what they are.
func (l *ACLs) sorted() []ACL {
	return slices.SortedFunc(l.All(), func(a, b ACL) int {
		return cmp.Or(strings.Compare(a.Principal, b.Principal), compareACLs(a, b))
	})
}

func shardOfPrincipal(principal string) int { return shardOfName(principal) % aclShards }
