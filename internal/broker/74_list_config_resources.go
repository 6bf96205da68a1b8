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
	var found []listedResources
	n, memory := 0, int64(0)
	for _, t := range types {
		if !slices.Contains(every, t) {
			resp.ErrorCode = kerr.UnsupportedVersion.Code
			found, n, memory = nil, 0, 0
			break
		}
		names := b.resourceNames(m, config.ResourceType(t))
		found, n = append(found, listedResources{t, names}), n+len(names)
		for _, name := range names {
			memory += resourceNameMemory + int64(len(name))
		}
	}
	return b.replyList(r, resp, list{n: n, memory: memory, answerWith: func(i int) kmsg.Response {
		resp := kmsg.NewPtrListConfigResourcesResponse()
		for _, of := range found {
			if i >= 0 && i < len(of.names) {
				cr := kmsg.NewListConfigResourcesResponseConfigResource()
				cr.Name, cr.Type = of.names[i], of.kind
				resp.ConfigResources = append(resp.ConfigResources, cr)
			}
			i -= len(of.names)
		}
		return resp
	}})
}

// resourceNameMemory is how much memory a name takes in the list of a kind, without its letters.
const resourceNameMemory = 16

// listedResources are the resources of one kind.
type listedResources struct {
	kind  int8
	names []string
}

// resourceNames are the resources of a kind: all topics or brokers, and of the other kinds
// those that have configs of their own.
func (b *Broker) resourceNames(m *meta.Image, t config.ResourceType) (names []string) {
	switch t {
	case config.Topic:
		return b.names.sortedNames(m)
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
