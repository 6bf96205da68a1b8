package interop

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

const tokensTool = "org.apache.kafka.tools.DelegationTokenCommand"

// The users of a secured broker are admin, who is its super user, alice and bob. The password of each is its name with this behind it.
const passwordTail = "-Pl4nted"

// tokenBroker is a broker with a listener where clients log in, ACLs and delegation tokens.
type tokenBroker struct {
	*broker

	dir   string // for files of the test
	login string // the address where clients log in
}

// ownTokenBroker starts a secured node for one test.
func ownTokenBroker(t *testing.T) *tokenBroker {
	t.Helper()
	if os.Getenv(addrEnv) != "" || runsKafka() {
		t.Skip("needs a node of Leat of its own")
	}
	dir := t.TempDir()
	found, err := freePorts(2)
	if err != nil {
		t.Fatal(err)
	}
	b := &broker{addr: "127.0.0.1:" + strconv.Itoa(found[0]), dataDir: filepath.Join(dir, "data"), factor: 1}
	s := &tokenBroker{b, dir, "127.0.0.1:" + strconv.Itoa(found[1])}
	b.cmd = exec.Command(leatBinary(t), "up", "--data", b.dataDir, "--http", "off", "--listen", "OPEN="+b.addr, "--listen", "IN=SASL_PLAINTEXT://"+s.login,
		"--bootstrap-user", "admin", "--bootstrap-password-file", s.file(t, "admin.txt", "admin"+passwordTail))
	b.cmd.Env = append(os.Environ(), "LEAT_SET_DELEGATION_TOKEN_SECRET_KEY=Pl4nted key of delegation tokens")
	if err := b.run(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the broker said:\n%s", b.log)
		}
	})
	adm := kadm.NewClient(s.client(t, s.byPassword("admin")))
	var users []kadm.UpsertSCRAM
	for _, name := range []string{"alice", "bob"} {
		for _, m := range []kadm.ScramMechanism{kadm.ScramSha256, kadm.ScramSha512} {
			users = append(users, kadm.UpsertSCRAM{User: name, Mechanism: m, Iterations: 4096, Password: name + passwordTail})
		}
	}
	for i := range users { // a request alters a user once
		if got, err := adm.AlterUserSCRAMs(t.Context(), nil, users[i:i+1]); err != nil || got.Error() != nil {
			t.Fatal(got, err)
		}
	}
	return s
}

// file writes a file that only this user reads.
func (s *tokenBroker) file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (*tokenBroker) byPassword(user string) sasl.Mechanism {
	return scram.Auth{User: user, Pass: user + passwordTail}.AsSha512Mechanism()
}

// client is franz-go's.
func (s *tokenBroker) client(t *testing.T, as sasl.Mechanism, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(s.login), kgo.SASL(as))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// javaConfig writes the properties with which Java's clients log in.
func (s *tokenBroker) javaConfig(t *testing.T, mechanism, user, password, more string) string {
	t.Helper()
	return s.file(t, fmt.Sprintf("java-%d.properties", names.Add(1)), fmt.Sprintf("security.protocol=SASL_PLAINTEXT\nsasl.mechanism=%s\n"+
		"sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username=\"%s\" password=\"%s\"%s;\n", mechanism, user, password, more))
}

// TestDelegationTokens proves that Apache Kafka's kafka-delegation-tokens makes, shows, renews and expires tokens; that Java's clients and franz-go log in with a
// token, by both mechanisms, as its owner and for no more than that; and that they are refused when the token is gone.
func TestDelegationTokens(t *testing.T) {
	t.Parallel()
	javaKit.have(t)
	s := ownTokenBroker(t)
	box := tools(t, s.login)
	user := func(name string) string {
		return s.javaConfig(t, "SCRAM-SHA-512", name, name+passwordTail, "")
	}
	admin, alice, bob := user("admin"), user("alice"), user("bob")
	create := func(config string, args ...string) (id, hmac string) {
		t.Helper()
		out := box.do(t, tokensTool, "", append([]string{"--command-config", config, "--create", "--max-life-time-period", "-1"}, args...)...)
		for line := range strings.Lines(out) {
			if f := strings.Fields(line); len(f) > 3 && len(f[0]) == 22 && strings.HasPrefix(f[2], "User:") {
				return f[0], f[1]
			}
		}
		t.Fatalf("no token in:\n%s", out)
		return "", ""
	}
	id, hmac := create(alice, "--renewer-principal", "User:bob")
	for _, as := range []string{alice, bob} { // without an owner the tool asks for the tokens of nobody, and Kafka shows none either
		contains(t, box.do(t, tokensTool, "", "--command-config", as, "--describe", "--owner-principal", "User:alice"), id, hmac, "User:alice", "User:bob")
	}
	contains(t, box.do(t, tokensTool, "", "--command-config", bob, "--renew", "--hmac", hmac, "--renew-time-period", "-1"), "Completed renew operation")
	if out := box.do(t, tokensTool, "", "--command-config", bob, "--describe", "--owner-principal", "User:nobody"); strings.Contains(out, id) {
		t.Errorf("a token of another owner:\n%s", out)
	}
	box.fails(t, "Delegation Token authorization failed", tokensTool, "--command-config", bob, "--create", "--max-life-time-period", "-1", "--owner-principal", "User:alice")

	box.do(t, aclsTool, "", "--command-config", admin, "--add", "--allow-principal", "User:alice", "--operation", "All", "--topic", "*", "--group", "*")
	for _, mechanism := range []string{"SCRAM-SHA-256", "SCRAM-SHA-512"} {
		byToken := s.javaConfig(t, mechanism, id, hmac, ` tokenauth="true"`)
		topic := fmt.Sprintf("tokens.%d", names.Add(1))
		box.do(t, topicsTool, "", "--command-config", byToken, "--create", "--topic", topic, "--partitions", "1", "--replication-factor", "1")
		box.do(t, producerTool, "by a token\n", "--command-config", byToken, "--topic", topic)
		contains(t, box.do(t, consumerTool, "", "--command-config", byToken, "--topic", topic, "--from-beginning", "--max-messages", "1", "--timeout-ms", "20000"), "by a token")
		box.fails(t, "Delegation Token requests are not allowed", tokensTool, "--command-config", byToken, "--create", "--max-life-time-period", "-1")
		as := scram.Auth{User: id, Pass: hmac, IsToken: true}
		franz := as.AsSha256Mechanism()
		if mechanism == "SCRAM-SHA-512" {
			franz = as.AsSha512Mechanism()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		cl := s.client(t, franz, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
		if err := cl.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte("by franz-go")}).FirstErr(); err != nil {
			t.Errorf("franz-go: %v", err)
		}
		var got []string
		for len(got) < 2 && ctx.Err() == nil {
			cl.PollFetches(ctx).EachRecord(func(r *kgo.Record) { got = append(got, string(r.Value)) })
		}
		cancel()
		if fmt.Sprint(got) != "[by a token by franz-go]" {
			t.Errorf("franz-go has read %q", got)
		}
	}

	otherID, otherHMAC := create(admin, "--owner-principal", "User:bob")
	byOther := s.javaConfig(t, "SCRAM-SHA-256", otherID, otherHMAC, ` tokenauth="true"`)
	if out := box.do(t, topicsTool, "", "--command-config", byOther, "--list"); strings.Contains(out, "tokens.") {
		t.Errorf("a token of bob shows what alice may see:\n%s", out)
	}
	contains(t, box.do(t, tokensTool, "", "--command-config", alice, "--expire", "--hmac", hmac, "--expiry-time-period", "-1"), "Completed expire operation")
	box.fails(t, "uthentication failed", topicsTool, "--command-config", s.javaConfig(t, "SCRAM-SHA-256", id, hmac, ` tokenauth="true"`), "--list")
	box.fails(t, "Delegation Token is not found", tokensTool, "--command-config", alice, "--renew", "--hmac", hmac, "--renew-time-period", "-1")
	for _, planted := range []string{"Pl4nted", hmac, otherHMAC} {
		if strings.Contains(s.log.String(), planted) {
			t.Errorf("the log has the secret %s:\n%s", planted, s.log)
		}
	}
}
