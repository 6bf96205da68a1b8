package classic

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
func (g *Group) replaceStatic(s *coord.Step, old *member, id string, j *joiner) {
	switch {
	case !g.charge(s, old, id, j.req.Protocols):
		j.fail(s, "", groupMaxSizeReached)
	case g.state == stable && g.selectProtocol(old, j.req.Protocols) == g.protocol:
		g.recordStatic(s, old, id, j)
	default:
		mb := g.swap(s, old, id)
		g.touch(s, mb)
		mb.update(s, j)
		if g.state == preparing {
			g.maybeCompleteJoin(s)
			return
		}
		// While the leader assigns it may know the old id already: all must start over.
		g.prepareRebalance(s)
	}
}

// recordStatic replaces a static member without a rebalance.
func (g *Group) recordStatic(s *coord.Step, old *member, id string, j *joiner) {
	formerLeader := g.leader
	session, rebalance := j.timeouts()
	v := g.Record()
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
	Put(s, g.id, v)
	s.Else(func(err error) {
		g.settle(old)
		j.fail(s, "", code(err))
	})
	s.Then(func() {
		mb := g.byID[id]
		g.count(mb, -1)
		mb.protocols = own(j.req.Protocols)
		g.count(mb, 1)
		g.settle(mb)
		g.touch(s, mb)
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
func (g *Group) swap(s *coord.Step, old *member, id string) *member {
	fenced := JoinFailure(old.id, fencedInstanceID)
	old.answerJoin(s, fenced)
	old.answerSync(s, SyncFailure(fencedInstanceID))
	g.host.Timers.Stop(&old.session)
	mb := g.newMember(id, old.instance)
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
func (g *Group) Sync(s *coord.Step, req *kmsg.SyncGroupRequest, reply func(*kmsg.SyncGroupResponse)) {
	if g.state == empty {
		replySync(s, reply, SyncFailure(unknownMemberID))
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
		replySync(s, reply, SyncFailure(fault))
		return
	}
	g.synced(mb)
	if g.unsynced == 0 {
		g.host.Timers.Stop(&g.syncTimer)
	}
	switch {
	case g.state == stable:
		replySync(s, reply, g.assigned(mb))
	case g.leader == mb.id:
		mb.awaitSync(s, reply)
		g.recordAssignment(s, mb, req.GroupAssignment)
	default:
		mb.awaitSync(s, reply)
	}
}

// differs tells whether a client states something else than is so.
func differs(said *string, is string) bool { return said != nil && is != "" && *said != is }

// recordAssignment completes the generation. Where it cannot be recorded, or there is
// no room for it, the leader is told so and will try again; the others go on waiting.
func (g *Group) recordAssignment(s *coord.Step, leader *member, assignment []kmsg.SyncGroupRequestGroupAssignment) {
	given := make(map[string][]byte, len(assignment))
	for _, a := range assignment {
		given[a.MemberID] = a.MemberAssignment
	}
	v := g.Record()
	var more int64
	for i, mb := range g.members {
		v.Members[i].Assignment = given[mb.id]
		more += int64(len(given[mb.id]) - len(mb.assignment))
	}
	if !g.host.Memory.Reserve(s.Now, g.id, more) {
		leader.answerSync(s, SyncFailure(coordinatorNotAvailable))
		return
	}
	for _, mb := range g.members { // ahead of the record, so that the room cannot go
		mb.charged += int64(len(given[mb.id]) - len(mb.assignment))
	}
	Put(s, g.id, v)
	s.Else(func(err error) {
		for _, mb := range g.members {
			g.settle(mb)
		}
		leader.answerSync(s, SyncFailure(code(err)))
	})
	s.Then(func() {
		for _, mb := range g.members {
			if mb.answerSync(s, g.assigned(mb)) {
				g.touch(s, mb)
			}
		}
	})
}

// assigned is the answer to a member of a stable group.
func (g *Group) assigned(mb *member) *kmsg.SyncGroupResponse {
	resp := kmsg.NewPtrSyncGroupResponse()
	resp.ProtocolType, resp.Protocol = optional(g.protocolType), optional(g.protocol)
	resp.MemberAssignment = mb.assignment
	return resp
}

// syncTimedOut takes out the members that joined and then did not ask for their
// assignment within the rebalance timeout.
func (g *Group) syncTimedOut(s *coord.Step) {
	if g.unsynced == 0 || g.state != completing && g.state != stable {
		return
	}
	s.After(g.last)
	for _, mb := range slices.Clone(g.members) {
		if mb.unsynced {
			g.remove(s, mb, unknownMemberID)
		}
	}
	g.prepareRebalance(s)
}

// Heartbeat answers a member's heartbeat: its session goes on. The answer tells
// nothing that a failover could take back, so that it waits for no record: while the
// log is slow, members stay members.
func (g *Group) Heartbeat(s *coord.Step, req *kmsg.HeartbeatRequest) int16 {
	mb, fault := g.check(req.MemberID, req.InstanceID)
	switch {
	case fault != 0:
		return fault
	case req.Generation != g.generation:
		return illegalGeneration
	case g.state == empty:
		return unknownMemberID
	}
	g.touch(s, mb)
	if g.state == preparing {
		return rebalanceInProgress
	}
	return 0
}

// MayCommit tells whether a commit of offsets is accepted: 0, or the answer's code. A
// member's keeps its session alive.
func (g *Group) MayCommit(s *coord.Step, req *kmsg.OffsetCommitRequest) int16 {
	switch {
	case g.state == empty && req.Generation < 0:
		return 0
	case req.Generation < 0 && req.MemberID == "" && req.InstanceID == nil:
		return unknownMemberID // somebody outside, and the group has members
	}
	mb, fault := g.check(req.MemberID, req.InstanceID)
	switch {
	case fault != 0:
		return fault
	case req.Generation != g.generation:
		return illegalGeneration
	case g.state == completing:
		return rebalanceInProgress
	}
	g.touch(s, mb)
	return 0
}

// Describe fills in what DescribeGroups tells of the group.
func (g *Group) Describe(resp *kmsg.DescribeGroupsResponseGroup) {
	resp.State, resp.ProtocolType = g.state.String(), g.protocolType
	if g.state == stable {
		resp.Protocol = g.protocol
	}
	resp.Members = make([]kmsg.DescribeGroupsResponseGroupMember, len(g.members))
	for i, mb := range g.members {
		out := kmsg.DescribeGroupsResponseGroupMember{
			MemberID: mb.id, InstanceID: mb.instance, ClientID: mb.clientID, ClientHost: mb.clientHost,
			MemberAssignment: mb.assignment,
		}
		if g.state == stable {
			out.ProtocolMetadata = mb.metadata(g.protocol)
		}
		resp.Members[i] = out
	}
}

// Leave handles LeaveGroup: members leave, or an administrator takes static members
// out by their instance ids. Each has its own code.
func (g *Group) Leave(s *coord.Step, req *kmsg.LeaveGroupRequest) []kmsg.LeaveGroupResponseMember {
	left := false
	resp := make([]kmsg.LeaveGroupResponseMember, len(req.Members))
	for i, who := range req.Members {
		resp[i] = kmsg.LeaveGroupResponseMember{MemberID: who.MemberID, InstanceID: who.InstanceID}
		if resp[i].ErrorCode = g.leave(s, who); resp[i].ErrorCode == 0 {
			left = true
		}
	}
	if left && g.state != empty {
		g.rebalance(s)
	}
	return resp
}

func (g *Group) leave(s *coord.Step, who kmsg.LeaveGroupRequestMember) int16 {
	id := who.MemberID
	if id == "" && who.InstanceID != nil {
		if mb := g.statics[*who.InstanceID]; mb != nil {
			id = mb.id
		}
	}
	if g.pending[id] != nil {
		g.removePending(id)
		return 0
	}
	mb, fault := g.check(id, who.InstanceID)
	if fault == 0 {
		g.remove(s, mb, unknownMemberID)
	}
	return fault
}

// sessionExpired takes out a member that was not heard of, unless it is the
// coordinator that owes it an answer.
func (g *Group) sessionExpired(s *coord.Step, mb *member) {
	if !mb.fresh && (mb.join != nil || mb.sync != nil) {
		return
	}
	s.After(g.last)
	g.remove(s, mb, unknownMemberID)
	switch {
	case g.state == stable || g.state == completing:
		g.prepareRebalance(s)
	case g.state == preparing && g.allJoined():
		g.completeJoin(s)
	}
}

// pendingExpired forgets an id with which nobody has joined.
func (g *Group) pendingExpired(s *coord.Step, id string) {
	s.After(g.last)
	g.removePending(id)
	if g.state == preparing && g.allJoined() {
		g.completeJoin(s)
	}
}

// restore makes the group what a record says. Members that are in both keep what
// the record does not hold.
func (g *Group) restore(s *coord.Step, v *kmsg.GroupMetadataValue) {
	g.generation, g.protocolType = v.Generation, v.ProtocolType
	g.protocol = deref(v.Protocol)
	g.before, g.state, g.since = g.state, empty, v.CurrentStateTimestamp
	gone := maps.Clone(g.byID)
	for i := range v.Members {
		rec := &v.Members[i]
		g.restoreMember(s, rec)
		delete(gone, rec.MemberID)
	}
	for _, mb := range gone {
		if g.byID[mb.id] == mb {
			g.remove(s, mb, unknownMemberID)
		}
	}
	g.leader = deref(v.Leader)
	if len(g.members) > 0 {
		g.state = stable
	} else {
		g.host.Timers.Stop(&g.joinTimer)
		g.stopSync()
	}
	g.learnSubscriptions()
}

func (g *Group) restoreMember(s *coord.Step, rec *kmsg.GroupMetadataValueMember) {
	mb := g.byID[rec.MemberID]
	if mb == nil && rec.InstanceID != nil && g.statics[*rec.InstanceID] != nil {
		mb = g.swap(s, g.statics[*rec.InstanceID], rec.MemberID)
	}
	if mb == nil {
		mb = g.newMember(rec.MemberID, rec.InstanceID)
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
	g.settle(mb)
}

// supportsAs tells whether the member names the group's protocol with this metadata.
func (g *Group) supportsAs(mb *member, metadata []byte) bool {
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
