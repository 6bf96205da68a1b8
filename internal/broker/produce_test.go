package broker

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/record"
)

func produced(tb testing.TB, resp *kmsg.ProduceResponse) kmsg.ProduceResponseTopicPartition {
	tb.Helper()
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		tb.Fatalf("one partition expected: %+v", resp)
	}
	return resp.Topics[0].Partitions[0]
}

func fetched(tb testing.TB, resp *kmsg.FetchResponse) kmsg.FetchResponseTopicPartition {
	tb.Helper()
	if resp.ErrorCode != 0 || len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		tb.Fatalf("one partition expected: %+v", resp)
	}
	return resp.Topics[0].Partitions[0]
}

// readAll reads a partition's values from an offset on.
func (c *client) readAll(topic string, partition int32) []string {
	c.t.Helper()
	p := fetched(c.t, ask[*kmsg.FetchResponse](c, get(topic, partition, 0)))
	if p.ErrorCode != 0 {
		c.t.Fatalf("fetch: %v", kerr.ErrorForCode(p.ErrorCode))
	}
	return values(c.t, p.RecordBatches)
}

// TestProduceAndFetch proves that records produced with any acks can be read, with every
// version of both APIs, by topic name and by id.
func TestProduceAndFetch(t *testing.T) {
	g := newRig(t)
	c := dial(t, g.addr)
	id := g.topic("events", 1)
	var want []string
	for v := int16(3); v <= 13; v++ {
		for _, acks := range []int16{1, -1} {
			want = append(want, fmt.Sprintf("v%d acks %d", v, acks))
			req := at(v, put("events", 0, acks, batch(t, want[len(want)-1])))
			req.Topics[0].TopicID = id
			p := produced(t, ask[*kmsg.ProduceResponse](c, req))
			if p.ErrorCode != 0 || p.BaseOffset != int64(len(want)-1) {
				t.Fatalf("version %d: code %d, offset %d", v, p.ErrorCode, p.BaseOffset)
			}
		}
	}
	ask[*kmsg.ProduceResponse](c, put("events", 0, -1, batch(t, "durable"))) // commits what acks=1 left
	want = append(want, "durable")
	for v := int16(4); v <= 18; v++ {
		req := at(v, get("events", 0, 0))
		req.Topics[0].TopicID = id
		p := fetched(t, ask[*kmsg.FetchResponse](c, req))
		if got := values(t, p.RecordBatches); !slices.Equal(got, want) {
			t.Fatalf("version %d: read %q, want %q", v, got, want)
		}
		if p.HighWatermark != int64(len(want)) || p.LastStableOffset != p.HighWatermark {
			t.Fatalf("version %d: high watermark %d, last stable offset %d", v, p.HighWatermark, p.LastStableOffset)
		}
	}
}

// TestPipelinedRequestsStayInOrder proves that many requests that one connection sends at once,
// one of which is refused, are stored and answered in order.
func TestPipelinedRequestsStayInOrder(t *testing.T) {
	g := newRig(t)
	g.topic("events", 3)
	c := dial(t, g.addr)
	var reqs []kmsg.Request
	var want []string
	for i := range 60 {
		v := fmt.Sprint(i)
		b := batch(t, v)
		acks := int16(-1)
		if i%7 == 3 {
			acks = 1
		}
		if i%10 == 5 {
			b[len(b)-1] ^= 1
		} else {
			want = append(want, v)
		}
		req := put("events", 1, acks, b)
		addPart(req, "events", 2, batch(t, v))
		reqs = append(reqs, req)
	}
	c.send(reqs...)
	next := int64(0)
	for i, req := range reqs {
		resp, _ := c.receive(req).(*kmsg.ProduceResponse)
		p := resp.Topics[0].Partitions
		if i%10 == 5 {
			if p[0].ErrorCode != kerr.CorruptMessage.Code {
				t.Fatalf("request %d: code %d", i, p[0].ErrorCode)
			}
		} else {
			if p[0].ErrorCode != 0 || p[0].BaseOffset != next {
				t.Fatalf("request %d: code %d, offset %d, want %d", i, p[0].ErrorCode, p[0].BaseOffset, next)
			}
			next++
		}
		if p[1].ErrorCode != 0 || p[1].BaseOffset != int64(i) {
			t.Fatalf("request %d, partition 2: code %d, offset %d", i, p[1].ErrorCode, p[1].BaseOffset)
		}
	}
	if got := c.readAll("events", 1); !slices.Equal(got, want) {
		t.Fatalf("stored %q, want %q", got, want)
	}
}

// TestManyConnectionsAppendAtOnce proves that each connection's records keep their
// order, none is lost and none is stored twice, when many append to the same partitions.
func TestManyConnectionsAppendAtOnce(t *testing.T) {
	const conns, each = 8, 50
	g := newRig(t)
	g.topic("events", 2)
	var wg sync.WaitGroup
	for n := range conns {
		c := dial(t, g.addr)
		wg.Go(func() {
			var reqs []kmsg.Request
			for i := range each {
				req := put("events", 0, -1, batch(t, fmt.Sprintf("%d %d", n, i)))
				addPart(req, "events", 1, batch(t, fmt.Sprintf("%d %d", n, i)))
				reqs = append(reqs, req)
			}
			c.send(reqs...)
			for _, req := range reqs {
				resp, _ := c.receive(req).(*kmsg.ProduceResponse)
				for _, p := range resp.Topics[0].Partitions {
					if p.ErrorCode != 0 {
						t.Errorf("code %d", p.ErrorCode)
					}
				}
			}
		})
	}
	wg.Wait()
	for part := range int32(2) {
		next := map[int]int{}
		got := dial(t, g.addr).readAll("events", part)
		for _, v := range got {
			var n, i int
			if _, err := fmt.Sscan(v, &n, &i); err != nil {
				t.Fatal(err)
			}
			if next[n] != i {
				t.Fatalf("connection %d: record %d where %d should be", n, i, next[n])
			}
			next[n]++
		}
		if len(got) != conns*each {
			t.Fatalf("%d records, want %d", len(got), conns*each)
		}
	}
}

// TestFailedSilentProduceClosesTheConnection proves that a failed request with acks=0 closes
// the connection, as in Kafka.
func TestFailedSilentProduceClosesTheConnection(t *testing.T) {
	g := newRig(t)
	g.topic("events", 1)
	c := dial(t, g.addr)
	c.send(put("events", 0, 0, batch(t, "stored")), put("nowhere", 0, 0, batch(t, "lost")))
	if _, err := c.frame(); err == nil {
		t.Fatal("an answer came")
	}
	p := fetched(t, ask[*kmsg.FetchResponse](dial(t, g.addr), withMaxWait(get("events", 0, 0), 10_000, 1)))
	if got := values(t, p.RecordBatches); !slices.Equal(got, []string{"stored"}) {
		t.Fatalf("stored %q", got)
	}
}

// TestMalformedRequestStoresNothing proves that of a request that is cut off in its second
// partition not even the first is stored, and that requests before it are served.
func TestMalformedRequestStoresNothing(t *testing.T) {
	g := newRig(t)
	g.topic("events", 2)
	c := dial(t, g.addr)
	bad := put("events", 0, -1, batch(t, "half"))
	addPart(bad, "events", 1, batch(t, "half"))
	frame := kmsg.NewRequestFormatter().AppendRequest(nil, bad, 9)
	frame = frame[:len(frame)-20]
	be.PutUint32(frame, uint32(len(frame)-4))
	c.send(put("events", 0, -1, batch(t, "good")))
	if _, err := c.c.Write(frame); err != nil {
		t.Fatal(err)
	}
	if p := produced(t, c.receive(put("", 0, 0, nil)).(*kmsg.ProduceResponse)); p.ErrorCode != 0 {
		t.Fatalf("code %d", p.ErrorCode)
	}
	if _, err := c.frame(); err == nil {
		t.Fatal("the malformed request was answered")
	}
	c = dial(t, g.addr)
	if got := c.readAll("events", 0); !slices.Equal(got, []string{"good"}) {
		t.Fatalf("stored %q", got)
	}
	if got := c.readAll("events", 1); got != nil {
		t.Fatalf("stored %q", got)
	}
}

// TestBatchesAreStoredInTheTopicsCodec proves that a topic with a compression.type of its own
// stores every batch with it, whatever the producer sent.
func TestBatchesAreStoredInTheTopicsCodec(t *testing.T) {
	g := newRig(t)
	c := dial(t, g.addr)
	for _, codec := range []record.Codec{record.None, record.Gzip, record.Snappy, record.LZ4, record.Zstd} {
		name := "as-" + codec.String()
		config := codec.String()
		if codec == record.None {
			config = "uncompressed"
		}
		g.topic(name, 1, "compression.type", config)
		for _, from := range []record.Codec{record.None, record.Zstd} {
			b, err := record.Batch(batch(t, "x", "y")).Recompress(t.Context(), nil, &record.Target{Codec: from})
			if err != nil {
				t.Fatal(err)
			}
			if p := produced(t, ask[*kmsg.ProduceResponse](c, put(name, 0, -1, b))); p.ErrorCode != 0 {
				t.Fatalf("%s from %s: code %d", codec, from, p.ErrorCode)
			}
		}
		p := fetched(t, ask[*kmsg.FetchResponse](c, get(name, 0, 0)))
		for b := p.RecordBatches; len(b) > 0; {
			one, rest, err := record.Next(b)
			if err != nil || one.Codec() != codec || one.Verify() != nil {
				t.Fatalf("%s: a batch with %s, %v", codec, one.Codec(), err)
			}
			b = rest
		}
		if got := values(t, p.RecordBatches); !slices.Equal(got, []string{"x", "y", "x", "y"}) {
			t.Fatalf("%s: read %q", codec, got)
		}
	}
}

// TestLostLeadershipFailsProduce proves that a partition which another node leads refuses
// appends, and that the answer names its leader.
func TestLostLeadershipFailsProduce(t *testing.T) {
	g := newRig(t)
	id := g.topic("events", 1)
	g.apply(meta.BrokerRegistered{Broker: meta.Broker{ID: 2, State: meta.BrokerActive, Listeners: []meta.Listener{{Host: "other", Port: 9093}}, Rack: "r", Epoch: 2}},
		meta.PartitionChanged{Topic: id, Partition: 0, ISR: []int32{1}, Leader: 2, LeaderEpoch: 1, PartitionEpoch: 1})
	c := dial(t, g.addr)
	resp := ask[*kmsg.ProduceResponse](c, at(12, put("events", 0, -1, batch(t, "x"))))
	p := produced(t, resp)
	if p.ErrorCode != notLeader || p.CurrentLeader.LeaderID != 2 || p.CurrentLeader.LeaderEpoch != 1 {
		t.Errorf("produce: %+v", p)
	}
	if !slices.ContainsFunc(resp.Brokers, func(b kmsg.ProduceResponseBroker) bool { return b.Host == "other" && b.Port == 9093 }) {
		t.Errorf("produce: the leader is not among the endpoints: %+v", resp.Brokers)
	}
	freq := at(16, get("events", 0, 0))
	freq.Topics[0].TopicID = id
	fresp := ask[*kmsg.FetchResponse](c, freq)
	if f := fetched(t, fresp); f.ErrorCode != notLeader || f.CurrentLeader.LeaderID != 2 || len(fresp.Brokers) == 0 {
		t.Errorf("fetch: %+v, %+v", f, fresp.Brokers)
	}
}

// TestInternalTopicIsNotForClients proves that only Kafka's admin client id may write
// to the topic of the groups' offsets.
func TestInternalTopicIsNotForClients(t *testing.T) {
	g := newRig(t)
	g.topic("__consumer_offsets", 1)
	c := dial(t, g.addr)
	if p := produced(t, ask[*kmsg.ProduceResponse](c, put("__consumer_offsets", 0, -1, batch(t, "x")))); p.ErrorCode != kerr.InvalidTopicException.Code {
		t.Errorf("code %d", p.ErrorCode)
	}
	c.id = adminClientID
	if p := produced(t, ask[*kmsg.ProduceResponse](c, put("__consumer_offsets", 0, -1, batch(t, "x")))); p.ErrorCode != 0 {
		t.Errorf("code %d", p.ErrorCode)
	}
}

// TestProducedIsCounted proves that the counters for the metrics follow what is stored.
func TestProducedIsCounted(t *testing.T) {
	g := newRig(t)
	g.topic("events", 1)
	c := dial(t, g.addr)
	b := batch(t, "a", "b")
	ask[*kmsg.ProduceResponse](c, put("events", 0, -1, b))
	ask[*kmsg.ProduceResponse](c, put("nowhere", 0, -1, b))
	c.readAll("events", 0)
	st := g.broker.Stats()
	if st.BytesIn != int64(len(b)) || st.RecordsIn != 2 || st.BytesOut != int64(len(b)) {
		t.Errorf("%+v, want %d bytes", st, len(b))
	}
	if st.Requests["Produce"] != 2 || st.Requests["Fetch"] != 1 {
		t.Errorf("requests %v", st.Requests)
	}
}
