package bench

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/bench/client"
	"github.com/leatstream/leat/internal/bench/process"
	"github.com/leatstream/leat/internal/record"
)

// startFake starts brokers of another project.
func startFake(t *testing.T, brokers int, opts ...kfake.Opt) (*kfake.Cluster, Options) {
	t.Helper()
	c, err := kfake.NewCluster(append(opts, kfake.NumBrokers(brokers), kfake.SleepOutOfOrder())...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	o := Defaults()
	o.Brokers, o.Topic, o.Duration = c.ListenAddrs(), "bench", time.Minute
	return c, o
}

// makeTopic makes the topic of the options.
func makeTopic(t *testing.T, o *Options) {
	t.Helper()
	if err := MakeTopic(t.Context(), o); err != nil {
		t.Fatal(err)
	}
}

func ends(t *testing.T, o *Options) (sum int64) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(o.Brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	offsets, err := kadm.NewClient(cl).ListEndOffsets(t.Context(), o.Topic)
	if err != nil {
		t.Fatal(err)
	}
	offsets.Each(func(l kadm.ListedOffset) { sum += l.Offset })
	return sum
}

// TestProduceConsume proves, for many kinds of load, that as many records arrive as are
// reported, that an ordinary client can read them, and that Consume counts each of them once.
func TestProduceConsume(t *testing.T) {
	for name, set := range map[string]func(o *Options){
		"default":           func(*Options) {},
		"single records":    func(o *Options) { o.Batch, o.Size, o.InFlight = 1, 10, 100 },
		"one by one":        func(o *Options) { o.WriteBytes, o.InFlight = 0, 1 },
		"large":             func(o *Options) { o.Batch, o.Size = 100, 4000 },
		"acks 1":            func(o *Options) { o.Acks = "1" },
		"partitions":        func(o *Options) { o.Partitions = 7 },
		"few connections":   func(o *Options) { o.Partitions, o.Connections = 7, 3 },
		"many connections":  func(o *Options) { o.Partitions, o.Connections = 2, 9 },
		"one in flight":     func(o *Options) { o.Partitions, o.Connections, o.InFlight = 5, 1, 1 },
		"zstd":              func(o *Options) { o.Compression = "zstd" },
		"small fetches":     func(o *Options) { o.FetchBytes = 20_000 },
		"fewer than a lane": func(o *Options) { o.Records, o.Partitions = 20, 5 },
	} {
		t.Run(name, func(t *testing.T) {
			_, o := startFake(t, 3)
			o.Records = 5000
			set(&o)
			makeTopic(t, &o)
			r, err := Produce(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			want := (o.Records + int64(o.Batch) - 1) / int64(o.Batch) * int64(o.Batch)
			if got := ends(t, &o); r.Records != want || got != want || r.Requests != want/int64(o.Batch) {
				t.Fatalf("%d reported in %d requests, %d arrived, %d wanted", r.Records, r.Requests, got, want)
			}
			c, err := Consume(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			if c.Records != want || o.Compression == "none" && c.Bytes != r.Bytes {
				t.Errorf("consumed %d of %d records, %d of %d bytes", c.Records, want, c.Bytes, r.Bytes)
			}
			readBack(t, &o, want)
			if text := r.Text() + c.Text(); !strings.Contains(text, "records/s") {
				t.Error(text)
			}
		})
	}
}

// readBack reads the topic with an ordinary client, which checks every checksum.
func readBack(t *testing.T, o *Options, want int64) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(o.Brokers...), kgo.ConsumeTopics(o.Topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for got := int64(0); got < want; {
		fetches := cl.PollFetches(t.Context())
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if got++; len(r.Value) != o.Size {
				t.Fatalf("a value of %d bytes", len(r.Value))
			}
		})
	}
}

// TestAcks0 proves that a run without acknowledgements ends, and that its records arrive.
func TestAcks0(t *testing.T) {
	_, o := startFake(t, 1)
	o.Acks, o.Records = "0", 1600
	makeTopic(t, &o)
	r, err := Produce(t.Context(), o)
	if err != nil || r.Records != 1600 {
		t.Fatal(r, err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for ends(t, &o) < 1600 {
		if time.Now().After(deadline) {
			t.Fatal("they do not arrive")
		}
	}
}

// TestConsumeMixed proves that batches of many shapes, one after another in one partition, are
// counted correctly, although Consume skips batches that it expects to be alike.
func TestConsumeMixed(t *testing.T) {
	_, o := startFake(t, 1)
	makeTopic(t, &o)
	var records, bytes int64
	for i, shape := range []struct{ batch, size, records int }{
		{16, 100, 1600}, {16, 99, 160}, {1, 10, 50}, {7, 100, 700}, {16, 100, 1600}, {1, 3000, 40}, {16, 100, 16},
	} {
		p := o
		p.Batch, p.Size, p.Records = shape.batch, shape.size, int64(shape.records)
		p.InFlight = 1 + i
		r, err := Produce(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		records, bytes = records+r.Records, bytes+r.Bytes
	}
	for _, fetch := range []int{4000, 10_000, 33_333, 1 << 20} {
		c := o
		c.FetchBytes, c.Passes = fetch, 3
		r, err := Consume(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if r.Records != 3*records || r.Bytes != 3*bytes {
			t.Errorf("fetches of %d: %d records, %d bytes; expected %d and %d", fetch, r.Records, r.Bytes, 3*records, 3*bytes)
		}
	}
}

// TestLatency proves that every record of a timed run is matched with its acknowledgement and
// its arrival, even if the topic has other records.
func TestLatency(t *testing.T) {
	_, o := startFake(t, 1)
	o.Records = 160
	makeTopic(t, &o)
	if _, err := Produce(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	o.Duration, o.Rate, o.Size = 200*time.Millisecond, 500, 50
	r, err := Latency(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	for name, q := range map[string]*Quantiles{"ack": r.Ack, "end to end": r.EndToEnd, "late": r.SenderLate} {
		if q == nil || q.Count != 100 || q.P50 <= 0 || q.P50 > q.P99 || q.P99 > q.Max {
			t.Errorf("%s: %+v", name, q)
		}
	}
	if !strings.Contains(r.Text(), "end to end, p99.9") {
		t.Error(r.Text())
	}
}

// TestRefusals proves that a request which the broker refuses ends a run with its reason.
func TestRefusals(t *testing.T) {
	cluster, o := startFake(t, 1)
	o.Records = 160
	for name, run := range map[string]func(context.Context, Options) (*Result, error){"produce": Produce, "consume": Consume, "latency": Latency} {
		if _, err := run(t.Context(), o); !errors.Is(err, kerr.UnknownTopicOrPartition) {
			t.Errorf("%s: a missing topic: %v", name, err)
		}
	}
	makeTopic(t, &o)
	if err := MakeTopic(t.Context(), &o); !errors.Is(err, kerr.TopicAlreadyExists) {
		t.Errorf("a topic that is there was made: %v", err)
	}
	if _, err := Consume(t.Context(), o); !errors.Is(err, ErrEmpty) {
		t.Errorf("an empty topic: %v", err)
	}
	if _, err := Produce(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	more := o
	more.Partitions = 5
	if _, err := Produce(t.Context(), more); err == nil || !strings.Contains(err.Error(), "has 1 partition: use --partitions 1") {
		t.Errorf("too many partitions: %v", err)
	}
	cluster.ControlKey(kmsg.Produce.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
		resp := req.ResponseKind().(*kmsg.ProduceResponse)
		rt := kmsg.NewProduceResponseTopic()
		rt.Topic = o.Topic
		rp := kmsg.NewProduceResponseTopicPartition()
		rp.ErrorCode = kerr.MessageTooLarge.Code
		rt.Partitions = append(rt.Partitions, rp)
		resp.Topics = append(resp.Topics, rt)
		return resp, nil, true
	})
	if _, err := Produce(t.Context(), o); !errors.Is(err, kerr.MessageTooLarge) {
		t.Errorf("refused records: %v", err)
	}
	cluster.ControlKey(kmsg.Fetch.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
		resp := req.ResponseKind().(*kmsg.FetchResponse)
		resp.ErrorCode = kerr.TopicAuthorizationFailed.Code
		return resp, nil, true
	})
	if _, err := Consume(t.Context(), o); !errors.Is(err, kerr.TopicAuthorizationFailed) {
		t.Errorf("a refused fetch: %v", err)
	}
	cluster.Close()
	if _, err := Produce(t.Context(), o); !errors.Is(err, client.ErrNoBroker) {
		t.Errorf("no broker: %v", err)
	}
}

// TestCancel proves that a run ends when its context does, even if it waits for an answer.
func TestCancel(t *testing.T) {
	cluster, o := startFake(t, 1)
	makeTopic(t, &o)
	ctx, cancel := context.WithCancel(t.Context())
	cluster.ControlKey(kmsg.Produce.Int16(), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		cancel()
		return nil, nil, false
	})
	if _, err := Produce(ctx, o); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestLanes proves that every partition has a connection to its leader, with any number of
// connections.
func TestLanes(t *testing.T) {
	l := &client.Layout{Leaders: []string{"a", "b", "a", "a", "c"}}
	for n, want := range map[int]int{0: 5, 1: 3, 3: 3, 5: 5, 20: 20} {
		all := planLanes(l, n)
		if len(all) != want {
			t.Errorf("%d connections wanted, %d made", want, len(all))
		}
		seen := map[int32]bool{}
		for _, lane := range all {
			if len(lane.partitions) == 0 {
				t.Errorf("%d connections: one has no work", n)
			}
			for _, p := range lane.partitions {
				if seen[p] = true; l.Leaders[p] != lane.addr {
					t.Errorf("partition %d is led by %s, asked of %s", p, l.Leaders[p], lane.addr)
				}
			}
		}
		if len(seen) != len(l.Leaders) {
			t.Errorf("%d connections serve %d partitions", n, len(seen))
		}
	}
}

// TestVersions proves that answers are decoded correctly in every version that is used, and
// that an answer which is cut short is refused.
func TestVersions(t *testing.T) {
	batch, err := MakeBatch(record.None, 3, 10, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	for v := int16(ProduceLow); v <= ProduceHigh; v++ {
		resp := kmsg.NewPtrProduceResponse()
		resp.SetVersion(v)
		rt := kmsg.NewProduceResponseTopic()
		rt.Topic = "topic"
		rt.Partitions = append(rt.Partitions, kmsg.NewProduceResponseTopicPartition())
		resp.Topics = append(resp.Topics, rt)
		b := resp.AppendTo(make([]byte, 4)) // the request's number
		if err := ProduceError(v, b); err != nil || len(b)+4 != produceAnswerLen(v, "topic", 1) {
			t.Errorf("produce %d: %v; %d bytes, expected %d", v, err, len(b)+4, produceAnswerLen(v, "topic", 1))
		}
		resp.Topics[0].Partitions[0].ErrorCode = kerr.InvalidTimestamp.Code
		if err := ProduceError(v, resp.AppendTo(make([]byte, 4))); !errors.Is(err, kerr.InvalidTimestamp) {
			t.Errorf("produce %d: %v", v, err)
		}
		for n := range 20 {
			if err := ProduceError(v, b[:n]); !errors.Is(err, ErrShort) {
				t.Errorf("produce %d, %d bytes: %v", v, n, err)
			}
		}
	}
	for v := int16(fetchLow); v <= fetchHigh; v++ {
		resp := kmsg.NewPtrFetchResponse()
		resp.SetVersion(v)
		rt := kmsg.NewFetchResponseTopic()
		rt.Topic = "topic"
		rp := kmsg.NewFetchResponseTopicPartition()
		rp.HighWatermark, rp.RecordBatches = 77, batch
		rt.Partitions = append(rt.Partitions, rp)
		resp.Topics = append(resp.Topics, rt)
		b := resp.AppendTo(make([]byte, 8))
		be.PutUint32(b, uint32(len(b)-4))
		head := fetchHeadLen(v, "topic")
		h, err := parseFetchHead(v, b[:head])
		if diff := cmp.Diff(fetchHead{size: len(b), end: 77, records: len(batch)}, h, cmp.AllowUnexported(h)); diff != "" || err != nil {
			t.Errorf("fetch %d: %v %s", v, err, diff)
		}
		if string(b[head:]) != string(batch) {
			t.Errorf("fetch %d: the head is not %d bytes long", v, head)
		}
		for n := 12; n < head; n++ {
			if _, err := parseFetchHead(v, b[:n]); !errors.Is(err, ErrShort) {
				t.Errorf("fetch %d, %d bytes: %v", v, n, err)
			}
		}
	}
}

// TestFetchTemplate proves that kmsg decodes the patched request to the fields that were asked for.
func TestFetchTemplate(t *testing.T) {
	for v := int16(fetchLow); v <= fetchHigh; v++ {
		b := newFetchTemplate(v, "topic", 5, 1000).at(123456789)
		req := kmsg.NewPtrFetchRequest()
		req.SetVersion(v)
		if err := req.ReadFrom(b[4+8+2+len(client.ID):]); err != nil {
			t.Fatal(err)
		}
		if p := req.Topics[0].Partitions[0]; p.FetchOffset != 123456789 || p.Partition != 5 || p.PartitionMaxBytes != 1000 {
			t.Errorf("version %d: %+v", v, p)
		}
	}
}

// TestQuantiles proves that the quantiles of a set with known ranks are right.
func TestQuantiles(t *testing.T) {
	var d []time.Duration
	for i := 10_000; i > 0; i-- {
		d = append(d, time.Duration(i)*time.Microsecond)
	}
	want := &Quantiles{Count: 10_000, P50: 5000, P90: 9000, P99: 9900, P999: 9990, Max: 10_000}
	if diff := cmp.Diff(want, NewQuantiles(d)); diff != "" {
		t.Error(diff)
	}
}

// TestCompare proves that two results which were written to files are compared metric by
// metric, with the settings in which they differ, and that other files are refused.
func TestCompare(t *testing.T) {
	a := Result{Kind: "produce", Options: Defaults(), Seconds: 10, Records: 1e6, Bytes: 1e9, Requests: 1e5, ClientCPU: 1, Server: &process.Usage{CPU: 4}}
	b := a
	b.Seconds, b.Server, b.Options.Acks = 5, &process.Usage{CPU: 5}, "1"
	dir := t.TempDir()
	var names []string
	for i, r := range []Result{a, b, {Kind: "latency"}} {
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, filepath.Join(dir, string(rune('a'+i))))
		if err := os.WriteFile(names[i], text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(before, after string) (string, error) {
		b, err := LoadResult(before)
		if err != nil {
			return "", err
		}
		a, err := LoadResult(after)
		if err != nil {
			return "", err
		}
		var out strings.Builder
		err = Compare(&out, b, a)
		return out.String(), err
	}
	got, err := run(names[0], names[1])
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"note: the runs differ in acks (all and 1)", "throughput 100 MB/s 200 MB/s x 2.00 better",
		"server CPU, s/GB 4.00 5.00 x 1.25 worse", "client CPU, s/GB 1.00 1.00 x 1.00 client",
	} {
		if !strings.Contains(strings.Join(strings.Fields(got), " "), want) {
			t.Errorf("%q is missing in\n%s", want, got)
		}
	}
	if _, err := run(names[0], names[2]); err == nil {
		t.Error("a produce run was compared with a latency run")
	}
	if err := os.WriteFile(names[2], []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := run(names[0], names[2]); err == nil || !strings.Contains(err.Error(), "is not a result") {
		t.Errorf("a file that is no result: %v", err)
	}
}

// TestOptions proves that bad settings are refused before a broker is dialled.
func TestOptions(t *testing.T) {
	type run = func(context.Context, Options) (*Result, error)
	for name, test := range map[string]struct {
		run run
		set func(o *Options)
	}{
		"acks":           {Produce, func(o *Options) { o.Acks = "2" }},
		"batch":          {Produce, func(o *Options) { o.Batch = 0 }},
		"compression":    {Produce, func(o *Options) { o.Compression = "rar" }},
		"config":         {Produce, func(o *Options) { o.Configs = []string{"retention"} }},
		"rate":           {Latency, func(o *Options) { o.Rate = 0 }},
		"brokers":        {Produce, func(o *Options) { o.Brokers = nil }},
		"passes":         {Consume, func(o *Options) { o.Passes = -1 }},
		"size":           {Latency, func(o *Options) { o.Size = 8 }},
		"write bytes":    {Produce, func(o *Options) { o.WriteBytes = -1 }},
		"negative time":  {Consume, func(o *Options) { o.Duration = -1 }},
		"endless":        {Produce, func(o *Options) { o.Duration = 0 }},
		"endless passes": {Consume, func(o *Options) { o.Passes, o.Duration = 0, 0 }},
		"endless timing": {Latency, func(o *Options) { o.Duration = 0 }},
		"too many":       {Latency, func(o *Options) { o.Rate, o.Duration = 1_000_000, time.Hour }},
	} {
		o := Defaults()
		o.Brokers, o.Topic = []string{"127.0.0.1:1"}, "bench"
		test.set(&o)
		var refused *OptionError
		if _, err := test.run(t.Context(), o); !errors.As(err, &refused) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestShareRequests proves that the lanes together send all records once, even if they cannot
// be shared evenly.
func TestShareRequests(t *testing.T) {
	for _, test := range []struct {
		records           int64
		batch, perRequest int
		partitions        int
		want              []int64
	}{
		{23, 1, 1, 1, []int64{12, 11}},
		{1, 16, 1, 1, []int64{1, 0}},
		{33, 16, 0, 1, []int64{2, 1}},
		{100, 1, 10, 10, []int64{5, 5}},
		{100, 1, 500, 10, []int64{5, 5}}, // a request has no more partitions than its lane
		{0, 1, 1, 1, []int64{unlimited, unlimited}},
	} {
		all := []*lane{{partitions: make([]int32, test.partitions)}, {partitions: make([]int32, test.partitions)}}
		o := &Options{Records: test.records, Batch: test.batch, PerRequest: test.perRequest}
		if diff := cmp.Diff(test.want, shareRequests(o, all)); diff != "" {
			t.Errorf("%+v: %s", test, diff)
		}
	}
}

// FuzzAnswers proves that no answer makes a decoder of answers panic.
func FuzzAnswers(f *testing.F) {
	f.Add(make([]byte, 100), int16(11))
	f.Fuzz(func(_ *testing.T, b []byte, version int16) {
		_ = ProduceError(version, b)
		if len(b) >= 12 {
			_, _ = parseFetchHead(version, b)
		}
		var alike shape
		_, _ = (&reader{}).countBatches(b, 0, &alike)
	})
}
