package source

import (
	"context"
	"fmt"
	"strconv"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Configs are the configs of a topic.
type Configs struct {
	Topic  string
	Values map[string]Value
	Err    error // why they are not known: a kerr.Error
}

// Value is the value of a config.
type Value struct {
	Text  string
	IsSet bool // for the topic itself, and not for a broker or by default
}

// ClusterTag finds the tag of a source that is a Leat: see meta.ClusterTagConfig. It is 0 for others, and if the source has no topic of that name.
func (s *Client) ClusterTag(ctx context.Context, topic string) (uint32, error) {
	if topic == "" {
		return 0, nil
	}
	found, err := s.describeConfigs(ctx, []string{topic}, []string{clusterTag})
	if err != nil || found[0].Values[clusterTag].Text == "" {
		return 0, err
	}
	n, err := strconv.ParseUint(found[0].Values[clusterTag].Text, 10, 32)
	return uint32(n), err
}

// clusterTag is meta.ClusterTagConfig, which this package does not know.
const clusterTag = "leat.cluster.tag"

// DescribeConfigs describes the configs of topics, by their names. Those without a value are left out.
func (s *Client) DescribeConfigs(ctx context.Context, topics []string) ([]Configs, error) {
	return s.describeConfigs(ctx, topics, nil)
}

// DescribeConfig describes one config of topics, by their names.
func (s *Client) DescribeConfig(ctx context.Context, topics []string, config string) ([]Configs, error) {
	return s.describeConfigs(ctx, topics, []string{config})
}

// describeConfigs describes some configs of topics; nil: all of them.
func (s *Client) describeConfigs(ctx context.Context, topics, configs []string) ([]Configs, error) {
	q := kmsg.NewPtrDescribeConfigsRequest()
	for _, name := range topics {
		r := kmsg.NewDescribeConfigsRequestResource()
		r.ResourceType, r.ResourceName, r.ConfigNames = kmsg.ConfigResourceTypeTopic, name, configs
		q.Resources = append(q.Resources, r)
	}
	resp, err := ask[*kmsg.DescribeConfigsResponse](ctx, s, anyBroker, q)
	if err != nil {
		return nil, fmt.Errorf("asking the source for configs: %w", err)
	}
	found := map[string]*kmsg.DescribeConfigsResponseResource{}
	for i := range resp.Resources {
		found[resp.Resources[i].ResourceName] = &resp.Resources[i]
	}
	all := make([]Configs, len(topics))
	for i, name := range topics {
		c := &all[i]
		c.Topic, c.Err = name, errUnanswered
		if r := found[name]; r != nil {
			c.take(r)
		}
	}
	return all, nil
}

func (c *Configs) take(r *kmsg.DescribeConfigsResponseResource) {
	if c.Err = errorOf(r.ErrorCode); c.Err != nil {
		return
	}
	c.Values = make(map[string]Value, len(r.Configs))
	for i := range r.Configs {
		if v := &r.Configs[i]; v.Value != nil {
			c.Values[v.Name] = Value{*v.Value, v.Source == kmsg.ConfigSourceDynamicTopicConfig}
		}
	}
}
