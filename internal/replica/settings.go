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
		},
		Internal: internal,
		Codec:    KeepCompression,
		Before:   boundMillis(m.TimestampBefore),
		After:    boundMillis(m.TimestampAfter),
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

// boundMillis is d in ms. The longest Duration stands for longer times too, and has no limit
// in ms.
func boundMillis(d time.Duration) int64 {
	if d == math.MaxInt64 {
		return math.MaxInt64
	}
	return d.Milliseconds()
}
