package broker

import (
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/quota"
	"github.com/leatstream/leat/internal/vfs"
)

// serve runs the benchmark over the loopback: one iteration sends the requests with
// one write and reads all answers. The client allocates nothing.
func (g *rig) serve(b *testing.B, reqs ...kmsg.Request) {
	b.Helper()
	var block []byte
	for i, r := range reqs {
		block = append(block, kmsg.NewRequestFormatter(kmsg.FormatterClientID("bench")).AppendRequest(nil, r, int32(i))...)
	}
	c := dial(b, g.addr)
	c.send(reqs...)
	size := 0
	for range reqs {
		body, err := c.frame()
		if err != nil {
			b.Fatal(err)
		}
		size += 8 + len(body)
	}
	answers := make([]byte, size) // every round's answers are as long
	if err := c.c.SetReadDeadline(time.Time{}); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(block) + size))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.c.Write(block); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c.c, answers); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(reqs)), "ns/request")
}

// BenchmarkProduce measures produce requests from the connection's buffer to the page cache
// (flush=100000) or the disk (flush=1), and back.
func BenchmarkProduce(b *testing.B) {
	for _, tc := range []struct {
		flush, size, requests, partitions int
	}{
		{100_000, 1 << 10, 1, 1},
		{100_000, 1 << 10, 64, 1},
		{100_000, 16 << 10, 16, 1},
		{100_000, 1 << 20, 1, 1},
		{100_000, 1 << 10, 1, 500},
		{1, 1 << 10, 1, 1},
		{1, 16 << 10, 16, 1},
		{1, 1 << 10, 1, 500},
	} {
		b.Run(fmt.Sprintf("flush=%d/size=%d/requests=%d/partitions=%d", tc.flush, tc.size, tc.requests, tc.partitions), func(b *testing.B) {
			g := newRigOn(b, vfs.OS{}, b.TempDir())
			g.topic("events", tc.partitions, "flush.messages", fmt.Sprint(tc.flush), "retention.bytes", "100000000", "segment.bytes", "50000000")
			rec := batch(b, string(make([]byte, tc.size-80)))
			req := put("events", 0, -1, rec)
			for i := 1; i < tc.partitions; i++ {
				addPart(req, "events", int32(i), rec)
			}
			reqs := make([]kmsg.Request, tc.requests)
			for i := range reqs {
				reqs[i] = req
			}
			g.serve(b, reqs...)
		})
	}
}

// BenchmarkFetch measures fetch requests: small answers from the tail, large ones, and those
// of 500 partitions, of which each has a batch, or none.
func BenchmarkFetch(b *testing.B) {
	for _, tc := range []struct {
		name                      string
		size, batches, partitions int
	}{
		{"1KiB", 1 << 10, 1, 1},
		{"64KiB", 16 << 10, 4, 1},
		{"1MiB", 16 << 10, 64, 1},
		{"500x1KiB", 1 << 10, 1, 500},
		{"500xEmpty", 0, 0, 500},
	} {
		b.Run(tc.name, func(b *testing.B) {
			g := newRigOn(b, vfs.OS{}, b.TempDir())
			g.topic("events", tc.partitions, "flush.messages", "100000")
			c := dial(b, g.addr)
			req := get("events", 0, 0)
			req.MaxBytes = 2 << 20
			for i := range tc.partitions {
				if i > 0 {
					wantPart(req, "events", int32(i), 0)
				}
				for range tc.batches {
					ask[*kmsg.ProduceResponse](c, put("events", int32(i), 1, batch(b, string(make([]byte, tc.size-80)))))
				}
			}
			g.serve(b, req)
		})
	}
}

// BenchmarkAuthorisedProduce measures what a produce request costs with an authorizer that has allowed its topic before, beside one
// without an authorizer.
func BenchmarkAuthorisedProduce(b *testing.B) {
	for _, isOn := range []bool{false, true} {
		b.Run(fmt.Sprint("authorizer=", isOn), func(b *testing.B) {
			g := newRig(b, func(c *Config) {
				if isOn {
					c.Authorizer, _ = auth.New(auth.Config{Image: c.Image})
				}
			})
			g.apply(meta.LevelSet{Level: meta.LatestLevel})
			g.topic("t", 1, "flush.messages", "100000", "retention.bytes", "1048576")
			g.allow(meta.Write, meta.TopicResource, "t")
			reqs := make([]kmsg.Request, 64)
			for i := range reqs {
				reqs[i] = put("t", 0, 1, batch(b, string(make([]byte, 100))))
			}
			g.serve(b, reqs...)
		})
	}
}

// BenchmarkQuotas measures what requests cost whose client has quotas that it keeps to, beside those without quotas.
func BenchmarkQuotas(b *testing.B) {
	for _, isOn := range []bool{false, true} {
		limiter := func(c *Config) {
			c.Quotas = quota.New(quota.Config{})
			if isOn {
				setQuotas(c.Quotas, map[meta.QuotaKey]float64{meta.ProducerByteRate: 1e15, meta.ConsumerByteRate: 1e15, meta.RequestPercentage: 1e9})
			}
		}
		b.Run(fmt.Sprint("produce/quotas=", isOn), func(b *testing.B) {
			g := newRig(b, limiter)
			g.topic("t", 1, "flush.messages", "100000", "retention.bytes", "1048576")
			reqs := make([]kmsg.Request, 64)
			for i := range reqs {
				reqs[i] = put("t", 0, 1, batch(b, string(make([]byte, 100))))
			}
			g.serve(b, reqs...)
		})
		b.Run(fmt.Sprint("fetch/quotas=", isOn), func(b *testing.B) {
			g := newRigOn(b, vfs.OS{}, b.TempDir(), limiter)
			g.topic("t", 1, "flush.messages", "100000")
			ask[*kmsg.ProduceResponse](dial(b, g.addr), put("t", 0, 1, batch(b, string(make([]byte, 1000)))))
			g.serve(b, get("t", 0, 0))
		})
	}
}
