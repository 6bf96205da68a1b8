package storage

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/checkpoint"
	"github.com/leatstream/leat/internal/storage/compact"
	"github.com/leatstream/leat/internal/storage/epoch"
	"github.com/leatstream/leat/internal/storage/journal"
	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/storage/transaction"
)

// Options are one log's settings, from its topic's configs.
type Options struct {
	SegmentBytes    int64
	SegmentAge      time.Duration // segment.ms
	SegmentJitter   time.Duration
	IndexInterval   int           // index.interval.bytes
	IndexBytes      int           // segment.index.bytes
	RetentionAge    time.Duration // -1: for ever
	RetentionBytes  int64         // -1: no limit
	FlushMessages   int64         // 1: an append is committed when it is on disk; more: when it is written
	FlushAge        time.Duration // flush.ms; 0: never
	Preallocate     bool
	FileDeleteDelay time.Duration
	Delete          bool // cleanup.policy has delete
	// Replicated tells that other replicas have a say in what is committed: nothing beyond the high
	// watermark is removed, even where that was never set.
	Replicated         bool
	ProducerExpiration time.Duration

	Compact    bool // cleanup.policy has compact
	Compaction Compaction
}

// Compaction are the settings of a compacted log.
type Compaction struct {
	MinLag, MaxLag  time.Duration // min.compaction.lag.ms and max.compaction.lag.ms
	DirtyRatio      float64       // min.cleanable.dirty.ratio
	DeleteRetention time.Duration // delete.retention.ms
}

// mode says when an append to a log is committed. switchMode changes a log's mode.
type mode uint8

const (
	modeUnset  mode = iota // the log has had no append since it was opened
	durable                // when it is on disk: in the journal or in its file
	pageCached             // when it is written; a checkpoint makes it durable now and then
)

// mode is the mode that the settings ask for.
func (o Options) mode() mode {
	if o.FlushMessages <= 1 {
		return durable
	}
	return pageCached
}

const (
	minSegmentBytes = 1024
	maxSegmentBytes = 1<<31 - 1 // an index's positions are 32-bit
)

// withDefaults replaces missing numbers by defaults, and limits those that the format limits.
func (o Options) withDefaults() *Options {
	if o.SegmentBytes <= 0 || o.SegmentBytes > maxSegmentBytes {
		o.SegmentBytes = 1 << 30
	}
	o.SegmentBytes = max(o.SegmentBytes, minSegmentBytes)
	if o.IndexInterval <= 0 {
		o.IndexInterval = 4096
	}
	if o.IndexBytes <= 0 {
		o.IndexBytes = 10 << 20
	}
	o.IndexBytes = max(o.IndexBytes, segment.MinIndexBytes)
	return &o
}

// logState is the state of a log:
//
//	unopened ----> open ----> closed      the store is closed
//	    |           |
//	    +-----------+-------> deleted     its directory may belong to another log by now
type logState int32

const (
	logUnopened logState = iota // the directory was not read yet
	logOpen
	logClosed
	logDeleted
)

// dirState is the state of a log's directory:
//
//	missing ----> made ----> named
type dirState uint8

const (
	dirMissing dirState = iota
	dirMade             // it exists; its name may not be durable
	dirNamed            // its name and partition.metadata are durable
)

// Log is one partition's log. Any goroutine may use it.
type Log struct {
	health    // whether it can be written to, and its name
	s         *Store
	id        LogID
	dir       *segment.Dir
	committed func(*Log)
	opts      atomic.Pointer[Options]
	state     atomic.Int32 // logState; changed with mu held

	start         atomic.Int64 // written with pub held
	sureStart     atomic.Int64 // a start that is durable; start may be higher
	commitTo      atomic.Int64 // the committed end; only Truncate lowers it
	highWatermark atomic.Int64 // the last one that the leader has set
	owed          atomic.Int64 // the offset up to which a commit has failed to make the log durable; 0: none has failed

	mu     sync.Mutex       // held during an append and its write; only keeper.run is taken before it
	writer *writer          // guarded by mu; nil until the first append
	opened checkpoint.Point // guarded by mu: the point with which the log was opened, for its producers
	// unconfirmed is the note which says that the last truncation is done, and which the journal does not have
	// yet; nil: it has it. Guarded by mu.
	unconfirmed *journal.Part

	pub       sync.Mutex         // held for moments, never during input and output
	segs      []*segment.Segment // guarded by pub; the slice is replaced, never changed
	end       Position           // the log's end: written with mu and pub held, so that either of them is enough to read it
	epochs    epoch.List         // guarded by pub: also those below the start, until the log is opened again
	stable    Position           // guarded by pub: everything before it is on disk in the log's files
	dirState  dirState           // guarded by pub
	hasGaps   bool               // guarded by pub: offsets may have gaps
	oldest    int64              // guarded by pub: ms, retention by time removes nothing before a record of that time is too old; segment.TimeUnknown
	snapshots snapshots          // guarded by pub
	due       due                // guarded by pub
	entered   entered            // guarded by pub
	cuts      cuts
	txns      transactions
	compacted compacted
}

// Position is a position in a log's files, and the offset there. A log's end is one Position, which
// moves as a whole: a Segment shows an appended batch a moment before its log does, so that the
// segment's size and the log's offset do not belong together.
type Position struct {
	Segment *segment.Segment // nil: the log has no segment yet
	Pos     int64
	Next    record.Offset
}

// due is the work on a log for the next checkpoint.
type due struct {
	listed   bool      // the log is in keeper.listed
	journal  uint64    // the first round of the journal that may have bytes which the log's files lack; 0: none has
	epochs   bool      // the epochs' file is to be written
	sync     bool      // a page-cached log is to be synced now
	snapshot bool      // the producers are to be written, since segments with their batches go
	since    time.Time // since when a page-cached log has unsynced bytes; zero: it has none
	batches  int64     // batches appended since then, for FlushMessages
}

// snapshots are the log's producer snapshots.
type snapshots struct {
	newest  record.Offset   // -1: there is none
	older   []record.Offset // the other ones, the oldest first
	truthTo record.Offset   // the newest one has the producers' state at this offset
	bytes   int64           // appended since the newest one was written
}

func newLog(s *Store, id LogID, topic string, o Options, committed func(*Log)) *Log {
	name := dirName(topic, id.Partition)
	l := &Log{health: health{log: s.log, name: name, count: &s.faults.count}, s: s, id: id, dir: segment.NewDir(s.pathOf(name)), committed: committed}
	l.opts.Store(o.withDefaults())
	l.oldest = segment.TimeUnknown
	l.txns.first.Store(int64(transaction.None))
	l.snapshots = snapshots{newest: -1, truthTo: -1}
	l.compacted.l, l.compacted.upTo = l, compact.NoRound
	return l
}

// ID is the log's identity.
func (l *Log) ID() LogID { return l.id }

func (l *Log) options() *Options { return l.opts.Load() }

// Configure changes the settings. It opens no file and waits for nothing: the next append
// changes the mode if the settings ask for another one (switchMode), or a checkpoint does (endCaching).
func (l *Log) Configure(o Options) {
	old := l.opts.Swap(o.withDefaults())
	if old.mode() == pageCached && o.mode() == durable && l.isOpen() {
		l.pub.Lock()
		l.listLocked()
		l.pub.Unlock()
	}
}

// endCaching makes a log durable whose settings ask for that, and of which the directory notes that it was page-cached: it may have no
// append for long. The log is tried again at the next checkpoint if that fails.
func endCaching(l *Log) {
	if l.options().mode() != durable || !l.s.cfg.Run.IsCached(l.id.Topic, l.id.Partition) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.isOpen() || l.isFaulted() || l.options().mode() != durable {
		return
	}
	err := l.prepareWriterLocked()
	if err == nil {
		err = l.writer.switchMode(durable)
	}
	if err != nil && !l.isFaulted() {
		l.pub.Lock()
		l.listLocked()
		l.pub.Unlock()
	}
}

// moveCommittedLocked moves the committed end forward. pub is held.
func (l *Log) moveCommittedLocked(o record.Offset) bool {
	if record.Offset(l.commitTo.Load()) >= o {
		return false
	}
	l.commitTo.Store(int64(o))
	return true
}

// makeUsable opens the log at its first use. It returns an error if the log cannot be read; a
// log with a fault can.
func (l *Log) makeUsable() error {
	if logState(l.state.Load()) == logOpen {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.makeUsableLocked()
}

func (l *Log) makeUsableLocked() error {
	switch logState(l.state.Load()) {
	case logUnopened:
		err := l.openLocked()
		l.noteUse(useOpen, err)
		return err
	case logOpen:
		return nil
	case logClosed, logDeleted:
	}
	return ErrClosed
}

// isOpen tells whether the log was opened and not closed since.
func (l *Log) isOpen() bool { return logState(l.state.Load()) == logOpen }

// Start is the first offset that can be read.
func (l *Log) Start() (record.Offset, error) {
	err := l.makeUsable()
	return record.Offset(l.start.Load()), err
}

// End is the offset after the last record. It is the start of a log whose first batch, which begins
// before the start, could not be written.
func (l *Log) End() (record.Offset, error) {
	err := l.makeUsable()
	l.pub.Lock()
	defer l.pub.Unlock()
	return max(l.end.Next, record.Offset(l.start.Load())), err
}

// Committed is the offset after the last committed record.
func (l *Log) Committed() (record.Offset, error) {
	err := l.makeUsable()
	return record.Offset(l.commitTo.Load()), err
}

// HighWatermark is the offset that SetHighWatermark has set last. After a restart it may be an
// earlier one.
func (l *Log) HighWatermark() (record.Offset, error) {
	err := l.makeUsable()
	return record.Offset(l.highWatermark.Load()), err
}

// SetHighWatermark notes the offset after the last record that all in-sync replicas have.
// The next checkpoint of the log makes it durable. Retention deletes no records beyond it.
func (l *Log) SetHighWatermark(o record.Offset) {
	l.highWatermark.Store(int64(o))
}

// BeginEpoch notes in memory that a leader's epoch begins at the log's end. The next checkpoint
// with records of the log writes it to the epochs' file. If the epoch is lost before that, it
// had no record on disk.
func (l *Log) BeginEpoch(e record.Epoch) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.makeUsableLocked(); err != nil {
		return err
	}
	if err := l.Fault(); err != nil {
		return err
	}
	l.pub.Lock()
	defer l.pub.Unlock()
	l.beginEpochLocked(e, l.end.Next)
	return nil
}

func (l *Log) beginEpochLocked(e record.Epoch, at record.Offset) {
	es, ok := l.epochs.Begin(e, at)
	if ok && e >= 0 {
		l.epochs, l.due.epochs = es, true
	}
}

// EpochEnd finds the end of an epoch as OffsetForLeaderEpoch does: the largest epoch of the log
// that is not above e, and the offset at which the next one begins (the log's end for the last
// one). Both are -1 if there is none, or if e is above the last epoch.
func (l *Log) EpochEnd(e record.Epoch) (record.Epoch, record.Offset, error) {
	if err := l.makeUsable(); err != nil {
		return record.NoEpoch, -1, err
	}
	l.pub.Lock()
	es, start, end := l.epochs, record.Offset(l.start.Load()), l.end.Next
	l.pub.Unlock()
	epoch, at := es.Trim(start).End(e, end)
	return epoch, at, nil
}

// EpochAt is the leader epoch of the record at an offset (NoEpoch: unknown).
func (l *Log) EpochAt(o record.Offset) record.Epoch {
	if l.makeUsable() != nil {
		return record.NoEpoch
	}
	l.pub.Lock()
	es, end := l.epochs, l.end.Next
	l.pub.Unlock()
	if o < 0 || o > end {
		return record.NoEpoch
	}
	return es.At(o)
}

// segments are the log's present segments.
func (l *Log) segments() []*segment.Segment {
	l.pub.Lock()
	defer l.pub.Unlock()
	return l.segs
}

// activeLocked is the segment that is appended to; nil: there is none yet. pub is held.
func (l *Log) activeLocked() *segment.Segment {
	if len(l.segs) == 0 {
		return nil
	}
	return l.segs[len(l.segs)-1]
}

// activeSegment is the segment that is appended to; nil: there is none yet.
func (l *Log) activeSegment() *segment.Segment {
	l.pub.Lock()
	defer l.pub.Unlock()
	return l.activeLocked()
}

// SizeOnDisk is about the number of bytes of the log's records on disk. It reads the directory of a
// log that is not open.
func (l *Log) SizeOnDisk() int64 {
	if !l.isOpen() {
		return l.s.dirs.sumSegments(l.name)
	}
	var n int64
	for _, g := range l.segments() {
		n += g.Size()
	}
	return n
}

// endUse ends the log's use: later calls get ErrClosed. It waits for an append under way, and
// for a deleted log also for changes in its directory. It returns whether the log was open.
func (l *Log) endUse(to logState) (wasOpen bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	wasOpen = logState(l.state.Swap(int32(to))) == logOpen
	if to == logDeleted {
		dropWriterLocked(l)
		l.dir.Leave()
		l.s.cfg.Run.ForgetCached(l.id.Topic, l.id.Partition)
	}
	return wasOpen
}

// hasSegment tells whether a segment is still part of the log.
func (l *Log) hasSegment(g *segment.Segment) bool {
	l.pub.Lock()
	defer l.pub.Unlock()
	return slices.Contains(l.segs, g)
}

// hasWholeSegment tells whether a segment is still part of the log, and no truncation is cutting it: then its file
// has all batches that the segment says it has, or is damaged.
func hasWholeSegment(l *Log, g *segment.Segment) bool {
	l.pub.Lock()
	defer l.pub.Unlock()
	return slices.Contains(l.segs, g) && !isCuttingLocked(l, g)
}

// isCuttingLocked tells whether a truncation is cutting a segment of the log. pub is held.
func isCuttingLocked(l *Log, g *segment.Segment) bool {
	return l.cuts.from != nil && g.Base() >= l.cuts.from.Base()
}
