//go:build unix

package main_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestWriteDirectories writes the directories that TestEarlierDirectories reads. It does so only if
// the environment asks for it.
func TestWriteDirectories(t *testing.T) {
	version := os.Getenv("LEAT_TEST_WRITE_FORMATS")
	if version == "" {
		t.Skip("LEAT_TEST_WRITE_FORMATS names no version to write")
	}
	for _, how := range []string{"stopped", "killed"} {
		name := filepath.Join(formats, version+"-"+how)
		if _, err := os.Stat(name + ".json"); err == nil {
			t.Fatalf("%s is there: a directory of an earlier version is never written anew", name)
		}
		w := &writer{t: t, dir: t.TempDir()}
		w.firstLife()
		w.secondLife()
		seen := w.lastLife(how == "killed")
		b, err := json.MarshalIndent(seen, "", " ")
		if err == nil {
			err = os.MkdirAll(formats, 0o755)
		}
		if err == nil {
			err = os.WriteFile(name+".json", append(b, '\n'), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		pack(t, w.dir, name+".tar.gz")
	}
}

// pack makes an archive of a directory.
func pack(t *testing.T, dir, archive string) {
	t.Helper()
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, gzip.BestCompression)
	w := tar.NewWriter(z)
	err := w.AddFS(os.DirFS(dir))
	if err == nil {
		err = w.Close()
	}
	if err == nil {
		err = z.Close()
	}
	if err == nil {
		err = os.WriteFile(archive, b.Bytes(), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s has %d bytes", archive, b.Len())
}

// writer fills a data directory, over three lives of a node.
type writer struct {
	t     *testing.T
	dir   string
	p     *process
	cl    *kgo.Client
	adm   *kadm.Client
	wrote int
}

func (w *writer) up() {
	w.t.Helper()
	w.p = up(w.t, w.dir, formatSettings...)
	w.cl = w.p.client(w.t, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.NoCompression()))
	w.adm = kadm.NewClient(w.cl)
}

func (w *writer) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *writer) create(name string, partitions int32, configs ...string) {
	w.t.Helper()
	set := map[string]*string{"retention.ms": new("-1")} // the records must not expire before the test reads them
	for _, c := range configs {
		key, value, _ := strings.Cut(c, "=")
		set[key] = &value
	}
	_, err := w.adm.CreateTopic(w.t.Context(), partitions, 1, set, name)
	w.must(err)
}

// produce writes records one by one, each a batch of its own.
func (w *writer) produce(cl *kgo.Client, topic string, partition int32, n, size int) {
	w.t.Helper()
	for range n {
		w.wrote++
		r := &kgo.Record{
			Topic: topic, Partition: partition, Timestamp: time.UnixMilli(1_700_000_000_000 + int64(w.wrote)),
			Key: []byte("key " + strconv.Itoa(w.wrote)), Value: []byte("value " + strconv.Itoa(w.wrote)),
		}
		switch {
		case size > 0:
			r.Value = bytes.Repeat([]byte("a long value. "), size/14)
		case w.wrote%3 == 0:
			r.Headers = []kgo.RecordHeader{{Key: "number", Value: r.Key}, {Key: "empty"}}
		case w.wrote%7 == 0:
			r.Value = nil
		}
		w.must(cl.ProduceSync(w.t.Context(), r).FirstErr())
	}
}

// firstLife makes the topics.
func (w *writer) firstLife() {
	w.t.Helper()
	w.up()
	w.create("orders", 2, "segment.bytes=1048576", "max.message.bytes=2000000")
	w.create("codecs", 1)
	w.create("recompressed", 1, "compression.type=zstd")
	w.create("cached", 1, "flush.messages=100000")
	w.create("stamped", 1, "message.timestamp.type=LogAppendTime")
	w.create("reborn", 1)
	w.create("gone", 1)
	w.produce(w.cl, "orders", 0, 40, 64<<10)
	for _, topic := range []string{"orders", "cached", "stamped", "reborn", "gone"} {
		w.produce(w.cl, topic, 0, 5, 0)
	}
	w.produce(w.cl, "orders", 1, 3, 0)
	w.p.stop(w.t)
}

// secondLife deletes and compresses records, and is killed.
func (w *writer) secondLife() {
	w.t.Helper()
	w.up()
	_, err := w.adm.DeleteTopics(w.t.Context(), "reborn", "gone")
	w.must(err)
	w.create("reborn", 1, "cleanup.policy=compact")
	for i, codec := range []kgo.CompressionCodec{
		kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression(),
	} {
		cl := w.p.client(w.t, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(codec))
		w.produce(cl, "codecs", 0, 2, 1000*i)
		w.produce(cl, "recompressed", 0, 2, 1000)
	}
	start := kadm.Offsets{}
	start.AddOffset("orders", 0, 21, -1) // the start lies within the second segment
	_, err = w.adm.DeleteRecords(w.t.Context(), start)
	w.must(err)
	w.p.kill()
}

// lastLife sets configs, commits offsets, reads everything that a client sees, and ends the node.
func (w *writer) lastLife(kill bool) sight {
	w.t.Helper()
	w.up()
	for _, topic := range []string{"orders", "codecs", "recompressed", "cached", "stamped", "reborn"} {
		w.produce(w.cl, topic, 0, 7, 0) // these are more batches than are remembered of a producer
	}
	w.produce(w.cl, "orders", 1, 2, 0)
	w.set(kmsg.ConfigResourceTypeBroker, "", "message.max.bytes", "3000000")
	w.set(kmsg.ConfigResourceTypeBroker, "1", "log.retention.ms", "3600000000")
	w.set(kmsg.ConfigResourceTypeTopic, "codecs", "min.insync.replicas", "1")
	w.set(kmsg.ConfigResourceType(32), "readers", "consumer.session.timeout.ms", "50000")
	w.consume()
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: "codecs", At: 7, LeaderEpoch: 2, Metadata: "half way"})
	offsets.Add(kadm.Offset{Topic: "orders", Partition: 1, At: 4, LeaderEpoch: -1})
	w.must(w.adm.CommitAllOffsets(w.t.Context(), "simple", offsets))
	seen := look(w.t, w.p)
	w.transactions()
	seen.Transactions = w.seenOnceEnded()
	seen.Groups["movers"] = lookAtGroup(w.t, w.cl, "movers")
	w.create("late", 1)
	w.produce(w.cl, "late", 0, 3, 0)
	seen.Topics["late"] = lookAtTopic(w.t, w.p, w.cl, "late")
	if !kill {
		w.p.stop(w.t)
		return seen
	}
	w.p.kill()
	// This is the state after a power cut: the system had not yet written the bytes that no
	// checkpoint had synced, so that the journal has the only copy.
	w.must(os.RemoveAll(filepath.Join(w.dir, "late-0")))
	return seen
}

// consume leaves a member in a group that owns its partitions by a static name.
func (w *writer) consume() {
	w.t.Helper()
	cl := w.p.client(w.t, kgo.ConsumerGroup("readers"), kgo.InstanceID("reader-1"), kgo.ConsumeTopics("orders"), kgo.DisableAutoCommit(),
		kgo.SessionTimeout(20*time.Minute), kgo.RebalanceTimeout(20*time.Minute), kgo.ClientID("formats"))
	fetches := cl.PollFetches(w.t.Context())
	w.must(fetches.Err())
	w.must(cl.CommitRecords(w.t.Context(), fetches.Records()[0]))
	cl.Close()
}

func (w *writer) set(kind kmsg.ConfigResourceType, name, key, value string) {
	w.t.Helper()
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	r := kmsg.NewIncrementalAlterConfigsRequestResource()
	r.ResourceType, r.ResourceName = kind, name
	c := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	c.Name, c.Value = key, &value
	r.Configs = append(r.Configs, c)
	req.Resources = append(req.Resources, r)
	answer, err := w.cl.Broker(1).Request(w.t.Context(), req)
	w.must(err)
	resp := answer.(*kmsg.IncrementalAlterConfigsResponse).Resources[0]
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		w.t.Fatal(fmt.Errorf("%s of %v %q: %w", key, kind, name, err))
	}
}
