package follow_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror/follow"
)

func acl(permission meta.Permission, principal string, op meta.Operation, resource meta.ResourceType, pattern meta.PatternType, name string) meta.ACL {
	return meta.ACL{Principal: principal, Host: meta.AnyHost, Resource: resource, Pattern: pattern, Name: name, Operation: op, Permission: permission}
}

func allow(principal string, op meta.Operation, resource meta.ResourceType, name string) meta.ACL {
	text, isPrefix := strings.CutSuffix(name, "-*")
	if isPrefix {
		return acl(meta.Allow, principal, op, resource, meta.PrefixedPattern, text+"-")
	}
	return acl(meta.Allow, principal, op, resource, meta.LiteralPattern, name)
}

func deny(principal string, op meta.Operation, resource meta.ResourceType, name string) meta.ACL {
	a := allow(principal, op, resource, name)
	a.Permission = meta.Deny
	return a
}

const (
	topic  = meta.TopicResource
	group  = meta.GroupResource
	transi = meta.TransactionalIDResource
)

// TestACLs proves what is added, removed and left alone here for the ACLs of a source.
func TestACLs(t *testing.T) {
	mirrored := []string{"orders-de", "orders-fr", "web"}
	for _, c := range []struct {
		name         string
		rules        follow.ACLRules
		source       []meta.ACL
		here, made   []meta.ACL
		shared       []meta.ACL // that the link has made, and a person has asked for since
		promoted     []string
		steps, warns []string
	}{
		{
			name:  "names, prefixes, and what is not followed",
			rules: follow.ACLRules{Principals: filter("User:*", "User:root"), Groups: filter("app-*", "")},
			source: []meta.ACL{
				allow("User:app", meta.Read, topic, "orders-*"), allow("User:app", meta.Read, topic, "web"), allow("User:app", meta.Read, topic, "other"), allow("User:app", meta.Read, topic, "pay-*"),
				allow("User:app", meta.Read, group, "app-1"), allow("User:app", meta.Read, group, "etl"), allow("User:app", meta.Write, transi, "app-1"),
				allow("User:root", meta.AllOperations, topic, "web"), allow("User:app", meta.Alter, meta.ClusterResource, meta.ClusterName),
				allow("User:ops", meta.ReaderRole, topic, "web"),
			},
			steps: []string{
				"Add ALLOW User:app READ on topic orders-* from *.", "Add ALLOW User:app READ on topic web from *.", "Add ALLOW User:app READ on group app-1 from *.",
				"Add role reader of User:ops on topic web from *.",
			},
			warns: []string{"ALLOW User:app ALTER on cluster kafka-cluster from * is about the source itself, and is not followed: grant it here by hand if it is needed."},
		},
		{
			name:  "what this version does not know",
			rules: follow.ACLRules{Principals: filter("*", "User:root")},
			source: []meta.ACL{
				allow("User:app", 16, topic, "web"), deny("User:app", meta.Read, 9, "web"), allow("User:root", 16, topic, "web"),
				allow("User:app", meta.Describe, meta.DelegationTokenResource, "t"), allow("User:app", meta.Create, meta.ClusterResource, meta.ClusterName),
			},
			warns: []string{
				"ALLOW User:app CREATE on cluster kafka-cluster from *, ALLOW User:app DESCRIBE on delegation_token t from * are about the source itself, and are not followed: grant here by hand what is needed.",
				`An ACL of User:app on "web" (resource type 2, pattern type 3, operation 16, permission 3), An ACL of User:app on "web" (resource type 9, pattern type 3, operation 3, permission 2) are not known to this version, and are not followed.`,
			},
		},
		{
			name:   "what a person has asked for, too, and what is for topics that were promoted",
			rules:  follow.ACLRules{Principals: filter("*", "")},
			source: []meta.ACL{allow("User:b", meta.Read, topic, "web")},
			here: []meta.ACL{
				allow("User:a", meta.Read, topic, "web"), allow("User:a", meta.Read, topic, "pay"), allow("User:a", meta.Read, topic, "pa-*"), deny("User:a", meta.Read, topic, "*"), allow("User:a", meta.Read, group, "pay"),
				allow("User:b", meta.Read, topic, "web"),
			},
			made:     []meta.ACL{allow("User:a", meta.Read, topic, "pay"), allow("User:a", meta.Read, topic, "pa-*"), deny("User:a", meta.Read, topic, "*"), allow("User:a", meta.Read, group, "pay")},
			shared:   []meta.ACL{allow("User:a", meta.Read, topic, "web"), allow("User:b", meta.Read, topic, "web"), allow("User:z", meta.Read, topic, "web")},
			promoted: []string{"pay", "pa-1"},
			steps: []string{
				"Remove ALLOW User:a READ on group pay from *.", "Leave DENY User:a READ on topic * from *, which is not the link's any more.", "Leave ALLOW User:a READ on topic pa-* from *, which is not the link's any more.",
				"Leave ALLOW User:a READ on topic pay from *, which is not the link's any more.", "Leave ALLOW User:a READ on topic web from *, which is not the link's any more.",
				"Forget ALLOW User:z READ on topic web from *, which is gone.",
			},
		},
		{
			name:   "a prefix, a rename and another principal",
			rules:  follow.ACLRules{Principals: filter("User:app", ""), Names: mapping("shop.", "orders-fr=france"), Renamed: map[string]string{"User:app": "User:CN=app"}, TransactionalIDs: filter("*", "")},
			source: []meta.ACL{allow("User:app", meta.Read, topic, "orders-*"), allow("User:app", meta.Write, topic, "orders-fr"), allow("User:app", meta.Describe, topic, "*"), allow("User:app", meta.Write, transi, "t")},
			steps: []string{
				"Add ALLOW User:CN=app READ on topic france from *.", "Add ALLOW User:CN=app WRITE on topic france from *.", "Add ALLOW User:CN=app DESCRIBE on topic france from *.",
				"Add ALLOW User:CN=app DESCRIBE on topic shop.* from *.", "Add ALLOW User:CN=app READ on topic shop.orders-* from *.", "Add ALLOW User:CN=app WRITE on transactional_id t from *.",
			},
		},
		{
			name:   "a topic that is renamed into the prefix of others",
			rules:  follow.ACLRules{Principals: filter("*", ""), Names: mapping("", "web=orders-web")},
			source: []meta.ACL{allow("User:a", meta.Read, topic, "orders-*"), deny("User:b", meta.Read, topic, "orders-*"), allow("User:b", meta.AllOperations, topic, "orders-de")},
			steps: []string{
				"Add DENY User:b READ on topic orders-* from *.", "Add ALLOW User:a READ on topic orders-de from *.", "Add ALLOW User:a READ on topic orders-fr from *.",
				"Add ALLOW User:b ALL on topic orders-de from *.",
			},
		},
		{
			name:   "all names of the source, one by one",
			rules:  follow.ACLRules{Principals: filter("*", ""), Groups: filter("*", "")},
			source: []meta.ACL{allow("User:a", meta.Read, topic, "*"), allow("User:a", meta.Read, group, "*"), deny("User:b", meta.Read, group, "*"), deny("User:b", meta.Read, topic, "*")},
			steps: []string{
				"Add DENY User:b READ on topic orders-de from *.", "Add DENY User:b READ on topic orders-fr from *.", "Add DENY User:b READ on topic web from *.", "Add DENY User:b READ on group * from *.",
				"Add ALLOW User:a READ on topic orders-de from *.", "Add ALLOW User:a READ on topic orders-fr from *.", "Add ALLOW User:a READ on topic web from *.",
			},
			warns: []string{"ALLOW User:a READ on group * from * is for all of the source, and is not followed, since it would be for all here."},
		},
		{
			name:   "all names here",
			rules:  follow.ACLRules{Principals: filter("*", ""), Groups: filter("*", ""), AllNames: true},
			source: []meta.ACL{allow("User:a", meta.Read, topic, "*"), allow("User:a", meta.Read, group, "*")},
			steps:  []string{"Add ALLOW User:a READ on topic * from *.", "Add ALLOW User:a READ on group * from *."},
		},
		{
			name:  "what denies comes along where it matters",
			rules: follow.ACLRules{Principals: filter("User:a", ""), Groups: filter("app-*", "app-9")},
			source: []meta.ACL{
				allow("User:a", meta.Read, topic, "orders-*"), deny("User:*", meta.Read, topic, "orders-secret"), deny("User:a", meta.Read, topic, "pay"), deny("User:b", meta.Read, topic, "orders-de"),
				allow("User:a", meta.Read, group, "app-*"), deny("User:a", meta.Read, group, "app-9"),
			},
			steps: []string{
				"Add DENY User:* READ on topic orders-secret from *.", "Add DENY User:a READ on group app-9 from *.", "Add ALLOW User:a READ on topic orders-* from *.", "Add ALLOW User:a READ on group app-* from *.",
			},
		},
		{
			name:   "what is here already, of whomever, and what the source has no more",
			rules:  follow.ACLRules{Principals: filter("*", "")},
			source: []meta.ACL{allow("User:a", meta.Read, topic, "web"), allow("User:b", meta.Read, topic, "web"), deny("User:c", meta.Write, topic, "web")},
			here: []meta.ACL{
				allow("User:a", meta.Read, topic, "web"), allow("User:b", meta.Read, topic, "web"), // a is of somebody else
				allow("User:x", meta.Read, topic, "web"), allow("User:y", meta.Read, topic, "web"), deny("User:z", meta.Read, topic, "web"), // x is of somebody else
			},
			made: []meta.ACL{allow("User:b", meta.Read, topic, "web"), allow("User:y", meta.Read, topic, "web"), deny("User:z", meta.Read, topic, "web"), allow("User:gone", meta.Read, topic, "web")},
			steps: []string{
				"Add DENY User:c WRITE on topic web from *.", "Remove ALLOW User:y READ on topic web from *.", "Remove DENY User:z READ on topic web from *.",
				"Forget ALLOW User:gone READ on topic web from *, which is gone.",
			},
		},
		{
			name:   "what was removed here",
			rules:  follow.ACLRules{Principals: filter("*", "")},
			source: []meta.ACL{allow("User:a", meta.Read, topic, "web")}, made: []meta.ACL{allow("User:a", meta.Read, topic, "web")},
			warns: []string{"ALLOW User:a READ on topic web from * was removed here, and the link does not add it again."},
		},
		{
			name:  "a source whose authorizer is off",
			rules: follow.ACLRules{Principals: filter("*", "")},
			here:  []meta.ACL{allow("User:a", meta.Read, topic, "web")}, made: []meta.ACL{allow("User:a", meta.Read, topic, "web")},
			warns: []string{"The source has no ACLs, and the link has made 1 here: they stay, in case the source has only switched its authorizer off."},
		},
		{
			name:   "principals that become one, and hosts",
			rules:  follow.ACLRules{Principals: filter("*", ""), Renamed: map[string]string{"User:a": "User:b"}},
			source: []meta.ACL{allow("User:a", meta.Read, topic, "web"), {Principal: "User:b", Host: "10.0.0.7", Resource: topic, Pattern: meta.LiteralPattern, Name: "web", Operation: meta.Write, Permission: meta.Allow}},
			steps:  []string{"Add ALLOW User:b READ on topic web from *.", "Add ALLOW User:b WRITE on topic web from 10.0.0.7."},
			warns: []string{
				"User:a, User:b of the source are all User:b here, which has the rights of all.",
				"ACLs that allow something from certain addresses only (10.0.0.7) are followed as they are: clients that have other addresses here need ACLs of their own.",
			},
		},
	} {
		p := follow.ACLs(&c.rules, &follow.ACLState{Source: c.source, Mirrored: mirrored, Promoted: c.promoted, Here: c.here, Made: append(madeOf(c.made, false), madeOf(c.shared, true)...)})
		if diff := cmp.Diff(append([]string{}, c.steps...), p.Sentences()); diff != "" {
			t.Errorf("%s: steps: %s", c.name, diff)
		}
		if diff := cmp.Diff(c.warns, p.Warnings); diff != "" {
			t.Errorf("%s: warnings: %s", c.name, diff)
		}
	}
}

// TestManyTopics proves that ACLs for all topics of a source that has many become no flood: what allows is left out, and what denies is for all topics here.
func TestManyTopics(t *testing.T) {
	var many []string
	for i := range 10_001 {
		many = append(many, fmt.Sprint("t", i))
	}
	p := follow.ACLs(&follow.ACLRules{Principals: filter("*", "")}, &follow.ACLState{Source: []meta.ACL{allow("User:a", meta.Read, topic, "*"), deny("User:b", meta.Read, topic, "*")}, Mirrored: many})
	if got := p.Sentences(); !slices.Equal(got, []string{"Add DENY User:b READ on topic * from *."}) || len(p.Warnings) != 1 {
		t.Error(got, p.Warnings)
	}
}

// isAllowed decides by some ACLs as Kafka does, without the operations that others imply.
func isAllowed(list []meta.ACL, principal string, op meta.Operation, resource meta.ResourceType, name string) bool {
	matches := func(a meta.ACL) bool {
		isNamed := a.Name == name || a.Name == meta.AnyName
		if a.Pattern == meta.PrefixedPattern {
			isNamed = strings.HasPrefix(name, a.Name)
		}
		return isNamed && a.Resource == resource && (a.Principal == principal || a.Principal == meta.AnyPrincipal) && (a.Operation == op || a.Operation == meta.AllOperations)
	}
	isDenied := slices.ContainsFunc(list, func(a meta.ACL) bool { return a.Permission == meta.Deny && matches(a) })
	return !isDenied && slices.ContainsFunc(list, func(a meta.ACL) bool { return a.Permission == meta.Allow && matches(a) })
}

// madeOf are ACLs that a link has made.
func madeOf(list []meta.ACL, isShared bool) (made []meta.LinkACL) {
	for _, a := range list {
		made = append(made, meta.LinkACL{ACL: a, IsShared: isShared})
	}
	return made
}

// applyACLs does the steps of a plan, and checks that each one can be done.
func applyACLs(t *rapid.T, here, made []meta.ACL, steps []follow.ACLStep) (hereThen, madeThen []meta.ACL) {
	here, made = slices.Clone(here), slices.Clone(made)
	remove := func(list []meta.ACL, a meta.ACL) []meta.ACL {
		return slices.DeleteFunc(list, func(b meta.ACL) bool { return a == b })
	}
	for _, s := range steps {
		isHere, isMade := slices.Contains(here, s.ACL), slices.Contains(made, s.ACL)
		switch {
		case s.Action == follow.AddACL && !isHere && !isMade:
			here, made = append(here, s.ACL), append(made, s.ACL)
		case s.Action == follow.RemoveACL && isHere && isMade:
			here, made = remove(here, s.ACL), remove(made, s.ACL)
		case s.Action == follow.ForgetACL && !isHere && isMade, s.Action == follow.LeaveACL && isHere && isMade:
			made = remove(made, s.ACL)
		default:
			t.Fatalf("%v, here %v, made %v", s, isHere, isMade)
		}
	}
	return here, made
}

// TestACLsSettle proves for random ACLs and rules that after the steps there are no more; that no ACL of somebody else is touched; that by the ACLs of the link nobody may do here what he may not do at the
// source, not even after a part of the steps; and that who is followed may do as much with the topics that are mirrored.
func TestACLsSettle(t *testing.T) {
	users := []string{"User:a", "User:b", "User:*"}
	name := rapid.SampledFrom([]string{"o", "o-", "o-1", "o-2", "p", meta.AnyName})
	draw := rapid.Custom(func(t *rapid.T) meta.ACL {
		a := acl(
			rapid.SampledFrom([]meta.Permission{meta.Allow, meta.Allow, meta.Deny}).Draw(t, "permission"), rapid.SampledFrom(users).Draw(t, "user"),
			rapid.SampledFrom([]meta.Operation{meta.Read, meta.Write, meta.AllOperations}).Draw(t, "operation"), rapid.SampledFrom([]meta.ResourceType{topic, group}).Draw(t, "resource"),
			rapid.SampledFrom([]meta.PatternType{meta.LiteralPattern, meta.PrefixedPattern}).Draw(t, "pattern"), name.Draw(t, "name"),
		)
		if a.Name == meta.AnyName {
			a.Pattern = meta.LiteralPattern
		}
		return a
	})
	rapid.Check(t, func(t *rapid.T) {
		there := rapid.SliceOfNDistinct(draw, 1, 8, rapid.ID).Draw(t, "source")
		local := rapid.SliceOfNDistinct(draw, 0, 4, rapid.ID).Draw(t, "here")
		mirrored := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"o", "o-1", "o-2", "p"}), 0, 4, rapid.ID).Draw(t, "mirrored")
		r := &follow.ACLRules{
			Principals: filter(rapid.SampledFrom([]string{"*", "User:a", "re:^User:[*]$"}).Draw(t, "principals"), ""), Groups: filter(rapid.SampledFrom([]string{"*", "o-*", "o-*,p"}).Draw(t, "groups"), "o-2"),
			Names: mapping(rapid.SampledFrom([]string{"", "x."}).Draw(t, "prefix"), rapid.SampledFrom([]string{"", "o-1=p2"}).Draw(t, "renames")), AllNames: rapid.Bool().Draw(t, "all names"),
		}
		made := rapid.SliceOfNDistinct(draw, 0, 3, rapid.ID).Draw(t, "made")
		shared := rapid.SliceOfNDistinct(rapid.SampledFrom(append([]meta.ACL{{}}, made...)), 0, 2, rapid.ID).Draw(t, "shared")
		state := &follow.ACLState{Source: there, Mirrored: mirrored, Promoted: rapid.SampledFrom([][]string{nil, {"o-3"}}).Draw(t, "promoted"), Here: local, Made: madeOf(made, false)}
		for i := range state.Made {
			state.Made[i].IsShared = slices.Contains(shared, state.Made[i].ACL)
		}
		p := follow.ACLs(r, state)
		then, madeThen := applyACLs(t, local, made, p.Steps)
		for _, a := range local {
			if (!slices.Contains(made, a) || slices.Contains(shared, a)) && !slices.Contains(then, a) {
				t.Fatalf("%v is gone, and the link has not made it, or not alone", a)
			}
		}
		if again := follow.ACLs(r, &follow.ACLState{Source: there, Mirrored: mirrored, Here: then, Made: madeOf(madeThen, false)}); len(again.Steps) > 0 {
			t.Fatalf("then there is more to do: %v", again.Steps)
		}
		fresh := follow.ACLs(r, &follow.ACLState{Source: there, Mirrored: mirrored}) // the rights by the link alone
		for n := range len(fresh.Steps) + 1 {
			ours, _ := applyACLs(t, nil, nil, fresh.Steps[:n])
			checkRights(t, r, there, ours, mirrored, n == len(fresh.Steps))
		}
	})
}

func checkRights(t *rapid.T, r *follow.ACLRules, there, ours []meta.ACL, mirrored []string, isWhole bool) {
	for _, user := range []string{"User:a", "User:b", "User:c"} {
		for _, op := range []meta.Operation{meta.Read, meta.Write} {
			for _, at := range []string{"o", "o-1", "o-2", "o-9", "p", "q"} {
				if isAllowed(ours, user, op, group, at) && !isAllowed(there, user, op, group, at) {
					t.Fatalf("%s may do %d with group %s here only: %v", user, op, at, ours)
				}
				isMirrored, to := slices.Contains(mirrored, at), r.Names.Here(at)
				mayThere, mayHere := isAllowed(there, user, op, topic, at), isAllowed(ours, user, op, topic, to)
				isRenamed := r.Names.IsRenamed(at)
				if mayHere && !mayThere && (isMirrored || !isRenamed) {
					t.Fatalf("%s may do %d with topic %s here only: %v", user, op, to, ours)
				}
				if isWhole && isMirrored && !isRenamed && mayThere && !mayHere && r.Principals.Has(user) && r.Principals.Has(meta.AnyPrincipal) {
					t.Fatalf("%s may do %d with topic %s at the source only: %v", user, op, at, ours)
				}
			}
		}
	}
}

// TestParsePrincipals proves that principals with commas and equal signs, as of certificates, can be renamed.
func TestParsePrincipals(t *testing.T) {
	got, err := follow.ParsePrincipals(" User:a=User:b; User:CN=x,O=y=User:CN=z,O=y;;User:a=User:b")
	if diff := cmp.Diff(map[string]string{"User:a": "User:b", "User:CN=x,O=y": "User:CN=z,O=y"}, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	for list, want := range map[string]string{
		"a=b": "have to be", "User:a=": "have to be", "User:a=User:": "have to be", "=User:b": "have to be", "User:a=User:b;User:a=User:c": "to User:b and to User:c",
		"User:*=User:b": "all users are all users", "User:a=User:*": "all users are all users", "User:=User:a": "have to be",
	} {
		if _, err := follow.ParsePrincipals(list); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", list, err)
		}
	}
}
