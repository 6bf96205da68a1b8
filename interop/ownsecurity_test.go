package interop

import (
	"bytes"
	"crypto/x509/pkix"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
)

// The users whom kafka-go's own tests know, with their passwords; those of SCRAM have one mechanism each.
const (
	kafkaGoPlain, kafkaGoPlainPassword   = "adminplain", "admin-secret"
	kafkaGoSHA256, kafkaGoSHA256Password = "adminscram256", "admin-secret-256"
	kafkaGoSHA512, kafkaGoSHA512Password = "adminscram512", "admin-secret-512"
)

// libraryBroker is a broker as the tests of libraries expect one: a listener where clients log in without TLS, and one that asks for their
// certificates. All users of theirs may do everything.
type libraryBroker struct {
	*broker
	ca, client string // files: the authority, and a client's key and certificate
}

func ownLibraryBroker(t *testing.T) libraryBroker {
	t.Helper()
	dir := t.TempDir()
	ours := newAuthority(t, dir, "authority")
	server, client := filepath.Join(dir, "server.pem"), filepath.Join(dir, "client.pem")
	ours.issue(t, server, pkix.Name{CommonName: "broker 1"}, "localhost")
	ours.issue(t, client, pkix.Name{CommonName: "library"})
	set := []string{
		quick, "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
		fmt.Sprintf("super.users=User:ANONYMOUS;User:%s;User:%s;User:%s;User:CN=library", kafkaGoPlain, kafkaGoSHA256, kafkaGoSHA512),
		"ssl.keystore.type=PEM", "ssl.keystore.location=" + server, "ssl.truststore.type=PEM", "ssl.truststore.location=" + ours.ca, "ssl.client.auth=required",
		"listener.name.login.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
		fmt.Sprintf("listener.name.login.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_%s=%q;", kafkaGoPlain, kafkaGoPlainPassword),
	}
	if runsKafka() {
		for _, m := range []string{"256", "512"} {
			set = append(set, "listener.name.login.scram-sha-"+m+".sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;")
		}
	}
	b := ownPlannedCluster(t, clusterPlan{nodes: 1, set: set, more: []listener{{loginListener, "SASL_PLAINTEXT"}, {certListener, "SSL"}}}).nodes[0]
	for _, u := range []kadm.UpsertSCRAM{
		{User: kafkaGoSHA256, Mechanism: kadm.ScramSha256, Iterations: 4096, Password: kafkaGoSHA256Password},
		{User: kafkaGoSHA512, Mechanism: kadm.ScramSha512, Iterations: 4096, Password: kafkaGoSHA512Password},
	} {
		made, err := admin(t, b).AlterUserSCRAMs(t.Context(), nil, []kadm.UpsertSCRAM{u})
		if err == nil {
			err = made.Error()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return libraryBroker{b, ours.ca, client}
}

// at is the address of a listener.
func (b libraryBroker) at(listener string) string { return "localhost:" + b.ports[listener] }

// runTests runs tests of a library in the folder of its source. All that are named must have passed: one that found no broker, or was renamed, would have
// proved nothing.
func runTests(t *testing.T, dir string, env []string, pattern, packages string, passed ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "test", "-v", "-count=1", "-vet=off", "-timeout=5m", "-run", pattern, packages)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod"), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("go test -run %s %s: %v\n%s", pattern, packages, err, out[max(0, len(out)-10_000):])
	}
	for _, name := range passed {
		if !strings.Contains(string(out), "--- PASS: "+name) {
			t.Errorf("%s has not passed:\n%s", name, out[max(0, len(out)-10_000):])
		}
	}
}

// TestFranzOwnSecurityTests proves that franz-go's own tests of SCRAM pass, and that some of the others do over TLS with a certificate of the client.
func TestFranzOwnSecurityTests(t *testing.T) {
	t.Parallel()
	src := filepath.Join(franzKit.have(t), "src")
	b := ownLibraryBroker(t)
	for mechanism, user := range map[string]string{"256": kafkaGoSHA256 + ":" + kafkaGoSHA256Password, "512": kafkaGoSHA512 + ":" + kafkaGoSHA512Password} {
		runTests(t, src, []string{
			"KGO_SEEDS=" + b.at(certListener), "KGO_TEST_TLS=ca:" + b.ca + ",cert:" + b.client + ",key:" + b.client, "KGO_TEST_SCRAM_SEEDS=" + b.at(loginListener),
			"KGO_TEST_SCRAM=" + user + ":" + mechanism, "KGO_LOG_LEVEL=none", "KGO_TEST_RF=1", "KGO_TEST_RECORDS=3000", "KGO_TEST_MAX_TOPIC_PARTS=3",
		}, "^(TestSCRAMAuth|TestSCRAMAuthBadCredentials|TestClient_Produce|TestPauseIssue489)$", "./pkg/kgo",
			"TestSCRAMAuth ", "TestSCRAMAuthBadCredentials ", "TestClient_Produce ", "TestPauseIssue489 ")
	}
}

// TestKafkaGoOwnSecurityTests proves that kafka-go's own tests of SASL pass, and that of its dialer over TLS. They have fixed addresses, in
// place of which those of the broker are written into a copy.
func TestKafkaGoOwnSecurityTests(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := copyModule(t.Context(), "github.com/segmentio/kafka-go", dir); err != nil {
		t.Fatal(err)
	}
	b := ownLibraryBroker(t)
	createTopic(t, b.broker, "test-writer-0", 1, nil)
	addresses := []string{`TCP("localhost")`, fmt.Sprintf("TCP(%q)", b.addr), "localhost:9092", b.addr, "127.0.0.1:9092", b.addr, "localhost:9093", b.at(loginListener), "127.0.0.1:9093", b.at(loginListener)}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return os.Chmod(path, 0o755) //nolint:gosec // the cache of modules is read-only
		}
		text, err := os.ReadFile(path)
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		changed := strings.NewReplacer(addresses...).Replace(string(text))
		if bytes.Equal([]byte(changed), text) {
			return nil
		}
		if err := os.Remove(path); err != nil {
			return err
		}
		return os.WriteFile(path, []byte(changed), 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	env := []string{"KAFKA_VERSION=4.0.0"}
	runTests(t, dir, env, "^TestSASL$", "./sasl/...", "TestSASL ", "TestSASL/PLAIN_failure", "TestSASL/SCRAM-SHA-256_success", "TestSASL/SCRAM-SHA-512_failure", "TestSASL/SCRAM-SHA-512_is_reusable")
	runTests(t, dir, env, "^TestUnsupportedSASLMechanism$", ".", "TestUnsupportedSASLMechanism ") // its TestDialerTLS ends TLS by itself, and wants a broker at port 9092
	runTests(t, dir, env, "^TestWriter$/SASL", ".", "TestWriter/writing_a_message_with_SASL_Plain_authentication")
}

// TestRolesBesideKafkasTools proves that roles, for which Kafka has no words, are in the way of none of its tools and clients: kafka-acls and
// Java's describeAcls, which it calls, list ACLs as if there were no roles, and delete none; and Java's clients may do what a role says.
func TestRolesBesideKafkasTools(t *testing.T) {
	t.Parallel()
	if runsKafka() {
		t.Skip("Apache Kafka has no roles")
	}
	javaKit.have(t)
	s := sharedSecured(t)
	user := fmt.Sprintf("roles.%d", names.Add(1))
	s.addUser(t, user)
	topic := user + ".t"
	createTopic(t, s.broker, topic, 1, nil)
	leat := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), leatBinary(t), append(args, "--bootstrap", s.addr)...).CombinedOutput()
		if err != nil {
			t.Fatalf("leat %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	for _, role := range []string{"reader", "writer", "operator", "admin"} {
		leat("role", "grant", user, role, user+".*")
		leat("role", "grant", "group:"+user, role, user+".*")
	}
	all := s.tools(t)
	prefix := []string{"--topic", user + ".", "--resource-pattern-type", "prefixed"}
	all.do(t, aclsTool, "", append([]string{"--add", "--allow-principal", "User:" + user, "--operation", "Describe"}, prefix...)...)
	for _, args := range [][]string{
		{"--list"},
		append([]string{"--list"}, prefix...),
		{"--list", "--topic", topic, "--resource-pattern-type", "match"},
		{"--list", "--topic", topic, "--resource-pattern-type", "any"},
		{"--list", "--principal", "User:" + user},
		append([]string{"--list", "--principal", "User:" + user}, prefix...),
	} {
		out := all.do(t, aclsTool, "", args...)
		if strings.Contains(out, "UNKNOWN") || strings.Contains(out, "Group:"+user) || strings.Contains(out, "operation=10") {
			t.Errorf("kafka-acls %s shows roles:\n%s", strings.Join(args, " "), out)
		}
		if isOfTopic := !strings.Contains(strings.Join(args, " "), "any"); isOfTopic && !strings.Contains(out, "operation=DESCRIBE") {
			t.Errorf("kafka-acls %s does not show the ACL:\n%s", strings.Join(args, " "), out)
		}
	}
	all.do(t, aclsTool, "", append([]string{"--remove", "--force"}, prefix...)...)
	if out := leat("role", "list"); strings.Count(out, user+".") < 8 {
		t.Errorf("roles are gone:\n%s", out)
	}
	mine := s.toolsAs(t, s.login(t, user, bySHA512))
	mine.do(t, producerTool, "by a role\n", "--topic", topic)
	out := mine.do(t, consumerTool, "", "--topic", topic, "--group", topic, "--from-beginning", "--max-messages", "1", "--timeout-ms", "20000")
	contains(t, out, "by a role")
	if out := mine.do(t, topicsTool, "", "--list"); strings.TrimSpace(out) != topic {
		t.Errorf("topics: %q, want %s alone", out, topic)
	}
	for _, role := range []string{"reader", "writer", "operator", "admin"} {
		leat("role", "revoke", user, role, user+".*")
	}
	mine.fails(t, "does not exist", topicsTool, "--describe", "--topic", topic)
}
