package broker

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/vfs"
	"github.com/leatstream/leat/internal/wire"
)

// feed is a connection that brings the same requests with each read of the
// benchmark's loop, and takes answers for nothing: what is measured is the server.
type feed struct {
	net.Conn
	b       *testing.B
	request []byte // all that one read brings
	pos     int
	out     int64
}

func (f *feed) Read(p []byte) (int, error) {
	if f.pos == 0 && !f.b.Loop() {
		return 0, io.EOF
	}
	n := copy(p, f.request[f.pos:])
	f.pos = (f.pos + n) % len(f.request)
	return n, nil
}

func (f *feed) Write(p []byte) (int, error) {
	f.out += int64(len(p))
	return len(p), nil
}

func (*feed) Close() error                     { return nil }
func (*feed) LocalAddr() net.Addr              { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9092} }
func (*feed) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 5} }
func (*feed) SetDeadline(time.Time) error      { return nil }
func (*feed) SetReadDeadline(time.Time) error  { return nil }
func (*feed) SetWriteDeadline(time.Time) error { return nil }

// serve runs the benchmark: one iteration is a read that brings the requests.
func (g *rig) serve(b *testing.B, reqs ...kmsg.Request) {
	b.Helper()
	f := &feed{b: b}
	for i, r := range reqs {
		f.request = append(f.request, kmsg.NewRequestFormatter(kmsg.FormatterClientID("bench")).AppendRequest(nil, r, int32(i))...)
	}
	b.SetBytes(int64(len(f.request)))
	b.ReportAllocs()
	server := wire.NewServer(wire.Config{Logger: slog.New(slog.DiscardHandler)}, g.broker)
	server.ServeConn(f)
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(reqs)), "ns/request")
	if f.out == 0 {
		b.Fatal("nothing was answered")
	}
}

// BenchmarkProduce is the way of produce requests from the connection's buffer to the
// page cache (flush=100000) or the disk (flush=1), and back.
func BenchmarkProduce(b *testing.B) {
	for _, tc := range []struct {
		flush, size, requests, partitions int
	}{
		{100_000, 1 << 10, 1, 1}, {100_000, 1 << 10, 64, 1}, {100_000, 16 << 10, 16, 1}, {100_000, 1 << 20, 1, 1},
		{100_000, 1 << 10, 1, 500}, {1, 1 << 10, 1, 1}, {1, 16 << 10, 16, 1}, {1, 1 << 10, 1, 500},
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

// BenchmarkFetch is the way of fetch requests: small answers from the tail, large ones,
// and one over 500 partitions of which each has a batch, or none.
func BenchmarkFetch(b *testing.B) {
	for _, tc := range []struct {
		name                      string
		size, batches, partitions int
	}{
		{"1KiB", 1 << 10, 1, 1}, {"64KiB", 16 << 10, 4, 1}, {"1MiB", 16 << 10, 64, 1},
		{"500x1KiB", 1 << 10, 1, 500}, {"500xEmpty", 0, 0, 500},
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
