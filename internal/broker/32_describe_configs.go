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

// maxDescribed bounds one answer, in bytes: a resource takes a hundred bytes to ask
// for and a hundred thousand to describe.
const maxDescribed = 64 << 20

func (b *Broker) describeConfigs(_ *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.DescribeConfigsRequest)
	resp := kmsg.NewPtrDescribeConfigsResponse()
	m := b.cfg.Image()
	size := 0
	for i := range req.Resources {
		asked := &req.Resources[i]
		var entries []config.Entry
		err := &controller.Error{Kind: controller.PolicyViolation, Message: "The answer would be too large: ask for fewer resources or configs at a time."}
		if size < maxDescribed {
			entries, err = b.entries(m, config.ResourceType(asked.ResourceType), asked.ResourceName)
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
			rr.Configs = append(rr.Configs, describedConfig(&entries[j], config.ResourceType(asked.ResourceType), req))
			size += describedSize(&entries[j], req)
		}
		resp.Resources = append(resp.Resources, rr)
	}
	r.Reply(resp)
	return nil
}

// entries are the configs of a resource.
func (b *Broker) entries(m *meta.Image, t config.ResourceType, name string) ([]config.Entry, *controller.Error) {
	refuse := func(format string, args ...any) ([]config.Entry, *controller.Error) {
		return nil, &controller.Error{Kind: controller.InvalidRequest, Message: fmt.Sprintf(format, args...)}
	}
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
			return b.describeLoggers(), nil
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

// describedSize is about how many bytes a config takes in an answer.
func describedSize(e *config.Entry, req *kmsg.DescribeConfigsRequest) int {
	n := len(e.Def.Name) + len(e.Value) + 20
	if req.IncludeDocumentation {
		n += len(e.Def.Doc)
	}
	if req.IncludeSynonyms {
		for i := range e.Synonyms {
			n += len(e.Synonyms[i].Name) + len(e.Synonyms[i].Value) + 8
		}
	}
	return n
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
