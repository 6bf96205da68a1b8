package broker

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

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
// A broker that is leaving, whose leaders move to others, has a note of that, which Kafka does not have; and so has
// the answer, from version 2 on, if nodes belong to the cluster that are no brokers: they have joined and never
// registered, or were unregistered.

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
		by := s.access()
		resp.ClusterAuthorizedOperations = by.clusterOperations()
	}
	if note := noteOfUnregistered(m); note != "" && r.Version >= 2 {
		resp.UnknownTags.Set(config.NoteTag, []byte(note))
	}
	r.Reply(resp)
	return nil
}

// maxNotedNodes is how many nodes a note names; it counts the others.
const maxNotedNodes = 10

// noteOfUnregistered is a sentence about the nodes that belong to the cluster and are not registered; "": there are
// none.
func noteOfUnregistered(m *meta.Image) string {
	var ids []string
	ends := false
	for _, id := range slices.Sorted(maps.Keys(m.Nodes)) {
		if n := m.Nodes[id]; !n.Removed && m.Brokers[id] == nil {
			ids = append(ids, strconv.Itoa(int(id)))
			ends = ends || n.Ends != 0
		}
	}
	if len(ids) == 0 {
		return ""
	}
	if more := len(ids) - maxNotedNodes; more > 0 {
		ids = append(ids[:maxNotedNodes], fmt.Sprint(more, " more"))
	}
	note := "Nodes that belong to the cluster and are not registered: " + strings.Join(ids, ", ") + `. "leat cluster remove" removes one that will not come.`
	if ends {
		note += " Those that have joined and never started are forgotten a day after the end of their join token."
	}
	return note
}
