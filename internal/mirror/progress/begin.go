package progress

import (
	"fmt"
	"time"

	"github.com/leatstream/leat/internal/record"
)

// findBegin finds out where a mirror begins.
func (m *Mirror) findBegin() {
	switch at := m.assignment.Settings.Start; {
	case !m.isEmpty(): // it has records already
		m.beginAt(m.log.Start)
		m.ask(m.want)
	case at == Earliest || at == Latest:
		m.begin(Action{Kind: FindRange}, toBegin)
	default:
		m.begin(Action{Kind: FindBegin, Time: at}, toBegin)
	}
}

// beginAt has the metadata note where the mirror begins, and which topic it mirrors, before anything is appended. Else what comes to the source before the first append, and expires while nobody
// reads, would be lost without a trace.
func (m *Mirror) beginAt(o record.Offset) {
	if o < m.log.End && m.isEmpty() {
		m.want = Action{Kind: Cut, Offset: o} // nothing is here
		return
	}
	m.inbox.hasJustBegun = true
	m.want = m.declare(Durable{State: Mirroring, HasBegun: true, Begin: o, Topic: m.source.Topic})
}

// BeginFound takes the answer to FindBegin; -1: all records are older.
func (m *Mirror) BeginFound(now time.Duration, id uint64, at record.Offset, t Trouble) {
	_, ok := m.finish(id, FindBegin)
	switch {
	case !ok || !m.isAnswered(now, t):
	case at < 0:
		m.begin(Action{Kind: FindRange}, toBegin)
	default:
		m.beginAt(at)
	}
}

// RangeFound takes the answer to FindRange.
func (m *Mirror) RangeFound(now time.Duration, id uint64, r SourceRange, t Trouble) {
	_, ok := m.finish(id, FindRange)
	if !ok || !m.isAnswered(now, t) {
		return
	}
	m.source.Start = r.Start
	switch {
	case m.purpose == toMeasure:
		if m.source.measured = now; !m.isHalted() {
			m.inbox.trimTo = r.Start
		}
		if m.source.hear(r.HighWatermark, &m.log) {
			m.fresh.take(m.begunAt, r.HighWatermark, m.log.End)
		}
	case m.purpose == toPart && m.log.End >= r.Start:
		m.take(now, m.comparison.partAll(&m.here, r))
	case m.purpose == toPart, m.purpose == toPlace:
		m.place(now, r)
	case m.assignment.Settings.Start == Earliest:
		m.beginAt(r.Start)
	default:
		m.beginAt(r.HighWatermark)
	}
}

// place finds out why the source does not have the position: it has deleted what was to come next, or its log ends before.
func (m *Mirror) place(now time.Duration, r SourceRange) {
	hasJustBegun := m.inbox.hasJustBegun
	m.dropInbox()
	m.comparison.stage = notSearching
	at, d := m.position(), m.assignment.Durable
	lost := Range{at, r.Start}
	switch {
	case !lost.IsEmpty() && hasJustBegun:
		m.beginAt(r.Start)
	case !lost.IsEmpty() && m.isLossAccepted(lost):
		m.skipTo = r.Start
	case !lost.IsEmpty():
		m.conclude(now, Gap, fmt.Sprintf("the source has deleted the records from offset %d up to %d, which are not here", at, r.Start), lost)
	case !m.isEmpty():
		m.comparison.ask(m.log.LastEpoch)
	case at <= r.HighWatermark:
		m.fail(now, fmt.Sprintf("the source does not serve offset %d, though it has it", at))
	case m.log.End > r.HighWatermark: // there are no records here, so that nothing is lost
		m.cut(now, r.HighWatermark)
	case m.isHalted():
		m.conclude(now, Mirroring, "", m.accepted())
	default:
		d.Begin = r.HighWatermark
		m.want = m.declare(d)
	}
}
