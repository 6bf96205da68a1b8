package mirror

import (
	"context"
	"sync"
	"time"
)

const (
	// pieceBytes is how many bytes the backfill appends at a time.
	pieceBytes = 1 << 20
	// leastWindow and mostWindow bound how many bytes of the backfill may wait for the disk while clients wait for it, too.
	leastWindow = pieceBytes
	mostWindow  = 16 * pieceBytes
	// busyTime is for how long clients count as waiting for the disk after one of them has.
	busyTime = time.Second
	// slack is how much longer than at best a commit may take before the window is made smaller, besides a half of the best time.
	slack = 2 * time.Millisecond
)

// pace has the backfill leave the disk to clients: while any of them waits for its records to be on disk, few bytes of the backfill are in the commits that they wait for, and they are appended by one lane
// at a time. How many depends on how long commits take. Without clients the backfill goes as fast as it can.
type pace struct {
	clock func() time.Duration
	count func() int64 // of commits that clients have waited for
	turn  chan struct{}

	mu     sync.Mutex // guards the fields below
	seen   int64      // the last count
	seenAt time.Duration
	out    int64         // bytes that were appended and are not on disk
	window int64         // how many there may be
	best   time.Duration // that a commit has taken lately; 0: not known
	moved  chan struct{} // closed when out falls
}

func newPace(clock func() time.Duration, count func() int64) *pace {
	return &pace{clock: clock, count: count, turn: make(chan struct{}, 1), seen: count(), seenAt: -busyTime, window: leastWindow, moved: make(chan struct{})}
}

// isBusy tells whether clients wait for the disk.
func (c *pace) isBusy() bool {
	n, now := c.count(), c.clock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if n != c.seen {
		c.seen, c.seenAt = n, now
	}
	return now-c.seenAt < busyTime
}

// begin waits until a piece may be appended, and returns what is to be called when it is. It does not wait once the context has ended.
func (c *pace) begin(ctx context.Context) (end func()) {
	if ctx.Err() != nil || !c.isBusy() {
		return func() {}
	}
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return func() {}
	}
	for {
		c.mu.Lock()
		mayGo, moved := c.out == 0 || c.out+pieceBytes <= c.window, c.moved
		c.mu.Unlock()
		if mayGo || !c.isBusy() {
			break
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return func() { <-c.turn }
		}
	}
	return func() { <-c.turn }
}

// add counts bytes that were appended, and returns what is to be called when they are on disk.
func (c *pace) add(bytes int64) (done func()) {
	began := c.clock()
	c.mu.Lock()
	c.out += bytes
	c.mu.Unlock()
	return func() { c.finish(bytes, c.clock()-began) }
}

// finish takes that bytes are on disk, or never will be by that way, after a time.
func (c *pace) finish(bytes int64, took time.Duration) {
	isBusy := c.isBusy()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out -= bytes
	close(c.moved)
	c.moved = make(chan struct{})
	if c.best == 0 || took < c.best {
		c.best = took
	} else {
		c.best += (took - c.best) / 256 // the disk may have become slower
	}
	switch {
	case !isBusy:
	case took > c.best+c.best/2+slack:
		c.window = max(c.window/2, leastWindow)
	default:
		c.window = min(c.window+pieceBytes/4, mostWindow)
	}
}
