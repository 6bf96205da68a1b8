package admin

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/config"
)

// ConfigChange sets a config of a resource, or gives it its default again.
type ConfigChange struct {
	Name  string
	Value *string // nil: the default
}

// Resource is what has configs: a topic, a broker, all brokers (which have no name), or the loggers
// of a broker.
type Resource struct {
	Type kmsg.ConfigResourceType
	Name string
}

// AlterConfigs changes configs of a resource, all or none of them, or only asks whether the broker
// would do it. The note says which of them have no effect on the broker; it is "" if all have one,
// and from brokers that do not tell. A refusal is a RefusedError.
func AlterConfigs(ctx context.Context, cl *kgo.Client, r Resource, changes []ConfigChange, dryRun bool) (note string, err error) {
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	req.ValidateOnly = dryRun
	res := kmsg.NewIncrementalAlterConfigsRequestResource()
	res.ResourceType, res.ResourceName = r.Type, r.Name
	for _, ch := range changes {
		c := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		c.Name, c.Op, c.Value = ch.Name, kmsg.IncrementalAlterConfigOpSet, ch.Value
		if ch.Value == nil {
			c.Op = kmsg.IncrementalAlterConfigOpDelete
		}
		res.Configs = append(res.Configs, c)
	}
	req.Resources = append(req.Resources, res)
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return "", fmt.Errorf("changing configs: %w", err)
	}
	if len(resp.Resources) != 1 {
		return "", fmt.Errorf("changing configs: the broker gave %d answers instead of one", len(resp.Resources))
	}
	answer := &resp.Resources[0]
	if err := kerr.ErrorForCode(answer.ErrorCode); err != nil {
		return "", &RefusedError{Of: r.String(), Err: err, Message: textOrEmpty(answer.ErrorMessage)}
	}
	return readNote(&answer.UnknownTags), nil
}

func (r Resource) String() string {
	switch {
	case r.Type == kmsg.ConfigResourceTypeTopic:
		return "topic " + r.Name
	case r.Type == kmsg.ConfigResourceTypeBrokerLogger:
		return "the loggers of broker " + r.Name
	case r.Name == "":
		return "all brokers"
	default:
		return "broker " + r.Name
	}
}

// NewTopics are topics to create, which differ only in their names.
type NewTopics struct {
	Names       []string
	Partitions  int32 // -1: the broker's default
	Replication int16 // -1: the broker's default
	Configs     map[string]*string
}

// CreatedTopic is a topic that was created, or that was refused.
type CreatedTopic struct {
	ID          kadm.TopicID
	Partitions  int32
	Replication int16
	Note        string        // which of the configs have no effect, as from AlterConfigs
	Refused     *RefusedError // nil: it was created
}

// createTimeoutMillis is how long a broker may take to create topics.
const createTimeoutMillis = 15_000

// CreateTopics creates topics, each by itself: some may be refused. It gives the outcomes by name.
func CreateTopics(ctx context.Context, cl *kgo.Client, n NewTopics) (map[string]CreatedTopic, error) {
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = createTimeoutMillis
	for _, name := range n.Names {
		t := kmsg.NewCreateTopicsRequestTopic()
		t.Topic, t.NumPartitions, t.ReplicationFactor = name, n.Partitions, n.Replication
		for _, key := range sortedKeys(n.Configs) {
			c := kmsg.NewCreateTopicsRequestTopicConfig()
			c.Name, c.Value = key, n.Configs[key]
			t.Configs = append(t.Configs, c)
		}
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return nil, fmt.Errorf("creating topics: %w", err)
	}
	all := map[string]CreatedTopic{}
	for i := range resp.Topics {
		t := &resp.Topics[i]
		c := CreatedTopic{ID: t.TopicID, Partitions: t.NumPartitions, Replication: t.ReplicationFactor, Note: readNote(&t.UnknownTags)}
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
			c.Refused = &RefusedError{Of: "topic " + t.Topic, Err: err, Message: textOrEmpty(t.ErrorMessage)}
		}
		all[t.Topic] = c
	}
	for _, name := range n.Names {
		if _, ok := all[name]; !ok {
			return nil, fmt.Errorf("creating topics: the broker does not say whether it created topic %s", name)
		}
	}
	return all, nil
}

// readNote finds the broker's note about configs among the fields of an answer.
func readNote(tags *kmsg.Tags) (note string) {
	tags.Each(func(key uint32, value []byte) {
		if key == config.NoteTag {
			note = string(value)
		}
	})
	return note
}
