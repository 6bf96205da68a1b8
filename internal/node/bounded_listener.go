package node

import (
	"net"
	"net/http"
	"slices"
	"sync"
)

// boundedListener bounds its connections. When there are as many as there may be, it closes one
// for the next, so that clients that only keep connections open do not keep others out, such as
// the probes of an orchestrator.
type boundedListener struct {
	net.Listener

	most int

	mu   sync.Mutex
	open []*boundedConn // the one that has been in its state for the longest is first; guarded by mu
}

// Accept accepts a connection, and closes another one if there are too many then.
func (l *boundedListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &boundedConn{Conn: nc, of: l}
	if old := l.addConn(c); old != nil {
		_ = old.Close() // its client may have been sent nothing
	}
	return c, nil
}

// addConn adds a connection, and returns the one to be closed for it: the oldest that has no
// request or, if all have one, the oldest.
func (l *boundedListener) addConn(c *boundedConn) (old *boundedConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.open) >= l.most {
		old = l.open[max(0, slices.IndexFunc(l.open, func(o *boundedConn) bool { return !o.active }))]
	}
	l.open = append(l.open, c)
	return old
}

func (l *boundedListener) removeConn(c *boundedConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open = slices.DeleteFunc(l.open, func(o *boundedConn) bool { return o == c })
}

// boundedConn is a connection of a boundedListener.
type boundedConn struct {
	net.Conn

	of     *boundedListener
	active bool // a request has begun to come and is not answered yet; guarded by of.mu
}

// Close closes the connection, and makes room for another one.
func (c *boundedConn) Close() error {
	c.of.removeConn(c)
	return c.Conn.Close()
}

// noteHTTPState notes whether a connection of an HTTP server has a request.
func noteHTTPState(nc net.Conn, state http.ConnState) {
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
