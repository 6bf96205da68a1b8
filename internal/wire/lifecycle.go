package wire

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/leatstream/leat/internal/budget"
)

// ErrElsewhere is wrapped by the reason for which a session ends a connection if the client should try again, and better at
// another server. Clients take the orderly end of a connection on which they were told nothing but API versions for a lack of
// credentials, and some give up for good then; so such a connection is reset.
var ErrElsewhere = errors.New("the client is to ask another server")

// These are reasons why connections end.
var (
	errShutdown = errors.New("the server shuts down")
	errIdle     = errors.New("nothing was sent for longer than the idle time-out")
	errHalfSent = errors.New("the rest of a request did not come in time")
	errNoReader = errors.New("the client does not read its answers")
)

// connState is the state of a connection.
//
//	handshaking, with TLS only
//	    |
//	    v
//	 opening --> reading <--> serving <--> blocked --> queued --> serving
//	              |   ^          |
//	              v   |          |
//	           suspended         |
//	           or muted          |
//	                             v
//	reading, serving ------> draining
//	any -------------------> closed
//
// The connection's goroutine makes all transitions but two: any goroutine may close the
// connection, or wake a suspended or muted one. The goroutine that wakes or closes such a
// connection starts a goroutine for it. A connection may be muted before its session is made. By whose limits it is counted is a state of its own:
// connClass.
type connState uint8

const (
	connOpening     connState = iota // the handler makes its session
	connHandshaking                  // its goroutine does the handshake of TLS, of a listener that asks for it
	connReading                      // its goroutine waits for requests, or for a buffer to read them into
	connServing                      // its goroutine hands requests to the session
	connBlocked                      // its goroutine waits until there is room for more answers
	connQueued                       // its goroutine waits in line for work memory
	connSuspended                    // it has no goroutine: the idle poller waits for requests
	connMuted                        // it has no goroutine: no requests are read until its time is over
	connDraining                     // no more requests are served; its last answers are sent
	connClosed                       // nothing is read or sent any more
)

// lifecycle is a connection's state.
type lifecycle struct {
	mu     sync.Mutex
	state  connState     // guarded by mu
	reason error         // why it was closed; guarded by mu
	ended  chan struct{} // closed when the connection is; made by the first closedChan; guarded by mu
}

// changeState makes a transition. It returns false when the connection is closed.
func (l *lifecycle) changeState(state connState) (open bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state == connClosed {
		return false
	}
	l.state = state
	return true
}

// hasNoGoroutine tells whether a connection in the state has no goroutine.
func (s connState) hasNoGoroutine() bool { return s == connSuspended || s == connMuted }

// wake changes the state from suspended or muted to reading. If it returns true, the caller must start a
// goroutine for the connection.
func (l *lifecycle) wake() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.state.hasNoGoroutine() {
		return false
	}
	l.state = connReading
	return true
}

// wakeFrom is wake for one of these states only.
func (l *lifecycle) wakeFrom(state connState) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state != state {
		return false
	}
	l.state = connReading
	return true
}

// close makes the last transition. It returns the state before, and whether this is the first
// call.
func (l *lifecycle) close(reason error) (before connState, first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before = l.state
	if before == connClosed {
		return before, false
	}
	l.state, l.reason = connClosed, reason
	if l.ended != nil {
		close(l.ended)
	}
	return before, true
}

// closedChan returns a channel that is closed when the connection is.
func (l *lifecycle) closedChan() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended == nil {
		l.ended = make(chan struct{})
		if l.state == connClosed {
			close(l.ended)
		}
	}
	return l.ended
}

// connContext is a context that ends with a connection, and has its client's address (budget.OriginOf).
type connContext struct {
	done <-chan struct{}
	from netip.Addr
}

func (c connContext) Done() <-chan struct{} { return c.done }

func (c connContext) Err() error {
	select {
	case <-c.done:
		return context.Canceled
	default:
		return nil
	}
}

func (connContext) Deadline() (time.Time, bool) { return time.Time{}, false }

func (c connContext) Value(key any) any {
	if key == (budget.Origin{}) {
		return c.from
	}
	return nil
}

// currentState is the present state.
func (l *lifecycle) currentState() connState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

// closeReason is why the connection was closed.
func (l *lifecycle) closeReason() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reason
}
