package interop

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// recordEnv has TestSecurityTools write what Apache Kafka answers into its file, instead of comparing with that.
const recordEnv = "LEAT_INTEROP_RECORD"

// securityTools are commands of Kafka's tools, with what they printed in testdata/security_tools.txt. ACLs and users of theirs begin
// with "tool.", so that they do not get in the way of other tests; and quotas for all are such that nobody meets them.
var securityTools = []string{
	"acls --add --allow-principal User:tool.bob --operation Read --operation Write --topic tool.orders- --resource-pattern-type prefixed",
	"acls --add --allow-principal User:tool.bob --allow-host 192.0.2.1 --operation Describe --topic tool.orders-1",
	"acls --add --deny-principal User:tool.eve --deny-host 192.0.2.7 --operation All --topic tool.orders-1",
	"acls --add --allow-principal User:tool.bob --consumer --topic tool.in --group tool.readers",
	"acls --add --allow-principal User:tool.bob --producer --idempotent --transactional-id tool.txn --topic tool.out",
	"acls --add --allow-principal User:tool.bob --operation Describe --operation DescribeConfigs --cluster",
	"acls --add --allow-principal User:tool.bob --operation DescribeTokens --user-principal User:tool.eve",
	"acls --list --topic tool.orders-",
	"acls --list --topic tool.orders- --resource-pattern-type prefixed",
	"acls --list --topic tool.orders-1",
	"acls --list --topic tool.orders-1 --resource-pattern-type match",
	"acls --list --topic tool.orders-1 --resource-pattern-type any",
	"acls --list --principal User:tool.bob --topic tool.in --group tool.readers",
	"acls --list --principal User:tool.eve",
	"acls --list --cluster --principal User:tool.bob",
	"acls --list --transactional-id tool.txn",
	"acls --remove --force --allow-principal User:tool.bob --operation Write --topic tool.orders- --resource-pattern-type prefixed",
	"acls --list --topic tool.orders- --resource-pattern-type prefixed",
	"acls --remove --force --topic tool.orders-1 --resource-pattern-type match",
	"acls --list --topic tool.orders-1 --resource-pattern-type match",
	"acls --remove --force --allow-principal User:tool.bob --consumer --topic tool.in --group tool.readers",
	"acls --list --topic tool.in --group tool.readers",
	"acls --remove --force --allow-principal User:tool.bob --operation Describe --operation DescribeConfigs --cluster",
	"acls --remove --force --topic tool.out",
	"acls --remove --force --transactional-id tool.txn",
	"acls --remove --force --user-principal User:tool.eve",
	"acls --add --allow-principal bob --operation Read --topic tool.in",

	"configs --alter --entity-type users --entity-name tool.bob --add-config SCRAM-SHA-256=[iterations=8192,password=bobs-secret],SCRAM-SHA-512=[password=bobs-secret]",
	"configs --alter --entity-type users --entity-name tool.bob --add-config SCRAM-SHA-256=[iterations=8192,password=bobs-secret]",
	"configs --alter --entity-type users --entity-name tool.bob --add-config SCRAM-SHA-512=[password=bobs-secret]",
	"configs --describe --entity-type users --entity-name tool.bob",
	"configs --alter --entity-type users --entity-name tool.bob --delete-config SCRAM-SHA-256",
	"configs --alter --entity-type users --entity-name tool.bob --delete-config SCRAM-SHA-256",
	"configs --alter --entity-type users --entity-name tool.bob --add-config SCRAM-SHA-512=[iterations=100,password=bobs-secret]",
	"configs --alter --entity-type users --entity-name tool.bob --add-config SCRAM-SHA-512=[iterations=100000,password=bobs-secret]",
	"configs --alter --entity-type users --entity-default --add-config SCRAM-SHA-512=[password=bobs-secret]",
	"configs --alter --entity-type users --entity-name tool.bob --add-config SCRAM-SHA-1=[password=bobs-secret]",
	"configs --describe --entity-type users --entity-name tool.bob",
	"configs --describe --entity-type users --entity-name tool.nobody",

	"configs --alter --entity-type users --entity-name tool.bob --add-config producer_byte_rate=1024,consumer_byte_rate=2048,request_percentage=150,controller_mutation_rate=2.5",
	"configs --alter --entity-type users --entity-name tool.bob --entity-type clients --entity-name tool.app --add-config producer_byte_rate=512",
	"configs --alter --entity-type users --entity-name tool.bob --entity-type clients --entity-default --add-config producer_byte_rate=256",
	"configs --alter --entity-type users --entity-default --entity-type clients --entity-name tool.app --add-config producer_byte_rate=128",
	"configs --alter --entity-type clients --entity-name tool.app --add-config consumer_byte_rate=4096",
	"configs --alter --entity-type clients --entity-default --add-config consumer_byte_rate=1000000000000",
	"configs --alter --entity-type ips --entity-name 192.0.2.9 --add-config connection_creation_rate=5",
	"configs --alter --entity-type ips --entity-default --add-config connection_creation_rate=1000000",
	"configs --describe --entity-type users --entity-name tool.bob",
	"configs --describe --entity-type users --entity-name tool.bob --entity-type clients --entity-name tool.app",
	"configs --describe --entity-type users --entity-name tool.bob --entity-type clients --entity-default",
	"configs --describe --entity-type users --entity-name tool.bob --entity-type clients",
	"configs --describe --entity-type users --entity-default --entity-type clients --entity-name tool.app",
	"configs --describe --entity-type clients --entity-name tool.app",
	"configs --describe --entity-type clients --entity-default",
	"configs --describe --entity-type clients",
	"configs --describe --entity-type ips --entity-name 192.0.2.9",
	"configs --describe --entity-type ips --entity-default",
	"configs --describe --entity-type ips",
	"configs --alter --entity-type ips --entity-name 192.0.2.9 --add-config producer_byte_rate=5",
	"configs --alter --entity-type ips --entity-name not.a.host.invalid --add-config connection_creation_rate=5",
	"configs --alter --entity-type users --entity-name tool.bob --add-config no_such_quota=5",
	"configs --alter --entity-type users --entity-name tool.bob --add-config producer_byte_rate=many",
	"configs --alter --entity-type users --entity-name tool.bob --add-config producer_byte_rate=0",
	"configs --alter --entity-type users --entity-name tool.bob --delete-config request_percentage,controller_mutation_rate",
	"configs --describe --entity-type users --entity-name tool.bob",
	"configs --alter --entity-type users --entity-name tool.bob --delete-config SCRAM-SHA-512",
	"configs --alter --entity-type users --entity-name tool.bob --delete-config producer_byte_rate,consumer_byte_rate",
	"configs --alter --entity-type users --entity-name tool.bob --entity-type clients --entity-name tool.app --delete-config producer_byte_rate",
	"configs --alter --entity-type users --entity-name tool.bob --entity-type clients --entity-default --delete-config producer_byte_rate",
	"configs --alter --entity-type users --entity-default --entity-type clients --entity-name tool.app --delete-config producer_byte_rate",
	"configs --alter --entity-type clients --entity-name tool.app --delete-config consumer_byte_rate",
	"configs --alter --entity-type clients --entity-default --delete-config consumer_byte_rate",
	"configs --alter --entity-type ips --entity-name 192.0.2.9 --delete-config connection_creation_rate",
	"configs --alter --entity-type ips --entity-default --delete-config connection_creation_rate",
	"configs --describe --entity-type users --entity-name tool.bob",
	"configs --describe --entity-type clients",
	"configs --describe --entity-type ips",
}

// TestSecurityTools proves that Kafka's tools for ACLs, users and quotas, whose user has logged in over TLS, print the same as
// with Apache Kafka.
func TestSecurityTools(t *testing.T) {
	t.Parallel()
	javaKit.have(t)
	box := sharedSecured(t).tools(t)
	classes := map[string]string{"acls": aclsTool, "configs": configsTool}
	// What differs from run to run has a name in the file.
	named := strings.NewReplacer(box.addr, "ADDRESS", box.config, "CONFIG")
	var got strings.Builder
	for _, line := range securityTools {
		args := strings.Fields(line)
		out, exit := box.run(t, classes[args[0]], "", append(box.reach(), args[1:]...)...)
		fmt.Fprintf(&got, "$ kafka-%s\n%sstatus %d\n\n", line, withoutOrder(named.Replace(out)), exit)
	}
	path := filepath.Join("testdata", "security_tools.txt")
	if os.Getenv(recordEnv) == "1" && runsKafka() {
		if err := os.WriteFile(path, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("the tools print something else than with Apache Kafka (-Kafka +got):\n%s", diff)
	}
}

// withoutOrder is what a tool printed, without traces of stacks, and in an order of its own: ACLs and the configs of a user come in any.
func withoutOrder(out string) string {
	var lines []string
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		if of, list, ok := strings.Cut(line, "' are "); ok {
			configs := strings.Split(list, ", ")
			slices.Sort(configs)
			line = of + "' are " + strings.Join(configs, ", ")
		}
		if line != "" && !strings.HasPrefix(line, "at ") && !strings.HasPrefix(line, "... ") {
			lines = append(lines, line+"\n")
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// TestToolsWithoutGrants proves that a user who is no administrator learns nothing from Kafka's tools, and changes nothing with them.
func TestToolsWithoutGrants(t *testing.T) {
	t.Parallel()
	javaKit.have(t)
	s := sharedSecured(t)
	user := "tool.guest"
	s.addClient(t, user)
	mine, hidden := fmt.Sprintf("%s.open.%d", user, names.Add(1)), fmt.Sprintf("tool.hidden.%d", names.Add(1))
	createTopic(t, s.broker, mine, 1, nil)
	createTopic(t, s.broker, hidden, 1, nil)
	box := s.toolsAs(t, s.login(t, user, byPlain))
	if runsKafka() { // it has other users for PLAIN
		box = s.toolsAs(t, s.login(t, user, bySHA256))
	}
	if out := box.do(t, topicsTool, "", "--list"); strings.TrimSpace(out) != mine {
		t.Errorf("topics: %q, want %s alone", out, mine)
	}
	const denied = "ClusterAuthorizationException"
	box.fails(t, denied, aclsTool, "--list")
	box.fails(t, denied, aclsTool, "--add", "--allow-principal", "User:"+user, "--operation", "All", "--cluster")
	box.fails(t, denied, configsTool, "--alter", "--entity-type", "users", "--entity-name", adminUser, "--add-config", "SCRAM-SHA-512=[password=mine]")
	box.fails(t, denied, configsTool, "--alter", "--entity-type", "users", "--entity-name", user, "--add-config", "producer_byte_rate=1")
	box.fails(t, denied, configsTool, "--describe", "--entity-type", "clients")
	box.fails(t, "Authorization failed.", topicsTool, "--create", "--topic", "tool.new")
	box.fails(t, "Topic authorization failed.", topicsTool, "--delete", "--topic", mine)
	box.fails(t, "does not exist", topicsTool, "--describe", "--topic", hidden)
	wrong := s.toolsAs(t, s.badLogin(t, adminUser, bySHA512))
	wrong.fails(t, "SaslAuthenticationException", aclsTool, "--list")
}

// tools runs Kafka's tools as the administrator.
func (s *secured) tools(t *testing.T) toolbox {
	t.Helper()
	return s.toolsAs(t, s.login(t, adminUser, bySHA512))
}

// toolsAs runs Kafka's tools as the user of a login with a password.
func (s *secured) toolsAs(t *testing.T, l *login) toolbox {
	t.Helper()
	module := "scram.ScramLoginModule"
	if l.Mechanism == byPlain {
		module = "plain.PlainLoginModule"
	}
	box := tools(t, s.at(loginListener))
	box.config = filepath.Join(t.TempDir(), "client.properties")
	writeFile(t, box.config, fmt.Appendf(nil, `security.protocol=SASL_SSL
sasl.mechanism=%s
sasl.jaas.config=org.apache.kafka.common.security.%s required username="%s" password="%s";
ssl.truststore.type=PEM
ssl.truststore.location=%s
`, l.Mechanism, module, l.User, l.Password, l.CA))
	return box
}
