package position

import (
	"cmp"
	"maps"
	"slices"

	"github.com/leatstream/leat/internal/record"
)

// Offsets that a producer sends in a transaction are pending until the marker that ends it comes in the same partition (KIP-98, KIP-447):
//
//	records of epoch e -> pending --marker of an epoch >= e: commit--> positions
//	                         |------marker of an epoch >= e: abort---> forgotten
//	                         |------a record of a higher epoch-------> forgotten: their marker was not seen
//	                         '------a tombstone of the offset--------> forgotten
//
// A marker of epoch e + 1 ends what epoch e has sent with version 2 of transactions (KIP-890), and when a producer is fenced. One of a lower epoch is out of date. Among commits of one
// position, with or without transactions, the order of their records counts and not that of the markers, as for the source's coordinator.

// openKey names an open transaction: a producer has one at most.
type openKey struct {
	partition int32 // of __consumer_offsets
	producer  int64
}

// transaction has the offsets of one.
type transaction struct {
	epoch   int16
	since   int64 // the SourceTime of its first offset
	offsets map[pendingPlace]pendingOffset
}

// pendingPlace is a place of a group.
type pendingPlace struct {
	group string
	Place
}

// pendingOffset is a position that is committed if its transaction is.
type pendingOffset struct {
	written record.Offset
	Position
}

// pendingSize is about how many bytes a pending offset takes. It has the room for the position that it may become, since a marker cannot be refused.
func pendingSize(at *pendingPlace, o *pendingOffset) int64 {
	return pendingBytes + mostGrowth(at.group, at.Topic, &o.Position)
}

// addPending adds an offset of a transaction.
func (m *Machine) addPending(k openKey, epoch int16, at pendingPlace, o pendingOffset) error {
	t := m.open[k]
	if t != nil && epoch < t.epoch {
		return nil
	}
	if t != nil && epoch > t.epoch {
		m.forgetTransaction(k, t)
		t = nil
	}
	size := pendingSize(&at, &o)
	if err := m.table.checkRoom(size + transactionBytes); err != nil {
		return err
	}
	if t == nil {
		t = &transaction{epoch: epoch, since: o.SourceTime, offsets: map[pendingPlace]pendingOffset{}}
		m.open[k] = t
		m.table.bytes += transactionBytes
	}
	m.removePending(t, at)
	t.offsets[at] = o
	m.pending[at]++
	m.table.bytes += size
	return nil
}

// removePending forgets the offset that a transaction has for a place, if there is one.
func (m *Machine) removePending(t *transaction, at pendingPlace) {
	o, ok := t.offsets[at]
	if !ok {
		return
	}
	delete(t.offsets, at)
	m.table.bytes -= pendingSize(&at, &o)
	if m.pending[at]--; m.pending[at] == 0 {
		delete(m.pending, at)
	}
}

// forgetTransaction forgets a transaction with its offsets, and returns them.
func (m *Machine) forgetTransaction(k openKey, t *transaction) map[pendingPlace]pendingOffset {
	offsets := maps.Clone(t.offsets)
	for at := range offsets {
		m.removePending(t, at)
	}
	m.table.bytes -= transactionBytes
	delete(m.open, k)
	return offsets
}

// dropPending forgets the offsets that open transactions of a partition have for a place.
func (m *Machine) dropPending(number int32, at pendingPlace) {
	if m.pending[at] == 0 {
		return
	}
	for k, t := range m.open {
		if k.partition == number {
			m.removePending(t, at)
		}
	}
}

// endTransaction ends the transaction of a producer by a marker.
func (m *Machine) endTransaction(k openKey, epoch int16, isCommit bool) {
	t := m.open[k]
	if t == nil || epoch < t.epoch {
		return
	}
	offsets := m.forgetTransaction(k, t)
	if !isCommit {
		return
	}
	for at, o := range offsets {
		m.storePosition(k.partition, at.group, at.Place, o.written, o.Position)
	}
}

// Settle ends a transaction that is open, by evidence other than a marker in __consumer_offsets: that its coordinator has decided so. It is for a promotion, when the source is gone.
func (m *Machine) Settle(producer int64, epoch int16, isCommit bool) {
	for k, t := range m.open {
		if k.producer == producer && t.epoch == epoch {
			m.endTransaction(k, epoch, isCommit)
		}
	}
}

// Open is a transaction that is open at the source, and that has positions of groups.
type Open struct {
	Producer    int64
	Epoch       int16
	SinceSource int64    // when its first position was sent, by the source's clock
	Groups      []string // whose positions wait for its end, in order
}

// ListOpen lists the transactions that are open, by their producers.
func (m *Machine) ListOpen() []Open {
	var all []Open
	for k, t := range m.open {
		o := Open{Producer: k.producer, Epoch: t.epoch, SinceSource: t.since}
		for at := range t.offsets {
			o.Groups = append(o.Groups, at.group)
		}
		slices.Sort(o.Groups)
		o.Groups = slices.Compact(o.Groups)
		all = append(all, o)
	}
	slices.SortFunc(all, func(a, b Open) int {
		return cmp.Or(cmp.Compare(a.Producer, b.Producer), cmp.Compare(a.SinceSource, b.SinceSource))
	})
	return all
}
