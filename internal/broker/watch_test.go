package broker

import (
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/meta"
)

// deniedCode is an error code in an answer that says that the client may not do something.
var deniedCode = regexp.MustCompile(`ErrorCode"?: *(29|30|31|53|65)\b`)

// askPlain sends a request on a connection of its own, and returns the answer as a text.
func (g *rig) askPlain(t *testing.T, req kmsg.Request) string {
	t.Helper()
	c := dial(t, g.addr)
	c.send(req)
	b, err := c.frame()
	if err != nil {
		return closed
	}
	resp := req.ResponseKind()
	if resp.IsFlexible() {
		b = b[1:]
	}
	if err := resp.ReadFrom(b); err != nil {
		t.Fatal(err)
	}
	return plain(t, resp)
}

// TestObservedIsEnough proves, of each API, that nothing is denied while a cluster is secured, but to change ACLs and users; that what would be denied is
// noted; and that the API is served, when ACLs decide, to a client to whom exactly what was noted is granted. So leat acl suggest locks nobody out.
func TestObservedIsEnough(t *testing.T) {
	steps := sortedKeys(walk(t, hiddenTopic, hiddenGroup))
	noted := map[string]bool{}
	for _, step := range steps {
		t.Run(step, func(t *testing.T) {
			var mode atomic.Uint32
			var mu sync.Mutex
			var notes []meta.ACL // guarded by mu
			g := newSecuredRigWith(t, func(c *Config) {
				by := c.Authorizer
				c.Rules = func() Rules { return Rules{by, RulesMode(mode.Load())} }
				c.NotePlain = func(string, string) {}
				c.NoteWouldDeny = func(principal string, op meta.Operation, on meta.ResourceType, name string) {
					mu.Lock()
					defer mu.Unlock()
					notes = append(notes, meta.ACL{Principal: principal, Host: meta.AnyHost, Resource: on, Pattern: meta.LiteralPattern, Name: name, Operation: op, Permission: meta.Allow})
				}
			})
			req := func() kmsg.Request {
				r := walk(t, hiddenTopic, hiddenGroup)[step]
				all := versionsOf(g.broker.findAPI(r.Key()), step)
				r.SetVersion(all[len(all)-1])
				return r
			}
			asked := req()
			first := g.askPlain(t, asked)
			isDenied := deniedCode.MatchString(first)
			if guardsSecurity(asked.Key()) {
				for _, m := range []RulesMode{Open, Observed} {
					mode.Store(uint32(m))
					if got := g.askPlain(t, req()); !deniedCode.MatchString(got) {
						t.Errorf("in mode %d anybody may change ACLs and users: %s", m, got)
					}
				}
				return
			}
			count := func() int {
				mu.Lock()
				defer mu.Unlock()
				return len(notes)
			}
			mode.Store(uint32(Observed))
			if got := g.askPlain(t, req()); deniedCode.MatchString(got) {
				t.Fatalf("it is denied while nothing is: %s", got)
			}
			if isDenied && count() == 0 {
				t.Fatalf("nothing is noted, and ACLs answer %s", first)
			}
			had := count()
			mode.Store(uint32(Open))
			if got := g.askPlain(t, req()); deniedCode.MatchString(got) || count() != had {
				t.Errorf("while it is open: %d notes, %s", count()-had, got)
			}
			for _, a := range notes {
				noted[a.Principal] = true
				if !g.image.Load().ACLs().Has(a) {
					g.apply(meta.ACLSet{ACL: a})
				}
			}
			mode.Store(uint32(Enforced))
			if got := g.askPlain(t, req()); deniedCode.MatchString(got) {
				t.Errorf("with %+v it is denied: %s", notes, got)
			}
		})
	}
	if len(noted) != 1 || !noted["User:ANONYMOUS"] {
		t.Errorf("what was noted is of %v", strings.Join(sortedKeys(noted), ", "))
	}
}
