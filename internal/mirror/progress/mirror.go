package progress

import (
	"cmp"
	"time"
)

// Config has what does not change while a Mirror lives. The zero value of a duration is its default.
type Config struct {
	// Retry is the pause after the first trouble (100 ms). It doubles with each further one, up to MaxRetry (10 s).
	Retry, MaxRetry time.Duration
	// Watch is the pause between looks at the source in a state that is a halt, and for how long a near broker that was of no use is not read from (30 s).
	Watch time.Duration
	// Confirm is for how long the source must say that a topic is gone, or is another one, before that is believed (5 s): its brokers learn of a topic one after another.
	Confirm time.Duration
	// Unwatched is for how long a topic without an id may not be read, over one connection, before its last batch is compared again (1 s). In less time no source deletes a topic and makes another one.
	Unwatched time.Duration
	// Settle is how long the metadata may take to show what the controller has agreed to (5 s). Then it is asked again.
	Settle time.Duration
	// Jitter is a random number from 0 up to, but without, 1. Pauses are shortened by up to a half of it, so that many partitions do not try again at the same moment. Nil: they are not.
	Jitter func() float64
}

// shorten takes a random part of up to a half from a pause.
func (c *Config) shorten(d time.Duration) time.Duration {
	return d - time.Duration(float64(d)*c.Jitter()/2)
}

// enoughSigns is how often a source must say something that stops a partition before that is believed.
const enoughSigns = 3

// Mirror is the machine of one mirrored partition on one node. Its owner calls it from one goroutine at a time. After each event it asks Next for what is to be done.
//
// Times are those of a clock of the node that never goes back; they are compared with each other only.
type Mirror struct {
	here
	work

	config Config
	// want is what the controller is to decide before anything else is done; NoAction: nothing.
	want  Action
	pause pause

	source     sourceView
	comparison comparison
	inbox      inbox
	fresh      freshness
}

// New makes the machine of a partition that this node does not lead yet.
func New(c *Config) *Mirror {
	m := &Mirror{config: *c}
	d := &m.config
	d.Retry = cmp.Or(d.Retry, 100*time.Millisecond)
	d.MaxRetry = cmp.Or(d.MaxRetry, 10*time.Second)
	d.Watch = cmp.Or(d.Watch, 30*time.Second)
	d.Confirm = cmp.Or(d.Confirm, 5*time.Second)
	d.Unwatched = cmp.Or(d.Unwatched, time.Second)
	d.Settle = cmp.Or(d.Settle, 5*time.Second)
	if d.Jitter == nil {
		d.Jitter = func() float64 { return 0 }
	}
	m.source.forget()
	m.fresh.forget()
	return m
}

// Lead takes that this node leads the partition in a local leader epoch, with its log, from which all cuts were made. reader looks at the log; it is asked only while the Mirror is called. What an
// earlier leader has appended, here or elsewhere, and is not in the log by now must not come into it later.
func (m *Mirror) Lead(now time.Duration, a Assignment, log Log, age Age, reader Reader) {
	if !m.isLeading || log.End < m.log.End {
		m.source.forget()
	}
	m.fresh.lead(now, log.End, age, m.isLeading)
	m.here = here{isLeading: true, assignment: a, log: log, reader: reader}
	m.action, m.want, m.comparison, m.inbox = Action{}, Action{}, comparison{}, inbox{}
	m.pause.end()
	m.source.isLeaderKnown = false
}

// Assigned takes that the metadata say something else of the partition, in the same local leader epoch. One of another epoch is not heeded.
func (m *Mirror) Assigned(a Assignment) {
	if !m.isLeading || a.Epoch != m.assignment.Epoch {
		return
	}
	was := m.assignment
	m.assignment = a
	if a.IsPaused == was.IsPaused && a.Durable == was.Durable {
		return
	}
	m.dropWork()
	m.want = Action{}
	m.pause.end()
	if a.Durable.State == Mirroring {
		m.fresh.accept(a.Durable.Range)
	}
}

// Resign takes that this node does not lead the partition any more.
func (m *Mirror) Resign() {
	m.dropWork()
	m.action, m.want, m.isLeading, m.reader = Action{}, Action{}, false, nil
}

// dropWork ends what was found out for, and what is asked of, the source: nothing of it is appended or decided any more. A change of the local log that is under way cannot be called back,
// unless another leadership begins: its end is still to be told.
func (m *Mirror) dropWork() {
	if !m.isChangingLog() {
		m.action = Action{}
	}
	m.dropInbox()
	m.comparison.stage = notSearching
}

// dropInbox forgets what was read. It is read again.
func (m *Mirror) dropInbox() {
	m.inbox = inbox{bad: m.inbox.bad, hasJustBegun: m.inbox.hasJustBegun}
	m.skipTo, m.isOvertaken = 0, false
}

// Next returns the next action, if one is to be begun now.
func (m *Mirror) Next(now time.Duration) (Action, bool) {
	if m.action.Kind == NoAction && m.isRunning() && now >= m.pause.until {
		m.choose(now)
	}
	if m.action.Kind == NoAction || m.isBegun {
		return Action{}, false
	}
	m.isBegun, m.begunAt = true, now
	return m.action, true
}

// WakeAt is the time from which on Next may return an action though nothing happens; ok is false if another event must come first.
func (m *Mirror) WakeAt() (at time.Duration, ok bool) {
	return m.pause.until, m.isRunning() && m.action.Kind == NoAction
}

// choose chooses the next action by what is known. The first thing that is missing is found out, or done.
func (m *Mirror) choose(now time.Duration) {
	s, d := &m.source, &m.assignment.Durable
	start, asksStart := s.findStart()
	m.comparison.doubt(&m.here, elapsed(now, s.watched) > m.config.Unwatched)
	switch {
	case m.skipTo <= m.log.End && min(m.inbox.trimTo, m.log.End) > m.log.Start: // first, since after an unclean election only what the source has deleted may still differ
		m.begin(Action{Kind: Trim, Offset: min(m.inbox.trimTo, m.log.End)}, 0)
	case len(m.inbox.ready) > 0:
		m.begin(m.inbox.store(&m.here), 0)
	case m.want.Kind != NoAction:
		m.begin(m.want, 0)
	case d.State == Cutting && m.log.End > 0:
		m.ask(Action{Kind: Cut})
	case d.State == Cutting:
		m.ask(m.declare(Durable{State: Mirroring}))
	case !s.isLeaderKnown:
		m.begin(Action{Kind: FindTopic}, 0)
	case s.LeaderEpoch > m.assignment.Epoch && !m.isHalted():
		m.ask(Action{Kind: Raise, Epoch: s.LeaderEpoch})
	case m.skipTo > m.log.End && m.inbox.isEmpty:
		m.begin(Action{Kind: Skip, Offset: m.skipTo}, 0)
	case m.inbox.isOutOfRange:
		m.begin(Action{Kind: FindRange}, toPlace)
	case m.comparison.stage != notSearching:
		m.begin(m.comparison.search(), toPart)
	case d.State == Restoring:
		findFork(m)
	case !d.HasBegun:
		m.findBegin()
	case m.comparison.isNeeded(&m.here, s.isOld):
		m.begin(m.comparison.prove(&m.here), toProve)
	case m.comparison.proof == proven && m.hasNoID() && s.Topic != TopicID{} && !m.isHalted(): // the source was upgraded, and its topics have ids now
		adopted := *d
		adopted.Topic = s.Topic
		m.ask(m.declare(adopted))
	case asksStart:
		m.begin(start, toEstablish)
	case s.isNearer && elapsed(now, s.measured) > measureEvery:
		m.begin(Action{Kind: FindRange}, toMeasure)
	default:
		m.begin(s.fetch(&m.here, now), 0)
	}
}

// begin makes an action the next one. The source's leader is asked unless a fetch names another broker.
func (m *Mirror) begin(a Action, p purpose) {
	a.Local, a.Topic, a.LeaderEpoch = m.assignment.Epoch, m.source.Topic, m.source.LeaderEpoch
	if a.Kind != Fetch {
		a.Broker = m.source.Leader
	}
	m.set(a, p)
}

// ask has the controller be asked before anything else is done.
func (m *Mirror) ask(a Action) {
	m.want = a
	m.begin(a, 0)
}

// fail has the next action wait, and what was read be read again.
func (m *Mirror) fail(now time.Duration, reason string) {
	m.dropInbox()
	m.pause.extend(now, &m.config, reason)
}

// lose takes that the leader at the source is not known, or not reached, any more.
func (m *Mirror) lose(now time.Duration, reason string) {
	m.source.isLeaderKnown = false
	m.comparison.proof = unproven
	m.fail(now, reason)
}

// isAnswered takes the trouble of a question, and tells whether there was none.
func (m *Mirror) isAnswered(now time.Duration, t Trouble) bool {
	switch t.Kind {
	case NoTrouble:
		m.source.Contact, m.source.watched = now, now
		return true
	case LeaderUnknown:
		m.lose(now, "the leader of the source has changed")
	case TopicGone:
		m.lose(now, "the source does not know the topic, or its id")
	default:
		m.lose(now, "the source does not answer: "+t.Reason)
	}
	return false
}
