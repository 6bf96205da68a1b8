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
// A topic, a group and this broker have all configs of their kind, with their defaults.
// The broker resource "" has those that were set for all brokers. Secrets have no value.

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
	return b.replyList(r, kmsg.NewPtrDescribeConfigsResponse(), list{n: len(req.Resources), memory: memory, answerWith: d.answerWith})
}

// maxRepeated is how many resources one request may name again. The description of a broker
// takes some hundred kilobytes, and a client does not need it thousands of times.
const maxRepeated = 100

// These are about how much memory a request takes for each resource that it names, and for
// each config, until the answer is sent.
const (
	resourceMemory   = 160
	configNameMemory = 16
)

// configDescriber describes the resources of a request. It describes a resource the same way
// each time, as list.answerWith must.
type configDescriber struct {
	b       *Broker
	m       *meta.Image
	req     *kmsg.DescribeConfigsRequest
	loggers []config.Entry
	refused map[int]bool // the indexes of resources that are beyond maxRepeated
}

// answerWith is the answer with resource i alone, or with none for -1.
func (d *configDescriber) answerWith(i int) kmsg.Response {
	resp := kmsg.NewPtrDescribeConfigsResponse()
	if i >= 0 {
		resp.Resources = append(resp.Resources, d.describeResource(i))
	}
	return resp
}

func (d *configDescriber) describeResource(i int) kmsg.DescribeConfigsResponseResource {
	asked := &d.req.Resources[i]
	t := config.ResourceType(asked.ResourceType)
	var entries []config.Entry
	err := &controller.Error{Kind: controller.InvalidRequest, Message: "The same resources are named too often."}
	if !d.refused[i] {
		entries, err = d.listEntries(t, asked.ResourceName)
	}
	rr := kmsg.NewDescribeConfigsResponseResource()
	rr.ResourceType, rr.ResourceName = asked.ResourceType, asked.ResourceName
	if rr.ErrorCode, rr.ErrorMessage = outcomeOf(err, nil); err == nil || err.Message == "" {
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
		rr.Configs = append(rr.Configs, describeConfig(&entries[j], t, d.req))
	}
	return rr
}

// listEntries lists the configs of a resource.
func (d *configDescriber) listEntries(t config.ResourceType, name string) ([]config.Entry, *controller.Error) {
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
		if err := b.checkBrokerID(t, name); err != nil {
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

// checkBrokerID refuses a resource name that is not this broker's id.
func (b *Broker) checkBrokerID(t config.ResourceType, name string) *controller.Error {
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

func describeConfig(e *config.Entry, t config.ResourceType, req *kmsg.DescribeConfigsRequest) kmsg.DescribeConfigsResponseResourceConfig {
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
