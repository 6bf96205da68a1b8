package progress

import (
	"slices"
	"time"
)

// work is the action that is to be begun or is under way.
type work struct {
	lastID  uint64
	action  Action // NoAction: the next one is chosen by Next
	isBegun bool   // the owner has it
	begunAt time.Duration
	purpose purpose // of an action whose kind has several
}

// purpose says what an answer of the source is for.
type purpose uint8

const (
	toProve     purpose = iota + 1 // that the records here are the source's
	toPart                         // to find the offset at which the logs part
	toEstablish                    // to find where the leader's epoch began
	toBegin                        // to find where the mirror begins
	toPlace                        // to find out why an offset was out of range
	toMeasure                      // to know the leader's high watermark while another broker is read from
)

// set makes an action the next one.
func (w *work) set(a Action, p purpose) {
	w.lastID++
	a.ID = w.lastID
	w.action, w.isBegun, w.purpose = a, false, p
}

// finish ends the action of an answer; ok is false if the answer is to another one, which is not heeded.
func (w *work) finish(id uint64, kinds ...ActionKind) (a Action, ok bool) {
	a = w.action
	if id == 0 || id != a.ID || !w.isBegun || !slices.Contains(kinds, a.Kind) {
		return Action{}, false
	}
	w.action, w.isBegun = Action{}, false
	return a, true
}

// isChangingLog tells whether the owner changes the local log.
func (w *work) isChangingLog() bool {
	return w.isBegun && (w.action.Kind == Append || w.action.Kind == Trim || w.action.Kind == Skip)
}

// pause is how long nothing is begun, and why.
type pause struct {
	until    time.Duration
	failures int
	reason   string
}

// extend has the next action wait, for longer after each failure in a row.
func (p *pause) extend(now time.Duration, c *Config, reason string) {
	d := c.Retry << min(p.failures, 20)
	if d > c.MaxRetry || d <= 0 {
		d = c.MaxRetry
	}
	*p = pause{now + c.shorten(d), p.failures + 1, reason}
}

// end has the next action be begun at once.
func (p *pause) end() { *p = pause{until: Never} }
