package progress

import (
	"fmt"
	"strings"
	"time"
)

// maxReason bounds Durable.Reason, in bytes.
const maxReason = 200

// conclude takes what is true of the partition: a state that is a halt, or Mirroring for one that has stopped. If the metadata do not say so, the controller is asked to. If they do, the source is
// looked at again after a while, since it may change.
func (m *Mirror) conclude(now time.Duration, s State, reason string, r Range) {
	m.dropWork()
	d := m.assignment.Durable
	if d.State == Restoring { // another state would forget that what is here was written here
		m.fail(now, reason)
		return
	}
	if d.State == s && d.Range == r {
		m.source.isLeaderKnown = false
		m.pause = pause{until: now + m.config.shorten(m.config.Watch)}
		return
	}
	if m.assignment.Settings.AcceptLoss && (s == Gap || s == TombstonesLost) {
		s = Mirroring
	}
	d.State, d.Reason, d.Range = s, strings.ToValidUTF8(reason[:min(len(reason), maxReason)], ""), r
	m.want = m.declare(d)
}

// refuse takes that what comes next at the source cannot be appended. It may be a fault of the way, or of one replica, so the source is asked some more times before the partition stops.
func (m *Mirror) refuse(now time.Duration, reason string) {
	m.inbox.bad++
	if m.inbox.bad >= enoughSigns || m.assignment.Durable.State == Failed {
		m.conclude(now, Failed, reason, m.accepted())
		return
	}
	m.lose(now, reason)
}

// Decided takes the controller's answer to Raise, Cut or Declare. What it has decided counts when Lead or Assigned tell of it.
func (m *Mirror) Decided(now time.Duration, id uint64, t Trouble) {
	a, ok := m.finish(id, Raise, Cut, Declare)
	switch {
	case !ok:
	case t.Kind == NoTrouble:
		m.pause.until = now + m.config.Settle
	default:
		m.want = Action{} // the source may have changed before it is asked again
		m.fail(now, fmt.Sprintf("the controller has not decided %s: %s", a.Kind, t.Reason))
	}
}

// Command takes what a person wants, and tells whether it makes sense now. It is done when the durable state says so; until then it may be lost with the leadership.
func (m *Mirror) Command(c Command) bool {
	d := m.assignment.Durable
	if !m.isRunning() {
		return false
	}
	switch {
	case c == Accept && (d.State == Gap || d.State == TombstonesLost):
		d.State = Mirroring
	case c == Accept && d.State == Failed:
		m.pause.end()
		return true
	case c == CopyAnew && d.State != SourceDeleted && d.State != Cutting:
		d.State, d.Reason, d.Range, d.Fork = Cutting, "all records are copied anew", Range{}, Fork{}
	default:
		return false
	}
	m.dropWork()
	m.want = m.declare(d)
	m.pause.end()
	return true
}
