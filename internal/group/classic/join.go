package classic

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

// joinWait is how long the request of a new member that does not know its id yet
// may wait: no heartbeat can tell that the client has gone. As in Kafka.
const joinWait = 5 * time.Minute

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
	replyJoin(s, j.reply, JoinFailure(memberID, code))
}

// Join handles JoinGroup.
func (g *Group) Join(s *coord.Step, c Client, req *kmsg.JoinGroupRequest, reply func(*kmsg.JoinGroupResponse)) {
	req.Protocols = distinct(req.Protocols)
	g.join(s, &joiner{Client: c, req: req, reply: reply})
}

// Found handles JoinGroup for a group that is not there: it makes one, where a first
// member may join. obtain finds the group when
// its record was applied.
func (h *Host) Found(s *coord.Step, c Client, req *kmsg.JoinGroupRequest, reply func(*kmsg.JoinGroupResponse), obtain func() *Group) {
	j := &joiner{Client: c, req: req, reply: reply}
	req.Protocols = distinct(req.Protocols)
	need := j.size() + Size(req.Group)
	switch {
	case req.MemberID != "":
		j.fail(s, req.MemberID, unknownMemberID)
	case req.ProtocolType == "" || len(req.Protocols) == 0:
		j.fail(s, "", inconsistentGroupProtocol)
	case need > h.Memory.Room():
		h.Memory.Refuse(s.Now, req.Group, need)
		j.fail(s, "", groupMaxSizeReached)
	default:
		// A group exists when its first record does.
		putEmpty(s, req.Group)
		s.Else(func(err error) { j.fail(s, "", code(err)) })
		s.Then(func() { obtain().join(s, j) })
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

func (g *Group) join(s *coord.Step, j *joiner) {
	id := j.req.MemberID
	switch {
	case !g.hasRoom(id):
		g.removePending(id)
		if mb := g.byID[id]; mb != nil {
			g.remove(s, mb, groupMaxSizeReached)
		}
		j.fail(s, "", groupMaxSizeReached)
	case !g.supports(j.req.ProtocolType, j.req.Protocols):
		j.fail(s, id, inconsistentGroupProtocol)
	case id == "":
		g.joinNew(s, j)
	default:
		g.joinAgain(s, j)
	}
}

// hasRoom tells whether the group may take this member in. While members are being
// gathered those that wait count, so that a group that is too large shrinks.
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

// maxPending bounds the ids that a group has given out and that nobody uses yet.
const maxPending = 10_000

// joinNew handles a client that has no member id.
func (g *Group) joinNew(s *coord.Step, j *joiner) {
	if j.req.InstanceID != nil {
		id := *j.req.InstanceID + "-" + g.host.NewID()
		if old := g.statics[*j.req.InstanceID]; old != nil {
			g.replaceStatic(s, old, id, j)
			return
		}
		g.admit(s, id, j)
		return
	}
	id := j.ID + "-" + g.host.NewID()
	if j.req.Version < 4 {
		g.admit(s, id, j)
		return
	}
	if len(g.pending) >= maxPending {
		j.fail(s, "", groupMaxSizeReached)
		return
	}
	// KIP-394: the client must come back with its id. One that dies meanwhile does
	// not become a member that nobody can be asked about.
	p := &pending{charged: int64(pendingCost + len(id))}
	if !g.host.Memory.Reserve(s.Now, g.id, p.charged) {
		j.fail(s, "", groupMaxSizeReached)
		return
	}
	p.session.Fire = func(s *coord.Step) { g.pendingExpired(s, id) }
	put(&g.pending, id, p)
	session, _ := j.timeouts()
	g.host.Timers.Set(&p.session, s.Now.Add(session))
	j.fail(s, id, memberIDRequired)
}

// joinAgain handles a client that has a member id.
func (g *Group) joinAgain(s *coord.Step, j *joiner) {
	id := j.req.MemberID
	if g.pending[id] != nil && j.req.InstanceID == nil {
		g.admit(s, id, j)
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
		g.rejoin(s, mb, j)
	default:
		// It missed the answer, or asks without need: the generation as it is.
		replyJoin(s, j.reply, g.joined(mb, g.state == completing))
	}
}

// admit takes a new member in, where there is room for it, and has the group rebalance.
func (g *Group) admit(s *coord.Step, id string, j *joiner) {
	mb := g.newMember(id, j.req.InstanceID)
	mb.clientID, mb.clientHost = j.ID, j.Host
	mb.sessionTimeout, mb.rebalanceTimeout = j.timeouts()
	if !g.charge(s, mb, id, j.req.Protocols) {
		j.fail(s, id, groupMaxSizeReached)
		return
	}
	g.removePending(id)
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
	g.host.Timers.Set(&mb.session, s.Now.Add(joinWait))
	g.rebalance(s)
}

// rejoin takes a member's new request for its old one and has the group rebalance.
// Where it says more than there is room for, the member stays as it was.
func (g *Group) rejoin(s *coord.Step, mb *member, j *joiner) {
	if !g.charge(s, mb, mb.id, j.req.Protocols) {
		j.fail(s, mb.id, groupMaxSizeReached)
		return
	}
	mb.update(s, j)
	g.rebalance(s)
}

// update takes over a request that the member was charged for.
func (mb *member) update(s *coord.Step, j *joiner) {
	mb.group.count(mb, -1)
	mb.protocols = own(j.req.Protocols)
	mb.group.count(mb, 1)
	mb.sessionTimeout, mb.rebalanceTimeout = j.timeouts()
	mb.await(s, j.reply)
}

// rebalance begins one, or goes on with the one under way.
func (g *Group) rebalance(s *coord.Step) {
	if g.state == preparing {
		g.maybeCompleteJoin(s)
		return
	}
	g.prepareRebalance(s)
}

// prepareRebalance asks all members to join again. In a group that was empty the
// first generation waits a little, so that members that start together are in it.
func (g *Group) prepareRebalance(s *coord.Step) {
	if g.state == completing {
		for _, mb := range g.members {
			mb.assignment = nil
			g.settle(mb)
			if mb.answerSync(s, SyncFailure(rebalanceInProgress)) {
				g.touch(s, mb)
			}
		}
	}
	g.stopSync()
	g.unsaved = false // the next generation is recorded instead
	if g.state == empty {
		initial := g.host.Settings().InitialDelay
		g.grown = false
		g.delay, g.remaining = initial, max(g.rebalanceTimeout()-initial, 0)
		g.host.Timers.Set(&g.joinTimer, s.Now.Add(g.delay))
		g.enter(s, preparing)
		return
	}
	g.enter(s, preparing)
	if g.allJoined() {
		g.completeJoin(s)
		return
	}
	g.host.Timers.Set(&g.joinTimer, s.Now.Add(g.rebalanceTimeout()))
}

// stopSync ends the wait for SyncGroups.
func (g *Group) stopSync() {
	for _, mb := range g.members {
		g.synced(mb)
	}
	g.host.Timers.Stop(&g.syncTimer)
}

// maybeCompleteJoin completes the join when nobody is missing; the initial delay
// runs its course, however.
func (g *Group) maybeCompleteJoin(s *coord.Step) {
	if g.state == preparing && g.before != empty && g.allJoined() {
		g.completeJoin(s)
	}
}

// joinTimedOut ends the wait for members, or extends the initial delay where
// members came during it and the rebalance timeout allows it.
func (g *Group) joinTimedOut(s *coord.Step) {
	if g.state == empty && g.unsaved {
		g.recordEmpty(s, g.Record())
	}
	if g.state != preparing {
		return
	}
	s.After(g.last)
	if g.before == empty && g.grown && g.remaining > 0 {
		g.grown = false
		ran := g.delay
		g.delay = min(g.host.Settings().InitialDelay, g.remaining)
		g.remaining = max(g.remaining-ran, 0)
		g.host.Timers.Set(&g.joinTimer, s.Now.Add(g.delay))
		return
	}
	g.completeJoin(s)
}

// completeJoin begins the next generation with the members that have joined.
// Dynamic members that have not are out; static ones stay until their session ends.
func (g *Group) completeJoin(s *coord.Step) {
	g.host.Timers.Stop(&g.joinTimer)
	for _, mb := range slices.Clone(g.members) {
		if mb.join == nil && mb.instance == nil {
			g.remove(s, mb, unknownMemberID)
		}
	}
	if len(g.members) == 0 {
		g.becomeEmpty(s)
		return
	}
	if leader := g.byID[g.leader]; leader == nil || leader.join == nil {
		i := slices.IndexFunc(g.members, func(mb *member) bool { return mb.join != nil })
		if i < 0 { // nobody is there to lead: sessions will end, or somebody comes
			g.host.Timers.Set(&g.joinTimer, s.Now.Add(max(g.rebalanceTimeout(), lookAgain)))
			return
		}
		g.leader = g.members[i].id
	}
	g.generation++
	g.protocol = g.selectProtocol(nil, nil)
	g.learnSubscriptions()
	g.enter(s, completing)
	for _, mb := range g.members {
		mb.answerJoin(s, g.joined(mb, true))
		mb.fresh = false
		mb.unsynced = true
		g.touch(s, mb)
	}
	g.unsynced = len(g.members)
	g.host.Timers.Set(&g.syncTimer, s.Now.Add(g.rebalanceTimeout()))
}

// lookAgain is how soon, at the earliest, a group looks again for somebody to lead:
// clients may ask for a rebalance timeout of nothing.
const lookAgain = time.Second

// recordAgain is how long a group that could not be recorded waits to try again.
const recordAgain = time.Second

// becomeEmpty ends the last generation.
func (g *Group) becomeEmpty(s *coord.Step) {
	v := g.Record()
	v.Generation = g.generation + 1
	v.Protocol, v.Leader = nil, nil
	v.CurrentStateTimestamp = s.Now.UnixMilli()
	g.recordEmpty(s, v)
}

// recordEmpty records that a group is empty. Where it cannot be recorded it is empty
// all the same, since its members are gone, and is recorded as soon as possible.
func (g *Group) recordEmpty(s *coord.Step, v *kmsg.GroupMetadataValue) {
	Put(s, g.id, v)
	s.Then(func() { g.unsaved = false })
	s.Else(func(error) {
		g.restore(s, v)
		g.unsaved = true
		g.host.Timers.Set(&g.joinTimer, s.Now.Add(recordAgain))
	})
}

// joined is the answer to a member that is in the generation. Only the leader
// learns who else is, and only while it is to assign.
func (g *Group) joined(mb *member, all bool) *kmsg.JoinGroupResponse {
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
