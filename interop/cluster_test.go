package interop

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// cluster is brokers that are the nodes of one cluster. The node at place i has the id i+1.
type cluster struct {
	nodes []*broker
}

// clusterPlan says which brokers a cluster has.
type clusterPlan struct {
	nodes int
	set   []string
	more  []listener // listeners besides the first one, which has the name INSIDE then
	// tell returns the address of a node that clients are told who come by its second listener, at the given
	// address. nil: nodes have no second listener.
	tell func(id int, outside string) string
}

// listener is a further listener of a broker. It listens on 127.0.0.1, and clients are told localhost there.
type listener struct{ name, protocol string }

// clusterTimeout is long enough for the slowest change of a cluster, on a busy machine.
const clusterTimeout = 2 * time.Minute

// ownCluster starts a cluster for one test, which ends with it.
func ownCluster(t *testing.T, nodes int, set ...string) *cluster {
	t.Helper()
	return ownPlannedCluster(t, clusterPlan{nodes: nodes, set: set})
}

func ownPlannedCluster(t *testing.T, plan clusterPlan) *cluster {
	t.Helper()
	if os.Getenv(addrEnv) != "" {
		t.Skip("needs brokers of its own; " + addrEnv + " names a running one")
	}
	c, err := startCluster(t, t.TempDir(), plan)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.stop(); err != nil {
			t.Errorf("stop the brokers: %v", err)
		}
		for i, b := range c.nodes {
			if t.Failed() {
				t.Logf("broker %d said:\n%s", i+1, b.log)
			}
		}
	})
	return c
}

// startCluster starts brokers, and returns when they are one cluster.
func startCluster(t *testing.T, dir string, plan clusterPlan) (*cluster, error) {
	t.Helper()
	if addr := os.Getenv(addrEnv); addr != "" {
		b := &broker{addr: addr, factor: min(3, plan.nodes)}
		return &cluster{[]*broker{b}}, b.waitReady()
	}
	// A free port can be taken by someone else before the broker listens on it.
	for attempt := 1; ; attempt++ {
		c, err := tryCluster(t, filepath.Join(dir, strconv.Itoa(attempt)), plan)
		if err == nil {
			if err = c.awaitComplete(t.Context()); err != nil {
				return nil, errors.Join(err, c.stop())
			}
			return c, nil
		}
		if attempt == 3 {
			return nil, err
		}
	}
}

func tryCluster(t *testing.T, dir string, plan clusterPlan) (*cluster, error) {
	t.Helper()
	each := 3 + len(plan.more) // ports of a node
	found, err := freePorts(each * plan.nodes)
	if err != nil {
		return nil, err
	}
	c := &cluster{}
	for i := range plan.nodes {
		b := &broker{dataDir: filepath.Join(dir, strconv.Itoa(i+1)), set: plan.set, factor: min(3, plan.nodes)}
		for j, addr := range []*string{&b.addr, &b.aside, &b.outside} {
			*addr = "127.0.0.1:" + strconv.Itoa(found[each*i+j])
		}
		b.more, b.ports = plan.more, map[string]string{}
		for j, l := range plan.more {
			b.ports[l.name] = strconv.Itoa(found[each*i+3+j])
		}
		if plan.tell != nil {
			b.told = plan.tell(i+1, b.outside)
		}
		if err := os.MkdirAll(b.dataDir, 0o700); err != nil {
			return nil, err
		}
		c.nodes = append(c.nodes, b)
	}
	if runsKafka() {
		err = c.startKafka(t)
	} else {
		err = c.startLeat(t)
	}
	if err != nil {
		return nil, errors.Join(err, c.stop())
	}
	return c, nil
}

// startLeat starts nodes of Leat, of which all but one join that one.
func (c *cluster) startLeat(t *testing.T) error {
	t.Helper()
	leat := leatBinary(t)
	first := c.nodes[0]
	for i, b := range c.nodes {
		b.again = []string{"up", "--data", b.dataDir, "--http", b.aside, "--rack", "rack-" + strconv.Itoa(i+1)}
		switch {
		case b.told != "":
			b.again = append(b.again, "--listen", "INSIDE="+b.addr, "--listen", "OUTSIDE="+b.outside, "--advertise", "OUTSIDE="+b.told)
		case len(b.more) > 0:
			b.again = append(b.again, "--listen", "INSIDE=PLAINTEXT://"+b.addr)
		default:
			b.again = append(b.again, "--listen", b.addr)
		}
		for _, l := range b.more { // a client is told the name by which it came
			b.again = append(b.again, "--listen", l.name+"="+l.protocol+"://127.0.0.1:"+b.ports[l.name])
		}
		for _, s := range b.set {
			b.again = append(b.again, "--set", s)
		}
		b.cmd = exec.Command(leat, b.again...)
		if i > 0 {
			token, err := exec.Command(leat, "cluster", "token", "--data", first.dataDir).Output()
			if err != nil {
				return fmt.Errorf("leat cluster token: %w", err)
			}
			b.cmd.Args = append(b.cmd.Args, "--join", first.addr, "--token", strings.TrimSpace(string(token)))
		}
		if err := b.run(); err != nil {
			return err
		}
	}
	return nil
}

// startKafka starts nodes of Apache Kafka, each a broker and a controller.
func (c *cluster) startKafka(t *testing.T) error {
	t.Helper()
	var voters []string
	for i, b := range c.nodes {
		voters = append(voters, fmt.Sprintf("%d@%s", i+1, b.aside))
	}
	for i, b := range c.nodes {
		if err := b.prepareKafka(t, i+1, strings.Join(voters, ",")); err != nil {
			return err
		}
	}
	ready := make(chan error, len(c.nodes))
	for _, b := range c.nodes { // none is ready before most of them run
		go func() { ready <- b.run() }()
	}
	var errs []error
	for range c.nodes {
		errs = append(errs, <-ready)
	}
	return errors.Join(errs...)
}

// prepareKafka formats the directory of a node of Apache Kafka and sets the command that runs it.
func (b *broker) prepareKafka(t *testing.T, id int, voters string) error {
	t.Helper()
	factor, minISR := strconv.Itoa(b.factor), strconv.Itoa((b.factor+1)/2)
	listeners, advertised := "PLAINTEXT://"+b.addr, "PLAINTEXT://"+b.addr
	if b.told != "" {
		listeners, advertised = listeners+",OUTSIDE://"+b.outside, advertised+",OUTSIDE://"+b.told
	}
	protocols := "PLAINTEXT:PLAINTEXT,OUTSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT"
	for _, l := range b.more {
		listeners += "," + l.name + "://127.0.0.1:" + b.ports[l.name]
		advertised += "," + l.name + "://localhost:" + b.ports[l.name]
		protocols += "," + l.name + ":" + l.protocol
	}
	conf := map[string]string{
		"process.roles":                                    "broker,controller",
		"node.id":                                          strconv.Itoa(id),
		"broker.rack":                                      "rack-" + strconv.Itoa(id),
		"controller.quorum.voters":                         voters,
		"listeners":                                        listeners + ",CONTROLLER://" + b.aside,
		"advertised.listeners":                             advertised,
		"listener.security.protocol.map":                   protocols,
		"inter.broker.listener.name":                       "PLAINTEXT",
		"controller.listener.names":                        "CONTROLLER",
		"log.dirs":                                         filepath.Join(b.dataDir, "log"),
		"offsets.topic.num.partitions":                     "4",
		"offsets.topic.replication.factor":                 factor,
		"transaction.state.log.replication.factor":         factor,
		"transaction.state.log.min.isr":                    minISR,
		"share.coordinator.state.topic.replication.factor": factor,
		"share.coordinator.state.topic.min.isr":            minISR,
	}
	for _, s := range b.set {
		name, value, _ := strings.Cut(s, "=")
		conf[name] = value
	}
	var text strings.Builder
	for name, value := range conf {
		fmt.Fprintf(&text, "%s=%s\n", name, value)
	}
	path := filepath.Join(b.dataDir, "server.properties")
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(b.dataDir, "log", "meta.properties")); errors.Is(err, fs.ErrNotExist) {
		out, err := java(t, 128, "kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qk", "-c", path).CombinedOutput()
		if err != nil {
			return fmt.Errorf("format: %w: %s", err, out)
		}
	}
	b.cmd = java(t, 512, "kafka.Kafka", path)
	if url, ok := conf[keySetURL]; ok { // it reads keys of issuers from those places only that the process is started with
		b.cmd.Env = append(os.Environ(), "JDK_JAVA_OPTIONS=-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls="+url)
	}
	b.again = b.cmd.Args[1:]
	return nil
}

// addrs are the addresses of all nodes, as tools take them.
func (c *cluster) addrs() string {
	var all []string
	for _, b := range c.nodes {
		all = append(all, b.addr)
	}
	return strings.Join(all, ",")
}

// node returns the node with an id.
func (c *cluster) node(id int32) *broker { return c.nodes[id-1] }

// running counts the nodes that run.
func (c *cluster) running() (n int) {
	for _, b := range c.nodes {
		if !closed(b.done) {
			n++
		}
	}
	return n
}

// awaitComplete returns when every node that runs knows of all others that run, all of them vote on the metadata,
// and all replicas are in sync.
func (c *cluster) awaitComplete(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, clusterTimeout)
	defer cancel()
	for _, b := range c.nodes {
		if closed(b.done) {
			continue
		}
		for {
			ailment := b.ailment(ctx, c)
			if ailment == nil {
				break
			}
			if ctx.Err() != nil {
				return fmt.Errorf("not within %v: the cluster is complete: %w\n%s", clusterTimeout, ailment, b.log)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	return nil
}

// ailment is what keeps the cluster from being complete, as a node sees it.
func (b *broker) ailment(ctx context.Context, c *cluster) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.addr))
	if err != nil {
		return err
	}
	defer cl.Close()
	answer, err := cl.SeedBrokers()[0].Request(ctx, kmsg.NewPtrMetadataRequest())
	if err != nil {
		return err
	}
	md, ok := answer.(*kmsg.MetadataResponse)
	if !ok || len(md.Brokers) != c.running() {
		return errors.New("it knows other nodes than those that run")
	}
	for _, topic := range md.Topics {
		for _, p := range topic.Partitions {
			if p.Leader < 0 || len(p.ISR) != len(p.Replicas) && c.running() == len(c.nodes) {
				return fmt.Errorf("%s-%d: leader %d, in sync %v of %v", *topic.Topic, p.Partition, p.Leader, p.ISR, p.Replicas)
			}
		}
	}
	req := kmsg.NewPtrDescribeQuorumRequest()
	topic := kmsg.NewDescribeQuorumRequestTopic()
	topic.Topic = "__cluster_metadata"
	topic.Partitions = append(topic.Partitions, kmsg.NewDescribeQuorumRequestTopicPartition())
	req.Topics = append(req.Topics, topic)
	if answer, err = cl.SeedBrokers()[0].Request(ctx, req); err != nil {
		return err
	}
	// Of two nodes one votes, and three nodes are needed for a majority without one of them.
	quorum, ok := answer.(*kmsg.DescribeQuorumResponse)
	if !ok || len(quorum.Topics) != 1 || len(quorum.Topics[0].Partitions[0].CurrentVoters) < min(len(c.nodes), 3) {
		return fmt.Errorf("too few nodes vote on the metadata: %+v", answer)
	}
	return nil
}

// mustBeComplete is awaitComplete in a test.
func (c *cluster) mustBeComplete(t *testing.T) {
	t.Helper()
	if err := c.awaitComplete(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// stop asks all processes to end, as an operator does, and waits.
func (c *cluster) stop() error {
	for _, b := range c.nodes { // all at once: a majority that is gone could delay the end of the others
		if b.cmd != nil && b.done != nil && !closed(b.done) {
			_ = b.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		}
	}
	var errs []error
	for _, b := range c.nodes {
		if b.cmd != nil && b.done != nil {
			errs = append(errs, b.awaitEnd())
		}
	}
	return errors.Join(errs...)
}
