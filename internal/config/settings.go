package config

import (
	"math"
	"time"
)

// Settings are what a topic's configs are worth on one node, ready for use.
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

	// FlushMessages is 1 where an acknowledged record is on disk. Setting flush.ms
	// and not flush.messages leaves it to the page cache: then it is unlimited.
	FlushMessages   int64
	FlushAge        time.Duration // 0: never
	FileDeleteDelay time.Duration

	MaxMessageBytes      int
	MaxDecompressedBytes int
	MinISR               int
	Compression          string // as compression.type
	GzipLevel            int
	LZ4Level             int
	ZstdLevel            int
	LogAppendTime        bool          // the broker stamps records
	TimestampBefore      time.Duration // how far a timestamp may lie behind the clock
	TimestampAfter       time.Duration // and ahead of it
	UncleanElection      bool

	DeleteRetention    time.Duration // of tombstones
	MinCompactionLag   time.Duration
	MaxCompactionLag   time.Duration
	MinDirtyRatio      float64
	ProducerExpiration time.Duration // a broker's setting that logs need
}

// Topic are the settings of a topic on which these configs are set.
func (v View) Topic(set map[string]string) Settings { return newReader(v, topicTable, set).topic() }

// configReader reads typed values. What is stored was checked when it was set; a
// value that a later version took, and that does not parse here, counts as unset.
type configReader struct {
	v   View
	tab *table
	set map[string]string
	src Source
}

func newReader(v View, tab *table, set map[string]string) configReader {
	return configReader{v: v, tab: tab, set: set, src: TopicSource}
}

func (r configReader) value(key string) (v value, explicit bool) {
	d := r.tab.byName[key]
	var e Entry
	if r.tab == brokerTable {
		e = newEntry(d, r.v.chain(d.names()))
		if len(e.Synonyms) > 0 {
			e.Value = d.convert(e.Synonyms[0])
		}
	} else {
		e = r.v.entry(d, r.set, r.src)
	}
	v, err := d.parse(e.Value)
	if err != nil {
		v, _ = d.parse(d.Default)
		return v, false
	}
	return v, e.Source != DefaultSource
}

func (r configReader) int(key string) int64 { v, _ := r.value(key); return v.n }

func (r configReader) bool(key string) bool { v, _ := r.value(key); return v.b }

func (r configReader) text(key string) string { v, _ := r.value(key); return v.s }

func (r configReader) list(key string) []string { v, _ := r.value(key); return v.l }

// millis is a time in milliseconds, without passing the longest Duration; negative
// numbers stay -1.
func (r configReader) millis(key string) time.Duration {
	return Millis(r.int(key))
}

// Millis is a Duration of n milliseconds: the longest one where n is more than
// that, and -1, which stands for "for ever" or "no limit", where n is negative.
func Millis(n int64) time.Duration {
	switch {
	case n < 0:
		return -1
	case n > int64(math.MaxInt64/time.Millisecond):
		return math.MaxInt64
	}
	return time.Duration(n) * time.Millisecond
}

func (r configReader) topic() Settings {
	s := Settings{
		SegmentBytes:         r.int("segment.bytes"),
		SegmentAge:           r.millis("segment.ms"),
		SegmentJitter:        r.millis("segment.jitter.ms"),
		IndexInterval:        int(r.int("index.interval.bytes")),
		IndexBytes:           int(r.int("segment.index.bytes")),
		Preallocate:          r.bool("preallocate"),
		RetentionAge:         r.millis("retention.ms"),
		RetentionBytes:       max(-1, r.int("retention.bytes")),
		FileDeleteDelay:      r.millis("file.delete.delay.ms"),
		MaxMessageBytes:      int(r.int("max.message.bytes")),
		MaxDecompressedBytes: int(r.int("max.decompressed.message.bytes")),
		MinISR:               int(r.int("min.insync.replicas")),
		Compression:          r.text("compression.type"),
		GzipLevel:            int(r.int("compression.gzip.level")),
		LZ4Level:             int(r.int("compression.lz4.level")),
		ZstdLevel:            int(r.int("compression.zstd.level")),
		LogAppendTime:        r.text("message.timestamp.type") == "LogAppendTime",
		TimestampBefore:      r.millis("message.timestamp.before.max.ms"),
		TimestampAfter:       r.millis("message.timestamp.after.max.ms"),
		UncleanElection:      r.bool("unclean.leader.election.enable"),
		DeleteRetention:      r.millis("delete.retention.ms"),
		MinCompactionLag:     r.millis("min.compaction.lag.ms"),
		MaxCompactionLag:     r.millis("max.compaction.lag.ms"),
	}
	dirty, _ := r.value("min.cleanable.dirty.ratio")
	s.MinDirtyRatio = dirty.f
	for _, p := range r.list("cleanup.policy") {
		s.Delete = s.Delete || p == "delete"
		s.Compact = s.Compact || p == "compact"
	}
	s.flush(r)
	s.ProducerExpiration = newReader(r.v, brokerTable, nil).millis("producer.id.expiration.ms")
	return s
}

// flush reads the two settings that say when records go to disk.
func (s *Settings) flush(r configReader) {
	messages, explicit := r.value("flush.messages")
	s.FlushMessages = messages.n
	after, timed := r.value("flush.ms")
	if !timed || after.n == math.MaxInt64 {
		return
	}
	s.FlushAge = max(Millis(after.n), time.Millisecond) // 0 asks for "at once"; 0 here is never
	if !explicit {
		s.FlushMessages = math.MaxInt64
	}
}
