package position_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/leatstream/leat/internal/mirror/names"
	"github.com/leatstream/leat/internal/mirror/position"
	"github.com/leatstream/leat/internal/mirror/source"
	"github.com/leatstream/leat/internal/record"
)

// The recording is what an Apache Kafka has written into the partitions of __consumer_offsets, and the positions that it told at some moments. TestAgainstKafka makes it.
const recording = "testdata/kafka"

// checkpoint is what Kafka told at a moment, when its log had these ends.
type checkpoint struct {
	Name      string
	Ends      []int64
	Positions map[string]map[string]told // by group, and by topic-partition
}

type told struct {
	Offset   int64
	Epoch    int32
	Metadata string
}

// TestKafkasRecords proves that a machine that reads the records of an Apache Kafka knows what that Kafka told of its groups, at each checkpoint of the recording; so does one that is told the answers
// to polls. The recording has offsets of all kinds of groups and of transactions, resets, deletions, and groups that went over to another protocol.
func TestKafkasRecords(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(recording, "checkpoints.json"))
	if err != nil {
		t.Fatal(err)
	}
	var checkpoints []checkpoint
	if err := json.Unmarshal(text, &checkpoints); err != nil {
		t.Fatal(err)
	}
	var logs [][]byte
	for i := range checkpoints[0].Ends {
		log, err := os.ReadFile(filepath.Join(recording, strconv.Itoa(i)+".log"))
		if err != nil {
			t.Fatal(err)
		}
		logs = append(logs, log)
	}
	compareWithKafka(t, logs, checkpoints)
}

// compareWithKafka replays logs, and compares the machine with each checkpoint.
func compareWithKafka(t *testing.T, logs [][]byte, checkpoints []checkpoint) {
	t.Helper()
	all, err := names.ParseFilter("*", "")
	if err != nil {
		t.Fatal(err)
	}
	read, polled := position.New(position.Config{Groups: all}), position.New(position.Config{Groups: all})
	read.SetPartitions(len(logs))
	now := time.Now().UnixMilli()
	for n, c := range checkpoints {
		for i, end := range c.Ends {
			for len(logs[i]) > 0 {
				b, rest, err := record.Next(logs[i])
				if err != nil {
					t.Fatal(err)
				}
				if int64(b.BaseOffset()) >= end {
					break
				}
				if err := errors.Join(b.Verify(), read.Read(int32(i), b, now)); err != nil {
					t.Fatal(err)
				}
				logs[i] = rest
			}
			read.CaughtUp(int32(i), now)
		}
		for group, places := range c.Positions {
			var list []position.Placed
			for place, p := range places {
				at := strings.LastIndexByte(place, '-')
				number, err := strconv.ParseInt(place[at+1:], 10, 32)
				if err != nil {
					t.Fatal(err)
				}
				list = append(list, position.Placed{
					Place:    position.Place{Topic: place[:at], Partition: int32(number)},
					Position: position.Position{Offset: record.Offset(p.Offset), Epoch: record.Epoch(p.Epoch), Metadata: p.Metadata},
				})
			}
			if err := polled.Polled(group, int64(n), list); err != nil {
				t.Fatal(err)
			}
		}
		polled.PolledAll(int64(n)+1, slices.Collect(maps.Keys(c.Positions)))
		for what, m := range map[string]*position.Machine{"read": read, "polled": polled} {
			if diff := cmp.Diff(c.Positions, positionsOf(m)); diff != "" {
				t.Errorf("%s, %s: Kafka's positions, and ours:\n%s", c.Name, what, diff)
			}
		}
		if s := read.State(); s.Unreadable != 0 || !read.IsComplete() {
			t.Errorf("%s: %+v", c.Name, s)
		}
	}
}

func positionsOf(m *position.Machine) map[string]map[string]told {
	all := map[string]map[string]told{}
	for _, group := range m.Groups() {
		all[group] = map[string]told{}
		for _, p := range m.Positions(group) {
			all[group][fmt.Sprintf("%s-%d", p.Topic, p.Partition)] = told{int64(p.Offset), int32(p.Epoch), p.Metadata}
		}
	}
	return all
}

// TestAgainstKafka makes the recording anew with the Apache Kafka in KAFKA_HOME (its jars are in libs), and compares the machine with it. It takes two minutes, since Kafka keeps offsets
// for a minute at least. The recording is kept in testdata if LEAT_TEST_RECORD is set.
func TestAgainstKafka(t *testing.T) {
	home := os.Getenv("KAFKA_HOME")
	if home == "" {
		t.Skip("KAFKA_HOME names no Kafka to compare with")
	}
	k := startKafka(t, home)
	k.createTopics("orders", "web", "gone")
	for _, step := range recorded {
		step.do(k)
		k.check(step.name)
	}
	logs := make([][]byte, offsetsPartitions)
	for i := range logs {
		logs[i] = k.read(int32(i))
	}
	compareWithKafka(t, slices.Clone(logs), k.checkpoints)
	if os.Getenv("LEAT_TEST_RECORD") == "" {
		return
	}
	text, err := json.MarshalIndent(k.checkpoints, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(os.MkdirAll(recording, 0o755), os.WriteFile(filepath.Join(recording, "checkpoints.json"), append(text, '\n'), 0o600))
	for i, log := range logs {
		err = errors.Join(err, os.WriteFile(filepath.Join(recording, strconv.Itoa(i)+".log"), log, 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// recorded is what happens to the groups of the recording.
var recorded = []struct {
	name string
	do   func(k *kafka)
}{
	{"commits without members", func(k *kafka) {
		k.commit(k.newest, "plain", position.Place{Topic: "orders", Partition: 0}, told{5, 0, "some text"})
		k.commit(k.newest, "plain", position.Place{Topic: "orders", Partition: 1}, told{7, -1, ""})
		k.commit(k.newest, "plain", position.Place{Topic: "web", Partition: 0}, told{2, 0, ""})
	}},
	{"a retention of its own", func(k *kafka) {
		k.commit(k.oldest, "old", position.Place{Topic: "orders", Partition: 0}, told{3, 0, ""})
	}},
	{"a classic group", func(k *kafka) { k.consume("classic", "web")() }},
	{"a group of KIP-848", func(k *kafka) { k.joinModern("modern", "orders", "web"); k.leaveModern("modern", "web", 9) }},
	{"a transaction that is open", func(k *kafka) {
		k.begin(k.newest, "first")
		k.send("first", "eos", "orders", 0, 4)
	}},
	{"a transaction that is committed", func(k *kafka) { k.end("first", true) }},
	{"a transaction that is aborted", func(k *kafka) {
		k.send("first", "eos", "orders", 0, 6)
		k.send("first", "eos", "orders", 1, 6)
		k.end("first", false)
	}},
	{"a commit after that of an open transaction", func(k *kafka) {
		k.send("first", "eos", "orders", 1, 3)
		k.send("first", "eos", "orders", 2, 3)
		k.commit(k.newest, "eos", position.Place{Topic: "orders", Partition: 1}, told{2, 0, "later"})
		k.end("first", true)
	}},
	{"two open transactions of one position", func(k *kafka) {
		k.begin(k.newest, "second")
		k.send("second", "eos", "orders", 0, 8)
		k.send("first", "eos", "orders", 0, 7)
		k.end("first", true)
	}},
	{"the other one ends, whose commit came first", func(k *kafka) { k.end("second", true) }},
	{"transactions of version 1, of which one is fenced", func(k *kafka) {
		k.begin(k.middle, "third")
		k.send("third", "eos", "web", 0, 1)
		k.end("third", true)
		k.send("third", "eos", "web", 0, 9)
		k.begin(k.middle, "third")
	}},
	{"an open transaction of a position that is deleted", func(k *kafka) {
		k.commit(k.newest, "dropped", position.Place{Topic: "orders", Partition: 0}, told{1, 0, ""})
		k.send("third", "dropped", "orders", 0, 2)
		k.send("third", "dropped", "orders", 1, 2)
		k.deleteOffset("dropped", "orders", 0)
		k.end("third", true)
	}},
	{"a reset to an earlier offset", func(k *kafka) {
		k.commit(k.newest, "plain", position.Place{Topic: "orders", Partition: 0}, told{1, -1, ""})
	}},
	{"a position that is deleted", func(k *kafka) { k.deleteOffset("plain", "web", 0) }},
	{"a group that is deleted", func(k *kafka) { k.deleteGroup("modern") }},
	{"a group that is upgraded", func(k *kafka) {
		leave := k.consume("upgraded", "web")
		k.joinModern("upgraded", "web")
		leave()
		k.leaveModern("upgraded", "web", 4)
	}},
	{"an empty classic group that is taken over", func(k *kafka) {
		k.joinModern("classic", "web")
		k.leaveModern("classic", "web", 11)
	}},
	{"a topic that is deleted", func(k *kafka) {
		k.commit(k.newest, "plain", position.Place{Topic: "gone", Partition: 0}, told{6, 0, ""})
		k.deleteTopic("gone")
		k.await("offsets of a deleted topic go", func() bool { return len(k.positions("plain")) == 2 })
	}},
	{"a topic that is made again", func(k *kafka) {
		k.createTopics("gone")
		k.commit(k.newest, "plain", position.Place{Topic: "gone", Partition: 0}, told{2, 0, ""})
	}},
	{"offsets that expire", func(k *kafka) {
		k.await("offsets expire", func() bool {
			return len(k.positions("plain")) == 0 && len(k.positions("eos")) == 0 && len(k.positions("classic")) == 0
		})
	}},
}

const offsetsPartitions = 2

// kafka is an Apache Kafka that runs beside the test.
type kafka struct {
	t                      *testing.T
	ctx                    context.Context //nolint:containedctx // it is the test's
	address                string
	newest, middle, oldest *kgo.Client // with requests of the newest versions, of 3.6 and of 2.0
	src                    *source.Client
	producers              map[string]*producer
	epochs                 map[string]int32 // of the members of KIP-848 groups
	checkpoints            []checkpoint
}

type producer struct {
	cl    *kgo.Client
	id    int64
	epoch int16
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func startKafka(t *testing.T, home string) *kafka {
	t.Helper()
	dir, address, aside := t.TempDir(), freeAddress(t), freeAddress(t)
	text := fmt.Sprintf(`process.roles=broker,controller
node.id=1
controller.quorum.voters=1@%[2]s
listeners=PLAINTEXT://%[1]s,CONTROLLER://%[2]s
advertised.listeners=PLAINTEXT://%[1]s
controller.listener.names=CONTROLLER
log.dirs=%[3]s/log
offsets.topic.num.partitions=%[4]d
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
offsets.retention.minutes=1
offsets.retention.check.interval.ms=1000
`, address, aside, dir, offsetsPartitions)
	path := filepath.Join(dir, "server.properties")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	java := func(args ...string) *exec.Cmd {
		return exec.CommandContext(t.Context(), "java", append([]string{"-Xmx512m", "-XX:TieredStopAtLevel=1", "-cp", filepath.Join(home, "libs", "*")}, args...)...)
	}
	if out, err := java("kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qk", "-c", path).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	run := java("kafka.Kafka", path)
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = run.Wait() }) // the context of the test has killed it
	k := &kafka{t: t, ctx: t.Context(), address: address, producers: map[string]*producer{}, epochs: map[string]int32{}}
	k.newest, k.middle, k.oldest = k.connect(), k.connect(kgo.MaxVersions(kversion.V3_6_0())), k.connect(kgo.MaxVersions(kversion.V2_0_0()))
	k.await("Kafka answers", func() bool { return k.newest.Ping(k.ctx) == nil })
	var err error
	if k.src, err = source.New(k.ctx, &source.Config{Brokers: []string{address}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.src.Close)
	return k
}

func (k *kafka) connect(opts ...kgo.Opt) *kgo.Client {
	k.t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(k.address), kgo.MetadataMinAge(50 * time.Millisecond)}, opts...)...)
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(cl.Close)
	return cl
}

// await asks again until it is so.
func (k *kafka) await(what string, isSo func() bool) {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(k.ctx, 4*time.Minute)
	defer cancel()
	for !isSo() {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			k.t.Fatalf("not within four minutes: %s", what)
		}
	}
}

// ask asks until the answer is not one that says to try again.
func ask[R kmsg.Response](k *kafka, cl *kgo.Client, q kmsg.Request, codeOf func(R) int16) (answer R) {
	k.t.Helper()
	k.await(kmsg.NameForKey(q.Key()), func() bool {
		resp, err := cl.Request(k.ctx, q)
		if err != nil {
			k.t.Fatalf("%T: %v", q, err)
		}
		answer = resp.(R)
		err = kerr.ErrorForCode(codeOf(answer))
		if err != nil && !kerr.IsRetriable(err) && !errors.Is(err, kerr.ConcurrentTransactions) {
			k.t.Fatalf("%T: %v", q, err)
		}
		return err == nil
	})
	return answer
}

func (k *kafka) createTopics(topics ...string) {
	k.t.Helper()
	k.await("topics are made", func() bool {
		made, err := kadm.NewClient(k.newest).CreateTopics(k.ctx, 3, 1, nil, topics...)
		return err == nil && made.Error() == nil
	})
	k.await("topics are there", func() bool {
		all, err := kadm.NewClient(k.newest).ListTopics(k.ctx, topics...)
		return err == nil && all.Error() == nil
	})
}

func (k *kafka) deleteTopic(topic string) {
	k.t.Helper()
	if _, err := kadm.NewClient(k.newest).DeleteTopic(k.ctx, topic); err != nil {
		k.t.Fatal(err)
	}
}

func (k *kafka) idOf(topic string) [16]byte {
	k.t.Helper()
	all, err := kadm.NewClient(k.newest).ListTopics(k.ctx, topic)
	if err != nil {
		k.t.Fatal(err)
	}
	return all[topic].ID
}

// commit commits a position of a group as nobody who is its member.
func (k *kafka) commit(cl *kgo.Client, group string, at position.Place, p told) {
	k.t.Helper()
	q := kmsg.NewPtrOffsetCommitRequest()
	q.Group, q.Generation = group, -1
	k.commitBy(cl, q, at, p)
}

// commitBy commits a position by a request that says who commits.
func (k *kafka) commitBy(cl *kgo.Client, q *kmsg.OffsetCommitRequest, at position.Place, p told) {
	k.t.Helper()
	q.RetentionTimeMillis = time.Hour.Milliseconds()
	one := kmsg.NewOffsetCommitRequestTopicPartition()
	one.Partition, one.Offset, one.LeaderEpoch, one.Metadata = at.Partition, p.Offset, p.Epoch, &p.Metadata
	topic := kmsg.NewOffsetCommitRequestTopic()
	topic.Topic, topic.TopicID, topic.Partitions = at.Topic, k.idOf(at.Topic), []kmsg.OffsetCommitRequestTopicPartition{one}
	q.Topics = []kmsg.OffsetCommitRequestTopic{topic}
	ask(k, cl, q, func(r *kmsg.OffsetCommitResponse) int16 { return r.Topics[0].Partitions[0].ErrorCode })
}

// consume has a member of a classic group read a topic and commit, and returns what has it leave.
func (k *kafka) consume(group, topic string) (leave func()) {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(k.ctx, time.Minute)
	defer cancel()
	cl := k.connect(kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(), kgo.DefaultProduceTopic(topic), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err := cl.ProduceSync(ctx, &kgo.Record{Partition: 1, Value: []byte("a")}, &kgo.Record{Partition: 1, Value: []byte("b")}).FirstErr(); err != nil {
		k.t.Fatal(err)
	}
	for n := 0; n < 2; {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			k.t.Fatal(err)
		}
		n += fetches.NumRecords()
	}
	if err := cl.CommitUncommittedOffsets(ctx); err != nil {
		k.t.Fatal(err)
	}
	return cl.Close
}

const modernMember = "a-member-of-KIP848-----"

func (k *kafka) beat(group string, epoch int32, topics []string) {
	k.t.Helper()
	q := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	q.Group, q.MemberID, q.MemberEpoch, q.RebalanceTimeoutMillis, q.SubscribedTopicNames = group, modernMember, epoch, -1, topics
	if epoch == 0 {
		q.RebalanceTimeoutMillis, q.Topics = 5000, []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	}
	k.epochs[group] = ask(k, k.newest, q, func(r *kmsg.ConsumerGroupHeartbeatResponse) int16 { return r.ErrorCode }).MemberEpoch
}

// joinModern has a member of the protocol of KIP-848 join a group.
func (k *kafka) joinModern(group string, topics ...string) {
	k.t.Helper()
	k.beat(group, 0, topics)
}

// leaveModern has it commit an offset and leave.
func (k *kafka) leaveModern(group, topic string, offset int64) {
	k.t.Helper()
	k.beat(group, k.epochs[group], nil)
	q := kmsg.NewPtrOffsetCommitRequest()
	q.Group, q.MemberID, q.Generation = group, modernMember, k.epochs[group]
	k.commitBy(k.newest, q, position.Place{Topic: topic}, told{offset, 0, "of a member"})
	k.beat(group, -1, nil)
}

// begin begins a transaction, or fences the producer that has one open.
func (k *kafka) begin(cl *kgo.Client, id string) {
	k.t.Helper()
	q := kmsg.NewPtrInitProducerIDRequest()
	q.TransactionalID, q.TransactionTimeoutMillis = &id, 600_000
	r := ask(k, cl, q, func(r *kmsg.InitProducerIDResponse) int16 { return r.ErrorCode })
	k.producers[id] = &producer{cl, r.ProducerID, r.ProducerEpoch}
}

// send sends an offset in the transaction of a producer.
func (k *kafka) send(id, group, topic string, partition int32, offset int64) {
	k.t.Helper()
	p := k.producers[id]
	add := kmsg.NewPtrAddOffsetsToTxnRequest()
	add.TransactionalID, add.ProducerID, add.ProducerEpoch, add.Group = id, p.id, p.epoch, group
	ask(k, p.cl, add, func(r *kmsg.AddOffsetsToTxnResponse) int16 { return r.ErrorCode })
	q := kmsg.NewPtrTxnOffsetCommitRequest()
	q.TransactionalID, q.ProducerID, q.ProducerEpoch, q.Group, q.Generation = id, p.id, p.epoch, group, -1
	one := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	one.Partition, one.Offset, one.LeaderEpoch, one.Metadata = partition, offset, 0, &id
	q.Topics = []kmsg.TxnOffsetCommitRequestTopic{{Topic: topic, Partitions: []kmsg.TxnOffsetCommitRequestTopicPartition{one}}}
	ask(k, p.cl, q, func(r *kmsg.TxnOffsetCommitResponse) int16 { return r.Topics[0].Partitions[0].ErrorCode })
}

// end ends the transaction of a producer, and waits for its marker: the one after that of the answer.
func (k *kafka) end(id string, isCommit bool) {
	k.t.Helper()
	p := k.producers[id]
	q := kmsg.NewPtrEndTxnRequest()
	q.TransactionalID, q.ProducerID, q.ProducerEpoch, q.Commit = id, p.id, p.epoch, isCommit
	r := ask(k, p.cl, q, func(r *kmsg.EndTxnResponse) int16 { return r.ErrorCode })
	if r.Version >= 5 {
		p.id, p.epoch = r.ProducerID, r.ProducerEpoch
	}
	k.await("the transaction is complete", func() bool {
		states, err := kadm.NewClient(k.newest).DescribeTransactions(k.ctx, id)
		return err == nil && strings.HasPrefix(states[id].State, "Complete")
	})
}

func (k *kafka) deleteOffset(group, topic string, partition int32) {
	k.t.Helper()
	q := kmsg.NewPtrOffsetDeleteRequest()
	q.Group = group
	q.Topics = []kmsg.OffsetDeleteRequestTopic{{Topic: topic, Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{Partition: partition}}}}
	ask(k, k.newest, q, func(r *kmsg.OffsetDeleteResponse) int16 { return r.ErrorCode })
}

func (k *kafka) deleteGroup(group string) {
	k.t.Helper()
	q := kmsg.NewPtrDeleteGroupsRequest()
	q.Groups = []string{group}
	ask(k, k.newest, q, func(r *kmsg.DeleteGroupsResponse) int16 { return r.Groups[0].ErrorCode })
}

// positions are those that Kafka tells of a group.
func (k *kafka) positions(group string) map[string]told {
	k.t.Helper()
	q := kmsg.NewPtrOffsetFetchRequest()
	q.Version = 8
	q.Groups = []kmsg.OffsetFetchRequestGroup{{Group: group, MemberEpoch: -1}}
	r := ask(k, k.middle, q, func(r *kmsg.OffsetFetchResponse) int16 { return r.Groups[0].ErrorCode })
	all := map[string]told{}
	for _, topic := range r.Groups[0].Topics {
		for _, p := range topic.Partitions {
			if p.Offset >= 0 {
				all[fmt.Sprintf("%s-%d", topic.Topic, p.Partition)] = told{p.Offset, p.LeaderEpoch, *p.Metadata}
			}
		}
	}
	return all
}

// check makes a checkpoint.
func (k *kafka) check(name string) {
	k.t.Helper()
	groups, err := kadm.NewClient(k.newest).ListGroups(k.ctx)
	if err != nil {
		k.t.Fatal(err)
	}
	c := checkpoint{Name: name, Positions: map[string]map[string]told{}}
	for _, group := range groups.Groups() {
		if all := k.positions(group); len(all) > 0 {
			c.Positions[group] = all
		}
	}
	ends, err := kadm.NewClient(k.newest).ListEndOffsets(k.ctx, "__consumer_offsets")
	if err != nil {
		k.t.Fatal(err)
	}
	for i := range offsetsPartitions {
		c.Ends = append(c.Ends, ends["__consumer_offsets"][int32(i)].Offset)
	}
	k.checkpoints = append(k.checkpoints, c)
}

// read reads a whole partition of __consumer_offsets.
func (k *kafka) read(number int32) (log []byte) {
	k.t.Helper()
	at := source.Position{Place: source.Place{Topic: "__consumer_offsets", ID: k.idOf("__consumer_offsets"), Number: number}, Leader: -1, LastEpoch: -1, MaxBytes: 1 << 20}
	for {
		f, err := k.src.Fetch(k.ctx, 1, []source.Position{at}, source.Bounds{MaxBytes: 1 << 20, Wait: time.Second})
		if err != nil || f.Batches[0].Err != nil {
			k.t.Fatal(err, f)
		}
		raw := f.Batches[0].Raw
		for len(raw) > 0 {
			b, rest, err := record.Next(raw)
			if errors.Is(err, record.ErrShort) {
				break
			}
			if err != nil {
				k.t.Fatal(err)
			}
			log, raw, at.Offset = append(log, b...), rest, int64(b.NextOffset())
		}
		if at.Offset == f.Batches[0].HighWatermark {
			return log
		}
	}
}
