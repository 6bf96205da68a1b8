package config

import "math"

// These numbers are in several defaults.
const (
	noLimit  = "9223372036854775807"
	aDay     = "86400000"
	aWeek    = "604800000"
	aMebi    = 1 << 20
	maxInt32 = math.MaxInt32

	hourMillis   = 3_600_000
	minuteMillis = 60_000
	secondMillis = 1_000
)

var codecs = []string{"uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"}

// from lists the broker configs from which a topic or a group takes a value that it does not
// set.
func from(names ...string) []synonym {
	list := make([]synonym, len(names))
	for i, n := range names {
		list[i] = synonym{name: n}
	}
	return list
}

// These are times that can be set for brokers in several units. The smaller unit comes first.
func retentionTime() []synonym {
	return []synonym{{"log.retention.ms", 1}, {"log.retention.minutes", minuteMillis}, {"log.retention.hours", hourMillis}}
}

func rollTime() []synonym {
	return []synonym{{"log.roll.ms", 1}, {"log.roll.hours", hourMillis}}
}

func rollJitter() []synonym {
	return []synonym{{"log.roll.jitter.ms", 1}, {"log.roll.jitter.hours", hourMillis}}
}

func flushTime() []synonym {
	return []synonym{{"log.flush.interval.ms", 1}, {"log.flush.scheduler.interval.ms", 1}}
}

// topicConfigs are the configs of topics.
var topicConfigs = []Def{
	{
		Name: "cleanup.policy", Type: List, Default: "delete", check: listOf("compact", "delete"), synonyms: from("log.cleanup.policy"),
		Doc: "Which old records are removed: delete drops them by retention time and size, compact keeps the last record of each key, both can be combined, and an empty list keeps everything. A topic with compact refuses records without a key, and loses those that it has.",
	},
	{
		Name: "compression.type", Type: String, Default: "producer", check: oneOf(codecs...), synonyms: from("compression.type"),
		Doc: "The codec in which batches are stored: producer keeps the producer's codec; with any other value batches in another codec are recompressed.",
	},
	{
		Name: "compression.gzip.level", Type: Int, Default: "-1", check: gzipLevel, synonyms: from("compression.gzip.level"),
		Doc: "The effort of gzip if compression.type is gzip: 1 to 9, or -1 for the codec's own choice.",
	},
	{
		Name: "compression.lz4.level", Type: Int, Default: "9", check: between(1, 17), synonyms: from("compression.lz4.level"),
		Doc: "The effort of lz4 if compression.type is lz4: 1 to 17.",
	},
	{
		Name: "compression.zstd.level", Type: Int, Default: "3", check: between(-131072, 22), synonyms: from("compression.zstd.level"),
		Doc: "The effort of zstd if compression.type is zstd: up to 22; negative values are the fastest.",
	},
	{
		Name: "delete.retention.ms", Type: Long, Default: aDay, check: atLeast(0), synonyms: from("log.cleaner.delete.retention.ms"),
		Doc: "How long the marker of a deleted key stays readable in a compacted topic.",
	},
	{
		Name: "errors.deadletterqueue.group.enable", Type: Bool, Default: "false",
		Doc: "Whether share groups may use this topic as their dead letter queue.", Needs: "share groups",
	},
	{
		Name: "file.delete.delay.ms", Type: Long, Default: "60000", check: atLeast(0), synonyms: from("log.segment.delete.delay.ms"),
		Doc: "How long the file of a dropped segment stays on disk before it is removed; a full disk ends that time.",
	},
	{
		Name: "flush.messages", Type: Long, Default: "1", check: atLeast(1), synonyms: from("log.flush.interval.messages"),
		Doc: "How many records may be acknowledged before they are on disk: with 1 every acknowledged record is on disk; with more, records are in the page cache until the system writes them, as in Kafka.",
	},
	{
		Name: "flush.ms", Type: Long, Default: noLimit, check: atLeast(0), synonyms: flushTime(),
		Doc: "How long records may wait in the page cache before they are written to disk; setting it makes flush.messages unlimited unless that is set too.",
	},
	{
		Name: "follower.replication.throttled.replicas", Type: List, check: replicaPairs,
		Doc: "Which replicas are throttled as followers, as partition:broker pairs or * for all.",
	},
	{
		Name: "index.interval.bytes", Type: Int, Default: "4096", check: atLeast(0), synonyms: from("log.index.interval.bytes"),
		Doc: "How many bytes of records are between two entries of the offset index.",
	},
	{
		Name: "leader.replication.throttled.replicas", Type: List, check: replicaPairs,
		Doc: "Which replicas are throttled as leaders, as partition:broker pairs or * for all.",
	},
	{
		Name: "local.retention.bytes", Type: Long, Default: "-2", check: atLeast(-2), synonyms: from("log.local.retention.bytes"),
		Doc: "How many bytes of a tiered partition stay on local disk; -2 means as many as retention.bytes says.", Needs: "tiered storage",
	},
	{
		Name: "local.retention.ms", Type: Long, Default: "-2", check: atLeast(-2), synonyms: from("log.local.retention.ms"),
		Doc: "How long records of a tiered partition stay on local disk; -2 means as long as retention.ms says.", Needs: "tiered storage",
	},
	{
		Name: "max.compaction.lag.ms", Type: Long, Default: noLimit, check: atLeast(1), synonyms: from("log.cleaner.max.compaction.lag.ms"),
		Doc: "The longest time that a record stays uncompacted.",
	},
	{
		Name: "max.decompressed.message.bytes", Type: Int, Default: "2147483639", check: atLeast(1), synonyms: from("max.decompressed.message.bytes"),
		Doc: "The largest size that a batch may have when it is decompressed.",
	},
	{
		Name: "max.message.bytes", Type: Int, Default: "1048588", check: atLeast(0), synonyms: from("message.max.bytes"),
		Doc: "The largest record batch that is accepted, in the size in which it is sent.",
	},
	{
		Name: "message.timestamp.after.max.ms", Type: Long, Default: "3600000", check: atLeast(0), synonyms: from("log.message.timestamp.after.max.ms"),
		Doc: "How far a record's timestamp may be ahead of the broker's clock if message.timestamp.type is CreateTime.",
	},
	{
		Name: "message.timestamp.before.max.ms", Type: Long, Default: noLimit, check: atLeast(0), synonyms: from("log.message.timestamp.before.max.ms"),
		Doc: "How far a record's timestamp may be behind the broker's clock if message.timestamp.type is CreateTime.",
	},
	{
		Name: "message.timestamp.type", Type: String, Default: "CreateTime", check: oneOf("CreateTime", "LogAppendTime"), synonyms: from("log.message.timestamp.type"),
		Doc: "Which clock records get their timestamps from: with CreateTime the producer's, with LogAppendTime the broker's when they are appended.",
	},
	{
		Name: "min.cleanable.dirty.ratio", Type: Double, Default: "0.5", check: ratio, synonyms: from("log.cleaner.min.cleanable.ratio"),
		Doc: "The fraction of a log that must be uncompacted before it is compacted again.",
	},
	{
		Name: "min.compaction.lag.ms", Type: Long, Default: "0", check: atLeast(0), synonyms: from("log.cleaner.min.compaction.lag.ms"),
		Doc: "The shortest time that a record stays uncompacted.",
	},
	{
		Name: "min.insync.replicas", Type: Int, Default: "1", check: atLeast(1), synonyms: from("min.insync.replicas"),
		Doc: "How many replicas must be in sync for a write with acks=all to be accepted. A partition that has fewer replicas needs all of them, so on one node every value means 1. Unless it is set it follows the number of replicas: 1 of one or two, 2 of three or four, 3 of five, and so on. Replicas that are being added count once they are in sync.",
	},
	{
		Name: "preallocate", Type: Bool, Default: "false", synonyms: from("log.preallocate"),
		Doc: "Whether a new segment's space is reserved on disk at once.",
	},
	{
		Name: "remote.copy.lag.bytes", Type: Long, Default: "-1", check: atLeast(-1), synonyms: from("log.remote.copy.lag.bytes"),
		Doc: "How many bytes may wait for the upload to object storage.", Needs: "tiered storage",
	},
	{
		Name: "remote.copy.lag.ms", Type: Long, Default: "0", check: atLeast(-1), synonyms: from("log.remote.copy.lag.ms"),
		Doc: "How long records may wait for the upload to object storage.", Needs: "tiered storage",
	},
	{
		Name: "remote.log.copy.disable", Type: Bool, Default: "false",
		Doc: "Whether uploads to object storage are stopped, while uploaded segments stay readable.", Needs: "tiered storage",
	},
	{
		Name: "remote.log.delete.on.disable", Type: Bool, Default: "false",
		Doc: "Whether switching tiered storage off deletes the uploaded segments.", Needs: "tiered storage",
	},
	{
		Name: "remote.storage.enable", Type: Bool, Default: "false",
		Doc: "Whether segments go to object storage. Tiered storage is not served yet, so true is refused.",
	},
	{
		Name: "retention.bytes", Type: Long, Default: "-1", synonyms: from("log.retention.bytes"),
		Doc: "How many bytes a partition keeps before its oldest batches are dropped; -1 means no limit. It is applied when a new segment begins and an old one can be dropped whole, and every log.retention.check.interval.ms; until then a log may be larger.",
	},
	{
		Name: "retention.ms", Type: Long, Default: aWeek, check: atLeast(-1), synonyms: retentionTime(),
		Doc: "How long each record is kept, also in the newest segment; -1 means for ever.",
	},
	{
		Name: "segment.bytes", Type: Int, Default: "1073741824", check: atLeast(aMebi), synonyms: from("log.segment.bytes"),
		Doc: "The size at which a partition's log begins a new file.",
	},
	{
		Name: "segment.index.bytes", Type: Int, Default: "10485760", check: atLeast(4), synonyms: from("log.index.size.max.bytes"),
		Doc: "The size of its indexes at which a partition's log begins a new file.",
	},
	{
		Name: "segment.jitter.ms", Type: Long, Default: "0", check: atLeast(0), synonyms: rollJitter(),
		Doc: "How much earlier than segment.ms a log may begin a new file, at random, so that not all do at once.",
	},
	{
		Name: "segment.ms", Type: Long, Default: aWeek, check: atLeast(1), synonyms: rollTime(),
		Doc: "The age at which a partition's log begins a new file.",
	},
	{
		Name: "unclean.leader.election.enable", Type: Bool, Default: "false", synonyms: from("unclean.leader.election.enable"),
		Doc: "Whether a replica that is behind may become leader when no other is left, which loses records.",
	},
}

// checkTopic refuses configs of a topic that contradict each other.
func checkTopic(v View, set map[string]string) error {
	value := func(key string) value {
		e := v.makeEntry(topicTable.byName[key], set, TopicSource)
		parsed, _ := e.Def.parseValue(e.Value) // it was checked when it was set
		return parsed
	}
	if lo, hi := value("min.compaction.lag.ms").n, value("max.compaction.lag.ms").n; lo > hi {
		return badConfig("conflict topic config setting min.compaction.lag.ms (%d) > max.compaction.lag.ms (%d)", lo, hi)
	}
	if value("remote.storage.enable").b {
		return badConfig("Tiered Storage functionality is disabled in the broker. " +
			"Topic cannot be configured with remote log storage.")
	}
	return nil
}
