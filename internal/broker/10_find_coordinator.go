package broker

import (
	"log/slog"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/group"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// FindCoordinator, key 10, versions 0 to 6.
//
// 1: key types (KIP-98). 3: flexible. 4: many keys (KIP-699). 5: a new code for
// transactions (KIP-890). 6: share groups (KIP-932).
//
// The first request for a group's coordinator creates the offsets topic and waits for it;
// in Kafka the client has to ask again. There are no coordinators of transactions and of
// share groups yet. INVALID_REQUEST ends a client's search for them, whereas Kafka's
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
}

func (b *Broker) findCoordinator(s *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.FindCoordinatorRequest)
	if b.contact() == CutOff {
		return errSentAway
	}
	resp := kmsg.NewPtrFindCoordinatorResponse()
	b.ensureOffsetsTopic(req.CoordinatorType)
	m := b.cfg.Image()
	view := s.view(m)
	topic := m.Topic(group.Topic)
	if r.Version < 4 {
		f := s.locateCoordinator(&view, topic, req.CoordinatorType, req.CoordinatorKey)
		if f.code == none {
			f.message = "NONE" // as Kafka does, in these versions only
		}
		resp.NodeID, resp.Host, resp.Port = f.node, f.host, f.port
		resp.ErrorCode, resp.ErrorMessage = f.code, &f.message
		r.Reply(resp)
		return nil
	}
	for _, key := range req.CoordinatorKeys {
		f := s.locateCoordinator(&view, topic, req.CoordinatorType, key)
		resp.Coordinators = append(resp.Coordinators, kmsg.FindCoordinatorResponseCoordinator{
			Key: key, NodeID: f.node, Host: f.host, Port: f.port, ErrorCode: f.code, ErrorMessage: &f.message,
		})
	}
	r.Reply(resp)
	return nil
}

// ensureOffsetsTopic creates the offsets topic if there is none and a group's coordinator is
// asked for.
func (b *Broker) ensureOffsetsTopic(kind int8) {
	if kind != groupCoordinator || b.cfg.Image().Topic(group.Topic) != nil {
		return
	}
	ctx, cancel := b.withinServerTime(serverTimeShare)
	defer cancel()
	if err := b.cfg.EnsureOffsetsTopic(ctx); err != nil {
		b.cfg.Logger.Warn("cannot create the topic of groups and offsets", slog.Any("err", err))
	}
}

// locateCoordinator finds the node that leads the partition of topic that a key belongs to; nil: the topic
// is missing.
func (s *session) locateCoordinator(view *clientView, topic *meta.Topic, kind int8, key string) coordinatorPlace {
	switch kind {
	case groupCoordinator:
	case transactionCoordinator:
		return notFound(kerr.InvalidRequest, "This broker has no transaction coordinator yet.")
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
