package tunnel

import (
	"context"
	"sync"

	"github.com/leatstream/leat/internal/peer"
)

// agentEnd is the agent's end of the bytes of one connection, which it sends as requests.
type agentEnd struct {
	pipe

	conn    *peer.Conn
	pending chan peer.Pending // that were sent, the oldest first; with room for all that may be
	cancel  context.CancelFunc
	work    sync.WaitGroup

	under int // requests that are not answered; guarded by pipe.mu
}

func newAgentEnd(ctx context.Context, c *peer.Conn) *agentEnd {
	ctx, cancel := context.WithCancel(ctx)
	e := &agentEnd{conn: c, pending: make(chan peer.Pending, mostRequests), cancel: cancel}
	e.init()
	e.work.Go(func() { e.sendRequests(ctx) })
	e.work.Go(func() { e.takeAnswers(ctx) })
	return e
}

// sendRequests sends a request when there are bytes, or fewer requests wait than have to.
func (e *agentEnd) sendRequests(ctx context.Context) {
	defer close(e.pending)
	for {
		body, ok := e.next()
		if !ok {
			return
		}
		p, err := e.conn.Begin(ctx, peer.AgentBytes, body, mostBytes)
		if err != nil {
			e.end(err)
			return
		}
		e.pending <- p
	}
}

// next waits until a request is to be sent, and takes its bytes; false: it has ended.
func (e *agentEnd) next() (body []byte, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for e.err == nil && (e.under >= mostRequests || len(e.out) == 0 && (e.under >= parkedRequests || e.unread >= mostUnsent)) {
		e.moved.Wait()
	}
	if e.err != nil {
		return nil, false
	}
	e.under++
	return e.nextLocked(), true
}

// takeAnswers takes the answers in the order of the requests.
func (e *agentEnd) takeAnswers(ctx context.Context) {
	for p := range e.pending {
		b, err := p.Wait(ctx)
		if err != nil {
			e.end(err)
			continue
		}
		e.mu.Lock()
		e.under--
		if e.err == nil {
			e.takeLocked(b)
		}
		e.mu.Unlock()
	}
}

// why is why it has ended.
func (e *agentEnd) why() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.err
}

// Read reads bytes of the node.
func (e *agentEnd) Read(b []byte) (n int, err error) { return e.read(b) }

// Write sends bytes to the node.
func (e *agentEnd) Write(b []byte) (n int, err error) {
	for n < len(b) {
		some, err := e.put(b[n:])
		if err != nil {
			return n, err
		}
		n += some
	}
	return n, nil
}

// Close ends it, and the connection, and waits for what it does.
func (e *agentEnd) Close() error {
	e.end(errEnded)
	e.cancel()
	e.conn.Close()
	e.work.Wait()
	return nil
}
