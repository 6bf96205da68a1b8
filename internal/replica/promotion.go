package replica

import (
	"cmp"
	"math"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage"
)

// The functions in this file are for who promotes a partition that mirrors: nothing of the source comes into its log any more, then its open transactions are ended as the metadata say, in a leader epoch of its own, and then
// clients write to it.

// OpenTransaction is a transaction that is open in the log of a partition.
type OpenTransaction struct {
	Producer    int64
	Epoch       int16         // of its records
	First       record.Offset // of them
	coordinator int32         // the epoch of the coordinator of the producer's last marker; -1: there was none
}

// ListOpenTransactions lists the transactions that are open in the log of this node's replica, committed or not, in the order of their first offsets.
func ListOpenTransactions(p *Partition) (list []OpenTransaction, err error) {
	log := p.log.Load()
	open, err := storage.OpenTransactions(log)
	if err != nil || len(open) == 0 {
		return nil, err
	}
	producers, err := log.Producers(math.MaxInt)
	if err != nil {
		return nil, err
	}
	byID := make(map[int64]*storage.Producer, len(producers))
	for i := range producers {
		byID[producers[i].ID] = &producers[i]
	}
	for _, o := range open {
		if of := byID[o.Producer]; of != nil { // else it has ended since it was listed
			list = append(list, OpenTransaction{o.Producer, of.Epoch, o.First, of.CoordinatorEpoch})
		}
	}
	return list, nil
}

// EndOfSource is where the log of a partition ends into which nothing of the source comes any more, since it is being promoted, and whether all before that is committed. The error is ErrNotMirroring if it is not being
// promoted, and ErrNotLeader if this node does not lead it in that leader epoch.
func EndOfSource(p *Partition, e record.Epoch) (end record.Offset, isCommitted bool, err error) {
	l, err := p.checkEpoch(record.NoEpoch, false)
	switch {
	case err != nil:
		return 0, false, err
	case l.Epoch != e:
		return 0, false, ErrNotLeader
	case !l.mirrors() || l.isFollowing():
		return 0, false, ErrNotMirroring
	}
	if end, err = p.log.Load().End(); err != nil { // after the leadership was read: an append that was under way has ended by then
		return 0, false, err
	}
	return end, p.IsCommitted(e, end), nil
}

// Ending ends an open transaction by a marker.
type Ending struct {
	Transaction OpenTransaction
	Epoch       int16 // of the marker
	Commit      bool
}

// EndTransactions appends markers that end open transactions of a partition that is promoted, in the leader epoch in which it was decided how they end, and returns where the log ends then. The
// caller must ask for a commit after it. The errors are those of EndOfSource, and of other appends; some markers may be in the log then.
func EndTransactions(p *Partition, e record.Epoch, list []Ending) (end record.Offset, err error) {
	if err := p.checkInSync(); err != nil {
		return -1, err
	}
	now := time.Now().UnixMilli()
	items := make([]storage.Item, 0, len(list))
	for i := range list {
		o := &list[i]
		b, err := record.BuildMarker(now, o.Transaction.Producer, o.Epoch, record.Marker{Commit: o.Commit, CoordinatorEpoch: max(o.Transaction.coordinator, 0)})
		if err != nil {
			return -1, err
		}
		items = append(items, storage.Item{Batch: b})
	}
	if err := appendEndings(p, e, items); err != nil {
		return -1, err
	}
	noteRefusal(p, items)
	stored := countStored(items)
	p.followers.wake(stored.bytes)
	p.countForPolls(stored)
	p.advanceEnds()
	for i := range items {
		err = cmp.Or(err, items[i].Err)
	}
	return stored.end, err
}

// appendEndings appends markers to the log, each of which has its own outcome, unless this node does not lead in that epoch, or it is not the one for them.
func appendEndings(p *Partition, e record.Epoch, items []storage.Item) (err error) {
	p.verifications.Append(items, func() {
		p.fence.RLock()
		defer p.fence.RUnlock()
		var l *Leadership
		l, err = p.checkEpoch(record.NoEpoch, false)
		switch {
		case err != nil:
			return
		case l.Epoch != e:
			err = ErrNotLeader
			return
		case !l.mirrors() || l.hasSourceEpochs():
			err = ErrNotMirroring
			return
		}
		log := p.log.Load()
		if err = p.beginEpoch(log, e); err == nil {
			log.Append(e, items)
		}
	})
	return err
}
