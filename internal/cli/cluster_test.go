package cli

import (
	"errors"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/admin"
)

// TestClusterText proves what a person reads about a cluster of which everything is known, and about one
// that tells little.
func TestClusterText(t *testing.T) {
	full := &admin.Cluster{
		ID: "abc", Controller: 2, Feature: admin.LeatLevels, Level: 1, Topics: 3, Internal: 1, Partitions: 1200, Offline: 1, UnderReplicated: 30, Note: "Node 3 is late.\x1b",
		Brokers: []admin.Node{
			{ID: 1, Address: "one:9092", Rack: "a", State: admin.Active, Role: "voter", Lag: 3, LowestLevel: 0, HighestLevel: 2, Leads: 400, Replicas: 1200, LogBytes: 2_500_000, DiskTotal: 4e9, DiskUsable: 1e9},
			{ID: 2, Address: "two:9092", Rack: "b", State: admin.Leaving, Role: "leader", Lag: 0, LowestLevel: 2, HighestLevel: 2, LogBytes: 0, DiskTotal: -1, DiskUsable: -1},
		},
	}
	want := `cluster abc: 2 nodes, 1,200 partitions in 3 topics (1 internal), level 1 of leat.metadata

NODE  ADDRESS   RACK  STATE    ROLE    LAG  LEVELS  LEADS  REPLICAS     DATA                FREE
   1  one:9092  a     active   voter     3  0-2       400      1200  2.50 MB  1.00 GB of 4.00 GB
   2  two:9092  b     leaving  leader    0  2           0         0      0 B                   -

1 partition offline: there is no node that can lead.
30 partitions under-replicated: some of the replicas are not in sync.
All nodes know level 2 of the metadata: "leat cluster finalize" raises it, after which no older version of Leat can be started on their data.
Node 3 is late.\x1b
`
	if diff := cmp.Diff(want, clusterText(full)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}

	little := &admin.Cluster{
		ID: "xyz", Controller: 7, Level: -1, NotTold: []string{"which nodes are fenced", "how much room its disks have"},
		Brokers: []admin.Node{{ID: 7, Address: "seven:9092", State: admin.Active, Lag: -1, LowestLevel: -1, HighestLevel: -1, LogBytes: -1, DiskTotal: -1, DiskUsable: -1}},
	}
	want = `cluster xyz: 1 node, 0 partitions in 0 topics

NODE  ADDRESS     RACK  STATE   ROLE        LAG  LEVELS  LEADS  REPLICAS  DATA  FREE
   7  seven:9092        active  controller    -  -           0         0     -     -

All partitions have a leader, and all their replicas are in sync.
This cluster does not tell which nodes are fenced and how much room its disks have.
`
	if diff := cmp.Diff(want, clusterText(little)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}

	apart := &admin.Cluster{
		Controller: 3000, Feature: "metadata.version", Level: 1,
		Brokers: []admin.Node{{ID: 1, Role: "observer", HighestLevel: 30}, {ID: 2, State: admin.Fenced, Role: "observer", HighestLevel: -1}},
		Others:  []admin.Node{{ID: 3000, Address: "apart:9093", Role: "leader"}},
	}
	got := clusterText(apart)
	for _, want := range []string{": 3 nodes, ", "\n   1  ", "fenced     observer", "\n3000  apart:9093        no broker  leader ", "level 1 of metadata.version"} {
		if !strings.Contains(got, want) {
			t.Errorf("there is no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "leat cluster finalize") {
		t.Errorf("it raises levels of Apache Kafka:\n%s", got)
	}
	lost := &admin.Cluster{ID: "abc", Controller: -1, Brokers: []admin.Node{{ID: 1, Address: "one:9092", State: admin.Active, Role: "voter"}}}
	if got := clusterText(lost); !strings.Contains(got, "No controller is active") || strings.Contains(got, "in sync") {
		t.Errorf("without a majority it says:\n%s", got)
	}
}

// TestClusterWithASilentNode proves that a node that does not answer is shown with what others know of it,
// and that the table says why the rest is missing.
func TestClusterWithASilentNode(t *testing.T) {
	c := kfake.MustCluster(kfake.NumBrokers(3), kfake.SeedTopics(6, "t"))
	t.Cleanup(c.Close)
	c.ControlKey(kmsg.DescribeLogDirs.Int16(), func(kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		if c.CurrentNode() == 1 {
			return nil, errors.New("it closes the connection"), true
		}
		return nil, nil, false
	})
	var out, errs strings.Builder
	if code := Main(t.Context(), []string{"cluster", "-b", c.ListenAddrs()[0]}, strings.NewReader(""), &out, &errs); code != exitOK {
		t.Fatalf("exit code %d: %s", code, errs.String())
	}
	for _, want := range []string{": 3 nodes, 6 partitions in 1 topic", "Node 1 does not answer (connection closed).", "This cluster does not tell which nodes keep its metadata"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("there is no %q in\n%s", want, out.String())
		}
	}
}

// TestTopicsWithASilentNode proves that topics are listed and described where the leader of some partitions does not
// answer: an operator looks for just those.
func TestTopicsWithASilentNode(t *testing.T) {
	c := kfake.MustCluster(kfake.NumBrokers(3), kfake.SeedTopics(6, "t"))
	t.Cleanup(c.Close)
	if err := c.MoveTopicPartition("t", 0, 1); err != nil { // leaders are chosen at random
		t.Fatal(err)
	}
	c.ControlKey(kmsg.ListOffsets.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		if c.CurrentNode() != 1 {
			return nil, nil, false
		}
		resp := req.ResponseKind().(*kmsg.ListOffsetsResponse)     //nolint:forcetypeassert // it is of that key
		for _, rt := range req.(*kmsg.ListOffsetsRequest).Topics { //nolint:forcetypeassert // the same
			st := kmsg.NewListOffsetsResponseTopic()
			st.Topic = rt.Topic
			for _, p := range rt.Partitions {
				sp := kmsg.NewListOffsetsResponseTopicPartition()
				sp.Partition, sp.ErrorCode = p.Partition, kerr.KafkaStorageError.Code
				st.Partitions = append(st.Partitions, sp)
			}
			resp.Topics = append(resp.Topics, st)
		}
		return resp, nil, true
	})
	for args, want := range map[string]string{"topic describe t": " -  ", "topic list": "\nt "} {
		var out, errs strings.Builder
		code := Main(t.Context(), append(strings.Fields(args), "--timeout", "2s", "-b", c.ListenAddrs()[0]), strings.NewReader(""), &out, &errs)
		if code != exitOK || !strings.Contains(out.String(), want) || !strings.Contains(errs.String(), "not tell") || !strings.Contains(errs.String(), "(t-") {
			t.Errorf("%s ends with %d:\n%s\n%s", args, code, out.String(), errs.String())
		}
	}
}

// TestOfflinePartitions proves what is said of partitions without a leader.
func TestOfflinePartitions(t *testing.T) {
	var errs strings.Builder
	a := &app{err: &errs}
	details := kadm.TopicDetails{"t": {Topic: "t", Partitions: kadm.PartitionDetails{}}}
	for n := range int32(7) {
		details["t"].Partitions[n] = kadm.PartitionDetail{Topic: "t", Partition: n, Leader: -1}
	}
	a.tellUnknown(details, nil, nil)
	if want := "7 partitions have no leader (t-0, t-1, t-2, t-3, t-4, ...): "; !strings.Contains(errs.String(), want) || strings.Contains(errs.String(), "tell") {
		t.Error(errs.String())
	}
}

// TestPlanLevels proves to which levels a cluster is raised: never above what a node that answers knows,
// never down, and not at all if a node that is not fenced does not answer. It proves, too, that a node of an older version
// than the others is named, with what it does not know.
func TestPlanLevels(t *testing.T) {
	plan := func(c admin.Cluster) string {
		t.Helper()
		c.Feature = admin.LeatLevels
		f, err := planLevels(&c)
		if err != nil {
			return err.Error()
		}
		said := strings.TrimSpace(f.String())
		if err := f.describeHolders(); err != nil {
			said += "\n" + err.Error()
		}
		return said
	}
	cluster := func(level int16, nodes ...admin.Node) admin.Cluster {
		for i := range nodes {
			nodes[i].ID, nodes[i].Address = int32(i+1), "host:"+strconv.Itoa(i+1)
		}
		return admin.Cluster{Level: level, Brokers: nodes}
	}
	knows := func(highest int16) admin.Node { return admin.Node{State: admin.Active, HighestLevel: highest} }
	fenced := admin.Node{State: admin.Fenced, HighestLevel: -1, HighestTransactions: -1}
	f := func(got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	const (
		nothing = "the metadata have level 2 of leat.metadata already, the highest one that all nodes know: there is nothing to do"
		held    = "the metadata have level 2 of leat.metadata, the highest one that all nodes know: nothing was raised"
	)
	f(plan(cluster(0, knows(1))), "raised the level of leat.metadata from 0 to 1")
	f(plan(cluster(1, knows(4), knows(4), fenced)), "raised the level of leat.metadata from 1 to 4")
	f(plan(cluster(1, knows(4), knows(3), fenced)), "raised the level of leat.metadata from 1 to 3\n"+
		"the upgrade is not finished: node 2 (host:2) knows level 3 of leat.metadata instead of 4: upgrade it, and run this again")
	f(plan(cluster(2, knows(2), knows(3))), held+"\nthe upgrade is not finished: node 1 (host:1) knows level 2 of leat.metadata instead of 3: upgrade it, and run this again")
	f(plan(cluster(2, knows(2), knows(2))), nothing)
	f(plan(cluster(2, fenced)), nothing)
	if _, err := planLevels(&admin.Cluster{Feature: "metadata.version", Level: 3}); err == nil || !strings.Contains(err.Error(), "no cluster of Leat") {
		t.Error(err)
	}

	withTransactions := func(highest, transactions int16) admin.Node {
		return admin.Node{State: admin.Active, HighestLevel: highest, HighestTransactions: transactions}
	}
	f(plan(cluster(2, withTransactions(2, 2), withTransactions(2, 2), fenced)),
		"the metadata have level 2 of leat.metadata already, the highest one that all nodes know: there is nothing to do\nraised the level of transaction.version from 0 to 2")
	f(plan(cluster(1, withTransactions(2, 2), withTransactions(1, 0), withTransactions(1, 0))),
		"the metadata have level 1 of leat.metadata, the highest one that all nodes know: nothing was raised\nthe upgrade is not finished: "+
			"node 2 (host:2) and node 3 (host:3) know level 1 of leat.metadata instead of 2 and level 0 of transaction.version instead of 2: upgrade them, and run this again")
}

// TestFewVoters proves that a cluster in which fewer nodes vote on the metadata than are to is not said to be well.
func TestFewVoters(t *testing.T) {
	c := &admin.Cluster{Controller: 1, Brokers: []admin.Node{{ID: 1, State: admin.Active}, {ID: 2, State: admin.Active}, {ID: 3, State: admin.Active}}, Voters: 1, WantedVoters: 3}
	if got := describeMissing(c); got != "1 of 3 voters on the metadata" {
		t.Errorf("missing is %q", got)
	}
	if text := clusterText(c); !strings.Contains(text, "1 node votes on the metadata, and 3 are to: until") {
		t.Errorf("it says\n%s", text)
	}
	c.Voters, c.WantedVoters = 3, 0
	if got := describeMissing(c); got != "" {
		t.Errorf("missing is %q", got)
	}
}

// TestWaitForTheCluster proves that a script is told when all is well, and what is missing when it is not.
func TestWaitForTheCluster(t *testing.T) {
	c := kfake.MustCluster(kfake.NumBrokers(3), kfake.SeedTopics(2, "t"))
	t.Cleanup(c.Close)
	var lacking atomic.Int32 // how many answers are left in which a replica is not in sync
	c.ControlKey(kmsg.Metadata.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		if req.(*kmsg.MetadataRequest).Topics != nil || lacking.Add(-1) < 0 { //nolint:forcetypeassert // it is of that key
			return nil, nil, false
		}
		resp := req.ResponseKind().(*kmsg.MetadataResponse) //nolint:forcetypeassert // it is of that key
		for i, addr := range c.ListenAddrs() {
			b := kmsg.NewMetadataResponseBroker()
			host, port, _ := net.SplitHostPort(addr)
			n, _ := strconv.ParseInt(port, 10, 32)
			b.NodeID, b.Host, b.Port = int32(i), host, int32(n)
			resp.Brokers = append(resp.Brokers, b)
		}
		resp.ControllerID = 0
		topic := kmsg.NewMetadataResponseTopic()
		topic.Topic = new("t")
		p := kmsg.NewMetadataResponseTopicPartition()
		p.Replicas, p.ISR = []int32{0, 1}, []int32{0}
		topic.Partitions = append(topic.Partitions, p)
		resp.Topics = append(resp.Topics, topic)
		return resp, nil, true
	})
	run := func(wait string) (code int, out, errs string) {
		var o, e strings.Builder
		code = Main(t.Context(), []string{"cluster", "--wait", wait, "-b", c.ListenAddrs()[0]}, strings.NewReader(""), &o, &e)
		return code, o.String(), e.String()
	}
	lacking.Store(3)
	if code, out, errs := run("1h"); code != exitOK || !strings.Contains(out, "all their replicas are in sync") {
		t.Errorf("it ends with %d:\n%s\n%s", code, out, errs)
	}
	lacking.Store(1 << 30)
	code, out, errs := run("1s")
	if code != exitFailed || !strings.Contains(out, "1 partition under-replicated") || !strings.Contains(errs, "leat: after 1s something is missing: 1 partition under-replicated") {
		t.Errorf("it ends with %d:\n%s\n%s", code, out, errs)
	}
}
