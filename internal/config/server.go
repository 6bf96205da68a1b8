package config

import (
	"math"
	"net/netip"
	"time"
)

// Server are the settings of a broker that are not a topic's. They never change; a
// change of a config brings new ones.
type Server struct {
	// Requests and connections.
	MaxRequestBytes        int // socket.request.max.bytes
	MaxConnections         int
	MaxConnectionsPerIP    int
	MaxConnectionsOfIP     map[netip.Addr]int // max.connections.per.ip.overrides
	MaxIdle                time.Duration      // connections.max.idle.ms
	RequestMemory          int64              // queued.max.request.bytes; -1: a share of the memory that there is
	WorkMemory             int64              // bytes; 0: a share of the memory that there is
	FetchMaxBytes          int
	FetchSessions          int // max.incremental.fetch.session.cache.slots
	MaxDescribedPartitions int // max.request.partition.size.limit
	RetentionCheckInterval time.Duration
	RequestTimeout         time.Duration
	Congestion             string // leat.tcp.congestion.control; "": the system's
	LocalCongestion        string // of connections from this machine

	// Storage.
	JournalBytes int64
	ScrubRate    int64 // bytes a second; 0: none

	// StrayRetention is how long directories of unknown topics are kept; -1: for ever.
	StrayRetention time.Duration

	// Topics.
	AutoCreateTopics  bool
	DeleteTopics      bool // delete.topic.enable
	NumPartitions     int32
	ReplicationFactor int16

	Groups Groups

	// The topics in which coordinators keep their state, when they are made.
	Offsets, Transactions, ShareState StateTopic
}

// Groups are the settings of groups and their committed offsets.
type Groups struct {
	InitialDelay           time.Duration // before the first rebalance of an empty group
	MinSession, MaxSession time.Duration // what a member may ask for
	MaxSize                int           // members
	Memory                 int64         // bytes; 0: a share of the memory that there is
	MaxOffsetMetadata      int           // bytes
	OffsetsRetention       time.Duration
	OffsetsRetentionCheck  time.Duration
	OffsetsCommitTimeout   time.Duration
}

// StateTopic is what a topic of a coordinator is made with.
type StateTopic struct {
	Partitions        int32
	ReplicationFactor int16
	SegmentBytes      int64
	MinISR            int // 0: as min.insync.replicas
}

// MinSegmentBytes is the smallest segment.bytes that a topic may have.
const MinSegmentBytes = aMebi

// Server are the settings of this broker.
func (v View) Server() Server {
	r := newReader(v, brokerTable, nil)
	return Server{
		MaxRequestBytes:        int(r.int("socket.request.max.bytes")),
		MaxConnections:         int(r.int("max.connections")),
		MaxConnectionsPerIP:    int(r.int("max.connections.per.ip")),
		MaxConnectionsOfIP:     parseIPs(r.text("max.connections.per.ip.overrides")),
		MaxIdle:                r.millis("connections.max.idle.ms"),
		RequestMemory:          r.int("queued.max.request.bytes"),
		WorkMemory:             r.int("leat.work.memory.bytes"),
		FetchMaxBytes:          int(r.int("fetch.max.bytes")),
		FetchSessions:          int(r.int("max.incremental.fetch.session.cache.slots")),
		MaxDescribedPartitions: int(r.int("max.request.partition.size.limit")),
		RetentionCheckInterval: r.millis("log.retention.check.interval.ms"),
		RequestTimeout:         r.millis("request.timeout.ms"),
		Congestion:             r.text("leat.tcp.congestion.control"),
		LocalCongestion:        r.text("leat.tcp.congestion.control.local"),

		JournalBytes: r.int("leat.journal.bytes"),
		ScrubRate:    r.int("leat.scrub.bytes.per.second"),

		StrayRetention: r.millis("leat.stray.retention.ms"),

		AutoCreateTopics:  r.bool("auto.create.topics.enable"),
		DeleteTopics:      r.bool("delete.topic.enable"),
		NumPartitions:     int32(r.int("num.partitions")),
		ReplicationFactor: int16(min(r.int("default.replication.factor"), math.MaxInt16)),

		Groups: Groups{
			InitialDelay:          r.millis("group.initial.rebalance.delay.ms"),
			MinSession:            r.millis("group.min.session.timeout.ms"),
			MaxSession:            r.millis("group.max.session.timeout.ms"),
			MaxSize:               int(r.int("group.max.size")),
			Memory:                r.int("leat.group.memory.bytes"),
			MaxOffsetMetadata:     int(r.int("offset.metadata.max.bytes")),
			OffsetsRetention:      Millis(r.int("offsets.retention.minutes") * minuteMillis),
			OffsetsRetentionCheck: r.millis("offsets.retention.check.interval.ms"),
			OffsetsCommitTimeout:  r.millis("offsets.commit.timeout.ms"),
		},

		Offsets:      r.stateTopic("offsets.topic.", ""),
		Transactions: r.stateTopic("transaction.state.log.", "transaction.state.log.min.isr"),
		ShareState:   r.stateTopic("share.coordinator.state.topic.", "share.coordinator.state.topic.min.isr"),
	}
}

func (r configReader) stateTopic(prefix, minISR string) StateTopic {
	t := StateTopic{
		Partitions:        int32(r.int(prefix + "num.partitions")),
		ReplicationFactor: int16(r.int(prefix + "replication.factor")),
		SegmentBytes:      r.int(prefix + "segment.bytes"),
	}
	if minISR != "" {
		t.MinISR = int(r.int(minISR))
	}
	return t
}
