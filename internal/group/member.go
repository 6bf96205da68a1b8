package group

import (
	"bytes"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
)

// replaceStatic handles a static member that comes without its member id, mostly
// since its process was restarted: it gets a new id and the old one is fenced. In a
// stable group nothing else changes, as long as the members would still choose the
// same protocol.
func (m *Machine) replaceStatic(s *coord.Step, old *member, id string, j *joiner) {
	g := old.group
	switch {
	case !m.charge(s, old, id, j.req.Protocols):
		j.fail(s, "", groupMaxSizeReached)
	case g.state == stable && g.selectProtocol(old, j.req.Protocols) == g.protocol:
		m.recordStatic(s, old, id, j)
	default:
		mb := m.swap(s, old, id)
		m.touch(s, mb)
		mb.update(s, j)
		if g.state == preparing {
			m.maybeCompleteJoin(s, g)
			return
		}
		// While the leader assigns it may know the old id already: all must start over.
		m.prepareRebalance(s, g)
	}
}

// recordStatic replaces a static member without a rebalance.
func (m *Machine) recordStatic(s *coord.Step, old *member, id string, j *joiner) {
	g, formerLeader := old.group, old.group.leader
	session, rebalance := j.timeouts()
	v := g.value()
	i := slices.Index(g.members, old)
	stand := &v.Members[i]
	stand.MemberID = id
	stand.SessionTimeoutMillis, stand.RebalanceTimeoutMillis = millis(session), millis(rebalance)
	for _, p := range j.req.Protocols {
		if p.Name == g.protocol {
			stand.Subscription = p.Metadata
		}
	}
	if g.leader == old.id {
		v.Leader = &id
	}
	putGroup(s, g.id, v)
	s.Else(func(err error) {
		m.settle(old)
		j.fail(s, "", code(err))
	})
	s.Then(func() {
		mb := g.byID[id]
		g.count(mb, -1)
		mb.protocols = own(j.req.Protocols)
		g.count(mb, 1)
		m.settle(mb)
		m.touch(s, mb)
		skip := j.req.Version >= 9 && g.leader == id
		resp := g.joined(mb, skip)
		resp.SkipAssignment = skip
		if j.req.Version < 9 {
			// KIP-814: such a client would assign if it saw that it leads, and nobody
			// would hear of it.
			resp.LeaderID = formerLeader
		}
		replyJoin(s, j.reply, resp)
	})
}

// swap puts a new member with another id in a static member's place. Whoever still
// uses the old id is fenced. What the old one was charged is the new one's: the caller
// settles it.
func (m *Machine) swap(s *coord.Step, old *member, id string) *member {
	g := old.group
	fenced := joinFailure(old.id, fencedInstanceID)
	old.answerJoin(s, fenced)
	old.answerSync(s, syncFailure(fencedInstanceID))
	m.timers.Stop(&old.session)
	mb := m.newMember(g, id, old.instance)
	mb.clientID, mb.clientHost = old.clientID, old.clientHost
	mb.sessionTimeout, mb.rebalanceTimeout = old.sessionTimeout, old.rebalanceTimeout
	mb.protocols, mb.assignment, mb.unsynced = old.protocols, old.assignment, old.unsynced
	mb.charged, old.charged = old.charged, 0
	g.members[slices.Index(g.members, old)] = mb
	delete(g.byID, old.id)
	g.byID[id] = mb
	g.statics[*mb.instance] = mb
	if g.leader == old.id {
		g.leader = id
	}
	return mb
}

// Sync handles SyncGroup.
func (m *Machine) Sync(s *coord.Step, req *kmsg.SyncGroupRequest, reply func(*kmsg.SyncGroupResponse)) {
	g := m.find(s, req.Group)
	if g == nil || g.state == empty {
		replySync(s, reply, syncFailure(unknownMemberID))
		return
	}
	mb, fault := g.check(req.MemberID, req.InstanceID)
	switch {
	case fault != 0:
	case req.Generation != g.generation:
		fault = illegalGeneration
	case differs(req.ProtocolType, g.protocolType), differs(req.Protocol, g.protocol):
		fault = inconsistentGroupProtocol
	case g.state == preparing:
		fault = rebalanceInProgress
	}
	if fault != 0 {
		replySync(s, reply, syncFailure(fault))
		return
	}
	g.synced(mb)
	if g.unsynced == 0 {
		m.timers.Stop(&g.syncTimer)
	}
	switch {
	case g.state == stable:
		replySync(s, reply, g.assigned(mb))
	case g.leader == mb.id:
		mb.awaitSync(s, reply)
		m.recordAssignment(s, mb, req.GroupAssignment)
	default:
		mb.awaitSync(s, reply)
	}
}

// differs tells whether a client states something else than is so.
func differs(said *string, is string) bool { return said != nil && is != "" && *said != is }

// recordAssignment completes the generation. Where it cannot be recorded, or there is
// no room for it, the leader is told so and will try again; the others go on waiting.
func (m *Machine) recordAssignment(s *coord.Step, leader *member, assignment []kmsg.SyncGroupRequestGroupAssignment) {
	g := leader.group
	given := make(map[string][]byte, len(assignment))
	for _, a := range assignment {
		given[a.MemberID] = a.MemberAssignment
	}
	v := g.value()
	var more int64
	for i, mb := range g.members {
		v.Members[i].Assignment = given[mb.id]
		more += int64(len(given[mb.id]) - len(mb.assignment))
	}
	if !m.reserve(s, g.id, more) {
		leader.answerSync(s, syncFailure(coordinatorNotAvailable))
		return
	}
	for _, mb := range g.members { // ahead of the record, so that the room cannot go
		mb.charged += int64(len(given[mb.id]) - len(mb.assignment))
	}
	putGroup(s, g.id, v)
	s.Else(func(err error) {
		for _, mb := range g.members {
			m.settle(mb)
		}
		leader.answerSync(s, syncFailure(code(err)))
	})
	s.Then(func() {
		for _, mb := range g.members {
			if mb.answerSync(s, g.assigned(mb)) {
				m.touch(s, mb)
			}
		}
	})
}

// assigned is the answer to a member of a stable group.
func (g *group) assigned(mb *member) *kmsg.SyncGroupResponse {
	resp := kmsg.NewPtrSyncGroupResponse()
	resp.ProtocolType, resp.Protocol = optional(g.protocolType), optional(g.protocol)
	resp.MemberAssignment = mb.assignment
	return resp
}

// syncTimedOut takes out the members that joined and then did not ask for their
// assignment within the rebalance timeout.
func (m *Machine) syncTimedOut(s *coord.Step, g *group) {
	if g.unsynced == 0 || g.state != completing && g.state != stable {
		return
	}
	s.After(g.last)
	for _, mb := range slices.Clone(g.members) {
		if mb.unsynced {
			m.remove(s, mb, unknownMemberID)
		}
	}
	m.prepareRebalance(s, g)
}

// Heartbeat answers a member's heartbeat: its session goes on. The answer tells
// nothing that a failover could take back, so that it waits for no record: while the
// log is slow, members stay members.
func (m *Machine) Heartbeat(s *coord.Step, req *kmsg.HeartbeatRequest) int16 {
	g := m.groups[req.Group]
	if g == nil {
		return unknownMemberID
	}
	mb, fault := g.check(req.MemberID, req.InstanceID)
	switch {
	case fault != 0:
		return fault
	case req.Generation != g.generation:
		return illegalGeneration
	case g.state == empty:
		return unknownMemberID
	}
	m.touch(s, mb)
	if g.state == preparing {
		return rebalanceInProgress
	}
	return 0
}

// Leave handles LeaveGroup: members leave, or an administrator takes static members
// out by their instance ids. Each has its own code.
func (m *Machine) Leave(s *coord.Step, req *kmsg.LeaveGroupRequest) []kmsg.LeaveGroupResponseMember {
	g := m.find(s, req.Group)
	left := false
	resp := make([]kmsg.LeaveGroupResponseMember, len(req.Members))
	for i, who := range req.Members {
		resp[i] = kmsg.LeaveGroupResponseMember{MemberID: who.MemberID, InstanceID: who.InstanceID}
		if resp[i].ErrorCode = m.leave(s, g, who); resp[i].ErrorCode == 0 {
			left = true
		}
	}
	if left && g.state != empty {
		m.rebalance(s, g)
	}
	return resp
}

func (m *Machine) leave(s *coord.Step, g *group, who kmsg.LeaveGroupRequestMember) int16 {
	if g == nil {
		return unknownMemberID
	}
	id := who.MemberID
	if id == "" && who.InstanceID != nil {
		if mb := g.statics[*who.InstanceID]; mb != nil {
			id = mb.id
		}
	}
	if g.pending[id] != nil {
		m.removePending(g, id)
		return 0
	}
	mb, fault := g.check(id, who.InstanceID)
	if fault == 0 {
		m.remove(s, mb, unknownMemberID)
	}
	return fault
}

// sessionExpired takes out a member that was not heard of, unless it is the
// coordinator that owes it an answer.
func (m *Machine) sessionExpired(s *coord.Step, mb *member) {
	g := mb.group
	if !mb.fresh && (mb.join != nil || mb.sync != nil) {
		return
	}
	s.After(g.last)
	m.remove(s, mb, unknownMemberID)
	switch {
	case g.state == stable || g.state == completing:
		m.prepareRebalance(s, g)
	case g.state == preparing && g.allJoined():
		m.completeJoin(s, g)
	}
}

// pendingExpired forgets an id with which nobody has joined.
func (m *Machine) pendingExpired(s *coord.Step, g *group, id string) {
	s.After(g.last)
	m.removePending(g, id)
	if g.state == preparing && g.allJoined() {
		m.completeJoin(s, g)
	}
}

// restore makes the group what a record says. Members that are in both keep what
// the record does not hold.
func (m *Machine) restore(s *coord.Step, g *group, v *kmsg.GroupMetadataValue) {
	g.generation, g.protocolType = v.Generation, v.ProtocolType
	g.protocol = deref(v.Protocol)
	g.before, g.state, g.since = g.state, empty, v.CurrentStateTimestamp
	gone := maps.Clone(g.byID)
	for i := range v.Members {
		rec := &v.Members[i]
		m.restoreMember(s, g, rec)
		delete(gone, rec.MemberID)
	}
	for _, mb := range gone {
		if g.byID[mb.id] == mb {
			m.remove(s, mb, unknownMemberID)
		}
	}
	g.leader = deref(v.Leader)
	if len(g.members) > 0 {
		g.state = stable
	} else {
		m.timers.Stop(&g.joinTimer)
		m.stopSync(g)
	}
	m.learnSubscriptions(g)
}

func (m *Machine) restoreMember(s *coord.Step, g *group, rec *kmsg.GroupMetadataValueMember) {
	mb := g.byID[rec.MemberID]
	if mb == nil && rec.InstanceID != nil && g.statics[*rec.InstanceID] != nil {
		mb = m.swap(s, g.statics[*rec.InstanceID], rec.MemberID)
	}
	if mb == nil {
		mb = m.newMember(g, rec.MemberID, rec.InstanceID)
		g.add(mb)
	}
	mb.clientID, mb.clientHost = rec.ClientID, rec.ClientHost
	mb.sessionTimeout = fromMillis(rec.SessionTimeoutMillis)
	mb.rebalanceTimeout = fromMillis(rec.RebalanceTimeoutMillis)
	if rec.RebalanceTimeoutMillis < 0 {
		mb.rebalanceTimeout = mb.sessionTimeout
	}
	mb.assignment = bytes.Clone(rec.Assignment)
	if !g.supportsAs(mb, rec.Subscription) {
		g.count(mb, -1)
		mb.protocols = []kmsg.JoinGroupRequestProtocol{{Name: g.protocol, Metadata: bytes.Clone(rec.Subscription)}}
		g.count(mb, 1)
	}
	m.settle(mb)
}

// supportsAs tells whether the member names the group's protocol with this metadata.
func (g *group) supportsAs(mb *member, metadata []byte) bool {
	return slices.ContainsFunc(mb.protocols, func(p kmsg.JoinGroupRequestProtocol) bool {
		return p.Name == g.protocol && slices.Equal(p.Metadata, metadata)
	})
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
