//go:build !linux || portable

package wire

import "errors"

// sysWriter is what a writer needs for system calls: nothing here.
type sysWriter struct{}

// dozer would keep idle connections without a goroutine each.
type dozer struct{}

func newDozer(*Server) (*dozer, error) { return nil, errors.ErrUnsupported }

func (*dozer) run() {}

func (*dozer) close() error { return nil }

// vigil would keep the runtime's monitor thread from falling asleep between requests.
type vigil struct{}

// attach chooses the socket for the connection.
func (c *Conn) attach() error {
	c.sock = &plainSocket{nc: c.nc}
	return nil
}

// tune would set the connection's congestion control.
func (*Conn) tune() error { return nil }
