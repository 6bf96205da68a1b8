package wire

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// funcs makes a Handler of functions; nil ones do nothing.
type funcs struct {
	open  func(c *Conn)
	serve func(r *Request) error
	flush func()
	done  func()
}

func (f *funcs) Open(c *Conn) Session {
	if f.open != nil {
		f.open(c)
	}
	return f
}

func (f *funcs) Serve(r *Request) error { return f.serve(r) }

func (f *funcs) Flush() {
	if f.flush != nil {
		f.flush()
	}
}

func (f *funcs) Close() {
	if f.done != nil {
		f.done()
	}
}

// echo answers every request with its body.
func echo(r *Request) error {
	p := r.Begin()
	p.B = append(p.B, r.Body()...)
	r.Send(p)
	return nil
}

// logLines collects what a server logs.
type logLines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logLines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logLines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// start serves h on a port of its own and returns the address.
func start(tb testing.TB, cfg Config, h Handler) (*Server, string) {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	s := NewServer(cfg, h)
	done := make(chan error, 1)
	go func() { done <- s.Serve(&Listener{Listener: l, TLS: overTLS}) }()
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			tb.Errorf("Shutdown: %v", err)
		}
		if err := <-done; err != nil {
			tb.Errorf("Serve: %v", err)
		}
	})
	return s, l.Addr().String()
}

// client is the other end of a connection.
type client struct {
	tb testing.TB
	net.Conn
}

func dial(tb testing.TB, addr string) *client {
	tb.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(time.Minute))
	if overTLS != nil {
		return &client{tb, tls.Client(nc, clientTLS())}
	}
	return &client{tb, nc}
}

// frame is a request in the oldest form of header.
func frame(key, version int16, id int32, body string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(8+2+4+len(body)))
	b = binary.BigEndian.AppendUint16(b, uint16(key))
	b = binary.BigEndian.AppendUint16(b, uint16(version))
	b = binary.BigEndian.AppendUint32(b, uint32(id))
	b = append(b, 0, 4, 't', 'e', 's', 't')
	return append(b, body...)
}

func (c *client) send(b ...[]byte) {
	c.tb.Helper()
	for _, b := range b {
		if _, err := c.Write(b); err != nil {
			c.tb.Fatalf("write: %v", err)
		}
	}
}

func (c *client) receive() (id int32, body string) {
	c.tb.Helper()
	id, body, err := c.tryReceive()
	if err != nil {
		c.tb.Fatalf("read an answer: %v", err)
	}
	return id, body
}

func (c *client) tryReceive() (int32, string, error) {
	var head [4]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return 0, "", err
	}
	b := make([]byte, binary.BigEndian.Uint32(head[:]))
	if _, err := io.ReadFull(c, b); err != nil {
		return 0, "", err
	}
	return int32(binary.BigEndian.Uint32(b)), string(b[4:]), nil
}

// awaitClosed waits until the server has closed the connection.
func (c *client) awaitClosed() {
	c.tb.Helper()
	n, err := io.Copy(io.Discard, c)
	if n > 0 || errors.Is(err, context.DeadlineExceeded) {
		c.tb.Fatalf("got %d bytes (%v), want a closed connection", n, err)
	}
}

// eventually waits for a condition.
func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			tb.Fatalf("not in 30 seconds: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// TestEcho proves that pipelined requests of all sizes are answered in order,
// however the client cuts them.
func TestEcho(t *testing.T) {
	var flushes atomic.Int64
	_, addr := start(t, Config{}, &funcs{serve: echo, flush: func() { flushes.Add(1) }})
	c := dial(t, addr)
	sizes := []int{0, 1, 100, 5000, 70_000, 300_000, 3_000_000, 17}
	go func() {
		var all []byte
		for i, n := range sizes {
			all = append(all, frame(0, 0, int32(i), strings.Repeat("x", n))...)
		}
		for i := 0; len(all) > 0; i++ {
			n := min(len(all), 1+i*i*7)
			c.send(all[:n])
			all = all[n:]
		}
	}()
	for i, n := range sizes {
		if id, body := c.receive(); id != int32(i) || len(body) != n {
			t.Fatalf("answer %d has id %d and %d bytes, want %d", i, id, len(body), n)
		}
	}
	if flushes.Load() == 0 {
		t.Error("Flush was not called")
	}
}

// TestDecodeAndReply proves that a request which kmsg encodes is decoded, and its reply is
// readable to kmsg, in flexible versions and others.
func TestDecodeAndReply(t *testing.T) {
	_, addr := start(t, Config{}, &funcs{serve: func(r *Request) error {
		req, err := r.Decode()
		if err != nil {
			return err
		}
		m, _ := req.(*kmsg.MetadataRequest)
		resp := kmsg.NewPtrMetadataResponse()
		for _, topic := range m.Topics {
			tr := kmsg.NewMetadataResponseTopic()
			tr.Topic = topic.Topic
			resp.Topics = append(resp.Topics, tr)
		}
		r.Reply(resp)
		return nil
	}})
	for version := range kmsg.NewPtrMetadataRequest().MaxVersion() + 1 {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			c := dial(t, addr)
			req := kmsg.NewPtrMetadataRequest()
			req.SetVersion(version)
			topic := kmsg.NewMetadataRequestTopic()
			topic.Topic = new("orders")
			req.Topics = append(req.Topics, topic)
			c.send(kmsg.NewRequestFormatter(kmsg.FormatterClientID("me")).AppendRequest(nil, req, 7))
			id, body := c.receive()
			resp := req.ResponseKind()
			resp.SetVersion(version)
			if resp.IsFlexible() {
				body = body[1:]
			}
			if err := resp.ReadFrom([]byte(body)); err != nil || id != 7 {
				t.Fatalf("id %d, error %v", id, err)
			}
			if m, _ := resp.(*kmsg.MetadataResponse); len(m.Topics) != 1 || *m.Topics[0].Topic != "orders" {
				t.Fatalf("got %+v", m)
			}
		})
	}
}
