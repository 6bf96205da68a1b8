package sim

import (
	"fmt"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/record"
	states "github.com/leatstream/leat/internal/storage/producer"
	"github.com/leatstream/leat/internal/storage/transaction"
)

// content is what a record has in a cluster with transactions. The logs have its number: a log in memory has
// numbers only. Each content is appended once.
type content struct {
	batch  record.Batch // of a producer, or a marker; nil: a record of a coordinator of transactions
	record coord.Record // of a coordinator
	value  *txnValue    // of a client
	name   string
}

// ofContents is the producer of all records that have a content.
const ofContents = 1 << 31

// contentOf is the content of a record, or nil.
func (c *cluster) contentOf(value uint64) *content {
	if producerOf(value) != ofContents {
		return nil
	}
	return c.txns.contents[sequenceOf(value)]
}

// appendContent appends a content as the leader.
func (r *replica) appendContent(ct *content) (at record.Offset) {
	x := r.n.c.txns
	if ct.batch != nil {
		ct.batch.SetBaseOffset(r.log.End())
	}
	x.contents = append(x.contents, ct)
	at = r.append(valueOf(ofContents, uint32(len(x.contents)-1)))
	r.n.c.note(note{what: "has at %d", node: r.n.id, part: r.part.index, a: int64(at), text: ct.name})
	return at
}

// newBatch makes the batch of one record of a producer's transaction.
func (x *transactions) newBatch(by coord.Producer, sequence int32, key, value []byte) record.Batch {
	b := record.Builder{Transactional: true, LeaderEpoch: record.NoEpoch}
	b.SetProducer(by.ID, by.Epoch, sequence)
	b.Append(1, key, value)
	batch, err := b.Build()
	x.c.must(err)
	return append(record.Batch(nil), batch...)
}

// newMarker makes the batch of a marker.
func (x *transactions) newMarker(m coord.Marker) record.Batch {
	b, err := record.BuildMarker(1, m.ID, m.Epoch, m.Marker)
	x.c.must(err)
	return b
}

func nameOfMarker(m coord.Marker) string {
	return fmt.Sprintf("a marker of %d/%d, commit: %v, of the coordinator's epoch %d, version %d", m.ID, m.Epoch, m.Commit, m.CoordinatorEpoch, m.Version)
}

// logTransactions is what a replica knows of the producers and the transactions of its log.
type logTransactions struct {
	state states.State
	view  transaction.View
	next  record.Offset // the offset after the last record that it has
}

// transactions brings the log's transactions up to date.
func (l *diskLog) transactions() *logTransactions {
	if l.txns == nil {
		l.txns = &logTransactions{next: l.Start()}
	}
	t := l.txns
	for ; t.next < l.End(); t.next++ {
		e, _ := l.EntryAt(t.next)
		if ct := l.part.c.contentOf(e.Value); ct != nil && ct.batch != nil {
			t.view.Apply(t.state.Apply(ct.batch, 1))
			t.state.Confirm()
		}
	}
	return t
}

// stableEnd is the last stable offset for a high watermark.
func (l *diskLog) stableEnd(hw record.Offset) record.Offset {
	return l.transactions().view.StableEnd(hw)
}
