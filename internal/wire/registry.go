package wire

import (
	"errors"
	"fmt"
	"iter"
	"net"
	"net/netip"
	"slices"
	"sync"
)

// connEntry is a connection's place in a registry, which guards it.
type connEntry struct {
	prev, next *Conn
	suspended  bool
}

// registry has the connections of a server, and bounds their number.
type registry struct {
	mu        sync.Mutex // guards the fields below
	awake     *Conn      // a ring of the connections that have a goroutine
	suspended *Conn      // a ring of those that have none
	count     int        // of both
	most      int        // connections for which there are file descriptors; 0: no bound
	limits    Limits
	perIP     map[netip.Addr]int // the number of connections by address; nil without a limit
}

// errNoDescriptors refuses a connection if all file descriptors that are meant for connections
// are in use.
var errNoDescriptors = errors.New("as many as the limit of open files")

// maxConns is the number of connections that there may be; 0: it is not bounded.
func (g *registry) maxConns() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.most <= 0 || g.limits.Conns > 0 && g.limits.Conns < g.most {
		return g.limits.Conns
	}
	return g.most
}

// setLimits bounds the connections that are added from now on.
func (g *registry) setLimits(l Limits) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.limits = l
	switch {
	case !l.perIP():
		g.perIP = nil
	case g.perIP == nil: // open connections were not counted before
		g.perIP = map[netip.Addr]int{}
		for c := range g.eachLocked(true) {
			g.perIP[remoteIP(c.nc)]++
		}
	}
}

// addConn adds a connection, unless a limit is reached.
func (g *registry) addConn(c *Conn) error {
	ip := remoteIP(c.nc)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.most > 0 && g.count >= g.most {
		return fmt.Errorf("there are %d connections, %w (ulimit -n, or LimitNOFILE= in a systemd unit) allows: raise that limit", g.count, errNoDescriptors)
	}
	if g.limits.Conns > 0 && g.count >= g.limits.Conns {
		return fmt.Errorf("there are %d connections, as many as max.connections allows", g.count)
	}
	if most, ok := g.limits.forIP(ip); ok && ip.IsValid() && g.perIP[ip] >= most {
		return fmt.Errorf("this address has %d connections, as many as max.connections.per.ip allows", g.perIP[ip])
	}
	if g.perIP != nil {
		g.perIP[ip]++
	}
	linkConn(&g.awake, c)
	g.count++
	return nil
}

// removeConn removes a connection.
func (g *registry) removeConn(c *Conn) {
	ip := remoteIP(c.nc)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.count--
	if g.perIP != nil {
		if g.perIP[ip]--; g.perIP[ip] <= 0 {
			delete(g.perIP, ip)
		}
	}
	unlinkConn(g.ringOf(c), c)
}

// setSuspended moves a connection to the ring of those that are suspended, or back.
func (g *registry) setSuspended(c *Conn, suspended bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.entry.suspended != suspended {
		unlinkConn(g.ringOf(c), c)
		c.entry.suspended = suspended
		linkConn(g.ringOf(c), c)
	}
}

func (g *registry) ringOf(c *Conn) **Conn {
	if c.entry.suspended {
		return &g.suspended
	}
	return &g.awake
}

func linkConn(ring **Conn, c *Conn) {
	e := &c.entry
	if *ring == nil {
		e.prev, e.next = c, c
	} else {
		e.prev, e.next = (*ring).entry.prev, *ring
		e.prev.entry.next, e.next.entry.prev = c, c
	}
	*ring = c
}

func unlinkConn(ring **Conn, c *Conn) {
	e := &c.entry
	if e.next == c {
		*ring = nil
		return
	}
	if *ring == c {
		*ring = e.next
	}
	e.prev.entry.next, e.next.entry.prev = e.next, e.prev
}

// listConns lists the connections, including suspended ones if asked to, in the memory of into
// if that suffices.
func (g *registry) listConns(into []*Conn, suspended bool) []*Conn {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.AppendSeq(into[:0], g.eachLocked(suspended))
}

// eachLocked yields the connections, including suspended ones if asked to.
func (g *registry) eachLocked(suspended bool) iter.Seq[*Conn] {
	return func(yield func(*Conn) bool) {
		rings := []*Conn{g.awake, g.suspended}
		if !suspended {
			rings = rings[:1]
		}
		for _, first := range rings {
			for c := first; c != nil; {
				if !yield(c) {
					return
				}
				if c = c.entry.next; c == first {
					break
				}
			}
		}
	}
}

// remoteIP is the client's address, or the zero address if it has none.
func remoteIP(nc net.Conn) netip.Addr {
	if a, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// isLocal tells whether the client is on this machine: its address is a loopback one, or the
// one to which it has connected.
func isLocal(nc net.Conn) bool {
	ip := remoteIP(nc)
	here, ok := nc.LocalAddr().(*net.TCPAddr)
	return ip.IsLoopback() || ok && ip == here.AddrPort().Addr().Unmap()
}
