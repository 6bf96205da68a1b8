package wire

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/leatstream/leat/internal/budget"
)

const (
	// handshakeTime is how long the handshake of a connection may take, from the moment in which it is accepted.
	handshakeTime = 10 * time.Second
	// handshakeMemory is about how much memory a handshake takes that waits for its client.
	handshakeMemory = 64 << 10
	// handshakeShare is the part of RequestMemory for which there may be handshakes, which comes on top of it.
	handshakeShare = 8
	// leastHandshakes may be under way at the same time in any case.
	leastHandshakes = 16
)

var (
	// errSlowHandshake ends a connection whose handshake takes too long.
	errSlowHandshake = fmt.Errorf("the handshake was not over within %v", handshakeTime)
	// errManyHandshakes ends a handshake that waits for its client when there are too many of them.
	errManyHandshakes = errors.New("there are too many handshakes at the same time, and this one has waited for its client for longest of those of its network")
	// errNoTLS ends a connection whose client does not begin a handshake.
	errNoTLS = errors.New("the client does not speak TLS; it may be set up for a listener without encryption (security.protocol)")
)

// handshakeError ends a connection whose handshake has failed.
type handshakeError struct{ err error }

func (e *handshakeError) Error() string { return "TLS handshake: " + e.err.Error() }

func (e *handshakeError) Unwrap() error { return e.err }

// handshakes bounds the handshakes that are under way. A connection takes a place when the first record of its client has
// come. If all places are taken, the handshake that is oldest in the network with the most of them gives its place up, so that
// a flood from one network keeps no client of others out.
//
// While a client is waited for, its handshake takes no turn. So few take one at the same time that other work goes on beside them,
// however many clients come. The networks take turns, since a client can have one handshake compute for a tenth of a second: by a chain
// of certificates that nobody has signed.
type handshakes struct {
	most  int
	turns *budget.Turns // of those that compute now

	mu   sync.Mutex
	open []*Conn            // the oldest first; guarded by mu
	from map[netip.Addr]int // the number of open ones by network; guarded by mu
}

func newHandshakes(requestMemory int64) *handshakes {
	return &handshakes{
		most:  int(max(leastHandshakes, requestMemory/handshakeShare/handshakeMemory)),
		turns: budget.NewTurns(runtime.GOMAXPROCS(0) / 2),
		from:  map[netip.Addr]int{},
	}
}

// begin takes a place for a connection's handshake. The caller must close the one that it returns, if any.
func (h *handshakes) begin(c *Conn) (evicted *Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.open) >= h.most {
		crowd := 0
		for _, n := range h.from {
			crowd = max(crowd, n)
		}
		i := slices.IndexFunc(h.open, func(o *Conn) bool { return h.from[budget.NetworkOf(remoteIP(o.nc))] == crowd })
		evicted = h.open[i]
		h.removeLocked(i)
	}
	h.open = append(h.open, c)
	h.from[budget.NetworkOf(remoteIP(c.nc))]++
	return evicted
}

// end gives a connection's place up, if it still has one.
func (h *handshakes) end(c *Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if i := slices.Index(h.open, c); i >= 0 {
		h.removeLocked(i)
	}
}

func (h *handshakes) removeLocked(i int) {
	from := budget.NetworkOf(remoteIP(h.open[i].nc))
	if h.from[from]--; h.from[from] == 0 {
		delete(h.from, from)
	}
	h.open = slices.Delete(h.open, i, i+1)
}

// shakeHands does the handshake of a new connection, if its listener asks for TLS, or if it takes TLS and the client begins one.
func shakeHands(c *Conn) error {
	if c.secured == nil && c.listener.Sharing == nil || c.sess != nil {
		return nil
	}
	if c.listener.Sharing != nil && c.listener.Sharing() == PlainOnly {
		c.plain.Store(true)
		return nil
	}
	if !c.life.changeState(connHandshaking) {
		return c.life.closeReason()
	}
	err := c.nc.SetDeadline(time.Now().Add(handshakeTime))
	var first []byte
	if err == nil && c.listener.Sharing != nil {
		if first, err = chooseProtection(c); err == nil && c.secured == nil {
			return err
		}
	}
	if err == nil {
		err = runHandshake(c, first)
	}
	if err == nil {
		err = c.nc.SetDeadline(time.Time{}) // if it was that of stopReading, the caller notices
	}
	if err != nil {
		c.srv.stats.HandshakesFailed.Add(1)
		return describeHandshake(err)
	}
	c.srv.stats.Handshakes.Add(1)
	c.activity.noteProgress()
	c.life.changeState(connOpening)
	return nil
}

// runHandshake does the handshake, and has the socket use its keys. first has come already.
func runHandshake(c *Conn, first []byte) error {
	t := &transport{nc: c.nc, early: first, sent: len(first)}
	if err := t.awaitRecord(); err != nil {
		return err
	}
	all := c.srv.handshakes
	if evicted := all.begin(c); evicted != nil {
		evicted.Close(&handshakeError{errManyHandshakes})
	}
	defer all.end(c)
	t.turn = &handshakeTurn{turns: all.turns, from: remoteIP(c.nc), closed: c.life.closedChan()}
	defer t.turn.yield()
	if err := t.turn.take(); err != nil {
		return err
	}
	conn := tls.Server(t, c.listener.TLS())
	if err := conn.HandshakeContext(connContext{}); err != nil { // it ends with the deadline, or when the connection is closed
		return err
	}
	t.turn.yield()
	t.turn = nil
	t.data = c.secured.secure(conn)
	c.tls = conn
	return nil
}

// describeHandshake says why a handshake has failed.
func describeHandshake(err error) error {
	var head tls.RecordHeaderError
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &handshakeError{errSlowHandshake}
	case errors.As(err, &head) && head.Conn != nil:
		return &handshakeError{errNoTLS}
	case isClosed(err), isNetwork(err):
		return markGone(err)
	}
	return &handshakeError{err}
}

// isNetwork tells whether an error is one of the network, and not an alert of either end, which crypto/tls has in a net.OpError, too.
func isNetwork(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op != "remote error" && op.Op != "local error"
}

// TLS is how the connection is encrypted, and the certificates that the client has shown; nil: it is not.
func (c *Conn) TLS() *tls.ConnectionState {
	if c.tls == nil {
		return nil
	}
	state := c.tls.ConnectionState()
	return &state
}
