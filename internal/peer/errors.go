package peer

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
)

// Errors of connections that this end has dialled.
var (
	// ErrDialRefused is returned by a dial if nobody listens at the address, as after the end of a process.
	ErrDialRefused = errors.New("the port refuses connections")
	// ErrHandshake is returned by a dial if the connection ended before both ends were proven.
	ErrHandshake = errors.New("the handshake with the other node was not finished")
	// ErrClosed is returned if this end has closed the connection.
	ErrClosed = errors.New("the connection to the other node was closed")
	// ErrClosedByPeer is returned if the other end has closed the connection, as the system does for a
	// process that ends.
	ErrClosedByPeer = errors.New("the other node has closed the connection")
	// ErrSilent is returned if the other end did not answer the system, or took no bytes.
	ErrSilent = errors.New("the other node is silent")
	// ErrProtocol is returned for an answer that belongs to no call, or cannot be read.
	ErrProtocol = errors.New("the other node does not keep to the protocol")
	// ErrQueueFull is returned for a message that was dropped, since too much waits to be sent.
	ErrQueueFull = errors.New("too much waits to be sent to the other node")
	// ErrTooLarge is returned for a request that no node accepts, and for an answer that is larger than its
	// caller takes; the answer ends the connection.
	ErrTooLarge = errors.New("a message between nodes is too large")
)

// Errors that end a connection which was accepted.
var (
	// ErrUnproven is returned for a request that only proven peers may send.
	ErrUnproven = errors.New("only a node of the cluster may send this, and the other end has not proven to be one")
	// ErrNotAllowed is returned for a request that this kind of identity may not send.
	ErrNotAllowed = errors.New("the identity that the other end has proven may not send this")
	// ErrNotServed is returned for a private key that this node does not serve.
	ErrNotServed = errors.New("this node does not serve the private key")
	// ErrOutOfTurn is returned for a message of the handshake that is not the next one.
	ErrOutOfTurn = errors.New("a message of the handshake came out of turn")
	// ErrNotAdmitted is returned when a peer that has proven itself is not admitted.
	ErrNotAdmitted = errors.New("the other end has proven itself and is not admitted")
)

// classify wraps an error of the network in the one of this package that says what it means.
func classify(err error) error {
	var timeout net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w: %w", ErrDialRefused, err)
	case errors.Is(err, syscall.ETIMEDOUT), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("%w: %w", ErrSilent, err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET),
		errors.Is(err, syscall.EPIPE), errors.Is(err, io.ErrClosedPipe):
		return fmt.Errorf("%w: %w", ErrClosedByPeer, err)
	}
	return err
}
