package node

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
)

// The wall clocks of nodes decide nothing that must not be wrong: sessions and elections count time that has passed, each
// on its own node. But records get timestamps by them, and retention, the end of committed offsets and of
// join tokens go by them. So a clock that is far off is told of.

// clockTolerance is how far a node's clock may be from that of the active controller without a word.
const clockTolerance = 2 * time.Second

// clockWatch compares the clock of the active controller with that of this node.
type clockWatch struct {
	ahead atomic.Int64 // how far the controller's was ahead at the last heartbeat, in ns
	isOff atomic.Bool  // that was too far
}

// noteClock takes the controller's clock, in ms since 1970, from the answer to a heartbeat. The answer was made at any time
// between the two that are given, so as much is not held against the clock.
func (w *clockWatch) noteClock(log *slog.Logger, sent, answered time.Time, clock int64) {
	if clock == 0 {
		return
	}
	half := answered.Sub(sent) / 2
	ahead := time.UnixMilli(clock).Sub(answered.Add(-half).Round(0))
	w.ahead.Store(int64(ahead))
	isOff := ahead.Abs() > clockTolerance+half
	switch wasOff := w.isOff.Swap(isOff); {
	case isOff && !wasOff:
		log.Warn("the clocks of nodes differ", "why", w.describeDifference())
	case !isOff && wasOff:
		log.Info("the clock of this node agrees with that of the active controller again")
	}
}

// describeDifference is a sentence about a clock that is off; "": it is not.
func (w *clockWatch) describeDifference() string {
	if !w.isOff.Load() {
		return ""
	}
	ahead, side := time.Duration(w.ahead.Load()), "behind"
	if ahead < 0 {
		side = "ahead of"
	}
	return fmt.Sprintf("the clock of this node is %v %s that of the active controller; timestamps, retention and the ends of offsets and join tokens go by it: set the clocks of all nodes, such as by NTP",
		ahead.Abs().Round(100*time.Millisecond), side)
}
