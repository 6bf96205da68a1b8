package node

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// monitorNap must stay well below the 10 ms after which the runtime takes the
	// processor from a goroutine that is in a system call.
	monitorNap = 5 * time.Millisecond
	// monitorQuietNaps is the number of naps in a row without received bytes after which the
	// naps end.
	monitorQuietNaps = 8
	// monitorCheckEvery is the time between two checks for traffic while there is none. Each
	// check wakes an idle process.
	monitorCheckEvery = time.Second
	// monitorTraffic is the number of bytes between two checks that counts as traffic: some
	// hundred requests a second.
	monitorTraffic = 32 << 10
)

// keepMonitorAwake keeps the monitor thread of Go's runtime from falling asleep while requests
// come, until the node stops. The monitor sleeps when all processors are idle, as they are
// between two requests of a client that waits for each answer. The next system call has to wake
// it, which delays the request, and after that it polls every 20 us for some milliseconds.
//
// A goroutine that sleeps in a system call keeps its processor, so that not all are idle. The
// scheduler gets one more processor while this runs, so that requests do not lack that one.
// Neither is of use without the other. `leat bench latency` measures the gain.
func (n *Node) keepMonitorAwake() {
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 1)
	defer func() { runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) - 1) }()
	check := time.NewTicker(monitorCheckEvery)
	defer check.Stop()
	last := n.wire.Stats().BytesIn.Load()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-check.C:
		}
		now := n.wire.Stats().BytesIn.Load()
		if now-last >= monitorTraffic {
			now = n.napWhileTraffic(now)
		}
		last = now
	}
}

// napWhileTraffic sleeps in system calls until no bytes are received for a while. last is the
// number of bytes that were received so far; it returns the new one.
func (n *Node) napWhileTraffic(last int64) int64 {
	nap := unix.NsecToTimespec(int64(monitorNap))
	for still := 0; still < monitorQuietNaps && n.ctx.Err() == nil; still++ {
		_ = unix.Nanosleep(&nap, nil) // a nap that is interrupted does no harm
		runtime.Gosched()             // without this the runtime would treat the goroutine as one that does not yield
		if now := n.wire.Stats().BytesIn.Load(); now != last {
			last, still = now, 0
		}
	}
	return last
}
