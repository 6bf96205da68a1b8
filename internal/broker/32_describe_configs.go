package broker

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/place"
	"github.com/leatstream/leat/internal/wire"
)

// DescribeConfigs, key 32, versions 1 to 4.
//
// 1: sources and synonyms (KIP-226). 3: types and documentation (KIP-569).
//
// A topic, a group and this broker have all configs of their kind, with their defaults. That of
// min.insync.replicas depends on the number of a topic's replicas; Kafka's is 1.
// The broker resource "" has those that were set for all brokers. Secrets have no value.

func (b *Broker) describeConfigs(s *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.DescribeConfigsRequest)
	m := b.cfg.Image()
	d := configDescriber{view: m.View(b.cfg.Static), req: req, resources: make([]describedResource, len(req.Resources)), loggers: b.describeLoggers(), tag: strconv.FormatUint(uint64(m.Tag), 10)}
	by := s.access()
	memory, repeated, seen := int64(0), 0, make(map[config.Resource]struct{}, len(req.Resources))
	for i := range req.Resources {
		asked := &req.Resources[i]
		memory += resourceMemory + int64(len(asked.ResourceName))
		for _, name := range asked.ConfigNames {
			memory += configNameMemory + int64(len(name))
		}
		at := config.Resource{Type: config.ResourceType(asked.ResourceType), Name: asked.ResourceName}
		_, again := seen[at]
		if again {
			repeated++
		}
		found := &d.resources[i]
		if again && repeated > maxRepeated {
			found.refused = &controller.Error{Kind: controller.InvalidRequest, Message: "The same resources are named too often."}
		} else if denied := by.checkConfigs(meta.DescribeConfigs, at); denied != nil {
			*found = describedResource{refused: denied}
		} else {
			*found = b.findResource(m, at)
		}
		if memory += int64(meta.ConfigBytes(at, found.set) + len(found.path) + len(found.forks)); found.refused != nil {
			memory += int64(len(found.refused.Message))
		}
		seen[at] = struct{}{}
	}
	return b.replyList(r, kmsg.NewPtrDescribeConfigsResponse(), list{n: len(req.Resources), memory: memory, answerWith: d.answerWith})
}

// checkConfigs refuses configs that the client may not use. Those of brokers, loggers and metrics subscriptions are the
// cluster's.
func (a *access) checkConfigs(op meta.Operation, at config.Resource) *controller.Error {
	kind, e := controller.ClusterDenied, kerr.ClusterAuthorizationFailed
	var allowed bool
	switch at.Type {
	case config.Topic:
		kind, e, allowed = controller.TopicDenied, kerr.TopicAuthorizationFailed, a.mayTopic(op, at.Name)
	case config.Group:
		kind, e, allowed = controller.GroupDenied, kerr.GroupAuthorizationFailed, a.mayGroup(op, at.Name)
	default:
		allowed = a.mayCluster(op)
	}
	if allowed {
		return nil
	}
	return &controller.Error{Kind: kind, Message: deniedText(e)}
}

// maxRepeated is how many resources one request may name again. The description of a broker
// takes some hundred kilobytes, and a client does not need it thousands of times.
const maxRepeated = 100

// These are about how much memory a request takes for each resource that it names, and for
// each config, until the answer is sent.
const (
	resourceMemory   = 320
	configNameMemory = 16
)

// configDescriber describes the resources of a request. It describes a resource the same way
// each time, as list.answerWith must.
//
// An answer that is not read keeps the describer. So it has no image, which would keep all
// topics and configs of that time, but only the configs of the answer, which its memory counts.
type configDescriber struct {
	view      config.View
	req       *kmsg.DescribeConfigsRequest
	resources []describedResource // one for each of the request
	loggers   []config.Entry
	tag       string // of the cluster
}

// describedResource is a resource that a request names.
type describedResource struct {
	refused *controller.Error // nil: it has configs
	set     map[string]string // that are set on it
	minISR  int               // of a topic, where it is not set
	path    string            // of a topic that mirrors: its meta.MirrorPathConfig
	forks   string            // of one that was promoted: its meta.MirrorForksConfig
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
	t, err := config.ResourceType(asked.ResourceType), d.resources[i].refused
	var entries []config.Entry
	if err == nil {
		entries = d.listEntries(t, asked.ResourceName, &d.resources[i])
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
	if _, ok := wanted[meta.MirrorPathConfig]; d.resources[i].path != "" && (ok || len(wanted) == 0) {
		rr.Configs = append(rr.Configs, describeFact(meta.MirrorPathConfig, &d.resources[i].path))
	}
	if _, ok := wanted[meta.MirrorForksConfig]; ok && d.resources[i].forks != "" {
		rr.Configs = append(rr.Configs, describeFact(meta.MirrorForksConfig, &d.resources[i].forks))
	}
	if _, ok := wanted[meta.ClusterTagConfig]; ok && t == config.Topic && err == nil {
		rr.Configs = append(rr.Configs, describeFact(meta.ClusterTagConfig, &d.tag))
	}
	return rr
}

// describeFact describes what is shown as a config, and cannot be set. It counts as a default, so that nobody who copies what is set copies it.
func describeFact(name string, value *string) kmsg.DescribeConfigsResponseResourceConfig {
	c := kmsg.NewDescribeConfigsResponseResourceConfig()
	c.Name, c.Value, c.ReadOnly, c.IsDefault, c.Source, c.ConfigType = name, value, true, true, kmsg.ConfigSourceDefaultConfig, kmsg.ConfigTypeString
	return c
}

// listEntries lists the configs of a resource.
func (d *configDescriber) listEntries(t config.ResourceType, name string, r *describedResource) []config.Entry {
	switch {
	case t == config.Topic:
		return topicEntries(meta.TopicView(d.view, name), r.set, r.minISR)
	case t == config.BrokerLogger:
		return d.loggers
	case t == config.Broker && name == "":
		return d.view.DefaultBrokerEntries()
	case t == config.Broker:
		return d.view.BrokerEntries()
	case t == config.Group:
		return d.view.GroupEntries(r.set)
	}
	return d.view.ClientMetricsEntries(r.set)
}

// topicEntries are all configs of a topic for which these are set, with its own default of
// min.insync.replicas, which depends on the number of its replicas.
func topicEntries(view config.View, set map[string]string, minISR int) []config.Entry {
	entries := view.TopicEntries(set)
	for i := range entries {
		e := &entries[i]
		if e.Def.Name != "min.insync.replicas" || e.Source != config.DefaultSource {
			continue
		}
		e.Value = strconv.Itoa(minISR)
		for j := range e.Synonyms {
			e.Synonyms[j].Value = e.Value
		}
	}
	return entries
}

// findResource finds the configs that are set on a resource, or the reason why it has none.
func (b *Broker) findResource(m *meta.Image, at config.Resource) describedResource {
	refuse := func(format string, args ...any) describedResource {
		return describedResource{refused: &controller.Error{Kind: controller.InvalidRequest, Message: fmt.Sprintf(format, args...)}}
	}
	switch at.Type {
	case config.Topic:
		if err := controller.CheckTopicName(at.Name); err != nil {
			return describedResource{refused: err}
		}
		topic := m.Topic(at.Name)
		if topic == nil {
			return describedResource{refused: &controller.Error{Kind: controller.UnknownTopic}}
		}
		r := describedResource{set: m.Overrides(at), minISR: place.TopicDefaultMinISR(topic)}
		if topic.IsMirror() {
			r.path = strings.Join(topic.Mirror.Path, ",")
		}
		r.forks = meta.FormatForks(m, topic)
		return r
	case config.Broker, config.BrokerLogger:
		if at.Name == "" && at.Type == config.Broker {
			return describedResource{}
		}
		return describedResource{refused: b.checkBrokerID(at.Type, at.Name)}
	case config.Group:
		if at.Name == "" {
			return refuse("Group name must not be empty")
		}
	case config.ClientMetrics:
		if at.Name == "" {
			return refuse("Client metrics subscription name must not be empty")
		}
	default:
		return refuse("Unsupported resource type: %v", at.Type)
	}
	return describedResource{set: m.Overrides(at)}
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
