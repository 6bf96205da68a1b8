package progress

import (
	"fmt"
	"time"

	"github.com/leatstream/leat/internal/record"
)

// EpochFound takes the answer to FindEpoch. found.Epoch is NoEpoch if the source knows no epoch that is not above the one in question.
func (m *Mirror) EpochFound(now time.Duration, id uint64, found Tail, t Trouble) {
	q, ok := m.finish(id, FindEpoch)
	switch {
	case !ok || !m.isAnswered(now, t):
	case m.purpose == toEstablish:
		m.source.takeStart(found)
	case m.purpose == toProve && found.Epoch == q.Epoch && found.End >= m.log.End:
		m.comparison.fit(&m.here)
	case m.assignment.Durable.State == Restoring:
		partAtFork(m, now, q.Epoch, found)
	default:
		m.take(now, m.comparison.part(&m.here, q.Epoch, found))
	}
}

// Reread takes the first batch that Reread has found; the zero value: there was none.
func (m *Mirror) Reread(now time.Duration, id uint64, b Batch, t Trouble) {
	_, ok := m.finish(id, Reread)
	isDeleted := t.Kind == OutOfRange
	switch s := m.assignment.Durable.State; {
	case !ok || !isDeleted && !m.isAnswered(now, t):
	case !isDeleted && b.IsNone():
		m.lose(now, "the source does not send the last batch again")
	default:
		m.take(now, m.comparison.match(&m.here, &b, isDeleted, m.source.wasGone || s == SourceDeleted || s == SourceRecreated))
		m.source.wasGone = m.source.wasGone && m.comparison.proof != proven
	}
}

// take does what a finding asks for.
func (m *Mirror) take(now time.Duration, f finding) {
	switch f.kind {
	case open:
	case parts:
		m.cut(now, f.at)
	case overtaken:
		m.isOvertaken = true
	case other:
		m.doubtSource(now, SourceRecreated, TopicID{}, f.reason)
	case agrees, useless:
		m.fail(now, f.reason)
	}
}

// cut has the controller decide that all replicas end at an offset, if an election can be the reason that the source does not have what lies beyond.
func (m *Mirror) cut(now time.Duration, at record.Offset) {
	switch e := m.source.LeaderEpoch; {
	case e != record.NoEpoch && e <= m.log.LastEpoch:
		m.refuse(now, fmt.Sprintf("the source has lost the records from offset %d on without an election: its leader epoch is %d, and theirs %d", at, e, m.log.LastEpoch))
	case m.isHalted():
		m.conclude(now, Mirroring, "", m.accepted())
	default:
		m.want = Action{Kind: Cut, Offset: at}
	}
}
