package classic

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/group/memory"
	"github.com/leatstream/leat/internal/record"
)

// state is a classic group's state; the package doc draws it. There is no value for
// Kafka's Dead, since a dead group does not exist.
type state uint8

const (
	// empty: there are no members. The group exists for its offsets, or for a member
	// that was given an id and has not joined with it yet.
	empty state = iota
	// preparing: members must join again, and their JoinGroups wait for each other.
	preparing
	// completing: all members have joined, and SyncGroups wait for the leader's
	// assignment.
	completing
	// stable: the assignment is recorded, and SyncGroups are answered with it.
	stable
)

// String is Kafka's name for the state.
func (s state) String() string {
	return [...]string{"Empty", "PreparingRebalance", "CompletingRebalance", "Stable"}[s]
}

// consumerType is the protocol type of consumers. The coordinator reads the topics in
// their metadata.
const consumerType = "consumer"

// Settings are the values of the cluster's configs for classic groups.
type Settings struct {
	InitialDelay time.Duration // group.initial.rebalance.delay.ms
	MaxSize      int           // group.max.size
}

// Host is shared by the groups of a machine. It does not change.
type Host struct {
	Settings func() Settings
	NewID    func() string // makes the random part of a member id
	Timers   *coord.Timers
	Memory   *memory.Account // has the bytes of members
	Groups   *memory.Account // has those of groups without members
}

// Group is one classic group. A simple group, which only commits offsets, is a group
// that is empty and has no protocol type.
type Group struct {
	host      *Host
	id        string
	recordEnd record.Offset // the offset after the group's last record

	// These are in the record.
	state        state
	stateSince   int64 // when the group came into its state, ms; -1 if that is not known
	generation   int32
	generationIn record.Epoch // the leader epoch in which the generation was recorded, or began
	protocolType string       // "" before the first member
	protocol     string       // "" before one is chosen
	leader       string       // a member id; "" if there is no leader
	members      []*member
	byID         map[string]*member // by member id
	byInstance   map[string]*member // by instance id; static members only
	supporters   map[string]int     // how many members have a protocol

	// These are only in memory.
	previousState    state
	waiting          int                 // how many members have a JoinGroup that waits
	unsynced         int                 // how many members have unsynced set
	pending          map[string]*pending // member ids that were given out and not used yet
	subscribed       map[string]struct{} // the topics that the members of this generation consume, if subscribedKnown
	subscribedKnown  bool
	subscribedCharge int64       // bytes of subscribed in the account
	joinTimer        coord.Timer // ends the wait for members while preparing; while emptyUnrecorded, tries recordEmpty again
	syncTimer        coord.Timer // ends the wait for SyncGroups while completing or stable
	emptyUnrecorded  bool        // the group is empty, and the record of that could not be appended yet

	// These belong to the initial delay, the wait of an empty group's first members for
	// further ones.
	initialDelay      time.Duration // how long the present part of it takes
	delayLeft         time.Duration // by how much it may be extended in all
	joinedDuringDelay bool          // a member has joined during the present part
}

// pending is a member id that was given out and not used yet.
type pending struct {
	session coord.Timer
	charged int64 // its bytes in the account
}

// member is one member of a group.
type member struct {
	group            *Group
	id               string
	instance         *string // the instance id of a static member; nil for a dynamic one
	clientID         string
	clientHost       string
	rebalanceTimeout time.Duration
	sessionTimeout   time.Duration
	protocols        []kmsg.JoinGroupRequestProtocol
	assignment       []byte
	charged          int64 // its bytes in the account

	session   coord.Timer
	join      func(*kmsg.JoinGroupResponse) // answers the JoinGroup that waits; nil if none does
	sync      func(*kmsg.SyncGroupResponse) // answers the SyncGroup that waits; nil if none does
	firstJoin bool                          // its first JoinGroup was not answered yet
	unsynced  bool                          // its SyncGroup of this generation has not come
	forgotten bool                          // it is in no table any more, and about to go from the list
}

// New makes an empty group. It must be closed.
func New(h *Host, id string) *Group {
	g := &Group{host: h, id: id, stateSince: -1}
	g.joinTimer.Fire, g.syncTimer.Fire = g.joinTimedOut, g.syncTimedOut
	h.Groups.Add(Size(id))
	return g
}

// Loaded starts the sessions of the members that the log has. A member that does not
// come back in time is removed.
func (g *Group) Loaded(s *coord.Step) {
	for _, mb := range g.members {
		g.restartSession(s, mb)
	}
	if limit := g.host.Settings().MaxSize; limit > 0 && len(g.members) > limit {
		g.prepareRebalance(s)
	}
}

// Unload answers all members whose requests wait: this node is no longer the
// coordinator.
func (g *Group) Unload(s *coord.Step) {
	for _, mb := range g.members {
		mb.answerJoin(s, JoinFailure(mb.id, notCoordinator))
		mb.answerSync(s, SyncFailure(notCoordinator))
	}
}

// Close ends a group that was deleted: it answers requests that wait, stops its timers,
// and gives back its memory.
func (g *Group) Close(s *coord.Step) {
	g.removeMembers(s, func(*member) bool { return true })
	for id := range g.pending {
		g.removePending(id)
	}
	g.host.Timers.Stop(&g.joinTimer)
	g.host.Timers.Stop(&g.syncTimer)
	g.host.Memory.Add(-g.subscribedCharge)
	g.host.Groups.Add(-Size(g.id))
}

// generationsEach is how many generations one coordinator may begin without recording one, so that no later
// coordinator gives one of their numbers again.
const generationsEach = 100

// nextGeneration is the number of the next generation. The members of a generation are told of it
// before it is recorded. The coordinator of a later epoch, which may not know of it, must not give the same number
// to other members. So it leaves out as many as those before it can have begun since the last record.
func nextGeneration(g *Group, s *coord.Step) int32 {
	return g.generation + 1 + generationsEach*int32(s.Epoch()-g.generationIn)
}

// State is Kafka's name for the group's state.
func (g *Group) State() string { return g.state.String() }

// ProtocolType is the protocol type of the members, such as "consumer"; it is "" if
// there have been none.
func (g *Group) ProtocolType() string { return g.protocolType }

// IsEmpty tells whether the group has no members.
func (g *Group) IsEmpty() bool { return g.state == empty }

// IsIdle tells whether the group has neither members nor pending ids.
func (g *Group) IsIdle() bool { return g.state == empty && len(g.pending) == 0 }

// MayNeedOffsets tells whether members may need the offsets of a topic, which do not
// expire then. That is so in every group with members, unless the group is stable and its
// consumers are known not to consume the topic.
func (g *Group) MayNeedOffsets(topic string) bool {
	return g.state != empty && (g.state != stable || !g.subscribedKnown || g.Consumes(topic))
}

// EmptySince is when, in ms, the last member has left; ok is false if the group has
// members, has never had any, or does not know.
func (g *Group) EmptySince() (ms int64, ok bool) {
	return g.stateSince, g.state == empty && g.protocolType != "" && g.stateSince >= 0
}

// restartSession begins a member's session anew.
func (g *Group) restartSession(s *coord.Step, mb *member) {
	g.host.Timers.Set(&mb.session, s.Now.Add(mb.sessionTimeout))
}

// newMember makes a member for g, which addMember or replaceMember adds to it.
func (g *Group) newMember(id string, instance *string) *member {
	mb := &member{group: g, id: id, instance: instance}
	mb.session.Fire = func(s *coord.Step) { g.sessionExpired(s, mb) }
	return mb
}

// changeState brings the group into another state.
func (g *Group) changeState(s *coord.Step, next state) {
	g.previousState, g.state, g.stateSince = g.state, next, s.Now.UnixMilli()
}

// addMember adds a member to the group's tables.
func (g *Group) addMember(mb *member) {
	g.members = append(g.members, mb)
	putInto(&g.byID, mb.id, mb)
	if mb.instance != nil {
		putInto(&g.byInstance, *mb.instance, mb)
	}
	g.countProtocols(mb, 1)
}

// putInto sets a key of a map. It makes the map first, since most groups never need it.
func putInto[V any](m *map[string]V, key string, v V) {
	if *m == nil {
		*m = map[string]V{}
	}
	(*m)[key] = v
}

// countProtocols adds n, which is 1 or -1, to the supporters of a member's protocols.
func (g *Group) countProtocols(mb *member, n int) {
	for _, p := range mb.protocols {
		putInto(&g.supporters, p.Name, g.supporters[p.Name]+n)
		if g.supporters[p.Name] == 0 {
			delete(g.supporters, p.Name)
		}
	}
}

// removeMember removes a member, and answers its requests that wait with the code. If it
// was the leader, the oldest member becomes the leader.
func (g *Group) removeMember(s *coord.Step, mb *member, code int16) {
	g.forgetMember(s, mb, code)
	g.dropForgotten()
}

// removeMembers removes all members for which isGone returns true. It takes as long as for one,
// since a group may have very many members (BenchmarkManyMembersGone).
func (g *Group) removeMembers(s *coord.Step, isGone func(*member) bool) {
	for _, mb := range g.members {
		if isGone(mb) {
			g.forgetMember(s, mb, unknownMemberID)
		}
	}
	g.dropForgotten()
}

// dropForgotten takes the members that were forgotten off the list, and has the oldest one lead if
// the leader was among them.
func (g *Group) dropForgotten() {
	g.members = slices.DeleteFunc(g.members, func(mb *member) bool { return mb.forgotten })
	if g.leader == "" && len(g.members) > 0 {
		g.leader = g.members[0].id
	}
}

// forgetMember removes a member from all but the list of members, and answers its requests that
// wait with the code. The caller takes it off the list.
func (g *Group) forgetMember(s *coord.Step, mb *member, code int16) {
	mb.answerJoin(s, JoinFailure("", code))
	mb.answerSync(s, SyncFailure(code))
	g.host.Timers.Stop(&mb.session)
	mb.refund()
	mb.clearUnsynced()
	g.countProtocols(mb, -1)
	delete(g.byID, mb.id)
	if mb.instance != nil && g.byInstance[*mb.instance] == mb {
		delete(g.byInstance, *mb.instance)
	}
	mb.forgotten = true
	if g.leader == mb.id {
		g.leader = ""
	}
}

// clearUnsynced makes the group no longer wait for the member's SyncGroup.
func (mb *member) clearUnsynced() {
	if mb.unsynced {
		mb.unsynced = false
		mb.group.unsynced--
	}
}

// removePending removes a pending id, if it is one.
func (g *Group) removePending(id string) {
	if p := g.pending[id]; p != nil {
		g.host.Timers.Stop(&p.session)
		g.host.Memory.Add(-p.charged)
		delete(g.pending, id)
	}
}

// findMember returns the member that sent a request, or the code of the answer if its
// ids are wrong.
func (g *Group) findMember(id string, instance *string) (*member, int16) {
	if instance != nil {
		switch mb := g.byInstance[*instance]; {
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

// allJoined tells whether no member, and no client with a pending id, is missing for the
// next generation.
func (g *Group) allJoined() bool { return len(g.pending) == 0 && g.waiting == len(g.members) }

// rebalanceTimeout is the longest rebalance timeout of the members.
func (g *Group) rebalanceTimeout() (d time.Duration) {
	for _, mb := range g.members {
		d = max(d, mb.rebalanceTimeout)
	}
	return d
}

// supportsProtocols tells whether a client with these protocols can join: its type must
// be the group's, and all members must have one of its protocols.
func (g *Group) supportsProtocols(protocolType string, protocols []kmsg.JoinGroupRequestProtocol) bool {
	if g.state == empty {
		return protocolType != "" && len(protocols) > 0
	}
	if g.protocolType != protocolType {
		return false
	}
	return slices.ContainsFunc(protocols, func(p kmsg.JoinGroupRequestProtocol) bool {
		return g.supporters[p.Name] == len(g.members)
	})
}

// selectProtocol chooses the next generation's protocol by a vote. Each member votes for
// the first of its protocols that all members have. After a tie the protocol wins that
// an older member names first. If changed is not nil, that member votes with protocols
// instead of its own. The result is "" if there is no protocol that all members have.
func (g *Group) selectProtocol(changed *member, protocols []kmsg.JoinGroupRequestProtocol) string {
	ballot := func(mb *member) []kmsg.JoinGroupRequestProtocol {
		if mb == changed {
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

// learnSubscriptions sets the topics that the members of a new generation consume. They
// are known only if the members have the consumer protocol, their metadata can be read,
// and there is room for the set, which may be larger than the metadata.
func (g *Group) learnSubscriptions() {
	g.host.Memory.Add(-g.subscribedCharge)
	g.subscribed, g.subscribedKnown, g.subscribedCharge = nil, false, 0
	if g.protocolType != consumerType || g.protocol == "" && len(g.members) > 0 {
		return
	}
	topics := map[string]struct{}{}
	room, total := g.host.Memory.Room(), int64(0)
	for _, mb := range g.members {
		n, ok := addSubscribedTopics(topics, mb.protocolMetadata(g.protocol), room-total)
		if !ok {
			return
		}
		total += n
	}
	if g.host.Memory.Take(total) {
		g.subscribed, g.subscribedKnown, g.subscribedCharge = topics, true, total
	}
}

// Consumes tells whether members of the group may consume a topic.
func (g *Group) Consumes(topic string) bool {
	if !g.subscribedKnown {
		return g.protocolType == consumerType
	}
	_, ok := g.subscribed[topic]
	return ok
}

// protocolMetadata is the metadata that the member has sent with a protocol.
func (mb *member) protocolMetadata(protocol string) []byte {
	for _, p := range mb.protocols {
		if p.Name == protocol {
			return p.Metadata
		}
	}
	return nil
}

// hasProtocols tells whether the member's protocols equal these.
func (mb *member) hasProtocols(protocols []kmsg.JoinGroupRequestProtocol) bool {
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

// awaitJoin keeps a JoinGroup until it is answered. An earlier one of the member is
// answered now: the client has given it up, but each request must get an answer.
func (mb *member) awaitJoin(s *coord.Step, reply func(*kmsg.JoinGroupResponse)) {
	mb.answerJoin(s, JoinFailure(mb.id, rebalanceInProgress))
	mb.join = reply
	mb.group.waiting++
}

// awaitSync keeps a SyncGroup until it is answered. An earlier one of the member is
// answered now.
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
