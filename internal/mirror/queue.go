package mirror

import (
	"context"
	"sync"
)

// queue has what waits for a goroutine that does it. Any goroutine may add and take.
type queue[T any] struct {
	wake chan struct{} // of size 1; filled: there may be something

	mu    sync.Mutex // guards the fields below
	list  []T
	ended error // why nothing is taken any more; nil: something is
}

func makeQueue[T any]() queue[T] { return queue[T]{wake: make(chan struct{}, 1)} }

// add adds one. The error is that of end.
func (q *queue[T]) add(one T) error {
	q.mu.Lock()
	err := q.ended
	if err == nil {
		q.list = append(q.list, one)
	}
	q.mu.Unlock()
	fill(q.wake)
	return err
}

// take takes at most so many, the first ones, and waits until there is one; ok is false if the context has ended before.
func (q *queue[T]) take(ctx context.Context, most int) (list []T, ok bool) {
	for {
		q.mu.Lock()
		n := min(len(q.list), most)
		list = q.list[:n:n]
		if q.list = q.list[n:]; len(q.list) == 0 {
			q.list = nil
		} else {
			fill(q.wake)
		}
		q.mu.Unlock()
		if ctx.Err() != nil {
			q.putBack(list)
			return nil, false
		}
		if n > 0 {
			return list, true
		}
		select {
		case <-q.wake:
		case <-ctx.Done():
			return nil, false
		}
	}
}

// count is how many wait.
func (q *queue[T]) count() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.list)
}

func (q *queue[T]) putBack(list []T) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.list = append(list, q.list...)
}

// end refuses all that is added from now on, and returns what was not taken.
func (q *queue[T]) end(why error) []T {
	q.mu.Lock()
	defer q.mu.Unlock()
	list := q.list
	q.list, q.ended = nil, why
	return list
}
