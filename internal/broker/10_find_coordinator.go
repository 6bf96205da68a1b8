package broker

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/group"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/txn"
	"github.com/leatstream/leat/internal/wire"
)

// FindCoordinator, key 10, versions 0 to 6.
//
// 1: key types (KIP-98). 3: flexible. 4: many keys (KIP-699). 5: a new code for
// transactions (KIP-890). 6: share groups (KIP-932).
//
// The first request for a group's coordinator, or a transaction's, creates the topic of its records and waits for it;
// in Kafka the client has to ask again. Transactions have no coordinator before all nodes know transactions. There are no coordinators of
// share groups yet: INVALID_REQUEST ends a client's search for them, whereas Kafka's
// COORDINATOR_NOT_AVAILABLE would have it ask for ever. A node that is cut off answers nobody for a while: see Contact.

// The kinds of coordinators.
const (
	groupCoordinator       = 0
	transactionCoordinator = 1
	shareCoordinator       = 2
)

// coordinatorPlace is the node of a coordinator, or the reason why there is none.
type coordinatorPlace struct {
	node    int32
	host    string
	port    int32
	code    int16
	message string
	// isDenied tells that the client may not know it.
	isDenied bool
}

func (b *Broker) findCoordinator(s *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.FindCoordinatorRequest)
	if b.contact() == CutOff {
		return errSentAway
	}
	resp := kmsg.NewPtrFindCoordinatorResponse()
	topicName := b.topicOfCoordinators(req.CoordinatorType)
	by := s.access()
	if topicName != "" && by.mayFindAny(req) {
		b.ensureTopic(topicName)
	}
	m := b.cfg.Image()
	view := s.view(m)
	topic := m.Topic(topicName)
	if r.Version < 4 {
		f := s.findCoordinatorFor(&by, &view, topic, coordinatorKey{req.CoordinatorType, req.CoordinatorKey})
		if f.code == none {
			f.message = "NONE" // as Kafka does, in these versions only
		}
		resp.NodeID, resp.Host, resp.Port = f.node, f.host, f.port
		resp.ErrorCode, resp.ErrorMessage = f.code, &f.message
		r.Reply(resp)
		return nil
	}
	for _, key := range req.CoordinatorKeys {
		f := s.findCoordinatorFor(&by, &view, topic, coordinatorKey{req.CoordinatorType, key})
		if f.isDenied {
			f.message = "" // as in Kafka
		}
		resp.Coordinators = append(resp.Coordinators, kmsg.FindCoordinatorResponseCoordinator{
			Key: key, NodeID: f.node, Host: f.host, Port: f.port, ErrorCode: f.code, ErrorMessage: &f.message,
		})
	}
	r.Reply(resp)
	return nil
}

// topicOfCoordinators is the topic of a kind of coordinators, or "" if there are none.
func (b *Broker) topicOfCoordinators(kind int8) string {
	switch {
	case kind == groupCoordinator:
		return group.Topic
	case kind == transactionCoordinator && b.cfg.Txns != nil && hasTransactions(b.cfg.Image()):
		return txn.Topic
	}
	return ""
}

// coordinatorKey is a group or a transactional id whose coordinator is looked for.
type coordinatorKey struct {
	kind int8
	key  string
}

// refusal is the code for a client that may not know the coordinator.
func (k coordinatorKey) refusal(by *access) *kerr.Error {
	switch {
	case k.kind == groupCoordinator && !by.mayGroup(meta.Describe, k.key):
		return kerr.GroupAuthorizationFailed
	case k.kind == transactionCoordinator && !by.mayTransaction(meta.Describe, k.key):
		return kerr.TransactionalIDAuthorizationFailed
	}
	return nil
}

// mayFindAny tells whether the client may know one of the coordinators that it looks for.
func (a *access) mayFindAny(req *kmsg.FindCoordinatorRequest) bool {
	if req.Version < 4 {
		return coordinatorKey{req.CoordinatorType, req.CoordinatorKey}.refusal(a.quietly()) == nil
	}
	quiet := a.quietly()
	return slices.ContainsFunc(req.CoordinatorKeys, func(key string) bool {
		return coordinatorKey{req.CoordinatorType, key}.refusal(quiet) == nil
	})
}

// findCoordinatorFor is locateCoordinator for a client that may not know all of them.
func (s *session) findCoordinatorFor(by *access, view *clientView, topic *meta.Topic, k coordinatorKey) coordinatorPlace {
	if e := k.refusal(by); e != nil {
		f := notFound(e, deniedText(e))
		f.isDenied = true
		return f
	}
	return s.locateCoordinator(view, topic, k.kind, k.key)
}

// locateCoordinator finds the node that leads the partition of topic that a key belongs to; nil: the topic
// is missing.
func (s *session) locateCoordinator(view *clientView, topic *meta.Topic, kind int8, key string) coordinatorPlace {
	switch kind {
	case groupCoordinator:
	case transactionCoordinator:
		if s.b.cfg.Txns == nil {
			return notFound(kerr.InvalidRequest, "This broker has no transaction coordinator.")
		}
		if topic == nil && !hasTransactions(s.b.cfg.Image()) {
			return notFound(kerr.CoordinatorNotAvailable, "A node of the cluster runs a version of Leat that has no transactions: upgrade it.")
		}
	case shareCoordinator:
		return notFound(kerr.InvalidRequest, "This broker has no share coordinator yet.")
	default:
		return notFound(kerr.InvalidRequest, kerr.InvalidRequest.Description)
	}
	unavailable := notFound(kerr.CoordinatorNotAvailable, kerr.CoordinatorNotAvailable.Description)
	if topic == nil || len(topic.Partitions) == 0 {
		return unavailable
	}
	p := &topic.Partitions[coord.PartitionOf(key, int32(len(topic.Partitions)))]
	node := view.shown[p.Leader]
	if node == nil {
		return unavailable
	}
	host, port := s.addressOf(node)
	return coordinatorPlace{node: node.ID, host: host, port: port}
}

func notFound(err *kerr.Error, message string) coordinatorPlace {
	return coordinatorPlace{node: -1, port: -1, code: err.Code, message: message}
}
