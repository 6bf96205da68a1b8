package wire

import (
	"errors"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// collector is a session that, like the broker's, collects bodies in Serve and uses
// them in Flush, or in Close when Flush was not called.
type collector struct {
	use    func(body []byte)
	serve  func(r *Request) error
	bodies [][]byte
}

func (s *collector) Open(*Conn) Session { return s }

func (s *collector) Serve(r *Request) error {
	if err := s.serve(r); err != nil {
		return err
	}
	s.bodies = append(s.bodies, r.Body())
	r.NoReply()
	return nil
}

func (s *collector) Flush() {
	for _, b := range s.bodies {
		s.use(b)
	}
	s.bodies = nil
}

func (s *collector) Close() { s.Flush() }

// firstOf opens one handler's session for the first connection and another's for others.
type firstOf struct {
	first, others Handler
	opened        atomic.Int64
}

func (h *firstOf) Open(c *Conn) Session {
	if h.opened.Add(1) == 1 {
		return h.first.Open(c)
	}
	return h.others.Open(c)
}

// TestBodiesUntilClose proves that bodies which a session has collected are still as
// they were sent when it is closed after a panic or an error, although other clients
// take the buffers that are free.
func TestBodiesUntilClose(t *testing.T) {
	const want = "a batch that waits for the flush"
	for name, fail := range map[string]func() error{
		"panic": func() error { panic("a bug in the second request's handler") },
		"error": func() error { return errors.New("not served") },
	} {
		t.Run(name, func(t *testing.T) {
			addr, done := "", make(chan string, 2)
			_, addr = start(t, Config{}, &firstOf{others: &funcs{serve: echo}, first: &collector{
				use: func(body []byte) {
					for range 3 {
						o := dial(t, addr)
						o.send(frame(0, 0, 1, strings.Repeat("OTHER CLIENTS' BYTES ", 10)))
						o.receive()
					}
					done <- string(body)
				},
				serve: func(r *Request) error {
					if r.CorrelationID == 2 {
						return fail()
					}
					return nil
				},
			}})
			dial(t, addr).send(append(frame(0, 0, 1, want), frame(0, 0, 2, "x")...))
			if got := <-done; got != want {
				t.Errorf("the session used %q", got)
			}
		})
	}
}

// TestKeepBody proves that bodies which are kept stay as they are until their requests
// are answered, while the connection reads on, however the client cuts what it sends,
// and that their memory is given back then.
func TestKeepBody(t *testing.T) {
	const requests = 60
	kept := make(chan *Request, requests)
	s, addr := start(t, Config{}, &funcs{serve: func(r *Request) error {
		r.KeepBody()
		r.KeepBody() // keeps it no more than once does
		kept <- r
		return nil
	}})
	c := dial(t, addr)
	body := func(id int32) string { return strings.Repeat(string('a'+id%26), 700*int(id+1)) }
	var all []byte
	for id := range int32(requests) {
		all = append(all, frame(1, 0, id, body(id))...)
	}
	sent := int64(0)
	for step := 1; len(all) > 0; step += 400 {
		n := min(len(all), step)
		c.send(all[:n])
		all, sent = all[n:], sent+int64(n)
		eventually(t, "it has come", func() bool { return s.Stats().BytesIn.Load() == sent })
	}
	var list []*Request
	for range requests {
		list = append(list, <-kept)
	}
	for id, r := range list {
		if got := string(r.Body()); got != body(int32(id)) {
			t.Fatalf("body %d has changed to %.20q...", id, got)
		}
	}
	for id, r := range list {
		answerWith(r, 0)
		if got, _ := c.receive(); got != int32(id) {
			t.Fatalf("answer %d came in place of %d", got, id)
		}
	}
	eventually(t, "the memory is given back", func() bool { return s.Stats().RequestMemory() == 0 })
}

// TestSmallKeptBodiesKeepLittle proves that a small body which is kept does not keep a large receive buffer while
// its request waits; that it keeps the buffer where there is no memory for a copy; and that it stays as it is
// either way, also after the session has given up the bodies.
func TestSmallKeptBodiesKeepLittle(t *testing.T) {
	for _, isShort := range []bool{false, true} {
		kept := make(chan *Request, 1)
		taken := int64(0)
		s, addr := start(t, Config{}, &funcs{serve: func(r *Request) error {
			if r.CorrelationID == 1 {
				answerWith(r, 0)
				return nil
			}
			if isShort {
				p := r.Conn.srv.buffers
				p.mu.Lock()
				taken = p.limit - p.used
				p.used += taken
				p.mu.Unlock()
			}
			r.KeepBody()
			r.Conn.GiveUpBodies()
			if isShort {
				p := r.Conn.srv.buffers
				p.mu.Lock()
				p.used -= taken
				p.mu.Unlock()
			}
			kept <- r
			return nil
		}})
		c := dial(t, addr)
		c.send(append(frame(1, 0, 1, strings.Repeat("x", 1<<20)), frame(1, 0, 2, "small body")...))
		c.receive()
		r := <-kept
		if !isShort {
			eventually(t, "the large buffer is given back", func() bool { return s.Stats().RequestMemory() <= 1<<10 })
		}
		c.send(frame(1, 0, 1, strings.Repeat("y", 1<<20)))
		if got := string(r.Body()); got != "small body" || r.BodySize() != len(got) {
			t.Errorf("the body is %q", got)
		}
		answerWith(r, 0)
		for range 2 {
			c.receive()
		}
		eventually(t, "the memory is given back", func() bool { return s.Stats().RequestMemory() == 0 })
	}
}

// TestParkedRequestKeepsNoBuffer proves that a request which waits for its answer does not keep
// the memory of a receive buffer that the connection has given back, and has no body then.
func TestParkedRequestKeepsNoBuffer(t *testing.T) {
	for name, serve := range map[string]func(r *Request) error{
		"raw": func(*Request) error { return nil },
		"decoded": func(r *Request) error {
			_, err := r.Decode()
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			parked := make(chan *Request, 1)
			var freed atomic.Bool
			s, addr := start(t, Config{}, &funcs{serve: func(r *Request) error {
				runtime.AddCleanup(&r.Conn.in.buf.bytes[0], func(b *atomic.Bool) { b.Store(true) }, &freed)
				err := serve(r)
				parked <- r
				return err
			}})
			c := dial(t, addr)
			metadata := kmsg.NewPtrMetadataRequest()
			c.send(frame(metadata.Key(), 0, 1, string(metadata.AppendTo(nil))))
			r := <-parked
			eventually(t, "the buffer is given back", func() bool { return s.Stats().RequestMemory() == 0 })
			eventually(t, "the buffer's memory is free", func() bool {
				s.buffers.sweepUnused()
				runtime.GC()
				return freed.Load()
			})
			if r.Body() != nil {
				t.Error("the request still has a body")
			}
			answerWith(r, 0)
			if id, _ := c.receive(); id != 1 {
				t.Errorf("answer %d", id)
			}
		})
	}
}

// TestContextEndsWithConnection proves that work for a client which waits ends when the client's
// connection does.
func TestContextEndsWithConnection(t *testing.T) {
	served := make(chan *Conn, 1)
	_, addr := start(t, Config{}, &funcs{serve: func(r *Request) error {
		served <- r.Conn
		return nil
	}})
	c := dial(t, addr)
	c.send(frame(0, 0, 1, ""))
	ctx := (<-served).Context()
	if ctx.Err() != nil {
		t.Fatal(ctx.Err())
	}
	c.Close()
	<-ctx.Done()
	if ctx.Err() == nil {
		t.Error("it has ended without an error")
	}
}

// TestPanicsElsewhere proves that a panic of somebody who works for a connection on
// another goroutine costs that connection only: one that completes what a request
// waits for, one that encodes an answer, and a section that is read or sent.
func TestPanicsElsewhere(t *testing.T) {
	for name, answer := range map[string]func(r *Request){
		"completer": func(r *Request) {
			func() {
				defer r.Conn.Contain()
				panic("a bug elsewhere")
			}()
		},
		"section": func(r *Request) {
			p := r.Begin()
			p.Attach(&panicking{section{n: 100, noFd: true, released: new(atomic.Int64)}})
			r.Send(p)
		},
		"large section": func(r *Request) {
			p := r.Begin()
			p.Attach(&panicking{section{n: 10 << 20, noFd: true, released: new(atomic.Int64)}})
			r.Send(p)
		},
		"encoder": func(r *Request) { r.Reply(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			var log logLines
			parked := make(chan *Request, 1)
			s, addr := start(t, Config{Logger: log.logger()}, &funcs{serve: func(r *Request) error {
				if r.Key == 1 {
					parked <- r
					return nil
				}
				return echo(r)
			}})
			good, bad := dial(t, addr), dial(t, addr)
			bad.send(frame(1, 0, 1, ""))
			r := <-parked
			bad.send(frame(0, 0, 2, "waits behind it"))
			eventually(t, "the second one is served", func() bool { return s.Stats().Requests(0) == 1 })
			go answer(r)
			bad.awaitClosed()
			good.send(frame(0, 0, 3, "still here"))
			if _, body := good.receive(); body != "still here" {
				t.Errorf("the other connection got %q", body)
			}
			eventually(t, "it is counted and logged", func() bool {
				return s.Stats().Panics.Load() == 1 && strings.Contains(log.String(), "a handler panicked") && s.Stats().Conns.Load() == 1
			})
		})
	}
}

type panicking struct{ section }

func (*panicking) ReadAt([]byte, int64) (int, error) { panic("a bug in storage") }

// TestAnsweredTwice proves that a second answer of a request, which would go to the
// request behind it, ends the connection and nothing else.
func TestAnsweredTwice(t *testing.T) {
	first := make(chan *Request, 1)
	s, addr := start(t, Config{}, &funcs{serve: func(r *Request) error {
		if r.CorrelationID == 0 {
			first <- r
			return nil
		}
		answerWith(r, 1)
		answerWith(r, 1)
		return nil
	}})
	c := dial(t, addr)
	c.send(append(frame(0, 0, 0, ""), frame(0, 0, 1, "")...))
	c.awaitClosed()
	eventually(t, "it is counted", func() bool { return s.Stats().Panics.Load() == 1 })
	(<-first).NoReply()
}

// TestListeners proves that a session learns by which listener its client came, and
// that a listener, and then the session, may accept smaller requests only.
func TestListeners(t *testing.T) {
	names := make(chan string, 4)
	s, addr := start(t, Config{}, &funcs{
		open: func(c *Conn) {
			names <- c.Listener().Name
			if c.Listener().Name == "LOGIN" {
				c.SetMaxFrame(1000)
			}
		},
		serve: func(r *Request) error {
			if r.Key == 17 { // it has logged in
				r.Conn.SetMaxFrame(0)
			}
			return echo(r)
		},
	})
	listen := func(l Listener) string {
		var err error
		if l.Listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		go s.Serve(&l)
		return l.Addr().String()
	}
	for _, test := range []struct {
		name, addr string
		frames     []string
		ok         int // of frames
	}{
		{"", addr, []string{strings.Repeat("x", 100_000)}, 1},
		{"SMALL", listen(Listener{Name: "SMALL", MaxFrame: 10_000}), []string{strings.Repeat("x", 9_000), strings.Repeat("x", 10_000)}, 1},
		{"LOGIN", listen(Listener{Name: "LOGIN"}), []string{"x", strings.Repeat("x", 1_000)}, 1},
		{"LOGIN", listen(Listener{Name: "LOGIN"}), []string{"", strings.Repeat("x", 1_000)}, 2},
	} {
		c := dial(t, test.addr)
		for i, body := range test.frames {
			key := int16(0)
			if body == "" {
				key = 17
			}
			c.send(frame(key, 0, int32(i), body))
			if i >= test.ok {
				c.awaitClosed()
			} else if _, got := c.receive(); got != body {
				t.Errorf("%s: %d bytes came back of %d", test.name, len(got), len(body))
			}
		}
		if name := <-names; name != test.name {
			t.Errorf("the session knows %q, not %q", name, test.name)
		}
	}
}
