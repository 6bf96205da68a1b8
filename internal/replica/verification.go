package replica

import (
	"math"
	"slices"
	"sync"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage"
)

// Verification stands for a question to the coordinator whether a partition is part of a producer's transaction
// (KIP-890). The log takes the first batch of a transaction only while there is one that was
// confirmed. A marker of the producer, and another leadership, make it outdated: its answer may be of a
// transaction that has ended, and a batch that came after that would begin one that nobody ends. Where each transaction has
// an epoch of its own, a marker has that of the next one, whose verifications stay: its coordinator may have
// waited for that marker before it has answered.
//
//	BeginVerification --the coordinator is asked--> Confirm --the batch is appended--> End
//
// The question must be asked after BeginVerification. One goroutine at a time uses a Verification.
type Verification struct {
	of       *Verifications
	producer int64
	epoch    int16
	version  int16 // of the transaction, see storage.Claim

	isConfirmed bool // guarded by of.mu
	isMoved     bool // another leadership has made it outdated; guarded by of.mu
	isEnded     bool // a marker has made it outdated; guarded by of.mu
}

// Verifications are those of a partition. The zero value has none. Safe for concurrent use.
type Verifications struct {
	// mu is held while a batch of a transaction, or a marker, is appended, and while the leadership
	// changes, so that a marker comes either before a batch or after it. It is taken before Partition.fence.
	mu   sync.Mutex
	list map[int64][]*Verification // by producer: those that are neither outdated nor ended; guarded by mu
	// lowest has, by producer, the lowest sequence for which a verification was begun in its epoch since it was last
	// appended to the log. The log takes any sequence of a producer that it does not know, but must not take a later one
	// while an earlier batch, which could not be verified, is going to be sent again. Guarded by mu.
	lowest map[int64]sequenceInEpoch
}

type sequenceInEpoch struct {
	epoch    int16
	sequence int32
}

// maxLowest is the length of Verifications.lowest. With more all are forgotten: then producers that begin
// there, and could not be verified, may have to abort their transactions.
const maxLowest = 1000

// BeginVerification begins a verification for a producer's batch. It returns nil if the producer's transaction is
// open in the log: then nobody needs to be asked. sequence is that of the batch, or NoSequence; version is that of the
// transaction: 2 if each has an epoch of its own.
func BeginVerification(p *Partition, producer int64, epoch int16, sequence int32, version int16) *Verification {
	if HasTransaction(p, producer, epoch) {
		return nil
	}
	return p.verifications.Begin(producer, epoch, sequence, version)
}

// Begin begins a verification for a batch of a producer whose transaction is not open in the log: see
// BeginVerification.
func (c *Verifications) Begin(producer int64, epoch int16, sequence int32, version int16) *Verification {
	v := &Verification{of: c, producer: producer, epoch: epoch, version: version}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.list == nil {
		c.list = map[int64][]*Verification{}
	}
	c.list[producer] = append(c.list[producer], v)
	if sequence >= 0 {
		c.noteLowestLocked(producer, sequenceInEpoch{epoch, sequence})
	}
	return v
}

// noteLowestLocked notes that a verification was begun for a sequence. mu is held.
func (c *Verifications) noteLowestLocked(producer int64, at sequenceInEpoch) {
	was, isKnown := c.lowest[producer]
	if isKnown && (was.epoch > at.epoch || was.epoch == at.epoch && was.sequence <= at.sequence) {
		return
	}
	if c.lowest == nil || len(c.lowest) >= maxLowest {
		c.lowest = map[int64]sequenceInEpoch{}
	}
	c.lowest[producer] = at
}

// HasTransaction tells whether a producer's transaction is open in the log, in an epoch of the producer.
func HasTransaction(p *Partition, producer int64, epoch int16) bool {
	isOpen, err := storage.HasOpenTransaction(p.log.Load(), producer, epoch)
	return err == nil && isOpen // the append meets the error, too
}

// Confirm notes that the coordinator has the partition in the transaction.
func (v *Verification) Confirm() {
	c := v.of
	c.mu.Lock()
	defer c.mu.Unlock()
	v.isConfirmed = true
}

// IsMoved tells whether another leadership has made the verification outdated. A batch that was refused for it may be
// sent again.
func (v *Verification) IsMoved() bool {
	c := v.of
	c.mu.Lock()
	defer c.mu.Unlock()
	return v.isMoved
}

// IsEnded tells whether a marker has made the verification outdated: the transaction of the request has ended meanwhile. Its batch must not be
// taken for one of the next transaction, which may be open by then in the same epoch, unless the batch has a sequence that tells.
func (v *Verification) IsEnded() bool {
	c := v.of
	c.mu.Lock()
	defer c.mu.Unlock()
	return v.isEnded
}

// End ends the verification. It is to be called when the batch was appended, or is not to be.
func (v *Verification) End() {
	c := v.of
	c.mu.Lock()
	defer c.mu.Unlock()
	left := slices.DeleteFunc(c.list[v.producer], func(o *Verification) bool { return o == v })
	if len(left) > 0 {
		c.list[v.producer] = left
	} else {
		delete(c.list, v.producer)
	}
}

// Outdate makes all verifications outdated, while change changes the leadership.
func (c *Verifications) Outdate(change func() (isAnother bool)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !change() {
		return
	}

	for _, list := range c.list {
		for _, v := range list {
			v.isMoved = true
		}
	}
	c.list, c.lowest = nil, nil
}

// Append fills in what is known of the transactions of items, and has write append them, which sets their errors.
func (c *Verifications) Append(items []storage.Item, write func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.claimLocked(items)
	defer c.noteAppendedLocked(items)
	write()
}

// claimLocked fills in what is known of the transactions of items. Markers have their version already; they
// make the verifications of their producers outdated. mu is held.
func (c *Verifications) claimLocked(items []storage.Item) {
	for i := range items {
		b := items[i].Batch
		switch {
		case !isTransactional(b):
		case b.Control():
			c.outdateLocked(b, items[i].Claim.Version)
		default:
			for _, v := range c.list[b.ProducerID()] {
				if v.isConfirmed && v.epoch == b.ProducerEpoch() {
					items[i].Claim = storage.Claim{Verified: true, Version: v.version}
				}
			}
			if low, ok := c.lowest[b.ProducerID()]; ok && low.epoch == b.ProducerEpoch() && low.sequence < b.BaseSequence() {
				items[i].Claim.Version = epochPerTransaction // in which the log takes no other sequence than 0 first
			}
		}
	}
}

// noteAppendedLocked notes which items were stored: the log knows their producers now. mu is held.
func (c *Verifications) noteAppendedLocked(items []storage.Item) {
	for i := range items {
		if it := &items[i]; it.Err == nil && isTransactional(it.Batch) {
			delete(c.lowest, it.Batch.ProducerID())
		}
	}
}

// outdateLocked makes the verifications outdated whose transaction a marker may end. mu is held.
func (c *Verifications) outdateLocked(marker record.Batch, version int16) {
	id, epoch := marker.ProducerID(), marker.ProducerEpoch()
	left := slices.DeleteFunc(c.list[id], func(v *Verification) bool {
		v.isEnded = version < epochPerTransaction || v.epoch < epoch || epoch == math.MaxInt16
		return v.isEnded
	})
	if len(left) == 0 {
		delete(c.list, id)
		return
	}
	c.list[id] = left
}

// epochPerTransaction is the first version in which each transaction of a producer has an epoch of its own.
const epochPerTransaction = 2

func isTransactional(b record.Batch) bool { return len(b) >= record.HeaderLen && b.Transactional() }

// hasTransactional tells whether any item is of a transaction.
func hasTransactional(items []storage.Item) bool {
	return slices.ContainsFunc(items, func(it storage.Item) bool { return isTransactional(it.Batch) })
}
