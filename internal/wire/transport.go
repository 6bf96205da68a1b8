package wire

import (
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/leatstream/leat/internal/budget"
)

const (
	// handshakeBytes is how many bytes a client may send before its handshake is over. A chain of three certificates with
	// large keys takes about half of it.
	handshakeBytes = 16 << 10
	// firstRecord is the size of the first buffer for a record of the handshake.
	firstRecord = 512
	// recordHead is the size of the head of a record of TLS: its type, a version, and its length.
	recordHead = 5
)

// errLargeHandshake ends a connection whose client sends too much before the handshake is over.
var errLargeHandshake = errors.New("the client has sent more than 16 KiB before the end of the handshake")

// transport carries the records of an encrypted connection between crypto/tls and the network. It is a net.Conn for
// crypto/tls only. It has two stages:
//
//	handshake --beginData--> data
//
// In the handshake, Read and Write wait for the client. Read takes whole records only: crypto/tls makes room for as many bytes
// as a record announces, and a client must not get more room than it has sent bytes. Later the socket reads and writes, if it has
// calls that do not wait (tlsSocket); else Read and Write go on waiting.
//
// The connection's goroutine owns the fields. Once data is set, senders may call Write, too, which then uses no other field.
type transport struct {
	nc   net.Conn
	turn *handshakeTurn
	data dataSocket // nil: the stage is the handshake, or the socket waits

	early []byte // bytes that have come in the handshake, and that crypto/tls has not taken
	whole int    // how many of them are whole records
	sent  int    // bytes that the client has sent in the handshake
}

// Read reads bytes of records.
func (t *transport) Read(p []byte) (int, error) {
	switch {
	case len(t.early) > 0 && (t.whole > 0 || t.turn == nil):
	case t.turn == nil && t.data != nil:
		return t.data.readRecords(p)
	case t.turn == nil:
		return t.nc.Read(p)
	default:
		t.turn.yield()
		if err := t.awaitRecord(); err != nil {
			return 0, err
		}
		if err := t.turn.take(); err != nil {
			return 0, err
		}
	}
	ready := t.early
	if t.turn != nil {
		ready = t.early[:t.whole]
	}
	n := copy(p, ready)
	t.early, t.whole = t.early[n:], max(0, t.whole-n)
	if len(t.early) == 0 {
		t.early = nil
	}
	return n, nil
}

// awaitRecord waits until early begins with a whole record, or with bytes that are none, which crypto/tls refuses.
func (t *transport) awaitRecord() error {
	for {
		if t.whole = wholeRecord(t.early); t.whole > 0 {
			return nil
		}
		if t.sent >= handshakeBytes {
			return errLargeHandshake
		}
		if len(t.early) == cap(t.early) {
			t.early = append(make([]byte, 0, max(firstRecord, 2*len(t.early))), t.early...)
		}
		have := len(t.early)
		n, err := t.nc.Read(t.early[have:min(cap(t.early), have+handshakeBytes-t.sent)])
		t.early, t.sent = t.early[:have+n], t.sent+n
		if n == 0 && err != nil {
			return err
		}
	}
}

// wholeRecord is the number of bytes at the front of b that crypto/tls may have: a whole record, or all of them if they
// are no record; 0: more must come first.
func wholeRecord(b []byte) int {
	if len(b) == 0 {
		return 0
	}
	if b[0] < 20 || b[0] > 23 { // crypto/tls needs a whole head to say so
		if len(b) < recordHead {
			return 0
		}
		return len(b)
	}
	if len(b) < recordHead {
		return 0
	}
	if n := recordHead + int(b[3])<<8 + int(b[4]); n <= len(b) {
		return n
	}
	return 0
}

// Write writes bytes of records.
func (t *transport) Write(p []byte) (int, error) {
	if t.data != nil {
		return t.data.writeRecords(p)
	}
	return t.nc.Write(p)
}

// Close closes the connection.
func (t *transport) Close() error { return t.nc.Close() }

// LocalAddr is the address to which the client has connected.
func (t *transport) LocalAddr() net.Addr { return t.nc.LocalAddr() }

// RemoteAddr is the client's address.
func (t *transport) RemoteAddr() net.Addr { return t.nc.RemoteAddr() }

// SetDeadline does nothing: the connection's deadlines are set without crypto/tls.
func (*transport) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (*transport) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing: crypto/tls would set one when it says that nothing follows.
func (*transport) SetWriteDeadline(time.Time) error { return nil }

// handshakeTurn is a handshake's turn to compute.
type handshakeTurn struct {
	turns  *budget.Turns
	from   netip.Addr      // the client's address
	closed <-chan struct{} // when the connection is
	taken  bool
}

// take waits for the turn.
func (t *handshakeTurn) take() error {
	if t.taken {
		return nil
	}
	if t.taken = t.turns.Take(t.closed, t.from); !t.taken {
		return net.ErrClosed
	}
	return nil
}

// yield gives the turn up.
func (t *handshakeTurn) yield() {
	if t.taken {
		t.turns.Give()
		t.taken = false
	}
}
