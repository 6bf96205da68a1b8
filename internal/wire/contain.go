package wire

import "runtime/debug"

// Contain makes a panic of work that a request has left behind cost its connection, not
// the process. Such work runs on whatever goroutine ends its wait: a timer's, the
// storage's, another connection's, which must not pay for it. It is for deferring: what
// is called there for a request defers it first.
func (c *Conn) Contain() {
	if v := recover(); v != nil { //nolint:revive // callers defer it
		c.Close(&panicError{v, debug.Stack()})
	}
}
