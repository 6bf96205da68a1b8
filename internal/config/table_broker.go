package config

// brokerConfigs are the broker configs of identity, network, metadata and replication.
var brokerConfigs = []Def{
	{
		Name: "advertised.listeners", Type: List, Null: true,
		Doc: "The addresses that clients are told, one for each listener, as NAME://HOST:PORT; clients of a listener that is not named are told the address to which they have connected.",
	},
	{
		Name: "alter.config.policy.class.name", Type: Class, Null: true,
		Needs: "policies", Doc: "A Java class that may refuse config changes.",
	},
	{
		Name: "alter.log.dirs.replication.quota.window.num", Type: Int, Default: "11", check: atLeast(1),
		Needless: true, Doc: "Has no effect here: a node has one data directory, so replicas do not move between directories.",
	},
	{
		Name: "alter.log.dirs.replication.quota.window.size.seconds", Type: Int, Default: "1", check: atLeast(1),
		Needless: true, Doc: "Has no effect here: a node has one data directory, so replicas do not move between directories.",
	},
	{
		Name: "auto.create.topics.enable", Type: Bool, Default: "true",
		Doc: "Whether a client that asks for the metadata of an unknown topic creates it.",
	},
	{
		Name: "auto.leader.rebalance.enable", Type: Bool, Default: "true",
		Doc: "Whether leadership returns to the first replica of a partition by itself.",
	},
	{
		Name: "background.threads", Type: Int, Default: "10", Scope: ClusterWide, check: atLeast(1),
		Needless: true, Doc: "Has no effect here: there is no thread pool to size.",
	},
	{
		Name: "broker.heartbeat.interval.ms", Type: Int, Default: "2000", check: atLeast(1),
		Doc: "How often a node tells the controller that it is alive.",
	},
	{
		Name: "broker.id", Type: Int, Default: "-1",
		Doc: "The number of this node, the same as node.id.",
	},
	{
		Name: "broker.rack", Type: String, Null: true,
		Doc: "The rack or zone of this node, by which replicas are placed and readers find the nearest one.",
	},
	{
		Name: "broker.session.timeout.ms", Type: Int, Default: "9000", check: atLeast(1),
		Doc: "How long a node may be silent before its partitions get other leaders.",
	},
	{
		Name: "client.quota.callback.class", Type: Class, Null: true,
		Needless: true, Doc: "Has no effect here: quota callbacks are Java classes.",
	},
	{
		Name: "config.providers", Type: List, Scope: ClusterWide,
		Needless: true, Doc: "Has no effect here: config providers are Java classes.",
	},
	{
		Name: "connection.failed.authentication.delay.ms", Type: Int, Default: "100", check: between(0, 60_000),
		Doc: "How long the answer to a failed login waits, after which its connection is closed.",
	},
	{
		Name: "connections.max.idle.ms", Type: Long, Default: "600000",
		Doc: "How long a connection may be idle before it is closed.",
	},
	{
		Name: "connections.max.reauth.ms", Type: Long, Default: "0",
		Doc: "How long a login is valid, after which the client must log in again on the same connection (KIP-368); 0: as long as the connection.",
	},
	{
		Name: "controlled.shutdown.enable", Type: Bool, Default: "true",
		Needless: true, Doc: "Has no effect here: a node always hands over what it leads before it stops.",
	},
	{
		Name: "controller.listener.names", Type: List, Null: true,
		Needless: true, Doc: "The listeners of controllers. Here nodes and clients share their listeners, so none of this node's may be named; other names have no effect here.",
	},
	{
		Name: "controller.quorum.append.linger.ms", Type: Int, Default: "25", check: atLeast(0),
		Needless: true, Doc: "Has no effect here: changes of metadata are committed together without waiting.",
	},
	{
		Name: "controller.quorum.auto.join.enable", Type: Bool, Default: "false",
		Needless: true, Doc: "Has no effect here: the cluster itself decides which nodes vote.",
	},
	{
		Name: "controller.quorum.bootstrap.servers", Type: List,
		Needless: true, Doc: "Has no effect here: a node joins a cluster by leat up --join.",
	},
	{
		Name: "controller.quorum.election.backoff.max.ms", Type: Int, Default: "1000", check: atLeast(0),
		Needless: true, Doc: "Has no effect here: the quorum's times are built in.",
	},
	{
		Name: "controller.quorum.election.timeout.ms", Type: Int, Default: "1000", check: atLeast(0),
		Needless: true, Doc: "Has no effect here: the quorum's times are built in.",
	},
	{
		Name: "controller.quorum.fetch.max.bytes", Type: Int, Default: "1048576", check: atLeast(1),
		Needless: true, Doc: "Has no effect here: the sizes of the quorum's messages are built in.",
	},
	{
		Name: "controller.quorum.fetch.snapshot.max.bytes", Type: Int, Default: "1048576", check: atLeast(1),
		Needless: true, Doc: "Has no effect here: the sizes of the quorum's messages are built in.",
	},
	{
		Name: "controller.quorum.fetch.timeout.ms", Type: Int, Default: "2000", check: atLeast(0),
		Needless: true, Doc: "Has no effect here: the quorum's times are built in.",
	},
	{
		Name: "controller.quorum.request.timeout.ms", Type: Int, Default: "2000", check: atLeast(0),
		Needless: true, Doc: "Has no effect here: the quorum's times are built in.",
	},
	{
		Name: "controller.quorum.retry.backoff.ms", Type: Int, Default: "20", check: atLeast(0),
		Needless: true, Doc: "Has no effect here: the quorum's times are built in.",
	},
	{
		Name: "controller.quorum.voters", Type: List,
		Needless: true, Doc: "Has no effect here: the cluster itself decides which nodes vote.",
	},
	{
		Name: "controller.quota.window.num", Type: Int, Default: "11", check: atLeast(1),
		Doc: "For so many windows a client may save up its quota of changes (controller_mutation_rate).",
	},
	{
		Name: "controller.quota.window.size.seconds", Type: Int, Default: "1", check: atLeast(1),
		Doc: "How long a window of the quota of changes is.",
	},
	{
		Name: "controller.socket.timeout.ms", Type: Int, Default: "30000",
		Needless: true, Doc: "Has no effect here: a request to the controller is made again until its own time is over.",
	},
	{
		Name: "create.topic.policy.class.name", Type: Class, Null: true,
		Needs: "policies", Doc: "A Java class that may refuse new topics.",
	},
	{
		Name: "default.replication.factor", Type: Int, Default: "1", check: atLeast(1),
		Doc: "How many replicas a new topic gets if its creator does not say; the default is the number of nodes, at most 3.",
	},
	{
		Name: "delete.records.purgatory.purge.interval.requests", Type: Int, Default: "1",
		Needless: true, Doc: "Has no effect here: requests that wait are dropped as soon as they are answered.",
	},
	{
		Name: "delete.topic.enable", Type: Bool, Default: "true",
		Doc: "Whether topics can be deleted.",
	},
	{
		Name: "early.start.listeners", Type: List, Null: true,
		Needless: true, Doc: "Has no effect here: all listeners serve clients from the same moment on.",
	},
	{
		Name: "fetch.max.bytes", Type: Int, Default: "57671680", check: atLeast(1024),
		Doc: "The most bytes that one fetch request is answered with.",
	},
	{
		Name: "fetch.purgatory.purge.interval.requests", Type: Int, Default: "1000",
		Needless: true, Doc: "Has no effect here: requests that wait are dropped as soon as they are answered.",
	},
	{
		Name: "follower.fetch.last.tiered.offset.enable", Type: Bool, Default: "false", Scope: ClusterWide,
		Doc: "Whether a new follower begins where object storage ends.", Needs: "tiered storage",
	},
	{
		Name: "follower.replication.throttled.rate", Type: Long, Default: noLimit, Scope: ClusterWide, check: atLeast(0),
		Doc: "How many bytes a second throttled followers may read.",
	},
	{
		Name: "initial.broker.registration.timeout.ms", Type: Int, Default: "60000",
		Needless: true, Doc: "Has no effect here: a node registers when it starts and serves afterwards.",
	},
	{
		Name: "inter.broker.listener.name", Type: String, Null: true,
		Doc: "The listener by which nodes talk to each other; without it, PLAINTEXT if there is a listener of that name, else the first one.",
	},
	{
		Name: "kafka.metrics.polling.interval.secs", Type: Int, Default: "10", check: atLeast(1),
		Needless: true, Doc: "Has no effect here: metrics are read from /metrics.",
	},
	{
		Name: "kafka.metrics.reporters", Type: List,
		Needless: true, Doc: "Has no effect here: metrics are read from /metrics.",
	},
	{
		Name: "leader.imbalance.check.interval.seconds", Type: Long, Default: "300", check: atLeast(1),
		Doc: "How often the node checks how evenly leaderships are spread.",
	},
	{
		Name: "leader.imbalance.per.broker.percentage", Type: Int, Default: "10", check: atLeast(0),
		Needless: true, Doc: "Has no effect here: leaderships are moved back however few they are.",
	},
	{
		Name: "leader.replication.throttled.rate", Type: Long, Default: noLimit, Scope: ClusterWide, check: atLeast(0),
		Doc: "How many bytes a second leaders may send to throttled followers.",
	},
	{
		Name: "listener.security.protocol.map", Type: String, Default: "SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT", Scope: PerBroker,
		Doc: "Which listener uses which security protocol, as NAME:PROTOCOL pairs, with PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL.",
	},
	{
		Name: "listeners", Type: List, Default: "PLAINTEXT://127.0.0.1:9092,PLAINTEXT://[::1]:9092", Scope: PerBroker,
		Doc: "The addresses on which this node listens, as NAME://HOST:PORT; read when it starts. The default are the loopback addresses, which only programs of this machine reach.",
	},
	{
		Name: "max.connection.creation.rate", Type: Int, Default: "2147483647", Scope: ClusterWide, check: atLeast(0),
		Doc: "How many clients' connections a second this node serves; those that come too soon wait, for 30 s at most. 0 means no limit. Connections from the addresses of the cluster's nodes do not count.",
	},
	{
		Name: "max.connections", Type: Int, Default: "2147483647", Scope: ClusterWide,
		check: zeroOrAtLeast(10, "a client needs several connections, so less would lock out administrators, too"),
		Doc:   "How many connections this node has at most, 10 or more; 0 means no limit. Lowering it closes no open connection.",
	},
	{
		Name: "max.connections.per.ip", Type: Int, Default: "2147483647", Scope: ClusterWide,
		check: zeroOrAtLeast(2, "a client needs two connections, so 1 would lock out everybody, administrators too"),
		Doc:   "How many connections one client address has at most, 2 or more. 0 means no limit; but if max.connections.per.ip.overrides names addresses, it means that no other address may connect.",
	},
	{
		Name: "max.connections.per.ip.overrides", Type: String, Scope: ClusterWide, check: ipCounts,
		Doc: "Other limits for single client addresses, as address:count pairs separated by commas; host names are not resolved.",
	},
	{
		Name: "max.incremental.fetch.session.cache.slots", Type: Int, Default: "1000", check: atLeast(0),
		Doc: "How many incremental fetch sessions this node keeps. Together they take at most a fortieth of the memory that the process may use, and 150 MB.",
	},
	{
		Name: "max.request.partition.size.limit", Type: Int, Default: "2000", check: atLeast(1),
		Doc: "How many partitions one DescribeTopicPartitions answer holds at most.",
	},
	{
		Name: "message.max.bytes", Type: Int, Default: "1048588", Scope: ClusterWide, check: atLeast(0),
		Doc: "The largest record batch that is accepted, for topics that do not set their own.",
	},
	{
		Name: "metadata.log.dir", Type: String, Null: true,
		Needless: true, Doc: "Has no effect here: the metadata are in the data directory.",
	},
	{
		Name: "metadata.log.max.record.bytes.between.snapshots", Type: Long, Default: "20971520", check: atLeast(1),
		Needless: true, Doc: "Has no effect here: snapshots of metadata are made by a built-in size.",
	},
	{
		Name: "metadata.log.max.snapshot.interval.ms", Type: Long, Default: "3600000", check: atLeast(0),
		Needless: true, Doc: "Has no effect here: snapshots of metadata are made by size.",
	},
	{
		Name: "metadata.log.segment.bytes", Type: Int, Default: "1073741824", check: atLeast(8388608),
		Needless: true, Doc: "Has no effect here: snapshots replace the old part of the metadata log.",
	},
	{
		Name: "metadata.log.segment.ms", Type: Long, Default: aWeek,
		Needless: true, Doc: "Has no effect here: snapshots replace the old part of the metadata log.",
	},
	{
		Name: "metadata.max.idle.interval.ms", Type: Int, Default: "500", check: atLeast(0),
		Needless: true, Doc: "Has no effect here: the metadata log has no empty records.",
	},
	{
		Name: "metadata.max.retention.bytes", Type: Long, Default: "104857600",
		Needless: true, Doc: "Has no effect here: snapshots replace the old part of the metadata log.",
	},
	{
		Name: "metadata.max.retention.ms", Type: Long, Default: aWeek,
		Needless: true, Doc: "Has no effect here: snapshots replace the old part of the metadata log.",
	},
	{
		Name: "metric.reporters", Type: List, Default: "org.apache.kafka.common.metrics.JmxReporter", Scope: ClusterWide,
		Needless: true, Doc: "Has no effect here: metrics are read from /metrics.",
	},
	{
		Name: "metrics.num.samples", Type: Int, Default: "2", check: atLeast(1),
		Needless: true, Doc: "Has no effect here: metrics are counters, which their reader samples.",
	},
	{
		Name: "metrics.recording.level", Type: String, Default: "INFO",
		Needless: true, Doc: "Has no effect here: all metrics are always counted.",
	},
	{
		Name: "metrics.sample.window.ms", Type: Long, Default: "30000", check: atLeast(1),
		Needless: true, Doc: "Has no effect here: metrics are counters, which their reader samples.",
	},
	{
		Name: "min.insync.replicas", Type: Int, Default: "1", Scope: ClusterWide, check: atLeast(1),
		Doc: "How many replicas must be in sync for a write with acks=all, for topics that do not set their own. Unless it is set it follows the number of a topic's replicas. All nodes must have the same value, so a node's own settings count only for the cluster that it makes.",
	},
	{
		Name: "node.id", Type: Int, Null: true, check: atLeast(0),
		Doc: "The number of this node in its cluster.",
	},
	{
		Name: "num.io.threads", Type: Int, Default: "8", Scope: ClusterWide, check: atLeast(1),
		Needless: true, Doc: "Has no effect here: a request stays on its connection's goroutine.",
	},
	{
		Name: "num.network.threads", Type: Int, Default: "3", Scope: ClusterWide, check: atLeast(1),
		Needless: true, Doc: "Has no effect here: a request stays on its connection's goroutine.",
	},
	{
		Name: "num.partitions", Type: Int, Default: "1", check: atLeast(1),
		Doc: "How many partitions a new topic gets if its creator does not say.",
	},
	{
		Name: "num.recovery.threads.per.data.dir", Type: Int, Default: "2", Scope: ClusterWide, check: atLeast(1),
		Needless: true, Doc: "Has no effect here: partitions are recovered when they are first used.",
	},
	{
		Name: "num.replica.alter.log.dirs.threads", Type: Int, Null: true,
		Needless: true, Doc: "Has no effect here: a node has one data directory, so replicas do not move between directories.",
	},
	{
		Name: "num.replica.fetchers", Type: Int, Default: "1", Scope: ClusterWide, check: atLeast(1),
		Needless: true, Doc: "Has no effect here: a follower has one connection to each node from which it reads.",
	},
	{
		Name: "process.roles", Type: List, Default: "broker,controller", check: rolesOfBroker,
		Needless: true, Doc: "Has no effect here: every node is a broker, so controller alone is refused, and the cluster decides which nodes keep the metadata (leat.quorum.voters).",
	},
	{
		Name: "producer.purgatory.purge.interval.requests", Type: Int, Default: "1000",
		Needless: true, Doc: "Has no effect here: requests that wait are dropped as soon as they are answered.",
	},
	{
		Name: "queued.max.request.bytes", Type: Long, Default: "-1",
		Doc: "How many bytes of requests all connections together may hold in memory; the largest request may take three quarters. " +
			"-1 takes an eighth of the memory that the process may use, less up to 4 MiB for other nodes, at least 16 MiB and at most 64 MiB or 1.4 times socket.request.max.bytes.",
	},
	{
		Name: "queued.max.requests", Type: Int, Default: "500", check: atLeast(1),
		Needless: true, Doc: "Has no effect here: requests are not queued.",
	},
	{
		Name: "quota.window.num", Type: Int, Default: "11", check: atLeast(1),
		Doc: "The number of time windows over which client quotas are measured, with the one that has not ended.",
	},
	{
		Name: "quota.window.size.seconds", Type: Int, Default: "1", check: atLeast(1),
		Doc: "How long a window of client quotas is. It is the longest time for which request_percentage throttles at once.",
	},
	{
		Name: "replica.alter.log.dirs.io.max.bytes.per.second", Type: Long, Default: noLimit, Scope: ClusterWide, check: atLeast(0),
		Needless: true, Doc: "Has no effect here: a node has one data directory, so replicas do not move between directories.",
	},
	{
		Name: "replica.fetch.backoff.ms", Type: Int, Default: "1000", check: atLeast(0),
		Doc: "How long a follower waits after an error.",
	},
	{
		Name: "replica.fetch.max.bytes", Type: Int, Default: "1048576", check: atLeast(0),
		Doc: "How many bytes of a partition a follower asks for at once.",
	},
	{
		Name: "replica.fetch.min.bytes", Type: Int, Default: "1",
		Doc: "How many bytes a leader waits for before it answers a follower.",
	},
	{
		Name: "replica.fetch.response.max.bytes", Type: Int, Default: "10485760", check: atLeast(0),
		Doc: "How many bytes a follower asks for at once in all.",
	},
	{
		Name: "replica.fetch.wait.max.ms", Type: Int, Default: "500",
		Doc: "How long a leader waits for records before it answers a follower.",
	},
	{
		Name: "replica.high.watermark.checkpoint.interval.ms", Type: Long, Default: "5000",
		Needless: true, Doc: "Has no effect here: the high watermark is part of each checkpoint.",
	},
	{
		Name: "replica.lag.time.max.ms", Type: Long, Default: "30000",
		Doc: "How long a follower may be behind before it counts as out of sync.",
	},
	{
		Name: "replica.selector.class", Type: String, Null: true,
		Doc: "The class that picks the replica from which a client reads: with the one of Kafka's that is aware of racks a client that names its rack reads from a replica there; other classes have no effect.",
	},
	{
		Name: "replica.socket.receive.buffer.bytes", Type: Int, Default: "65536",
		Needless: true, Doc: "Has no effect here: the system sizes the buffers of connections between nodes.",
	},
	{
		Name: "replica.socket.timeout.ms", Type: Int, Default: "30000",
		Needless: true, Doc: "Has no effect here: a connection between nodes is given up when nothing has come for some seconds.",
	},
	{
		Name: "replication.quota.window.num", Type: Int, Default: "11", check: atLeast(1),
		Needless: true, Doc: "Has no effect here: replication quotas are measured over one window, see replication.quota.window.size.seconds.",
	},
	{
		Name: "replication.quota.window.size.seconds", Type: Int, Default: "1", check: atLeast(1),
		Doc: "How long a window of replication quotas is.",
	},
	{
		Name: "request.timeout.ms", Type: Int, Default: "30000",
		Doc: "How long a node waits for another node's answer.",
	},
	{
		Name: "socket.connection.setup.timeout.max.ms", Type: Long, Default: "30000",
		Needless: true, Doc: "Has no effect here: how long connecting to another node may take is fixed.",
	},
	{
		Name: "socket.connection.setup.timeout.ms", Type: Long, Default: "10000",
		Needless: true, Doc: "Has no effect here: how long connecting to another node may take is fixed.",
	},
	{
		Name: "socket.listen.backlog.size", Type: Int, Default: "50", check: atLeast(1),
		Needless: true, Doc: "Has no effect here: the operating system's limit applies.",
	},
	{
		Name: "socket.receive.buffer.bytes", Type: Int, Default: "102400", check: atLeast(-1),
		Needless: true, Doc: "Has no effect here: the operating system sizes the buffers of sockets.",
	},
	{
		Name: "socket.request.max.bytes", Type: Int, Default: "104857600", check: atLeast(1),
		Doc: "The largest request that is read; a connection that sends a larger one is closed.",
	},
	{
		Name: "socket.send.buffer.bytes", Type: Int, Default: "102400", check: atLeast(-1),
		Needless: true, Doc: "Has no effect here: the operating system sizes the buffers of sockets.",
	},
	{
		Name: "telemetry.max.bytes", Type: Int, Default: "1048576", check: atLeast(1),
		Doc: "The largest push of client metrics that is accepted.", Needs: "client metrics",
	},
	{
		Name: "unclean.leader.election.enable", Type: Bool, Default: "false", Scope: ClusterWide,
		Doc: "Whether a replica that is behind may become leader when no other is left, for topics that do not set their own.",
	},
}
