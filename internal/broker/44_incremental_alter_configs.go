package broker

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/wire"
)

// IncrementalAlterConfigs, key 44, versions 0 to 1 (KIP-339): sets and unsets configs, and
// adds values to lists and removes them. Configs that are not named stay as they are.

func (b *Broker) incrementalAlterConfigs(_ *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.IncrementalAlterConfigsRequest)
	a := alteration{b: b}
	for i := range req.Resources {
		rs := &req.Resources[i]
		c := controller.ConfigChanges{Resource: config.Resource{Type: config.ResourceType(rs.ResourceType), Name: rs.ResourceName}}
		var nulls []string
		for j := range rs.Configs {
			kv := &rs.Configs[j]
			ch := controller.ConfigChange{Op: controller.Op(kv.Op), Key: kv.Name}
			switch {
			case kv.Value != nil:
				ch.Value = *kv.Value
			case ch.Op != controller.Delete:
				nulls = append(nulls, kv.Name)
				continue
			}
			c.Changes = append(c.Changes, ch)
		}
		a.addResource(c, nulls, len(rs.Configs))
	}
	a.alterAll(req.ValidateOnly)
	resp := kmsg.NewPtrIncrementalAlterConfigsResponse()
	for i := range req.Resources {
		rr := kmsg.NewIncrementalAlterConfigsResponseResource()
		rr.ResourceType, rr.ResourceName = req.Resources[i].ResourceType, req.Resources[i].ResourceName
		rr.ErrorCode, rr.ErrorMessage = a.outcomeOf(i)
		a.note(i, &rr.UnknownTags)
		resp.Resources = append(resp.Resources, rr)
	}
	r.Reply(resp)
	return nil
}
