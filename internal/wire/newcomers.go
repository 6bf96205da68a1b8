package wire

import (
	"container/list"
	"errors"
	"net/netip"
	"time"

	"github.com/leatstream/leat/internal/budget"
)

// newcomers are clients' connections that have shown nothing yet: no login where the listener asks for one, and elsewhere no request. They
// cost whoever opens them next to nothing. So when there are as many connections as there may be, one of them is closed for the next
// connection, and a flood of them keeps no client out:
//
//	newcomer --has logged in, or sent a request--> settled, which nobody takes the place of
//	    |
//	    '--closed for another connection, or ended--> gone
//
// The registry guards it.
type newcomers struct {
	list list.List          // of *Conn, the oldest first
	from map[netip.Addr]int // their number by network
}

const (
	// mostCompared is how many of the oldest newcomers are compared to find the one to close. Those of a flood are many, and
	// stay, so that some are among them.
	mostCompared = 64
	// newcomerTime is how long a newcomer has its place against other clients of networks that have as many newcomers as its own: enough
	// to log in. So clients that all come back at the same time do not close each other's connections in turn.
	newcomerTime = time.Second
	// mostEvicted is how many connections that were closed for others may not have ended yet, and leastEvicted the same where there are few
	// file descriptors, of which each still has one: a part of the connections for which there are some.
	mostEvicted, leastEvicted, evictedShare = 256, 4, 64
)

// errNewcomer ends a newcomer's connection to make room for another one.
var errNewcomer = errors.New("another connection has taken the place of this one, which has been open for longest, of those of its network, without a login or a request")

func (n *newcomers) add(c *Conn) {
	if n.from == nil {
		n.from = map[netip.Addr]int{}
	}
	c.entry.came, c.entry.newcomer = time.Now(), n.list.PushBack(c)
	n.from[budget.NetworkOf(remoteIP(c.nc))]++
}

// remove removes a connection, if it is a newcomer's.
func (n *newcomers) remove(c *Conn) {
	if c.entry.newcomer == nil {
		return
	}
	n.list.Remove(c.entry.newcomer)
	c.entry.newcomer = nil
	from := budget.NetworkOf(remoteIP(c.nc))
	if n.from[from]--; n.from[from] == 0 {
		delete(n.from, from)
	}
}

// choose chooses the newcomer to close for a connection from an address: the oldest one of the network with the most of them. nil: none
// may be closed.
func (n *newcomers) choose(ip netip.Addr) (chosen *Conn) {
	crowd := 0
	e := n.list.Front()
	for range mostCompared {
		if e == nil {
			break
		}
		c, _ := e.Value.(*Conn)
		if of := n.from[budget.NetworkOf(remoteIP(c.nc))]; of > crowd {
			chosen, crowd = c, of
		}
		e = e.Next()
	}
	if chosen != nil && crowd <= n.from[budget.NetworkOf(ip)]+1 && time.Since(chosen.entry.came) < newcomerTime {
		return nil
	}
	return chosen
}

// Settle tells that the connection's client has logged in. Only the Session may call it, and it need not be called where the listener asks
// for no login.
func (c *Conn) Settle() {
	if c.isNew {
		c.isNew = false
		c.srv.conns.settleConn(c)
	}
}
