package classic

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
)

// Client is the client that sent a request.
type Client struct {
	ID   string // client.id
	Host string // its address, written as Kafka does: "/127.0.0.1"
}

// joinWait is how long, as in Kafka, the first JoinGroup of a member may wait. The
// client does not know its member id yet and sends no heartbeats, so nothing else tells
// that it has gone.
const joinWait = 5 * time.Minute

// joinRequest is a JoinGroup while it is handled.
type joinRequest struct {
	Client
	req   *kmsg.JoinGroupRequest
	reply func(*kmsg.JoinGroupResponse)
}

// memberTimeouts are the request's session and rebalance timeouts. Version 0 has only
// one for both.
func (j *joinRequest) memberTimeouts() (session, rebalance time.Duration) {
	session = time.Duration(j.req.SessionTimeoutMillis) * time.Millisecond
	if j.req.Version == 0 {
		return session, session
	}
	return session, time.Duration(j.req.RebalanceTimeoutMillis) * time.Millisecond
}

// memberSize is about how many bytes the client will take as a member.
func (j *joinRequest) memberSize() int64 {
	ids := len(j.ID) + len(stringOrEmpty(j.req.InstanceID)) // twice: each is part of the member id, too
	return int64(memberBytes+2*ids+len(j.Host)) + protocolsSize(j.req.Protocols)
}

func (j *joinRequest) replyFailure(s *coord.Step, memberID string, code int16) {
	replyJoin(s, j.reply, JoinFailure(memberID, code))
}

// Join handles JoinGroup.
func (g *Group) Join(s *coord.Step, c Client, req *kmsg.JoinGroupRequest, reply func(*kmsg.JoinGroupResponse)) {
	req.Protocols = dropDuplicates(req.Protocols)
	g.handleJoin(s, &joinRequest{Client: c, req: req, reply: reply})
}

// JoinNewGroup handles JoinGroup for a group that does not exist. If the client may join,
// it records the group; findGroup returns the group once that record was applied.
func (h *Host) JoinNewGroup(s *coord.Step, c Client, req *kmsg.JoinGroupRequest, reply func(*kmsg.JoinGroupResponse), findGroup func() *Group) {
	j := &joinRequest{Client: c, req: req, reply: reply}
	req.Protocols = dropDuplicates(req.Protocols)
	need := j.memberSize()
	switch {
	case req.MemberID != "":
		j.replyFailure(s, req.MemberID, unknownMemberID)
	case req.ProtocolType == "" || len(req.Protocols) == 0:
		j.replyFailure(s, "", inconsistentGroupProtocol)
	case need > h.Memory.Room():
		h.Memory.WarnFull(s.Now, req.Group, need)
		j.replyFailure(s, "", groupMaxSizeReached)
	case Size(req.Group) > h.Groups.Room():
		h.Groups.WarnFull(s.Now, req.Group, Size(req.Group))
		j.replyFailure(s, "", groupMaxSizeReached)
	default:
		// A group exists when its first record does.
		putEmpty(s, req.Group)
		s.Else(func(err error) { j.replyFailure(s, "", codeOf(err)) })
		s.Then(func() { findGroup().handleJoin(s, j) })
	}
}

// dropDuplicates removes protocols that were named before in the list.
func dropDuplicates(protocols []kmsg.JoinGroupRequestProtocol) []kmsg.JoinGroupRequestProtocol {
	seen := make(map[string]struct{}, len(protocols))
	return slices.DeleteFunc(protocols, func(p kmsg.JoinGroupRequestProtocol) bool {
		_, again := seen[p.Name]
		seen[p.Name] = struct{}{}
		return again
	})
}

// handleJoin handles a JoinGroup whose protocols are distinct.
func (g *Group) handleJoin(s *coord.Step, j *joinRequest) {
	id := j.req.MemberID
	switch {
	case !g.hasRoom(id):
		g.removePending(id)
		if mb := g.byID[id]; mb != nil {
			g.removeMember(s, mb, groupMaxSizeReached)
		}
		j.replyFailure(s, "", groupMaxSizeReached)
	case !g.supportsProtocols(j.req.ProtocolType, j.req.Protocols):
		j.replyFailure(s, id, inconsistentGroupProtocol)
	case id == "":
		g.joinNew(s, j)
	default:
		g.joinAgain(s, j)
	}
}

// hasRoom tells whether a client with this member id may join under group.max.size.
// While the group is preparing only members whose JoinGroup waits count, so that a
// group which is too large shrinks.
func (g *Group) hasRoom(id string) bool {
	limit, mb := g.host.Settings().MaxSize, g.byID[id]
	switch {
	case limit <= 0 || g.state == empty:
		return true
	case g.state == preparing:
		return mb != nil && mb.join != nil || g.waiting < limit
	default:
		return mb != nil || len(g.members) < limit
	}
}

// maxPending bounds the pending ids of a group.
const maxPending = 10_000

// joinNew handles a client that has no member id.
func (g *Group) joinNew(s *coord.Step, j *joinRequest) {
	if j.req.InstanceID != nil {
		id := *j.req.InstanceID + "-" + g.host.NewID()
		if old := g.byInstance[*j.req.InstanceID]; old != nil {
			g.replaceStatic(s, old, id, j)
			return
		}
		g.admitMember(s, id, j)
		return
	}
	id := j.ID + "-" + g.host.NewID()
	if j.req.Version < 4 {
		g.admitMember(s, id, j)
		return
	}
	if len(g.pending) >= maxPending {
		j.replyFailure(s, "", groupMaxSizeReached)
		return
	}
	// KIP-394: the client must join again with the id. If it dies before, the group has
	// only a pending id of it, and no member.
	p := &pending{charged: int64(pendingBytes + len(id))}
	if !g.host.Memory.Reserve(s.Now, g.id, p.charged) {
		j.replyFailure(s, "", groupMaxSizeReached)
		return
	}
	p.session.Fire = func(s *coord.Step) { g.pendingExpired(s, id) }
	putInto(&g.pending, id, p)
	session, _ := j.memberTimeouts()
	g.host.Timers.Set(&p.session, s.Now.Add(session))
	j.replyFailure(s, id, memberIDRequired)
}

// joinAgain handles a client that has a member id.
func (g *Group) joinAgain(s *coord.Step, j *joinRequest) {
	id := j.req.MemberID
	if g.pending[id] != nil && j.req.InstanceID == nil {
		g.admitMember(s, id, j)
		return
	}
	mb, code := g.findMember(id, j.req.InstanceID)
	if code != 0 {
		j.replyFailure(s, id, code)
		return
	}
	changed := !mb.hasProtocols(j.req.Protocols)
	switch {
	case g.state == empty:
		j.replyFailure(s, id, unknownMemberID)
	case g.state == preparing,
		changed,
		// A leader that joins again without a change wants a new assignment, since it
		// has seen new partitions.
		g.state == stable && g.leader == id,
		// A member that joins again at the next coordinator was in a rebalance, maybe in a
		// generation that is not recorded. It must not get an earlier one.
		g.generationIn != s.Epoch():
		g.rejoinMember(s, mb, j)
	default:
		// The member missed the answer, or asks without need. It gets the present generation.
		replyJoin(s, j.reply, g.joinResponse(mb, g.state == completing))
	}
}

// admitMember adds a new member, if there is room for it, and rebalances the group.
func (g *Group) admitMember(s *coord.Step, id string, j *joinRequest) {
	mb := g.newMember(id, j.req.InstanceID)
	mb.clientID, mb.clientHost = j.ID, j.Host
	mb.sessionTimeout, mb.rebalanceTimeout = j.memberTimeouts()
	if !g.chargeMember(s, mb, id, j.req.Protocols) {
		j.replyFailure(s, id, groupMaxSizeReached)
		return
	}
	g.removePending(id)
	mb.protocols = copyProtocols(j.req.Protocols)
	mb.firstJoin = true
	if len(g.members) == 0 {
		g.protocolType = j.req.ProtocolType
	}
	if g.leader == "" {
		g.leader = id
	}
	if g.state == preparing && g.previousState == empty {
		g.joinedDuringDelay = true
	}
	g.addMember(mb)
	mb.awaitJoin(s, j.reply)
	g.host.Timers.Set(&mb.session, s.Now.Add(joinWait))
	g.continueRebalance(s)
}

// rejoinMember takes over a member's new JoinGroup and rebalances the group. If there is
// no room for the new protocols, the member stays as it is.
func (g *Group) rejoinMember(s *coord.Step, mb *member, j *joinRequest) {
	if !g.chargeMember(s, mb, mb.id, j.req.Protocols) {
		j.replyFailure(s, mb.id, groupMaxSizeReached)
		return
	}
	mb.takeOverRequest(s, j)
	g.continueRebalance(s)
}

// takeOverRequest gives the member the protocols and timeouts of a JoinGroup, for which
// it was charged, and lets the JoinGroup wait.
func (mb *member) takeOverRequest(s *coord.Step, j *joinRequest) {
	mb.group.countProtocols(mb, -1)
	mb.protocols = copyProtocols(j.req.Protocols)
	mb.group.countProtocols(mb, 1)
	mb.sessionTimeout, mb.rebalanceTimeout = j.memberTimeouts()
	mb.awaitJoin(s, j.reply)
}

// continueRebalance begins a rebalance or, if one is under way, completes the join when
// no member is missing.
func (g *Group) continueRebalance(s *coord.Step) {
	if g.state == preparing {
		g.maybeCompleteJoin(s)
		return
	}
	g.prepareRebalance(s)
}

// prepareRebalance begins a rebalance, so that all members must join again. The first
// generation of a group that was empty waits for the initial delay, so that members
// which start together are all in it.
func (g *Group) prepareRebalance(s *coord.Step) {
	if g.state == completing {
		for _, mb := range g.members {
			mb.assignment = nil
			g.adjustCharge(mb)
			if mb.answerSync(s, SyncFailure(rebalanceInProgress)) {
				g.restartSession(s, mb)
			}
		}
	}
	g.endSyncWait()
	g.emptyUnrecorded = false // the next generation's record replaces that of the empty group
	if g.state == empty {
		initial := g.host.Settings().InitialDelay
		g.joinedDuringDelay = false
		g.initialDelay, g.delayLeft = initial, max(g.rebalanceTimeout()-initial, 0)
		g.host.Timers.Set(&g.joinTimer, s.Now.Add(g.initialDelay))
		g.changeState(s, preparing)
		return
	}
	g.changeState(s, preparing)
	if g.allJoined() {
		g.completeJoin(s)
		return
	}
	g.host.Timers.Set(&g.joinTimer, s.Now.Add(g.rebalanceTimeout()))
}

// endSyncWait ends the wait for the SyncGroups of this generation.
func (g *Group) endSyncWait() {
	for _, mb := range g.members {
		mb.clearUnsynced()
	}
	g.host.Timers.Stop(&g.syncTimer)
}

// maybeCompleteJoin completes the join if no member is missing, but never before the end
// of an initial delay.
func (g *Group) maybeCompleteJoin(s *coord.Step) {
	if g.state == preparing && g.previousState != empty && g.allJoined() {
		g.completeJoin(s)
	}
}

// joinTimedOut ends the wait for members. If members have joined during the initial
// delay, and the rebalance timeout allows it, it extends the delay instead. In an empty
// group it tries again to record that the group is empty.
func (g *Group) joinTimedOut(s *coord.Step) {
	if g.state == empty && g.emptyUnrecorded {
		g.recordEmpty(s, g.Record())
	}
	if g.state != preparing {
		return
	}
	s.After(g.recordEnd)
	if g.previousState == empty && g.joinedDuringDelay && g.delayLeft > 0 {
		g.joinedDuringDelay = false
		ran := g.initialDelay
		g.initialDelay = min(g.host.Settings().InitialDelay, g.delayLeft)
		g.delayLeft = max(g.delayLeft-ran, 0)
		g.host.Timers.Set(&g.joinTimer, s.Now.Add(g.initialDelay))
		return
	}
	g.completeJoin(s)
}

// completeJoin begins the next generation with the members that have joined. It removes
// dynamic members that have not; static ones stay until their session ends.
func (g *Group) completeJoin(s *coord.Step) {
	g.host.Timers.Stop(&g.joinTimer)
	g.removeMembers(s, func(mb *member) bool { return mb.join == nil && mb.instance == nil })
	if len(g.members) == 0 {
		g.becomeEmpty(s)
		return
	}
	if leader := g.byID[g.leader]; leader == nil || leader.join == nil {
		i := slices.IndexFunc(g.members, func(mb *member) bool { return mb.join != nil })
		if i < 0 { // no member can lead: wait until one joins, or all sessions end
			g.host.Timers.Set(&g.joinTimer, s.Now.Add(max(g.rebalanceTimeout(), minLeaderWait)))
			return
		}
		g.leader = g.members[i].id
	}
	g.generation, g.generationIn = nextGeneration(g, s), s.Epoch()
	g.protocol = g.selectProtocol(nil, nil)
	g.learnSubscriptions()
	g.changeState(s, completing)
	for _, mb := range g.members {
		mb.answerJoin(s, g.joinResponse(mb, true))
		mb.firstJoin = false
		mb.unsynced = true
		g.restartSession(s, mb)
	}
	g.unsynced = len(g.members)
	g.host.Timers.Set(&g.syncTimer, s.Now.Add(g.rebalanceTimeout()))
}

// minLeaderWait is the shortest time for which a group waits for a member that can lead.
// The rebalance timeout alone would not do, since clients may set it to 0.
const minLeaderWait = time.Second

// recordRetryDelay is the time after which recordEmpty is tried again.
const recordRetryDelay = time.Second

// becomeEmpty ends the last generation of a group that has lost all members.
func (g *Group) becomeEmpty(s *coord.Step) {
	v := g.Record()
	v.Generation = nextGeneration(g, s)
	v.Protocol, v.Leader = nil, nil
	v.CurrentStateTimestamp = s.Now.UnixMilli()
	g.recordEmpty(s, v)
}

// recordEmpty records that the group is empty. If that fails the group is empty all the
// same, since its members are gone, and is recorded later.
func (g *Group) recordEmpty(s *coord.Step, v *kmsg.GroupMetadataValue) {
	Put(s, g.id, v)
	s.Then(func() { g.emptyUnrecorded = false })
	s.Else(func(error) {
		g.restoreFrom(s, v)
		g.emptyUnrecorded = true
		g.host.Timers.Set(&g.joinTimer, s.Now.Add(recordRetryDelay))
	})
}

// joinResponse is the answer to the JoinGroup of a member of the generation. If
// forAssignment is set and the member leads, the answer lists all members, which asks the
// leader for an assignment.
func (g *Group) joinResponse(mb *member, forAssignment bool) *kmsg.JoinGroupResponse {
	resp := kmsg.NewPtrJoinGroupResponse()
	resp.Generation = g.generation
	resp.ProtocolType, resp.Protocol = stringOrNil(g.protocolType), stringOrNil(g.protocol)
	resp.LeaderID, resp.MemberID = g.leader, mb.id
	if forAssignment && g.leader == mb.id {
		resp.Members = make([]kmsg.JoinGroupResponseMember, len(g.members))
		for i, o := range g.members {
			resp.Members[i] = kmsg.JoinGroupResponseMember{
				MemberID: o.id, InstanceID: o.instance, ProtocolMetadata: o.protocolMetadata(g.protocol),
			}
		}
	}
	return resp
}

// stringOrNil returns nil for "".
func stringOrNil(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
