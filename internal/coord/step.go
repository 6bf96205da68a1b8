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

// Step is one decision of a machine under way: what it reads the time from, and
// what it decided. A machine must not keep it. It belongs to whoever holds the
// shard's mutex and, afterwards, to whoever releases the replies.
//
// The order is: the operation decides (Put, Reply, After, Then, Else); the records
// are appended as one batch; Apply is called with each; the functions given to
// Then run, and may decide more, in the same way. When the append fails, nothing
// is applied, the functions given to Else run instead, and every reply gets the error.
type Step struct {
	Now time.Time

	next    record.Offset // see Next
	after   record.Offset // what the replies wait for: the end of the last record they rest on
	records []Record
	buf     []byte // holds the records' bytes
	replies []func(error)
	then    []func()
	orElse  []func(error)

	err      error
	appended bool
	done     func(error) // s.finish, made once: parking a step then costs nothing
	put      func(*Step) // gives the step back; nil: it is nobody's
}

// NewStep makes a step outside of a shard, for tests of machines.
func NewStep(now time.Time) *Step {
	s := &Step{Now: now}
	s.done = s.finish
	return s
}

// Put adds a record. Its bytes must not change any more.
func (s *Step) Put(key, value []byte) {
	s.records = append(s.records, Record{Key: key, Value: value})
}

// Buffer is scratch space that the step owns: append a record's key and then its
// value to it, and hand the result to PutBuffer.
func (s *Step) Buffer() []byte { return s.buf }

// PutBuffer adds the record that was appended to Buffer, of which the value begins
// at b[value]; it is a tombstone where nothing follows the key.
func (s *Step) PutBuffer(b []byte, value int) {
	r := Record{Key: b[len(s.buf):value:value]}
	if value < len(b) {
		r.Value = b[value:len(b):len(b)]
	}
	s.records = append(s.records, r)
	s.buf = b
}

// Reply adds an answer. It is called once, with no lock held: with nil when the
// high watermark has passed what the step saw, else with why that cannot be.
func (s *Step) Reply(fn func(err error)) { s.replies = append(s.replies, fn) }

// After makes the replies wait until everything below off is committed. What the
// step itself appends needs no call.
func (s *Step) After(off record.Offset) { s.after = max(s.after, off) }

// Then runs fn after the step's records were applied.
func (s *Step) Then(fn func()) { s.then = append(s.then, fn) }

// Else runs fn when the step's records could not be appended.
func (s *Step) Else(fn func(err error)) { s.orElse = append(s.orElse, fn) }

// Next is, within Apply, the offset after the record that is applied.
func (s *Step) Next() record.Offset { return s.next }

// Records are the records put so far.
func (s *Step) Records() []Record { return s.records }

// Run ends a step outside of a shard, for tests of machines: m gets the records as
// if they were the log's from offset next on, unless the append fails with err; the
// replies are called. It returns the offset after the records.
func (s *Step) Run(m Machine, next record.Offset, err error) record.Offset {
	t := &trial{m: m, next: next, err: err}
	s.decide(t)
	s.finish(nil)
	return t.next
}

// trial stands in for a shard and its log.
type trial struct {
	m    Machine
	next record.Offset
	err  error
}

func (t *trial) append(_ time.Time, records []Record) (record.Offset, error) {
	if t.err != nil {
		return 0, t.err
	}
	t.next += record.Offset(len(records))
	return t.next, nil
}

func (t *trial) apply(s *Step, r Record) {
	if err := t.m.Apply(s, r); err != nil {
		panic("BUG: a machine does not understand its own record: " + err.Error())
	}
}

// ledger is where decided records go: a shard, or a trial.
type ledger interface {
	append(now time.Time, records []Record) (next record.Offset, err error)
	apply(s *Step, r Record)
}

// decide appends and applies what was put, until nothing more is.
func (s *Step) decide(l ledger) {
	for {
		if n := len(s.records); n > 0 {
			next, err := l.append(s.Now, s.records)
			if err != nil {
				s.fail(err)
				return
			}
			s.appended = true
			s.After(next)
			for i, r := range s.records {
				s.next = next - record.Offset(n-i-1)
				l.apply(s, r)
			}
			clear(s.records)
			s.records = s.records[:0]
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

func (s *Step) fail(err error) {
	s.err = err
	for _, fn := range s.orElse {
		fn(err)
	}
	clear(s.records)
	s.records = s.records[:0]
}

// finish releases the replies and gives the step back.
func (s *Step) finish(err error) {
	if s.err != nil {
		err = s.err
	}
	for _, reply := range s.replies {
		reply(err)
	}
	put := s.put
	s.reset()
	if put != nil {
		put(s)
	}
}

// maxKept bounds the scratch space that a pooled step keeps, in bytes.
const maxKept = 64 << 10

func (s *Step) reset() {
	clear(s.records)
	clear(s.replies)
	clear(s.then)
	clear(s.orElse)
	buf := s.buf[:0]
	if cap(buf) > maxKept {
		buf = nil
	}
	*s = Step{
		records: s.records[:0], replies: s.replies[:0], then: s.then[:0], orElse: s.orElse[:0],
		buf: buf, done: s.done, put: s.put,
	}
}
