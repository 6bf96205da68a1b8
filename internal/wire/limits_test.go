package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/budget"
)

// announce is the beginning of a frame that announces n bytes.
func announce(n int, have ...byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(n)), have...)
}

// TestHalfSent proves that 60 connections which announce 100 MB each and send 1 KB
// cost what has come, not what was announced.
func TestHalfSent(t *testing.T) {
	s, addr := start(t, Config{}, &funcs{serve: echo})
	before := heap()
	for range 60 {
		c := dial(t, addr)
		c.send(announce(100_000_000, make([]byte, 1000)...))
	}
	eventually(t, "all has come", func() bool { return s.Stats().BytesIn.Load() == 60*1004 })
	eventually(t, "the buffers shrink", func() bool { return s.Stats().RequestMemory() <= 60*4096 })
	if grown := heap() - before; grown > 4<<20 {
		t.Errorf("they take %d KiB", grown>>10)
	}
	c := dial(t, addr)
	c.send(frame(0, 0, 1, "small"))
	c.receive()
}

// TestBufferGrowth proves that a large frame never takes more than twice what has come,
// and that its memory is given back when it was served.
func TestBufferGrowth(t *testing.T) {
	const size = 20 << 20
	s, addr := start(t, Config{}, &funcs{serve: echo})
	c := dial(t, addr)
	all := frame(0, 0, 1, strings.Repeat("g", size))
	sent := int64(0)
	for len(all) > 0 {
		n := min(len(all), 700_001)
		c.send(all[:n])
		all = all[n:]
		sent += int64(n)
		eventually(t, "it has come", func() bool { return s.Stats().BytesIn.Load() == sent })
		if used := s.Stats().RequestMemory(); used > max(2*sent, 64<<10) && len(all) > 0 {
			t.Fatalf("%d bytes are used for %d that have come", used, sent)
		}
	}
	if _, body := c.receive(); len(body) != size {
		t.Fatalf("got %d bytes", len(body))
	}
	eventually(t, "the memory is given back", func() bool { return s.Stats().RequestMemory() == 0 })
}

// TestMemoryExhausted proves that large requests which together do not fit wait
// for each other and are served in the end, that small ones are served meanwhile,
// and that one is given up where nothing else helps.
func TestMemoryExhausted(t *testing.T) {
	const limit = 16 << 20
	var log logLines
	s, addr := start(t, Config{MaxFrame: 8 << 20, RequestMemory: limit, IdleTimeout: time.Second, Logger: log.logger()}, &funcs{serve: echo})
	big := frame(0, 0, 1, strings.Repeat("b", 8<<20-100))
	const clients = 6
	var ok, lost atomic.Int64
	for range clients {
		c := dial(t, addr)
		half := len(big) * 2 / 3
		go func() { // all of them block in this write when memory is short
			if _, err := c.Write(big[:half]); err != nil {
				lost.Add(1)
				return
			}
			if _, err := c.Write(big[half:]); err != nil {
				lost.Add(1)
				return
			}
			if _, _, err := c.tryReceive(); err != nil {
				lost.Add(1)
				return
			}
			ok.Add(1)
		}()
	}
	for ok.Load()+lost.Load() < clients {
		c := dial(t, addr)
		c.send(frame(0, 0, 2, "small"))
		c.receive()
		c.Close()
		if used := s.Stats().RequestMemory(); used > limit {
			t.Fatalf("%d bytes are used, of %d", used, limit)
		}
	}
	if ok.Load() == 0 {
		t.Errorf("no large request was served")
	}
	if lost.Load() > 0 && !strings.Contains(log.String(), "memory for requests is exhausted") {
		t.Errorf("%d were given up, and the log says %s", lost.Load(), log.String())
	}
}

// TestForeignProtocols proves that bytes of another protocol close the connection, with one line
// that names the protocol.
func TestForeignProtocols(t *testing.T) {
	for _, test := range []struct{ name, bytes, want string }{
		{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "a TLS handshake"},
		{"GET", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP"},
		{"POST", "POST /topics HTTP/1.1\r\n", "HTTP"},
		{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP"},
		{"PUT", "PUT /x HTTP/1.1\r\n", "HTTP"},
		{"SSH", "SSH-2.0-OpenSSH_9.2\r\n", "SSH"},
		{"zero", "\x00\x00\x00\x00", "its size is 0"},
		{"negative", "\xff\xff\xff\xff", "its size is -1"},
		{"large", "\x7f\xff\xff\xff", "the limit is 104857600"},
		{"short header", "\x00\x00\x00\x09123456789", "no room for a header"},
		{"client id", "\x00\x00\x00\x0a\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00", "client id of 256"},
		{"tags", "\x00\x00\x00\x10\x00\x12\x00\x03\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\x07\x00", "tagged fields"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var log logLines
			s, addr := start(t, Config{Logger: log.logger()}, &funcs{serve: echo})
			c := dial(t, addr)
			c.send([]byte(test.bytes))
			c.awaitClosed()
			eventually(t, "a line is logged", func() bool { return strings.Count(log.String(), "\n") == 1 })
			if !strings.Contains(log.String(), test.want) {
				t.Errorf("want %q, the log says %s", test.want, log.String())
			}
			if s.Stats().Refused.Load() != 1 {
				t.Error("it is not counted")
			}
		})
	}
}

// TestFlood proves that a flood of bad clients is not a flood of lines.
func TestFlood(t *testing.T) {
	var log logLines
	s, addr := start(t, Config{Logger: log.logger()}, &funcs{serve: echo})
	began := time.Now()
	for range 200 {
		c := dial(t, addr)
		c.send([]byte("GET / HTTP/1.1\r\n"))
		c.awaitClosed()
		c.Close()
	}
	eventually(t, "all are counted", func() bool { return s.Stats().Refused.Load() == 200 })
	if n, most := strings.Count(log.String(), "\n"), logBurst*(2+int(time.Since(began).Seconds())); n > most {
		t.Errorf("%d lines in %v", n, time.Since(began))
	}
}

// TestMaxConns proves that connections beyond the limits are closed with a line,
// that a connection which ends makes room, and that limits can be set and taken back
// while there are connections: those count, and stay.
func TestMaxConns(t *testing.T) {
	home := netip.MustParseAddr("127.0.0.1")
	for _, test := range []struct {
		limits Limits
		want   string
	}{
		{Limits{Conns: 2}, "max.connections allows"},
		{Limits{ConnsPerIP: 2}, "max.connections.per.ip allows"},
		{Limits{ConnsPerIP: 1, IPs: map[netip.Addr]int{home: 2}}, "max.connections.per.ip allows"},
		{Limits{IPs: map[netip.Addr]int{home: 2}}, "max.connections.per.ip allows"},
	} {
		var log logLines
		s, addr := start(t, Config{Logger: log.logger()}, &funcs{serve: echo})
		try := func() *client {
			c := dial(t, addr)
			c.send(frame(0, 0, 1, ""))
			return c
		}
		first, second := try(), try()
		first.receive()
		second.receive()
		s.SetLimits(test.limits)
		third := dial(t, addr)
		third.awaitClosed()
		eventually(t, "it is logged and counted", func() bool {
			return strings.Contains(log.String(), test.want) && s.Stats().TurnedAway.Load() == 1
		})
		first.Close()
		eventually(t, "the first is gone", func() bool { return s.Stats().Conns.Load() == 1 })
		try().receive()
		second.send(frame(0, 0, 1, ""))
		second.receive()
		s.SetLimits(Limits{})
		try().receive()
		s.SetLimits(Limits{Conns: 1, ConnsPerIP: 1, IPs: map[netip.Addr]int{home: 4}})
		s.SetLimits(Limits{ConnsPerIP: 4})
		try().receive()
		dial(t, addr).awaitClosed()
	}
}

// TestConnectionsHaveDescriptors proves that connections for which there is no file descriptor
// are closed, with one line for all of them that says what to raise; that one which ends
// makes room; and that max.connections may only be less.
func TestConnectionsHaveDescriptors(t *testing.T) {
	expectConnsBounded(t, Config{MaxConns: 2, MemoryConns: 5}, "LimitNOFILE")
}

// TestConnectionsHaveMemory proves the same of the number of connections for which there is memory.
func TestConnectionsHaveMemory(t *testing.T) {
	expectConnsBounded(t, Config{MaxConns: 5, MemoryConns: 2}, "GOMEMLIMIT")
	expectConnsBounded(t, Config{MemoryConns: 2}, "GOMEMLIMIT")
}

// expectConnsBounded expects that a server has two connections at most, and says once what to raise.
func expectConnsBounded(t *testing.T, cfg Config, raise string) {
	t.Helper()
	var log logLines
	cfg.Logger = log.logger()
	s, addr := start(t, cfg, &funcs{serve: echo})
	try := func() *client {
		c := dial(t, addr)
		c.send(frame(0, 0, 1, ""))
		return c
	}
	first, second := try(), try()
	first.receive()
	second.receive()
	for range 20 {
		dial(t, addr).awaitClosed()
	}
	eventually(t, "all are counted", func() bool { return s.Stats().TurnedAway.Load() == 20 })
	if n := strings.Count(log.String(), raise); n != 1 {
		t.Errorf("%d lines say what to raise, want 1: %s", n, log.String())
	}
	first.Close()
	eventually(t, "the first is gone", func() bool { return s.Stats().Conns.Load() == 1 })
	try().receive()
	for _, tc := range []struct{ limit, want int }{{0, 2}, {1, 1}, {3, 2}} {
		s.SetLimits(Limits{Conns: tc.limit})
		if got := s.MaxConns(); got != tc.want {
			t.Errorf("with max.connections=%d there may be %d, want %d", tc.limit, got, tc.want)
		}
	}
}

// TestStats proves that the counters count what they say.
func TestStats(t *testing.T) {
	s, addr := start(t, Config{}, &funcs{serve: echo})
	c := dial(t, addr)
	one, other := frame(3, 1, 0, "a"), frame(999, 0, 1, "b")
	c.send(one, other, one)
	for range 3 {
		c.receive()
	}
	st := s.Stats()
	if got, want := st.BytesIn.Load(), int64(2*len(one)+len(other)); got != want {
		t.Errorf("%d bytes came in, want %d", got, want)
	}
	eventually(t, "what went out is counted", func() bool { return st.BytesOut.Load() == 3*9 })
	if st.Requests(3) != 2 || st.Requests(999) != 1 || st.Conns.Load() != 1 || st.Accepted.Load() != 1 {
		t.Errorf("requests %d and %d, connections %d of %d", st.Requests(3), st.Requests(999), st.Conns.Load(), st.Accepted.Load())
	}
	c.Close()
	eventually(t, "the connection is gone", func() bool { return st.Conns.Load() == 0 })
}

// TestBufferPool proves the accounts of the receive buffers: which are taken and given
// back, the share that large buffers cannot take, the order of waiting, and that
// unused buffers go.
func TestBufferPool(t *testing.T) {
	p := newBufferPool(8<<20, 4<<20)
	if top := p.sizes[len(p.sizes)-1]; top < 4<<20+4 || top > 4<<20+8192 {
		t.Fatalf("the largest buffer has %d bytes", top)
	}
	mib := p.classFor(1 << 20)
	takeAll := func(class int) (list []*buffer) {
		for b := p.takeBuffer(class, 0); b != nil; b = p.takeBuffer(class, 0) {
			list = append(list, b)
		}
		return list
	}
	large := takeAll(mib)
	if len(large) != 6 {
		t.Errorf("%d large buffers were given, of 6", len(large))
	}
	small := takeAll(firstClass)
	if len(small) != 32 || p.inUse() != p.limit {
		t.Errorf("%d small buffers were given, %d bytes are used", len(small), p.inUse())
	}
	a, b, c := p.awaitTurn(mib, 0), p.awaitTurn(mib, 0), p.awaitTurn(firstClass, 0)
	small[0].release()
	<-c.ready // before the large ones: those must leave the share
	large[0].retain().release()
	select {
	case <-a.ready:
		t.Error("a buffer was given back to which somebody refers")
	default:
	}
	p.cancelWait(a)
	<-a.ready
	if p.takeGranted(a) != nil {
		t.Error("a cancelled waiter got a buffer")
	}
	for _, s := range small[1:] {
		s.release()
	}
	large[0].release()
	large[1].release()
	<-b.ready
	got := p.takeGranted(b)
	if len(got.bytes) != 1<<20 {
		t.Error("the next waiter got nothing")
	}
	p.takeGranted(c).release()
	got.release()
	for _, l := range large[2:] {
		l.release()
	}
	if p.inUse() != 0 || p.kept == 0 {
		t.Errorf("%d bytes are used, %d kept", p.inUse(), p.kept)
	}
	p.sweepUnused()
	p.sweepUnused()
	if p.kept != 0 {
		t.Errorf("%d bytes are kept though unused", p.kept)
	}
}

// TestWorkMemory proves that requests which together decode to more than the node's work
// memory wait for each other, and that the memory which they take is given back, after a
// panic, too.
func TestWorkMemory(t *testing.T) {
	work := budget.New(budget.Config{Bytes: 32 << 20})
	var serving, most, served atomic.Int64
	next := make(chan struct{})
	s, addr := start(t, Config{Work: work}, &funcs{serve: func(r *Request) error {
		if _, err := r.Decode(); err != nil {
			return err
		}
		if n := serving.Add(1); n > most.Load() {
			most.Store(n)
		}
		<-next
		serving.Add(-1)
		if served.Add(1)%2 == 0 {
			panic("a bug in a handler")
		}
		r.NoReply()
		return nil
	}})
	body := append([]byte{0, 0, 0x40, 0}, make([]byte, 2*0x4000)...) // 16,384 topics without a name
	alone, err := s.guard.checkBody(3, 1, body, s.decodeLimit())
	if err != nil {
		t.Fatal(err)
	}
	const clients = 60
	for range clients {
		dial(t, addr).send(frame(3, 1, 1, string(body)))
	}
	fit := work.Usage(budget.Command).Limit / int64(alone.memory)
	if fit > clients/2 {
		t.Fatalf("%d requests fit at a time: the test lost its sense", fit)
	}
	eventually(t, "all others wait", func() bool {
		n := serving.Load()
		return n > 0 && work.Usage(budget.Command).Waiting == int(clients-n)
	})
	for range clients {
		next <- struct{}{}
	}
	eventually(t, "the memory is given back", func() bool { return work.Usage(budget.Command).Used == 0 })
	if most.Load() > fit {
		t.Errorf("%d requests were served at a time, and %d fit", most.Load(), fit)
	}
}

// TestWaitForWorkMemoryEnds proves that a request which waits for work memory ends with
// its connection, and that one which can never fit is refused.
func TestWaitForWorkMemoryEnds(t *testing.T) {
	work := budget.New(budget.Config{Bytes: 32 << 20})
	errs := make(chan error, 2)
	s, addr := start(t, Config{Work: work}, &funcs{serve: func(r *Request) error {
		_, err := r.Decode()
		errs <- err
		return err
	}})
	var held []budget.Reservation
	for n := work.Most(budget.Command); n > 0; {
		if r, ok := work.TryReserve(budget.Command, n); ok {
			held = append(held, r)
		} else {
			n /= 2
		}
	}
	c := dial(t, addr)
	c.send(frame(3, 1, 1, "\x00\x00\x00\x00"))
	eventually(t, "it waits", func() bool { return work.Usage(budget.Command).Waiting == 1 })
	s.conns.listConns(nil, true)[0].Close(errGone)
	if err := <-errs; !errors.Is(err, context.Canceled) {
		t.Errorf("the request of a client that is gone: %v", err)
	}
	for i := range held {
		held[i].Release()
	}
	large := append([]byte{0, 0x08, 0, 0}, make([]byte, 2*0x80000)...)
	dial(t, addr).send(frame(3, 1, 1, string(large)))
	if err := <-errs; !errors.Is(err, errBudget) {
		t.Errorf("a request larger than the work memory: %v", err)
	}
}

// TestFramesCutAnywhere proves that a frame cut anywhere, also after a wait at each byte, is
// put together again.
func TestFramesCutAnywhere(t *testing.T) {
	s, addr := start(t, Config{}, &funcs{serve: echo})
	c := dial(t, addr)
	body := strings.Repeat("0123456789", 30_000)
	all := append(frame(0, 0, 1, body), frame(0, 0, 2, body)...)
	sent := int64(0)
	for _, n := range []int{1, 2, 3, 4, 1000, 5000, 20_000, 100_000, 174_004, 5, 200_000, 1 << 30} {
		n = min(n, len(all))
		c.send(all[:n])
		all = all[n:]
		sent += int64(n)
		eventually(t, "it has come", func() bool { return s.Stats().BytesIn.Load() == sent })
	}
	for id := range int32(2) {
		if got, b := c.receive(); got != id+1 || b != body {
			t.Fatalf("answer %d with %d bytes", got, len(b))
		}
	}
}

// FuzzStream proves that whatever bytes come, in whatever pieces, the server
// neither panics nor answers what was not asked, and lets go of the connection.
func FuzzStream(f *testing.F) {
	f.Add(frame(18, 3, 1, "\x00\x05libs\x031.0\x00"), uint8(3))
	f.Add(frame(3, 1, 1, "\x00\x00\x00\x01\x00\x01a"), uint8(200))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), uint8(1))
	f.Add(announce(1<<20, 0, 18, 0, 3), uint8(5))
	s := NewServer(Config{MaxFrame: 1 << 20}, &funcs{serve: func(r *Request) error {
		if req, err := r.Decode(); err == nil {
			r.Reply(req.ResponseKind())
			return nil
		}
		return echo(r)
	}})
	f.Cleanup(func() { s.Shutdown(context.Background()) })
	f.Fuzz(func(t *testing.T, b []byte, step uint8) {
		near, far := net.Pipe()
		done := make(chan struct{})
		go func() { s.ServeConn(far, new(Listener)); close(done) }()
		go func() {
			for c := b; len(c) > 0; {
				n := min(len(c), int(step)+1)
				if _, err := near.Write(c[:n]); err != nil {
					break
				}
				c = c[n:]
			}
			near.SetReadDeadline(time.Now().Add(time.Millisecond))
		}()
		c := &client{Conn: near}
		for _, want := range requestsIn(b) {
			id, _, err := c.tryReceive()
			if err != nil {
				break // it came to something malformed, or had no time
			}
			if id != want {
				t.Fatalf("answer %d came in place of %d", id, want)
			}
		}
		if _, _, err := c.tryReceive(); err == nil {
			t.Fatal("there is an answer more than there are requests")
		}
		near.Close()
		<-done
		if n := s.Stats().Panics.Load(); n > 0 {
			t.Fatalf("%d panics", n)
		}
	})
}

// requestsIn lists the correlation ids of the requests in a stream.
func requestsIn(b []byte) (ids []int32) {
	for len(b) >= 4 {
		n := int(int32(binary.BigEndian.Uint32(b)))
		if n < 8 || n > len(b)-4 {
			break
		}
		ids = append(ids, int32(binary.BigEndian.Uint32(b[8:])))
		b = b[4+n:]
	}
	return ids
}
