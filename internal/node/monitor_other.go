//go:build !linux

package node

// keepMonitorAwake would keep the monitor thread of Go's runtime awake.
func (*Node) keepMonitorAwake() {}
