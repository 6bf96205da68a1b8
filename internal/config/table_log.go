package config

// logConfigs are the broker configs that are defaults of topics, or concern all logs.
var logConfigs = []Def{
	{
		Name: "compression.gzip.level", Type: Int, Default: "-1", Scope: ClusterWide, check: gzipLevel,
		Doc: "The effort of gzip for topics that do not set their own: 1 to 9, or -1 for the codec's own choice.",
	},
	{
		Name: "compression.lz4.level", Type: Int, Default: "9", Scope: ClusterWide, check: between(1, 17),
		Doc: "The effort of lz4 for topics that do not set their own: 1 to 17.",
	},
	{
		Name: "compression.type", Type: String, Default: "producer", Scope: ClusterWide, check: oneOf(codecs...),
		Doc: "The codec in which topics that do not set their own store batches; producer keeps the producer's codec.",
	},
	{
		Name: "compression.zstd.level", Type: Int, Default: "3", Scope: ClusterWide, check: between(-131072, 22),
		Doc: "The effort of zstd for topics that do not set their own: up to 22; negative values are the fastest.",
	},
	{
		Name: "cordoned.log.dirs", Type: List, Scope: PerBroker,
		Doc: "Directories that get no new partitions.", Needs: "more than one data directory",
	},
	{
		Name: "log.cleaner.backoff.ms", Type: Long, Default: "15000", Scope: ClusterWide, check: atLeast(0),
		Doc: "How long compaction waits when there is nothing to do.",
	},
	{
		Name: "log.cleaner.dedupe.buffer.size", Type: Long, Default: "134217728", Scope: ClusterWide, check: atLeast(aMebi),
		Doc: "How much memory compaction uses at most for the keys of a round, 24 bytes for each key. It is taken as it is needed, and never more than a 32nd of the memory that the process may use; with more keys a log takes several rounds.",
	},
	{
		Name: "log.cleaner.delete.retention.ms", Type: Long, Default: aDay, Scope: ClusterWide, check: atLeast(0),
		Doc: "How long the marker of a deleted key stays readable, for topics that do not set their own.",
	},
	{
		Name: "log.cleaner.enable", Type: Bool, Default: "true",
		Doc: "Whether compaction runs at all. Without it compacted topics, and the topics of groups' offsets and of transactions, grow for ever.",
	},
	{
		Name: "log.cleaner.io.buffer.load.factor", Type: Double, Default: "0.9", Scope: ClusterWide, check: ratio,
		Needless: true, Doc: "Has no effect here: the memory for keys grows by itself, and log.cleaner.dedupe.buffer.size bounds it.",
	},
	{
		Name: "log.cleaner.io.buffer.size", Type: Int, Default: "524288", Scope: ClusterWide, check: atLeast(0),
		Needless: true, Doc: "Has no effect here: compaction reads and writes with a buffer of 1 MiB each, and the memory for larger batches is that of all work on requests.",
	},
	{
		Name: "log.cleaner.io.max.bytes.per.second", Type: Double, Default: "1.7976931348623157E308", Scope: ClusterWide, check: positive,
		Doc: "How many bytes a second compaction reads and writes at most. It also rests by itself while records are appended.",
	},
	{
		Name: "log.cleaner.max.compaction.lag.ms", Type: Long, Default: noLimit, Scope: ClusterWide, check: atLeast(1),
		Doc: "The longest time that a record stays uncompacted, for topics that do not set their own.",
	},
	{
		Name: "log.cleaner.min.cleanable.ratio", Type: Double, Default: "0.5", Scope: ClusterWide, check: ratio,
		Doc: "The fraction of a log that must be uncompacted before it is compacted, for topics that do not set their own.",
	},
	{
		Name: "log.cleaner.min.compaction.lag.ms", Type: Long, Default: "0", Scope: ClusterWide, check: atLeast(0),
		Doc: "The shortest time that a record stays uncompacted, for topics that do not set their own.",
	},
	{
		Name: "log.cleaner.threads", Type: Int, Default: "1", Scope: ClusterWide, check: atLeast(1),
		Needless: true, Doc: "Has no effect here: logs are compacted one at a time, the dirtiest one first, so that clients keep the other processors.",
	},
	{
		Name: "log.cleanup.policy", Type: List, Default: "delete", Scope: ClusterWide, check: listOf("compact", "delete"),
		Doc: "Which old records are removed from topics that do not set their own policy: delete, compact, both, or an empty list to keep everything. Topics with compact refuse records without a key.",
	},
	{
		Name: "log.dir", Type: List, Default: "./leat-data",
		Doc: "The data directory if log.dirs is not set.",
	},
	{
		Name: "log.dir.failure.timeout.ms", Type: Long, Default: "30000", check: atLeast(1),
		Needless: true, Doc: "Has no effect here: when the disk fails, the partitions that it affects stop at once.",
	},
	{
		Name: "log.dirs", Type: List, Null: true,
		Doc: "The data directory of this node.",
	},
	{
		Name: "log.flush.interval.messages", Type: Long, Default: "1", Scope: ClusterWide, check: atLeast(1),
		Doc: "How many records may be acknowledged before they are on disk, for topics that do not set their own: with 1 every acknowledged record is on disk. The topics of coordinators, such as __consumer_offsets, do not follow it.",
	},
	{
		Name: "log.flush.interval.ms", Type: Long, Null: true, Scope: ClusterWide, check: atLeast(0), synonyms: flushTime(),
		Doc: "How long records may wait in the page cache before they are written to disk, for topics that do not set their own. The topics of coordinators, such as __consumer_offsets, do not follow it.",
	},
	{
		Name: "log.flush.offset.checkpoint.interval.ms", Type: Int, Default: "60000", check: atLeast(0),
		Needless: true, Doc: "Has no effect here: a checkpoint is made each second.",
	},
	{
		Name: "log.flush.scheduler.interval.ms", Type: Long, Default: noLimit, check: atLeast(0), synonyms: flushTime(),
		Doc: "How long records may wait in the page cache if log.flush.interval.ms is not set. The topics of coordinators, such as __consumer_offsets, do not follow it.",
	},
	{
		Name: "log.flush.start.offset.checkpoint.interval.ms", Type: Int, Default: "60000", check: atLeast(0),
		Needless: true, Doc: "Has no effect here: a log's start is written to disk whenever it moves.",
	},
	{
		Name: "log.index.interval.bytes", Type: Int, Default: "4096", Scope: ClusterWide, check: atLeast(0),
		Doc: "How many bytes of records are between two index entries, for topics that do not set their own.",
	},
	{
		Name: "log.index.size.max.bytes", Type: Int, Default: "10485760", Scope: ClusterWide, check: atLeast(4),
		Doc: "The size of its indexes at which a partition's log begins a new file, for topics that do not set their own.",
	},
	{
		Name: "log.local.retention.bytes", Type: Long, Default: "-2", Scope: ClusterWide, check: atLeast(-2),
		Doc: "How many bytes of tiered partitions stay on local disk, for topics that do not set their own.", Needs: "tiered storage",
	},
	{
		Name: "log.local.retention.ms", Type: Long, Default: "-2", Scope: ClusterWide, check: atLeast(-2),
		Doc: "How long records of tiered partitions stay on local disk, for topics that do not set their own.", Needs: "tiered storage",
	},
	{
		Name: "log.message.timestamp.after.max.ms", Type: Long, Default: "3600000", Scope: ClusterWide, check: atLeast(0),
		Doc: "How far timestamps may be ahead of the broker's clock, for topics that do not set their own.",
	},
	{
		Name: "log.message.timestamp.before.max.ms", Type: Long, Default: noLimit, Scope: ClusterWide, check: atLeast(0),
		Doc: "How far timestamps may be behind the broker's clock, for topics that do not set their own.",
	},
	{
		Name: "log.message.timestamp.type", Type: String, Default: "CreateTime", Scope: ClusterWide, check: oneOf("CreateTime", "LogAppendTime"),
		Doc: "Which clock records get their timestamps from, for topics that do not set their own: with CreateTime the producer's, with LogAppendTime the broker's.",
	},
	{
		Name: "log.preallocate", Type: Bool, Default: "false", Scope: ClusterWide,
		Doc: "Whether a new segment's space is reserved on disk at once, for topics that do not set their own.",
	},
	{
		Name: "log.remote.copy.lag.bytes", Type: Long, Default: "-1", Scope: ClusterWide, check: atLeast(-1),
		Doc: "How many bytes may wait for the upload to object storage, for topics that do not set their own.", Needs: "tiered storage",
	},
	{
		Name: "log.remote.copy.lag.ms", Type: Long, Default: "0", Scope: ClusterWide, check: atLeast(-1),
		Doc: "How long records may wait for the upload to object storage, for topics that do not set their own.", Needs: "tiered storage",
	},
	{
		Name: "log.retention.bytes", Type: Long, Default: "-1", Scope: ClusterWide,
		Doc: "How many bytes a partition keeps, for topics that do not set their own; -1 means no limit.",
	},
	{
		Name: "log.retention.check.interval.ms", Type: Long, Default: "300000", check: atLeast(1),
		Doc: "How often the node looks for records to drop.",
	},
	{
		Name: "log.retention.hours", Type: Int, Default: "168", check: atLeast(-1), synonyms: retentionTime(),
		Doc: "How many hours records are kept, if neither log.retention.ms nor log.retention.minutes is set.",
	},
	{
		Name: "log.retention.minutes", Type: Int, Null: true, check: atLeast(-1), synonyms: retentionTime(),
		Doc: "How many minutes records are kept, if log.retention.ms is not set.",
	},
	{
		Name: "log.retention.ms", Type: Long, Null: true, Scope: ClusterWide, check: atLeast(-1), synonyms: retentionTime(),
		Doc: "How many milliseconds records are kept, for topics that do not set their own; -1 means for ever.",
	},
	{
		Name: "log.roll.hours", Type: Int, Default: "168", check: atLeast(1), synonyms: rollTime(),
		Doc: "The age in hours at which a log begins a new file, if log.roll.ms is not set.",
	},
	{
		Name: "log.roll.jitter.hours", Type: Int, Default: "0", check: atLeast(0), synonyms: rollJitter(),
		Doc: "How many hours earlier a log may begin a new file, at random, if log.roll.jitter.ms is not set.",
	},
	{
		Name: "log.roll.jitter.ms", Type: Long, Null: true, Scope: ClusterWide, check: atLeast(0), synonyms: rollJitter(),
		Doc: "How many milliseconds earlier a log may begin a new file, at random, for topics that do not set their own.",
	},
	{
		Name: "log.roll.ms", Type: Long, Null: true, Scope: ClusterWide, check: atLeast(1), synonyms: rollTime(),
		Doc: "The age in milliseconds at which a log begins a new file, for topics that do not set their own.",
	},
	{
		Name: "log.segment.bytes", Type: Int, Default: "1073741824", Scope: ClusterWide, check: atLeast(1048576),
		Doc: "The size at which a log begins a new file, for topics that do not set their own.",
	},
	{
		Name: "log.segment.delete.delay.ms", Type: Long, Default: "60000", Scope: ClusterWide, check: atLeast(0),
		Doc: "How long the file of a dropped segment stays on disk, for topics that do not set their own.",
	},
	{
		Name: "max.decompressed.message.bytes", Type: Int, Default: "2147483639", Scope: ClusterWide, check: atLeast(1),
		Doc: "The largest size that a batch may have when it is decompressed, for topics that do not set their own.",
	},
	{
		Name: "remote.fetch.max.wait.ms", Type: Int, Default: "500", Scope: ClusterWide, check: atLeast(1),
		Doc: "How long a fetch waits for object storage.", Needs: "tiered storage",
	},
	{
		Name: "remote.list.offsets.request.timeout.ms", Type: Long, Default: "30000", Scope: ClusterWide, check: atLeast(1),
		Doc: "How long ListOffsets waits for object storage.", Needs: "tiered storage",
	},
	{
		Name: "remote.log.index.file.cache.total.size.bytes", Type: Long, Default: "1073741824", Scope: ClusterWide, check: atLeast(1),
		Doc: "How much local disk the indexes of segments in object storage take.", Needs: "tiered storage",
	},
	{
		Name: "remote.log.manager.copier.thread.pool.size", Type: Int, Default: "10", Scope: ClusterWide, check: atLeast(1),
		Doc: "How many segments are uploaded at a time.", Needs: "tiered storage",
	},
	{
		Name: "remote.log.manager.copy.max.bytes.per.second", Type: Long, Default: noLimit, Scope: ClusterWide, check: atLeast(1),
		Doc: "How many bytes a second are uploaded at most.", Needs: "tiered storage",
	},
	{
		Name: "remote.log.manager.copy.quota.window.num", Type: Int, Default: "11", check: atLeast(1),
		Doc: "The number of time windows over which the limit on uploads is measured.", Needs: "tiered storage",
	},
	{
		Name: "remote.log.manager.copy.quota.window.size.seconds", Type: Int, Default: "1", check: atLeast(1),
		Doc: "How long a window of the limit on uploads is.", Needs: "tiered storage",
	},
	{
		Name: "remote.log.manager.expiration.thread.pool.size", Type: Int, Default: "10", Scope: ClusterWide, check: atLeast(1),
		Doc: "How many partitions expire in object storage at a time.", Needs: "tiered storage",
	},
	{
		Name: "remote.log.manager.fetch.max.bytes.per.second", Type: Long, Default: noLimit, Scope: ClusterWide, check: atLeast(1),
		Doc: "How many bytes a second are read from object storage at most.", Needs: "tiered storage",
	},
	{
		Name: "remote.log.manager.fetch.quota.window.num", Type: Int, Default: "11", check: atLeast(1),
		Doc: "The number of time windows over which the limit on reads from object storage is measured.", Needs: "tiered storage",
	},
	{
		Name: "remote.log.manager.fetch.quota.window.size.seconds", Type: Int, Default: "1", check: atLeast(1),
		Doc: "How long a window of the limit on reads from object storage is.", Needs: "tiered storage",
	},
	{
		Name: "remote.log.manager.follower.thread.pool.size", Type: Int, Default: "2", Scope: ClusterWide, check: atLeast(1),
		Doc: "How many followers read from object storage at a time.", Needs: "tiered storage",
	},
	{
		Name: "remote.log.manager.task.interval.ms", Type: Long, Default: "30000", check: atLeast(1),
		Doc: "How often the node looks for segments that can be uploaded.", Needs: "tiered storage",
	},
	{
		Name: "remote.log.manager.thread.pool.size", Type: Int, Default: "2", check: atLeast(1),
		Doc: "How many tasks for object storage run at a time.", Needs: "tiered storage",
	},
	{
		Name: "remote.log.metadata.custom.metadata.max.bytes", Type: Int, Default: "128", check: atLeast(0),
		Doc: "How many bytes of its own a storage may keep about one segment.", Needs: "tiered storage",
	},
	{
		Name: "remote.log.metadata.manager.class.name", Type: String, Default: "org.apache.kafka.server.log.remote.metadata.storage.TopicBasedRemoteLogMetadataManager",
		Needless: true, Doc: "Has no effect here: the cluster's metadata list the segments in object storage.",
	},
	{
		Name: "remote.log.metadata.manager.class.path", Type: String, Null: true,
		Needless: true, Doc: "Has no effect here: the cluster's metadata list the segments in object storage.",
	},
	{
		Name: "remote.log.metadata.manager.impl.prefix", Type: String, Default: "rlmm.config.",
		Needless: true, Doc: "Has no effect here: the cluster's metadata list the segments in object storage.",
	},
	{
		Name: "remote.log.metadata.manager.listener.name", Type: String, Null: true,
		Needless: true, Doc: "Has no effect here: the cluster's metadata list the segments in object storage.",
	},
	{
		Name: "remote.log.metadata.topic.min.isr", Type: Int, Default: "2", check: atLeast(1),
		Needless: true, Doc: "Has no effect here: the cluster's metadata list the segments in object storage.",
	},
	{
		Name: "remote.log.reader.max.pending.tasks", Type: Int, Default: "100", check: atLeast(1),
		Doc: "How many reads from object storage may wait.", Needs: "tiered storage",
	},
	{
		Name: "remote.log.reader.threads", Type: Int, Default: "10", Scope: ClusterWide, check: atLeast(1),
		Doc: "How many reads from object storage run at a time.", Needs: "tiered storage",
	},
	{
		Name: "remote.log.storage.manager.class.name", Type: String, Null: true,
		Needless: true, Doc: "Has no effect here: the kinds of object storage are built into the program.",
	},
	{
		Name: "remote.log.storage.manager.class.path", Type: String, Null: true,
		Needless: true, Doc: "Has no effect here: the kinds of object storage are built into the program.",
	},
	{
		Name: "remote.log.storage.manager.impl.prefix", Type: String, Default: "rsm.config.",
		Needless: true, Doc: "Has no effect here: the kinds of object storage are built into the program.",
	},
	{
		Name: "remote.log.storage.system.enable", Type: Bool, Default: "false", Needs: "tiered storage",
		Doc: "Whether topics may use object storage.",
	},
}
