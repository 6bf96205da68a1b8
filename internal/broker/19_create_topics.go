package broker

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/place"
	"github.com/leatstream/leat/internal/wire"
)

// CreateTopics, key 19, versions 2 to 7.
//
// 4: -1 for the default number of partitions and replicas (KIP-464). 5: the answer
// has the topic's size and configs (KIP-525). 7: topic ids (KIP-516).

// metadataTopic is the topic in which Kafka keeps its metadata. No client may create it.
const metadataTopic = "__cluster_metadata"

func (b *Broker) createTopics(d *decision, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.CreateTopicsRequest)
	times := make(map[string]int, len(req.Topics))
	for i := range req.Topics {
		times[req.Topics[i].Topic]++
	}
	var asked []controller.NewTopic
	quiet := d.by.quietly()
	mayAll := d.by.isEnoughOnCluster(auth.InsteadOf(19))
	var refused []kmsg.CreateTopicsResponseTopic
	b.inTurns(len(req.Topics), func(i int) {
		t := &req.Topics[i]
		switch {
		case times[t.Topic] > 1:
			refused = append(refused, refuseTopic(t.Topic, "Duplicate topic name."))
			times[t.Topic] = -len(req.Topics) // the next ones get no answer
		case times[t.Topic] < 0:
		case t.Topic == metadataTopic:
			refused = append(refused, refuseTopic(t.Topic, "Creation of internal topic "+metadataTopic+" is prohibited."))
		case t.Topic == meta.AuditTopic:
			refused = append(refused, refuseTopic(t.Topic, "The topic "+meta.AuditTopic+" is made by the nodes of the cluster, when they record who did what."))
		case !mayAll && !d.by.mayTopic(meta.Create, t.Topic):
			rt := refuseTopic(t.Topic, "Authorization failed.")
			rt.ErrorCode = kerr.TopicAuthorizationFailed.Code
			refused = append(refused, rt)
		default:
			asked = append(asked, toNewTopic(t))
		}
	})
	ctx, cancel := d.withTimeout(req.TimeoutMillis)
	defer cancel()
	made, err := d.CreateTopics(ctx, asked, req.ValidateOnly)
	if d.isElsewhere(err) {
		return err
	}
	view, withConfigs := b.cfg.Image().View(b.cfg.Static), r.Version >= 5
	shown := make([]bool, len(asked)) // found once, since a long answer is made twice
	for i := range asked {
		shown[i] = quiet.mayTopic(meta.DescribeConfigs, asked[i].Name)
	}
	topic := func(i int) kmsg.CreateTopicsResponseTopic {
		if i >= len(asked) {
			return refused[i-len(asked)]
		}
		rt := kmsg.NewCreateTopicsResponseTopic()
		rt.Topic, rt.NumPartitions, rt.ReplicationFactor = asked[i].Name, -1, -1
		var c controller.CreatedTopic
		if err == nil {
			c = made[i]
		}
		rt.ErrorCode, rt.ErrorMessage = outcomeOf(c.Err, err)
		rt.Configs = []kmsg.CreateTopicsResponseTopicConfig{} // empty, not null, as in Kafka
		if rt.ErrorCode == none {
			rt.TopicID = c.ID
			addNote(&rt.UnknownTags, config.Topic, configsGiven(asked[i].Configs))
			if !shown[i] {
				rt.ConfigErrorCode = kerr.TopicAuthorizationFailed.Code
				return rt
			}
			rt.NumPartitions, rt.ReplicationFactor = c.Partitions, c.ReplicationFactor
			if withConfigs {
				rt.Configs = createdConfigs(topicEntries(meta.TopicView(view, asked[i].Name), c.Configs, place.DefaultMinISR(int(c.ReplicationFactor))))
			}
		}
		return rt
	}
	n, memory := len(asked)+len(refused), int64(0)
	for i := range asked {
		memory += newTopicMemory + int64(len(asked[i].Name)) + configsMemory(asked[i].Configs)
	}
	for i := range refused {
		memory += newTopicMemory + int64(len(refused[i].Topic))
	}
	whole := kmsg.NewPtrCreateTopicsResponse()
	whole.ThrottleMillis = b.throttled(d, r)
	return b.replyList(r, whole, list{n: n, memory: memory, answerWith: func(i int) kmsg.Response {
		resp := kmsg.NewPtrCreateTopicsResponse()
		if i >= 0 {
			resp.Topics = []kmsg.CreateTopicsResponseTopic{topic(i)}
		}
		return resp
	}})
}

// These are about how much memory a topic of an answer takes until it is sent, and each config
// that the request has set, once as it was asked for and once as it was set.
const (
	newTopicMemory  = 768
	newConfigMemory = 160
)

// configsMemory is about how much memory the configs of a new topic take until it is described.
func configsMemory(configs map[string]*string) (n int64) {
	for name, value := range configs {
		n += newConfigMemory + int64(len(name))
		if value != nil {
			n += int64(len(*value))
		}
	}
	return n
}

func refuseTopic(name, message string) kmsg.CreateTopicsResponseTopic {
	rt := kmsg.NewCreateTopicsResponseTopic()
	rt.Topic, rt.ErrorCode, rt.ErrorMessage = name, kerr.InvalidRequest.Code, &message
	rt.NumPartitions, rt.ReplicationFactor = -1, -1
	rt.Configs = []kmsg.CreateTopicsResponseTopicConfig{}
	return rt
}

func toNewTopic(t *kmsg.CreateTopicsRequestTopic) controller.NewTopic {
	n := controller.NewTopic{
		Name: t.Topic, Partitions: t.NumPartitions, ReplicationFactor: t.ReplicationFactor,
		Configs: make(map[string]*string, len(t.Configs)),
	}
	for _, a := range t.ReplicaAssignment {
		n.Assignments = append(n.Assignments, controller.Assignment{Partition: a.Partition, Replicas: a.Replicas})
	}
	for _, c := range t.Configs {
		n.Configs[c.Name] = c.Value // the last of several values counts
	}
	return n
}

// createdConfigs are all configs of a new topic, as the answer shows them.
func createdConfigs(entries []config.Entry) []kmsg.CreateTopicsResponseTopicConfig {
	list := make([]kmsg.CreateTopicsResponseTopicConfig, len(entries))
	for i := range entries {
		e, c := &entries[i], &list[i]
		c.Default()
		c.Name, c.Source, c.IsSensitive = e.Def.Name, int8(e.Source), e.Def.Sensitive()
		c.Value = shownValue(e)
	}
	return list
}

// shownValue is a config's value as clients are shown it; nil: there is none, or it is a
// secret.
func shownValue(e *config.Entry) *string {
	if e.Null || e.Def.Sensitive() {
		return nil
	}
	return &e.Value
}
