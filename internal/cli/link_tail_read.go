package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/record"
)

// tailReader reads the batches of a tail, one after the other. It believes nothing that the nodes send: each batch must be whole, with a right checksum, and behind the one before.
type tailReader struct {
	v    tailVerbs
	n    *linkNode
	tail *cluster.TailStatus

	buf  []byte        // bytes that came, and were not returned yet
	from int64         // the byte of the tail behind them
	next record.Offset // no batch may begin before it
}

// readTail begins to read a tail.
func (v tailVerbs) readTail(n *linkNode, t *cluster.TailStatus) *tailReader {
	return &tailReader{v: v, n: n, tail: t, next: record.Offset(t.First)}
}

// Next returns the next batch, which is valid until the next call. The error is io.EOF at the end.
func (r *tailReader) Next(ctx context.Context) (record.Batch, error) {
	if r.from == r.tail.Bytes && len(r.buf) == 0 {
		if int64(r.next) != r.tail.Last+1 {
			return nil, r.damaged(fmt.Sprintf("it ends before offset %d, and is to go on to %d", r.next, r.tail.Last))
		}
		return nil, io.EOF
	}
	if err := r.fill(ctx, record.HeaderLen); err != nil {
		return nil, err
	}
	head := record.Batch(r.buf)
	size := int64(head.Size())
	if left := r.tail.Bytes - r.from + int64(len(r.buf)); head.Magic() != record.Magic || size < record.HeaderLen || size > min(left, mostBatch) {
		return nil, r.damaged(fmt.Sprintf("what is to be a batch has %d bytes, of %d that are left", size, left))
	}
	if err := r.fill(ctx, int(size)); err != nil {
		return nil, err
	}
	b := record.Batch(r.buf[:size:size])
	if err := b.Verify(); err != nil {
		return nil, r.damaged(err.Error())
	}
	if b.BaseOffset() < r.next || b.LastOffset() < b.BaseOffset() || int64(b.LastOffset()) > r.tail.Last {
		return nil, r.damaged(fmt.Sprintf("a batch has the offsets %d to %d, behind %d", b.BaseOffset(), b.LastOffset(), r.next-1))
	}
	r.buf, r.next = r.buf[size:], b.NextOffset()
	return b, nil
}

// damaged says that a tail is not what it is to be.
func (r *tailReader) damaged(why string) error {
	return fmt.Errorf("what node %d has kept of cut %d is damaged: %s; another node may have it whole (--node)", r.tail.Node, r.tail.Cut, why)
}

// fill asks for pages until there are so many bytes.
func (r *tailReader) fill(ctx context.Context, n int) error {
	for len(r.buf) < n {
		t := r.tail
		a, err := r.v.askTails(ctx, r.n, &cluster.TailRequest{
			Verb: cluster.TailRead, Topic: t.Topic, TopicID: t.TopicID, Partition: &t.Partition, Cut: t.Cut, Node: t.Node, KeptMs: t.KeptMs, Bytes: t.Bytes, From: r.from,
		})
		if err != nil {
			return err
		}
		switch got := int64(len(a.Data)); {
		case got == 0:
			return r.damaged(fmt.Sprintf("it has %d bytes, and is to have %d", r.from, t.Bytes))
		case got > t.Bytes-r.from:
			return r.damaged(fmt.Sprintf("it has more than %d bytes", t.Bytes))
		}
		r.buf = append(r.buf, a.Data...)
		r.from += int64(len(a.Data))
	}
	return nil
}

// mostInflated bounds the decompressed records of a batch.
const mostInflated = 1 << 30

// The states of records of transactions.
const (
	txnCommitted = "committed"
	txnAborted   = "aborted"
	txnUndecided = "undecided" // its marker was not copied before the cut
)

// transactions are the transactions of a tail that are not committed.
type transactions struct {
	spans map[int64][]txnSpan // by producer, in order
	count int
	open  map[int64]record.Offset // where the transactions begin that no marker has ended
}

// txnSpan are the offsets of a transaction of one producer.
type txnSpan struct{ first, marker record.Offset }

// mostTransactions bounds the transactions that are kept in memory.
const mostTransactions = 1 << 20

// findTransactions reads all of a tail, and finds which transactions are not committed.
func findTransactions(ctx context.Context, r *tailReader) (*transactions, error) {
	t := &transactions{spans: map[int64][]txnSpan{}, open: map[int64]record.Offset{}}
	for {
		b, err := r.Next(ctx)
		if errors.Is(err, io.EOF) {
			return t, nil
		}
		if err == nil {
			err = t.add(b)
		}
		if err != nil {
			return nil, err
		}
	}
}

// add adds a batch.
func (t *transactions) add(b record.Batch) error {
	producer := b.ProducerID()
	first, isOpen := t.open[producer]
	switch {
	case !b.Transactional():
		return nil
	case !b.Control():
		if !isOpen {
			t.open[producer] = b.BaseOffset()
		}
	default:
		m, err := record.ReadMarker(b)
		if err != nil || !isOpen { // compaction has left an empty batch; or all of the transaction's records lie before the tail
			return nil //nolint:nilerr // it decides nothing
		}
		delete(t.open, producer)
		if !m.Commit {
			t.spans[producer] = append(t.spans[producer], txnSpan{first, b.BaseOffset()})
			t.count++
		}
	}
	if t.count+len(t.open) > mostTransactions {
		return fmt.Errorf("it has more than %d transactions that are not committed: export it with --as log", mostTransactions)
	}
	return nil
}

// stateOf is the state of the records of a batch; "": they belong to no transaction.
func (t *transactions) stateOf(b record.Batch) string {
	if !b.Transactional() {
		return ""
	}
	producer := b.ProducerID()
	spans := t.spans[producer]
	for len(spans) > 0 && spans[0].marker < b.BaseOffset() { // batches come in their order
		spans = spans[1:]
	}
	t.spans[producer] = spans
	if len(spans) > 0 && spans[0].first <= b.BaseOffset() {
		return txnAborted
	}
	if first, isOpen := t.open[producer]; isOpen && first <= b.BaseOffset() {
		return txnUndecided
	}
	return txnCommitted
}
