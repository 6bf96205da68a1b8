package wire

import "sync/atomic"

// activity tells when bytes last moved on a connection, in either direction. Time is
// counted in sweeps of the server: a timer for each connection would cost memory.
type activity struct {
	sweeps *atomic.Uint32 // of the server, so far
	last   atomic.Uint32  // sweeps when bytes last moved
}

// noteProgress is called when bytes moved.
func (a *activity) noteProgress() {
	if now := a.sweeps.Load(); a.last.Load() != now {
		a.last.Store(now)
	}
}
