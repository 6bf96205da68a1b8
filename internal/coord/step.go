package coord

import (
	"time"

	"github.com/leatstream/leat/internal/record"
)

// Record is one record of a shard's log; a nil Value is a tombstone.
type Record struct {
	Key   []byte
	Value []byte
}

// Producer is a producer with transactions.
type Producer struct {
	ID    int64
	Epoch int16
}

// Marker ends the transaction of a producer on the shard's partition.
type Marker struct {
	Producer
	record.Marker
	// Version is 2 if each transaction of the producer has an epoch of its own. The log does not keep
	// it, so that it is 0 at a load.
	Version int16
}

// Transactional is a Machine whose log may have records of producers' transactions. A machine
// that is none has a log without transactions.
type Transactional interface {
	Machine
	// EndTransaction takes that the transaction of a producer has ended, at a load and after a step
	// has appended the marker. It is also called if the producer has no transaction here.
	EndTransaction(s *Step, m Marker)
}

// Step is one decision of a machine, while it is made: it has the time, and collects
// the decided records and the replies. A machine must not keep it. It belongs to the
// holder of the shard's mutex and, afterwards, to the goroutine that calls the replies.
//
// A step goes as follows. An operation decides, by Put, Reply, After, Then and Else.
// The records are appended as one batch, and Apply is called with each. Then the
// functions given to Then run; they may decide more, which is appended and applied in
// the same way. If the append fails, no record is applied, the functions given to Else
// run instead, and every reply gets the error.
type Step struct {
	Now time.Time

	epoch   record.Epoch  // see Epoch
	next    record.Offset // see Next
	claims  bool          // the replies depend on the records below after, or on there being none
	after   record.Offset // the replies wait until the high watermark has reached it
	records []Record      // decided and not appended yet
	txn     *Producer     // see Producer
	marker  *Marker       // decided and not appended yet; nil: none is
	buf     []byte        // the bytes of the records that PutBuffer added
	replies []func(error)
	then    []func()
	orElse  []func(error)

	refused   error       // why the records must not be appended; nil: they may be
	err       error       // why the append failed
	appended  bool        // some records were appended
	replyFunc func(error) // s.replyAndRecycle, made once: parking a step then costs nothing
	recycle   func(*Step) // gives the step back to the pool; nil if it belongs to none
}

// NewStep makes a step that belongs to no shard, for tests of machines.
func NewStep(now time.Time) *Step {
	s := &Step{Now: now}
	s.replyFunc = s.replyAndRecycle
	return s
}

// Put adds a record. Its bytes must not change any more.
func (s *Step) Put(key, value []byte) {
	s.records = append(s.records, Record{Key: key, Value: value})
}

// SetProducer makes the records that are put before the next append part of the transaction of a
// producer. They are applied at once, and whether they count is decided by a marker.
func (s *Step) SetProducer(p Producer) { s.txn = &p }

// Producer is whose transaction the record belongs to that is being applied; false: it belongs to
// none.
func (s *Step) Producer() (Producer, bool) {
	if s.txn == nil {
		return Producer{}, false
	}
	return *s.txn, true
}

// PutMarker adds a marker, which is appended alone: the step must have no records then. EndTransaction
// is called afterwards. Only a Transactional machine may call it.
func (s *Step) PutMarker(m Marker) {
	if len(s.records) > 0 {
		panic("BUG: a marker is appended alone")
	}
	s.marker = &m
}

// Buffer returns a buffer that the step owns, with the records that PutBuffer added since
// the last append. The caller appends a record's key and then its value to it,
// and hands the result to PutBuffer. Its bytes are valid until the records were applied.
func (s *Step) Buffer() []byte { return s.buf }

// PutBuffer adds the record that was appended to Buffer. Its value begins at b[value];
// if nothing follows the key, the record is a tombstone.
func (s *Step) PutBuffer(b []byte, value int) {
	if len(b) > MaxBatch {
		s.Refuse(ErrTooLarge)
	}
	if s.refused != nil {
		s.dropRecords()
		return
	}
	r := Record{Key: b[len(s.buf):value:value]}
	if value < len(b) {
		r.Value = b[value:len(b):len(b)]
	}
	s.records = append(s.records, r)
	s.buf = b
}

// Refuse has the step end as if the append of its records had failed with the error. A machine
// calls it before it makes a record that would be larger than MaxBatch.
func (s *Step) Refuse(err error) { s.refused = err }

// Reply adds an answer. fn is called once, with no lock held: with nil when the high
// watermark has passed the records that the step has read and written, or with the
// error that prevents this.
func (s *Step) Reply(fn func(err error)) { s.replies = append(s.replies, fn) }

// After makes the replies wait until all records below off are committed, and fail if this
// node does not lead any more. The records that the step itself appends need no call. A
// step without it has replies that claim nothing.
func (s *Step) After(off record.Offset) { s.claims, s.after = true, max(s.after, off) }

// Then has fn run after the step's records were applied.
func (s *Step) Then(fn func()) { s.then = append(s.then, fn) }

// Else has fn run if the step's records cannot be appended.
func (s *Step) Else(fn func(err error)) { s.orElse = append(s.orElse, fn) }

// Epoch is the leader epoch in which the step is made; at a load, that in which the record was
// appended. It is 0 if the step belongs to no shard.
func (s *Step) Epoch() record.Epoch { return s.epoch }

// Next is the offset after the record that is being applied; it is for Apply only.
func (s *Step) Next() record.Offset { return s.next }

// Records are the records put since the last ones were appended.
func (s *Step) Records() []Record { return s.records }

// InEpoch has a step that belongs to no shard be one of a leader epoch, for tests of machines.
func (s *Step) InEpoch(e record.Epoch) *Step {
	s.epoch = e
	return s
}

// Run ends a step that belongs to no shard, for tests of machines. If err is nil, m
// gets the records as if they had been appended to a log from offset next on; else the
// append fails with err. Then the replies are called. Run returns the offset after the
// records.
func (s *Step) Run(m Machine, next record.Offset, err error) record.Offset {
	end, _, reply := s.RunUncommitted(m, next, err)
	reply(nil)
	return end
}

// RunUncommitted is Run for tests whose log has a high watermark. It leaves the replies to the caller,
// who calls reply, once, when the high watermark has reached after, or with an error.
func (s *Step) RunUncommitted(m Machine, next record.Offset, err error) (end, after record.Offset, reply func(error)) {
	t := &trial{m: m, next: next, err: err}
	s.appendAndApply(t)
	return t.next, s.after, s.replyFunc
}

// trial takes the place of a shard and its log in Run.
type trial struct {
	m    Machine
	next record.Offset
	err  error
}

func (t *trial) appendRecords(s *Step) (record.Offset, error) {
	if t.err != nil {
		return 0, t.err
	}
	t.next += record.Offset(len(s.records))
	return t.next, nil
}

func (t *trial) appendMarker(*Step) (record.Offset, error) {
	if t.err != nil {
		return 0, t.err
	}
	t.next++
	return t.next, nil
}

func (t *trial) endTransaction(s *Step, m Marker) { endTransaction(t.m, s, m) }

func (t *trial) applyRecord(s *Step, r Record) {
	if err := t.m.Apply(s, r); err != nil {
		panic("BUG: a machine does not understand its own record: " + err.Error())
	}
}

// ledger takes the decided records: a shard does, or a trial.
type ledger interface {
	appendRecords(s *Step) (next record.Offset, err error)
	applyRecord(s *Step, r Record)
	appendMarker(s *Step) (next record.Offset, err error)
	endTransaction(s *Step, m Marker)
}

// endTransaction has a machine end a transaction.
func endTransaction(machine Machine, s *Step, m Marker) {
	t, ok := machine.(Transactional)
	if !ok {
		panic("BUG: a machine without transactions has a marker")
	}
	t.EndTransaction(s, m)
}

// appendAndApply appends and applies the records that were put, runs the functions
// given to Then, and does so again for the records that these put, until there are no
// more.
func (s *Step) appendAndApply(l ledger) {
	for {
		if s.refused != nil {
			s.failAppend(s.refused)
			return
		}
		if n := len(s.records); n > 0 {
			if s.marker != nil {
				panic("BUG: a marker is appended alone")
			}
			next, err := l.appendRecords(s)
			if err != nil {
				s.failAppend(err)
				return
			}
			s.noteAppend(next)
			for i, r := range s.records {
				s.next = next - record.Offset(n-i-1)
				l.applyRecord(s, r)
			}
			s.dropRecords()
		} else if s.marker != nil {
			next, err := l.appendMarker(s)
			if err != nil {
				s.failAppend(err)
				return
			}
			s.noteAppend(next)
			m := *s.marker
			s.next, s.marker = next, nil
			l.endTransaction(s, m)
		}
		clear(s.orElse)
		s.orElse = s.orElse[:0]
		if len(s.then) == 0 {
			return
		}
		then := s.then
		s.then = nil
		for _, fn := range then {
			fn()
		}
	}
}

// noteAppend notes that something was appended, up to an offset.
func (s *Step) noteAppend(next record.Offset) {
	s.appended = true
	s.After(next)
}

func (s *Step) failAppend(err error) {
	s.err = err
	for _, fn := range s.orElse {
		fn(err)
	}
	s.dropRecords()
}

// dropRecords empties the lists of records and of their bytes.
func (s *Step) dropRecords() {
	clear(s.records)
	s.records, s.buf = s.records[:0], s.buf[:0]
	s.txn, s.marker = nil, nil
}

// trim frees large memory of the step, which may wait long for its commit. No record may be left
// in it.
func (s *Step) trim() {
	if cap(s.buf) > maxRecycledBytes {
		s.buf = nil
	}
	if cap(s.records) > maxRecycledRecords {
		s.records = nil
	}
}

// replyAndRecycle calls the replies, with the step's own error if it has one, and gives
// the step back to the pool.
func (s *Step) replyAndRecycle(err error) {
	if s.err != nil {
		err = s.err
	}
	for _, reply := range s.replies {
		reply(err)
	}
	put := s.recycle
	s.reset()
	if put != nil {
		put(s)
	}
}

// These bound the buffers that steps and shards keep when their records were applied.
const (
	maxRecycledBytes   = 64 << 10
	maxRecycledRecords = 1024
)

func (s *Step) reset() {
	s.dropRecords()
	s.trim()
	clear(s.replies)
	clear(s.then)
	clear(s.orElse)
	*s = Step{
		records: s.records, replies: s.replies[:0], then: s.then[:0], orElse: s.orElse[:0],
		buf: s.buf, replyFunc: s.replyFunc, recycle: s.recycle,
	}
}
