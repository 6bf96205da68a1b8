// Package producer keeps the idempotent producers of a log. A State applies Kafka's rules
// for sequence numbers, so that a batch which is sent again is stored only once (KIP-98).
// It is encoded as a snapshot file, and decoded from one.
//
// A producer id is in one of three states. If it is unknown, every sequence is accepted,
// since its records may all have been deleted. If it has batches, the next sequence must
// follow, or the batch must be one of the last five. If it has none, which is so after a
// control batch with a new epoch, the next sequence must be 0.
//
//	          a batch                      a control batch of a newer epoch
//	unknown ------------> has batches <-----------------------------------------> has none
//	   ^                       |                      a batch                        |
//	   +-----------------------+-----------------------------------------------------+
//	             Expire, for its age, or Evict, since the Budget of all logs is exceeded
//
// A producer with an open transaction is neither expired nor evicted: readers wait for its end. If
// those alone fill the Budget, no transaction begins.
//
// A State is for one goroutine at a time; any goroutine may use a Budget.
package producer

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/transaction"
)

var (
	// ErrOutOfOrderSequence is returned for a batch whose sequence does not follow the
	// producer's last one.
	ErrOutOfOrderSequence = errors.New("out of order sequence")
	// ErrFenced is returned for a batch with an older epoch than the producer's last one.
	ErrFenced = errors.New("producer epoch is fenced")
	// ErrCoordinatorFenced is returned for a marker of an older coordinator than the producer's
	// last one.
	ErrCoordinatorFenced = errors.New("transaction coordinator is fenced")
	// ErrTransactionState is returned for a batch that does not belong to the producer's open
	// transaction, or to one that the caller knows to be open.
	ErrTransactionState = errors.New("the batch is not part of an open transaction")
	// ErrManyOpen is returned for the first batch of a transaction if the open ones of all logs fill
	// the Budget. It may succeed when others have ended.
	ErrManyOpen = errors.New("too many transactions are open")
)

// Claim is what the caller knows of the transaction that a batch belongs to.
type Claim struct {
	// Verified says that the coordinator has the log in the producer's open transaction (KIP-890). It
	// is needed for the first batch of a transaction.
	Verified bool
	// Version is the transaction version that the producer, or the coordinator of a marker, uses.
	// From version 2 on each transaction has an epoch of its own.
	Version int16
}

// epochPerTransaction is the first transaction version in which each transaction has an epoch of
// its own, since every marker raises it.
const epochPerTransaction = 2

// KeptBatches is how many of a producer's last batches are kept. A client may have as
// many in flight.
const KeptBatches = 5

// Batch is one of a producer's last batches.
type Batch struct {
	Base, LastOffset record.Offset // of its first and its last record
	Time             int64         // its largest timestamp, ms
	AppendTime       bool          // the broker set Time, not the producer
}

// keptBatch is a batch as an entry keeps it.
type keptBatch struct {
	lastOffset record.Offset
	time       int64 // its largest timestamp, ms
	lastSeq    int32
	delta      int32 // its last offset less its first
}

func (k *keptBatch) firstSeq() int32 {
	return int32((int64(k.lastSeq) - int64(k.delta)) & math.MaxInt32)
}

// entry is one producer.
type entry struct {
	id          int64
	lastSeen    int64         // when it last appended or was recovered, ms; see Expire
	txnFirst    record.Offset // of its open transaction; transaction.None
	coordinator int32         // the epoch of the coordinator of its last marker, or noCoordinator
	epoch       int16
	kept        int8                   // how many of batches are set
	appendTimes uint8                  // bit i: the broker set the time of batches[i], not the producer
	batches     [KeptBatches]keptBatch // the oldest first
}

// noCoordinator stands for the epoch of a coordinator that has sent no marker.
const noCoordinator int32 = -1

// newEntry is an entry of which only id, epoch and time are known.
func newEntry(id int64, epoch int16, now int64) entry {
	return entry{id: id, epoch: epoch, lastSeen: now, txnFirst: transaction.None, coordinator: noCoordinator}
}

func (p *entry) isOpen() bool { return p.txnFirst != transaction.None }

func (p *entry) lastBatch() *keptBatch { return &p.batches[p.kept-1] }

// lastOffset says which of two producers of a log was used later, also where the clock was set
// or the log was opened again in between. It is -1 after a control batch.
func (p *entry) lastOffset() record.Offset {
	if p.kept == 0 {
		return -1
	}
	return p.lastBatch().lastOffset
}

// State has the producers of a log. The zero State has none, and no Budget.
type State struct {
	budget    *Budget
	known     table
	open      int    // producers with an open transaction
	grown     int    // producers that were added since the last Evict
	changed   bool   // since the last snapshot
	undoLog   []undo // one for each batch since the last Confirm, the oldest first
	removals  int    // how often producers were removed by keep
	lastSweep int64  // when Expire last looked for expired producers, ms
}

// New makes a State that counts its producers in a Budget, until Release.
func New(b *Budget) State { return State{budget: b} }

// undo is a producer before an append that may fail.
type undo struct {
	before entry
	added  bool // the producer was unknown
}

// Changed tells whether a producer changed since the last snapshot.
func (s *State) Changed() bool { return s.changed }

// SetChanged sets the result of Changed: false after a snapshot was written, true if it
// was lost.
func (s *State) SetChanged(changed bool) { s.changed = changed }

// Check checks a batch that a client sends, or the marker of a coordinator. It returns an error if
// the batch must not be appended. If it is a repetition of one of the producer's last batches, it
// returns that batch, and true. A marker that comes again is appended again. A batch of records
// without a sequence, as a group coordinator writes in a producer's transaction, repeats none.
func (s *State) Check(b record.Batch, c Claim) (earlier Batch, duplicate bool, err error) {
	p := s.known.find(b.ProducerID())
	epoch, first, last := b.ProducerEpoch(), b.BaseSequence(), b.LastSequence()
	switch {
	case p == nil && c.Version >= epochPerTransaction && b.Transactional() && first > 0:
		return Batch{}, false, fmt.Errorf("%w: producer %d, which is not known, began with sequence %d", ErrOutOfOrderSequence, b.ProducerID(), first)
	case p == nil:
		return Batch{}, false, s.checkTransaction(nil, b, c)
	case epoch < p.epoch:
		return Batch{}, false, fmt.Errorf("%w: producer %d came with epoch %d after %d", ErrFenced, p.id, epoch, p.epoch)
	case b.Control():
		return Batch{}, false, p.checkMarker(b, c)
	case first == record.NoSequence:
		return Batch{}, false, s.checkTransaction(p, b, c)
	}
	if epoch == p.epoch {
		for i := range p.batches[:p.kept] {
			if k := &p.batches[i]; k.lastSeq == last && k.firstSeq() == first {
				base := k.lastOffset - record.Offset(k.delta)
				return Batch{Base: base, LastOffset: k.lastOffset, Time: k.time, AppendTime: p.appendTimes>>i&1 == 1}, true, nil
			}
		}
	}
	if err := s.checkTransaction(p, b, c); err != nil {
		return Batch{}, false, err
	}
	switch want := p.nextSequence(epoch); {
	case first != want && want == 0 && (epoch > p.epoch || p.kept == 0):
		return Batch{}, false, fmt.Errorf("%w: producer %d began its epoch %d with sequence %d", ErrOutOfOrderSequence, p.id, epoch, first)
	case first != want:
		return Batch{}, false, fmt.Errorf("%w: producer %d sent %d after %d", ErrOutOfOrderSequence, p.id, first, p.lastBatch().lastSeq)
	}
	return Batch{}, false, nil
}

// nextSequence is the sequence that must follow in an epoch.
func (p *entry) nextSequence(epoch int16) int32 {
	if epoch > p.epoch || p.kept == 0 {
		return 0
	}
	return record.AddSequence(p.lastBatch().lastSeq, 1)
}

// checkTransaction checks that a batch of records is part of its producer's open transaction, or is
// none and the producer has none. p is nil for a producer that is not known.
func (s *State) checkTransaction(p *entry, b record.Batch, c Claim) error {
	isOpen := p != nil && p.isOpen()
	switch {
	case b.Control():
		return nil
	case !b.Transactional() && isOpen:
		return fmt.Errorf("%w: producer %d sent a batch outside of its open transaction", ErrTransactionState, p.id)
	case !b.Transactional() || isOpen && p.epoch == b.ProducerEpoch():
		return nil
	case !c.Verified:
		return fmt.Errorf("%w: producer %d has none open in epoch %d, and the coordinator was not asked", ErrTransactionState, b.ProducerID(), b.ProducerEpoch())
	case !isOpen && s.budget.isFilledByOpen():
		return ErrManyOpen
	}
	return nil
}

// checkMarker checks a marker, whose epoch is not older than the producer's. In version 2 its epoch
// must be a newer one, unless it comes again: then the transaction has ended (KAFKA-19999). The last
// epoch has no newer one.
func (p *entry) checkMarker(b record.Batch, c Claim) error {
	if c.Version >= epochPerTransaction && b.ProducerEpoch() == p.epoch && p.isOpen() && p.epoch != math.MaxInt16 {
		return fmt.Errorf("%w: a marker of producer %d came with epoch %d, in which a transaction is open", ErrFenced, p.id, p.epoch)
	}
	if m, err := record.ReadMarker(b); err == nil && m.CoordinatorEpoch < p.coordinator {
		return fmt.Errorf("%w: a marker of producer %d is of epoch %d after %d", ErrCoordinatorFenced, p.id, m.CoordinatorEpoch, p.coordinator)
	}
	return nil
}

// Apply adds a batch that was appended, or that is about to be; now is the time in ms. It returns
// what the batch does to the producer's transaction, for which all bytes of a control batch are
// needed. Revert undoes it, until Confirm makes it final.
func (s *State) Apply(b record.Batch, now int64) transaction.Change {
	id := b.ProducerID()
	p := s.known.find(id)
	added := p == nil
	if added {
		p = s.addEntry(newEntry(id, b.ProducerEpoch(), now))
	}
	s.undoLog = append(s.undoLog, undo{*p, added})
	s.changed = true
	p.lastSeen = now
	if e := b.ProducerEpoch(); e != p.epoch {
		p.epoch, p.kept = e, 0
	}
	if !b.Control() && b.BaseSequence() >= 0 {
		p.pushBatch(keptBatch{
			lastOffset: b.LastOffset(), time: b.MaxTimestamp(),
			lastSeq: b.LastSequence(), delta: b.LastOffsetDelta(),
		}, b.TimestampType() == record.LogAppendTime)
	}
	if !b.Transactional() && !b.Control() {
		return transaction.Change{}
	}
	return s.applyTransaction(p, b)
}

// applyTransaction applies a transactional batch, or a control batch.
func (s *State) applyTransaction(p *entry, b record.Batch) transaction.Change {
	c := transaction.Step(p.txnFirst, b)
	switch c.Kind {
	case transaction.Begun:
		p.txnFirst = c.First
		s.countOpen(1)
	case transaction.Committed, transaction.Aborted:
		p.txnFirst = transaction.None
		s.countOpen(-1)
	case transaction.Unchanged:
	}
	if b.Control() {
		if m, err := record.ReadMarker(b); err == nil {
			p.coordinator = m.CoordinatorEpoch
		}
	}
	return c
}

// countOpen counts producers with an open transaction that are more now, or less.
func (s *State) countOpen(n int) {
	if n != 0 {
		s.open += n
		s.budget.countOpen(n)
	}
}

func (s *State) addEntry(e entry) *entry {
	p := s.known.add(e)
	s.grown++
	s.budget.resize(s.known.n-1, s.known.n)
	return p
}

func (p *entry) pushBatch(k keptBatch, appendTime bool) {
	if p.kept == KeptBatches {
		copy(p.batches[:], p.batches[1:])
		p.kept--
		p.appendTimes >>= 1
	}
	p.batches[p.kept] = k
	p.appendTimes &= 1<<p.kept - 1
	if appendTime {
		p.appendTimes |= 1 << p.kept
	}
	p.kept++
}

// keptUndo is the most batches for which Confirm keeps the memory that Revert needs.
const keptUndo = 4

// Confirm makes all batches final that were applied.
func (s *State) Confirm() {
	if s.undoLog = s.undoLog[:0]; cap(s.undoLog) > keptUndo {
		s.undoLog = nil
	}
}

// Revert undoes all batches that were applied since the last Confirm.
func (s *State) Revert() {
	before := s.known.n
	for _, u := range slices.Backward(s.undoLog) {
		p := s.known.find(u.before.id)
		s.countOpen(openIn(&u.before) - openIn(p))
		if u.added {
			s.known.removeLast()
		} else {
			*p = u.before
		}
	}
	s.grown -= before - s.known.n
	s.budget.resize(before, s.known.n)
	s.Confirm()
}

// openIn counts the open transactions of an entry.
func openIn(p *entry) int {
	if p.isOpen() {
		return 1
	}
	return 0
}

// Release forgets all producers, and gives their memory back.
func (s *State) Release() {
	s.budget.resize(s.known.n, 0)
	s.countOpen(-s.open)
	*s = State{budget: s.budget}
}

// keep removes the producers for which a function returns false. It makes all batches final
// that were applied, since Revert needs the order of the entries.
func (s *State) keep(isKept func(p *entry) bool) {
	s.Confirm()
	before, open := s.known.n, 0
	s.known.keep(func(p *entry) bool {
		kept := isKept(p)
		if kept {
			open += openIn(p)
		}
		return kept
	})
	s.countOpen(open - s.open)
	if s.known.n != before {
		s.changed = true
		s.removals++
		s.budget.resize(before, s.known.n)
	}
}

// Evict forgets the longest unused producers while the Budget is exceeded, as far as this log
// has to. It returns true if the Budget is exceeded still, since other logs have more. Evict
// makes all batches final that were applied. A log that evicts any producers evicts a ninth of
// them at least, since it sorts all of them to find the longest unused ones.
func (s *State) Evict() (exceeded bool) {
	s.Confirm()
	grown := s.grown
	s.grown = 0
	if !s.budget.isExceeded() {
		return false
	}
	n, share := s.known.n, s.budget.fairShare()
	drop := countAbove(n, share)
	if above := countAbove(n, share/8); grown > 0 && s.budget.isFarExceeded() {
		drop = max(drop, min(max(grown, n/8), above))
	}
	if drop = min(drop, n-s.open-minKept); drop > 0 {
		s.evictOldest(drop)
	}
	return s.budget.isExceeded()
}

// countAbove counts the producers of n that are above a number, if those are more than an eighth of it.
func countAbove(n, most int) int {
	if n-most <= most/8 {
		return 0
	}
	return n - most
}

// evictOldest forgets a number of producers without an open transaction, the longest unused ones.
func (s *State) evictOldest(drop int) {
	used := make([]record.Offset, 0, s.known.n-s.open)
	for i := range s.known.n {
		if p := s.known.at(i); !p.isOpen() {
			used = append(used, p.lastOffset())
		}
	}
	slices.Sort(used)
	upTo := used[drop-1]
	left := drop
	s.keep(func(p *entry) bool {
		if left > 0 && !p.isOpen() && p.lastOffset() <= upTo {
			left--
			return false
		}
		return true
	})
	s.budget.evicted.Add(int64(drop))
}

// CutAt forgets the batches that end at an offset or behind it, as a log does that is truncated there, and
// the producers of which nothing else is known: their next batch is accepted, whatever its sequence is. It
// forgets which transactions are open, since markers may be cut: Adopt has those of a log that has any.
func (s *State) CutAt(end record.Offset) {
	s.keep(func(p *entry) bool {
		s.changed = s.changed || p.isOpen()
		p.txnFirst = transaction.None
		if p.kept == 0 {
			return true // nothing tells where its control batch is
		}
		for p.kept > 0 && p.lastBatch().lastOffset >= end {
			p.kept--
			s.changed = true
		}
		p.appendTimes &= 1<<p.kept - 1
		return p.kept > 0
	})
}

// Adopt takes the producers of another State over, and what that knows of those that both have, but for batches if
// it does not know the last one, or knows fewer: compaction may have removed them from the log from which the other State was built.
func (s *State) Adopt(other *State) {
	s.Confirm()
	for i := range other.known.n {
		from := other.known.at(i)
		p := s.known.find(from.id)
		if p == nil {
			p = s.addEntry(newEntry(from.id, from.epoch, from.lastSeen))
		}
		s.countOpen(openIn(from) - openIn(p))
		own := *p
		if *p = *from; own.lastOffset() > from.lastOffset() || own.lastOffset() == from.lastOffset() && own.kept > from.kept {
			p.epoch, p.kept, p.appendTimes, p.batches = own.epoch, own.kept, own.appendTimes, own.batches
		}
		s.changed = true
	}
}

// EndTransactions ends the open transactions that began below an offset, of which the caller knows that they have ended.
func (s *State) EndTransactions(below record.Offset) {
	s.Confirm()
	for i := range s.known.n {
		if p := s.known.at(i); p.isOpen() && p.txnFirst < below {
			p.txnFirst = transaction.None
			s.countOpen(-1)
			s.changed = true
		}
	}
}

// Open lists the open transactions, in no order.
func (s *State) Open() (list []transaction.Open) {
	for i := range s.known.n {
		if p := s.known.at(i); p.isOpen() {
			list = append(list, transaction.Open{Producer: p.id, First: p.txnFirst})
		}
	}
	return list
}

// HasOpen tells whether a producer has an open transaction in an epoch.
func (s *State) HasOpen(id int64, epoch int16) bool {
	p := s.known.find(id)
	return p != nil && p.isOpen() && p.epoch == epoch
}

// sweepIntervalMS is how often, at most, Expire looks for expired producers.
const sweepIntervalMS = 60_000

// Expire removes producers without an open transaction that have appended nothing for the time
// after. now and after are in ms; if after is 0 or less, producers never expire. Expire makes all batches
// final that were applied.
func (s *State) Expire(now, after int64) {
	s.Confirm()
	if now < s.lastSweep { // the clock was set back
		s.lastSweep = now
	}
	if after <= 0 || now-s.lastSweep < min(sweepIntervalMS, after) {
		return
	}
	s.lastSweep = now
	s.keep(func(p *entry) bool {
		p.lastSeen = min(p.lastSeen, now) // the clock may have been set back
		return p.isOpen() || now-p.lastSeen < after
	})
}

// Description is one producer as DescribeProducers shows it.
type Description struct {
	ID           int64
	Epoch        int16
	LastSequence int32
	LastTime     int64 // ms
	LastOffset   record.Offset
	// LastOffsets are those of its last batches, the newest first; -1 where there are fewer.
	LastOffsets [KeptBatches]record.Offset
	// CoordinatorEpoch is that of the last marker; -1: there was none.
	CoordinatorEpoch int32
	// TransactionStart is the first offset of its open transaction; -1: none is open.
	TransactionStart record.Offset
}

// Len is the number of producers.
func (s *State) Len() int { return s.known.n }

// Removals counts how often producers were removed, which changes the places of others.
func (s *State) Removals() int { return s.removals }

// Describe lists the producers.
func (s *State) Describe() []Description { return s.DescribeMore(nil, s.known.n) }

// DescribeMore appends to a list that has the first producers the next ones, up to n.
func (s *State) DescribeMore(list []Description, n int) []Description {
	from := len(list)
	to := from + max(0, min(n, s.known.n-from))
	if list == nil {
		list = make([]Description, 0, to)
	}
	for i := from; i < to; i++ {
		p := s.known.at(i)
		out := Description{
			ID: p.id, Epoch: p.epoch, LastSequence: record.NoSequence, LastTime: p.lastSeen, LastOffset: -1,
			CoordinatorEpoch: p.coordinator, TransactionStart: p.txnFirst,
		}
		for n := range out.LastOffsets {
			out.LastOffsets[n] = -1
			if i := int(p.kept) - 1 - n; i >= 0 {
				out.LastOffsets[n] = p.batches[i].lastOffset
			}
		}
		if p.kept > 0 {
			last := p.lastBatch()
			out.LastSequence, out.LastTime, out.LastOffset = last.lastSeq, last.time, last.lastOffset
		}
		list = append(list, out)
	}
	return list
}
