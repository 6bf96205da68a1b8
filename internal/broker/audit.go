package broker

import (
	"fmt"
	"hash/maphash"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/audit"
	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/peer"
	"github.com/leatstream/leat/internal/wire"
)

// Who did what is recorded in three places: access.may tells auditor.note what a client may do and may not, clientLogin and
// logInByCertificate tell of logins, and wire.Request.Note has the answers to requests that change something, of which changeEvents makes
// events. A change is recorded by the node that the client has asked, what was denied by the node that has judged it.

// auditor records what the client of one connection does. A nil auditor records nothing. It belongs to the goroutine of the connection's
// requests, and another goroutine uses a copy.
type auditor struct {
	to  *audit.Recorder
	who audit.Who
	api *api // of the request that is served; nil: there is none

	uses    map[topicUse]time.Time // when a use was recorded; nil: none was
	commits map[uint64]int64       // the offsets that were committed by no member of a group, by commitKey
}

// topicUse is the use of a topic by the client.
type topicUse struct {
	op    meta.Operation
	topic string
}

const (
	// mostUses is how many topics a connection remembers to have recorded. When one more comes, it forgets all.
	mostUses = 256
	// mostCommits is the same for the partitions whose offsets it has set.
	mostCommits = 256
	// usedAgain is how long a connection does not tell the Recorder again of the use of a topic.
	usedAgain = time.Minute
)

// openAudit begins to record what a connection does.
func openAudit(s *session) {
	if s.b.cfg.Audit == nil {
		return
	}
	s.audit = &auditor{to: s.b.cfg.Audit, who: audit.Who{Listener: s.conn.ListenerName()}}
	if a := s.conn.RemoteAddr(); a != nil {
		s.audit.who.Address = a.String()
	}
}

// begin notes which request is served.
func (u *auditor) begin(a *api, r *wire.Request) {
	if u != nil {
		u.api, u.who.ClientID = a, r.ClientID
	}
}

// snapshot is the auditor for another goroutine.
func (u *auditor) snapshot() *auditor {
	if u == nil {
		return nil
	}
	return &auditor{to: u.to, who: u.who, api: u.api}
}

// record records an event of the client.
func (u *auditor) record(e audit.Event) {
	if u == nil {
		return
	}
	if e.Who == (audit.Who{}) {
		e.Who = u.who
	}
	if e.API == "" && u.api != nil {
		e.API = u.api.name
	}
	u.to.Record(e)
}

// note takes what the authorizer has said.
func (u *auditor) note(op meta.Operation, t meta.ResourceType, name string, isAllowed bool) {
	switch {
	case !isAllowed:
		u.noteDenied(op, t, name)
	case u.isUse(op, t):
		if at, known := u.uses[topicUse{op, name}]; !known || time.Since(at) > usedAgain {
			u.noteUse(op, name)
		}
	}
}

// noteName is note for the name of a topic that is no string yet.
func (u *auditor) noteName(op meta.Operation, name []byte, isAllowed bool) {
	switch {
	case !isAllowed:
		u.noteDenied(op, meta.TopicResource, string(name))
	case u.isUse(op, meta.TopicResource):
		if at, known := u.uses[topicUse{op, string(name)}]; !known || time.Since(at) > usedAgain {
			u.noteUse(op, string(name))
		}
	}
}

// noteDenied records that the client may not do something.
func (u *auditor) noteDenied(op meta.Operation, t meta.ResourceType, name string) {
	if u.to.Records(audit.Denials) {
		whole, _ := auth.PartOf(op) // which is what an ACL would have to allow
		u.record(audit.Event{
			Type: audit.Denied, Operation: auth.OperationName(whole), ResourceType: strings.ToLower(auth.ResourceName(t)), Resource: name, Result: audit.Refused,
		})
	}
}

// noteWouldDeny records that ACLs would deny something, which was allowed.
func (u *auditor) noteWouldDeny(op meta.Operation, t meta.ResourceType, name string) {
	if u != nil && u.to.Records(audit.Denials) {
		u.record(audit.Event{
			Type: audit.WouldDeny, Operation: auth.OperationName(op), ResourceType: strings.ToLower(auth.ResourceName(t)), Resource: name, Result: audit.Allowed,
			Reason: "no ACL allows it, and none decides yet, since the cluster is being secured",
		})
	}
}

// isUse tells whether the client reads or writes a topic, and that is recorded.
func (u *auditor) isUse(op meta.Operation, t meta.ResourceType) bool {
	if t != meta.TopicResource || u.api == nil {
		return false
	}
	switch u.api.key {
	case produceKey:
		return op == meta.Write && u.to.Records(audit.Writes)
	case fetchKey:
		return op == meta.Read && u.to.Records(audit.Reads)
	}
	return false
}

const (
	produceKey = 0
	fetchKey   = 1
)

// noteUse records that the client reads or writes a topic.
func (u *auditor) noteUse(op meta.Operation, topic string) {
	if u.uses == nil || len(u.uses) >= mostUses {
		u.uses = map[topicUse]time.Time{}
	}
	if len(topic) <= longestTopicName {
		u.uses[topicUse{op, topic}] = time.Now()
	}
	typ := audit.Read
	if op == meta.Write {
		typ = audit.Written
	}
	u.record(audit.Event{Type: typ, Operation: auth.OperationName(op), ResourceType: "topic", Resource: topic, Result: audit.Allowed})
}

// longestTopicName is the longest name that a topic can have.
const longestTopicName = 249

// noteLogin records a login that has succeeded, or has failed for a reason.
func (u *auditor) noteLogin(mechanism string, isAgain bool, claimed string, failed error) {
	if u == nil || !u.to.Records(audit.Logins) {
		return
	}
	e := audit.Event{Type: audit.LoginSucceeded, Result: audit.Allowed, Who: u.who, API: "SaslAuthenticate", Details: []audit.Detail{{Key: "mechanism", Value: mechanism}}}
	if isAgain {
		e.Details = append(e.Details, audit.Detail{Key: "again", Value: "true"})
	}
	if failed != nil {
		e.Type, e.Result, e.Reason = audit.LoginFailed, audit.Refused, failed.Error()
		if !isAgain {
			e.Principal = ""
		}
		if claimed != "" {
			e.ResourceType, e.Resource = "user", claimed
		}
	}
	u.to.Record(e)
}

// watchChange has the answer to a request recorded, if it changes something.
func watchChange(s *session, a *api, r *wire.Request, req kmsg.Request) {
	u := s.audit
	if u == nil || !isChange(a) || !u.to.Records(audit.Changes) {
		return
	}
	who := u.who
	if id := s.peer.Identity(); id.IsAny(peer.Nodes) {
		return // it does what it must
	} else if id.IsAny(peer.Administrators) {
		who.Principal = fmt.Sprintf("Directory:node %d", id.NodeID)
	}
	var had map[string]credentialBits
	if q, ok := req.(*kmsg.AlterUserSCRAMCredentialsRequest); ok {
		had = findCredentials(s.b.cfg.Image(), q)
	}
	u.noteAnswers(r, who, a.name, req, had)
}

// noteAnswers has the answer to a request recorded. It may come in parts, and from any goroutine.
func (u *auditor) noteAnswers(r *wire.Request, who audit.Who, name string, req kmsg.Request, had map[string]credentialBits) {
	to, isSensitive := u.to, configIsSecret
	left := mostChanges
	r.Note = func(resp kmsg.Response) {
		c := changeEvents{isSecret: isSensitive, left: left, had: had}
		c.addAnswer(req, resp)
		left = c.left
		for i := range c.list {
			c.list[i].Who, c.list[i].API = who, name
			to.Record(c.list[i])
		}
	}
}

// noteAutoCreated records the topics that were made since the client has asked for them.
func (u *auditor) noteAutoCreated(names []string, isMade func(name string) bool) {
	if u == nil {
		return
	}
	for _, name := range names {
		if isMade(name) {
			u.record(audit.Event{Type: audit.TopicCreated, ResourceType: "topic", Resource: name, Result: audit.Allowed, Reason: "a client has asked for a topic that did not exist"})
		}
	}
}

// watchCommit has the answer to an OffsetCommit recorded, if an administrator may have sent it.
//
// A request says not who has sent it: a tool that resets offsets commits them outside of a generation and without a member's id, and so does
// a consumer that has no group protocol and chooses its partitions itself. The consumer goes on to commit, from the same connection, and
// forwards. So a commit outside of a generation is recorded, unless the connection has set the offsets of all of its partitions before, and none of
// them goes back.
func watchCommit(s *session, r *wire.Request, req *kmsg.OffsetCommitRequest) {
	u := s.audit
	if u == nil || req.Generation >= 0 || req.MemberID != "" || !u.to.Records(audit.Changes) || s.isPeer() {
		return
	}
	if u.commits == nil || len(u.commits) >= mostCommits {
		u.commits = map[uint64]int64{}
	}
	isNew := false
	asked := kmsg.NewPtrOffsetCommitRequest()
	asked.Group = req.Group
	for i := range req.Topics {
		t := &req.Topics[i]
		for _, p := range t.Partitions {
			key := commitKey(req.Group, t.Topic, t.TopicID, p.Partition)
			last, known := u.commits[key]
			isNew = isNew || !known || p.Offset < last
			if known || len(u.commits) < mostCommits {
				u.commits[key] = p.Offset
			}
		}
	}
	if !isNew {
		return
	}
	for i := range req.Topics { // the handler changes the request
		t := req.Topics[i]
		t.Partitions = append([]kmsg.OffsetCommitRequestTopicPartition(nil), t.Partitions[:min(len(t.Partitions), mostParts)]...)
		if asked.Topics = append(asked.Topics, t); len(asked.Topics) >= mostChanges {
			break
		}
	}
	u.noteAnswers(r, u.who, "OffsetCommit", asked, nil)
}

// commitSeed makes the keys of commits differ from run to run, so that nobody chooses names with the same key.
var commitSeed = maphash.MakeSeed()

func commitKey(group, topic string, id [16]byte, partition int32) uint64 {
	return maphash.Comparable(commitSeed, struct {
		group, topic string
		id           [16]byte
		partition    int32
	}{group, topic, id, partition})
}
