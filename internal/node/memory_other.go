//go:build !linux || portable

package node

// unmapProgram does nothing on this system.
func unmapProgram() {}
