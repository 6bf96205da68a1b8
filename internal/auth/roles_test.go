package auth

import (
	"flag"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/leatstream/leat/internal/meta"
)

const securityPage = "../../docs/security.md"

var writeRoles = flag.Bool("write", false, "write the table of roles into docs/security.md")

// TestRolesAreDocumented proves that docs/security.md has the table of roles. With -write it writes the table there.
func TestRolesAreDocumented(t *testing.T) {
	var table strings.Builder
	for _, r := range Roles() {
		for _, l := range r.Lines {
			names := "those that the role is granted for"
			if l.OnlyAll {
				names = "all, if the role is granted for all topics (`*`)"
			}
			var ops []string
			for _, op := range l.Operations {
				text := OperationName(op)
				if whole, ok := PartOf(op); ok {
					text += " (a part of " + OperationName(whole) + ")"
				}
				ops = append(ops, text)
			}
			fmt.Fprintf(&table, "| %s | %s | %s | %s |\n", r.Name, strings.ToLower(ResourceName(l.Resource)), names, strings.Join(ops, ", "))
		}
	}
	page, err := os.ReadFile(securityPage)
	if err != nil {
		t.Fatal(err)
	}
	const head, end = "| role | resources | names | operations |\n|---|---|---|---|\n", "\n\n<!-- end of the table of roles -->"
	before, rest, ok := strings.Cut(string(page), head)
	_, after, found := strings.Cut(rest, end)
	if !ok || !found {
		t.Fatal("the page has no place for the table")
	}
	want := before + head + strings.TrimSuffix(table.String(), "\n") + end + after
	if *writeRoles {
		if err := os.WriteFile(securityPage, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if d := cmp.Diff(string(page), want); d != "" {
		t.Errorf("run: go test ./internal/auth -run TestRolesAreDocumented -write\n%s", d)
	}
}

// TestRolesHaveTheirOperations proves that the roles are found by their names and by the operations that ACLs name them by, which are all of
// those that there are.
func TestRolesHaveTheirOperations(t *testing.T) {
	n := 0
	for op := meta.Operation(0); op >= 0 && op < 127; op++ {
		r, ok := FindRole(op)
		if ok != op.IsRole() {
			t.Errorf("operation %d is a role: %v, and has one: %v", op, op.IsRole(), ok)
		}
		if !ok {
			continue
		}
		n++
		if again, ok := ParseRole(strings.ToUpper(r.Name)); !ok || r.Operation != op || again.Operation != op || OperationName(op) != strings.ToUpper(r.Name) {
			t.Errorf("operation %d has the role %+v", op, r)
		}
	}
	if n != len(Roles()) {
		t.Errorf("%d of %d roles are found", n, len(Roles()))
	}
	for _, op := range []meta.Operation{CommitOffsets, DescribeProducers, Reassign, AlterQuotas} {
		if _, isPart := PartOf(op); !isPart || op <= meta.TwoPhaseCommit || OperationName(op) == "UNKNOWN" || allBits&bitOf(op) == 0 {
			t.Errorf("operation %d is no part", op)
		}
		if _, ok := ParseOperation(OperationName(op)); ok {
			t.Errorf("an ACL can have the operation %s", OperationName(op))
		}
	}
	if _, ok := ParseOperation("reader"); ok {
		t.Error("an ACL is granted with a role's name for an operation")
	}
}

// whole are operations as the parts of Kafka's: what an ACL with the operation decides, and nothing else does.
func whole(op meta.Operation) meta.Operation {
	w, _ := PartOf(op)
	return w
}

// standsFor are the ACLs that a role stands for, by what its documentation says, without the package's own table.
func standsFor(a meta.ACL) iter.Seq[meta.ACL] {
	const topic, group, txn, cluster = meta.TopicResource, meta.GroupResource, meta.TransactionalIDResource, meta.ClusterResource
	type line struct {
		on  meta.ResourceType
		ops []meta.Operation
	}
	all := []meta.Operation{meta.AllOperations}
	own := map[meta.Operation][]line{
		meta.ReaderRole: {{topic, []meta.Operation{meta.Read}}, {group, []meta.Operation{meta.Read}}},
		meta.WriterRole: {{topic, []meta.Operation{meta.Write}}, {txn, []meta.Operation{meta.Write}}},
		meta.OperatorRole: {
			{topic, []meta.Operation{meta.Describe, meta.AlterConfigs, CommitOffsets, DescribeProducers}},
			{group, []meta.Operation{meta.Read, meta.AlterConfigs}},
			{txn, []meta.Operation{meta.Describe}},
		},
		meta.AdminRole: {{topic, all}, {group, all}, {txn, all}},
	}
	ofAll := map[meta.Operation][]line{
		meta.OperatorRole: {{cluster, []meta.Operation{meta.Describe, meta.DescribeConfigs, Reassign, AlterQuotas}}},
		meta.AdminRole: {
			{cluster, []meta.Operation{meta.Create, meta.Alter, meta.AlterConfigs, meta.IdempotentWrite}},
			{meta.UserResource, all},
			{meta.DelegationTokenResource, all},
		},
	}
	return func(yield func(meta.ACL) bool) {
		lines := own[a.Operation]
		if a.Resource == topic && a.Pattern == meta.LiteralPattern && a.Name == "*" {
			lines = slices.Concat(lines, ofAll[a.Operation])
		}
		for _, l := range lines {
			if a.Resource != topic && a.Resource != l.on {
				continue
			}
			for _, op := range l.ops {
				one := a
				one.Resource, one.Operation = l.on, op
				if l.on == cluster {
					one.Name = meta.ClusterName
				}
				if !yield(one) {
					return
				}
			}
		}
	}
}

// permits decides by ACLs one after the other, with roles as the ACLs that they stand for.
func permits(acls iter.Seq[meta.ACL], names []string, host string, op meta.Operation, r Resource) bool {
	allowed := false
	for a := range acls {
		expanded := []meta.ACL{a}
		if a.Operation.IsRole() {
			expanded = slices.Collect(standsFor(a))
			if r.Type == meta.TopicResource && strings.HasPrefix(r.Name, "__") && !strings.HasPrefix(a.Name, "__") && op != meta.Describe && op != meta.DescribeConfigs {
				continue
			}
		}
		for _, one := range expanded {
			fits := one.Resource == r.Type && (one.Name == r.Name || one.Name == "*")
			if one.Pattern == meta.PrefixedPattern {
				fits = one.Resource == r.Type && strings.HasPrefix(r.Name, one.Name)
			}
			if !fits || !slices.Contains(names, one.Principal) || one.Host != "*" && one.Host != host {
				continue
			}
			same := one.Operation == op || one.Operation == meta.AllOperations || one.Operation == whole(op)
			if one.Permission == meta.Deny && same {
				return false
			}
			implies := op == meta.Describe && slices.Contains([]meta.Operation{meta.Read, meta.Write, meta.DeleteOperation, meta.Alter}, one.Operation) ||
				op == meta.DescribeConfigs && one.Operation == meta.AlterConfigs
			allowed = allowed || one.Permission == meta.Allow && (same || implies)
		}
	}
	return allowed
}

func randomRole(rnd *rand.Rand) meta.ACL {
	a := meta.ACL{
		Principal: []string{"User:a", "User:b", "User:*", "Group:g", "Group:h"}[rnd.IntN(5)], Host: []string{"*", "*", "10.0.0.1"}[rnd.IntN(3)],
		Resource: meta.TopicResource, Pattern: []meta.PatternType{meta.LiteralPattern, meta.PrefixedPattern}[rnd.IntN(2)], Name: randomTopic(rnd),
		Operation: meta.ReaderRole + meta.Operation(rnd.IntN(4)), Permission: meta.Allow,
	}
	if rnd.IntN(4) == 0 {
		a.Resource = meta.GroupResource
	}
	if rnd.IntN(4) == 0 {
		a.Name, a.Pattern = "*", meta.LiteralPattern
	}
	return a
}

// randomTopic is a name of which some are reserved.
func randomTopic(rnd *rand.Rand) string {
	switch rnd.IntN(5) {
	case 0:
		return "__" + randomName(rnd, false)
	case 1:
		return "_"
	case 2:
		return "__"
	}
	return randomName(rnd, false)
}

// TestRolesAreACLs proves that a role allows what the ACLs allow that it stands for, to a user, to all, and to the users in a group, on all
// kinds of resources, and only to be described of reserved topics unless it is a role for these; that an ACL that denies comes before it, whether it
// is the user's, everybody's or a group's; and that sessions and explanations say the same, also while roles come and go.
func TestRolesAreACLs(t *testing.T) {
	rnd := rand.New(rand.NewPCG(11, 12))
	allowed, denied, byRole, byGroup := 0, 0, 0, 0
	types := []meta.ResourceType{meta.TopicResource, meta.TopicResource, meta.GroupResource, meta.TransactionalIDResource, meta.ClusterResource, meta.UserResource, meta.DelegationTokenResource}
	for range 60 {
		w := newWorld(t)
		sessions := map[string]*Session{}
		for range 60 {
			a := randomRole(rnd)
			if rnd.IntN(2) == 0 {
				a = randomACL(rnd)
				a.Name = randomTopic(rnd)
				a.Principal = []string{"User:a", "User:b", "User:*", "Group:g", "Group:h"}[rnd.IntN(5)]
			}
			if w.image.ACLs().Has(a) {
				w.apply(meta.ACLUnset{ACL: a})
			} else if w.image.ACLs().Len() < 8 {
				w.apply(meta.ACLSet{ACL: a})
			} else {
				for first := range w.image.ACLs().All() {
					w.apply(meta.ACLUnset{ACL: first})
					break
				}
			}
			for range 20 {
				name, host := []string{"a", "b", "c"}[rnd.IntN(3)], []string{"10.0.0.1", "10.0.0.2"}[rnd.IntN(2)]
				groups := [][]string{nil, {"g"}, {"h", "g", "h"}, {"i", "h"}}[rnd.IntN(4)]
				c := NewClient(User(name), host)
				c = c.In(groups)
				names := []string{"User:" + name, "User:*"}
				for _, g := range groups {
					names = append(names, "Group:"+g)
				}
				r := Resource{types[rnd.IntN(len(types))], randomTopic(rnd)}
				if r.Type == meta.ClusterResource {
					r.Name = meta.ClusterName
				}
				op := meta.Read + meta.Operation(rnd.IntN(13))
				if rnd.IntN(3) == 0 {
					op = CommitOffsets + meta.Operation(rnd.IntN(4))
				}
				want := permits(w.image.ACLs().All(), names, host, op, r)
				what := fmt.Sprintf("%v from %s, %s of %v", names, host, OperationName(op), r)
				if got := w.Allows(c, op, r); got != want {
					t.Fatalf("%s: %v, and by the ACLs %v: %v", what, got, want, slices.Collect(w.image.ACLs().All()))
				}
				d := w.Explain(c, op, r)
				if d.Allowed != want || d.By != nil && (d.By.Permission == meta.Allow) != want {
					t.Fatalf("%s: explained by %s, and by the ACLs %v", what, d.String(), want)
				}
				key := fmt.Sprint(name, host, groups)
				if sessions[key] == nil {
					s := w.NewSession(c)
					sessions[key] = &s
				}
				if got, again := sessions[key].Allows(op, r), sessions[key].AllowsName(op, r.Type, []byte(r.Name)); got != want || again != want {
					t.Fatalf("%s: a session says %v, %v, and by the ACLs %v", what, got, again, want)
				}
				if !want {
					denied++
					continue
				}
				allowed++
				if d.By.Operation.IsRole() {
					byRole++
				}
				if strings.HasPrefix(d.By.Principal, "Group:") {
					byGroup++
				}
			}
		}
	}
	if allowed < 5000 || denied < 5000 || byRole < 3000 || byGroup < 1000 {
		t.Errorf("%d times allowed, of which %d by a role and %d by a group, %d times denied", allowed, byRole, byGroup, denied)
	}
}

func role(op meta.Operation, principal string, pattern meta.PatternType, name string) meta.ACL {
	return meta.ACL{Principal: principal, Host: "*", Resource: meta.TopicResource, Pattern: pattern, Name: name, Operation: op, Permission: meta.Allow}
}

// TestRolesCountForAnyResource proves that a writer may have a producer id, that one to whom all of its topics are denied may not, and that a
// resource for which a role is granted is no resource without rules.
func TestRolesCountForAnyResource(t *testing.T) {
	w := newWorld(t)
	alice := NewClient(User("alice"), "::1")
	team := alice.In([]string{"team"})
	w.apply(meta.ACLSet{ACL: role(meta.WriterRole, "Group:team", meta.PrefixedPattern, "pay-")}, meta.ACLSet{ACL: role(meta.ReaderRole, "User:alice", meta.LiteralPattern, "*")})
	if w.AllowsAny(alice, meta.Write, meta.TopicResource) || !w.AllowsAny(team, meta.Write, meta.TopicResource) || !w.AllowsAny(team, meta.Write, meta.TransactionalIDResource) {
		t.Error("a writer may have a producer id, and others may not")
	}
	deny := role(meta.Write, "User:alice", meta.PrefixedPattern, "pay")
	deny.Permission = meta.Deny
	w.apply(meta.ACLSet{ACL: deny})
	if w.AllowsAny(team, meta.Write, meta.TopicResource) {
		t.Error("all that the writer may write to is denied")
	}
	open := newWorld(t, func(c *Config) { c.AllowUnruled = true })
	open.apply(meta.ACLSet{ACL: role(meta.WriterRole, "User:bob", meta.PrefixedPattern, "pay-")})
	for r, want := range map[Resource]bool{
		{meta.TopicResource, "pay-1"}: false, {meta.TransactionalIDResource, "pay-1"}: false, {meta.TopicResource, "x"}: true, {meta.GroupResource, "pay-1"}: true,
	} {
		if got := open.Allows(alice, meta.Write, r); got != want {
			t.Errorf("%v, with a rule for others or without one: %v", r, got)
		}
	}
}

// TestGroupsMayBeSuper proves that a group of super.users is all users that are in it.
func TestGroupsMayBeSuper(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.SuperUsers = []Principal{User("root"), {GroupType, "ops"}} })
	alice := NewClient(User("alice"), "::1")
	ops, named := alice.In([]string{"dev", "ops"}), NewClient(User("ops"), "::1")
	for c, want := range map[*Client]bool{&alice: false, &ops: true, &named: false} {
		if d := w.Explain(*c, meta.Alter, Cluster()); w.IsSuper(c) != want || w.Allows(*c, meta.Alter, Cluster()) != want || d.SuperUser != want {
			t.Errorf("%s in %v is a super user: %v", c.Principal(), c.groups, !want)
		}
	}
}

// TestFiltersTellRolesFromACLs proves that a filter for any operation chooses no roles, which Kafka's clients could not read, and that
// filters for roles choose these alone.
func TestFiltersTellRolesFromACLs(t *testing.T) {
	w := newWorld(t)
	reader, admin := role(meta.ReaderRole, "User:a", meta.PrefixedPattern, "t"), role(meta.AdminRole, "Group:g", meta.LiteralPattern, "*")
	read := role(meta.Read, "User:a", meta.LiteralPattern, "t")
	w.apply(meta.ACLSet{ACL: reader}, meta.ACLSet{ACL: admin}, meta.ACLSet{ACL: read})
	f := func(f Filter, want ...meta.ACL) {
		t.Helper()
		got := f.Choose(w.image.ACLs())
		slices.SortFunc(got, func(x, y meta.ACL) int { return int(x.Operation) - int(y.Operation) })
		if !slices.Equal(got, want) || !f.IsKnown() {
			t.Errorf("%+v chooses %v, and not %v", f, got, want)
		}
	}
	f(Everything(), read)
	f(AllRoles(), reader, admin)
	one := AllRoles()
	one.Operation = meta.AdminRole
	f(one, admin)
	of := AllRoles()
	of.Principal = new("User:a")
	f(of, reader)
	for _, op := range []meta.Operation{0, meta.TwoPhaseCommit + 1, CommitOffsets, meta.AnyRole - 1, meta.AdminRole + 1} {
		one.Operation = op
		if one.IsKnown() {
			t.Errorf("operation %d is known", op)
		}
	}
}

// roleWorld has 100,000 ACLs and 10,000 roles of many users and groups, and a client that is in several groups.
func roleWorld(b *testing.B) (*world, Client) {
	b.Helper()
	w := newWorld(b)
	records := make([]meta.Record, 0, 110_000)
	for i := range 100_000 {
		records = append(records, meta.ACLSet{ACL: meta.ACL{
			Principal: fmt.Sprint("User:", i/100), Host: "*", Resource: meta.TopicResource, Pattern: meta.PrefixedPattern, Name: fmt.Sprintf("team.%05d.topic", i),
			Operation: meta.Read, Permission: meta.Allow,
		}})
	}
	for i := range 10_000 {
		records = append(records, meta.ACLSet{ACL: role(meta.ReaderRole+meta.Operation(i%4), fmt.Sprint("Group:", i/100), meta.PrefixedPattern, fmt.Sprintf("pay.%05d", i))})
	}
	w.apply(records...)
	c := NewClient(User("500"), "10.0.0.1")
	return w, c.In([]string{"1", "2", "50", "none"})
}

// BenchmarkAuthorizer checks one topic among 100,000 ACLs and 10,000 roles for a client in four groups, without a memory of the check before
// (check), as a session that has checked it before (session), as a session that has forgotten it or never checked it (other), and for the first
// time after a change of ACLs (changed).
func BenchmarkAuthorizer(b *testing.B) {
	w, c := roleWorld(b)
	r := Resource{meta.TopicResource, "pay.00201-x"} // of group 2, a writer
	if !w.Allows(c, meta.Write, r) || w.Allows(c, meta.Read, r) || w.Allows(c, meta.Write, Resource{meta.TopicResource, "pay.00301-x"}) {
		b.Fatal("the roles say something else")
	}
	b.Run("check", func(b *testing.B) {
		for b.Loop() {
			w.Allows(c, meta.Write, r)
		}
	})
	b.Run("session", func(b *testing.B) {
		s, name := w.NewSession(c), []byte(r.Name)
		for b.Loop() {
			if !s.AllowsName(meta.Write, r.Type, name) {
				b.Fatal("denied")
			}
		}
	})
	b.Run("other", func(b *testing.B) { // more names than a session remembers
		s := w.NewSession(c)
		names := make([][]byte, 4*mostRemembered)
		for i := range names {
			names[i] = fmt.Appendf(nil, "pay.00201-%d", i)
		}
		for i := 0; b.Loop(); i++ {
			if !s.AllowsName(meta.Write, r.Type, names[i%len(names)]) {
				b.Fatal("denied")
			}
		}
	})
	b.Run("changed", func(b *testing.B) {
		s, name := w.NewSession(c), []byte(r.Name)
		other := role(meta.ReaderRole, "User:other", meta.PrefixedPattern, "x")
		isSet := false
		for b.Loop() {
			b.StopTimer()
			if isSet = !isSet; isSet {
				w.apply(meta.ACLSet{ACL: other})
			} else {
				w.apply(meta.ACLUnset{ACL: other})
			}
			b.StartTimer()
			s.AllowsName(meta.Write, r.Type, name)
		}
	})
}
