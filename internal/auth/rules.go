package auth

import (
	"cmp"
	"slices"
	"strings"

	"github.com/leatstream/leat/internal/meta"
)

// verdict are operations that were found to be allowed and denied, one bit for each. Those of guarded are allowed, too, but on reserved
// topics only if they are among guardedBits.
type verdict struct{ allow, guarded, deny uint32 }

func (v *verdict) add(o verdict) {
	v.allow |= o.allow
	v.guarded |= o.guarded
	v.deny |= o.deny
}

// allowedOn are the operations that may be done with a resource.
func (v *verdict) allowedOn(r Resource) uint32 {
	guarded := v.guarded
	if r.Type == meta.TopicResource && strings.HasPrefix(r.Name, reservedPrefix) {
		guarded &= guardedBits
	}
	return (v.allow | guarded) &^ v.deny
}

// verdictOf is what one ACL says about the resources that it matches.
func verdictOf(g *granted) verdict {
	switch bits := operationBits(&g.ACL); {
	case g.Permission == meta.Deny:
		return verdict{deny: bits}
	case g.isGuarded:
		return verdict{guarded: bits}
	default:
		return verdict{allow: bits}
	}
}

// bitOf is the bit of an operation, as in Kafka's fields of authorised operations.
func bitOf(op meta.Operation) uint32 { return 1 << op }

// allBits are all operations, and their parts.
const allBits = 1<<(meta.TwoPhaseCommit+1) - 1 | 1<<CommitOffsets | 1<<DescribeProducers | 1<<Reassign | 1<<AlterQuotas

// operationBits are the operations that an ACL matches, with their parts. One that allows implies others; one that denies does not.
func operationBits(acl *meta.ACL) uint32 {
	switch op := acl.Operation; {
	case op == meta.AllOperations:
		return allBits
	case acl.Permission == meta.Deny:
		return bitOf(op) | partBits(op)
	case op == meta.Read, op == meta.Write, op == meta.DeleteOperation, op == meta.Alter:
		return bitOf(op) | partBits(op) | bitOf(meta.Describe)
	case op == meta.AlterConfigs:
		return bitOf(op) | partBits(op) | bitOf(meta.DescribeConfigs)
	default:
		return bitOf(op)
	}
}

// query is a question to rules.
type query struct {
	Resource

	host string // canonical
}

// rules are the ACLs of one principal, and those that its roles stand for, in the form in which they are looked up. They never change.
type rules struct {
	of    *meta.Grants
	types []typeRules // in the order of their types; types without rules are missing
}

// typeRules are the rules about the resources of one type.
type typeRules struct {
	about    meta.ResourceType
	all      *rule            // of the literal pattern "*"; nil: there is none
	names    map[string]*rule // of the other literal patterns
	prefixes prefixes
}

// rule is all ACLs of a principal with one pattern.
type rule struct {
	anyHost verdict
	hosts   map[string]verdict // by canonical host
}

// prefixes are the prefixed patterns of one type, in the order of their names.
//
// All that are prefixes of a name are found from one of them on: the last one that is not behind the name. Whatever is
// between a prefix of a name and the name begins with that prefix, too. So each knows the longest other one that is a prefix
// of its own name, and the way along these passes all that are prefixes of the name, the longest first.
type prefixes []prefix

type prefix struct {
	name   string
	parent int32 // the index of the longest other one that is a prefix of this one; -1: none is
	rule
}

func compileRules(grants *meta.Grants) *rules {
	r := &rules{of: grants}
	for _, g := range inOrder(grants) {
		if n := len(r.types); n == 0 || r.types[n-1].about != g.Resource {
			r.types = append(r.types, typeRules{about: g.Resource})
		}
		r.types[len(r.types)-1].addACL(&g)
	}
	r.types = slices.Clip(r.types)
	for i := range r.types {
		r.types[i].prefixes = slices.Clip(r.types[i].prefixes)
	}
	return r
}

// addACL adds an ACL, whose name is not before those of the ACLs that were added.
func (t *typeRules) addACL(g *granted) {
	switch {
	case g.Pattern == meta.PrefixedPattern:
		if n := len(t.prefixes); n == 0 || t.prefixes[n-1].name != g.Name {
			t.prefixes = append(t.prefixes, prefix{name: g.Name, parent: t.prefixes.findPrefix(g.Name)})
		}
		t.prefixes[len(t.prefixes)-1].addACL(g)
	case g.Name == meta.AnyName:
		if t.all == nil {
			t.all = &rule{}
		}
		t.all.addACL(g)
	default:
		if t.names == nil {
			t.names = map[string]*rule{}
		}
		if t.names[g.Name] == nil {
			t.names[g.Name] = &rule{}
		}
		t.names[g.Name].addACL(g)
	}
}

// inOrder lists what the ACLs of a principal stand for, in the order of types and names.
func inOrder(grants *meta.Grants) []granted {
	list := make([]granted, 0, len(grants.ACLs))
	for i := range grants.ACLs {
		list = appendGranted(list, &grants.ACLs[i])
	}
	if len(list) > len(grants.ACLs) { // there are roles, whose ACLs are of several types
		slices.SortStableFunc(list, func(a, b granted) int {
			return cmp.Or(cmp.Compare(a.Resource, b.Resource), strings.Compare(a.Name, b.Name))
		})
	}
	return list
}

func (r *rule) addACL(acl *granted) {
	v := verdictOf(acl)
	if acl.Host == meta.AnyHost {
		r.anyHost.add(v)
		return
	}
	if r.hosts == nil {
		r.hosts = map[string]verdict{}
	}
	host := canonicalHost(acl.Host)
	v.add(r.hosts[host])
	r.hosts[host] = v
}

func (r *rule) collect(host string, found *verdict) {
	found.add(r.anyHost)
	if r.hosts != nil {
		found.add(r.hosts[host])
	}
}

// collect adds what the rules say about a resource.
func (r *rules) collect(q *query, found *verdict) {
	for i := range r.types {
		t := &r.types[i]
		if t.about != q.Type {
			continue
		}
		if one := t.names[q.Name]; one != nil {
			one.collect(q.host, found)
		}
		if t.all != nil {
			t.all.collect(q.host, found)
		}
		for i := t.prefixes.findPrefix(q.Name); i >= 0; i = t.prefixes[i].parent {
			t.prefixes[i].collect(q.host, found)
		}
		return
	}
}

// findPrefix returns the index of the longest one that is a prefix of a name, or is the name; -1: none is. The search is written out, since
// slices.BinarySearchFunc takes twice as long (BenchmarkAuthorizer).
func (l prefixes) findPrefix(name string) int32 {
	low, high := 0, len(l) // those before low are not behind the name, and those from high on are
	for low < high {
		if middle := int(uint(low+high) >> 1); l[middle].name <= name {
			low = middle + 1
		} else {
			high = middle
		}
	}
	i := int32(low - 1)
	for i >= 0 && !strings.HasPrefix(name, l[i].name) {
		i = l[i].parent
	}
	return i
}
