package replica

import (
	"math"
	"sync"
	"time"
)

// longestThrottle is the longest time for which a quota says to wait: its rate may change meanwhile.
const longestThrottle = time.Second

// quota measures the bytes of throttled replicas against a rate (KIP-73). Bytes are taken after they
// were sent, so that a large answer is paid off later.
type quota struct {
	mu     sync.Mutex
	rate   int64 // guarded by mu: bytes a second; math.MaxInt64: there is no limit
	window time.Duration
	left   float64       // guarded by mu: bytes that may be taken now; below 0: none
	at     time.Duration // guarded by mu: when left was right
}

// setRate changes the rate. So many bytes as it has in a window may come at once.
func (q *quota) setRate(now time.Duration, rate int64, window time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if rate == q.rate && window == q.window {
		return
	}
	q.rate, q.window, q.at = rate, window, now
	q.left = q.mostLocked()
}

// mostLocked is how many bytes may come at once.
func (q *quota) mostLocked() float64 { return float64(q.rate) * q.window.Seconds() }

func (q *quota) refillLocked(now time.Duration) {
	q.left = min(q.mostLocked(), q.left+float64(q.rate)*(now-q.at).Seconds())
	q.at = now
}

// take takes n bytes.
func (q *quota) take(now time.Duration, n int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.rate == math.MaxInt64 {
		return
	}
	q.refillLocked(now)
	q.left -= float64(n)
}

// delay is the time until bytes may be taken; 0: now.
func (q *quota) delay(now time.Duration) time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.rate == math.MaxInt64 {
		return 0
	}
	q.refillLocked(now)
	if q.left > 0 {
		return 0
	}
	wait := float64(longestThrottle)
	if q.rate > 0 {
		wait = min(wait, (1-q.left)/float64(q.rate)*float64(time.Second))
	}
	return max(time.Duration(wait), time.Millisecond)
}
