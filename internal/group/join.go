package group

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
)

// Client is whose request it is.
type Client struct {
	ID   string // client.id
	Host string // its address, written as Kafka does: "/127.0.0.1"
}

// joiner is a JoinGroup under way.
type joiner struct {
	Client
	req   *kmsg.JoinGroupRequest
	reply func(*kmsg.JoinGroupResponse)
}

// timeouts are the request's session and rebalance timeouts; version 0 knew but one.
func (j *joiner) timeouts() (session, rebalance time.Duration) {
	session = time.Duration(j.req.SessionTimeoutMillis) * time.Millisecond
	if j.req.Version == 0 {
		return session, session
	}
	return session, time.Duration(j.req.RebalanceTimeoutMillis) * time.Millisecond
}

// size is about what the client will take as a member.
func (j *joiner) size() int64 {
	ids := len(j.ID) + len(deref(j.req.InstanceID)) // each is in the member's id again
	return int64(memberCost+2*ids+len(j.Host)) + protocolsSize(j.req.Protocols)
}

func (j *joiner) fail(s *coord.Step, memberID string, code int16) {
	replyJoin(s, j.reply, joinFailure(memberID, code))
}

// Join handles JoinGroup.
func (m *Machine) Join(s *coord.Step, c Client, req *kmsg.JoinGroupRequest, reply func(*kmsg.JoinGroupResponse)) {
	j := &joiner{Client: c, req: req, reply: reply}
	req.Protocols = distinct(req.Protocols)
	g := m.find(s, req.Group)
	switch {
	case g != nil:
		m.join(s, g, j)
	case req.MemberID != "":
		j.fail(s, req.MemberID, unknownMemberID)
	case req.ProtocolType == "" || len(req.Protocols) == 0:
		j.fail(s, "", inconsistentGroupProtocol)
	case j.size()+groupSize(req.Group) > m.memory.room():
		m.memory.total.refused(s.Now, req.Group, j.size()+groupSize(req.Group))
		j.fail(s, "", groupMaxSizeReached)
	default:
		// A group exists when its first record does.
		putEmpty(s, req.Group)
		s.Else(func(err error) { j.fail(s, "", code(err)) })
		s.Then(func() { m.join(s, m.obtain(req.Group), j) })
	}
}

// distinct drops protocols named a second time.
func distinct(protocols []kmsg.JoinGroupRequestProtocol) []kmsg.JoinGroupRequestProtocol {
	seen := make(map[string]struct{}, len(protocols))
	return slices.DeleteFunc(protocols, func(p kmsg.JoinGroupRequestProtocol) bool {
		_, again := seen[p.Name]
		seen[p.Name] = struct{}{}
		return again
	})
}

func (m *Machine) join(s *coord.Step, g *group, j *joiner) {
	id := j.req.MemberID
	switch {
	case !m.hasRoom(g, id):
		m.removePending(g, id)
		if mb := g.byID[id]; mb != nil {
			m.remove(s, mb, groupMaxSizeReached)
		}
		j.fail(s, "", groupMaxSizeReached)
	case !g.supports(j.req.ProtocolType, j.req.Protocols):
		j.fail(s, id, inconsistentGroupProtocol)
	case id == "":
		m.joinNew(s, g, j)
	default:
		m.joinAgain(s, g, j)
	}
}

// hasRoom tells whether the group may take this member in. While members are being
// gathered those that wait count, so that a group that is too large shrinks.
func (m *Machine) hasRoom(g *group, id string) bool {
	limit, mb := m.settings().MaxSize, g.byID[id]
	switch {
	case limit <= 0 || g.state == empty:
		return true
	case g.state == preparing:
		return mb != nil && mb.join != nil || g.waiting < limit
	default:
		return mb != nil || len(g.members) < limit
	}
}

// maxPending bounds the ids that a group has given out and that nobody uses yet.
const maxPending = 10_000

// joinNew handles a client that has no member id.
func (m *Machine) joinNew(s *coord.Step, g *group, j *joiner) {
	if j.req.InstanceID != nil {
		id := *j.req.InstanceID + "-" + m.newID()
		if old := g.statics[*j.req.InstanceID]; old != nil {
			m.replaceStatic(s, old, id, j)
			return
		}
		m.admit(s, g, id, j)
		return
	}
	id := j.ID + "-" + m.newID()
	if j.req.Version < 4 {
		m.admit(s, g, id, j)
		return
	}
	if len(g.pending) >= maxPending {
		j.fail(s, "", groupMaxSizeReached)
		return
	}
	// KIP-394: the client must come back with its id. One that dies meanwhile does
	// not become a member that nobody can be asked about.
	p := &pending{charged: int64(pendingCost + len(id))}
	if !m.reserve(s, g.id, p.charged) {
		j.fail(s, "", groupMaxSizeReached)
		return
	}
	p.session.Fire = func(s *coord.Step) { m.pendingExpired(s, g, id) }
	g.pending[id] = p
	session, _ := j.timeouts()
	m.timers.Set(&p.session, s.Now.Add(session))
	j.fail(s, id, memberIDRequired)
}

// joinAgain handles a client that has a member id.
func (m *Machine) joinAgain(s *coord.Step, g *group, j *joiner) {
	id := j.req.MemberID
	if g.pending[id] != nil && j.req.InstanceID == nil {
		m.admit(s, g, id, j)
		return
	}
	mb, fault := g.check(id, j.req.InstanceID)
	if fault != 0 {
		j.fail(s, id, fault)
		return
	}
	news := !mb.matches(j.req.Protocols)
	switch {
	case g.state == empty:
		j.fail(s, id, unknownMemberID)
	case g.state == preparing,
		news,
		// A leader that joins again wants a new assignment, though nothing about
		// itself has changed: it has seen new partitions.
		g.state == stable && g.leader == id:
		m.rejoin(s, mb, j)
	default:
		// It missed the answer, or asks without need: the generation as it is.
		replyJoin(s, j.reply, g.joined(mb, g.state == completing))
	}
}

// admit takes a new member in, where there is room for it, and has the group rebalance.
func (m *Machine) admit(s *coord.Step, g *group, id string, j *joiner) {
	mb := m.newMember(g, id, j.req.InstanceID)
	mb.clientID, mb.clientHost = j.ID, j.Host
	mb.sessionTimeout, mb.rebalanceTimeout = j.timeouts()
	if !m.charge(s, mb, id, j.req.Protocols) {
		j.fail(s, id, groupMaxSizeReached)
		return
	}
	m.removePending(g, id)
	mb.protocols = own(j.req.Protocols)
	mb.fresh = true
	if len(g.members) == 0 {
		g.protocolType = j.req.ProtocolType
	}
	if g.leader == "" {
		g.leader = id
	}
	if g.state == preparing && g.before == empty {
		g.grown = true
	}
	g.add(mb)
	mb.await(s, j.reply)
	m.timers.Set(&mb.session, s.Now.Add(joinWait))
	m.rebalance(s, g)
}

// rejoin takes a member's new request for its old one and has the group rebalance.
// Where it says more than there is room for, the member stays as it was.
func (m *Machine) rejoin(s *coord.Step, mb *member, j *joiner) {
	if !m.charge(s, mb, mb.id, j.req.Protocols) {
		j.fail(s, mb.id, groupMaxSizeReached)
		return
	}
	mb.update(s, j)
	m.rebalance(s, mb.group)
}

// update takes over a request that the member was charged for.
func (mb *member) update(s *coord.Step, j *joiner) {
	g := mb.group
	g.count(mb, -1)
	mb.protocols = own(j.req.Protocols)
	g.count(mb, 1)
	mb.sessionTimeout, mb.rebalanceTimeout = j.timeouts()
	mb.await(s, j.reply)
}

// rebalance begins one, or goes on with the one under way.
func (m *Machine) rebalance(s *coord.Step, g *group) {
	if g.state == preparing {
		m.maybeCompleteJoin(s, g)
		return
	}
	m.prepareRebalance(s, g)
}

// prepareRebalance asks all members to join again. In a group that was empty the
// first generation waits a little, so that members that start together are in it.
func (m *Machine) prepareRebalance(s *coord.Step, g *group) {
	if g.state == completing {
		for _, mb := range g.members {
			mb.assignment = nil
			m.settle(mb)
			if mb.answerSync(s, syncFailure(rebalanceInProgress)) {
				m.touch(s, mb)
			}
		}
	}
	m.stopSync(g)
	g.unsaved = false // the next generation is recorded instead
	if g.state == empty {
		initial := m.settings().InitialDelay
		g.grown = false
		g.delay, g.remaining = initial, max(g.rebalanceTimeout()-initial, 0)
		m.timers.Set(&g.joinTimer, s.Now.Add(g.delay))
		g.enter(s, preparing)
		return
	}
	g.enter(s, preparing)
	if g.allJoined() {
		m.completeJoin(s, g)
		return
	}
	m.timers.Set(&g.joinTimer, s.Now.Add(g.rebalanceTimeout()))
}

// stopSync ends the wait for SyncGroups.
func (m *Machine) stopSync(g *group) {
	for _, mb := range g.members {
		g.synced(mb)
	}
	m.timers.Stop(&g.syncTimer)
}

// maybeCompleteJoin completes the join when nobody is missing; the initial delay
// runs its course, however.
func (m *Machine) maybeCompleteJoin(s *coord.Step, g *group) {
	if g.state == preparing && g.before != empty && g.allJoined() {
		m.completeJoin(s, g)
	}
}

// joinTimedOut ends the wait for members, or extends the initial delay where
// members came during it and the rebalance timeout allows it.
func (m *Machine) joinTimedOut(s *coord.Step, g *group) {
	if g.state == empty && g.unsaved {
		m.recordEmpty(s, g, g.value())
	}
	if g.state != preparing {
		return
	}
	s.After(g.last)
	if g.before == empty && g.grown && g.remaining > 0 {
		g.grown = false
		ran := g.delay
		g.delay = min(m.settings().InitialDelay, g.remaining)
		g.remaining = max(g.remaining-ran, 0)
		m.timers.Set(&g.joinTimer, s.Now.Add(g.delay))
		return
	}
	m.completeJoin(s, g)
}

// completeJoin begins the next generation with the members that have joined.
// Dynamic members that have not are out; static ones stay until their session ends.
func (m *Machine) completeJoin(s *coord.Step, g *group) {
	m.timers.Stop(&g.joinTimer)
	for _, mb := range slices.Clone(g.members) {
		if mb.join == nil && mb.instance == nil {
			m.remove(s, mb, unknownMemberID)
		}
	}
	if len(g.members) == 0 {
		m.becomeEmpty(s, g)
		return
	}
	if leader := g.byID[g.leader]; leader == nil || leader.join == nil {
		i := slices.IndexFunc(g.members, func(mb *member) bool { return mb.join != nil })
		if i < 0 { // nobody is there to lead: sessions will end, or somebody comes
			m.timers.Set(&g.joinTimer, s.Now.Add(max(g.rebalanceTimeout(), lookAgain)))
			return
		}
		g.leader = g.members[i].id
	}
	g.generation++
	g.protocol = g.selectProtocol(nil, nil)
	m.learnSubscriptions(g)
	g.enter(s, completing)
	for _, mb := range g.members {
		mb.answerJoin(s, g.joined(mb, true))
		mb.fresh = false
		mb.unsynced = true
		m.touch(s, mb)
	}
	g.unsynced = len(g.members)
	m.timers.Set(&g.syncTimer, s.Now.Add(g.rebalanceTimeout()))
}

// lookAgain is how soon, at the earliest, a group looks again for somebody to lead:
// clients may ask for a rebalance timeout of nothing.
const lookAgain = time.Second

// recordAgain is how long a group that could not be recorded waits to try again.
const recordAgain = time.Second

// becomeEmpty ends the last generation.
func (m *Machine) becomeEmpty(s *coord.Step, g *group) {
	v := g.value()
	v.Generation = g.generation + 1
	v.Protocol, v.Leader = nil, nil
	v.CurrentStateTimestamp = s.Now.UnixMilli()
	m.recordEmpty(s, g, v)
}

// recordEmpty records that a group is empty. Where it cannot be recorded it is empty
// all the same, since its members are gone, and is recorded as soon as possible.
func (m *Machine) recordEmpty(s *coord.Step, g *group, v *kmsg.GroupMetadataValue) {
	putGroup(s, g.id, v)
	s.Then(func() { g.unsaved = false })
	s.Else(func(error) {
		m.restore(s, g, v)
		g.unsaved = true
		m.timers.Set(&g.joinTimer, s.Now.Add(recordAgain))
	})
}

// joined is the answer to a member that is in the generation. Only the leader
// learns who else is, and only while it is to assign.
func (g *group) joined(mb *member, all bool) *kmsg.JoinGroupResponse {
	resp := kmsg.NewPtrJoinGroupResponse()
	resp.Generation = g.generation
	resp.ProtocolType, resp.Protocol = optional(g.protocolType), optional(g.protocol)
	resp.LeaderID, resp.MemberID = g.leader, mb.id
	if all && g.leader == mb.id {
		resp.Members = make([]kmsg.JoinGroupResponseMember, len(g.members))
		for i, o := range g.members {
			resp.Members[i] = kmsg.JoinGroupResponseMember{
				MemberID: o.id, InstanceID: o.instance, ProtocolMetadata: o.metadata(g.protocol),
			}
		}
	}
	return resp
}

// optional is nil for "".
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
