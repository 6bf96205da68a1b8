package broker

import (
	"maps"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// ListConfigResources, key 74, versions 0 to 1 (KIP-1142).
//
// 0: metrics subscriptions only. 1: the kinds that are asked for, or all if none is named.

func (b *Broker) listConfigResources(_ *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.ListConfigResourcesRequest)
	resp := kmsg.NewPtrListConfigResourcesResponse()
	m := b.cfg.Image()
	types := req.ResourceTypes
	every := []int8{
		int8(config.Topic), int8(config.Broker), int8(config.BrokerLogger),
		int8(config.ClientMetrics), int8(config.Group),
	}
	switch {
	case r.Version == 0:
		types = []int8{int8(config.ClientMetrics)}
	case len(types) == 0:
		types = every
	default:
		types = slices.Compact(slices.Sorted(slices.Values(types)))
	}
	for _, t := range types {
		if !slices.Contains(every, t) {
			resp.ErrorCode = kerr.UnsupportedVersion.Code
			resp.ConfigResources = nil
			break
		}
		for _, name := range resourceNames(m, config.ResourceType(t)) {
			cr := kmsg.NewListConfigResourcesResponseConfigResource()
			cr.Name, cr.Type = name, t
			resp.ConfigResources = append(resp.ConfigResources, cr)
		}
	}
	r.Reply(resp)
	return nil
}

// resourceNames are the resources of a kind: all topics or brokers, and of the other kinds
// those that have configs of their own.
func resourceNames(m *meta.Image, t config.ResourceType) []string {
	var names []string
	switch t {
	case config.Topic:
		for topic := range m.Topics() {
			names = append(names, topic.Name)
		}
	case config.Broker, config.BrokerLogger:
		for _, id := range slices.Sorted(maps.Keys(m.Brokers)) {
			names = append(names, strconv.Itoa(int(id)))
		}
	default:
		names = slices.Collect(m.Configured(t))
	}
	slices.Sort(names)
	return names
}
