package txn

import (
	"context"
	"sync"
)

// lanes carry items to nodes. The lane of a node is a queue and, while there are items, one goroutine that sends them,
// one batch after another: what comes while a batch is under way shares the next one. The users of lanes bound how
// many items there are.
type lanes[T any] struct {
	most    int         // items of a batch
	start   func(int32) // starts the goroutine of a node
	cancel  context.CancelFunc
	running sync.WaitGroup // added to with mu held, while not closed

	mu     sync.Mutex
	queues map[int32][]T // guarded by mu; a node has one while its goroutine runs
	closed bool          // guarded by mu
}

// newLanes makes lanes whose batches are sent by send, which returns soon after its context has ended. That ends
// with ctx, or with close.
func newLanes[T any](ctx context.Context, most int, send func(ctx context.Context, node int32, batch []T)) *lanes[T] {
	l := &lanes[T]{most: most, queues: map[int32][]T{}}
	ctx, l.cancel = context.WithCancel(ctx)
	l.start = func(node int32) {
		l.running.Go(func() {
			for batch := l.takeBatch(node); len(batch) > 0; batch = l.takeBatch(node) {
				send(ctx, node, batch)
			}
		})
	}
	return l
}

// put queues items for a node. It returns false if the lanes are closed.
func (l *lanes[T]) put(node int32, items ...T) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	queue, runs := l.queues[node]
	l.queues[node] = append(queue, items...)
	if !runs {
		l.start(node)
	}
	return true
}

// takeBatch takes the next items for a node. If there are none, its goroutine has to end.
func (l *lanes[T]) takeBatch(node int32) []T {
	l.mu.Lock()
	defer l.mu.Unlock()
	queue := l.queues[node]
	n := min(len(queue), l.most)
	if n == 0 {
		delete(l.queues, node)
		return nil
	}
	l.queues[node] = queue[n:]
	return queue[:n:n]
}

// remove takes items out of the queues.
func (l *lanes[T]) remove(isWanted func(T) bool) (removed []T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for node, queue := range l.queues {
		var kept []T
		for _, item := range queue {
			if isWanted(item) {
				removed = append(removed, item)
			} else {
				kept = append(kept, item)
			}
		}
		l.queues[node] = kept
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
