package node

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// kafkaSite is an Apache Kafka of some brokers that runs beside the test, and keeps its directories and its ports.
type kafkaSite struct {
	t          *testing.T
	home       string
	dirs       []string
	ports      []string
	controller string
	settings   string      // more settings of all brokers, a line each
	runs       []*exec.Cmd // nil: it does not run
}

func newKafka(t *testing.T, brokers int) *kafkaSite {
	t.Helper()
	return newKafkaWith(t, brokers, "")
}

func newKafkaWith(t *testing.T, brokers int, settings string) *kafkaSite {
	t.Helper()
	home := os.Getenv("KAFKA_HOME")
	if home == "" {
		t.Skip("KAFKA_HOME names no Kafka to mirror")
	}
	free := func() string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return l.Addr().String()
	}
	k := &kafkaSite{t: t, home: home, controller: free(), settings: settings, runs: make([]*exec.Cmd, brokers)}
	for range brokers {
		k.dirs, k.ports = append(k.dirs, t.TempDir()), append(k.ports, free())
	}
	for i := range brokers {
		k.format(i)
		k.start(i)
	}
	cl := k.client()
	k.await("Kafka answers", func() bool {
		m, err := k.describe(cl, nil)
		return err == nil && len(m.Brokers) == brokers
	})
	return k
}

// describe asks for metadata, of a topic if it is not nil. No answer of before counts, as one may for kadm.
func (k *kafkaSite) describe(cl *kgo.Client, topic *string) (*kmsg.MetadataResponse, error) {
	ctx, cancel := context.WithTimeout(k.t.Context(), 5*time.Second)
	defer cancel()
	q := kmsg.NewPtrMetadataRequest()
	q.Topics = []kmsg.MetadataRequestTopic{}
	if topic != nil {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = topic
		q.Topics = append(q.Topics, t)
	}
	return q.RequestWith(ctx, cl)
}

// await waits for Kafka, which is slow where the processors are busy.
func (k *kafkaSite) await(what string, ok func() bool) {
	k.t.Helper()
	for limit := time.Now().Add(4 * time.Minute); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(limit) {
			k.t.Fatal("not in four minutes: ", what)
		}
	}
}

func (k *kafkaSite) java(args ...string) *exec.Cmd {
	return exec.Command("java", append([]string{"-Xmx400m", "-XX:TieredStopAtLevel=1", "-cp", filepath.Join(k.home, "libs", "*")}, args...)...)
}

// format makes the directory and the settings of a broker; the first one is the controller, too.
func (k *kafkaSite) format(i int) {
	k.t.Helper()
	roles, listeners := "broker", ""
	if i == 0 {
		roles, listeners = "broker,controller", ",CONTROLLER://"+k.controller
	}
	text := fmt.Sprintf(`process.roles=%s
node.id=%d
controller.quorum.voters=1@%s
listeners=PLAINTEXT://%s%s
advertised.listeners=PLAINTEXT://%[4]s
controller.listener.names=CONTROLLER
log.dirs=%[6]s/log
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
`, roles, i+1, k.controller, k.ports[i], listeners, k.dirs[i]) + k.settings
	path := filepath.Join(k.dirs[i], "server.properties")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		k.t.Fatal(err)
	}
	if out, err := k.java("kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qk", "-c", path).CombinedOutput(); err != nil {
		k.t.Fatalf("%v\n%s", err, out)
	}
}

func (k *kafkaSite) start(i int) {
	k.t.Helper()
	run := k.java("kafka.Kafka", filepath.Join(k.dirs[i], "server.properties"))
	if err := run.Start(); err != nil {
		k.t.Fatal(err)
	}
	k.runs[i] = run
	k.t.Cleanup(func() { k.kill(i) })
}

// kill ends a broker at once, if it runs.
func (k *kafkaSite) kill(i int) {
	if run := k.runs[i]; run != nil {
		_ = run.Process.Kill()
		_ = run.Wait()
		k.runs[i] = nil
	}
}

func (k *kafkaSite) client(opts ...kgo.Opt) *kgo.Client {
	k.t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(k.ports...), kgo.MetadataMinAge(50 * time.Millisecond)}, opts...)...)
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(cl.Close)
	return cl
}

// limits are the starts and the high watermarks of a topic's partitions.
func (k *kafkaSite) limits(topic string) (starts, highs kadm.ListedOffsets) {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(k.t.Context(), patience)
	defer cancel()
	admin := kadm.NewClient(k.client())
	starts, err := admin.ListStartOffsets(ctx, topic)
	if err != nil {
		k.t.Fatal(err)
	}
	if highs, err = admin.ListEndOffsets(ctx, topic); err != nil {
		k.t.Fatal(err)
	}
	return starts, highs
}

// awaitMirroredFromKafka waits until a topic here has the limits of that of the source.
func (s *site) awaitMirroredFromKafka(k *kafkaSite, topic string) {
	s.t.Helper()
	starts, highs := k.limits(topic)
	last := ""
	defer func() {
		if s.t.Failed() {
			s.t.Log(last)
			s.logMirrors()
		}
	}()
	eventually(s.t, topic+" is mirrored", func() bool {
		if last = fmt.Sprintf("%d partitions", s.partitions(topic)); s.partitions(topic) != len(highs[topic]) {
			return false
		}
		for p, h := range highs[topic] {
			start, high := s.limits(topic, int(p))
			if last = fmt.Sprintf("partition %d: %d to %d, want %d to %d", p, start, high, starts[topic][p].Offset, h.Offset); high != h.Offset || start != starts[topic][p].Offset {
				return false
			}
		}
		return true
	})
}

// produceAll is that of a site.
func (k *kafkaSite) produceAll(topic string, partitions int) {
	k.t.Helper()
	produceAll(k.t, k.client, topic, partitions)
}

// TestMirrorOfKafka proves, with an Apache Kafka as the source, that the segments are equal byte by byte, with the epochs of its leaders, that the start follows, and that the mirror goes on after Kafka was killed.
func TestMirrorOfKafka(t *testing.T) {
	k := newKafka(t, 1)
	here := newSite(t, 3)
	admin := kadm.NewClient(k.client())
	if _, err := admin.CreateTopic(deadline(t), 3, 1, map[string]*string{"retention.ms": new("123456789")}, "orders"); err != nil {
		t.Fatal(err)
	}
	k.produceAll("orders", 3)
	here.linkTo(k.ports, map[string]string{"start": "earliest"})
	here.awaitMirroredFromKafka(k, "orders")
	compare := func() {
		t.Helper()
		for p := range 3 {
			want := segmentsOf(t, k.dirs[0], "orders", p)
			for i, dir := range here.dirs {
				if got := segmentsOf(t, dir, "orders", p); len(want) == 0 || string(got) != string(want) {
					t.Errorf("machine %d: partition %d has %d bytes, and Kafka %d others", i, p, len(got), len(want))
				}
			}
		}
	}
	compare()
	k.kill(0)
	k.start(0)
	cl := k.client()
	k.await("Kafka answers", func() bool { return cl.Ping(t.Context()) == nil })
	k.produceAll("orders", 3)
	here.awaitMirroredFromKafka(k, "orders")
	if p := here.any().image.Load().Topic("orders").Partitions[0]; p.LeaderEpoch < 1 || len(p.Mirror.Cuts) > 0 {
		t.Errorf("%+v, %+v", p, p.Mirror)
	}
	compare()
	if _, err := admin.DeleteRecords(deadline(t), kadm.Offsets{"orders": {1: {Topic: "orders", Partition: 1, At: 100}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.CreatePartitions(deadline(t), 1, "orders"); err != nil {
		t.Fatal(err)
	}
	here.awaitMirroredFromKafka(k, "orders")
	if _, err := admin.DeleteTopic(deadline(t), "orders"); err != nil {
		t.Fatal(err)
	}
	id := here.any().image.Load().Links().All()[0].ID
	k.await("the topic is known to be gone", func() bool {
		states := ""
		for _, n := range here.nodes {
			for _, s := range n.linking.ListMirrors(id) {
				states += s.State
			}
		}
		return states == strings.Repeat("SOURCE_DELETED", 4)
	})
}

// TestMirrorIsCutAfterKafka proves that a mirror follows an unclean election of an Apache Kafka: what the new leader lacks is cut from all replicas here, and then they have what it has.
func TestMirrorIsCutAfterKafka(t *testing.T) {
	k := newKafka(t, 3)
	here := newSite(t, 3)
	ctx := t.Context()
	cl := k.client()
	q := kmsg.NewPtrCreateTopicsRequest()
	q.TimeoutMillis = 30_000
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = "orders", -1, -1
	topic.ReplicaAssignment = []kmsg.CreateTopicsRequestTopicReplicaAssignment{{Partition: 0, Replicas: []int32{2, 3}}}
	topic.Configs = []kmsg.CreateTopicsRequestTopicConfig{{Name: "unclean.leader.election.enable", Value: new("true")}, {Name: "min.insync.replicas", Value: new("1")}}
	q.Topics = append(q.Topics, topic)
	if r, err := q.RequestWith(ctx, cl); err != nil || r.Topics[0].ErrorCode != 0 {
		t.Fatal(r, err)
	}
	leader := func() (id int32, isr int) {
		m, err := k.describe(cl, new("orders"))
		if err != nil || len(m.Topics) == 0 || len(m.Topics[0].Partitions) == 0 {
			return -1, 0
		}
		p := m.Topics[0].Partitions[0]
		return p.Leader, len(p.ISR)
	}
	k.await("broker 2 leads two in sync", func() bool { id, isr := leader(); return id == 2 && isr == 2 })
	k.produceAll("orders", 1)
	here.linkTo(k.ports, nil)
	here.awaitMirroredFromKafka(k, "orders")
	_, before := k.limits("orders")
	k.kill(2)
	k.await("broker 2 is alone", func() bool { id, isr := leader(); return id == 2 && isr == 1 })
	k.produce("orders", 1, 200) // without transactions, whose coordinator may be gone
	here.awaitMirroredFromKafka(k, "orders")
	k.kill(1)
	k.start(2)
	k.await("broker 3 leads", func() bool { id, _ := leader(); return id == 3 })
	k.produce("orders", 1, 50)
	here.awaitMirroredFromKafka(k, "orders")
	p := here.any().image.Load().Topic("orders").Partitions[0]
	if len(p.Mirror.Cuts) != 1 || p.Mirror.Cuts[0].Offset > before["orders"][0].Offset {
		t.Errorf("%+v, and the log ended at %d", p.Mirror, before["orders"][0].Offset)
	}
	eventually(t, "all replicas are in sync", func() bool { return len(here.any().image.Load().Topic("orders").Partitions[0].ISR) == 3 })
	want := segmentsOf(t, k.dirs[2], "orders", 0)
	for i, dir := range here.dirs {
		if got := segmentsOf(t, dir, "orders", 0); len(want) == 0 || string(got) != string(want) {
			t.Errorf("machine %d has %d bytes, and Kafka %d others", i, len(got), len(want))
		}
	}
}

func (k *kafkaSite) produce(topic string, partitions, records int) {
	k.t.Helper()
	produce(k.t, k.client, topic, partitions, records)
}
