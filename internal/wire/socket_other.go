//go:build !linux || portable

package wire

// sysWriter is what a writer needs for system calls: nothing here.
type sysWriter struct{}

// attach chooses the socket for the connection.
func (c *Conn) attach() error {
	c.sock = &plainSocket{nc: c.nc}
	return nil
}

// tune would set the connection's congestion control.
func (*Conn) tune() error { return nil }
