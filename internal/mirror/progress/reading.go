package progress

import (
	"fmt"
	"time"

	"github.com/leatstream/leat/internal/record"
)

// Fetched takes the answer to Fetch. The bytes of a.Raw must stay as they are until the Append of them has ended.
func (m *Mirror) Fetched(now time.Duration, id uint64, a *Answer) {
	q, ok := m.finish(id, Fetch)
	s := &m.source
	isLeader := q.Broker == s.Leader
	switch {
	case !ok:
		return
	case a.Trouble.Kind != NoTrouble:
		m.takeFetchTrouble(now, &q, a)
		return
	case isLeader && !q.NoRack && a.Nearer >= 0 && a.Nearer != q.Broker && len(a.Raw) == 0 && a.Diverged == nil:
		s.Contact, s.broker, s.isNearer = now, a.Nearer, true
		m.pause = pause{until: now + m.config.shorten(m.config.Retry)} // so that brokers which send their clients to each other cost little
		return
	case !isLeader && a.Diverged != nil: // it may only be behind its leader
		m.leaveNearer(now, "it has other records")
		return
	}
	s.Contact, s.isOld = now, !a.Compared
	if m.comparison.isNeeded(&m.here, s.isOld) {
		return
	}
	s.watched = now
	if a.Diverged != nil {
		m.take(now, m.comparison.part(&m.here, q.LastEpoch, *a.Diverged))
		return
	}
	s.Start, s.Stable, m.inbox.hasJustBegun = a.Start, a.Stable, false
	if m.isEmpty() {
		m.fresh.tombstones = m.begunAt // there are no keys here that a tombstone before would delete
	}
	m.sort(now, a)
	switch {
	case !isLeader:
		s.HighWatermark = max(s.HighWatermark, a.HighWatermark)
	case s.hear(a.HighWatermark, &m.log):
		m.fresh.take(m.begunAt, a.HighWatermark, m.log.End)
	}
}

// takeFetchTrouble deals with an answer that has no batches.
func (m *Mirror) takeFetchTrouble(now time.Duration, q *Action, a *Answer) {
	switch {
	case q.Broker != m.source.Leader: // the leader knows better
		m.leaveNearer(now, a.Trouble.Reason)
	case a.Trouble.Kind == OutOfRange:
		m.source.Contact = now
		m.inbox.isOutOfRange = true
	default:
		m.isAnswered(now, a.Trouble)
	}
}

// leaveNearer has only the leader be asked for a while, in place of a nearer broker. The leader may not know that the other one is of no use.
func (m *Mirror) leaveNearer(now time.Duration, reason string) {
	s := &m.source
	s.broker, s.isNearer, s.farUntil = s.Leader, false, now+m.config.Watch
	m.comparison.proof = unproven
	m.fail(now, "a near broker of the source does not serve: "+reason)
}

// sort takes the batches of an answer that follow the local log, and what the answer says of the source's start.
func (m *Mirror) sort(now time.Duration, a *Answer) {
	in := &m.inbox
	n, why := in.fill(&m.here, a, m.source.LeaderEpoch)
	switch {
	case n == 0 && why.reason != "":
		m.refuse(now, why.reason)
		return
	case n > 0 && m.fresh.areTombstonesLost(now, &m.here, in.end):
		m.loseTombstones(now, a.HighWatermark)
		return
	case m.isHalted():
		m.conclude(now, Mirroring, "", m.accepted())
		return
	case why.isNewer:
		m.source.isLeaderKnown = false
	case why.raise != record.NoEpoch:
		m.want = Action{Kind: Raise, Epoch: why.raise}
	}
	if !m.source.isNearer {
		in.trimTo = a.Start
	}
	switch at := m.position(); {
	case n > 0 || why.raise != record.NoEpoch:
	case len(a.Raw) > 0:
		m.fail(now, "the source sends batches that are not committed, or of a newer leader")
	default:
		if at > m.log.End {
			m.skipTo, in.isEmpty = at, true
		}
		m.pause.end()
		if !m.source.isEstablished(a.HighWatermark, &m.log) {
			m.source.askStart()
		}
	}
}

// loseTombstones stops the partition, until it is accepted that tombstones below the source's high watermark may be missing.
func (m *Mirror) loseTombstones(now time.Duration, highWatermark record.Offset) {
	to := max(highWatermark, m.source.HighWatermark, m.inbox.end)
	if d := &m.assignment.Durable; d.State == TombstonesLost {
		to = max(to, d.Range.To)
	}
	m.fresh.missed = sample{m.begunAt, to}
	m.conclude(now, TombstonesLost, "tombstones that the source has dropped by now may not have been read", Range{m.log.End, to})
}

// LogChanged takes the end of Append, Trim or Skip, with the log after it; also after a trouble.
func (m *Mirror) LogChanged(now time.Duration, id uint64, log Log, t Trouble) {
	a, ok := m.finish(id, Append, Trim, Skip)
	if !ok {
		return
	}
	in, gained := &m.inbox, log.End-m.log.End
	m.log = log
	if a.Kind != Skip {
		in.trimTo = 0
	}
	switch {
	case t.Kind != NoTrouble:
		m.takeLogTrouble(now, &a, t)
	case a.Kind == Append:
		m.fresh.stored(now, log.End, gained, in.drain(log.End, gained))
		m.skipTo, m.isOvertaken = 0, false
		m.pause.end()
	case a.Kind == Skip:
		m.fresh.stored(now, log.End, 0, 0)
		m.skipTo, in.isEmpty = 0, false
	}
}

// takeLogTrouble deals with a local log that was not changed, or not as far as it should be.
func (m *Mirror) takeLogTrouble(now time.Duration, a *Action, t Trouble) {
	highest := m.inbox.highest
	switch t.Kind {
	case EpochAhead:
		m.fail(now, "the local leader epoch is lower than those of the source's batches")
		if !m.isHalted() && highest > m.assignment.Epoch {
			m.want = Action{Kind: Raise, Epoch: highest}
		}
	case NotLeader, NotMirroring:
		m.fail(now, "the local log is not appended to until the metadata say who leads")
	case DoesNotFit:
		m.comparison.proof = unproven
		m.refuse(now, "the local log refuses the batches of the source: "+t.Reason)
	default:
		m.fail(now, fmt.Sprintf("the local log does not do %s: %s", a.Kind, t.Reason))
	}
}
