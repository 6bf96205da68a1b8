package broker

import (
	"fmt"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// DescribeCluster, key 60, versions 0 to 2.
//
// 1: brokers or controllers (KIP-919). A broker answers for brokers only, as in Kafka;
// here controllers have no port of their own. 2: fenced brokers, if they are wanted (KIP-1073).
//
// A broker that is leaving, whose leaders move to others, has a note of that, which Kafka does not have.

// brokerEndpoints is the only kind of endpoint that a broker describes.
const brokerEndpoints = 1

func (b *Broker) describeCluster(s *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.DescribeClusterRequest)
	resp := kmsg.NewPtrDescribeClusterResponse()
	if r.Version >= 1 && req.EndpointType != brokerEndpoints {
		e, message := kerr.UnsupportedEndpointType, fmt.Sprintf("Unsupported endpoint type %d", req.EndpointType)
		if req.EndpointType == 2 {
			e, message = kerr.MismatchedEndpointType, "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER"
		}
		resp.ErrorCode, resp.ErrorMessage = e.Code, &message
		r.Reply(resp)
		return nil
	}
	m := b.cfg.Image()
	view := s.view(m)
	resp.ClusterID, resp.ControllerID = m.ClusterID, b.controllerOf(&view)
	for _, id := range slices.Sorted(maps.Keys(m.Brokers)) {
		node := m.Brokers[id]
		isFenced := findAlive(m.Brokers, id) == nil
		if isFenced && !req.IncludeFencedBrokers || !b.canReach(node, s.conn.ListenerName()) {
			continue
		}
		n := kmsg.NewDescribeClusterResponseBroker()
		n.NodeID, n.IsFenced = id, isFenced
		n.Host, n.Port = s.addressOf(node)
		if node.Rack != "" {
			n.Rack = &node.Rack
		}
		if node.State == meta.BrokerLeaving {
			n.UnknownTags.Set(config.NoteTag, []byte(config.LeavingNote))
		}
		resp.Brokers = append(resp.Brokers, n)
	}
	if req.IncludeClusterAuthorizedOperations {
		resp.ClusterAuthorizedOperations = clusterOperations
	}
	r.Reply(resp)
	return nil
}
