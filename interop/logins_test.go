package interop

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// mechanisms are those that the secured broker has, in the order of docs/compatibility.md.
var mechanisms = []string{byPlain, bySHA256, bySHA512, byToken}

// Error codes of the protocol by which a client is refused.
const (
	topicAuthorizationFailed = 29
	saslAuthenticationFailed = 58
)

// refusalMS is how long a client tries what must fail, if it tries again.
const refusalMS = 3000

// visitors are the clients that log in.
func visitors() []contender { return append(slices.Clone(contenders), formerJava) }

// TestLogins proves that each client logs in by every mechanism that it has, over TLS, with the server's certificate and
// name checked, and with a certificate of its own; that it may do what is granted to it, and is told in its own way of a wrong
// password, a forged token, a topic that is not granted, and a server whose certificate it cannot trust.
func TestLogins(t *testing.T) {
	for _, c := range visitors() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, k := range c.kits {
				k.have(t)
			}
			v := newVisitor(t, c)
			for _, m := range c.loginsBy() {
				t.Run(m, func(t *testing.T) { v.logIn(t, m) })
			}
			t.Run("certificate", v.showCertificate)
			t.Run("stranger", v.meetStranger)
		})
	}
}

// loginsBy are the mechanisms that a client has.
func (c contender) loginsBy() []string {
	return slices.DeleteFunc(slices.Clone(mechanisms), func(m string) bool {
		return slices.Contains(c.can.noLogins, m) || c.can.sendsNonceTwice && runsKafka() && (m == bySHA256 || m == bySHA512)
	})
}

// visitor is a contender at the secured broker.
type visitor struct {
	c contender
	s *secured
	d *driver

	hidden, readable string // topics that it may not see, and not write to
}

func newVisitor(t *testing.T, c contender) visitor {
	t.Helper()
	v := visitor{c: c, s: sharedSecured(t), d: start(t, c.name, c.driver(t)), hidden: topicName(c, "hidden"), readable: topicName(c, "readable")}
	v.s.addClient(t, c.name)
	createTopic(t, v.s.broker, v.hidden, 1, nil)
	createTopic(t, v.s.broker, v.readable, 1, nil)
	return v
}

func (v visitor) logIn(t *testing.T, mechanism string) {
	t.Helper()
	at, l := v.s.at(loginListener), v.s.login(t, v.c.name, mechanism)
	v.move(t, at, l)
	v.overstep(t, at, l)
	a := v.d.ask(t, request{Op: "describe", Addr: at, Topic: v.hidden, Login: v.s.badLogin(t, v.c.name, mechanism), WaitMS: refusalMS})
	v.mustSay(t, a, "a wrong password or token", v.c.can.refusedLogin, `(?i)authenticat`)
}

func (v visitor) showCertificate(t *testing.T) {
	at, l := v.s.at(certListener), v.s.certificate(t, v.s.ours, v.c.name)
	v.move(t, at, l)
	v.overstep(t, at, l)
	for what, wrong := range map[string]*login{"no certificate": {CA: v.s.ours.ca}, "a certificate of another authority": v.s.certificate(t, v.s.other, v.c.name)} {
		a := v.d.ask(t, request{Op: "describe", Addr: at, Topic: v.readable, Login: wrong, WaitMS: refusalMS})
		v.mustSay(t, a, what, v.c.can.refusedCertificate, aboutTLS)
	}
}

// aboutTLS is in each error that tells of a connection that could not be encrypted.
const aboutTLS = `(?i)certif|ssl|tls`

// meetStranger has the client meet servers whose certificates it cannot trust, although they know the password.
func (v visitor) meetStranger(t *testing.T) {
	l := v.s.login(t, v.c.name, byPlain)
	for _, listener := range []string{strangeListener, renamedListener} {
		a := v.d.ask(t, request{Op: "describe", Addr: v.s.at(listener), Topic: v.readable, Login: l, WaitMS: refusalMS})
		v.mustSay(t, a, "the certificate of "+listener, v.c.can.distrusted, aboutTLS)
	}
	if !runsKafka() { // nobody has sent a password to a server with another name
		if n := v.s.metric(t, "leat_logins_total", fmt.Sprintf("listener=%q", renamedListener)); n > 0 {
			t.Errorf("%d logins were tried at %s", n, renamedListener)
		}
	}
	// The first of them is a good one to a client that trusts the other authority.
	l.CA = v.s.other.ca
	v.d.must(t, request{Op: "describe", Addr: v.s.at(strangeListener), Topic: v.readable, Login: l})
}

// move writes records, and reads them again.
func (v visitor) move(t *testing.T, at string, l *login) {
	t.Helper()
	topic := topicName(v.c, "open")
	createTopic(t, v.s.broker, topic, 1, nil)
	var want []record
	for i := range 5 {
		want = append(want, record{Key: []byte("key"), Value: fmt.Appendf(nil, "record %d", i)})
	}
	v.d.must(t, request{
		Op: "produce", Addr: at, Topic: topic, Codec: "none", Acks: "all", Idempotent: !v.c.can.noIdempotence, File: writeRecords(t, want), Login: l,
	})
	q := request{Op: "consume", Addr: at, Topic: topic, Count: len(want), WaitMS: 30_000, File: filepath.Join(t.TempDir(), "consumed"), Login: l}
	v.d.must(t, q)
	got, err := readRecords(q.File)
	if err != nil {
		t.Fatal(err)
	}
	compare(t, v.c.name, want, got, 0)
}

// overstep asks for what is not granted: to know of a topic, and to write to one that may be read.
func (v visitor) overstep(t *testing.T, at string, l *login) {
	t.Helper()
	refused(t, v.d, request{Op: "describe", Addr: at, Topic: v.hidden, Login: l}, append(v.c.can.deniedTopic, topicAuthorizationFailed)...)
	refused(t, v.d, request{
		Op: "produce", Addr: at, Topic: v.readable, Codec: "none", Acks: "all", Idempotent: !v.c.can.noIdempotence,
		File: writeRecords(t, []record{{Value: []byte("not granted")}}), Login: l,
	}, topicAuthorizationFailed)
}

// mustSay proves that a request has failed, and that the client says why: in words of its own, if there are some, or in usual ones.
func (v visitor) mustSay(t *testing.T, a response, what, own, usual string) {
	t.Helper()
	if own != "" {
		usual = own
	}
	if a.OK || !regexp.MustCompile(usual).MatchString(a.Error) {
		t.Errorf("%s: done: %v, error %q (code %d), want one that says %s\n\t%s", what, a.OK, a.Error, a.Code, usual, v.d.said())
	}
}

// TestLoginsAreDocumented proves that docs/compatibility.md has the mechanisms of each client that TestLogins runs, and says who is in
// TestLongConnections.
func TestLoginsAreDocumented(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("..", "docs", "compatibility.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range visitors() {
		cells := []string{"`" + c.name + "`"}
		for _, m := range mechanisms {
			if slices.Contains(c.can.noLogins, m) {
				cells = append(cells, "no")
			} else {
				cells = append(cells, "yes")
			}
		}
		row := "| " + strings.Join(append(cells, "yes"), " | ") + " | yes |"
		if c.can.noFlow {
			row = strings.TrimSuffix(row, " yes |") + " |"
		}
		if !strings.Contains(string(page), row) {
			t.Errorf("docs/compatibility.md has no row that begins with\n%s", row)
		}
	}
}
