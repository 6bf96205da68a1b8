package interop

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Apache Kafka's command line tools, by the classes that its scripts start.
const (
	topicsTool   = "org.apache.kafka.tools.TopicCommand"
	producerTool = "org.apache.kafka.tools.ConsoleProducer"
	consumerTool = "org.apache.kafka.tools.consumer.ConsoleConsumer"
	configsTool  = "org.apache.kafka.tools.ConfigCommand"
	groupsTool   = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
	offsetsTool  = "org.apache.kafka.tools.GetOffsetShell"
	dumpTool     = "org.apache.kafka.tools.DumpLogSegments"

	aclsTool         = "org.apache.kafka.tools.AclCommand"
	featuresTool     = "org.apache.kafka.tools.FeatureCommand"
	electionTool     = "org.apache.kafka.tools.LeaderElectionCommand"
	reassignTool     = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand"
	transactionsTool = "org.apache.kafka.tools.TransactionsCommand"
	clusterTool      = "org.apache.kafka.tools.ClusterTool"
	versionsTool     = "org.apache.kafka.tools.BrokerApiVersionsCommand"
	logDirsTool      = "org.apache.kafka.tools.LogDirsCommand"
	allGroupsTool    = "org.apache.kafka.tools.GroupsCommand"
)

// toolbox runs Kafka's tools one after another in one JVM.
type toolbox struct {
	*driver
	addr   string
	config string // file with how its clients log in, "" if they do not
}

// reach are the arguments by which a tool reaches the broker.
func (b toolbox) reach() []string {
	args := []string{"--bootstrap-server", b.addr}
	if b.config != "" {
		args = append(args, "--command-config", b.config)
	}
	return args
}

func tools(t *testing.T, addr string) toolbox {
	t.Helper()
	return toolbox{driver: start(t, "kafka tools", java(t, 256, "Tools")), addr: addr}
}

// run runs a tool and returns what it printed and its exit status.
func (b toolbox) run(t *testing.T, class, input string, args ...string) (string, int) {
	t.Helper()
	a := b.must(t, request{Op: "tool", Class: class, Input: input, Args: args})
	return a.Output, a.Exit
}

// do runs a tool against the broker; it must succeed.
func (b toolbox) do(t *testing.T, class, input string, args ...string) string {
	t.Helper()
	args = append(b.reach(), args...)
	out, exit := b.run(t, class, input, args...)
	if exit != 0 || strings.Contains(out, "Exception") {
		t.Fatalf("%s %s: exit status %d\n%s", class, strings.Join(args, " "), exit, out)
	}
	return out
}

// fails runs a tool that must end with a status other than 0 and print text.
func (b toolbox) fails(t *testing.T, text, class string, args ...string) {
	t.Helper()
	out, exit := b.run(t, class, "", append(b.reach(), args...)...)
	if exit == 0 || !strings.Contains(out, text) {
		t.Errorf("%s %s: exit status %d, want a failure that says %q\n%s", class, strings.Join(args, " "), exit, text, out)
	}
}

// contains fails the test for each text that is missing.
func contains(t *testing.T, out string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(out, text) {
			t.Errorf("%q is missing in:\n%s", text, out)
		}
	}
}

// TestTools proves that the command line tools of Apache Kafka, which every
// runbook names, do their work.
func TestTools(t *testing.T) {
	t.Parallel()
	javaKit.have(t)
	b := shared(t, quick)
	box := tools(t, b.addr)
	t.Run("kafka-topics", box.topics)
	t.Run("kafka-configs", box.configs)
	for _, codec := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
		t.Run("console/"+codec, func(t *testing.T) { box.console(t, codec) })
	}
	t.Run("kafka-consumer-groups", box.groups)
	t.Run("kafka-get-offsets", box.offsets)
	t.Run("kafka-transactions", box.transactions)
	t.Run("without security", box.withoutSecurity)
	if b.factor == 1 { // else TestClusterTools has more of them
		t.Run("without a cluster", box.withoutCluster)
	}
}

// withoutSecurity runs the tools for what a broker without security has none of.
func (b toolbox) withoutSecurity(t *testing.T) {
	if out, _ := b.run(t, aclsTool, "", "--bootstrap-server", b.addr, "--list"); !strings.Contains(out, "No Authorizer is configured on the broker") {
		t.Errorf("kafka-acls: %s", out)
	}
	for _, entity := range []string{"users", "clients", "ips"} {
		if out := b.do(t, configsTool, "", "--entity-type", entity, "--describe"); strings.TrimSpace(out) != "" {
			t.Errorf("configs of %s: %s", entity, out)
		}
	}
	contains(t, b.do(t, transactionsTool, "", "list"), "TransactionalId")
	contains(t, b.do(t, versionsTool, ""), "SaslHandshake(17): 0 to 1", "DescribeAcls(29): 1 to 3", "ListTransactions(66): 0 to 2")
}

// withoutCluster runs the tools that look after replicas, leaders and brokers.
func (b toolbox) withoutCluster(t *testing.T) {
	topic := fmt.Sprintf("tools.replicas.%d", names.Add(1))
	b.do(t, topicsTool, "", "--create", "--topic", topic, "--partitions", "2", "--replication-factor", "1")
	plan := func(broker int) string {
		file := filepath.Join(t.TempDir(), "plan.json")
		text := fmt.Sprintf(`{"version":1,"partitions":[{"topic":%q,"partition":0,"replicas":[%d]}]}`, topic, broker)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	same := plan(1)
	contains(t, b.do(t, reassignTool, "", "--reassignment-json-file", same, "--execute"), "Successfully started partition reassignment for "+topic+"-0")
	contains(t, b.do(t, reassignTool, "", "--reassignment-json-file", same, "--verify"), "Reassignment of partition "+topic+"-0 is completed.")
	contains(t, b.do(t, reassignTool, "", "--list"), "No partition reassignments found.")
	b.fails(t, "Unknown broker id 9", reassignTool, "--reassignment-json-file", plan(9), "--execute")
	b.do(t, electionTool, "", "--election-type", "preferred", "--all-topic-partitions")
	contains(t, b.do(t, electionTool, "", "--election-type", "unclean", "--topic", topic, "--partition", "1"), "Valid replica already elected for partitions "+topic+"-1")
	contains(t, b.do(t, featuresTool, "", "describe"), "metadata.version")
	b.fails(t, "nonsense", featuresTool, "upgrade", "--feature", "nonsense=1")
	if out, _ := b.run(t, clusterTool, "", "unregister", "--bootstrap-server", b.addr, "--id", "9"); !strings.Contains(out, "Broker ID 9 is not currently registered") {
		t.Errorf("kafka-cluster: %s", out)
	}
	contains(t, b.do(t, logDirsTool, "", "--describe", "--topic-list", topic), topic+"-1")
	b.do(t, allGroupsTool, "", "--list")
}

func (b toolbox) topics(t *testing.T) {
	topic := fmt.Sprintf("tools.topics.%d", names.Add(1))
	b.do(t, topicsTool, "", "--create", "--topic", topic, "--partitions", "2", "--replication-factor", "1",
		"--config", "retention.ms=3600000", "--config", "cleanup.policy=compact") // the answer carries a note about the second
	contains(t, b.do(t, topicsTool, "", "--list"), topic)
	contains(t, b.do(t, topicsTool, "", "--describe", "--topic", topic),
		"PartitionCount: 2", "ReplicationFactor: 1", "retention.ms=3600000", "Partition: 1\tLeader: ")
	b.do(t, topicsTool, "", "--alter", "--topic", topic, "--partitions", "4")
	contains(t, b.do(t, topicsTool, "", "--describe", "--topic", topic), "PartitionCount: 4", "Partition: 3\tLeader: ")
	b.fails(t, "already exists", topicsTool, "--create", "--topic", topic)
	b.fails(t, "does not exist", topicsTool, "--describe", "--topic", topic+".nowhere")
	b.fails(t, "Unknown topic config name", topicsTool, "--create", "--topic", topic+".bad", "--config", "no.such.config=1")
	b.do(t, topicsTool, "", "--delete", "--topic", topic)
	eventually(t, time.Minute, "the topic is gone", func() bool {
		return !strings.Contains(b.do(t, topicsTool, "", "--list"), topic+"\n")
	})
}

func (b toolbox) configs(t *testing.T) {
	topic := fmt.Sprintf("tools.configs.%d", names.Add(1))
	b.do(t, topicsTool, "", "--create", "--topic", topic, "--partitions", "1", "--replication-factor", "1")
	of := []string{"--entity-type", "topics", "--entity-name", topic}
	b.do(t, configsTool, "", append(of, "--alter", "--add-config", "retention.ms=60000,cleanup.policy=[compact,delete]")...)
	contains(t, b.do(t, configsTool, "", append(of, "--describe")...), "retention.ms=60000", "cleanup.policy=compact,delete", "DYNAMIC_TOPIC_CONFIG")
	b.do(t, configsTool, "", append(of, "--alter", "--delete-config", "retention.ms")...)
	if out := b.do(t, configsTool, "", append(of, "--describe")...); strings.Contains(out, "retention.ms") {
		t.Errorf("retention.ms is still set:\n%s", out)
	}
	contains(t, b.do(t, configsTool, "", append(of, "--describe", "--all")...),
		"max.message.bytes=1048588", "segment.bytes=1073741824", "min.insync.replicas=1", "DEFAULT_CONFIG")
	b.fails(t, "InvalidConfigurationException", configsTool, append(of, "--alter", "--add-config", "retention.ms=soon")...)
	contains(t, b.do(t, configsTool, "", "--entity-type", "brokers", "--entity-name", "1", "--describe", "--all"),
		"log.retention.hours=168", "num.partitions=1")
	loggers := []string{"--entity-type", "broker-loggers", "--entity-name", "1"}
	b.do(t, configsTool, "", append(loggers, "--alter", "--add-config", "storage=DEBUG")...)
	contains(t, b.do(t, configsTool, "", append(loggers, "--describe")...), "storage=DEBUG", "root=INFO", "wire=INFO")
	b.do(t, configsTool, "", append(loggers, "--alter", "--delete-config", "storage")...)
	contains(t, b.do(t, configsTool, "", append(loggers, "--describe")...), "storage=INFO")
	b.fails(t, "nonsense", configsTool, append(loggers, "--alter", "--add-config", "nonsense=DEBUG")...)
}

func (b toolbox) console(t *testing.T, codec string) {
	t.Helper()
	topic := fmt.Sprintf("tools.console.%s.%d", codec, names.Add(1))
	b.do(t, topicsTool, "", "--create", "--topic", topic, "--partitions", "1", "--replication-factor", "1")
	var lines, want strings.Builder
	for i := range 50 {
		fmt.Fprintf(&lines, "h:v%d\tkey%d|value %d\n", i, i%5, i)
		fmt.Fprintf(&want, "h:v%d\tkey%d\tvalue %d\n", i, i%5, i)
	}
	b.do(t, producerTool, lines.String(), "--topic", topic, "--compression-codec", codec,
		"--reader-property", "parse.key=true", "--reader-property", "key.separator=|", "--reader-property", "parse.headers=true")
	got := b.do(t, consumerTool, "", "--topic", topic, "--from-beginning", "--max-messages", "50", "--timeout-ms", "20000",
		"--formatter-property", "print.key=true", "--formatter-property", "print.headers=true")
	if !strings.Contains(got, want.String()) {
		t.Errorf("consumed:\n%s\nwant:\n%s", got, want.String())
	}
	got = b.do(t, consumerTool, "", "--topic", topic, "--partition", "0", "--offset", "48", "--max-messages", "2", "--timeout-ms", "20000")
	if !strings.Contains(got, "value 48\nvalue 49\n") || strings.Contains(got, "value 47") {
		t.Errorf("consumed from offset 48:\n%s", got)
	}
}

func (b toolbox) groups(t *testing.T) {
	topic := fmt.Sprintf("tools.groups.%d", names.Add(1))
	group := topic + ".readers"
	b.do(t, topicsTool, "", "--create", "--topic", topic, "--partitions", "1", "--replication-factor", "1")
	b.do(t, producerTool, strings.Repeat("line\n", 30), "--topic", topic)
	b.do(t, consumerTool, "", "--topic", topic, "--group", group, "--from-beginning", "--max-messages", "20", "--timeout-ms", "20000")
	contains(t, b.do(t, groupsTool, "", "--list"), group)
	position := func() []string {
		for line := range strings.Lines(b.do(t, groupsTool, "", "--describe", "--group", group)) {
			if f := strings.Fields(line); len(f) > 5 && f[1] == topic {
				return f
			}
		}
		return make([]string, 6)
	}
	// GROUP TOPIC PARTITION CURRENT-OFFSET LOG-END-OFFSET LAG
	if f := position(); f[3] != "20" || f[4] != "30" || f[5] != "10" {
		t.Errorf("described as %v, want current offset 20, end 30, lag 10", f)
	}
	contains(t, b.do(t, groupsTool, "", "--describe", "--group", group, "--state"), "Empty")
	b.do(t, groupsTool, "", "--reset-offsets", "--group", group, "--topic", topic, "--to-offset", "7", "--execute")
	if f := position(); f[3] != "7" {
		t.Errorf("after the reset described as %v, want offset 7", f)
	}
	b.do(t, groupsTool, "", "--delete-offsets", "--group", group, "--topic", topic)
	b.do(t, groupsTool, "", "--delete", "--group", group)
	if out := b.do(t, groupsTool, "", "--list"); strings.Contains(out, group) {
		t.Errorf("the deleted group is still listed:\n%s", out)
	}
}

func (b toolbox) offsets(t *testing.T) {
	topic := fmt.Sprintf("tools.offsets.%d", names.Add(1))
	b.do(t, topicsTool, "", "--create", "--topic", topic, "--partitions", "1", "--replication-factor", "1")
	before := time.Now().UnixMilli()
	b.do(t, producerTool, strings.Repeat("line\n", 10), "--topic", topic)
	// offset returns what the tool prints for the only partition, -1 if nothing.
	offset := func(when string) int {
		n := -1
		out := b.do(t, offsetsTool, "", "--topic", topic, "--time", when)
		for line := range strings.Lines(out) {
			f := strings.Split(strings.TrimSpace(line), ":")
			if len(f) == 3 && f[0] == topic {
				o, err := strconv.Atoi(f[2])
				if err != nil {
					t.Errorf("offset in %q: %v", line, err)
				}
				n = o
			}
		}
		return n
	}
	for when, want := range map[string]int{"latest": 10, "earliest": 0, strconv.FormatInt(before, 10): 0} {
		if got := offset(when); got != want {
			t.Errorf("offset at %s is %d, want %d", when, got, want)
		}
	}
	if got := offset("max-timestamp"); got < 0 || got > 9 {
		t.Errorf("the offset of the newest timestamp is %d, want one of 0 to 9", got)
	}
}
