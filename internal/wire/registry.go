package wire

import (
	"container/list"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/leatstream/leat/internal/budget"
)

// connEntry is a connection's place in a registry, which guards it.
type connEntry struct {
	prev, next *Conn
	suspended  bool
	class      connClass
	greeted    time.Time // when it began the handshake, if it waits; zero: it has not
	isMember   bool      // it waits, and comes from an address of a member
	newcomer   *list.Element
	came       time.Time // when it became a newcomer
}

// registry has the connections of a server, and bounds their number.
type registry struct {
	mu        sync.Mutex // guards the fields below
	awake     *Conn      // a ring of the connections that have a goroutine
	suspended *Conn      // a ring of those that have none
	counts    [classes]int
	most      int // clients' connections for which there are file descriptors; 0: no bound
	memory    int // clients' connections for which there is memory; 0: no bound
	limits    Limits
	perIP     map[netip.Addr]int // the number of clients' connections by address; nil without a limit

	newcomers newcomers // of the clients' connections

	mostPeers, mostWaiting int     // connections for which there are file descriptors
	waiting                []*Conn // the connections in the waiting room, the oldest first
}

// errNoDescriptors refuses a connection if all file descriptors that are meant for connections
// are in use.
var errNoDescriptors = errors.New("as many as the limit of open files")

// errNoConnMemory refuses a connection if all connections together would take more memory than is
// meant for them.
var errNoConnMemory = errors.New("as many as the memory of this process")

// maxConns is the number of connections that there may be; 0: it is not bounded.
func (g *registry) maxConns() (least int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, n := range []int{g.most, g.memory, g.limits.Conns} {
		if n > 0 && (least == 0 || n < least) {
			least = n
		}
	}
	return least
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
			if c.entry.class == classClient {
				g.perIP[remoteIP(c.nc)]++
			}
		}
	}
}

// addConn adds a client's connection, unless a limit is reached, which it returns. If it is one of all connections together, a newcomer is
// evicted for the new connection, if there is one; the caller must close it.
func (g *registry) addConn(c *Conn) (evicted *Conn, limit error) {
	ip := remoteIP(c.nc)
	g.mu.Lock()
	defer g.mu.Unlock()
	if most, ok := g.limits.forIP(ip); ok && ip.IsValid() && g.perIP[ip] >= most {
		return nil, fmt.Errorf("max.connections.per.ip allows this address %d at a time, and so many are open", g.perIP[ip])
	}
	if limit = g.checkCountLocked(); limit != nil {
		if evicted = g.newcomers.choose(ip); evicted == nil || g.counts[classEvicted] >= g.mostEvicted() {
			return nil, limit
		}
		g.uncountLocked(evicted)
		evicted.entry.class = classEvicted
		g.counts[classEvicted]++
	}
	if g.perIP != nil {
		g.perIP[ip]++
	}
	g.newcomers.add(c)
	linkConn(&g.awake, c)
	g.counts[classClient]++
	return evicted, limit
}

// mostEvicted is how many evicted connections may not have ended yet.
func (g *registry) mostEvicted() int {
	if g.most == 0 {
		return mostEvicted
	}
	return min(max(g.most/evictedShare, leastEvicted), mostEvicted)
}

// checkCountLocked returns an error if there are as many clients' connections as there may be.
func (g *registry) checkCountLocked() error {
	count := g.counts[classClient]
	if g.most > 0 && count >= g.most {
		return fmt.Errorf("there are %d connections, %w (ulimit -n, or LimitNOFILE= in a systemd unit) allows: raise that limit", count, errNoDescriptors)
	}
	if g.memory > 0 && count >= g.memory {
		return fmt.Errorf("there are %d connections, %w (GOMEMLIMIT, or the memory limit of its container or service) allows: give it more", count, errNoConnMemory)
	}
	if g.limits.Conns > 0 && count >= g.limits.Conns {
		return fmt.Errorf("max.connections allows %d at a time, and so many are open", count)
	}
	return nil
}

// settleConn takes a connection out of the newcomers.
func (g *registry) settleConn(c *Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.newcomers.remove(c)
}

// addWaiting adds a connection to the waiting room; isMembers tells whether an address is a member's, nil: none is.
// If it is full, another connection is evicted, which the caller must close; if none may be, ok is false.
//
// The places are the members' first: one of a stranger is given up to any of theirs, and none of theirs to a
// stranger, so that no flood of strangers keeps the nodes of the cluster apart.
func (g *registry) addWaiting(c *Conn, isMembers func(ip netip.Addr) bool) (evicted *Conn, ok bool) {
	ip := remoteIP(c.nc)
	from, most := budget.NetworkOf(ip), waitingPerIP
	isMember := isMembers != nil && isMembers(ip)
	if isMember {
		most = waitingPerMember
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	ofNetwork := 0
	for _, w := range g.waiting {
		if budget.NetworkOf(remoteIP(w.nc)) == from {
			ofNetwork++
		}
	}
	if crowded := ofNetwork >= most; crowded || len(g.waiting) >= g.mostWaiting {
		i := g.chooseEvictedLocked(isMember && !crowded, func(w *Conn) bool {
			if crowded {
				return budget.NetworkOf(remoteIP(w.nc)) == from
			}
			return isMember || !w.entry.isMember
		})
		if i < 0 {
			return nil, false
		}
		evicted = g.waiting[i]
		g.waiting = slices.Delete(g.waiting, i, i+1)
	}
	c.entry.class, c.entry.isMember = classWaiting, isMember
	g.waiting = append(g.waiting, c)
	linkConn(&g.awake, c)
	g.counts[classWaiting]++
	return evicted, true
}

// chooseEvictedLocked returns the index of the waiting connection to evict, of those that may be, or -1. It is
// the oldest one that has not begun a handshake. If all have, it is the one that began it first, if that was
// challengedTime ago: beginning costs a stranger nothing, so a challenge must be answered soon where others wait.
// If strangersFirst is set, a stranger's is evicted before all others, however short ago it began.
func (g *registry) chooseEvictedLocked(strangersFirst bool, mayBe func(w *Conn) bool) int {
	first := -1
	isBefore := func(w, other *Conn) bool {
		if strangersFirst && w.entry.isMember != other.entry.isMember {
			return other.entry.isMember
		}
		return w.entry.greeted.Before(other.entry.greeted)
	}
	for i, w := range g.waiting {
		if mayBe(w) && (first < 0 || isBefore(w, g.waiting[first])) {
			first = i
		}
	}
	if first < 0 {
		return -1
	}
	e := &g.waiting[first].entry
	canGoOn := time.Since(e.greeted) < challengedTime
	if canGoOn && (e.isMember || !strangersFirst) {
		return -1
	}
	return first
}

// noteGreeted notes that a waiting connection has begun the handshake, so that it is not evicted soon. It
// returns false if it was evicted before.
func (g *registry) noteGreeted(c *Conn) (waits bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c.entry.greeted = time.Now()
	return slices.Contains(g.waiting, c)
}

// promoteConn counts a connection as a peer's if there is room for one more, and returns its class
// before and after.
func (g *registry) promoteConn(c *Conn) (before, after connClass) {
	g.mu.Lock()
	defer g.mu.Unlock()
	before = c.entry.class
	if before == classPeer || before == classEvicted || g.counts[classPeer] >= g.mostPeers {
		return before, before
	}
	g.uncountLocked(c)
	c.entry.class = classPeer
	g.counts[classPeer]++
	return before, classPeer
}

// removeConn removes a connection, and returns its class.
func (g *registry) removeConn(c *Conn) connClass {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.uncountLocked(c)
	unlinkConn(g.ringOf(c), c)
	return c.entry.class
}

// uncountLocked takes a connection out of the counts of its class.
func (g *registry) uncountLocked(c *Conn) {
	g.newcomers.remove(c)
	g.counts[c.entry.class]--
	switch ip := remoteIP(c.nc); {
	case c.entry.class == classWaiting:
		if i := slices.Index(g.waiting, c); i >= 0 {
			g.waiting = slices.Delete(g.waiting, i, i+1)
		}
	case c.entry.class == classClient && g.perIP != nil:
		if g.perIP[ip]--; g.perIP[ip] <= 0 {
			delete(g.perIP, ip)
		}
	}
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
