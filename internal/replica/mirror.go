package replica

import (
	"errors"
	"fmt"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage"
)

// The functions in this file are for who mirrors a partition of another cluster, the source. The log of such a partition has the batches of the
// source with the offsets and epochs that they have there. Its leader appends nothing else, and begins no epoch in the log.

// AppendMirror appends whole batches of the source in order, as the leader of a partition that mirrors, in the leadership in which they
// were asked for. Their checksums must have been checked; their offsets and epochs stay. The first batch must not begin before the log's end,
// and epochs must not fall; there may be gaps. Batches before one that fails are stored, and none after it. The caller must ask for a commit
// after it. It returns
//
//	ErrNotLeader                     this node does not lead in that leader epoch any more, or not yet
//	ErrNotMirroring                  the partition does not mirror, or is being promoted
//	ErrEpochAhead                    a batch has an epoch above the leader epoch, which must be raised first; nothing was stored
//	record.ErrCorrupt, ErrMagic ...  they are no whole batches; nothing was stored
//	ErrOffsetOutOfRange              a batch begins before the log's end
//	ErrBusy, ErrDiskFull, ErrFaulted as other appends
func (p *Partition) AppendMirror(l *Leadership, batches []byte) error {
	if err := checkMirror(p, l); err != nil {
		return err
	}
	items, err := listMirrored(batches, l.Epoch)
	if err != nil || len(items) == 0 {
		return err
	}
	if err := appendMirrored(p, l, items); err != nil {
		return err
	}
	noteRefusal(p, items)
	stored := countStored(items)
	p.followers.wake(stored.bytes)
	p.countForPolls(stored)
	p.advanceEnds()
	for i := range items {
		if items[i].Err != nil {
			return items[i].Err
		}
	}
	return nil
}

// appendMirrored appends items to the log, each of which has its own outcome, unless the leadership has ended.
func appendMirrored(p *Partition, l *Leadership, items []storage.Item) error {
	p.fence.RLock()
	defer p.fence.RUnlock()
	if err := checkMirror(p, l); err != nil {
		return err
	}
	p.log.Load().AppendAt(items)
	return nil
}

// checkMirror returns an error unless this node leads a partition that follows its source in the epoch of a leadership.
func checkMirror(p *Partition, l *Leadership) error {
	now, err := p.checkEpoch(record.NoEpoch, false)
	switch {
	case err != nil:
		return err
	case now.Epoch != l.Epoch:
		return ErrNotLeader
	case !now.isFollowing():
		return ErrNotMirroring
	}
	return nil
}

// listMirrored cuts bytes into batches, none of which has an epoch above the leader epoch.
func listMirrored(b []byte, e record.Epoch) (items []storage.Item, err error) {
	for len(b) > 0 {
		var one record.Batch
		if one, b, err = record.Next(b); errors.Is(err, record.ErrShort) {
			err = fmt.Errorf("%w: the last batch is cut short", record.ErrCorrupt)
		}
		if err != nil {
			return nil, err
		}
		if one.LeaderEpoch() > e {
			return nil, fmt.Errorf("%w: the batch at %d has epoch %d in leader epoch %d", ErrEpochAhead, one.BaseOffset(), one.LeaderEpoch(), e)
		}
		items = append(items, storage.Item{Batch: one})
	}
	return items, nil
}

// StartMirrorAt has the log of a partition that mirrors begin at an offset, durably, as the log of the source does: records below it are
// deleted, at most up to the high watermark, and a log that has none ends there, too. It does nothing if the log begins beyond. The errors
// are those of AppendMirror; ErrOffsetOutOfRange says that the log has records, all of them below the offset.
func StartMirrorAt(p *Partition, l *Leadership, to record.Offset) error {
	if err := startMirrored(p, l, to); err != nil {
		return err
	}
	p.advanceEnds() // followers are to have the same start
	return nil
}

func startMirrored(p *Partition, l *Leadership, to record.Offset) error {
	p.fence.RLock()
	defer p.fence.RUnlock()
	if err := checkMirror(p, l); err != nil {
		return err
	}
	log := p.log.Load()
	ends, err := logEnds(log)
	if err != nil || to <= ends.Start {
		return err
	}
	if ends.Start < ends.End && to <= ends.End {
		return log.SetStart(min(to, max(record.Offset(p.hw.Load()), ends.Start)))
	}
	return log.StartAt(to)
}
