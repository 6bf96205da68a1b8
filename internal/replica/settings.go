package replica

import (
	"math"
	"time"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage"
)

// KeepCompression is compression.type=producer: batches stay as they were sent.
const KeepCompression record.Codec = -1

// Settings are what a topic's configs mean to its partitions and to who appends to
// them. They never change; a change of a config brings new ones.
type Settings struct {
	*config.Settings
	Internal bool         // the topic is the broker's own
	Codec    record.Codec // what batches are stored with
	Level    int          // of the codec
	// Before and After bound the timestamps of records, in ms from the clock.
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
		Before:   bound(m.TimestampBefore),
		After:    bound(m.TimestampAfter),
	}
	if c, err := record.ParseCodec(m.Compression); err == nil {
		s.Codec = c
	}
	switch s.Codec {
	case record.Gzip:
		s.Level = max(0, m.GzipLevel) // -1 is the default's name, 0 is it here
	case record.LZ4:
		s.Level = m.LZ4Level
	case record.Zstd:
		s.Level = m.ZstdLevel
	default: // the others have no levels
	}
	return s
}

// bound is d in ms; the longest Duration stands for any number that it cannot hold.
func bound(d time.Duration) int64 {
	if d == math.MaxInt64 {
		return math.MaxInt64
	}
	return d.Milliseconds()
}
