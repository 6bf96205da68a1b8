package node

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"

	"github.com/leatstream/leat/internal/budget"
)

// boundedListener bounds its connections. When there are as many as there may be, it closes one
// for the next, so that clients that only keep connections open do not keep others out, such as
// the probes of an orchestrator. It is one of the network (an IPv4 address or an IPv6 /64) that has most of them, so that a flood from one
// network ends no request of another one.
type boundedListener struct {
	net.Listener

	most int

	mu   sync.Mutex
	open []*boundedConn     // the one that has been in its state for the longest is first; guarded by mu
	from map[netip.Addr]int // their number by network; guarded by mu
}

// Accept accepts a connection, and closes another one if there are too many then.
func (l *boundedListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := newBoundedConn(nc, l)
	if old := l.addConn(c); old != nil {
		_ = old.Close() // its client may have been sent nothing
	}
	return c, nil
}

// addConn adds a connection, and returns the one to be closed for it, of the network with the most of them: the oldest that has no
// request or, if all have one, the oldest.
func (l *boundedListener) addConn(c *boundedConn) (old *boundedConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.open) >= l.most {
		crowd := 0
		for _, n := range l.from {
			crowd = max(crowd, n)
		}
		for _, o := range l.open {
			if l.from[o.network] == crowd && (old == nil || old.active && !o.active) {
				old = o
			}
		}
	}
	l.open = append(l.open, c)
	if l.from == nil {
		l.from = map[netip.Addr]int{}
	}
	l.from[c.network]++
	return old
}

func (l *boundedListener) removeConn(c *boundedConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.open, c)
	if i < 0 {
		return
	}
	l.open = slices.Delete(l.open, i, i+1)
	if l.from[c.network]--; l.from[c.network] == 0 {
		delete(l.from, c.network)
	}
}

// boundedConn is a connection of a boundedListener.
type boundedConn struct {
	net.Conn

	of      *boundedListener
	network netip.Addr
	active  bool // a request has begun to come and is not answered yet; guarded by of.mu
}

func newBoundedConn(nc net.Conn, of *boundedListener) *boundedConn {
	return &boundedConn{Conn: nc, of: of, network: budget.NetworkOf(addressOf(nc))}
}

// addressOf is the client's address; the zero address: it has none.
func addressOf(nc net.Conn) netip.Addr {
	if a, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr()
	}
	return netip.Addr{}
}

// noteOrigin has the work for requests be that for the client's address.
func noteOrigin(ctx context.Context, nc net.Conn) context.Context {
	return budget.WithOrigin(ctx, addressOf(nc))
}

// Close closes the connection, and makes room for another one.
func (c *boundedConn) Close() error {
	c.of.removeConn(c)
	return c.Conn.Close()
}

// noteHTTPState notes whether a connection of an HTTP server has a request.
func noteHTTPState(nc net.Conn, state http.ConnState) {
	if encrypted, ok := nc.(*tls.Conn); ok {
		nc = encrypted.NetConn()
	}
	c, ok := nc.(*boundedConn)
	if !ok || state != http.StateActive && state != http.StateIdle {
		return
	}
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	c.active = state == http.StateActive
	if i := slices.Index(c.of.open, c); i >= 0 {
		c.of.open = append(slices.Delete(c.of.open, i, i+1), c)
	}
}
