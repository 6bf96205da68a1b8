package mirror

import (
	"context"
	"sync"
	"time"
)

// leastThrottle is the lowest rate of a link, in bytes per second.
const leastThrottle = 1024

// throttleBurst is for how long a link may read faster than its rate after it has read nothing, and tipAhead for how long the tip may read before the backfill has paid.
const (
	throttleBurst = 250 * time.Millisecond
	tipAhead      = time.Second
)

// throttle has a link read at a rate. Bytes are counted when they have come, so that the account may be overdrawn; then nobody reads until it is paid. The tip may overdraw it further
// than the backfill, which therefore reads only what the tip leaves. The zero value does not throttle.
type throttle struct {
	mu    sync.Mutex // guards the fields below
	rate  float64    // bytes per second; 0: there is none
	has   float64    // bytes that may be read; below 0: they were read too early
	at    time.Duration
	moved chan struct{} // closed when the rate changes; nil: nobody waits
}

// setRate sets the rate; 0: there is none.
func (t *throttle) setRate(now time.Duration, rate float64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refillLocked(now)
	if t.rate == 0 {
		t.has = 0
	}
	t.rate = rate
	if t.moved != nil {
		close(t.moved)
		t.moved = nil
	}
}

func (t *throttle) refillLocked(now time.Duration) {
	t.has = min(t.has+t.rate*(now-t.at).Seconds(), t.rate*throttleBurst.Seconds())
	t.at = now
}

// spend counts bytes that have come.
func (t *throttle) spend(now time.Duration, bytes int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rate > 0 {
		t.refillLocked(now)
		t.has -= float64(bytes)
	}
}

// bound is how many bytes one fetch may ask for, of most: no more than come in a part of a second.
func (t *throttle) bound(most int64) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rate > 0 {
		most = min(most, max(leastThrottle, int64(t.rate*throttleBurst.Seconds())))
	}
	return most
}

// wait waits until the link may read. It fails with the context.
func (t *throttle) wait(ctx context.Context, clock func() time.Duration, isTip bool) error {
	for {
		pause, moved := t.look(clock(), isTip)
		if pause <= 0 {
			return nil
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-moved:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// look tells how long the link must not read, and what is closed when that changes.
func (t *throttle) look(now time.Duration, isTip bool) (pause time.Duration, moved <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rate == 0 {
		return 0, nil
	}
	t.refillLocked(now)
	lack := -t.has
	if isTip {
		lack -= t.rate * tipAhead.Seconds()
	}
	if lack < 0 {
		return 0, nil
	}
	if t.moved == nil {
		t.moved = make(chan struct{})
	}
	return time.Duration(lack/t.rate*float64(time.Second)) + time.Millisecond, t.moved
}
