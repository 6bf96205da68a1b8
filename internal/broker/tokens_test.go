package broker

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"
	saslplain "github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// goldenTokens holds what Apache Kafka 4.3.1 answered to clients with and without delegation tokens.
const goldenTokens = "testdata/kafka-4.3.1-tokens.txt"

// The settings of the brokers of the scripts, of Kafka too.
const (
	tokenSecret      = "a secret key for tests only"
	tokenMaxLifetime = 7 * 24 * time.Hour
	tokenExpiryTime  = 24 * time.Hour
	clusterOfRigs    = "MkU3OEVBNTcwNTJENDM2Qk"
)

// newTokenRig starts a broker whose clients log in, with ACLs, and with delegation tokens unless the key is "".
func newTokenRig(tb testing.TB, secret string, change ...func(*Config)) *rig {
	tb.Helper()
	t, _ := tb.(*testing.T)
	tokens := controller.DelegationConfig{MaxLifetime: tokenMaxLifetime, ExpiryTime: tokenExpiryTime}
	if secret != "" {
		var err error
		if tokens.Key, err = auth.NewTokenKey(secret, clusterOfRigs); err != nil {
			tb.Fatal(err)
		}
	}
	var g *rig
	g = newAdminRig(t, nil, func(c *Config) {
		users := auth.NewUsers(c.Image)
		var known *auth.Tokens
		if tokens.Key != nil {
			known = auth.NewTokens(c.Image, tokens.Key, users)
		}
		passwords := auth.FixedPasswords{}
		for _, name := range []string{"admin", "alice", "bob", "carol", "dave"} {
			passwords[name] = name + "-secret"
		}
		c.Logins = []*Login{NewLogin(LoginConfig{Delay: time.Millisecond, Mechanisms: []auth.Mechanism{
			auth.NewPlain(passwords.Check), auth.NewScram(meta.ScramSHA256, users, known), auth.NewScram(meta.ScramSHA512, users, known),
		}})}
		var err error
		if c.Authorizer, err = auth.New(auth.Config{Image: c.Image, SuperUsers: []auth.Principal{auth.User("admin")}}); err != nil {
			tb.Fatal(err)
		}
		c.Controller = controller.New(controller.Config{Image: c.Image, Static: c.Static, Leading: alwaysLeads, Propose: func(_ context.Context, _ uint64, b []byte) error {
			img, d, err := meta.Apply(c.Image(), b)
			if err != nil {
				return err
			}
			g.image.Store(img)
			g.set.Apply(d, img)
			return nil
		}})
		c.Delegations = controller.NewDelegations(c.Controller, tokens)
		for _, f := range change {
			f(c)
		}
	})
	g.apply(meta.LevelSet{Level: meta.LatestLevel}, meta.SecretSet([32]byte{1}))
	return g
}

// heldToken is a token that a script has been given.
type heldToken struct {
	id   string
	hmac []byte
}

func (h heldToken) password() string { return base64.StdEncoding.EncodeToString(h.hmac) }

// logInAs has a connection's client log in, and returns the outcome.
func (c *client) logInAs(m sasl.Mechanism) string {
	c.t.Helper()
	session, message, err := m.Authenticate(context.Background(), "host")
	if err != nil {
		c.t.Fatal(err)
	}
	if got := ask[*kmsg.SASLHandshakeResponse](c, handshake(1, m.Name())); got.ErrorCode != none {
		return fmt.Sprintf("code %d", got.ErrorCode)
	}
	for {
		c.send(authenticate(2, string(message)))
		b, err := c.frame()
		if err != nil {
			return closed
		}
		resp := kmsg.NewPtrSASLAuthenticateResponse()
		resp.SetVersion(2)
		if err := resp.ReadFrom(b[1:]); err != nil {
			c.t.Fatal(err)
		}
		if resp.ErrorCode != none {
			return fmt.Sprintf("code %d: %s", resp.ErrorCode, *resp.ErrorMessage)
		}
		var done bool
		if done, message, err = session.Challenge(resp.SASLAuthBytes); err != nil {
			return "the client: " + err.Error()
		}
		if done {
			life := "without an end"
			if ms := resp.SessionLifetimeMillis; ms > 0 {
				life = fmt.Sprintf("for %d minutes", int64(math.Round(float64(ms)/60_000)))
			}
			return "logged in " + life
		}
	}
}

// byPassword and byToken are ways to log in.
func byPassword(user string) sasl.Mechanism {
	return saslplain.Auth{User: user, Pass: user + "-secret"}.AsMechanism()
}

func byToken(h heldToken) sasl.Mechanism {
	return scram.Auth{User: h.id, Pass: h.password(), IsToken: true}.AsSha256Mechanism()
}

// tokenStep is one request, or one login, of a script.
type tokenStep struct {
	name string
	as   string // a user, or "token NAME"
	req  func(held map[string]heldToken) kmsg.Request
	// logIn is a login in place of a request.
	logIn   func(held map[string]heldToken) sasl.Mechanism
	keep    string // names the token of the answer
	differs string // why we answer otherwise on purpose
}

func newToken(version int16, change ...func(*kmsg.CreateDelegationTokenRequest)) *kmsg.CreateDelegationTokenRequest {
	req := at(version, kmsg.NewPtrCreateDelegationTokenRequest(), change...)
	return req
}

func tokenOwner(typ, name string) func(*kmsg.CreateDelegationTokenRequest) {
	return func(r *kmsg.CreateDelegationTokenRequest) { r.OwnerPrincipalType, r.OwnerPrincipalName = &typ, &name }
}

func tokenLife(ms int64) func(*kmsg.CreateDelegationTokenRequest) {
	return func(r *kmsg.CreateDelegationTokenRequest) { r.MaxLifetimeMillis = ms }
}

func tokenRenewers(principals ...string) func(*kmsg.CreateDelegationTokenRequest) {
	return func(r *kmsg.CreateDelegationTokenRequest) {
		for _, p := range principals {
			typ, name, _ := strings.Cut(p, ":")
			r.Renewers = append(r.Renewers, kmsg.CreateDelegationTokenRequestRenewer{PrincipalType: typ, PrincipalName: name})
		}
	}
}

func describeTokensOf(version int16, owners ...string) *kmsg.DescribeDelegationTokenRequest {
	req := at(version, kmsg.NewPtrDescribeDelegationTokenRequest())
	if owners == nil {
		return req
	}
	req.Owners = []kmsg.DescribeDelegationTokenRequestOwner{}
	for _, p := range owners {
		typ, name, _ := strings.Cut(p, ":")
		if p != "" {
			req.Owners = append(req.Owners, kmsg.DescribeDelegationTokenRequestOwner{PrincipalType: typ, PrincipalName: name})
		}
	}
	return req
}

func renewal(version int16, hmac []byte, ms int64) *kmsg.RenewDelegationTokenRequest {
	return &kmsg.RenewDelegationTokenRequest{Version: version, HMAC: hmac, RenewTimeMillis: ms}
}

func expiry(version int16, hmac []byte, ms int64) *kmsg.ExpireDelegationTokenRequest {
	return &kmsg.ExpireDelegationTokenRequest{Version: version, HMAC: hmac, ExpiryPeriodMillis: ms}
}

func grant(principal string, op kmsg.ACLOperation, on kmsg.ACLResourceType, name string) *kmsg.CreateACLsRequest {
	return &kmsg.CreateACLsRequest{Version: 3, Creations: []kmsg.CreateACLsRequestCreation{{
		ResourceType: on, ResourceName: name, ResourcePatternType: kmsg.ACLResourcePatternTypeLiteral, Principal: principal, Host: "*", Operation: op, PermissionType: kmsg.ACLPermissionTypeAllow,
	}}}
}

// tokenSteps are the requests of a cluster with delegation tokens.
func tokenSteps() (all []tokenStep) {
	const hour = int64(time.Hour / time.Millisecond)
	add := func(as, name string, req kmsg.Request) *tokenStep {
		all = append(all, tokenStep{name: name, as: as, req: func(map[string]heldToken) kmsg.Request { return req }})
		return &all[len(all)-1]
	}
	with := func(as, name string, req func(held map[string]heldToken) kmsg.Request) *tokenStep {
		all = append(all, tokenStep{name: name, as: as, req: req})
		return &all[len(all)-1]
	}
	logIn := func(name string, m func(held map[string]heldToken) sasl.Mechanism) *tokenStep {
		all = append(all, tokenStep{name: name, logIn: m})
		return &all[len(all)-1]
	}
	for v := int16(1); v <= 3; v++ {
		add("alice", fmt.Sprintf("for oneself v%d", v), newToken(v, tokenLife(-1))).keep = fmt.Sprintf("v%d", v)
	}
	add("alice", "for an hour, with renewers", newToken(3, tokenLife(hour), tokenRenewers("User:bob", "User:carol", "User:bob"))).keep = "hour"
	add("alice", "lifetime 0", newToken(3, tokenLife(0))).keep = "zero"
	add("alice", "the longest lifetime", newToken(3, tokenLife(math.MaxInt64))).keep = "longest"
	add("alice", "a renewer who is no user", newToken(3, tokenRenewers("User:bob", "Group:bob")))
	add("alice", "for oneself by name", newToken(3, tokenOwner("User", "alice"))).keep = "named"
	add("alice", "for oneself by an empty name", newToken(3, tokenOwner("User", ""))).keep = "empty"
	add("alice", "for somebody", newToken(3, tokenOwner("User", "carol")))
	add("alice", "for somebody, and a renewer who is no user", newToken(3, tokenOwner("User", "carol"), tokenRenewers("Group:bob")))
	add("admin", "for somebody as a super user", newToken(3, tokenOwner("User", "carol"))).keep = "carol"
	group := add("admin", "for a group", newToken(3, tokenOwner("Group", "carol")))
	group.keep, group.differs = "group", "The holder of such a token of Kafka is the user of that name. Here it is refused."
	add("admin", "may create for carol", grant("User:alice", kmsg.ACLOperationCreateTokens, kmsg.ACLResourceTypeUser, "User:carol"))
	add("alice", "for somebody, with the permission", newToken(3, tokenOwner("User", "carol"), tokenRenewers("User:dave"))).keep = "other"
	for v := int16(1); v <= 3; v++ {
		add("alice", fmt.Sprintf("all that one may see v%d", v), describeTokensOf(v))
	}
	for _, as := range []string{"bob", "carol", "dave"} {
		add(as, "all that "+as+" may see", describeTokensOf(3))
	}
	add("alice", "of no owner", describeTokensOf(3, ""))
	add("alice", "of oneself", describeTokensOf(3, "User:alice"))
	add("alice", "of somebody", describeTokensOf(3, "User:carol", "User:nobody"))
	add("bob", "of somebody who has renewers", describeTokensOf(2, "User:alice"))
	add("bob", "of another type", describeTokensOf(3, "Group:alice"))
	with("admin", "may describe a token", func(held map[string]heldToken) kmsg.Request {
		return grant("User:bob", kmsg.ACLOperationDescribe, kmsg.ACLResourceTypeDelegationToken, held["v1"].id)
	})
	add("bob", "with DESCRIBE on a token", describeTokensOf(3))
	add("bob", "with DESCRIBE on a token, of somebody else", describeTokensOf(3, "User:dave"))
	add("admin", "may describe tokens of carol", grant("User:bob", kmsg.ACLOperationDescribeTokens, kmsg.ACLResourceTypeUser, "User:carol"))
	add("bob", "with DESCRIBE_TOKENS on a user", describeTokensOf(3))
	change := func(held map[string]heldToken, name string) []byte { return held[name].hmac }
	for v := int16(1); v <= 2; v++ {
		with("alice", fmt.Sprintf("renew v%d", v), func(held map[string]heldToken) kmsg.Request { return renewal(v, change(held, "v1"), 2*hour) })
		with("alice", fmt.Sprintf("expire v%d", v), func(held map[string]heldToken) kmsg.Request { return expiry(v, change(held, "v2"), 3*hour) })
	}
	with("alice", "renew by default", func(held map[string]heldToken) kmsg.Request { return renewal(2, change(held, "v1"), -1) })
	with("alice", "renew by 0", func(held map[string]heldToken) kmsg.Request { return renewal(2, change(held, "v1"), 0) })
	with("alice", "renew for long", func(held map[string]heldToken) kmsg.Request { return renewal(2, change(held, "v1"), 1000*hour) })
	with("bob", "renew as a renewer, past its last end", func(held map[string]heldToken) kmsg.Request { return renewal(2, change(held, "hour"), 5*hour) })
	with("dave", "renew as somebody", func(held map[string]heldToken) kmsg.Request { return renewal(2, change(held, "v1"), hour) })
	with("admin", "renew as a super user", func(held map[string]heldToken) kmsg.Request { return renewal(2, change(held, "v1"), hour) })
	with("alice", "renew as who has asked for it", func(held map[string]heldToken) kmsg.Request { return renewal(2, change(held, "other"), hour) })
	with("dave", "renew what somebody has asked for", func(held map[string]heldToken) kmsg.Request { return renewal(2, change(held, "other"), hour) })
	add("alice", "renew nothing", renewal(2, []byte{}, hour))
	add("alice", "renew an unknown one", renewal(2, []byte("no such secret"), hour))
	with("alice", "renew a part of a secret", func(held map[string]heldToken) kmsg.Request { return renewal(2, change(held, "v1")[:32], hour) })
	with("bob", "expire as a renewer", func(held map[string]heldToken) kmsg.Request { return expiry(2, change(held, "hour"), hour/2) })
	with("dave", "expire as somebody", func(held map[string]heldToken) kmsg.Request { return expiry(2, change(held, "v1"), -1) })
	with("alice", "expire far away", func(held map[string]heldToken) kmsg.Request { return expiry(2, change(held, "v3"), math.MaxInt64) })
	add("alice", "expire an unknown one", expiry(2, []byte("no such secret"), -1))
	logIn("by a token", func(held map[string]heldToken) sasl.Mechanism { return byToken(held["hour"]) })
	logIn("by a token and SHA-512", func(held map[string]heldToken) sasl.Mechanism {
		return scram.Auth{User: held["carol"].id, Pass: held["carol"].password(), IsToken: true}.AsSha512Mechanism()
	})
	logIn("by a wrong secret", func(held map[string]heldToken) sasl.Mechanism {
		return scram.Auth{User: held["hour"].id, Pass: held["v1"].password(), IsToken: true}.AsSha256Mechanism()
	})
	logIn("by a secret without its id", func(held map[string]heldToken) sasl.Mechanism {
		return scram.Auth{User: "alice", Pass: held["v1"].password(), IsToken: true}.AsSha256Mechanism()
	})
	logIn("by a token as a user", func(held map[string]heldToken) sasl.Mechanism {
		return scram.Auth{User: held["hour"].id, Pass: held["hour"].password()}.AsSha256Mechanism()
	})
	logIn("by a token as its owner", func(held map[string]heldToken) sasl.Mechanism {
		return scram.Auth{User: held["hour"].id, Pass: held["hour"].password(), IsToken: true, Zid: "alice"}.AsSha256Mechanism()
	})
	add("token hour", "a token for a token", newToken(3))
	add("token hour", "a token for somebody by a token", newToken(3, tokenOwner("User", "carol")))
	with("token hour", "renew by a token", func(held map[string]heldToken) kmsg.Request { return renewal(2, change(held, "hour"), hour) })
	with("token hour", "expire by a token", func(held map[string]heldToken) kmsg.Request { return expiry(2, change(held, "hour"), -1) })
	add("token hour", "describe by a token", describeTokensOf(3))
	add("token carol", "what the owner may do", grant("User:carol", kmsg.ACLOperationRead, kmsg.ACLResourceTypeTopic, "t"))
	with("alice", "remove", func(held map[string]heldToken) kmsg.Request { return expiry(2, change(held, "v2"), -5) })
	with("alice", "remove again", func(held map[string]heldToken) kmsg.Request { return expiry(2, change(held, "v2"), -5) })
	with("alice", "renew what was removed", func(held map[string]heldToken) kmsg.Request { return renewal(2, change(held, "v2"), hour) })
	logIn("by a token that was removed", func(held map[string]heldToken) sasl.Mechanism { return byToken(held["v2"]) })
	with("alice", "end now", func(held map[string]heldToken) kmsg.Request { return expiry(2, change(held, "zero"), 0) })
	with("alice", "renew what has ended", func(held map[string]heldToken) kmsg.Request { return renewal(2, change(held, "zero"), hour) })
	with("alice", "expire what has ended", func(held map[string]heldToken) kmsg.Request { return expiry(2, change(held, "zero"), hour) })
	with("dave", "renew what has ended as somebody", func(held map[string]heldToken) kmsg.Request { return renewal(2, change(held, "zero"), hour) })
	with("dave", "expire what has ended as somebody", func(held map[string]heldToken) kmsg.Request { return expiry(2, change(held, "zero"), hour) })
	add("alice", "with what has ended", describeTokensOf(3, "User:alice"))
	logIn("by a token that has ended", func(held map[string]heldToken) sasl.Mechanism { return byToken(held["zero"]) }).differs = "Kafka lets it in, and closes the connection at the next request."
	with("alice", "remove what has ended", func(held map[string]heldToken) kmsg.Request { return expiry(2, change(held, "zero"), -1) })
	return all
}

// offSteps are the requests of a cluster without a key.
func offSteps() (all []tokenStep) {
	add := func(as, name string, req kmsg.Request) {
		all = append(all, tokenStep{name: "off: " + name, as: as, req: func(map[string]heldToken) kmsg.Request { return req }})
	}
	for v := int16(1); v <= 3; v++ {
		add("alice", fmt.Sprintf("create v%d", v), newToken(v))
		add("alice", fmt.Sprintf("describe v%d", v), describeTokensOf(v))
	}
	for v := int16(1); v <= 2; v++ {
		add("alice", fmt.Sprintf("renew v%d", v), renewal(v, []byte("x"), 1))
		add("alice", fmt.Sprintf("expire v%d", v), expiry(v, []byte("x"), 1))
	}
	add("alice", "create for somebody", newToken(3, tokenOwner("User", "carol")))
	add("alice", "a renewer who is no user", newToken(3, tokenRenewers("Group:bob")))
	all = append(all, tokenStep{name: "off: by a token", logIn: func(map[string]heldToken) sasl.Mechanism {
		return scram.Auth{User: "alice", Pass: "x", IsToken: true}.AsSha256Mechanism()
	}})
	return all
}

// playTokens plays the steps and returns a section for each. pause is waited for after each step, since Kafka's brokers learn of
// changes later.
func playTokens(t *testing.T, addr string, steps []tokenStep, pause time.Duration) map[string]string {
	t.Helper()
	held := map[string]heldToken{}
	out := map[string]string{}
	clients := map[string]*client{}
	for i := range steps {
		s := &steps[i]
		if s.logIn != nil {
			out[s.name] = dial(t, addr).logInAs(s.logIn(held))
			continue
		}
		c := clients[s.as]
		if c == nil {
			c = dial(t, addr)
			clients[s.as] = c
			m := byPassword(s.as)
			if name, ok := strings.CutPrefix(s.as, "token "); ok {
				m = byToken(held[name])
			}
			if got := c.logInAs(m); !strings.HasPrefix(got, "logged in") {
				t.Fatalf("%s: %s", s.as, got)
			}
		}
		req := s.req(held)
		resp := ask[kmsg.Response](c, req)
		if made, ok := resp.(*kmsg.CreateDelegationTokenResponse); ok && s.keep != "" {
			held[s.keep] = heldToken{made.TokenID, made.HMAC}
		}
		out[s.name] = fmt.Sprintf("%s v%d as %s: %s", kmsg.NameForKey(req.Key()), req.GetVersion(), s.as, describeTokenAnswer(resp, held))
		if pause > 0 {
			waitFor(t, pause)
		}
	}
	return out
}

// describeTokenAnswer is an answer with the names of tokens in place of their ids and secrets, and minutes from now in place of times.
func describeTokenAnswer(resp kmsg.Response, held map[string]heldToken) string {
	now := time.Now().UnixMilli()
	minutes := func(times ...*int64) {
		for _, at := range times {
			if *at > 0 {
				*at = 1_000_000 + int64(math.Round(float64(*at-now)/60_000))
			}
		}
	}
	nameOf := func(id string) string {
		for name, h := range held {
			if h.id == id && id != "" {
				return "<" + name + ">"
			}
		}
		return id
	}
	switch r := resp.(type) {
	case *kmsg.CreateDelegationTokenResponse:
		minutes(&r.IssueTimestamp, &r.ExpiryTimestamp, &r.MaxTimestamp)
		r.TokenID, r.HMAC = nameOf(r.TokenID), secretName(r.TokenID, r.HMAC, held)
	case *kmsg.RenewDelegationTokenResponse:
		minutes(&r.ExpiryTimestamp)
	case *kmsg.ExpireDelegationTokenResponse:
		minutes(&r.ExpiryTimestamp)
	case *kmsg.DescribeDelegationTokenResponse:
		for i := range r.TokenDetails {
			d := &r.TokenDetails[i]
			minutes(&d.IssueTimestamp, &d.ExpiryTimestamp, &d.MaxTimestamp)
			d.HMAC = secretName(d.TokenID, d.HMAC, held)
			d.TokenID = nameOf(d.TokenID)
		}
		slices.SortFunc(r.TokenDetails, func(a, b kmsg.DescribeDelegationTokenResponseTokenDetail) int {
			return cmp.Compare(a.TokenID, b.TokenID)
		})
	}
	return kafkasDump.ReplaceAllString(asJSON(resp), "Cluster authorization failed.")
}

// secretName is what stands for a secret: that it is the one which its token was made with.
func secretName(id string, hmac []byte, held map[string]heldToken) []byte {
	for _, h := range held {
		if h.id == id && string(h.hmac) == string(hmac) && len(hmac) == 64 {
			return []byte("right")
		}
	}
	return hmac
}

// TestTokenAnswersAreKafkas proves that requests about delegation tokens, and logins with them, get the answers that Apache Kafka 4.3.1 gave
// them, which are kept in testdata. With LEAT_TEST_KAFKA_TOKENS, the addresses of a Kafka with the key and the users of the
// scripts, and of one without a key, it proves too that the record is Kafka's.
func TestTokenAnswersAreKafkas(t *testing.T) {
	record, err := os.ReadFile(goldenTokens)
	if err != nil && !*recordKafka {
		t.Fatal(err)
	}
	format := func(steps []tokenStep, out map[string]string) string {
		var b strings.Builder
		for i := range steps {
			fmt.Fprintf(&b, "## %s\n%s\n\n", steps[i].name, out[steps[i].name])
		}
		return b.String()
	}
	if addrs := os.Getenv("LEAT_TEST_KAFKA_TOKENS"); addrs != "" {
		with, without, _ := strings.Cut(addrs, ",")
		const pause = 300 * time.Millisecond
		theirs := format(tokenSteps(), playTokens(t, with, tokenSteps(), pause)) + format(offSteps(), playTokens(t, without, offSteps(), 0))
		if *recordKafka {
			if err := os.WriteFile(goldenTokens, []byte(theirs), 0o644); err != nil {
				t.Fatal(err)
			}
			record = []byte(theirs)
		}
		if d := gocmp.Diff(sections(string(record)), sections(theirs)); d != "" {
			t.Errorf("Kafka answers otherwise than recorded: %s", d)
		}
	}
	want := sections(string(record))
	on, off := newTokenRig(t, tokenSecret), newTokenRig(t, "")
	for _, series := range []struct {
		addr  string
		steps []tokenStep
	}{{on.addr, tokenSteps()}, {off.addr, offSteps()}} {
		got := playTokens(t, series.addr, series.steps, 2*time.Millisecond) // a token ends a millisecond after its end
		for i := range series.steps {
			s := &series.steps[i]
			if isSame := strings.TrimSpace(want[s.name]) == got[s.name]; isSame == (s.differs != "") {
				t.Errorf("%s (-kafka +ours)\n- %s\n+ %s", s.name, strings.TrimSpace(want[s.name]), got[s.name])
			}
		}
	}
	if len(want) != len(tokenSteps())+len(offSteps()) {
		t.Error("the series of requests is not the one recorded: record it again")
	}
}

// give has alice be given a token.
func (g *rig) give(t *testing.T, change ...func(*kmsg.CreateDelegationTokenRequest)) heldToken {
	t.Helper()
	c := dial(t, g.addr)
	c.logInAs(byPassword("alice"))
	made := ask[*kmsg.CreateDelegationTokenResponse](c, newToken(3, change...))
	if made.ErrorCode != none {
		t.Fatalf("code %d", made.ErrorCode)
	}
	return heldToken{made.TokenID, made.HMAC}
}

// isServed tells whether a connection is still served.
func (c *client) isServed() bool {
	return c.outcomeOfLogin(&kmsg.ListOffsetsRequest{Version: 1, ReplicaID: -1}, nil) != closed
}

// TestSessionsEndWithTheirTokens proves that the session of a client which has logged in with a token ends when the token is removed or gets
// an earlier end, also if it has no other reason to end, that other changes of tokens do not end it, and that no login with
// such a token succeeds again, a further login on the connection included.
func TestSessionsEndWithTheirTokens(t *testing.T) {
	g := newTokenRig(t, tokenSecret)
	owner := dial(t, g.addr)
	owner.logInAs(byPassword("alice"))
	open := func(h heldToken) *client {
		t.Helper()
		c := dial(t, g.addr)
		if got := c.logInAs(byToken(h)); got != "logged in for 1440 minutes" || !c.isServed() {
			t.Fatal(got)
		}
		return c
	}
	removed, ended, renewed := g.give(t), g.give(t), g.give(t)
	byRemoved, byEnded, byRenewed := open(removed), open(ended), open(renewed)
	if got := ask[*kmsg.RenewDelegationTokenResponse](owner, renewal(2, renewed.hmac, 100_000)); got.ErrorCode != none {
		t.Fatalf("%+v", got)
	}
	if got := ask[*kmsg.ExpireDelegationTokenResponse](owner, expiry(2, ended.hmac, 0)); got.ErrorCode != none {
		t.Fatalf("%+v", got)
	}
	waitFor(t, 5*time.Millisecond)
	if byEnded.isServed() || !byRemoved.isServed() || !byRenewed.isServed() {
		t.Error("another session than that of the token which has ended is over, or that one is not")
	}
	if got := ask[*kmsg.ExpireDelegationTokenResponse](owner, expiry(2, removed.hmac, -1)); got.ErrorCode != none {
		t.Fatalf("%+v", got)
	}
	if byRemoved.isServed() || !byRenewed.isServed() || !owner.isServed() {
		t.Error("another session than that of the token which was removed is over, or that one is not")
	}
	const refused = "code 58: Authentication failed during authentication due to invalid credentials with SASL mechanism SCRAM-SHA-256"
	for _, h := range []heldToken{removed, ended, {meta.NewUUID().String(), removed.hmac}} {
		if got := dial(t, g.addr).logInAs(byToken(h)); got != refused {
			t.Errorf("a login with a token that there is not: %s", got)
		}
	}
	waitFor(t, leastAgain)
	if got := byRenewed.logInAs(byToken(renewed)); got != "logged in for 2 minutes" || !byRenewed.isServed() {
		t.Errorf("another login with the token: %s", got)
	}
	waitFor(t, leastAgain)
	if got := ask[*kmsg.ExpireDelegationTokenResponse](owner, expiry(2, renewed.hmac, -1)); got.ErrorCode != none {
		t.Fatalf("%+v", got)
	}
	if got := byRenewed.logInAs(byToken(renewed)); !strings.HasPrefix(got, "code 58") || byRenewed.isServed() {
		t.Errorf("another login with a token that was removed: %s", got)
	}
}

// TestTokenOfAnotherKey proves that a token which was made with another key is known on this node, but nobody can log in with it, and its secret is
// not shown.
func TestTokenOfAnotherKey(t *testing.T) {
	g := newTokenRig(t, tokenSecret)
	h := g.give(t)
	tok := *g.image.Load().DelegationTokens().Sorted()[0]
	foreign := tok
	foreign.ID, foreign.KeyCheck = meta.NewUUID(), tok.KeyCheck+1
	g.apply(meta.DelegationTokenMade{DelegationToken: foreign})
	other := heldToken{foreign.ID.String(), g.broker.cfg.Delegations.Key().HMAC(foreign.ID)}
	if got := dial(t, g.addr).logInAs(byToken(other)); !strings.HasPrefix(got, "code 58") {
		t.Errorf("a login with the secret of this node's key: %s", got)
	}
	c := dial(t, g.addr)
	c.logInAs(byPassword("alice"))
	list := ask[*kmsg.DescribeDelegationTokenResponse](c, describeTokensOf(3)).TokenDetails
	if len(list) != 2 {
		t.Fatalf("%d tokens", len(list))
	}
	for _, d := range list {
		if isOwn := d.TokenID == h.id; isOwn != (len(d.HMAC) == 64) {
			t.Errorf("token %s has a secret of %d bytes", d.TokenID, len(d.HMAC))
		}
	}
	if got := ask[*kmsg.RenewDelegationTokenResponse](c, renewal(2, other.hmac, 1000)); got.ErrorCode != 62 {
		t.Errorf("%+v", got)
	}
}

// TestTokensNeedTheirLevel proves that a cluster of an earlier level makes no token, whoever asks, and that the active controller of an earlier
// version is not asked.
func TestTokensNeedTheirLevel(t *testing.T) {
	for secret, code := range map[string]int16{tokenSecret: 35, "": 61} {
		g := newTokenRig(t, secret, func(c *Config) {
			c.Cluster = &reached{leader: 2, forward: func(context.Context, *wire.Carried, func(context.Context) error) ([]byte, error) {
				t.Error("another node is asked")
				return nil, context.DeadlineExceeded
			}}
		})
		m, _, err := meta.Apply(meta.Empty(), meta.Append(nil, meta.LevelSet{Level: meta.LevelIdentity - 1}))
		if err != nil {
			t.Fatal(err)
		}
		g.image.Store(m)
		c := dial(t, g.addr)
		c.logInAs(byPassword("alice"))
		created := ask[*kmsg.CreateDelegationTokenResponse](c, newToken(3)).ErrorCode
		renewed := ask[*kmsg.RenewDelegationTokenResponse](c, renewal(2, []byte("x"), 1)).ErrorCode
		expired := ask[*kmsg.ExpireDelegationTokenResponse](c, expiry(2, []byte("x"), 1)).ErrorCode
		if created != code || renewed != code || expired != code || g.image.Load().DelegationTokens().Len() != 0 {
			t.Errorf("codes %d, %d and %d", created, renewed, expired)
		}
	}
}

// TestForwardedTokens proves that the node which a client has asked tells the active controller who the client is and whether it may have
// tokens, and refuses by itself who may not; and that the active controller believes neither a client of which it was not told that, nor an
// owner that it may not ask for.
func TestForwardedTokens(t *testing.T) {
	var mu sync.Mutex
	var told []wire.Carried // guarded by mu
	g := newTokenRig(t, tokenSecret, func(c *Config) {
		c.Cluster = &reached{leader: 2, forward: func(_ context.Context, q *wire.Carried, _ func(context.Context) error) ([]byte, error) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, *q)
			return nil, context.DeadlineExceeded
		}}
	})
	now, id := time.Now().UnixMilli(), meta.NewUUID()
	g.apply(meta.DelegationTokenMade{DelegationToken: meta.DelegationToken{
		ID: id, Owner: "User:alice", Requester: "User:alice", Issued: now, MaxTime: now + 1e9, Expires: now + 1e9, KeyCheck: g.broker.cfg.Delegations.Key().Check(),
	}})
	h := heldToken{id.String(), g.broker.cfg.Delegations.Key().HMAC(id)}
	byAlice, byHer := dial(t, g.addr), dial(t, g.addr)
	byAlice.logInAs(byPassword("alice"))
	byHer.logInAs(byToken(h))
	for c, code := range map[*client]int16{byAlice: 7, byHer: 64} {
		if got := ask[*kmsg.CreateDelegationTokenResponse](c, newToken(3)); got.ErrorCode != code || got.PrincipalName != "alice" {
			t.Errorf("%+v", got)
		}
		if got := ask[*kmsg.RenewDelegationTokenResponse](c, renewal(2, h.hmac, 1)); got.ErrorCode != code {
			t.Errorf("%+v", got)
		}
		if got := ask[*kmsg.ExpireDelegationTokenResponse](c, expiry(2, h.hmac, -1)); got.ErrorCode != code {
			t.Errorf("%+v", got)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for _, q := range told {
		if q.Principal != "User:alice" || !q.MayHaveToken || q.IsPeer {
			t.Errorf("the active controller is told %+v", q)
		}
	}
	if len(told) != 3 {
		t.Errorf("%d requests are sent on", len(told))
	}
	f := func(asker tokenAsker, owner string, want *int16) {
		t.Helper()
		by := g.broker.accessOf(g.broker.rules(), asker.principal, nil, "127.0.0.1")
		req := newToken(3, tokenOwner("User", owner))
		got := refuseNewToken(&by, asker, req)
		if (got == nil) != (want == nil) || got != nil && got.Code != *want {
			t.Errorf("%+v for %s: %v", asker, owner, got)
		}
	}
	f(tokenAsker{auth.User("alice"), true, false}, "", nil)
	f(tokenAsker{auth.User("alice"), false, false}, "", new(int16(64)))
	f(tokenAsker{auth.User("alice"), true, false}, "bob", new(int16(65)))
	f(tokenAsker{auth.User("admin"), true, false}, "bob", nil)
	f(tokenAsker{auth.User("admin"), false, false}, "bob", new(int16(64)))
	f(tokenAsker{auth.User("alice"), true, true}, "", new(int16(64)))
	f(tokenAsker{auth.User("admin"), true, true}, "bob", new(int16(64)))
}

// TestTokenPermissions proves that each permission of the rows of the table for delegation tokens is enough for what others own, that without
// any of them nothing is made or shown, and that no other permission helps.
func TestTokenPermissions(t *testing.T) {
	g := newTokenRig(t, tokenSecret)
	h := g.give(t)
	c := dial(t, g.addr)
	c.logInAs(byPassword("bob"))
	permit := func(op meta.Operation, on meta.ResourceType, name string) {
		t.Helper()
		g.apply(meta.ACLSet{ACL: meta.ACL{
			Principal: "User:bob", Host: meta.AnyHost, Resource: on, Pattern: meta.LiteralPattern, Name: name, Operation: op, Permission: meta.Allow,
		}})
	}
	create := func() bool {
		t.Helper()
		switch got := ask[*kmsg.CreateDelegationTokenResponse](c, newToken(3, tokenOwner("User", "carol"))); got.ErrorCode {
		case none:
			return true
		case 65:
			return false
		default:
			t.Fatalf("code %d", got.ErrorCode)
		}
		return false
	}
	sees := func() bool {
		t.Helper()
		got := ask[*kmsg.DescribeDelegationTokenResponse](c, describeTokensOf(3, "User:alice"))
		if got.ErrorCode != none {
			t.Fatalf("code %d", got.ErrorCode)
		}
		return len(got.TokenDetails) > 0
	}
	for _, typ := range []meta.ResourceType{meta.TopicResource, meta.GroupResource, meta.ClusterResource, meta.TransactionalIDResource} {
		permit(meta.AllOperations, typ, meta.AnyName)
	}
	permit(meta.AllOperations, meta.UserResource, "alice") // not its name: that has the type in front
	permit(meta.DescribeTokens, meta.UserResource, "User:carol")
	permit(meta.CreateTokens, meta.UserResource, "User:alice")
	permit(meta.Describe, meta.DelegationTokenResource, "another")
	if create() || sees() {
		t.Error("a token of somebody else without a permission")
	}
	permit(meta.CreateTokens, meta.UserResource, "User:carol")
	if !create() || sees() {
		t.Error("CREATE_TOKENS does not let create, or lets see")
	}
	permit(meta.Describe, meta.DelegationTokenResource, h.id)
	if !sees() {
		t.Error("DESCRIBE on the token does not show it")
	}
	g.revokeAll()
	if create() || sees() {
		t.Error("permissions that were revoked")
	}
	permit(meta.DescribeTokens, meta.UserResource, "User:alice")
	if create() || !sees() {
		t.Error("DESCRIBE_TOKENS on the owner does not show it, or lets create")
	}
}
