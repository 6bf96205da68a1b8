package cluster

import (
	"context"
	"sync"

	"github.com/leatstream/leat/internal/wire"
)

// worker serves those requests of other nodes that may wait. Each has a goroutine of its own, so that
// its connection's goroutine goes on reading.
type worker struct {
	most int // requests at a time
	// link returns the context of a request, which ends with the request's connection or with the worker.
	link    func(c *wire.Conn) (context.Context, context.CancelFunc)
	cancel  context.CancelFunc // ends all of these contexts
	running sync.WaitGroup     // of the goroutines; added to with mu held, while not closed

	mu     sync.Mutex
	count  int  // guarded by mu: the requests that are served
	closed bool // guarded by mu
}

func newWorker(ctx context.Context, most int) *worker {
	ctx, cancel := context.WithCancel(ctx)
	w := &worker{most: most, cancel: cancel}
	w.link = func(c *wire.Conn) (context.Context, context.CancelFunc) {
		own, end := context.WithCancel(ctx)
		stop := context.AfterFunc(c.Context(), end)
		return own, func() {
			stop()
			end()
		}
	}
	return w
}

// serve has a request served on a goroutine, or refuses it if there are too many. serve must have it
// answered, soon after the context has ended. It uses the body only if that is kept.
func (w *worker) serve(r *wire.Request, serve func(ctx context.Context)) (isStarted bool) {
	conn := r.Conn // an answered request belongs to others
	isStarted = w.start(func() {
		defer conn.Contain()
		defer w.noteEnd()
		ctx, cancel := w.link(conn)
		defer cancel()
		serve(ctx)
	})
	if !isStarted {
		replyError(r, ErrBusy)
	}
	return isStarted
}

// start starts a goroutine, unless there are too many or the worker is closed.
func (w *worker) start(run func()) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || w.count >= w.most {
		return false
	}
	w.count++
	w.running.Go(run)
	return true
}

func (w *worker) noteEnd() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.count--
}

// close ends the requests that wait, and waits until all are answered.
func (w *worker) close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.cancel()
	w.running.Wait()
}
