package replica

import (
	"time"

	"github.com/leatstream/leat/internal/storage"
)

// Settings are what a topic's configs mean to its partitions and to who appends to them.
type Settings struct {
	Storage storage.Options

	MinISR          int   // min.insync.replicas
	MaxMessageBytes int   // max.message.bytes, of a whole batch
	LogAppendTime   bool  // message.timestamp.type
	TimestampBefore int64 // message.timestamp.before.max.ms
	TimestampAfter  int64 // message.timestamp.after.max.ms
	Compact         bool  // cleanup.policy has compact: every record needs a key
	// Compression is what batches are stored with: a codec's number, or
	// KeepCompression for whatever the producer chose.
	Compression      int8
	CompressionLevel int
}

// KeepCompression is compression.type=producer.
const KeepCompression = -1

// DefaultSettings are those of a topic without any config set.
func DefaultSettings() Settings {
	return Settings{
		Storage: storage.Options{
			SegmentBytes:       1 << 30,
			SegmentAge:         7 * 24 * time.Hour,
			IndexInterval:      4096,
			IndexBytes:         10 << 20,
			RetentionAge:       7 * 24 * time.Hour,
			RetentionBytes:     -1,
			FlushMessages:      1,
			FileDeleteDelay:    time.Minute,
			Delete:             true,
			ProducerExpiration: 24 * time.Hour,
		},
		MinISR:          1,
		MaxMessageBytes: 1<<20 + 12,
		TimestampBefore: 1<<63 - 1,
		TimestampAfter:  3600_000,
		Compression:     KeepCompression,
	}
}
