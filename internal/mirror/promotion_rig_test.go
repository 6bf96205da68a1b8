package mirror_test

import (
	"errors"
	"slices"
	"time"

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

func (x memTransactions) Ends(e record.Epoch) (high, end record.Offset, isLast bool, err error) {
	x.l.mu.Lock()
	defer x.l.mu.Unlock()
	t := x.l.r.image.Load().TopicByID(x.l.id.Topic)
	if t == nil {
		return 0, 0, false, mirror.ErrNotLeader
	}
	p := &t.Partitions[x.l.id.Number]
	return x.l.end - x.l.lacks, x.l.end, p.Leader == 1 && record.Epoch(p.LeaderEpoch) == e && p.Mirror.IsEndOfSource(), nil
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
