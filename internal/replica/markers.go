package replica

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage"
)

// Marker ends a producer's transaction in a partition that this node leads.
type Marker struct {
	Partition *Partition
	Producer  int64
	Epoch     int16 // of the marker: with version 2 the one after that of the transaction's records
	record.Marker
	// Version is 2 if each transaction of the producer has an epoch of its own (KIP-890), else 0 or 1.
	Version int16
}

// markersWait is how long a marker waits for the in-sync replicas.
const markersWait = 30 * time.Second

// markersWrite is one call of WriteMarkers.
type markersWrite struct {
	errs  []error
	waits []Waiter
	left  atomic.Int32 // markers that wait, and 1 for the call itself
	done  func(errs []error)
}

// WriteMarkers appends markers, those of each partition with one write, and makes one commit for all. done is
// called once with an error for each, by any goroutine, when each is either on the disks of all in-sync
// replicas or has failed, which it may have after it was appended. A marker that comes again is appended again.
// A marker has ErrProducerFenced or ErrCoordinatorFenced if the partition knows a later epoch, or ErrTimedOut after
// half a minute. The call waits for this node's disk.
func (s *Set) WriteMarkers(markers []Marker, done func(errs []error)) {
	w := &markersWrite{errs: make([]error, len(markers)), waits: make([]Waiter, len(markers)), done: done}
	w.left.Store(1)
	order := make([]int, len(markers))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return markers[i].Partition.Compare(markers[j].Partition) })
	for len(order) > 0 {
		p, n := markers[order[0]].Partition, 1
		for n < len(order) && markers[order[n]].Partition == p {
			n++
		}
		w.writeTo(p, markers, order[:n])
		order = order[n:]
	}
	s.Commit()
	w.Complete(-1, nil)
}

// writeTo appends the markers with the given indexes to their partition, and begins to wait for them.
func (w *markersWrite) writeTo(p *Partition, markers []Marker, indexes []int) {
	now := time.Now().UnixMilli()
	items := make([]storage.Item, 0, len(indexes))
	slots := make([]int, 0, len(indexes))
	for _, i := range indexes {
		m := &markers[i]
		b, err := record.BuildMarker(now, m.Producer, m.Epoch, m.Marker)
		if w.errs[i] = cmp.Or(p.checkInSync(), err); w.errs[i] == nil {
			items = append(items, storage.Item{Batch: b, Claim: storage.Claim{Version: m.Version}})
			slots = append(slots, i)
		}
	}
	if len(items) == 0 {
		return
	}
	epoch := p.appendItems(items)
	for j, i := range slots {
		if w.errs[i] = items[j].Err; w.errs[i] != nil {
			continue
		}
		w.left.Add(1)
		w.waits[i] = Waiter{Owner: w, Slot: int32(i), Epoch: epoch, Acks: AcksAll, Deadline: p.host.Now() + markersWait}
		p.Wait(&w.waits[i], items[j].Next)
	}
}

// Complete ends the wait of one marker (-1: of the call itself).
func (w *markersWrite) Complete(slot int32, err error) {
	if slot >= 0 {
		w.errs[slot] = err
	}
	if w.left.Add(-1) == 0 {
		w.done(w.errs)
	}
}
