package broker

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/meta"
)

// TestMinInsyncReplicasFollow proves that topics show the min.insync.replicas that apply to them: by
// default those that follow from the number of replicas, without those that are being added, and
// else what is set on the topic or for all brokers; and that the answer to a new topic shows the
// same.
func TestMinInsyncReplicasFollow(t *testing.T) {
	g := newAdminRig(t, nil)
	for id := int32(2); id <= 5; id++ {
		g.apply(meta.BrokerRegistered{Broker: meta.Broker{ID: id, State: meta.BrokerActive, Epoch: int64(id)}})
	}
	c := dial(t, g.addr)
	show := func(topic string) (value string, source kmsg.ConfigSource) {
		t.Helper()
		resp := ask[*kmsg.DescribeConfigsResponse](c, described(4, true, int8(config.Topic), topic, "min.insync.replicas"))
		if len(resp.Resources) != 1 || len(resp.Resources[0].Configs) != 1 {
			t.Fatalf("%+v", resp)
		}
		is := &resp.Resources[0].Configs[0]
		if len(is.ConfigSynonyms) == 0 || *is.ConfigSynonyms[0].Value != *is.Value || is.ConfigSynonyms[0].Source != is.Source {
			t.Errorf("%s: %+v", topic, is)
		}
		return *is.Value, is.Source
	}
	for factor, want := range map[int]string{1: "1", 2: "1", 3: "2", 4: "2", 5: "3"} {
		name := fmt.Sprint("t", factor)
		made := ask[*kmsg.CreateTopicsResponse](c, createTopics(7, false, topicOf(name, 2, int16(factor))))
		if made.Topics[0].ErrorCode != 0 {
			t.Fatalf("%+v", made)
		}
		for _, is := range made.Topics[0].Configs {
			if is.Name == "min.insync.replicas" && (*is.Value != want || is.Source != int8(kmsg.ConfigSourceDefaultConfig)) {
				t.Errorf("%d replicas: the new topic has %s from source %d", factor, *is.Value, is.Source)
			}
		}
		if value, source := show(name); value != want || source != kmsg.ConfigSourceDefaultConfig {
			t.Errorf("%d replicas: %s from source %v", factor, value, source)
		}
	}
	id := g.image.Load().Topic("t5").ID
	g.apply(meta.PartitionsSet{Topic: id, First: 1, Partitions: []meta.Partition{
		{Replicas: []int32{1, 2, 3}, Adding: []int32{3}, ISR: []int32{1, 2}, Leader: 1, PartitionEpoch: 9, LeaderEpoch: 9},
	}})
	if value, _ := show("t5"); value != "1" {
		t.Errorf("one partition with two replicas and one that is being added: %s", value)
	}
	g.apply(meta.ConfigSet{Resource: config.Resource{Type: config.Topic, Name: "t3"}, Key: "min.insync.replicas", Value: "1"})
	if value, source := show("t3"); value != "1" || source != kmsg.ConfigSourceDynamicTopicConfig {
		t.Errorf("set on the topic: %s from source %v", value, source)
	}
	g.apply(meta.ConfigSet{Resource: config.Resource{Type: config.Broker}, Key: "min.insync.replicas", Value: "4"})
	if value, source := show("t2"); value != "4" || source != kmsg.ConfigSourceDynamicDefaultBrokerConfig {
		t.Errorf("set for all brokers: %s from source %v", value, source)
	}
}
