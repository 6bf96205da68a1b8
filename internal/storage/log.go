package storage

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/checkpoint"
	"github.com/leatstream/leat/internal/storage/epoch"
	"github.com/leatstream/leat/internal/storage/producer"
	"github.com/leatstream/leat/internal/storage/segment"
)

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

// mode says when an append to a log is committed. A log has one mode at a time; switchMode
// takes it from one to the other.
type mode uint8

const (
	modeUnset  mode = iota // the log was not appended to since it was opened
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

// withDefaults bounds the numbers that the format bounds, and fills in those that may be
// left out.
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

// logState says what can be done with a log:
//
//	unopened ----> open ----> closed      the store is closed
//	    |           |
//	    +-----------+-------> deleted     the directory may be another log's by now
type logState int32

const (
	logUnopened logState = iota // the directory was not looked at yet
	logOpen
	logClosed
	logDeleted
)

// dirState says what is known of a log's directory:
//
//	missing ----> made ----> named
type dirState uint8

const (
	dirMissing dirState = iota
	dirMade             // it is there; its name may not be durable
	dirNamed            // its name and what it says of itself are durable
)

// Log is one partition's log. Safe for concurrent use.
type Log struct {
	health    // whether it can be written to, and its name
	s         *Store
	id        LogID
	dir       *segment.Dir
	committed func(*Log)
	opts      atomic.Pointer[Options]
	state     atomic.Int32 // logState; changed with mu held

	start         atomic.Int64 // written with pub held
	sureStart     atomic.Int64 // a start that is durable
	end           atomic.Int64 // written with pub held; the offset after the last record
	commitTo      atomic.Int64 // the committed end; only Truncate lowers it
	highWatermark atomic.Int64 // as the leader last said
	owed          atomic.Int64 // up to here a commit failed to make the log durable; 0: none did

	mu     sync.Mutex       // held over an append and its write; the outermost but for keeper.run
	writer *writer          // guarded by mu; nil until the first append
	opened checkpoint.Point // guarded by mu: what the log was opened from, for its producers

	pub       sync.Mutex         // held for moments, never over input and output
	segs      []*segment.Segment // guarded by pub; the slice is replaced, never changed
	epochs    epoch.List         // guarded by pub: also those below the start, until the log is opened again
	stable    Position           // guarded by pub: everything before is on disk in its files
	dirState  dirState           // guarded by pub
	hasGaps   bool               // guarded by pub: offsets may have gaps
	oldest    int64              // guarded by pub: ms, no record is older; segment.TimeUnknown
	snapshots snapshots          // guarded by pub
	due       due                // guarded by pub
	entered   entered            // guarded by pub
}

// Position is a place in a log's files and the offset there.
type Position struct {
	Segment *segment.Segment // nil: the log has no segment yet
	Pos     int64
	Next    record.Offset
}

// due is the work that the next checkpoint has with a log.
type due struct {
	listed   bool      // the keeper's list has the log
	journal  uint64    // no round of the journal before this one has bytes that the log's files may lack; 0: none has
	epochs   bool      // the epochs' file is behind
	sync     bool      // a page-cached log is to be synced now
	snapshot bool      // the producers are to be written before segments go
	since    time.Time // since when a page-cached log has bytes that no sync covered; zero: it has none
	batches  int64     // that were appended since then, for FlushMessages
}

// snapshots are the log's producer snapshots.
type snapshots struct {
	newest  record.Offset   // -1: there is none
	older   []record.Offset // the others that are there, the oldest first
	truthTo record.Offset   // the offset up to which the newest one is the truth
	bytes   int64           // appended since
}

func newLog(s *Store, id LogID, topic string, o Options, committed func(*Log)) *Log {
	name := dirName(topic, id.Partition)
	l := &Log{health: health{log: s.log, name: name}, s: s, id: id, dir: segment.NewDir(s.path(name)), committed: committed}
	l.opts.Store(o.withDefaults())
	l.oldest = segment.TimeUnknown
	l.snapshots = snapshots{newest: -1, truthTo: -1}
	return l
}

// ID is the log's identity.
func (l *Log) ID() LogID { return l.id }

func (l *Log) options() *Options { return l.opts.Load() }

// Configure changes the settings. It opens nothing and waits for nothing: a change of the
// mode takes place with the next append or checkpoint (switchMode).
func (l *Log) Configure(o Options) { l.opts.Store(o.withDefaults()) }

// moveCommittedLocked moves the committed end forward. pub is held.
func (l *Log) moveCommittedLocked(o record.Offset) bool {
	if record.Offset(l.commitTo.Load()) >= o {
		return false
	}
	l.commitTo.Store(int64(o))
	return true
}

// makeUsable opens the log at its first use and returns why it cannot be read. A log with
// a fault can.
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
		return l.openLocked()
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

// End is the offset after the last record.
func (l *Log) End() (record.Offset, error) {
	err := l.makeUsable()
	return record.Offset(l.end.Load()), err
}

// Committed is the offset after the last record that an acknowledgement may rest on.
func (l *Log) Committed() (record.Offset, error) {
	err := l.makeUsable()
	return record.Offset(l.commitTo.Load()), err
}

// HighWatermark is the offset that SetHighWatermark set last, in this process or before a
// restart; a restart may bring back an older one.
func (l *Log) HighWatermark() (record.Offset, error) {
	err := l.makeUsable()
	return record.Offset(l.highWatermark.Load()), err
}

// SetHighWatermark notes the offset after the last record that all in-sync replicas have.
// It becomes durable with the next checkpoint of the log, and retention does not go
// beyond it.
func (l *Log) SetHighWatermark(o record.Offset) {
	l.highWatermark.Store(int64(o))
}

// BeginEpoch notes that a leader's epoch begins at the log's end. The note is in memory;
// its file follows with the next checkpoint that the log's records are part of. An epoch
// that is lost before that had no record on disk.
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
	l.beginEpochLocked(e, record.Offset(l.end.Load()))
	return nil
}

func (l *Log) beginEpochLocked(e record.Epoch, at record.Offset) {
	es, ok := l.epochs.Begin(e, at)
	if ok && e >= 0 {
		l.epochs, l.due.epochs = es, true
	}
}

// EpochEnd answers OffsetForLeaderEpoch: the largest known epoch not above e, and the
// offset at which the next one begins (the log's end for the latest). Both are -1 where
// nothing is known, as of an epoch above the latest.
func (l *Log) EpochEnd(e record.Epoch) (record.Epoch, record.Offset, error) {
	if err := l.makeUsable(); err != nil {
		return record.NoEpoch, -1, err
	}
	l.pub.Lock()
	es, start, end := l.epochs, record.Offset(l.start.Load()), record.Offset(l.end.Load())
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
	es, end := l.epochs, record.Offset(l.end.Load())
	l.pub.Unlock()
	if o < 0 || o > end {
		return record.NoEpoch
	}
	return es.At(o)
}

// Producer is one idempotent producer's state in a log.
type Producer = producer.Description

// Producers lists the active producers (DescribeProducers).
func (l *Log) Producers() ([]Producer, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.makeUsableLocked(); err != nil {
		return nil, err
	}
	if err := l.prepareWriterLocked(); err != nil {
		return nil, err
	}
	ps := &l.writer.producers
	ps.Expire(time.Now().UnixMilli(), l.options().ProducerExpiration.Milliseconds())
	return ps.Describe(), nil
}

// segments are the log's segments now.
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

// active is the segment that is appended to; nil: there is none yet.
func (l *Log) active() *segment.Segment {
	l.pub.Lock()
	defer l.pub.Unlock()
	return l.activeLocked()
}

// endPositionLocked is where the log ends. pub is held.
func (l *Log) endPositionLocked() Position {
	p := Position{Segment: l.activeLocked(), Next: record.Offset(l.end.Load())}
	if p.Segment != nil {
		p.Pos = p.Segment.Size()
	}
	return p
}

// usage is about the number of bytes that the log's records take on disk.
func (l *Log) usage() int64 {
	if !l.isOpen() {
		return l.s.dirs.size(l.name)
	}
	var n int64
	for _, g := range l.segments() {
		n += g.Size()
	}
	return n
}

// endUse ends the log's use: later calls get ErrClosed. An append that is under way comes to
// its end first, and of a deleted log also every change in its directory. It returns whether
// the log was open.
func (l *Log) endUse(to logState) (wasOpen bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	wasOpen = logState(l.state.Swap(int32(to))) == logOpen
	if to == logDeleted {
		l.dir.Leave()
	}
	return wasOpen
}

// has tells whether a segment is still part of the log.
func (l *Log) has(g *segment.Segment) bool {
	l.pub.Lock()
	defer l.pub.Unlock()
	return slices.Contains(l.segs, g)
}
