package interop

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// linked is a node of Leat with the link "north", and clients of the two clusters.
type linked struct {
	t           *testing.T
	here        *broker
	there, near *kgo.Client
}

// linkNorth starts a node, and mirrors topics of another cluster.
func linkNorth(t *testing.T, from []string, more ...string) *linked {
	t.Helper()
	l := &linked{t: t, here: ownBroker(t), there: quickClient(t, from)}
	l.near = quickClient(t, []string{l.here.addr})
	args := []string{"create", "north"}
	for _, addr := range from { // all: any of them may be down
		args = append(args, "--from", addr)
	}
	l.verb(append(args, more...)...)
	return l
}

// verb runs a verb of leat link, and returns what it prints.
func (l *linked) verb(args ...string) string {
	l.t.Helper()
	out, err := l.try(args...)
	if err != nil {
		l.t.Fatalf("leat link %v: %v\n%s", args, err, out)
	}
	return out
}

func (l *linked) try(args ...string) (string, error) {
	l.t.Helper()
	cmd := exec.CommandContext(l.t.Context(), leatBinary(l.t), append(append([]string{"link"}, args...), "--data", l.here.dataDir, "--bootstrap", l.here.addr)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// mirrored is how a partition does, as leat link describe tells.
type mirrored struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	State     string `json:"state"`
	Reason    string `json:"reason"`
	From, To  int64
}

func (l *linked) mirrors(topic string) []mirrored {
	l.t.Helper()
	out, err := exec.CommandContext(l.t.Context(), leatBinary(l.t), "link", "describe", "north", topic, "--data", l.here.dataDir, "--bootstrap", l.here.addr, "-o", "json").Output()
	var d struct {
		List []mirrored `json:"partitionList"`
	}
	if err == nil {
		err = json.Unmarshal(out, &d)
	}
	if err != nil { // the topic may be not there yet
		return nil
	}
	return d.List
}

// awaitState waits until all partitions of a topic are in a state, and returns one of them.
func (l *linked) awaitState(topic, state string) (one mirrored) {
	l.t.Helper()
	var last []mirrored
	defer func() {
		if l.t.Failed() {
			l.t.Logf("%s: %+v", topic, last)
		}
	}()
	eventually(l.t, sourceTimeout, topic+" is "+state, func() bool {
		last = l.mirrors(topic)
		return len(last) > 0 && !slices.ContainsFunc(last, func(m mirrored) bool { return m.State != state })
	})
	return last[0]
}

// limits are the starts and the high watermarks of the partitions of a topic.
func limits(t *testing.T, cl *kgo.Client, topic string) (all [][2]int64) {
	t.Helper()
	eventually(t, sourceTimeout, "all partitions of "+topic+" answer", func() bool {
		time.Sleep(20 * time.Millisecond)
		all = tryLimits(t, cl, topic)
		return len(all) > 0
	})
	return all
}

// tryLimits are the limits, unless a partition does not answer now.
func tryLimits(t *testing.T, cl *kgo.Client, topic string) (all [][2]int64) {
	t.Helper()
	adm := kadm.NewClient(cl)
	starts, err := adm.ListStartOffsets(t.Context(), topic)
	if err != nil || starts.Error() != nil {
		return nil
	}
	ends, err := adm.ListEndOffsets(t.Context(), topic)
	if err != nil || ends.Error() != nil {
		return nil
	}
	for p := range int32(len(ends[topic])) {
		all = append(all, [2]int64{starts[topic][p].Offset, ends[topic][p].Offset})
	}
	return all
}

// awaitCopied waits until topics here begin and end where they do at the source, and compares all of their batches.
func (l *linked) awaitCopied(topics ...string) {
	l.t.Helper()
	for _, topic := range topics {
		l.awaitLimits(topic)
		for p := range int32(len(limits(l.t, l.there, topic))) {
			l.compareLogs(topic, p)
		}
	}
}

func (l *linked) awaitLimits(topic string) {
	l.t.Helper()
	var a, b [][2]int64
	defer func() {
		if l.t.Failed() {
			out, _ := l.try("describe", "north")
			l.t.Logf("%s is at %v there and at %v here\n%s", topic, a, b, out)
		}
	}()
	eventually(l.t, sourceTimeout, topic+" is mirrored", func() bool {
		time.Sleep(20 * time.Millisecond)
		a, b = tryLimits(l.t, l.there, topic), tryLimits(l.t, l.near, topic)
		return len(a) > 0 && slices.Equal(a, b)
	})
}

// compareLogs compares the batches of a partition on both sides, byte by byte.
func (l *linked) compareLogs(topic string, partition int32) {
	l.t.Helper()
	want, got := batchesOf(l.t, l.there, topic, partition), batchesOf(l.t, l.near, topic, partition)
	if len(want) == 0 || len(got) != len(want) {
		l.t.Errorf("%s-%d has %d batches here, and %d there", topic, partition, len(got), len(want))
	}
	for i := range min(len(want), len(got)) {
		if !bytes.Equal(want[i], got[i]) {
			l.t.Errorf("%s-%d: batch %d is\n%x here, and\n%x there", topic, partition, i, got[i], want[i])
			return
		}
	}
}

// batchesOf reads all batches of a partition as they are stored, up to the high watermark.
func batchesOf(t *testing.T, cl *kgo.Client, topic string, partition int32) (all [][]byte) {
	t.Helper()
	var m *kmsg.MetadataResponse
	eventually(t, sourceTimeout, topic+" is described", func() bool { // connections to a broker that was killed end with the next request
		var err error
		m, err = describeTopic(t, cl, topic)
		return err == nil && len(m.Topics) == 1 && m.Topics[0].ErrorCode == 0
	})
	end := limits(t, cl, topic)[partition]
	leader := m.Topics[0].Partitions[slices.IndexFunc(m.Topics[0].Partitions, func(p kmsg.MetadataResponseTopicPartition) bool { return p.Partition == partition })].Leader
	for at := end[0]; at < end[1]; {
		q := kmsg.NewPtrFetchRequest()
		q.MaxWaitMillis, q.MaxBytes, q.SessionEpoch = 500, 1<<20, -1
		one := kmsg.NewFetchRequestTopicPartition()
		one.Partition, one.FetchOffset, one.PartitionMaxBytes = partition, at, 1<<20
		q.Topics = append(q.Topics, kmsg.FetchRequestTopic{Topic: topic, TopicID: m.Topics[0].TopicID, Partitions: []kmsg.FetchRequestTopicPartition{one}})
		answer, err := cl.Broker(int(leader)).RetriableRequest(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		r, ok := answer.(*kmsg.FetchResponse)
		if !ok || r.ErrorCode != 0 || len(r.Topics) != 1 || r.Topics[0].Partitions[0].ErrorCode != 0 {
			t.Fatalf("%+v", answer)
		}
		found, next := cutBatches(r.Topics[0].Partitions[0].RecordBatches, end[1])
		if next <= at {
			t.Fatalf("%s-%d has no batch at %d, and ends at %d", topic, partition, at, end[1])
		}
		all, at = append(all, found...), next
	}
	return all
}

// cutBatches cuts whole batches below an offset apart, and returns the offset after them.
func cutBatches(raw []byte, below int64) (all [][]byte, next int64) {
	const length, lastDelta, headerBytes = 8, 23, 61
	for len(raw) >= headerBytes {
		n := 12 + int(binary.BigEndian.Uint32(raw[length:]))
		base := int64(binary.BigEndian.Uint64(raw))
		if n > len(raw) || base >= below {
			break
		}
		all, next = append(all, raw[:n]), base+int64(binary.BigEndian.Uint32(raw[lastDelta:]))+1
		raw = raw[n:]
	}
	return all, next
}

// compareTimes compares which offsets are found by times, some of which are those of records.
func (l *linked) compareTimes(topic string, partitions int, from, to time.Time) {
	l.t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	times := []int64{0, 1, from.UnixMilli() - 1, to.UnixMilli() + 1}
	for range 60 {
		times = append(times, from.UnixMilli()+r.Int64N(to.Sub(from).Milliseconds()+1))
	}
	for _, at := range times {
		for p := range int32(partitions) {
			want, got := findTime(l.t, l.there, topic, p, at), findTime(l.t, l.near, topic, p, at)
			if want.LeaderEpoch < 0 { // an old broker may not tell
				got.LeaderEpoch = want.LeaderEpoch
			}
			if want.Offset != got.Offset || want.Timestamp != got.Timestamp || want.LeaderEpoch != got.LeaderEpoch || want.ErrorCode != got.ErrorCode {
				l.t.Errorf("%s-%d: at %d there is %+v, and here %+v", topic, p, at, want, got)
			}
		}
	}
}

// findTime is the first record at a time, or after it.
func findTime(t *testing.T, cl *kgo.Client, topic string, partition int32, at int64) kmsg.ListOffsetsResponseTopicPartition {
	t.Helper()
	q := kmsg.NewPtrListOffsetsRequest()
	one := kmsg.NewListOffsetsRequestTopicPartition()
	one.Partition, one.Timestamp = partition, at
	q.Topics = []kmsg.ListOffsetsRequestTopic{{Topic: topic, Partitions: []kmsg.ListOffsetsRequestTopicPartition{one}}}
	r, err := q.RequestWith(t.Context(), cl)
	if err != nil || len(r.Topics) != 1 || len(r.Topics[0].Partitions) != 1 {
		t.Fatal(r, err)
	}
	return r.Topics[0].Partitions[0]
}

// writeKinds writes batches of all kinds: of each codec, of producers with and without idempotence, of transactions that end in either way. The times of the records are in the
// hour after from, in no order.
func writeKinds(t *testing.T, addrs []string, topic string, partitions int, from time.Time) {
	t.Helper()
	w := kindsWriter{topic, partitions, from, rand.New(rand.NewPCG(3, uint64(from.UnixNano())))}
	codecs := []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()}
	for i, codec := range codecs {
		opts := []kgo.Opt{kgo.ProducerBatchCompression(codec), kgo.ProducerBatchMaxBytes(3000), kgo.RecordPartitioner(kgo.ManualPartitioner())}
		inTransactions := quickClient(t, addrs, append(opts, kgo.TransactionalID(fmt.Sprintf("%s-%d", topic, i)))...)
		for n := range 2 {
			if err := inTransactions.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			w.write(t, inTransactions, 40)
			if err := inTransactions.EndTransaction(t.Context(), kgo.TransactionEndTry(n == 0)); err != nil {
				t.Fatal(err)
			}
		}
		w.write(t, quickClient(t, addrs, opts...), 30)
		w.write(t, quickClient(t, addrs, append(opts, kgo.DisableIdempotentWrite())...), 30)
	}
}

// kindsWriter writes records into a topic, with times in the hour after from.
type kindsWriter struct {
	topic      string
	partitions int
	from       time.Time
	rand       *rand.Rand
}

// write writes records, one after the other into all partitions.
func (w *kindsWriter) write(t *testing.T, cl *kgo.Client, records int) {
	t.Helper()
	all := make([]*kgo.Record, records)
	for i := range all {
		all[i] = &kgo.Record{
			Topic: w.topic, Partition: int32(i % w.partitions), Key: fmt.Append(nil, "k", i%7), Value: bytes.Repeat([]byte{byte('a' + w.rand.IntN(26))}, 50+w.rand.IntN(200)),
			Timestamp: w.from.Add(time.Duration(w.rand.Int64N(int64(time.Hour)))), Headers: []kgo.RecordHeader{{Key: "h", Value: []byte{byte(i)}}},
		}
	}
	if err := cl.ProduceSync(t.Context(), all...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// createAt makes a topic of a source.
func createAt(t *testing.T, addrs []string, topic string, partitions int32, replicas int16, configs map[string]string) {
	t.Helper()
	set := map[string]*string{}
	for name, value := range configs {
		set[name] = &value
	}
	adm := kadm.NewClient(quickClient(t, addrs))
	if _, err := adm.CreateTopic(t.Context(), partitions, replicas, set, topic); err != nil {
		t.Fatal(err)
	}
	awaitTopic(t, adm, topic, int(partitions))
}
