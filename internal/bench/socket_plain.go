//go:build !linux || portable

package bench

import (
	"errors"
	"net"
	"time"
)

// socket is a connection through Go's own sockets.
type socket struct {
	c       *net.TCPConn
	scratch []byte
}

func newSocket(c *net.TCPConn, congestion string) (*socket, error) {
	if congestion != "" {
		return nil, errors.Join(errors.New("--congestion needs Linux"), c.Close())
	}
	return &socket{c: c}, nil
}

func ownThread() {}

func (s *socket) write(b []byte) error {
	_, err := s.c.Write(b)
	return err
}

func (s *socket) read(b []byte) (int, error) { return s.c.Read(b) }

// wait leaves it to take to wait.
func (*socket) wait() error { return nil }

func (s *socket) take(b []byte) (int, error) { return s.c.Read(b) }

func (*socket) setLow(int) error { return nil }

func (s *socket) discard(n int) error {
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

func (s *socket) shutdown() { _ = s.c.SetDeadline(time.Unix(1, 0)) }

func (s *socket) close() { _ = s.c.Close() }

func preciseSleep(until time.Time) { time.Sleep(time.Until(until)) }

func sharpTimers() {}
