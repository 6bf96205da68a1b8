package source_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/leatstream/leat/internal/mirror/capped"
	"github.com/leatstream/leat/internal/mirror/source"
	"github.com/leatstream/leat/internal/node"
	"github.com/leatstream/leat/internal/record"
)

// start starts a node, and returns its address and its data directory.
func start(t *testing.T) (address, data string) {
	t.Helper()
	data = t.TempDir()
	n, err := node.Start(t.Context(), node.Config{Data: data, Listen: []string{"127.0.0.1:0"}, HTTP: "off"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := n.Stop(ctx); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
	return n.Info().Addresses[0], data
}

// connect makes a client of the source.
func connect(t *testing.T, c source.Config) *source.Client {
	t.Helper()
	s, err := source.New(t.Context(), &c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// produce makes batches of all kinds: compressed, of an idempotent producer, of transactions that end in either way, and their markers.
func produce(t *testing.T, address, topic string) {
	t.Helper()
	for i, codec := range []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.ZstdCompression()} {
		cl := client(t, kgo.SeedBrokers(address), kgo.ProducerBatchCompression(codec), kgo.TransactionalID(fmt.Sprint("writer-", i)))
		for n := range 4 {
			if err := cl.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			for range 20 {
				cl.Produce(t.Context(), &kgo.Record{Topic: topic, Key: []byte{byte(n)}, Value: bytes.Repeat([]byte{'v'}, 100)}, nil)
			}
			if err := cl.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := cl.EndTransaction(t.Context(), kgo.TransactionEndTry(n%2 == 0)); err != nil {
				t.Fatal(err)
			}
		}
	}
	cl := client(t, kgo.SeedBrokers(address))
	if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte("of no transaction")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

func client(t *testing.T, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func create(t *testing.T, address, topic string, partitions int32) {
	t.Helper()
	if _, err := kadm.NewClient(client(t, kgo.SeedBrokers(address))).CreateTopic(t.Context(), partitions, 1, nil, topic); err != nil {
		t.Fatal(err)
	}
}

// topicOf describes one topic.
func topicOf(t *testing.T, s *source.Client, name string) *source.Topic {
	t.Helper()
	c, err := s.Describe(t.Context(), []string{name})
	if err != nil || len(c.Topics) != 1 {
		t.Fatal(c, err)
	}
	return &c.Topics[0]
}

// readAll reads a partition to its end in small steps, as its batches are stored.
func readAll(t *testing.T, s *source.Client, topic *source.Topic) (all []byte, last *source.Fetched) {
	t.Helper()
	p := source.Position{Place: source.Place{Topic: topic.Name, ID: topic.ID}, Leader: topic.Partitions[0].LeaderEpoch, LastEpoch: -1, MaxBytes: 2000}
	for {
		f, err := s.Fetch(t.Context(), topic.Partitions[0].Leader, []source.Position{p}, source.Bounds{MaxBytes: 1 << 20, MinBytes: 1})
		if err != nil {
			t.Fatal(err)
		}
		b := &f.Batches[0]
		if b.Err != nil || b.Diverged != nil || b.Start != 0 || b.HighWatermark != b.Stable {
			t.Fatalf("%+v", *b)
		}
		for raw := b.Raw; len(raw) >= record.HeaderLen; {
			batch := record.Batch(raw)
			if batch.Size() > len(raw) {
				break
			}
			batch = batch[:batch.Size()]
			if batch.BaseOffset() >= record.Offset(p.Offset) {
				all = append(all, batch...)
				p.Offset, p.LastEpoch = int64(batch.NextOffset()), int32(batch.LeaderEpoch())
			}
			raw = raw[len(batch):]
		}
		if p.Offset == b.HighWatermark {
			return all, f
		}
	}
}

// segmentsOf are the bytes of the segments of a topic with one partition.
func segmentsOf(t *testing.T, data, topic string) (all []byte) {
	t.Helper()
	err := filepath.WalkDir(data, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.Contains(path, topic) && filepath.Ext(path) == ".log" {
			var b []byte
			b, err = os.ReadFile(path)
			all = append(all, b...)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestBatchesAreThoseOfTheDisk proves that all batches of a log come as they are stored, by each version of Fetch that a source may have.
func TestBatchesAreThoseOfTheDisk(t *testing.T) {
	address, data := start(t)
	create(t, address, "orders", 1)
	produce(t, address, "orders")
	for name, versions := range map[string]*kversion.Versions{"the newest": nil, "3.7": kversion.V3_7_0(), "2.8": kversion.V2_8_0(), "2.7": kversion.V2_7_0(), "2.6": kversion.V2_6_0(), "2.1": kversion.V2_1_0()} {
		t.Run(name, func(t *testing.T) {
			s := connect(t, source.Config{Brokers: []string{address}, ClientID: "link", MaxVersions: versions})
			topic := topicOf(t, s, "orders")
			all, f := readAll(t, s, topic)
			stored := segmentsOf(t, data, "orders")
			if len(all) == 0 || !bytes.HasPrefix(stored, all) || len(bytes.Trim(stored[len(all):], "\x00")) > 0 {
				t.Errorf("%d bytes were read, and %d are stored: they differ", len(all), len(stored))
			}
			if want := versions == nil || slices.Contains([]string{"3.7", "2.8", "2.7"}, name); f.ComparesEpochs() != want {
				t.Errorf("version %d compares epochs: %v", f.Version, f.ComparesEpochs())
			}
			if hasID := topic.ID != (source.TopicID{}); hasID != (name == "the newest" || name == "3.7" || name == "2.8") {
				t.Errorf("the id is %x", topic.ID)
			}
		})
	}
}

// TestOffsetsAreFound proves that the ends of logs and of epochs are found.
func TestOffsetsAreFound(t *testing.T) {
	address, _ := start(t)
	create(t, address, "orders", 2)
	s := connect(t, source.Config{Brokers: []string{address}})
	topic := topicOf(t, s, "orders")
	leader, epoch := topic.Partitions[0].Leader, topic.Partitions[0].LeaderEpoch
	cl := client(t, kgo.SeedBrokers(address), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	began := time.Now()
	for range 3 {
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Partition: 1, Value: []byte("v")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	places := []source.Place{{Topic: "orders", Number: 1}, {Topic: "orders"}, {Topic: "orders", Number: 7}, {Topic: "none"}}
	epochs := []int32{epoch, -1, -1, -1}
	for _, c := range []struct {
		at   int64
		want []int64
	}{{source.Latest, []int64{3, 0, -1, -1}}, {source.Earliest, []int64{0, 0, -1, -1}}, {began.UnixMilli() - 1, []int64{0, -1, -1, -1}}} {
		found, err := s.FindOffsets(t.Context(), leader, places, epochs, c.at)
		if err != nil {
			t.Fatal(err)
		}
		for i, f := range found {
			if f.Place != places[i] || f.Offset != c.want[i] || (f.Err != nil) != (i > 1) || f.Err != nil && !source.IsTopicGone(f.Err) {
				t.Errorf("at %d: %+v, want the offset %d", c.at, f, c.want[i])
			}
		}
	}
	ends, err := s.FindEpochEnds(t.Context(), leader, []source.Epoch{{places[0], epoch, epoch}, {places[1], epoch + 5, epoch}, {places[2], -1, 0}})
	if err != nil {
		t.Fatal(err)
	}
	if ends[0].Offset != 3 || ends[0].Epoch != epoch || ends[0].Err != nil {
		t.Errorf("the end of the epoch: %+v", ends[0])
	}
	if !errors.Is(ends[1].Err, kerr.UnknownLeaderEpoch) || !source.IsLeaderUnknown(ends[1].Err) || ends[1].Offset != -1 {
		t.Errorf("a leader epoch that is to come: %+v", ends[1])
	}
	if !source.IsTopicGone(ends[2].Err) {
		t.Errorf("a partition that is not there: %+v", ends[2])
	}
}

// TestFetchSaysWhatIsWrong proves that a mirror learns that its records are not those of the source, that it does not know the leader, and that the topic is gone or another one.
func TestFetchSaysWhatIsWrong(t *testing.T) {
	address, _ := start(t)
	create(t, address, "orders", 1)
	produce(t, address, "orders")
	s := connect(t, source.Config{Brokers: []string{address}})
	topic := topicOf(t, s, "orders")
	leader, epoch := topic.Partitions[0].Leader, topic.Partitions[0].LeaderEpoch
	fetch := func(change func(p *source.Position)) *source.Batches {
		t.Helper()
		p := source.Position{Place: source.Place{Topic: topic.Name, ID: topic.ID}, Leader: epoch, LastEpoch: -1, MaxBytes: 1 << 20}
		change(&p)
		f, err := s.Fetch(t.Context(), leader, []source.Position{p}, source.Bounds{MaxBytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		return &f.Batches[0]
	}
	if b := fetch(func(p *source.Position) { p.Offset, p.LastEpoch = 5, epoch }); b.Err != nil || b.Diverged != nil || len(b.Raw) == 0 {
		t.Errorf("records of the source: %v, %+v", b.Err, b.Diverged)
	}
	if b := fetch(func(p *source.Position) { p.Offset, p.LastEpoch = 1000, epoch }); b.Diverged == nil || b.Diverged.Epoch != epoch || b.Diverged.End != b.HighWatermark || b.Raw != nil {
		t.Errorf("more records than the source has: %+v, %+v", b, b.Diverged)
	}
	if b := fetch(func(p *source.Position) { p.Offset = 1000 }); !errors.Is(b.Err, kerr.OffsetOutOfRange) {
		t.Errorf("an offset out of range: %v", b.Err)
	}
	if b := fetch(func(p *source.Position) { p.Leader = epoch + 5 }); !source.IsLeaderUnknown(b.Err) {
		t.Errorf("a leader epoch that is to come: %v", b.Err)
	}
	if b := fetch(func(p *source.Position) { p.Number = 9 }); !source.IsTopicGone(b.Err) {
		t.Errorf("a partition that is not there: %v", b.Err)
	}
	admin := kadm.NewClient(client(t, kgo.SeedBrokers(address)))
	if _, err := admin.DeleteTopic(t.Context(), "orders"); err != nil {
		t.Fatal(err)
	}
	create(t, address, "orders", 1)
	if b := fetch(func(*source.Position) {}); !source.IsTopicGone(b.Err) {
		t.Errorf("a topic that was made again: %v", b.Err)
	}
	if again := topicOf(t, s, "orders"); again.ID == topic.ID {
		t.Error("it has the same id")
	}
	if gone := topicOf(t, s, "none"); !errors.Is(gone.Err, kerr.UnknownTopicOrPartition) || len(gone.Partitions) > 0 {
		t.Errorf("a topic that is not there: %+v", gone)
	}
}

// TestAdvertisedAddressesAreReplaced proves that a broker is dialled by the address by which it can be reached.
func TestAdvertisedAddressesAreReplaced(t *testing.T) {
	address, _ := start(t)
	create(t, address, "orders", 3)
	var dialled []string
	s := connect(t, source.Config{
		Brokers: []string{"far.example:9092"}, Reach: map[string]string{"far.example:9092": address},
		Dial: func(ctx context.Context, network, to string) (net.Conn, error) {
			dialled = append(dialled, to)
			return (&net.Dialer{}).DialContext(ctx, network, to)
		},
	})
	c, err := s.Describe(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(c.Topics, func(one source.Topic) bool { return one.Name == "orders" })
	if c.ID == "" || len(c.Brokers) != 1 || net.JoinHostPort(c.Brokers[0].Host, fmt.Sprint(c.Brokers[0].Port)) != address || i < 0 || len(c.Topics[i].Partitions) != 3 {
		t.Errorf("%+v", c)
	}
	if slices.ContainsFunc(dialled, func(to string) bool { return to != address }) || len(dialled) == 0 {
		t.Errorf("dialled %q, want %s only", dialled, address)
	}
}

// TestOldSourcesAreRefused proves that a cluster that cannot be mirrored is refused when the client is made, and that one that cannot be reached is an error at once or soon.
func TestOldSourcesAreRefused(t *testing.T) {
	address, _ := start(t)
	if s, err := source.New(t.Context(), &source.Config{Brokers: capAt(t, address, capped.Kafka(kversion.V2_0_0()))}); !errors.Is(err, source.ErrOld) {
		t.Errorf("%v, %v", s, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if s, err := source.New(ctx, &source.Config{Brokers: []string{"127.0.0.1:1"}}); err == nil {
		t.Errorf("%v of an address where nobody is", s)
	}
}

// capAt has a node look as if it had other versions of APIs, and returns its addresses.
func capAt(t *testing.T, address string, versions capped.Versions) []string {
	t.Helper()
	p, err := capped.Start(t.Context(), capped.Config{Brokers: []string{address}, Versions: versions})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p.Addresses()
}

// TestVersionsOfTheSourceAreKept proves that a source whose brokers have older versions, or those of Redpanda, is read to the same bytes by the versions that it has.
func TestVersionsOfTheSourceAreKept(t *testing.T) {
	address, data := start(t)
	create(t, address, "orders", 1)
	produce(t, address, "orders")
	for name, c := range map[string]struct {
		versions capped.Versions
		fetch    int16
	}{
		"Redpanda": {capped.Redpanda(), 11}, "Apache Kafka 2.1": {capped.Kafka(kversion.V2_1_0()), 10}, "Apache Kafka 2.8": {capped.Kafka(kversion.V2_8_0()), 12},
	} {
		t.Run(name, func(t *testing.T) {
			s := connect(t, source.Config{Brokers: capAt(t, address, c.versions)})
			all, f := readAll(t, s, topicOf(t, s, "orders"))
			if stored := segmentsOf(t, data, "orders"); len(all) == 0 || !bytes.HasPrefix(stored, all) || len(bytes.Trim(stored[len(all):], "\x00")) > 0 {
				t.Errorf("%d bytes were read, and %d are stored: they differ", len(all), len(stored))
			}
			if f.Version != c.fetch || f.ComparesEpochs() != (c.fetch >= 12) {
				t.Errorf("it was read by version %d of Fetch, not %d", f.Version, c.fetch)
			}
		})
	}
}
