package wire

import (
	"errors"
	"os"
	"time"
)

// handshakeRecord is the first byte of a connection with TLS: the type of a record of the handshake. No request of Kafka begins with it, since that would be
// one of 352 MiB at least, which is more than a client may send before it is known.
const handshakeRecord = 22

// errPlain closes a connection without TLS where only those with TLS are taken now.
var errPlain = errors.New("this cluster was secured, and takes connections with TLS only: set the client up with security.protocol=SASL_SSL and a user (leat secure shows the lines)")

// ErrPlainEnds closes a connection without TLS that was open when the cluster was secured.
var ErrPlainEnds = errors.New("this cluster was secured while it ran, and connections without TLS have ended")

// chooseProtection finds out what a connection is on a listener that may be shared, by its first byte, which it returns if it is of TLS. A client that
// says nothing for the time of a handshake has no TLS: its part would have been the first.
func chooseProtection(c *Conn) (first []byte, err error) {
	var b [1]byte
	n, err := c.nc.Read(b[:])
	isTLS := n == 1 && b[0] == handshakeRecord
	switch {
	case n == 0 && c.listener.Sharing() == PlainAndTLS && errors.Is(err, os.ErrDeadlineExceeded):
		return nil, keepPlain(c, nil)
	case n == 0:
		return nil, err
	case !isTLS && c.listener.Sharing() == TLSOnly: // it may have changed in the meantime
		return nil, errPlain
	case !isTLS:
		return nil, keepPlain(c, b[:])
	}
	c.secured = newTLSSocket(c.sock, &c.srv.records)
	c.sock = c.secured
	c.out.useSocket(c.secured)
	return b[:], nil
}

// keepPlain leaves a connection as it is, and has the bytes that came be its first ones.
func keepPlain(c *Conn, first []byte) error {
	c.plain.Store(true)
	if err := c.nc.SetDeadline(time.Time{}); err != nil { // if it was that of stopReading, the caller notices
		return markGone(err)
	}
	if len(first) > 0 {
		if err := awaitRoomFor(&c.in); err != nil {
			return err
		}
		c.in.addReceived(copy(c.in.freeRoom(), first))
	}
	c.life.changeState(connOpening)
	return nil
}

// EndPlain ends the connections that have come without TLS to listeners which may be shared: they read no further requests, and are closed when their
// answers are sent; if now is true, they are closed at once. It returns how many there were.
func (s *Server) EndPlain(now bool) (n int) {
	for _, c := range s.conns.listConns(nil, true) {
		switch {
		case !IsPlain(c):
			continue
		case now:
			c.Close(ErrPlainEnds)
		default:
			c.Finish(ErrPlainEnds)
		}
		n++
	}
	return n
}
