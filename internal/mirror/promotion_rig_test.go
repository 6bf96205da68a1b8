package mirror_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror"
	"github.com/leatstream/leat/internal/record"
)

// memTransactions are the transactions of a memLog.
type memTransactions struct{ l *memLog }

func (x memTransactions) Open() ([]mirror.OpenTransaction, error) {
	x.l.mu.Lock()
	defer x.l.mu.Unlock()
	return x.open(), nil
}

func (x memTransactions) open() (list []mirror.OpenTransaction) {
	for _, b := range x.l.batches {
		i := slices.IndexFunc(list, func(o mirror.OpenTransaction) bool { return o.Producer == b.ProducerID() })
		switch {
		case b.Control() && i >= 0:
			list = slices.Delete(list, i, i+1)
		case b.Transactional() && !b.Control() && i < 0:
			list = append(list, mirror.OpenTransaction{Producer: b.ProducerID(), Epoch: b.ProducerEpoch(), First: b.BaseOffset()})
		}
	}
	return list
}

func (x memTransactions) Ends(e record.Epoch) (mirror.LogEnds, error) {
	x.l.mu.Lock()
	defer x.l.mu.Unlock()
	t := x.l.r.image.Load().TopicByID(x.l.id.Topic)
	if t == nil {
		return mirror.LogEnds{}, mirror.ErrNotLeader
	}
	p := &t.Partitions[x.l.id.Number]
	return mirror.LogEnds{HighWatermark: x.l.end - x.l.lacks, End: x.l.end, IsLast: p.Leader == 1 && record.Epoch(p.LeaderEpoch) == e && p.Mirror.IsEndOfSource()}, nil
}

// End appends markers, if the metadata say so in this epoch.
func (x memTransactions) End(e record.Epoch, list []mirror.Ending) (record.Offset, error) {
	l := x.l
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.check(e); err != nil {
		return 0, err
	}
	p := &l.r.image.Load().TopicByID(l.id.Topic).Partitions[l.id.Number]
	if p.Mirror.State != meta.PartitionPromoting || !p.Mirror.IsDecided || e <= l.last {
		l.r.Errorf("markers in epoch %d after %d: %+v", e, l.last, p.Mirror)
	}
	for _, one := range list {
		b, err := record.BuildMarker(time.Now().UnixMilli(), one.Transaction.Producer, one.Epoch, record.Marker{Commit: one.Commit})
		if err != nil {
			return 0, err
		}
		b = slices.Clone(b)
		b.SetBaseOffset(l.end)
		b.SetLeaderEpoch(e)
		l.batches, l.end, l.last = append(l.batches, b), b.NextOffset(), e
	}
	if l.lacksEnds {
		l.lacks = 1
	}
	if l.failEnds > 0 {
		l.failEnds--
		return 0, errors.New("the disk is slow")
	}
	return l.end, nil
}

// AwaitCommit waits until nothing is lacking, in the epoch.
func (x memTransactions) AwaitCommit(e record.Epoch, _ record.Offset, done func(err error)) {
	x.l.mu.Lock()
	err := x.l.check(e)
	lacks := x.l.lacks
	x.l.mu.Unlock()
	if err != nil || lacks == 0 {
		done(err)
		return
	}
	time.AfterFunc(100*time.Millisecond, func() { x.AwaitCommit(e, 0, done) })
}

// promotionRig is a rig whose node runs the tasks of links, unless that is taken from it, and whose source has topics with transactions.
type promotionRig struct {
	*rig

	isElsewhere atomic.Bool // the tasks run on another node
	other       func(ctx context.Context, question json.RawMessage) (json.RawMessage, error)
}

// inPromotion runs a test with a mirror t of two partitions, which are led by the brokers 1 and 2 of the source; its coordinators' log is with broker 1, if there is one.
func inPromotion(t *testing.T, hasLog bool, test func(r *promotionRig)) {
	t.Helper()
	inPromotionOf(t, 2, hasLog, test)
}

// inPromotionOf is inPromotion with another number of partitions.
func inPromotionOf(t *testing.T, partitions int, hasLog bool, test func(r *promotionRig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &promotionRig{}
		r.rig = newRig(t, func(c *mirror.Config) {
			c.IsController = func() bool { return !r.isElsewhere.Load() }
			alone := c.AskNode
			c.AskNode = func(ctx context.Context, node int32, question json.RawMessage) (json.RawMessage, error) {
				if node == 2 && r.other != nil {
					return r.other(ctx, question)
				}
				return alone(ctx, node, question)
			}
		})
		r.source.create("t", partitions, 1)
		if hasLog {
			r.source.create("__transaction_state", 1, 9)
		}
		r.link(meta.LinkSetting{Key: "topics", Value: "t,u"})
		r.mirror("t")
		test(r)
	})
}

// add appends a batch at the source.
func (c *fakeCluster) add(name string, partition int, build func(bu *record.Builder) (record.Batch, error)) {
	c.t.Helper()
	c.change(func() {
		p := c.topics[name].partitions[partition]
		b, err := build(&record.Builder{})
		if err != nil {
			c.t.Error(err)
			return
		}
		b = slices.Clone(b)
		b.SetBaseOffset(record.Offset(p.high))
		b.SetLeaderEpoch(record.Epoch(p.epoch))
		p.batches = append(p.batches, b)
		p.high += int64(b.Count())
	})
}

// write has a producer write a record in its transaction. Its clock is of no use.
func (c *fakeCluster) write(partition int, producer int64, epoch int16) {
	c.t.Helper()
	c.add("t", partition, func(bu *record.Builder) (record.Batch, error) {
		bu.Transactional = true
		bu.SetProducer(producer, epoch, 0)
		bu.Append(1<<50, nil, []byte("in a transaction"))
		return bu.Build()
	})
}

// mark writes a marker.
func (c *fakeCluster) mark(partition int, producer int64, epoch int16, commit bool) {
	c.t.Helper()
	c.add("t", partition, func(*record.Builder) (record.Batch, error) {
		return record.BuildMarker(7, producer, epoch, record.Marker{Commit: commit, CoordinatorEpoch: 3})
	})
}

// The states of a transaction in the coordinators' log.
const (
	txnOngoing  = kmsg.TransactionStateOngoing
	txnCommit   = kmsg.TransactionStatePrepareCommit
	txnAbort    = kmsg.TransactionStatePrepareAbort
	txnComplete = kmsg.TransactionStateCompleteCommit
)

// coordinate has the coordinator of producer 7 write a state of its transaction, with a clock that is years behind. With version 2 each transaction has an epoch of its own.
func (c *fakeCluster) coordinate(state kmsg.TransactionState, epoch, version int16, partitions ...int32) {
	c.t.Helper()
	c.coordinateOf(7, state, epoch, version, partitions...)
}

func (c *fakeCluster) coordinateOf(producer int64, state kmsg.TransactionState, epoch, version int16, partitions ...int32) {
	c.t.Helper()
	c.add("__transaction_state", 0, func(bu *record.Builder) (record.Batch, error) {
		v := kmsg.NewTxnMetadataValue()
		v.Version = min(version, 1)
		v.ProducerID, v.ProducerEpoch, v.State, v.ClientTransactionVersion, v.StartTimestamp, v.LastUpdateTimestamp = producer, epoch, state, version, 1, 1
		if len(partitions) > 0 {
			v.Topics = []kmsg.TxnMetadataValueTopic{{Topic: "t", Partitions: partitions}, {Topic: "elsewhere", Partitions: []int32{0}}}
		}
		bu.Append(1, (&kmsg.TxnMetadataKey{TransactionalID: fmt.Sprint("id", producer)}).AppendTo(nil), v.AppendTo(nil))
		return bu.Build()
	})
}

// settle lets so much time pass that all is read, and confirmed by another broker.
func (r *promotionRig) settle() {
	r.Helper()
	time.Sleep(10 * time.Second)
	synctest.Wait()
}

// loseSource has the source be gone.
func (r *promotionRig) loseSource() {
	r.source.stop(1)
	r.source.stop(2)
	time.Sleep(time.Minute)
	synctest.Wait()
}

func (r *promotionRig) promote() {
	r.Helper()
	r.must(&controller.LinksChange{Kind: controller.PromoteMirrors, Topics: []controller.MirrorTopic{{ID: r.image.Load().Topic("t").ID}}})
}

// pause has the topic pause, or go on.
func (r *promotionRig) pause(is bool) {
	r.Helper()
	q := &controller.LinksChange{Kind: controller.ResumeMirrors, Topics: []controller.MirrorTopic{{ID: r.image.Load().Topic("t").ID}}}
	if is {
		q.Kind = controller.PauseMirrors
	}
	r.must(q)
}

func (r *promotionRig) stateOf(partition int) *meta.PartitionMirror {
	return r.image.Load().Topic("t").Partitions[partition].Mirror
}

// ends are the markers that this cluster has written into a partition.
func (r *promotionRig) ends(partition int32) (list []mirrorEnd) {
	l := r.log("t", partition)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range l.batches {
		if m, err := record.ReadMarker(b); err == nil && int32(b.LeaderEpoch()) >= r.image.Load().Topic("t").Partitions[partition].LeaderEpoch-1 {
			list = append(list, mirrorEnd{b.ProducerID(), b.ProducerEpoch(), m.Commit})
		}
	}
	return list
}

// mirrorEnd is a marker.
type mirrorEnd struct {
	producer int64
	epoch    int16
	commit   bool
}

// awaitPromoted waits until both partitions are ordinary ones, and checks which markers this cluster has written.
func (r *promotionRig) awaitPromoted(want ...[]mirrorEnd) {
	r.Helper()
	r.await("it is promoted", func() bool { return r.image.Load().Topic("t").Mirror.State == meta.MirrorPromoted })
	for n, w := range want {
		if got := r.ends(int32(n)); !slices.Equal(got, w) {
			r.Errorf("partition %d has the markers %+v, and not %+v; decided is %+v", n, got, w, r.stateOf(n).Decisions)
		}
	}
}

// outcomes are why transactions end as they do, by partition; -1: nothing is decided.
func (r *promotionRig) outcome(partition int) int {
	if d := r.stateOf(partition).Decisions; len(d) == 1 {
		return int(d[0].Outcome)
	}
	return -1
}
