package broker

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/wire"
)

// IncrementalAlterConfigs, key 44, versions 0 to 1 (KIP-339): sets and unsets configs, and
// adds values to lists and removes them. Configs that are not named stay as they are.

func (b *Broker) incrementalAlterConfigs(d *decision, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.IncrementalAlterConfigsRequest)
	a := b.judgeChanges(&d.by, req, d.isForwarded)
	if err := a.alterAll(d, req.ValidateOnly); err != nil {
		return err
	}
	r.Reply(a.answerChanged(req))
	return nil
}

// judgeChanges judges all of the request that needs no controller.
func (b *Broker) judgeChanges(by *access, req *kmsg.IncrementalAlterConfigsRequest, isForwarded bool) *alteration {
	a := &alteration{b: b, by: by, isForwarded: isForwarded}
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
	a.judgeAll(req.ValidateOnly)
	return a
}

func (a *alteration) answerChanged(req *kmsg.IncrementalAlterConfigsRequest) *kmsg.IncrementalAlterConfigsResponse {
	resp := kmsg.NewPtrIncrementalAlterConfigsResponse()
	for i := range req.Resources {
		rr := kmsg.NewIncrementalAlterConfigsResponseResource()
		rr.ResourceType, rr.ResourceName = req.Resources[i].ResourceType, req.Resources[i].ResourceName
		rr.ErrorCode, rr.ErrorMessage = a.outcomeOf(i)
		a.note(i, &rr.UnknownTags)
		resp.Resources = append(resp.Resources, rr)
	}
	return resp
}

// splitIncremental finds the resources of which the active controller decides. The levels of loggers are
// this node's own, and so is the judgement of resources that are other nodes'.
func (b *Broker) splitIncremental(by *access, kreq kmsg.Request) forwardedPart {
	req, _ := kreq.(*kmsg.IncrementalAlterConfigsRequest)
	a := b.judgeChanges(by, req, false)
	if a.isWhole() {
		return forwardedPart{rest: req}
	}
	rest := kmsg.NewPtrIncrementalAlterConfigsRequest()
	rest.ValidateOnly = req.ValidateOnly
	for _, i := range a.good {
		rest.Resources = append(rest.Resources, req.Resources[i])
	}
	if len(rest.Resources) == 0 {
		return forwardedPart{}
	}
	return forwardedPart{rest: rest, merge: func(answer kmsg.Response) kmsg.Response {
		whole := a.answerChanged(req)
		if theirs, ok := answer.(*kmsg.IncrementalAlterConfigsResponse); ok {
			for j, i := range a.good[:min(len(a.good), len(theirs.Resources))] {
				whole.Resources[i] = theirs.Resources[j]
			}
		}
		return whole
	}}
}
