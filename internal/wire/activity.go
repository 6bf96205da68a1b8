package wire

import "sync/atomic"

// activity notes when bytes last moved on a connection, in either direction. It measures time
// in sweeps of the server, since a timer for each connection would cost memory.
type activity struct {
	sweeps *atomic.Uint32 // of the server, so far
	last   atomic.Uint32  // sweeps when bytes last moved
}

// noteProgress is called when bytes have moved, or when the connection has waited for something
// other than its client.
func (a *activity) noteProgress() {
	if now := a.sweeps.Load(); a.last.Load() != now {
		a.last.Store(now)
	}
}
