package broker

import (
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// betterThanKafka are our answers that differ from Kafka's on purpose: Kafka answers these
// requests with the code of an unexpected error.
func betterThanKafka() map[string]string {
	return map[string]string{
		"unknown operation: IncrementalAlterConfigs v1": `{"Resources":[{"ErrorCode":42,"ErrorMessage":"Unknown operations type 9",` +
			`"ResourceName":"configured","ResourceType":"TOPIC"}]}`,
		"unknown operation on a logger: IncrementalAlterConfigs v1": `{"Resources":[{"ErrorCode":42,` +
			`"ErrorMessage":"Unknown operation type 9 is not allowed for the BROKER_LOGGER resource","ResourceName":"1","ResourceType":"BROKER_LOGGER"}]}`,
		"too many: CreatePartitions v3": `{"Topics":[{"ErrorCode":44,"ErrorMessage":"Excessively large number of partitions per request.",` +
			`"Topic":"make.v4"}]}`,
		"by null name and no id: Metadata v12": `{"AuthorizedOperations":-2147483648,"ClusterID":"*","ControllerID":-1,"Topics":[` +
			`{"AuthorizedOperations":-2147483648,"ErrorCode":42,"Topic":"","TopicID":"none"}]}`,
	}
}

type idOf = func(topic string) [16]byte

// one is a step whose request does not depend on the steps before.
func one(name string, req kmsg.Request) step {
	return step{name, func(idOf) kmsg.Request { return req }}
}

// adminSteps are the series of requests. Later steps use what earlier ones have created.
func adminSteps() []step {
	var s []step
	s = append(s, createSteps()...)
	s = append(s, metadataSteps()...)
	s = append(s, partitionSteps()...)
	s = append(s, configSteps()...)
	s = append(s, describeSteps()...)
	return append(s, deleteSteps()...)
}

func createSteps() []step {
	assigned := func(name string, partitions int32, factor int16, replicas ...[]int32) kmsg.CreateTopicsRequestTopic {
		t := topicOf(name, partitions, factor)
		for i, r := range replicas {
			a := kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
			a.Partition, a.Replicas = int32(i), r
			t.ReplicaAssignment = append(t.ReplicaAssignment, a)
		}
		return t
	}
	twice := assigned("assigned-twice", -1, -1, []int32{1}, []int32{1})
	twice.ReplicaAssignment[1].Partition = 0
	gap := assigned("assigned-gap", -1, -1, []int32{1}, []int32{1})
	gap.ReplicaAssignment[1].Partition = 2
	null := topicOf("null", 1, 1, "segment.ms", "")
	null.Configs[0].Value = nil
	var s []step
	for v := int16(2); v <= 7; v++ {
		n := fmt.Sprint("v", v)
		s = append(s, one("create", createTopics(v, false, topicOf("make."+n, 2, 1))),
			one("create again", createTopics(v, false, topicOf("make."+n, 2, 1))),
			one("create twice", createTopics(v, false, topicOf("double"+n, 2, 1), topicOf("double"+n, 2, 1), topicOf("double"+n, 1, 1))))
	}
	late := createTopics(7, false, topicOf("late", 1, 1))
	late.TimeoutMillis = 0
	return append(s, one("no time", late),
		one("validate", createTopics(7, true, topicOf("validated", 3, 1))),
		one("validated is not there", createTopics(4, true, topicOf("validated", 3, 1))),
		one("defaults", createTopics(6, false, topicOf("defaults", -1, -1))),
		one("bad numbers", createTopics(7, false, topicOf("n0", 0, 1), topicOf("n-2", -2, 1), topicOf("r0", 1, 0), topicOf("r-2", 1, -2), topicOf("r3", 1, 3))),
		one("bad names", createTopics(7, false, topicOf("", 1, 1), topicOf(".", 1, 1), topicOf("..", 1, 1), topicOf("a b", 1, 1),
			topicOf("ä", 1, 1), topicOf(strings.Repeat("a", 250), 1, 1), topicOf("make_v2", 1, 1))),
		one("long name", createTopics(7, true, topicOf(strings.Repeat("a", 249), 1, 1))),
		one("metadata topic", createTopics(7, false, topicOf("__cluster_metadata", 1, 1))),
		one("assigned", createTopics(6, false, assigned("assigned", -1, -1, []int32{1}, []int32{1}))),
		one("bad assignments", createTopics(7, false, assigned("af", -1, 1, []int32{1}), assigned("ap", 1, -1, []int32{1}),
			assigned("a9", -1, -1, []int32{9}), assigned("a11", -1, -1, []int32{1, 1}), assigned("a0", -1, -1, []int32{}), twice, gap)),
		one("bad configs", createTopics(7, false, topicOf("c1", 1, 1, "nonsense", "1"), topicOf("c2", 1, 1, "segment.ms", "x"), topicOf("c3", 1, 1, "segment.ms", "0"),
			topicOf("c4", 1, 1, "min.compaction.lag.ms", "100", "max.compaction.lag.ms", "10"), topicOf("c5", 1, 1, "segment.ms", "0", "zzz", "1"))),
		one("null config", createTopics(7, false, null)),
		one("configs", createTopics(7, false, topicOf("configured", 1, 1, "retention.ms", "1000", "cleanup.policy", "compact,delete"))),
		one("too many partitions", createTopics(7, true, topicOf("huge", 10001, 1))),
		one("many partitions", createTopics(7, true, topicOf("huge1", 5001, 1), topicOf("huge2", 5001, 1))),
		one("no topics", createTopics(7, false)),
	)
}

func metadataSteps() []step {
	var s []step
	for v := range int16(14) {
		s = append(s, one("by name", metadataOf(v, false, "make.v2", "nowhere", "nowhere", "a b", "__consumer_offsets")))
	}
	s = append(s,
		step{"by id", func(id idOf) kmsg.Request {
			return metadataByID(12, id("configured"), [16]byte{1: 7}, id("configured"))
		}},
		step{"by id in 10", func(id idOf) kmsg.Request { return metadataByID(10, id("configured")) }},
		step{"by id in 11", func(id idOf) kmsg.Request { return metadataByID(11, id("configured")) }},
		step{"by id in 13", func(id idOf) kmsg.Request { return metadataByID(13, id("configured")) }},
		step{"by null name and no id", func(idOf) kmsg.Request { return metadataByID(12, [16]byte{}) }},
		step{"by id and name", func(id idOf) kmsg.Request {
			req := metadataByID(12, id("configured"))
			req.Topics = append(req.Topics, metadataOf(12, false, "make.v2").Topics...)
			return req
		}},
		one("no topics", metadataOf(12, true)),
	)
	all := kmsg.NewPtrMetadataRequest()
	all.Version = 12
	s = append(s, one("all topics", all))
	old := kmsg.NewPtrMetadataRequest()
	old.Topics, old.Version = []kmsg.MetadataRequestTopic{}, 0
	s = append(s, one("all topics in 0", old))
	for _, v := range []int16{8, 10, 11, 13} {
		req := metadataOf(v, false, "make.v2", "nowhere")
		req.IncludeClusterAuthorizedOperations, req.IncludeTopicAuthorizedOperations = true, true
		s = append(s, one("operations", req))
	}
	return s
}

func partitionSteps() []step {
	assigned := func(topic string, count int32, replicas ...[]int32) *kmsg.CreatePartitionsRequest {
		req := morePartitionsOf(3, topic, count)
		req.Topics[0].Assignment = []kmsg.CreatePartitionsRequestTopicAssignment{}
		for _, r := range replicas {
			a := kmsg.NewCreatePartitionsRequestTopicAssignment()
			a.Replicas = r
			req.Topics[0].Assignment = append(req.Topics[0].Assignment, a)
		}
		return req
	}
	var s []step
	for v := range int16(4) {
		s = append(s, one("more", morePartitionsOf(v, "make.v3", int32(3+v))), one("as many", morePartitionsOf(v, "make.v3", int32(3+v))),
			one("fewer", morePartitionsOf(v, "make.v3", 1)), one("unknown", morePartitionsOf(v, "nowhere", 1)))
	}
	double := morePartitionsOf(3, "make.v4", 5)
	double.Topics = append(double.Topics, double.Topics[0], double.Topics[0])
	validate := morePartitionsOf(3, "make.v4", 5)
	validate.ValidateOnly = true
	huge := morePartitionsOf(3, "make.v4", 10003)
	huge.ValidateOnly = true
	return append(s,
		one("twice", double), one("validate", validate), one("validate again", validate),
		one("none", morePartitionsOf(3, "make.v4", 0)), one("negative", morePartitionsOf(3, "make.v4", -1)),
		one("too many", huge),
		one("assigned", assigned("make.v4", 3, []int32{1})),
		one("assigned to nobody", assigned("make.v4", 4, []int32{9})),
		one("assigned to too many", assigned("make.v4", 4, []int32{1, 2})),
		one("assigned twice", assigned("make.v4", 4, []int32{1, 1})),
		one("assigned to none", assigned("make.v4", 4, []int32{})),
		one("too few assigned", assigned("make.v4", 6, []int32{1})),
		one("bad name", morePartitionsOf(3, "a b", 4)),
	)
}

func deleteSteps() []step {
	byID := func(ids ...[16]byte) *kmsg.DeleteTopicsRequest {
		req := deleteNames(6)
		for _, id := range ids {
			t := kmsg.NewDeleteTopicsRequestTopic()
			t.TopicID = id
			req.Topics = append(req.Topics, t)
		}
		return req
	}
	var s []step
	for v := int16(1); v <= 6; v++ {
		s = append(s, one("delete", deleteNames(v, fmt.Sprint("make.v", max(v, 2)), "nowhere", "a b")))
	}
	late := deleteNames(6, "defaults")
	late.TimeoutMillis = 0
	return append(s, one("no time", late),
		one("delete twice", deleteNames(5, "defaults", "defaults", "assigned")),
		step{"delete by id", func(id idOf) kmsg.Request { return byID(id("make.v7"), [16]byte{3: 4}) }},
		step{"delete by id twice", func(id idOf) kmsg.Request { return byID(id("configured"), id("configured")) }},
		one("delete nothing", byID([16]byte{})),
		step{"delete by id and name", func(id idOf) kmsg.Request {
			req := byID(id("configured"))
			req.Topics[0].Topic = new("configured")
			return req
		}},
		step{"delete by id, and by name", func(id idOf) kmsg.Request {
			req := deleteNames(6, "configured")
			req.Topics = append(req.Topics, byID(id("configured")).Topics...)
			return req
		}},
		one("delete the rest", deleteNames(6, "defaults", "configured")),
	)
}

func topicOf(name string, partitions int32, factor int16, configs ...string) kmsg.CreateTopicsRequestTopic {
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = name, partitions, factor
	for i := 0; i < len(configs); i += 2 {
		c := kmsg.NewCreateTopicsRequestTopicConfig()
		c.Name, c.Value = configs[i], &configs[i+1]
		t.Configs = append(t.Configs, c)
	}
	return t
}

func createTopics(version int16, validate bool, topics ...kmsg.CreateTopicsRequestTopic) *kmsg.CreateTopicsRequest {
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Version, req.TimeoutMillis, req.ValidateOnly, req.Topics = version, 10_000, validate, topics
	return req
}

func deleteNames(version int16, names ...string) *kmsg.DeleteTopicsRequest {
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.Version, req.TimeoutMillis = version, 10_000
	for _, n := range names {
		if version < 6 {
			req.TopicNames = append(req.TopicNames, n)
			continue
		}
		t := kmsg.NewDeleteTopicsRequestTopic()
		t.Topic = &n
		req.Topics = append(req.Topics, t)
	}
	return req
}

func metadataOf(version int16, create bool, names ...string) *kmsg.MetadataRequest {
	req := kmsg.NewPtrMetadataRequest()
	req.Version, req.AllowAutoTopicCreation = version, create
	req.Topics = []kmsg.MetadataRequestTopic{}
	for _, n := range names {
		if version < 4 && n != "make.v2" && n != "a b" {
			continue // it would be made
		}
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = &n
		req.Topics = append(req.Topics, t)
	}
	return req
}

func metadataByID(version int16, ids ...[16]byte) *kmsg.MetadataRequest {
	req := kmsg.NewPtrMetadataRequest()
	req.Version = version
	for _, id := range ids {
		t := kmsg.NewMetadataRequestTopic()
		t.TopicID = id
		if version < 12 {
			t.Topic = new("configured")
		}
		req.Topics = append(req.Topics, t)
	}
	return req
}

func morePartitionsOf(version int16, topic string, count int32) *kmsg.CreatePartitionsRequest {
	req := kmsg.NewPtrCreatePartitionsRequest()
	req.Version, req.TimeoutMillis = version, 10_000
	t := kmsg.NewCreatePartitionsRequestTopic()
	t.Topic, t.Count = topic, count
	req.Topics = append(req.Topics, t)
	return req
}

// alter changes configs of one resource, given as key, value, key, value. A key that begins
// with + or - adds to a list or removes from it, one with ! unsets, and one with ? has an
// unknown operation.
func alter(typ int8, name string, kv ...string) *kmsg.IncrementalAlterConfigsRequest {
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	req.Version = 1
	r := kmsg.NewIncrementalAlterConfigsRequestResource()
	r.ResourceType, r.ResourceName = kmsg.ConfigResourceType(typ), name
	for i := 0; i < len(kv); i += 2 {
		c := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		c.Name, c.Value = kv[i], &kv[i+1]
		if at := strings.IndexByte("!+-", kv[i][0]); at >= 0 {
			c.Name, c.Op = kv[i][1:], kmsg.IncrementalAlterConfigOp(at+1)
			if at == 0 {
				c.Value = nil
			}
		}
		r.Configs = append(r.Configs, c)
	}
	req.Resources = append(req.Resources, r)
	return req
}
