package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/admin"
)

// ends are the offsets at which consume --exit stops. The client's goroutines write
// them when partitions come and go.
type ends struct {
	at admin.Position // in each partition

	mu struct {
		sync.Mutex
		inGroup bool                       // a group has assigned partitions, maybe none
		known   bool                       // the partitions are
		left    map[string]map[int32]int64 // the end of each partition that has not reached it
	}
}

func newEnds(at admin.Position) *ends {
	e := &ends{at: at}
	e.mu.left = map[string]map[int32]int64{}
	return e
}

// expect adds the partitions that have something between from and to.
func (e *ends) expect(from, to kadm.Offsets) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.mu.known = true
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

// pass tells whether a record lies before its partition's end, and notes when it is
// the last one.
func (e *ends) pass(r *kgo.Record) bool {
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

// reached tells whether all partitions came to their ends.
func (e *ends) reached() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ps := range e.mu.left {
		if len(ps) > 0 {
			return false
		}
	}
	return e.mu.known
}

// assigned is told which partitions a group's member got: it notes their ends.
func (e *ends) assigned(group string, pos admin.Position) func(context.Context, *kgo.Client, map[string][]int32) {
	return func(ctx context.Context, cl *kgo.Client, got map[string][]int32) {
		e.noteAssigned(ctx, cl, got)
		adm := kadm.NewClient(cl)
		var from, to kadm.Offsets
		commits, err := adm.FetchOffsets(ctx, group)
		if err != nil {
			commits = nil // the client's own fetch of them tells
		}
		for t, ps := range got {
			begin, err := placesIn(ctx, adm, t, pos, ps)
			if err != nil {
				continue // so do its fetches
			}
			begin.Each(func(o kadm.Offset) {
				if c, ok := commits.Lookup(o.Topic, o.Partition); ok && c.At >= 0 {
					o.At = c.At
				}
				from.Add(o)
			})
			end, err := placesIn(ctx, adm, t, e.at, ps)
			if err == nil {
				end.Each(to.Add)
			}
		}
		e.expect(from, to)
	}
}

// noteAssigned notes that the group has let us in.
func (e *ends) noteAssigned(context.Context, *kgo.Client, map[string][]int32) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.mu.inGroup = true
}

// isAssigned tells whether the group has let us in.
func (e *ends) isAssigned() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.mu.inGroup
}

// missing names a partition that has not come to its end, and where that is.
func (e *ends) missing() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, topic := range sortedKeys(e.mu.left) {
		for _, p := range slices.Sorted(maps.Keys(e.mu.left[topic])) {
			return fmt.Sprintf("partition %d of topic %s should have records up to offset %d", p, topic, e.mu.left[topic][p]-1)
		}
	}
	return "the group has assigned no partition yet"
}

// revoked is told which partitions went to other members.
func (e *ends) revoked(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for t, ps := range gone {
		for _, p := range ps {
			delete(e.mu.left[t], p)
		}
	}
}
