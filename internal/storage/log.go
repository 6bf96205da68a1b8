package storage

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/internal/record"
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

// durable tells whether an append is committed only when it is on disk.
func (o Options) durable() bool { return o.FlushMessages <= 1 }

const (
	minSegmentBytes = 1024
	maxSegmentBytes = 1<<31 - 1 // an index's positions are 32-bit
	minIndexBytes   = 2 * timeEntryLen
)

// withDefaults bounds what the format bounds, and fills in what may be left out.
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
	o.IndexBytes = max(o.IndexBytes, minIndexBytes)
	return &o
}

// Log is one partition's log. Safe for concurrent use.
type Log struct {
	s         *Store
	id        LogID
	dir       string // its directory's name
	committed func(*Log)
	opts      atomic.Pointer[Options]

	ready   atomic.Bool           // the directory was looked at
	gone    atomic.Bool           // closed or deleted
	deleted atomic.Bool           // deleted: the directory may be another log's by now; set under mu and idx
	broken  atomic.Pointer[fault] // read-only, with the reason

	start    atomic.Int64 // written under pub
	end      atomic.Int64 // written under pub
	commitTo atomic.Int64 // the committed end; it never falls

	mu     sync.Mutex
	writer *writer // guarded by mu; nil until the first append
	known  point   // guarded by mu: what open started from, for the producers

	idx sync.Mutex // held over changes of the directory's other files than .log; after mu, before out and pub
	out sync.Mutex // held while what waits is written into the active segment's file; before pub

	pub       sync.Mutex
	segs      []*segment // guarded by pub; the slice is replaced, never changed
	tail      *tail      // guarded by pub; of the active segment, nil until it is needed
	recent    recent     // guarded by pub
	epochs    epochs     // guarded by pub
	durable   place      // guarded by pub: everything before is on disk, in its files or the journal
	stable    place      // guarded by pub: everything before is on disk in its files
	marks     marks      // guarded by pub
	unwritten bool       // guarded by pub: the epochs' file is behind, or not on disk
	unshown   bool       // guarded by pub: the epochs' file is behind
	made      bool       // guarded by pub: the directory exists
	linked    bool       // guarded by pub: and its name is durable
	oldest    int64      // guarded by pub: ms, no record is older; timeUnknown
	spares    []*segment // guarded by pub: dropped, their files wait to be taken over
}

// fault is why a log is read-only.
type fault struct {
	err    error
	damage bool // some batch is not what it was. What else the log has can be relied on, and synced
}

// place is a position in a log's files and the offset there.
type place struct {
	seg  *segment // nil: the log has no segment yet
	pos  int64
	next record.Offset
}

// marks say on which lists of the store a log stands, so that it stands there once.
type marks struct {
	round     int64         // the number of the round that it has entered
	slot      int           // its place in round.shares
	period    int64         // see lateness: the last in which it was written to
	changed   bool          // keeper.changed
	journaled bool          // the journal holds bytes of it that no sync of its files covered
	wantSync  bool          // its files are to be synced at the next checkpoint
	unsynced  time.Time     // since when files have bytes that no sync covered; zero: they have not
	records   int64         // batches appended since then, for FlushMessages
	snapAt    record.Offset // the newest snapshot; -1: none
	snapOld   record.Offset // the one before; -1: none
	prodAt    record.Offset // the offset up to which it is the truth
	snapBytes int64         // appended since
	sureStart record.Offset // a start that is durable
	cutBelow  uint64        // rounds before this one may have bytes that were cut off since
	wantSnap  bool          // one is needed before segments go
}

func newLog(s *Store, id LogID, topic string, o Options, committed func(*Log)) *Log {
	l := &Log{s: s, id: id, dir: dirName(topic, id.Partition), committed: committed}
	l.opts.Store(o.withDefaults())
	l.oldest = timeUnknown
	l.marks.snapAt, l.marks.snapOld = -1, -1
	return l
}

// ID is the log's identity.
func (l *Log) ID() LogID { return l.id }

func (l *Log) options() *Options { return l.opts.Load() }

// Configure changes the settings.
func (l *Log) Configure(o Options) {
	l.mu.Lock()
	l.opts.Store(o.withDefaults())
	moved := false
	if l.ready.Load() && !l.options().durable() && l.writeOut() == nil {
		l.pub.Lock()
		moved = l.commitUpToLocked(record.Offset(l.end.Load()))
		l.pub.Unlock()
	}
	l.mu.Unlock()
	if moved {
		l.committed(l)
	}
}

// commitUpToLocked moves the committed end forward. pub is held.
func (l *Log) commitUpToLocked(o record.Offset) bool {
	if record.Offset(l.commitTo.Load()) >= o {
		return false
	}
	l.commitTo.Store(int64(o))
	return true
}

// usable opens the log at its first use and returns why it cannot be read. A
// faulted log can.
func (l *Log) usable() error {
	if l.gone.Load() {
		return ErrClosed
	}
	if l.ready.Load() {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.usableLocked()
}

func (l *Log) usableLocked() error {
	if l.gone.Load() {
		return ErrClosed
	}
	if l.ready.Load() {
		return nil
	}
	return l.openLocked()
}

// fail makes the log read-only for good. What it has can still be read.
func (l *Log) fail(err error) {
	l.setFault(&fault{err: fmt.Errorf("%w: %w", ErrFaulted, err)})
}

// damaged makes the log read-only because of a batch that is not what it was, and
// returns why, in words for who has to mend it. What was appended before is still
// made durable.
func (l *Log) damaged(g *segment, err error) error {
	err = fmt.Errorf("%w: %s is damaged: %w; put back a good copy of the file and restart, "+
		"or copy what can be read and delete the topic", ErrFaulted, g.path(logSuffix), err)
	l.pub.Lock()
	deleted := g != l.activeLocked() && g.next <= record.Offset(l.start.Load()) && l.ready.Load()
	l.pub.Unlock()
	if deleted {
		return err // after a crash it may be back in part: that is no damage
	}
	l.setFault(&fault{err: err, damage: true})
	return err
}

func (l *Log) setFault(f *fault) {
	for {
		old := l.broken.Load()
		if old != nil && (!old.damage || f.damage) {
			return
		}
		if l.broken.CompareAndSwap(old, f) {
			l.s.log.Error("a log is read-only from now on; mend the disk and restart, or delete the topic",
				"log", l.dir, "err", f.err)
			return
		}
	}
}

// faulted tells whether the log is read-only.
func (l *Log) faulted() bool { return l.broken.Load() != nil }

// unsound tells whether what was written to the log's files last may not be there.
func (l *Log) unsound() bool {
	f := l.broken.Load()
	return f != nil && !f.damage
}

// Fault is why the log is read-only; nil where it is not.
func (l *Log) Fault() error {
	if f := l.broken.Load(); f != nil {
		return f.err
	}
	return nil
}

// Start is the first offset that can be read.
func (l *Log) Start() (record.Offset, error) {
	err := l.usable()
	return record.Offset(l.start.Load()), err
}

// End is the offset after the last record.
func (l *Log) End() (record.Offset, error) {
	err := l.usable()
	return record.Offset(l.end.Load()), err
}

// Committed is the offset after the last record that an acknowledgement may rest on.
func (l *Log) Committed() (record.Offset, error) {
	err := l.usable()
	return record.Offset(l.commitTo.Load()), err
}

// BeginEpoch notes that a leader's epoch begins at the log's end. The note is in
// memory; its file follows with the next checkpoint that the log's records are
// part of. An epoch lost before that had no record on disk.
func (l *Log) BeginEpoch(e record.Epoch) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.usableLocked(); err != nil {
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
	es, ok := l.epochs.begin(e, at)
	if ok && e >= 0 {
		l.epochs, l.unwritten, l.unshown = es, true, true
	}
}

// EpochEnd answers OffsetForLeaderEpoch: the largest known epoch not above e, and
// the offset at which the next one begins (the log's end for the latest). Both
// are -1 where nothing is known, as of an epoch above the latest.
func (l *Log) EpochEnd(e record.Epoch) (record.Epoch, record.Offset, error) {
	if err := l.usable(); err != nil {
		return record.NoEpoch, -1, err
	}
	l.pub.Lock()
	es, end := l.epochs, record.Offset(l.end.Load())
	l.pub.Unlock()
	epoch, at := es.end(e, end)
	return epoch, at, nil
}

// EpochAt is the leader epoch of the record at an offset (NoEpoch: unknown).
func (l *Log) EpochAt(o record.Offset) record.Epoch {
	if l.usable() != nil {
		return record.NoEpoch
	}
	l.pub.Lock()
	es, end := l.epochs, record.Offset(l.end.Load())
	l.pub.Unlock()
	if o < 0 || o > end {
		return record.NoEpoch
	}
	return es.at(o)
}

// Producers lists the active producers (DescribeProducers).
func (l *Log) Producers() ([]Producer, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.usableLocked(); err != nil {
		return nil, err
	}
	if err := l.prepareLocked(); err != nil {
		return nil, err
	}
	ps := &l.writer.producers
	ps.expire(time.Now().UnixMilli(), l.options().ProducerExpiration.Milliseconds())
	return ps.export(), nil
}

// active is the segment that is appended to; nil: there is none yet.
func (l *Log) activeLocked() *segment {
	if len(l.segs) == 0 {
		return nil
	}
	return l.segs[len(l.segs)-1]
}

// usage is what the log takes on disk: its records, about.
func (l *Log) usage() int64 {
	if !l.ready.Load() {
		infos, err := l.s.fs.ReadDir(l.s.path(l.dir))
		if err != nil {
			return 0
		}
		var n int64
		for _, i := range infos {
			if _, ok := parseFileName(i.Name, logSuffix); ok {
				n += i.Size
			}
		}
		return n
	}
	l.pub.Lock()
	defer l.pub.Unlock()
	var n int64
	for _, g := range l.segs {
		n += g.size
	}
	return n
}

// shut ends the log's use: what comes later gets ErrClosed.
func (l *Log) shut(deleted bool) {
	l.mu.Lock() // an append under way ends first
	defer l.mu.Unlock()
	l.idx.Lock()
	defer l.idx.Unlock()
	l.out.Lock()
	defer l.out.Unlock()
	l.gone.Store(true)
	l.deleted.Store(deleted)
	if deleted {
		l.forgetWaiting()
	}
}

// change does something to the log's directory, unless that is not its own any more.
func (l *Log) change(fn func() error) error {
	l.idx.Lock()
	defer l.idx.Unlock()
	if l.deleted.Load() {
		return ErrClosed
	}
	return fn()
}
