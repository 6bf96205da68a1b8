//go:build !linux || portable

package wire

import (
	"errors"
	"net"
	"sync"
	"time"
)

// sysBatch is the part of a batch for system calls, of which there are none on this system.
type sysBatch struct{}

// idlePoller does not exist on this system: idle connections keep their goroutines.
type idlePoller struct{}

func newIdlePoller() (*idlePoller, error) { return nil, errors.ErrUnsupported }

func (*idlePoller) wakeReady() {}

func (*idlePoller) close() error { return nil }

func (*idlePoller) addSocket(socket, func()) bool { return false }

func (*idlePoller) armSocket(socket) bool { return false }

func (*idlePoller) removeSocket(socket) {}

// newSocket chooses the socket for a connection.
func newSocket(nc net.Conn) (socket, error) { //nolint:ireturn // there are two kinds
	return &plainSocket{nc: nc}, nil
}

// newTLSSocket chooses the socket for a connection with TLS.
func newTLSSocket(sock socket, _ *sync.Pool) securedSocket { //nolint:ireturn // there are two kinds
	plain, _ := sock.(*plainSocket)
	return plain
}

// setCongestion does nothing on this system.
func setCongestion(net.Conn, string) error { return nil }

// setUserTimeout does nothing on this system, where only keep-alive notices a dead connection.
func setUserTimeout(*net.TCPConn, time.Duration) error { return nil }
