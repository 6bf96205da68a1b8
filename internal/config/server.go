package config

import (
	"math"
	"net/netip"
	"time"
)

// Server are the values of a broker's configs, without those that are defaults of topics. They
// never change: a change of a config makes new ones.
type Server struct {
	// Requests and connections.
	MaxRequestBytes        int // socket.request.max.bytes
	MaxConnections         int
	MaxConnectionsPerIP    int
	MaxConnectionsOfIP     map[netip.Addr]int // max.connections.per.ip.overrides
	MaxIdle                time.Duration      // connections.max.idle.ms
	RequestMemory          int64              // queued.max.request.bytes; -1: a share of the available memory
	WorkMemory             int64              // bytes; 0: a share of the available memory
	FetchMaxBytes          int
	FetchSessions          int // max.incremental.fetch.session.cache.slots
	MaxDescribedPartitions int // max.request.partition.size.limit
	RequestTimeout         time.Duration

	Network
	Storage Storage

	// Topics.
	AutoCreateTopics  bool
	DeleteTopics      bool // delete.topic.enable
	NumPartitions     int32
	ReplicationFactor int16
	FactorSet         bool // default.replication.factor is not the default

	// Nodes.
	Voters            int           // of the metadata quorum at most
	VoterAway         time.Duration // how long one of them may be away
	SessionTimeout    time.Duration // after which a silent node is fenced
	HeartbeatInterval time.Duration // broker.heartbeat.interval.ms
	BalanceLeaders    bool          // auto.leader.rebalance.enable
	BalanceInterval   time.Duration // leader.imbalance.check.interval.seconds

	Replication Replication
	Quotas      Quotas

	Groups Groups
	Txns   Txns

	StateTopics
}

// Network are settings of connections.
type Network struct {
	Congestion      string // leat.tcp.congestion.control; "": the system's choice
	LocalCongestion string // the same for connections from this machine
	MetricsLogin    bool   // leat.http.metrics.login
}

// StateTopics are the topics in which coordinators keep their state.
type StateTopics struct{ Offsets, Transactions, ShareState StateTopic }

// Storage are the settings of the logs' store.
type Storage struct {
	JournalBytes   int64
	ScrubRate      int64         // bytes a second; 0: none
	RetentionCheck time.Duration // between two applications of retention
	// StrayRetention is how long directories of unknown topics are kept; -1: until the operator
	// deletes them.
	StrayRetention time.Duration

	Cleaner Cleaner
}

// Replication are the settings of the replicas on this broker.
type Replication struct {
	FetchBackoff   time.Duration // the pause of a follower after an error
	FetchWait      time.Duration // how long a leader waits for records
	FetchMinBytes  int
	FetchMaxBytes  int           // of all partitions: replica.fetch.response.max.bytes
	PartitionBytes int           // of one partition: replica.fetch.max.bytes
	Lag            time.Duration // replica.lag.time.max.ms
	LeaderRate     int64         // leader.replication.throttled.rate, bytes a second
	FollowerRate   int64         // follower.replication.throttled.rate, bytes a second
	QuotaWindow    time.Duration // over which those rates are measured
	NearestReplica bool          // replica.selector.class has readers read from a replica in their rack
}

// rackAwareSelector is the replica.selector.class that sends readers to a replica in their rack.
const rackAwareSelector = "org.apache.kafka.common.replica.RackAwareReplicaSelector"

func (r configReader) readReplication() Replication {
	return Replication{
		FetchBackoff:   r.readMillis("replica.fetch.backoff.ms"),
		FetchWait:      r.readMillis("replica.fetch.wait.max.ms"),
		FetchMinBytes:  int(r.readInt("replica.fetch.min.bytes")),
		FetchMaxBytes:  int(r.readInt("replica.fetch.response.max.bytes")),
		PartitionBytes: int(r.readInt("replica.fetch.max.bytes")),
		Lag:            r.readMillis("replica.lag.time.max.ms"),
		LeaderRate:     r.readInt("leader.replication.throttled.rate"),
		FollowerRate:   r.readInt("follower.replication.throttled.rate"),
		QuotaWindow:    time.Duration(r.readInt("replication.quota.window.size.seconds")) * time.Second,
		NearestReplica: r.readString("replica.selector.class") == rackAwareSelector,
	}
}

// Quotas are the settings of how clients' use is measured.
type Quotas struct {
	Windows, MutationWindows Windows // quota.window, controller.quota.window
	ConnectionRate           int64   // max.connection.creation.rate; 0: no limit
}

// Windows are time windows over which something is measured.
type Windows struct {
	Number int
	Length time.Duration
}

func (r configReader) readQuotas() Quotas {
	windows := func(prefix string) Windows {
		return Windows{int(r.readInt(prefix + ".num")), time.Duration(r.readInt(prefix+".size.seconds")) * time.Second}
	}
	q := Quotas{
		Windows: windows("quota.window"), MutationWindows: windows("controller.quota.window"),
		ConnectionRate: r.readInt("max.connection.creation.rate"),
	}
	if q.ConnectionRate == math.MaxInt32 {
		q.ConnectionRate = 0
	}
	return q
}

// Groups are the settings of groups and their committed offsets.
type Groups struct {
	InitialDelay           time.Duration // before the first rebalance of an empty group
	MinSession, MaxSession time.Duration // the range from which a member may choose
	MaxSize                int           // members
	Memory                 int64         // bytes; 0: a share of the available memory
	MaxOffsetMetadata      int           // bytes
	OffsetsRetention       time.Duration
	OffsetsRetentionCheck  time.Duration
	OffsetsCommitTimeout   time.Duration
}

// Txns are the settings of transactions.
type Txns struct {
	MaxTimeout     time.Duration
	Expiration     time.Duration // of an id that is not used
	ExpirationScan time.Duration
	// VerifyPartitions tells whether the leader of a partition asks the coordinator before it takes the first records of a
	// transaction.
	VerifyPartitions bool
	// AddWait is how long partitions that are added wait for the end of the transaction before; below 0: they do not wait.
	AddWait time.Duration
}

// StateTopic are the settings with which a coordinator's topic is created.
type StateTopic struct {
	Partitions        int32
	ReplicationFactor int16
	FactorSet         bool // the number of replicas is not the default
	SegmentBytes      int64
	MinISR            int  // 0: as min.insync.replicas
	MinISRSet         bool // MinISR is not the default
}

// MinSegmentBytes is the smallest segment.bytes that a topic may have.
const MinSegmentBytes = aMebi

// Server are the settings of this broker.
func (v View) Server() Server {
	r := newReader(v, brokerTable, nil)
	_, factorSet := r.readValue("default.replication.factor")
	return Server{
		MaxRequestBytes:        int(r.readInt("socket.request.max.bytes")),
		MaxConnections:         int(r.readInt("max.connections")),
		MaxConnectionsPerIP:    int(r.readInt("max.connections.per.ip")),
		MaxConnectionsOfIP:     parseIPCounts(r.readString("max.connections.per.ip.overrides")),
		MaxIdle:                r.readMillis("connections.max.idle.ms"),
		RequestMemory:          r.readInt("queued.max.request.bytes"),
		WorkMemory:             r.readInt("leat.work.memory.bytes"),
		FetchMaxBytes:          int(r.readInt("fetch.max.bytes")),
		FetchSessions:          int(r.readInt("max.incremental.fetch.session.cache.slots")),
		MaxDescribedPartitions: int(r.readInt("max.request.partition.size.limit")),
		RequestTimeout:         r.readMillis("request.timeout.ms"),

		Network: Network{
			Congestion: r.readString("leat.tcp.congestion.control"), LocalCongestion: r.readString("leat.tcp.congestion.control.local"),
			MetricsLogin: r.readBool("leat.http.metrics.login"),
		},

		Storage: Storage{
			JournalBytes:   r.readInt("leat.journal.bytes"),
			ScrubRate:      r.readInt("leat.scrub.bytes.per.second"),
			RetentionCheck: r.readMillis("log.retention.check.interval.ms"),
			StrayRetention: readStrayRetention(r),
			Cleaner:        readCleaner(r),
		},

		AutoCreateTopics:  r.readBool("auto.create.topics.enable"),
		DeleteTopics:      r.readBool("delete.topic.enable"),
		NumPartitions:     int32(r.readInt("num.partitions")),
		ReplicationFactor: int16(min(r.readInt("default.replication.factor"), math.MaxInt16)),
		FactorSet:         factorSet,

		Voters:            int(r.readInt("leat.quorum.voters")),
		VoterAway:         r.readMillis("leat.quorum.voter.away.ms"),
		SessionTimeout:    r.readMillis("broker.session.timeout.ms"),
		HeartbeatInterval: r.readMillis("broker.heartbeat.interval.ms"),
		BalanceLeaders:    r.readBool("auto.leader.rebalance.enable"),
		BalanceInterval:   Millis(min(r.readInt("leader.imbalance.check.interval.seconds"), maxInt32) * secondMillis),

		Replication: r.readReplication(),
		Quotas:      r.readQuotas(),

		Groups: Groups{
			InitialDelay:          r.readMillis("group.initial.rebalance.delay.ms"),
			MinSession:            r.readMillis("group.min.session.timeout.ms"),
			MaxSession:            r.readMillis("group.max.session.timeout.ms"),
			MaxSize:               int(r.readInt("group.max.size")),
			Memory:                r.readInt("leat.group.memory.bytes"),
			MaxOffsetMetadata:     int(r.readInt("offset.metadata.max.bytes")),
			OffsetsRetention:      Millis(r.readInt("offsets.retention.minutes") * minuteMillis),
			OffsetsRetentionCheck: r.readMillis("offsets.retention.check.interval.ms"),
			OffsetsCommitTimeout:  r.readMillis("offsets.commit.timeout.ms"),
		},

		Txns: Txns{
			MaxTimeout:       r.readMillis("transaction.max.timeout.ms"),
			Expiration:       r.readMillis("transactional.id.expiration.ms"),
			ExpirationScan:   r.readMillis("transaction.remove.expired.transaction.cleanup.interval.ms"),
			VerifyPartitions: r.readBool("transaction.partition.verification.enable"),
			AddWait:          r.readAddWait(),
		},

		StateTopics: StateTopics{
			Offsets:      r.readStateTopic("offsets.topic.", ""),
			Transactions: r.readStateTopic("transaction.state.log.", "transaction.state.log.min.isr"),
			ShareState:   r.readStateTopic("share.coordinator.state.topic.", "share.coordinator.state.topic.min.isr"),
		},
	}
}

// readAddWait is below 0 if partitions that are added do not wait.
func (r configReader) readAddWait() time.Duration {
	if wait := r.readMillis("add.partitions.to.txn.retry.backoff.max.ms"); wait > 0 {
		return wait
	}
	return -1
}

func (r configReader) readStateTopic(prefix, minISR string) StateTopic {
	t := StateTopic{
		Partitions:        int32(r.readInt(prefix + "num.partitions")),
		ReplicationFactor: int16(r.readInt(prefix + "replication.factor")),
		SegmentBytes:      r.readInt(prefix + "segment.bytes"),
	}
	_, t.FactorSet = r.readValue(prefix + "replication.factor")
	if minISR != "" {
		t.MinISR = int(r.readInt(minISR))
		_, t.MinISRSet = r.readValue(minISR)
	}
	return t
}

// readStrayRetention is -1 unless the operator allows the node to delete such directories.
func readStrayRetention(r configReader) time.Duration {
	if !r.readBool("leat.stray.delete.enable") {
		return -1
	}
	return r.readMillis("leat.stray.retention.ms")
}
