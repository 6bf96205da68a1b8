package meta

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

func acl(principal, topic string) ACL {
	return ACL{Principal: principal, Host: AnyHost, Resource: TopicResource, Pattern: LiteralPattern, Name: topic, Operation: Read, Permission: Allow}
}

func roleOf(principal, prefix string, role Operation) ACL {
	return ACL{Principal: principal, Host: AnyHost, Resource: TopicResource, Pattern: PrefixedPattern, Name: prefix, Operation: role, Permission: Allow}
}

func scramOf(user string, salt byte) ScramCredential {
	return ScramCredential{CredentialOwner{user, ScramSHA256}, []byte{salt}, make([]byte, 32), make([]byte, 32), 4096}
}

// secured is an image of the latest level without ACLs.
func secured(t *testing.T) *Image {
	t.Helper()
	m, _, err := Apply(Empty(), Append(nil, LevelSet{Level: LatestLevel}))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// applyStep applies an entry of a test that compares images with a model, and checks that the image before stays as it was, and that a snapshot of
// the next one tells the same.
func applyStep(t *testing.T, m *Image, entry []byte) (*Image, *Delta) {
	t.Helper()
	before := Encode(m)
	next, delta, err := Apply(m, entry)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(Encode(m), before) {
		t.Fatal("a change has changed the image before")
	}
	again, _, err := Apply(Empty(), Encode(next))
	if d := Diff(next, again); err != nil || !bytes.Equal(Encode(again), Encode(next)) || d.Security || d.DelegationTokens || d.Quotas || len(d.Topics) > 0 || d.Links != nil {
		t.Fatalf("the snapshot has others: %v", err)
	}
	return next, delta
}

// checkRefused checks that each of some records is refused as damaged.
func checkRefused(t *testing.T, m *Image, records ...Record) {
	t.Helper()
	for _, r := range records {
		if _, _, err := Apply(m, Append(nil, r)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%+v: %v", r, err)
		}
	}
}

// TestACLsAreASet proves that an image has the ACLs that were set and not unset, whatever the order, that images before
// a change stay as they were, and that a snapshot and the difference of two images tell the same.
func TestACLsAreASet(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	m, want := secured(t), map[ACL]bool{}
	for range 300 {
		before, had := m, maps.Clone(want)
		var entry []byte
		for range 1 + rnd.IntN(4) {
			a := acl(fmt.Sprint("User:", rnd.IntN(20)), fmt.Sprint("t", rnd.IntN(5)))
			a.Operation, a.Permission = Read+Operation(rnd.IntN(3)), Deny+Permission(rnd.IntN(2))
			if rnd.IntN(4) == 0 {
				a.Operation, a.Permission = ReaderRole+Operation(rnd.IntN(4)), Allow
			}
			if want[a] {
				entry = Append(entry, ACLUnset{a})
				delete(want, a)
			} else {
				entry = Append(entry, ACLSet{a})
				want[a] = true
			}
		}
		next, delta := applyStep(t, m, entry)
		m = next
		if got := maps.Collect(func(yield func(ACL, bool) bool) {
			for a := range m.ACLs().All() {
				if !yield(a, true) {
					return
				}
			}
		}); !maps.Equal(got, want) || m.ACLs().Len() != len(want) || !delta.Security || m.ACLs() == before.ACLs() {
			t.Fatalf("the image has %v, of %d, and was given %v", got, m.ACLs().Len(), want)
		}
		if before.ACLs().Len() != len(had) {
			t.Fatal("a change has changed the image before")
		}
		if !maps.Equal(had, want) && !Diff(before, m).Security {
			t.Fatal("the difference of the images is not seen")
		}
	}
	roles := 0
	for a := range want {
		if a.Operation.IsRole() {
			roles++
		}
		if !m.ACLs().Has(a) || !slices.Contains(m.ACLs().Of(a.Principal).ACLs, a) {
			t.Errorf("%v is not found", a)
		}
		checkRefused(t, m, ACLSet{a}) // a second time
	}
	if m.ACLs().Roles() != roles || roles == 0 {
		t.Errorf("%d roles, and %d were set", m.ACLs().Roles(), roles)
	}
	checkRefused(t, m, ACLUnset{acl("User:nobody", "t")})
	if unchanged, delta, err := Apply(m, Append(nil, ProducerIDsGiven{Next: 5})); err != nil || delta.Security || unchanged.ACLs() != m.ACLs() {
		t.Errorf("another change makes other ACLs: %v", err)
	}
}

// TestACLsAreComplete proves that no ACL is kept that lacks a value, or has one that only filters have.
func TestACLsAreComplete(t *testing.T) {
	m := secured(t)
	f := func(change func(a *ACL)) {
		t.Helper()
		a := acl("User:alice", "orders")
		change(&a)
		checkRefused(t, m, ACLSet{a})
	}
	f(func(a *ACL) { a.Principal = "alice" })
	f(func(a *ACL) { a.Host = "" })
	f(func(a *ACL) { a.Name = "" })
	f(func(a *ACL) { a.Resource = AnyResource })
	f(func(a *ACL) { a.Resource = 8 })
	f(func(a *ACL) { a.Pattern = MatchPattern })
	f(func(a *ACL) { a.Pattern = 5 })
	f(func(a *ACL) { a.Operation = AnyOperation })
	f(func(a *ACL) { a.Operation = 16 })
	f(func(a *ACL) { a.Operation = AnyRole })
	f(func(a *ACL) { a.Operation = AdminRole + 1 })
	f(func(a *ACL) { a.Operation, a.Permission = ReaderRole, Deny })
	f(func(a *ACL) { a.Permission = AnyPermission })
	f(func(a *ACL) { a.Permission = 4 })
}

// TestRolesNeedTheirLevel proves that a cluster in which an older version could still be takes ACLs, and no roles.
func TestRolesNeedTheirLevel(t *testing.T) {
	m, _, err := Apply(Empty(), Append(nil, LevelSet{Level: LevelIdentity - 1}))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := Apply(m, Append(nil, ACLSet{acl("User:alice", "orders")})); err != nil {
		t.Errorf("an ACL: %v", err)
	}
	checkRefused(t, m, ACLSet{roleOf("User:alice", "orders", ReaderRole)})
}

// TestCredentials proves that a user has the credential that was set last, that images before a change stay as they
// were, and that incomplete credentials are refused.
func TestCredentials(t *testing.T) {
	m := secured(t)
	set := func(c ScramCredential) {
		t.Helper()
		next, delta, err := Apply(m, Append(nil, CredentialSet{c}))
		if err != nil || !delta.Security {
			t.Fatal(err)
		}
		m = next
	}
	set(scramOf("alice", 1))
	before := m
	set(scramOf("alice", 2))
	owner := CredentialOwner{"alice", ScramSHA256}
	if c := before.Credentials().ByOwner[owner]; c.Salt[0] != 1 {
		t.Errorf("the image before has another credential: %v", c.Salt)
	}
	if c := m.Credentials().ByOwner[owner]; c.Salt[0] != 2 {
		t.Errorf("the image has an old credential: %v", c.Salt)
	}
	if !Diff(before, m).Security || Diff(m, m).Security {
		t.Error("the difference of the images is not that of their credentials")
	}
	gone, _, err := Apply(m, Append(nil, CredentialUnset{owner}))
	if err != nil || len(gone.Credentials().ByOwner) != 0 || len(m.Credentials().ByOwner) != 1 {
		t.Errorf("a credential was unset: %v", err)
	}
	if _, _, err := Apply(gone, Append(nil, CredentialUnset{owner})); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a credential is unset that is not there: %v", err)
	}
	for _, change := range []func(c *ScramCredential){
		func(c *ScramCredential) { c.User = "" },
		func(c *ScramCredential) { c.Mechanism = 3 },
		func(c *ScramCredential) { c.Mechanism = ScramSHA512 },
		func(c *ScramCredential) { c.Salt = nil },
		func(c *ScramCredential) { c.ServerKey = c.ServerKey[1:] },
		func(c *ScramCredential) { c.Iterations = 0 },
	} {
		c := scramOf("alice", 1)
		change(&c)
		if _, _, err := Apply(m, Append(nil, CredentialSet{c})); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", c.User, err)
		}
	}
}
