package interop

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	quorumTool        = "org.apache.kafka.tools.MetadataQuorumCommand"
	deleteRecordsTool = "org.apache.kafka.tools.DeleteRecordsCommand"
)

// clusterTools is Kafka's tools and three nodes to run them against.
type clusterTools struct {
	toolbox
	c *cluster
}

// TestClusterTools proves that the tools of Apache Kafka by which a cluster is operated do their work with three
// nodes.
func TestClusterTools(t *testing.T) {
	t.Parallel()
	javaKit.have(t)
	c := ownCluster(t, 3, quick, "auto.leader.rebalance.enable=false")
	b := clusterTools{tools(t, c.addrs()), c}
	t.Run("kafka-cluster", b.endpoints)
	t.Run("kafka-broker-api-versions", b.apiVersions)
	t.Run("kafka-features", b.features)
	t.Run("kafka-metadata-quorum", b.quorum)
	t.Run("kafka-topics", b.assignments)
	t.Run("kafka-configs", b.brokerConfigs)
	t.Run("kafka-log-dirs", b.logDirs)
	t.Run("kafka-get-offsets and kafka-delete-records", b.deleteRecords)
	t.Run("kafka-reassign-partitions", b.reassign)
	t.Run("kafka-reassign-partitions --cancel", b.cancelReassignment)
	t.Run("kafka-consumer-groups", b.groupsOfCluster)
	t.Run("without a node", b.withoutNode)
	t.Run("kafka-leader-election", b.uncleanElection)
	t.Run("kafka-cluster unregister", b.unregister)
}

// topic creates a topic whose partitions have the assigned replicas, written as 1:2:3,2:3:1.
func (b clusterTools) topic(t *testing.T, what, assignment string, configs ...string) string {
	t.Helper()
	topic := fmt.Sprintf("cluster.%s.%d", what, names.Add(1))
	args := []string{"--create", "--topic", topic, "--replica-assignment", assignment}
	for _, c := range configs {
		args = append(args, "--config", c)
	}
	b.do(t, topicsTool, "", args...)
	awaitTopic(t, b.admin(t), topic, strings.Count(assignment, ",")+1)
	return topic
}

func (b clusterTools) admin(t *testing.T) *kadm.Client {
	t.Helper()
	return kadm.NewClient(b.client(t))
}

// client returns a client of all nodes.
func (b clusterTools) client(t *testing.T, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(strings.Split(b.addr, ",")...), kgo.RecordPartitioner(kgo.ManualPartitioner())}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// fill writes records of a kibibyte into a partition.
func (b clusterTools) fill(t *testing.T, topic string, partition int32, records int) {
	t.Helper()
	var all []*kgo.Record
	for i := range records {
		value := make([]byte, 1024)
		copy(value, strconv.Itoa(i))
		all = append(all, &kgo.Record{Topic: topic, Partition: partition, Value: value})
	}
	cl := b.client(t, kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err := cl.ProduceSync(t.Context(), all...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// file writes a file for a tool and returns its path.
func file(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "input")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// matches fails the test unless the output matches the pattern.
func matches(t *testing.T, out, pattern string) {
	t.Helper()
	if !regexp.MustCompile("(?m)" + pattern).MatchString(out) {
		t.Errorf("%q does not match:\n%s", pattern, out)
	}
}

// lacks fails the test for each text that is there.
func lacks(t *testing.T, out string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if strings.Contains(out, text) {
			t.Errorf("%q should not be in:\n%s", text, out)
		}
	}
}

// endpoints proves that the id of the cluster and the addresses of its nodes are told.
func (b clusterTools) endpoints(t *testing.T) {
	out, exit := b.run(t, clusterTool, "", "cluster-id", "--bootstrap-server", b.addr)
	if exit != 0 {
		t.Errorf("exit status %d", exit)
	}
	matches(t, out, `^Cluster ID: \S{22}$`)
	out, exit = b.run(t, clusterTool, "", "list-endpoints", "--bootstrap-server", b.addr, "--include-fenced-brokers")
	if exit != 0 {
		t.Errorf("exit status %d", exit)
	}
	for i, n := range b.c.nodes {
		host, port, _ := strings.Cut(n.addr, ":")
		matches(t, out, fmt.Sprintf(`^%d +%s +%s +rack-%d +unfenced +broker *$`, i+1, regexp.QuoteMeta(host), port, i+1))
	}
}

func (b clusterTools) apiVersions(t *testing.T) {
	out := b.do(t, versionsTool, "")
	for i, n := range b.c.nodes {
		matches(t, out, fmt.Sprintf(`^%s \(id: %d rack: rack-%d isFenced: false\) -> \($`, regexp.QuoteMeta(n.addr), i+1, i+1))
	}
	if n := strings.Count(out, "Produce(0): "); n != 3 {
		t.Errorf("%d nodes told their versions:\n%s", n, out)
	}
}

func (b clusterTools) features(t *testing.T) {
	out := b.do(t, featuresTool, "", "describe")
	matches(t, out, `^Feature: metadata.version\s+SupportedMinVersion: \S+\s+SupportedMaxVersion: \S+\s+FinalizedVersionLevel: \S+\s+Epoch: \d+`)
	for id := range len(b.c.nodes) {
		out := b.do(t, featuresTool, "", "describe", "--node-id", strconv.Itoa(id+1))
		matches(t, out, `^Feature: metadata.version\s`)
	}
}

// quorum proves that the voters are shown, how far they are, and that what the tool cannot change says why.
func (b clusterTools) quorum(t *testing.T) {
	out := b.do(t, quorumTool, "", "describe", "--status")
	matches(t, out, `^ClusterId: +\S{22}$`)
	matches(t, out, `^LeaderId: +[123]$`)
	matches(t, out, `^LeaderEpoch: +[1-9]\d*$`)
	matches(t, out, `^HighWatermark: +[1-9]\d*$`)
	matches(t, out, `^MaxFollowerLag: +\d+$`)
	matches(t, out, `^MaxFollowerLagTimeMs: +\d+$`)
	matches(t, out, `^CurrentVoters: +\[.*"id": 1\b.*"id": 2\b.*"id": 3\b.*\]$`)
	matches(t, out, `^CurrentObservers: +\[\]$`)
	out = b.do(t, quorumTool, "", "describe", "--replication")
	matches(t, out, `^NodeId\s+DirectoryId\s+LogEndOffset\s+Lag\s+LastFetchTimestamp\s+LastCaughtUpTimestamp\s+Status`)
	matches(t, out, `^[123]\s+\S+\s+\d+\s+0\s+\d+\s+\d+\s+Leader`)
	if n := len(regexp.MustCompile(`(?m)^[123]\s+\S+\s+\d+\s+\d+\s+\d+\s+\d+\s+Follower`).FindAllString(out, -1)); n != 2 {
		t.Errorf("it shows %d followers:\n%s", n, out)
	}
	matches(t, b.do(t, quorumTool, "", "describe", "--replication", "--human-readable"), `\d+ ms ago.*\sFollower`)

	out, exit := b.run(t, quorumTool, "", "--bootstrap-server", b.addr, "remove-controller", "--controller-id", "3", "--controller-directory-id", "AAAAAAAAAAAAAAAAAAAAAg")
	checkRefusal(t, "remove-controller", out, exit)
	dir := t.TempDir()
	properties := "process.roles=controller\nnode.id=9\ncontroller.quorum.bootstrap.servers=" + b.c.nodes[0].addr +
		"\ncontroller.listener.names=CONTROLLER\nlisteners=CONTROLLER://127.0.0.1:31999\nlog.dirs=" + dir + "\n"
	identity := "version=1\nnode.id=9\ncluster.id=MkU3OEVBNTcwNTJENDM2Qk\ndirectory.id=AAAAAAAAAAAAAAAAAAAAAw\n"
	if err := os.WriteFile(filepath.Join(dir, "meta.properties"), []byte(identity), 0o600); err != nil {
		t.Fatal(err)
	}
	out, exit = b.run(t, quorumTool, "", "--bootstrap-server", b.addr, "--command-config", file(t, properties), "add-controller")
	checkRefusal(t, "add-controller", out, exit)
}

// checkRefusal checks that a tool has told why it does not choose the voters. Apache Kafka does not let it either, with
// the voters that the suite gives it.
func checkRefusal(t *testing.T, verb, out string, exit int) {
	t.Helper()
	if exit == 0 {
		t.Errorf("%s: it is done:\n%s", verb, out)
	}
	contains(t, out, "UnsupportedVersionException")
	if runsKafka() {
		return
	}
	contains(t, out, "The cluster itself chooses the nodes that vote on its metadata")
}

// assignments proves that replicas are put where somebody wants them, and are shown.
func (b clusterTools) assignments(t *testing.T) {
	topic := b.topic(t, "assigned", "1:2:3,2:3:1")
	out := b.do(t, topicsTool, "", "--describe", "--topic", topic)
	contains(t, out, "PartitionCount: 2", "ReplicationFactor: 3")
	matches(t, out, `Partition: 0\s+Leader: 1\s+Replicas: 1,2,3\s+Isr: 1,2,3`)
	matches(t, out, `Partition: 1\s+Leader: 2\s+Replicas: 2,3,1\s+Isr: 2,3,1`)
	b.do(t, topicsTool, "", "--alter", "--topic", topic, "--partitions", "3", "--replica-assignment", "1:2:3,2:3:1,3:2:1")
	awaitTopic(t, b.admin(t), topic, 3)
	matches(t, b.do(t, topicsTool, "", "--describe", "--topic", topic), `Partition: 2\s+Leader: 3\s+Replicas: 3,2,1\s+Isr: 3,2,1`)
	b.do(t, topicsTool, "", "--alter", "--topic", topic, "--partitions", "6")
	awaitTopic(t, b.admin(t), topic, 6)
	out = b.do(t, topicsTool, "", "--describe", "--topic", topic)
	matches(t, out, `Partition: 5\s+Leader: [123]\s+Replicas: [123],[123],[123]\s+Isr: `)
	b.fails(t, "", topicsTool, "--alter", "--topic", topic, "--partitions", "2")
	b.fails(t, "The target replication factor of 4 cannot be reached because only 3 broker(s) are registered", topicsTool, "--create", "--topic", topic+".large", "--partitions", "1", "--replication-factor", "4")
	for _, none := range []string{"--under-replicated-partitions", "--under-min-isr-partitions", "--unavailable-partitions"} {
		if out := b.do(t, topicsTool, "", "--describe", none); strings.TrimSpace(out) != "" {
			t.Errorf("%s: %s", none, out)
		}
	}
}

// brokerConfigs proves that configs of one broker and of all are set while they run, and removed.
func (b clusterTools) brokerConfigs(t *testing.T) {
	all := []string{"--entity-type", "brokers", "--entity-default"}
	of := func(id string) []string { return []string{"--entity-type", "brokers", "--entity-name", id} }
	b.do(t, configsTool, "", append(all, "--alter", "--add-config", "log.retention.ms=86400000,max.connections=1000")...)
	b.do(t, configsTool, "", append(of("2"), "--alter", "--add-config", "max.connections=2000")...)
	contains(t, b.do(t, configsTool, "", append(all, "--describe")...), "log.retention.ms=86400000", "max.connections=1000", "DYNAMIC_DEFAULT_BROKER_CONFIG")
	out := b.do(t, configsTool, "", append(of("2"), "--describe")...)
	matches(t, out, `max\.connections=2000 sensitive=false synonyms=\{DYNAMIC_BROKER_CONFIG:max\.connections=2000, DYNAMIC_DEFAULT_BROKER_CONFIG:max\.connections=1000, DEFAULT_CONFIG:max\.connections=\d+\}`)
	out = b.do(t, configsTool, "", append(of("3"), "--describe", "--all")...)
	matches(t, out, `max\.connections=1000 sensitive=false synonyms=\{DYNAMIC_DEFAULT_BROKER_CONFIG:max\.connections=1000, DEFAULT_CONFIG:`)
	contains(t, out, "log.retention.ms=86400000", "num.partitions=1", "broker.rack=rack-3")
	b.do(t, configsTool, "", append(all, "--alter", "--delete-config", "log.retention.ms,max.connections")...)
	b.do(t, configsTool, "", append(of("2"), "--alter", "--delete-config", "max.connections")...)
	lacks(t, b.do(t, configsTool, "", append(all, "--describe")...), "max.connections", "log.retention.ms")
	lacks(t, b.do(t, configsTool, "", append(of("2"), "--describe")...), "max.connections=2000")
	b.fails(t, "InvalidRequestException", configsTool, append(of("2"), "--alter", "--add-config", "broker.rack=elsewhere")...)
}

func (b clusterTools) logDirs(t *testing.T) {
	topic := b.topic(t, "dirs", "1:2,3:1")
	b.fill(t, topic, 0, 10)
	b.c.mustBeComplete(t)
	out := b.do(t, logDirsTool, "", "--describe", "--broker-list", "1,2,3", "--topic-list", topic)
	start := strings.Index(out, "{")
	var told struct {
		Brokers []struct {
			Broker  int `json:"broker"`
			LogDirs []struct {
				Error      *string `json:"error"`
				Partitions []struct {
					Partition string `json:"partition"`
					Size      int64  `json:"size"`
					OffsetLag int64  `json:"offsetLag"`
				} `json:"partitions"`
			} `json:"logDirs"`
		} `json:"brokers"`
	}
	if start < 0 || json.Unmarshal([]byte(out[start:]), &told) != nil || len(told.Brokers) != 3 {
		t.Fatalf("it says\n%s", out)
	}
	for _, n := range told.Brokers {
		want := 1
		if n.Broker == 1 {
			want = 2
		}
		if len(n.LogDirs) != 1 || n.LogDirs[0].Error != nil || len(n.LogDirs[0].Partitions) != want {
			t.Fatalf("broker %d: %+v, want %d partitions", n.Broker, n.LogDirs, want)
		}
		for _, p := range n.LogDirs[0].Partitions {
			if p.Partition == topic+"-0" && p.Size < 10*1024 || p.OffsetLag != 0 {
				t.Errorf("broker %d: %+v", n.Broker, p)
			}
		}
	}
}

// deleteRecords proves that offsets are told of partitions that other nodes lead, and records are deleted there.
func (b clusterTools) deleteRecords(t *testing.T) {
	topic := b.topic(t, "deleted", "1:2:3,2:3:1,3:1:2")
	for p := range int32(3) {
		b.fill(t, topic, p, 10*int(p+1))
	}
	contains(t, b.do(t, offsetsTool, "", "--topic", topic), topic+":0:10", topic+":1:20", topic+":2:30")
	contains(t, b.do(t, offsetsTool, "", "--topic-partitions", topic+":1-3", "--time", "earliest"), topic+":1:0", topic+":2:0")
	plan := file(t, fmt.Sprintf(`{"version":1,"partitions":[{"topic":%[1]q,"partition":0,"offset":4},{"topic":%[1]q,"partition":1,"offset":5},{"topic":%[1]q,"partition":2,"offset":-1}]}`, topic))
	out := b.do(t, deleteRecordsTool, "", "--offset-json-file", plan)
	matches(t, out, `partition: `+regexp.QuoteMeta(topic)+`-0\s+low_watermark: 4$`)
	matches(t, out, `partition: `+regexp.QuoteMeta(topic)+`-1\s+low_watermark: 5$`)
	matches(t, out, `partition: `+regexp.QuoteMeta(topic)+`-2\s+low_watermark: 30$`)
	contains(t, b.do(t, offsetsTool, "", "--topic", topic, "--time", "earliest"), topic+":0:4", topic+":1:5", topic+":2:30")
	out, _ = b.run(t, deleteRecordsTool, "", "--bootstrap-server", b.addr, "--offset-json-file", file(t, fmt.Sprintf(`{"version":1,"partitions":[{"topic":%q,"partition":0,"offset":99}]}`, topic)))
	contains(t, out, "OffsetOutOfRangeException")
}

// groupsOfCluster proves that groups are told of whichever node coordinates them.
func (b clusterTools) groupsOfCluster(t *testing.T) {
	topic := b.topic(t, "groups", "1:2:3,2:3:1,3:1:2")
	for p := range int32(3) {
		b.fill(t, topic, p, 10)
	}
	var groups []string
	for i := range 4 {
		groups = append(groups, fmt.Sprintf("%s.readers.%d", topic, i))
		b.do(t, consumerTool, "", "--topic", topic, "--group", groups[i], "--from-beginning", "--max-messages", "30", "--timeout-ms", "30000")
	}
	contains(t, b.do(t, groupsTool, "", "--list"), groups...)
	contains(t, b.do(t, groupsTool, "", "--list", "--state"), "Empty")
	for _, g := range groups {
		out := b.do(t, groupsTool, "", "--describe", "--group", g)
		for p := range 3 {
			matches(t, out, fmt.Sprintf(`^%s\s+%s\s+%d\s+10\s+10\s+0\s`, regexp.QuoteMeta(g), regexp.QuoteMeta(topic), p))
		}
		matches(t, b.do(t, groupsTool, "", "--describe", "--state", "--group", g), `127\.0\.0\.1:\d+\s+\([123]\)\s+.*Empty\s+0`)
	}
	b.do(t, groupsTool, "", "--reset-offsets", "--all-topics", "--to-earliest", "--execute", "--group", groups[0])
	matches(t, b.do(t, groupsTool, "", "--describe", "--group", groups[0]), `\s2\s+0\s+10\s+10\s`)
	b.do(t, groupsTool, "", "--delete", "--group", groups[0], "--group", groups[1])
	lacks(t, b.do(t, groupsTool, "", "--list"), groups[0], groups[1])
}

// awaitISR waits until the in-sync replicas of a topic's first partition are so many.
func (b clusterTools) awaitISR(t *testing.T, topic string, want int) {
	t.Helper()
	adm := b.admin(t)
	eventually(t, clusterTimeout, fmt.Sprintf("%d replicas of %s are in sync", want, topic), func() bool {
		md, err := adm.Metadata(t.Context(), topic)
		return err == nil && len(md.Topics[topic].Partitions[0].ISR) == want
	})
}

// withoutNode proves that what a node's death does to partitions is shown, and that leaders go back.
func (b clusterTools) withoutNode(t *testing.T) {
	safe := b.topic(t, "safe", "3:1:2,1:2:3", "min.insync.replicas=1")
	tight := b.topic(t, "tight", "3:2:1", "min.insync.replicas=2")
	short := b.topic(t, "short", "1:2:3", "min.insync.replicas=3")
	gone := b.topic(t, "gone", "3,1")
	b.c.node(3).kill(t)
	for _, topic := range []string{safe, tight, short} {
		b.awaitISR(t, topic, 2)
	}
	adm := b.admin(t)
	eventually(t, clusterTimeout, "a partition has no leader", func() bool {
		md, err := adm.Metadata(t.Context(), gone)
		return err == nil && md.Topics[gone].Partitions[0].Leader < 0
	})
	listed := func(switches string, topics ...string) {
		t.Helper()
		out := b.do(t, topicsTool, "", "--describe", switches)
		for _, topic := range []string{safe, tight, short, gone} {
			is, want := strings.Contains(out, topic), slices.Contains(topics, topic)
			if is != want {
				t.Errorf("%s: %s is listed: %v, want %v\n%s", switches, topic, is, want, out)
			}
		}
	}
	listed("--under-replicated-partitions", safe, tight, short, gone)
	listed("--at-min-isr-partitions", tight, gone) // the second partition of gone has its one replica
	listed("--under-min-isr-partitions", short, gone)
	listed("--unavailable-partitions", gone)
	matches(t, b.do(t, topicsTool, "", "--describe", "--topic", gone), `Partition: 0\s+Leader: none\s+Replicas: 3\s+Isr: (3\s|\s*Elr: 3\s)`)
	out, _ := b.run(t, clusterTool, "", "list-endpoints", "--bootstrap-server", b.addr, "--include-fenced-brokers")
	matches(t, out, `^3 .* fenced +broker *$`)
	matches(t, b.do(t, quorumTool, "", "describe", "--status"), `^LeaderId: +[12]$`)

	b.c.node(3).startAgain(t)
	b.c.mustBeComplete(t)
	out = b.do(t, topicsTool, "", "--describe", "--topic", safe)
	matches(t, out, `Partition: 0\s+Leader: [12]\s`)
	contains(t, b.do(t, electionTool, "", "--election-type", "preferred", "--topic", safe, "--partition", "0"),
		"Successfully completed leader election (PREFERRED) for partitions "+safe+"-0")
	matches(t, b.do(t, topicsTool, "", "--describe", "--topic", safe), `Partition: 0\s+Leader: 3\s+Replicas: 3,1,2`)
	contains(t, b.do(t, electionTool, "", "--election-type", "preferred", "--topic", safe, "--partition", "0"),
		"Valid replica already elected for partitions "+safe+"-0")
	plan := file(t, fmt.Sprintf(`{"partitions":[{"topic":%q,"partition":0}]}`, tight))
	contains(t, b.do(t, electionTool, "", "--election-type", "preferred", "--path-to-json-file", plan), "Successfully completed leader election (PREFERRED)", tight+"-0")
	b.do(t, electionTool, "", "--election-type", "preferred", "--all-topic-partitions")
}

// uncleanElection proves that an administrator can have a replica lead that lacks records, where none else is left, and
// nobody else does it.
func (b clusterTools) uncleanElection(t *testing.T) {
	topic := b.topic(t, "unclean", "1:2", "min.insync.replicas=1")
	b.fill(t, topic, 0, 5)
	b.c.node(2).kill(t)
	b.awaitISR(t, topic, 1)
	b.fill(t, topic, 0, 5)
	b.c.node(1).kill(t)
	b.c.node(2).startAgain(t)
	adm := b.admin(t)
	eventually(t, clusterTimeout, "the partition has no leader", func() bool {
		md, err := adm.Metadata(t.Context(), topic)
		return err == nil && len(md.Brokers) == 2 && md.Topics[topic].Partitions[0].Leader < 0
	})
	b.fails(t, "", electionTool, "--election-type", "preferred", "--topic", topic, "--partition", "0")
	contains(t, b.do(t, electionTool, "", "--election-type", "unclean", "--topic", topic, "--partition", "0"),
		"Successfully completed leader election (UNCLEAN) for partitions "+topic+"-0")
	matches(t, b.do(t, topicsTool, "", "--describe", "--topic", topic), `Partition: 0\s+Leader: 2\s+Replicas: 1,2\s+Isr: 2\s`)
	contains(t, b.do(t, offsetsTool, "", "--topic", topic), topic+":0:5")
	b.c.node(1).startAgain(t)
	b.c.mustBeComplete(t)
	contains(t, b.do(t, offsetsTool, "", "--topic", topic), topic+":0:5")
}

// unregister proves that a node that will not come back is removed, and one that runs is not.
func (b clusterTools) unregister(t *testing.T) {
	if !runsKafka() { // which removes it, and has it come back
		out, exit := b.run(t, clusterTool, "", "unregister", "--bootstrap-server", b.addr, "--id", "3")
		if exit == 0 {
			t.Errorf("the node runs, and is removed: %s", out)
		}
		contains(t, out, "Broker ID 3 is running: stop it before it is removed.")
	}
	b.c.node(3).kill(t)
	eventually(t, clusterTimeout, "the node is fenced", func() bool {
		out, _ := b.run(t, clusterTool, "", "list-endpoints", "--bootstrap-server", b.addr, "--include-fenced-brokers")
		return regexp.MustCompile(`(?m)^3 .* fenced `).MatchString(out)
	})
	out, exit := b.run(t, clusterTool, "", "unregister", "--bootstrap-server", b.addr, "--id", "3")
	if exit != 0 {
		t.Errorf("exit status %d", exit)
	}
	contains(t, out, "Broker 3 is no longer registered.")
	out, _ = b.run(t, clusterTool, "", "list-endpoints", "--bootstrap-server", b.addr, "--include-fenced-brokers")
	if regexp.MustCompile(`(?m)^3 `).MatchString(out) {
		t.Errorf("the node is still there:\n%s", out)
	}
}

// planOf writes a reassignment of a topic's first partition as kafka-reassign-partitions reads it, and returns the file's path.
func planOf(t *testing.T, topic string, replicas ...int) string {
	t.Helper()
	list := strings.Trim(strings.Join(strings.Fields(fmt.Sprint(replicas)), ","), "[]")
	return file(t, fmt.Sprintf(`{"version":1,"partitions":[{"topic":%q,"partition":0,"replicas":[%s]}]}`, topic, list))
}

// heavy creates a topic with one partition on nodes 1 and 2, and so many bytes that they cannot be copied at the slowest
// rate while the test runs.
func (b clusterTools) heavy(t *testing.T, what string) string {
	t.Helper()
	topic := b.topic(t, what, "1:2", "min.insync.replicas=1")
	b.fill(t, topic, 0, 8<<10)
	return topic
}

// reassign proves that replicas are moved, at the rate that the tool sets, which goes on to all nodes and is taken away
// again; and that the tool proposes where they could be.
func (b clusterTools) reassign(t *testing.T) {
	topic := b.heavy(t, "moved")
	of := file(t, fmt.Sprintf(`{"version":1,"topics":[{"topic":%q}]}`, topic))
	out := b.do(t, reassignTool, "", "--generate", "--topics-to-move-json-file", of, "--broker-list", "2,3")
	matches(t, out, `(?s)Current partition replica assignment\s+\{.*"replicas":\[1,2\].*Proposed partition reassignment configuration\s+\{.*"replicas":\[(2,3|3,2)\]`)

	moves := planOf(t, topic, 3, 2)
	out = b.do(t, reassignTool, "", "--execute", "--reassignment-json-file", moves, "--throttle", "1000")
	contains(t, out, "Current partition replica assignment", "Successfully started partition reassignment for "+topic+"-0", "The inter-broker throttle limit was set to 1000 B/s")
	configs := func(kind, name string) string {
		t.Helper()
		return b.do(t, configsTool, "", "--describe", "--entity-type", kind, "--entity-name", name)
	}
	for _, id := range []string{"1", "2", "3"} {
		contains(t, configs("brokers", id), "leader.replication.throttled.rate=1000", "follower.replication.throttled.rate=1000")
	}
	contains(t, configs("topics", topic), "leader.replication.throttled.replicas=0:1,0:2", "follower.replication.throttled.replicas=0:3")
	contains(t, b.do(t, reassignTool, "", "--list"), "Current partition reassignments:", topic+"-0: replicas: 3,2,1. adding: 3. removing: 1.")
	out = b.do(t, reassignTool, "", "--verify", "--reassignment-json-file", moves)
	contains(t, out, "Reassignment of partition "+topic+"-0 is still in progress.")
	lacks(t, out, "Clearing")
	contains(t, b.do(t, topicsTool, "", "--describe", "--topic", topic), "Adding Replicas: 3", "Removing Replicas: 1")
	b.fails(t, "there is an existing", reassignTool, "--execute", "--reassignment-json-file", moves)

	out = b.do(t, reassignTool, "", "--execute", "--additional", "--reassignment-json-file", moves, "--throttle", "100000000")
	contains(t, out, "The inter-broker throttle limit was set to 100000000 B/s")
	eventually(t, clusterTimeout, "the replica is moved", func() bool {
		return strings.Contains(b.do(t, reassignTool, "", "--list"), "No partition reassignments found.")
	})
	contains(t, configs("brokers", "3"), "follower.replication.throttled.rate=100000000")
	out = b.do(t, reassignTool, "", "--verify", "--reassignment-json-file", moves)
	contains(t, out, "Reassignment of partition "+topic+"-0 is completed.", "Clearing broker-level throttles on brokers 1,2,3", "Clearing topic-level throttles on topic "+topic)
	for _, id := range []string{"1", "2", "3"} {
		lacks(t, configs("brokers", id), "throttled.rate=1")
	}
	lacks(t, configs("topics", topic), "throttled.replicas")
	matches(t, b.do(t, topicsTool, "", "--describe", "--topic", topic), `Partition: 0\s+Leader: [23]\s+Replicas: 3,2\s+Isr: (2,3|3,2)\s`)
	contains(t, b.do(t, offsetsTool, "", "--topic", topic), topic+":0:"+strconv.Itoa(8<<10))

	more := planOf(t, topic, 3, 2, 1)
	b.fails(t, "", reassignTool, "--execute", "--reassignment-json-file", more, "--disallow-replication-factor-change")
	b.do(t, reassignTool, "", "--execute", "--reassignment-json-file", more)
	b.awaitISR(t, topic, 3)
	contains(t, b.do(t, topicsTool, "", "--describe", "--topic", topic), "ReplicationFactor: 3", "Replicas: 3,2,1")
}

// cancelReassignment proves that a reassignment under way is taken back.
func (b clusterTools) cancelReassignment(t *testing.T) {
	topic := b.heavy(t, "cancelled")
	moves := planOf(t, topic, 3, 2)
	b.do(t, reassignTool, "", "--execute", "--reassignment-json-file", moves, "--throttle", "1000")
	contains(t, b.do(t, reassignTool, "", "--list"), topic+"-0: replicas: 3,2,1. adding: 3. removing: 1.")
	out := b.do(t, reassignTool, "", "--cancel", "--reassignment-json-file", moves)
	contains(t, out, "Successfully cancelled partition reassignment for: "+topic+"-0", "Clearing broker-level throttles on brokers 1,2,3", "Clearing topic-level throttles on topic "+topic)
	contains(t, b.do(t, reassignTool, "", "--list"), "No partition reassignments found.")
	matches(t, b.do(t, topicsTool, "", "--describe", "--topic", topic), `Partition: 0\s+Leader: 1\s+Replicas: 2,1\s+Isr: 1,2\s`)
	contains(t, b.do(t, reassignTool, "", "--cancel", "--reassignment-json-file", moves), "None of the specified partition reassignments are active.")
}
