package controller

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/meta"
)

// securedRules are the rules on an image of the latest level, to which apply applies records.
func securedRules(t *testing.T) (r *Rules, apply func(records []byte)) {
	t.Helper()
	r = &Rules{Image: meta.Empty()}
	apply = func(records []byte) {
		t.Helper()
		next, _, err := meta.Apply(r.Image, records)
		if err != nil {
			t.Fatal(err)
		}
		r.Image = next
	}
	apply(meta.Append(nil, meta.LevelSet{Level: meta.LatestLevel}))
	return r, apply
}

func readACL(principal, topic string) meta.ACL {
	return meta.ACL{Principal: principal, Host: "*", Resource: meta.TopicResource, Pattern: meta.LiteralPattern, Name: topic, Operation: meta.Read, Permission: meta.Allow}
}

// TestACLsAreCreatedAndDeleted proves that ACLs are created once, that what Kafka refuses is refused in its words without harm to the others, and that
// filters delete what they choose, and tell it.
func TestACLsAreCreatedAndDeleted(t *testing.T) {
	r, apply := securedRules(t)
	bad := readACL("alice", "t")
	records, results := createACLs(r.Image, []meta.ACL{readACL("User:a", "t"), bad, readACL("User:a", "t"), readACL("User:b", "t")})
	if results[0] != nil || results[1] == nil || results[1].Kind != InvalidRequest || results[2] != nil || results[3] != nil {
		t.Errorf("%v", results)
	}
	apply(records)
	if n := r.Image.ACLs().Len(); n != 2 {
		t.Errorf("%d ACLs", n)
	}
	if again, results := createACLs(r.Image, []meta.ACL{readACL("User:a", "t")}); len(again) != 0 || results[0] != nil {
		t.Errorf("an ACL that exists: %x, %v", again, results)
	}
	for want, change := range map[string]func(a *meta.ACL){
		"The only valid name for the CLUSTER resource is kafka-cluster": func(a *meta.ACL) { a.Resource = meta.ClusterResource },
		"Invalid empty resource name":                                   func(a *meta.ACL) { a.Name = "" },
		"Invalid resourceType ANY":                                      func(a *meta.ACL) { a.Resource = meta.AnyResource },
		"Invalid patternType MATCH":                                     func(a *meta.ACL) { a.Pattern = meta.MatchPattern },
		"Invalid operation UNKNOWN":                                     func(a *meta.ACL) { a.Operation = 99 },
		"Invalid permissionType ANY":                                    func(a *meta.ACL) { a.Permission = meta.AnyPermission },
		"An ACL needs a host; * stands for all.":                        func(a *meta.ACL) { a.Host = "" },
	} {
		a := readACL("User:a", "t2")
		change(&a)
		if records, results := createACLs(r.Image, []meta.ACL{a}); len(records) > 0 || results[0] == nil || results[0].Message != want {
			t.Errorf("%+v: %v, want %s", a, results[0], want)
		}
	}
	everything, ofA := auth.Everything(), auth.Everything()
	ofA.Principal = new("User:a")
	records, deleted := deleteACLs(r.Image, []auth.Filter{ofA, everything, {}})
	if !slices.Equal(deleted[0].ACLs, []meta.ACL{readACL("User:a", "t")}) || len(deleted[1].ACLs) != 2 || deleted[2].Err == nil {
		t.Errorf("%+v", deleted)
	}
	apply(records)
	if n := r.Image.ACLs().Len(); n != 0 {
		t.Errorf("%d ACLs are left", n)
	}
	old := &Rules{Image: meta.Empty()}
	if _, results := createACLs(old.Image, []meta.ACL{readACL("User:a", "t")}); results[0] == nil || results[0].Kind != UnsupportedFeature {
		t.Errorf("without the level: %v", results[0])
	}
}

// TestACLsAreBounded proves that a command changes no more ACLs than it may, and nothing if it asks for more, and that all ACLs
// together take no more memory than they may.
func TestACLsAreBounded(t *testing.T) {
	r, apply := securedRules(t)
	many := make([]meta.ACL, maxACLsOfCommand+1)
	for i := range many {
		many[i] = readACL("User:a", fmt.Sprint("t", i))
	}
	if records, results := createACLs(r.Image, many); len(records) > 0 || results[0] == nil || results[len(many)-1].Kind != PolicyViolation {
		t.Errorf("%d ACLs: %v", len(many), results[0])
	}
	for range 2 {
		part := many[:maxACLsOfCommand/2+1]
		for i := range part {
			part[i].Principal += "x"
		}
		records, _ := createACLs(r.Image, part)
		apply(records)
	}
	if records, deleted := deleteACLs(r.Image, []auth.Filter{auth.Everything()}); len(records) > 0 || deleted[0].Err == nil || len(deleted[0].ACLs) > 0 {
		t.Errorf("%d ACLs are deleted at once: %+v", r.Image.ACLs().Len(), deleted[0].Err)
	}
	long := strings.Repeat("n", maxResourceName-10)
	refused := 0
	for i := 0; refused == 0 && i < 10; i++ {
		big := make([]meta.ACL, 500)
		for j := range big {
			big[j] = readACL("User:big", fmt.Sprint(long, i, "-", j))
			big[j].Resource = meta.GroupResource
		}
		records, results := createACLs(r.Image, big)
		apply(records)
		for _, e := range results {
			if e != nil {
				refused++
			}
		}
	}
	if refused == 0 || r.Image.ACLs().Bytes() > maxACLBytes {
		t.Errorf("%d are refused, all take %d bytes", refused, r.Image.ACLs().Bytes())
	}
}

// TestRolesAreGranted proves that roles are granted and revoked like ACLs, that a role which nobody could have, or which is more than the bound, is
// refused with a sentence, and that a cluster in which an older version could still be has none.
func TestRolesAreGranted(t *testing.T) {
	r, apply := securedRules(t)
	role := func(change ...func(a *meta.ACL)) meta.ACL {
		a := readACL("User:a", "orders-")
		a.Pattern, a.Operation = meta.PrefixedPattern, meta.ReaderRole
		for _, f := range change {
			f(&a)
		}
		return a
	}
	team := role(func(a *meta.ACL) { a.Principal, a.Operation = "Group:team-a", meta.WriterRole })
	ofGroup := role(func(a *meta.ACL) { a.Resource = meta.GroupResource })
	records, results := createACLs(r.Image, []meta.ACL{role(), team, ofGroup, readACL("User:a", "t")})
	for _, e := range results {
		if e != nil {
			t.Error(e)
		}
	}
	apply(records)
	for want, change := range map[string]func(a *meta.ACL){
		"A role only allows: ":                        func(a *meta.ACL) { a.Permission = meta.Deny },
		"A role is granted to User:NAME":              func(a *meta.ACL) { a.Principal = "group:team" },
		"A role is granted to User:NAME, or":          func(a *meta.ACL) { a.Principal = "User:" },
		"No group stands for all":                     func(a *meta.ACL) { a.Principal = "Group:*" },
		"The role reader has nothing to do with a cl": func(a *meta.ACL) { a.Resource, a.Name = meta.ClusterResource, meta.ClusterName },
		"The role writer has nothing to do with a gr": func(a *meta.ACL) { a.Resource, a.Operation = meta.GroupResource, meta.WriterRole },
		"The role admin has nothing to do with a use": func(a *meta.ACL) { a.Resource, a.Operation = meta.UserResource, meta.AdminRole },
		"Invalid operation UNKNOWN":                   func(a *meta.ACL) { a.Operation = meta.AdminRole + 1 },
		"Invalid operation COMMIT_OFFSETS":            func(a *meta.ACL) { a.Operation = auth.CommitOffsets },
	} {
		if records, results := createACLs(r.Image, []meta.ACL{role(change)}); len(records) > 0 || results[0] == nil || results[0].Kind != InvalidRequest || !strings.HasPrefix(results[0].Message, want) {
			t.Errorf("%v, want %s", results[0], want)
		}
	}
	if _, deleted := deleteACLs(r.Image, []auth.Filter{auth.Everything(), auth.AllRoles()}); len(deleted[0].ACLs) != 1 || len(deleted[1].ACLs) != 3 {
		t.Errorf("all ACLs, and all roles: %+v", deleted)
	}
	for name := 0; ; {
		part := make([]meta.ACL, maxACLsOfCommand/2)
		for i := range part {
			part[i] = role(func(a *meta.ACL) { a.Name = fmt.Sprint("n", name) })
			name++
		}
		records, results := createACLs(r.Image, part)
		apply(records)
		last := results[len(results)-1]
		if last == nil {
			continue
		}
		if n := r.Image.ACLs().Roles(); last.Kind != PolicyViolation || n != maxRoles {
			t.Errorf("%d roles, then %v", n, last)
		}
		break
	}
	if _, results := createACLs(r.Image, []meta.ACL{readACL("User:a", "t2"), role()}); results[0] != nil || results[1] != nil {
		t.Errorf("an ACL, and a role that is there: %v", results)
	}
	old := &Rules{Image: meta.Empty()}
	m, _, err := meta.Apply(old.Image, meta.Append(nil, meta.LevelSet{Level: meta.LevelIdentity - 1}))
	if err != nil {
		t.Fatal(err)
	}
	if records, results := createACLs(m, []meta.ACL{role(), readACL("User:a", "t")}); results[0] == nil || results[0].Kind != UnsupportedFeature || results[1] != nil || len(records) == 0 {
		t.Errorf("below the level: %v", results)
	}
}

// TestCredentialsAreAltered proves that users get and lose credentials, and that the outcomes are Kafka's.
func TestCredentialsAreAltered(t *testing.T) {
	r, apply := securedRules(t)
	owner := func(user string) meta.CredentialOwner {
		return meta.CredentialOwner{User: user, Mechanism: meta.ScramSHA256}
	}
	set := func(user string) NewCredential {
		return NewCredential{Owner: owner(user), Salt: []byte("salt"), Salted: []byte("salted"), Iterations: 4096}
	}
	few, none := set("few"), set("")
	few.Iterations = 4095
	bare := set("bare")
	bare.Salted = nil
	records, outcomes := alterCredentials(r.Image, []meta.CredentialOwner{owner("gone")}, []NewCredential{set("a"), few, none, bare, set("b"), set("twice"), set("twice"), set("gone")})
	var got []string
	for _, o := range outcomes {
		kind := Kind(0)
		if o.Err != nil {
			kind = o.Err.Kind
		}
		got = append(got, fmt.Sprint(o.User, " ", kind))
	}
	want := []string{
		fmt.Sprint("gone ", UnknownCredential), "a 0", fmt.Sprint("few ", UnacceptableCredential), fmt.Sprint(" ", UnacceptableCredential),
		fmt.Sprint("bare ", UnacceptableCredential), "b 0", fmt.Sprint("twice ", DuplicateResource),
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	apply(records)
	if n := len(r.Image.Credentials().ByOwner); n != 2 {
		t.Errorf("%d credentials", n)
	}
	records, outcomes = alterCredentials(r.Image, []meta.CredentialOwner{owner("a"), {User: "b", Mechanism: meta.ScramSHA512}}, nil)
	if outcomes[0].Err != nil || outcomes[1].Err == nil {
		t.Errorf("%+v", outcomes)
	}
	apply(records)
	if c := r.Image.Credentials().ByOwner; len(c) != 1 || c[owner("b")] == nil {
		t.Errorf("%v", c)
	}
}

// TestAllCredentialsAtOnce proves that one removal can name all credentials of a user, which are then removed together or kept together;
// and that two removals for one user are refused, as by Kafka.
func TestAllCredentialsAtOnce(t *testing.T) {
	r, apply := securedRules(t)
	owner := func(user string, m meta.ScramMechanism) meta.CredentialOwner {
		return meta.CredentialOwner{User: user, Mechanism: m}
	}
	set := func(user string, m meta.ScramMechanism) NewCredential {
		return NewCredential{Owner: owner(user, m), Salt: []byte("salt"), Salted: []byte("salted"), Iterations: 4096}
	}
	for _, m := range []meta.ScramMechanism{meta.ScramSHA256, meta.ScramSHA512} {
		records, _ := alterCredentials(r.Image, nil, []NewCredential{set("root", m), set("other", m)})
		apply(records)
	}
	every := []meta.CredentialOwner{owner("root", auth.EveryMechanism)}
	both := []meta.CredentialOwner{owner("root", meta.ScramSHA256), owner("root", meta.ScramSHA512)}
	canAdminister := func(m *meta.Image) bool { return countCredentials(m, "root") > 0 }

	records, outcomes := alterCredentials(r.Image, both, nil)
	if len(records) > 0 || len(outcomes) != 1 || outcomes[0].Err == nil || outcomes[0].Err.Kind != DuplicateResource {
		t.Errorf("two removals: %+v", outcomes)
	}
	records, outcomes = alterCredentials(r.Image, every, nil)
	if len(outcomes) != 1 || outcomes[0].Err != nil || !losesAdministrators(canAdminister, r.Image, records) {
		t.Errorf("all of the last administrator: %+v", outcomes)
	}
	apply(records)
	if n := len(r.Image.Credentials().ByOwner); n != 2 || countCredentials(r.Image, "other") != 2 {
		t.Errorf("%d credentials are left", n)
	}
	if _, outcomes = alterCredentials(r.Image, every, nil); outcomes[0].Err == nil || outcomes[0].Err.Kind != UnknownCredential {
		t.Errorf("of a user who has none: %+v", outcomes)
	}
	if _, outcomes = alterCredentials(r.Image, nil, []NewCredential{set("new", auth.EveryMechanism)}); outcomes[0].Err == nil || outcomes[0].Err.Kind != UnsupportedMechanism {
		t.Errorf("a credential for every mechanism: %+v", outcomes)
	}
}
