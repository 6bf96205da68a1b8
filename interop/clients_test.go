package interop

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// contender is a client library: how its driver is started and what it offers.
type contender struct {
	name   string
	kits   []*kit
	driver func(t *testing.T) *exec.Cmd
	can    abilities
}

// abilities name what a client does not offer, or what its driver does besides. The zero
// value offers all that each must.
type abilities struct {
	noIdempotence     bool
	noAdmin           bool // creates topics by the broker's auto-creation only
	noTimestamps      bool // records always have the client's clock
	noCommit          bool // commits by itself only
	noOffsets         bool // does not tell where records were stored
	textOnly          bool // records are lines of text
	noEmpty           bool // writes what is empty as null
	emptyIsNull       bool // reads what is empty as null
	noNullHeaders     bool
	noRepeatedHeaders bool
	tellsEnd          bool  // its driver asks for a partition's end after each record: see tail
	checksPartitions  bool  // never sends a wrong number of partitions
	unknownTopic      []int // codes of its own for a topic that does not exist
	noTransactions    bool  // has none, and reads aborted records
	onePartition      bool  // writes to one partition in a transaction
	noTxnOffsets      bool  // commits no offsets in transactions
	fenced            []int // codes of its own for a producer of transactions that was fenced

	noLogins           []string // mechanisms that it lacks
	sendsNonceTwice    bool     // in SCRAM, as librdkafka before 2.6.1 does: Apache Kafka 4 refuses that, and Leat does not
	deniedTopic        []int    // codes of its own when it describes a topic that is not granted
	refusedLogin       string   // what it says, as a pattern, when the server has refused its login; "" is the usual
	refusedCertificate string   // ... when the server has refused its certificate, or wants one
	distrusted         string   // ... when it distrusts the server's certificate
	noFlow             bool     // its driver sends no records one after the other for a while: see flow
}

// noBootstrap is what clients in Python say of any connection that they could not make. The reason is in their log.
const noBootstrap = "Unable to bootstrap"

var contenders = []contender{
	{
		name: "kcat", kits: []*kit{&kcatKit},
		driver: func(*testing.T) *exec.Cmd { return goDriver("kcat") },
		can:    abilities{noAdmin: true, noTimestamps: true, noCommit: true, noOffsets: true, textOnly: true, onePartition: true, noTxnOffsets: true, fenced: []int{libraryFenced}, noLogins: []string{byToken}, sendsNonceTwice: true, noFlow: true},
	},
	{name: "franz-go", driver: func(*testing.T) *exec.Cmd { return goDriver("franz-go") }, can: abilities{refusedLogin: `(?i)authenticat|unexpected data in oauth response`}},
	{name: "sarama", driver: func(*testing.T) *exec.Cmd { return goDriver("sarama") }, can: abilities{tellsEnd: true, noFlow: true}},
	{
		name: "kafka-go", driver: func(*testing.T) *exec.Cmd { return goDriver("kafka-go") },
		can: abilities{noIdempotence: true, noOffsets: true, emptyIsNull: true, noTransactions: true, noLogins: []string{byToken}, deniedTopic: []int{unknownTopicOrPartition}, noFlow: true},
	},
	{
		name: "kafka-clients", kits: []*kit{&javaKit, &javaDriverKit},
		driver: javaDriver,
	},
	{
		name: "confluent-kafka", kits: []*kit{&pythonKit}, driver: python("confluent_driver.py"),
		can: abilities{unknownTopic: []int{-188, -190}, checksPartitions: true, tellsEnd: true, fenced: []int{libraryFenced}},
	},
	{name: "kafka-python", kits: []*kit{&pythonKit}, driver: python("kafka_python_driver.py"), can: abilities{
		noNullHeaders: true, tellsEnd: true, refusedLogin: noBootstrap, refusedCertificate: noBootstrap, distrusted: noBootstrap,
	}},
	{name: "aiokafka", kits: []*kit{&pythonKit}, driver: python("aiokafka_driver.py"), can: abilities{
		noFlow: true, refusedLogin: noBootstrap + "|NodeNotReady", refusedCertificate: noBootstrap, distrusted: noBootstrap,
	}},
	{name: "kafkajs", kits: []*kit{&kafkajsKit}, driver: node(&kafkajsKit, "kafkajs_driver.js"), can: abilities{
		noNullHeaders: true, refusedLogin: `(?i)authenticat|SASL state|Closed connection`,
	}},
	{
		name: "confluent-javascript", kits: []*kit{&confluentJSKit}, driver: node(&confluentJSKit, "confluent_driver.js"),
		can: abilities{unknownTopic: []int{-188, -190}, checksPartitions: true, noNullHeaders: true, noEmpty: true, fenced: []int{libraryFenced}, noFlow: true},
	},
}

func formerJavaDriver(t *testing.T) *exec.Cmd {
	t.Helper()
	return jvm(192, []string{formerDriverKit.have(t), filepath.Join(formerJavaKit.have(t), "libs", "*")}, "Driver")
}

func javaDriver(t *testing.T) *exec.Cmd {
	t.Helper()
	return java(t, 192, "Driver")
}

func python(script string) func(*testing.T) *exec.Cmd {
	return func(t *testing.T) *exec.Cmd {
		t.Helper()
		return exec.Command(filepath.Join(pythonKit.have(t), "venv", "bin", "python"), "-u", "-B", filepath.Join("python", script))
	}
}

func node(k *kit, script string) func(*testing.T) *exec.Cmd {
	return func(t *testing.T) *exec.Cmd {
		t.Helper()
		cmd := exec.Command("node", filepath.Join("js", script))
		cmd.Env = append(os.Environ(), "NODE_PATH="+filepath.Join(k.have(t), "node_modules"), "KAFKAJS_NO_PARTITIONER_WARNING=1",
			"UV_THREADPOOL_SIZE=16") // librdkafka keeps a thread busy while it cannot connect
		return cmd
	}
}

// quick makes a group's first rebalance start at once; Kafka and Leat else wait
// three seconds for more members.
const quick = "group.initial.rebalance.delay.ms=0"

// TestClients proves that each client does against the broker what its users do with it.
func TestClients(t *testing.T) {
	for _, c := range contenders {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, k := range c.kits {
				k.have(t)
			}
			b := shared(t, quick)
			t.Run("group", scenario{c, b, nil}.takeover)
			t.Run("data", func(t *testing.T) {
				t.Parallel()
				s := scenario{c, b, start(t, c.name, c.driver(t))}
				t.Run("topics", s.topics)
				t.Run("produce", s.produce)
				t.Run("tail", s.tail)
				t.Run("time", s.time)
				t.Run("errors", s.errors)
			})
		})
	}
}

// scenario is what a contender does with a broker; its methods are subtests.
type scenario struct {
	c contender
	b *broker
	d *driver // nil where each member of a group has its own
}

// topicName returns a name that is new in this run and readable in a log.
func topicName(c contender, what string) string {
	return fmt.Sprintf("%s.%s.%d", c.name, what, names.Add(1))
}

// topics proves that a topic is created as asked for and described as it is.
func (s scenario) topics(t *testing.T) {
	c, b, d := s.c, s.b, s.d
	topic := topicName(c, "topics")
	partitions := 3
	if c.can.noAdmin {
		partitions = 1 // num.partitions
	}
	d.must(t, request{Op: "create", Addr: b.addr, Topic: topic, Partitions: partitions, Replication: b.factor, Configs: map[string]string{"retention.ms": "7200000"}})
	adm := admin(t, b)
	awaitTopic(t, adm, topic, partitions)
	if a := d.must(t, request{Op: "describe", Addr: b.addr, Topic: topic}); a.Partitions != partitions || a.Leaders != partitions {
		t.Errorf("described as %d partitions with %d leaders, want %d with leaders", a.Partitions, a.Leaders, partitions)
	}
	if c.can.noAdmin {
		return
	}
	configs, err := adm.DescribeTopicConfigs(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(configs[0].Configs, func(c kadm.Config) bool { return c.Key == "retention.ms" })
	if i < 0 || configs[0].Configs[i].MaybeValue() != "7200000" {
		t.Errorf("retention.ms is not what the topic was created with: %v", configs[0].Configs)
	}
}

// produceMode is a way to produce that an application chooses once.
type produceMode struct {
	name       string
	acks       string
	idempotent bool
}

// produce proves that what a client writes in every codec and mode is stored
// as that, is read back by it in order and unchanged, and the same by another client.
func (s scenario) produce(t *testing.T) {
	c, b, d := s.c, s.b, s.d
	modes := []produceMode{{"acks0", "0", false}, {"acks1", "1", false}, {"all", "all", false}, {"idempotent", "all", true}}
	if c.can.noIdempotence {
		modes = modes[:3]
	}
	for i, codec := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
		for j, mode := range modes {
			t.Run(codec+"/"+mode.name, func(t *testing.T) {
				want := sample(uint64(i*10+j), c.can, mode.acks == "all")
				topic := topicName(c, codec+"."+mode.name)
				createTopic(t, b, topic, 2, nil)
				const partition = 1
				a := d.must(t, request{
					Op: "produce", Addr: b.addr, Topic: topic, Partition: partition,
					Codec: codec, Acks: mode.acks, Idempotent: mode.idempotent, File: writeRecords(t, want),
				})
				if mode.acks != "0" && !c.can.noOffsets {
					checkOffsets(t, a.Offsets, len(want))
				}
				back := request{Op: "consume", Addr: b.addr, Topic: topic, Partition: partition, Count: len(want), WaitMS: 30_000}
				checkStored(t, c, back, codec, mode, want)
				back.File = filepath.Join(t.TempDir(), "consumed")
				d.must(t, back)
				got, err := readRecords(back.File)
				if err != nil {
					t.Fatal(err)
				}
				if c.can.emptyIsNull {
					want = emptyToNull(want)
				}
				compare(t, c.name, want, got, 0)
			})
		}
	}
}

// tail proves that who writes with acks=1, as some clients do unless told otherwise, and
// then reads up to the partition's end, finds each record: the end that the client is told
// covers what was acknowledged.
func (s scenario) tail(t *testing.T) {
	if !s.c.can.tellsEnd {
		t.Skip("its driver does not ask for ends")
	}
	topic := topicName(s.c, "tail")
	adm := admin(t, s.b)
	// Of several replicas the leader alone, which acknowledges, does not move the end.
	if _, err := adm.CreateTopic(t.Context(), 1, 1, nil, topic); err != nil {
		t.Fatal(err)
	}
	awaitTopic(t, adm, topic, 1)
	const rounds = 200
	if a := s.d.must(t, request{Op: "tail", Addr: s.b.addr, Topic: topic, Acks: "1", Count: rounds}); a.Count > 0 {
		t.Errorf("%d of %d acknowledged records lay beyond the end", a.Count, rounds)
	}
}

func checkOffsets(t *testing.T, offsets []int64, n int) {
	t.Helper()
	if len(offsets) != n {
		t.Errorf("%d offsets acknowledged, want %d", len(offsets), n)
	}
	for i, o := range offsets {
		if o != int64(i) {
			t.Fatalf("record %d was acknowledged with offset %d", i, o)
		}
	}
}

// checkStored reads the partition with franz-go and looks at the batches, too:
// a driver that forgot a setting would else prove nothing.
func checkStored(t *testing.T, c contender, q request, codec string, mode produceMode, want []record) {
	t.Helper()
	all, err := franzRead(q)
	if err != nil {
		t.Fatal(err)
	}
	var got []record
	compressed := 0
	codecs := []string{"none", "gzip", "snappy", "lz4", "zstd"}
	for i, r := range all {
		got = append(got, fromFranz(r))
		if used := codecs[r.Attrs.CompressionType()]; used == codec {
			compressed++
		} else if used != "none" {
			t.Errorf("record %d is stored in %s, want %s", i, used, codec)
		}
		if r.ProducerID >= 0 != mode.idempotent {
			t.Fatalf("record %d has producer id %d, idempotence asked: %v", i, r.ProducerID, mode.idempotent)
		}
	}
	// Clients may leave a batch that gains nothing as it is.
	if compressed < len(all)/2 {
		t.Errorf("only %d of %d records are stored in %s", compressed, len(all), codec)
	}
	compare(t, "franz-go reading "+c.name, want, got, 0)
}

// time proves that the first offset at or after a time is found, and that
// reading from there begins with that record.
func (s scenario) time(t *testing.T) {
	c, b, d := s.c, s.b, s.d
	topic := topicName(c, "time")
	createTopic(t, b, topic, 1, nil)
	began := time.Now().Add(-10 * time.Minute).UnixMilli()
	var want []record
	for i := range 20 {
		want = append(want, record{Value: fmt.Appendf(nil, "minute %d", i), Timestamp: began + int64(i)*1000})
	}
	write := request{Op: "produce", Addr: b.addr, Topic: topic, Codec: "none", Acks: "all", File: writeRecords(t, want)}
	if c.can.noTimestamps {
		if _, err := (&franz{}).produce(write); err != nil {
			t.Fatal(err)
		}
	} else {
		d.must(t, write)
	}
	for _, tc := range []struct{ ts, offset int64 }{{began - 5000, 0}, {began + 7000, 7}, {began + 7001, 8}, {began + 19_000, 19}} {
		a := d.must(t, request{Op: "time", Addr: b.addr, Topic: topic, Timestamp: tc.ts})
		if a.Offset != tc.offset {
			t.Errorf("time %+d ms: offset %d, want %d", tc.ts-began, a.Offset, tc.offset)
		}
	}
	// After the newest record there is no offset; clients say -1 or the end.
	if a := d.must(t, request{Op: "time", Addr: b.addr, Topic: topic, Timestamp: began + 60_000}); a.Offset != -1 && a.Offset != 20 {
		t.Errorf("time after the newest record: offset %d, want none or the end", a.Offset)
	}
	q := request{Op: "consume", Addr: b.addr, Topic: topic, Offset: 8, Count: 12, WaitMS: 20_000, File: filepath.Join(t.TempDir(), "consumed")}
	d.must(t, q)
	got, err := readRecords(q.File)
	if err != nil {
		t.Fatal(err)
	}
	compare(t, c.name, want[8:], got, 8)
}

// Error codes of the protocol that the clients must be told.
const (
	unknownTopicOrPartition  = 3
	messageTooLarge          = 10
	invalidTopic             = 17
	topicExists              = 36
	invalidPartitions        = 37
	invalidReplicationFactor = 38
	invalidConfig            = 40
)

// errors proves that a client is told what was wrong in a way that it understands.
func (s scenario) errors(t *testing.T) {
	c, b, d := s.c, s.b, s.d
	// Some clients create topics by asking for them; this broker does not let them.
	strict := shared(t, "auto.create.topics.enable=false", quick)
	t.Run("describe an unknown topic", func(t *testing.T) {
		refused(t, d, request{Op: "describe", Addr: strict.addr, Topic: topicName(c, "nowhere")}, append(c.can.unknownTopic, unknownTopicOrPartition)...)
	})
	t.Run("produce to an unknown topic", func(t *testing.T) {
		a := d.ask(t, request{
			Op: "produce", Addr: strict.addr, Topic: topicName(c, "nowhere"), Codec: "none", Acks: "all",
			File: writeRecords(t, []record{{Value: []byte("lost")}}),
		})
		if a.OK {
			t.Error("a record for a topic that does not exist was acknowledged")
		}
	})
	t.Run("too large", func(t *testing.T) {
		topic := topicName(c, "small")
		createTopic(t, b, topic, 1, map[string]*string{"max.message.bytes": new("100000")})
		q := request{
			Op: "produce", Addr: b.addr, Topic: topic, Codec: "none", Acks: "all",
			File: writeRecords(t, []record{{Value: make([]byte, 150_000)}}),
		}
		if c.can.textOnly {
			q.File = writeRecords(t, []record{{Value: slices.Repeat([]byte("x"), 150_000)}})
		}
		refused(t, d, q, messageTooLarge)
		q.File = writeRecords(t, []record{{Value: []byte("small enough")}})
		d.must(t, q)
	})
	if c.can.noAdmin {
		return
	}
	topic := topicName(c, "refused")
	createTopic(t, b, topic, 1, nil)
	for _, tc := range []struct {
		name  string
		topic request
		code  int
	}{
		{"topic exists", request{Topic: topic, Partitions: 1, Replication: 1}, topicExists},
		{"config value", request{Topic: topicName(c, "bad"), Partitions: 1, Replication: 1, Configs: map[string]string{"retention.ms": "soon"}}, invalidConfig},
		{"config range", request{Topic: topicName(c, "bad"), Partitions: 1, Replication: 1, Configs: map[string]string{"segment.bytes": "3"}}, invalidConfig},
		{"config name", request{Topic: topicName(c, "bad"), Partitions: 1, Replication: 1, Configs: map[string]string{"no.such.config": "1"}}, invalidConfig},
		{"name", request{Topic: "no/slash", Partitions: 1, Replication: 1}, invalidTopic},
		{"partitions", request{Topic: topicName(c, "bad"), Partitions: -5, Replication: 1}, invalidPartitions},
		{"replication", request{Topic: topicName(c, "bad"), Partitions: 1, Replication: 9}, invalidReplicationFactor},
	} {
		t.Run("create/"+tc.name, func(t *testing.T) {
			tc.topic.Op, tc.topic.Addr = "create", b.addr
			if tc.code == invalidPartitions && c.can.checksPartitions {
				t.Skip("the client never sends such a number")
			}
			refused(t, d, tc.topic, tc.code)
		})
	}
}

// refused proves that a request fails with one of the codes.
func refused(t *testing.T, d *driver, q request, codes ...int) {
	t.Helper()
	a := d.ask(t, q)
	if a.OK {
		t.Fatalf("%s %s: done, want error code %v", q.Op, q.Topic, codes)
	}
	if !slices.Contains(codes, a.Code) {
		t.Errorf("%s %s: code %d (%s), want %v", q.Op, q.Topic, a.Code, a.Error, codes)
	}
}

// createTopic makes a topic for a test that is about something else.
func createTopic(t *testing.T, b *broker, topic string, partitions int32, configs map[string]*string) {
	t.Helper()
	adm := admin(t, b)
	if _, err := adm.CreateTopic(t.Context(), partitions, int16(b.factor), configs, topic); err != nil {
		t.Fatal(err)
	}
	awaitTopic(t, adm, topic, int(partitions))
}

// awaitTopic returns when all partitions of a new topic serve: Kafka says that
// a topic is created before it is.
func awaitTopic(t *testing.T, adm *kadm.Client, topic string, partitions int) {
	t.Helper()
	eventually(t, 30*time.Second, "the new topic serves", func() bool {
		offsets, err := adm.ListEndOffsets(t.Context(), topic)
		return err == nil && offsets.Error() == nil && len(offsets[topic]) == partitions
	})
}

// admin returns a client for the suite's own looks at the broker.
func admin(t *testing.T, b *broker) *kadm.Client {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return kadm.NewClient(cl)
}

// eventually calls ok until it is true, and fails the test when it stays false.
func eventually(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for !ok() {
		if ctx.Err() != nil {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}
