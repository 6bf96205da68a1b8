package replica

import (
	"slices"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage"
)

// Acks says how far a record must have come before its producer is told that it is kept.
type Acks uint8

// What producers ask for.
const (
	AcksNone   Acks = iota // the producer is told nothing
	AcksLeader             // the leader has it in its committed log
	AcksAll                // all in-sync replicas have: it is below the high watermark
)

// Outcome is what became of one batch.
type Outcome struct {
	Base  record.Offset // its base offset, or the earlier one's where it is a duplicate
	Next  record.Offset // the offset after its last record
	Start record.Offset // the partition's start
	Time  int64         // where it is a duplicate, the first one's append time in ms (-1: none)
	Dup   bool          // a retry of one of the producer's last batches: nothing was stored
	Err   error         // why it was not stored
}

// Appender is told what became of a batch that it added.
type Appender interface {
	Appended(slot int32, o Outcome)
}

// Appends are the batches that one appender collects for any number of partitions.
// They are the only way to append for a producer: one write a partition, and one
// commit for all, which cannot be forgotten, since nothing more is taken before.
//
//	empty --Add--> collected --Write--> in debt --Commit--> empty
//	                   |                   |
//	                   +------- Drop ------+--------------> empty
//
// Bytes of batches are used by Write only. The zero value, with Set filled in, is
// ready for use, by one goroutine at a time.
type Appends struct {
	Set *Set

	list  []added
	items []storage.Item // parallel to list while it is written

	debt debt
}

// debt is the commit that is owed for what was written.
type debt uint8

const (
	noDebt    debt = iota
	quietDebt      // nobody waits for it
	openDebt       // somebody does
)

// added is a batch on its way to a partition.
type added struct {
	p     *Partition
	batch record.Batch
	owner Appender
	slot  int32
	seq   int32 // place in the order of arrival
	acks  Acks
}

// keepAdded is for how many batches an appender keeps memory after a write.
const keepAdded = 1024

// Add collects a batch. It is checked by the caller; its offset and its epoch are
// stamped in place. The owner is told what became of it by Write.
func (a *Appends) Add(p *Partition, b record.Batch, acks Acks, owner Appender, slot int32) {
	if a.debt != noDebt {
		panic("BUG: what was appended before was not committed")
	}
	a.list = append(a.list, added{p: p, batch: b, owner: owner, slot: slot, seq: int32(len(a.list)), acks: acks})
}

// Write appends the batches, those of each partition together in the order in which
// they were added, and tells their owners. The caller owes the Commit from here on.
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
	a.debt = max(a.debt, quietDebt)
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
			a.debt = openDebt
		}
		e.owner.Appended(e.slot, Outcome{it.Base, it.Next, it.Start, it.Time, it.Dup, it.Err})
	}
	a.forgetBatches()
}

// writeTo appends the batches from..to to their partition. Those that ask for all
// replicas are left out where too few are in sync.
func (a *Appends) writeTo(p *Partition, from, to int) {
	if err := p.EnoughInSync(); err != nil {
		for i := from; i < to; i++ {
			if a.list[i].acks == AcksAll {
				a.items[i].Err = err
				continue
			}
			p.append(a.items[i:i+1], record.NoEpoch)
		}
		return
	}
	p.append(a.items[from:to], record.NoEpoch)
}

// Commit makes what was written durable. Waits that rest on it end then, perhaps
// before it returns. Where nobody waits it is left to the background.
func (a *Appends) Commit() {
	owed := a.debt
	a.debt = noDebt
	switch owed {
	case noDebt:
	case quietDebt:
		a.Set.commitSoon()
	case openDebt:
		a.Set.Commit()
	}
}

// Drop forgets the batches that were not written, whose owners are told nothing, and
// commits what was. It uses no bytes of either: they may be something else by now.
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

// append appends the items as the leader in epoch e (NoEpoch: any); each has its own
// outcome. Whoever calls it owes the commit.
func (p *Partition) append(items []storage.Item, e record.Epoch) {
	p.write(items, e)
	p.countForPolls(items)
	p.advanceEnds()
}

// write fails all items with ErrNotLeader unless this node leads in epoch e (NoEpoch: any).
func (p *Partition) write(items []storage.Item, e record.Epoch) {
	p.fence.RLock()
	defer p.fence.RUnlock()
	err := p.Leads(record.NoEpoch)
	l := p.lead.Load()
	if err == nil && e != record.NoEpoch && e != l.Epoch {
		err = ErrNotLeader
	}
	if err == nil {
		err = p.beginEpoch(l.Epoch)
	}
	if err != nil {
		for i := range items {
			items[i].Err = err
		}
		return
	}
	p.log.Append(l.Epoch, items)
}

// beginEpoch tells the log of a new epoch before its first append; a log that is never
// written to is never opened for it.
func (p *Partition) beginEpoch(e record.Epoch) error {
	p.mu.Lock()
	known := p.begun == e
	p.mu.Unlock()
	if known {
		return nil
	}
	if err := p.log.BeginEpoch(e); err != nil {
		return err
	}
	p.mu.Lock()
	p.begun = e
	p.mu.Unlock()
	return nil
}

// countForPolls tells the polls of what was stored. Where somebody else's commit was faster
// and has moved the high watermark already, they are told here.
func (p *Partition) countForPolls(items []storage.Item) {
	var n int64
	var end record.Offset
	for i := range items {
		if items[i].Err == nil && !items[i].Dup {
			n += int64(len(items[i].Batch))
			end = max(end, items[i].Next)
		}
	}
	if n == 0 {
		return
	}
	var woken *Poll
	p.mu.Lock()
	p.arrived.bytes += n
	p.arrived.end = max(p.arrived.end, end)
	hw := record.Offset(p.hw.Load())
	p.arrived.advanceTo(hw)
	if hw >= end {
		woken = p.countForPollsLocked(false)
	}
	p.mu.Unlock()
	wakePolls(woken)
}
