package storage

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/internal/budget"
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
	Reserve int64  // bytes of the file system that appends leave free; 128 MiB, at most a 16th of it
	Journal int64  // bytes of the journal's ring; 64 MiB

	CheckpointEvery time.Duration // 1 s
	RetentionEvery  time.Duration // how often retention is looked at; 5 min

	atOnce int   // see there; tests make it small
	block  int64 // to the end of which the end of a file that was taken over is overwritten; tests make it small

	Work *budget.Budget // on which look-ups into batches draw; nil: no bounds

	Scrub int64 // bytes a second that are read, once a day, to find damage; 8 MiB, negative: none

	alone int64 // syncAlone; tests have other bounds
	crowd int64 // lateCrowd; likewise
	late  int64 // lateAll; likewise
}

const (
	defaultJournal    = 64 << 20
	defaultReserve    = 128 << 20
	defaultCheckpoint = time.Second
	defaultRetention  = 5 * time.Minute

	maxOpenFiles = 8192 // kept open; a process may have 20,000, and connections need some
)

func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Journal <= 0 {
		c.Journal = defaultJournal
	}
	if c.CheckpointEvery <= 0 {
		c.CheckpointEvery = defaultCheckpoint
	}
	if c.RetentionEvery <= 0 {
		c.RetentionEvery = defaultRetention
	}
	if c.block <= 0 {
		c.block = journalBlock
	}
	if c.atOnce <= 0 {
		c.atOnce = atOnce
	}
	if c.alone == 0 {
		c.alone = syncAlone
	}
	if c.crowd == 0 {
		c.crowd = lateCrowd
	}
	if c.late == 0 {
		c.late = lateAll
	}
	if c.Scrub == 0 {
		c.Scrub = defaultScrub
	}
	return c
}

// Store is the set of logs in one data directory.
type Store struct {
	cfg     Config
	fs      vfs.FS
	log     *slog.Logger
	files   files
	cursors cursors
	points  points
	space   space
	volume  volume
	late    lateness
	commit  committer
	journal *journal
	keeper  keeper

	mu      sync.Mutex
	logs    map[LogID]*Log     // guarded by mu
	lacking map[LogID]bool     // guarded by mu: logs of which only the journal has the last records
	held    map[LogID]*heldLog // guarded by mu: what is to be written into logs' files before they are used
	closed  bool               // guarded by mu

	spoiled map[string]error // guarded by mu: directories of whose files a sync failed before their log was opened

	closing    atomic.Bool
	suspicious atomic.Bool // a sync failed
	distrust   bool        // one failed in an earlier process on this kernel
	quit       chan struct{}
	work       sync.WaitGroup
	// background runs what takes long beside the loops; the keeper calls it.
	background func(func())
}

// Open recovers a data directory. It reads what the last checkpoint and the
// journal name, not the logs.
func Open(cfg Config) (*Store, error) {
	s, err := open(cfg)
	if err != nil {
		return nil, err
	}
	s.background = s.work.Go
	for range loops {
		s.work.Go(s.commit.loop)
	}
	s.work.Go(s.keeper.loop)
	return s, nil
}

// open recovers the directory. Nothing runs in the background yet.
func open(cfg Config) (*Store, error) {
	cfg = cfg.withDefaults()
	s := &Store{
		cfg: cfg, fs: cfg.FS, log: cfg.Logger,
		logs: map[LogID]*Log{}, quit: make(chan struct{}),
	}
	s.files.init(cfg.FS, maxOpenFiles)
	s.late.init(cfg)
	s.commit.init(s)
	s.keeper.init(s)
	if err := s.recover(); err != nil {
		s.volume.end()
		return nil, err
	}
	return s, nil
}

// Log returns the log of one partition, making it known if it is not; files are
// opened at first use and made at the first append. committed is called, from any
// goroutine and with no lock held, whenever the committed end has moved; only what
// Append or Configure itself committed is not told.
func (s *Store) Log(id LogID, topic string, o Options, committed func(l *Log)) *Log {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.logs[id]; l != nil {
		return l
	}
	l := newLog(s, id, topic, o, committed)
	if s.closed {
		l.gone.Store(true)
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
	slices.SortFunc(logs, func(a, b *Log) int { return a.id.compare(b.id) })
	return logs
}

// lookup is the log of an id, or nil.
func (s *Store) lookup(id LogID) *Log {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.logs[id]
}

// Commit makes everything appended so far durable (group commit): it runs the
// round itself when none is under way, else the one under way is followed by
// another that covers it. It does not wait for that one.
func (s *Store) Commit() { s.commit.run() }

// Usage tells the bytes that each known log takes and the file system's space.
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
	for _, l := range s.all() {
		l.shut(false)
	}
	s.commit.last()
	err := s.keeper.closing()
	s.journal.close()
	s.files.closeAll()
	s.volume.end()
	return err
}

// path joins names below the data directory.
func (s *Store) path(names ...string) string {
	return path.Join(append([]string{s.cfg.Dir}, names...)...)
}

// dirName is a partition's directory.
func dirName(topic string, partition int32) string {
	return topic + "-" + strconv.Itoa(int(partition))
}

// parseDirName is the partition of a directory that dirName named; ok is false for
// other directories, such as those on their way out.
func parseDirName(name string) (partition int32, ok bool) {
	at := strings.LastIndexByte(name, '-')
	if at <= 0 {
		return 0, false
	}
	p, err := strconv.ParseInt(name[at+1:], 10, 32)
	if err != nil || p < 0 || dirName(name[:at], int32(p)) != name {
		return 0, false
	}
	return int32(p), true
}

func randomID() (id [16]byte) {
	_, _ = rand.Read(id[:]) // it never fails
	return id
}

// fileName is a segment's file for a base offset.
func fileName(base record.Offset, suffix string) string {
	return fmt.Sprintf("%020d%s", int64(base), suffix)
}

const (
	logSuffix      = ".log"
	indexSuffix    = ".index"
	timeSuffix     = ".timeindex"
	snapshotSuffix = ".snapshot"
	deletedSuffix  = ".deleted"
	deletedDir     = "-delete" // a directory on its way out
	strayDir       = "-stray"  // one that belongs to a topic that is not known under its name
)

// parseFileName is the inverse of fileName.
func parseFileName(name, suffix string) (record.Offset, bool) {
	digits, ok := strings.CutSuffix(name, suffix)
	if !ok || len(digits) != 20 {
		return 0, false
	}
	base, err := strconv.ParseInt(digits, 10, 64)
	return record.Offset(base), err == nil && base >= 0
}

// full tells whether an error means that there is no space.
func full(err error) bool { return errors.Is(err, vfs.ErrNoSpace) || errors.Is(err, ErrDiskFull) }

// asAppendError names an error of a write so that callers can act on it.
func asAppendError(err error) error {
	if full(err) {
		return fmt.Errorf("%w: %w", ErrDiskFull, err)
	}
	return err
}
