package replica

import (
	"slices"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage"
)

// Outcome is the result of the append of one batch.
type Outcome struct {
	Base  record.Offset // its base offset; of a duplicate, the one that it got the first time
	Next  record.Offset // the offset after its last record
	Start record.Offset // the partition's start
	Time  int64         // of a duplicate, when it was appended the first time, in ms (-1: unknown)
	Epoch record.Epoch  // the leader epoch in which it was appended, for Waiter
	Dup   bool          // it repeats one of the producer's last batches: nothing was stored
	Err   error         // why it was not stored
}

// Appender is told the outcome of each batch that it has added.
type Appender interface {
	Appended(slot int32, o Outcome)
}

// Appends collects batches for any number of partitions, and appends them with one write for
// each partition and one commit for all. It is the only way to append for a producer. The
// commit cannot be forgotten, since Add panics before it.
//
//	empty --Add--> collected --Write--> written --Commit--> empty
//	                   |                   |
//	                   +------- Drop ------+--------------> empty
//
// Only Write uses the bytes of batches. The zero value, with Set filled in, is ready for use
// by one goroutine at a time.
type Appends struct {
	Set *Set

	list  []added
	items []storage.Item // parallel to list during Write

	owed commitKind
}

// commitKind is how the written batches are to be committed.
type commitKind uint8

const (
	noCommit         commitKind = iota // nothing was written
	backgroundCommit                   // no producer waits for an acknowledgement
	promptCommit                       // a producer waits
)

// added is a batch that was added and is not written yet.
type added struct {
	p     *Partition
	batch record.Batch
	owner Appender
	slot  int32
	seq   int32        // its index in the order of Add
	epoch record.Epoch // in which it was written
	acks  Acks
}

// keepAdded is the number of batches for which memory is kept after a write.
const keepAdded = 1024

// Add collects a batch, which the caller has checked. Write stores its offset and epoch in its
// bytes, and tells the owner the outcome.
func (a *Appends) Add(p *Partition, b record.Batch, acks Acks, owner Appender, slot int32) {
	if a.owed != noCommit {
		panic("BUG: the batches that were written before are not committed")
	}
	a.list = append(a.list, added{p: p, batch: b, owner: owner, slot: slot, seq: int32(len(a.list)), acks: acks})
}

// Write appends the batches, those of each partition together and in the order in which they
// were added, and tells their owners the outcomes. The caller must call Commit or Drop after it.
func (a *Appends) Write() {
	if len(a.list) == 0 {
		return
	}
	byPartition := func(x, y added) int {
		if x.p != y.p {
			return x.p.Compare(y.p)
		}
		return int(x.seq - y.seq)
	}
	if !slices.IsSortedFunc(a.list, byPartition) {
		slices.SortFunc(a.list, byPartition)
	}
	for i := range a.list {
		a.items = append(a.items, storage.Item{Batch: a.list[i].batch})
	}
	a.owed = max(a.owed, backgroundCommit)
	for from := 0; from < len(a.list); {
		p, to := a.list[from].p, from+1
		for to < len(a.list) && a.list[to].p == p {
			to++
		}
		a.writeTo(p, from, to)
		from = to
	}
	for i := range a.list {
		e, it := &a.list[i], &a.items[i]
		if e.acks != AcksNone {
			a.owed = promptCommit
		}
		e.owner.Appended(e.slot, Outcome{it.Base, it.Next, it.Start, it.Time, e.epoch, it.Dup, it.Err})
	}
	a.forgetBatches()
}

// writeTo appends the batches from..to to their partition. If too few replicas are in sync,
// those with AcksAll are refused.
func (a *Appends) writeTo(p *Partition, from, to int) {
	if err := p.checkInSync(); err != nil {
		for i := from; i < to; i++ {
			if a.list[i].acks == AcksAll {
				a.items[i].Err = err
				continue
			}
			a.list[i].epoch = p.appendItems(a.items[i : i+1])
		}
		return
	}
	epoch := p.appendItems(a.items[from:to])
	for i := from; i < to; i++ {
		a.list[i].epoch = epoch
	}
}

// Commit makes the written batches durable, as Set.Commit does, or has that done in the
// background if no producer waits for them.
func (a *Appends) Commit() {
	owed := a.owed
	a.owed = noCommit
	switch owed {
	case noCommit:
	case backgroundCommit:
		a.Set.commitInBackground()
	case promptCommit:
		a.Set.prompt.Add(1)
		a.Set.Commit()
	}
}

// Drop forgets the batches that are not written, without telling their owners, and commits
// those that are. It does not use the batches' bytes, which may be overwritten by now.
func (a *Appends) Drop() {
	a.forgetBatches()
	a.Commit()
}

func (a *Appends) forgetBatches() {
	clear(a.list)
	clear(a.items)
	a.list, a.items = a.list[:0], a.items[:0]
	if cap(a.list) > keepAdded {
		a.list, a.items = nil, nil
	}
}

// appendItems appends the items as the leader, in the epoch that it returns; each has its own
// outcome. The caller must ask for a commit after it.
func (p *Partition) appendItems(items []storage.Item) record.Epoch {
	e := p.appendToLog(items, record.NoEpoch)
	noteRefusal(p, items)
	stored := countStored(items)
	p.followers.wake(stored.bytes)
	p.countForPolls(stored)
	p.advanceEnds()
	return e
}

// appendToLog appends the items to the log, or refuses all with ErrNotLeader if this node does
// not lead in epoch e (NoEpoch: any). It returns the epoch.
func (p *Partition) appendToLog(items []storage.Item, e record.Epoch) (in record.Epoch) {
	if !hasTransactional(items) {
		return appendInEpoch(p, items, e)
	}
	p.verifications.Append(items, func() { in = appendInEpoch(p, items, e) })
	return in
}

// appendInEpoch is appendToLog for items whose transactions are known.
func appendInEpoch(p *Partition, items []storage.Item, e record.Epoch) record.Epoch {
	p.fence.RLock()
	defer p.fence.RUnlock()
	l, err := p.checkEpoch(record.NoEpoch, false)
	switch {
	case err != nil:
	case e != record.NoEpoch && e != l.Epoch:
		err = ErrNotLeader
	case l.mirrors():
		err = ErrMirrors
	}
	log := p.log.Load()
	if err == nil {
		err = p.beginEpoch(log, l.Epoch)
	}
	if err != nil {
		for i := range items {
			items[i].Err = err
		}
		return l.Epoch
	}
	log.Append(l.Epoch, items)
	return l.Epoch
}

// beginEpoch tells the log of a new epoch before the first append in it, or before a follower's log is
// compared with it, not earlier: a log that is not used need not be opened for each new epoch. The
// caller holds fence for reading.
func (p *Partition) beginEpoch(log *storage.Log, e record.Epoch) error {
	p.mu.Lock()
	known := p.begun == e
	p.mu.Unlock()
	if known {
		return nil
	}
	if err := log.BeginEpoch(e); err != nil {
		return err
	}
	p.mu.Lock()
	p.begun = e
	p.mu.Unlock()
	return nil
}

// countStored counts the items that were stored.
func countStored(items []storage.Item) (a arrival) {
	for i := range items {
		if items[i].Err == nil && !items[i].Dup {
			a.bytes += int64(len(items[i].Batch))
			a.end = max(a.end, items[i].Next)
		}
	}
	return a
}
