package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"
)

// answerWith sends the request's correlation id and n bytes.
func answerWith(r *Request, n int) {
	p := r.Begin()
	p.B = binary.BigEndian.AppendUint32(p.B, uint32(r.CorrelationID))
	for len(p.B) < 12+n {
		p.B = append(p.B, byte(r.CorrelationID))
	}
	r.Send(p)
}

func checkAnswer(tb testing.TB, body string, id int32, n int) {
	tb.Helper()
	if len(body) != 4+n || binary.BigEndian.Uint32([]byte(body)) != uint32(id) || body[4:] != strings.Repeat(string([]byte{byte(id)}), n) {
		tb.Fatalf("answer %d has %d bytes, want %d, or wrong ones", id, len(body), n)
	}
}

// TestOrder proves that answers leave in request order and whole, whoever
// completes them, in whatever order, in whatever way, and whatever their size.
func TestOrder(t *testing.T) {
	type parked struct {
		r    *Request
		size int
	}
	const requests = 5000
	work := make(chan parked, requests)
	var workers sync.WaitGroup
	for i := range 4 {
		workers.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(i)))
			var held []parked
			for {
				p, ok := <-work
				if !ok {
					break
				}
				if held = append(held, p); len(held) < 8 && len(work) > 0 {
					continue
				}
				rnd.Shuffle(len(held), func(i, j int) { held[i], held[j] = held[j], held[i] })
				for _, p := range held {
					answerWith(p.r, p.size)
				}
				held = held[:0]
			}
		})
	}
	rnd := rand.New(rand.NewPCG(2, 3))
	sizes := make([]int, requests)
	for i := range sizes {
		switch rnd.IntN(20) {
		case 0:
			sizes[i] = rnd.IntN(100_000)
		case 1, 2:
			sizes[i] = -1 // no answer
		default:
			sizes[i] = rnd.IntN(600)
		}
	}
	served := make(chan struct{}) // the last request has been: it may have no answer
	_, addr := start(t, Config{}, &funcs{serve: func(r *Request) error {
		conn, id := r.Conn, r.CorrelationID
		size := sizes[id]
		if id == requests-1 {
			defer close(served)
		}
		switch {
		case size < 0 && id%2 == 0:
			r.Begin()
			r.NoReply()
		case size < 0:
			r.NoReply()
		case id%3 == 0:
			answerWith(r, size)
		default:
			work <- parked{r, size}
		}
		if id%100 == 0 {
			conn.Uncork()
		}
		return nil
	}})
	c := dial(t, addr)
	go func() {
		for i := range int32(requests) {
			c.send(frame(0, 0, i, "some body"))
		}
	}()
	for i, size := range sizes {
		if size < 0 {
			continue
		}
		id, body := c.receive()
		if id != int32(i) {
			t.Fatalf("answer %d came in place of %d", id, i)
		}
		checkAnswer(t, body, id, size)
	}
	<-served
	close(work)
	workers.Wait()
}

// TestOrderOfAnswers proves that the answers to a few requests leave whole and in order: rapid
// chooses when each is begun, begun again and completed, and what else goes on.
func TestOrderOfAnswers(t *testing.T) {
	type served struct{ *Request }
	requests := make(chan served, 64)
	_, addr := start(t, Config{}, &funcs{serve: func(r *Request) error {
		requests <- served{r}
		return nil
	}})
	rapid.Check(t, func(t *rapid.T) {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		nc.SetDeadline(time.Now().Add(time.Minute))
		n := rapid.IntRange(1, 12).Draw(t, "requests")
		open := make([]*Request, n)
		begun := make([]*Response, n)
		sizes := make([]int, n)
		var left []int
		for i := range n {
			nc.Write(frame(0, 0, int32(i), ""))
			open[i] = (<-requests).Request
			left = append(left, i)
		}
		for len(left) > 0 {
			at := rapid.IntRange(0, len(left)-1).Draw(t, "which")
			i := left[at]
			if rapid.Bool().Draw(t, "begin") || begun[i] == nil {
				begun[i] = open[i].Begin()
				sizes[i] = rapid.SampledFrom([]int{0, 10, 500, 5000, 9000, 70_000}).Draw(t, "size")
				begun[i].B = append(begun[i].B, strings.Repeat(string(rune('a'+i)), sizes[i])...)
				continue
			}
			if rapid.IntRange(0, 9).Draw(t, "none") == 0 {
				sizes[i] = -1
				open[i].NoReply()
			} else {
				open[i].Send(begun[i])
			}
			left = append(left[:at], left[at+1:]...)
		}
		c := &client{Conn: nc}
		for i, size := range sizes {
			if size < 0 {
				continue
			}
			id, body, err := c.tryReceive()
			if err != nil || id != int32(i) || body != strings.Repeat(string(rune('a'+i)), size) {
				t.Fatalf("answer %d (%d bytes, %v) came in place of %d (%d bytes)", id, len(body), err, i, size)
			}
		}
	})
}

// TestSlowReader proves that a goroutine which completes answers of a client that does not
// read never waits, and that the client gets all of them once it does read.
func TestSlowReader(t *testing.T) {
	const requests, size = 500, 100_000 // 50 MB: more than any socket takes
	all := make(chan *Request, requests)
	_, addr := start(t, Config{}, &funcs{serve: func(r *Request) error { all <- r; return nil }})
	c := dial(t, addr)
	for i := range int32(requests) {
		c.send(frame(0, 0, i, ""))
	}
	for range requests {
		answerWith(<-all, size) // would hang here
	}
	for i := range int32(requests) {
		id, body := c.receive()
		if id != i {
			t.Fatalf("answer %d came in place of %d", id, i)
		}
		checkAnswer(t, body, id, size)
	}
}

// TestUnreadAnswers proves that a client which asks and does not read is not read
// any further behind some answers: it cannot fill the memory.
func TestUnreadAnswers(t *testing.T) {
	const requests, size = 1500, 100_000
	var served atomic.Int64
	_, addr := start(t, Config{}, &funcs{serve: func(r *Request) error {
		served.Add(1)
		answerWith(r, size)
		return nil
	}})
	c := dial(t, addr)
	before := heap()
	go func() {
		for i := range int32(requests) {
			c.send(frame(0, 0, i, ""))
		}
	}()
	awaitStill(t, &served)
	if n := served.Load(); n > requests/4 {
		t.Errorf("%d requests were served, of which no answer was read", n)
	}
	if grown := heap() - before; grown > 8<<20 {
		t.Errorf("unread answers take %d KiB", grown>>10)
	}
	for i := range int32(requests) {
		id, body := c.receive()
		if id != i {
			t.Fatalf("answer %d came in place of %d", id, i)
		}
		checkAnswer(t, body, id, size)
	}
}

// TestUnreadAnswersBehindParked proves that a client is not read any further behind some ready
// answers that cannot be sent because an older one is outstanding.
func TestUnreadAnswersBehindParked(t *testing.T) {
	const requests, size = 1500, 100_000
	var served atomic.Int64
	var first *Request
	_, addr := start(t, Config{}, &funcs{serve: func(r *Request) error {
		if served.Add(1) == 1 {
			first = r
			return nil
		}
		answerWith(r, size)
		return nil
	}})
	c := dial(t, addr)
	go func() {
		for i := range int32(requests) {
			c.send(frame(0, 0, i, ""))
		}
	}()
	awaitStill(t, &served)
	if n := served.Load(); n > requests/4 {
		t.Errorf("%d requests were served behind one that is parked", n)
	}
	answerWith(first, size)
	for i := range int32(requests) {
		id, body := c.receive()
		if id != i {
			t.Fatalf("answer %d came in place of %d", id, i)
		}
		checkAnswer(t, body, id, size)
	}
}

// awaitStill waits until a counter has stopped to change for some time.
func awaitStill(tb testing.TB, n *atomic.Int64) {
	tb.Helper()
	last, since := n.Load(), time.Now()
	eventually(tb, "a counter settles", func() bool {
		if v := n.Load(); v != last || v == 0 {
			last, since = v, time.Now()
		}
		return time.Since(since) > 100*time.Millisecond
	})
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // the first one empties pools
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestMaxParked proves that a connection is not read further while as many of its
// answers are outstanding as the limit says, and is once they are given.
func TestMaxParked(t *testing.T) {
	const limit, requests = 100, 1000
	all := make(chan *Request, requests)
	var served, flushed atomic.Int64
	s, addr := start(t, Config{MaxParked: limit}, &funcs{
		serve: func(r *Request) error { served.Add(1); all <- r; return nil },
		flush: func() { flushed.Store(served.Load()) },
	})
	c := dial(t, addr)
	for i := range int32(requests) {
		c.send(frame(0, 0, i, ""))
	}
	awaitStill(t, &served)
	if n := served.Load(); n != limit {
		t.Errorf("%d requests were served, want %d", n, limit)
	}
	if n := flushed.Load(); n != limit {
		t.Errorf("%d requests were flushed before waiting, want %d", n, limit)
	}
	if n := s.shared.parked.Load(); n < limit-parkedStep || n > limit {
		t.Errorf("the server counts %d outstanding answers, of %d", n, limit)
	}
	for i := range int32(requests) {
		answerWith(<-all, 0)
		if id, _ := c.receive(); id != i {
			t.Fatalf("answer %d came in place of %d", id, i)
		}
	}
	c.Close()
	eventually(t, "the server's count of outstanding answers goes back to 0", func() bool { return s.shared.parked.Load() == 0 })
}

// TestParkedOnAllConnections proves that the server bounds the outstanding
// answers of all connections together, and that those with few go on.
func TestParkedOnAllConnections(t *testing.T) {
	const limit = 200
	var mu sync.Mutex
	var all []*Request
	over := false
	_, addr := start(t, Config{MaxParked: limit}, &funcs{serve: func(r *Request) error {
		mu.Lock()
		defer mu.Unlock()
		if r.Key == 1 || over {
			return echo(r)
		}
		all = append(all, r)
		return nil
	}})
	for range 20 {
		c := dial(t, addr)
		for i := range int32(limit) {
			c.send(frame(0, 0, i, ""))
		}
	}
	var n atomic.Int64
	eventually(t, "answers are outstanding", func() bool {
		mu.Lock()
		defer mu.Unlock()
		n.Store(int64(len(all)))
		return len(all) >= limit*parkedShare
	})
	c := dial(t, addr)
	for i := range int32(50) {
		c.send(frame(1, 0, i, "small"))
		c.receive()
	}
	mu.Lock()
	if most := limit*parkedShare + limit + 20*parkedStep; len(all) > most {
		t.Errorf("%d answers are outstanding, want at most %d", len(all), most)
	}
	over = true
	mu.Unlock()
	for _, r := range all {
		r.NoReply()
	}
}

// TestUncork proves that answers go out during a long handler after Uncork, those
// that were ready and those that others complete meanwhile.
func TestUncork(t *testing.T) {
	parked := make(chan *Request, 1)
	hold := make(chan struct{})
	_, addr := start(t, Config{}, &funcs{serve: func(r *Request) error {
		switch r.CorrelationID {
		case 0:
			return echo(r)
		case 1:
			parked <- r
			return nil
		default:
			r.Conn.Uncork()
			<-hold
			return echo(r)
		}
	}})
	c := dial(t, addr)
	c.send(append(append(frame(0, 0, 0, "a"), frame(0, 0, 1, "b")...), frame(0, 0, 2, "c")...))
	if id, _ := c.receive(); id != 0 {
		t.Fatalf("got answer %d first", id)
	}
	answerWith(<-parked, 3)
	if id, _ := c.receive(); id != 1 {
		t.Fatalf("got answer %d second", id)
	}
	close(hold)
	if id, body := c.receive(); id != 2 || body != "c" {
		t.Fatalf("got answer %d (%q) third", id, body)
	}
}

// TestPanics proves that a panic closes only its connection, and is logged with its stack.
func TestPanics(t *testing.T) {
	for _, where := range []string{"open", "serve", "flush", "close", "parked work"} {
		t.Run(where, func(t *testing.T) {
			var armed atomic.Bool
			boom := func(at string) {
				if at == where && armed.CompareAndSwap(true, false) {
					panic("a bug in " + at)
				}
			}
			var log logLines
			s, addr := start(t, Config{Logger: log.logger()}, &funcs{
				open: func(*Conn) { boom("open") },
				serve: func(r *Request) error {
					r.Begin()
					boom("serve")
					if where == "parked work" {
						body := string(r.Body()) // it is gone when Serve has returned
						go func() {              // somebody else's goroutine
							defer r.Conn.Contain()
							boom(where)
							p := r.Begin()
							p.B = append(p.B, body...)
							r.Send(p)
						}()
						return nil
					}
					return echo(r)
				},
				flush: func() { boom("flush") },
				done:  func() { boom("close") },
			})
			good := dial(t, addr)
			good.send(frame(0, 0, 1, ""))
			good.receive()
			armed.Store(true)
			bad := dial(t, addr)
			if where == "close" {
				bad.Close()
			} else {
				bad.send(frame(0, 0, 1, ""))
				bad.awaitClosed()
			}
			eventually(t, "the panic is counted", func() bool { return s.Stats().Panics.Load() == 1 })
			good.send(frame(0, 0, 2, "still here"))
			if _, body := good.receive(); body != "still here" {
				t.Errorf("the other connection got %q", body)
			}
			eventually(t, "the panic is logged", func() bool {
				return strings.Contains(log.String(), "a bug in "+where) && strings.Contains(log.String(), "conn_test.go")
			})
		})
	}
}

// TestServeError proves that an error closes the connection with one line, after
// what was answered before has been sent.
func TestServeError(t *testing.T) {
	var log logLines
	_, addr := start(t, Config{Logger: log.logger()}, &funcs{serve: func(r *Request) error {
		if r.CorrelationID == 2 {
			return errors.New("this API is not served")
		}
		return echo(r)
	}})
	c := dial(t, addr)
	c.send(append(append(append(frame(3, 1, 0, "x"), frame(3, 1, 1, "y")...), frame(3, 1, 2, "z")...), frame(3, 1, 3, "not served")...))
	for i := range int32(2) {
		if id, _ := c.receive(); id != i {
			t.Fatalf("got answer %d, want %d", id, i)
		}
	}
	c.awaitClosed()
	eventually(t, "one line is logged", func() bool { return strings.Count(log.String(), "level=WARN") == 1 })
	if !strings.Contains(log.String(), "Metadata v1: this API is not served") {
		t.Errorf("the log says %s", log.String())
	}
}

// TestClose proves that Close ends a connection at once, in whatever state, that
// nothing is served afterwards, and that late answers do no harm.
func TestClose(t *testing.T) {
	var late atomic.Pointer[Request]
	var closed atomic.Int64
	_, addr := start(t, Config{}, &funcs{
		serve: func(r *Request) error {
			switch r.CorrelationID {
			case 0:
				late.Store(r)
			case 1:
				r.Conn.Close(errors.New("enough"))
			default:
				t.Errorf("request %d was served on a closed connection", r.CorrelationID)
			}
			return nil
		},
		done: func() { closed.Add(1) },
	})
	c := dial(t, addr)
	c.send(append(append(frame(0, 0, 0, ""), frame(0, 0, 1, "")...), frame(0, 0, 2, "")...))
	c.awaitClosed()
	eventually(t, "the session is closed", func() bool { return closed.Load() == 1 })
	answerWith(late.Load(), 10_000)
}

// TestShutdown proves that Shutdown lets parked requests be answered, and gives
// up those that are not when its time is over.
func TestShutdown(t *testing.T) {
	for _, answered := range []bool{true, false} {
		t.Run(fmt.Sprintf("answered=%v", answered), func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			parked := make(chan *Request, 1)
			s := NewServer(Config{}, &funcs{serve: func(r *Request) error { parked <- r; return nil }})
			served := make(chan error, 1)
			go func() { served <- s.Serve(&Listener{Listener: l}) }()
			c := dial(t, l.Addr().String())
			c.send(frame(0, 0, 0, ""))
			r := <-parked
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			done := make(chan error, 1)
			go func() { done <- s.Shutdown(ctx) }()
			if err := <-served; err != nil {
				t.Errorf("Serve: %v", err)
			}
			if answered {
				answerWith(r, 50_000)
				if _, body := c.receive(); len(body) != 50_004 {
					t.Errorf("got %d bytes", len(body))
				}
				if err := <-done; err != nil {
					t.Errorf("Shutdown: %v", err)
				}
			} else {
				cancel()
				if err := <-done; !errors.Is(err, context.Canceled) {
					t.Errorf("Shutdown: %v", err)
				}
				answerWith(r, 1)
			}
			c.awaitClosed()
			if err := s.Shutdown(context.Background()); err != nil {
				t.Errorf("second Shutdown: %v", err)
			}
			a, b := net.Pipe()
			defer a.Close()
			s.ServeConn(b, new(Listener)) // returns: the server is closed
		})
	}
}

// TestShutdownAfterFailure proves that Shutdown does not wait for the answer of a request
// that was refused, or whose handler panicked, while the server stops, and that the
// panic is counted.
func TestShutdownAfterFailure(t *testing.T) {
	for name, fail := range map[string]func() error{
		"refused": func() error { return errors.New("not served") },
		"panic":   func() error { panic("a bug") },
	} {
		t.Run(name, func(t *testing.T) {
			served, stopping := make(chan struct{}), make(chan struct{})
			s, addr := start(t, Config{}, &funcs{serve: func(*Request) error {
				close(served)
				<-stopping
				return fail()
			}})
			dial(t, addr).send(frame(0, 0, 1, ""))
			<-served
			go func() {
				<-s.stopping
				close(stopping)
			}()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := s.Shutdown(ctx); err != nil {
				t.Error(err)
			}
			if n := s.Stats().Panics.Load(); (n == 1) != (name == "panic") {
				t.Errorf("%d panics", n)
			}
		})
	}
}

// TestPipe proves that any net.Conn is served, also by a client that sends much
// before it reads.
func TestPipe(t *testing.T) {
	s := NewServer(Config{}, &funcs{serve: echo})
	a, b := net.Pipe()
	go s.ServeConn(b, new(Listener))
	c := &client{t, a}
	go func() {
		var all []byte
		for i := range int32(200) {
			all = append(all, frame(0, 0, i, strings.Repeat("p", 1000))...)
		}
		c.send(all)
	}()
	for i := range int32(200) {
		if id, body := c.receive(); id != i || len(body) != 1000 {
			t.Fatalf("answer %d has %d bytes", id, len(body))
		}
	}
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	c.awaitClosed()
}

// TestIdle proves when connections are closed: idle ones after the time-out, ones
// with half a request after it too, ones with an outstanding answer not.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logLines
		var open atomic.Int64
		var parked *Request
		s := NewServer(Config{IdleTimeout: time.Hour, Logger: log.logger()}, &funcs{
			open:  func(*Conn) { open.Add(1) },
			serve: func(r *Request) error { parked = r; return nil },
			done:  func() { open.Add(-1) },
		})
		idle, idleEnd := net.Pipe()
		half, halfEnd := net.Pipe()
		busy, busyEnd := net.Pipe()
		for _, end := range []net.Conn{idleEnd, halfEnd, busyEnd} {
			go s.ServeConn(end, new(Listener))
		}
		half.Write(frame(0, 0, 0, "some body")[:9])
		busy.Write(frame(0, 0, 0, ""))
		for _, step := range []struct {
			wait time.Duration
			open int64
		}{{29 * time.Second, 3}, {20 * time.Second, 2}, {58 * time.Minute, 2}, {2 * time.Minute, 1}, {3 * time.Hour, 1}} {
			time.Sleep(step.wait)
			synctest.Wait()
			if n := open.Load(); n != step.open {
				t.Errorf("%v later %d connections are open, want %d", step.wait, n, step.open)
			}
		}
		if n := strings.Count(log.String(), "did not come in time"); n != 1 {
			t.Errorf("the log says %s", log.String())
		}
		go answerWith(parked, 1)
		c := &client{t, busy}
		c.receive()
		s.Shutdown(t.Context())
		_, _ = idle, half
	})
}

// TestNoReader proves that the connection of a client which does not read its answers is closed
// in the end.
func TestNoReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var open atomic.Int64
		s := NewServer(Config{IdleTimeout: time.Hour}, &funcs{
			open:  func(*Conn) { open.Add(1) },
			serve: echo,
			done:  func() { open.Add(-1) },
		})
		a, b := net.Pipe()
		go s.ServeConn(b, new(Listener))
		a.Write(frame(0, 0, 0, ""))
		time.Sleep(50 * time.Minute)
		synctest.Wait()
		if open.Load() != 1 {
			t.Error("closed too early")
		}
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		if open.Load() != 0 {
			t.Error("not closed")
		}
		s.Shutdown(t.Context())
		a.Close()
	})
}

// TestApiVersions proves that a version of ApiVersions from the future reaches
// the session whatever its body is, and can be answered in the oldest form, with
// the oldest header; and that flexible versions of it have the oldest header too.
func TestApiVersions(t *testing.T) {
	_, addr := start(t, Config{}, &funcs{serve: func(r *Request) error {
		if r.Version > 4 {
			r.Version = 0
		}
		resp := kmsg.NewPtrApiVersionsResponse()
		resp.ErrorCode = 35
		r.Reply(resp)
		return nil
	}})
	for _, version := range []int16{0, 3, 77} {
		for _, body := range []string{"", "\x00\x05libs\x031.0\x00", "\xff\xff\xff\xff\xff\xff"} {
			if version == 3 && body != "\x00\x05libs\x031.0\x00" {
				continue
			}
			c := dial(t, addr)
			c.send(frame(18, version, 5, body))
			id, got := c.receive()
			if id != 5 || got[:2] != "\x00\x23" {
				t.Errorf("v%d %q: answer %q", version, body, got)
			}
		}
	}
}

// TestAcceptErrors proves that a server logs errors of Accept and goes on.
func TestAcceptErrors(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var log logLines
	s := NewServer(Config{Logger: log.logger()}, &funcs{serve: echo})
	done := make(chan error, 1)
	go func() { done <- s.Serve(&Listener{Listener: &failing{Listener: l, left: 3}}) }()
	c := dial(t, l.Addr().String())
	c.send(frame(0, 0, 1, "served"))
	c.receive()
	if n := strings.Count(log.String(), "too many open files"); n != 3 {
		t.Errorf("%d lines, want 3: %s", n, log.String())
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

type failing struct {
	net.Listener
	left int
}

func (f *failing) Accept() (net.Conn, error) {
	if f.left > 0 {
		f.left--
		return nil, errors.New("too many open files")
	}
	return f.Listener.Accept()
}
