//go:build unix

package main_test

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// formats is the folder with data directories that versions of Leat have left. Each is an archive,
// with a JSON file beside it that lists what a client saw before the end. A version that changes a
// format adds its own by "LEAT_TEST_WRITE_FORMATS=v2 go test -run TestWriteDirectories ./cmd/leat".
// Existing archives are never written again.
const formats = "testdata/formats"

// formatSettings keep the directories small, and their records from expiring over the years.
var formatSettings = []string{"--set", "leat.journal.bytes=4194304", "--set", "offsets.retention.minutes=2147483647"}

// sight is everything that a client sees of a node's data.
type sight struct {
	Cluster string
	Brokers map[string]map[string]string // configs that were set, by name of the broker
	Topics  map[string]topicSight
	Groups  map[string]groupSight
	// Transactions are those in the topic movedTopic; nil: there is none.
	Transactions *transactionsSight `json:",omitempty"`
}

type topicSight struct {
	ID         string
	Configs    map[string]string // configs that were set
	Partitions []partitionSight
}

type partitionSight struct {
	Start, End int64
	Epochs     []string // the leader epochs of the records, with the offsets at which they end
	Producers  []string
	Records    []string
}

type groupSight struct {
	State, Protocol string
	Configs         map[string]string // configs that were set
	Members         []string
	Offsets         []string
}

// TestEarlierDirectories proves the promise about formats. A directory that an earlier version has
// left, by a clean stop or by a kill, has every record, offset, epoch, config, committed offset and
// group, and a retry of a batch is recognised. The node can be used and restarted with it.
func TestEarlierDirectories(t *testing.T) {
	t.Parallel()
	names, err := filepath.Glob(filepath.Join(formats, "*.tar.gz"))
	if err != nil || len(names) < 2 {
		t.Fatalf("%d directories: %v", len(names), err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".tar.gz"), func(t *testing.T) {
			t.Parallel()
			var want sight
			b, err := os.ReadFile(strings.TrimSuffix(name, ".tar.gz") + ".json")
			if err == nil {
				err = json.Unmarshal(b, &want)
			}
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			unpack(t, name, dir)
			p := up(t, dir, formatSettings...)
			compareSight(t, "at the first start", want, p)
			retryAll(t, p, want)
			compareSight(t, "after retries", want, p)
			p.kill()
			p = up(t, dir, formatSettings...)
			compareSight(t, "after a kill", want, p)
			goOn(t, p, want)
			if want.Transactions != nil {
				goOnWithTransactions(t, p, want.Transactions)
			}
			p.stop(t)
			after := look(t, up(t, dir, formatSettings...))
			for topic, was := range want.Topics {
				for i := range was.Partitions {
					was, is := &was.Partitions[i], &after.Topics[topic].Partitions[i]
					if is.End != was.End+2 || is.Start != was.Start {
						t.Errorf("%s-%d: offsets %d to %d after two records more, %d to %d before", topic, i, is.Start, is.End, was.Start, was.End)
					}
					kept := len(was.Records)
					if want.Topics[topic].Configs["cleanup.policy"] == "compact" {
						kept-- // goOn has written another record with the key of the last one, which may be compacted away
					}
					if diff := cmp.Diff(was.Records[:kept], is.Records[:kept]); diff != "" {
						t.Errorf("%s-%d after a stop: (-was +is)\n%s", topic, i, diff)
					}
				}
			}
		})
	}
}

func compareSight(t *testing.T, when string, want sight, p *process) {
	t.Helper()
	if diff := cmp.Diff(want, look(t, p)); diff != "" {
		t.Fatalf("%s: (-was +is)\n%s", when, diff)
	}
}

// unpack writes the directory of an archive.
func unpack(t *testing.T, archive, dir string) {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, filepath.FromSlash(h.Name))
		if h.Typeflag == tar.TypeDir {
			err = os.MkdirAll(name, 0o700)
		} else {
			var b []byte
			if b, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(name, b, 0o600)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// look reads everything that a node has.
func look(t *testing.T, p *process) sight {
	t.Helper()
	cl := p.client(t)
	adm := kadm.NewClient(cl)
	meta, err := adm.Metadata(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := sight{Cluster: meta.Cluster, Topics: map[string]topicSight{}, Groups: map[string]groupSight{}, Brokers: map[string]map[string]string{
		"default": configsSet(t, cl, kmsg.ConfigResourceTypeBroker, ""),
		"1":       configsSet(t, cl, kmsg.ConfigResourceTypeBroker, "1"),
	}}
	for _, name := range meta.Topics.Names() {
		switch {
		case name == movedTopic:
			s.Transactions = lookAtTransactions(t, p)
		case !strings.HasPrefix(name, "__"):
			s.Topics[name] = lookAtTopic(t, p, cl, name)
		}
	}
	groups, err := adm.ListGroups(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range groups.Groups() {
		s.Groups[name] = lookAtGroup(t, cl, name)
	}
	return s
}

// configsSet are the configs of a resource that were set.
func configsSet(t *testing.T, cl *kgo.Client, kind kmsg.ConfigResourceType, name string) map[string]string {
	t.Helper()
	req := kmsg.NewPtrDescribeConfigsRequest()
	r := kmsg.NewDescribeConfigsRequestResource()
	r.ResourceType, r.ResourceName = kind, name
	req.Resources = append(req.Resources, r)
	answer, err := cl.Broker(1).Request(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	resp := answer.(*kmsg.DescribeConfigsResponse).Resources[0]
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		t.Fatalf("configs of %v %q: %v", kind, name, err)
	}
	set := map[string]string{}
	for _, c := range resp.Configs {
		if c.Source != kmsg.ConfigSourceDefaultConfig && c.Source != kmsg.ConfigSourceStaticBrokerConfig && c.Value != nil {
			set[c.Name] = *c.Value
		}
	}
	return set
}

func lookAtTopic(t *testing.T, p *process, cl *kgo.Client, name string) topicSight {
	t.Helper()
	adm := kadm.NewClient(cl)
	meta, err := adm.Metadata(t.Context(), name)
	starts, startErr := adm.ListStartOffsets(t.Context(), name)
	ends, endErr := adm.ListEndOffsets(t.Context(), name)
	producers, producersErr := adm.DescribeProducers(t.Context(), meta.Topics.TopicsSet())
	if err := errors.Join(err, startErr, endErr, producersErr); err != nil {
		t.Fatal(err)
	}
	topic := topicSight{ID: meta.Topics[name].ID.String(), Configs: configsSet(t, cl, kmsg.ConfigResourceTypeTopic, name)}
	for i := range int32(len(meta.Topics[name].Partitions)) {
		start, _ := starts.Lookup(name, i)
		end, _ := ends.Lookup(name, i)
		if err := errors.Join(start.Err, end.Err); err != nil {
			t.Fatal(err)
		}
		part := partitionSight{Start: start.Offset, End: end.Offset}
		for _, pr := range producers[name].Partitions[i].ActiveProducers.Sorted() {
			part.Producers = append(part.Producers, fmt.Sprintf("%d epoch %d sequence %d at %d", pr.ProducerID, pr.ProducerEpoch, pr.LastSequence, pr.LastTimestamp))
		}
		epochs := part.read(t, p, name, i)
		for _, e := range epochs {
			var req kadm.OffsetForLeaderEpochRequest
			req.Add(name, i, e)
			resp, err := adm.OffsetForLeaderEpoch(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			o := resp[name][i]
			part.Epochs = append(part.Epochs, fmt.Sprintf("%d: %d ends at %d", e, o.LeaderEpoch, o.EndOffset))
		}
		topic.Partitions = append(topic.Partitions, part)
	}
	return topic
}

// read reads a partition's records and returns their leader epochs.
func (part *partitionSight) read(t *testing.T, p *process, topic string, partition int32) (epochs []int32) {
	t.Helper()
	from := map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().At(part.Start)}}
	cl := p.client(t, kgo.ConsumePartitions(from), kgo.FetchMaxWait(50*time.Millisecond))
	defer cl.Close()
	for at := part.Start; at < part.End; {
		fetches := cl.PollFetches(t.Context())
		if err := fetches.Err(); err != nil {
			t.Fatalf("reading %s-%d at offset %d: %v", topic, partition, at, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			part.Records = append(part.Records, show(r))
			at = r.Offset + 1
			if !slices.Contains(epochs, r.LeaderEpoch) {
				epochs = append(epochs, r.LeaderEpoch)
			}
		})
	}
	return epochs
}

// show writes a record with all its fields that a client sees, and a long value as its hash.
func show(r *kgo.Record) string {
	value := fmt.Sprintf("%q", r.Value)
	if r.Value == nil {
		value = "none"
	} else if len(value) > 64 {
		value = fmt.Sprintf("%d bytes %x", len(r.Value), sha256.Sum256(r.Value))
	}
	headers := ""
	for _, h := range r.Headers {
		headers += fmt.Sprintf(" %s=%q", h.Key, h.Value)
	}
	return fmt.Sprintf("%d in epoch %d at %d (kind %d), codec %d, producer %d %d: %q %s%s", r.Offset, r.LeaderEpoch, r.Timestamp.UnixMilli(),
		r.Attrs.TimestampType(), r.Attrs.CompressionType(), r.ProducerID, r.ProducerEpoch, r.Key, value, headers)
}

func lookAtGroup(t *testing.T, cl *kgo.Client, name string) groupSight {
	t.Helper()
	adm := kadm.NewClient(cl)
	described, err := adm.DescribeGroups(t.Context(), name)
	offsets, offsetsErr := adm.FetchOffsets(t.Context(), name)
	if err := errors.Join(err, offsetsErr, described[name].Err); err != nil {
		t.Fatal(err)
	}
	d := described[name]
	g := groupSight{State: d.State, Protocol: d.Protocol, Configs: configsSet(t, cl, kmsg.ConfigResourceType(32), name)}
	for _, m := range d.Members {
		instance := ""
		if m.InstanceID != nil {
			instance = *m.InstanceID
		}
		assigned, _ := m.Assigned.AsConsumer()
		g.Members = append(g.Members, fmt.Sprintf("%s %s %s %v", m.MemberID, instance, m.ClientID, assigned.Topics))
	}
	for _, o := range offsets.Sorted() {
		g.Offsets = append(g.Offsets, fmt.Sprintf("%s-%d: %d after epoch %d, %q", o.Topic, o.Partition, o.At, o.LeaderEpoch, o.Metadata))
	}
	return g
}

// lastBatch is a partition's last batch, as the log has it.
func lastBatch(t *testing.T, cl *kgo.Client, topic string, partition int32, end int64) []byte {
	t.Helper()
	meta, err := kadm.NewClient(cl).Metadata(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	req := kmsg.NewPtrFetchRequest()
	req.MaxBytes = 64 << 20
	ft := kmsg.NewFetchRequestTopic()
	ft.Topic, ft.TopicID = topic, meta.Topics[topic].ID
	fp := kmsg.NewFetchRequestTopicPartition()
	fp.Partition, fp.FetchOffset, fp.PartitionMaxBytes = partition, end-1, 64<<20
	ft.Partitions = append(ft.Partitions, fp)
	req.Topics = append(req.Topics, ft)
	answer, err := cl.Broker(1).Request(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	resp := answer.(*kmsg.FetchResponse).Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil || len(resp.RecordBatches) == 0 {
		t.Fatalf("%s-%d: %d bytes, %v", topic, partition, len(resp.RecordBatches), err)
	}
	return resp.RecordBatches
}

// Places of fields in a batch.
const (
	epochAt    = 12
	crcAt      = 17
	crcFrom    = 21
	stampedBit = 3  // the bit of the attributes that says that the broker set the time
	deltaAt    = 23 // the place of the last offset's delta
	producerAt = 43
	sequenceAt = 53
)

// asSent is a stored batch as a producer sends it, beginning with a sequence number.
func asSent(b []byte, seq int32) []byte {
	b = slices.Clone(b)
	binary.BigEndian.PutUint64(b, 0)
	copy(b[epochAt:], []byte{0xff, 0xff, 0xff, 0xff})
	b[crcFrom+1] &^= 1 << stampedBit
	binary.BigEndian.PutUint32(b[sequenceAt:], uint32(seq))
	binary.BigEndian.PutUint32(b[crcAt:], crc32.Checksum(b[crcFrom:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// send produces a batch without changing it.
func send(t *testing.T, cl *kgo.Client, topic string, partition int32, batch []byte) (base int64, err error) {
	t.Helper()
	meta, err := kadm.NewClient(cl).Metadata(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = -1, 10_000
	pt := kmsg.NewProduceRequestTopic()
	pt.Topic, pt.TopicID = topic, meta.Topics[topic].ID
	pp := kmsg.NewProduceRequestTopicPartition()
	pp.Partition, pp.Records = partition, batch
	pt.Partitions = append(pt.Partitions, pp)
	req.Topics = append(req.Topics, pt)
	answer, err := cl.Broker(1).Request(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	resp := answer.(*kmsg.ProduceResponse).Topics[0].Partitions[0]
	return resp.BaseOffset, kerr.ErrorForCode(resp.ErrorCode)
}

// eachPartition calls do with the last batch of every partition, and its last sequence.
func eachPartition(t *testing.T, p *process, s sight, do func(cl *kgo.Client, topic string, partition int32, end int64, batch []byte, last int32)) {
	t.Helper()
	cl := p.client(t)
	for topic, ts := range s.Topics {
		for i, part := range ts.Partitions {
			b := lastBatch(t, cl, topic, int32(i), part.End)
			last := int32(binary.BigEndian.Uint32(b[sequenceAt:]) + binary.BigEndian.Uint32(b[deltaAt:]))
			do(cl, topic, int32(i), part.End, b, last)
		}
	}
}

// retryAll sends the last batch of every partition again, which must not be stored a second time.
// It also sends a batch that skips a sequence number, which must be refused.
func retryAll(t *testing.T, p *process, s sight) {
	t.Helper()
	eachPartition(t, p, s, func(cl *kgo.Client, topic string, partition int32, end int64, batch []byte, last int32) {
		want := end - 1 - int64(binary.BigEndian.Uint32(batch[deltaAt:]))
		if base, err := send(t, cl, topic, partition, asSent(batch, last-int32(end-1-want))); err != nil || base != want {
			t.Errorf("%s-%d: a retry of the batch at offset %d was stored at %d: %v", topic, partition, want, base, err)
		}
		if _, err := send(t, cl, topic, partition, asSent(batch, last+2)); !errors.Is(err, kerr.OutOfOrderSequenceNumber) {
			t.Errorf("%s-%d: a batch that leaves out a sequence: %v", topic, partition, err)
		}
	})
}

// goOn appends two records to every partition: by the producer that wrote the last one, and by a
// new producer whose id was never used before.
func goOn(t *testing.T, p *process, s sight) {
	t.Helper()
	fresh := p.client(t, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	id, _, err := fresh.ProducerID(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	eachPartition(t, p, s, func(cl *kgo.Client, topic string, partition int32, end int64, batch []byte, last int32) {
		if earlier := int64(binary.BigEndian.Uint64(batch[producerAt:])); id <= earlier {
			t.Errorf("%s-%d: the new producer id %d follows %d", topic, partition, id, earlier)
		}
		if delta := binary.BigEndian.Uint32(batch[deltaAt:]); delta != 0 {
			t.Fatalf("%s-%d: the last batch has %d records and should have one", topic, partition, delta+1)
		}
		if base, err := send(t, cl, topic, partition, asSent(batch, last+1)); err != nil || base != end {
			t.Errorf("%s-%d: the producer's next record is at offset %d instead of %d: %v", topic, partition, base, end, err)
		}
		r, err := fresh.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Partition: partition, Key: []byte("new"), Value: []byte("new")}).First()
		if err != nil || r.Offset != end+1 {
			t.Errorf("%s-%d: a new producer's record is at offset %d instead of %d: %v", topic, partition, r.Offset, end+1, err)
		}
	})
}
