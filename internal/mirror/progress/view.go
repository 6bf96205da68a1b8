package progress

import (
	"fmt"
	"math"
	"time"

	"github.com/leatstream/leat/internal/record"
)

// measureEvery is how often the leader is asked for its high watermark while another broker is read from.
const measureEvery = time.Second

// sourceView is what is known of the source, and how it is read from.
type sourceView struct {
	Source

	isLeaderKnown bool
	broker        int32 // who is read from: the leader, or a nearer one
	isNearer      bool
	farUntil      time.Duration // up to when only the leader is read from, since a nearer broker was of no use
	measured      time.Duration // when the leader was last asked while another broker is read from
	// isOld tells that the broker does not compare epochs in a fetch.
	isOld   bool
	watched time.Duration // when the source has last shown that the topic is the one that was compared
	// epochStart is the offset at which the leader's epoch began; -1: not known. Until its high watermark has got there, a new leader may have a lower one than the leader before it.
	epochStart record.Offset
	question   startQuestion

	// wasGone tells that the topic was said to be gone, and its records were not compared since.
	wasGone bool
	doubt   doubt
}

// startQuestion is what is asked to find where the leader's epoch began.
type startQuestion uint8

const (
	noQuestion   startQuestion = iota // it is not to be found, or was
	earlierEpoch                      // where the epochs before it end
	ownEpoch                          // whether the source knows it at all: then all of its records are of that epoch
	noAnswer                          // the source does not tell; the first batch of the epoch will
)

// askStart has the start of the leader's epoch be found, if it is not known and was not asked for.
func (s *sourceView) askStart() {
	if s.question == noQuestion && s.epochStart < 0 {
		s.question = earlierEpoch
	}
}

// findStart is the question for the start of the leader's epoch; ok is false if there is none.
func (s *sourceView) findStart() (a Action, ok bool) {
	switch s.question {
	case earlierEpoch:
		return Action{Kind: FindEpoch, Epoch: s.LeaderEpoch - 1}, true
	case ownEpoch:
		return Action{Kind: FindEpoch, Epoch: s.LeaderEpoch}, true
	default:
		return Action{}, false
	}
}

// takeStart takes the answer to it.
func (s *sourceView) takeStart(found Tail) {
	switch {
	case s.question == earlierEpoch && found.Epoch != record.NoEpoch:
		s.epochStart, s.question = found.End, noQuestion
	case s.question == earlierEpoch:
		s.question = ownEpoch
	case found.Epoch == s.LeaderEpoch:
		s.epochStart, s.question = 0, noQuestion
	default:
		s.question = noAnswer
	}
}

// doubt counts what the source says that would stop the partition.
type doubt struct {
	state State
	topic TopicID
	count int
	since time.Duration
}

// add counts one more sign, and tells whether there are enough of them, over enough time.
func (d *doubt) add(now time.Duration, s State, topic TopicID, enough time.Duration) bool {
	if d.state != s || d.topic != topic {
		*d = doubt{state: s, topic: topic, since: now}
	}
	d.count++
	return d.count >= enoughSigns && now-d.since >= enough
}

// forget forgets all of the source.
func (s *sourceView) forget() {
	*s = sourceView{Source: Source{Leader: -1, LeaderEpoch: record.NoEpoch, HighWatermark: -1, Contact: Never}, broker: -1, measured: Never, farUntil: Never, watched: Never, epochStart: -1}
}

// isEstablished tells whether a leader's high watermark is not lower than that of leaders before it: it has got to the start of the leader's epoch.
func (s *sourceView) isEstablished(highWatermark record.Offset, log *Log) bool {
	return s.LeaderEpoch == record.NoEpoch || s.epochStart >= 0 && highWatermark >= s.epochStart || log.LastEpoch == s.LeaderEpoch && log.End <= highWatermark
}

// hear takes a high watermark of the leader, and tells whether it is established.
func (s *sourceView) hear(highWatermark record.Offset, log *Log) bool {
	if !s.isEstablished(highWatermark, log) {
		s.HighWatermark = max(s.HighWatermark, highWatermark)
		s.End = max(s.End, highWatermark)
		return false
	}
	if highWatermark < s.HighWatermark {
		s.End = highWatermark // an unclean election: what was known is gone
	}
	s.HighWatermark, s.End = highWatermark, max(s.End, highWatermark)
	return true
}

// fetch reads on.
func (s *sourceView) fetch(h *here, now time.Duration) Action {
	a := Action{Kind: Fetch, Broker: s.broker, Offset: h.position(), LastEpoch: h.log.LastEpoch, NoRack: now < s.farUntil}
	if h.isBlind() {
		a.LastEpoch = record.NoEpoch
	}
	return a
}

// Described takes what a broker of the source says of the partition: the answer to FindTopic, or with the id 0 what was asked for another reason.
func (m *Mirror) Described(now time.Duration, id uint64, d *Description) {
	_, isAnswer := m.finish(id, FindTopic)
	if !m.isRunning() || id != 0 && !isAnswer {
		return
	}
	s, durable := &m.source, &m.assignment.Durable
	switch {
	case d.Trouble.Kind == NoTrouble:
		s.Contact = now
	case d.Trouble.Kind == TopicGone:
		s.Contact, s.isLeaderKnown, s.wasGone = now, false, true
		m.doubtSource(now, SourceDeleted, TopicID{}, "the source does not have the topic")
		return
	case isAnswer && d.Trouble.Kind == LeaderUnknown:
		s.Contact = now
		m.fail(now, "the partition has no leader at the source")
		return
	case isAnswer:
		m.fail(now, "the source cannot be asked for the topic: "+d.Trouble.Reason)
		return
	default:
		return
	}
	if (d.Broker != s.Leader || d.IsOnly) && d.LeaderEpoch == s.LeaderEpoch {
		m.fresh.confirm(d.Asked)
	}
	if durable.HasBegun && !m.hasNoID() && d.Topic != durable.Topic {
		s.isLeaderKnown = false
		m.doubtSource(now, SourceRecreated, d.Topic, fmt.Sprintf("the topic at the source has the id %x, and not %x", d.Topic, durable.Topic))
		return
	}
	m.takeLeader(now, d, isAnswer)
}

// takeLeader takes the leader at the source. A broker that knows an older one is behind; if it is said again and again, it is so.
func (m *Mirror) takeLeader(now time.Duration, d *Description, isAnswer bool) {
	s := &m.source
	isOlder := d.LeaderEpoch != record.NoEpoch && d.LeaderEpoch < s.LeaderEpoch
	switch {
	case isOlder && !isAnswer:
		return
	case isOlder && !s.doubt.add(now, Preparing, d.Topic, m.config.Confirm):
		m.fail(now, "a broker of the source knows an older leader")
		return
	case !isAnswer && s.isLeaderKnown && d.Leader == s.Leader && d.LeaderEpoch == s.LeaderEpoch && d.Topic == s.Topic:
		return
	}
	m.dropWork() // what another leader has said counts no more
	if d.LeaderEpoch != s.LeaderEpoch {
		s.epochStart, s.question = -1, noQuestion
		m.fresh.forgetLeader()
	}
	s.doubt = doubt{}
	s.Topic, s.Leader, s.LeaderEpoch, s.isLeaderKnown = d.Topic, d.Leader, d.LeaderEpoch, true
	s.broker, s.isNearer = d.Leader, false
	m.comparison.proof = unproven
}

// doubtSource takes a sign that the topic is gone, or is another one.
func (m *Mirror) doubtSource(now time.Duration, s State, topic TopicID, reason string) {
	m.dropWork()
	m.comparison.proof = unproven
	if m.source.doubt.add(now, s, topic, m.config.Confirm) || m.assignment.Durable.State == s {
		m.conclude(now, s, reason, m.accepted())
		return
	}
	m.fail(now, reason)
}

// elapsed is the time since another one.
func elapsed(now, since time.Duration) time.Duration {
	if since == Never {
		return math.MaxInt64
	}
	return now - since
}
