package controller

import (
	"context"
	"fmt"
	"strconv"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/meta"
)

// Auto returns the request for a topic of which only the name is known: it has the
// defaults or, if it is one of Kafka's internal topics, the partitions and configs that
// belong to it.
func Auto(m *meta.Image, static *config.Static, name string) NewTopic {
	t := NewTopic{Name: name, Partitions: -1, ReplicationFactor: -1}
	set := func(key, value string) { t.Configs[key] = &value }
	switch name {
	case "__consumer_offsets", "__transaction_state", "__share_group_state":
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

// EnsureTopic makes the topic that Auto describes, unless there is one of that name.
func (c *Controller) EnsureTopic(ctx context.Context, name string) error {
	m := c.cfg.Image()
	if m.Topic(name) != nil {
		return nil
	}
	made, err := c.CreateTopics(ctx, []NewTopic{Auto(m, c.cfg.Static, name)}, false)
	if err != nil {
		return fmt.Errorf("making topic %s: %w", name, err)
	}
	if e := made[0].Err; e != nil && e.Kind != TopicExists {
		return fmt.Errorf("making topic %s: %w", name, e)
	}
	return nil
}
