// Package storage keeps partitions' logs on disk: Store is the set of them in one
// data directory with their group commit, Log is one of them.
package storage

import (
	"errors"
	"log/slog"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/vfs"
)

var (
	// ErrOffsetOutOfRange is returned for a read below the log's start or beyond its end.
	ErrOffsetOutOfRange = errors.New("offset out of range")
	// ErrOutOfOrderSequence is returned for a batch whose producer sequence does not follow.
	ErrOutOfOrderSequence = errors.New("out of order sequence")
	// ErrProducerFenced is returned for a batch with an older producer epoch than one seen before.
	ErrProducerFenced = errors.New("producer epoch is fenced")
	// ErrDiskFull is returned for an append that would use the reserved space; nothing was stored.
	ErrDiskFull = errors.New("disk full")
	// ErrFaulted is returned by a log that met damage or a failed sync and is read-only until repaired.
	ErrFaulted = errors.New("log is read-only after a fault")
	// ErrClosed is returned by a closed or deleted log.
	ErrClosed = errors.New("log is closed")
)

// LogID names a log for ever: a topic that is deleted and made again has another id.
type LogID struct {
	Topic     [16]byte
	Partition int32
}

// Config says where and how a Store keeps its logs; zero fields mean the default.
type Config struct {
	FS      vfs.FS
	Dir     string
	Logger  *slog.Logger
	BootID  string // of the running kernel; "" if unknown. The same id at the next start: the page cache survived
	Reserve int64  // bytes of the file system that appends leave free
	Journal int64  // bytes of the journal's ring

	CheckpointEvery time.Duration // 1 s
	RetentionEvery  time.Duration // how often retention is looked at
}

// Options are one log's settings, from its topic's configs.
type Options struct {
	SegmentBytes       int64
	SegmentAge         time.Duration // segment.ms
	SegmentJitter      time.Duration
	IndexInterval      int           // index.interval.bytes
	IndexBytes         int           // segment.index.bytes
	RetentionAge       time.Duration // -1: for ever
	RetentionBytes     int64         // -1: no limit
	FlushMessages      int64         // 1: an append is committed when it is on disk; more: when it is written
	FlushAge           time.Duration // flush.ms; 0: never
	Preallocate        bool
	FileDeleteDelay    time.Duration
	Delete             bool // cleanup.policy has delete
	ProducerExpiration time.Duration
}

// Store is the set of logs in one data directory.
type Store struct{}

// Open recovers a data directory. It reads what the last checkpoint and the
// journal name, not the logs.
func Open(cfg Config) (*Store, error) { panic("BUG: not built") }

// Log returns the log of one partition, making it known if it is not; files are
// opened at first use and made at the first append. committed is called, from any
// goroutine and with no lock held, whenever the committed end has moved.
func (s *Store) Log(id LogID, topic string, o Options, committed func(l *Log)) *Log {
	panic("BUG: not built")
}

// Commit makes everything appended so far durable (group commit): it runs the
// round itself when none is under way, else the one under way is followed by
// another that covers it. It does not wait for that one.
func (s *Store) Commit() { panic("BUG: not built") }

// Delete forgets a log and frees its space in the background.
func (s *Store) Delete(id LogID) { panic("BUG: not built") }

// Sweep deletes, in the background, the directories of logs for which live is
// false: topics deleted while their directories were not yet.
func (s *Store) Sweep(live func(id LogID) bool) { panic("BUG: not built") }

// Usage tells the bytes that each known log takes and the file system's space.
func (s *Store) Usage() (logs map[LogID]int64, avail, total int64) { panic("BUG: not built") }

// Close makes everything durable and closes all files.
func (s *Store) Close() error { panic("BUG: not built") }

// Item is one batch to append, and what became of it.
type Item struct {
	Batch record.Batch  // checked by the caller; offset and epoch are stamped in place
	Base  record.Offset // out: its base offset, or the earlier one's where it is a duplicate
	Next  record.Offset // out: the offset after its last record
	Start record.Offset // out: the log's start offset
	Time  int64         // out: where it is a duplicate, the first one's append time in ms (-1: none)
	Dup   bool          // out: a retry of one of the producer's last five batches: nothing was stored
	Err   error         // out: why it was not stored
}

// Log is one partition's log. Safe for concurrent use.
type Log struct{}

// ID is the log's identity.
func (l *Log) ID() LogID { panic("BUG: not built") }

// Append appends the items in order with one write. Each has its own outcome; a
// failed item leaves nothing behind and does not stop those after it, unless the
// log is unusable. Bytes are not used after it returns. In the page-cache mode
// (FlushMessages > 1) what it stored is committed when it returns; else
// Store.Commit makes it so.
func (l *Log) Append(epoch record.Epoch, items []Item) { panic("BUG: not built") }

// Configure changes the settings.
func (l *Log) Configure(o Options) { panic("BUG: not built") }

// Start is the first offset that can be read, End the one after the last record,
// Committed the one after the last record that an acknowledgement may rest on.
func (l *Log) Start() (record.Offset, error)     { panic("BUG: not built") }
func (l *Log) End() (record.Offset, error)       { panic("BUG: not built") }
func (l *Log) Committed() (record.Offset, error) { panic("BUG: not built") }

// Read finds the batches from the one that holds offset from, below limit, at
// most maxBytes of them; the first one is given whole however long it is. A last
// batch may be cut short by maxBytes, as in Kafka. nil: there is nothing below limit.
func (l *Log) Read(from, limit record.Offset, maxBytes int) (*Chunk, error) {
	panic("BUG: not built")
}

// SetStart moves the start forward (DeleteRecords, retention), durably.
func (l *Log) SetStart(o record.Offset) error { panic("BUG: not built") }

// FindTime finds the first record with a timestamp of at least ms (ListOffsets);
// ok is false where there is none.
func (l *Log) FindTime(ms int64) (at Stamp, ok bool, err error) { panic("BUG: not built") }

// MaxTime finds the record with the largest timestamp.
func (l *Log) MaxTime() (at Stamp, ok bool, err error) { panic("BUG: not built") }

// Stamp is a record's place in time.
type Stamp struct {
	Offset record.Offset
	Time   int64 // ms
	Epoch  record.Epoch
}

// BeginEpoch notes that a leader's epoch begins at the log's end.
func (l *Log) BeginEpoch(e record.Epoch) error { panic("BUG: not built") }

// EpochEnd answers OffsetForLeaderEpoch: the largest known epoch not above e, and
// the offset at which the next one begins (the log's end for the latest).
func (l *Log) EpochEnd(e record.Epoch) (record.Epoch, record.Offset, error) {
	panic("BUG: not built")
}

// EpochAt is the leader epoch of the record at an offset (NoEpoch: unknown).
func (l *Log) EpochAt(o record.Offset) record.Epoch { panic("BUG: not built") }

// Producer is one idempotent producer's state in a log.
type Producer struct {
	ID           int64
	Epoch        int16
	LastSequence int32
	LastTime     int64 // ms
	LastOffset   record.Offset
}

// Producers lists the active producers (DescribeProducers).
func (l *Log) Producers() ([]Producer, error) { panic("BUG: not built") }

// Chunk is a stretch of one segment's file. It keeps the file open until Release.
// It satisfies wire.Section.
type Chunk struct{}

// Len is its length in bytes.
func (c *Chunk) Len() int { panic("BUG: not built") }

// ReadAt reads from it; 0 is its start.
func (c *Chunk) ReadAt(b []byte, off int64) (int, error) { panic("BUG: not built") }

// Fd is the file's descriptor and the chunk's position in it.
func (c *Chunk) Fd() (fd uintptr, pos int64, ok bool) { panic("BUG: not built") }

// Release gives the chunk back.
func (c *Chunk) Release() { panic("BUG: not built") }
