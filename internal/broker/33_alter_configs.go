package broker

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// AlterConfigs, key 33, versions 0 to 2: sets the configs given and unsets all
// others of the resource.

func (b *Broker) alterConfigs(d *decision, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.AlterConfigsRequest)
	a := b.judgeConfigs(&d.by, req, d.isForwarded)
	if err := a.alterAll(d, req.ValidateOnly); err != nil {
		return err
	}
	r.Reply(a.answerReplaced(req))
	return nil
}

// judgeConfigs judges all of the request that needs no controller.
func (b *Broker) judgeConfigs(by *access, req *kmsg.AlterConfigsRequest, isForwarded bool) *alteration {
	a := &alteration{b: b, by: by, isForwarded: isForwarded}
	for i := range req.Resources {
		rs := &req.Resources[i]
		c := controller.ConfigChanges{Resource: config.Resource{Type: config.ResourceType(rs.ResourceType), Name: rs.ResourceName}, Replace: true}
		var nulls []string
		for j := range rs.Configs {
			kv := &rs.Configs[j]
			if kv.Value == nil {
				nulls = append(nulls, kv.Name)
				continue
			}
			c.Changes = append(c.Changes, controller.ConfigChange{Op: controller.Set, Key: kv.Name, Value: *kv.Value})
		}
		a.addResource(c, nulls, len(rs.Configs))
	}
	a.judgeAll(req.ValidateOnly)
	return a
}

func (a *alteration) answerReplaced(req *kmsg.AlterConfigsRequest) *kmsg.AlterConfigsResponse {
	resp := kmsg.NewPtrAlterConfigsResponse()
	for i := range req.Resources {
		rr := kmsg.NewAlterConfigsResponseResource()
		rr.ResourceType, rr.ResourceName = req.Resources[i].ResourceType, req.Resources[i].ResourceName
		rr.ErrorCode, rr.ErrorMessage = a.outcomeOf(i)
		a.note(i, &rr.UnknownTags)
		resp.Resources = append(resp.Resources, rr)
	}
	return resp
}

// splitAlterConfigs finds the resources of which the active controller decides.
func (b *Broker) splitAlterConfigs(by *access, kreq kmsg.Request) forwardedPart {
	req, _ := kreq.(*kmsg.AlterConfigsRequest)
	a := b.judgeConfigs(by, req, false)
	if a.isWhole() {
		return forwardedPart{rest: req}
	}
	rest := kmsg.NewPtrAlterConfigsRequest()
	rest.ValidateOnly = req.ValidateOnly
	for _, i := range a.good {
		rest.Resources = append(rest.Resources, req.Resources[i])
	}
	if len(rest.Resources) == 0 {
		return forwardedPart{}
	}
	return forwardedPart{rest: rest, merge: func(answer kmsg.Response) kmsg.Response {
		whole := a.answerReplaced(req)
		if theirs, ok := answer.(*kmsg.AlterConfigsResponse); ok {
			for j, i := range a.good[:min(len(a.good), len(theirs.Resources))] {
				whole.Resources[i] = theirs.Resources[j]
			}
		}
		return whole
	}}
}

// alteration is a request of AlterConfigs or IncrementalAlterConfigs.
type alteration struct {
	b           *Broker
	by          *access
	isForwarded bool                       // it has no resource that another node must judge
	items       []controller.ConfigChanges // one for each resource
	refused     []*controller.Error        // by item; nil: it is not refused
	good        []int                      // the items of which the controller decides
	failed      error                      // of the command for all of these
}

// isWhole tells whether the controller decides of all items.
func (a *alteration) isWhole() bool { return len(a.good) == len(a.items) }

// addResource adds the changes of one resource. nulls are the configs that have null in place
// of a value; keys counts all configs, including those.
func (a *alteration) addResource(c controller.ConfigChanges, nulls []string, keys int) {
	a.items = append(a.items, c)
	a.refused = append(a.refused, a.checkForm(&c, nulls, keys))
}

// checkForm checks all that can be checked without the cluster's metadata.
func (a *alteration) checkForm(c *controller.ConfigChanges, nulls []string, keys int) *controller.Error {
	refuse := func(format string, args ...any) *controller.Error {
		return &controller.Error{Kind: controller.InvalidRequest, Message: fmt.Sprintf(format, args...)}
	}
	seen := make(map[string]struct{}, keys)
	for i := range c.Changes {
		seen[c.Changes[i].Key] = struct{}{}
	}
	for _, k := range nulls {
		seen[k] = struct{}{}
	}
	switch {
	case len(seen) < keys:
		return refuse("Error due to duplicate config keys")
	case len(nulls) > 0:
		return refuse("Null value not supported for : %s", strings.Join(nulls, ", "))
	}
	name := c.Resource.Name
	switch t := c.Resource.Type; {
	case t == config.Broker && (name == "" || a.isForwarded):
		return nil
	case t == config.Broker:
		return a.b.checkNodeID(name, "Unexpected broker id, expected %d, but received %s")
	case t == config.BrokerLogger && !c.Replace && !a.isForwarded:
		return a.b.checkNodeID(name, "Unexpected node id. Expected %d, but received %s")
	case t == config.Topic, t == config.Group, t == config.ClientMetrics:
		return nil
	default:
		return refuse("Unknown resource type %d", t)
	}
}

// checkNodeID refuses a resource name that is not this node's id. The format other makes the
// message for the id of another node.
func (b *Broker) checkNodeID(name, other string) *controller.Error {
	id, err := strconv.ParseInt(name, 10, 32)
	switch {
	case err != nil:
		return &controller.Error{Kind: controller.InvalidRequest, Message: "Node id must be an integer, but it is: " + name}
	case int32(id) != b.cfg.NodeID:
		return &controller.Error{Kind: controller.InvalidRequest, Message: fmt.Sprintf(other, b.cfg.NodeID, name)}
	}
	return nil
}

// judgeAll finds the items of which the controller decides, and changes the levels of this node's loggers.
func (a *alteration) judgeAll(validateOnly bool) {
	times := make(map[config.Resource]int, len(a.items))
	for i := range a.items {
		times[a.items[i].Resource]++
	}
	for i := range a.items {
		if times[a.items[i].Resource] > 1 {
			a.refused[i] = &controller.Error{Kind: controller.InvalidRequest, Message: "Each resource must appear at most once."}
		}
		if a.refused[i] == nil {
			a.refused[i] = a.by.checkConfigs(meta.AlterConfigs, a.items[i].Resource)
		}
		switch {
		case a.refused[i] != nil:
		case a.items[i].Resource.Type == config.BrokerLogger:
			a.refused[i] = a.b.alterLoggers(&a.items[i], validateOnly)
		default:
			a.good = append(a.good, i)
		}
	}
}

// alterAll has the controller decide. It returns an error if another node is to be asked.
func (a *alteration) alterAll(d *decision, validateOnly bool) error {
	if len(a.good) == 0 {
		return nil
	}
	asked := make([]controller.ConfigChanges, len(a.good))
	for j, i := range a.good {
		asked[j] = a.items[i]
	}
	s := meta.ServerSettings(a.b.cfg.Image(), a.b.cfg.Static)
	ctx, cancel := d.within(s.RequestTimeout)
	defer cancel()
	errs, err := d.AlterConfigs(ctx, asked, validateOnly)
	if d.isElsewhere(err) {
		return err
	}
	a.failed = err
	for j := range errs {
		a.refused[a.good[j]] = errs[j]
	}
	return nil
}

func (a *alteration) outcomeOf(i int) (int16, *string) {
	if a.refused[i] != nil {
		return outcomeOf(a.refused[i], nil)
	}
	return outcomeOf(nil, a.failed)
}

// note adds a note to the answer about a resource whose change succeeded.
func (a *alteration) note(i int, tags *kmsg.Tags) {
	if a.refused[i] == nil && a.failed == nil {
		addNote(tags, a.items[i].Resource.Type, valuesSet(a.items[i].Changes))
	}
}
