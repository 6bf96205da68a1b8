package group

import (
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/group/classic"
	"github.com/leatstream/leat/internal/group/commit"
	"github.com/leatstream/leat/internal/group/memory"
	"github.com/leatstream/leat/internal/record"
)

// Settings are the values of the cluster's configs for groups.
type Settings struct {
	MinSession    time.Duration // group.min.session.timeout.ms
	MaxSession    time.Duration // group.max.session.timeout.ms
	InitialDelay  time.Duration // group.initial.rebalance.delay.ms
	MaxSize       int           // group.max.size
	MaxMetadata   int           // offset.metadata.max.bytes
	Retention     time.Duration // offsets.retention.minutes
	RetentionScan time.Duration // offsets.retention.check.interval.ms
	CommitTimeout time.Duration // offsets.commit.timeout.ms
}

// group is one group of any kind, with the offsets that it has committed.
type group struct {
	id      string
	last    record.Offset // the offset after the group's last record
	offsets committed
	pending map[topicPartition][]pendingOffset // offsets of open transactions, in the order in which they were sent
	classic *classic.Group
}

// Machine holds the groups of one partition of __consumer_offsets.
type Machine struct {
	settings func() Settings
	timers   *coord.Timers
	scan     coord.Timer     // looks for expired offsets
	members  *memory.Account // has the bytes of the groups' members
	memory   *memory.Account // has the bytes of the groups and their offsets
	names    *topicNames
	classic  *classic.Host
	forks    func(topic string, partition int32) (begin record.Offset, ok bool) // see Config.Forks

	groups map[string]*group
	open   map[int64]*transaction // the transactions with offsets that are open, by producer id
	last   record.Offset          // the offset after the last record applied
	loaded int64                  // when the log was loaded, in ms
}

var _ coord.Transactional = (*Machine)(nil)

// NewMachine makes the machine of a partition, before any record is applied.
func NewMachine(t *coord.Timers, members, offsets *memory.Budget, settings func() Settings, newID func() string) *Machine {
	m := &Machine{
		settings: settings, timers: t, members: memory.NewAccount(members), memory: memory.NewAccount(offsets), groups: map[string]*group{},
		open: map[int64]*transaction{},
	}
	m.names = newTopicNames(m.memory)
	m.classic = &classic.Host{
		Timers: t, Memory: m.members, Groups: m.memory, NewID: newID,
		Settings: func() classic.Settings {
			set := settings()
			return classic.Settings{InitialDelay: set.InitialDelay, MaxSize: set.MaxSize}
		},
	}
	m.scan.Fire = m.expireOffsets
	return m
}

// Apply changes the state by one record.
func (m *Machine) Apply(s *coord.Step, r coord.Record) error {
	m.last = s.Next()
	k, err := commit.DecodeKey(r.Key)
	if err != nil {
		return err
	}
	if k.Kind == commit.GroupKind {
		return m.applyGroup(s, k, r.Value)
	}
	return m.applyOffset(s, k, r.Value)
}

// applyGroup applies a classic group's record; a nil value deletes the group.
func (m *Machine) applyGroup(s *coord.Step, k commit.Key, value []byte) error {
	if value == nil {
		if g := m.groups[string(k.Group)]; g != nil {
			g.classic.Close(s)
			g.offsets.deleteAll()
			m.dropPending(g)
			delete(m.groups, g.id)
			m.memory.Add(-groupBytes)
		}
		return nil
	}
	v, err := classic.Decode(value)
	if err != nil {
		return err
	}
	g := m.findOrAddGroup(string(k.Group))
	g.last = s.Next()
	g.classic.Apply(s, v)
	return nil
}

// Loaded sets the timers of members and offsets.
func (m *Machine) Loaded(s *coord.Step) {
	m.members.JoinBudget()
	m.memory.JoinBudget()
	m.timers.Set(&m.scan, s.Now.Add(m.settings().RetentionScan))
	m.loaded = s.Now.UnixMilli()
	for _, g := range m.groups {
		g.classic.Loaded(s)
	}
}

// Unload answers all requests that wait: this node is no longer the coordinator.
func (m *Machine) Unload(s *coord.Step) {
	m.members.LeaveBudget()
	m.memory.LeaveBudget()
	for _, g := range m.groups {
		g.classic.Unload(s)
	}
}

// findGroup returns the group of a name, or nil if there is none. The step's replies
// then wait for the group's last record or, if there is no group, for the partition's:
// that record may have deleted the group.
func (m *Machine) findGroup(s *coord.Step, id string) *group {
	g := m.groups[id]
	if g == nil {
		s.After(m.last)
		return nil
	}
	s.After(g.last)
	return g
}

// findOrAddGroup returns the group of a name, and adds an empty one if there is none.
func (m *Machine) findOrAddGroup(id string) *group {
	g := m.groups[id]
	if g == nil {
		g = &group{id: id, offsets: newCommitted(m.names), classic: classic.New(m.classic, id)}
		m.groups[id] = g
		m.memory.Add(groupBytes)
	}
	return g
}

// Join handles JoinGroup.
func (m *Machine) Join(s *coord.Step, c classic.Client, req *kmsg.JoinGroupRequest, reply func(*kmsg.JoinGroupResponse)) {
	if g := m.findGroup(s, req.Group); g != nil {
		g.classic.Join(s, c, req, reply)
		return
	}
	m.classic.JoinNewGroup(s, c, req, reply, func() *classic.Group { return m.findOrAddGroup(req.Group).classic })
}

// Sync handles SyncGroup.
func (m *Machine) Sync(s *coord.Step, req *kmsg.SyncGroupRequest, reply func(*kmsg.SyncGroupResponse)) {
	if g := m.findGroup(s, req.Group); g != nil {
		g.classic.Sync(s, req, reply)
		return
	}
	s.Reply(func(err error) { reply(classic.SyncFailure(codeOr(err, unknownMemberID))) })
}

// Heartbeat handles Heartbeat. The answer to a member tells nothing that a failover could
// take back, so it waits for no record. A client that is told that it is no member, or
// none of this generation, starts over, so that answer waits for the record that says so.
func (m *Machine) Heartbeat(s *coord.Step, req *kmsg.HeartbeatRequest) int16 {
	g := m.groups[req.Group]
	if g == nil {
		s.After(m.last)
		return unknownMemberID
	}
	code := g.classic.Heartbeat(s, req)
	if code != 0 && code != rebalanceInProgress {
		s.After(g.last)
	}
	return code
}

// Leave handles LeaveGroup. Each member of the answer has a code of its own.
func (m *Machine) Leave(s *coord.Step, req *kmsg.LeaveGroupRequest) []kmsg.LeaveGroupResponseMember {
	if g := m.findGroup(s, req.Group); g != nil {
		return g.classic.Leave(s, req)
	}
	resp := make([]kmsg.LeaveGroupResponseMember, len(req.Members))
	for i, who := range req.Members {
		resp[i] = kmsg.LeaveGroupResponseMember{MemberID: who.MemberID, InstanceID: who.InstanceID, ErrorCode: unknownMemberID}
	}
	return resp
}
