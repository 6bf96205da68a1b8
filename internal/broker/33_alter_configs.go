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

func (b *Broker) alterConfigs(_ *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.AlterConfigsRequest)
	a := alteration{b: b}
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
	a.alterAll(req.ValidateOnly)
	resp := kmsg.NewPtrAlterConfigsResponse()
	for i := range req.Resources {
		rr := kmsg.NewAlterConfigsResponseResource()
		rr.ResourceType, rr.ResourceName = req.Resources[i].ResourceType, req.Resources[i].ResourceName
		rr.ErrorCode, rr.ErrorMessage = a.outcomeOf(i)
		a.note(i, &rr.UnknownTags)
		resp.Resources = append(resp.Resources, rr)
	}
	r.Reply(resp)
	return nil
}

// alteration is a request of AlterConfigs or IncrementalAlterConfigs.
type alteration struct {
	b       *Broker
	items   []controller.ConfigChanges // one for each resource
	refused []*controller.Error        // by item; nil: it is not refused
	failed  error                      // of the command for all items that are not refused
}

// addResource adds the changes of one resource. nulls are the configs that have null in place
// of a value; keys counts all configs, including those.
func (a *alteration) addResource(c controller.ConfigChanges, nulls []string, keys int) {
	a.items = append(a.items, c)
	a.refused = append(a.refused, a.b.checkForm(&c, nulls, keys))
}

// checkForm checks all that can be checked without the cluster's metadata.
func (b *Broker) checkForm(c *controller.ConfigChanges, nulls []string, keys int) *controller.Error {
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
	case t == config.Broker && name == "":
		return nil
	case t == config.Broker:
		return b.checkNodeID(name, "Unexpected broker id, expected %d, but received %s")
	case t == config.BrokerLogger && !c.Replace:
		return b.checkNodeID(name, "Unexpected node id. Expected %d, but received %s")
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

// alterAll makes the changes of the items that are not refused: the controller changes
// configs, and this node the levels of its loggers.
func (a *alteration) alterAll(validateOnly bool) {
	times := make(map[config.Resource]int, len(a.items))
	for i := range a.items {
		times[a.items[i].Resource]++
	}
	var good []controller.ConfigChanges
	var at []int
	for i := range a.items {
		if times[a.items[i].Resource] > 1 {
			a.refused[i] = &controller.Error{Kind: controller.InvalidRequest, Message: "Each resource must appear at most once."}
		}
		switch {
		case a.refused[i] != nil:
		case a.items[i].Resource.Type == config.BrokerLogger:
			a.refused[i] = a.b.alterLoggers(&a.items[i], validateOnly)
		default:
			good, at = append(good, a.items[i]), append(at, i)
		}
	}
	if len(good) == 0 {
		return
	}
	s := meta.ServerSettings(a.b.cfg.Image(), a.b.cfg.Static)
	ctx, cancel := a.b.withTimeout(int32(s.RequestTimeout.Milliseconds()))
	defer cancel()
	errs, err := a.b.cfg.Controller.AlterConfigs(ctx, good, validateOnly)
	a.failed = err
	for i := range errs {
		a.refused[at[i]] = errs[i]
	}
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
