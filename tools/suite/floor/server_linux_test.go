package main

import (
	"context"
	"fmt"
	"net"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestClient proves, for every way to store and serve, that an ordinary client
// gets back what it produced, in order.
func TestClient(t *testing.T) {
	for _, cfg := range []config{
		{serve: "pread", io: "poll"},
		{serve: "sendfile", io: "poll"},
		{serve: "pread", io: "thread"},
		{serve: "auto", io: "thread", sync: true},
		{serve: "auto", io: "thread", journal: 16},
		{serve: "sendfile", io: "thread", recycle: true, allocate: true},
	} {
		t.Run(fmt.Sprintf("%+v", cfg), func(t *testing.T) {
			cfg.dir, cfg.store, cfg.ring, cfg.buffer = t.TempDir(), "file", 16, 64
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			s := &server{cfg: &cfg, port: int32(l.Addr().(*net.TCPAddr).Port)}
			if err := s.begin(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- s.accept(l) }()
			exchange(t, l.Addr().String())
			l.Close()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

func exchange(t *testing.T, addr string) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.DisableIdempotentWrite(), kgo.ConsumeTopics("t"),
		kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	req := kmsg.NewPtrCreateTopicsRequest()
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = "t", 1, 1
	req.Topics = append(req.Topics, topic)
	if _, err := req.RequestWith(t.Context(), cl); err != nil {
		t.Fatal(err)
	}
	const n = 1000
	for i := range n {
		r := &kgo.Record{Topic: "t", Value: fmt.Appendf(nil, "record %d", i)}
		if i%100 == 0 {
			if err := cl.ProduceSync(context.Background(), r).FirstErr(); err != nil {
				t.Fatal(err)
			}
			continue
		}
		cl.Produce(t.Context(), r, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Error(err)
			}
		})
	}
	if err := cl.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < n; {
		fetches := cl.PollFetches(t.Context())
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if want := fmt.Sprintf("record %d", i); string(r.Value) != want || r.Offset != int64(i) {
				t.Fatalf("offset %d is %q, expected %q", r.Offset, r.Value, want)
			}
			i++
		})
	}
}
