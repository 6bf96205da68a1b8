//go:build !linux || portable

package wire

import (
	"errors"
	"net"
)

// sysBatch is the part of a batch for system calls: nothing here.
type sysBatch struct{}

// idlePoller would watch suspended connections, so that they need no goroutine each.
type idlePoller struct{}

func newIdlePoller() (*idlePoller, error) { return nil, errors.ErrUnsupported }

func (*idlePoller) wakeReady() {}

func (*idlePoller) close() error { return nil }

func (*idlePoller) enroll(socket, func()) bool { return false }

func (*idlePoller) arm(socket) bool { return false }

func (*idlePoller) forget(socket) {}

// newSocket chooses the socket for a connection.
func newSocket(nc net.Conn) (socket, error) { //nolint:ireturn // there are two kinds
	return &plainSocket{nc: nc}, nil
}

// setCongestion would set the connection's congestion control.
func setCongestion(net.Conn, string) error { return nil }
