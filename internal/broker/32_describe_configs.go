package broker

import (
	"fmt"
	"strconv"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// DescribeConfigs, key 32, versions 1 to 4.
//
// 1: sources and synonyms (KIP-226). 3: types and documentation (KIP-569).
//
// A topic, a group and this broker have every config there is, with its default; the
// resource "" of brokers has what was set for all of them. Secrets have no value.

func (b *Broker) describeConfigs(_ *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.DescribeConfigsRequest)
	d := configDescriber{b: b, m: b.cfg.Image(), req: req, refused: make(map[int]bool)}
	memory, repeated, seen := int64(0), 0, make(map[config.Resource]struct{}, len(req.Resources))
	for i := range req.Resources {
		asked := &req.Resources[i]
		memory += resourceMemory + int64(len(asked.ResourceName))
		for _, name := range asked.ConfigNames {
			memory += configNameMemory + int64(len(name))
		}
		at := config.Resource{Type: config.ResourceType(asked.ResourceType), Name: asked.ResourceName}
		if _, again := seen[at]; again {
			repeated++
			d.refused[i] = repeated > maxRepeated
		}
		seen[at] = struct{}{}
	}
	d.loggers = b.describeLoggers()
	return b.replyList(r, kmsg.NewPtrDescribeConfigsResponse(), list{n: len(req.Resources), memory: memory, with: d.answer})
}

// maxRepeated resources may be named again in one request: a node has some hundred
// kilobytes to tell of itself, and nobody has to hear that thousands of times.
const maxRepeated = 100

// About what a request keeps in memory for each resource that it names, and for
// each of the configs.
const (
	resourceMemory   = 160
	configNameMemory = 16
)

// configDescriber describes the resources of a request, in any order and as often
// as it is asked to, always the same way.
type configDescriber struct {
	b       *Broker
	m       *meta.Image
	req     *kmsg.DescribeConfigsRequest
	loggers []config.Entry
	refused map[int]bool // resources that were named before too often
}

// answer is the answer with resource i alone; none for -1.
func (d *configDescriber) answer(i int) kmsg.Response {
	resp := kmsg.NewPtrDescribeConfigsResponse()
	if i >= 0 {
		resp.Resources = append(resp.Resources, d.resource(i))
	}
	return resp
}

func (d *configDescriber) resource(i int) kmsg.DescribeConfigsResponseResource {
	asked := &d.req.Resources[i]
	t := config.ResourceType(asked.ResourceType)
	var entries []config.Entry
	err := &controller.Error{Kind: controller.InvalidRequest, Message: "The same resources are named too often."}
	if !d.refused[i] {
		entries, err = d.entries(t, asked.ResourceName)
	}
	rr := kmsg.NewDescribeConfigsResponseResource()
	rr.ResourceType, rr.ResourceName = asked.ResourceType, asked.ResourceName
	if rr.ErrorCode, rr.ErrorMessage = outcome(err, nil); err == nil || err.Message == "" {
		rr.ErrorMessage = new(string) // Kafka's message is empty here, not null
	}
	wanted := make(map[string]struct{}, len(asked.ConfigNames))
	for _, name := range asked.ConfigNames {
		wanted[name] = struct{}{}
	}
	for j := range entries {
		if _, ok := wanted[entries[j].Def.Name]; !ok && len(wanted) > 0 {
			continue
		}
		rr.Configs = append(rr.Configs, describedConfig(&entries[j], t, d.req))
	}
	return rr
}

// entries are the configs of a resource.
func (d *configDescriber) entries(t config.ResourceType, name string) ([]config.Entry, *controller.Error) {
	refuse := func(format string, args ...any) ([]config.Entry, *controller.Error) {
		return nil, &controller.Error{Kind: controller.InvalidRequest, Message: fmt.Sprintf(format, args...)}
	}
	b, m := d.b, d.m
	view, set := m.View(b.cfg.Static), m.Overrides(config.Resource{Type: t, Name: name})
	switch t {
	case config.Topic:
		if err := controller.CheckTopicName(name); err != nil {
			return nil, err
		}
		topic := m.Topic(name)
		if topic == nil {
			return nil, &controller.Error{Kind: controller.UnknownTopic}
		}
		return view.TopicEntries(set), nil
	case config.Broker, config.BrokerLogger:
		if name == "" && t == config.Broker {
			return view.DefaultBrokerEntries(), nil
		}
		if err := b.thisBroker(t, name); err != nil {
			return nil, err
		}
		if t == config.BrokerLogger {
			return d.loggers, nil
		}
		return view.BrokerEntries(), nil
	case config.Group:
		if name == "" {
			return refuse("Group name must not be empty")
		}
		return view.GroupEntries(set), nil
	case config.ClientMetrics:
		if name == "" {
			return refuse("Client metrics subscription name must not be empty")
		}
		return view.ClientMetricsEntries(set), nil
	default:
		return refuse("Unsupported resource type: %v", t)
	}
}

// thisBroker refuses the name of a broker that is not this one.
func (b *Broker) thisBroker(t config.ResourceType, name string) *controller.Error {
	refuse := func(format string, args ...any) *controller.Error {
		return &controller.Error{Kind: controller.InvalidRequest, Message: fmt.Sprintf(format, args...)}
	}
	if name == "" {
		return refuse("Broker id must not be empty")
	}
	id, err := strconv.ParseInt(name, 10, 32)
	switch {
	case err != nil:
		return refuse("Broker id must be an integer, but it is: %s", name)
	case int32(id) == b.cfg.NodeID:
		return nil
	case t == config.BrokerLogger:
		return refuse("Unexpected broker id, expected %d but received %s", b.cfg.NodeID, name)
	default:
		return refuse("Unexpected broker id, expected %d or empty string, but received %s", b.cfg.NodeID, name)
	}
}

func describedConfig(e *config.Entry, t config.ResourceType, req *kmsg.DescribeConfigsRequest) kmsg.DescribeConfigsResponseResourceConfig {
	c := kmsg.NewDescribeConfigsResponseResourceConfig()
	c.Name, c.Value, c.IsSensitive = e.Def.Name, shownValue(e), e.Def.Sensitive()
	c.ReadOnly = t == config.Broker && e.Def.Scope == config.ReadOnly
	c.Source, c.ConfigType = kmsg.ConfigSource(e.Source), kmsg.ConfigType(e.Def.Type)
	if req.IncludeSynonyms {
		for i := range e.Synonyms {
			s := kmsg.NewDescribeConfigsResponseResourceConfigConfigSynonym()
			s.Name, s.Source = e.Synonyms[i].Name, kmsg.ConfigSource(e.Synonyms[i].Source)
			if !c.IsSensitive {
				s.Value = &e.Synonyms[i].Value
			}
			c.ConfigSynonyms = append(c.ConfigSynonyms, s)
		}
	}
	if req.IncludeDocumentation && e.Def.Doc != "" { // loggers have none
		c.Documentation = &e.Def.Doc
	}
	return c
}
