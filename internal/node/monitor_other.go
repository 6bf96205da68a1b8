//go:build !linux

package node

// keepMonitorAwake does nothing on this system.
func (*Node) keepMonitorAwake() {}
