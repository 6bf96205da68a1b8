package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/admin"
)

// heldBackTime is how long describeHeldBack waits for the brokers.
const heldBackTime = 3 * time.Second

// ends are the offsets at which consume --exit stops, one for each partition. The client's
// goroutines change them when a group assigns or revokes partitions.
type ends struct {
	at admin.Position // in each partition

	mu struct {
		sync.Mutex
		assigned        bool                       // the group has assigned partitions to us, perhaps none
		partitionsKnown bool                       // left has been filled in
		left            map[string]map[int32]int64 // the end of each partition that has not reached it
	}
}

func newEnds(at admin.Position) *ends {
	e := &ends{at: at}
	e.mu.left = map[string]map[int32]int64{}
	return e
}

// addEnds adds the ends of the partitions that have records between from and to.
func (e *ends) addEnds(from, to kadm.Offsets) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.mu.partitionsKnown = true
	to.Each(func(end kadm.Offset) {
		begin, _ := from.Lookup(end.Topic, end.Partition)
		if begin.At >= end.At {
			return
		}
		if e.mu.left[end.Topic] == nil {
			e.mu.left[end.Topic] = map[int32]int64{}
		}
		e.mu.left[end.Topic][end.Partition] = end.At
	})
}

// admitRecord tells whether a record lies before the end of its partition. It drops the partition
// from those that are left when the record is its last one.
func (e *ends) admitRecord(r *kgo.Record) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	end, ok := e.mu.left[r.Topic][r.Partition]
	if !ok {
		return false
	}
	if r.Offset >= end-1 {
		delete(e.mu.left[r.Topic], r.Partition)
	}
	return r.Offset < end
}

// allReached tells whether all partitions have reached their ends.
func (e *ends) allReached() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ps := range e.mu.left {
		if len(ps) > 0 {
			return false
		}
	}
	return e.mu.partitionsKnown
}

// onAssigned is called by the client with the partitions that the group assigns to us, and adds their
// ends.
func (e *ends) onAssigned(group string, pos admin.Position) func(context.Context, *kgo.Client, map[string][]int32) {
	return func(ctx context.Context, cl *kgo.Client, got map[string][]int32) {
		e.noteAssigned(ctx, cl, got)
		adm := kadm.NewClient(cl)
		var from, to kadm.Offsets
		commits, err := adm.FetchOffsets(ctx, group)
		if err != nil {
			commits = nil // the client fetches them too, and reports its failure
		}
		for t, ps := range got {
			begin, err := resolvePositionIn(ctx, adm, t, pos, ps)
			if err != nil {
				continue // the client reports it when it fetches
			}
			begin.Each(func(o kadm.Offset) {
				if c, ok := commits.Lookup(o.Topic, o.Partition); ok && c.At >= 0 {
					o.At = c.At
				}
				from.Add(o)
			})
			end, err := resolvePositionIn(ctx, adm, t, e.at, ps)
			if err == nil {
				end.Each(to.Add)
			}
		}
		e.addEnds(from, to)
	}
}

// noteAssigned notes that the group has assigned partitions to us.
func (e *ends) noteAssigned(context.Context, *kgo.Client, map[string][]int32) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.mu.assigned = true
}

// isAssigned tells whether the group has assigned partitions to us.
func (e *ends) isAssigned() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.mu.assigned
}

// describeMissing names a partition that has not reached its end, and the end.
func (e *ends) describeMissing() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, topic := range sortedKeys(e.mu.left) {
		for _, p := range slices.Sorted(maps.Keys(e.mu.left[topic])) {
			return fmt.Sprintf("partition %d of topic %s should have records up to offset %d", p, topic, e.mu.left[topic][p]-1)
		}
	}
	return "the group has assigned no partition yet"
}

// describeHeldBack names a partition in which an open transaction holds readers of committed records back before the end,
// and the verb that shows the transaction; "": there is none, or the brokers do not answer.
func (e *ends) describeHeldBack(ctx context.Context, adm *kadm.Client) string {
	e.mu.Lock()
	left := map[string]map[int32]int64{}
	for topic, ps := range e.mu.left {
		if len(ps) > 0 {
			left[topic] = maps.Clone(ps)
		}
	}
	e.mu.Unlock()
	if len(left) == 0 {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, heldBackTime)
	defer cancel()
	topics := sortedKeys(left)
	stable, err := adm.ListCommittedOffsets(ctx, topics...)
	if err != nil {
		return ""
	}
	for _, topic := range topics {
		for _, p := range slices.Sorted(maps.Keys(left[topic])) {
			if o, ok := stable.Lookup(topic, p); ok && o.Err == nil && o.Offset < left[topic][p] {
				return fmt.Sprintf("an open transaction holds readers of committed records back in partition %d of topic %s, from offset %d on; \"leat txn list --topic %s\" shows it",
					p, topic, o.Offset, topic)
			}
		}
	}
	return ""
}

// onRevoked is called by the client with the partitions that other members got.
func (e *ends) onRevoked(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for t, ps := range gone {
		for _, p := range ps {
			delete(e.mu.left[t], p)
		}
	}
}
