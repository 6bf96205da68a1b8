//go:build !linux || portable

package socket

import (
	"errors"
	"net"
	"time"
)

// Socket is a connection through Go's own sockets.
type Socket struct {
	c       *net.TCPConn
	scratch []byte
}

// New uses the connection as it is.
func New(c *net.TCPConn, congestion string) (*Socket, error) {
	if congestion != "" {
		return nil, errors.Join(errors.New("--congestion needs Linux"), c.Close())
	}
	return &Socket{c: c}, nil
}

// OwnThread does nothing: Go's poller serves all goroutines.
func OwnThread() {}

// WriteAll writes all of b.
func (s *Socket) WriteAll(b []byte) error {
	_, err := s.c.Write(b)
	return err
}

// Read reads what has come, at least a byte.
func (s *Socket) Read(b []byte) (int, error) { return s.c.Read(b) }

// Wait leaves it to Take to wait.
func (*Socket) Wait() error { return nil }

// Take reads what has come, at least a byte.
func (s *Socket) Take(b []byte) (int, error) { return s.c.Read(b) }

// SetLow does nothing, since Wait does not wait.
func (*Socket) SetLow(int) error { return nil }

// Discard reads n bytes that nobody wants to see.
func (s *Socket) Discard(n int) error {
	if s.scratch == nil {
		s.scratch = make([]byte, 256<<10)
	}
	for n > 0 {
		k, err := s.c.Read(s.scratch[:min(n, len(s.scratch))])
		if err != nil {
			return err
		}
		n -= k
	}
	return nil
}

// Shutdown ends reads and writes of other goroutines.
func (s *Socket) Shutdown() { _ = s.c.SetDeadline(time.Unix(1, 0)) }

// Close ends the connection.
func (s *Socket) Close() { _ = s.c.Close() }

// SleepUntil waits until a time.
func SleepUntil(until time.Time) { time.Sleep(time.Until(until)) }

// SharpenTimers does nothing: the timers are Go's.
func SharpenTimers() {}
