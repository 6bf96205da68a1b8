package node

import (
	"context"
	"sync/atomic"
	"time"
)

// generationEvery is how often the data directory gets another generation at most.
const generationEvery = time.Minute

// generations give the data directory another generation while records are written to it. The heartbeats bring it into the metadata, so
// that a copy of the directory that was made before is known by it when it is registered (controller.Rules). The disk may hang, and heartbeats
// must not wait for it, so a goroutine of its own writes.
type generations struct {
	wanted chan struct{} // of size 1
	failed atomic.Bool   // the last attempt did
	// These belong to upkeep.
	dueAt  time.Duration // when there may be another one, by Node.clock
	rounds int64         // the group commits that had begun when one was wanted last
}

// want asks for another generation, if the directory was written to since the last one: rounds are the group commits that have begun.
func (g *generations) want(now time.Duration, rounds int64) {
	if now < g.dueAt || rounds == g.rounds && !g.failed.Load() {
		return
	}
	g.dueAt, g.rounds = now+generationEvery, rounds
	select {
	case g.wanted <- struct{}{}:
	default: // the disk hangs
	}
}

// run is the goroutine that writes: raise does, and tell is told of its failures.
func (g *generations) run(ctx context.Context, raise func() error, tell func(err error)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.wanted:
		}
		err := raise()
		g.failed.Store(err != nil)
		if err != nil {
			tell(err)
		}
	}
}
