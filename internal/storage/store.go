package storage

import (
	"crypto/rand"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/aside"
	"github.com/leatstream/leat/internal/storage/checkpoint"
	"github.com/leatstream/leat/internal/storage/journal"
	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/storage/space"
	"github.com/leatstream/leat/internal/vfs"
)

// LogID names a log for ever: a topic that is deleted and made again has another id.
type LogID = record.LogID

// Chunk is a stretch of a segment's file that a read found.
type Chunk = segment.Chunk

// Stamp is a record's place in time.
type Stamp = segment.Stamp

// Config says where and how a Store keeps its logs; zero fields mean the default.
type Config struct {
	FS      vfs.FS
	Dir     string
	Logger  *slog.Logger
	BootID  string // of the running kernel; "" if unknown. It tells whether a sync that failed in an earlier process matters still
	Reserve int64  // bytes of the file system that appends leave free; 128 MiB, at most a 16th of it
	Journal int64  // bytes of the journal's ring; 64 MiB

	Work *budget.Budget // on which look-ups into batches draw; nil: no bounds

	// OpenFiles is how many segment files are kept open; 1,024. Chunks that were not released
	// keep at most three quarters of them open; beyond that Read returns ErrBusy.
	OpenFiles int
	// Metadata is the index up to which the cluster's metadata are known at the start. A
	// directory that was used with later metadata is refused; 0: it is not compared.
	Metadata uint64
	// StrayRetention is how long directories are kept that the metadata do not know; a
	// week. Negative: for ever.
	StrayRetention time.Duration

	CheckpointEvery time.Duration // 1 s
	RetentionEvery  time.Duration // how often retention is looked at; 5 min
	Scrub           int64         // bytes a second that are read to look for damage; 8 MiB; negative: none

	// SyncAlone is the number of bytes of a round for one log from which on a sync of that
	// file takes the place of the journal; 192 KiB.
	SyncAlone int64
	// SyncTogether is the number of logs in a checkpoint from which on the file system is
	// synced as a whole; 64.
	SyncTogether int
}

const (
	defaultJournal = 64 << 20
	defaultOpen    = 1024
	week           = 7 * 24 * time.Hour
)

func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	setDefault(&c.Journal, defaultJournal)
	setDefault(&c.OpenFiles, defaultOpen)
	setDefault(&c.StrayRetention, week)
	setDefault(&c.CheckpointEvery, time.Second)
	setDefault(&c.RetentionEvery, 5*time.Minute)
	setDefault(&c.Scrub, defaultScrub)
	setDefault(&c.SyncAlone, syncAlone)
	setDefault(&c.SyncTogether, syncTogether)
	return c
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Store is the set of logs in one data directory.
type Store struct {
	cfg    Config
	fs     vfs.FS
	log    *slog.Logger
	files  *segment.Files
	points *checkpoint.Table
	space  *space.Space
	volume volume
	syncs  syncs
	dirs   directories
	strays aside.Strays
	faults faults
	losses losses

	commit  committer
	journal *journal.Journal
	keeper  keeper

	opened     time.Time     // when the store was
	metadata   atomic.Uint64 // see NoteMetadata
	remembered atomic.Uint64 // of metadata, what the newest checkpoint has

	journalLost atomic.Bool // the operator was told that the journal cannot be written

	mu     sync.Mutex
	logs   map[LogID]*Log // guarded by mu
	closed bool           // guarded by mu
	// leaving counts, for each deleted log, what is left of it; guarded by mu.
	leaving map[LogID]int

	waiting map[LogID]bool // guarded by mu: logs of which only the journal has the last records, since the disk is full

	closing atomic.Bool
	quit    chan struct{}
	work    sync.WaitGroup
	// background runs work that takes long beside the loops; only the keeper calls it.
	background func(func())
}

// Open recovers a data directory. It reads what the last checkpoint and the journal name,
// not the logs.
func Open(cfg Config) (*Store, error) {
	s, err := open(cfg)
	if err != nil {
		return nil, err
	}
	s.background = s.work.Go
	s.commit.start()
	s.work.Go(s.keeper.loop)
	return s, nil
}

// open recovers the directory. Nothing runs in the background yet.
func open(cfg Config) (*Store, error) {
	cfg = cfg.withDefaults()
	s := &Store{cfg: cfg, fs: cfg.FS, log: cfg.Logger, logs: map[LogID]*Log{}, leaving: map[LogID]int{}, quit: make(chan struct{}), opened: time.Now()}
	s.syncs.s = s
	s.files = segment.NewFiles(cfg.FS, cfg.OpenFiles, cfg.Logger, s.syncs.file)
	s.files.BoundReaders(max(cfg.OpenFiles*3/4, 1))
	s.dirs.init(s)
	s.losses.s = s
	s.commit.init(s)
	s.keeper.init(s)
	if err := s.recover(); err != nil {
		s.volume.end()
		s.syncs.close()
		return nil, err
	}
	return s, nil
}

// Log returns the log of one partition, making it known if it is not; files are opened at
// first use and made at the first append. committed is called, from any goroutine and with
// no lock held, whenever the committed end has moved; it is not called for what Append or
// Configure itself committed.
func (s *Store) Log(id LogID, topic string, o Options, committed func(l *Log)) *Log {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.logs[id]; l != nil {
		return l
	}
	l := newLog(s, id, topic, o, committed)
	if s.closed {
		l.state.Store(int32(logClosed))
		return l
	}
	s.logs[id] = l
	return l
}

// all lists the known logs.
func (s *Store) all() []*Log {
	s.mu.Lock()
	defer s.mu.Unlock()
	logs := make([]*Log, 0, len(s.logs))
	for _, l := range s.logs {
		logs = append(logs, l)
	}
	slices.SortFunc(logs, func(a, b *Log) int { return a.id.Compare(b.id) })
	return logs
}

// lookup is the log of an id, or nil.
func (s *Store) lookup(id LogID) *Log {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.logs[id]
}

// Commit makes everything appended so far durable (group commit): it runs the round itself
// when none is under way, else the one under way is followed by another that covers it. It
// does not wait for that one.
func (s *Store) Commit() { s.commit.run() }

// NoteMetadata notes the index up to which this store followed the cluster's metadata. The
// next checkpoint writes it down, so that a start with older metadata is refused.
func (s *Store) NoteMetadata(index uint64) {
	for {
		old := s.metadata.Load()
		if index <= old {
			return
		}
		if s.metadata.CompareAndSwap(old, index) {
			s.keeper.checkpointLater()
			return
		}
	}
}

// RememberedMetadata is the index up to which, by the newest checkpoint, this store followed
// the cluster's metadata: a start with older ones is refused.
func (s *Store) RememberedMetadata() uint64 { return s.remembered.Load() }

// Damage is what the store lacks, or cannot do, without knowing of which logs: acknowledged
// records or what checkpoints knew may be lost, or the journal cannot be written. nil: nothing.
func (s *Store) Damage() error {
	if err := s.losses.get(); err != nil {
		return fmt.Errorf("%w: %w", ErrFaulted, err)
	}
	return s.journal.Lost()
}

// Usage tells the bytes that each known log takes and the file system's space; -1 where
// that is not known.
func (s *Store) Usage() (logs map[LogID]int64, avail, total int64) {
	logs = map[LogID]int64{}
	for _, l := range s.all() {
		logs[l.id] = l.usage()
	}
	avail, total, err := s.fs.Free(s.cfg.Dir)
	if err != nil {
		avail, total = -1, -1
	}
	return logs, avail, total
}

// IsFull tells whether records are refused because the disk is full.
func (s *Store) IsFull() bool { return s.space.IsFull() }

// noteRefusal has the space be looked at again where an error says that there is none.
func (s *Store) noteRefusal(err error) {
	if isFull(err) {
		s.space.NoteRefusal()
	}
}

// Close makes everything durable and closes all files.
func (s *Store) Close() error {
	s.mu.Lock()
	already := s.closed
	s.closed = true
	s.mu.Unlock()
	if already {
		return nil
	}
	s.closing.Store(true)
	close(s.quit)
	s.work.Wait()
	var opened []*Log
	for _, l := range s.all() {
		if l.endUse(logClosed) {
			opened = append(opened, l)
		}
	}
	s.commit.stop()
	err := s.keeper.checkpointLast(opened)
	s.journal.Close()
	s.files.Close()
	s.volume.end()
	s.syncs.close()
	return err
}

func randomID() (id [16]byte) {
	_, _ = rand.Read(id[:]) // it never fails
	return id
}
