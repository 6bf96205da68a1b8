package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/wire"
)

const (
	// challengeTime is how long it may take until the other end has proven itself.
	challengeTime = 5 * time.Second
	// verdictTime is how long the other end may take to decide whether this one is admitted.
	verdictTime = 30 * time.Second
)

// DialFunc opens a connection to an address, which may have a protocol in front (SplitAddress), as net.Dialer's DialContext does. With TLS it
// returns a *tls.Conn, or Unverified.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// Dial connects to a node and does the handshake. dial opens the connection; nil: a net.Dialer does, without TLS.
// With TLS, the proofs are bound to the connection (credential.Channel). The errors of the handshake are credential's.
func Dial(ctx context.Context, address string, d *credential.Dialler, dial DialFunc) (*Conn, error) {
	if dial == nil {
		dial = dialPlain
	}
	c, err := dialAndProve(ctx, address, d, dial)
	if err != nil {
		return nil, fmt.Errorf("connecting to the node at %s: %w", address, err)
	}
	return c, nil
}

func dialAndProve(ctx context.Context, address string, d *credential.Dialler, dial DialFunc) (*Conn, error) {
	early, cancel := context.WithTimeout(ctx, challengeTime)
	defer cancel()
	nc, err := dial(early, "tcp", address)
	if err != nil {
		return nil, classify(err)
	}
	var session credential.Session
	var welcome credential.Welcome
	nc, channel := takeChannel(nc)
	d.UseChannel(channel)
	err = wire.WatchPeer(nc)
	if err == nil {
		err = doUntil(early, nc, func() error { return greet(nc, d) })
	}
	if err == nil {
		late, cancel := context.WithTimeout(ctx, verdictTime)
		defer cancel()
		err = doUntil(late, nc, func() (err error) {
			session, welcome, err = awaitVerdict(nc, d)
			return err
		})
	}
	if err != nil {
		_ = nc.Close() // an error would have no effect
		return nil, err
	}
	return newConn(nc, session, welcome), nil
}

// greet sends the hello, and the proof once the other end has proven itself.
func greet(nc net.Conn, d *credential.Dialler) error {
	hello, err := d.Hello()
	if err != nil {
		return err
	}
	challenge, err := exchange(nc, PeerHello, hello, credential.MaxMessage-headSize)
	if err != nil {
		return err
	}
	proof, err := d.Prove(challenge)
	if err != nil {
		return err
	}
	return sendHandshake(nc, PeerProve, proof)
}

// awaitVerdict reads the answer to the proof.
func awaitVerdict(nc net.Conn, d *credential.Dialler) (credential.Session, credential.Welcome, error) {
	verdict, err := readHandshake(nc, PeerProve, credential.MaxVerdict)
	if err != nil {
		return credential.Session{}, credential.Welcome{}, err
	}
	return d.Finish(verdict)
}

// exchange sends a message of the handshake and reads its answer.
func exchange(nc net.Conn, key int16, body []byte, most int) ([]byte, error) {
	if err := sendHandshake(nc, key, body); err != nil {
		return nil, err
	}
	return readHandshake(nc, key, most)
}

// sendHandshake sends a message of the handshake. Its key is its correlation id.
func sendHandshake(nc net.Conn, key int16, body []byte) error {
	m := message{key: key, body: body}
	_, err := nc.Write(m.appendFrame(nil, int32(key)))
	return err
}

// readHandshake reads the answer to a message of the handshake, and nothing behind it.
func readHandshake(nc net.Conn, key int16, most int) ([]byte, error) {
	id, left, err := readHead(nc)
	if err != nil {
		return nil, err
	}
	if id != int32(key) {
		return nil, fmt.Errorf("%w: an answer with the correlation id %d, which is not the next one", ErrProtocol, id)
	}
	return readSmall(nc, left, most)
}

// doUntil does something with a connection, which fails when the context ends. Errors of the network
// are those of an unfinished handshake.
func doUntil(ctx context.Context, nc net.Conn, do func() error) error {
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) }) // fails if it is closed
	err := do()
	if !stop() {
		return fmt.Errorf("%w in time: %w", ErrHandshake, ctx.Err())
	}
	if meant := classify(err); errors.Is(meant, ErrClosedByPeer) || errors.Is(meant, ErrSilent) || errors.Is(meant, ErrProtocol) || errors.Is(meant, ErrTooLarge) {
		return fmt.Errorf("%w: %w", ErrHandshake, meant)
	}
	return err
}
