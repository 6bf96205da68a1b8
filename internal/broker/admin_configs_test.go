package broker

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// These configs have the same names, values and sources here as in Kafka.
var (
	someTopicConfigs  = []string{"retention.bytes", "segment.bytes", "cleanup.policy", "max.message.bytes", "preallocate", "nonsense"}
	someBrokerConfigs = []string{"log.retention.bytes", "num.io.threads", "ssl.key.password", "log.cleanup.policy", "message.max.bytes", "log.cleaner.min.cleanable.ratio", "nonsense"}
)

func configSteps() []step {
	var s []step
	set := func(name string, req *kmsg.IncrementalAlterConfigsRequest) {
		s = append(s, one(name, req))
	}
	valid := func(req *kmsg.IncrementalAlterConfigsRequest) *kmsg.IncrementalAlterConfigsRequest {
		req.ValidateOnly = true
		return req
	}
	set("set", alter(2, "configured", "segment.bytes", "2000000", "preallocate", "true"))
	set("unset", alter(2, "configured", "!preallocate", "", "!segment.ms", ""))
	set("append", alter(2, "configured", "+cleanup.policy", "compact"))
	set("subtract", alter(2, "configured", "-cleanup.policy", "compact"))
	set("append to a number", alter(2, "configured", "+segment.ms", "1"))
	set("append to nonsense", alter(2, "configured", "+nonsense", "1"))
	set("append a bad value", alter(2, "configured", "+cleanup.policy", "bad"))
	set("all or none", alter(2, "configured", "segment.ms", "5", "segment.bytes", "x"))
	set("key twice", alter(2, "configured", "segment.ms", "5", "segment.ms", "6"))
	set("validate", valid(alter(2, "configured", "max.message.bytes", "5")))
	set("nothing", alter(2, "configured"))
	null := alter(2, "configured", "segment.ms", "")
	null.Resources[0].Configs[0].Value = nil
	set("null", null)
	op := alter(2, "configured", "segment.ms", "5")
	op.Resources[0].Configs[0].Op = 9
	set("unknown operation", op)
	double := alter(2, "configured", "segment.ms", "5")
	double.Resources = append(double.Resources, double.Resources[0])
	set("resource twice", double)
	two := alter(2, "configured", "segment.ms", "x")
	two.Resources = append(two.Resources, alter(2, "make.v5", "segment.ms", "5").Resources...)
	set("one of two", two)
	for _, kv := range [][2]string{
		{"segment.bytes", "abc"},
		{"segment.bytes", "1"},
		{"segment.bytes", " 2097152 "},
		{"segment.bytes", "99999999999"},
		{"segment.bytes", ""},
		{"retention.ms", "-2"},
		{"retention.ms", "1.5"},
		{"retention.bytes", "-5"},
		{"cleanup.policy", "foo"},
		{"cleanup.policy", ""},
		{"cleanup.policy", "delete,delete"},
		{"cleanup.policy", "compact, delete"},
		{"cleanup.policy", "delete,"},
		{"compression.type", "foo"},
		{"compression.gzip.level", "0"},
		{"compression.lz4.level", "0"},
		{"compression.zstd.level", "23"},
		{"min.cleanable.dirty.ratio", "2"},
		{"min.cleanable.dirty.ratio", "-1"},
		{"min.cleanable.dirty.ratio", "x"},
		{"preallocate", "yes"},
		{"preallocate", "TRUE"},
		{"message.timestamp.type", "foo"},
		{"leader.replication.throttled.replicas", "x,y"},
		{"leader.replication.throttled.replicas", "*"},
		{"follower.replication.throttled.replicas", "0:1,1:2"},
		{"nonsense", "bar"},
		{"min.insync.replicas", "0"},
		{"max.compaction.lag.ms", "0"},
		{"local.retention.ms", "-3"},
		{"remote.storage.enable", "true"},
		{"message.format.version", "3.0"},
		{"flush.messages", "0"},
		{"flush.ms", "-1"},
		{"segment.index.bytes", "3"},
		{"segment.ms", "0"},
		{"unclean.leader.election.enable", "maybe"},
		{"segment.bytes", "0x10"},
		{"segment.bytes", "+2097152"},
	} {
		set(fmt.Sprintf("topic %s=%s", kv[0], kv[1]), valid(alter(2, "configured", kv[0], kv[1])))
	}
	for _, kv := range [][2]string{
		{"log.retention.hours", "1"},
		{"num.io.threads", "0"},
		{"num.io.threads", "9"},
		{"log.segment.bytes", "1"},
		{"min.insync.replicas", "0"},
		{"log.retention.ms", "abc"},
		{"advertised.listeners", "PLAINTEXT://x:1"},
		{"compression.type", "foo"},
		{"message.max.bytes", "-1"},
		{"ssl.keystore.type", "x"},
		{"follower.replication.throttled.rate", "10"},
		{"leader.replication.throttled.rate", "-1"},
		{"log.flush.interval.messages", "0"},
		{"+log.cleanup.policy", "compact"},
		{"+num.io.threads", "1"},
	} {
		set(fmt.Sprintf("broker %s=%s", kv[0], kv[1]), valid(alter(4, "1", kv[0], kv[1])))
		set(fmt.Sprintf("brokers %s=%s", kv[0], kv[1]), valid(alter(4, "", kv[0], kv[1])))
	}
	set("another broker", alter(4, "2", "num.io.threads", "9"))
	set("no broker", alter(4, "x", "num.io.threads", "9"))
	set("unknown topic", alter(2, "nowhere", "segment.ms", "9"))
	set("unknown topic, bad value", alter(2, "nowhere", "segment.ms", "x"))
	set("all topics", alter(2, "", "segment.ms", "9"))
	set("bad topic", alter(2, "a b", "segment.ms", "9"))
	for _, kv := range [][2]string{
		{"consumer.session.timeout.ms", "9"},
		{"consumer.session.timeout.ms", "x"},
		{"consumer.session.timeout.ms", "50000"},
		{"consumer.session.timeout.ms", "100000"},
		{"consumer.heartbeat.interval.ms", "1"},
		{"nonsense", "1"},
		{"share.auto.offset.reset", "foo"},
		{"share.auto.offset.reset", "by_duration:PT1H"},
		{"share.auto.offset.reset", "by_duration:xx"},
		{"share.auto.offset.reset", "by_duration:P"},
		{"share.auto.offset.reset", "by_duration:P1DT"},
		{"share.auto.offset.reset", "by_duration:PT1.5S"},
		{"share.isolation.level", "x"},
		{"streams.num.standby.replicas", "9"},
		{"share.record.lock.duration.ms", "1"},
		{"share.record.lock.duration.ms", "5000"},
		{"share.delivery.count.limit", "100"},
		{"share.partition.max.record.locks", "1"},
		{"share.heartbeat.interval.ms", "100000"},
		{"streams.initial.rebalance.delay.ms", "-1"},
		{"consumer.assignment.interval.ms", "20000"},
	} {
		set(fmt.Sprintf("group %s=%s", kv[0], kv[1]), valid(alter(32, "g", kv[0], kv[1])))
	}
	set("all groups", alter(32, "", "consumer.session.timeout.ms", "50000"))
	for _, kv := range [][2]string{
		{"interval.ms", "99"},
		{"interval.ms", "x"},
		{"interval.ms", "3600001"},
		{"interval.ms", "1000"},
		{"match", "foo"},
		{"match", "client_id=.*"},
		{"match", "client_id=("},
		{"match", "foo=a"},
		{"nonsense", "foo"},
		{"metrics", "a,b"},
		{"metrics", "*"},
	} {
		set(fmt.Sprintf("metrics %s=%s", kv[0], kv[1]), valid(alter(16, "m", kv[0], kv[1])))
	}
	set("all metrics", alter(16, "", "interval.ms", "1000"))
	set("unknown resource 3", alter(3, "1", "a", "b"))
	set("unknown resource 64", alter(64, "1", "a", "b"))
	set("set metrics", alter(16, "sub", "interval.ms", "1000"))
	set("set group", alter(32, "grp", "consumer.session.timeout.ms", "50000"))
	set("set brokers", alter(4, "", "log.retention.bytes", "123456", "log.cleanup.policy", "compact"))
	set("set broker", alter(4, "1", "log.retention.bytes", "234567"))
	return append(append(s, loggerSteps()...), replaceSteps()...)
}

// loggerSteps sets the level of the root logger; other loggers have other names in Kafka.
func loggerSteps() []step {
	null := alter(8, "1", "root", "")
	null.Resources[0].Configs[0].Value = nil
	op := alter(8, "1", "root", "INFO")
	op.Resources[0].Configs[0].Op = 9
	validate := alter(8, "1", "root", "FATAL")
	validate.ValidateOnly = true
	twice := alter(8, "1", "root", "FATAL")
	twice.Resources = append(twice.Resources, twice.Resources[0])
	both := alter(8, "1", "root", "ERROR")
	both.Resources = append(both.Resources, alter(2, "configured", "segment.ms", "x").Resources...)
	return []step{
		one("loggers of all brokers", alter(8, "", "root", "INFO")),
		one("loggers of another broker", alter(8, "7", "root", "INFO")),
		one("loggers of no broker", alter(8, "x", "root", "INFO")),
		one("set a logger", alter(8, "1", "root", "ERROR")),
		one("logger", described(4, true, 8, "1", "root")),
		one("unknown logger", alter(8, "1", "nonsense", "INFO")),
		one("unset an unknown logger", alter(8, "1", "!nonsense", "")),
		one("unknown level", alter(8, "1", "root", "LOUD")),
		one("level in small letters", alter(8, "1", "root", "info")),
		one("append to a logger", alter(8, "1", "+root", "INFO")),
		one("subtract from a logger", alter(8, "1", "-root", "INFO")),
		one("unknown operation on a logger", op),
		one("unset the root", alter(8, "1", "!root", "")),
		one("logger without a level", null),
		one("logger twice", alter(8, "1", "root", "INFO", "root", "WARN")),
		one("loggers twice", twice),
		one("all loggers or none", alter(8, "1", "root", "FATAL", "nonsense", "INFO")),
		one("validate a logger", validate),
		one("the same logger", described(4, true, 8, "1", "root", "nonsense")),
		one("a logger and a topic", both),
		one("set a logger again", alter(8, "1", "root", "WARN")),
		one("logger", described(1, true, 8, "1", "root")),
		one("logger", described(2, true, 8, "1", "root")),
		one("logger", described(3, false, 8, "1", "root")),
	}
}

func replaceSteps() []step {
	replace := func(version int16, typ int8, name string, kv ...string) *kmsg.AlterConfigsRequest {
		req := kmsg.NewPtrAlterConfigsRequest()
		req.Version = version
		r := kmsg.NewAlterConfigsRequestResource()
		r.ResourceType, r.ResourceName = kmsg.ConfigResourceType(typ), name
		for i := 0; i < len(kv); i += 2 {
			c := kmsg.NewAlterConfigsRequestResourceConfig()
			c.Name, c.Value = kv[i], &kv[i+1]
			r.Configs = append(r.Configs, c)
		}
		req.Resources = append(req.Resources, r)
		return req
	}
	null := replace(2, 2, "make.v6", "segment.ms", "")
	null.Resources[0].Configs[0].Value = nil
	validate := replace(2, 2, "make.v6")
	validate.ValidateOnly = true
	var s []step
	for v := range int16(3) {
		s = append(s, one("replace", replace(v, 2, "make.v6", "segment.ms", "5", "cleanup.policy", "compact")),
			one("replace with less", replace(v, 2, "make.v6", "segment.ms", "6")),
			one("replace badly", replace(v, 2, "make.v6", "segment.ms", "x")),
			one("replace nowhere", replace(v, 2, "nowhere", "segment.ms", "5")))
	}
	return append(s,
		one("replace with null", null), one("validate replacing", validate),
		one("replace a key twice", replace(2, 2, "make.v6", "segment.ms", "5", "segment.ms", "6")),
		one("replace of another broker", replace(2, 4, "7", "num.io.threads", "5")),
		one("replace what cannot be", replace(2, 4, "1", "node.id", "5")),
		one("replace loggers", replace(2, 8, "1", "root", "INFO")),
	)
}

// described asks for configs; no keys ask for all.
func described(version int16, synonyms bool, typ int8, name string, keys ...string) *kmsg.DescribeConfigsRequest {
	req := kmsg.NewPtrDescribeConfigsRequest()
	req.Version, req.IncludeSynonyms = version, synonyms
	r := kmsg.NewDescribeConfigsRequestResource()
	r.ResourceType, r.ResourceName, r.ConfigNames = kmsg.ConfigResourceType(typ), name, keys
	req.Resources = append(req.Resources, r)
	return req
}

func describeSteps() []step {
	var s []step
	for v := int16(1); v <= 4; v++ {
		s = append(s, one("topic", described(v, true, 2, "configured", someTopicConfigs...)),
			one("replaced topic", described(v, false, 2, "make.v6", someTopicConfigs...)),
			one("broker", described(v, true, 4, "1", someBrokerConfigs...)),
			one("brokers", described(v, true, 4, "", "log.retention.bytes", "log.cleanup.policy")),
			one("group", described(v, true, 32, "grp", "consumer.session.timeout.ms", "share.isolation.level")))
	}
	twice := described(4, false, 2, "configured", "segment.ms")
	twice.Resources = append(twice.Resources, twice.Resources[0])
	s = append(s,
		one("metrics", described(4, true, 16, "sub")), one("other metrics", described(4, true, 16, "other", "interval.ms")),
		one("no metrics", described(4, true, 16, "")), one("no group", described(4, true, 32, "")),
		one("unknown topic", described(4, true, 2, "nowhere")), one("bad topic", described(4, true, 2, "a b")), one("no topic", described(4, true, 2, "")),
		one("another broker", described(4, true, 4, "7")), one("no broker", described(4, true, 4, "x")),
		one("another broker's loggers", described(4, true, 8, "7")), one("no broker's loggers", described(4, true, 8, "")),
		one("resource twice", twice),
	)
	for v := range int16(2) {
		s = append(s, one("list", listed(v)))
	}
	s = append(s, one("list groups", listed(1, 32)), one("list topics", listed(1, 2)), one("list brokers", listed(1, 4)),
		one("list loggers", listed(1, 8)), one("list nonsense", listed(1, 3)), one("list metrics and groups", listed(1, 16, 32)))
	return append(s, clusterSteps()...)
}

func listed(version int16, types ...int8) *kmsg.ListConfigResourcesRequest {
	req := kmsg.NewPtrListConfigResourcesRequest()
	req.Version, req.ResourceTypes = version, types
	return req
}

func clusterSteps() []step {
	cluster := func(version int16, operations bool, endpoint int8) *kmsg.DescribeClusterRequest {
		req := kmsg.NewPtrDescribeClusterRequest()
		req.Version, req.IncludeClusterAuthorizedOperations, req.EndpointType = version, operations, endpoint
		return req
	}
	partitions := func(limit int32, topics ...string) *kmsg.DescribeTopicPartitionsRequest {
		req := kmsg.NewPtrDescribeTopicPartitionsRequest()
		req.ResponsePartitionLimit = limit
		for _, n := range topics {
			t := kmsg.NewDescribeTopicPartitionsRequestTopic()
			t.Topic = n
			req.Topics = append(req.Topics, t)
		}
		return req
	}
	from := func(req *kmsg.DescribeTopicPartitionsRequest, topic string, partition int32) *kmsg.DescribeTopicPartitionsRequest {
		c := kmsg.NewDescribeTopicPartitionsRequestCursor()
		c.Topic, c.Partition = topic, partition
		req.Cursor = &c
		return req
	}
	quorum := func(version int16, topic string, partition int32) *kmsg.DescribeQuorumRequest {
		req := kmsg.NewPtrDescribeQuorumRequest()
		req.Version = version
		t := kmsg.NewDescribeQuorumRequestTopic()
		p := kmsg.NewDescribeQuorumRequestTopicPartition()
		t.Topic, p.Partition = topic, partition
		t.Partitions = append(t.Partitions, p)
		req.Topics = append(req.Topics, t)
		return req
	}
	var s []step
	for v := range int16(3) {
		s = append(s, one("cluster", cluster(v, false, 1)), one("cluster's operations", cluster(v, true, 1)),
			one("quorum", quorum(v, "__cluster_metadata", 0)), one("unknown quorum", quorum(v, "other", 0)), one("unknown quorum partition", quorum(v, "__cluster_metadata", 1)))
	}
	s = append(s, one("controllers", cluster(1, false, 2)), one("nonsense of a cluster", cluster(2, false, 3)))
	s = append(s,
		one("partitions", partitions(2000, "make.v3", "nowhere", "a b", "make.v3", "__consumer_offsets")),
		one("all partitions", partitions(2000)),
		one("three partitions", partitions(3, "make.v3", "make.v4", "make.v5")),
		one("five partitions", partitions(5, "make.v3", "make.v4", "make.v5")),
		one("six partitions", partitions(6, "make.v3", "make.v4", "make.v5")),
		one("no partitions", partitions(0, "make.v3")),
		one("from the cursor", from(partitions(3, "make.v3", "make.v4", "make.v5"), "make.v3", 3)),
		one("from a later cursor", from(partitions(3, "make.v3", "make.v4", "make.v5"), "make.v4", 0)),
		one("from a cursor behind the end", from(partitions(3, "make.v3", "make.v4", "make.v5"), "make.v3", 30)),
		one("from an unknown cursor", from(partitions(3, "make.v3", "make.v4"), "make.v35", 0)),
		one("from a bad cursor", from(partitions(3, "make.v3", "make.v4"), "make.v4", -1)),
		one("all from an unknown cursor", from(partitions(3), "make.v35", 0)),
	)
	for v := int16(1); v <= 5; v++ {
		dirs := kmsg.NewPtrDescribeLogDirsRequest()
		dirs.Version = v
		t := kmsg.NewDescribeLogDirsRequestTopic()
		t.Topic, t.Partitions = "make.v5", []int32{0, 1, 7}
		dirs.Topics = append(dirs.Topics, t)
		s = append(s, one("directories", dirs))
	}
	return s
}
