//go:build linux && !portable

package wire

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestSuspend proves that a suspended connection is served as before when something
// comes, again and again, and that its session sees one Open and one Close.
func TestSuspend(t *testing.T) {
	var opened, done atomic.Int64
	s, addr := start(t, Config{}, &funcs{
		serve: echo, open: func(*Conn) { opened.Add(1) }, done: func() { done.Add(1) },
	})
	clients := make([]*client, 3*pollBatch) // more than one look takes
	for i := range clients {
		clients[i] = dial(t, addr)
	}
	for round := range int32(3) {
		for i, c := range clients {
			c.send(frame(3, 1, round, fmt.Sprint("request ", i)))
		}
		for i, c := range clients {
			if id, body := c.receive(); id != round || body != fmt.Sprint("request ", i) {
				t.Fatalf("round %d, client %d: answer %d: %q", round, i, id, body)
			}
		}
		suspendAll(t, s)
	}
	for _, c := range clients[1:] {
		c.Close()
	}
	eventually(t, "those whose clients have gone are closed", func() bool { return done.Load() == int64(len(clients)-1) })
	clients[0].send(frame(3, 1, 9, "still here"))
	if id, body := clients[0].receive(); id != 9 || body != "still here" {
		t.Errorf("answer %d: %q", id, body)
	}
	if n := opened.Load(); n != int64(len(clients)) {
		t.Errorf("%d sessions for %d connections", n, len(clients))
	}
}

// TestSuspendWithHalfARequest proves that a connection is not suspended while the rest of
// a request is to come.
func TestSuspendWithHalfARequest(t *testing.T) {
	s, addr := start(t, Config{}, &funcs{serve: echo})
	c := dial(t, addr)
	c.send(frame(3, 1, 1, "whole"))
	c.receive()
	b := frame(3, 1, 2, "cut in two")
	c.send(b[:10])
	var conn *Conn
	eventually(t, "the first half has come", func() bool {
		conn = s.conns.listConns(nil, true)[0]
		return conn.in.held.bytes.Load() > 0
	})
	if conn.isIdle() {
		t.Error("it counts as idle")
	}
	conn.interruptRead() // as if the sweeper had looked just before
	c.send(b[10:])
	if id, body := c.receive(); id != 2 || body != "cut in two" {
		t.Errorf("answer %d: %q", id, body)
	}
}

// TestSuspendedConnectionsEnd proves that suspended connections end with the idle time-out, when
// they are closed, and with the server.
func TestSuspendedConnectionsEnd(t *testing.T) {
	f := func(name string, cfg Config, end func(s *Server)) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			var done atomic.Int64
			s, addr := start(t, cfg, &funcs{serve: echo, done: func() { done.Add(1) }})
			const n = 5
			for range n {
				c := dial(t, addr)
				c.send(frame(3, 1, 1, "x"))
				c.receive()
			}
			if cfg.IdleTimeout == 0 {
				suspendAll(t, s)
			}
			end(s)
			eventually(t, "all have ended", func() bool { return done.Load() == n && s.Stats().Conns.Load() == 0 })
		})
	}
	f("idle", Config{IdleTimeout: time.Second}, func(*Server) {}) // a client must be served before
	f("closed", Config{}, func(s *Server) {
		for _, c := range s.conns.listConns(nil, true) {
			c.Close(errors.New("by a test"))
		}
	})
	f("shutdown", Config{}, func(s *Server) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
}

// TestSuspendRace proves that nothing is lost however suspending and requests meet.
func TestSuspendRace(t *testing.T) {
	s, addr := start(t, Config{}, &funcs{serve: echo})
	stop := make(chan struct{})
	var sweeper, clients sync.WaitGroup
	sweeper.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			for _, c := range s.conns.listConns(nil, true) {
				if c.isIdle() {
					c.interruptRead()
				}
			}
		}
	})
	for i := range 8 {
		clients.Go(func() {
			rnd := rand.New(rand.NewPCG(4, uint64(i)))
			nc, err := net.Dial("tcp", addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer nc.Close()
			c := &client{t, nc}
			for id := range int32(300) {
				b := frame(3, 1, id, "some body")
				cut := rnd.IntN(len(b) + 1)
				c.send(b[:cut])
				c.send(b[cut:])
				if got, body := c.receive(); got != id || body != "some body" {
					t.Errorf("answer %d: %q, want %d", got, body, id)
					return
				}
			}
		})
	}
	clients.Wait()
	close(stop)
	sweeper.Wait()
}
