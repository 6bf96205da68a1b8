package classic

import (
	"bytes"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
)

// replaceStatic handles a static member that joins without its member id, mostly
// because its process was restarted. It gets a new id and the old one is fenced. A
// stable group does not rebalance, provided that the members would still choose the
// same protocol.
func (g *Group) replaceStatic(s *coord.Step, old *member, id string, j *joinRequest) {
	switch {
	case !g.chargeMember(s, old, id, j.req.Protocols):
		j.replyFailure(s, "", groupMaxSizeReached)
	case g.state == stable && g.selectProtocol(old, j.req.Protocols) == g.protocol:
		g.recordStatic(s, old, id, j)
	default:
		mb := g.replaceMember(s, old, id)
		g.restartSession(s, mb)
		mb.takeOverRequest(s, j)
		if g.state == preparing {
			g.maybeCompleteJoin(s)
			return
		}
		// The leader may be computing an assignment for the old id: all must join again.
		g.prepareRebalance(s)
	}
}

// recordStatic replaces a static member without a rebalance.
func (g *Group) recordStatic(s *coord.Step, old *member, id string, j *joinRequest) {
	formerLeader := g.leader
	session, rebalance := j.memberTimeouts()
	v := g.Record()
	i := slices.Index(g.members, old)
	rec := &v.Members[i]
	rec.MemberID = id
	rec.SessionTimeoutMillis, rec.RebalanceTimeoutMillis = toMillis(session), toMillis(rebalance)
	for _, p := range j.req.Protocols {
		if p.Name == g.protocol {
			rec.Subscription = p.Metadata
		}
	}
	if g.leader == old.id {
		v.Leader = &id
	}
	Put(s, g.id, v)
	s.Else(func(err error) {
		g.adjustCharge(old)
		j.replyFailure(s, "", codeOf(err))
	})
	s.Then(func() {
		mb := g.byID[id]
		g.countProtocols(mb, -1)
		mb.protocols = copyProtocols(j.req.Protocols)
		g.countProtocols(mb, 1)
		g.adjustCharge(mb)
		g.restartSession(s, mb)
		skip := j.req.Version >= 9 && g.leader == id
		resp := g.joinResponse(mb, skip)
		resp.SkipAssignment = skip
		if j.req.Version < 9 {
			// KIP-814: such a client would compute an assignment if it saw that it leads,
			// although none is wanted.
			resp.LeaderID = formerLeader
		}
		replyJoin(s, j.reply, resp)
	})
}

// replaceMember replaces a static member by a new one with another id. Requests that
// wait under the old id are answered with FENCED_INSTANCE_ID. The new member takes over
// the old one's charge, and the caller adjusts it.
func (g *Group) replaceMember(s *coord.Step, old *member, id string) *member {
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
	g.byInstance[*mb.instance] = mb
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
	mb, code := g.findMember(req.MemberID, req.InstanceID)
	switch {
	case code != 0:
	case req.Generation != g.generation:
		code = illegalGeneration
	case contradicts(req.ProtocolType, g.protocolType), contradicts(req.Protocol, g.protocol):
		code = inconsistentGroupProtocol
	case g.state == preparing:
		code = rebalanceInProgress
	}
	if code != 0 {
		replySync(s, reply, SyncFailure(code))
		return
	}
	mb.clearUnsynced()
	if g.unsynced == 0 {
		g.host.Timers.Stop(&g.syncTimer)
	}
	switch {
	case g.state == stable:
		replySync(s, reply, g.syncResponse(mb))
	case g.leader == mb.id:
		mb.awaitSync(s, reply)
		g.recordAssignment(s, mb, req.GroupAssignment)
	default:
		mb.awaitSync(s, reply)
	}
}

// contradicts tells whether a client has named a protocol, or a type, other than that of
// the group. Both may be missing.
func contradicts(named *string, ofGroup string) bool {
	return named != nil && ofGroup != "" && *named != ofGroup
}

// recordAssignment records the leader's assignment, which makes the group stable. If it
// cannot be recorded, or there is no room for it, the leader gets an error and will try
// again, while the other members wait.
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
	for _, mb := range g.members { // before the record is applied, so that the room cannot be lost
		mb.charged += int64(len(given[mb.id]) - len(mb.assignment))
	}
	Put(s, g.id, v)
	s.Else(func(err error) {
		for _, mb := range g.members {
			g.adjustCharge(mb)
		}
		leader.answerSync(s, SyncFailure(codeOf(err)))
	})
	s.Then(func() {
		for _, mb := range g.members {
			if mb.answerSync(s, g.syncResponse(mb)) {
				g.restartSession(s, mb)
			}
		}
	})
}

// syncResponse is the answer to a SyncGroup in a stable group.
func (g *Group) syncResponse(mb *member) *kmsg.SyncGroupResponse {
	resp := kmsg.NewPtrSyncGroupResponse()
	resp.ProtocolType, resp.Protocol = stringOrNil(g.protocolType), stringOrNil(g.protocol)
	resp.MemberAssignment = mb.assignment
	return resp
}

// syncTimedOut removes the members that have joined and then sent no SyncGroup within
// the rebalance timeout.
func (g *Group) syncTimedOut(s *coord.Step) {
	if g.unsynced == 0 || g.state != completing && g.state != stable {
		return
	}
	s.After(g.recordEnd)
	g.removeMembers(s, func(mb *member) bool { return mb.unsynced })
	g.prepareRebalance(s)
}

// Heartbeat handles Heartbeat: it restarts the member's session.
func (g *Group) Heartbeat(s *coord.Step, req *kmsg.HeartbeatRequest) int16 {
	mb, code := g.findMember(req.MemberID, req.InstanceID)
	switch {
	case code != 0:
		return code
	case req.Generation != g.generation:
		return illegalGeneration
	case g.state == empty:
		return unknownMemberID
	}
	g.restartSession(s, mb)
	if g.state == preparing {
		return rebalanceInProgress
	}
	return 0
}

// AcceptCommit returns the code of a commit of offsets that is refused, or 0 if it is
// accepted. An accepted commit restarts the member's session.
func (g *Group) AcceptCommit(s *coord.Step, req *kmsg.OffsetCommitRequest) int16 {
	switch {
	case g.state == empty && req.Generation < 0:
		return 0
	case req.Generation < 0 && req.MemberID == "" && req.InstanceID == nil:
		return unknownMemberID // a simple consumer must not commit for a group with members
	}
	mb, code := g.findMember(req.MemberID, req.InstanceID)
	switch {
	case code != 0:
		return code
	case req.Generation != g.generation:
		return illegalGeneration
	case g.state == completing:
		return rebalanceInProgress
	}
	g.restartSession(s, mb)
	return 0
}

// AcceptTransactional returns the code of a commit within a transaction that is refused, or 0 if it is
// accepted. Clients before KIP-447 name no member. A rebalance is no reason to refuse it: the generation tells
// whether the member still has its partitions.
func AcceptTransactional(g *Group, req *kmsg.OffsetCommitRequest) int16 {
	if req.Generation < 0 && (g.state == empty || req.MemberID == "" && req.InstanceID == nil) {
		return 0
	}
	_, code := g.findMember(req.MemberID, req.InstanceID)
	switch {
	case code != 0:
		return code
	case req.Generation != g.generation:
		return illegalGeneration
	}
	return 0
}

// Describe fills in the group's part of an answer to DescribeGroups.
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
			out.ProtocolMetadata = mb.protocolMetadata(g.protocol)
		}
		resp.Members[i] = out
	}
}

// Leave handles LeaveGroup: members leave, or an administrator removes static members
// by their instance ids. Each member of the answer has a code of its own.
func (g *Group) Leave(s *coord.Step, req *kmsg.LeaveGroupRequest) []kmsg.LeaveGroupResponseMember {
	left := false
	resp := make([]kmsg.LeaveGroupResponseMember, len(req.Members))
	for i, who := range req.Members {
		resp[i] = kmsg.LeaveGroupResponseMember{MemberID: who.MemberID, InstanceID: who.InstanceID}
		if resp[i].ErrorCode = g.removeLeaving(s, who); resp[i].ErrorCode == 0 {
			left = true
		}
	}
	g.dropForgotten()
	if left && g.state != empty {
		g.continueRebalance(s)
	}
	return resp
}

// removeLeaving removes one pending id, or forgets one member, and returns its code.
func (g *Group) removeLeaving(s *coord.Step, who kmsg.LeaveGroupRequestMember) int16 {
	id := who.MemberID
	if id == "" && who.InstanceID != nil {
		if mb := g.byInstance[*who.InstanceID]; mb != nil {
			id = mb.id
		}
	}
	if g.pending[id] != nil {
		g.removePending(id)
		return 0
	}
	mb, code := g.findMember(id, who.InstanceID)
	if code == 0 {
		g.forgetMember(s, mb, unknownMemberID)
	}
	return code
}

// sessionExpired removes a member whose session has ended, unless a request of the
// member waits. The first JoinGroup of a member does not count: see joinWait.
func (g *Group) sessionExpired(s *coord.Step, mb *member) {
	if !mb.firstJoin && (mb.join != nil || mb.sync != nil) {
		return
	}
	s.After(g.recordEnd)
	g.removeMember(s, mb, unknownMemberID)
	switch {
	case g.state == stable || g.state == completing:
		g.prepareRebalance(s)
	case g.state == preparing && g.allJoined():
		g.completeJoin(s)
	}
}

// pendingExpired removes a pending id whose session has ended.
func (g *Group) pendingExpired(s *coord.Step, id string) {
	s.After(g.recordEnd)
	g.removePending(id)
	if g.state == preparing && g.allJoined() {
		g.completeJoin(s)
	}
}

// restoreFrom brings the group into the state of a record. Members that are in both
// keep the fields that are not in records.
func (g *Group) restoreFrom(s *coord.Step, v *kmsg.GroupMetadataValue) {
	g.generation, g.generationIn, g.protocolType = v.Generation, s.Epoch(), v.ProtocolType
	g.protocol = stringOrEmpty(v.Protocol)
	g.previousState, g.state, g.stateSince = g.state, empty, v.CurrentStateTimestamp
	gone := maps.Clone(g.byID)
	for i := range v.Members {
		rec := &v.Members[i]
		g.restoreMember(s, rec)
		delete(gone, rec.MemberID)
	}
	if len(gone) > 0 {
		g.removeMembers(s, func(mb *member) bool { return gone[mb.id] == mb })
	}
	g.leader = stringOrEmpty(v.Leader)
	if len(g.members) > 0 {
		g.state = stable
	} else {
		g.host.Timers.Stop(&g.joinTimer)
		g.endSyncWait()
	}
	g.learnSubscriptions()
}

func (g *Group) restoreMember(s *coord.Step, rec *kmsg.GroupMetadataValueMember) {
	mb := g.byID[rec.MemberID]
	if mb == nil && rec.InstanceID != nil && g.byInstance[*rec.InstanceID] != nil {
		mb = g.replaceMember(s, g.byInstance[*rec.InstanceID], rec.MemberID)
	}
	if mb == nil {
		mb = g.newMember(rec.MemberID, rec.InstanceID)
		g.addMember(mb)
	}
	mb.clientID, mb.clientHost = rec.ClientID, rec.ClientHost
	mb.sessionTimeout = fromMillis(rec.SessionTimeoutMillis)
	mb.rebalanceTimeout = fromMillis(rec.RebalanceTimeoutMillis)
	if rec.RebalanceTimeoutMillis < 0 {
		mb.rebalanceTimeout = mb.sessionTimeout
	}
	mb.assignment = bytes.Clone(rec.Assignment)
	if !mb.supports(rec.Subscription) {
		g.countProtocols(mb, -1)
		mb.protocols = []kmsg.JoinGroupRequestProtocol{{Name: g.protocol, Metadata: bytes.Clone(rec.Subscription)}}
		g.countProtocols(mb, 1)
	}
	g.adjustCharge(mb)
}

// supports tells whether the member has the group's protocol with this metadata.
func (mb *member) supports(metadata []byte) bool {
	return slices.ContainsFunc(mb.protocols, func(p kmsg.JoinGroupRequestProtocol) bool {
		return p.Name == mb.group.protocol && slices.Equal(p.Metadata, metadata)
	})
}

func stringOrEmpty(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
