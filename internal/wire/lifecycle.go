package wire

import (
	"context"
	"errors"
	"sync"
	"time"
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
//	opening --> reading <--> serving <--> blocked --> queued --> serving
//	             |   ^          |
//	             v   |          |
//	          suspended         |
//	                            v
//	reading, serving ------> draining
//	any -------------------> closed
//
// The connection's goroutine makes all transitions but two: any goroutine may close the
// connection, or wake a suspended one. The goroutine that wakes or closes a suspended
// connection starts a goroutine for it. By whose limits it is counted is a state of its own:
// connClass.
type connState uint8

const (
	connOpening   connState = iota // the handler makes its session
	connReading                    // its goroutine waits for requests, or for a buffer to read them into
	connServing                    // its goroutine hands requests to the session
	connBlocked                    // its goroutine waits until there is room for more answers
	connQueued                     // its goroutine waits in line for work memory
	connSuspended                  // it has no goroutine: the idle poller waits for requests
	connDraining                   // no more requests are served; its last answers are sent
	connClosed                     // nothing is read or sent any more
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

// wake changes the state from suspended to reading. If it returns true, the caller must start a
// goroutine for the connection.
func (l *lifecycle) wake() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state != connSuspended {
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

// connContext is a context that ends with a connection.
type connContext struct{ done <-chan struct{} }

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

func (connContext) Value(any) any { return nil }

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
