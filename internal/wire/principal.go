package wire

import (
	"crypto/tls"
	"errors"
	"net"
	"time"
)

// connClass says by which limits a connection is counted.
//
//	                              .--its place is given to another client--> evicted, and closed
//	                              |
//	accepted --within Limits and MaxConns--> client --Prove, if Peers.Conns has room--> peer
//	    |                                                                                ^
//	    '--a limit is reached, but peers are expected--> waiting ---------Prove----------'
//	                                                        |
//	                                                        '-- waitingTime is over, another request than
//	                                                            that of the handshake, evicted --> closed
//
// A connection is in the class client or waiting because of the moment in which it came, and in the
// class peer by what it has proven. If Peers.Conns has no room, Prove leaves a client's connection
// where it is counted, and closes one that waits.
//
// Whatever its class, a connection that is proven takes nothing from clients and gives nothing up
// for them. Its small receive buffers come from Peers.Memory, its work memory is of the class
// budget.Peer, its unanswered requests and unsent answers are not part of what all connections may
// have, and it is not closed when memory is short or because it is idle.
type connClass uint8

const (
	classClient connClass = iota
	classWaiting
	classPeer
	classEvicted // it was a newcomer's, and ends

	classes = int(classEvicted) + 1
)

const (
	// waitingTime is how long a connection may stay in the waiting room.
	waitingTime = 2 * time.Second
	// challengedTime is how long a connection that has begun the handshake is not evicted from the waiting
	// room for others that come: a few round trips.
	challengedTime = 300 * time.Millisecond
	// waitingPerIP is the number of connections in the waiting room that an address, or an IPv6 /64, may have.
	waitingPerIP = 2
	// waitingPerMember is that number for an address from which members connect: one node has several
	// connections for another one, and several nodes may have one address.
	waitingPerMember = 8
	// waitingFrame is the size of the largest request of a connection that waits.
	waitingFrame = 4 << 10
	// LargestPeerFrame is the size of the largest request of a peer, if RequestMemory has room for it:
	// that of a message of the metadata quorum with some entries. Config.MaxFrame is for clients.
	LargestPeerFrame = 24 << 20

	// PeerSilence is how long the other end of a peer's connection may not answer the system, until
	// the connection ends.
	PeerSilence = 8 * time.Second
	// probeEvery is how often the system asks the other end of a peer's connection that is silent.
	probeEvery = 2 * time.Second
)

var (
	// errEarly refuses a proof if more bytes have come behind it. The dialling end waits for the answer.
	errEarly = errors.New("bytes came behind the proof of a peer, before it was answered")
	// errPeersFull refuses a peer that waits if there are as many peers' connections as descriptors for them.
	errPeersFull = errors.New("there are as many connections of other nodes as the limit of open files allows (ulimit -n, or LimitNOFILE= in a systemd unit): raise that limit")
)

// waitingPlace is what a connection in the waiting room has.
type waitingPlace struct {
	refusal  error       // a turnedAwayError: why it is closed if it does not prove that it is a peer's
	patience *time.Timer // closes it if it does not prove that in time
}

// turnedAwayError closes a connection that came when a limit was reached, and did not prove in the
// waiting room that it is a peer's.
type turnedAwayError struct{ limit error }

func (e *turnedAwayError) Error() string { return e.limit.Error() }

func (e *turnedAwayError) Unwrap() error { return e.limit }

// Prove makes the connection a peer's: see connClass. The Session calls it when the other end has
// proven who it is, while it serves the request that had the proof, which must be the last that has
// come, and for which no more work memory is reserved. After an error the Session must end the connection.
func (c *Conn) Prove() error {
	switch {
	case c.proven.Load():
		return nil
	case c.in.restSize() > 0:
		return errEarly
	case c.waits != nil && !c.waits.patience.Stop():
		return c.waits.refusal // its time is over
	}
	s := c.srv
	before, after := s.conns.promoteConn(c)
	if after == classWaiting {
		return errPeersFull
	}
	s.stats.countClass(before, -1)
	s.stats.countClass(after, 1)
	c.Settle()
	c.waits = nil
	c.in.useReserve(s.reserve)
	c.out.exempt()
	c.proven.Store(true)
	c.SetMaxFrame(0)
	return markGone(WatchPeer(c.nc))
}

// IsProven tells whether the connection is a peer's. Any goroutine may call it.
func (c *Conn) IsProven() bool { return c.proven.Load() }

// beginWaiting puts a new connection into the waiting room, because a limit was reached. It returns
// the limit's error if there is no room.
func (s *Server) beginWaiting(c *Conn, limit error) error {
	p := &s.cfg.Peers
	if len(p.Handshake) == 0 || p.Expected == nil || !p.Expected() {
		return limit
	}
	evicted, ok := s.conns.addWaiting(c, p.IsMember)
	if !ok {
		return limit
	}
	refusal := &turnedAwayError{limit}
	if evicted != nil {
		evicted.Close(refusal)
	}
	c.waits = &waitingPlace{refusal, time.AfterFunc(waitingTime, func() { c.Close(refusal) })}
	c.in.useReserve(s.reserve)
	c.SetMaxFrame(0)
	return nil
}

// checkWaiting returns an error unless a request of a connection that waits is the next one of the
// handshake.
func (s *Server) checkWaiting(c *Conn, key int16) error {
	keys, n := s.cfg.Peers.Handshake, c.in.frames-1
	if n >= uint64(len(keys)) || keys[n] != key || n == 0 && !s.conns.noteGreeted(c) {
		return c.waits.refusal
	}
	return nil
}

// refuseFrame returns the reason to close a connection that has sent a frame which cannot be read.
func refuseFrame(c *Conn, err error) error {
	if c.waits != nil {
		return c.waits.refusal
	}
	c.srv.stats.Refused.Add(1)
	return err
}

// WatchPeer has the system notice within PeerSilence that the other end of a connection is gone, or
// takes nothing that is sent to it. It does nothing for a connection that is not TCP.
func WatchPeer(nc net.Conn) error {
	if encrypted, ok := nc.(*tls.Conn); ok {
		nc = encrypted.NetConn()
	}
	tc, ok := nc.(*net.TCPConn)
	if !ok {
		return nil
	}
	keep := net.KeepAliveConfig{Enable: true, Idle: probeEvery, Interval: probeEvery, Count: int(PeerSilence/probeEvery) - 1}
	if err := tc.SetKeepAliveConfig(keep); err != nil {
		return err
	}
	return setUserTimeout(tc, PeerSilence)
}
