package interop

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// sourcesEnv has all tests of links from old brokers run, which take minutes: make test-sources.
const sourcesEnv = "LEAT_INTEROP_SOURCES"

// needsSources skips a test that is not of the gate.
func needsSources(t *testing.T) {
	t.Helper()
	if os.Getenv(sourcesEnv) == "" {
		t.Skip(sourcesEnv + " is not set: brokers that die, and several of them, take minutes (make test-sources)")
	}
}

// sourceTimeout is how long a broker of Java may take for anything, where the processors are busy.
const sourceTimeout = 4 * time.Minute

// oldVersion is a version of Apache Kafka whose brokers keep their metadata in ZooKeeper.
type oldVersion struct {
	name string
	kit  *kit
}

var oldVersions = []oldVersion{
	{"2.1.1", jarsKit("kafka-2.1", "java/kafka-2.1", "")},
	{"2.8.2", jarsKit("kafka-2.8", "java/kafka-2.8", "")},
}

// onOldVersions runs a test with each of the versions.
func onOldVersions(t *testing.T, run func(t *testing.T, v *oldVersion)) {
	t.Helper()
	if runsKafka() {
		t.Skip("it is about links of Leat")
	}
	for i := range oldVersions {
		v := &oldVersions[i]
		t.Run(v.name, func(t *testing.T) {
			v.kit.have(t)
			run(t, v)
		})
	}
}

// oldKafka is a cluster of an old version. The broker at place i has the id i+1 and the rack rack-(i+1).
type oldKafka struct {
	t       *testing.T
	brokers []*oldBroker
}

type oldBroker struct {
	*application

	addr string
}

// log4j has old brokers, and ZooKeeper, print what is wrong.
const log4j = `log4j.rootLogger=WARN, out
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.layout=org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern=%d %p %m (%c)%n
`

// startOldKafka starts a cluster that ends with the test, whose brokers have more settings.
func startOldKafka(t *testing.T, v *oldVersion, brokers int, set ...string) *oldKafka {
	t.Helper()
	dir, libs := t.TempDir(), filepath.Join(v.kit.have(t), "libs", "*")
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("log4j.properties", log4j)
	ports, err := freePorts(brokers + 1)
	if err != nil {
		t.Fatal(err)
	}
	run := func(name string, heapMB int, class, settings string) *application {
		path := write(name+".properties", settings)
		return startApplication(t, v.name+" "+name, func() *exec.Cmd { return jvm(heapMB, []string{dir, libs}, class, path) })
	}
	run("zookeeper", 64, "org.apache.zookeeper.server.ZooKeeperServerMain", fmt.Sprintf("dataDir=%s\nclientPort=%d\nclientPortAddress=127.0.0.1\ntickTime=500\nadmin.enableServer=false\n", filepath.Join(dir, "zookeeper"), ports[brokers]))
	k := &oldKafka{t: t}
	for i := range brokers {
		addr := "127.0.0.1:" + strconv.Itoa(ports[i])
		settings := append([]string{
			"broker.id=" + strconv.Itoa(i+1),
			"broker.rack=rack-" + strconv.Itoa(i+1),
			"zookeeper.connect=127.0.0.1:" + strconv.Itoa(ports[brokers]),
			"zookeeper.session.timeout.ms=6000",
			"zookeeper.connection.timeout.ms=120000",
			"listeners=PLAINTEXT://" + addr,
			"log.dirs=" + filepath.Join(dir, strconv.Itoa(i+1)),
			"auto.create.topics.enable=false",
			"auto.leader.rebalance.enable=false",
			"controlled.shutdown.retry.backoff.ms=200",
			"offsets.topic.num.partitions=1",
			"offsets.topic.replication.factor=1",
			"transaction.state.log.num.partitions=1",
			"transaction.state.log.replication.factor=1",
			"transaction.state.log.min.isr=1",
			"log.cleaner.backoff.ms=200",
			"log.cleaner.dedupe.buffer.size=4194304",
			"log.retention.check.interval.ms=200",
			"log.segment.delete.delay.ms=0",
		}, set...)
		k.brokers = append(k.brokers, &oldBroker{run("broker-"+strconv.Itoa(i+1), 256, "kafka.Kafka", strings.Join(settings, "\n")+"\n"), addr})
	}
	k.awaitBrokers(brokers)
	return k
}

// addrs are the addresses of all brokers.
func (k *oldKafka) addrs() (all []string) {
	for _, b := range k.brokers {
		all = append(all, b.addr)
	}
	return all
}

// awaitBrokers waits until the brokers that answer know of so many.
func (k *oldKafka) awaitBrokers(n int) {
	k.t.Helper()
	cl := k.client()
	eventually(k.t, sourceTimeout, strconv.Itoa(n)+" brokers of Kafka are there", func() bool {
		m, err := describeTopic(k.t, cl, "")
		return err == nil && len(m.Brokers) == n
	})
}

// startAgain starts a broker that was killed, or stopped. Kafka ends at once as long as ZooKeeper takes the killed one for alive.
func (k *oldKafka) startAgain(place int) {
	k.t.Helper()
	b := k.brokers[place]
	cl := quickClient(k.t, []string{b.addr})
	eventually(k.t, sourceTimeout, b.name+" is there again", func() bool {
		if closed(b.done) {
			b.start(k.t)
		}
		m, err := describeTopic(k.t, cl, "")
		return err == nil && slices.ContainsFunc(m.Brokers, func(m kmsg.MetadataResponseBroker) bool { return m.NodeID == int32(place+1) })
	})
}

// client is a client of the brokers until the test ends.
func (k *oldKafka) client() *kgo.Client {
	k.t.Helper()
	return quickClient(k.t, k.addrs())
}

// partition is the leader of a partition, and how many replicas are in sync; -1: there is no leader.
func (k *oldKafka) partition(cl *kgo.Client, topic string) (leader int32, inSync int) {
	m, err := describeTopic(k.t, cl, topic)
	if err != nil || len(m.Topics) != 1 || len(m.Topics[0].Partitions) == 0 {
		return -1, 0
	}
	p := &m.Topics[0].Partitions[0]
	return p.Leader, len(p.ISR)
}

// awaitPartition waits until the first partition of a topic has a leader and so many replicas in sync.
func (k *oldKafka) awaitPartition(topic string, leader int32, inSync int) {
	k.t.Helper()
	cl := k.client()
	eventually(k.t, sourceTimeout, fmt.Sprintf("broker %d leads %s with %d in sync", leader, topic, inSync), func() bool {
		l, n := k.partition(cl, topic)
		return l == leader && n == inSync
	})
}

// quickClient is a client that soon knows of changes, until the test ends.
func quickClient(t *testing.T, addrs []string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(addrs...), kgo.MetadataMinAge(20 * time.Millisecond), kgo.DialTimeout(5 * time.Second)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// describeTopic asks for the brokers, and for a topic unless it is "". It is slow enough to be polled.
func describeTopic(t *testing.T, cl *kgo.Client, topic string) (*kmsg.MetadataResponse, error) {
	t.Helper()
	time.Sleep(20 * time.Millisecond)
	q := kmsg.NewPtrMetadataRequest()
	q.Topics = []kmsg.MetadataRequestTopic{}
	if topic != "" {
		one := kmsg.NewMetadataRequestTopic()
		one.Topic = &topic
		q.Topics = append(q.Topics, one)
	}
	return q.RequestWith(t.Context(), cl)
}
