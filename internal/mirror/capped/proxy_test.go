package capped_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
	"go.uber.org/goleak"

	"github.com/leatstream/leat/internal/mirror/capped"
	"github.com/leatstream/leat/internal/node"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// startNode starts a node of Leat, and returns its address.
func startNode(t *testing.T) string {
	t.Helper()
	n, err := node.Start(t.Context(), node.Config{Data: t.TempDir(), Listen: []string{"127.0.0.1:0"}, HTTP: "off"})
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
	return n.Info().Addresses[0]
}

func startProxy(t *testing.T, c capped.Config) *capped.Proxy {
	t.Helper()
	p, err := capped.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
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

// work has clients do what they do with a cluster: create a topic, produce in a transaction, consume in a group and commit.
func work(t *testing.T, addresses []string, topic string) {
	t.Helper()
	admin := kadm.NewClient(client(t, kgo.SeedBrokers(addresses...)))
	if _, err := admin.CreateTopic(t.Context(), 3, 1, nil, topic); err != nil {
		t.Fatal(err)
	}
	producer := client(t, kgo.SeedBrokers(addresses...), kgo.TransactionalID("writer of "+topic), kgo.DefaultProduceTopic(topic))
	if err := producer.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	sent := map[string]bool{}
	for i := range 100 {
		value := fmt.Sprint(i)
		sent[value] = true
		producer.Produce(t.Context(), kgo.StringRecord(value), nil)
	}
	if err := errors.Join(producer.Flush(t.Context()), producer.EndTransaction(t.Context(), kgo.TryCommit)); err != nil {
		t.Fatal(err)
	}
	consumer := client(t, kgo.SeedBrokers(addresses...), kgo.ConsumeTopics(topic), kgo.ConsumerGroup("readers of "+topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	for len(sent) > 0 {
		fetches := consumer.PollFetches(t.Context())
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if !sent[string(r.Value)] {
				t.Errorf("%q comes that was not sent, or twice", r.Value)
			}
			delete(sent, string(r.Value))
		})
	}
	if err := consumer.CommitUncommittedOffsets(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestClientsKeepToTheVersions proves that clients work through the proxy by the versions that the cluster seems to have, and that no other reaches it.
func TestClientsKeepToTheVersions(t *testing.T) {
	broker := startNode(t)
	for i, c := range []struct {
		name  string
		caps  capped.Versions
		fetch int16 // that is used; the highest one
	}{
		{"no caps", nil, 0},
		{"one API", capped.Versions{kmsg.Fetch.Int16(): 12}, 12},
		{"Apache Kafka 2.1", capped.Kafka(kversion.V2_1_0()), 10},
		{"Apache Kafka 2.8", capped.Kafka(kversion.V2_8_0()), 12},
		{"Redpanda", capped.Redpanda(), 11},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := startProxy(t, capped.Config{Brokers: []string{broker}, Versions: c.caps})
			work(t, p.Addresses(), fmt.Sprint("topic-", i))
			fetched := int16(-1)
			for r, times := range p.Seen() {
				if highest, ok := c.caps[r.Key]; ok && r.Version > highest || times <= 0 {
					t.Errorf("the broker got %s of version %d", kmsg.NameForKey(r.Key), r.Version)
				}
				if r.Key == kmsg.Fetch.Int16() {
					fetched = max(fetched, r.Version)
				}
			}
			if fetched < 0 || c.fetch > 0 && fetched != c.fetch || p.Refused() > 0 {
				t.Errorf("records were fetched by version %d, and %d requests were refused", fetched, p.Refused())
			}
		})
	}
}

// TestClientsStayWithTheProxy proves that clients never dial the brokers of a cluster themselves: leaders, coordinators and controllers all are found at the proxy's addresses.
func TestClientsStayWithTheProxy(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(3), kfake.SeedTopics(6, "seen"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	brokers := cluster.ListenAddrs()
	for name, versions := range map[string]capped.Versions{"newest": nil, "Kafka 2.1": capped.Kafka(kversion.V2_1_0())} {
		t.Run(name, func(t *testing.T) {
			p := startProxy(t, capped.Config{Brokers: brokers[:1], Versions: versions})
			var mu sync.Mutex
			dialled := map[string]bool{}
			dial := kgo.Dialer(func(ctx context.Context, network, address string) (net.Conn, error) {
				mu.Lock()
				defer mu.Unlock()
				dialled[address] = true
				return (&net.Dialer{}).DialContext(ctx, network, address)
			})
			cl := client(t, kgo.SeedBrokers(p.Addresses()...), dial, kgo.ConsumeTopics("seen"), kgo.ConsumerGroup("readers, "+name), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()),
				kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
			for i := range 60 {
				if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "seen", Value: []byte(fmt.Sprint(name, i))}).FirstErr(); err != nil {
					t.Fatal(err)
				}
			}
			for got := 0; got < 60; {
				fetches := cl.PollFetches(t.Context())
				if err := fetches.Err(); err != nil {
					t.Fatal(err)
				}
				got += fetches.NumRecords()
			}
			if err := cl.CommitUncommittedOffsets(t.Context()); err != nil {
				t.Fatal(err)
			}
			mu.Lock()
			defer mu.Unlock()
			for _, broker := range brokers {
				if dialled[broker] {
					t.Errorf("the broker at %s was dialled", broker)
				}
			}
			if len(dialled) < 3 {
				t.Errorf("only %v were dialled, for three brokers", dialled)
			}
		})
	}
}

// exchange sends a request, and returns the answer behind its correlation id.
func exchange(conn net.Conn, key, version int16, body ...byte) ([]byte, error) {
	frame := binary.BigEndian.AppendUint32(nil, uint32(10+len(body)))
	frame = binary.BigEndian.AppendUint16(frame, uint16(key))
	frame = binary.BigEndian.AppendUint16(frame, uint16(version))
	frame = append(frame, 0, 0, 0, 42, 0xff, 0xff) // without a client id
	if _, err := conn.Write(append(frame, body...)); err != nil {
		return nil, err
	}
	head := make([]byte, 8)
	if _, err := io.ReadFull(conn, head); err != nil {
		return nil, err
	}
	if id := binary.BigEndian.Uint32(head[4:]); id != 42 {
		return nil, fmt.Errorf("the answer is to request %d", id)
	}
	answer := make([]byte, binary.BigEndian.Uint32(head)-4)
	_, err := io.ReadFull(conn, answer)
	return answer, err
}

// TestUnknownVersionsAreRefused proves that a request of a version that the cluster seems not to have ends the connection, and that ApiVersions is answered as an older broker does.
func TestUnknownVersionsAreRefused(t *testing.T) {
	p := startProxy(t, capped.Config{Brokers: []string{startNode(t)}, Versions: capped.Versions{apiVersions: 2, metadata: 8, describeCluster: -1}})
	dial := func() net.Conn {
		conn, err := net.Dial("tcp", p.Addresses()[0])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	conn := dial()
	answer, err := exchange(conn, apiVersions, 3, 0)
	if err != nil {
		t.Fatal(err)
	}
	r := kmsg.NewPtrApiVersionsResponse()
	if err := r.ReadFrom(answer); err != nil {
		t.Fatal(err)
	}
	if r.ErrorCode != kerr.UnsupportedVersion.Code {
		t.Errorf("version 3 of ApiVersions has error %d", r.ErrorCode)
	}
	for key, want := range map[int16]int16{apiVersions: 2, metadata: 8} {
		if i := slices.IndexFunc(r.ApiKeys, func(k kmsg.ApiVersionsResponseApiKey) bool { return k.ApiKey == key }); i < 0 || r.ApiKeys[i].MaxVersion != want {
			t.Errorf("API %d is not there with version %d: %+v", key, want, r.ApiKeys)
		}
	}
	if slices.ContainsFunc(r.ApiKeys, func(k kmsg.ApiVersionsResponseApiKey) bool { return k.ApiKey == describeCluster }) {
		t.Error("an API is there that was removed")
	}
	if answer, err := exchange(conn, apiVersions, 2); err != nil || len(answer) < 6 || answer[1] != 0 {
		t.Errorf("version 2 is answered by % x: %v", answer, err)
	}
	for _, key := range []int16{metadata, describeCluster} {
		if answer, err := exchange(dial(), key, 9, 0, 0, 0, 0); !errors.Is(err, io.EOF) {
			t.Errorf("API %d: % x, %v", key, answer, err)
		}
	}
	if p.Refused() != 2 {
		t.Errorf("%d requests were refused", p.Refused())
	}
}

const (
	metadata        = int16(kmsg.Metadata)
	apiVersions     = int16(kmsg.ApiVersions)
	describeCluster = int16(kmsg.DescribeCluster)
)

// TestUnansweredRequestsAreForgotten proves that a producer that asks for no answers can go on for as long as it likes.
func TestUnansweredRequestsAreForgotten(t *testing.T) {
	p := startProxy(t, capped.Config{Brokers: []string{startNode(t)}, Versions: capped.Redpanda()})
	cl := client(t, kgo.SeedBrokers(p.Addresses()...), kgo.RequiredAcks(kgo.NoAck()), kgo.DisableIdempotentWrite(), kgo.AllowAutoTopicCreation())
	for range 50 {
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "unheard", Value: []byte("v")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	reader := client(t, kgo.SeedBrokers(p.Addresses()...), kgo.ConsumeTopics("unheard"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	for got := 0; got < 50; {
		fetches := reader.PollFetches(t.Context())
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		got += fetches.NumRecords()
	}
}

// TestNoProxyOfNothing proves that a proxy is refused that has no broker, or cannot listen, and that one whose broker is away closes connections.
func TestNoProxyOfNothing(t *testing.T) {
	if p, err := capped.Start(t.Context(), capped.Config{}); err == nil {
		t.Errorf("%v has no broker", p)
	}
	deaf := func(context.Context) (net.Listener, error) { return nil, net.ErrClosed }
	if _, err := capped.Start(t.Context(), capped.Config{Brokers: []string{"127.0.0.1:1"}, Listen: deaf}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a proxy that cannot listen: %v", err)
	}
	p := startProxy(t, capped.Config{Brokers: []string{"127.0.0.1:1"}})
	conn, err := net.Dial("tcp", p.Addresses()[0])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if n, err := conn.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes come from nobody", n)
	}
}
