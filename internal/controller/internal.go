package controller

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/meta"
)

// Auto returns the request for a topic of which only the name is known: it has the
// defaults or, if it is an internal topic, the partitions and configs that
// belong to it.
func Auto(m *meta.Image, static *config.Static, name string) NewTopic {
	t := NewTopic{Name: name, Partitions: -1, ReplicationFactor: -1}
	set := func(key, value string) { t.Configs[key] = &value }
	switch name {
	case "__consumer_offsets", "__transaction_state", "__share_group_state":
	case meta.AuditTopic:
		return auditTopic(m, static)
	default:
		return t
	}
	s := meta.ServerSettings(m, static)
	state := s.Offsets
	switch name {
	case "__transaction_state":
		state = s.Transactions
	case "__share_group_state":
		state = s.ShareState
	}
	t.Partitions, t.ReplicationFactor, t.Configs = state.Partitions, state.ReplicationFactor, map[string]*string{}
	set("segment.bytes", strconv.FormatInt(max(state.SegmentBytes, config.MinSegmentBytes), 10))
	if name == "__share_group_state" {
		set("cleanup.policy", "delete")
		set("retention.ms", "-1")
	} else {
		set("cleanup.policy", "compact")
	}
	if name == "__transaction_state" {
		set("compression.type", "uncompressed")
		set("unclean.leader.election.enable", "false")
	} else {
		set("compression.type", "producer")
	}
	t.Follows = !state.FactorSet
	if state.MinISR > 0 && (state.MinISRSet || !t.Follows || m.Level() < meta.LevelCluster) {
		set("min.insync.replicas", strconv.Itoa(state.MinISR))
	}
	return t
}

// auditRetention is how long events are kept, in ms: 90 days.
const auditRetention = 90 * 24 * 60 * 60 * 1000

// auditTopic is the request for the topic of the audit log. It has one partition, so that its events have an order, and as many replicas
// as the groups' offsets.
func auditTopic(m *meta.Image, static *config.Static) NewTopic {
	s := meta.ServerSettings(m, static)
	policy, retention, compression := "delete", strconv.Itoa(auditRetention), "producer"
	return NewTopic{
		Name: meta.AuditTopic, Partitions: 1, ReplicationFactor: s.Offsets.ReplicationFactor, Follows: !s.Offsets.FactorSet,
		Configs: map[string]*string{"cleanup.policy": &policy, "retention.ms": &retention, "compression.type": &compression},
	}
}

// EnsureTopics makes the topics that Auto describes, of those names that no topic has. refused says by
// name why some were not made.
func (c *Controller) EnsureTopics(ctx context.Context, names []string) (refused map[string]*Error, err error) {
	m := c.cfg.Image()
	var missing []NewTopic
	seen := map[string]bool{}
	for _, name := range names {
		if !seen[name] && m.Topic(name) == nil {
			missing = append(missing, Auto(m, c.cfg.Static, name))
		}
		seen[name] = true
	}
	if len(missing) == 0 {
		return nil, nil
	}
	refused = map[string]*Error{}
	// As many at a time as one request of a client could make: others have their turn between them.
	most := MaxNewPartitions / max(1, int(meta.ServerSettings(m, c.cfg.Static).NumPartitions))
	for part := range slices.Chunk(missing, max(1, most)) {
		made, err := c.CreateTopics(ctx, part, false)
		if err != nil {
			return nil, err
		}
		for i := range made {
			if e := made[i].Err; e != nil && e.Kind != TopicExists {
				refused[made[i].Name] = e
			}
		}
	}
	return refused, nil
}

// EnsureTopic is EnsureTopics for one topic. That it was not made is an error.
func (c *Controller) EnsureTopic(ctx context.Context, name string) error {
	refused, err := c.EnsureTopics(ctx, []string{name})
	if err == nil && refused[name] != nil {
		err = refused[name]
	}
	if err != nil {
		return fmt.Errorf("making topic %s: %w", name, err)
	}
	return nil
}
