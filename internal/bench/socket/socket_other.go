//go:build !linux || portable

package socket

import (
	"errors"
	"net"
	"time"
)

// Socket is a connection of package net.
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

// Read reads the bytes that have come, and waits for at least one.
func (s *Socket) Read(b []byte) (int, error) { return s.c.Read(b) }

// Wait returns at once: ReadAvailable waits.
func (*Socket) Wait() error { return nil }

// ReadAvailable reads the bytes that have come, and waits for at least one.
func (s *Socket) ReadAvailable(b []byte) (int, error) { return s.c.Read(b) }

// SetLowWater does nothing, since Wait does not wait.
func (*Socket) SetLowWater(int) error { return nil }

// Discard reads n bytes that are not wanted.
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

// Shutdown ends the reads and writes of other goroutines.
func (s *Socket) Shutdown() { _ = s.c.SetDeadline(time.Unix(1, 0)) }

// Close ends the connection.
func (s *Socket) Close() { _ = s.c.Close() }

// SleepUntil waits until a time.
func SleepUntil(until time.Time) { time.Sleep(time.Until(until)) }

// SharpenTimers does nothing: the timers are Go's.
func SharpenTimers() {}
