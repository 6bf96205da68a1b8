package wire

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestMute proves that the requests behind the one that has muted a connection are served when its time is over, in order and
// not before; that answers are sent meanwhile, also those of parked requests; and that a muted connection has no goroutine.
func TestMute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var served atomic.Int64
		var parked *Request
		s := NewServer(Config{}, &funcs{serve: func(r *Request) error {
			served.Add(1)
			switch r.CorrelationID {
			case 1:
				parked = r
				return nil
			case 2:
				r.Conn.Mute(time.Second)
				r.Conn.Mute(5 * time.Second)
				r.Conn.Mute(2 * time.Second) // less counts for nothing
			}
			return echo(r)
		}})
		a, b := net.Pipe()
		ended := make(chan struct{})
		go func() {
			s.ServeConn(b, new(Listener))
			close(ended)
		}()
		c := &client{t, a}
		began := time.Now()
		var all []byte
		for i := range int32(5) {
			all = append(all, frame(0, 0, i, "some body")...)
		}
		go c.send(all[:len(all)-5])
		if id, _ := c.receive(); id != 0 {
			t.Fatalf("answer %d", id)
		}
		synctest.Wait()
		<-ended // the connection's goroutine
		if n, muted := served.Load(), s.Stats().Muted(); n != 3 || muted != 1 {
			t.Errorf("%d requests are served, and %d connections are muted", n, muted)
		}
		if held := s.Stats().RequestMemory(); held > 2*int64(s.buffers.sizes[0]) {
			t.Errorf("a muted connection with few bytes holds %d", held)
		}
		time.Sleep(4 * time.Second)
		go answerWith(parked, 1)
		for i := range int32(2) {
			if id, _ := c.receive(); id != i+1 || time.Since(began) != 4*time.Second {
				t.Errorf("answer %d after %v", id, time.Since(began))
			}
		}
		go c.send(all[len(all)-5:])
		for i := range int32(2) {
			if id, _ := c.receive(); id != i+3 || time.Since(began) != 5*time.Second {
				t.Errorf("answer %d after %v", id, time.Since(began))
			}
		}
		if muted := s.Stats().Muted(); muted != 0 {
			t.Errorf("%d connections are muted", muted)
		}
		c.Close()
		shutdown(t, s)
	})
}

// TestMuteFromElsewhere proves that another goroutine can mute a connection that waits for requests, which are read then and
// served when its time is over.
func TestMuteFromElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conns := make(chan *Conn, 1)
		s := NewServer(Config{}, &funcs{open: func(c *Conn) { conns <- c }, serve: echo})
		a, b := net.Pipe()
		go s.ServeConn(b, new(Listener))
		c := &client{t, a}
		began := time.Now()
		(<-conns).Mute(3 * time.Second)
		c.send(frame(0, 0, 7, ""))
		if id, _ := c.receive(); id != 7 || time.Since(began) != 3*time.Second {
			t.Errorf("answer %d after %v", id, time.Since(began))
		}
		c.Close()
		shutdown(t, s)
	})
}

// TestMutedConnectionsEnd proves that muted connections end when the server stops, when they are closed, and after the idle
// time-out, which does not count against a client that was muted for long.
func TestMutedConnectionsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var open atomic.Int64
		conns := make(chan *Conn, 1)
		s := NewServer(Config{IdleTimeout: time.Hour}, &funcs{
			open: func(c *Conn) { open.Add(1); conns <- c },
			serve: func(r *Request) error {
				r.Conn.Mute(time.Duration(r.CorrelationID) * time.Minute)
				return echo(r)
			},
			done: func() { open.Add(-1) },
		})
		dialMuted := func(minutes int32) (*client, *Conn) {
			a, b := net.Pipe()
			go s.ServeConn(b, new(Listener))
			c := &client{t, a}
			c.send(frame(0, 0, minutes, ""))
			c.receive()
			synctest.Wait()
			return c, <-conns
		}
		long, _ := dialMuted(70) // longer than the time-out
		short, _ := dialMuted(50)
		_, closed := dialMuted(600)
		closed.Close(errors.New("enough"))
		synctest.Wait()
		if n := open.Load(); n != 2 {
			t.Errorf("%d connections are open", n)
		}
		time.Sleep(65 * time.Minute)
		synctest.Wait()
		if n := open.Load(); n != 1 {
			t.Errorf("after the time-out, %d connections are open", n)
		}
		long.awaitClosed()
		short.send(frame(0, 0, 600, ""))
		short.receive()
		synctest.Wait()
		shutdown(t, s)
		short.awaitClosed()
		if n := open.Load(); n != 0 {
			t.Errorf("%d connections are open", n)
		}
	})
}

// TestMuteRace proves, under the race detector, that a connection which is muted again and again, by its own goroutine and by
// others, for moments only, loses no request.
func TestMuteRace(t *testing.T) {
	var conn atomic.Pointer[Conn]
	_, addr := start(t, Config{}, &funcs{open: func(c *Conn) { conn.Store(c) }, serve: func(r *Request) error {
		if r.CorrelationID%3 == 0 {
			r.Conn.Mute(time.Duration(r.CorrelationID%5) * 10 * time.Microsecond)
		}
		return echo(r)
	}})
	c := dial(t, addr)
	const requests = 2000
	go func() {
		for i := range int32(requests) {
			c.send(frame(0, 0, i, "some body"))
			if muted := conn.Load(); muted != nil {
				muted.Mute(time.Duration(i%7) * time.Microsecond)
			}
		}
	}()
	for i := range int32(requests) {
		if id, body := c.receive(); id != i || body != "some body" {
			t.Fatalf("answer %d came in place of %d", id, i)
		}
	}
}

// TestAdmission proves that a new connection is served, or closed, when its time is over, and not before; that it has no
// session until then; and that this does not concern members.
func TestAdmission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var open atomic.Int64
		var log logLines
		peers := peersOf(8, 4)
		peers.IsMember = netip.MustParsePrefix("10.1.0.0/16").Contains
		s := NewServer(Config{Logger: log.logger(), Peers: peers, Admit: func(listener string, ip netip.Addr) Admission {
			if ip == netip.MustParseAddr("10.0.0.2") {
				return Admission{Wait: time.Second, Refuse: fmt.Errorf("%s has too many", listener)}
			}
			return Admission{Wait: 2 * time.Second}
		}}, &funcs{open: func(*Conn) { open.Add(1) }, serve: echo})
		began := time.Now()
		from := func(ip string) *client {
			near, far := net.Pipe()
			a := &net.TCPAddr{IP: net.ParseIP(ip), Port: 1}
			go s.ServeConn(fromTo{far, a, a}, &Listener{Name: "OUTSIDE"})
			synctest.Wait()
			return &client{t, near}
		}
		late, refused, member := from("10.0.0.1"), from("10.0.0.2"), from("10.1.0.1")
		if n, muted := open.Load(), s.Stats().Muted(); n != 1 || muted != 2 {
			t.Errorf("%d sessions, %d muted", n, muted)
		}
		for _, c := range []*client{member, late} {
			c.send(frame(3, 0, 1, ""))
			c.receive()
		}
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("served after %v", took)
		}
		refused.awaitClosed()
		if n := open.Load(); n != 2 {
			t.Errorf("%d sessions", n)
		}
		if n := s.Stats().TurnedAway.Load(); n != 1 || !strings.Contains(log.String(), "OUTSIDE has too many") {
			t.Errorf("%d are turned away: %s", n, log.String())
		}
		late.Close()
		member.Close()
		shutdown(t, s)
	})
}

// charged is a charge of so many ms.
type charged int32

func (c charged) Settle() int32 { return int32(c) }

// TestThrottleIsTold proves that answers tell the throttle time of their requests, and the longer one if the handler has set another.
func TestThrottleIsTold(t *testing.T) {
	for _, c := range []struct {
		charge Charge
		own    int32
		want   int32
	}{{nil, 0, 0}, {nil, 4, 4}, {charged(0), 4, 4}, {charged(7), 0, 7}, {charged(7), 4, 7}, {charged(7), 9, 9}} {
		_, addr := start(t, Config{}, &funcs{serve: func(r *Request) error {
			r.Charge = c.charge
			resp := kmsg.NewPtrHeartbeatResponse()
			resp.ThrottleMillis = c.own
			r.Reply(resp)
			return nil
		}})
		cl := dial(t, addr)
		cl.send(frame(12, 1, 1, ""))
		_, body := cl.receive()
		resp := kmsg.NewPtrHeartbeatResponse()
		resp.Version = 1
		if err := resp.ReadFrom([]byte(body)); err != nil || resp.ThrottleMillis != c.want {
			t.Errorf("charge %v, handler %d: %d, %v", c.charge, c.own, resp.ThrottleMillis, err)
		}
	}
}
