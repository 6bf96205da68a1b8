// Package group coordinates consumer groups: who is a member, which generation it
// is, who gets what (classic groups: the members' leader decides), and which offsets
// a group has committed. Machine is the pure state machine of one partition of
// __consumer_offsets, run by a coord.Runtime; Service is its face for the broker.
//
// The records are Kafka's own (OffsetCommitKey and GroupMetadataKey with their
// values), so that its tools read them and a log of Kafka's can be taken over. What
// they hold is a group's last complete generation and its offsets. What they do not
// hold, members that are joining, requests that wait and timers, lives in the
// machine only; after a failover members come back by themselves.
//
// A Machine is guarded by its shard's mutex and knows no clock but its Step's. A
// Service is safe for concurrent use.
package group

import (
	"time"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/record"
)

// joinWait is how long the request of a new member that does not know its id yet
// may wait: no heartbeat can tell that the client has gone. As in Kafka.
const joinWait = 5 * time.Minute

// Settings are what the cluster's configs say about groups.
type Settings struct {
	MinSession    time.Duration // group.min.session.timeout.ms
	MaxSession    time.Duration // group.max.session.timeout.ms
	InitialDelay  time.Duration // group.initial.rebalance.delay.ms
	MaxSize       int           // group.max.size
	MaxMetadata   int           // offset.metadata.max.bytes
	Retention     time.Duration // offsets.retention.minutes
	RetentionScan time.Duration // offsets.retention.check.interval.ms
	CommitTimeout time.Duration // offsets.commit.timeout.ms: how long an answer waits for the replicas
}

// Machine holds the groups of one partition of __consumer_offsets.
type Machine struct {
	settings func() Settings
	newID    func() string // of a member: the part after the client's name
	timers   *coord.Timers
	scan     coord.Timer // looks for expired offsets
	memory   account     // what the groups take
	names    *names      // of the topics that groups have offsets of

	groups map[string]*group
	last   record.Offset // the offset after the last record applied
}

var _ coord.Machine = (*Machine)(nil)

// newMachine makes the machine of a partition that has no records yet.
func newMachine(t *coord.Timers, total *budget, settings func() Settings, newID func() string) *Machine {
	m := &Machine{settings: settings, newID: newID, timers: t, memory: account{total: total}, groups: map[string]*group{}}
	m.names = newNames(&m.memory)
	m.scan.Fire = m.expireOffsets
	return m
}

// Apply changes the state by one record.
func (m *Machine) Apply(s *coord.Step, r coord.Record) error {
	m.last = s.Next()
	k, err := decodeKey(r.Key)
	if err != nil {
		return err
	}
	if k.kind == groupKey {
		return m.applyGroup(s, k, r.Value)
	}
	return m.applyOffset(s, k, r.Value)
}

// Loaded starts the session timers of the members that the log knows: whoever does
// not come back in time is taken out.
func (m *Machine) Loaded(s *coord.Step) {
	m.memory.enter()
	set := m.settings()
	m.timers.Set(&m.scan, s.Now.Add(set.RetentionScan))
	for _, g := range m.groups {
		for _, mb := range g.members {
			m.touch(s, mb)
		}
		if set.MaxSize > 0 && len(g.members) > set.MaxSize {
			m.prepareRebalance(s, g)
		}
	}
}

// Unload tells everybody who waits that the coordinator is elsewhere.
func (m *Machine) Unload(s *coord.Step) {
	m.memory.leave()
	for _, g := range m.groups {
		for _, mb := range g.members {
			mb.answerJoin(s, joinFailure(mb.id, notCoordinator))
			mb.answerSync(s, syncFailure(notCoordinator))
		}
	}
}

// find is the group of a name, nil where there is none. What is decided then rests
// on the group's last record, or on the partition's where the group is not there:
// it may just have been deleted.
func (m *Machine) find(s *coord.Step, id string) *group {
	g := m.groups[id]
	if g == nil {
		s.After(m.last)
		return nil
	}
	s.After(g.last)
	return g
}

// touch grants a member another session.
func (m *Machine) touch(s *coord.Step, mb *member) {
	m.timers.Set(&mb.session, s.Now.Add(mb.sessionTimeout))
}
