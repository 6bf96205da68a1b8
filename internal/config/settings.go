package config

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// Compaction are the values of a topic's configs for compaction.
type Compaction struct {
	DeleteRetention time.Duration // of tombstones
	MinLag, MaxLag  time.Duration
	MinDirtyRatio   float64
}

// Settings are the values of a topic's configs on one node.
type Settings struct {
	SegmentBytes   int64
	SegmentAge     time.Duration
	SegmentJitter  time.Duration
	IndexInterval  int // bytes
	IndexBytes     int
	Preallocate    bool
	RetentionAge   time.Duration // -1: for ever
	RetentionBytes int64         // -1: no limit
	Delete         bool          // cleanup.policy has delete
	Compact        bool          // cleanup.policy has compact

	// FlushMessages is 1 if every acknowledged record is on disk. It is unlimited if
	// flush.ms is set and flush.messages is not.
	FlushMessages   int64
	FlushAge        time.Duration // 0: never
	FileDeleteDelay time.Duration

	MaxMessageBytes      int
	MaxDecompressedBytes int
	MinISR               int
	MinISRSet            bool   // min.insync.replicas is not the default
	Compression          string // as compression.type
	GzipLevel            int
	LZ4Level             int
	ZstdLevel            int
	LogAppendTime        bool          // the broker stamps records
	TimestampBefore      time.Duration // how far a timestamp may be behind the clock
	TimestampAfter       time.Duration // how far a timestamp may be ahead of the clock
	UncleanElection      bool
	LeaderThrottled      Throttled // leader.replication.throttled.replicas
	FollowerThrottled    Throttled // follower.replication.throttled.replicas

	Compaction         Compaction
	ProducerExpiration time.Duration // a broker config that logs need
}

// Topic are the settings of a topic for which these configs are set.
func (v View) Topic(set map[string]string) Settings { return newReader(v, topicTable, set).readTopic() }

// configReader reads values in Go's types. They were checked when they were set. A later version
// may have accepted a value that this one cannot parse; it counts as not set.
type configReader struct {
	v   View
	tab *table
	set map[string]string
	src Source
}

func newReader(v View, tab *table, set map[string]string) configReader {
	return configReader{v: v, tab: tab, set: set, src: TopicSource}
}

func (r configReader) readValue(key string) (v value, explicit bool) {
	d := r.tab.byName[key]
	var e Entry
	if r.tab == brokerTable {
		e = newEntry(d, r.v.findValues(d.lookUpNames()))
		if len(e.Synonyms) > 0 {
			e.Value = d.convertUnit(e.Synonyms[0])
		}
	} else {
		e = r.v.makeEntry(d, r.set, r.src)
	}
	v, err := d.parseValue(e.Value)
	if err != nil {
		v, _ = d.parseValue(d.Default)
		return v, false
	}
	return v, e.Source != DefaultSource
}

func (r configReader) readInt(key string) int64 { v, _ := r.readValue(key); return v.n }

func (r configReader) readBool(key string) bool { v, _ := r.readValue(key); return v.b }

func (r configReader) readString(key string) string { v, _ := r.readValue(key); return v.s }

func (r configReader) readList(key string) []string { v, _ := r.readValue(key); return v.l }

// readMillis reads a time in milliseconds, as Millis converts it.
func (r configReader) readMillis(key string) time.Duration {
	return Millis(r.readInt(key))
}

// Throttled are the replicas of a topic whose replication is throttled. It never changes, and the
// zero value has none.
type Throttled struct {
	All      bool
	Replicas map[ThrottledReplica]bool
}

// ThrottledReplica names a broker's replica of a partition.
type ThrottledReplica struct{ Partition, Broker int32 }

// Has tells whether a broker's replica of a partition is throttled.
func (t *Throttled) Has(partition, broker int32) bool {
	return t.All || t.Replicas[ThrottledReplica{partition, broker}]
}

// readThrottled reads a list of partition:broker pairs, or a star for all.
func (r configReader) readThrottled(key string) (t Throttled) {
	for _, item := range r.readList(key) {
		if item == "*" {
			return Throttled{All: true}
		}
		left, right, _ := strings.Cut(item, ":")
		partition, err := strconv.ParseInt(left, 10, 32)
		broker, err2 := strconv.ParseInt(right, 10, 32)
		if err != nil || err2 != nil {
			continue // no partition or broker has such a number
		}
		if t.Replicas == nil {
			t.Replicas = map[ThrottledReplica]bool{}
		}
		t.Replicas[ThrottledReplica{int32(partition), int32(broker)}] = true
	}
	return t
}

// Millis is n milliseconds, but at most the longest Duration. For a negative n it is -1, which
// stands for "for ever" or "no limit".
func Millis(n int64) time.Duration {
	switch {
	case n < 0:
		return -1
	case n > int64(math.MaxInt64/time.Millisecond):
		return math.MaxInt64
	}
	return time.Duration(n) * time.Millisecond
}

func (r configReader) readTopic() Settings {
	s := Settings{
		SegmentBytes:         r.readInt("segment.bytes"),
		SegmentAge:           r.readMillis("segment.ms"),
		SegmentJitter:        r.readMillis("segment.jitter.ms"),
		IndexInterval:        int(r.readInt("index.interval.bytes")),
		IndexBytes:           int(r.readInt("segment.index.bytes")),
		Preallocate:          r.readBool("preallocate"),
		RetentionAge:         r.readMillis("retention.ms"),
		RetentionBytes:       max(-1, r.readInt("retention.bytes")),
		FileDeleteDelay:      r.readMillis("file.delete.delay.ms"),
		MaxMessageBytes:      int(r.readInt("max.message.bytes")),
		MaxDecompressedBytes: int(r.readInt("max.decompressed.message.bytes")),
		MinISR:               int(r.readInt("min.insync.replicas")),
		Compression:          r.readString("compression.type"),
		GzipLevel:            int(r.readInt("compression.gzip.level")),
		LZ4Level:             int(r.readInt("compression.lz4.level")),
		ZstdLevel:            int(r.readInt("compression.zstd.level")),
		LogAppendTime:        r.readString("message.timestamp.type") == "LogAppendTime",
		TimestampBefore:      r.readMillis("message.timestamp.before.max.ms"),
		TimestampAfter:       r.readMillis("message.timestamp.after.max.ms"),
		UncleanElection:      r.readBool("unclean.leader.election.enable"),
		LeaderThrottled:      r.readThrottled("leader.replication.throttled.replicas"),
		FollowerThrottled:    r.readThrottled("follower.replication.throttled.replicas"),
		Compaction: Compaction{
			DeleteRetention: r.readMillis("delete.retention.ms"),
			MinLag:          r.readMillis("min.compaction.lag.ms"),
			MaxLag:          r.readMillis("max.compaction.lag.ms"),
		},
	}
	dirty, _ := r.readValue("min.cleanable.dirty.ratio")
	s.Compaction.MinDirtyRatio = dirty.f
	for _, p := range r.readList("cleanup.policy") {
		s.Delete = s.Delete || p == "delete"
		s.Compact = s.Compact || p == "compact"
	}
	_, s.MinISRSet = r.readValue("min.insync.replicas")
	s.readFlush(r)
	s.ProducerExpiration = newReader(r.v, brokerTable, nil).readMillis("producer.id.expiration.ms")
	return s
}

// readFlush reads the two configs that decide when records are written to disk.
func (s *Settings) readFlush(r configReader) {
	messages, explicit := r.readValue("flush.messages")
	s.FlushMessages = messages.n
	after, timed := r.readValue("flush.ms")
	if !timed || after.n == math.MaxInt64 {
		return
	}
	s.FlushAge = max(Millis(after.n), time.Millisecond) // the config's 0 means at once, and that of FlushAge never
	if !explicit {
		s.FlushMessages = math.MaxInt64
	}
}
