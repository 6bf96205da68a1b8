package storage

import (
	"crypto/rand"
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
	"github.com/leatstream/leat/internal/storage/lastrun"
	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/storage/space"
	"github.com/leatstream/leat/internal/vfs"
)

// LogID names a log for ever: a topic that is created again after its deletion has another id.
type LogID = record.LogID

// Chunk is a range of a segment's file that a read has found.
type Chunk = segment.Chunk

// Stamp is a record's offset, timestamp and epoch.
type Stamp = segment.Stamp

// Config is the input of Open; zero fields mean the default.
type Config struct {
	FS      vfs.FS
	Dir     string
	Logger  *slog.Logger
	BootID  string // of the running kernel; "" if unknown. It tells whether a sync that failed in an earlier process still matters
	Reserve int64  // bytes of the file system that appends leave free; 128 MiB, at most a 16th of it
	Journal int64  // bytes of the journal's ring; 64 MiB

	Work *budget.Budget // for look-ups into batches; nil: unlimited

	Producers *ProducerBudget // of what all logs remember of idempotent producers; nil: unlimited

	// Run notes which topics commit records before they are on disk, and that everything is on disk
	// at the end; nil: nothing is noted. The caller must have begun it before the first append.
	Run *lastrun.Notes

	// OpenFiles is the number of segment files that are kept open; 1,024. Chunks that are not
	// released keep at most three quarters of them open; beyond that Read returns ErrBusy.
	OpenFiles int
	// Metadata is the index up to which the cluster's metadata is known at the start. A
	// directory that was used with later metadata is refused; 0: it is not compared.
	Metadata uint64
	// StrayRetention is the time after which directories are deleted whose logs the metadata
	// does not have. 0 or less: they are kept until the operator deletes them.
	StrayRetention time.Duration

	CheckpointEvery time.Duration // 1 s
	RetentionEvery  time.Duration // between two applications of retention; 5 min
	Scrub           int64         // bytes a second that are read to look for damage; 8 MiB; negative: none

	Cleaner CleanerConfig // ConfigureCleaner changes it

	// SyncAlone is the least number of bytes of a round with one log for which that log's file
	// is synced, instead of a write to the journal; 192 KiB.
	SyncAlone int64
	// SyncTogether is the least number of logs in a checkpoint for which the whole file system
	// is synced; 64.
	SyncTogether int
}

const (
	defaultJournal = 64 << 20
	defaultOpen    = 1024
	defaultScrub   = 8 << 20 // bytes a second
)

func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	setDefault(&c.Journal, defaultJournal)
	setDefault(&c.OpenFiles, defaultOpen)
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

// keptAside is what the data directory has beside the logs.
type keptAside struct {
	strays aside.Strays
	tails  tailDirs
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
	keptAside
	faults faults
	losses losses

	producers producerBound

	commit  committer
	journal *journal.Journal
	keeper  keeper
	cleaner cleaner

	opened     time.Time     // when the store was opened
	metadata   atomic.Uint64 // see NoteMetadata
	remembered atomic.Uint64 // the metadata index in the newest checkpoint

	mu     sync.Mutex
	logs   map[LogID]*Log // guarded by mu
	closed bool           // guarded by mu
	// leaving counts, for each deleted log, its directories and entries in keeper.leaving that
	// are left; guarded by mu.
	leaving map[LogID]int

	// unconfirmed has the notes that truncations are complete which recovery could not put into the journal, of logs that were not opened
	// since; guarded by mu.
	unconfirmed map[LogID]journal.Part

	waiting map[LogID]bool // guarded by mu: logs whose last records only the journal has, since the disk is full

	closing atomic.Bool
	quit    chan struct{}
	work    sync.WaitGroup
	// background runs long work on a goroutine of its own; only the keeper calls it.
	background func(func())
}

// Open recovers a data directory. It reads only the checkpoint, the journal, and the files with
// bytes of the journal, not all logs.
func Open(cfg Config) (*Store, error) {
	s, err := openDir(cfg)
	if err != nil {
		return nil, err
	}
	s.background = s.work.Go
	s.commit.start()
	s.work.Go(s.keeper.runLoop)
	s.work.Go(s.cleaner.runLoop)
	return s, nil
}

// openDir recovers the directory and starts no goroutine.
func openDir(cfg Config) (*Store, error) {
	cfg = cfg.withDefaults()
	s := &Store{cfg: cfg, fs: cfg.FS, log: cfg.Logger, logs: map[LogID]*Log{}, leaving: map[LogID]int{}, quit: make(chan struct{}), opened: time.Now()}
	s.syncs.s = s
	s.files = segment.NewFiles(cfg.FS, cfg.OpenFiles, cfg.Logger, s.syncs.syncFile)
	s.producers.s = s
	s.files.BoundReaders(max(cfg.OpenFiles*3/4, 1))
	s.dirs.init(s)
	s.losses.s = s
	s.commit.init(s)
	s.keeper.init(s)
	s.cleaner.init(s)
	if err := s.recoverDir(); err != nil {
		s.volume.closeVolume()
		s.syncs.closeNote()
		return nil, err
	}
	return s, nil
}

// Log returns the log of one partition, and adds it if it is missing. Its files are opened at
// the first use and made at the first append. committed is called, on any goroutine and with
// no lock held, after the committed end has moved, but not after Append itself has moved it. It is
// also called before retention where the high watermark lies below the committed end, and after
// retention has moved the start.
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

// allLogs lists the logs, sorted by id.
func (s *Store) allLogs() []*Log {
	s.mu.Lock()
	defer s.mu.Unlock()
	logs := make([]*Log, 0, len(s.logs))
	for _, l := range s.logs {
		logs = append(logs, l)
	}
	slices.SortFunc(logs, func(a, b *Log) int { return a.id.Compare(b.id) })
	return logs
}

// findLog is the log of an id, or nil.
func (s *Store) findLog(id LogID) *Log {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.logs[id]
}

// Commit makes everything that was appended so far durable (group commit). If no round is
// under way it runs one itself. If one is, another one follows it, for which Commit does not
// wait.
func (s *Store) Commit() { s.commit.commitEntered() }

// CountRounds is the number of group commits that have begun: it stays the same while nothing is written durably.
func CountRounds(s *Store) int64 {
	s.commit.mu.Lock()
	defer s.commit.mu.Unlock()
	return s.commit.begun
}

// NoteMetadata notes the index up to which this store has followed the cluster's metadata. The
// next checkpoint has it, so that a start with older metadata is refused.
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

// RememberedMetadata is the metadata index in the newest checkpoint: a start with older
// metadata is refused.
func (s *Store) RememberedMetadata() uint64 { return s.remembered.Load() }

// Damage describes damage that is not that of one log: acknowledged records, or the content of
// checkpoints, may be lost, or the journal cannot be written. nil: there is none.
func (s *Store) Damage() error {
	if err := s.losses.describe(); err != nil {
		return err
	}
	return s.journal.Lost()
}

// DiskSpace is the file system's space; -1: unknown.
func (s *Store) DiskSpace() (avail, total int64) {
	avail, total, err := s.fs.Free(s.cfg.Dir)
	if err != nil {
		return -1, -1
	}
	return avail, total
}

// IsFull tells whether records are refused because the disk is full.
func (s *Store) IsFull() bool { return s.space.IsFull() }

// noteRefusal has the free space measured again if an error says that there is none, and the files
// removed that only wait for their time.
func (s *Store) noteRefusal(err error) {
	if isFull(err) {
		s.space.NoteRefusal()
		s.keeper.wakeUp()
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
	for _, l := range s.allLogs() {
		if l.endUse(logClosed) {
			opened = append(opened, l)
		}
	}
	s.commit.stop()
	err := s.keeper.checkpointLast(opened)
	if err == nil && !s.hasWaiting() && !lackBytes(opened) {
		err = s.cfg.Run.NoteClean()
	}
	dropWriters(opened)
	s.journal.Close()
	s.files.Close()
	s.volume.closeVolume()
	s.syncs.closeNote()
	return err
}

// lackBytes tells, after the last checkpoint, whether the files of any log lack on disk what the log
// has.
func lackBytes(opened []*Log) bool {
	return slices.ContainsFunc(opened, func(l *Log) bool {
		l.pub.Lock()
		defer l.pub.Unlock()
		return l.isTainted() || l.end.Segment != nil && l.stable != l.end
	})
}

func randomID() (id [16]byte) {
	_, _ = rand.Read(id[:]) // it never fails
	return id
}
