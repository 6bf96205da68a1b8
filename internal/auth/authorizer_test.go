package auth

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/leatstream/leat/internal/meta"
)

// world is an authorizer with an image that a test changes.
type world struct {
	tb    testing.TB
	image *meta.Image
	*Authorizer
}

func newWorld(tb testing.TB, change ...func(*Config)) *world {
	tb.Helper()
	w := &world{tb: tb, image: meta.Empty()}
	w.apply(meta.LevelSet{Level: meta.LatestLevel})
	cfg := Config{Image: func() *meta.Image { return w.image }}
	for _, f := range change {
		f(&cfg)
	}
	var err error
	if w.Authorizer, err = New(cfg); err != nil {
		tb.Fatal(err)
	}
	return w
}

func (w *world) apply(records ...meta.Record) {
	w.tb.Helper()
	var entry []byte
	for _, r := range records {
		entry = meta.Append(entry, r)
	}
	next, _, err := meta.Apply(w.image, entry)
	if err != nil {
		w.tb.Fatal(err)
	}
	w.image = next
}

// naive decides by the rules as Kafka's documentation has them, one ACL after the other.
func (w *world) naive(principal, host string, op meta.Operation, r Resource) bool {
	if w.supers[principal] {
		return true
	}
	allowed, ruled := false, false
	for a := range w.image.ACLs().All() {
		fits := a.Resource == r.Type
		if a.Pattern == meta.PrefixedPattern {
			fits = fits && strings.HasPrefix(r.Name, a.Name)
		} else {
			fits = fits && (a.Name == r.Name || a.Name == "*")
		}
		if !fits {
			continue
		}
		ruled = true
		if a.Principal != principal && a.Principal != "User:*" || a.Host != "*" && a.Host != host {
			continue
		}
		same := a.Operation == op || a.Operation == meta.AllOperations
		if a.Permission == meta.Deny {
			if same {
				return false
			}
			continue
		}
		if op == meta.Describe {
			same = same || slices.Contains([]meta.Operation{meta.Read, meta.Write, meta.DeleteOperation, meta.Alter}, a.Operation)
		}
		if op == meta.DescribeConfigs && a.Operation == meta.AlterConfigs {
			same = true
		}
		allowed = allowed || same
	}
	return allowed || !ruled && w.cfg.AllowUnruled
}

// randomACL draws from few values, so that many of them meet.
func randomACL(rnd *rand.Rand) meta.ACL {
	return meta.ACL{
		Principal: []string{"User:a", "User:b", "User:*", "Group:a"}[rnd.IntN(4)], Host: []string{"*", "*", "10.0.0.1", "::1"}[rnd.IntN(4)],
		Resource: []meta.ResourceType{meta.TopicResource, meta.GroupResource}[rnd.IntN(2)],
		Pattern:  []meta.PatternType{meta.LiteralPattern, meta.PrefixedPattern}[rnd.IntN(2)], Name: randomName(rnd, true),
		Operation: meta.AllOperations + meta.Operation(rnd.IntN(14)), Permission: []meta.Permission{meta.Deny, meta.Allow, meta.Allow}[rnd.IntN(3)],
	}
}

func randomName(rnd *rand.Rand, star bool) string {
	if star && rnd.IntN(6) == 0 {
		return "*"
	}
	n := make([]byte, 1+rnd.IntN(4))
	for i := range n {
		n[i] = "ab"[rnd.IntN(2)]
	}
	return string(n)
}

// TestAuthorizerIsKafkas proves that the compiled rules decide as the ACLs do one by one, for all kinds of patterns, also
// while ACLs come and go, that an explanation names an ACL that says so, and that a session that remembers says the
// same.
func TestAuthorizerIsKafkas(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 7))
	allowed, denied := 0, 0
	for round := range 60 {
		w := newWorld(t, func(c *Config) {
			c.SuperUsers, c.AllowUnruled = []Principal{{"User", "root"}}, round%2 == 0
		})
		sessions := map[string]*Session{}
		for range 60 {
			if a := randomACL(rnd); w.image.ACLs().Has(a) {
				w.apply(meta.ACLUnset{ACL: a})
			} else {
				w.apply(meta.ACLSet{ACL: a})
			}
			for range 20 {
				p, _ := ParsePrincipal([]string{"User:a", "User:b", "User:c", "Group:a", "User:root", "User:*"}[rnd.IntN(6)])
				host := []string{"10.0.0.1", "10.0.0.2", "::1"}[rnd.IntN(3)]
				r := Resource{[]meta.ResourceType{meta.TopicResource, meta.GroupResource}[rnd.IntN(2)], randomName(rnd, true)}
				op := meta.Read + meta.Operation(rnd.IntN(13))
				c := NewClient(p, host)
				want := w.naive(p.String(), host, op, r)
				if got := w.Allows(c, op, r); got != want {
					t.Fatalf("%v from %s, %s of %v: %v, and by the ACLs %v", p, host, OperationName(op), r, got, want)
				}
				if d := w.Explain(c, op, r); d.Allowed != want || d.By != nil && d.By.Permission == meta.Allow != want {
					t.Fatalf("%v from %s, %s of %v: explained by %s, and by the ACLs %v", p, host, OperationName(op), r, d.String(), want)
				}
				key := p.String() + " from " + host
				if sessions[key] == nil {
					s := w.NewSession(c)
					sessions[key] = &s
				}
				if got, again := sessions[key].Allows(op, r), sessions[key].AllowsName(op, r.Type, []byte(r.Name)); got != want || again != want {
					t.Fatalf("%v from %s, %s of %v: a session says %v, %v, and by the ACLs %v", p, host, OperationName(op), r, got, again, want)
				}
				if want {
					allowed++
				} else {
					denied++
				}
			}
		}
	}
	if allowed < 5000 || denied < 5000 {
		t.Errorf("%d times allowed, %d times denied", allowed, denied)
	}
}

// TestHosts proves that an address is the same however it is written.
func TestHosts(t *testing.T) {
	w := newWorld(t)
	for _, host := range []string{"0:0:0:0:0:0:0:1", "10.1.1.1"} {
		w.apply(meta.ACLSet{ACL: meta.ACL{
			Principal: "User:a", Host: host, Resource: meta.TopicResource, Pattern: meta.LiteralPattern, Name: "t", Operation: meta.Read, Permission: meta.Allow,
		}})
	}
	for host, want := range map[string]bool{"::1": true, "10.1.1.1": true, "::ffff:10.1.1.1": true, "10.1.1.2": false, "": false} {
		if got := w.Allows(NewClient(User("a"), host), meta.Read, Resource{meta.TopicResource, "t"}); got != want {
			t.Errorf("from %q: %v", host, got)
		}
	}
}

// TestPrincipals proves that principals are read as Kafka reads them.
func TestPrincipals(t *testing.T) {
	f := func(list string, want ...Principal) {
		t.Helper()
		got, err := ParsePrincipals(list)
		if fmt.Sprint(got) != fmt.Sprint(want) || (err != nil) != (want == nil && list != "") {
			t.Errorf("%q: %v, %v", list, got, err)
		}
	}
	f("")
	f("User:a", User("a"))
	f(" User:CN=a,O=b ; Group:x;", User("CN=a,O=b"), Principal{"Group", "x"})
	f("User:a:b", User("a:b"))
	f("a")
	f("User:")
	f("User:a;b")
}

// TestSessionsForget proves that what a session remembers is bounded.
func TestSessionsForget(t *testing.T) {
	w := newWorld(t)
	s := w.NewSession(NewClient(User("a"), "::1"))
	for i := range 2000 {
		s.Allows(meta.Read, Resource{meta.TopicResource, fmt.Sprint(strings.Repeat("x", i%300), i)})
		if len(s.known) > mostRemembered || s.bytes > mostNameBytes {
			t.Fatalf("%d names with %d bytes", len(s.known), s.bytes)
		}
	}
}

// TestSessionsAskOnceForAny proves that a session looks at all ACLs of its client once for one question, however often it is asked, and again
// when they have changed.
func TestSessionsAskOnceForAny(t *testing.T) {
	w := newWorld(t)
	allows := meta.ACL{Principal: "User:a", Host: "*", Resource: meta.TopicResource, Pattern: meta.LiteralPattern, Name: "t", Operation: meta.Write, Permission: meta.Allow}
	s := w.NewSession(NewClient(User("a"), "::1"))
	ask := func() bool { return s.AllowsAny(meta.Write, meta.TopicResource) }
	for range 2 {
		if ask() {
			t.Error("nothing is allowed, and something is")
		}
	}
	w.apply(meta.ACLSet{ACL: allows})
	if !ask() || s.AllowsAny(meta.Read, meta.TopicResource) || s.AllowsAny(meta.Write, meta.GroupResource) {
		t.Error("another answer than the ACL's")
	}
	if n := testing.AllocsPerRun(100, func() { ask() }); n != 0 {
		t.Errorf("the ACLs are looked at again: %v allocations", n)
	}
	w.apply(meta.ACLUnset{ACL: allows})
	if ask() {
		t.Error("what was allowed is remembered")
	}
}

// TestLongNamesAreCheap proves that a name which is longer than all prefixes of ACLs is looked up by no more of its beginnings than there
// are lengths of prefixes: the work for a name of 32 KiB would else be the hash of half a gigabyte (BenchmarkUnruled).
func TestLongNamesAreCheap(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.AllowUnruled = true })
	prefixed := meta.ACL{Principal: "User:b", Host: "*", Resource: meta.GroupResource, Pattern: meta.PrefixedPattern, Name: "team", Operation: meta.Read, Permission: meta.Allow}
	w.apply(meta.ACLSet{ACL: prefixed})
	for name, want := range map[string]bool{"tea": true, "team": false, "team" + strings.Repeat("x", 32<<10): false, strings.Repeat("x", 32<<10): true} {
		if got := w.Allows(NewClient(User("a"), "::1"), meta.Read, Resource{meta.GroupResource, name}); got != want {
			t.Errorf("%.10s...: %v", name, got)
		}
	}
	if n := w.ruled.Load().longest; n != len("team") {
		t.Errorf("beginnings of %d bytes are looked up", n)
	}
}

// BenchmarkUnruled checks a long name that no ACL is about, which is allowed then.
func BenchmarkUnruled(b *testing.B) {
	w := newWorld(b, func(c *Config) { c.AllowUnruled = true })
	w.apply(meta.ACLSet{ACL: meta.ACL{Principal: "User:b", Host: "*", Resource: meta.GroupResource, Pattern: meta.PrefixedPattern, Name: "team", Operation: meta.Read, Permission: meta.Allow}})
	c, r := NewClient(User("a"), "::1"), Resource{meta.GroupResource, strings.Repeat("x", 32<<10-1)}
	for b.Loop() {
		if !w.Allows(c, meta.Read, r) {
			b.Fatal("denied")
		}
	}
}

// BenchmarkAny asks for any topic, with 100,000 ACLs of the client, of the authorizer and of a session.
func BenchmarkAny(b *testing.B) {
	w, c, _ := benchWorld(b, "names")
	s := w.NewSession(c)
	for name, ask := range map[string]func() bool{
		"authorizer": func() bool { return w.AllowsAny(c, meta.Write, meta.TopicResource) },
		"session":    func() bool { return s.AllowsAny(meta.Write, meta.TopicResource) },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if ask() {
					b.Fatal("allowed")
				}
			}
		})
	}
}

// benchWorld has 100,000 ACLs in the form that a benchmark names, and a check that one of them allows.
func benchWorld(b *testing.B, form string) (*world, Client, Resource) {
	b.Helper()
	w := newWorld(b)
	const n = 100_000
	records := make([]meta.Record, n)
	for i := range records {
		a := meta.ACL{
			Principal: "User:alice", Host: "*", Resource: meta.TopicResource, Pattern: meta.LiteralPattern, Name: fmt.Sprintf("team.%05d.topic", i),
			Operation: meta.Read, Permission: meta.Allow,
		}
		switch form {
		case "prefixes":
			a.Pattern = meta.PrefixedPattern
		case "users":
			a.Principal, a.Name = fmt.Sprint("User:", i/10), fmt.Sprint("topic", i%10)
		case "wildcard user":
			a.Principal = meta.AnyPrincipal
		}
		records[i] = meta.ACLSet{ACL: a}
	}
	w.apply(records...)
	if form == "users" {
		return w, NewClient(User("5000"), "10.0.0.1"), Resource{meta.TopicResource, "topic5"}
	}
	return w, NewClient(User("alice"), "10.0.0.1"), Resource{meta.TopicResource, "team.50000.topic"}
}

// BenchmarkCheck checks one resource among 100,000 ACLs, without a memory of the check before.
func BenchmarkCheck(b *testing.B) {
	for _, form := range []string{"names", "prefixes", "users", "wildcard user"} {
		b.Run(form, func(b *testing.B) {
			w, c, r := benchWorld(b, form)
			if !w.Allows(c, meta.Read, r) || w.Allows(c, meta.Write, r) {
				b.Fatal("the ACLs say something else")
			}
			for b.Loop() {
				w.Allows(c, meta.Read, r)
			}
		})
	}
}

// BenchmarkSession checks a resource that was checked before, as each produce request does.
func BenchmarkSession(b *testing.B) {
	w, c, r := benchWorld(b, "prefixes")
	s, name := w.NewSession(c), []byte(r.Name)
	for b.Loop() {
		if !s.AllowsName(meta.Read, r.Type, name) {
			b.Fatal("denied")
		}
	}
}

// TestAnyResource proves when a client may do something with at least one resource of a type: some ACL allows it, and no other one
// denies all that it allows.
func TestAnyResource(t *testing.T) {
	write := func(pattern meta.PatternType, name string, p meta.Permission) meta.ACL {
		return meta.ACL{Principal: "User:a", Host: "*", Resource: meta.TopicResource, Pattern: pattern, Name: name, Operation: meta.Write, Permission: p}
	}
	const literal, prefixed = meta.LiteralPattern, meta.PrefixedPattern
	f := func(want bool, acls ...meta.ACL) {
		t.Helper()
		w := newWorld(t, func(c *Config) { c.SuperUsers = []Principal{User("root")} })
		for _, a := range acls {
			w.apply(meta.ACLSet{ACL: a})
		}
		if got := w.AllowsAny(NewClient(User("a"), "::1"), meta.Write, meta.TopicResource); got != want {
			t.Errorf("%v: %v", acls, got)
		}
		if w.AllowsAny(NewClient(User("a"), "::1"), meta.Write, meta.GroupResource) || !w.AllowsAny(NewClient(User("root"), "::1"), meta.Write, meta.TopicResource) {
			t.Errorf("%v: another type, or a super user", acls)
		}
	}
	f(false)
	f(true, write(literal, "t", meta.Allow))
	f(false, write(literal, "t", meta.Allow), write(literal, "t", meta.Deny))
	f(true, write(literal, "t", meta.Allow), write(literal, "u", meta.Deny))
	f(false, write(literal, "tea", meta.Allow), write(prefixed, "te", meta.Deny))
	f(true, write(prefixed, "t", meta.Allow), write(prefixed, "te", meta.Deny))
	f(true, write(prefixed, "t", meta.Allow), write(literal, "t", meta.Deny))
	f(false, write(prefixed, "te", meta.Allow), write(prefixed, "t", meta.Deny))
	f(true, write(literal, "*", meta.Allow), write(prefixed, "t", meta.Deny))
	f(false, write(literal, "*", meta.Allow), write(literal, "*", meta.Deny))
	f(false, write(prefixed, "t", meta.Allow), write(literal, "*", meta.Deny))
}
