package wire

import "sync/atomic"

// countedKeys bounds the API keys that are counted separately. The last slot counts all others.
const countedKeys = 128

// Stats counts a server's work. The counts change while they are read.
type Stats struct {
	Conns      atomic.Int64 // connections that are counted as clients', open now
	Peers      atomic.Int64 // connections that are counted as peers', open now
	Accepted   atomic.Int64 // connections
	TurnedAway atomic.Int64 // connections refused because of the limits, or without a file descriptor or memory
	BytesIn    atomic.Int64
	BytesOut   atomic.Int64
	Refused    atomic.Int64 // frames that were malformed or too large
	Panics     atomic.Int64 // of handlers

	Handshakes       atomic.Int64 // with TLS, that have succeeded
	HandshakesFailed atomic.Int64 // the others, including those of clients that have gone

	requests [countedKeys]atomic.Int64
	buffers  *bufferPool
	reserve  *bufferPool
	muted    *mutedList
}

// Requests is how many requests of the API were read.
func (s *Stats) Requests(key int16) int64 {
	return s.requests[slotOfKey(key)].Load()
}

// Muted is how many connections are muted.
func (s *Stats) Muted() int { return s.muted.count() }

// RequestMemory is how many bytes the receive buffers in use take.
func (s *Stats) RequestMemory() int64 { return s.buffers.inUse() + s.reserve.inUse() }

// countClass counts connections that have come into a class, or left it.
func (s *Stats) countClass(class connClass, n int64) {
	switch class {
	case classClient:
		s.Conns.Add(n)
	case classPeer:
		s.Peers.Add(n)
	case classWaiting: // for two seconds, which is not worth a count
	case classEvicted: // it ends now
	}
}

func slotOfKey(key int16) int {
	if key < 0 || key >= countedKeys {
		return countedKeys - 1
	}
	return int(key)
}
