package broker

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/meta"
)

// goldenLogin holds what Apache Kafka 4.3.1 answered to clients that log in, or do not.
const goldenLogin = "testdata/kafka-4.3.1-login.txt"

// The users of the scripts.
const (
	aliceName, alicePassword = "alice", "alice-secret"
	bobName, bobPassword     = "bob", "bob-secret"
)

// shortLifetime is the lifetime of sessions on the listener where clients must log in again.
const shortLifetime = 1500 * time.Millisecond

// newLoginRig starts a broker whose clients must log in; most is how long a login lasts, 0: as long as the connection.
func newLoginRig(tb testing.TB, most time.Duration, change ...func(*LoginConfig)) *rig {
	tb.Helper()
	g := newRig(tb, func(c *Config) {
		users := auth.NewUsers(c.Image)
		cfg := LoginConfig{
			Mechanisms: []auth.Mechanism{
				auth.NewPlain(auth.FixedPasswords{aliceName: alicePassword, bobName: bobPassword}.Check),
				auth.NewScram(meta.ScramSHA256, users, nil),
			},
			MaxLifetime: map[string]time.Duration{"PLAIN": most, "SCRAM-SHA-256": most},
		}
		for _, f := range change {
			f(&cfg)
		}
		c.Logins = []*Login{NewLogin(cfg)}
	})
	g.apply(meta.LevelSet{Level: meta.LatestLevel}, meta.SecretSet([32]byte{1}))
	for user, password := range map[string]string{aliceName: alicePassword, bobName: bobPassword} {
		c, err := auth.NewCredential(meta.CredentialOwner{User: user, Mechanism: meta.ScramSHA256}, password, auth.MinIterations)
		if err != nil {
			tb.Fatal(err)
		}
		g.apply(meta.CredentialSet{ScramCredential: c})
	}
	return g
}

func handshake(version int16, mechanism string) *kmsg.SASLHandshakeRequest {
	return &kmsg.SASLHandshakeRequest{Version: version, Mechanism: mechanism}
}

func authenticate(version int16, message string) *kmsg.SASLAuthenticateRequest {
	return &kmsg.SASLAuthenticateRequest{Version: version, SASLAuthBytes: []byte(message)}
}

func plainOf(user, password string) string { return "\x00" + user + "\x00" + password }

// token is a message of a mechanism without a header.
type token string

// scramOf are the two messages of SCRAM-SHA-256. Each is a function of the server's last message.
func scramOf(tb testing.TB, user, password string) []any {
	tb.Helper()
	var client sasl.Session
	return []any{
		func([]byte) string {
			c, first, err := scram.Auth{User: user, Pass: password}.AsSha256Mechanism().Authenticate(context.Background(), "")
			if err != nil {
				tb.Fatal(err)
			}
			client = c
			return string(first)
		},
		func(challenge []byte) string {
			_, final, err := client.Challenge(challenge)
			if err != nil { // it was refused
				return "c=biws,r=nonce,p=AAAA"
			}
			return string(final)
		},
	}
}

// loginScript is what a client sends on a connection of its own: requests, tokens, functions of SCRAM, and untilClosed.
type loginScript struct {
	name     string
	sends    []any
	repeated bool   // on the listener where clients must log in again
	differs  string // why we answer otherwise on purpose
}

// untilClosed asks again and again until the connection is closed.
type untilClosed struct{}

// whenEnded waits until the session has ended.
type whenEnded struct{}

func loginScripts(tb testing.TB) []loginScript {
	tb.Helper()
	versions := func(v int16) kmsg.Request {
		return &kmsg.ApiVersionsRequest{Version: v, ClientSoftwareName: "a", ClientSoftwareVersion: "1"}
	}
	metadata := &kmsg.ListOffsetsRequest{Version: 1, ReplicaID: -1}
	plain := authenticate(2, plainOf(aliceName, alicePassword))
	again := []any{handshake(1, "PLAIN"), plain}
	after := func(more ...any) []any { return append(append([]any(nil), again...), more...) }
	var all []loginScript
	add := func(name string, sends ...any) { all = append(all, loginScript{name: name, sends: sends}) }
	addAgain := func(name string, sends ...any) {
		all = append(all, loginScript{name: name, sends: sends, repeated: true})
	}
	for v := range int16(2) {
		add(fmt.Sprintf("wrong mechanism v%d", v), handshake(v, "NTLM"), handshake(v, "PLAIN"))
		add(fmt.Sprintf("empty mechanism v%d", v), handshake(v, ""))
	}
	add("mechanism in small letters", handshake(1, "plain"))
	add("unknown version of the handshake", handshake(2, "PLAIN"))
	for v := range int16(3) {
		add(fmt.Sprintf("login v%d", v), versions(3), handshake(1, "PLAIN"), authenticate(v, plainOf(aliceName, alicePassword)), metadata)
		add(fmt.Sprintf("wrong password v%d", v), handshake(1, "PLAIN"), authenticate(v, plainOf(aliceName, "x")), metadata)
		add(fmt.Sprintf("unknown user v%d", v), handshake(1, "PLAIN"), authenticate(v, plainOf("nobody", "x")))
	}
	for name, message := range map[string]string{
		"empty": "", "one part": "alice", "four parts": plainOf(aliceName, alicePassword) + "\x00",
		"no user": plainOf("", "x"), "no password": plainOf(aliceName, ""), "as another user": "bob" + plainOf(aliceName, alicePassword),
	} {
		add("PLAIN, "+name, handshake(1, "PLAIN"), authenticate(2, message))
	}
	add("request before all", metadata)
	add("request after ApiVersions", versions(3), metadata)
	const otherForm = "Kafka answers any request in its own form; here only those are answered that clients send before a login"
	all = append(all, loginScript{name: "request after the handshake", differs: otherForm, sends: []any{handshake(1, "PLAIN"), metadata}},
		loginScript{name: "request in between", differs: otherForm, repeated: true, sends: after(handshake(1, "PLAIN"), metadata)})
	add("authenticate without a handshake", authenticate(2, plainOf(aliceName, alicePassword)))
	add("authenticate after ApiVersions", versions(3), authenticate(2, plainOf(aliceName, alicePassword)))
	add("ApiVersions twice", versions(3), versions(3))
	add("ApiVersions in an unknown version", versions(99), versions(0), handshake(1, "PLAIN"), plain, metadata)
	add("ApiVersions after the handshake", handshake(1, "PLAIN"), versions(3))
	add("handshake twice", handshake(1, "PLAIN"), handshake(1, "PLAIN"))
	add("after the login", after(handshake(1, "PLAIN"), plain, versions(3), metadata)...)
	add("tokens", handshake(0, "PLAIN"), token(plainOf(aliceName, alicePassword)), metadata)
	add("tokens, wrong password", handshake(0, "PLAIN"), token(plainOf(aliceName, "x")), metadata)
	add("tokens, large", handshake(0, "PLAIN"), token(strings.Repeat("x", 600<<10)))
	add("large message", handshake(1, "PLAIN"), authenticate(2, strings.Repeat("x", 600<<10)))
	add("SCRAM", append(append([]any{handshake(1, "SCRAM-SHA-256")}, scramOf(tb, aliceName, alicePassword)...), metadata)...)
	add("SCRAM, wrong password", append([]any{handshake(1, "SCRAM-SHA-256")}, scramOf(tb, aliceName, "x")...)...)
	all = append(all, loginScript{name: "SCRAM, unknown user", differs: "Kafka ends this login earlier than that of a known user", sends: append([]any{handshake(1, "SCRAM-SHA-256")}, scramOf(tb, "nobody", "x")...)})
	add("SCRAM, another language", handshake(1, "SCRAM-SHA-256"), authenticate(2, "hello"))
	addAgain("login with an end", after(metadata)...)
	addAgain("login again", after(append(again, metadata, handshake(1, "PLAIN"), metadata)...)...)
	addAgain("again with another mechanism", after(handshake(1, "SCRAM-SHA-256"), authenticate(2, "n,,n=alice,r=x"))...)
	addAgain("again with an unknown mechanism", after(handshake(1, "NTLM"))...)
	addAgain("again as another user", after(handshake(1, "PLAIN"), authenticate(2, plainOf(bobName, bobPassword)))...)
	addAgain("again with a wrong password", after(handshake(1, "PLAIN"), authenticate(2, plainOf(aliceName, "x")))...)
	addAgain("ApiVersions in between", after(handshake(1, "PLAIN"), versions(3))...)
	addAgain("not again", after(untilClosed{})...)
	addAgain("again, late", after(whenEnded{}, handshake(1, "PLAIN"), plain, metadata)...)
	return all
}

// play sends a script and returns the outcome of each part, a line each. It ends when the connection is closed.
func (s *loginScript) play(t *testing.T, addr string) (out []string) {
	t.Helper()
	c := dial(t, addr)
	var challenge []byte
	for _, send := range s.sends {
		line, isClosed := "", false
		switch v := send.(type) {
		case kmsg.Request:
			line = kmsg.NameForKey(v.Key()) + fmt.Sprintf(" v%d: ", v.GetVersion())
			got := c.outcomeOfLogin(v, nil)
			line, isClosed = line+got, got == closed
		case func([]byte) string:
			got := c.outcomeOfLogin(authenticate(2, v(challenge)), &challenge)
			line, isClosed = "SCRAM: "+got, got == closed
		case token:
			got := c.exchangeToken([]byte(v))
			line, isClosed = "token: "+got, got == closed
		case untilClosed:
			for !isClosed {
				isClosed = c.outcomeOfLogin(&kmsg.ListOffsetsRequest{Version: 1, ReplicaID: -1}, nil) == closed
			}
			line = "in the end: " + closed
		case whenEnded:
			waitFor(t, shortLifetime)
			continue
		}
		if out = append(out, line); isClosed {
			return out
		}
	}
	if err := c.c.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		out = append(out, "then "+closed)
	}
	return out
}

// waitFor waits until so much time is over for the broker, too.
func waitFor(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	<-timer.C
}

// outcomeOfLogin is the answer to a request, or that there was none. The message of the mechanism is stored, if it is asked for.
func (c *client) outcomeOfLogin(req kmsg.Request, challenge *[]byte) string {
	c.t.Helper()
	if !c.trySend(kmsg.NewRequestFormatter(kmsg.FormatterClientID(c.id)).AppendRequest(nil, req, c.next)) {
		return closed
	}
	b, err := c.frame()
	if err != nil {
		return closed
	}
	resp := req.ResponseKind()
	if versions, ok := resp.(*kmsg.ApiVersionsResponse); ok && req.GetVersion() > 5 {
		versions.SetVersion(0)
	}
	if resp.IsFlexible() && req.Key() != apiVersionsKey {
		b = b[1:]
	}
	if err := resp.ReadFrom(b); err != nil {
		return fmt.Sprintf("%x", b)
	}
	switch r := resp.(type) {
	case *kmsg.ApiVersionsResponse:
		return fmt.Sprintf("code %d", r.ErrorCode)
	case *kmsg.SASLAuthenticateResponse:
		if challenge != nil {
			*challenge = bytes.Clone(r.SASLAuthBytes)
		}
		r.SASLAuthBytes = []byte(scrubScram(string(r.SASLAuthBytes)))
		if r.SessionLifetimeMillis > 0 && r.SessionLifetimeMillis <= shortLifetime.Milliseconds() {
			r.SessionLifetimeMillis = 1
		}
	}
	return asJSON(resp)
}

// trySend sends bytes that the broker may have no ears for.
func (c *client) trySend(b []byte) bool {
	c.next++
	_, err := c.c.Write(b)
	return err == nil
}

// scrubScram takes what is random out of a message of SCRAM.
func scrubScram(s string) string {
	return regexp.MustCompile(`^(r|v)=.*`).ReplaceAllString(s, "$1=...")
}

func (c *client) exchangeToken(b []byte) string {
	if !c.trySend(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)) {
		return closed
	}
	if err := c.c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		return err.Error()
	}
	var size [4]byte
	if _, err := io.ReadFull(c.c, size[:]); err != nil {
		return closed
	}
	answer := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(c.c, answer); err != nil {
		return closed
	}
	return base64.StdEncoding.EncodeToString(answer)
}

// TestLoginAnswersAreKafkas proves that clients which log in, or try to do without, get the answers and the closed connections that
// Apache Kafka 4.3.1 gave them, which are kept in testdata. With LEAT_TEST_KAFKA_LOGIN, the addresses of a listener of a Kafka that asks for a
// login and of one where sessions end, with the users of the scripts, it proves too that the record is Kafka's.
func TestLoginAnswersAreKafkas(t *testing.T) {
	record, err := os.ReadFile(goldenLogin)
	if err != nil && !*recordKafka {
		t.Fatal(err)
	}
	if addrs := os.Getenv("LEAT_TEST_KAFKA_LOGIN"); addrs != "" {
		record = []byte(theirLogins(t, strings.Split(addrs, ","), string(record)))
	}
	delay := func(c *LoginConfig) { c.Delay = time.Millisecond }
	forever, ending := newLoginRig(t, 0, delay), newLoginRig(t, shortLifetime, delay)
	want := sections(string(record))
	for _, s := range loginScripts(t) {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			addr := forever.addr
			if s.repeated {
				addr = ending.addr
			}
			d := cmp.Diff(strings.Split(strings.TrimSpace(want[s.name]), "\n"), s.play(t, addr))
			if (d != "") != (s.differs != "") {
				t.Errorf("(-kafka +ours) %s", d)
			}
		})
	}
}

func theirLogins(t *testing.T, addrs []string, record string) string {
	t.Helper()
	scripts := loginScripts(t)
	lines := make([]string, len(scripts))
	var playing sync.WaitGroup
	for i, s := range scripts {
		playing.Go(func() {
			addr := addrs[0]
			if s.repeated {
				addr = addrs[1]
			}
			lines[i] = fmt.Sprintf("## %s\n%s\n\n", s.name, strings.Join(s.play(t, addr), "\n"))
		})
	}
	playing.Wait()
	out := strings.Join(lines, "")
	if *recordKafka {
		if err := os.WriteFile(goldenLogin, []byte(out), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if d := cmp.Diff(sections(record), sections(out)); d != "" {
		t.Errorf("Kafka answers otherwise than recorded: %s", d)
	}
	return out
}

// FuzzTokens proves that no tokens of an old client, by whatever mechanism, log it in without a password, or end more than its
// connection.
func FuzzTokens(f *testing.F) {
	g := newLoginRig(f, 0)
	f.Add(true, []byte(plainOf(aliceName, "x")), []byte("x"))
	f.Add(false, []byte("n,,n=alice,r=nonce"), []byte("c=biws,r=nonce,p=AAAA"))
	f.Add(false, []byte("n,a=bob,m=1,n==2C,r=,x=y"), []byte(",p="))
	f.Add(true, []byte(nil), []byte("\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, plain bool, first, second []byte) {
		if bytes.Contains(first, []byte("-secret")) || bytes.Contains(second, []byte("-secret")) {
			t.Skip("it may know the password")
		}
		mechanism := "SCRAM-SHA-256"
		if plain {
			mechanism = "PLAIN"
		}
		c := dial(t, g.addr)
		if got := c.outcomeOfLogin(handshake(0, mechanism), nil); got == closed {
			t.Fatal("the handshake is not answered")
		}
		for _, b := range [][]byte{first, second} {
			if c.exchangeToken(b) == closed {
				return
			}
		}
		if got := c.outcomeOfLogin(&kmsg.ListOffsetsRequest{Version: 1, ReplicaID: -1}, nil); got != closed {
			t.Fatalf("%q and %q log in: %s", first, second, got)
		}
	})
}

// TestLoginIsCounted proves that logins are counted by mechanism and outcome, whoever they were of, and that a client which
// has not logged in is refused after a while, or after many requests, but not one that has.
func TestLoginIsCounted(t *testing.T) {
	g := newLoginRig(t, 0)
	login := g.broker.cfg.Logins[0]
	for _, password := range []string{alicePassword, "x", "y"} {
		c := dial(t, g.addr)
		c.outcomeOfLogin(handshake(1, "PLAIN"), nil)
		c.outcomeOfLogin(authenticate(2, plainOf(aliceName, password)), nil)
	}
	c := dial(t, g.addr)
	c.outcomeOfLogin(handshake(1, "NTLM"), nil)
	want := []LoginStats{{Mechanism: "PLAIN", Succeeded: 1, Failed: 2}, {Mechanism: "SCRAM-SHA-256"}, {Failed: 1}}
	if d := cmp.Diff(want, g.broker.Stats().Logins); d != "" {
		t.Error(d)
	}
	c = dial(t, g.addr)
	asked := 0
	for c.outcomeOfLogin(&kmsg.ApiVersionsRequest{Version: 99}, nil) != closed {
		asked++
	}
	if asked != mostBeforeLogin {
		t.Errorf("%d requests before a login are answered", asked)
	}
	if login.MaxFrame != 512<<10 || login.Patience != 30*time.Second {
		t.Errorf("the defaults: %+v", login.LoginConfig)
	}
}

// TestLoginIsAwaited proves that a connection whose client does not log in is closed in time, also after half of a login, and
// one whose client has logged in is not.
func TestLoginIsAwaited(t *testing.T) {
	g := newLoginRig(t, 0, func(c *LoginConfig) { c.Patience = 300 * time.Millisecond })
	in := dial(t, g.addr)
	in.outcomeOfLogin(handshake(1, "PLAIN"), nil)
	in.outcomeOfLogin(authenticate(2, plainOf(aliceName, alicePassword)), nil)
	silent, half := dial(t, g.addr), dial(t, g.addr)
	half.outcomeOfLogin(handshake(1, "PLAIN"), nil)
	for _, c := range []*client{silent, half} {
		if _, err := c.c.Read(make([]byte, 1)); err == nil {
			t.Error("it is told something")
		}
	}
	if got := in.outcomeOfLogin(&kmsg.ListOffsetsRequest{Version: 1, ReplicaID: -1}, nil); got == closed {
		t.Error("a client that has logged in is closed")
	}
}

// TestLoginCostsLittle proves that a client which has not logged in takes at most 16 KB, also in the middle of a login.
func TestLoginCostsLittle(t *testing.T) {
	const conns, most = 400, 16 << 10
	g := newLoginRig(t, 0)
	measure := func() int64 { // what other tests have left may be freed meanwhile
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc + m.StackInuse)
	}
	dial(t, g.addr).outcomeOfLogin(handshake(1, "SCRAM-SHA-256"), nil)
	before := measure()
	for range conns {
		c := dial(t, g.addr)
		c.outcomeOfLogin(handshake(1, "SCRAM-SHA-256"), nil)
		c.outcomeOfLogin(authenticate(2, "n,,n=alice,r=nonce"), nil)
	}
	if each := (measure() - before) / conns; each > most {
		t.Errorf("a connection takes %d bytes, with its client's end", each)
	} else {
		t.Logf("a connection takes %d bytes, with its client's end", each)
	}
}

// TestListenerWithoutLogin proves that nobody gets in by a listener that asks for a login of which the broker does not know how.
func TestListenerWithoutLogin(t *testing.T) {
	g := newLoginRig(t, 0, func(c *LoginConfig) { c.Mechanisms = nil })
	c := dial(t, g.addr)
	if got := c.outcomeOfLogin(handshake(1, "PLAIN"), nil); !strings.Contains(got, `"ErrorCode":33`) {
		t.Error(got)
	}
}

// slowMechanism waits in each step until it may go on.
type slowMechanism struct{ steps, goOn chan struct{} }

func (slowMechanism) Name() string { return "SLOW" }

func (m slowMechanism) Start() auth.Exchange { return m }

func (m slowMechanism) Step(_ context.Context, message []byte) ([]byte, *auth.Login, error) {
	m.steps <- struct{}{}
	<-m.goOn
	if string(message) != "message" {
		return nil, nil, fmt.Errorf("the message is %q", message)
	}
	return []byte{}, &auth.Login{Principal: auth.User(aliceName)}, nil
}

// TestWaitingLoginsKeepNoBuffers proves that logins which wait, such as for their turns to have passwords checked, keep none of the memory for requests,
// however large their requests are: few of them could keep all of it from clients that have logged in.
func TestWaitingLoginsKeepNoBuffers(t *testing.T) {
	slow := slowMechanism{make(chan struct{}), make(chan struct{})}
	g := newLoginRig(t, 0, func(c *LoginConfig) { c.Mechanisms = append(c.Mechanisms, slow) })
	const many = 8
	padded := authenticate(2, "message")
	padded.UnknownTags.Set(77, make([]byte, 400<<10))
	var clients []*client
	for range many {
		c := dial(t, g.addr)
		c.send(handshake(1, "SLOW"))
		c.receive(handshake(1, "SLOW"))
		c.send(padded)
		<-slow.steps
		clients = append(clients, c)
	}
	eventually(t, "the buffers are given up", func() bool { return g.stats.RequestMemory() <= many<<12 })
	close(slow.goOn)
	for _, c := range clients {
		if resp, _ := c.receive(padded).(*kmsg.SASLAuthenticateResponse); resp.ErrorCode != 0 {
			t.Errorf("the message was lost with its buffer: %d", resp.ErrorCode)
		}
	}
}
