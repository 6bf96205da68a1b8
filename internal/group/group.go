package group

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/record"
)

// state is a classic group's state. Dead has no value: a dead group is not there.
type state uint8

const (
	// empty: no members; the group is there for its offsets, or for a member that
	// was given an id and has not joined with it yet.
	empty state = iota
	// preparing: members are asked to join again; their requests wait.
	preparing
	// completing: everybody has joined; the leader computes the assignment.
	completing
	// stable: everybody can have the assignment.
	stable
)

// String is Kafka's name for the state.
func (s state) String() string {
	return [...]string{"Empty", "PreparingRebalance", "CompletingRebalance", "Stable"}[s]
}

// consumerType is the protocol type whose metadata the coordinator understands.
const consumerType = "consumer"

// group is one classic group. A simple group, which only commits offsets, is one
// that is empty and has no protocol type.
type group struct {
	id   string
	last record.Offset // the offset after the group's last record

	// What records hold.
	state        state
	since        int64 // ms; when the group came to its state; -1: unknown
	generation   int32
	protocolType string // "": none yet
	protocol     string // "": none chosen
	leader       string // a member's id; "": none
	members      []*member
	byID         map[string]*member
	statics      map[string]*member // by instance id
	support      map[string]int     // how many members have a protocol
	offsets      committed

	// What they do not hold.
	before     state               // the state before this one
	waiting    int                 // members whose JoinGroup waits
	unsynced   int                 // members whose SyncGroup of this generation has not come
	pending    map[string]*pending // ids given out with which nobody has joined yet
	subscribed map[string]struct{} // topics of the consumers of this generation; see knows
	knows      bool                // subscribed is known
	charged    int64               // what the account holds for subscribed
	joinTimer  coord.Timer         // preparing: end of the wait for members; unsaved: see recordEmpty
	syncTimer  coord.Timer         // completing, stable: end of the wait for SyncGroups
	grown      bool                // a member came during the initial delay
	delay      time.Duration       // the part of the initial delay that runs
	unsaved    bool                // it is empty, and that could not be recorded yet
	remaining  time.Duration       // by how much the initial delay may still be extended
}

// pending is a member id that was given out and not used yet.
type pending struct {
	session coord.Timer
	charged int64 // what the account holds for it
}

// member is one member of a group.
type member struct {
	group            *group
	id               string
	instance         *string // nil: a dynamic member
	clientID         string
	clientHost       string
	rebalanceTimeout time.Duration
	sessionTimeout   time.Duration
	protocols        []kmsg.JoinGroupRequestProtocol
	assignment       []byte
	charged          int64 // what the account holds for it

	session  coord.Timer
	join     func(*kmsg.JoinGroupResponse) // a JoinGroup that waits; nil: none
	sync     func(*kmsg.SyncGroupResponse) // a SyncGroup that waits; nil: none
	fresh    bool                          // joined without knowing its id, and has had no answer yet
	unsynced bool                          // has not sent the SyncGroup of this generation
}

// obtain finds a group or makes an empty one.
func (m *Machine) obtain(id string) *group {
	g := m.groups[id]
	if g == nil {
		g = &group{
			id: id, since: -1,
			byID: map[string]*member{}, statics: map[string]*member{}, support: map[string]int{},
			offsets: newCommitted(m.names), pending: map[string]*pending{},
		}
		g.joinTimer.Fire = func(s *coord.Step) { m.joinTimedOut(s, g) }
		g.syncTimer.Fire = func(s *coord.Step) { m.syncTimedOut(s, g) }
		m.groups[id] = g
		m.memory.add(groupSize(id))
	}
	return g
}

// newMember makes a member of g, outside of it.
func (m *Machine) newMember(g *group, id string, instance *string) *member {
	mb := &member{group: g, id: id, instance: instance}
	mb.session.Fire = func(s *coord.Step) { m.sessionExpired(s, mb) }
	return mb
}

// enter changes the state.
func (g *group) enter(s *coord.Step, next state) {
	g.before, g.state, g.since = g.state, next, s.Now.UnixMilli()
}

// add takes a member in.
func (g *group) add(mb *member) {
	g.members = append(g.members, mb)
	g.byID[mb.id] = mb
	if mb.instance != nil {
		g.statics[*mb.instance] = mb
	}
	g.count(mb, 1)
}

// count adds a member's protocols to, or takes them from, those supported.
func (g *group) count(mb *member, n int) {
	for _, p := range mb.protocols {
		if g.support[p.Name] += n; g.support[p.Name] == 0 {
			delete(g.support, p.Name)
		}
	}
}

// remove takes a member out, answering what still waits with the error. Where it
// led, the oldest member leads.
func (m *Machine) remove(s *coord.Step, mb *member, code int16) {
	g := mb.group
	mb.answerJoin(s, joinFailure("", code))
	mb.answerSync(s, syncFailure(code))
	m.timers.Stop(&mb.session)
	m.refund(mb)
	g.synced(mb)
	g.count(mb, -1)
	delete(g.byID, mb.id)
	if mb.instance != nil && g.statics[*mb.instance] == mb {
		delete(g.statics, *mb.instance)
	}
	g.members = slices.DeleteFunc(g.members, func(o *member) bool { return o == mb })
	if g.leader == mb.id {
		g.leader = ""
		if len(g.members) > 0 {
			g.leader = g.members[0].id
		}
	}
}

// synced notes that a member's SyncGroup is not waited for any more.
func (g *group) synced(mb *member) {
	if mb.unsynced {
		mb.unsynced = false
		g.unsynced--
	}
}

// removePending forgets an id that was given out.
func (m *Machine) removePending(g *group, id string) {
	if p := g.pending[id]; p != nil {
		m.timers.Stop(&p.session)
		m.memory.add(-p.charged)
		delete(g.pending, id)
	}
}

// check finds the member that a request speaks for, or the error that it gets.
func (g *group) check(id string, instance *string) (*member, int16) {
	if instance != nil {
		switch mb := g.statics[*instance]; {
		case mb == nil:
			return nil, unknownMemberID
		case mb.id != id:
			return nil, fencedInstanceID
		}
	}
	mb := g.byID[id]
	if mb == nil {
		return nil, unknownMemberID
	}
	return mb, 0
}

// allJoined tells whether nobody is missing for the next generation.
func (g *group) allJoined() bool { return len(g.pending) == 0 && g.waiting == len(g.members) }

// rebalanceTimeout is the longest of the members'.
func (g *group) rebalanceTimeout() (d time.Duration) {
	for _, mb := range g.members {
		d = max(d, mb.rebalanceTimeout)
	}
	return d
}

// supports tells whether a joining member of these protocols could work with the
// members that are there: the same type, and one protocol that all of them have.
func (g *group) supports(protocolType string, protocols []kmsg.JoinGroupRequestProtocol) bool {
	if g.state == empty {
		return protocolType != "" && len(protocols) > 0
	}
	if g.protocolType != protocolType {
		return false
	}
	return slices.ContainsFunc(protocols, func(p kmsg.JoinGroupRequestProtocol) bool {
		return g.support[p.Name] == len(g.members)
	})
}

// selectProtocol holds the vote for the next generation's protocol: of those that
// every member has, each votes for the one that it names first; a tie goes to the
// one that an older member names first. Where a member is given, protocols stand in
// for its own. "" is returned where there is none that all have.
func (g *group) selectProtocol(of *member, protocols []kmsg.JoinGroupRequestProtocol) string {
	ballot := func(mb *member) []kmsg.JoinGroupRequestProtocol {
		if mb == of {
			return protocols
		}
		return mb.protocols
	}
	support, votes := map[string]int{}, map[string]int{}
	for _, mb := range g.members {
		for _, p := range ballot(mb) {
			support[p.Name]++
		}
	}
	best := ""
	for _, mb := range g.members {
		for _, p := range ballot(mb) {
			if support[p.Name] == len(g.members) {
				votes[p.Name]++
				break
			}
		}
	}
	for _, mb := range g.members {
		for _, p := range ballot(mb) {
			if votes[p.Name] > votes[best] {
				best = p.Name
			}
		}
	}
	return best
}

// learnSubscriptions notes which topics the members of a new generation consume,
// where they speak the consumer protocol, it can be read, and there is room for it:
// a short name takes more in the set than in the metadata.
func (m *Machine) learnSubscriptions(g *group) {
	m.memory.add(-g.charged)
	g.subscribed, g.knows, g.charged = nil, false, 0
	if g.protocolType != consumerType || g.protocol == "" && len(g.members) > 0 {
		return
	}
	topics := map[string]struct{}{}
	room, total := m.memory.room(), int64(0)
	for _, mb := range g.members {
		n, ok := subscription(topics, mb.metadata(g.protocol), room-total)
		if !ok {
			return
		}
		total += n
	}
	if m.memory.take(total) {
		g.subscribed, g.knows, g.charged = topics, true, total
	}
}

// consumes tells whether the group's members may be consuming a topic.
func (g *group) consumes(topic string) bool {
	if !g.knows {
		return g.protocolType == consumerType
	}
	_, ok := g.subscribed[topic]
	return ok
}

// metadata is what the member said with a protocol.
func (mb *member) metadata(protocol string) []byte {
	for _, p := range mb.protocols {
		if p.Name == protocol {
			return p.Metadata
		}
	}
	return nil
}

// matches tells whether the member would say nothing new by these protocols.
func (mb *member) matches(protocols []kmsg.JoinGroupRequestProtocol) bool {
	return slices.EqualFunc(mb.protocols, protocols, func(a, b kmsg.JoinGroupRequestProtocol) bool {
		return a.Name == b.Name && slices.Equal(a.Metadata, b.Metadata)
	})
}

// answerJoin answers a JoinGroup that waits, if one does.
func (mb *member) answerJoin(s *coord.Step, resp *kmsg.JoinGroupResponse) {
	if mb.join != nil {
		replyJoin(s, mb.join, resp)
		mb.join = nil
		mb.group.waiting--
	}
}

// await parks a JoinGroup; a client that repeats its request has given the earlier
// one up, but a request must be answered.
func (mb *member) await(s *coord.Step, reply func(*kmsg.JoinGroupResponse)) {
	mb.answerJoin(s, joinFailure(mb.id, rebalanceInProgress))
	mb.join = reply
	mb.group.waiting++
}

// awaitSync parks a SyncGroup, in the same way.
func (mb *member) awaitSync(s *coord.Step, reply func(*kmsg.SyncGroupResponse)) {
	mb.answerSync(s, syncFailure(rebalanceInProgress))
	mb.sync = reply
}

// answerSync answers a SyncGroup that waits, if one does, and tells whether it did.
func (mb *member) answerSync(s *coord.Step, resp *kmsg.SyncGroupResponse) bool {
	if mb.sync == nil {
		return false
	}
	replySync(s, mb.sync, resp)
	mb.sync = nil
	return true
}
