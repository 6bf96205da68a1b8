package replica

import (
	"math"
	"time"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage"
)

// KeepCompression is the codec of compression.type=producer: batches are stored as they
// were sent.
const KeepCompression record.Codec = -1

// Settings are a topic's configs in the form that its partitions and appenders use. They
// never change: a changed config makes new Settings.
type Settings struct {
	*config.Settings
	Internal bool         // the topic is the broker's own
	Codec    record.Codec // that batches are stored with
	Level    int          // of the codec
	// Before and After say how far the timestamps of records may be from the clock, in ms.
	Before, After int64

	log storage.Options
}

func newSettings(m *config.Settings, internal bool) *Settings {
	s := &Settings{
		Settings: m,
		log: storage.Options{
			SegmentBytes: m.SegmentBytes, SegmentAge: m.SegmentAge, SegmentJitter: m.SegmentJitter,
			IndexInterval: m.IndexInterval, IndexBytes: m.IndexBytes, Preallocate: m.Preallocate,
			RetentionAge: m.RetentionAge, RetentionBytes: m.RetentionBytes, Delete: m.Delete,
			FlushMessages: m.FlushMessages, FlushAge: m.FlushAge,
			FileDeleteDelay: m.FileDeleteDelay, ProducerExpiration: m.ProducerExpiration,
			Compact: m.Compact, Compaction: storage.Compaction{
				MinLag: m.Compaction.MinLag, MaxLag: m.Compaction.MaxLag,
				DirtyRatio: m.Compaction.MinDirtyRatio, DeleteRetention: m.Compaction.DeleteRetention,
			},
		},
		Internal: internal,
		Codec:    KeepCompression,
		Before:   boundMillis(m.TimestampBefore),
		After:    boundMillis(m.TimestampAfter),
	}
	if m.Compact { // the active segment is never compacted, so it is rolled before a record waits too long in it
		s.log.SegmentAge = min(s.log.SegmentAge, m.Compaction.MaxLag)
	}
	if m.Compact && internal { // whoever becomes a coordinator reads the active segment whole
		s.log.SegmentBytes = min(s.log.SegmentBytes, internalSegment)
	}
	if c, err := record.ParseCodec(m.Compression); err == nil {
		s.Codec = c
	}
	switch s.Codec {
	case record.Gzip:
		s.Level = max(0, m.GzipLevel) // the default level is -1 in the config and 0 here
	case record.LZ4:
		s.Level = m.LZ4Level
	case record.Zstd:
		s.Level = m.ZstdLevel
	default: // the others have no levels
	}
	return s
}

// internalSegment is how many bytes a segment of a compacted internal topic has at most, whatever segment.bytes says: a
// coordinator that loads reads as much that is not compacted, and a few times that where compaction is not due yet.
const internalSegment = 8 << 20

// boundMillis is d in ms. The longest Duration stands for longer times too, and has no limit
// in ms.
func boundMillis(d time.Duration) int64 {
	if d == math.MaxInt64 {
		return math.MaxInt64
	}
	return d.Milliseconds()
}
