package broker

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/record"
)

// script is a series of requests that Kafka and this broker must answer alike.
type script struct {
	name    string
	configs []string
	reqs    func(topic string, id [16]byte) []kmsg.Request
	// differs has the reasons why we answer a request differently on purpose, by the index of
	// the request; -1 stands for all requests.
	differs map[int]string
}

// coreGolden holds what Apache Kafka 4.3.1 answered.
const coreGolden = "testdata/kafka-4.3.1-core.txt"

// TestAnswersAreKafkas proves that the scripts get the answers that Apache Kafka 4.3.1
// gave to them, which are kept in testdata: codes, messages, offsets, everything but
// ids and the time. With LEAT_TEST_KAFKA, the address of a Kafka with default settings,
// it proves too that the record is Kafka's.
func TestAnswersAreKafkas(t *testing.T) {
	record, err := os.ReadFile(coreGolden)
	if err != nil && !*recordKafka {
		t.Fatal(err)
	}
	if addr := os.Getenv("LEAT_TEST_KAFKA"); addr != "" {
		record = []byte(theirTranscript(t, addr, string(record)))
	}
	g := newRig(t)
	want := sections(string(record))
	for _, s := range scripts(t) {
		t.Run(s.name, func(t *testing.T) {
			name := "T-" + strings.ReplaceAll(s.name, " ", "-")
			ours := s.play(t, g.addr, name, g.topic(name, 2, s.configs...))
			s.compare(t, strings.Split(strings.TrimSpace(want[s.name]), "\n"), ours)
		})
	}
}

// theirTranscript plays the scripts on Kafka and compares the outcomes with the record, or
// makes the record.
func theirTranscript(t *testing.T, addr, record string) string {
	t.Helper()
	for c := dial(t, addr); ask[*kmsg.InitProducerIDResponse](c, initProducer(2, nil, -1, -1)).ErrorCode != 0; {
		time.Sleep(10 * time.Millisecond) // Kafka's first answers are that it has no ids yet
	}
	all := scripts(t)
	slices.SortFunc(all, func(a, b script) int { return strings.Compare(a.name, b.name) })
	var out strings.Builder
	run := "T" + strconv.FormatInt(time.Now().UnixNano(), 36) + "-"
	for _, s := range all {
		name := run + strings.ReplaceAll(s.name, " ", "-")
		id := createOnKafka(t, dial(t, addr), name, 2, s.configs)
		fmt.Fprintf(&out, "## %s\n%s\n\n", s.name, strings.Join(s.play(t, addr, name, id), "\n"))
	}
	if *recordKafka {
		if err := os.WriteFile(coreGolden, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if d := cmp.Diff(strings.Split(record, "\n"), strings.Split(out.String(), "\n")); d != "" {
		t.Errorf("Kafka answers otherwise than recorded: %s", d)
	}
	return out.String()
}

// play sends a script's requests and returns their outcomes, a line each.
func (s script) play(t *testing.T, addr, topic string, id [16]byte) []string {
	t.Helper()
	c := dial(t, addr)
	var out []string
	for _, req := range s.reqs(topic, id) {
		got := c.outcome(req)
		out = append(out, fmt.Sprintf("%s v%d: %s", kmsg.NameForKey(req.Key()), req.GetVersion(), strings.ReplaceAll(got, topic, "T")))
		if got == closed {
			c = dial(t, addr)
		}
	}
	return out
}

func (s script) compare(t *testing.T, theirs, ours []string) {
	t.Helper()
	if len(theirs) != len(ours) {
		t.Fatalf("%d answers are recorded for %d requests: record them again", len(theirs), len(ours))
	}
	for i := range ours {
		same := theirs[i] == ours[i]
		if !same && s.differs[i]+s.differs[-1] == "" {
			t.Errorf("request %d, (-kafka +ours)\n- %s\n+ %s", i, theirs[i], ours[i])
		} else if same && s.differs[i] != "" {
			t.Errorf("request %d: we do not differ: %s", i, s.differs[i])
		}
	}
}

// kafka is the address of a real Kafka.
func kafka(t *testing.T) string {
	t.Helper()
	addr := os.Getenv("LEAT_TEST_KAFKA")
	if addr == "" {
		t.Skip("LEAT_TEST_KAFKA names no Kafka to compare with")
	}
	return addr
}

func createOnKafka(t *testing.T, c *client, topic string, partitions int32, configs []string) [16]byte {
	t.Helper()
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Version, req.TimeoutMillis = 7, 10_000
	rt := kmsg.NewCreateTopicsRequestTopic()
	rt.Topic, rt.NumPartitions, rt.ReplicationFactor = topic, partitions, 1
	for i := 0; i < len(configs); i += 2 {
		rc := kmsg.NewCreateTopicsRequestTopicConfig()
		rc.Name, rc.Value = configs[i], &configs[i+1]
		rt.Configs = append(rt.Configs, rc)
	}
	req.Topics = append(req.Topics, rt)
	resp := ask[*kmsg.CreateTopicsResponse](c, req)
	if len(resp.Topics) != 1 || resp.Topics[0].ErrorCode != 0 {
		t.Fatalf("create %s: %+v", topic, resp)
	}
	deadline := time.Now().Add(10 * time.Second)
	for n := int32(0); n < partitions; { // the broker follows its controller
		lo := listOffset(topic, 1, n, -1, -1)
		if r := ask[*kmsg.ListOffsetsResponse](c, lo); r.Topics[0].Partitions[0].ErrorCode == 0 {
			n++
		} else if time.Now().After(deadline) {
			t.Fatalf("partition %d of %s: code %d", n, topic, r.Topics[0].Partitions[0].ErrorCode)
		}
	}
	return resp.Topics[0].TopicID
}

// closed is the outcome of a request that closes its connection.
const closed = "closed"

// asJSON is an answer as text, without fields that are null, zero or empty, and without
// structures that have no other fields. It keeps empty lists.
func asJSON(v any) string {
	b, err := json.Marshal(v)
	var tree any
	if err == nil {
		err = json.Unmarshal(b, &tree)
	}
	if err == nil {
		b, err = json.Marshal(withoutZeros(tree))
	}
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func withoutZeros(v any) any {
	switch v := v.(type) {
	case map[string]any:
		unknown := true // all fields are -1
		for k, e := range v {
			unknown = unknown && (e == float64(-1) || k == "UnknownTags")
			if e = withoutZeros(e); e == nil || e == float64(0) || e == "" || k == "TopicID" {
				delete(v, k)
			} else {
				v[k] = e
			}
		}
		if len(v) == 0 || unknown {
			return nil
		}
	case []any:
		for i, e := range v {
			v[i] = withoutZeros(e)
		}
	}
	return v
}

// outcome is a request's answer without the fields that must differ, or the fact that the
// connection was closed.
func (c *client) outcome(req kmsg.Request) string {
	c.t.Helper()
	c.send(req)
	if p, ok := req.(*kmsg.ProduceRequest); ok && p.Acks == 0 {
		c.send(&kmsg.ApiVersionsRequest{}) // its answer tells that the connection is alive
		if _, err := c.frame(); err != nil {
			return closed
		}
		return ""
	}
	b, err := c.frame()
	if err != nil {
		return closed
	}
	resp := req.ResponseKind()
	if resp.IsFlexible() && req.Key() != apiVersionsKey {
		b = b[1:]
	}
	if err := resp.ReadFrom(b); err != nil {
		c.t.Fatalf("%s v%d: %v in %x", kmsg.NameForKey(req.Key()), req.GetVersion(), err, b)
	}
	normalise(resp)
	return asJSON(resp)
}

func normalise(resp kmsg.Response) {
	switch r := resp.(type) {
	case *kmsg.ProduceResponse:
		for i := range r.Topics {
			r.Topics[i].TopicID = [16]byte{}
			for j := range r.Topics[i].Partitions {
				p := &r.Topics[i].Partitions[j]
				p.LogAppendTime = min(p.LogAppendTime, 1)
				for k := range p.ErrorRecords {
					scrub(p.ErrorRecords[k].ErrorMessage)
				}
				scrub(p.ErrorMessage)
			}
		}
		r.Brokers = nil
	case *kmsg.FetchResponse:
		r.SessionID = min(r.SessionID, 1)
		for i := range r.Topics {
			r.Topics[i].TopicID = [16]byte{}
			for j := range r.Topics[i].Partitions {
				p := &r.Topics[i].Partitions[j]
				p.RecordBatches = p.RecordBatches[:wholeBatches(p.RecordBatches)] // Kafka may cut the last one short
			}
		}
		r.Brokers = nil
	case *kmsg.InitProducerIDResponse:
		r.ProducerID = min(r.ProducerID, 1)
	case *kmsg.DescribeProducersResponse:
		for i := range r.Topics {
			for j := range r.Topics[i].Partitions {
				for k := range r.Topics[i].Partitions[j].ActiveProducers {
					r.Topics[i].Partitions[j].ActiveProducers[k].LastTimestamp = 1
				}
			}
		}
	}
}

// scrub takes times out of a message.
func scrub(s *string) {
	if s != nil {
		*s = regexp.MustCompile(`-?\d{8,}`).ReplaceAllString(*s, "#")
	}
}

// wholeBatches is the length of the batches that are complete.
func wholeBatches(b []byte) int {
	n := 0
	for {
		one, _, err := record.Next(b[n:])
		if err != nil {
			return n
		}
		n += len(one)
	}
}

func listOffset(topic string, version int16, partition, epoch int32, ts int64) *kmsg.ListOffsetsRequest {
	req := kmsg.NewPtrListOffsetsRequest()
	req.Version, req.ReplicaID = version, -1
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic = topic
	p := kmsg.NewListOffsetsRequestTopicPartition()
	p.Partition, p.CurrentLeaderEpoch, p.Timestamp = partition, epoch, ts
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	return req
}

// base is the timestamp of records, which is far from the time of every test.
const base = 1_700_000_000_000

// changeBatch changes bytes of a batch, and sets its checksum again.
func changeBatch(b []byte, change func(b []byte)) []byte {
	b = append([]byte(nil), b...)
	change(b)
	binary.BigEndian.PutUint32(b[17:], record.Batch(b).Checksum())
	return b
}

func idempotent(tb testing.TB, id int64, epoch int16, seq int32, values ...string) []byte {
	tb.Helper()
	return changeBatch(batchAt(tb, base, values...), func(b []byte) {
		binary.BigEndian.PutUint64(b[43:], uint64(id))
		binary.BigEndian.PutUint16(b[51:], uint16(epoch))
		binary.BigEndian.PutUint32(b[53:], uint32(seq))
	})
}

func at[R kmsg.Request](version int16, req R, change ...func(R)) R {
	req.SetVersion(version)
	for _, f := range change {
		f(req)
	}
	return req
}

func scripts(tb testing.TB) []script {
	tb.Helper()
	one := batchAt(tb, base, "a", "b", "c")
	return append(produceScripts(tb, one), readScripts(tb, one)...)
}

func produceScripts(tb testing.TB, one []byte) []script {
	tb.Helper()
	be16 := binary.BigEndian.PutUint16
	be32 := binary.BigEndian.PutUint32
	bodies := map[string][]byte{
		"empty": {}, "cut": one[:len(one)-1], "header only": one[:61], "a few bytes": one[:5],
		"two":                 append(append([]byte(nil), one...), one...),
		"second cut":          append(append([]byte(nil), one...), one[:30]...),
		"a byte more":         append(append([]byte(nil), one...), 0),
		"wrong crc":           append(append([]byte(nil), one[:len(one)-1]...), one[len(one)-1]^1),
		"magic 1":             changeBatch(one, func(b []byte) { b[16] = 1 }),
		"magic 3":             changeBatch(one, func(b []byte) { b[16] = 3 }),
		"base offset":         changeBatch(one, func(b []byte) { b[7] = 9 }),
		"count too small":     changeBatch(one, func(b []byte) { be32(b[57:], 2) }),
		"count too large":     changeBatch(one, func(b []byte) { be32(b[57:], 4); be32(b[23:], 3) }),
		"count zero":          changeBatch(one, func(b []byte) { be32(b[57:], 0) }),
		"last delta huge":     changeBatch(one, func(b []byte) { be32(b[23:], 1<<31-1) }),
		"control":             changeBatch(one, func(b []byte) { be16(b[21:], 0x20) }),
		"transactional":       changeBatch(one, func(b []byte) { be16(b[21:], 0x10) }),
		"log append time":     changeBatch(one, func(b []byte) { be16(b[21:], 0x08) }),
		"codec 5":             changeBatch(one, func(b []byte) { be16(b[21:], 5) }),
		"codec says gzip":     changeBatch(one, func(b []byte) { be16(b[21:], 1) }),
		"no sequence":         idempotent(tb, 77, 0, -1, "x"),
		"far future":          batchAt(tb, time.Now().Add(48*time.Hour).UnixMilli(), "x"),
		"negative timestamp":  batchAt(tb, -1, "x"),
		"very old":            batchAt(tb, 1, "x"),
		"max timestamp lies":  changeBatch(one, func(b []byte) { binary.BigEndian.PutUint64(b[35:], base+99) }),
		"record length wrong": changeBatch(one, func(b []byte) { b[61] += 2 }),
		"length field larger": changeBatch(one, func(b []byte) { be32(b[8:], uint32(len(b)-12+4)) }),
		"length field less":   changeBatch(one, func(b []byte) { be32(b[8:], 20) }),
	}
	var list []script
	differs := map[string]string{
		"second cut":      "Kafka stores the first batch and says nothing of the second",
		"a byte more":     "Kafka stores the batch and says nothing of the rest",
		"codec 5":         "Kafka has an unknown server error",
		"codec says gzip": "Kafka has an unknown server error",
		"count too large": "Kafka has an unknown server error",
	}
	for name, b := range bodies {
		s := script{name: "body " + name}
		if why := differs[name]; why != "" {
			s.differs = map[int]string{-1: why}
		}
		s.reqs = func(topic string, id [16]byte) []kmsg.Request {
			p13 := at(13, put(topic, 0, -1, b))
			p13.Topics[0].TopicID = id
			return []kmsg.Request{at(3, put(topic, 0, 1, b)), at(7, put(topic, 0, -1, b)), at(9, put(topic, 0, -1, b)), p13, get(topic, 0, 0)}
		}
		list = append(list, s)
	}
	acks := script{name: "acks", reqs: func(topic string, _ [16]byte) []kmsg.Request {
		return []kmsg.Request{
			put(topic, 0, 0, one), put(topic, 0, 1, one), put(topic, 0, -1, one), put(topic, 0, 2, one), put(topic, 0, -2, one),
			put(topic, 7, -1, one), put(topic, -1, -1, one), put("no-such-topic-"+topic, 0, -1, one), put(topic, 7, 0, one),
			at(13, put(topic, 0, -1, one)), // topic id zero
			at(2, put(topic, 0, -1, one)), at(14, put(topic, 0, -1, one)), get(topic, 0, 0),
		}
	}}
	same := "Kafka's answer to a retry has the first one's timestamp, ours is what the first one's answer was"
	idem := script{name: "idempotence", differs: map[int]string{2: same, 4: same}, reqs: func(topic string, _ [16]byte) []kmsg.Request {
		return []kmsg.Request{
			put(topic, 0, -1, idempotent(tb, 77, 0, 0, "a", "b")), put(topic, 0, -1, idempotent(tb, 77, 0, 2, "c")),
			put(topic, 0, -1, idempotent(tb, 77, 0, 0, "a", "b")), put(topic, 0, -1, idempotent(tb, 77, 0, 5, "d")),
			put(topic, 0, 1, idempotent(tb, 77, 0, 2, "c")), put(topic, 0, -1, idempotent(tb, 77, 0, 1, "c")),
			put(topic, 0, -1, idempotent(tb, 77, 1, 0, "e")), put(topic, 0, -1, idempotent(tb, 77, 0, 3, "f")),
			put(topic, 0, -1, idempotent(tb, 78, 0, 5, "new producer in the middle")),
			put(topic, 0, -1, idempotent(tb, 77, 2, 5, "new epoch in the middle")),
			get(topic, 0, 0),
		}
	}}
	large := script{name: "large", configs: []string{"max.message.bytes", "1000", "segment.bytes", "1048576"}, reqs: func(topic string, _ [16]byte) []kmsg.Request {
		return []kmsg.Request{put(topic, 0, -1, batchAt(tb, base, string(make([]byte, 2000)))), put(topic, 0, -1, batchAt(tb, base, string(make([]byte, 800))))}
	}}
	segment := script{name: "larger than a segment", configs: []string{"max.message.bytes", "4000000", "segment.bytes", "1048576"}, reqs: func(topic string, _ [16]byte) []kmsg.Request {
		return []kmsg.Request{put(topic, 0, -1, batchAt(tb, base, string(make([]byte, 2<<20))))}
	}}
	compact := script{name: "compacted", configs: []string{"cleanup.policy", "compact"}, reqs: func(topic string, _ [16]byte) []kmsg.Request {
		return []kmsg.Request{
			put(topic, 0, -1, keyless(tb, 3)), at(7, put(topic, 0, -1, keyless(tb, 3))), at(8, put(topic, 0, -1, keyless(tb, 5))),
			put(topic, 0, -1, one), deleteRecords(topic, 0, 1),
		}
	}}
	stamped := script{name: "log append time", configs: []string{"message.timestamp.type", "LogAppendTime"}, reqs: func(topic string, _ [16]byte) []kmsg.Request {
		return []kmsg.Request{
			put(topic, 0, -1, one), put(topic, 0, -1, batchAt(tb, 1<<60, "x")), put(topic, 0, -1, idempotent(tb, 77, 0, 0, "a")),
			put(topic, 0, -1, idempotent(tb, 77, 0, 0, "a")),
		}
	}}
	logged := func(b []byte) []byte { return changeBatch(b, func(b []byte) { be16(b[21:], 0x08) }) }
	untimed := batchAt(tb, -1, "x")
	described := "Kafka describes each record"
	stamper := script{name: "producer says log append time", differs: map[int]string{1: described}, configs: []string{"message.timestamp.type", "LogAppendTime"}, reqs: func(topic string, _ [16]byte) []kmsg.Request {
		return []kmsg.Request{at(7, put(topic, 0, -1, logged(one))), put(topic, 0, -1, logged(one)), put(topic, 0, -1, one)}
	}}
	untimely := script{name: "producer says log append time of none", differs: map[int]string{1: described}, reqs: func(topic string, _ [16]byte) []kmsg.Request {
		return []kmsg.Request{at(7, put(topic, 0, -1, logged(untimed))), put(topic, 0, -1, logged(untimed)), put(topic, 0, -1, logged(one))}
	}}
	bounds := script{name: "timestamp bounds", configs: []string{"message.timestamp.before.max.ms", "1000", "message.timestamp.after.max.ms", "1000"}, reqs: func(topic string, _ [16]byte) []kmsg.Request {
		return []kmsg.Request{put(topic, 0, -1, batch(tb, "now")), at(7, put(topic, 0, -1, one))}
	}}
	minISR := script{name: "min insync replicas", configs: []string{"min.insync.replicas", "2"}, reqs: func(topic string, _ [16]byte) []kmsg.Request {
		return []kmsg.Request{put(topic, 0, -1, one), put(topic, 0, 1, one)}
	}}
	return append(list, acks, idem, large, segment, compact, stamped, stamper, untimely, bounds, minISR)
}

// batchOf makes a batch of records with the given times.
func batchOf(tb testing.TB, times ...int64) []byte {
	tb.Helper()
	var b record.Builder
	for _, ms := range times {
		b.Append(ms, []byte("key"), []byte("v"))
	}
	out, err := b.Build()
	if err != nil {
		tb.Fatal(err)
	}
	return append([]byte(nil), out...)
}

// inZstd is a compressed batch of two records. It is kept as bytes: another version of
// the encoder may make others.
func inZstd(tb testing.TB) []byte {
	tb.Helper()
	b, err := base64.StdEncoding.DecodeString("AAAAAAAAAAAAAABQAAAAAAKqlhmZAAQAAAABAAABi8/laAAAAAGLz+VoAP//////////////////AAAAAii1L/0AALEAABQAAAAGa2V5AmEAFAAAAgZrZXkCYgA=")
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func keyless(tb testing.TB, n int) []byte {
	tb.Helper()
	var b record.Builder
	for i := range n {
		b.Append(base, nil, []byte{byte(i)})
	}
	out, err := b.Build()
	if err != nil {
		tb.Fatal(err)
	}
	return append([]byte(nil), out...)
}

func deleteRecords(topic string, partition int32, to int64) *kmsg.DeleteRecordsRequest {
	req := kmsg.NewPtrDeleteRecordsRequest()
	req.Version, req.TimeoutMillis = 2, 5000
	rt := kmsg.NewDeleteRecordsRequestTopic()
	rt.Topic = topic
	p := kmsg.NewDeleteRecordsRequestTopicPartition()
	p.Partition, p.Offset = partition, to
	rt.Partitions = append(rt.Partitions, p)
	req.Topics = append(req.Topics, rt)
	return req
}

func epochEnd(topic string, version int16, current, epoch int32) *kmsg.OffsetForLeaderEpochRequest {
	req := kmsg.NewPtrOffsetForLeaderEpochRequest()
	req.Version, req.ReplicaID = version, -1
	rt := kmsg.NewOffsetForLeaderEpochRequestTopic()
	rt.Topic = topic
	p := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
	p.CurrentLeaderEpoch, p.LeaderEpoch = current, epoch
	rt.Partitions = append(rt.Partitions, p)
	req.Topics = append(req.Topics, rt)
	return req
}

func initProducer(version int16, txn *string, id int64, epoch int16) *kmsg.InitProducerIDRequest {
	req := kmsg.NewPtrInitProducerIDRequest()
	req.Version, req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.TransactionTimeoutMillis = version, txn, id, epoch, 1000
	return req
}

func readScripts(tb testing.TB, one []byte) []script {
	tb.Helper()
	later := batchAt(tb, base+1000, "d")
	filled := func(topic string, reqs ...kmsg.Request) []kmsg.Request {
		return append([]kmsg.Request{put(topic, 0, -1, one), put(topic, 0, -1, later)}, reqs...)
	}
	offsets := script{name: "list offsets", reqs: func(topic string, _ [16]byte) []kmsg.Request {
		reqs := filled(topic)
		for _, v := range []int16{1, 2, 4, 6, 7, 8, 9, 10, 11} {
			for _, ts := range []int64{-1, -2, -3, -4, -5, -6, -7, -100, 0, base, base + 1, base + 1000, base + 1001} {
				reqs = append(reqs, listOffset(topic, v, 0, -1, ts))
			}
		}
		for _, e := range []int32{0, 1, -1} {
			reqs = append(reqs, listOffset(topic, 6, 0, e, -1), listOffset(topic, 6, 1, e, -3), listOffset(topic, 6, 1, e, base))
		}
		twice := listOffset(topic, 6, 0, -1, -1)
		twice.Topics[0].Partitions = append(twice.Topics[0].Partitions, twice.Topics[0].Partitions[0])
		for _, v := range []int16{1, 4, 8} { // of a partition that has nothing
			reqs = append(reqs, listOffset(topic, v, 1, -1, -2), listOffset(topic, v, 1, 0, -2))
		}
		return append(reqs, listOffset(topic, 6, 9, -1, -1), listOffset("none-"+topic, 6, 0, -1, -1), twice,
			at(6, listOffset(topic, 6, 0, -1, -1), func(r *kmsg.ListOffsetsRequest) { r.ReplicaID = 5 }))
	}}
	epochs := script{name: "epochs", reqs: func(topic string, _ [16]byte) []kmsg.Request {
		reqs := filled(topic)
		for _, v := range []int16{2, 3, 4} {
			for _, cur := range []int32{-1, 0, 1} {
				for _, e := range []int32{-1, 0, 1, 9} {
					reqs = append(reqs, epochEnd(topic, v, cur, e))
				}
			}
		}
		return append(reqs, epochEnd("none-"+topic, 4, -1, 0))
	}}
	gone := "Kafka finds the largest timestamp among records that were deleted"
	trims := script{name: "delete records", differs: map[int]string{14: gone}, reqs: func(topic string, _ [16]byte) []kmsg.Request {
		return filled(topic, deleteRecords(topic, 0, 2), get(topic, 0, 0), get(topic, 0, 2), listOffset(topic, 6, 0, -1, -2),
			deleteRecords(topic, 0, 1), deleteRecords(topic, 0, 9), deleteRecords(topic, 0, -2), deleteRecords(topic, 0, -1),
			deleteRecords(topic, 9, 1), deleteRecords("none-"+topic, 0, 1), get(topic, 0, 4), listOffset(topic, 6, 0, -1, -2),
			listOffset(topic, 7, 0, -1, -3), listOffset(topic, 7, 0, -1, 0))
	}}
	twice := script{name: "topics named twice", reqs: func(topic string, _ [16]byte) []kmsg.Request {
		named := func(version int16, partitions ...int32) kmsg.Request {
			req := listOffset(topic, version, partitions[0], -1, -2)
			for _, n := range partitions[1:] {
				more := listOffset(topic, version, n, -1, -1)
				req.Topics = append(req.Topics, more.Topics[0])
			}
			return req
		}
		return filled(topic, named(1, 0, 1), named(7, 0, 0), named(7, 0, 1, 0), named(7, 0, 1, 1))
	}}
	older := "Kafka finds the largest timestamp among records that were deleted, we among those that are left"
	newest := script{name: "newest is deleted", differs: map[int]string{4: older, 6: older}, reqs: func(topic string, _ [16]byte) []kmsg.Request {
		return []kmsg.Request{
			put(topic, 0, -1, later), put(topic, 0, -1, one), put(topic, 0, -1, batchOf(tb, base+500, base+3, base+1)),
			deleteRecords(topic, 0, 1), listOffset(topic, 7, 0, -1, -3), deleteRecords(topic, 0, 5), listOffset(topic, 7, 0, -1, -3),
		}
	}}
	ids := script{name: "producer ids", reqs: func(topic string, _ [16]byte) []kmsg.Request {
		empty := ""
		describe := kmsg.NewPtrDescribeProducersRequest()
		dt := kmsg.NewDescribeProducersRequestTopic()
		dt.Topic, dt.Partitions = topic, []int32{0, 1, 9}
		dn := kmsg.NewDescribeProducersRequestTopic()
		dn.Topic, dn.Partitions = "none-"+topic, []int32{0}
		describe.Topics = append(describe.Topics, dt, dn)
		return []kmsg.Request{
			initProducer(0, nil, -1, -1), initProducer(2, nil, -1, -1), initProducer(4, nil, 5, 3), initProducer(4, nil, 5, -1),
			initProducer(4, nil, -1, 3), initProducer(5, nil, -1, -1), initProducer(4, &empty, -1, -1), initProducer(6, nil, -1, -1),
			put(topic, 0, -1, idempotent(tb, 77, 3, 0, "a", "b")), describe,
		}
	}}
	return append([]script{offsets, epochs, trims, twice, newest, ids}, fetchScripts(inZstd(tb), filled)...)
}

func fetchScripts(zstdBatch []byte, filled func(string, ...kmsg.Request) []kmsg.Request) []script {
	type F = *kmsg.FetchRequest
	plain := script{name: "fetch", reqs: func(topic string, id [16]byte) []kmsg.Request {
		part := func(f func(p *kmsg.FetchRequestTopicPartition)) func(F) {
			return func(r F) { f(&r.Topics[0].Partitions[0]) }
		}
		withID := func(r F) { r.Topics[0].TopicID = id }
		reqs := filled(topic)
		for _, v := range []int16{4, 5, 6, 7, 9, 11, 12, 13, 15, 16, 17, 18} {
			for _, off := range []int64{0, 1, 3, 4, 5, -1} {
				reqs = append(reqs, at(v, get(topic, 0, off), withID))
			}
			reqs = append(reqs,
				at(v, get(topic, 0, 0), withID, func(r F) { r.IsolationLevel = 1 }),
				at(v, get(topic, 0, 9), withID, func(r F) { r.IsolationLevel = 1 }),
				at(v, get(topic, 9, 0), withID), at(v, get("none", 0, 0)),
				at(v, get(topic, 0, 0), withID, func(r F) { r.MaxBytes = 1 }),
				at(v, get(topic, 0, 0), withID, func(r F) { r.MaxBytes = 0 }),
				at(v, get(topic, 0, 0), withID, part(func(p *kmsg.FetchRequestTopicPartition) { p.PartitionMaxBytes = 1 })),
				at(v, get(topic, 0, 0), withID, part(func(p *kmsg.FetchRequestTopicPartition) { p.PartitionMaxBytes = 100 })),
				at(v, get(topic, 0, 0), withID, part(func(p *kmsg.FetchRequestTopicPartition) { p.CurrentLeaderEpoch = 0 })),
				at(v, get(topic, 0, 0), withID, part(func(p *kmsg.FetchRequestTopicPartition) { p.CurrentLeaderEpoch = 3 })),
				at(v, get(topic, 0, 3), withID, part(func(p *kmsg.FetchRequestTopicPartition) { p.LastFetchedEpoch = 0 })),
				at(v, get(topic, 0, 5), withID, part(func(p *kmsg.FetchRequestTopicPartition) { p.LastFetchedEpoch = 0 })),
				at(v, get(topic, 0, 3), withID, part(func(p *kmsg.FetchRequestTopicPartition) { p.LastFetchedEpoch = 4 })))
		}
		return append(reqs, at(3, get(topic, 0, 0)))
	}}
	session := script{name: "fetch sessions", reqs: func(topic string, _ [16]byte) []kmsg.Request {
		in := func(session, epoch int32) func(F) {
			return func(r F) { r.SessionID, r.SessionEpoch = session, epoch }
		}
		return filled(topic,
			get(topic, 0, 0), // sessionless
			at(12, get(topic, 0, 0), in(12345, 1)), at(12, get(topic, 0, 0), in(0, 5)), at(12, get(topic, 0, 0), in(12345, -1)),
			at(12, get(topic, 0, 0), in(12345, 0)), at(12, get("none-"+topic, 0, 0), in(0, 0)), at(7, get(topic, 0, 3), in(0, 0)))
	}}
	zstd := script{name: "zstd for old readers", configs: []string{"compression.type", "zstd"}, reqs: func(topic string, _ [16]byte) []kmsg.Request {
		return []kmsg.Request{
			put(topic, 0, -1, zstdBatch), at(4, get(topic, 0, 0)), at(9, get(topic, 0, 0)), at(10, get(topic, 0, 0)), at(12, get(topic, 0, 0)),
		}
	}}
	return []script{plain, session, zstd}
}
