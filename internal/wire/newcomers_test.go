package wire

import (
	"crypto/tls"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// dialFrom is dial from an address of this machine.
func dialFrom(t *testing.T, from, addr string) *client {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	nc, err := d.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(time.Minute))
	return &client{t, nc}
}

// isServed tells whether a client's request is answered.
func (c *client) isServed() bool {
	if _, err := c.Write(frame(0, 0, 5, "x")); err != nil {
		return false
	}
	_, _, err := c.tryReceive()
	return err == nil
}

// TestSilentConnectionsKeepNobodyOut proves that connections on which nothing is said give way to those of another network when there are
// as many as there may be, for whatever limit, one for each; and that connections on which something was said do not.
func TestSilentConnectionsKeepNobodyOut(t *testing.T) {
	const most = 8
	want := map[string]string{"descriptors": "LimitNOFILE", "memory": "GOMEMLIMIT", "max.connections": "max.connections allows 8"}
	for name, cfg := range map[string]Config{
		"descriptors": {MaxConns: most}, "memory": {MemoryConns: most}, "max.connections": {Limits: Limits{Conns: most}},
	} {
		t.Run(name, func(t *testing.T) {
			var log logLines
			cfg.Logger = log.logger()
			s, addr := start(t, cfg, &funcs{serve: echo})
			var silent []*client
			for range most {
				silent = append(silent, dialFrom(t, "127.0.0.1", addr))
			}
			eventually(t, "all are open", func() bool { return s.Stats().Conns.Load() == most })
			for i := range most {
				if i == most-1 { // the last one is alone in its network, and has some time to speak
					eventually(t, "it is served", func() bool { return dialFrom(t, "127.0.0.2", addr).isServed() })
				} else if !dialFrom(t, "127.0.0.2", addr).isServed() {
					t.Fatalf("client %d of another network is kept out", i)
				}
				if _, err := silent[i].Read(make([]byte, 1)); err == nil {
					t.Error("a silent connection is sent something")
				}
			}
			if n := s.Stats().Conns.Load(); n != most {
				t.Errorf("%d connections are open", n)
			}
			if !strings.Contains(log.String(), "without a login or a request; ") || !strings.Contains(log.String(), want[name]) {
				t.Errorf("the log does not say why they were closed, and what limit is reached: %s", log.String())
			}
			if dialFrom(t, "127.0.0.3", addr).isServed() {
				t.Error("a connection that was served gives way")
			}
			if n := s.Stats().Conns.Load(); n != most {
				t.Errorf("%d connections are open at the end", n)
			}
		})
	}
}

// TestWhichNewcomerGivesWay proves that the oldest connection of the network with the most newcomers gives way, to one of a network with as
// many only when it had time to log in, and that one that has logged in is not chosen.
func TestWhichNewcomerGivesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n newcomers
		open := func(ip string) *Conn {
			c := &Conn{nc: addressedConn{ip: net.ParseIP(ip)}}
			n.add(c)
			time.Sleep(time.Millisecond)
			return c
		}
		choose := func(ip string) *Conn { return n.choose(remoteIP(addressedConn{ip: net.ParseIP(ip)})) }
		if choose("192.0.2.1") != nil {
			t.Error("one is chosen of none")
		}
		first := open("192.0.2.1")
		if choose("192.0.2.2") != nil {
			t.Error("a young one gives way to one of a network with as many")
		}
		crowd := open("2001:db8::1")
		open("2001:db8::2")
		open("2001:db8::3")
		if choose("192.0.2.2") != crowd {
			t.Error("the oldest one of the network with the most does not give way")
		}
		if choose("2001:db8::4") != nil {
			t.Error("a young one gives way to one of its own network")
		}
		time.Sleep(newcomerTime)
		if choose("2001:db8::4") != crowd {
			t.Error("an old one does not give way to one of its own network")
		}
		n.remove(crowd)
		n.remove(crowd)
		if c := choose("192.0.2.2"); c == crowd || c == first || c == nil {
			t.Error("one that has logged in is chosen, or one of a network with fewer")
		}
		for e := n.list.Front(); e != nil; e = n.list.Front() {
			c, _ := e.Value.(*Conn)
			n.remove(c)
		}
		if len(n.from) != 0 {
			t.Errorf("networks without newcomers are counted: %v", n.from)
		}
	})
}

// addressedConn is a connection from an address.
type addressedConn struct {
	net.Conn

	ip net.IP
}

func (c addressedConn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: c.ip} }

// TestHandshakesAreComputedInTurns proves that a client's handshake is computed before most of those that another network has begun earlier.
func TestHandshakesAreComputedInTurns(t *testing.T) {
	useTLS(t)
	var mu sync.Mutex
	var order []string
	overTLS = func() *tls.Config {
		c := serverConfig().Clone()
		c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			mu.Lock()
			defer mu.Unlock()
			order = append(order, remoteIP(hello.Conn).String())
			return nil, nil
		}
		return c
	}
	s, addr := start(t, Config{}, &funcs{serve: echo})
	turns, ended := s.handshakes.turns, make(chan struct{})
	close(ended)
	taken := 0
	for turns.Take(ended, netip.Addr{}) {
		taken++
	}
	const crowd = 50
	hello := clientHello(t)
	for i := range crowd + 1 {
		from := "127.0.0.1"
		if i == crowd {
			from = "127.0.0.2"
		}
		dialFrom(t, from, addr).send(hello)
		eventually(t, "it waits for a turn", func() bool { return turns.Waiting() == i+1 })
	}
	for range taken {
		turns.Give()
	}
	eventually(t, "all are computed", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(order) == crowd+1
	})
	if i := slices.Index(order, "127.0.0.2"); i < 0 || i > crowd/2 {
		t.Errorf("the client of another network was served after %d others", i)
	}
}
