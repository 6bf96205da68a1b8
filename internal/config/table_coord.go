package config

// coordinatorConfigs are the broker configs of groups, offsets and transactions.
var coordinatorConfigs = []Def{
	{
		Name: "add.partitions.to.txn.retry.backoff.max.ms", Type: Int, Default: "100", check: atLeast(0),
		Doc: "How long a partition that is added to a transaction waits until the transaction before has ended.",
	},
	{
		Name: "add.partitions.to.txn.retry.backoff.ms", Type: Int, Default: "20", check: atLeast(1),
		Needless: true, Doc: "Has no effect here: a partition is added as soon as the transaction before has ended.",
	},
	{
		Name: "errors.deadletterqueue.auto.create.topics.enable", Type: Bool, Default: "false", Scope: ClusterWide,
		Doc: "Whether dead letter topics of share groups are created if they do not exist.", Needs: "share groups",
	},
	{
		Name: "errors.deadletterqueue.topic.name.prefix", Type: String, Default: "dlq.", Scope: ClusterWide,
		Doc: "The prefix of the names of dead letter topics.", Needs: "share groups",
	},
	{
		Name: "group.consumer.assignment.interval.ms", Type: Int, Default: "1000", Scope: ClusterWide, check: atLeast(0),
		Doc: "The shortest time between two new assignments of a consumer group that does not set its own.", Needs: "next-generation groups",
	},
	{
		Name: "group.consumer.assignors", Type: List, Default: "uniform,range",
		Doc: "The assignors that next-generation consumer groups may use, the first one by default.", Needs: "next-generation groups",
	},
	{
		Name: "group.consumer.heartbeat.interval.ms", Type: Int, Default: "5000", check: atLeast(1),
		Doc: "How often members of next-generation consumer groups send a heartbeat.", Needs: "next-generation groups",
	},
	{
		Name: "group.consumer.max.assignment.interval.ms", Type: Int, Default: "15000", check: atLeast(0),
		Doc: "The largest value that a group may set for consumer.assignment.interval.ms.",
	},
	{
		Name: "group.consumer.max.heartbeat.interval.ms", Type: Int, Default: "15000", check: atLeast(1),
		Doc: "The largest value that a group may set for consumer.heartbeat.interval.ms.",
	},
	{
		Name: "group.consumer.max.session.timeout.ms", Type: Int, Default: "60000", check: atLeast(1),
		Doc: "The largest value that a group may set for consumer.session.timeout.ms.",
	},
	{
		Name: "group.consumer.max.size", Type: Int, Default: "2147483647", check: atLeast(1),
		Doc: "How many members a next-generation consumer group has at most.", Needs: "next-generation groups",
	},
	{
		Name: "group.consumer.migration.policy", Type: String, Default: "bidirectional",
		Doc: "Whether classic groups can become next-generation groups and the other way round.", Needs: "next-generation groups",
	},
	{
		Name: "group.consumer.min.assignment.interval.ms", Type: Int, Default: "0", check: atLeast(0),
		Doc: "The smallest value that a group may set for consumer.assignment.interval.ms.",
	},
	{
		Name: "group.consumer.min.heartbeat.interval.ms", Type: Int, Default: "5000", check: atLeast(1),
		Doc: "The smallest value that a group may set for consumer.heartbeat.interval.ms.",
	},
	{
		Name: "group.consumer.min.session.timeout.ms", Type: Int, Default: "45000", check: atLeast(1),
		Doc: "The smallest value that a group may set for consumer.session.timeout.ms.",
	},
	{
		Name: "group.consumer.session.timeout.ms", Type: Int, Default: "45000", check: atLeast(1),
		Doc: "How long a member of a next-generation consumer group may be silent before it is removed.", Needs: "next-generation groups",
	},
	{
		Name: "group.coordinator.append.linger.ms", Type: Int, Default: "-1", check: atLeast(-1),
		Needless: true, Doc: "Has no effect here: changes of groups are committed together without waiting.",
	},
	{
		Name: "group.coordinator.background.threads", Type: Int, Default: "2", check: atLeast(1),
		Needless: true, Doc: "Has no effect here: there is no thread pool to size.",
	},
	{
		Name: "group.coordinator.cached.buffer.max.bytes", Type: Int, Default: "1048588", Scope: ClusterWide, check: atLeast(524288),
		Needless: true, Doc: "Has no effect here: buffers of coordinators are not cached by size.",
	},
	{
		Name: "group.coordinator.rebalance.protocols", Type: List, Default: "classic,consumer,streams", check: listOf("consumer", "classic", "share", "streams"),
		Doc: "The kinds of groups that are served; classic ones always are.", Needs: "next-generation groups", harmless: "classic",
	},
	{
		Name: "group.coordinator.threads", Type: Int, Default: "4", check: atLeast(1),
		Needless: true, Doc: "Has no effect here: there is no thread pool to size.",
	},
	{
		Name: "group.initial.rebalance.delay.ms", Type: Int, Default: "3000", check: atLeast(0),
		Doc: "How long a new classic group waits for more members before its first rebalance.",
	},
	{
		Name: "group.max.session.timeout.ms", Type: Int, Default: "1800000", check: atLeast(1),
		Doc: "The longest session timeout that a member of a classic group may ask for.",
	},
	{
		Name: "group.max.size", Type: Int, Default: "2147483647", check: atLeast(1),
		Doc: "How many members a classic group has at most.",
	},
	{
		Name: "group.min.session.timeout.ms", Type: Int, Default: "6000", check: atLeast(1),
		Doc: "The shortest session timeout that a member of a classic group may ask for.",
	},
	{
		Name: "group.share.assignment.interval.ms", Type: Int, Default: "1000", Scope: ClusterWide, check: atLeast(0),
		Doc: "The shortest time between two new assignments of a share group that does not set its own.", Needs: "share groups",
	},
	{
		Name: "group.share.assignors", Type: List, Default: "simple",
		Doc: "The assignors that share groups may use.", Needs: "share groups",
	},
	{
		Name: "group.share.delivery.count.limit", Type: Int, Default: "5", check: between(2, 10),
		Doc: "How often a record is delivered before it is given up.", Needs: "share groups",
	},
	{
		Name: "group.share.heartbeat.interval.ms", Type: Int, Default: "5000", check: atLeast(1),
		Doc: "How often members of share groups send a heartbeat.", Needs: "share groups",
	},
	{
		Name: "group.share.max.assignment.interval.ms", Type: Int, Default: "15000", check: atLeast(0),
		Doc: "The largest value that a group may set for share.assignment.interval.ms.",
	},
	{
		Name: "group.share.max.delivery.count.limit", Type: Int, Default: "10", check: between(5, 25),
		Doc: "The largest value that a group may set for share.delivery.count.limit.",
	},
	{
		Name: "group.share.max.heartbeat.interval.ms", Type: Int, Default: "15000", check: atLeast(1),
		Doc: "The largest value that a group may set for share.heartbeat.interval.ms.",
	},
	{
		Name: "group.share.max.partition.max.record.locks", Type: Int, Default: "4000", check: between(2000, 10000),
		Doc: "The largest value that a group may set for share.partition.max.record.locks.",
	},
	{
		Name: "group.share.max.record.lock.duration.ms", Type: Int, Default: "60000", check: between(30000, 3600000),
		Doc: "The largest value that a group may set for share.record.lock.duration.ms.",
	},
	{
		Name: "group.share.max.session.timeout.ms", Type: Int, Default: "60000", check: atLeast(1),
		Doc: "The largest value that a group may set for share.session.timeout.ms.",
	},
	{
		Name: "group.share.max.share.sessions", Type: Int, Default: "2000", check: atLeast(1),
		Doc: "How many share sessions this node keeps.", Needs: "share groups",
	},
	{
		Name: "group.share.max.size", Type: Int, Default: "200", check: between(1, 1000),
		Doc: "How many members a share group has at most.", Needs: "share groups",
	},
	{
		Name: "group.share.min.assignment.interval.ms", Type: Int, Default: "0", check: atLeast(0),
		Doc: "The smallest value that a group may set for share.assignment.interval.ms.",
	},
	{
		Name: "group.share.min.delivery.count.limit", Type: Int, Default: "2", check: between(2, 5),
		Doc: "The smallest value that a group may set for share.delivery.count.limit.",
	},
	{
		Name: "group.share.min.heartbeat.interval.ms", Type: Int, Default: "5000", check: atLeast(1),
		Doc: "The smallest value that a group may set for share.heartbeat.interval.ms.",
	},
	{
		Name: "group.share.min.partition.max.record.locks", Type: Int, Default: "100", check: between(100, 2000),
		Doc: "The smallest value that a group may set for share.partition.max.record.locks.",
	},
	{
		Name: "group.share.min.record.lock.duration.ms", Type: Int, Default: "15000", check: between(1000, 30000),
		Doc: "The smallest value that a group may set for share.record.lock.duration.ms.",
	},
	{
		Name: "group.share.min.session.timeout.ms", Type: Int, Default: "45000", check: atLeast(1),
		Doc: "The smallest value that a group may set for share.session.timeout.ms.",
	},
	{
		Name: "group.share.partition.max.record.locks", Type: Int, Default: "2000", check: between(100, 10000),
		Doc: "How many records of a partition the members of a share group may hold at a time.", Needs: "share groups",
	},
	{
		Name: "group.share.record.lock.duration.ms", Type: Int, Default: "30000", check: between(1000, 3600000),
		Doc: "How long a member of a share group may keep a record.", Needs: "share groups",
	},
	{
		Name: "group.share.session.timeout.ms", Type: Int, Default: "45000", check: atLeast(1),
		Doc: "How long a member of a share group may be silent before it is removed.", Needs: "share groups",
	},
	{
		Name: "group.streams.assignment.interval.ms", Type: Int, Default: "1000", Scope: ClusterWide, check: atLeast(0),
		Doc: "The shortest time between two new assignments of a streams group that does not set its own.", Needs: "streams groups",
	},
	{
		Name: "group.streams.heartbeat.interval.ms", Type: Int, Default: "5000", check: atLeast(1),
		Doc: "How often members of streams groups send a heartbeat.", Needs: "streams groups",
	},
	{
		Name: "group.streams.initial.rebalance.delay.ms", Type: Int, Default: "3000", check: atLeast(0),
		Doc: "How long a new streams group waits for more members.", Needs: "streams groups",
	},
	{
		Name: "group.streams.max.assignment.interval.ms", Type: Int, Default: "15000", check: atLeast(0),
		Doc: "The largest value that a group may set for streams.assignment.interval.ms.",
	},
	{
		Name: "group.streams.max.heartbeat.interval.ms", Type: Int, Default: "15000", check: atLeast(1),
		Doc: "The largest value that a group may set for streams.heartbeat.interval.ms.",
	},
	{
		Name: "group.streams.max.session.timeout.ms", Type: Int, Default: "60000", check: atLeast(1),
		Doc: "The largest value that a group may set for streams.session.timeout.ms.",
	},
	{
		Name: "group.streams.max.size", Type: Int, Default: "2147483647", check: atLeast(1),
		Doc: "How many members a streams group has at most.", Needs: "streams groups",
	},
	{
		Name: "group.streams.max.standby.replicas", Type: Int, Default: "2", check: atLeast(0),
		Doc: "The largest value that a group may set for streams.num.standby.replicas.",
	},
	{
		Name: "group.streams.min.assignment.interval.ms", Type: Int, Default: "0", check: atLeast(0),
		Doc: "The smallest value that a group may set for streams.assignment.interval.ms.",
	},
	{
		Name: "group.streams.min.heartbeat.interval.ms", Type: Int, Default: "5000", check: atLeast(1),
		Doc: "The smallest value that a group may set for streams.heartbeat.interval.ms.",
	},
	{
		Name: "group.streams.min.session.timeout.ms", Type: Int, Default: "45000", check: atLeast(1),
		Doc: "The smallest value that a group may set for streams.session.timeout.ms.",
	},
	{
		Name: "group.streams.num.standby.replicas", Type: Int, Default: "0", check: atLeast(0),
		Doc: "How many warm copies of a task's state streams groups keep.", Needs: "streams groups",
	},
	{
		Name: "group.streams.session.timeout.ms", Type: Int, Default: "45000", check: atLeast(1),
		Doc: "How long a member of a streams group may be silent before it is removed.", Needs: "streams groups",
	},
	{
		Name: "offset.metadata.max.bytes", Type: Int, Default: "4096", check: atLeast(0),
		Doc: "The longest text that a consumer may commit with an offset.",
	},
	{
		Name: "offsets.commit.timeout.ms", Type: Int, Default: "5000", check: atLeast(1),
		Doc: "How long a commit of offsets, or another change of a group, waits until it is on disk on all replicas that are in sync.",
	},
	{
		Name: "offsets.load.buffer.size", Type: Int, Default: "5242880", check: atLeast(1),
		Needless: true, Doc: "Has no effect here: __consumer_offsets is read in pieces of a built-in size.",
	},
	{
		Name: "offsets.retention.check.interval.ms", Type: Long, Default: "600000", check: atLeast(1),
		Doc: "How often the node looks for expired offsets.",
	},
	{
		Name: "offsets.retention.minutes", Type: Int, Default: "10080", check: atLeast(1),
		Doc: "How long committed offsets are kept after the last member has left their group.",
	},
	{
		Name: "offsets.topic.compression.codec", Type: Int, Default: "0",
		Needless: true, Doc: "Has no effect here: offsets are stored uncompressed.",
	},
	{
		Name: "offsets.topic.num.partitions", Type: Int, Default: "50", check: atLeast(1),
		Doc: "How many partitions __consumer_offsets gets when it is created.",
	},
	{
		Name: "offsets.topic.replication.factor", Type: Short, Default: "3", check: atLeast(1),
		Doc: "How many replicas __consumer_offsets gets when it is created; the default is the number of nodes, at most 3.",
	},
	{
		Name: "offsets.topic.segment.bytes", Type: Int, Default: "104857600", check: atLeast(1),
		Doc: "The size at which a log of __consumer_offsets begins a new file.",
	},
	{
		Name: "producer.id.expiration.ms", Type: Int, Default: aDay, Scope: ClusterWide, check: atLeast(1),
		Doc: "How long a partition remembers an idempotent producer after its last batch. Where there is not enough memory for all, the longest unused ones are forgotten before that.",
	},
	{
		Name: "share.coordinator.append.linger.ms", Type: Int, Default: "-1", check: atLeast(-1),
		Needless: true, Doc: "Has no effect here: changes of groups are committed together without waiting.",
	},
	{
		Name: "share.coordinator.cached.buffer.max.bytes", Type: Int, Default: "1048588", Scope: ClusterWide, check: atLeast(524288),
		Needless: true, Doc: "Has no effect here: buffers of coordinators are not cached by size.",
	},
	{
		Name: "share.coordinator.load.buffer.size", Type: Int, Default: "5242880", check: atLeast(1),
		Doc: "How much of __share_group_state is read at a time.", Needs: "share groups",
	},
	{
		Name: "share.coordinator.snapshot.update.records.per.snapshot", Type: Int, Default: "500", check: between(0, 500),
		Doc: "How many changes of a share partition are between two snapshots of it.", Needs: "share groups",
	},
	{
		Name: "share.coordinator.state.topic.compression.codec", Type: Int, Default: "0",
		Doc: "The number of the codec of __share_group_state.", Needs: "share groups",
	},
	{
		Name: "share.coordinator.state.topic.min.isr", Type: Short, Default: "2", check: atLeast(1),
		Doc: "How many replicas of __share_group_state must be in sync for a write; the default depends on the number of nodes.", Needs: "share groups",
	},
	{
		Name: "share.coordinator.state.topic.num.partitions", Type: Int, Default: "50", check: atLeast(1),
		Doc: "How many partitions __share_group_state gets.", Needs: "share groups",
	},
	{
		Name: "share.coordinator.state.topic.replication.factor", Type: Short, Default: "3", check: atLeast(1),
		Doc: "How many replicas __share_group_state gets; the default depends on the number of nodes.", Needs: "share groups",
	},
	{
		Name: "share.coordinator.state.topic.segment.bytes", Type: Int, Default: "104857600", check: atLeast(1),
		Doc: "The size at which a log of __share_group_state begins a new file.", Needs: "share groups",
	},
	{
		Name: "share.coordinator.threads", Type: Int, Default: "1", check: atLeast(1),
		Needless: true, Doc: "Has no effect here: there is no thread pool to size.",
	},
	{
		Name: "share.coordinator.write.timeout.ms", Type: Int, Default: "5000", check: atLeast(1),
		Doc: "How long a write to __share_group_state waits for the replicas.", Needs: "share groups",
	},
	{
		Name: "share.fetch.purgatory.purge.interval.requests", Type: Int, Default: "1000",
		Needless: true, Doc: "Has no effect here: requests that wait are dropped as soon as they are answered.",
	},
	{
		Name: "transaction.abort.timed.out.transaction.cleanup.interval.ms", Type: Int, Default: "10000", check: atLeast(1),
		Needless: true, Doc: "Has no effect here: a transaction that times out is aborted at its time.",
	},
	{
		Name: "transaction.max.timeout.ms", Type: Int, Default: "900000", check: atLeast(1),
		Doc: "The longest timeout that a transaction may ask for.",
	},
	{
		Name: "transaction.partition.verification.enable", Type: Bool, Default: "true", Scope: ClusterWide,
		Doc: "Whether the leader of a partition asks the coordinator before it takes the first records of a transaction. Without that a late write may begin a transaction that nobody ends.",
	},
	{
		Name: "transaction.remove.expired.transaction.cleanup.interval.ms", Type: Int, Default: "3600000", check: atLeast(1),
		Doc: "How often the node looks for expired transactional ids.",
	},
	{
		Name: "transaction.state.log.load.buffer.size", Type: Int, Default: "5242880", check: atLeast(1),
		Needless: true, Doc: "Has no effect here: __transaction_state is read in pieces of a built-in size.",
	},
	{
		Name: "transaction.state.log.min.isr", Type: Int, Default: "2", check: atLeast(1),
		Doc: "How many replicas of __transaction_state must be in sync for a write; the default depends on the number of nodes.",
	},
	{
		Name: "transaction.state.log.num.partitions", Type: Int, Default: "50", check: atLeast(1),
		Doc: "How many partitions __transaction_state gets when it is created.",
	},
	{
		Name: "transaction.state.log.replication.factor", Type: Short, Default: "3", check: atLeast(1),
		Doc: "How many replicas __transaction_state gets; the default depends on the number of nodes.",
	},
	{
		Name: "transaction.state.log.segment.bytes", Type: Int, Default: "104857600", check: atLeast(1),
		Doc: "The size at which a log of __transaction_state goes on in a new file.",
	},
	{
		Name: "transaction.two.phase.commit.enable", Type: Bool, Default: "false",
		Doc: "Whether clients may take part in two-phase commits.", Needs: "two-phase commits",
	},
	{
		Name: "transactional.id.expiration.ms", Type: Int, Default: aWeek, check: atLeast(1),
		Doc: "How long an unused transactional id is remembered.",
	},
}
