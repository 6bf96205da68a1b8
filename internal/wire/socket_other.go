//go:build !linux || portable

package wire

// sysWriter is what a writer needs for system calls: nothing here.
type sysWriter struct{}

// attach chooses the socket for the connection.
func (c *Conn) attach() error {
	c.sock = &plainSocket{nc: c.nc}
	return nil
}

// tune would set the congestion control of a connection from this machine.
func (*Conn) tune(string) error { return nil }
