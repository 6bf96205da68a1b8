package txn

import (
	"context"
	"sync"
)

// lanes carry items to nodes. A lane is a queue and, while there are items, one goroutine that sends them,
// one batch after another: what comes while a batch is under way shares the next one. A lane waits for no other. The users of
// lanes bound how many items there are.
type lanes[T any] struct {
	most    int        // items of a batch
	start   func(lane) // starts the goroutine of a lane
	cancel  context.CancelFunc
	running sync.WaitGroup // added to with mu held, while not closed

	mu     sync.Mutex
	queues map[lane][]T // guarded by mu; a lane has one while its goroutine runs
	closed bool         // guarded by mu
}

// lane names a lane to a node.
type lane struct {
	node int32
	// coordinator is the partition of Topic that all items are for; noCoordinator: any.
	coordinator int32
}

// noCoordinator is that of the only lane to a node.
const noCoordinator int32 = -1

// newLanes makes lanes whose batches are sent by send, which returns soon after its context has ended. That ends
// with ctx, or with close.
func newLanes[T any](ctx context.Context, most int, send func(ctx context.Context, to lane, batch []T)) *lanes[T] {
	l := &lanes[T]{most: most, queues: map[lane][]T{}}
	ctx, l.cancel = context.WithCancel(ctx)
	l.start = func(to lane) {
		l.running.Go(func() {
			for batch := l.takeBatch(to); len(batch) > 0; batch = l.takeBatch(to) {
				send(ctx, to, batch)
			}
		})
	}
	return l
}

// put queues items for a lane. It returns false if the lanes are closed.
func (l *lanes[T]) put(to lane, items ...T) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	queue, runs := l.queues[to]
	l.queues[to] = append(queue, items...)
	if !runs {
		l.start(to)
	}
	return true
}

// takeBatch takes the next items of a lane. If there are none, its goroutine has to end.
func (l *lanes[T]) takeBatch(from lane) []T {
	l.mu.Lock()
	defer l.mu.Unlock()
	queue := l.queues[from]
	n := min(len(queue), l.most)
	if n == 0 {
		delete(l.queues, from)
		return nil
	}
	l.queues[from] = queue[n:]
	return queue[:n:n]
}

// remove takes items out of the queues.
func (l *lanes[T]) remove(isWanted func(T) bool) (removed []T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for to, queue := range l.queues {
		var kept []T
		for _, item := range queue {
			if isWanted(item) {
				removed = append(removed, item)
			} else {
				kept = append(kept, item)
			}
		}
		l.queues[to] = kept
	}
	return removed
}

// close ends the contexts of what is under way, has what is queued sent with an ended one, and waits for that.
func (l *lanes[T]) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.cancel()
	l.running.Wait()
}
