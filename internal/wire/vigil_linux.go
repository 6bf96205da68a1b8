//go:build linux && !portable

package wire

import (
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// vigilStep must stay well below the 10 ms after which the runtime takes the
	// processor from a goroutine that is in a system call.
	vigilStep = 5 * time.Millisecond
	// vigilStill steps without anything received end a vigil.
	vigilStill = 8
	// vigilAfter is how many waits for requests begin one: what comes more rarely
	// than once in that many is not worth it.
	vigilAfter = 64
)

// vigil keeps the runtime's monitor thread in its even gait. The monitor sleeps when
// all processors are idle, as they are between two requests of a client that waits for
// answers; the next system call wakes it, in the way of the request, and after each
// awakening it looks around every 20 us for some milliseconds. That was an eighth of the
// CPU of one record a request with 5 in flight, a third of that of fetches of 64 KiB
// and of 1,000 records a second (leat bench produce --batch 1 --in-flight 5, consume
// --fetch-bytes 65536, latency). A goroutine that sleeps in a system call keeps its
// processor, so that not all are idle; it does so only while requests come, on one
// processor more than the machine has (cli's spareProcessor).
type vigil struct {
	kept  atomic.Bool
	waits atomic.Uint32 // for requests, while it is not kept
}

// stir is called when a connection waits for a request.
func (s *Server) stir() {
	v := &s.vigil
	if v.kept.Load() || v.waits.Add(1)%vigilAfter != 0 || !v.kept.CompareAndSwap(false, true) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stopping.Load() {
		s.running.Go(s.keepVigil)
	}
}

// keepVigil returns when nothing comes any more.
func (s *Server) keepVigil() {
	ts := unix.NsecToTimespec(int64(vigilStep))
	last := s.stats.BytesIn.Load()
	for still := 0; still < vigilStill && !s.stopping.Load(); still++ {
		_ = unix.Nanosleep(&ts, nil) // one that is cut short does no harm
		runtime.Gosched()            // else it would count as one that hogs its processor
		if now := s.stats.BytesIn.Load(); now != last {
			last, still = now, 0
		}
	}
	s.vigil.kept.Store(false)
}
