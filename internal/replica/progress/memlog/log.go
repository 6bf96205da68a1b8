// Package memlog has a log that is kept in memory and can crash, for simulated replicas. Log
// does what storage.Log does, one record for each batch, and Exam proves that another log does
// the same. One goroutine at a time may use a Log.
//
//	0          start               durable             end
//	| deleted  | stays over a crash | may be lost by it |
//
// Records are committed when they are durable or, in page-cache mode, when they are appended.
// The mode changes with the first append after Configure, which makes all earlier records durable.
package memlog

import (
	"errors"

	"github.com/leatstream/leat/internal/record"
)

// Entry is a record, which is a batch of its own.
type Entry struct {
	Epoch record.Epoch
	Value uint64
}

var (
	// ErrOutOfRange is returned for an offset that is not in the log.
	ErrOutOfRange = errors.New("offset out of range")
	// ErrFaulted is returned by a log that is read-only after a fault.
	ErrFaulted = errors.New("log is read-only after a fault")
)

// Log is a log in memory.
type Log struct {
	pageCache  bool // records are committed when they are appended, not when they are durable
	configured bool // the value of pageCache from the next append on

	entries   []Entry       // from start to the end
	start     record.Offset // the offset of the first entry; durable at once
	before    record.Epoch  // the epoch of the last deleted record; NoEpoch: none
	begun     record.Epoch  // an epoch that begins at the end and has no records; NoEpoch: none
	durable   record.Offset
	committed record.Offset // never below durable; only a cut and a crash lower it
	hw        record.Offset
	savedHW   record.Offset // the high watermark after a crash
	cut       int32         // the number of the last cut; 0: there was none
	tails     []Tail        // that cuts have taken
	fault     error
}

// Tail is what a cut has taken from a log.
type Tail struct {
	Number  int32
	First   record.Offset
	Entries []Entry
}

// New makes an empty log. With pageCache records are committed before they are durable.
func New(pageCache bool) *Log {
	return &Log{pageCache: pageCache, configured: pageCache, before: record.NoEpoch, begun: record.NoEpoch}
}

// Configure sets whether records are committed before they are durable, from the next append on.
func (l *Log) Configure(pageCache bool) { l.configured = pageCache }

// PageCache tells whether records are committed before they are durable.
func (l *Log) PageCache() bool { return l.pageCache }

// beginAppend has an append use the mode that was configured last. Before the mode changes, all
// records become durable.
func (l *Log) beginAppend() {
	if l.pageCache != l.configured {
		l.CommitTo(l.end())
		l.pageCache = l.configured
	}
}

// endAppend commits the records of an append in page-cache mode.
func (l *Log) endAppend() {
	if l.pageCache {
		l.committed = l.end()
	}
}

// Append appends records as the leader in an epoch.
func (l *Log) Append(epoch record.Epoch, values ...uint64) error {
	if l.fault != nil {
		return l.fault
	}
	l.beginAppend()
	epoch = max(epoch, l.lastEpoch())
	for _, v := range values {
		l.entries = append(l.entries, Entry{epoch, v})
	}
	if len(values) > 0 {
		l.begun = record.NoEpoch
	}
	l.endAppend()
	return nil
}

// AppendAt appends records with the epochs that they have, as a follower does. The first one
// gets the offset at, which must be the log's end.
func (l *Log) AppendAt(at record.Offset, entries ...Entry) error {
	if l.fault != nil {
		return l.fault
	}
	l.beginAppend()
	defer l.endAppend()
	last := l.EpochAt(l.end() - 1)
	for _, e := range entries {
		if at != l.end() || e.Epoch < last {
			return ErrOutOfRange
		}
		last = e.Epoch
		l.entries = append(l.entries, e)
		l.begun = record.NoEpoch
		at++
	}
	return nil
}

// BeginEpoch notes that a leader's epoch begins at the end. A crash forgets an epoch that has no
// durable records.
func (l *Log) BeginEpoch(e record.Epoch) error {
	if l.fault == nil && e > l.lastEpoch() {
		l.begun = e
	}
	return l.fault
}

// Truncate cuts the log, so that no record lies at an offset or beyond it. The cut is durable, and so
// is what is left, but in page-cache mode only what was before.
func (l *Log) Truncate(to record.Offset) error {
	switch {
	case l.fault != nil:
		return l.fault
	case to >= l.end():
		return nil
	case to < l.start:
		return ErrOutOfRange
	}
	l.entries = l.entries[:to-l.start]
	l.begun = record.NoEpoch
	l.durable, l.committed = min(l.durable, to), to
	if !l.pageCache {
		l.durable = to
	}
	l.hw, l.savedHW = min(l.hw, to), min(l.savedHW, to)
	return nil
}

// Cut has the log end at an offset because the metadata say so, once for each number, durably. What lies beyond is kept. A log that begins
// beyond the offset is empty then, and begins there.
func (l *Log) Cut(number int32, to record.Offset) error {
	switch {
	case number <= l.cut:
		return nil
	case l.fault != nil:
		return l.fault
	}
	if from := max(to, l.start); from < l.end() {
		l.tails = append(l.tails, Tail{number, from, append([]Entry(nil), l.entries[from-l.start:]...)})
	}
	if to < l.start {
		hw, saved := min(l.hw, to), min(l.savedHW, to)
		if err := l.Clear(to); err != nil {
			return err
		}
		l.hw, l.savedHW = hw, saved
	} else if err := l.Truncate(to); err != nil {
		return err
	}
	l.cut = number
	return nil
}

// CutNumber is the number of the last cut that the log has made; 0: it has made none.
func (l *Log) CutNumber() int32 { return l.cut }

// Tails are what cuts have taken from the log.
func (l *Log) Tails() []Tail { return l.tails }

// Clear drops all records, durably, and has the log begin at an offset. It keeps the number of its last cut, and what cuts have taken.
func (l *Log) Clear(start record.Offset) error {
	if l.fault != nil {
		return l.fault
	}
	*l = Log{
		pageCache: l.pageCache, configured: l.configured, before: record.NoEpoch, begun: record.NoEpoch,
		start: start, durable: start, committed: start, hw: start, savedHW: start, cut: l.cut, tails: l.tails,
	}
	return nil
}

// SetStart moves the start forward, durably, and deletes the records before it.
func (l *Log) SetStart(to record.Offset) error {
	switch {
	case l.fault != nil:
		return l.fault
	case to > l.end():
		return ErrOutOfRange
	case to <= l.start:
		return nil
	}
	l.before = l.EpochAt(to - 1)
	l.entries = l.entries[to-l.start:]
	l.start = to
	l.durable, l.committed = max(l.durable, to), max(l.committed, to)
	return nil
}

// Commit makes durable what was appended so far, and the high watermark. In page-cache mode it does
// nothing.
func (l *Log) Commit() {
	if !l.pageCache {
		l.CommitTo(l.end())
	}
}

// CommitTo makes durable the records below an offset, and the high watermark as far as these go.
func (l *Log) CommitTo(to record.Offset) {
	l.durable = max(l.durable, min(to, l.end()))
	l.committed = max(l.committed, l.durable)
	l.savedHW = max(l.savedHW, min(l.hw, l.durable))
}

// Close does what an orderly end of the node does: everything is durable.
func (l *Log) Close() { l.CommitTo(l.end()) }

// Crash does what a crash of the node does: of the records that are not durable only the first
// ones stay, at most keep. They count as durable then: recovery syncs what it finds.
func (l *Log) Crash(keep int) {
	n := min(int(l.durable-l.start)+keep, len(l.entries))
	l.entries = l.entries[:n]
	l.durable, l.committed = l.end(), l.end()
	l.begun = record.NoEpoch
	l.hw = max(min(l.savedHW, l.end()), l.start)
	l.savedHW = l.hw
}

// Break makes the log read-only.
func (l *Log) Break() { l.fault = ErrFaulted }

// Fault is why the log is read-only; nil where it is not.
func (l *Log) Fault() error { return l.fault }

// SetHighWatermark notes the high watermark. Commit makes it durable.
func (l *Log) SetHighWatermark(o record.Offset) { l.hw = o }

// HighWatermark is the noted high watermark. After a crash it may be an earlier one.
func (l *Log) HighWatermark() record.Offset { return l.hw }

// Start is the first offset that can be read.
func (l *Log) Start() record.Offset { return l.start }

// End is the offset after the last record.
func (l *Log) End() record.Offset { return l.end() }

func (l *Log) end() record.Offset { return l.start + record.Offset(len(l.entries)) }

// Committed is the offset after the last committed record.
func (l *Log) Committed() record.Offset { return l.committed }

// Durable is the offset after the last record that stays over a crash.
func (l *Log) Durable() record.Offset { return l.durable }

// Read returns records from an offset on, at most n.
func (l *Log) Read(from record.Offset, n int) ([]Entry, error) {
	if from < l.start || from > l.end() {
		return nil, ErrOutOfRange
	}
	rest := l.entries[from-l.start:]
	return append([]Entry(nil), rest[:min(n, len(rest))]...), nil
}

// EntryAt is the record at an offset; ok is false if there is none.
func (l *Log) EntryAt(o record.Offset) (e Entry, ok bool) {
	if o < l.start || o >= l.end() {
		return Entry{}, false
	}
	return l.entries[o-l.start], true
}

// EpochAt is the epoch of the record at an offset (NoEpoch: there is none).
func (l *Log) EpochAt(o record.Offset) record.Epoch {
	if o < l.start || o >= l.end() {
		return record.NoEpoch
	}
	return l.entries[o-l.start].Epoch
}

// EpochEnd finds the largest epoch of the log that is not above e, and the offset at which the
// next one begins, which is the log's end for the last one. If all are above e it returns e and
// the log's start; both are -1 if e is above the last epoch, or there is none.
func (l *Log) EpochEnd(e record.Epoch) (record.Epoch, record.Offset) {
	last := l.lastEpoch()
	switch {
	case e < 0 || e > last || last == record.NoEpoch:
		return record.NoEpoch, -1
	case e == last:
		return e, l.end()
	}
	found, end := e, l.start
	for i, entry := range l.entries {
		if entry.Epoch > e {
			return found, end
		}
		found, end = entry.Epoch, l.start+record.Offset(i)+1
	}
	return found, end
}

// lastEpoch is the last epoch that the log knows, which need not have records.
func (l *Log) lastEpoch() record.Epoch {
	if l.begun != record.NoEpoch {
		return l.begun
	}
	if len(l.entries) == 0 {
		return l.before
	}
	return l.entries[len(l.entries)-1].Epoch
}

// Clone copies the log.
func (l *Log) Clone() *Log {
	c := *l
	c.entries = append([]Entry(nil), l.entries...)
	return &c
}
