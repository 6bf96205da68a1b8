package classic

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/group/memory"
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

// Settings are what the cluster's configs say about classic groups.
type Settings struct {
	InitialDelay time.Duration // group.initial.rebalance.delay.ms
	MaxSize      int           // group.max.size
}

// Host is what the groups of a machine share. It does not change.
type Host struct {
	Settings func() Settings
	NewID    func() string // of a member: the part after the client's name
	Timers   *coord.Timers
	Memory   *memory.Account
}

// Group is one classic group. A simple group, which only commits offsets, is one that
// is empty and has no protocol type.
type Group struct {
	host *Host
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
	group            *Group
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

// New makes an empty group. It must be closed.
func New(h *Host, id string) *Group {
	g := &Group{host: h, id: id, since: -1}
	g.joinTimer.Fire, g.syncTimer.Fire = g.joinTimedOut, g.syncTimedOut
	h.Memory.Add(Size(id))
	return g
}

// Loaded starts the session timers of the members that the log knows: one that does not
// come back in time is taken out.
func (g *Group) Loaded(s *coord.Step) {
	for _, mb := range g.members {
		g.touch(s, mb)
	}
	if limit := g.host.Settings().MaxSize; limit > 0 && len(g.members) > limit {
		g.prepareRebalance(s)
	}
}

// Unload answers all members whose requests wait: the coordinator is elsewhere.
func (g *Group) Unload(s *coord.Step) {
	for _, mb := range g.members {
		mb.answerJoin(s, JoinFailure(mb.id, notCoordinator))
		mb.answerSync(s, SyncFailure(notCoordinator))
	}
}

// Close ends a group that is gone, with everything that belongs to it.
func (g *Group) Close(s *coord.Step) {
	for len(g.members) > 0 {
		g.remove(s, g.members[len(g.members)-1], unknownMemberID)
	}
	for id := range g.pending {
		g.removePending(id)
	}
	g.host.Timers.Stop(&g.joinTimer)
	g.host.Timers.Stop(&g.syncTimer)
	g.host.Memory.Add(-g.charged - Size(g.id))
}

// State is Kafka's name for the group's state.
func (g *Group) State() string { return g.state.String() }

// ProtocolType is what the members have in common, such as "consumer"; "": there have
// been none.
func (g *Group) ProtocolType() string { return g.protocolType }

// Empty tells whether the group has no members.
func (g *Group) Empty() bool { return g.state == empty }

// Idle tells whether the group has no members and expects none.
func (g *Group) Idle() bool { return g.state == empty && len(g.pending) == 0 }

// InUse tells whether members may need the offsets of a topic, so that these do not
// expire: any members, unless it is a stable group of consumers that are known not to
// consume it.
func (g *Group) InUse(topic string) bool {
	return g.state != empty && (g.state != stable || !g.knows || g.Consumes(topic))
}

// EmptySince is when (ms) the last member has left; false: there have been none, or it
// is not known.
func (g *Group) EmptySince() (ms int64, ok bool) {
	return g.since, g.state == empty && g.protocolType != "" && g.since >= 0
}

// touch grants a member another session.
func (g *Group) touch(s *coord.Step, mb *member) {
	g.host.Timers.Set(&mb.session, s.Now.Add(mb.sessionTimeout))
}

// newMember makes a member of g, outside of it.
func (g *Group) newMember(id string, instance *string) *member {
	mb := &member{group: g, id: id, instance: instance}
	mb.session.Fire = func(s *coord.Step) { g.sessionExpired(s, mb) }
	return mb
}

// enter changes the state.
func (g *Group) enter(s *coord.Step, next state) {
	g.before, g.state, g.since = g.state, next, s.Now.UnixMilli()
}

// add takes a member in.
func (g *Group) add(mb *member) {
	g.members = append(g.members, mb)
	put(&g.byID, mb.id, mb)
	if mb.instance != nil {
		put(&g.statics, *mb.instance, mb)
	}
	g.count(mb, 1)
}

// put enters into a table, which most groups never have.
func put[V any](m *map[string]V, key string, v V) {
	if *m == nil {
		*m = map[string]V{}
	}
	(*m)[key] = v
}

// count adds a member's protocols to, or takes them from, those supported.
func (g *Group) count(mb *member, n int) {
	for _, p := range mb.protocols {
		put(&g.support, p.Name, g.support[p.Name]+n)
		if g.support[p.Name] == 0 {
			delete(g.support, p.Name)
		}
	}
}

// remove takes a member out, answering what still waits with the error. Where it
// led, the oldest member leads.
func (g *Group) remove(s *coord.Step, mb *member, code int16) {
	mb.answerJoin(s, JoinFailure("", code))
	mb.answerSync(s, SyncFailure(code))
	g.host.Timers.Stop(&mb.session)
	g.refund(mb)
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
func (g *Group) synced(mb *member) {
	if mb.unsynced {
		mb.unsynced = false
		g.unsynced--
	}
}

// removePending forgets an id that was given out.
func (g *Group) removePending(id string) {
	if p := g.pending[id]; p != nil {
		g.host.Timers.Stop(&p.session)
		g.host.Memory.Add(-p.charged)
		delete(g.pending, id)
	}
}

// check finds the member that a request speaks for, or the error that it gets.
func (g *Group) check(id string, instance *string) (*member, int16) {
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
func (g *Group) allJoined() bool { return len(g.pending) == 0 && g.waiting == len(g.members) }

// rebalanceTimeout is the longest of the members'.
func (g *Group) rebalanceTimeout() (d time.Duration) {
	for _, mb := range g.members {
		d = max(d, mb.rebalanceTimeout)
	}
	return d
}

// supports tells whether a joining member of these protocols could work with the
// members that are there: the same type, and one protocol that all of them have.
func (g *Group) supports(protocolType string, protocols []kmsg.JoinGroupRequestProtocol) bool {
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
func (g *Group) selectProtocol(of *member, protocols []kmsg.JoinGroupRequestProtocol) string {
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
func (g *Group) learnSubscriptions() {
	g.host.Memory.Add(-g.charged)
	g.subscribed, g.knows, g.charged = nil, false, 0
	if g.protocolType != consumerType || g.protocol == "" && len(g.members) > 0 {
		return
	}
	topics := map[string]struct{}{}
	room, total := g.host.Memory.Room(), int64(0)
	for _, mb := range g.members {
		n, ok := subscription(topics, mb.metadata(g.protocol), room-total)
		if !ok {
			return
		}
		total += n
	}
	if g.host.Memory.Take(total) {
		g.subscribed, g.knows, g.charged = topics, true, total
	}
}

// Consumes tells whether the group's members may be consuming a topic.
func (g *Group) Consumes(topic string) bool {
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
	mb.answerJoin(s, JoinFailure(mb.id, rebalanceInProgress))
	mb.join = reply
	mb.group.waiting++
}

// awaitSync parks a SyncGroup, in the same way.
func (mb *member) awaitSync(s *coord.Step, reply func(*kmsg.SyncGroupResponse)) {
	mb.answerSync(s, SyncFailure(rebalanceInProgress))
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
